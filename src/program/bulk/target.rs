//! The far end of bulk streams: a thread per connection and direction, with the blocking sockets of any server.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::{CHUNK_BYTES_MAX, HEAD_LEN, Head, Pattern, Tallies, Tally};

/// How long a connection on which nothing moves keeps a target that is to stop.
const IDLE: Duration = Duration::from_millis(300);

/// A target that runs until it is dropped.
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Target {
    /// Listens on `address` and serves the streams that `tallies` has room for; `pinned` runs first on the thread that
    /// accepts, from which the others inherit where they may run.
    ///
    /// # Errors
    /// What the system refuses.
    pub fn start(
        address: SocketAddr,
        tallies: Arc<Tallies>,
        pinned: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let serve = move || {
            pinned();
            let pattern = Pattern::default();
            thread::scope(|scope| {
                for accepted in listener.incoming() {
                    if until.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(socket) = accepted else {
                        // Somebody gave up before we looked.
                        continue;
                    };
                    let end = End {
                        tallies: &tallies,
                        pattern: &pattern,
                        stop: &until,
                    };
                    // A connection that breaks is missed by the client, which says so.
                    scope.spawn(move || end.serve(&socket).ok());
                }
            });
        };
        let thread = thread::Builder::new().name("target".to_owned());
        Ok(Self {
            address,
            stop,
            thread: Some(thread.spawn(serve)?),
        })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What all connections of a target share.
#[derive(Clone, Copy)]
struct End<'a> {
    tallies: &'a Tallies,
    pattern: &'a Pattern,
    stop: &'a AtomicBool,
}

impl End<'_> {
    fn serve(self, socket: &TcpStream) -> io::Result<()> {
        socket.set_read_timeout(Some(IDLE))?;
        socket.set_write_timeout(Some(IDLE))?;
        let mut head = [0; HEAD_LEN];
        let mut len = 0;
        while len < HEAD_LEN {
            match self.patiently(|| (&*socket).read(&mut head[len..]))? {
                0 => return Ok(()),
                read => len += read,
            }
        }
        let head = Head::parse(head).ok_or(io::ErrorKind::InvalidData)?;
        let tally = self.tallies.streams.get(head.stream as usize);
        let tally = tally.ok_or(io::ErrorKind::InvalidData)?;
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let source = head
                .direction
                .is_down()
                .then(|| scope.spawn(|| self.send(socket, head.bytes, tally, &ended)));
            let received = self.receive(socket, tally);
            ended.store(true, Ordering::Relaxed);
            match source.map(|source| source.join()) {
                Some(Ok(sent)) => received.and(sent),
                Some(Err(_)) => Err(io::ErrorKind::Other.into()),
                None => received,
            }
        })
    }

    /// Sends `bytes`, or until the client has ended.
    fn send(
        self,
        socket: &TcpStream,
        bytes: u64,
        tally: &Tally,
        ended: &AtomicBool,
    ) -> io::Result<()> {
        let mut offset = 0;
        loop {
            let left = match bytes {
                0 if ended.load(Ordering::Relaxed) => 0,
                0 => CHUNK_BYTES_MAX as u64,
                _ => bytes - offset,
            };
            if left == 0 {
                return socket.shutdown(Shutdown::Write);
            }
            let piece = self
                .pattern
                .at(offset, usize::try_from(left).unwrap_or(usize::MAX));
            let written = self.patiently(|| (&*socket).write(&piece))?;
            offset += written as u64;
            tally.down_sent.fetch_add(written as u64, Ordering::Relaxed);
        }
    }

    /// Receives until the client ends.
    fn receive(self, socket: &TcpStream, tally: &Tally) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        let mut offset = 0;
        loop {
            let read = self.patiently(|| (&*socket).read(&mut buffer))?;
            if read == 0 {
                return Ok(());
            }
            if !self.pattern.is_at(offset, &buffer[..read]) {
                self.tallies.wrong.fetch_add(1, Ordering::Relaxed);
            }
            offset += read as u64;
            tally.up_received.fetch_add(read as u64, Ordering::Relaxed);
        }
    }

    /// Tries again until something moves, or the target is to stop.
    fn patiently(self, mut step: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        loop {
            match step() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock
                        && !self.stop.load(Ordering::Relaxed) => {}
                moved => return moved,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Direction;
    use super::*;

    fn stream(target: &Target, head: Head) -> TcpStream {
        let socket = TcpStream::connect(target.address).unwrap();
        (&socket).write_all(&head.to_bytes()).unwrap();
        socket
    }

    fn target(tallies: &Arc<Tallies>) -> Target {
        Target::start(([127, 0, 0, 1], 0).into(), Arc::clone(tallies), || {}).unwrap()
    }

    #[test]
    fn both_directions_are_whole_behind_a_half_close() {
        let tallies = Tallies::new(1);
        let target = target(&tallies);
        let head = Head {
            direction: Direction::Both,
            stream: 0,
            bytes: 300_000,
        };
        let socket = stream(&target, head);
        let pattern = Pattern::default();
        for offset in (0..300_000).step_by(100_000) {
            (&socket).write_all(&pattern.at(offset, 100_000)).unwrap();
        }
        socket.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        (&socket).read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), 300_000);
        assert!(pattern.is_at(0, &received));
        drop(target);
        assert_eq!(tallies.arrived(), [(300_000, 0)]);
        assert_eq!(tallies.wrong(), 0);
    }

    #[test]
    fn bytes_out_of_place_are_noted() {
        let tallies = Tallies::new(1);
        let target = target(&tallies);
        let head = Head {
            direction: Direction::Up,
            stream: 0,
            bytes: 0,
        };
        let socket = stream(&target, head);
        (&socket).write_all(&Pattern::default().at(1, 10)).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let mut end = Vec::new();
        (&socket).read_to_end(&mut end).unwrap();
        drop(target);
        assert!(end.is_empty());
        assert_eq!((tallies.arrived(), tallies.wrong()), (vec![(10, 0)], 1));
    }

    #[test]
    fn a_client_that_says_nothing_keeps_nobody() {
        let tallies = Tallies::new(1);
        let target = target(&tallies);
        let _silent = TcpStream::connect(target.address).unwrap();
        drop(target);
        assert_eq!(tallies.arrived(), [(0, 0)]);
    }
}
