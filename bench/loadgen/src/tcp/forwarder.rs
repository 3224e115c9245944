//! A TCP forwarder without any crypto, in a process of its own: what the copies and system calls of a relay cost
//! without HTTP and TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::child::{Counters, Hello, ignore_interrupts, serve};

/// Bytes of a read.
const BUFFER_BYTES: usize = 128 * 1024;

/// Forwards until stdin ends.
///
/// # Errors
/// What keeps it from starting.
pub(crate) fn run(target: SocketAddr, core: Option<usize>) -> io::Result<()> {
    ignore_interrupts()?;
    bauta::net::raise_file_limit()?;
    let listener = TcpListener::bind(SocketAddr::new(target.ip(), 0))?;
    let hello = Hello {
        address: listener.local_addr()?,
        ca: String::new(),
        io: "threads".to_owned(),
    };
    let pin = super::pin_to(core);
    thread::Builder::new()
        .name("forwarder".to_owned())
        .spawn(move || {
            pin();
            for client in listener.incoming().flatten() {
                // A pair that breaks is noticed by the client.
                thread::spawn(move || pair(&client, target).ok());
            }
        })?;
    serve(&hello, Counters::new)
}

fn pair(client: &TcpStream, target: SocketAddr) -> io::Result<()> {
    let target = TcpStream::connect(target)?;
    thread::scope(|scope| {
        let up = scope.spawn(|| copy(client, &target));
        let down = copy(&target, client);
        let broke = |_| Err(io::ErrorKind::Other.into());
        up.join().unwrap_or_else(broke).and(down)
    })
}

/// Copies until the source ends, which ends the sink.
fn copy(mut source: &TcpStream, mut sink: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match source.read(&mut buffer)? {
            0 => return sink.shutdown(Shutdown::Write),
            read => sink.write_all(buffer.get(..read).unwrap_or_default())?,
        }
    }
}
