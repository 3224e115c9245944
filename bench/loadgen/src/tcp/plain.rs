//! A client without tunnels: a thread per stream, over TCP or over TLS, for what relays are compared with.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bauta::program::bulk::{Control, Direction, Head, Load, Pattern, Progress, Tallies};
use bauta::transport::tls::{ClientTls, Trust, tcp_client_config};
use bauta::wire::carrier::Carrier;
use crossbeam::channel::Sender;
use rustls::{ClientConnection, StreamOwned};

/// Bytes of a read or write.
const PIECE_BYTES: usize = 128 * 1024;
/// How long nothing may move.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where to connect to, and whom to trust there; plain TCP without.
pub(super) struct Way {
    pub(super) address: SocketAddr,
    pub(super) trust: Option<Trust>,
}

/// One end of a stream.
enum Socket {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    fn connect(way: &Way) -> io::Result<Self> {
        let socket = TcpStream::connect(way.address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.set_nodelay(true)?;
        let Some(trust) = &way.trust else {
            return Ok(Self::Tcp(socket));
        };
        let tls = ClientTls::new(trust.clone());
        let config = tcp_client_config(&tls, Carrier::H1).map_err(io::Error::other)?;
        let name = way.address.ip().into();
        let mut session = ClientConnection::new(config, name).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(PIECE_BYTES));
        Ok(Self::Tls(Box::new(StreamOwned::new(session, socket))))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.write(piece),
            Self::Tls(tls) => tls.write(piece),
        }
    }

    /// Ends our direction.
    fn finish(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Self::Tls(tls) => {
                tls.conn.send_close_notify();
                tls.flush()
            }
        }
    }
}

/// Starts the client; what it has to say goes to `progress`.
///
/// # Errors
/// Both directions at once, which a thread with one TLS session cannot do.
pub(super) fn start(
    way: Way,
    load: &Load,
    (tallies, control): (Arc<Tallies>, Arc<Control>),
    progress: Sender<Progress>,
    core: Option<usize>,
) -> io::Result<JoinHandle<()>> {
    if load.direction == Direction::Both {
        let text = "--workload both: without tunnels there is up or down";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let client = Plain {
        way,
        load: load.clone(),
        tallies,
        control,
    };
    let pin = super::pin_to(core);
    thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            pin();
            let last = match client.run(&progress) {
                Ok(()) => Progress::Finished,
                Err(error) => Progress::Failed(error.to_string()),
            };
            // Nobody listens any more if the run was given up.
            drop(progress.try_send(last));
        })
}

struct Plain {
    way: Way,
    load: Load,
    tallies: Arc<Tallies>,
    control: Arc<Control>,
}

impl Plain {
    fn run(&self, progress: &Sender<Progress>) -> io::Result<()> {
        let mut sockets = Vec::new();
        for stream in 0..self.load.streams {
            let mut socket = Socket::connect(&self.way)?;
            let head = Head {
                direction: self.load.direction,
                stream,
                bytes: self.load.bytes,
            };
            // Small enough for any buffer.
            let written = socket.write(&head.to_bytes())?;
            debug_assert_eq!(written, head.to_bytes().len());
            sockets.push(socket);
        }
        drop(progress.try_send(Progress::Started));
        let pattern = Pattern::default();
        thread::scope(|scope| {
            let streams: Vec<_> = sockets
                .into_iter()
                .enumerate()
                .map(|(number, socket)| {
                    let pattern = &pattern;
                    scope.spawn(move || match self.load.direction {
                        Direction::Up | Direction::Both => self.send(number, socket, pattern),
                        Direction::Down => self.receive(number, socket, pattern),
                    })
                })
                .collect();
            for stream in streams {
                let broke = |_| Err(io::Error::other("a thread broke"));
                stream.join().unwrap_or_else(broke)?;
            }
            Ok(())
        })
    }

    fn send(&self, number: usize, mut socket: Socket, pattern: &Pattern) -> io::Result<()> {
        let mut sent = 0;
        loop {
            let left = match self.load.bytes {
                0 if self.control.is_stopped() => 0,
                0 => PIECE_BYTES,
                bytes => usize::try_from(bytes - sent).unwrap_or(PIECE_BYTES),
            };
            if left == 0 {
                break;
            }
            let written = socket.write(&pattern.at(sent, left.min(PIECE_BYTES)))?;
            sent += written as u64;
            let tally = &self.tallies.streams[number];
            tally.up_sent.fetch_add(written as u64, Ordering::Relaxed);
        }
        socket.finish()?;
        // The far end says nothing, and ends when it has read everything. How a proxy passes that on is its affair.
        drop(socket.read(&mut [0; 64]));
        Ok(())
    }

    fn receive(&self, number: usize, mut socket: Socket, pattern: &Pattern) -> io::Result<()> {
        let mut buffer = vec![0; PIECE_BYTES];
        let mut received = 0;
        while !self.control.is_stopped() || self.load.bytes > 0 {
            let read = socket.read(&mut buffer)?;
            let piece = buffer.get(..read).unwrap_or_default();
            if !pattern.is_at(received, piece) {
                self.tallies.wrong.fetch_add(1, Ordering::Relaxed);
            }
            received += read as u64;
            let tally = &self.tallies.streams[number];
            tally
                .down_received
                .fetch_add(read as u64, Ordering::Relaxed);
            if received == self.load.bytes && received > 0 {
                break;
            }
            if read == 0 {
                return Err(io::Error::other(format!(
                    "stream {number} ended after {received} bytes"
                )));
            }
        }
        socket.finish()?;
        // What is under way still arrives, unless half-closes are not the strength of who stands between.
        while let Ok(read @ 1..) = socket.read(&mut buffer) {
            let tally = &self.tallies.streams[number];
            tally
                .down_received
                .fetch_add(read as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}
