//! ADDRESS_ASSIGN, ADDRESS_REQUEST and ROUTE_ADVERTISEMENT (RFC 9484 §4.7).

use std::net::IpAddr;

use bytes::BytesMut;
use ipnet::{IpNet, Ipv6Net};

use super::dns::DnsConfig;
use crate::wire::capsule::CapsuleType;

impl CapsuleType {
    /// RFC 9484 §4.7.1.
    pub const ADDRESS_ASSIGN: Self = Self(0x01);
    /// RFC 9484 §4.7.2.
    pub const ADDRESS_REQUEST: Self = Self(0x02);
    /// RFC 9484 §4.7.3.
    pub const ROUTE_ADVERTISEMENT: Self = Self(0x03);
}

/// An entry of ADDRESS_ASSIGN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AssignedAddress {
    /// The request that it answers, or 0.
    pub request_id: u64,
    /// The prefix, any address of which the receiver may use as source; 0.0.0.0/32 or ::/128 with a request id that is
    /// not 0 refuses that request.
    pub prefix: IpNet,
}

/// An entry of ADDRESS_REQUEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestedAddress {
    /// Names the request; not 0, and never used twice by the same endpoint on a stream.
    pub request_id: u64,
    /// The address that is wished for, all zero for no preference, and the prefix length that is.
    pub prefix: IpNet,
}

/// An entry of ROUTE_ADVERTISEMENT. Both ends are of the same version, and included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRange {
    /// The first address.
    pub start: IpAddr,
    /// The last address, not below the first.
    pub end: IpAddr,
    /// The only upper-layer protocol; 0 for all. ICMP passes whatever it says.
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

/// Why a value is no such capsule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpCapsuleError {
    /// It ends inside an entry, or something follows the last one.
    #[error("the value ends inside an entry")]
    Truncated,
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

    /// Reads the value of a capsule; `None` for a type that is none of these.
    pub fn parse(capsule_type: CapsuleType, value: &[u8]) -> Option<Result<Self, IpCapsuleError>> {
        let _ = (capsule_type, value);
        None
    }

    /// Appends the whole capsule: type, length, value.
    pub fn encode(&self, out: &mut BytesMut) {
        let _ = out;
    }
}
