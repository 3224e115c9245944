//! Hubs wired to each other in memory, with a clock of their own.
//!
//! ```text
//!   client hub ── packets ──► server hub        nested: ── tunnel of the two ──► third hub
//!       └──────── a test may lose them ◄─┘
//! ```

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use quinn_proto::{ClientConfig, ConnectionError, ServerConfig, StreamId, TransportConfig};

use super::options::{Options, endpoint_config, shared_endpoint_config};
use super::*;
use crate::config::{Checked, Environment, parse};
use crate::http::h3::code::Code;
use crate::http::request::{RequestHead, ResponseHead};
use crate::net::steer::Steer;
use crate::net::{TcpClose, TcpId, TcpRead, Train, TrainOutcome, clock};
use crate::transport::carriers::RequestStream;
use crate::transport::tls::{
    ClientTls, DevCa, Trust, client_config, quic_client, quic_server, server_config,
};

mod peer;

const SOCKET: SocketId = SocketId::from_parts(1, 1);
/// Whom every request of these tests belongs to, at its server.
const OWNER: u64 = 7;
/// Longer than any idle timeout or drain of QUIC.
const FOR_EVER: Duration = Duration::from_secs(3600);

#[derive(Default)]
struct Wire(Vec<(SocketAddr, BytesMut)>);

impl Network for Wire {
    fn send(&mut self, socket: SocketId, outgoing: &Outgoing<'_>) {
        assert_eq!(socket, SOCKET);
        let peer = outgoing.peer.expect("a shared socket");
        let size = outgoing.segment_size.unwrap_or(outgoing.contents.len());
        let packets = outgoing.contents.chunks(size.max(1));
        self.0.extend(packets.map(|packet| (peer, packet.into())));
    }

    fn send_train(&mut self, _: SocketId, _: &[Bytes]) -> TrainOutcome {
        unreachable!("a hub has no connected sockets");
    }

    fn send_packets(&mut self, _: SocketId, _: &mut Vec<Bytes>) {
        unreachable!("a hub has no TUN");
    }

    fn read(&mut self, _: TcpId, _: &mut BytesMut, _: usize) -> io::Result<TcpRead> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, _: TcpId, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn shutdown(&mut self, _: TcpId) {}

    fn close(&mut self, _: TcpId, _: TcpClose) {}
}

struct End {
    hub: Hub,
    endpoint: EndpointId,
    address: SocketAddr,
    wire: Wire,
    events: Vec<(ConnectionId, Event)>,
    /// Owner and HTTP Datagram payload.
    datagrams: Vec<(u64, Bytes)>,
}

fn checked() -> Checked {
    let mut environment = Environment::new("/", std::num::NonZeroUsize::MIN, "relay.test");
    environment.dev_listen = Some(([192, 0, 2, 1], 443).into());
    parse("", &environment).expect("defaults are valid")
}

/// Requests that a client of these tests may have open.
const STREAMS_MAX: u32 = 1024;

fn options() -> Options {
    Options::new(checked().quic, STREAMS_MAX)
}

fn limits() -> HubLimits {
    HubLimits {
        connections_max: 8,
        streams_max: STREAMS_MAX,
        retry_handshakes: 8,
        handshakes_max: 8,
        handshake_timeout: Duration::from_secs(5),
        outbox: OutboxLimits {
            datagrams_max: 64,
            bytes_max: 1 << 20,
        },
    }
}

impl End {
    fn new(address: [u8; 4], limits: HubLimits, server: Option<ServerConfig>) -> Self {
        let mut hub = Hub::new(limits, h3::Config::default());
        let config = endpoint_config(&shared_endpoint_config(), Steer::new([1, 2, 3, 4], 1), 0);
        let server = server.map(Arc::new);
        let endpoint = hub.add_endpoint(quinn_proto::Endpoint::new(config, server, true, None));
        Self {
            hub,
            endpoint,
            address: (address, 443).into(),
            wire: Wire::default(),
            events: Vec::new(),
            datagrams: Vec::new(),
        }
    }

    fn server(address: [u8; 4], limits: HubLimits) -> Self {
        Self::new(
            address,
            limits,
            Some(server_of(options().server_transport())),
        )
    }

    fn client() -> Self {
        Self::new([198, 51, 100, 1], limits(), None)
    }

    fn receive(&mut self, now: Instant, peer: SocketAddr, data: BytesMut) {
        let train = Train {
            peer,
            local_ip: None,
            ecn: None,
            segment_size: data.len(),
            data,
        };
        self.hub
            .handle_train(now, self.endpoint, SOCKET, train, &mut self.wire);
    }

    /// A turn. Requests belong to [`OWNER`] and are accepted.
    fn turn(&mut self, now: Instant) {
        self.hub.expire(now);
        while self.hub.has_touched() {
            let touched = self.hub.next_touched();
            if let Some(id) = touched {
                self.hub.advance(now, id);
            }
            while let Some((id, event)) = self.hub.poll_event() {
                if let Event::Http(h3::Event::Request { id: stream, .. }) = event {
                    self.hub.bind(id, stream, OWNER);
                    let accepted = ResponseHead::new(::http::StatusCode::OK);
                    self.hub.respond(id, stream, &accepted, false);
                }
                self.events.push((id, event));
            }
            while let Some(id) = touched
                && let Some((_, owner, datagram)) = self.hub.recv_datagram(now, id)
            {
                self.datagrams.push((owner, datagram));
            }
        }
        self.hub.flush(now, &mut self.wire);
    }

    /// Dials over the socket.
    fn connect(&mut self, now: Instant, server: &Self) -> ConnectionId {
        let transport = options().client_transport(false);
        let link = Link::Socket(SOCKET);
        self.connect_with(now, server.address, transport, link)
    }

    fn connect_with(
        &mut self,
        now: Instant,
        address: SocketAddr,
        transport: Arc<TransportConfig>,
        link: Link,
    ) -> ConnectionId {
        let tls = client_config(&ClientTls::new(Trust::DangerousAnybody)).unwrap();
        let mut config = ClientConfig::new(quic_client(tls).unwrap());
        config.transport_config(transport);
        self.hub
            .connect(now, self.endpoint, config, address, "relay.test", link)
            .unwrap()
    }

    fn request(&mut self, id: ConnectionId, owner: u64) -> StreamId {
        self.try_request(id, owner).unwrap()
    }

    fn try_request(&mut self, id: ConnectionId, owner: u64) -> Result<StreamId, h3::RequestError> {
        let path = "/.well-known/masque/udp/192.0.2.9/7/";
        let head = RequestHead::extended_connect("connect-udp", "https", "relay.test", path);
        let stream = self.hub.request(id, &head)?;
        self.hub.bind(id, stream, owner);
        Ok(stream)
    }

    /// How the connection ended, and whom its streams belonged to then.
    fn closed(&self, id: ConnectionId) -> Option<(&CloseReason, Vec<u64>)> {
        let mut ends = self.events.iter().filter(|(of, _)| *of == id);
        let end = ends.find_map(|(_, event)| match event {
            Event::Closed { reason, bound } => {
                Some((reason, bound.iter().map(|(_, owner)| *owner).collect()))
            }
            Event::Connected | Event::Http(_) | Event::Mtu { .. } => None,
        });
        assert!(ends.next().is_none(), "the end is the last event");
        end
    }

    fn is_connected(&self, id: ConnectionId) -> bool {
        let connected = |(of, event): &(_, _)| *of == id && matches!(event, Event::Connected);
        self.events.iter().any(connected) && self.closed(id).is_none()
    }

    /// Nothing is left, and nothing wakes the owner any more.
    fn assert_empty(&self) {
        let hub = &self.hub;
        assert_eq!(
            (hub.connection_count(), hub.served, hub.handshakes),
            (0, 0, 0)
        );
        assert_eq!(hub.next_timeout(), None);
        assert!(!hub.has_touched());
        assert!(hub.endpoints[0].slots.iter().all(Option::is_none));
    }
}

fn server_of(transport: Arc<TransportConfig>) -> ServerConfig {
    let authority = DevCa::new(&["relay.test"], SystemTime::UNIX_EPOCH).unwrap();
    let tls = server_config(&authority.identity, false).unwrap();
    server_with(tls, transport)
}

fn server_with(tls: Arc<rustls::ServerConfig>, transport: Arc<TransportConfig>) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(quic_server(tls).unwrap());
    config.transport_config(transport);
    config
}

struct Pair {
    now: Instant,
    client: End,
    server: End,
}

impl Pair {
    fn new(server: HubLimits) -> Self {
        Self::with(End::server([192, 0, 2, 1], server))
    }

    fn with(server: End) -> Self {
        Self {
            now: clock::now(),
            client: End::client(),
            server,
        }
    }

    /// Carries packets until nobody sends; `lose` takes them from the server's and the client's wire.
    fn exchange_but(&mut self, mut lose: impl FnMut(&mut Wire, &mut Wire)) {
        loop {
            self.server.turn(self.now);
            self.client.turn(self.now);
            lose(&mut self.server.wire, &mut self.client.wire);
            if self.server.wire.0.is_empty() && self.client.wire.0.is_empty() {
                return;
            }
            for (_, packet) in std::mem::take(&mut self.client.wire.0) {
                self.server.receive(self.now, self.client.address, packet);
            }
            for (_, packet) in std::mem::take(&mut self.server.wire.0) {
                self.client.receive(self.now, self.server.address, packet);
            }
        }
    }

    fn exchange(&mut self) {
        self.exchange_but(|_, _| {});
    }

    /// Lets time pass from deadline to deadline.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            let hubs = [&self.client.hub, &self.server.hub];
            match hubs.iter().filter_map(|hub| hub.next_timeout()).min() {
                Some(due) if due <= end => self.now = self.now.max(due),
                Some(_) | None => break,
            }
        }
        self.now = end;
        self.exchange();
    }

    fn connect(&mut self) -> ConnectionId {
        let id = self.client.connect(self.now, &self.server);
        self.exchange();
        id
    }
}

// spec: 9297-2.1-a, 9298-5-b
#[test]
fn a_tunnel_from_handshake_to_close() {
    let mut pair = Pair::new(limits());
    let id = pair.connect();
    assert!(pair.client.is_connected(id) && pair.client.hub.is_open(id));
    let stream = pair.client.request(id, 3);
    pair.exchange();
    pair.client.hub.send_datagram(id, stream, b"ping");
    pair.exchange();
    assert_eq!(
        pair.server.datagrams,
        [(OWNER, Bytes::from_static(b"\0ping"))]
    );
    let (served, _) = pair.server.events[0];
    pair.server.hub.send_datagram(served, stream, b"pong");
    pair.exchange();
    assert_eq!(pair.client.datagrams, [(3, Bytes::from_static(b"\0pong"))]);
    assert!(pair.server.hub.is_downstream(served) && !pair.client.hub.is_downstream(id));

    pair.client.hub.close(pair.now, id, Code::H3_NO_ERROR);
    assert_eq!(
        pair.client.hub.send_datagram(id, stream, b"late"),
        SendOutcome::Gone
    );
    pair.exchange();
    let (reason, bound) = pair.client.closed(id).unwrap();
    assert!(matches!(reason, CloseReason::Local) && bound == [3]);
    let (reason, bound) = pair.server.closed(served).unwrap();
    let by_peer = matches!(
        reason,
        CloseReason::Lost(ConnectionError::ApplicationClosed(_))
    );
    assert!(by_peer && bound == [OWNER]);
    pair.pass(FOR_EVER);
    pair.client.assert_empty();
    pair.server.assert_empty();
}

// spec: 9114-6.1-a
#[test]
fn a_client_that_opens_all_streams_at_once_gets_them_in_a_few_round_trips() {
    let mut pair = Pair::new(limits());
    let id = pair.connect();
    let mut opened = Vec::new();
    while opened.len() < STREAMS_MAX as usize {
        let before = opened.len();
        while let Ok(stream) = pair.client.try_request(id, 3) {
            opened.push(stream);
        }
        // The first credit, and from then on at least as many again.
        assert!(opened.len() >= STREAMS_MAX.min(100.max(2 * before as u32)) as usize);
        pair.exchange();
    }
    assert_eq!(opened.len(), STREAMS_MAX as usize);
    assert_eq!(pair.server.hub.counters().streams_blocked, 0);

    // That was the limit; one that ends makes room for another, an eighth at a time.
    let exhausted = |pair: &mut Pair| {
        matches!(
            pair.client.try_request(id, 3),
            Err(h3::RequestError::StreamsExhausted)
        )
    };
    assert!(exhausted(&mut pair));
    let (served, _) = pair.server.events[0];
    for stream in opened.drain(..STREAMS_MAX as usize / 4) {
        pair.client
            .hub
            .reset(id, stream, Code::H3_REQUEST_CANCELLED);
        pair.exchange();
        pair.server
            .hub
            .reset(served, stream, Code::H3_REQUEST_CANCELLED);
        pair.exchange();
    }
    pair.client.request(id, 3);
}

#[test]
fn keys_are_updated_from_either_side() {
    let mut pair = Pair::new(limits());
    let id = pair.connect();
    let stream = pair.client.request(id, 3);
    pair.exchange();
    let (served, _) = pair.server.events[0];
    for round in 0..4 {
        let updating = match round % 2 {
            0 => &mut pair.server.hub,
            _ => &mut pair.client.hub,
        };
        for (_, connection) in &mut updating.connections {
            connection.quic.force_key_update();
        }
        pair.server.hub.send_datagram(served, stream, b"down");
        pair.client.hub.send_datagram(id, stream, b"up");
        pair.exchange();
        // The old keys are kept for a while, and until then there is no other update.
        pair.pass(Duration::from_secs(2));
    }
    assert_eq!(
        (pair.client.datagrams.len(), pair.server.datagrams.len()),
        (4, 4)
    );
}

#[test]
fn a_client_that_opens_few_streams_is_granted_few() {
    let mut pair = Pair::new(limits());
    let id = pair.connect();
    for _ in 0..49 {
        pair.client.request(id, 3);
    }
    pair.exchange();
    let granted = |pair: &Pair| {
        let (_, connection) = pair.server.hub.connections.iter().next().unwrap();
        connection.quic.max_concurrent_streams(quinn_proto::Dir::Bi)
    };
    assert_eq!(granted(&pair), 100);
    pair.client.request(id, 3);
    pair.exchange();
    assert_eq!(granted(&pair), 200);
}

#[test]
fn who_asks_and_leaves_at_once_leaves_nothing_behind() {
    let mut pair = Pair::new(limits());
    let id = pair.connect();
    pair.client.request(id, 3);
    // The request and the end of the connection in one turn of the server.
    pair.client.turn(pair.now);
    pair.client.hub.close(pair.now, id, Code::H3_NO_ERROR);
    pair.exchange();
    let (served, _) = pair.server.events[0];
    let request = |(_, event): &(_, Event)| matches!(event, Event::Http(h3::Event::Request { .. }));
    assert!(pair.server.events.iter().any(request));
    assert_eq!(pair.server.closed(served).unwrap().1, [OWNER]);
    pair.pass(FOR_EVER);
    pair.server.assert_empty();
}

// spec: 9000-8.1-b
#[test]
fn addresses_are_validated_when_handshakes_pile_up() {
    let mut pair = Pair::new(HubLimits {
        retry_handshakes: 1,
        ..limits()
    });
    let ids = [(); 3].map(|()| pair.client.connect(pair.now, &pair.server));
    pair.exchange();
    assert!(ids.iter().all(|id| pair.client.is_connected(*id)));
    assert_eq!(pair.server.hub.stats.retries_sent, 2);
    assert_eq!(pair.server.hub.stats.connections_opened, 3);
}

#[test]
fn more_than_the_limits_are_refused_and_counted() {
    let mut pair = Pair::new(HubLimits {
        handshakes_max: 2,
        connections_max: 3,
        ..limits()
    });
    let refused = |end: &End, id| {
        matches!(
            end.closed(id),
            Some((CloseReason::Lost(ConnectionError::ConnectionClosed(close)), _))
                if close.error_code == quinn_proto::TransportErrorCode::CONNECTION_REFUSED
        )
    };
    let ids = [(); 3].map(|()| pair.client.connect(pair.now, &pair.server));
    pair.exchange();
    assert!(pair.client.is_connected(ids[0]) && pair.client.is_connected(ids[1]));
    assert!(refused(&pair.client, ids[2]));
    assert_eq!(pair.server.hub.stats.handshakes_refused, 1);

    let third = pair.connect();
    let fourth = pair.connect();
    assert!(pair.client.is_connected(third) && refused(&pair.client, fourth));
    assert_eq!(pair.server.hub.stats.connections_refused, 1);

    // A place becomes free when QUIC has forgotten its last holder.
    pair.client.hub.close(pair.now, third, Code::H3_NO_ERROR);
    pair.pass(Duration::from_secs(10));
    let fifth = pair.connect();
    assert!(pair.client.is_connected(fifth));

    pair.server.hub.drain();
    let sixth = pair.connect();
    assert!(refused(&pair.client, sixth));
    assert_eq!(pair.server.hub.stats.connections_refused_draining, 1);
}

#[test]
fn handshakes_end_in_time_on_both_sides() {
    let mut pair = Pair::new(HubLimits {
        handshakes_max: 1,
        ..limits()
    });
    let id = pair.client.connect(pair.now, &pair.server);
    // The client's first flight arrives, no answer ever does.
    pair.exchange_but(|server, _| server.0.clear());
    assert_eq!(pair.server.hub.handshakes, 1);
    let end = pair.now + limits().handshake_timeout;
    while pair.now < end {
        let due = pair
            .client
            .hub
            .next_timeout()
            .min(pair.server.hub.next_timeout());
        pair.now = pair.now.max(due.unwrap().min(end));
        pair.exchange_but(|server, client| {
            server.0.clear();
            client.0.clear();
        });
    }
    let (reason, _) = pair.client.closed(id).unwrap();
    assert!(matches!(reason, CloseReason::HandshakeTimeout));
    for end in [&pair.client, &pair.server] {
        assert_eq!(end.hub.stats.handshakes_timed_out, 1);
        assert_eq!(end.hub.stats.connections_opened, 0);
    }
    // The only place is free again.
    let next = pair.connect();
    assert!(pair.client.is_connected(next));
}

#[test]
fn stale_ids_find_nothing() {
    let mut pair = Pair::new(limits());
    let old = pair.connect();
    let stream = pair.client.request(old, 3);
    pair.client.hub.close(pair.now, old, Code::H3_NO_ERROR);
    pair.pass(FOR_EVER);
    let new = pair.connect();
    assert_eq!(new.index, old.index, "the slot is used again");
    assert_eq!(pair.client.request(new, 5), stream);

    let hub = &mut pair.client.hub;
    hub.bind(old, stream, 9);
    assert_eq!(
        (hub.owner(old, stream), hub.owner(new, stream)),
        (None, Some(5))
    );
    hub.unbind(old, stream);
    hub.reset(old, stream, Code::H3_REQUEST_CANCELLED);
    hub.close(pair.now, old, Code::H3_NO_ERROR);
    assert!(!hub.is_open(old) && hub.is_open(new));
    assert_eq!(hub.send_datagram(old, stream, b"x"), SendOutcome::Gone);
    assert_eq!(
        hub.recv_data(pair.now, old, stream, usize::MAX),
        h3::RecvData::Blocked
    );
    pair.exchange();
    assert_eq!(pair.client.hub.owner(new, stream), Some(5));
    assert!(pair.client.is_connected(new));
}

// spec: 9221-5.3-a, 9221-5.4-b
#[test]
fn what_waits_for_the_network_displaces_only_its_own_tunnel() {
    const FLOOD: usize = 2_000;
    let mut pair = Pair::new(limits());
    let id = pair.connect();
    let [noisy, quiet] = [3, 4].map(|owner| pair.client.request(id, owner));
    pair.exchange();
    let outcomes: Vec<_> = (0..FLOOD)
        .map(|n| {
            let mut payload = vec![1; 1000];
            payload[1..9].copy_from_slice(&n.to_be_bytes());
            pair.client.hub.send_datagram(id, noisy, &payload)
        })
        .collect();
    assert_eq!(outcomes[0], SendOutcome::Sent);
    assert_eq!(outcomes[FLOOD - 1], SendOutcome::Queued);
    for _ in 0..3 {
        assert_eq!(
            pair.client.hub.send_datagram(id, quiet, &[2]),
            SendOutcome::Queued
        );
    }
    assert!(pair.client.hub.is_waiting(id, noisy) && pair.client.hub.is_waiting(id, quiet));

    pair.pass(Duration::from_secs(5));
    assert!(!pair.client.hub.is_waiting(id, noisy) && !pair.client.hub.is_waiting(id, quiet));
    let stats = pair.client.hub.stats;
    let arrived: Vec<u8> = pair.server.datagrams.iter().map(|(_, d)| d[1]).collect();
    let noise = arrived.iter().filter(|first| **first == 1).count();
    assert_eq!(noise as u64 + stats.dropped_queue_full, FLOOD as u64);
    assert!(stats.dropped_queue_full > 1_000 && stats.datagrams_queued > 1_000);
    assert_eq!(
        arrived.len() - noise,
        3,
        "nothing of the quiet tunnel is lost"
    );
    assert_eq!(
        arrived.last(),
        Some(&1),
        "and it need not wait for the noise to end"
    );
    // The newest of the noise survived, in order.
    let last = &pair.server.datagrams.last().unwrap().1[2..10];
    assert_eq!(last, (FLOOD - 1).to_be_bytes());
}

// spec: 9297-3.5-a
#[test]
fn peers_without_quic_datagrams_get_capsules() {
    let mut transport = TransportConfig::default();
    transport.datagram_receive_buffer_size(None);
    let server = End::new(
        [192, 0, 2, 1],
        limits(),
        Some(server_of(Arc::new(transport))),
    );
    let mut pair = Pair::with(server);
    let id = pair.connect();
    let stream = pair.client.request(id, 3);
    pair.exchange();
    assert_eq!(
        pair.client.hub.send_datagram(id, stream, b"hello"),
        SendOutcome::Sent
    );
    pair.exchange();
    assert_eq!(pair.client.hub.stats.capsules_sent, 1);
    let (served, _) = pair.server.events[0];
    let read = pair
        .server
        .hub
        .recv_data(pair.now, served, stream, usize::MAX);
    assert_eq!(
        read,
        h3::RecvData::Data(Bytes::from_static(b"\0\x06\0hello"))
    );
}

#[test]
fn a_nested_connection_lives_in_its_tunnel() {
    let mut pair = Pair::new(limits());
    let mut far = End::server([203, 0, 113, 1], limits());
    let outer = pair.connect();
    let stream = pair.client.request(outer, 3);
    pair.exchange();
    let (served, _) = pair.server.events[0];

    let address = pair.client.hub.nested_address();
    let room = pair.client.hub.payload_size_max(outer, stream).unwrap();
    let link = Link::Tunnel(RequestStream::Quic(outer, stream));
    let transport = options().nested_transport(room);
    let inner = pair.client.connect_with(pair.now, address, transport, link);
    // The server in the middle does what a relay does, and the client what its worker does.
    let carry = |pair: &mut Pair, far: &mut End| {
        for _ in 0..50 {
            pair.exchange();
            for (_, datagram) in pair.server.datagrams.split_off(0) {
                far.receive(pair.now, pair.server.address, datagram[1..].into());
            }
            far.turn(pair.now);
            for (_, packet) in far.wire.0.split_off(0) {
                pair.server.hub.send_datagram(served, stream, &packet);
            }
            pair.exchange();
            for (owner, datagram) in pair.client.datagrams.split_off(0) {
                assert_eq!(owner, 3);
                let payload = datagram.slice(1..);
                let Pair { now, client, .. } = pair;
                client
                    .hub
                    .handle_nested(*now, inner, payload, &mut client.wire);
            }
        }
    };
    carry(&mut pair, &mut far);
    assert!(pair.client.is_connected(inner));
    let tunnel = pair.client.request(inner, 9);
    pair.client.hub.send_datagram(inner, tunnel, b"deep");
    carry(&mut pair, &mut far);
    assert_eq!(far.datagrams, [(OWNER, Bytes::from_static(b"\0deep"))]);

    // Once the tunnel has ended, nothing is sent in it: not even the end of the nested connection.
    pair.client.hub.unbind(outer, stream);
    let before = pair.client.hub.stats.quic_datagrams_sent;
    pair.client.hub.close(pair.now, inner, Code::H3_NO_ERROR);
    pair.exchange();
    assert_eq!(pair.client.hub.stats.quic_datagrams_sent, before);
    assert_eq!(pair.client.closed(inner).unwrap().1, [9]);
    assert!(pair.client.is_connected(outer));
}
