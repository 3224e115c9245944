//! What the sender of a packet is told when the packet cannot pass (RFC 9484 §7.2.1): ICMP, at a bounded rate.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::leg::Leg;
use super::super::machine::{LocalEvent, Machine, Outside};
use super::super::pipe::Direction;
use crate::tunnel::TunnelId;
use crate::wire::ip::icmp::{self, IcmpError};

/// ICMP errors that one tunnel causes at once, and per second after that (RFC 4443 §2.4 f asks for a bound).
const BURST: u32 = 50;
const INTERVAL: Duration = Duration::from_millis(10);

/// A token bucket: [`BURST`] at once, then one per [`INTERVAL`].
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::worker) struct IcmpBudget {
    spent: u32,
    since: Option<Instant>,
}

impl IcmpBudget {
    /// Whether another error may be sent.
    pub(in crate::worker) fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let earned = now.saturating_duration_since(since).as_millis() / INTERVAL.as_millis();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.spent = self.spent.saturating_sub(earned);
            self.since = Some(now);
        }
        let is_left = self.spent < BURST;
        self.spent += u32::from(is_left);
        is_left
    }
}

impl Machine {
    /// Tells the sender of `packet`, which went in `direction`, why it does not pass.
    pub(super) fn send_icmp_error(
        &mut self,
        now: Instant,
        (id, direction): (TunnelId, Direction),
        error: IcmpError,
        packet: &[u8],
        out: &mut impl Outside,
    ) {
        let Some(flow) = self.ip_flow(id) else {
            return;
        };
        if !flow.errors.take(now) {
            self.stats.ip_errors_suppressed += 1;
            return;
        }
        let sender = direction.source();
        let leg = self.leg(id, sender);
        let Some(answer) = self.icmp_error(error, packet, leg == Some(Leg::Gateway)) else {
            return;
        };
        match leg {
            Some(Leg::Stream(stream)) => {
                self.carriers.send_datagram(stream, &answer);
            }
            Some(Leg::Local) => self.tell(sender, LocalEvent::Payload(id, answer)),
            Some(Leg::Gateway) => self.gateway_out(now, id, answer, out),
            Some(Leg::None | Leg::Socket(_) | Leg::Tcp(_) | Leg::Nested(_)) | None => {}
        }
    }

    /// The error as a packet. It comes from the gateway; an ingress has no address of its own in the tunnel, and
    /// answers in the name of the destination, as RFC 9484 §7.2.1 lets it. So does a gateway towards its kernel, which
    /// takes IPv4 packets from its own addresses for forged.
    pub(super) fn icmp_error(
        &mut self,
        error: IcmpError,
        packet: &[u8],
        is_for_exit: bool,
    ) -> Option<Bytes> {
        let parsed = self.parse_packet(packet)?;
        let own = (self.gateway.as_ref())
            .filter(|_| parsed.source.is_ipv6() || !is_for_exit)
            .and_then(|gateway| gateway.address_like(parsed.source));
        let from = own.unwrap_or(parsed.destination);
        let answer = icmp::error(error, packet, from)?;
        self.stats.ip_errors_sent += 1;
        Some(answer.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: 9484-7.2.1-d
    #[test]
    fn errors_come_at_a_bounded_rate() {
        let start = crate::net::clock::now();
        let mut budget = IcmpBudget::default();
        let first = (0..1_000).filter(|_| budget.take(start)).count();
        assert_eq!(first, 50);
        let later = start + Duration::from_millis(105);
        assert_eq!((0..1_000).filter(|_| budget.take(later)).count(), 10);
        let much_later = start + Duration::from_secs(3_600);
        assert_eq!((0..1_000).filter(|_| budget.take(much_later)).count(), 50);
    }
}
