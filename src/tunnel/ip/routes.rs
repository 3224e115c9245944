//! Sets of addresses that are asked once per packet: prefixes, and ranges with a protocol.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::error::IpError;
use super::peer::PacketFacts;
use crate::wire::ip::{AddressRange, IpCapsuleError};

/// Addresses of both versions as ranges without overlap, in order. A question costs a binary search.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressSet {
    ranges: Vec<(IpAddr, IpAddr)>,
}

impl AddressSet {
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        // All of IPv4 is below all of IPv6, so the versions do not meet.
        let after = self.ranges.partition_point(|(start, _)| *start <= address);
        let last = after
            .checked_sub(1)
            .and_then(|index| self.ranges.get(index));
        last.is_some_and(|(_, end)| address <= *end)
    }

    fn of(mut ranges: Vec<(IpAddr, IpAddr)>) -> Self {
        ranges.sort_unstable();
        ranges.dedup_by(|(start, end), (_, end_before)| {
            let overlaps = *start <= *end_before;
            if overlaps {
                *end_before = (*end_before).max(*end);
            }
            overlaps
        });
        ranges.shrink_to_fit();
        Self { ranges }
    }
}

impl FromIterator<IpNet> for AddressSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let prefixes = prefixes.into_iter();
        Self::of(prefixes.map(|p| (p.network(), p.broadcast())).collect())
    }
}

/// Whether a route leads to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// For this packet.
    Open,
    /// For packets of another protocol.
    OtherProtocol,
    /// No.
    Absent,
}

/// The list of a ROUTE_ADVERTISEMENT (RFC 9484 §4.7.3).
#[derive(Clone, Debug, Default)]
pub(super) struct Routes {
    /// By version, protocol and address.
    ranges: Vec<AddressRange>,
    /// Those of them that have one, in order.
    protocols: Vec<u8>,
}

/// The order of the RFC.
fn order(range: &AddressRange) -> (bool, u8, IpAddr) {
    (range.start.is_ipv6(), range.protocol, range.start)
}

impl Routes {
    /// Puts ranges into the order of the RFC.
    ///
    /// # Errors
    /// [`IpCapsuleError::Range`], [`IpError::RangesOverlap`].
    pub(super) fn new(mut ranges: Vec<AddressRange>) -> Result<Self, IpError> {
        let is_range = |range: &AddressRange| {
            range.start.is_ipv6() == range.end.is_ipv6() && range.start <= range.end
        };
        if let Some(&AddressRange { start, end, .. }) = ranges.iter().find(|r| !is_range(r)) {
            return Err(IpCapsuleError::Range { start, end }.into());
        }
        ranges.sort_unstable_by_key(order);
        for (first, second) in ranges.iter().zip(ranges.iter().skip(1)) {
            let alike = first.protocol == second.protocol;
            // All of IPv4 is below all of IPv6.
            if alike && second.start <= first.end {
                let (first, second) = (*first, *second);
                return Err(IpError::RangesOverlap { first, second });
            }
        }
        let routes = Self::in_order(ranges);
        for second in routes.ranges.iter().filter(|range| range.protocol != 0) {
            if let Some(first) = routes.last_up_to(second.end, 0)
                && second.start <= first.end
            {
                let (first, second) = (*first, *second);
                return Err(IpError::RangesOverlap { first, second });
            }
        }
        Ok(routes)
    }

    /// A list that is in the order of the RFC, as all are that were read from the wire.
    pub(super) fn in_order(mut ranges: Vec<AddressRange>) -> Self {
        ranges.shrink_to_fit();
        let protocols: BTreeSet<u8> = ranges.iter().map(|range| range.protocol).collect();
        let protocols = protocols.into_iter().filter(|p| *p != 0).collect();
        Self { ranges, protocols }
    }

    pub(super) fn ranges(&self) -> &[AddressRange] {
        &self.ranges
    }

    /// Whether `address`, an end of `packet`, is on a route.
    pub(super) fn reach(&self, address: IpAddr, packet: &PacketFacts) -> Reach {
        if self.has(address, 0) || (packet.protocol != 0 && self.has(address, packet.protocol)) {
            return Reach::Open;
        }
        match (self.protocols.iter()).any(|protocol| self.has(address, *protocol)) {
            true if packet.is_icmp() => Reach::Open,
            true => Reach::OtherProtocol,
            false => Reach::Absent,
        }
    }

    fn has(&self, address: IpAddr, protocol: u8) -> bool {
        let last = self.last_up_to(address, protocol);
        last.is_some_and(|range| address <= range.end)
    }

    /// The last range of a protocol, and of the version of `address`, that starts at `address` or below.
    fn last_up_to(&self, address: IpAddr, protocol: u8) -> Option<&AddressRange> {
        let key = (address.is_ipv6(), protocol, address);
        let after = self.ranges.partition_point(|range| order(range) <= key);
        let last = self.ranges.get(after.checked_sub(1)?)?;
        let is_alike = last.protocol == protocol && last.start.is_ipv6() == address.is_ipv6();
        is_alike.then_some(last)
    }
}

#[cfg(test)]
mod tests;
