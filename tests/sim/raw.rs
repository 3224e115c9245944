//! A QUIC client in the hands of a test: it says on streams and in datagrams whatever it is told to.
//!
//! No HTTP/3 machine runs here, so that the relay meets what no client of ours would ever send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bauta::http::h3::code::Code;
use bauta::http::h3::frame::{self, FrameEvent, FrameReader};
use bauta::http::h3::settings::{Grease, Settings};
use bauta::http::h3::{fields, qpack};
use bauta::http::request::RequestHead;
use bauta::net::{Network, Outgoing, Received, SocketId};
use bytes::Bytes;
use quinn_proto::{
    ClientConfig, Connection, ConnectionError, ConnectionHandle, DatagramEvent, Dir, EcnCodepoint,
    Endpoint, EndpointConfig, Event, RandomConnectionIdGenerator, ReadError, StreamEvent, StreamId,
    TransportConfig, VarInt,
};

use crate::net::{Net, NodeId};
use crate::node::client_crypto;

/// How a stream ended for us, as the relay wants it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Code of RESET_STREAM.
    pub(crate) reset: Option<Code>,
    /// Code of STOP_SENDING.
    pub(crate) stopped: Option<Code>,
    pub(crate) finished: bool,
}

/// One connection.
pub(crate) struct RawConnection {
    pub(crate) quic: Connection,
    /// Gone once the connection is drained: the endpoint gives handles out again.
    handle: Option<ConnectionHandle>,
    timeout: Option<Instant>,
    pub(crate) connected: bool,
    pub(crate) lost: Option<ConnectionError>,
    pub(crate) ended: BTreeMap<StreamId, Ended>,
    /// What came on each stream.
    pub(crate) read: BTreeMap<StreamId, Vec<u8>>,
    pub(crate) datagrams: Vec<Bytes>,
}

/// A socket with a QUIC endpoint.
pub(crate) struct Raw {
    endpoint: Endpoint,
    pub(crate) socket: SocketId,
    pub(crate) connections: Vec<RawConnection>,
    inbox: Vec<(SocketId, u64, Received)>,
}

impl Raw {
    pub(crate) fn new(net: &mut Net, node: NodeId) -> Self {
        let mut config = EndpointConfig::default();
        config.rng_seed(Some(net.rng.seed()));
        config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(8)));
        let endpoint = Endpoint::new(Arc::new(config), None, true, None);
        let socket = net.bind(node, None, 0);
        Self {
            endpoint,
            socket,
            connections: Vec::new(),
            inbox: Vec::new(),
        }
    }

    /// Starts a handshake; the number of the connection.
    pub(crate) fn connect(&mut self, now: Instant, to: SocketAddr, name: &str) -> usize {
        let mut transport = TransportConfig::default();
        transport
            .initial_mtu(1400)
            .datagram_send_buffer_size(16 << 20)
            .keep_alive_interval(Some(Duration::from_secs(20)))
            .max_idle_timeout(Some(Duration::from_secs(60).try_into().expect("a minute")));
        let mut config = ClientConfig::new(client_crypto());
        config.transport_config(Arc::new(transport));
        let (handle, quic) = self
            .endpoint
            .connect(now, config, to, name)
            .expect("a good config");
        self.connections.push(RawConnection {
            quic,
            handle: Some(handle),
            timeout: None,
            connected: false,
            lost: None,
            ended: BTreeMap::new(),
            read: BTreeMap::new(),
            datagrams: Vec::new(),
        });
        self.connections.len() - 1
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.connections
            .iter()
            .filter_map(|connection| connection.timeout)
            .min()
    }

    pub(crate) fn turn(&mut self, net: &mut Net, node: NodeId) -> bool {
        let now = net.now;
        let more = net.receive(node, &mut self.inbox);
        let mut response = Vec::new();
        for (_, _, received) in self.inbox.drain(..) {
            let Received::Train(train) = received else {
                continue;
            };
            let (peer, ecn) = (train.peer, train.ecn.and_then(EcnCodepoint::from_bits));
            for packet in train.segments() {
                let event = self
                    .endpoint
                    .handle(now, peer, None, ecn, packet, &mut response);
                if let Some(DatagramEvent::ConnectionEvent(handle, event)) = event {
                    let known = self
                        .connections
                        .iter_mut()
                        .find(|known| known.handle == Some(handle));
                    known
                        .expect("a connection of ours")
                        .quic
                        .handle_event(event);
                }
            }
        }
        for connection in &mut self.connections {
            connection.turn(now, &mut self.endpoint);
            connection.flush(self.socket, net, node);
        }
        more
    }
}

impl RawConnection {
    fn turn(&mut self, now: Instant, endpoint: &mut Endpoint) {
        if self.quic.poll_timeout().is_some_and(|due| due <= now) {
            self.quic.handle_timeout(now);
        }
        while let Some(handle) = self.handle
            && let Some(event) = self.quic.poll_endpoint_events()
        {
            if event.is_drained() {
                self.handle = None;
            }
            if let Some(event) = endpoint.handle_event(handle, event) {
                self.quic.handle_event(event);
            }
        }
        while let Some(event) = self.quic.poll() {
            match event {
                Event::Connected => self.connected = true,
                Event::ConnectionLost { reason } => self.lost = Some(reason),
                Event::Stream(StreamEvent::Readable { id }) => self.drain_stream(id),
                Event::Stream(StreamEvent::Opened { dir }) => {
                    while let Some(id) = self.quic.streams().accept(dir) {
                        self.drain_stream(id);
                    }
                }
                Event::Stream(StreamEvent::Stopped { id, error_code }) => {
                    self.ended.entry(id).or_default().stopped = Some(error_code.into());
                }
                Event::DatagramReceived => {
                    let received = std::iter::from_fn(|| self.quic.datagrams().recv());
                    self.datagrams.extend(received);
                }
                Event::HandshakeDataReady
                | Event::DatagramsUnblocked
                | Event::Stream(
                    StreamEvent::Finished { .. }
                    | StreamEvent::Writable { .. }
                    | StreamEvent::Available { .. },
                ) => {}
            }
        }
    }

    fn drain_stream(&mut self, id: StreamId) {
        let mut stream = self.quic.recv_stream(id);
        let Ok(mut chunks) = stream.read(true) else {
            return;
        };
        loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => self
                    .read
                    .entry(id)
                    .or_default()
                    .extend_from_slice(&chunk.bytes),
                Ok(None) => {
                    self.ended.entry(id).or_default().finished = true;
                    break;
                }
                Err(ReadError::Reset(code)) => {
                    self.ended.entry(id).or_default().reset = Some(code.into());
                    break;
                }
                Err(ReadError::Blocked) => break,
            }
        }
        // What this allows the peer goes out with the next flush.
        let _transmit = chunks.finalize();
    }

    fn flush(&mut self, socket: SocketId, net: &mut Net, node: NodeId) {
        let mut buffer = Vec::new();
        while let Some(transmit) = self.quic.poll_transmit(net.now, 10, &mut buffer) {
            let outgoing = Outgoing {
                peer: Some(transmit.destination),
                local_ip: None,
                ecn: transmit.ecn.map(|ecn| ecn as u8),
                segment_size: transmit.segment_size,
                contents: &buffer[..transmit.size],
            };
            net.world(node).send(socket, &outgoing);
            buffer.clear();
        }
        self.timeout = self.quic.poll_timeout();
    }

    /// Opens a unidirectional stream that starts with these bytes.
    pub(crate) fn open_uni(&mut self, bytes: &[u8]) -> StreamId {
        let id = self.quic.streams().open(Dir::Uni).expect("a stream");
        self.write(id, bytes);
        id
    }

    /// A control stream with SETTINGS as clients send them.
    pub(crate) fn open_control(&mut self) -> StreamId {
        let settings = Settings {
            datagrams: true,
            ..Settings::default()
        };
        let mut bytes = vec![0];
        settings.encode_frame(Grease::new(1, 1), &mut bytes);
        self.open_uni(&bytes)
    }

    /// Opens a request stream that starts with these bytes.
    pub(crate) fn open_bi(&mut self, bytes: &[u8]) -> StreamId {
        let id = self.quic.streams().open(Dir::Bi).expect("a stream");
        self.write(id, bytes);
        id
    }

    /// Asks for a tunnel.
    pub(crate) fn request(&mut self, target: &str) -> StreamId {
        self.open_bi(&head_frame(&connect_udp(target)))
    }

    pub(crate) fn write(&mut self, id: StreamId, bytes: &[u8]) {
        let written = self
            .quic
            .send_stream(id)
            .write(bytes)
            .expect("an open stream");
        assert_eq!(written, bytes.len(), "more than the relay gives credit for");
    }

    /// Writes as much as there is credit for.
    pub(crate) fn write_some(&mut self, id: StreamId, bytes: &[u8]) -> usize {
        self.quic.send_stream(id).write(bytes).unwrap_or_default()
    }

    pub(crate) fn finish(&mut self, id: StreamId) {
        self.quic.send_stream(id).finish().expect("an open stream");
    }

    pub(crate) fn reset(&mut self, id: StreamId, code: Code) {
        self.quic
            .send_stream(id)
            .reset(VarInt::from(code))
            .expect("an open stream");
    }

    pub(crate) fn stop(&mut self, id: StreamId, code: Code) {
        self.quic
            .recv_stream(id)
            .stop(VarInt::from(code))
            .expect("an open stream");
    }

    pub(crate) fn datagram(&mut self, bytes: impl Into<Bytes>) {
        self.quic
            .datagrams()
            .send(bytes.into(), false)
            .expect("room for a datagram");
    }

    /// How the relay ended a stream.
    pub(crate) fn ended(&self, id: StreamId) -> Ended {
        self.ended.get(&id).cloned().unwrap_or_default()
    }

    /// The application code with which the relay closed the connection.
    pub(crate) fn close_code(&self) -> Option<Code> {
        let ConnectionError::ApplicationClosed(close) = self.lost.as_ref()? else {
            return None;
        };
        Some(close.error_code.into())
    }

    /// Status of the response on a stream.
    pub(crate) fn status(&self, id: StreamId) -> Option<u16> {
        let mut bytes = Bytes::from(self.read.get(&id)?.clone());
        match FrameReader::new(1 << 16).next(&mut bytes) {
            Ok(Some(FrameEvent::Headers(section))) => {
                let lines = qpack::decode(&section, 1 << 16).expect("a field section");
                Some(
                    fields::response_from_lines(lines)
                        .expect("a response")
                        .status
                        .as_u16(),
                )
            }
            _ => None,
        }
    }
}

/// A CONNECT-UDP request with the default template.
pub(crate) fn connect_udp(target: &str) -> RequestHead {
    let (host, port) = target.rsplit_once(':').expect("host:port");
    let path = format!("/.well-known/masque/udp/{host}/{port}/");
    RequestHead::extended_connect("connect-udp", "https", "egress.test", path)
}

/// A HEADERS frame.
pub(crate) fn head_frame(head: &RequestHead) -> Vec<u8> {
    let mut section = Vec::new();
    fields::encode_request(head, &mut section);
    frame_of(frame::HEADERS, &section)
}

/// Any frame.
pub(crate) fn frame_of(ty: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode_header(ty, payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}
