//! TCP around the programs: targets that echo, targets that are not there, and clients that check every byte.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use socket2::{Domain, Socket, Type};

use super::{PATIENCE, any_port};

/// Bytes that are read or written at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A target that sends everything back, the end included.
pub(crate) struct EchoTarget {
    pub(crate) address: SocketAddr,
}

impl EchoTarget {
    pub(crate) fn new() -> Self {
        Self::on(any_port())
    }

    /// Its threads end with their connections, and with the test.
    pub(crate) fn on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || echo(stream));
            }
        });
        Self { address }
    }
}

fn echo(mut stream: TcpStream) {
    // Whatever breaks the connection ends it.
    if let Ok(mut back) = stream.try_clone()
        && io::copy(&mut stream, &mut back).is_ok()
    {
        drop(back.shutdown(Shutdown::Write));
    }
}

/// A port that nobody else gets and that refuses connections.
pub(crate) struct DeadTarget {
    pub(crate) address: SocketAddr,
    _bound: Socket,
}

impl DeadTarget {
    pub(crate) fn new() -> Self {
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        bound.bind(&any.into()).unwrap();
        let address = bound.local_addr().unwrap().as_socket().unwrap();
        Self {
            address,
            _bound: bound,
        }
    }
}

#[track_caller]
pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends `size` bytes over an open way to an [`EchoTarget`], ends its direction, and wants the same bytes and the end
/// back.
#[track_caller]
pub(crate) fn exchange(mut stream: TcpStream, size: usize) {
    let mut writer = stream.try_clone().unwrap();
    let sent = thread::spawn(move || {
        let mut place = 0;
        while place < size {
            let piece = pattern(place, PIECE_BYTES.min(size - place));
            writer.write_all(&piece).unwrap();
            place += piece.len();
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut place = 0;
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let length = stream.read(&mut buffer).unwrap();
        if length == 0 {
            break;
        }
        assert_eq!(buffer[..length], pattern(place, length), "behind {place}");
        place += length;
    }
    assert_eq!(place, size);
    sent.join().unwrap();
}

/// The bytes from `place` on of a stream in which every place looks different.
fn pattern(place: usize, length: usize) -> Vec<u8> {
    let byte = |place: usize| (place ^ (place >> 8) ^ (place >> 16)) as u8;
    (place..place + length).map(byte).collect()
}

/// Wants the connection to be reset, without a byte before.
#[track_caller]
pub(crate) fn assert_reset(mut stream: TcpStream) {
    let error = stream.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
