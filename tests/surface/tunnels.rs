//! What a client does with its tunnels.

use std::error::Error as _;
use std::io::{self, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use bauta::{
    Carrier, CloseReason, ErrorKind, Event, Events, Mode, Protocol, ShutdownError, Side, State,
    TcpForm, Trust, TunnelId,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};

use crate::sessions::{Order, Stage, Told};
use crate::world::{
    PATIENCE, Server, any_port, echo, exchange, now, pattern, payload, tcp_echo, udp_echo, until,
};

const FORMS: [TcpForm; 3] = [TcpForm::Capsules, TcpForm::Raw, TcpForm::Classic];

/// "Within five seconds", on a machine that does much else.
const CLOSED_WITHIN: Duration = Duration::from_secs(15);

#[test]
fn send_2_udp_payloads_arrive_and_are_limited() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (mut tunnel, _) = stage.udp(carrier);
        for text in ["one", "", "three"] {
            tunnel.send(text).unwrap();
            assert_eq!(stage.told(), Told::Packet(0, text.into()), "{carrier}");
        }
        smol::block_on(SinkExt::send(&mut tunnel, "sunk".into())).unwrap();
        assert_eq!(stage.told(), Told::Packet(0, "sunk".into()));

        let max = tunnel.info().datagram_size_max.unwrap();
        let longest = Bytes::from(pattern(0, max));
        tunnel.send(longest.clone()).unwrap();
        assert_eq!(stage.told(), Told::Packet(0, longest), "{carrier}: {max}");

        // The path may grow between asking and sending, but never beyond UDP.
        let error = tunnel.send(vec![0; 65_528]).unwrap_err();
        let told = (error.kind(), error.side(), error.is_retryable());
        assert_eq!(told, (ErrorKind::Limit, Side::Local, false));
        let text = error.source().unwrap().to_string();
        let now_max = tunnel.info().datagram_size_max.unwrap();
        assert!(text.contains("65528") && now_max >= max, "{text}");
        assert!(text.contains("at most "), "{text}");
        if carrier != Carrier::H3 {
            assert_eq!(max, 65_527);
            assert!(text.ends_with("at most 65527"), "{text}");
        }
        drop(tunnel);
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

#[test]
fn send_2_tcp_bytes_arrive_in_every_form() {
    let (relay, target) = (Server::relay(), tcp_echo());
    for carrier in Carrier::ALL {
        let client = relay.client(carrier);
        for form in FORMS {
            let tunnel = client
                .connect(target)
                .tcp_form(form)
                .tcp_blocking()
                .unwrap();
            exchange(&tunnel, b"hello");
            let sent = pattern(0, 100_000);
            thread::scope(|scope| {
                scope.spawn(|| (&tunnel).write_all(&sent).unwrap());
                let mut received = vec![0; sent.len()];
                (&tunnel).read_exact(&mut received).unwrap();
                assert!(received == sent, "{carrier} {form:?}");
            });
        }
    }
}

#[test]
fn send_3_contexts_are_kept_apart() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.udp(carrier);
        for context in [2, 64, 0, (1 << 62) - 1] {
            tunnel.send_with_context(context, "there").unwrap();
            assert_eq!(stage.told(), Told::Packet(context, "there".into()));
            handle.send_on(context, "back").unwrap();
            let received = tunnel.recv_timeout_blocking(PATIENCE).unwrap().unwrap();
            assert_eq!(
                (received.context, &*received.payload),
                (context, &b"back"[..])
            );
        }
        let error = tunnel.send_with_context(1 << 62, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        let text = error.source().unwrap().to_string();
        assert!(text.contains("context: 4611686018427387904"), "{text}");
        drop(tunnel);
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

#[test]
fn recv_2_waits_for_as_long_as_it_is_told() {
    let (relay, target) = (Server::relay(), udp_echo());
    for carrier in Carrier::ALL {
        let mut tunnel = relay.client(carrier).udp_blocking(target).unwrap();
        // Nothing is there yet.
        assert_eq!(tunnel.try_recv().unwrap(), None);
        let short = Duration::from_millis(1);
        assert_eq!(tunnel.recv_timeout_blocking(short).unwrap(), None);
        smol::block_on(async {
            assert_eq!(tunnel.recv_timeout(short).await.unwrap(), None);
            // Every way gives the same.
            tunnel.send("a").unwrap();
            assert_eq!(tunnel.recv().await.unwrap().payload, "a");
            tunnel.send("b").unwrap();
            let received = tunnel.recv_timeout(PATIENCE).await.unwrap();
            assert_eq!(received.unwrap().payload, "b");
            tunnel.send("c").unwrap();
            assert_eq!(tunnel.next().await.unwrap().unwrap().payload, "c");
        });
        echo(&tunnel, "d");
        tunnel.send("e").unwrap();
        assert_eq!(tunnel.recv_blocking().unwrap().payload, "e");
        tunnel.send("f").unwrap();
        let received = until("a datagram", || tunnel.try_recv().unwrap());
        assert_eq!(received.payload, "f");
        // Whoever waits while it closes is told.
        thread::scope(|scope| {
            let waiting = scope.spawn(|| tunnel.recv_blocking());
            tunnel.close_blocking();
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(
                (error.kind(), error.side()),
                (ErrorKind::Closed, Side::Local)
            );
        });
        assert!(smol::block_on(tunnel.next()).is_none());
    }
}

#[test]
fn recv_2_the_queue_drops_the_oldest_and_counts() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let builder = stage.server.builder().receive_queue(3);
        let client = builder.carriers([carrier]).build().unwrap();
        let tunnel = client.udp_blocking("dns.example:53").unwrap();
        let handle = stage.opened(Protocol::Udp);
        for number in 0..10_u8 {
            handle.send(vec![number]).unwrap();
        }
        until("ten datagrams", || {
            (tunnel.info().datagrams_received == 10).then_some(())
        });
        assert_eq!(tunnel.info().receive_dropped, 7);
        for number in 7..10 {
            assert_eq!(payload(&tunnel), vec![number]);
        }
        assert_eq!(tunnel.try_recv().unwrap(), None);
        drop(tunnel);
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

/// The next event of any tunnel.
#[track_caller]
fn next(events: &Events) -> (TunnelId, Event) {
    let event = events.recv_timeout_blocking(PATIENCE);
    event.expect("an event in time")
}

#[test]
fn set_mode_switches_and_loses_nothing() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.udp(carrier);
        let events = Events::new();
        for text in ["one", "two", "three", "four"] {
            handle.send(text).unwrap();
        }
        until("four datagrams", || {
            (tunnel.info().datagrams_received == 4).then_some(())
        });
        // What was queued for pulling is told, and what was queued for telling is pulled.
        assert_eq!(payload(&tunnel), "one");
        tunnel.set_mode(Mode::Events(events.clone()));
        assert!(matches!(next(&events), (id, Event::Opened) if id == tunnel.id()));
        assert!(matches!(next(&events), (_, Event::Datagram(it)) if it.payload == "two"));
        tunnel.set_mode(Mode::Pull);
        assert!(events.try_recv().is_none());
        assert_eq!(payload(&tunnel), "three");
        tunnel.set_mode(Mode::Events(events.clone()));
        assert!(matches!(next(&events), (_, Event::Datagram(it)) if it.payload == "four"));
        // Without anybody to tell, a tunnel is pulled again.
        drop(events);
        handle.send("five").unwrap();
        assert_eq!(payload(&tunnel), "five");
        drop(tunnel);
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

#[test]
fn set_mode_in_the_middle_of_a_stream() {
    let (relay, target) = (Server::relay(), tcp_echo());
    for carrier in Carrier::ALL {
        let tunnel = relay.client(carrier).tcp_blocking(target).unwrap();
        let (events, sent) = (Events::new(), pattern(0, 600_000));
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
        assert!(received == sent, "{carrier}");
    }
}

#[test]
fn send_capsule_travels_both_ways() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (udp, handle) = stage.udp(carrier);
        udp.send_capsule(0x29, "there").unwrap();
        assert_eq!(stage.told(), Told::Capsule(0x29, "there".into()));
        handle.send_capsule(0x2029, "back").unwrap();
        let capsule = udp.recv_capsule_blocking().unwrap();
        assert_eq!((capsule.kind, &*capsule.value), (0x2029, &b"back"[..]));
        assert_eq!(udp.try_recv_capsule().unwrap(), None);
        // The datagrams' own type, and what is too long for one.
        let error = udp.send_capsule(0, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let error = udp.send_capsule(0x29, vec![0; 16_385]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        let text = error.source().unwrap().to_string();
        assert!(text.contains("16385, at most 16384"), "{text}");
        let largest = Bytes::from(pattern(0, 16_384));
        udp.send_capsule(0x29, largest.clone()).unwrap();
        assert_eq!(stage.told(), Told::Capsule(0x29, largest));
        drop(udp);
        assert!(matches!(stage.told(), Told::Close(_)));

        // Capsules keep their place between the bytes.
        let (tcp, handle) = stage.tcp(carrier);
        (&tcp).write_all(b"before").unwrap();
        assert_eq!(stage.told(), Told::Data("before".into()));
        tcp.send_capsule(0x29, "between").unwrap();
        assert_eq!(stage.told(), Told::Capsule(0x29, "between".into()));
        (&tcp).write_all(b"behind").unwrap();
        assert_eq!(stage.told(), Told::Data("behind".into()));
        handle.send_capsule(0x2029, "back").unwrap();
        let capsule = tcp.recv_capsule_blocking().unwrap();
        assert_eq!(capsule.value, "back");
        handle.close();
        drop(tcp);
        while !matches!(stage.told(), Told::Close(_)) {}

        for form in [TcpForm::Raw, TcpForm::Classic] {
            let client = stage.server.client(carrier);
            let raw = client.connect("web.example:80").tcp_form(form);
            let raw = raw.tcp_blocking().unwrap();
            let error = raw.send_capsule(0x29, "").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            stage.opened(Protocol::Tcp).close();
            drop(raw);
            while !matches!(stage.told(), Told::Close(_)) {}
        }
    }
}

#[test]
fn shutdown_write_ends_one_direction() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        for form in FORMS {
            let client = stage.server.client(carrier);
            let connect = client.connect("web.example:80").tcp_form(form);
            let tunnel = connect.tcp_blocking().unwrap();
            let handle = stage.opened(Protocol::Tcp);
            (&tunnel).write_all(b"question").unwrap();
            tunnel.shutdown_write().unwrap();
            assert_eq!(tunnel.shutdown_write(), Err(ShutdownError::AlreadyShut));
            let error = (&tunnel).write(b"more").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(stage.told_bytes(8), b"question");
            assert_eq!(stage.told(), Told::Eof, "{carrier} {form:?}");
            // On HTTP/1.1 close_notify ends the whole connection in the eyes of some; not in ours.
            handle.finish("answer").unwrap();
            let mut answer = Vec::new();
            (&tunnel).read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"answer", "{carrier} {form:?}");
            assert!(matches!(tunnel.closed_blocking(), CloseReason::Finished));
            assert_eq!(tunnel.shutdown_write(), Err(ShutdownError::AlreadyShut));
            assert!(matches!(stage.told(), Told::Close("finished")));
        }
    }
    // One that cannot open, since nobody answers its request.
    let silent = TcpListener::bind(any_port()).unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let client = bauta::Client::builder(url).carriers([Carrier::H1]);
    let client = client.trust(Trust::dangerous_anybody()).build().unwrap();
    let early = client.connect("web.example:80").start_tcp().unwrap();
    assert_eq!(early.shutdown_write(), Err(ShutdownError::NotReady));
    early.close_blocking();
    assert_eq!(early.shutdown_write(), Err(ShutdownError::Closing));
}

#[test]
fn close_is_orderly_and_final() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (udp, handle) = stage.udp(carrier);
        handle.send("last").unwrap();
        until("a datagram", || {
            (udp.info().datagrams_received == 1).then_some(())
        });
        udp.send("before the end").unwrap();
        udp.close_blocking();
        udp.close_blocking();
        assert_eq!(
            stage.told(),
            Told::Packet(0, "before the end".into()),
            "{carrier}"
        );
        assert_eq!(stage.told(), Told::Close("finished"), "{carrier}");
        // What waits can still be received.
        assert_eq!(udp.try_recv().unwrap().unwrap().payload, "last");
        assert_eq!(udp.try_recv().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(udp.send("late").unwrap_err().kind(), ErrorKind::Closed);
        let error = udp.send_capsule(0x29, "late").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(udp.info().state, State::Closed);
        assert!(matches!(udp.closed_blocking(), CloseReason::Local));

        let (tcp, handle) = stage.tcp(carrier);
        (&tcp).write_all(b"before the end").unwrap();
        thread::scope(|scope| {
            let closing = scope.spawn(|| tcp.close_blocking());
            assert_eq!(stage.told_bytes(14), b"before the end");
            assert_eq!(stage.told(), Told::Eof, "{carrier}");
            handle.finish("").unwrap();
            closing.join().unwrap();
        });
        assert_eq!(stage.told(), Told::Close("finished"), "{carrier}");
        assert!(matches!(tcp.closed_blocking(), CloseReason::Local));
        let error = (&tcp).write(b"late").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }
}

#[test]
fn close_returns_within_five_seconds() {
    // A relay that says nothing at all, on each transport.
    let hole = UdpSocket::bind(any_port()).unwrap();
    let silent = TcpListener::bind(any_port()).unwrap();
    let (hole, silent_at) = (hole.local_addr().unwrap(), silent.local_addr().unwrap());
    let relays = [
        (Carrier::H3, hole),
        (Carrier::H2, silent_at),
        (Carrier::H1, silent_at),
    ];
    thread::scope(|scope| {
        for (carrier, address) in relays {
            scope.spawn(move || {
                let client = bauta::Client::builder(format!("https://{address}"))
                    .carriers([carrier])
                    .trust(Trust::dangerous_anybody())
                    .build()
                    .unwrap();
                let udp = client.connect("192.0.2.1:9").start_udp().unwrap();
                let tcp = client.connect("192.0.2.1:9").start_tcp().unwrap();
                let started = now();
                smol::block_on(udp.close());
                tcp.close_blocking();
                assert!(now() - started < CLOSED_WITHIN);
                assert!(matches!(tcp.closed_blocking(), CloseReason::Local));
                let error = udp.opened_blocking().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Closed);
            });
        }
        // A handler that never ends its direction: the tunnel is reset.
        scope.spawn(|| {
            let stage = Stage::new();
            let (tcp, _handle) = stage.tcp(Carrier::H2);
            let started = now();
            tcp.close_blocking();
            assert!(now() - started < CLOSED_WITHIN);
            assert_eq!(stage.told(), Told::Eof);
            assert_eq!(stage.told(), Told::Close("aborted"));
        });
    });
}

#[test]
fn info_tells_what_the_tunnel_is() {
    let (relay, udp_target, tcp_target) = (Server::relay(), udp_echo(), tcp_echo());
    for carrier in Carrier::ALL {
        let client = relay.client(carrier);
        let udp = client.udp_blocking(udp_target).unwrap();
        echo(&udp, "twelve bytes");
        let info = udp.info();
        assert_eq!((info.id, info.state), (udp.id(), State::Open));
        assert_eq!(
            (info.protocol, info.carrier),
            (Protocol::Udp, Some(carrier))
        );
        assert_eq!(info.target, Some(udp_target.into()));
        assert_eq!(info.peer, Some(relay.address()));
        assert_eq!(info.relays.len(), 1);
        assert!(info.relays[0].starts_with(&relay.url()), "{info:?}");
        assert_eq!((info.datagrams_sent, info.datagrams_received), (1, 1));
        assert_eq!((info.bytes_sent, info.bytes_received), (12, 12));
        assert_eq!((info.send_dropped, info.receive_dropped), (0, 0));
        assert!(info.datagram_size_max.is_some_and(|max| max >= 1_000));

        let tcp = client.tcp_blocking(tcp_target).unwrap();
        exchange(&tcp, b"twelve bytes");
        let info = tcp.info();
        assert_ne!(info.id, udp.id());
        assert_eq!(
            (info.protocol, info.carrier),
            (Protocol::Tcp, Some(carrier))
        );
        assert_eq!((info.bytes_sent, info.bytes_received), (12, 12));
        assert_eq!(
            (info.peer, info.datagram_size_max),
            (Some(relay.address()), None)
        );
        tcp.shutdown_write().unwrap();
        assert_eq!((&tcp).read(&mut [0; 8]).unwrap(), 0);
        assert!(matches!(tcp.closed_blocking(), CloseReason::Finished));
        assert_eq!(tcp.info().state, State::Closed);
    }
    let hole = UdpSocket::bind(any_port()).unwrap();
    let nowhere = bauta::Client::builder(format!("https://{}", hole.local_addr().unwrap()));
    let nowhere = nowhere.carriers([Carrier::H3]).build().unwrap();
    let tunnel = nowhere.connect("192.0.2.1:9").start_udp().unwrap();
    let info = tunnel.info();
    assert_eq!(
        (info.state, info.carrier, info.peer),
        (State::Opening, None, None)
    );
}

#[test]
fn version_is_that_of_the_package() {
    assert_eq!(bauta::version(), env!("CARGO_PKG_VERSION"));
    assert_eq!(bauta::VERSION, bauta::version());
}

#[test]
fn owner_messages_data_capsule_closed() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (client, events) = (stage.server.client(carrier), Events::new());
        let mode = || Mode::Events(events.clone());
        let udp = client.connect("dns.example:53").mode(mode());
        let udp = udp.start_udp().unwrap();
        let udp_handle = stage.opened(Protocol::Udp);
        assert!(matches!(next(&events), (id, Event::Opened) if id == udp.id()));
        let tcp = client.connect("web.example:80").mode(mode());
        let tcp = tcp.start_tcp().unwrap();
        let tcp_handle = stage.opened(Protocol::Tcp);
        assert!(matches!(next(&events), (id, Event::Opened) if id == tcp.id()));

        udp_handle.send_on(2, "datagram").unwrap();
        let (id, event) = next(&events);
        assert!(
            matches!(&event, Event::Datagram(it) if it.context == 2 && it.payload == "datagram"),
            "{event:?}"
        );
        assert_eq!(id, udp.id());
        udp_handle.send_capsule(0x29, "capsule").unwrap();
        let (id, event) = next(&events);
        assert!(
            matches!(&event, Event::Capsule(it) if it.kind == 0x29 && it.value == "capsule"),
            "{event:?}"
        );
        assert_eq!(id, udp.id());

        tcp_handle.send_data("bytes").unwrap();
        assert!(matches!(next(&events), (id, Event::Data(it)) if id == tcp.id() && it == "bytes"));
        assert_eq!(tcp.try_write(b"answer").unwrap(), 6);
        assert_eq!(stage.told_bytes(6), b"answer");
        tcp_handle.finish("").unwrap();
        assert!(matches!(next(&events), (id, Event::Eof) if id == tcp.id()));
        tcp.shutdown_write().unwrap();
        let (id, event) = next(&events);
        assert!(
            matches!(event, Event::Closed(CloseReason::Finished)),
            "{event:?}"
        );
        assert_eq!(id, tcp.id());

        udp_handle.close();
        let (id, event) = next(&events);
        assert!(
            matches!(event, Event::Closed(CloseReason::Finished)),
            "{event:?}"
        );
        assert_eq!(id, udp.id());
        assert!(events.try_recv().is_none());
        for _ in 0..3 {
            // Eof and both ends, in whatever order.
            assert!(matches!(stage.told(), Told::Eof | Told::Close(_)));
        }
    }
}

#[test]
fn monitoring_of_tunnels_and_of_their_owners() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        // The tunnel's end is told to whoever waits, with the reason.
        let (tunnel, handle) = stage.tcp(carrier);
        thread::scope(|scope| {
            let blocked = scope.spawn(|| tunnel.closed_blocking());
            let waiting = scope.spawn(|| smol::block_on(tunnel.closed()));
            handle.message(Order::CloseWith(0x10f)).unwrap();
            for reason in [blocked.join().unwrap(), waiting.join().unwrap()] {
                let CloseReason::Aborted(error) = reason else {
                    panic!("{carrier}: {reason}");
                };
                assert_eq!(error.kind(), ErrorKind::Aborted);
                if carrier != Carrier::H1 {
                    assert_eq!(error.code(), Some(0x10f), "{carrier}");
                }
            }
        });
        let error = (&tunnel).read(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(stage.told(), Told::Close("local"));

        // An owner that goes takes its tunnel along.
        let (tunnel, handle) = stage.udp(carrier);
        assert!(!handle.is_closed());
        drop(tunnel);
        assert_eq!(stage.told(), Told::Close("finished"), "{carrier}");
        assert!(handle.is_closed());
    }
}
