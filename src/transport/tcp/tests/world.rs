//! Two hubs and raw clients, joined by byte pipes; time moves only when a test says so.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::{Bytes, BytesMut};

use crate::http::h3::RecvData;
use crate::http::request::{RequestHead, ResponseHead};
use crate::net::{Network, Outgoing, SocketId, TcpClose, TcpId, TcpRead, TrainOutcome};
use crate::transport::tcp::tls::{Plaintext, Session};
use crate::transport::tcp::{
    ByteLink, CloseReason, ConnectionId, Event, StreamId, TcpHub, TcpHubLimits,
};
use crate::transport::tls::{ClientAuth, ClientTls, DevCa, ListenerTls, Trust, tcp_client_config};
use crate::wire::carrier::Carrier;

/// The ends of every connection.
pub(super) const CLIENT: &str = "192.0.2.1:5000";
pub(super) const SERVER: &str = "192.0.2.2:443";

#[derive(Debug, Default)]
pub(super) struct PipeEnd {
    pub(super) inbox: VecDeque<u8>,
    fin: bool,
    pub(super) reset: bool,
    pub(super) closed: Option<TcpClose>,
    pub(super) shut: bool,
}

/// Pairs of pipe ends: `2n` is joined with `2n + 1`.
#[derive(Debug)]
pub(super) struct Pipes {
    pub(super) ends: Vec<PipeEnd>,
    pub(super) capacity: usize,
    moved: usize,
}

impl Pipes {
    pub(super) fn pair(&mut self) -> (TcpId, TcpId) {
        let first = self.ends.len() as u32;
        self.ends.extend([PipeEnd::default(), PipeEnd::default()]);
        (TcpId::from_parts(first, 0), TcpId::from_parts(first + 1, 0))
    }

    pub(super) fn end(&mut self, socket: TcpId) -> &mut PipeEnd {
        &mut self.ends[socket.parts().0 as usize]
    }

    fn far(&mut self, socket: TcpId) -> &mut PipeEnd {
        &mut self.ends[(socket.parts().0 ^ 1) as usize]
    }
}

impl Network for Pipes {
    fn send(&mut self, _: SocketId, _: &Outgoing<'_>) {
        unreachable!("no datagrams here");
    }

    fn send_train(&mut self, _: SocketId, _: &[Bytes]) -> TrainOutcome {
        unreachable!("no datagrams here");
    }

    fn send_packets(&mut self, _: SocketId, _: &mut Vec<Bytes>) {
        unreachable!("no packets here");
    }

    fn read(&mut self, socket: TcpId, buffer: &mut BytesMut, max: usize) -> io::Result<TcpRead> {
        let end = self.end(socket);
        assert!(end.closed.is_none(), "a closed socket is not read");
        if end.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let len = end.inbox.len().min(max).min(20_000);
        if len > 0 {
            buffer.extend(end.inbox.drain(..len));
            self.moved += len;
            Ok(TcpRead::Bytes(len))
        } else if end.fin {
            Ok(TcpRead::End)
        } else {
            Ok(TcpRead::Blocked)
        }
    }

    fn write(&mut self, socket: TcpId, data: &[IoSlice<'_>]) -> io::Result<usize> {
        assert!(!self.end(socket).shut, "nothing is written after FIN");
        if self.end(socket).reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let capacity = self.capacity;
        let far = self.far(socket);
        let mut written = 0;
        for part in data {
            let room = capacity.saturating_sub(far.inbox.len());
            let len = room.min(part.len());
            far.inbox.extend(&part[..len]);
            written += len;
        }
        self.moved += written;
        Ok(written)
    }

    fn shutdown(&mut self, socket: TcpId) {
        self.end(socket).shut = true;
        self.far(socket).fin = true;
        self.moved += 1;
    }

    fn close(&mut self, socket: TcpId, how: TcpClose) {
        assert_eq!(self.end(socket).closed.replace(how), None, "closed once");
        match how {
            TcpClose::Orderly => self.far(socket).fin = true,
            TcpClose::Abort => self.far(socket).reset = true,
        }
        self.moved += 1;
    }
}

/// A socket of the pipes as a sink for TLS.
struct Sink<'a>(&'a mut Pipes, TcpId);

impl Write for Sink<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(self.1, &[IoSlice::new(data)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One hub and what it said.
pub(super) struct Side {
    pub(super) hub: TcpHub,
    pub(super) events: VecDeque<(ConnectionId, Event)>,
    /// What was read as soon as an event said so, if wanted.
    pub(super) reads: Option<(Vec<u8>, RecvData)>,
}

impl Side {
    fn new(limits: TcpHubLimits) -> Self {
        Self {
            hub: TcpHub::new(limits),
            events: VecDeque::new(),
            reads: None,
        }
    }

    fn collect(&mut self, now: Instant) {
        while let Some((id, event)) = self.hub.poll_event() {
            if let Event::Readable { stream } = &event
                && let Some((mut all, _)) = self.reads.take()
            {
                let (data, end) = self.read_all(now, id, *stream);
                all.extend(data);
                self.reads = Some((all, end));
            }
            self.events.push_back((id, event));
        }
    }

    fn turn(&mut self, now: Instant, net: &mut Pipes) {
        let ids: Vec<_> = self.hub.connections().collect();
        for id in ids {
            self.hub.handle_ready(id);
        }
        self.hub.expire(now);
        while let Some(id) = self.hub.next_touched() {
            self.hub.advance(now, id, net);
            self.collect(now);
        }
        self.hub.flush(now, net);
        self.collect(now);
        self.hub.flush(now, net);
    }

    /// The next event, which has to be there.
    #[track_caller]
    pub(super) fn event(&mut self) -> Event {
        self.events.pop_front().expect("an event").1
    }

    /// The next request, which has to be there.
    #[track_caller]
    pub(super) fn request(&mut self) -> (ConnectionId, StreamId, Box<RequestHead>) {
        loop {
            match self.events.pop_front().expect("a request") {
                (id, Event::Request { stream, head }) => return (id, stream, head),
                (_, Event::Connected(_) | Event::Readable { .. }) => {}
                (_, other) => panic!("{other:?}"),
            }
        }
    }

    /// The reason of the end of a connection, which has to be there; other events are passed over.
    #[track_caller]
    pub(super) fn closed(&mut self) -> CloseReason {
        loop {
            if let Event::Closed { reason, .. } = self.event() {
                return reason;
            }
        }
    }

    /// Everything that can be read now.
    pub(super) fn read_all(
        &mut self,
        now: Instant,
        id: ConnectionId,
        stream: StreamId,
    ) -> (Vec<u8>, RecvData) {
        let mut all = Vec::new();
        loop {
            match self.hub.recv_data(now, id, stream, 1000) {
                RecvData::Data(data) => {
                    assert!(!data.is_empty() && data.len() <= 1000);
                    all.extend_from_slice(&data);
                }
                other => return (all, other),
            }
        }
    }
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) net: Pipes,
    pub(super) server: Side,
    pub(super) client: Side,
    pub(super) ca: DevCa,
    /// What the server asks of clients.
    pub(super) client_auth: ClientAuth,
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(TcpHubLimits::default())
    }

    pub(super) fn with(limits: TcpHubLimits) -> Self {
        #[expect(clippy::disallowed_methods, reason = "certificates have dates")]
        let today = SystemTime::now();
        Self {
            now: crate::net::clock::now(),
            net: Pipes {
                ends: Vec::new(),
                capacity: 64 * 1024,
                moved: 0,
            },
            server: Side::new(limits),
            client: Side::new(TcpHubLimits::default()),
            ca: DevCa::new(&[], today).unwrap(),
            client_auth: ClientAuth::None,
        }
    }

    pub(super) fn server_tls(&self) -> Arc<rustls::ServerConfig> {
        let listener = ListenerTls {
            client_auth: self.client_auth.clone(),
            ..self.ca.identity.clone().into()
        };
        let carriers = [Carrier::H2, Carrier::H1];
        listener.tcp_config(&carriers, false).unwrap()
    }

    pub(super) fn client_tls(&self, carrier: Carrier) -> Arc<rustls::ClientConfig> {
        let trust = Trust::Pem(self.ca.ca_pem.clone());
        tcp_client_config(&ClientTls::new(trust), carrier).unwrap()
    }

    /// Turns until nothing moves any more.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            self.net.moved = 0;
            self.server.turn(self.now, &mut self.net);
            self.client.turn(self.now, &mut self.net);
            if self.net.moved == 0 {
                return;
            }
        }
        panic!("it goes on for ever");
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.run();
    }

    pub(super) fn accept(&mut self, socket: TcpId, peer: &str) -> Option<ConnectionId> {
        let tls = self.server_tls();
        let peer: SocketAddr = peer.parse().unwrap();
        self.server
            .hub
            .accept(self.now, socket, peer, tls, &mut self.net)
    }

    pub(super) fn dial(&mut self, tls: Arc<rustls::ClientConfig>) -> ConnectionId {
        let (near, far) = self.net.pair();
        self.accept(far, CLIENT).expect("accepted");
        let link = ByteLink::Socket(near, SERVER.parse().unwrap());
        self.client
            .hub
            .connect(self.now, link, tls, "localhost")
            .unwrap()
    }

    /// A connection between the hubs, past its handshake.
    pub(super) fn connect(&mut self, carrier: Carrier) -> ConnectionId {
        let tls = self.client_tls(carrier);
        let id = self.dial(tls);
        self.run();
        assert!(matches!(self.client.event(), Event::Connected(c) if c == carrier));
        assert!(matches!(self.server.event(), Event::Connected(c) if c == carrier));
        assert_eq!(self.client.hub.carrier(id), Some(carrier));
        id
    }

    /// A request of the client, and its name on both sides.
    pub(super) fn ask(
        &mut self,
        id: ConnectionId,
        head: &RequestHead,
    ) -> (StreamId, ConnectionId, StreamId) {
        let stream = self.client.hub.request(id, head).expect("a stream");
        self.run();
        let (server_id, server_stream, seen) = self.server.request();
        assert_eq!(&*seen, head);
        let read = self
            .server
            .hub
            .recv_data(self.now, server_id, server_stream, 1000);
        assert_eq!(read, RecvData::Blocked);
        (stream, server_id, server_stream)
    }

    /// The same without a look at the head: on HTTP/1.1 it has Host.
    pub(super) fn ask_any(
        &mut self,
        id: ConnectionId,
        head: &RequestHead,
    ) -> (StreamId, ConnectionId, StreamId) {
        let stream = self.client.hub.request(id, head).expect("a stream");
        self.run();
        let (server_id, server_stream, seen) = self.server.request();
        assert_eq!((&seen.method, &seen.path), (&head.method, &head.path));
        let read = self
            .server
            .hub
            .recv_data(self.now, server_id, server_stream, 1000);
        assert_eq!(read, RecvData::Blocked);
        (stream, server_id, server_stream)
    }

    /// A tunnel that both sides have agreed on.
    pub(super) fn tunnel(&mut self, id: ConnectionId) -> (StreamId, ConnectionId, StreamId) {
        let (stream, server_id, server_stream) = self.ask_any(id, &extended());
        let answer = ResponseHead::new(::http::StatusCode::OK);
        assert!(
            self.server
                .hub
                .respond(server_id, server_stream, &answer, false)
        );
        self.run();
        match self.client.event() {
            Event::Response { stream: of, head } => {
                assert_eq!(
                    (of, head.status),
                    (stream, ::http::StatusCode::OK),
                    "{head:?}"
                );
            }
            other => panic!("{other:?}"),
        }
        let read = self.client.hub.recv_data(self.now, id, stream, 1000);
        assert_eq!(read, RecvData::Blocked);
        (stream, server_id, server_stream)
    }

    /// A client made of bytes.
    pub(super) fn raw(&mut self, carrier: Carrier) -> Raw {
        let (near, far) = self.net.pair();
        self.accept(far, "192.0.2.1:5000").expect("accepted");
        let tls = self.client_tls(carrier);
        let session = Session::client(tls, "localhost", 1 << 24).unwrap();
        let mut raw = Raw {
            socket: near,
            session,
            received: Vec::new(),
            ended: None,
        };
        for _ in 0..4 {
            raw.turn(self);
        }
        assert!(!raw.session.is_handshaking());
        raw
    }

    /// A raw client of HTTP/2 that has sent its preface and SETTINGS.
    pub(super) fn raw_h2(&mut self) -> Raw {
        let mut raw = self.raw(Carrier::H2);
        raw.send(self, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        raw.send(self, &frame(4, 0, 0, &[]));
        raw.turn(self);
        assert!(matches!(self.server.event(), Event::Connected(Carrier::H2)));
        raw
    }
}

/// TLS by hand, without a hub.
pub(super) struct Raw {
    pub(super) socket: TcpId,
    pub(super) session: Session,
    pub(super) received: Vec<u8>,
    /// How the server ended.
    pub(super) ended: Option<Plaintext>,
}

impl Raw {
    /// Sends, and lets the server work.
    pub(super) fn send(&mut self, world: &mut World, data: &[u8]) {
        assert_eq!(self.session.write(&[IoSlice::new(data)]), data.len());
        self.turn(world);
    }

    /// Moves bytes towards the server only.
    pub(super) fn push(&mut self, world: &mut World) {
        let sink = &mut Sink(&mut world.net, self.socket);
        self.session.drain(sink).expect("open");
    }

    /// Moves bytes in both directions.
    pub(super) fn turn(&mut self, world: &mut World) {
        for _ in 0..1000 {
            let sink = &mut Sink(&mut world.net, self.socket);
            // A server may have gone.
            self.session.drain(sink).ok();
            world.run();
            let mut input = BytesMut::new();
            match world.net.read(self.socket, &mut input, 1 << 20) {
                Ok(TcpRead::Bytes(_)) => {}
                Ok(TcpRead::Blocked) => {
                    if !self.session.wants_write() {
                        return;
                    }
                }
                Ok(TcpRead::End) => self.session.end(),
                Err(_) => {
                    self.ended.get_or_insert(Plaintext::Truncated);
                    return;
                }
            }
            while !input.is_empty() {
                self.session.feed(&mut input).expect("TLS");
                self.read();
            }
            self.read();
            if self.ended.is_some() {
                return;
            }
        }
    }

    fn read(&mut self) {
        loop {
            let received = &mut self.received;
            match self
                .session
                .read(1 << 20, |part| received.extend_from_slice(part))
            {
                Plaintext::Bytes(_) => {}
                Plaintext::Blocked => return,
                end @ (Plaintext::End | Plaintext::Truncated) => {
                    self.ended = Some(end);
                    return;
                }
            }
        }
    }

    /// The frames received: type, flags, stream, payload.
    pub(super) fn frames(&self) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let mut frames = Vec::new();
        let mut rest = &self.received[..];
        while rest.len() >= 9 {
            let len = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
            let stream = u32::from_be_bytes(rest[5..9].try_into().unwrap());
            frames.push((rest[3], rest[4], stream, rest[9..9 + len].to_vec()));
            rest = &rest[9 + len..];
        }
        frames
    }

    /// The code of the last GOAWAY.
    pub(super) fn goaway(&self) -> Option<u32> {
        let frames = self.frames();
        let (_, _, _, payload) = frames.iter().rev().find(|frame| frame.0 == 7)?;
        Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()))
    }

    /// The code of RST_STREAM on a stream.
    pub(super) fn reset_of(&self, stream: u32) -> Option<u32> {
        let frames = self.frames();
        let (_, _, _, payload) = frames
            .iter()
            .find(|frame| frame.0 == 3 && frame.2 == stream)?;
        Some(u32::from_be_bytes(payload[..4].try_into().unwrap()))
    }
}

/// A frame of HTTP/2.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field section without compression (RFC 7541 section 6.2.2).
pub(super) fn section(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut section = Vec::new();
    for (name, value) in lines {
        section.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            section.push(text.len() as u8);
            section.extend_from_slice(text.as_bytes());
        }
    }
    section
}

/// The fields of a good request for a tunnel.
pub(super) const GOOD: &[(&str, &str)] = &[
    (":method", "CONNECT"),
    (":protocol", "connect-udp"),
    (":scheme", "https"),
    (":authority", "relay.example"),
    (":path", "/udp/192.0.2.9/53/"),
];

pub(super) fn extended() -> RequestHead {
    RequestHead::extended_connect(
        "connect-udp",
        "https",
        "relay.example",
        "/udp/192.0.2.9/53/",
    )
}
