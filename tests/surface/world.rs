//! What the tests share: listeners, clients of them, targets, and patience.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use bauta::{
    Carrier, Client, ClientBuilder, Handler, Identity, Listener, ListenerBuilder, Proxies, Trust,
    UdpTunnel, Worker,
};
use bytes::Bytes;

/// How long anything may take on a busy machine before its test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "tests run in real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Tries until something comes of it.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + PATIENCE;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::yield_now();
    }
}

/// A free port of loopback, whichever the system picks.
pub(crate) fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// The threads of all clients that do not care whose they have.
pub(crate) fn shared_worker() -> &'static Worker {
    static WORKER: OnceLock<Worker> = OnceLock::new();
    WORKER.get_or_init(|| Worker::new().unwrap())
}

/// A listener, and the authority that its clients have to trust.
pub(crate) struct Server {
    pub(crate) listener: Listener,
    pub(crate) ca_pem: String,
}

impl Server {
    /// One for every carrier.
    pub(crate) fn new(handler: impl Handler) -> Self {
        Self::start(Listener::all(any_port()).handler(handler))
    }

    /// A relay to targets on this machine.
    pub(crate) fn relay() -> Self {
        Self::new(Proxies::new().public_only(false))
    }

    /// One worker of what `builder` describes.
    pub(crate) fn start(builder: ListenerBuilder) -> Self {
        let (identity, ca_pem) = Identity::development(&["relay.example"]).unwrap();
        let listener = builder.identity(identity).workers(1).start().unwrap();
        Self { listener, ca_pem }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// A client of this server that knows how to wait, in the threads of all others.
    pub(crate) fn builder(&self) -> ClientBuilder {
        // A busy machine is no reason for a second carrier.
        let patient = Duration::from_secs(10);
        Client::builder(self.url())
            .trust(Trust::pem(&self.ca_pem))
            .head_starts(patient, patient)
            .worker(shared_worker())
    }

    /// A client of one carrier.
    pub(crate) fn client(&self, carrier: Carrier) -> Client {
        self.builder().carriers([carrier]).build().unwrap()
    }
}

/// The next datagram's payload; panics when none comes.
#[track_caller]
pub(crate) fn payload(tunnel: &UdpTunnel) -> Bytes {
    let received = tunnel.recv_timeout_blocking(PATIENCE).unwrap();
    received.expect("a datagram in time").payload
}

/// Sends a payload and waits for the same one.
#[track_caller]
pub(crate) fn echo(tunnel: &UdpTunnel, text: &'static str) {
    tunnel.send(text).unwrap();
    assert_eq!(payload(tunnel), text);
}

/// Writes bytes and waits for the same ones.
#[track_caller]
pub(crate) fn exchange(mut stream: impl Read + Write, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert!(back == bytes, "{} other bytes", bytes.len());
}

/// A UDP target that sends everything back. Its thread ends with the test.
pub(crate) fn udp_echo() -> SocketAddr {
    udp_echo_on(any_port())
}

pub(crate) fn udp_echo_on(address: SocketAddr) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            // A relay that has closed its socket meanwhile is no failure of the target.
            drop(socket.send_to(&buffer[..len], from));
        }
    });
    address
}

/// A TCP target that sends everything back, the end included. Its threads end with their connections and the test.
pub(crate) fn tcp_echo() -> SocketAddr {
    let listener = TcpListener::bind(any_port()).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || echo_stream(stream));
        }
    });
    address
}

fn echo_stream(mut stream: TcpStream) {
    // Whatever breaks the connection ends it.
    if let Ok(mut back) = stream.try_clone()
        && io::copy(&mut stream, &mut back).is_ok()
    {
        drop(back.shutdown(Shutdown::Write));
    }
}

/// The bytes from `place` on of a stream in which every place looks different from its neighbours.
pub(crate) fn pattern(place: usize, len: usize) -> Vec<u8> {
    let byte = |place: usize| (place ^ (place >> 8) ^ (place >> 16)) as u8;
    (place..place + len).map(byte).collect()
}
