//! What the sessions of handlers see and do.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use bauta::{
    Accept, Actions, Carrier, CloseReason, Listener, Reject, Request, SESSION_WAITING_BYTES_MAX,
    SendError, Session,
};
use http::HeaderValue;

use crate::sessions::{Order, Stage, Told};
use crate::world::{PATIENCE, Server, any_port, payload};

#[test]
fn handler_callbacks_of_a_udp_tunnel() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.udp(carrier);
        tunnel.send("packet").unwrap();
        assert_eq!(stage.told(), Told::Packet(0, "packet".into()));
        tunnel.send_with_context(2, "context").unwrap();
        assert_eq!(stage.told(), Told::Packet(2, "context".into()));
        tunnel.send_capsule(0x29, "capsule").unwrap();
        assert_eq!(stage.told(), Told::Capsule(0x29, "capsule".into()));
        handle.message(Order::Say("message")).unwrap();
        assert_eq!(stage.told(), Told::Message("message"));
        tunnel.close_blocking();
        assert_eq!(stage.told(), Told::Close("finished"), "{carrier}");
        assert!(handle.is_closed());
        let error = handle.message(Order::Say("late")).unwrap_err();
        assert_eq!(error, SendError::Closed);
    }
}

#[test]
fn handler_callbacks_of_a_tcp_tunnel() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.tcp(carrier);
        (&tunnel).write_all(b"data").unwrap();
        assert_eq!(stage.told(), Told::Data("data".into()));
        handle.message(Order::Say("message")).unwrap();
        assert_eq!(stage.told(), Told::Message("message"));
        tunnel.shutdown_write().unwrap();
        assert_eq!(stage.told(), Told::Eof);
        handle.finish("").unwrap();
        assert_eq!(stage.told(), Told::Close("finished"), "{carrier}");
        assert!(matches!(tunnel.closed_blocking(), CloseReason::Finished));
    }
}

/// Has the session do something, and tells what came of it.
#[track_caller]
fn did(stage: &Stage, handle: &bauta::TunnelHandle, order: Order) -> Result<(), SendError> {
    handle.message(order).unwrap();
    match stage.told() {
        Told::Did(outcome) => outcome,
        other => panic!("{other:?}"),
    }
}

#[test]
fn handler_actions_on_a_udp_tunnel() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.udp(carrier);
        assert_eq!(did(&stage, &handle, Order::Send("packet".into())), Ok(()));
        assert_eq!(payload(&tunnel), "packet");
        let order = Order::SendOn(2, "context".into());
        assert_eq!(did(&stage, &handle, order), Ok(()));
        let received = tunnel.recv_timeout_blocking(PATIENCE).unwrap().unwrap();
        assert_eq!((received.context, &*received.payload), (2, &b"context"[..]));
        let order = Order::Capsule(0x29, "capsule".into());
        assert_eq!(did(&stage, &handle, order), Ok(()));
        assert_eq!(tunnel.recv_capsule_blocking().unwrap().value, "capsule");
        // What does not belong here.
        let unsupported = Err(SendError::Unsupported);
        assert_eq!(
            did(&stage, &handle, Order::SendData("x".into())),
            unsupported
        );
        assert_eq!(did(&stage, &handle, Order::Finish("x".into())), unsupported);
        assert_eq!(
            did(&stage, &handle, Order::Capsule(0, "x".into())),
            unsupported
        );
        let error = did(&stage, &handle, Order::Send(vec![0; 65_528].into())).unwrap_err();
        assert!(
            matches!(error, SendError::TooLong { max } if max <= 65_527),
            "{error}"
        );
        assert_eq!(did(&stage, &handle, Order::Close), Ok(()));
        assert!(
            matches!(tunnel.closed_blocking(), CloseReason::Finished),
            "{carrier}"
        );
        assert_eq!(stage.told(), Told::Close("local"));

        let (tunnel, handle) = stage.udp(carrier);
        handle.message(Order::CloseWith(0x10f)).unwrap();
        let reason = tunnel.closed_blocking();
        assert!(
            matches!(reason, CloseReason::Aborted(_)),
            "{carrier} {reason:?}"
        );
        assert_eq!(stage.told(), Told::Close("local"));
    }
}

#[test]
fn handler_actions_on_a_tcp_tunnel() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.tcp(carrier);
        let mut buffer = [0; 4];
        assert_eq!(did(&stage, &handle, Order::SendData("data".into())), Ok(()));
        (&tunnel).read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"data");
        let order = Order::Capsule(0x29, "capsule".into());
        assert_eq!(did(&stage, &handle, order), Ok(()));
        assert_eq!(tunnel.recv_capsule_blocking().unwrap().value, "capsule");
        let unsupported = Err(SendError::Unsupported);
        assert_eq!(did(&stage, &handle, Order::Send("x".into())), unsupported);
        assert_eq!(
            did(&stage, &handle, Order::SendOn(2, "x".into())),
            unsupported
        );
        assert_eq!(did(&stage, &handle, Order::Finish("last".into())), Ok(()));
        let mut rest = Vec::new();
        (&tunnel).read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"last", "{carrier}");
        let closed = Err(SendError::Closed);
        assert_eq!(did(&stage, &handle, Order::SendData("x".into())), closed);
        assert_eq!(did(&stage, &handle, Order::Finish("x".into())), closed);
        // The client's direction goes on.
        (&tunnel).write_all(b"more").unwrap();
        assert_eq!(stage.told(), Told::Data("more".into()));
        assert_eq!(did(&stage, &handle, Order::Close), Ok(()));
        tunnel.shutdown_write().unwrap();
        assert!(
            matches!(tunnel.closed_blocking(), CloseReason::Finished),
            "{carrier}"
        );
        assert_eq!(stage.told(), Told::Close("local"));

        let (tunnel, handle) = stage.tcp(carrier);
        handle.message(Order::CloseWith(0x10f)).unwrap();
        let error = (&tunnel).read(&mut buffer).unwrap_err();
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "{carrier}"
        );
        assert_eq!(stage.told(), Told::Close("local"));
    }
}

#[test]
fn handler_actions_from_other_threads() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (udp, handle) = stage.udp(carrier);
        thread::scope(|scope| {
            let elsewhere = handle.clone();
            scope.spawn(move || {
                elsewhere.send("packet").unwrap();
                elsewhere.send_on(2, "context").unwrap();
                elsewhere.send_capsule(0x29, "capsule").unwrap();
            });
            assert_eq!(payload(&udp), "packet");
            assert_eq!(payload(&udp), "context");
            assert_eq!(udp.recv_capsule_blocking().unwrap().value, "capsule");
        });
        handle.close();
        assert!(matches!(udp.closed_blocking(), CloseReason::Finished));
        assert_eq!(stage.told(), Told::Close("local"));

        let (tcp, handle) = stage.tcp(carrier);
        thread::spawn(move || {
            handle.send_data("da").unwrap();
            handle.finish("ta").unwrap();
        });
        let mut bytes = Vec::new();
        (&tcp).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"data");
        tcp.shutdown_write().unwrap();
        assert_eq!(stage.told(), Told::Eof);
        assert_eq!(stage.told(), Told::Close("finished"));

        let (tcp, handle) = stage.tcp(carrier);
        handle.close_with(0x10f);
        assert!(matches!(tcp.closed_blocking(), CloseReason::Aborted(_)));
        assert_eq!(stage.told(), Told::Close("local"));
    }
}

/// Talks on its own, as long as there is room.
struct Talker {
    left: usize,
    writable: Arc<AtomicUsize>,
}

impl Talker {
    fn talk(&mut self, actions: &mut Actions<'_>) {
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
        self.talk(actions);
    }

    fn on_writable(&mut self, actions: &mut Actions<'_>) {
        self.writable.fetch_add(1, Ordering::Relaxed);
        self.talk(actions);
    }
}

#[test]
fn handler_callbacks_pace_a_session_that_talks() {
    const TOTAL: usize = 4 * 1024 * 1024;
    for carrier in Carrier::ALL {
        let writable = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&writable);
        let server = Server::new(move |_: &Request| {
            let writable = Arc::clone(&counted);
            Ok(Accept::session(Talker {
                left: TOTAL,
                writable,
            }))
        });
        let tunnel = server
            .client(carrier)
            .tcp_blocking("web.example:80")
            .unwrap();
        let mut bytes = Vec::new();
        (&tunnel).read_to_end(&mut bytes).unwrap();
        assert!(
            bytes.len() == TOTAL && bytes.iter().all(|byte| *byte == 7),
            "{carrier}"
        );
        assert!(writable.load(Ordering::Relaxed) > 0, "{carrier}");
    }
}

#[test]
fn handler_callbacks_that_panic_hurt_nobody_else() {
    let stage = Stage::new();
    for (index, carrier) in Carrier::ALL.into_iter().enumerate() {
        let (broken, handle) = stage.udp(carrier);
        let (other, _) = stage.udp(carrier);
        handle.message(Order::Panic).unwrap();
        let reason = broken.closed_blocking();
        assert!(
            matches!(reason, CloseReason::Aborted(_)),
            "{carrier} {reason:?}"
        );
        assert!(handle.is_closed());
        other.send("still here").unwrap();
        assert_eq!(stage.told(), Told::Packet(0, "still here".into()));
        let panics = stage.server.listener.stats().handler_panics;
        assert_eq!(panics, index as u64 + 1);
        other.close_blocking();
        assert!(matches!(stage.told(), Told::Close(_)));
    }
    // Before there is a tunnel, a panic is an answer.
    let server = Server::new(
        |request: &Request| match request.target().map(|it| it.port) {
            Some(1) => panic!("as it should"),
            Some(2) => Ok(Accept::init(async {
                tokio::task::yield_now().await;
                if true {
                    panic!("as it should");
                }
                Ok(Silent)
            })),
            _ => Ok(Accept::session(Silent)),
        },
    );
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        for target in ["a.example:1", "a.example:2"] {
            let error = client.udp_blocking(target).unwrap_err();
            assert_eq!(error.status().unwrap(), 500, "{carrier}");
            assert!(!format!("{error:?}").contains("should"), "{error:?}");
        }
        client.udp_blocking("a.example:3").unwrap();
    }
    assert_eq!(server.listener.stats().handler_panics, 6);
}

/// Ignores everything.
struct Silent;

impl Session for Silent {}

#[test]
fn handler_init_is_asynchronous_and_may_fail() {
    let server = Server::new(|request: &Request| {
        let port = request.target().unwrap().port;
        let init = async move {
            // The runtime has timers and I/O.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let dialled = tokio::net::TcpListener::bind("127.0.0.1:0").await;
            drop(dialled.map_err(|_| Reject::bad_gateway())?);
            match port {
                1 => Err(Reject::unavailable().reason("the database is away")),
                _ => Ok(Silent),
            }
        };
        Ok(Accept::init(init).header("x-made", HeaderValue::from_static("by init")))
    });
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        let error = client.tcp_blocking("a.example:1").unwrap_err();
        assert_eq!(error.status().unwrap(), 503, "{carrier}");
        assert!(
            error
                .proxy_status()
                .unwrap()
                .contains("the database is away")
        );
        client.tcp_blocking("a.example:2").unwrap();
        client.udp_blocking("a.example:2").unwrap();
    }
    let never = |_: &Request| {
        Ok(Accept::init(
            std::future::pending::<Result<Silent, Reject>>(),
        ))
    };
    let bounded = Listener::all(any_port()).open_timeout(Duration::from_secs(1));
    let bounded = Server::start(bounded.handler(never));
    let error = bounded.client(Carrier::H3).udp_blocking("a.example:1");
    let status = error.unwrap_err().status().unwrap();
    assert!(matches!(status.as_u16(), 503 | 504), "{status}");
}
