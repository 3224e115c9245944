//! The client half of the library, against the real relay: tasks of tokio and smol, plain threads, messages.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::error::Error as _;
use std::fs;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bauta::{
    Carrier, Client, ClientBuilder, CloseReason, ErrorKind, Event, Events, Mode, ShutdownError,
    Side, State, TcpForm, Trust, TunnelId, Worker,
};
use futures_util::{SinkExt, StreamExt};
use support::network::Target;
use support::stream::{DeadTarget, EchoTarget};
use support::{LOCAL_TARGETS, PATIENCE, Relay, Site, any_port, now, until};

const MIB: usize = 1024 * 1024;
/// An operation with this as its bound "returns within five seconds", on a machine that does much else.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);

struct World {
    site: Site,
    relay: Relay,
}

impl World {
    fn new() -> Self {
        Self::with(LOCAL_TARGETS)
    }

    fn with(settings: &str) -> Self {
        let site = Site::new();
        let relay = site.relay("relay", settings);
        Self { site, relay }
    }

    fn builder(&self) -> ClientBuilder {
        let ca = fs::read(self.site.directory().join("ca.pem")).unwrap();
        // A busy machine is no reason for a second carrier.
        let patient = Duration::from_secs(10);
        Client::builder(self.relay.url())
            .trust(Trust::pem(ca))
            .head_starts(patient, patient)
    }

    fn client(&self) -> Client {
        self.builder().build().unwrap()
    }
}

fn on_tokio<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
}

/// The next event of any tunnel.
#[track_caller]
fn next(events: &Events) -> (TunnelId, Event) {
    events.recv_timeout_blocking(PATIENCE).unwrap()
}

#[test]
fn udp_on_tokio() {
    let (world, target) = (World::new(), Target::new());
    on_tokio(async {
        for carrier in Carrier::ALL {
            let client = world.builder().carriers([carrier]).build().unwrap();
            let mut tunnel = client.udp(target.address).await.unwrap();
            tunnel.send("one").unwrap();
            assert_eq!(tunnel.recv().await.unwrap().payload, "one");
            SinkExt::send(&mut tunnel, "two".into()).await.unwrap();
            assert_eq!(tunnel.next().await.unwrap().unwrap().payload, "two");

            let info = tunnel.info();
            assert_eq!((info.state, info.carrier), (State::Open, Some(carrier)));
            assert_eq!(info.peer, Some(world.relay.address));
            assert_eq!(info.target, Some(target.address.into()));
            assert!(info.relays[0].starts_with(&world.relay.url()), "{info:?}");
            assert_eq!((info.datagrams_sent, info.datagrams_received), (2, 2));
            assert_eq!((info.bytes_sent, info.bytes_received), (6, 6));

            assert_eq!(tunnel.try_recv().unwrap(), None);
            let nothing = tunnel.recv_timeout(Duration::from_millis(1)).await;
            assert_eq!(nothing.unwrap(), None);
            tunnel.close().await;
            assert!(matches!(tunnel.closed().await, CloseReason::Local));
            let error = tunnel.recv().await.unwrap_err();
            assert_eq!(
                (error.kind(), error.side()),
                (ErrorKind::Closed, Side::Local)
            );
            assert!(tunnel.next().await.is_none());
            assert_eq!(tunnel.send("three").unwrap_err().kind(), ErrorKind::Closed);
        }
    });
}

#[test]
fn udp_on_smol() {
    let (world, target) = (World::new(), Target::new());
    smol::block_on(async {
        let tunnel = world.client().udp(target.address).await.unwrap();
        tunnel.send("payload").unwrap();
        let received = tunnel.recv_timeout(PATIENCE).await.unwrap();
        assert_eq!(received.unwrap().payload, "payload");
        let nothing = tunnel.recv_timeout(Duration::from_millis(1)).await;
        assert_eq!(nothing.unwrap(), None);
        tunnel.close().await;
    });
}

#[test]
fn udp_on_threads() {
    let (world, target) = (World::new(), Target::new());
    let tunnel = world.client().udp_blocking(target.address).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| tunnel.send("payload").unwrap());
        let received = tunnel.recv_timeout_blocking(PATIENCE).unwrap();
        assert_eq!(received.unwrap().payload, "payload");
        // A thread that waits learns of the end.
        let waiting = scope.spawn(|| tunnel.recv_blocking());
        tunnel.close_blocking();
        assert_eq!(
            waiting.join().unwrap().unwrap_err().kind(),
            ErrorKind::Closed
        );
    });
}

#[test]
fn a_payload_has_a_limit() {
    let (world, target) = (World::new(), Target::new());
    let client = world.builder().carriers([Carrier::H3]).build().unwrap();
    let tunnel = client.udp_blocking(target.address).unwrap();
    let max = tunnel.info().datagram_size_max.unwrap();
    assert!((1_000..2_000).contains(&max), "{max}");
    let error = tunnel.send(vec![0; 65_000]).unwrap_err();
    assert_eq!(
        (error.kind(), error.side()),
        (ErrorKind::Limit, Side::Local)
    );
    let text = error.source().unwrap().to_string();
    assert!(text.contains("65000, at most "), "{text}");
}

#[test]
fn datagrams_that_nobody_receives_give_way() {
    let (world, target) = (World::new(), Target::new());
    let client = world.builder().receive_queue(2).build().unwrap();
    let tunnel = client.udp_blocking(target.address).unwrap();
    until("displaced datagrams", || {
        tunnel.send("payload").unwrap();
        (tunnel.info().receive_dropped > 0).then_some(())
    });
    assert!(tunnel.try_recv().unwrap().is_some());
}

/// Writes and reads `size` bytes at the same time, then half-closes.
async fn exchange(client: &Client, target: &EchoTarget, form: TcpForm, size: usize) {
    use futures_util::{AsyncReadExt, AsyncWriteExt};

    let tunnel = client
        .connect(target.address)
        .tcp_form(form)
        .tcp()
        .await
        .unwrap();
    let sent: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
    let (mut read, mut write) = tunnel.split();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown_write().unwrap();
        assert_eq!(write.shutdown_write(), Err(ShutdownError::AlreadyShut));
    };
    let mut received = Vec::new();
    let reading = async { read.read_to_end(&mut received).await.unwrap() };
    futures_util::join!(writing, reading);
    assert!(received == sent, "{} of {size} bytes", received.len());
    let info = read.info();
    assert_eq!(
        (info.bytes_sent, info.bytes_received),
        (size as u64, size as u64)
    );
}

#[test]
fn tcp_on_smol_in_every_form() {
    let (world, target) = (World::new(), EchoTarget::new());
    smol::block_on(async {
        for carrier in Carrier::ALL {
            let client = world.builder().carriers([carrier]).build().unwrap();
            for form in [TcpForm::Capsules, TcpForm::Raw, TcpForm::Classic] {
                for size in [0, 1, 2 * MIB] {
                    exchange(&client, &target, form, size).await;
                }
            }
        }
    });
}

#[test]
fn tcp_on_tokio() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (world, target) = (World::new(), EchoTarget::new());
    on_tokio(async {
        let mut tunnel = world.client().tcp(target.address).await.unwrap();
        tunnel.write_all(b"hello").await.unwrap();
        let mut buffer = [0; 5];
        tunnel.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"hello");
        AsyncWriteExt::shutdown(&mut tunnel).await.unwrap();
        assert_eq!(tunnel.read(&mut buffer).await.unwrap(), 0);
        assert_eq!(tunnel.shutdown_write(), Err(ShutdownError::AlreadyShut));
        let tunnel = world.client().tcp(target.address).await.unwrap();
        tunnel.close().await;
        assert!(tunnel.shutdown_write().is_err());
    });
}

#[test]
fn tcp_on_threads() {
    let (world, target) = (World::new(), EchoTarget::new());
    let tunnel = world.client().tcp_blocking(target.address).unwrap();
    let sent = vec![7; 2 * MIB];
    thread::scope(|scope| {
        scope.spawn(|| {
            (&tunnel).write_all(&sent).unwrap();
            tunnel.shutdown_write().unwrap();
        });
        let mut received = Vec::new();
        (&tunnel).read_to_end(&mut received).unwrap();
        assert!(received == sent);
    });
    assert!(matches!(tunnel.closed_blocking(), CloseReason::Finished));
}

/// Nothing that was written is lost when the tunnel, the client and all threads go right behind it.
#[test]
fn what_was_written_outlives_its_handles() {
    let world = World::new();
    let listener = TcpListener::bind(any_port()).unwrap();
    let target = listener.local_addr().unwrap();
    let (sender, received) = mpsc::channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut bytes = Vec::new();
        sender
            .send(stream.read_to_end(&mut bytes).map(|_| bytes))
            .unwrap();
    });
    let sent = vec![1; 200_000];
    let tunnel = world.client().tcp_blocking(target).unwrap();
    (&tunnel).write_all(&sent).unwrap();
    drop(tunnel);
    let bytes = received.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(bytes == sent, "{} bytes", bytes.len());
}

/// How far a writer may be ahead of a reader at the other end: the queues of both ends of the tunnel, of the relay and
/// of the kernels on the way.
const AHEAD_MAX: usize = 24 * MIB;
const MANY: usize = 64 * MIB;

/// Writes `MANY` bytes and counts them.
fn write_many(mut sink: impl Write, written: &AtomicUsize) {
    let piece = vec![0; 256 * 1024];
    while written.load(Ordering::SeqCst) < MANY {
        sink.write_all(&piece).unwrap();
        written.fetch_add(piece.len(), Ordering::SeqCst);
    }
}

/// Reads them in small pieces, and sees how far the writer is ahead.
#[track_caller]
fn read_many(mut source: impl Read, written: &AtomicUsize) {
    let (mut read, mut buffer) = (0, vec![0; 16 * 1024]);
    while read < MANY {
        let ahead = written.load(Ordering::SeqCst).saturating_sub(read);
        assert!(ahead <= AHEAD_MAX, "nobody is held back");
        read += source.read(&mut buffer).unwrap();
    }
}

#[test]
fn bytes_do_not_pile_up() {
    let world = World::new();
    let listener = TcpListener::bind(any_port()).unwrap();
    let client = world.client();
    let tunnel = client.tcp_blocking(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let written = [AtomicUsize::new(0), AtomicUsize::new(0)];
    thread::scope(|scope| {
        scope.spawn(|| write_many(&tunnel, &written[0]));
        read_many(&stream, &written[0]);
    });
    thread::scope(|scope| {
        scope.spawn(|| write_many(&stream, &written[1]));
        read_many(&tunnel, &written[1]);
    });
}

#[test]
fn messages_of_many_tunnels() {
    let (world, udp, tcp) = (World::new(), Target::new(), EchoTarget::new());
    let (client, events) = (world.client(), Events::new());
    let mode = || Mode::Events(events.clone());
    let first = client
        .connect(udp.address)
        .mode(mode())
        .start_udp()
        .unwrap();
    let second = client
        .connect(tcp.address)
        .mode(mode())
        .start_tcp()
        .unwrap();
    first.send("datagram").unwrap();
    assert_eq!(second.try_write(b"bytes").unwrap(), 5);

    let (mut datagrams, mut bytes) = (Vec::new(), Vec::new());
    let mut opened = Vec::new();
    while datagrams.is_empty() || bytes.len() < 5 {
        match next(&events) {
            (id, Event::Opened) => opened.push(id),
            (id, Event::Datagram(datagram)) => {
                assert_eq!(id, first.id());
                datagrams.push(datagram.payload);
            }
            (id, Event::Data(data)) => {
                assert_eq!(id, second.id());
                bytes.extend_from_slice(&data);
            }
            other => panic!("{other:?}"),
        }
    }
    opened.sort_unstable();
    assert_eq!(opened, [first.id(), second.id()]);
    assert_eq!(
        (datagrams, &*bytes),
        (vec!["datagram".into()], &b"bytes"[..])
    );

    second.shutdown_write().unwrap();
    assert!(matches!(next(&events), (_, Event::Eof)));
    assert!(matches!(
        next(&events),
        (_, Event::Closed(CloseReason::Finished))
    ));
    first.close_blocking();
    assert!(matches!(
        next(&events),
        (_, Event::Closed(CloseReason::Local))
    ));
    assert!(events.try_recv().is_none());
    let instant = Duration::from_millis(1);
    assert!(smol::block_on(events.recv_timeout(instant)).is_none());
    drop(client.connect(udp.address).mode(mode()).start_udp());
    // Whoever drops a tunnel does not hear of it any more.
    assert!(smol::block_on(events.recv_timeout(instant)).is_none());
}

#[test]
fn switching_the_mode_loses_nothing() {
    let (world, target) = (World::new(), EchoTarget::new());
    let tunnel = world.client().tcp_blocking(target.address).unwrap();
    let events = Events::new();
    let sent: Vec<u8> = (0..MIB).map(|index| (index % 253) as u8).collect();
    let mut received = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            (&tunnel).write_all(&sent).unwrap();
            tunnel.shutdown_write().unwrap();
        });
        let mut buffer = vec![0; 10_000];
        while received.len() < sent.len() {
            tunnel.set_mode(Mode::Events(events.clone()));
            for _ in 0..2 {
                if let (_, Event::Data(data)) = next(&events) {
                    received.extend_from_slice(&data);
                }
            }
            tunnel.set_mode(Mode::Pull);
            let read = (&tunnel).read(&mut buffer).unwrap();
            received.extend_from_slice(&buffer[..read]);
        }
    });
    assert!(received == sent);
}

/// A relay that answers nothing at all.
#[test]
fn a_black_hole_closes_within_five_seconds() {
    let hole = UdpSocket::bind(any_port()).unwrap();
    let client = Client::builder(format!("https://{}", hole.local_addr().unwrap()))
        .carriers([Carrier::H3])
        .trust(Trust::dangerous_anybody())
        .build()
        .unwrap();
    let tunnel = client.connect("192.0.2.1:9").start_udp().unwrap();
    let started = now();
    on_tokio(tunnel.close());
    let other = client.connect("192.0.2.1:9").start_tcp().unwrap();
    other.close_blocking();
    assert!(now() - started < CLOSED_WITHIN);
    assert!(matches!(other.closed_blocking(), CloseReason::Local));
    let error = on_tokio(tunnel.opened()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

/// A target that never ends its direction does not keep a tunnel.
#[test]
fn a_silent_target_closes_within_five_seconds() {
    let world = World::new();
    let listener = TcpListener::bind(any_port()).unwrap();
    let tunnel = world
        .client()
        .tcp_blocking(listener.local_addr().unwrap())
        .unwrap();
    let _accepted = listener.accept().unwrap();
    let started = now();
    tunnel.close_blocking();
    assert!(now() - started < CLOSED_WITHIN);
    assert!(matches!(tunnel.closed_blocking(), CloseReason::Local));
}

#[test]
fn opening_takes_its_time_at_most() {
    let hole = UdpSocket::bind(any_port()).unwrap();
    let client = Client::builder(format!("https://{}", hole.local_addr().unwrap()))
        .carriers([Carrier::H3])
        .trust(Trust::dangerous_anybody())
        .open_timeout(Duration::from_millis(50))
        .build()
        .unwrap();
    let error = client.udp_blocking("192.0.2.1:9").unwrap_err();
    assert_eq!(
        (error.kind(), error.side()),
        (ErrorKind::Timeout, Side::Upstream)
    );
    assert!(error.is_retryable());
}

#[test]
fn a_refusal_says_who_and_why() {
    // Without a rule for it, this machine is not public.
    let (world, target) = (World::with(""), DeadTarget::new());
    let error = world.client().udp_blocking(target.address).unwrap_err();
    assert_eq!(
        (error.kind(), error.side()),
        (ErrorKind::Refused, Side::Upstream)
    );
    assert_eq!(error.status().unwrap(), 403);
    assert_eq!(error.proxy_error(), Some("destination_ip_prohibited"));
    assert!(
        error
            .proxy_status()
            .unwrap()
            .contains("destination_ip_prohibited")
    );
    assert!(error.headers().is_some() && !error.is_retryable());
    assert_eq!(error.to_string(), "tunnel refused");

    let world = World::new();
    let error = world.client().tcp_blocking(target.address).unwrap_err();
    assert_eq!(error.proxy_error(), Some("connection_refused"));
    assert_eq!(error.status().unwrap(), 502);
}

/// Whoever does not wait for a tunnel reads of its refusal in its events.
#[test]
fn a_refusal_is_an_event() {
    let (world, target, events) = (World::new(), DeadTarget::new(), Events::new());
    let mode = Mode::Events(events.clone());
    let connect = world.client().connect(target.address).mode(mode);
    let tunnel = connect.start_tcp().unwrap();
    let (id, Event::Closed(CloseReason::Refused(error))) = next(&events) else {
        panic!("{:?}", tunnel.info());
    };
    assert_eq!((id, error.status().unwrap().as_u16()), (tunnel.id(), 502));
    assert_eq!(
        tunnel.opened_blocking().unwrap_err().status(),
        error.status()
    );
    let written = (&tunnel).write(b"x").unwrap_err();
    assert_eq!(written.kind(), io::ErrorKind::ConnectionRefused);
}

/// A future that is dropped gives its tunnel up.
#[test]
fn opening_can_be_cancelled() {
    let hole = UdpSocket::bind(any_port()).unwrap();
    let client = Client::builder(format!("https://{}", hole.local_addr().unwrap()))
        .carriers([Carrier::H3])
        .trust(Trust::dangerous_anybody())
        .build()
        .unwrap();
    let events = Events::new();
    let connect = client
        .connect("192.0.2.1:9")
        .mode(Mode::Events(events.clone()));
    let mut opening = Box::pin(connect.udp());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(opening.as_mut().poll(&mut context).is_pending());
    drop(opening);
    // Nobody has a handle, and nobody is told.
    assert!(events.try_recv().is_none());
}

#[test]
fn every_carrier_that_failed_is_named() {
    let dead = DeadTarget::new();
    let client = Client::builder(format!("https://{}", dead.address))
        .carriers([Carrier::H2, Carrier::H1])
        .trust(Trust::dangerous_anybody())
        .build()
        .unwrap();
    let error = client.udp_blocking("192.0.2.1:9").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let carriers: Vec<_> = error.attempts().iter().map(|it| it.carrier).collect();
    assert_eq!(carriers, [Carrier::H2, Carrier::H1]);
    let reason = error.attempts()[0].error.source().unwrap().to_string();
    assert_eq!(reason, "the relay refused the connection");

    let world = World::new();
    let distrusting = Client::builder(world.relay.url()).trust(Trust::pinned([[0; 32]]));
    let error = distrusting
        .build()
        .unwrap()
        .udp_blocking("192.0.2.1:9")
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
}

#[test]
fn two_hops_share_a_worker() {
    let (world, target) = (World::new(), Target::new());
    let exit = world.site.relay("exit", LOCAL_TARGETS);
    let worker = Worker::new().unwrap();
    let build = || {
        let builder = world.builder().hop(exit.url()).worker(&worker);
        builder.carriers([Carrier::H3]).build().unwrap()
    };
    let (first, second) = (build(), build());
    for client in [&first, &second] {
        let tunnel = client.udp_blocking(target.address).unwrap();
        tunnel.send("payload").unwrap();
        let received = tunnel.recv_timeout_blocking(PATIENCE).unwrap();
        assert_eq!(received.unwrap().payload, "payload");
        assert_eq!(tunnel.info().relays.len(), 2);
    }
    let tunnel = first.udp_blocking(target.address).unwrap();
    worker.stop_blocking();
    assert!(matches!(tunnel.closed_blocking(), CloseReason::Local));
    let error = second.udp_blocking(target.address).unwrap_err();
    assert_eq!(error.side(), Side::Local);
}

#[test]
fn a_tunnel_learns_that_its_relay_is_gone() {
    let (world, target) = (World::new(), EchoTarget::new());
    let client = world.client();
    let tunnel = client.tcp_blocking(target.address).unwrap();
    (&tunnel).write_all(b"hello").unwrap();
    let mut buffer = [0; 5];
    (&tunnel).read_exact(&mut buffer).unwrap();
    world.relay.stop().assert_code(0);
    let CloseReason::Aborted(error) = tunnel.closed_blocking() else {
        panic!("{:?}", tunnel.info());
    };
    assert_eq!(error.kind(), ErrorKind::Aborted);
    let error = (&tunnel).read(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}
