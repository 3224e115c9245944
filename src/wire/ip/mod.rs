//! What CONNECT-IP says on the wire (RFC 9484, draft-ietf-masque-connect-ip-dns): scopes, capsules, packets.
//!
//! ```text
//!   scope    what a request asks for: `*`, an address, a prefix or a name, and a protocol    RFC 9484 §4.6
//!   capsule  ADDRESS_ASSIGN, ADDRESS_REQUEST, ROUTE_ADVERTISEMENT                            RFC 9484 §4.7
//!   dns      DNS_ASSIGN, PREF64                                                              draft §3, §4
//!   packet   the headers of IPv4 and IPv6, as far as whoever forwards has to look            RFC 791, RFC 8200
//!   icmp     errors about packets                                                            RFC 792, RFC 4443
//!   checksum the sum that all of them carry                                                  RFC 1071
//! ```
//!
//! Nothing here knows what was assigned to whom: that is `tunnel::ip`.

pub mod capsule;
pub mod checksum;
pub mod dns;
pub mod icmp;
pub mod packet;
pub mod scope;
mod value;

use ipnet::IpNet;

pub use self::capsule::{
    AddressRange, AssignedAddress, IpCapsule, IpCapsuleError, RequestedAddress,
};
pub use self::dns::{DnsConfig, DnsError, Nameserver, ServiceKey};
pub use self::icmp::IcmpError;
pub use self::packet::{IpVersion, Packet, PacketError};
pub use self::scope::{Destination, Scope, ScopeError, ScopeTarget};

/// Two prefixes share addresses when one holds the other.
#[must_use]
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}
