//! Sockets around the programs: clients, echoing targets, a NAT that forgets, a name server that knows nothing.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{any_port, until};

/// How long a client waits for an echo before it sends again: UDP may lose.
const RESEND_AFTER: Duration = Duration::from_millis(250);
/// How long a thread waits for a datagram before it looks whether its test is over.
const LOOK_UP_AFTER: Duration = Duration::from_millis(50);
/// Larger than any datagram of these tests.
const BUFFER_BYTES: usize = 65_536;

/// A local program that uses a forwarder. All its datagrams are made of one byte, so that a stranger's are recognised.
pub(crate) struct Client {
    socket: UdpSocket,
    mark: u8,
}

impl Client {
    pub(crate) fn new(server: SocketAddr, mark: u8) -> Self {
        let socket = UdpSocket::bind(any_port()).unwrap();
        socket.connect(server).unwrap();
        Self { socket, mark }
    }

    /// Sends `size` bytes until they come back.
    #[track_caller]
    pub(crate) fn echo(&self, size: usize) {
        until(&format!("an echo of {size} bytes"), || {
            self.try_echo(size).then_some(())
        });
    }

    /// Sends `size` bytes once; whether they came back soon.
    #[track_caller]
    pub(crate) fn try_echo(&self, size: usize) -> bool {
        self.send(size);
        while let Some(received) = self.recv(RESEND_AFTER) {
            // Anything else is a late echo of an earlier attempt.
            if received == size {
                return true;
            }
        }
        false
    }

    /// Sends `size` bytes.
    pub(crate) fn send(&self, size: usize) {
        // A forwarder that is gone shows as an error of the socket; what counts is what comes back.
        drop(self.socket.send(&vec![self.mark; size]));
    }

    /// The size of the next datagram, if one comes within `patience`.
    #[track_caller]
    pub(crate) fn recv(&self, patience: Duration) -> Option<usize> {
        let mut buffer = [0; 2048];
        self.socket.set_read_timeout(Some(patience)).unwrap();
        let length = self.socket.recv(&mut buffer).ok()?;
        let own = buffer[..length].iter().all(|byte| *byte == self.mark);
        assert!(own, "{length} bytes of somebody else's");
        Some(length)
    }
}

/// Something that runs until it is dropped.
struct Background {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Background {
    fn new() -> Self {
        Self {
            stop: Arc::default(),
            threads: Vec::new(),
        }
    }

    /// Calls `handle` for every datagram that `socket` receives.
    fn receive(
        &mut self,
        socket: UdpSocket,
        mut handle: impl FnMut(&UdpSocket, &[u8], SocketAddr) + Send + 'static,
    ) {
        socket.set_read_timeout(Some(LOOK_UP_AFTER)).unwrap();
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || {
            let mut buffer = vec![0; BUFFER_BYTES];
            while !stop.load(Ordering::Relaxed) {
                // Errors are timeouts, or those of a peer that is gone.
                if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                    handle(&socket, &buffer[..length], peer);
                }
            }
        }));
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

/// A target that sends everything back.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    _background: Background,
}

impl Target {
    pub(crate) fn new() -> Self {
        Self::echo(UdpSocket::bind(any_port()).unwrap())
    }

    /// A target on every address of this machine, IPv6 included where there is any.
    pub(crate) fn on_every_address() -> Self {
        let socket = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0"));
        Self::echo(socket.unwrap())
    }

    fn echo(socket: UdpSocket) -> Self {
        let address = socket.local_addr().unwrap();
        let mut background = Background::new();
        background.receive(socket, |socket, payload, peer| {
            // A relay that closed the tunnel meanwhile is no failure of the target.
            drop(socket.send_to(payload, peer));
        });
        Self {
            address,
            _background: background,
        }
    }
}

/// A NAT with one client behind it and one server before it. [`Nat::rebind`] gives the client another port.
pub(crate) struct Nat {
    /// Where the client sends to in place of the server.
    pub(crate) address: SocketAddr,
    server: SocketAddr,
    inside: UdpSocket,
    /// Larger packets towards the server vanish.
    size_max: Arc<AtomicUsize>,
    mappings: Sender<UdpSocket>,
    /// The way back of the present mapping.
    back: Option<Background>,
    _forth: Background,
}

impl Nat {
    pub(crate) fn new(server: SocketAddr) -> Self {
        let inside = UdpSocket::bind(any_port()).unwrap();
        let address = inside.local_addr().unwrap();
        let (mappings, news): (_, Receiver<UdpSocket>) = channel();
        let mut forth = Background::new();
        let size_max = Arc::new(AtomicUsize::new(usize::MAX));
        let limit = Arc::clone(&size_max);
        let mut outside = None;
        let mut client = None;
        forth.receive(inside.try_clone().unwrap(), move |inside, packet, peer| {
            outside = news.try_iter().last().or_else(|| outside.take());
            if *client.get_or_insert(peer) == peer
                && packet.len() <= limit.load(Ordering::Relaxed)
                && let Some(outside) = &outside
            {
                // The way back sends to the one client.
                drop(inside.connect(peer));
                drop(outside.send(packet));
            }
        });
        let mut nat = Self {
            address,
            server,
            inside,
            size_max,
            mappings,
            back: None,
            _forth: forth,
        };
        nat.rebind();
        nat
    }

    /// Makes the path to the server swallow packets above `size_max` bytes.
    pub(crate) fn swallow_above(&self, size_max: usize) {
        self.size_max.store(size_max, Ordering::Relaxed);
    }

    /// Moves the client to another port; what the server sends to the old one is lost from here on.
    pub(crate) fn rebind(&mut self) {
        let outside = UdpSocket::bind(any_port()).unwrap();
        outside.connect(self.server).unwrap();
        let inside = self.inside.try_clone().unwrap();
        let mut back = Background::new();
        back.receive(outside.try_clone().unwrap(), move |_, packet, _| {
            drop(inside.send(packet));
        });
        self.mappings.send(outside).unwrap();
        self.back = Some(back);
    }
}

/// A name server that knows no name.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    _background: Background,
}

impl NameServer {
    pub(crate) fn new() -> Self {
        let socket = UdpSocket::bind(any_port()).unwrap();
        let address = socket.local_addr().unwrap();
        let mut background = Background::new();
        background.receive(socket, |socket, query, peer| {
            if let Some(answer) = no_such_name(query) {
                drop(socket.send_to(&answer, peer));
            }
        });
        Self {
            address,
            _background: background,
        }
    }
}

/// NXDOMAIN for the one question of `query` (RFC 1035 section 4.1).
fn no_such_name(query: &[u8]) -> Option<Vec<u8>> {
    const HEADER_BYTES: usize = 12;
    /// A response, recursion available, and the code for "no such name".
    const FLAGS: [u8; 2] = [0x81, 0x83];
    const COUNTS: [u8; 8] = [0, 1, 0, 0, 0, 0, 0, 0];
    let labels = query.get(HEADER_BYTES..)?;
    let mut end = 0;
    while *labels.get(end)? != 0 {
        end += 1 + usize::from(labels[end]);
    }
    // The root label, type and class.
    let question = labels.get(..end + 5)?;
    Some([&query[..2], &FLAGS, &COUNTS, question].concat())
}

/// A socket that nobody serves: its port is taken, and no answer ever comes.
pub(crate) fn silent() -> io::Result<(UdpSocket, SocketAddr)> {
    let socket = UdpSocket::bind(any_port())?;
    let address = socket.local_addr()?;
    Ok((socket, address))
}
