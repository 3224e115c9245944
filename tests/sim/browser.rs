//! A client that asks for pages instead of tunnels, on every HTTP version.
//!
//! HTTP/3 and HTTP/2 are those of the library in the client's role; HTTP/1.1 is bytes above TLS, which the test writes
//! and reads.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use bauta::http::h3::{self, RecvData, SendData};
use bauta::http::request::{RequestHead, ResponseHead};
use bauta::net::{Network, Received, SocketId, SocketOptions, TcpClose, TcpEvent, TcpId, TcpRead};
use bauta::transport::carriers::{Carriers, ConnectionId, RequestStream};
use bauta::transport::quic::{self, EndpointId, Link};
use bauta::transport::tcp::{self, ByteLink};
use bauta::wire::carrier::Carrier;
use bauta::worker::{Outside, Tag, TcpTag};
use bytes::{Bytes, BytesMut};
use quinn_proto::ClientConfig;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::net::{Net, NodeId};
use crate::node::{Settings, dialler, hop_tls};

/// One request on HTTP/3 or HTTP/2.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    pub(crate) response: Option<ResponseHead>,
    pub(crate) body: Vec<u8>,
    /// How the response ended.
    pub(crate) end: Option<RecvData>,
    /// Reads nothing.
    pub(crate) paused: bool,
    head: Option<RequestHead>,
    content: Bytes,
    stream: Option<RequestStream>,
    /// There may be something to read.
    readable: bool,
}

/// One connection with HTTP/1.1.
pub(crate) struct Plaintext {
    socket: TcpId,
    tls: ClientConnection,
    unsent: Vec<u8>,
    pub(crate) received: Vec<u8>,
    /// Whether it ended with a closure alert.
    pub(crate) ended: Option<bool>,
    /// Reads nothing.
    pub(crate) paused: bool,
}

pub(crate) struct Browser {
    carriers: Carriers,
    endpoint: EndpointId,
    socket: SocketId,
    /// The connection of HTTP/3 or HTTP/2, and whether requests may be sent.
    connection: Option<(ConnectionId, bool)>,
    pub(crate) goaway: bool,
    pub(crate) asks: Vec<Ask>,
    pub(crate) plain: Vec<Plaintext>,
    inbox: Vec<(SocketId, u64, Received)>,
}

impl Browser {
    pub(crate) fn new(net: &mut Net, node: NodeId) -> Self {
        let settings = Settings::new("browser");
        let (quic, endpoint) = dialler(net, &settings);
        Self {
            carriers: Carriers {
                quic,
                tcp: tcp::TcpHub::new(tcp::TcpHubLimits::default()),
            },
            endpoint,
            socket: net.bind(node, None, Tag::Dialler.to_bits()),
            connection: None,
            goaway: false,
            asks: Vec::new(),
            plain: Vec::new(),
            inbox: Vec::new(),
        }
    }

    /// Leaves the connection that it has, and makes the next one to `remote`.
    pub(crate) fn connect(
        &mut self,
        net: &mut Net,
        node: NodeId,
        carrier: Carrier,
        (remote, name): (SocketAddr, &str),
    ) {
        let (now, tls) = (net.now, hop_tls());
        let id = match carrier {
            Carrier::H3 => {
                let mut config = ClientConfig::new(tls.quic);
                config.transport_config(Settings::new("browser").options().client_transport(false));
                let link = Link::Socket(self.socket);
                let quic = &mut self.carriers.quic;
                let id = quic.connect(now, self.endpoint, config, remote, name, link);
                ConnectionId::Quic(id.expect("a good config"))
            }
            Carrier::H2 => {
                let world = &mut net.world(node);
                let socket = world
                    .connect_tcp(remote, &SocketOptions::default(), TcpTag::App(0))
                    .expect("a route");
                let link = ByteLink::Socket(socket, remote);
                let id = self.carriers.tcp.connect(now, link, tls.h2, name);
                let id = id.expect("a good config");
                world.set_tcp_tag(socket, TcpTag::Carrier(id));
                ConnectionId::Tcp(id)
            }
            Carrier::H1 => return self.connect_plain(net, node, (remote, name)),
        };
        self.connection = Some((id, false));
        self.goaway = false;
    }

    fn connect_plain(&mut self, net: &mut Net, node: NodeId, (remote, name): (SocketAddr, &str)) {
        let world = &mut net.world(node);
        let socket = world
            .connect_tcp(remote, &SocketOptions::default(), TcpTag::App(0))
            .expect("a route");
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut tls =
            ClientConnection::new(Arc::clone(&hop_tls().h1), name).expect("a good config");
        tls.set_buffer_limit(None);
        self.plain.push(Plaintext {
            socket,
            tls,
            unsent: Vec::new(),
            received: Vec::new(),
            ended: None,
            paused: false,
        });
    }

    /// Asks on the connection; the number of the request. Its content is sent as far as there is room for it.
    pub(crate) fn ask(&mut self, head: RequestHead, content: Bytes) -> usize {
        self.asks.push(Ask {
            head: Some(head),
            content,
            ..Ask::default()
        });
        self.asks.len() - 1
    }

    pub(crate) fn turn(&mut self, net: &mut Net, node: NodeId) -> bool {
        let now = net.now;
        let more = net.receive(node, &mut self.inbox);
        for (socket, _, received) in self.inbox.drain(..) {
            if let Received::Train(train) = received {
                let (quic, world) = (&mut self.carriers.quic, &mut net.world(node));
                quic.handle_train(now, self.endpoint, socket, train, world);
            }
        }
        while let Some((_, tag, event)) = net.poll_tcp(node) {
            if let (TcpTag::Carrier(id), event) = (TcpTag::from_bits(tag), event) {
                match event {
                    TcpEvent::Failed(error) | TcpEvent::Broken(error) => {
                        self.carriers.tcp.handle_failed(id, &error)
                    }
                    TcpEvent::Connected | TcpEvent::Ready { .. } | TcpEvent::Accepted { .. } => {
                        self.carriers.tcp.handle_ready(id);
                    }
                }
            }
        }
        self.carriers.expire(now);
        while self.carriers.has_touched() {
            if let Some(id) = self.carriers.quic.next_touched() {
                self.carriers.quic.advance(now, id);
            }
            if let Some(id) = self.carriers.tcp.next_touched() {
                self.carriers.tcp.advance(now, id, &mut net.world(node));
            }
            self.handle_events();
        }
        self.send_requests();
        self.read(net);
        self.carriers.flush(now, &mut net.world(node));
        self.handle_events();
        for plain in &mut self.plain {
            plain.turn(net, node);
        }
        more || self.carriers.has_touched()
    }

    pub(crate) fn next_timeout(&self) -> Option<std::time::Instant> {
        self.carriers.next_timeout()
    }

    fn handle_events(&mut self) {
        while let Some((id, event)) = self.carriers.quic.poll_event() {
            match event {
                quic::Event::Connected => self.connected(ConnectionId::Quic(id)),
                quic::Event::Mtu { .. } => {}
                quic::Event::Closed { reason, .. } => self.closed(&format!("{reason:?}")),
                quic::Event::Http(event) => match event {
                    h3::Event::Response { id: stream, head } => {
                        self.responded(RequestStream::Quic(id, stream), *head);
                    }
                    h3::Event::Reset { id: stream, code } => {
                        self.ended(RequestStream::Quic(id, stream), RecvData::Reset(code));
                    }
                    h3::Event::Aborted { id: stream, reason } => {
                        let code = reason.code(h3::Role::Client);
                        self.ended(RequestStream::Quic(id, stream), RecvData::Reset(code));
                    }
                    h3::Event::Readable { id: stream } => {
                        self.readable(RequestStream::Quic(id, stream))
                    }
                    h3::Event::GoAway { .. } => self.goaway = true,
                    h3::Event::Settings(_)
                    | h3::Event::Request { .. }
                    | h3::Event::Writable { .. }
                    | h3::Event::Stopped { .. }
                    | h3::Event::StreamsAvailable => {}
                },
            }
        }
        while let Some((id, event)) = self.carriers.tcp.poll_event() {
            match event {
                tcp::Event::Connected(_) => self.connected(ConnectionId::Tcp(id)),
                tcp::Event::Response { stream, head } => {
                    self.responded(RequestStream::Tcp(id, stream), *head);
                }
                tcp::Event::Reset { stream, code } => {
                    self.ended(RequestStream::Tcp(id, stream), RecvData::Reset(code));
                }
                tcp::Event::Readable { stream } => self.readable(RequestStream::Tcp(id, stream)),
                tcp::Event::GoAway => self.goaway = true,
                tcp::Event::Closed { reason, .. } => self.closed(&format!("{reason:?}")),
                tcp::Event::Request { .. }
                | tcp::Event::Writable { .. }
                | tcp::Event::Stopped { .. }
                | tcp::Event::Malformed
                | tcp::Event::StreamsAvailable => {}
            }
        }
    }

    fn connected(&mut self, id: ConnectionId) {
        if let Some((connection, ready)) = &mut self.connection
            && *connection == id
        {
            *ready = true;
        }
    }

    fn closed(&mut self, reason: &str) {
        for ask in &mut self.asks {
            assert!(
                ask.end.is_some() || ask.stream.is_none(),
                "{reason} before the response"
            );
        }
    }

    fn find(&mut self, stream: RequestStream) -> Option<&mut Ask> {
        self.asks.iter_mut().find(|ask| ask.stream == Some(stream))
    }

    fn responded(&mut self, stream: RequestStream, head: ResponseHead) {
        let ask = self.find(stream).expect("an answer to a request");
        assert_eq!(ask.response.replace(head), None, "one response");
        ask.readable = true;
    }

    fn readable(&mut self, stream: RequestStream) {
        if let Some(ask) = self.find(stream) {
            ask.readable = true;
        }
    }

    fn ended(&mut self, stream: RequestStream, how: RecvData) {
        if let Some(ask) = self.find(stream) {
            ask.end.get_or_insert(how);
        }
    }

    fn send_requests(&mut self) {
        let Some((connection, true)) = self.connection else {
            return;
        };
        for ask in &mut self.asks {
            if let Some(head) = ask.head.take() {
                let stream = self.carriers.request(connection, &head).expect("a stream");
                ask.stream = Some(stream);
                if ask.content.is_empty() {
                    self.carriers.finish(stream);
                }
            }
            if let Some(stream) = ask.stream
                && !ask.content.is_empty()
            {
                let room = self.carriers.send_room(stream).min(ask.content.len());
                let piece = ask.content.slice(..room);
                if room > 0 && self.carriers.send_data(stream, piece) == SendData::Written {
                    ask.content = ask.content.slice(room..);
                    if ask.content.is_empty() {
                        self.carriers.finish(stream);
                    }
                }
            }
        }
    }

    fn read(&mut self, net: &Net) {
        for ask in &mut self.asks {
            let (Some(stream), None) = (ask.stream, &ask.end) else {
                continue;
            };
            while !ask.paused && ask.readable {
                match self.carriers.recv_data(net.now, stream, 16 << 10) {
                    RecvData::Data(data) => ask.body.extend_from_slice(&data),
                    RecvData::Blocked => ask.readable = false,
                    end @ (RecvData::Finished | RecvData::Reset(_) | RecvData::Gone) => {
                        ask.end = Some(end);
                        break;
                    }
                }
            }
        }
    }
}

impl Plaintext {
    /// Says something.
    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).expect("memory");
    }

    /// What came, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.received).into_owned()
    }

    fn turn(&mut self, net: &mut Net, node: NodeId) {
        while self.ended.is_none() && !self.paused {
            let mut buffer = BytesMut::new();
            match net.world(node).read(self.socket, &mut buffer, 16 << 10) {
                Ok(TcpRead::Bytes(_)) => self.decrypt(&buffer),
                Ok(TcpRead::Blocked) => break,
                Ok(TcpRead::End) | Err(_) => {
                    self.ended.get_or_insert(false);
                }
            }
        }
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.unsent).expect("memory");
        }
        while !self.unsent.is_empty() {
            let slices = [IoSlice::new(&self.unsent)];
            match net.world(node).write(self.socket, &slices) {
                Ok(0) => return,
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(_) => self.unsent.clear(),
            }
        }
        if self.ended.is_some() {
            net.world(node).close(self.socket, TcpClose::Orderly);
        }
    }

    fn decrypt(&mut self, mut input: &[u8]) {
        while !input.is_empty() {
            self.tls.read_tls(&mut input).expect("memory");
            let state = self.tls.process_new_packets().expect("TLS");
            let mut piece = vec![0; state.plaintext_bytes_to_read()];
            match self.tls.reader().read_exact(&mut piece) {
                Ok(()) => self.received.extend_from_slice(&piece),
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            if state.peer_has_closed() {
                self.ended = Some(true);
                return;
            }
        }
    }
}
