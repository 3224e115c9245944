//! A client: quinn-proto as it is, and streams and datagrams whose content is the fuzzer's.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointConfig,
    Event, Side, StreamId, TransportConfig, VarInt,
};

use crate::http::h3::fields;
use crate::http::h3::frame;
use crate::http::h3::settings::{Grease, Settings};
use crate::http::request::RequestHead;
use crate::transport::tls::{ClientTls, Trust, client_config, quic_client};
use crate::wire::datagram::QuarterStreamId;

/// Targets to ask for: an address, one that is refused, one without a route, names.
const TARGETS: [(&str, u16); 6] = [
    ("192.0.2.9", 8),
    ("10.0.0.1", 8),
    ("192.0.2.9", 7),
    ("target.example", 443),
    ("localhost", 9),
    ("%5B::1%5D", 0),
];

static CONFIG: LazyLock<ClientConfig> = LazyLock::new(|| {
    let tls = client_config(&ClientTls::new(Trust::DangerousAnybody)).expect("a working provider");
    let mut config = ClientConfig::new(quic_client(tls).expect("AES-128"));
    let mut transport = TransportConfig::default();
    transport
        .mtu_discovery_config(None)
        .datagram_send_buffer_size(1 << 20);
    config.transport_config(Arc::new(transport));
    config
});

pub(super) struct Client {
    endpoint: Endpoint,
    quic: Connection,
    /// Gone once the connection is drained.
    handle: Option<ConnectionHandle>,
    connected: bool,
}

impl Client {
    pub(super) fn new(now: Instant) -> Self {
        let mut config = EndpointConfig::default();
        config.rng_seed(Some([9; 32]));
        let mut endpoint = Endpoint::new(Arc::new(config), None, true, None);
        let (handle, quic) = endpoint
            .connect(
                now,
                CONFIG.clone(),
                ([192, 0, 2, 1], 443).into(),
                "relay.example",
            )
            .expect("a good configuration");
        Self {
            endpoint,
            quic,
            handle: Some(handle),
            connected: false,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    pub(super) fn handle_packet(&mut self, now: Instant, packet: BytesMut) {
        let server = ([192, 0, 2, 1], 443).into();
        let mut response = Vec::new();
        let event = self
            .endpoint
            .handle(now, server, None, None, packet, &mut response);
        if let Some(DatagramEvent::ConnectionEvent(handle, event)) = event
            && self.handle == Some(handle)
        {
            self.quic.handle_event(event);
        }
    }

    /// What the client has to send now.
    pub(super) fn poll_packets(&mut self, now: Instant) -> Vec<Vec<u8>> {
        while self.quic.poll_timeout().is_some_and(|due| due <= now) {
            self.quic.handle_timeout(now);
        }
        while let Some(event) = self.quic.poll() {
            self.connected |= matches!(event, Event::Connected);
        }
        while let Some(handle) = self.handle
            && let Some(event) = self.quic.poll_endpoint_events()
        {
            if event.is_drained() {
                self.handle = None;
            }
            if let Some(event) = self.endpoint.handle_event(handle, event) {
                self.quic.handle_event(event);
            }
        }
        let mut packets = Vec::new();
        let mut packet = Vec::new();
        while self.quic.poll_transmit(now, 1, &mut packet).is_some() {
            packets.push(std::mem::take(&mut packet));
        }
        packets
    }

    /// One thing that a client may do, see [`super::relay`]. What QUIC refuses is left undone.
    pub(super) fn operate(&mut self, now: Instant, kind: u8, selector: u8, bytes: &[u8]) {
        let stream = StreamId::new(Side::Client, Dir::Bi, u64::from(selector & 15));
        let code = VarInt::from(0x0100 | u32::from(selector >> 4));
        match kind {
            0 => self.open(Dir::Bi, bytes),
            1 => self.open(Dir::Bi, &[&request(selector), bytes].concat()),
            2 => self.open(Dir::Uni, bytes),
            3 => self.open(Dir::Uni, &[&control(), bytes].concat()),
            4 => self.write(stream, bytes),
            5 => self.write(stream, &data_frame(bytes)),
            6 => drop(self.quic.send_stream(stream).finish()),
            7 => drop(self.quic.send_stream(stream).reset(code)),
            8 => drop(self.quic.recv_stream(stream).stop(code)),
            9 => self.datagram(Bytes::copy_from_slice(bytes)),
            10 => self.datagram(datagram_of(stream, bytes)),
            11 if selector == 0xff => self.quic.close(now, code, Bytes::copy_from_slice(bytes)),
            11 => self.read(stream),
            _ => {}
        }
    }

    fn open(&mut self, dir: Dir, bytes: &[u8]) {
        if let Some(id) = self.quic.streams().open(dir) {
            self.write(id, bytes);
        }
    }

    fn write(&mut self, id: StreamId, bytes: &[u8]) {
        drop(self.quic.send_stream(id).write(bytes));
    }

    /// Gives the relay credit back.
    fn read(&mut self, id: StreamId) {
        let mut stream = self.quic.recv_stream(id);
        if let Ok(mut chunks) = stream.read(true) {
            while let Ok(Some(_)) = chunks.next(usize::MAX) {}
            let _transmit = chunks.finalize();
        }
    }

    fn datagram(&mut self, datagram: Bytes) {
        drop(self.quic.datagrams().send(datagram, true));
    }
}

/// A CONNECT-UDP request in a HEADERS frame.
fn request(selector: u8) -> Vec<u8> {
    let (host, port) = TARGETS[usize::from(selector) % TARGETS.len()];
    let path = format!("/.well-known/masque/udp/{host}/{port}/");
    let head = RequestHead::extended_connect("connect-udp", "https", "relay.example", path);
    let mut section = Vec::new();
    fields::encode_request(&head, &mut section);
    frame_of(frame::HEADERS, &section)
}

/// The start of a control stream.
fn control() -> Vec<u8> {
    let settings = Settings {
        datagrams: true,
        ..Settings::default()
    };
    let mut bytes = vec![0];
    settings.encode_frame(Grease::new(1, 1), &mut bytes);
    bytes
}

fn data_frame(bytes: &[u8]) -> Vec<u8> {
    frame_of(frame::DATA, bytes)
}

fn frame_of(ty: u64, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode_header(ty, payload.len() as u64, &mut out);
    out.extend_from_slice(payload);
    out
}

fn datagram_of(stream: StreamId, bytes: &[u8]) -> Bytes {
    let mut out = Vec::new();
    QuarterStreamId::of_stream(u64::from(stream)).encode(&mut out);
    out.extend_from_slice(bytes);
    out.into()
}
