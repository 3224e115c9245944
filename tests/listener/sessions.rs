//! Callbacks, actions, handles; what becomes of panics.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bauta::{
    Accept, Actions, CloseReason, Listener, Protocol, Reject, Request, SESSION_WAITING_BYTES_MAX,
    SendError, Session, TunnelHandle,
};
use bytes::Bytes;
use http::HeaderValue;

use crate::Server;
use crate::raw::{PATIENCE, Raw};

/// What a session was told.
#[derive(Debug, PartialEq)]
enum Told {
    Open,
    Packet(u64, Bytes),
    Data(Bytes),
    Eof,
    Capsule(u64, Bytes),
    Message(&'static str),
    Close(&'static str),
}

/// Tells a test what it hears, and says the same back.
struct Echo {
    told: Sender<Told>,
    handles: Sender<TunnelHandle>,
}

impl Echo {
    fn tell(&self, told: Told) {
        // Tests that are over listen no more.
        drop(self.told.send(told));
    }
}

impl Session for Echo {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        drop(self.handles.send(actions.handle()));
        self.tell(Told::Open);
    }

    fn on_packet(&mut self, actions: &mut Actions<'_>, context: u64, payload: Bytes) {
        actions.send_on(context, payload.clone()).unwrap();
        self.tell(Told::Packet(context, payload));
    }

    fn on_data(&mut self, actions: &mut Actions<'_>, data: Bytes) {
        actions.send_data(data.clone()).unwrap();
        self.tell(Told::Data(data));
    }

    fn on_eof(&mut self, actions: &mut Actions<'_>) {
        // A handle may have been first.
        drop(actions.finish("bye"));
        assert_eq!(actions.send_data("more"), Err(SendError::Closed));
        self.tell(Told::Eof);
    }

    fn on_capsule(&mut self, actions: &mut Actions<'_>, kind: u64, value: Bytes) {
        actions.send_capsule(kind, &value).unwrap();
        self.tell(Told::Capsule(kind, value));
    }

    fn on_message(&mut self, actions: &mut Actions<'_>, message: Box<dyn Any + Send>) {
        let message = *message.downcast::<&'static str>().unwrap();
        match message {
            "close" => actions.close(),
            "close with" => actions.close_with(0x10f),
            "panic" => panic!("as it should"),
            _ => match actions.protocol() {
                Protocol::Udp => actions.send(message).unwrap(),
                Protocol::Tcp | _ => actions.send_data(message).unwrap(),
            },
        }
        self.tell(Told::Message(message));
    }

    fn on_close(&mut self, reason: CloseReason) {
        self.tell(Told::Close(match reason {
            CloseReason::Local => "local",
            CloseReason::Finished => "finished",
            CloseReason::Aborted(_) => "aborted",
            CloseReason::Refused(_) | _ => "other",
        }));
    }
}

/// A server of echoes, and what its sessions were told.
struct Echoes {
    server: Server,
    told: Receiver<Told>,
    handles: Receiver<TunnelHandle>,
}

impl Echoes {
    fn start() -> Self {
        let (tell, told) = channel();
        let (give, handles) = channel();
        let server = Server::start(move |_: &Request| {
            Ok(Accept::session(Echo {
                told: tell.clone(),
                handles: give.clone(),
            }))
        });
        Self {
            server,
            told,
            handles,
        }
    }

    fn told(&self) -> Told {
        self.told.recv_timeout(PATIENCE).unwrap()
    }

    fn handle(&self) -> TunnelHandle {
        self.handles.recv_timeout(PATIENCE).unwrap()
    }

    fn panics(&self) -> u64 {
        self.server.listener.stats().handler_panics
    }
}

#[test]
fn datagrams_in_every_context() {
    let echoes = Echoes::start();
    let mut client = echoes.server.connect();
    let head = client.ask_udp("192.0.2.1:53", "");
    assert_eq!(head.status, 101);
    assert_eq!(head.field("capsule-protocol"), Some("?1"));
    assert_eq!(echoes.told(), Told::Open);
    for (context, payload) in [(0, "hello"), (2, "other"), (0, "")] {
        client.send(context, payload.as_bytes());
        let told = Told::Packet(context.into(), payload.into());
        assert_eq!(echoes.told(), told);
        let (kind, value) = client.capsule();
        assert_eq!((kind, value[0]), (0, context));
        assert_eq!(&value[1..], payload.as_bytes());
    }
    client.finish();
    assert_eq!(echoes.told(), Told::Close("finished"));
}

#[test]
fn capsules_of_unknown_types() {
    let echoes = Echoes::start();
    let mut client = echoes.server.connect();
    assert_eq!(client.ask_udp("192.0.2.1:53", "").status, 101);
    assert_eq!(echoes.told(), Told::Open);
    client.write(b"\x29\x03abc");
    assert_eq!(echoes.told(), Told::Capsule(0x29, "abc".into()));
    assert_eq!(client.capsule(), (0x29, b"abc".to_vec()));
}

#[test]
fn bytes_and_the_end_of_each_direction() {
    let echoes = Echoes::start();
    let mut client = echoes.server.connect();
    assert_eq!(client.ask_tcp("192.0.2.1:80", "").status, 200);
    assert_eq!(echoes.told(), Told::Open);
    client.write("hello");
    assert_eq!(echoes.told(), Told::Data("hello".into()));
    assert_eq!(client.read(5), b"hello");
    client.finish();
    assert_eq!(client.rest(), (b"bye".to_vec(), true));
    assert_eq!(echoes.told(), Told::Eof);
    assert_eq!(echoes.told(), Told::Close("finished"));
}

#[test]
fn a_client_that_breaks_off() {
    let echoes = Echoes::start();
    let mut client = echoes.server.connect();
    assert_eq!(client.ask_tcp("192.0.2.1:80", "").status, 200);
    drop(client);
    assert_eq!(echoes.told(), Told::Open);
    assert_eq!(echoes.told(), Told::Close("aborted"));
    assert_eq!(echoes.panics(), 0);
}

#[test]
fn handles_act_from_other_threads() {
    let echoes = Echoes::start();
    let mut client = echoes.server.connect();
    client.ask_tcp("192.0.2.1:80", "");
    let handle = echoes.handle();
    assert_eq!(echoes.told(), Told::Open);
    handle.message("from afar").unwrap();
    assert_eq!(echoes.told(), Told::Message("from afar"));
    handle.send_data(", and more").unwrap();
    assert_eq!(client.read(19), b"from afar, and more");
    let other = handle.clone();
    std::thread::spawn(move || other.finish("!").unwrap());
    assert_eq!(client.read(1), b"!");
    client.finish();
    assert_eq!(client.rest(), (Vec::new(), true));
    assert_eq!(echoes.told(), Told::Eof);
    assert_eq!(echoes.told(), Told::Close("finished"));
    assert!(handle.is_closed());
}

#[test]
fn handles_send_datagrams_and_close() {
    let echoes = Echoes::start();
    let mut client = echoes.server.connect();
    client.ask_udp("192.0.2.1:53", "");
    let handle = echoes.handle();
    assert_eq!(echoes.told(), Told::Open);
    handle.send("a").unwrap();
    handle.send_on(4, "b").unwrap();
    handle.send_capsule(0x29, "c").unwrap();
    assert_eq!(client.capsule(), (0, b"\0a".to_vec()));
    assert_eq!(client.capsule(), (0, b"\x04b".to_vec()));
    assert_eq!(client.capsule(), (0x29, b"c".to_vec()));
    assert!(!handle.is_closed());
    handle.close();
    assert_eq!(echoes.told(), Told::Close("local"));
    assert!(handle.is_closed());
    assert_eq!(handle.message("late"), Err(SendError::Closed));
    assert_eq!(client.rest(), (Vec::new(), true));
}

#[test]
fn sessions_close_with_and_without_a_code() {
    for (protocol, word, orderly) in [
        (Protocol::Tcp, "close", true),
        (Protocol::Tcp, "close with", false),
        (Protocol::Udp, "close", true),
        (Protocol::Udp, "close with", false),
    ] {
        let echoes = Echoes::start();
        let mut client = echoes.server.connect();
        match protocol {
            Protocol::Udp => client.ask_udp("192.0.2.1:53", ""),
            Protocol::Tcp | _ => client.ask_tcp("192.0.2.1:80", ""),
        };
        assert_eq!(echoes.told(), Told::Open);
        echoes.handle().message(word).unwrap();
        assert_eq!(echoes.told(), Told::Message(word));
        assert_eq!(client.rest(), (Vec::new(), orderly), "{protocol:?} {word}");
        drop(client);
        assert_eq!(echoes.told(), Told::Close("local"), "{protocol:?} {word}");
    }
}

#[test]
fn a_panic_ends_its_own_tunnel_alone() {
    let echoes = Echoes::start();
    let (mut broken, mut other) = (echoes.server.connect(), echoes.server.connect());
    broken.ask_tcp("192.0.2.1:80", "");
    let handle = echoes.handle();
    assert_eq!(echoes.told(), Told::Open);
    other.ask_tcp("192.0.2.1:80", "");
    assert_eq!(echoes.told(), Told::Open);
    handle.message("panic").unwrap();
    assert_eq!(broken.rest(), (Vec::new(), false));
    assert!(handle.is_closed());
    other.write("hello");
    assert_eq!(other.read(5), b"hello");
    assert_eq!(echoes.panics(), 1);
}

#[test]
fn a_panic_before_the_answer_is_500() {
    let server = Server::start(|request: &Request| match request.authority() {
        Some("accept.example:1") => panic!("as it should"),
        Some("init.example:1") => Ok(Accept::init(async {
            tokio::task::yield_now().await;
            if true {
                panic!("as it should");
            }
            Ok(Silent)
        })),
        _ => Ok(Accept::session(Silent)),
    });
    for target in ["accept.example:1", "init.example:1"] {
        let head = server.connect().ask_tcp(target, "");
        assert_eq!(head.status, 500, "{target}");
        let status = head.field("proxy-status").unwrap();
        assert!(!status.contains("should"), "{status}");
    }
    assert_eq!(server.connect().ask_tcp("fine.example:1", "").status, 200);
    assert_eq!(server.listener.stats().handler_panics, 2);
}

/// Ignores everything.
struct Silent;

impl Session for Silent {}

#[test]
fn init_opens_or_rejects_later() {
    let (give, take) = channel::<tokio::sync::oneshot::Sender<Result<(), Reject>>>();
    let server = Server::start(move |_: &Request| {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        drop(give.send(sender));
        let init = async move {
            receiver.await.unwrap()?;
            Ok(Silent)
        };
        Ok(Accept::init(init).header("x-made", HeaderValue::from_static("by init")))
    });
    let mut client = server.connect();
    client.write("CONNECT a.example:1 HTTP/1.1\r\nHost: a.example:1\r\n\r\n");
    take.recv_timeout(PATIENCE).unwrap().send(Ok(())).unwrap();
    let head = client.head();
    assert_eq!(head.status, 200);
    assert_eq!(head.field("x-made"), Some("by init"));

    let mut client = server.connect();
    client.write("CONNECT a.example:1 HTTP/1.1\r\nHost: a.example:1\r\n\r\n");
    let later = take.recv_timeout(PATIENCE).unwrap();
    later.send(Err(Reject::unavailable())).unwrap();
    let head = client.head();
    assert_eq!((head.status, head.field("x-made")), (503, None));

    // A client that leaves takes its future along.
    let mut client = server.connect();
    client.write("CONNECT a.example:1 HTTP/1.1\r\nHost: a.example:1\r\n\r\n");
    let mut later = take.recv_timeout(PATIENCE).unwrap();
    drop(client);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, later.closed())
            .await
            .unwrap();
    });
    assert_eq!(server.listener.stats().handler_panics, 0);
}

#[test]
fn init_is_bounded_by_the_open_timeout() {
    let listener = Listener::h1(([127, 0, 0, 1], 0))
        .open_timeout(Duration::from_secs(1))
        .handler(|_: &Request| {
            Ok(Accept::init(
                std::future::pending::<Result<Silent, Reject>>(),
            ))
        });
    let server = Server::build(listener);
    let head = server.connect().ask_tcp("a.example:1", "");
    assert!(matches!(head.status, 503 | 504), "{head:?}");
}

/// Notes how much it was given, and answers every byte with many.
struct Amplifier {
    given: Arc<AtomicUsize>,
}

const FACTOR: usize = 64;

impl Session for Amplifier {
    fn on_data(&mut self, actions: &mut Actions<'_>, data: Bytes) {
        self.given.fetch_add(data.len(), Ordering::Relaxed);
        actions.send_data(vec![7; data.len() * FACTOR]).unwrap();
    }
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    const ASKED: usize = 512 * 1024;
    let given = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&given);
    let server = Server::start(move |_: &Request| {
        let given = Arc::clone(&noted);
        Ok(Accept::session(Amplifier { given }))
    });
    let mut client = server.connect();
    client.ask_tcp("192.0.2.1:80", "");
    let writer = client.stream.sock.try_clone().unwrap();
    // What does not fit anywhere stays here: 32 MiB of answers are more than all buffers hold.
    let mut left = ASKED;
    while left > 0 {
        let piece = left.min(16 * 1024);
        client.write(vec![1; piece]);
        left -= piece;
    }
    drop(writer);
    let before = given.load(Ordering::Relaxed);
    assert!(
        before < ASKED,
        "{before} bytes were read, nobody took the answers"
    );
    let mut got = 0;
    while got < ASKED * FACTOR {
        got += client.read((ASKED * FACTOR - got).min(64 * 1024)).len();
    }
    assert_eq!(given.load(Ordering::Relaxed), ASKED);
}

/// Says more than any buffer holds, and closes.
struct Monologue(Sender<&'static str>);

impl Session for Monologue {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        actions.send_data(vec![7; 64 * 1024 * 1024]).unwrap();
        actions.close();
    }

    fn on_close(&mut self, reason: CloseReason) {
        let is_aborted = matches!(reason, CloseReason::Aborted(_));
        let reason = if is_aborted { "aborted" } else { "in order" };
        self.0.send(reason).ok();
    }
}

#[test]
fn a_client_that_never_reads_does_not_put_off_the_end() {
    let (tell, told) = channel();
    let server = Server::start(move |_: &Request| Ok(Accept::session(Monologue(tell.clone()))));
    let mut client = server.connect();
    client.ask_tcp("192.0.2.1:80", "");
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "aborted");
    // Who reads gets everything.
    let mut client = server.connect();
    client.ask_tcp("192.0.2.1:80", "");
    let (bytes, orderly) = client.rest();
    assert_eq!((bytes.len(), orderly), (64 * 1024 * 1024, true));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "in order");
}

/// Talks on its own, as long as there is room.
struct Talker {
    left: usize,
    rounds: Arc<AtomicUsize>,
}

impl Talker {
    fn talk(&mut self, actions: &mut Actions<'_>) {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        loop {
            let piece = actions.room().min(self.left);
            if piece == 0 {
                break;
            }
            self.left -= piece;
            actions.send_data(vec![7; piece]).unwrap();
        }
        if self.left == 0 {
            actions.close();
        }
    }
}

impl Session for Talker {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        assert_eq!(actions.room(), SESSION_WAITING_BYTES_MAX);
        assert_eq!(actions.send("no UDP here"), Err(SendError::Unsupported));
        self.talk(actions);
    }

    fn on_writable(&mut self, actions: &mut Actions<'_>) {
        self.talk(actions);
    }
}

#[test]
fn room_paces_a_session_that_talks_on_its_own() {
    const TOTAL: usize = 16 * 1024 * 1024;
    let rounds = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&rounds);
    let server = Server::start(move |_: &Request| {
        Ok(Accept::session(Talker {
            left: TOTAL,
            rounds: Arc::clone(&counted),
        }))
    });
    let mut client: Raw = server.connect();
    client.ask_tcp("192.0.2.1:80", "");
    let (bytes, orderly) = client.rest();
    assert_eq!((bytes.len(), orderly), (TOTAL, true));
    assert!(rounds.load(Ordering::Relaxed) > 1);
}
