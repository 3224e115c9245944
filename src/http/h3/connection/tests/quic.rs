//! Client and server over two real quinn-proto endpoints that exchange packets in memory.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use quinn_proto::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn_proto::{
    ClientConfig, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, ServerConfig,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use super::*;
use crate::http::h3::event::{DatagramMode, DatagramRoute, GoAway, SendData};

/// One endpoint with at most one connection.
struct End {
    address: SocketAddr,
    endpoint: Endpoint,
    quic: Option<(ConnectionHandle, quinn_proto::Connection)>,
    machine: Connection,
    events: Vec<Event>,
    datagrams: Vec<Bytes>,
}

impl End {
    fn new(role: Role, endpoint: Endpoint, port: u16) -> Self {
        Self {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            endpoint,
            quic: None,
            machine: Connection::new(role, Config::default()),
            events: Vec::new(),
            datagrams: Vec::new(),
        }
    }

    fn quic(&mut self) -> &mut quinn_proto::Connection {
        &mut self.quic.as_mut().unwrap().1
    }

    fn receive(&mut self, now: Instant, from: SocketAddr, packet: &[u8]) {
        let mut buf = Vec::new();
        match self
            .endpoint
            .handle(now, from, None, None, BytesMut::from(packet), &mut buf)
        {
            Some(DatagramEvent::NewConnection(incoming)) => {
                let accepted = self.endpoint.accept(incoming, now, &mut buf, None);
                self.quic = Some(accepted.map_err(|error| error.cause).unwrap());
            }
            Some(DatagramEvent::ConnectionEvent(_, event)) => self.quic().handle_event(event),
            Some(DatagramEvent::Response(_)) | None => {}
        }
    }

    /// Feeds the machine and returns the packets that leave.
    fn turn(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let Some((handle, quic)) = &mut self.quic else {
            return Vec::new();
        };
        while quic.poll_timeout().is_some_and(|deadline| deadline <= now) {
            quic.handle_timeout(now);
        }
        while let Some(event) = quic.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                quic.handle_event(event);
            }
        }
        while let Some(event) = quic.poll() {
            match event {
                quinn_proto::Event::Connected => self.machine.start(quic).unwrap(),
                quinn_proto::Event::Stream(event) => {
                    self.machine.handle_stream_event(quic, event).unwrap();
                    self.events
                        .extend(std::iter::from_fn(|| self.machine.poll()));
                }
                quinn_proto::Event::DatagramReceived => {
                    self.datagrams
                        .extend(std::iter::from_fn(|| quic.datagrams().recv()));
                }
                quinn_proto::Event::ConnectionLost { reason } => panic!("{reason}"),
                quinn_proto::Event::HandshakeDataReady | quinn_proto::Event::DatagramsUnblocked => {
                }
            }
        }
        let mut packets = Vec::new();
        let mut buf = Vec::new();
        while let Some(transmit) = quic.poll_transmit(now, 1, &mut buf) {
            packets.push(buf.drain(..transmit.size).collect());
            buf.clear();
        }
        packets
    }

    fn recv(&mut self, id: StreamId) -> RecvData {
        let Self { machine, quic, .. } = self;
        machine
            .recv_data(&mut quic.as_mut().unwrap().1, id, 1000)
            .unwrap()
    }

    fn send(&mut self, id: StreamId, data: &[u8]) -> SendData {
        let Self { machine, quic, .. } = self;
        machine.send_data(&mut quic.as_mut().unwrap().1, id, data)
    }

    fn finish(&mut self, id: StreamId) {
        let Self { machine, quic, .. } = self;
        machine.finish(&mut quic.as_mut().unwrap().1, id);
    }

    fn route(&mut self) -> (DatagramRoute, Bytes) {
        let Self {
            machine,
            quic,
            datagrams,
            ..
        } = self;
        let datagram = datagrams.remove(0);
        (
            machine
                .route_datagram(&mut quic.as_mut().unwrap().1, &datagram)
                .unwrap(),
            datagram,
        )
    }
}

struct Net {
    now: Instant,
    client: End,
    server: End,
}

impl Net {
    fn new() -> Self {
        let certified = rcgen::generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
        let cert = CertificateDer::from(certified.cert);
        let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls13 = &[&rustls::version::TLS13];

        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(tls13)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.clone()], key.into())
            .unwrap();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let server_config =
            ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));

        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(tls13)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h3".to_vec()];
        let client_config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));

        let config = Arc::new(EndpointConfig::default());
        let server = Endpoint::new(
            Arc::clone(&config),
            Some(Arc::new(server_config)),
            true,
            None,
        );
        let client = Endpoint::new(config, None, true, None);
        #[expect(
            clippy::disallowed_methods,
            reason = "the first instant; from here on time is virtual"
        )]
        let now = Instant::now();
        let mut net = Self {
            now,
            client: End::new(Role::Client, client, 1),
            server: End::new(Role::Server, server, 2),
        };
        let address = net.server.address;
        let connected = net
            .client
            .endpoint
            .connect(now, client_config, address, "relay.example");
        net.client.quic = Some(connected.unwrap());
        net
    }

    /// Exchanges packets for a second of virtual time, enough for everything to settle.
    fn settle(&mut self) {
        for _ in 0..100 {
            for packet in self.client.turn(self.now) {
                self.server.receive(self.now, self.client.address, &packet);
            }
            for packet in self.server.turn(self.now) {
                self.client.receive(self.now, self.server.address, &packet);
            }
            self.now += Duration::from_millis(10);
        }
    }
}

#[test]
fn a_tunnel_over_quic() {
    let mut net = Net::new();
    net.settle();
    // spec: 9114-3.2-b, 8441-3-b, rc-firefox-b
    assert!(matches!(net.server.events.remove(0), Event::Settings(settings) if settings.datagrams));
    assert!(
        matches!(net.client.events.remove(0), Event::Settings(settings) if settings.extended_connect)
    );

    let End { machine, quic, .. } = &mut net.client;
    let id = machine
        .request(&mut quic.as_mut().unwrap().1, &connect_udp())
        .unwrap();
    net.settle();
    let Event::Request { id: served, head } = net.server.events.remove(0) else {
        panic!("no request");
    };
    assert_eq!((served, *head), (id, connect_udp()));
    let End { machine, quic, .. } = &mut net.server;
    let ok = ResponseHead::new(::http::StatusCode::OK);
    machine
        .respond(&mut quic.as_mut().unwrap().1, id, &ok, false)
        .unwrap();
    net.settle();
    assert!(matches!(net.client.events.remove(0), Event::Response { head, .. } if *head == ok));

    // spec: 9297-2.1.1-c
    for end in [&mut net.client, &mut net.server] {
        let End { machine, quic, .. } = end;
        let quic = &mut quic.as_mut().unwrap().1;
        assert_eq!(machine.datagram_mode(quic), DatagramMode::Frames);
        quic.datagrams()
            .send(Bytes::from_static(b"\x00\x00hello"), false)
            .unwrap();
    }
    net.settle();
    for end in [&mut net.client, &mut net.server] {
        let (route, datagram) = end.route();
        assert_eq!(route, DatagramRoute::Stream { id, header_len: 1 });
        assert_eq!(datagram, &b"\x00\x00hello"[..]);
    }

    // More than any window, so that writing blocks and resumes.
    let data: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let mut rest = data.chunks(10_000).peekable();
    let mut received = Vec::new();
    let mut blocked = 0;
    while received.len() < data.len() {
        while let Some(chunk) = rest.peek() {
            match net.client.send(id, chunk) {
                SendData::Written => drop(rest.next()),
                SendData::Blocked => {
                    blocked += 1;
                    break;
                }
                SendData::Gone => panic!("gone"),
            }
        }
        net.settle();
        while let RecvData::Data(piece) = net.server.recv(id) {
            received.extend_from_slice(&piece);
        }
    }
    assert!(received == data && blocked > 0, "blocked {blocked} times");

    // spec: 9114-4.4-d
    net.client.finish(id);
    net.settle();
    assert_eq!(net.server.recv(id), RecvData::Finished);
    assert_eq!(net.server.send(id, b"bye"), SendData::Written);
    net.server.finish(id);
    net.settle();
    assert_eq!(net.client.recv(id), RecvData::Data(b"bye"[..].into()));
    assert_eq!(net.client.recv(id), RecvData::Finished);
    assert!(net.client.machine.is_idle() && net.server.machine.is_idle());

    let End { machine, quic, .. } = &mut net.server;
    machine
        .goaway(&mut quic.as_mut().unwrap().1, GoAway::Final)
        .unwrap();
    net.settle();
    assert_eq!(net.client.events.last(), Some(&Event::GoAway { id: 4 }));
}

#[test]
fn stopped_and_reset_streams_leave_nothing_in_quic() {
    let mut net = Net::new();
    net.settle();
    let cancelled = Code::H3_REQUEST_CANCELLED;
    // Many times more than the streams that QUIC allows at once.
    for round in 0..300u64 {
        let End { machine, quic, .. } = &mut net.client;
        let id = machine
            .request(&mut quic.as_mut().unwrap().1, &connect_udp())
            .unwrap();
        net.settle();
        let End { machine, quic, .. } = &mut net.server;
        let quic = &mut quic.as_mut().unwrap().1;
        let ok = ResponseHead::new(::http::StatusCode::OK);
        let refused = ResponseHead::new(::http::StatusCode::FORBIDDEN);
        match round % 4 {
            0 => machine.respond(quic, id, &refused, true).unwrap(),
            1 => machine.reset(quic, id, Code::H3_CONNECT_ERROR),
            2 => {
                machine.respond(quic, id, &ok, false).unwrap();
                machine.finish(quic, id);
            }
            _ => machine.respond(quic, id, &ok, false).unwrap(),
        }
        net.settle();
        net.client.recv(id);
        let End { machine, quic, .. } = &mut net.client;
        machine.reset(&mut quic.as_mut().unwrap().1, id, cancelled);
        net.settle();
        let End { machine, quic, .. } = &mut net.server;
        machine.reset(&mut quic.as_mut().unwrap().1, id, cancelled);
        net.settle();
    }
    for end in [&mut net.client, &mut net.server] {
        assert!(end.machine.is_idle());
        assert_eq!(end.quic().streams().remote_open_streams(Dir::Bi), 0);
        assert_eq!(
            end.quic().streams().send_streams(),
            3,
            "control and QPACK streams stay"
        );
    }
}
