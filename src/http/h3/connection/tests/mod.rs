//! The machine against hand-written bytes, against itself, and over real QUIC.

mod control;
mod data;
mod datagrams;
mod goaway;
mod messages;
mod pair;
mod quic;
mod uni;

use quinn_proto::{Dir, Side, StreamId};

use super::Connection;
use crate::http::h3::code::Code;
use crate::http::h3::config::Config;
use crate::http::h3::event::{ConnectionError, Event, RecvData, Role};
use crate::http::h3::memory::MemoryTransport;
use crate::http::h3::testing::hex;
use crate::http::request::{RequestHead, ResponseHead};

/// Vectors of the specification digest.
const CLIENT_CONTROL: &str = "00 04 07 06 80 00 40 00 33 01";
const SERVER_CONTROL: &str = "00 04 0b 06 80 00 40 00 08 01 33 01 21 07";
const CONNECT_UDP: &str = "01 40 4e 00 00 cf 2f 00 b9 5d 87 49 c8 7a 3f 88 21 ea a8 a4 4a d6 c9 5f d7 50 88 2f 91 d3
    5d 05 5c f6 4d 51 9c 61 7f 05 a2 85 ba d4 7f 15 31 48 d1 da d2 b1 6c 95 b0 17 c4 b8 17 12 ee 30 d3 4c b1 2f 04 20
    eb 45 b4 15 6a ec 3a 4e 43 d1 82 ff 03";
const CLASSIC_CONNECT: &str =
    "01 17 00 00 cf 50 12 74 61 72 67 65 74 2e 65 78 61 6d 70 6c 65 3a 34 34 33";
/// GET https://a/ : static 17, 23 and 1, and :authority "a".
const GET: &str = "01 08 00 00 d1 d7 c1 50 01 61";
const OK: &str = "01 03 00 00 d9";
/// :status 103, static 24.
const EARLY_HINTS: &str = "01 03 00 00 d8";
/// :status 404, static 27.
const NOT_FOUND: &str = "01 03 00 00 db";
/// Trailers with one field, a: b.
const TRAILERS: &str = "01 06 00 00 21 61 01 62";

/// One machine whose peer is the test.
struct Script {
    machine: Connection,
    t: MemoryTransport,
}

impl Script {
    fn new(role: Role, config: Config) -> Self {
        let side = match role {
            Role::Client => Side::Client,
            Role::Server => Side::Server,
        };
        let mut t = MemoryTransport::new(side);
        let mut machine = Connection::new(role, config);
        machine.start(&mut t).unwrap();
        Self { machine, t }
    }

    fn server() -> Self {
        Self::new(Role::Server, Config::default())
    }

    fn client() -> Self {
        Self::new(Role::Client, Config::default())
    }

    /// A client that has the SETTINGS of its server.
    fn ready_client() -> Self {
        let mut script = Self::client();
        script
            .feed(peer_uni(Role::Client, 0), SERVER_CONTROL)
            .unwrap();
        script
    }

    /// A client with a connect-udp request on stream 0.
    fn requesting_client() -> Self {
        let mut script = Self::ready_client();
        let id = script
            .machine
            .request(&mut script.t, &connect_udp())
            .unwrap();
        assert_eq!(id, request(0));
        script
    }

    /// A server with a request on stream 0 that it answered with 200.
    fn tunnel(head: &str) -> Self {
        let mut script = Self::server();
        script.feed(request(0), head).unwrap();
        script.respond(0, 200, false);
        script
    }

    fn respond(&mut self, index: u64, status: u16, fin: bool) {
        let head = ResponseHead::new(::http::StatusCode::from_u16(status).unwrap());
        self.machine
            .respond(&mut self.t, request(index), &head, fin)
            .unwrap();
    }

    fn run(&mut self) -> Result<Vec<Event>, ConnectionError> {
        let mut events = Vec::new();
        while let Some(event) = self.t.poll_event() {
            self.machine.handle_stream_event(&mut self.t, event)?;
            events.extend(std::iter::from_fn(|| self.machine.poll()));
        }
        events.extend(std::iter::from_fn(|| self.machine.poll()));
        Ok(events)
    }

    fn feed(&mut self, id: StreamId, bytes: &str) -> Result<Vec<Event>, ConnectionError> {
        self.t.inject(id, &hex(bytes));
        self.run()
    }

    fn feed_fin(&mut self, id: StreamId, bytes: &str) -> Result<Vec<Event>, ConnectionError> {
        self.t.inject(id, &hex(bytes));
        self.t.inject_fin(id);
        self.run()
    }

    /// The code of the connection error that these bytes cause.
    fn error(&mut self, id: StreamId, bytes: &str) -> Code {
        self.feed(id, bytes).unwrap_err().code
    }

    /// Reads the data stream until it says something else than data.
    fn recv_all(&mut self, index: u64) -> Result<(Vec<u8>, RecvData), ConnectionError> {
        let mut data = Vec::new();
        loop {
            match self.machine.recv_data(&mut self.t, request(index), 1000)? {
                RecvData::Data(piece) => data.extend_from_slice(&piece),
                end @ (RecvData::Blocked
                | RecvData::Finished
                | RecvData::Reset(_)
                | RecvData::Gone) => return Ok((data, end)),
            }
        }
    }

    /// The code with which the machine abandoned both directions.
    fn aborted(&self, index: u64) -> Option<Code> {
        let code = self.t.sent_reset(request(index))?;
        assert_eq!(self.t.sent_stop(request(index)), Some(code));
        Some(code)
    }

    fn sent(&mut self, id: StreamId) -> Vec<u8> {
        self.t.take_sent(id, usize::MAX)
    }
}

fn request(index: u64) -> StreamId {
    StreamId::new(Side::Client, Dir::Bi, index)
}

/// A unidirectional stream of the peer of `role`.
fn peer_uni(role: Role, index: u64) -> StreamId {
    let side = match role {
        Role::Client => Side::Server,
        Role::Server => Side::Client,
    };
    StreamId::new(side, Dir::Uni, index)
}

fn connect_udp() -> RequestHead {
    RequestHead::extended_connect(
        "connect-udp",
        "https",
        "relay.example",
        "/.well-known/masque/udp/192.0.2.6/443/",
    )
}
