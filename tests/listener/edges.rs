//! What users and clients do that nobody expects of them.

use std::any::Any;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use bauta::{
    Accept, Actions, Carrier, Client, CloseReason, Event, Events, Handler, Listener, Mode, Proxies,
    Reject, Request, Session, TcpForm, TunnelHandle, Worker,
};
use bytes::Bytes;
use http::HeaderValue;

use crate::Server;
use crate::life::client_of;
use crate::raw::{PATIENCE, Raw};

const ANY: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

fn everywhere(handler: impl Handler) -> Server {
    Server::build(Listener::all(ANY).handler(handler))
}

/// Counts capsules, and says as many back when it is told to.
struct Capsules {
    told: Sender<u64>,
    say: u64,
}

const MANY: u64 = 60;
const KIND: u64 = 0x29_77;
const VALUE: [u8; 16 * 1024] = [7; 16 * 1024];

impl Capsules {
    fn talk(&mut self, actions: &mut Actions<'_>) {
        while self.say > 0 && actions.send_capsule(KIND, &VALUE).is_ok() {
            self.say -= 1;
        }
    }
}

impl Session for Capsules {
    fn on_capsule(&mut self, actions: &mut Actions<'_>, kind: u64, value: Bytes) {
        assert_eq!((kind, &value[..]), (KIND, &VALUE[..]));
        self.told.send(1).ok();
        let _ = actions;
    }

    fn on_message(&mut self, actions: &mut Actions<'_>, _: Box<dyn Any + Send>) {
        self.say = MANY;
        self.talk(actions);
    }

    fn on_packet(&mut self, actions: &mut Actions<'_>, _: u64, _: Bytes) {
        self.say = MANY;
        self.talk(actions);
    }

    fn on_data(&mut self, actions: &mut Actions<'_>, _: Bytes) {
        self.say = MANY;
        self.talk(actions);
    }

    fn on_writable(&mut self, actions: &mut Actions<'_>) {
        self.talk(actions);
    }
}

#[test]
fn capsules_that_find_no_room_go_when_there_is_some() {
    let (told, heard) = channel();
    let server = everywhere(move |_: &Request| {
        let told = told.clone();
        Ok(Accept::session(Capsules { told, say: 0 }))
    });
    let hear = || (0..MANY).for_each(|_| assert!(heard.recv_timeout(PATIENCE).is_ok()));
    for carrier in Carrier::ALL {
        let client = client_of(&server, carrier).build().unwrap();
        let events = Events::new();
        let mode = Mode::Events(events.clone());
        let udp = client
            .connect("192.0.2.1:53")
            .mode(mode.clone())
            .udp_blocking();
        let udp = udp.unwrap();
        (0..MANY).for_each(|_| udp.send_capsule(KIND, VALUE.to_vec()).unwrap());
        hear();
        udp.send("your turn").unwrap();
        expect_capsules(&events);
        let tcp = client.connect("192.0.2.1:80").mode(mode).tcp_blocking();
        let tcp = tcp.unwrap();
        (0..MANY).for_each(|_| tcp.send_capsule(KIND, VALUE.to_vec()).unwrap());
        hear();
        tcp.try_write(b"your turn").unwrap();
        expect_capsules(&events);
    }
}

fn expect_capsules(events: &Events) {
    let mut left = MANY;
    while left > 0 {
        match events.recv_timeout_blocking(PATIENCE) {
            Some((_, Event::Capsule(capsule))) => {
                assert_eq!(capsule.kind, KIND);
                left -= 1;
            }
            Some((_, Event::Opened)) => {}
            other => panic!("{left} are missing, but there is {other:?}"),
        }
    }
}

#[test]
fn a_message_that_panics_when_it_is_dropped_hurts_nobody() {
    /// Says its last word at once.
    struct Brief(Sender<TunnelHandle>);
    impl Session for Brief {
        fn on_open(&mut self, actions: &mut Actions<'_>) {
            self.0.send(actions.handle()).ok();
            actions.close();
        }
    }
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("as it should");
        }
    }
    let (give, take) = channel();
    let server = Server::start(move |_: &Request| Ok(Accept::session(Brief(give.clone()))));
    let mut client = server.connect();
    assert_eq!(client.ask_tcp("192.0.2.1:80", "").status, 200);
    let handle = take.recv_timeout(PATIENCE).unwrap();
    handle.message(Bomb).unwrap();
    let mut other = server.connect();
    assert_eq!(other.ask_tcp("192.0.2.1:80", "").status, 200);
    assert_eq!(server.listener.stats().handler_panics, 1);
}

#[test]
fn a_client_that_leaves_takes_the_future_of_its_fallback_along() {
    let (give, take) = channel::<tokio::sync::oneshot::Sender<()>>();
    let fallback = move |_: Request| {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        give.send(sender).ok();
        async move {
            receiver.await.ok();
            http::Response::new(Bytes::new())
        }
    };
    let server = Server::build(
        Listener::h1(ANY)
            .handler(Proxies::new())
            .fallback_async(fallback),
    );
    let mut client = server.connect();
    client.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
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
}

#[test]
fn a_callback_may_ask_for_statistics() {
    let listener: Arc<OnceLock<Listener>> = Arc::default();
    let asked = Arc::clone(&listener);
    let page = move |_: &Request| {
        let stats = asked.get().unwrap().stats();
        http::Response::new(format!("{}", stats.handler_panics).into())
    };
    let (identity, ca_pem) = bauta::Identity::development(&[]).unwrap();
    let started = Listener::h1(ANY)
        .identity(identity)
        .workers(1)
        .handler(Proxies::new())
        .fallback(page)
        .start()
        .unwrap();
    let address = started.local_addr();
    listener.set(started).unwrap();
    let mut client = Raw::connect(address, &ca_pem);
    client.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().status, 200);
    assert_eq!(client.read(1), b"0");
}

#[test]
fn a_field_of_a_connection_is_left_out_on_every_carrier() {
    let server = everywhere(|request: &Request| -> Result<Accept, Reject> {
        let value = HeaderValue::from_static("timeout=5");
        match request.target().unwrap().port {
            80 => Err(Reject::forbidden().header("keep-alive", value)),
            _ => Ok(Accept::session(Quiet).header("keep-alive", value)),
        }
    });
    for carrier in Carrier::ALL {
        let client = client_of(&server, carrier).build().unwrap();
        let error = client.tcp_blocking("192.0.2.1:80").unwrap_err();
        assert_eq!(error.status().unwrap(), 403, "{carrier}");
        assert!(error.headers().unwrap().get("keep-alive").is_none());
        client.tcp_blocking("192.0.2.1:81").unwrap();
    }
}

/// Neither says anything nor ends.
struct Quiet;

impl Session for Quiet {
    fn on_eof(&mut self, _: &mut Actions<'_>) {}
}

#[test]
fn a_worker_that_stops_opens_no_more() {
    let server = everywhere(|_: &Request| Ok(Accept::session(Quiet)));
    let worker = Worker::new().unwrap();
    let client: Client = client_of(&server, Carrier::H2)
        .worker(&worker)
        .build()
        .unwrap();
    // Its target never ends, so it takes a while to close.
    let slow = client.tcp_blocking("192.0.2.1:80").unwrap();
    let (done, wait) = channel();
    thread::spawn(move || {
        worker.stop_blocking();
        done.send(()).ok();
    });
    while slow.info().state == bauta::State::Open {
        thread::park_timeout(Duration::from_millis(1));
    }
    client.udp_blocking("192.0.2.1:53").unwrap_err();
    let held = client.connect("192.0.2.1:53").start_udp().unwrap();
    wait.recv_timeout(PATIENCE).unwrap();
    drop(held.closed_blocking());
}

#[test]
fn a_direction_that_is_given_up_before_the_tunnel_opens_ends() {
    struct Tell(Sender<()>);
    impl Session for Tell {
        fn on_eof(&mut self, actions: &mut Actions<'_>) {
            self.0.send(()).ok();
            actions.finish("bye").unwrap();
        }
    }
    let (told, heard) = channel();
    let server = everywhere(move |_: &Request| Ok(Accept::session(Tell(told.clone()))));
    for carrier in Carrier::ALL {
        let client = client_of(&server, carrier).build().unwrap();
        let tunnel = client.connect("192.0.2.1:80").start_tcp().unwrap();
        let (read, write) = tunnel.split();
        drop(write);
        heard.recv_timeout(PATIENCE).unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut &read, &mut text).unwrap();
        assert_eq!(text, "bye");
    }
}

#[test]
fn what_a_client_sent_is_not_for_logs() {
    let (told, heard) = channel();
    let server = everywhere(move |request: &Request| -> Result<Accept, Reject> {
        told.send(format!("{request:?}")).ok();
        Err(Reject::forbidden())
    });
    for carrier in Carrier::ALL {
        let client = client_of(&server, carrier)
            .header("x-key", "sesame")
            .build()
            .unwrap();
        client.udp_blocking("192.0.2.1:53").unwrap_err();
        let text = heard.recv_timeout(PATIENCE).unwrap();
        for secret in ["sesame", "127.0.0.1"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}

#[test]
fn bytes_that_break_off_with_no_error_did_not_come_to_their_end() {
    struct Cut;
    impl Session for Cut {
        fn on_data(&mut self, actions: &mut Actions<'_>, _: Bytes) {
            actions.send_data("the first half").unwrap();
        }

        fn on_message(&mut self, actions: &mut Actions<'_>, _: Box<dyn Any + Send>) {
            actions.close_with(H3_NO_ERROR);
        }

        fn on_open(&mut self, actions: &mut Actions<'_>) {
            let handle = actions.handle();
            thread::spawn(move || {
                thread::park_timeout(Duration::from_millis(200));
                handle.message(()).ok();
            });
        }
    }
    const H3_NO_ERROR: u64 = 0x100;
    let server = everywhere(|_: &Request| Ok(Accept::session(Cut)));
    for carrier in Carrier::ALL {
        let client = client_of(&server, carrier).build().unwrap();
        for form in [TcpForm::Classic, TcpForm::Capsules] {
            let tunnel = client.connect("192.0.2.1:80").tcp_form(form);
            let tunnel = tunnel.tcp_blocking().unwrap();
            tunnel.try_write(b"go").unwrap();
            let mut text = String::new();
            let read = std::io::Read::read_to_string(&mut &tunnel, &mut text);
            assert!(read.is_err(), "{carrier} {form:?}");
            let reason = tunnel.closed_blocking();
            assert!(
                matches!(reason, CloseReason::Aborted(_)),
                "{carrier} {form:?}: {reason}"
            );
        }
    }
}
