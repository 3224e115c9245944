//! Targets that drive a whole relay: a [`Machine`] in memory whose network, name server and targets are the fuzzer.
//!
//! ```text
//!   packet   operations ─► UDP datagrams: garbage, and Initials with any frames that decrypt ─► Machine
//!   relay    operations ─► a client that speaks QUIC as it should, and anything above it ────► Machine
//!                          a target that answers or fails, a name server ────────────────────────┘
//!
//!   operation = kind (1 byte), selector (1 byte), length (1 byte, in units of UNIT bytes), that many bytes
//! ```
//!
//! Asserted: nothing panics; an address that is not validated gets little for what it sent (RFC 9000 §8.1);
//! the machine rests when there is nothing to do; once the clients are gone nothing is left of them, and the next
//! client is welcome.
//!
//! Keys and connection IDs are random, so a run repeats in what happens and not in every byte.

mod client;
mod world;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use quinn_proto::crypto::{self, Keys};
use quinn_proto::{EndpointConfig, ServerConfig};

use self::client::Client;
use self::world::{PEERS, World};
use crate::client::{Pool, PoolLimits};
use crate::config::{Checked, Environment, HeadStarts, parse};
use crate::handler::Handler;
use crate::http::h3;
use crate::net::steer::Steer;
use crate::net::{Received, Train, clock};
use crate::policy::Policy;
use crate::policy::resolve::ResolveError;
use crate::server::{Server, Services};
use crate::transport::carriers::Carriers;
use crate::transport::quic::options::{Options, endpoint_config};
use crate::transport::quic::{Hub, HubLimits, OutboxLimits};
use crate::transport::tcp::{TcpHub, TcpHubLimits};
use crate::transport::tls::{DevCa, quic_server, server_config};
use crate::tunnel::EarlyLimits;
use crate::wire::template::PathTemplate;
use crate::wire::varint;
use crate::worker::{Machine, MachineLimits, Setup, Tag};

/// The most operations of one run.
const OPERATIONS_MAX: usize = 256;
/// What a length counts.
const UNIT: usize = 8;
/// Smallest UDP payload with an Initial (RFC 9000 §14.1).
const INITIAL_MIN: usize = 1200;
/// Connection ID of all clients of `packet`: the transport parameters in its corpus repeat it (RFC 9000 §7.3).
const SOURCE: [u8; 8] = [0x11; 8];
/// QUIC version 1.
const VERSION: u32 = 1;
/// Longer than every timeout of the machine.
const FOR_EVER: Duration = Duration::from_secs(24 * 3600);
/// Turns in which a machine without input has to come to rest.
const TURNS_MAX: usize = 5_000;
const TUNNELS_MAX: usize = 8;

/// Certificate and defaults, made once.
static SETTINGS: LazyLock<(Arc<ServerConfig>, Checked, Instant)> = LazyLock::new(|| {
    let mut environment = Environment::new("/", std::num::NonZeroUsize::MIN, "relay.example");
    environment.dev_listen = Some(([192, 0, 2, 1], 443).into());
    let checked = parse("", &environment).expect("defaults are valid");
    let authority = DevCa::new(&["relay.example"], SystemTime::UNIX_EPOCH).expect("a name");
    let tls = server_config(&authority.identity, false).expect("a working provider");
    let crypto: Arc<dyn crypto::ServerConfig> = quic_server(tls).expect("AES-128");
    let mut server = ServerConfig::with_crypto(crypto);
    server.transport_config(options(&checked).server_transport());
    (Arc::new(server), checked, clock::now())
});

fn options(checked: &Checked) -> Options {
    Options::new(checked.quic.clone(), 16)
}

/// What a fuzzer sends from a few addresses to the listener.
///
/// # Panics
/// When one of the assertions above fails.
pub fn packet(data: &[u8]) {
    let mut relay = Relay::new();
    let mut numbers = [0; PEERS];
    for (kind, selector, bytes) in operations(data) {
        let peer = usize::from(selector) % PEERS;
        match kind & 7 {
            0 => relay.receive(peer, bytes.len(), bytes.to_vec()),
            1 => relay.receive(peer, bytes.len(), padded(bytes)),
            2 => relay.receive(peer, usize::from(selector) + 1, bytes.to_vec()),
            3..=5 => {
                let number = &mut numbers[peer];
                relay.receive(peer, usize::MAX, initial(selector, *number, &[], bytes));
                *number += 1;
            }
            6 => {
                let (token, frames) = bytes.split_at(bytes.len().min(selector.into()));
                relay.receive(peer, usize::MAX, initial(selector, 0, token, frames));
            }
            _ => relay.pass(Duration::from_millis(1 << (selector & 15))),
        }
        relay.settle();
        for peer in 0..PEERS {
            let (received, sent) = relay.world.traffic[peer];
            assert!(sent <= allowance(received), "{sent} bytes for {received}");
        }
    }
    relay.end();
}

/// What a client with proper QUIC may do to a relay that opens tunnels itself.
///
/// # Panics
/// When one of the assertions above fails.
pub fn relay(data: &[u8]) {
    let mut relay = Relay::new();
    let mut client = Client::new(relay.now);
    relay.exchange(&mut client);
    assert!(client.is_connected(), "the handshake is not fuzzed");
    for (kind, selector, bytes) in operations(data) {
        match kind & 15 {
            12 => relay.world.answer(selector, bytes),
            13 => relay.pass(Duration::from_millis(1 << (selector & 15))),
            14 if selector == 0 => relay.machine.drain(relay.now),
            14 => relay.world.resolution = resolution(selector),
            kind => client.operate(relay.now, kind, selector, bytes),
        }
        // Operations without this bit add up to one flight.
        if kind & 0x80 == 0 {
            relay.exchange(&mut client);
        }
    }
    relay.exchange(&mut client);
    drop(client);
    relay.end();
}

fn resolution(selector: u8) -> crate::policy::resolve::Resolution {
    match selector & 3 {
        0 => Err(ResolveError::Timeout),
        1 => Ok(Vec::new()),
        2 => Ok(vec![[192, 0, 2, selector].into()]),
        _ => Ok(vec![
            [10, 0, 0, 1].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
        ]),
    }
}

/// Cuts the input into operations.
fn operations(mut data: &[u8]) -> impl Iterator<Item = (u8, u8, &[u8])> {
    let next = move || {
        let [kind, selector, len, rest @ ..] = data else {
            return None;
        };
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*len) * UNIT));
        data = rest;
        Some((*kind, *selector, bytes))
    };
    std::iter::from_fn(next).take(OPERATIONS_MAX)
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(padded.len().max(INITIAL_MIN), 0);
    padded
}

/// An Initial packet of a client, with frames of any content behind good encryption (RFC 9000 §17.2.2, RFC 9001 §5).
fn initial(selector: u8, number: u8, token: &[u8], frames: &[u8]) -> Vec<u8> {
    const PACKET_NUMBER_LEN: usize = 1;
    let destination = [selector; 8];
    let id = quinn_proto::ConnectionId::new(&destination);
    let Keys { header, packet } =
        (SETTINGS.0.crypto.initial_keys(VERSION, &id)).expect("version 1");
    // Long header, fixed bit, type Initial, a packet number of one byte.
    let mut out = vec![0xc0];
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.push(destination.len() as u8);
    out.extend_from_slice(&destination);
    out.push(SOURCE.len() as u8);
    out.extend_from_slice(&SOURCE);
    varint::encode(token.len() as u64, &mut out);
    out.extend_from_slice(token);
    // A length of two bytes, whatever its value; PADDING frames fill the datagram.
    let header_len = out.len() + 2 + PACKET_NUMBER_LEN;
    let tag_len = packet.remote.tag_len();
    let room = (INITIAL_MIN.saturating_sub(header_len + tag_len)).max(frames.len());
    let length = (PACKET_NUMBER_LEN + room + tag_len) as u16;
    out.extend_from_slice(&(0x4000 | length).to_be_bytes());
    out.push(number);
    out.extend_from_slice(frames);
    out.resize(header_len + room + tag_len, 0);
    packet.remote.encrypt(number.into(), &mut out, header_len);
    header
        .remote
        .encrypt(header_len - PACKET_NUMBER_LEN, &mut out);
    out
}

/// Bytes that may go to an address that is not validated: three times what came, and one datagram more for each
/// connection, because quinn-proto spends what is left of the allowance on a whole one.
fn allowance(received: usize) -> usize {
    3 * received + received / INITIAL_MIN * usize::from(SETTINGS.1.quic.initial_mtu)
}

/// The machine with its surroundings.
struct Relay {
    machine: Machine,
    world: World,
    now: Instant,
}

impl Relay {
    /// An egress with limits that are small enough to be reached.
    fn new() -> Self {
        let (server_config, checked, now) = &*SETTINGS;
        let mut hub = Hub::new(
            HubLimits {
                connections_max: 6,
                streams_max: 16,
                retry_handshakes: 3,
                handshakes_max: 5,
                handshake_timeout: Duration::from_secs(5),
                outbox: OutboxLimits {
                    datagrams_max: 8,
                    bytes_max: 8 * 1024,
                },
            },
            h3::Config {
                field_section_size_max: 4096,
                headers_len_max: 8192,
                ..h3::Config::default()
            },
        );
        let steer = Steer::new([1, 2, 3, 4], 1);
        let mut shared = EndpointConfig::default();
        shared.rng_seed(Some([7; 32]));
        let config = endpoint_config(&shared, steer, 0);
        let mut endpoint = |server| {
            hub.add_endpoint(quinn_proto::Endpoint::new(
                Arc::clone(&config),
                server,
                true,
                None,
            ))
        };
        let listener = endpoint(Some(Arc::clone(server_config)));
        let dialler = endpoint(None);
        let pool = Pool::new(
            PoolLimits {
                connections_per_hop_max: 1,
                own_connections_per_hop_max: 1,
                waiting_per_hop_max: 1,
                backoff_min: Duration::from_millis(250),
                backoff_max: Duration::from_secs(10),
            },
            (dialler, World::DIALLER),
            options(checked),
        );
        let policy = Policy {
            deny: vec!["10.0.0.0/8".parse().expect("a rule")],
            public_only: false,
            ..Policy::default()
        };
        let services = Services {
            udp: vec![PathTemplate::well_known()],
            tcp: Vec::new(),
            ip: Vec::new(),
            classic: false,
        };
        let machine = Machine::new(Setup {
            carriers: Carriers {
                quic: hub,
                tcp: TcpHub::new(TcpHubLimits::default()),
            },
            tcp_listeners: Vec::new(),
            listeners: vec![Some(listener)],
            dialler: (dialler, World::DIALLER),
            pool,
            route: None,
            server: Server::new(
                "relay.example",
                services,
                Vec::new(),
                Handler::Direct(policy),
            ),
            gateway: None,
            steer: (steer, 0),
            limits: MachineLimits {
                tunnels_max: TUNNELS_MAX,
                target_sockets_max: TUNNELS_MAX - 1,
                resolves_max: TUNNELS_MAX / 2,
                early: EarlyLimits {
                    datagrams_max: 4,
                    bytes_max: 4096,
                },
                tunnel_idle: Duration::from_secs(120),
                tcp_idle: Duration::from_secs(120),
                tcp_buffer_bytes: 4096,
                head_starts: HeadStarts::default(),
                open_timeout: Duration::from_secs(10),
                drain: Duration::from_secs(30),
            },
        });
        Self {
            machine,
            world: World::default(),
            now: *now,
        }
    }

    /// Datagrams of one size from a peer; the last may be shorter.
    fn receive(&mut self, peer: usize, segment_size: usize, data: Vec<u8>) {
        self.world.traffic[peer].0 += data.len();
        let train = Train {
            peer: World::peer(peer),
            local_ip: None,
            ecn: None,
            segment_size: segment_size.min(data.len()),
            data: BytesMut::from(&*data),
        };
        let tag = Tag::Listener(0);
        self.machine.handle_received(
            self.now,
            World::LISTENER,
            tag,
            Received::Train(train),
            &mut self.world,
        );
    }

    /// Turns until there is nothing left to do at this time.
    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            for (socket, tunnel, received) in self.world.take_answers() {
                self.machine
                    .handle_received(self.now, socket, tunnel, received, &mut self.world);
            }
            for asker in std::mem::take(&mut self.world.asked) {
                let resolution = self.world.resolution.clone();
                self.machine
                    .handle_resolved(self.now, asker, resolution, &mut self.world);
            }
            self.machine.turn(self.now, &mut self.world);
            while self.machine.poll_local().is_some() {}
            self.machine.flush(self.now, &mut self.world);
            assert!(self.machine.tunnel_count() <= TUNNELS_MAX);
            let due = self
                .machine
                .next_timeout()
                .is_some_and(|due| due <= self.now);
            if !due && !self.machine.is_busy() && self.world.is_quiet() {
                return;
            }
        }
        panic!("the machine does not come to rest");
    }

    /// Lets time pass, from deadline to deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..TURNS_MAX {
            self.settle();
            match self.machine.next_timeout() {
                Some(due) if due <= end => self.now = due,
                Some(_) | None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the machine keeps itself busy");
    }

    /// Carries packets both ways until neither side has any.
    fn exchange(&mut self, client: &mut Client) {
        for _ in 0..TURNS_MAX {
            self.settle();
            for packet in self.world.sent_to_client.drain(..) {
                client.handle_packet(self.now, packet);
            }
            let packets = client.poll_packets(self.now);
            if packets.is_empty() {
                return;
            }
            for packet in packets {
                self.receive(0, usize::MAX, packet);
            }
        }
        panic!("client and relay do not come to rest");
    }

    /// The peers fall silent; nothing may be left of them.
    fn end(mut self) {
        self.pass(FOR_EVER);
        assert_eq!(self.machine.tunnel_count(), 0);
        assert_eq!(self.machine.hub().connection_count(), 0);
        assert!(self.world.targets.is_empty(), "sockets to targets are left");
        let stats = self.machine.stats;
        assert!(stats.tunnels_opened <= stats.tunnels_ended);
        if !self.machine.is_finished() {
            let retries = self.machine.hub().stats.retries_sent;
            self.receive(0, usize::MAX, initial(0xff, 0, &[], &[1]));
            assert_eq!(self.machine.hub().stats.retries_sent, retries);
            assert_eq!(
                self.machine.hub().connection_count(),
                1,
                "no place for the next"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What targets got when the client did this in one flight, after it opened its control stream and a tunnel.
    fn delivered(flight: &[(u8, u8, &[u8])]) -> Vec<Vec<u8>> {
        let mut relay = Relay::new();
        let mut client = Client::new(relay.now);
        relay.exchange(&mut client);
        for (kind, selector, bytes) in [(3, 0, &[][..]), (1, 0, &[])] {
            client.operate(relay.now, kind, selector, bytes);
        }
        relay.exchange(&mut client);
        assert_eq!(relay.machine.tunnel_count(), 1);
        for (kind, selector, bytes) in flight {
            client.operate(relay.now, *kind, *selector, bytes);
        }
        relay.exchange(&mut client);
        let delivered = relay
            .world
            .delivered
            .iter()
            .map(|payload| payload.to_vec())
            .collect();
        relay.end();
        delivered
    }

    #[test]
    fn targets_get_what_came_before_the_end() {
        assert_eq!(delivered(&[(10, 0, b"\0one")]), [b"one"]);
        assert_eq!(delivered(&[(5, 0, b"\0\x04\0one"), (6, 0, b"")]), [b"one"]);
        assert_eq!(delivered(&[(10, 0, b"\0one"), (6, 0, b"")]), [b"one"]);
        // A tunnel that begins and ends in one flight, on the next stream.
        let whole = [(1, 0, &b""[..]), (10, 1, b"\0one"), (6, 1, b"")];
        assert_eq!(delivered(&whole), [b"one"]);
    }
    // spec: 9000-10.3-b
    #[test]
    fn an_unknown_address_gets_little() {
        let mut relay = Relay::new();
        let hello = include_bytes!("../../fuzz/corpus/packet/hello");
        for (_, selector, frames) in operations(hello) {
            relay.receive(0, usize::MAX, initial(selector, 0, &[], frames));
        }
        // Long enough for every retransmission.
        relay.pass(Duration::from_secs(60));
        let (received, sent) = relay.world.traffic[0];
        assert!(
            received < sent && sent <= allowance(received),
            "{sent} bytes"
        );

        relay.receive(1, usize::MAX, vec![0x40; 60]);
        relay.settle();
        let (received, sent) = relay.world.traffic[1];
        assert!(0 < sent && sent < received, "a reset of {sent} bytes");
        relay.end();
    }
}
