//! What the two ends of an IP tunnel's request stream have told each other, seen from one end (RFC 9484 §4.7, §7).
//!
//! ```text
//!            ADDRESS_REQUEST  ─────────►  pending ─ answered by ADDRESS_ASSIGN ─► known for good
//!   we       ADDRESS_ASSIGN   ─────────►  the peer's addresses       each the full list,      the peer
//!            ROUTE_ADVERTISEMENT ──────►  what the peer may reach    replacing the one before
//!            DNS_ASSIGN, PREF64 ───────►
//!            ◄───────── the same, the other way
//! ```
//!
//! Both ends may say everything, so there is one [`Said`] per direction and no client or proxy in here. Operations give
//! the capsule to send. Invariants: a list is replaced as a whole or, on an error, not at all; a refusal is an event,
//! never an address; what a peer makes us hold is bounded by the longest capsule, [`PENDING_MAX`], [`REQUESTS_MAX`] and
//! [`NAMES_MAX`].
//!
//! Not decided here: which addresses to give ([`Pools`](super::Pools)), whether a route is believed, what becomes of
//! link-local traffic (RFC 9484 §7.1), and what an ICMP error says about a packet that may not pass.

mod requests;

use std::net::IpAddr;

use bytes::{Buf, BytesMut};
use ipnet::{IpNet, Ipv6Net};
use thiserror::Error;

use self::requests::Requests;
use super::error::IpError;
use super::inbound::IP_VALUE_MAX;
use super::routes::{AddressSet, Reach, Routes};
use crate::wire::ip::{AddressRange, AssignedAddress, DnsConfig, IpCapsule, RequestedAddress};
use crate::wire::varint;

/// Most address requests of one end that wait for an answer.
pub const PENDING_MAX: usize = 64;

/// Most address requests of one end in the life of a stream: their ids are remembered, since none may come twice.
pub const REQUESTS_MAX: usize = 1024;

/// Most name servers and domains of a DNS_ASSIGN, counted together with the configurations.
pub const NAMES_MAX: usize = 1024;

/// What has changed on an IP tunnel: by a capsule of the peer, or with the path to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpEvent {
    /// ADDRESS_ASSIGN (RFC 9484 §4.7.1): everything that this end may use as source from now on, and the [refusals] of
    /// its requests, which come once and are no addresses.
    ///
    /// [refusals]: AssignedAddress::is_refusal
    Assigned(Vec<AssignedAddress>),
    /// ADDRESS_REQUEST (RFC 9484 §4.7.2): each wants an answer under its id, an address or a
    /// [refusal](RequestedAddress::refusal), in the next list that the peer is assigned.
    Requested(Vec<RequestedAddress>),
    /// ROUTE_ADVERTISEMENT (RFC 9484 §4.7.3): everything that can be reached through the peer from now on.
    Routes(Vec<AddressRange>),
    /// DNS_ASSIGN (draft-ietf-masque-connect-ip-dns §3): all name servers from now on.
    Dns(Vec<DnsConfig>),
    /// PREF64 (the same §4): all prefixes of NAT64 from now on.
    Pref64(Vec<Ipv6Net>),
    /// Packets of this many bytes pass from now on, and no larger ones: the path has become another one, or QUIC has
    /// found out more about it (RFC 9484 §10.1). Never below 1,280, and never on HTTP/2 and HTTP/1.1, which carry
    /// packets of any size.
    Mtu(usize),
}

/// What the checks need of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketFacts {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes, of the same version.
    pub destination: IpAddr,
    /// The upper-layer protocol, behind all extension headers of IPv6 (RFC 9484 §4.8).
    pub protocol: u8,
}

impl PacketFacts {
    /// ICMP in the version of the packet: passes all checks of protocols (RFC 9484 §4.6).
    #[must_use]
    pub const fn is_icmp(&self) -> bool {
        match self.destination {
            IpAddr::V4(_) => self.protocol == 1,
            IpAddr::V6(_) => self.protocol == 58,
        }
    }
}

/// Why a packet may not pass: a forwarding error, which ends nothing (RFC 9484 §7.2).
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, Hash)]
pub enum Violation {
    /// Nobody may send from there.
    #[error("source address is not assigned")]
    Source,
    /// There is no route.
    #[error("destination address is on no route")]
    Destination,
    /// There is a route, for another protocol.
    #[error("protocol is not the one of the route")]
    Protocol,
}

/// The refusal of a request (RFC 9484 §4.7.2).
#[must_use]
pub fn refusal(request: RequestedAddress) -> AssignedAddress {
    let unspecified: IpAddr = match request.prefix {
        IpNet::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpNet::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    AssignedAddress {
        request_id: request.request_id,
        prefix: unspecified.into(),
    }
}

/// Everything that one end has told the other.
#[derive(Debug, Default)]
struct Said {
    /// What the other end may use as source; no refusals.
    assigned: Vec<AssignedAddress>,
    /// The same, to look up.
    prefixes: AddressSet,
    /// Whether anything has ever been assigned.
    has_assigned: bool,
    routes: Routes,
    requests: Requests,
}

impl Said {
    fn assign(&mut self, list: &[AssignedAddress]) {
        let kept = list.iter().filter(|entry| !is_no_address(entry.prefix));
        self.assigned = kept.copied().collect();
        self.prefixes = self.assigned.iter().map(|entry| entry.prefix).collect();
        self.has_assigned |= !self.assigned.is_empty();
    }
}

/// One end of the request stream of an IP tunnel.
#[derive(Debug, Default)]
pub struct Peer {
    ours: Said,
    theirs: Said,
    /// What the peer has told; our own is not needed again.
    dns: Vec<DnsConfig>,
    /// As above.
    pref64: Vec<Ipv6Net>,
    /// Sources of the peer that are allowed without being assigned. None: all, until something is assigned.
    sources: Option<AddressSet>,
}

impl Peer {
    /// Takes a capsule of the peer, as it was [parsed](IpCapsule::parse).
    ///
    /// # Errors
    /// The peer's mistake, which ends the stream.
    pub fn handle_capsule(&mut self, capsule: IpCapsule) -> Result<IpEvent, IpError> {
        Ok(match capsule {
            IpCapsule::AddressAssign(list) => IpEvent::Assigned(self.handle_assign(list)),
            IpCapsule::AddressRequest(list) => {
                self.theirs.requests.add(&list)?;
                IpEvent::Requested(list)
            }
            IpCapsule::RouteAdvertisement(list) => {
                self.theirs.routes = Routes::in_order(list.clone());
                IpEvent::Routes(list)
            }
            IpCapsule::DnsAssign(list) => {
                check_names(&list)?;
                self.dns.clone_from(&list);
                IpEvent::Dns(list)
            }
            IpCapsule::Pref64(list) => {
                self.pref64.clone_from(&list);
                IpEvent::Pref64(list)
            }
        })
    }

    fn handle_assign(&mut self, mut list: Vec<AssignedAddress>) -> Vec<AssignedAddress> {
        for entry in &mut list {
            // The RFC does not say what an answer to nothing is. Its address holds all the same, since the list is the
            // full one: it counts as unprompted.
            if !self.ours.requests.has_seen(entry.request_id) {
                entry.request_id = 0;
            }
        }
        list.retain(|entry| entry.request_id != 0 || !is_no_address(entry.prefix));
        self.ours.requests.answer(&list);
        self.theirs.assign(&list);
        list
    }

    /// Asks for addresses: each a wish, 0.0.0.0/32 and ::/128 for any single address. Gives their ids, in the same
    /// order, and the capsule.
    ///
    /// # Errors
    /// [`IpError::TooManyPending`], [`IpError::TooManyRequests`], [`IpError::Capsule`]: no wish at all, or one with
    /// bits behind its prefix length.
    pub fn request_addresses(
        &mut self,
        wishes: &[IpNet],
    ) -> Result<(Vec<u64>, IpCapsule), IpError> {
        let ids = self.ours.requests.next_ids(wishes.len());
        let named = ids.clone().zip(wishes);
        let list: Vec<_> = named
            .map(|(request_id, prefix)| RequestedAddress {
                request_id,
                prefix: *prefix,
            })
            .collect();
        let capsule = checked(IpCapsule::AddressRequest(list.clone()))?;
        self.ours.requests.add(&list)?;
        Ok((ids.collect(), capsule))
    }

    /// Says what the peer may use as source from now on: the full list, which replaces the one before. An entry with
    /// the id of a request of the peer, now or earlier, answers that; id 0 is unprompted. A [`refusal`] is sent this
    /// once and not kept.
    ///
    /// # Errors
    /// [`IpError::UnknownRequest`], [`IpError::AnsweredTwice`], [`IpError::NoAddress`], [`IpError::CapsuleTooLong`],
    /// [`IpError::Capsule`]: a prefix with bits behind its length.
    pub fn assign_addresses(&mut self, list: Vec<AssignedAddress>) -> Result<IpCapsule, IpError> {
        let mut ids = Vec::new();
        for entry in &list {
            match entry.request_id {
                0 if is_no_address(entry.prefix) => {
                    let prefix = entry.prefix;
                    return Err(IpError::NoAddress { prefix });
                }
                0 => {}
                id if self.theirs.requests.has_seen(id) => ids.push(id),
                id => return Err(IpError::UnknownRequest { id }),
            }
        }
        ids.sort_unstable();
        if let Some((&id, _)) = (ids.iter().zip(ids.iter().skip(1))).find(|(a, b)| a == b) {
            return Err(IpError::AnsweredTwice { id });
        }
        let capsule = checked(IpCapsule::AddressAssign(list.clone()))?;
        self.theirs.requests.answer(&list);
        self.ours.assign(&list);
        Ok(capsule)
    }

    /// Says what the peer may reach through us from now on: the full list, in any order, which replaces the one before.
    ///
    /// # Errors
    /// [`IpError::RangesOverlap`], [`IpError::CapsuleTooLong`], [`IpError::Capsule`]: a range that is none.
    pub fn advertise_routes(&mut self, list: Vec<AddressRange>) -> Result<IpCapsule, IpError> {
        let routes = Routes::new(list)?;
        let list = routes.ranges().to_vec();
        let capsule = checked(IpCapsule::RouteAdvertisement(list))?;
        self.ours.routes = routes;
        Ok(capsule)
    }

    /// Tells the peer all name servers, which replaces what was told before. Routes to them go first
    /// (draft-ietf-masque-connect-ip-dns §5).
    ///
    /// # Errors
    /// [`IpError::TooManyNames`], [`IpError::CapsuleTooLong`], [`IpError::Capsule`].
    pub fn assign_dns(&mut self, list: Vec<DnsConfig>) -> Result<IpCapsule, IpError> {
        check_names(&list)?;
        checked(IpCapsule::DnsAssign(list))
    }

    /// Tells the peer all prefixes of NAT64, which replaces what was told before.
    ///
    /// # Errors
    /// [`IpError::CapsuleTooLong`], [`IpError::Capsule`]: a length that NAT64 does not have.
    pub fn assign_pref64(&mut self, list: Vec<Ipv6Net>) -> Result<IpCapsule, IpError> {
        checked(IpCapsule::Pref64(list))
    }

    /// From now on the peer sends from what is assigned to it, and from these prefixes: the networks behind a site
    /// whose routes are believed. Replaces what was allowed before.
    ///
    /// A relay says so of each client from the start, if only with no prefix. Without it any source will do until the
    /// peer has been assigned an address, as it should where the peer is the way to the rest of the world.
    pub fn allow_sources(&mut self, prefixes: impl IntoIterator<Item = IpNet>) {
        self.sources = Some(prefixes.into_iter().collect());
    }

    /// Uses nothing that the peer has assigned or told: whoever serves it takes no addresses and no name servers of it.
    /// What was assigned to us would be a destination that the peer may send to whatever its routes are.
    pub fn decline(&mut self) {
        self.theirs.assign(&[]);
        self.dns = Vec::new();
        self.pref64 = Vec::new();
    }

    /// What the peer lets us use as source, without refusals.
    #[must_use]
    pub fn assigned(&self) -> &[AssignedAddress] {
        &self.theirs.assigned
    }

    /// What we let the peer use as source, without refusals.
    #[must_use]
    pub fn assigned_to_peer(&self) -> &[AssignedAddress] {
        &self.ours.assigned
    }

    /// What can be reached through the peer, in the order of RFC 9484 §4.7.3.
    #[must_use]
    pub fn routes(&self) -> &[AddressRange] {
        self.theirs.routes.ranges()
    }

    /// What the peer can reach through us, in the same order.
    #[must_use]
    pub fn our_routes(&self) -> &[AddressRange] {
        self.ours.routes.ranges()
    }

    /// The name servers that the peer has told.
    #[must_use]
    pub fn dns(&self) -> &[DnsConfig] {
        &self.dns
    }

    /// The prefixes of NAT64 that the peer has told.
    #[must_use]
    pub fn pref64(&self) -> &[Ipv6Net] {
        &self.pref64
    }

    /// Our requests that the peer has not answered, in the order of their ids.
    #[must_use]
    pub fn pending(&self) -> &[RequestedAddress] {
        self.ours.requests.pending()
    }

    /// The peer's requests that we have not answered, in the order in which they came.
    #[must_use]
    pub fn pending_of_peer(&self) -> &[RequestedAddress] {
        self.theirs.requests.pending()
    }

    /// Whether a packet that came from the peer may pass (RFC 9484 §4.7.1, §7.2).
    ///
    /// Its source is assigned to the peer, or [allowed](Self::allow_sources); any, if nothing was said about that and
    /// the peer never had an address. Its destination is assigned to us, or on a route that we advertise for its
    /// protocol.
    ///
    /// # Errors
    /// [`Violation`]: drop it.
    pub fn check_from_peer(&self, packet: &PacketFacts) -> Result<(), Violation> {
        let PacketFacts {
            source,
            destination,
            ..
        } = *packet;
        let may_send = self.ours.prefixes.contains(source)
            || match &self.sources {
                Some(sources) => sources.contains(source),
                None => !self.ours.has_assigned,
            };
        if !may_send {
            return Err(Violation::Source);
        }
        if self.theirs.prefixes.contains(destination) {
            return Ok(());
        }
        match self.ours.routes.reach(destination, packet) {
            Reach::Open => Ok(()),
            Reach::OtherProtocol => Err(Violation::Protocol),
            Reach::Absent => Err(Violation::Destination),
        }
    }

    /// Whether a packet may go to the peer (RFC 9484 §4.7.3, §7.2).
    ///
    /// Its destination is assigned to the peer, or on a route that the peer advertises for its protocol; its source is
    /// assigned to us, or on a route that we advertise for its protocol. ICMP comes from anywhere: a router on the way
    /// has something to say about a packet of the peer (RFC 9484 §7.2.1).
    ///
    /// # Errors
    /// [`Violation`]: drop it.
    pub fn check_to_peer(&self, packet: &PacketFacts) -> Result<(), Violation> {
        let PacketFacts {
            source,
            destination,
            ..
        } = *packet;
        if !self.ours.prefixes.contains(destination) {
            match self.theirs.routes.reach(destination, packet) {
                Reach::Open => {}
                Reach::OtherProtocol => return Err(Violation::Protocol),
                Reach::Absent => return Err(Violation::Destination),
            }
        }
        if self.theirs.prefixes.contains(source) || packet.is_icmp() {
            return Ok(());
        }
        match self.ours.routes.reach(source, packet) {
            Reach::Open => Ok(()),
            Reach::OtherProtocol => Err(Violation::Protocol),
            Reach::Absent => Err(Violation::Source),
        }
    }
}

/// An address that nobody can have: 0.0.0.0/32 or ::/128. With the id of a request it is the refusal.
fn is_no_address(prefix: IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len() && prefix.addr().is_unspecified()
}

/// Holds a capsule of ours to what a peer accepts, be it one like this.
fn checked(capsule: IpCapsule) -> Result<IpCapsule, IpError> {
    capsule.check()?;
    let kind = capsule.capsule_type();
    let mut encoded = BytesMut::new();
    capsule.encode(&mut encoded);
    encoded.advance(varint::size(kind.0));
    match varint::decode(&encoded) {
        Some((len, _)) if len > IP_VALUE_MAX as u64 => Err(IpError::CapsuleTooLong { kind, len }),
        _ => Ok(capsule),
    }
}

fn check_names(list: &[DnsConfig]) -> Result<(), IpError> {
    let names = |config: &DnsConfig| {
        1 + config.nameservers.len() + config.internal_domains.len() + config.search_domains.len()
    };
    match list.iter().map(names).sum() {
        count if count > NAMES_MAX => Err(IpError::TooManyNames { count }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
