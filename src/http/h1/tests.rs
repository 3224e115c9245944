mod client;
mod content;
mod guard;
mod heads;
mod laws;
mod server;

use ::http::header::{HeaderName, HeaderValue};
use ::http::{HeaderMap, StatusCode};
use bytes::BytesMut;

use super::{
    ClientConn, ClientError, ClientEvent, HeadFault, Limits, Responded, ServerConn, ServerEvent,
};
use crate::http::h3::RecvData;
use crate::http::request::{RequestHead, ResponseHead};

/// A server's connection with what it wrote.
struct Server {
    conn: ServerConn,
    out: BytesMut,
}

impl Server {
    /// A connection on which `bytes` have arrived.
    fn with(bytes: impl AsRef<[u8]>) -> Self {
        let mut server = Self {
            conn: ServerConn::new(Limits::default()),
            out: BytesMut::new(),
        };
        server.receive(bytes);
        server
    }

    fn receive(&mut self, bytes: impl AsRef<[u8]>) {
        let mut input = BytesMut::from(bytes.as_ref());
        self.conn.handle_bytes(&mut input);
        assert!(input.is_empty());
    }

    fn poll(&mut self) -> Option<ServerEvent> {
        self.conn.poll_event(&mut self.out)
    }

    #[track_caller]
    fn request(&mut self) -> RequestHead {
        match self.poll() {
            Some(ServerEvent::Request(head)) => *head,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn fault(&mut self) -> HeadFault {
        match self.poll() {
            Some(ServerEvent::Refused(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn respond(&mut self, head: &ResponseHead) -> Responded {
        self.conn.respond(head, &mut self.out).unwrap()
    }

    /// What was written since the last call.
    fn sent(&mut self) -> String {
        String::from_utf8(self.out.split().to_vec()).unwrap()
    }

    /// The data and the end of it.
    fn read(&mut self) -> (Vec<u8>, RecvData) {
        read(|| self.conn.recv_data(5))
    }
}

/// A client's connection on which a request went out.
struct Client {
    conn: ClientConn,
    request: String,
}

impl Client {
    fn asking(head: &RequestHead) -> Self {
        let mut conn = ClientConn::new(Limits::default());
        let mut out = BytesMut::new();
        conn.request(head, &mut out).unwrap();
        let request = String::from_utf8(out.to_vec()).unwrap();
        Self { conn, request }
    }

    fn receive(&mut self, bytes: impl AsRef<[u8]>) -> Option<ClientEvent> {
        let mut input = BytesMut::from(bytes.as_ref());
        self.conn.handle_bytes(&mut input);
        assert!(input.is_empty());
        self.conn.poll_event()
    }

    #[track_caller]
    fn response(&mut self, bytes: impl AsRef<[u8]>) -> ResponseHead {
        match self.receive(bytes) {
            Some(ClientEvent::Response(head)) => *head,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn error(&mut self, bytes: impl AsRef<[u8]>) -> ClientError {
        match self.receive(bytes) {
            Some(ClientEvent::Failed(error)) => {
                assert!(self.conn.is_closed() && !self.conn.is_tunnel());
                error
            }
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self) -> (Vec<u8>, RecvData) {
        read(|| self.conn.recv_data(5))
    }
}

fn read(mut recv: impl FnMut() -> RecvData) -> (Vec<u8>, RecvData) {
    let mut data = Vec::new();
    loop {
        match recv() {
            RecvData::Data(bytes) => data.extend_from_slice(&bytes),
            end
            @ (RecvData::Blocked | RecvData::Finished | RecvData::Reset(_) | RecvData::Gone) => {
                return (data, end);
            }
        }
    }
}

fn status(code: u16) -> ResponseHead {
    ResponseHead::new(StatusCode::from_u16(code).unwrap())
}

fn map(lines: &[(&str, &str)]) -> HeaderMap {
    let line = |(name, value): &(&str, &str)| {
        let name = HeaderName::try_from(*name).unwrap();
        (name, HeaderValue::from_str(value).unwrap())
    };
    lines.iter().map(line).collect()
}

fn connect_udp() -> RequestHead {
    RequestHead::extended_connect("connect-udp", "https", "relay.example", "/masque/a/443/")
}

/// An upgrade to connect-udp with these lines in addition.
fn upgrade(lines: &str) -> String {
    format!(
        "GET /masque/a/443/ HTTP/1.1\r\nHost: relay.example\r\n\
         Connection: Upgrade\r\nUpgrade: connect-udp\r\n{lines}\r\n"
    )
}

/// A CONNECT to target.example:443 with these lines in addition.
fn connect(lines: &str) -> String {
    format!("CONNECT target.example:443 HTTP/1.1\r\nHost: target.example:443\r\n{lines}\r\n")
}

/// A GET with these lines in addition.
fn get(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: relay.example\r\n{lines}\r\n")
}
