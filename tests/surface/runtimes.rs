//! Any executor and none, threads that end, and bytes that are held back.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use bauta::{
    Accept, Actions, Carrier, Client, CloseReason, Embedding, Events, Listener, Proxies, Request,
    Session, TcpReadHalf, TcpTunnel, TcpWriteHalf, Trust, TunnelHandle, UdpTunnel, Worker,
};
use bytes::Bytes;

use crate::world::{PATIENCE, Server, any_port, echo, now, pattern, tcp_echo, udp_echo, until};

/// Opens a tunnel of each kind, moves bytes both ways, and closes them.
async fn scenario(client: Client, udp: std::net::SocketAddr, tcp: std::net::SocketAddr) {
    use futures_util::{AsyncReadExt, AsyncWriteExt};

    let tunnel = client.udp(udp).await.unwrap();
    tunnel.send("hello").unwrap();
    let received = tunnel.recv_timeout(PATIENCE).await.unwrap().unwrap();
    assert_eq!(received.payload, "hello");
    let nothing = tunnel.recv_timeout(Duration::from_millis(1)).await.unwrap();
    assert_eq!(nothing, None);
    tunnel.close().await;
    assert!(matches!(tunnel.closed().await, CloseReason::Local));

    let tunnel = client.tcp(tcp).await.unwrap();
    let (mut read, mut write) = tunnel.split();
    let sent = pattern(0, 300_000);
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.close().await.unwrap();
    };
    let mut received = Vec::new();
    let reading = async { read.read_to_end(&mut received).await.unwrap() };
    futures_util::join!(writing, reading);
    assert!(received == sent, "{} bytes", received.len());
}

fn everywhere(run: impl Fn(Client, std::net::SocketAddr, std::net::SocketAddr)) {
    let (relay, udp, tcp) = (Server::relay(), udp_echo(), tcp_echo());
    for carrier in Carrier::ALL {
        run(relay.client(carrier), udp, tcp);
    }
}

#[test]
fn runtimes_tokio_with_many_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
    everywhere(|client, udp, tcp| {
        // The future is Send: it moves between threads.
        runtime
            .block_on(runtime.spawn(scenario(client, udp, tcp)))
            .unwrap();
    });
}

#[test]
fn runtimes_tokio_with_one_thread() {
    // Neither its timers nor its I/O are needed.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    everywhere(|client, udp, tcp| runtime.block_on(scenario(client, udp, tcp)));
}

#[test]
fn runtimes_tokio_traits_of_streams() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    everywhere(|client, _, tcp| {
        runtime.block_on(async {
            let mut tunnel = client.tcp(tcp).await.unwrap();
            tunnel.write_all(b"hello").await.unwrap();
            let mut buffer = [0; 5];
            tunnel.read_exact(&mut buffer).await.unwrap();
            assert_eq!(&buffer, b"hello");
            tunnel.shutdown().await.unwrap();
            assert_eq!(tunnel.read(&mut buffer).await.unwrap(), 0);
        });
    });
}

#[test]
fn runtimes_smol() {
    everywhere(|client, udp, tcp| {
        smol::block_on(smol::spawn(scenario(client, udp, tcp)));
    });
}

#[test]
fn runtimes_plain_threads() {
    everywhere(|client, udp, tcp| {
        let tunnel = client.udp_blocking(udp).unwrap();
        echo(&tunnel, "hello");
        tunnel.close_blocking();
        let tunnel = client.tcp_blocking(tcp).unwrap();
        let sent = pattern(0, 300_000);
        thread::scope(|scope| {
            scope.spawn(|| {
                (&tunnel).write_all(&sent).unwrap();
                tunnel.shutdown_write().unwrap();
            });
            let mut received = Vec::new();
            (&tunnel).read_to_end(&mut received).unwrap();
            assert!(received == sent, "{} bytes", received.len());
        });
        assert!(matches!(tunnel.closed_blocking(), CloseReason::Finished));
    });
}

#[test]
fn runtimes_handles_are_send_and_sync() {
    const fn handle<T: Send + Sync + 'static>() {}
    const {
        handle::<Client>();
        handle::<Worker>();
        handle::<UdpTunnel>();
        handle::<TcpTunnel>();
        handle::<TcpReadHalf>();
        handle::<TcpWriteHalf>();
        handle::<Events>();
        handle::<Listener>();
        handle::<TunnelHandle>();
        handle::<Embedding>();
        handle::<bauta::Error>();
    }
    // And are used like that: one thread sends, the other one receives.
    let (relay, target) = (Server::relay(), udp_echo());
    let tunnel = Arc::new(relay.client(Carrier::H3).udp_blocking(target).unwrap());
    let (there, here) = channel();
    let receiver = Arc::clone(&tunnel);
    thread::spawn(move || there.send(receiver.recv_blocking()).unwrap());
    tunnel.send("hello").unwrap();
    let received = here.recv_timeout(PATIENCE).unwrap();
    assert_eq!(received.unwrap().payload, "hello");
}

/// Set in a process that has this test to itself: it counts threads.
const ALONE: &str = "BAUTA_TEST_ALONE";

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn dropping_everything_ends_the_threads() {
    let name = "runtimes::dropping_everything_ends_the_threads";
    if std::env::var_os(ALONE).is_none() {
        let mut alone = Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", name]).env(ALONE, "1");
        let output = alone.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}"
        );
        return;
    }
    let target = tcp_echo();
    // One connection after the other, and its echo ends with it.
    let before = threads();
    for carrier in Carrier::ALL {
        let served = Arc::new(());
        let held = Arc::clone(&served);
        let handler = move |request: &Request| {
            let _held = &held;
            bauta::Handler::accept(&Proxies::new().public_only(false), request)
        };
        let (identity, ca_pem) = bauta::Identity::development(&[]).unwrap();
        let listener = Listener::all(any_port()).identity(identity).workers(2);
        let listener = listener.handler(handler).start().unwrap();
        let client = Client::builder(format!("https://{}", listener.local_addr()))
            .trust(Trust::pem(ca_pem))
            .carriers([carrier])
            .build()
            .unwrap();
        let tunnel = client.tcp_blocking(target).unwrap();
        crate::world::exchange(&tunnel, b"hello");
        assert!(threads() >= before + 5, "workers and control threads");
        // A tunnel keeps its worker after the client is gone.
        drop(client);
        crate::world::exchange(&tunnel, b"still here");
        drop(tunnel);
        drop(listener);
        until("the handler to go", || {
            (Arc::strong_count(&served) == 1).then_some(())
        });
        until("all threads to end", || (threads() <= before).then_some(()));
    }
    // The same after a stop that waits: nothing is left when it returns.
    let worker = Worker::new().unwrap();
    assert!(threads() > before);
    worker.stop_blocking();
    until("all threads to end", || (threads() <= before).then_some(()));
}

#[test]
fn back_pressure_over_64_mib_loses_nothing() {
    const MIB: usize = 1024 * 1024;
    const TOTAL: usize = 64 * MIB;
    const PIECE: usize = 256 * 1024;
    let relay = Server::relay();
    let listener = TcpListener::bind(any_port()).unwrap();
    let target = listener.local_addr().unwrap();
    let tunnel = relay.client(Carrier::H2).tcp_blocking(target).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // A pattern of a prime length: pieces begin at other places of it each time.
    let pattern = pattern(0, 65_521);
    let bytes: Vec<u8> = pattern
        .iter()
        .copied()
        .cycle()
        .take(PIECE + pattern.len())
        .collect();
    let piece_at = |place: usize| &bytes[place % pattern.len()..][..PIECE];
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut written = 0;
            while written < TOTAL {
                stream.write_all(piece_at(written)).unwrap();
                written += PIECE;
            }
            stream.shutdown(Shutdown::Write).unwrap();
        });
        // Nobody reads: what is on the way is bounded, so the target is not done.
        let mut seen = 0;
        let mut same = 0;
        until("the stream to stall", || {
            let now = tunnel.info().bytes_received;
            same = if now == seen { same + 1 } else { 0 };
            seen = now;
            (seen > 0 && same > 20_000).then_some(())
        });
        assert!(!writing.is_finished(), "nobody holds the target back");
        // 256 KiB and one read.
        assert!(seen <= (256 + 64) * 1024, "{seen} bytes wait for the user");
        // The reader pauses now and then, and every byte is there.
        let mut place = 0;
        let mut buffer = vec![0; PIECE];
        while place < TOTAL {
            (&tunnel).read_exact(&mut buffer).unwrap();
            assert!(buffer == piece_at(place), "other bytes behind {place}");
            place += PIECE;
            if place % (8 * MIB) == 0 {
                until("a full queue", || {
                    let info = tunnel.info();
                    let waiting = info.bytes_received - place as u64;
                    // Below the half of its bound the queue is filled again.
                    (waiting >= 128 * 1024 || info.bytes_received == TOTAL as u64).then_some(())
                });
            }
        }
        assert_eq!((&tunnel).read(&mut buffer).unwrap(), 0);
        writing.join().unwrap();
    });
    assert_eq!(tunnel.info().bytes_received, TOTAL as u64);
}

#[test]
fn back_pressure_of_a_target_that_does_not_read() {
    for carrier in Carrier::ALL {
        let relay = Server::relay();
        let listener = TcpListener::bind(any_port()).unwrap();
        let target = listener.local_addr().unwrap();
        let tunnel = relay.client(carrier).tcp_blocking(target).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let piece = pattern(0, 65_536);
        let mut written = 0;
        let mut refused = 0;
        // Everything on the way is full when nothing was taken for many tries in a row.
        let deadline = now() + PATIENCE;
        while refused < 50_000 && now() < deadline {
            match tunnel.try_write(&piece[written % piece.len()..]) {
                Ok(len) => (written, refused) = (written + len, 0),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    refused += 1;
                    thread::yield_now();
                }
            }
            assert!(written < 64 * 1024 * 1024, "{carrier}: nobody is held back");
        }
        assert!(written >= 256 * 1024, "{carrier}: {written}");
        tunnel.shutdown_write().unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let expected = piece.iter().cycle().take(written);
        assert!(
            bytes.len() == written && bytes.iter().eq(expected),
            "{carrier}"
        );
    }
}

/// Ends its own direction at once, and counts what comes.
struct Deaf(std::sync::mpsc::Sender<Result<usize, &'static str>>, usize);

impl Session for Deaf {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        actions.finish(Bytes::new()).unwrap();
    }

    fn on_data(&mut self, _: &mut Actions<'_>, data: Bytes) {
        self.1 += data.len();
    }

    fn on_eof(&mut self, _: &mut Actions<'_>) {
        self.0.send(Ok(self.1)).ok();
    }

    fn on_close(&mut self, reason: CloseReason) {
        if let CloseReason::Aborted(_) = reason {
            self.0.send(Err("aborted")).ok();
        }
    }
}

#[test]
fn what_was_written_outlives_every_handle() {
    let (sender, told) = channel();
    let server = Server::new(move |_: &Request| Ok(Accept::session(Deaf(sender.clone(), 0))));
    for carrier in Carrier::ALL {
        // Threads of its own, which end with it.
        let client = Client::builder(server.url()).trust(Trust::pem(&server.ca_pem));
        let client = client.carriers([carrier]).build().unwrap();
        let tunnel = client.tcp_blocking("web.example:80").unwrap();
        assert_eq!((&tunnel).read(&mut [0; 8]).unwrap(), 0);
        (&tunnel).write_all(&pattern(0, 250_000)).unwrap();
        drop(client);
        drop(tunnel);
        let received = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(received, Ok(250_000), "{carrier}");
    }
}
