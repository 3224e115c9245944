//! What is measured: which machines stand in a row, and what they carry.
//!
//! ```text
//!   egress-…   client ─── h3 ──► egress* ─── UDP ──► target                        * counted
//!   chain-…    client ─── h3 ──► ingress* ─── h3 ──► egress ─── UDP ──► target
//!   ip-…       client ─── h3 ──► relay* ─── h3 ──► another client, by IP packets
//! ```
//!
//! Datagrams go in bursts: a burst enters when the one before it has arrived. Each round of turns takes [`ROUND`] of
//! virtual time, which makes it the round-trip time of every connection.

use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bauta::net::clock;
use bauta::tunnel::TunnelId;
use bauta::wire::ip::checksum::Sum;
use bauta::wire::ip::packet::{IPV4_HEADER_BYTES, protocol};
use bauta::wire::target::Target;
use bytes::{BufMut, Bytes, BytesMut};

use crate::network::Net;
use crate::node::Node;

/// Datagrams that enter together: what a worker takes from one socket in a turn.
const BURST: u64 = 64;
/// Virtual time of a round.
const ROUND: Duration = Duration::from_micros(250);
/// Datagrams before counting begins: they open the congestion windows and find the MTU.
const WARM_UP: u64 = 100 * BURST;
/// Rounds that opening tunnels or carrying a burst may take before something is wrong.
const ROUNDS_MAX: usize = 1000;

/// Which way payloads go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Client to target.
    Up,
    /// Target to client.
    Down,
    /// One client to another, in IP packets.
    Across,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// As the script and its baseline call it.
    pub(crate) name: &'static str,
    /// Relays in a row; the first is counted.
    relays: usize,
    direction: Direction,
    /// Of UDP, or bytes of the whole packet.
    payload_bytes: usize,
    tunnels: usize,
}

/// All of them.
pub(crate) const SCENARIOS: [Scenario; 7] = {
    const EGRESS_UP: Scenario = Scenario {
        name: "egress-up",
        relays: 1,
        direction: Direction::Up,
        payload_bytes: 1200,
        tunnels: 1,
    };
    [
        EGRESS_UP,
        Scenario {
            name: "egress-down",
            direction: Direction::Down,
            ..EGRESS_UP
        },
        Scenario {
            name: "chain-up",
            relays: 2,
            ..EGRESS_UP
        },
        Scenario {
            name: "chain-down",
            relays: 2,
            direction: Direction::Down,
            ..EGRESS_UP
        },
        Scenario {
            name: "egress-up-64",
            payload_bytes: 64,
            ..EGRESS_UP
        },
        Scenario {
            name: "egress-up-100-tunnels",
            tunnels: 100,
            ..EGRESS_UP
        },
        Scenario {
            name: "ip-client-to-client",
            direction: Direction::Across,
            // What every tunnel carries, whatever the path.
            payload_bytes: 1280,
            ..EGRESS_UP
        },
    ]
};

/// The machines of a scenario, with their tunnels open.
pub(crate) struct Route {
    scenario: Scenario,
    net: Net,
    now: Instant,
    client: Node,
    /// Client side first.
    relays: Vec<Node>,
    tunnels: Vec<TunnelId>,
    payload: Bytes,
    sent: u64,
}

impl Route {
    /// Builds the machines and opens the tunnels.
    pub(crate) fn new(scenario: Scenario) -> Self {
        let mut net = Net::default();
        let mut relays = Vec::new();
        let mut next = None;
        // A relay has to know where the one behind it listens.
        for id in (0..scenario.relays).rev() {
            let (relay, address) = match scenario.direction {
                Direction::Up | Direction::Down => Node::relay(&mut net, id, next),
                Direction::Across => Node::between_clients(&mut net, id),
            };
            relays.insert(0, relay);
            next = Some(address);
        }
        let first = next.expect("there is a relay");
        let mut route = Self {
            client: Node::client(&mut net, scenario.relays, first),
            relays,
            net,
            now: clock::now(),
            tunnels: Vec::new(),
            payload: Bytes::from(vec![0x5a; scenario.payload_bytes]),
            sent: 0,
            scenario,
        };
        match scenario.direction {
            Direction::Up | Direction::Down => route.open(),
            Direction::Across => route.open_across(first),
        }
        route
    }

    /// Opens the tunnels of two clients, and makes the packet that goes from the first to the second.
    fn open_across(&mut self, relay: SocketAddr) {
        for number in 0..2 {
            let tunnel = self.client.open_ip(self.now, &mut self.net, relay, number);
            self.tunnels.push(tunnel);
        }
        let address = |route: &Self, number: usize| {
            let assigned = route.client.events.assigned.iter();
            let mut of_tunnel = assigned.filter(|(tunnel, _)| *tunnel == route.tunnels[number]);
            of_tunnel.next().map(|(_, address)| *address)
        };
        let addresses = |route: &mut Self| {
            route.round(0, false);
            address(route, 0).zip(address(route, 1))
        };
        let mut rounds = iter::repeat_with(|| addresses(self)).take(ROUNDS_MAX);
        let (near, far) = rounds.find_map(|both| both).expect("addresses");
        self.payload = packet(near, far, self.scenario.payload_bytes);
    }

    fn open(&mut self) {
        for number in 0..self.scenario.tunnels {
            let target: Target = format!("198.51.100.1:{}", 1 + number)
                .parse()
                .expect("an address");
            let tunnel = self.client.open(self.now, &mut self.net, target);
            self.tunnels.push(tunnel);
        }
        let opened = |route: &mut Self| {
            route.round(0, false);
            route.client.events.opened == route.scenario.tunnels
        };
        let mut rounds = iter::repeat_with(|| opened(self)).take(ROUNDS_MAX);
        assert!(rounds.any(|opened| opened), "the tunnels do not open");
    }

    /// Carries datagrams from one end to the other, all of them. With `counted` the turns of the first relay are
    /// what the script measures.
    ///
    /// Returns how many datagrams the first relay passed on meanwhile.
    pub(crate) fn carry(&mut self, datagrams: u64, counted: bool) -> u64 {
        let before = self.relayed();
        let goal = self.sent + datagrams;
        while self.sent < goal {
            self.round(BURST.min(goal - self.sent), counted);
            let arrived = |route: &mut Self| {
                route.delivered() == route.sent || {
                    route.round(0, counted);
                    false
                }
            };
            let mut rounds = iter::repeat_with(|| arrived(self)).take(ROUNDS_MAX);
            assert!(rounds.any(|arrived| arrived), "datagrams got lost");
        }
        self.relayed() - before
    }

    /// Datagrams that have arrived where they should.
    fn delivered(&self) -> u64 {
        match self.scenario.direction {
            Direction::Up => self.net.delivered,
            Direction::Down | Direction::Across => self.client.events.delivered,
        }
    }

    fn relayed(&self) -> u64 {
        let stats = self.relays[0].machine.stats;
        match self.scenario.direction {
            Direction::Up | Direction::Across => stats.upstream_datagrams,
            Direction::Down => stats.downstream_datagrams,
        }
    }

    /// Everybody takes a turn, in the order in which payloads travel.
    fn round(&mut self, burst: u64, counted: bool) {
        self.now += ROUND;
        let numbers = self.sent..self.sent + burst;
        self.sent = numbers.end;
        let Self { net, now, .. } = self;
        let tunnels = self.scenario.tunnels as u64;
        let relays = self.relays.iter_mut().enumerate();
        match self.scenario.direction {
            Direction::Up | Direction::Across => {
                for number in numbers {
                    let tunnel = self.tunnels[(number % tunnels) as usize];
                    self.client.send(*now, net, tunnel, self.payload.clone());
                }
                self.client.turn(*now, net, false);
                for (index, relay) in relays {
                    relay.turn(*now, net, counted && index == 0);
                }
            }
            Direction::Down => {
                net.offer(&self.payload, burst as usize);
                for (index, relay) in relays.rev() {
                    relay.turn(*now, net, counted && index == 0);
                }
                self.client.turn(*now, net, false);
            }
        }
    }
}

/// A packet with nothing in it: what is behind the header of IPv4 is not looked at.
fn packet(source: IpAddr, destination: IpAddr, size: usize) -> Bytes {
    let mut packet = BytesMut::with_capacity(size);
    packet.put_u16(0x4500);
    packet.put_u16(size as u16);
    // No identification, and not to be fragmented.
    packet.put_u32(0x4000);
    packet.put_slice(&[64, protocol::UDP, 0, 0]);
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => packet.put_slice(&address.octets()),
            IpAddr::V6(_) => unreachable!("the pool is of IPv4"),
        }
    }
    let checksum = Sum::of(&packet[..IPV4_HEADER_BYTES]).checksum();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.resize(size, 0x5a);
    packet.freeze()
}

/// Runs a scenario: warm-up, then `datagrams` that are counted. Returns how many the first relay passed on.
pub(crate) fn run(scenario: Scenario, datagrams: u64) -> u64 {
    let mut route = Route::new(scenario);
    route.carry(WARM_UP, false);
    route.carry(datagrams, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_datagram_arrives_and_is_relayed_once() {
        for scenario in SCENARIOS {
            let mut route = Route::new(scenario);
            for datagrams in [1, BURST, 3 * BURST + 5] {
                assert_eq!(route.carry(datagrams, true), datagrams, "{scenario:?}");
            }
            assert_eq!(route.delivered(), route.sent, "{scenario:?}");
            let bytes = match scenario.direction {
                Direction::Up => route.net.delivered_bytes,
                Direction::Down | Direction::Across => route.client.events.delivered_bytes,
            };
            let expected = route.sent * scenario.payload_bytes as u64;
            assert_eq!(bytes, expected, "{scenario:?}");
        }
    }
}
