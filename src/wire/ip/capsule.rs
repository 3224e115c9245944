//! ADDRESS_ASSIGN, ADDRESS_REQUEST and ROUTE_ADVERTISEMENT (RFC 9484 §4.7).
//!
//! ```text
//!   ADDRESS_ASSIGN, ADDRESS_REQUEST   { Request ID (i)  Version (8)  Address (32 or 128)  Prefix Length (8) } ...
//!   ROUTE_ADVERTISEMENT               { Version (8)  Start (32 or 128)  End (32 or 128)  Protocol (8) } ...
//! ```
//!
//! Invariants: a capsule that [parses](IpCapsule::parse) passes its own [check](IpCapsule::check), and one that passes
//! parses to the same again when it is encoded. Work is O(n log n) in the length of the value; what is allocated is at
//! most a constant multiple of it, whatever counts inside it promise.
//!
//! Nothing here knows other capsules: whether a request id was used before on the stream is for `tunnel::ip` to say.

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::net::IpAddr;

use bytes::{BufMut, Bytes, BytesMut};
use ipnet::{IpNet, Ipv6Net};

use super::dns::{self, DnsConfig, DnsError};
use super::value::Value;
use crate::wire::capsule::{CapsuleType, encode_capsule};
use crate::wire::varint;

impl CapsuleType {
    /// RFC 9484 §4.7.1.
    pub const ADDRESS_ASSIGN: Self = Self(0x01);
    /// RFC 9484 §4.7.2.
    pub const ADDRESS_REQUEST: Self = Self(0x02);
    /// RFC 9484 §4.7.3.
    pub const ROUTE_ADVERTISEMENT: Self = Self(0x03);
}

/// An entry of ADDRESS_ASSIGN (RFC 9484 §4.7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AssignedAddress {
    /// The request that it answers, or 0.
    pub request_id: u64,
    /// The prefix, any address of which the receiver may use as source; 0.0.0.0/32 or ::/128 with a request id that is
    /// not 0 refuses that request.
    pub prefix: IpNet,
}

/// An entry of ADDRESS_REQUEST (RFC 9484 §4.7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestedAddress {
    /// Names the request; not 0, and never used twice by the same endpoint on a stream.
    pub request_id: u64,
    /// The address that is wished for, all zero for no preference, and the prefix length that is.
    pub prefix: IpNet,
}

/// An entry of ROUTE_ADVERTISEMENT (RFC 9484 §4.7.3). Both ends are of the same version, and included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRange {
    /// The first address.
    pub start: IpAddr,
    /// The last address, not below the first.
    pub end: IpAddr,
    /// The only upper-layer protocol, by its IANA number; 0 for all. ICMP passes whatever it says.
    pub protocol: u8,
}

/// A capsule that changes addressing or routing. Each is the full list and replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IpCapsule {
    /// What the receiver may use as source.
    AddressAssign(Vec<AssignedAddress>),
    /// What the sender would like to use as source. At least one.
    AddressRequest(Vec<RequestedAddress>),
    /// What the receiver may reach through the sender.
    RouteAdvertisement(Vec<AddressRange>),
    /// Name servers (draft-ietf-masque-connect-ip-dns §3).
    DnsAssign(Vec<DnsConfig>),
    /// Prefixes of NAT64 (the same §4).
    Pref64(Vec<Ipv6Net>),
}

/// Why a value is no such capsule, or why a peer would refuse it. The ids are those of the specification digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpCapsuleError {
    /// It ends inside an entry; what follows the last whole entry counts as one (9297-3.3-b).
    #[error("the value ends inside an entry")]
    Truncated,
    /// The version is neither 4 nor 6 (9484-4.7.1-c, 9484-4.7.2-b, 9484-4.7.3-b).
    #[error("IP version {version} is neither 4 nor 6")]
    Version {
        /// As received.
        version: u8,
    },
    /// The prefix is longer than an address (9484-4.7.1-d, 9484-4.7.2-b).
    #[error("prefix length {len} is above {max}")]
    PrefixLength {
        /// As received.
        len: u8,
        /// 32 or 128.
        max: u8,
    },
    /// Bits behind the prefix length are set (9484-4.7.1-e, 9484-4.7.2-b).
    #[error("{prefix} has bits behind its prefix length")]
    HostBits {
        /// The prefix with these bits.
        prefix: IpNet,
    },
    /// An ADDRESS_REQUEST asks for nothing (9484-4.7.2-h).
    #[error("ADDRESS_REQUEST without a request")]
    NoRequest,
    /// An ADDRESS_REQUEST uses the id of unsolicited assignments (9484-4.7.2-a).
    #[error("request id 0 in ADDRESS_REQUEST")]
    RequestIdZero,
    /// An ADDRESS_REQUEST uses an id twice (9484-4.7.2-a).
    #[error("request id {request_id} occurs twice")]
    RequestIdTwice {
        /// The id.
        request_id: u64,
    },
    /// A range ends before it starts, or in the other version (9484-4.7.3-b).
    #[error("there is no range from {start} to {end}")]
    Range {
        /// Its first address.
        start: IpAddr,
        /// Its last address.
        end: IpAddr,
    },
    /// Ranges are not in ascending order of version, protocol and address, or two of one protocol overlap
    /// (9484-4.7.3-d).
    #[error("the range from {start} is not above the one before it")]
    RangeOrder {
        /// The first address of the later one.
        start: IpAddr,
    },
    /// A range of one protocol overlaps one of all protocols (9484-4.7.3-f, 9484-4.7.3-g).
    #[error("the range from {start} for protocol {protocol} overlaps one for all protocols")]
    RangeOverlap {
        /// Its first address.
        start: IpAddr,
        /// Its protocol.
        protocol: u8,
    },
    /// DNS_ASSIGN or PREF64 breaks a rule of its own.
    #[error(transparent)]
    Dns(#[from] DnsError),
}

impl IpCapsule {
    /// The type on the wire.
    #[must_use]
    pub const fn capsule_type(&self) -> CapsuleType {
        match self {
            Self::AddressAssign(_) => CapsuleType::ADDRESS_ASSIGN,
            Self::AddressRequest(_) => CapsuleType::ADDRESS_REQUEST,
            Self::RouteAdvertisement(_) => CapsuleType::ROUTE_ADVERTISEMENT,
            Self::DnsAssign(_) => CapsuleType::DNS_ASSIGN,
            Self::Pref64(_) => CapsuleType::PREF64,
        }
    }

    /// Whether a type is one of these.
    #[must_use]
    pub const fn has(capsule_type: CapsuleType) -> bool {
        matches!(
            capsule_type,
            CapsuleType::ADDRESS_ASSIGN
                | CapsuleType::ADDRESS_REQUEST
                | CapsuleType::ROUTE_ADVERTISEMENT
                | CapsuleType::DNS_ASSIGN
                | CapsuleType::PREF64
        )
    }

    /// Reads the value of a capsule; `None` for a type that is none of these.
    ///
    /// # Errors
    /// Inside: [`IpCapsuleError`], the first violation found. It makes the message malformed (RFC 9484 §4.7).
    #[must_use]
    pub fn parse(capsule_type: CapsuleType, value: &[u8]) -> Option<Result<Self, IpCapsuleError>> {
        let value = Value::new(value);
        let capsule = match capsule_type {
            CapsuleType::ADDRESS_ASSIGN => value
                .entries(AssignedAddress::read)
                .map(Self::AddressAssign),
            CapsuleType::ADDRESS_REQUEST => value
                .entries(RequestedAddress::read)
                .map(Self::AddressRequest),
            CapsuleType::ROUTE_ADVERTISEMENT => value
                .entries(AddressRange::read)
                .map(Self::RouteAdvertisement),
            CapsuleType::DNS_ASSIGN => value.entries(DnsConfig::read).map(Self::DnsAssign),
            CapsuleType::PREF64 => value.entries(dns::read_pref64).map(Self::Pref64),
            _ => return None,
        };
        Some(capsule.and_then(|capsule| capsule.check().map(|()| capsule)))
    }

    /// Whether a peer that looks closely accepts this: every rule that a single capsule can break.
    ///
    /// # Errors
    /// [`IpCapsuleError`], the first violation found.
    pub fn check(&self) -> Result<(), IpCapsuleError> {
        match self {
            Self::AddressAssign(entries) => {
                (entries.iter()).try_for_each(|entry| check_host_bits(entry.prefix))
            }
            Self::AddressRequest(entries) => check_requests(entries),
            Self::RouteAdvertisement(ranges) => check_ranges(ranges),
            Self::DnsAssign(configs) => Ok(configs.iter().try_for_each(DnsConfig::check)?),
            Self::Pref64(prefixes) => Ok(prefixes.iter().try_for_each(dns::check_pref64)?),
        }
    }

    /// Appends the whole capsule: type, length, value. It should pass the [check](Self::check).
    pub fn encode(&self, out: &mut BytesMut) {
        encode_capsule(self.capsule_type(), &self.value(), out);
    }

    /// The value of the capsule alone.
    #[must_use]
    pub fn value(&self) -> Bytes {
        let mut value = BytesMut::new();
        match self {
            Self::AddressAssign(entries) => {
                for AssignedAddress { request_id, prefix } in entries {
                    put_address(*request_id, *prefix, &mut value);
                }
            }
            Self::AddressRequest(entries) => {
                for RequestedAddress { request_id, prefix } in entries {
                    put_address(*request_id, *prefix, &mut value);
                }
            }
            Self::RouteAdvertisement(ranges) => {
                for range in ranges {
                    value.put_u8(version(range.start));
                    put_ip(range.start, &mut value);
                    put_ip(range.end, &mut value);
                    value.put_u8(range.protocol);
                }
            }
            Self::DnsAssign(configs) => configs.iter().for_each(|config| config.put(&mut value)),
            Self::Pref64(prefixes) => {
                (prefixes.iter()).for_each(|prefix| dns::put_pref64(prefix, &mut value));
            }
        }
        value.freeze()
    }
}

impl AssignedAddress {
    /// Whether this says no to a request: an address of zeros at full length (RFC 9484 §4.7.2).
    ///
    /// With request id 0 the same prefix answers nothing, and is an address that nobody can use.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.request_id != 0
            && self.prefix.addr().is_unspecified()
            && self.prefix.prefix_len() == self.prefix.max_prefix_len()
    }

    fn read(value: &mut Value<'_>) -> Result<Self, IpCapsuleError> {
        Ok(Self {
            request_id: value.varint()?,
            prefix: value.prefix()?,
        })
    }
}

impl RequestedAddress {
    fn read(value: &mut Value<'_>) -> Result<Self, IpCapsuleError> {
        Ok(Self {
            request_id: value.varint()?,
            prefix: value.prefix()?,
        })
    }
}

impl AddressRange {
    fn read(value: &mut Value<'_>) -> Result<Self, IpCapsuleError> {
        let version = value.version()?;
        Ok(Self {
            start: value.address(version)?,
            end: value.address(version)?,
            protocol: value.byte()?,
        })
    }
}

fn check_host_bits(prefix: IpNet) -> Result<(), IpCapsuleError> {
    match prefix.addr() == prefix.network() {
        true => Ok(()),
        false => Err(IpCapsuleError::HostBits { prefix }),
    }
}

fn check_requests(entries: &[RequestedAddress]) -> Result<(), IpCapsuleError> {
    if entries.is_empty() {
        return Err(IpCapsuleError::NoRequest);
    }
    (entries.iter()).try_for_each(|entry| check_host_bits(entry.prefix))?;
    let mut ids: Vec<u64> = entries.iter().map(|entry| entry.request_id).collect();
    ids.sort_unstable();
    if ids.first() == Some(&0) {
        return Err(IpCapsuleError::RequestIdZero);
    }
    match ids.array_windows().find(|[id, next]| id == next) {
        Some(&[request_id, _]) => Err(IpCapsuleError::RequestIdTwice { request_id }),
        None => Ok(()),
    }
}

fn check_ranges(ranges: &[AddressRange]) -> Result<(), IpCapsuleError> {
    for &AddressRange { start, end, .. } in ranges {
        if start.is_ipv4() != end.is_ipv4() || start > end {
            return Err(IpCapsuleError::Range { start, end });
        }
    }
    for [range, next] in ranges.array_windows() {
        let group = |range: &AddressRange| (range.start.is_ipv6(), range.protocol);
        let ascends = match group(range).cmp(&group(next)) {
            Ordering::Less => true,
            Ordering::Equal => range.end < next.start,
            Ordering::Greater => false,
        };
        if !ascends {
            return Err(IpCapsuleError::RangeOrder { start: next.start });
        }
    }
    // In order and disjoint: every IPv4 address is below every IPv6 address here as well as there.
    let (all, specific): (Vec<&AddressRange>, Vec<&AddressRange>) =
        ranges.iter().partition(|range| range.protocol == 0);
    for range in specific {
        let next = all.partition_point(|all| all.end < range.start);
        if all.get(next).is_some_and(|all| all.start <= range.end) {
            return Err(IpCapsuleError::RangeOverlap {
                start: range.start,
                protocol: range.protocol,
            });
        }
    }
    Ok(())
}

const fn version(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 4,
        IpAddr::V6(_) => 6,
    }
}

fn put_ip(address: IpAddr, out: &mut BytesMut) {
    match address {
        IpAddr::V4(address) => out.put_slice(&address.octets()),
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
}

fn put_address(request_id: u64, prefix: IpNet, out: &mut BytesMut) {
    varint::encode(request_id, out);
    out.put_u8(version(prefix.addr()));
    put_ip(prefix.addr(), out);
    out.put_u8(prefix.prefix_len());
}
