//! An IP tunnel in the hands of its user.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use event_listener::EventListener;
use futures_core::Stream;
use futures_sink::Sink;
use ipnet::{IpNet, Ipv6Net};

use super::common::{common, receives};
use super::events::Mode;
use super::info::{Capsule, CloseReason, Info, TunnelId};
use super::shared::{Handle, Receiving};
use crate::embed::ip::{self, Saying};
use crate::embed::wait;
use crate::error::Error;
use crate::tunnel::ip::IpEvent;
use crate::wire::ip::{AddressRange, AssignedAddress, DnsConfig};
use crate::worker::IpInfo;

/// An IP tunnel: whole packets of IPv4 and IPv6 to a part of the network and back (RFC 9484).
///
/// Which addresses may be used, and what can be reached, both ends tell each other in the course of the tunnel. Most
/// relays assign an address and advertise routes at once: [`assigned`](Self::assigned) waits for the address,
/// [`ip_info`](Self::ip_info) has everything that is known, and [`recv_ip_event`](Self::recv_ip_event) tells of
/// changes. Nothing here looks at the addresses of packets; a relay drops those whose source it has not assigned.
///
/// Every method takes `&self` and may be called from any thread and any executor: threads and tasks share a tunnel in
/// an [`Arc`](std::sync::Arc). As a `futures_core::Stream` it gives what [`recv`](Self::recv) gives and ends when the
/// tunnel does; as a `futures_sink::Sink` it takes packets, and waits while there is no room. Dropping it closes the
/// tunnel.
///
/// ```no_run
/// # fn answer_to(packet: &bytes::Bytes) -> Option<bytes::Bytes> { None }
/// # async fn example(client: bauta::Client) -> Result<(), bauta::Error> {
/// let tunnel = client.ip("*").await?;
/// let own = tunnel.assigned().await?;
/// println!("we are {}", own[0].prefix);
/// loop {
///     let packet = tunnel.recv().await?;
///     if let Some(answer) = answer_to(&packet) {
///         tunnel.send_ip_packet(answer).await?;
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct IpTunnel {
    handle: Handle,
    receiving: Receiving,
    /// What the `Sink` waits for.
    sending: Option<EventListener>,
    /// What closing the `Sink` waits for.
    closing: Option<EventListener>,
}

/// Packets.
impl IpTunnel {
    pub(in crate::embed) fn new(handle: Handle) -> Self {
        Self {
            handle,
            receiving: Receiving::default(),
            sending: None,
            closing: None,
        }
    }

    /// Sends an IP packet. It waits while 1,000 packets wait for the worker; behind that, a connection that is
    /// congested drops packets as a network does.
    ///
    /// `packet` goes out as it is: checksums and hop limit are the caller's. Bytes behind the packet are cut off.
    /// What a relay has not told a route to, or not assigned the source of, it drops, and so most packets that are
    /// sent before it has said anything.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`](crate::ErrorKind::Limit) when it is larger than [`IpInfo::mtu`]; the source of the error
    /// is [`SendError::PacketTooLarge`](crate::SendError::PacketTooLarge), which has both sizes.
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) when it is no packet, with a
    /// [`PacketError`](crate::PacketError) as source. And when the tunnel is over, why.
    pub async fn send_ip_packet(&self, packet: impl Into<Bytes>) -> Result<(), Error> {
        let (packet, shared) = (ip::packet(packet.into())?, &self.handle.shared);
        wait::until(shared.writable(), || shared.send_packet(&packet, false)).await
    }

    /// As [`send_ip_packet`](Self::send_ip_packet), on a plain thread.
    ///
    /// # Errors
    /// As [`send_ip_packet`](Self::send_ip_packet).
    pub fn send_ip_packet_blocking(&self, packet: impl Into<Bytes>) -> Result<(), Error> {
        let (packet, shared) = (ip::packet(packet.into())?, &self.handle.shared);
        wait::until_blocking(shared.writable(), || shared.send_packet(&packet, false))
    }

    /// As [`send_ip_packet`](Self::send_ip_packet), without waiting: whether the packet was taken. After `false`,
    /// [`Event::Writable`](crate::Event::Writable) follows.
    ///
    /// # Errors
    /// As [`send_ip_packet`](Self::send_ip_packet).
    pub fn try_send_ip_packet(&self, packet: impl Into<Bytes>) -> Result<bool, Error> {
        let packet = ip::packet(packet.into())?;
        let sent = self.handle.shared.send_packet(&packet, true);
        Ok(sent.transpose()?.is_some())
    }

    /// The next packet. Those come whose destination is assigned to this end, or on a route that it advertises.
    /// Cancel-safe: a future that is dropped has taken nothing.
    ///
    /// Packets that find the queue full ([`ClientBuilder::receive_queue`](crate::ClientBuilder::receive_queue))
    /// displace the oldest one there, which [`Info::receive_dropped`] counts. In message mode this and
    /// [`Events`](crate::Events) take from one queue, and a packet goes to whoever comes first: ask one of them.
    ///
    /// # Errors
    /// Why the tunnel is over, once everything that came before was received.
    pub async fn recv(&self) -> Result<Bytes, Error> {
        let shared = &self.handle.shared;
        self.handle.taken(|| shared.recv_packet()).await
    }
}

common!(IpTunnel);
receives!(IpTunnel, Bytes, recv_packet);

/// Addresses, routes and names. Each list that is told is the full one and replaces the one before.
impl IpTunnel {
    /// Asks the other end for addresses (RFC 9484 §4.7.2): each a wish, `0.0.0.0/32` and `::/128` for any single
    /// address, `::/64` for any prefix of that length. Returns the ids under which the answers will come, none of them
    /// 0, in the order of the wishes.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`](crate::ErrorKind::Limit) while 64 requests wait for an answer, and after 1,024 of them;
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) with an [`IpRuleError`](crate::IpRuleError) as
    /// source: no wish, or one with bits behind its prefix length. When the tunnel is not open, why.
    pub async fn request_addresses(&self, wishes: &[IpNet]) -> Result<Vec<u64>, Error> {
        (self.handle.shared)
            .say(Saying::Request(wishes.to_vec()))
            .await
    }

    /// As [`request_addresses`](Self::request_addresses), on a plain thread.
    ///
    /// # Errors
    /// As there.
    pub fn request_addresses_blocking(&self, wishes: &[IpNet]) -> Result<Vec<u64>, Error> {
        (self.handle.shared).say_blocking(Saying::Request(wishes.to_vec()))
    }

    /// Says which addresses the other end may use as source (RFC 9484 §4.7.1): entries with the id of a request answer
    /// that, [`AssignedAddress::unprompted`] ones do not. A [refusal](crate::RequestedAddress::refusal) is told this
    /// once and no part of the list.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) with an [`IpRuleError`](crate::IpRuleError) as
    /// source: an id that the other end has not asked under, two answers to one request, a prefix with bits behind its
    /// length. [`ErrorKind::Limit`](crate::ErrorKind::Limit) for a list above 64 KiB. When the tunnel is not open,
    /// why.
    pub async fn assign_addresses(&self, list: Vec<AssignedAddress>) -> Result<(), Error> {
        self.say(Saying::Assign(list)).await
    }

    /// As [`assign_addresses`](Self::assign_addresses), on a plain thread.
    ///
    /// # Errors
    /// As there.
    pub fn assign_addresses_blocking(&self, list: Vec<AssignedAddress>) -> Result<(), Error> {
        self.say_blocking(Saying::Assign(list))
    }

    /// Says what the other end can reach here (RFC 9484 §4.7.3), in any order.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) with an [`IpRuleError`](crate::IpRuleError) as
    /// source: two ranges that overlap, for one protocol or for all and one, or a range that ends before it starts.
    /// [`ErrorKind::Limit`](crate::ErrorKind::Limit) for a list above 64 KiB. When the tunnel is not open, why.
    pub async fn advertise_routes(&self, list: Vec<AddressRange>) -> Result<(), Error> {
        self.say(Saying::Routes(list)).await
    }

    /// As [`advertise_routes`](Self::advertise_routes), on a plain thread.
    ///
    /// # Errors
    /// As there.
    pub fn advertise_routes_blocking(&self, list: Vec<AddressRange>) -> Result<(), Error> {
        self.say_blocking(Saying::Routes(list))
    }

    /// Says which name servers are for what can be reached here (draft-ietf-masque-connect-ip-dns §3). Routes to them
    /// go first.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) with an [`IpRuleError`](crate::IpRuleError) as
    /// source; [`ErrorKind::Limit`](crate::ErrorKind::Limit) for more than 1,024 servers and domains. When the tunnel
    /// is not open, why.
    pub async fn assign_dns(&self, list: Vec<DnsConfig>) -> Result<(), Error> {
        self.say(Saying::Dns(list)).await
    }

    /// As [`assign_dns`](Self::assign_dns), on a plain thread.
    ///
    /// # Errors
    /// As there.
    pub fn assign_dns_blocking(&self, list: Vec<DnsConfig>) -> Result<(), Error> {
        self.say_blocking(Saying::Dns(list))
    }

    /// Says which prefixes of NAT64 there are (draft-ietf-masque-connect-ip-dns §4).
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) with an [`IpRuleError`](crate::IpRuleError) as
    /// source: a prefix length other than 32, 40, 48, 56, 64 and 96. When the tunnel is not open, why.
    pub async fn assign_pref64(&self, list: Vec<Ipv6Net>) -> Result<(), Error> {
        self.say(Saying::Pref64(list)).await
    }

    /// As [`assign_pref64`](Self::assign_pref64), on a plain thread.
    ///
    /// # Errors
    /// As there.
    pub fn assign_pref64_blocking(&self, list: Vec<Ipv6Net>) -> Result<(), Error> {
        self.say_blocking(Saying::Pref64(list))
    }

    async fn say(&self, saying: Saying) -> Result<(), Error> {
        self.handle.shared.say(saying).await.map(drop)
    }

    fn say_blocking(&self, saying: Saying) -> Result<(), Error> {
        self.handle.shared.say_blocking(saying).map(drop)
    }

    /// What both ends have told each other, and the MTU; `None` before the tunnel is open. After the end it is what
    /// was known last.
    #[must_use]
    pub fn ip_info(&self) -> Option<IpInfo> {
        self.handle.shared.ip_info()
    }

    /// Waits until this end has an address; at once if it has. All addresses of that moment.
    ///
    /// # Errors
    /// Why the tunnel is over.
    pub async fn assigned(&self) -> Result<Vec<AssignedAddress>, Error> {
        let shared = &self.handle.shared;
        self.handle.taken(|| shared.assigned()).await
    }

    /// As [`assigned`](Self::assigned), on a plain thread.
    ///
    /// # Errors
    /// As there.
    pub fn assigned_blocking(&self) -> Result<Vec<AssignedAddress>, Error> {
        let shared = &self.handle.shared;
        self.handle.taken_blocking(|| shared.assigned())
    }

    /// As [`assigned`](Self::assigned), at most for `timeout`; then there is `None`. A relay that assigns nothing by
    /// itself is [asked](Self::request_addresses).
    ///
    /// # Errors
    /// As there.
    pub async fn assigned_timeout(
        &self,
        timeout: Duration,
    ) -> Result<Option<Vec<AssignedAddress>>, Error> {
        let shared = &self.handle.shared;
        let assigned = self.handle.taken_within(timeout, || shared.assigned());
        assigned.await.transpose()
    }

    /// The same, on a plain thread.
    ///
    /// # Errors
    /// As there.
    pub fn assigned_timeout_blocking(
        &self,
        timeout: Duration,
    ) -> Result<Option<Vec<AssignedAddress>>, Error> {
        let shared = &self.handle.shared;
        let assigned = (self.handle).taken_within_blocking(timeout, || shared.assigned());
        assigned.transpose()
    }

    /// What the other end says next about addresses, routes or names, or what has become of the MTU. Those that nobody
    /// takes are kept, of routes, names and the MTU the last one, of all else 128 at most; [`ip_info`](Self::ip_info)
    /// has the outcome either way.
    ///
    /// An [`IpEvent::Requested`] wants an answer by [`assign_addresses`](Self::assign_addresses).
    ///
    /// # Errors
    /// Why the tunnel is over.
    pub async fn recv_ip_event(&self) -> Result<IpEvent, Error> {
        let shared = &self.handle.shared;
        self.handle.taken(|| shared.recv_ip_event()).await
    }

    /// As [`recv_ip_event`](Self::recv_ip_event), on a plain thread.
    ///
    /// # Errors
    /// As there.
    pub fn recv_ip_event_blocking(&self) -> Result<IpEvent, Error> {
        let shared = &self.handle.shared;
        self.handle.taken_blocking(|| shared.recv_ip_event())
    }

    /// As [`recv_ip_event`](Self::recv_ip_event), at most for `timeout`; then there is `None`.
    ///
    /// # Errors
    /// As there.
    pub async fn recv_ip_event_timeout(&self, timeout: Duration) -> Result<Option<IpEvent>, Error> {
        let shared = &self.handle.shared;
        let received = (self.handle).taken_within(timeout, || shared.recv_ip_event());
        received.await.transpose()
    }

    /// The same, on a plain thread.
    ///
    /// # Errors
    /// As there.
    pub fn recv_ip_event_timeout_blocking(
        &self,
        timeout: Duration,
    ) -> Result<Option<IpEvent>, Error> {
        let shared = &self.handle.shared;
        let received = (self.handle).taken_within_blocking(timeout, || shared.recv_ip_event());
        received.transpose()
    }

    /// The next of these, if it is there already.
    ///
    /// # Errors
    /// As there.
    pub fn try_recv_ip_event(&self) -> Result<Option<IpEvent>, Error> {
        self.handle.shared.recv_ip_event().transpose()
    }
}

/// Is ready while there is room; flushing does nothing, as the worker sends what it is given by itself.
impl Sink<Bytes> for IpTunnel {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self {
            handle, sending, ..
        } = &mut *self;
        let shared = &handle.shared;
        wait::poll_until(sending, shared.writable(), context, || shared.packet_room())
    }

    fn start_send(self: Pin<&mut Self>, packet: Bytes) -> Result<(), Error> {
        // Somebody else may have taken the room: then the packet is lost, as packets get.
        self.try_send_ip_packet(packet).map(drop)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Self {
            handle, closing, ..
        } = &mut *self;
        let shared = &handle.shared;
        shared.begin_close();
        wait::poll_until(closing, shared.changed(), context, || shared.close_reason())
            .map(|_| Ok(()))
    }
}
