//! IP tunnels of clients, against sessions.

use std::error::Error as _;
use std::net::IpAddr;
use std::thread;
use std::time::Duration;

use bauta::{
    AddressRange, AssignedAddress, Carrier, CloseReason, DnsConfig, ErrorKind, Event, Events,
    IpEvent, IpRuleError, IpTunnel, Mode, Nameserver, PacketError, RequestedAddress, Scope,
    SendError, Side, State, TunnelHandle,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use ipnet::IpNet;

use crate::packets::{UDP, marked, packet};
use crate::sessions::{Order, Stage, Told};
use crate::world::{PATIENCE, Server, any_port, until};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A packet of the client's.
fn some(mark: u8) -> Bytes {
    marked(ip("10.0.0.1"), ip("10.0.0.2"), mark)
}

/// A packet for the client.
fn back(mark: u8) -> Bytes {
    marked(ip("10.0.0.2"), ip("10.0.0.1"), mark)
}

/// What the other end says next. When QUIC knows the path is not for these tests to say.
fn heard(tunnel: &IpTunnel) -> IpEvent {
    loop {
        let event = smol::block_on(tunnel.recv_ip_event_timeout(PATIENCE)).unwrap();
        match event.expect("an event in time") {
            IpEvent::Mtu(_) => {}
            event => break event,
        }
    }
}

/// Gives the client its address, and routes to everything.
fn connected(stage: &Stage, carrier: Carrier) -> (IpTunnel, TunnelHandle) {
    let (tunnel, handle) = stage.ip(carrier);
    let everything = vec![net("0.0.0.0/0").into(), net("::/0").into()];
    handle.advertise_routes(everything).unwrap();
    let own = AssignedAddress::unprompted(net("10.0.0.1/32"));
    handle.assign_addresses(vec![own]).unwrap();
    assert_eq!(tunnel.assigned_blocking().unwrap(), [own]);
    (tunnel, handle)
}

#[test]
fn connect_ip_scopes_arrive_as_they_are() {
    let handler = |request: &bauta::Request| {
        assert!(request.target().is_none());
        let scope = request.scope().unwrap().to_string();
        Err(bauta::Reject::forbidden().reason(scope))
    };
    let server = Server::new(handler);
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        let told = |error: bauta::Error| {
            assert_eq!(error.status().unwrap(), 403, "{carrier}: {error:#}");
            error.proxy_status().unwrap()
        };
        let prefix = net("2001:db8::/32");
        for (scope, text) in [
            (Scope::any(), "\"*\""),
            (prefix.into(), "\"2001:db8::/32\""),
            (ip("192.0.2.1").into(), "\"192.0.2.1\""),
            (Scope::name("Host.example").unwrap(), "\"host.example\""),
            (
                Scope::from(prefix).protocol(17),
                "\"2001:db8::/32 (protocol 17)\"",
            ),
        ] {
            let said = told(client.ip_blocking(scope).unwrap_err());
            assert!(said.contains(text), "{carrier}: {said}");
        }
        let said = told(smol::block_on(client.ip("10.0.0.0/8")).unwrap_err());
        assert!(said.contains("\"10.0.0.0/8\""), "{said}");
        for wrong in ["10.0.0.1/8", "", "a b", "10.0.0.0/40"] {
            let error = client.ip_blocking(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong:?}");
        }
        // What is for UDP and TCP is not for IP.
        let error = client.connect_ip("*").udp_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let error = client.connect("192.0.2.1:9").ip_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
    }
}

#[test]
fn connect_ip_options_are_those_of_all_tunnels() {
    let handler = |request: &bauta::Request| {
        let header = request.headers().get("x-key").unwrap();
        let reject = bauta::Reject::forbidden().header("x-back", header.clone());
        let path = request.path().unwrap().to_owned();
        Err(reject.reason(path))
    };
    let builder = bauta::Listener::all(any_port()).handler(handler);
    let server = Server::start(builder.ip_template("/vpn{?target,ipproto}"));
    for carrier in Carrier::ALL {
        let url = server.url();
        let client = server.builder().carriers([carrier]);
        let client = client.ip_template(format!("{url}/vpn{{?target,ipproto}}"));
        let client = client.build().unwrap();
        let tunnel = client.connect_ip("*").header("x-key", "sesame");
        let error = tunnel.timeout(PATIENCE).ip_blocking().unwrap_err();
        assert_eq!(error.headers().unwrap()["x-back"], "sesame", "{error:#}");
        let said = error.proxy_status().unwrap();
        assert!(said.contains("/vpn?target="), "{said}");
    }
    // Relays that have no such thing say so.
    let relay = Server::relay();
    for carrier in Carrier::ALL {
        let error = relay.client(carrier).ip_blocking("*").unwrap_err();
        assert_eq!(error.status().unwrap(), 501, "{error:#}");
    }
    let client = relay.builder().udp_template(format!(
        "{}/x/{{target_host}}/{{target_port}}/",
        relay.url()
    ));
    let wrong = client.ip_template("/relative").build().unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Configuration);
}

#[test]
fn send_ip_packet_arrives_and_is_limited() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (mut tunnel, _) = connected(&stage, carrier);
        tunnel.send_ip_packet_blocking(some(1)).unwrap();
        assert_eq!(stage.told(), Told::Packet(0, some(1)), "{carrier}");
        smol::block_on(tunnel.send_ip_packet(some(2))).unwrap();
        assert_eq!(stage.told(), Told::Packet(0, some(2)));
        assert!(tunnel.try_send_ip_packet(some(3)).unwrap());
        assert_eq!(stage.told(), Told::Packet(0, some(3)));
        smol::block_on(SinkExt::send(&mut tunnel, some(4))).unwrap();
        assert_eq!(stage.told(), Told::Packet(0, some(4)));
        // What follows a packet is none of it.
        let trailing = [&some(5)[..], b"rest"].concat();
        tunnel.send_ip_packet_blocking(trailing).unwrap();
        assert_eq!(stage.told(), Told::Packet(0, some(5)));

        let mtu = tunnel.ip_info().unwrap().mtu;
        assert!(mtu >= 1_280, "{carrier}: {mtu}");
        let sized = |len| packet(ip("10.0.0.1"), ip("10.0.0.2"), UDP, len);
        let size = 65_535;
        let error = tunnel.send_ip_packet_blocking(sized(size)).unwrap_err();
        let told = (error.kind(), error.side(), error.is_retryable());
        assert_eq!(told, (ErrorKind::Limit, Side::Local, false));
        let source = error.source().unwrap().downcast_ref::<SendError>();
        let Some(SendError::PacketTooLarge {
            size: told,
            mtu: max,
        }) = source
        else {
            panic!("{error:?}");
        };
        // The path may have grown meanwhile.
        assert!(*told == size && *max >= mtu, "{error:#}");
        assert!(carrier == Carrier::H3 || mtu == 65_527, "{carrier}: {mtu}");
        for len in [1_280, mtu] {
            tunnel.send_ip_packet_blocking(sized(len)).unwrap();
            assert_eq!(stage.told(), Told::Packet(0, sized(len)), "{carrier}");
        }

        for wrong in [&b""[..], b"hello", &[0x45; 19], &[0x60; 20]] {
            let error = tunnel.try_send_ip_packet(wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong:?}");
            let source = error.source().unwrap();
            assert!(source.downcast_ref::<PacketError>().is_some(), "{source}");
        }
        assert_eq!(tunnel.info().datagrams_sent, 7);
        tunnel.close_blocking();
        let error = tunnel.send_ip_packet_blocking(some(6)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

#[test]
fn recv_waits_for_as_long_as_it_is_told() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (mut tunnel, handle) = connected(&stage, carrier);
        assert_eq!(tunnel.try_recv().unwrap(), None);
        let short = Duration::from_millis(1);
        assert_eq!(tunnel.recv_timeout_blocking(short).unwrap(), None);
        smol::block_on(async {
            assert_eq!(tunnel.recv_timeout(short).await.unwrap(), None);
            handle.send(back(1)).unwrap();
            assert_eq!(tunnel.recv().await.unwrap(), back(1));
            handle.send(back(2)).unwrap();
            assert_eq!(tunnel.recv_timeout(PATIENCE).await.unwrap(), Some(back(2)));
            handle.send(back(3)).unwrap();
            assert_eq!(tunnel.next().await.unwrap().unwrap(), back(3));
        });
        handle.send(back(4)).unwrap();
        assert_eq!(tunnel.recv_blocking().unwrap(), back(4));
        handle.send(back(5)).unwrap();
        let received = tunnel.recv_timeout_blocking(PATIENCE).unwrap();
        assert_eq!(received, Some(back(5)));
        handle.send(back(6)).unwrap();
        assert_eq!(until("a packet", || tunnel.try_recv().unwrap()), back(6));
        // What is in no context, or no packet, does not get here.
        handle.send_on(2, "context").unwrap();
        let dropped = || (tunnel.info().receive_dropped == 1).then_some(());
        until("the drop of a context", dropped);
        handle.message(Order::Send("no packet".into())).unwrap();
        let told = stage.told();
        assert!(
            matches!(told, Told::Did(Err(SendError::NotAPacket(_)))),
            "{told:?}"
        );
        thread::scope(|scope| {
            let waiting = scope.spawn(|| tunnel.recv_blocking());
            tunnel.close_blocking();
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed);
        });
        assert!(smol::block_on(tunnel.next()).is_none());
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

#[test]
fn set_mode_reports_everything_in_one_place() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let events = Events::new();
        let next = || loop {
            let next = events.recv_timeout_blocking(PATIENCE);
            match next.expect("an event in time") {
                (_, Event::Ip(IpEvent::Mtu(_))) => {}
                next => break next,
            }
        };
        let client = stage.server.client(carrier);
        let connect = client.connect_ip("*").mode(Mode::Events(events.clone()));
        let tunnel = connect.start_ip().unwrap();
        let handle = stage.opened(bauta::Protocol::Ip);
        let (id, event) = next();
        assert!(
            id == tunnel.id() && matches!(event, Event::Opened),
            "{event:?}"
        );
        let routes = vec![AddressRange::from(net("10.0.0.0/8"))];
        handle.advertise_routes(routes.clone()).unwrap();
        let (_, event) = next();
        assert!(matches!(event, Event::Ip(IpEvent::Routes(list)) if list == routes));
        assert_eq!(tunnel.ip_info().unwrap().routes, routes);
        let assigned = vec![AssignedAddress::unprompted(net("10.0.0.1/32"))];
        handle.assign_addresses(assigned.clone()).unwrap();
        let (_, event) = next();
        assert!(matches!(event, Event::Ip(IpEvent::Assigned(list)) if list == assigned));
        handle.send(back(1)).unwrap();
        let (_, event) = next();
        assert!(matches!(event, Event::Packet(packet) if packet == back(1)));
        handle.request_addresses(&[net("0.0.0.0/32")]).unwrap();
        let (_, event) = next();
        assert!(matches!(event, Event::Ip(IpEvent::Requested(list)) if list.len() == 1));
        handle.send_capsule(0x1234, "else").unwrap();
        let (_, event) = next();
        assert!(matches!(event, Event::Capsule(capsule) if capsule.value == "else"));
        handle.close();
        let (_, event) = next();
        assert!(
            matches!(event, Event::Closed(CloseReason::Finished)),
            "{event:?}"
        );
        assert!(events.try_recv().is_none());
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

#[test]
fn addresses_are_requested_and_assigned_by_clients() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.ip(carrier);
        let wishes = [net("0.0.0.0/32"), net("fd00::/64")];
        let ids = tunnel.request_addresses_blocking(&wishes).unwrap();
        assert!(ids.len() == 2 && ids.iter().all(|id| *id != 0) && ids[0] != ids[1]);
        let Told::Ip(IpEvent::Requested(requests)) = stage.told() else {
            panic!("{carrier}: no request");
        };
        let expected: Vec<_> = (ids.iter().zip(wishes))
            .map(|(id, prefix)| RequestedAddress {
                request_id: *id,
                prefix,
            })
            .collect();
        assert_eq!(requests, expected);

        let answers = vec![
            requests[0].answer(net("10.0.0.7/32")),
            requests[1].refusal(),
        ];
        handle.message(Order::Assign(answers.clone())).unwrap();
        assert_eq!(stage.told(), Told::Did(Ok(())));
        assert_eq!(tunnel.assigned_blocking().unwrap(), answers[..1]);
        assert_eq!(heard(&tunnel), IpEvent::Assigned(answers.clone()));
        let short = Duration::from_millis(1);
        let more = smol::block_on(tunnel.recv_ip_event_timeout(short)).unwrap();
        assert!(matches!(more, None | Some(IpEvent::Mtu(_))), "{more:?}");
        let assigned = smol::block_on(tunnel.assigned_timeout(PATIENCE)).unwrap();
        assert_eq!(assigned, Some(answers[..1].to_vec()));
        let again = smol::block_on(tunnel.request_addresses(&wishes[..1])).unwrap();
        assert!(
            !ids.contains(&again[0]),
            "{carrier}: an id for the second time"
        );
        assert!(matches!(stage.told(), Told::Ip(IpEvent::Requested(_))));

        // Wrong ones.
        let rule = |error: bauta::Error| {
            assert_eq!(error.kind(), ErrorKind::Configuration, "{error:#}");
            error
                .source()
                .unwrap()
                .downcast_ref::<IpRuleError>()
                .unwrap()
                .to_string()
        };
        let text = rule(
            tunnel
                .request_addresses_blocking(&[net("10.0.0.1/8")])
                .unwrap_err(),
        );
        assert!(text.contains("10.0.0.1/8"), "{text}");
        rule(tunnel.request_addresses_blocking(&[]).unwrap_err());
        let unknown = AssignedAddress {
            request_id: 9,
            prefix: net("10.0.0.1/32"),
        };
        let text = rule(tunnel.assign_addresses_blocking(vec![unknown]).unwrap_err());
        assert!(text.contains("no request with id 9"), "{text}");
        let many = vec![net("0.0.0.0/32"); 65];
        let error = tunnel.request_addresses_blocking(&many).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert!(error.is_retryable());

        tunnel.close_blocking();
        let error = tunnel.request_addresses_blocking(&wishes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

#[test]
fn addresses_are_requested_and_assigned_by_sessions() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.ip(carrier);
        handle.message(Order::Request(vec![net("::/64")])).unwrap();
        let Told::Requested(Ok(ids)) = stage.told() else {
            panic!("{carrier}: no ids");
        };
        let IpEvent::Requested(requests) = heard(&tunnel) else {
            panic!("{carrier}: no request");
        };
        assert_eq!(requests[0].request_id, ids[0]);
        assert!(requests[0].is_any());
        assert_eq!(tunnel.ip_info().unwrap().requested, requests);
        let answer = vec![
            requests[0].answer(net("fd00:7::/64")),
            AssignedAddress::unprompted(net("10.0.0.2/32")),
        ];
        smol::block_on(tunnel.assign_addresses(answer.clone())).unwrap();
        assert_eq!(stage.told(), Told::Ip(IpEvent::Assigned(answer.clone())));
        let info = tunnel.ip_info().unwrap();
        assert_eq!(info.assigned_to_peer, answer);
        assert!(info.requested.is_empty());
        // The session breaks a rule too.
        let unknown = AssignedAddress {
            request_id: 9,
            prefix: net("10.0.0.1/32"),
        };
        handle.message(Order::Assign(vec![unknown])).unwrap();
        let told = stage.told();
        assert!(
            matches!(told, Told::Did(Err(SendError::Rule(_)))),
            "{told:?}"
        );
        drop(tunnel);
        assert!(matches!(stage.told(), Told::Close(_)));
    }
    // Addresses are for IP tunnels.
    let (_tunnel, handle) = stage.udp(Carrier::H3);
    handle.message(Order::Assign(Vec::new())).unwrap();
    assert_eq!(stage.told(), Told::Did(Err(SendError::Unsupported)));
}

#[test]
fn routes_are_sorted_and_may_not_overlap() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.ip(carrier);
        let range = |text: &str| AddressRange::from(net(text));
        let list = ["fd00::/64", "10.2.0.0/16", "10.1.0.0/16"]
            .map(range)
            .to_vec();
        let sorted = ["10.1.0.0/16", "10.2.0.0/16", "fd00::/64"]
            .map(range)
            .to_vec();
        tunnel.advertise_routes_blocking(list.clone()).unwrap();
        assert_eq!(stage.told(), Told::Ip(IpEvent::Routes(sorted.clone())));
        handle.message(Order::Advertise(list)).unwrap();
        assert_eq!(stage.told(), Told::Did(Ok(())));
        assert_eq!(heard(&tunnel), IpEvent::Routes(sorted.clone()));
        assert_eq!(tunnel.ip_info().unwrap().routes, sorted);

        for (first, second) in [
            (range("10.0.0.0/8"), range("10.1.0.0/16")),
            (range("10.0.0.0/8"), range("10.1.0.0/16").protocol(17)),
        ] {
            let error = tunnel
                .advertise_routes_blocking(vec![second, first])
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            let text = error.source().unwrap().to_string();
            let names =
                |range: AddressRange| text.contains(&format!("{} to {}", range.start, range.end));
            assert!(names(first) && names(second), "{text}");
        }
        let backwards = AddressRange::new(ip("10.0.0.2"), ip("10.0.0.1"));
        let error = tunnel
            .advertise_routes_blocking(vec![backwards])
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        drop(tunnel);
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

#[test]
fn names_are_told_both_ways() {
    let stage = Stage::new();
    let config = DnsConfig::plain(&[ip("10.0.0.53"), ip("fd00::53")]);
    let pref64 = vec!["64:ff9b::/96".parse().unwrap()];
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.ip(carrier);
        tunnel.assign_dns_blocking(vec![config.clone()]).unwrap();
        assert_eq!(stage.told(), Told::Ip(IpEvent::Dns(vec![config.clone()])));
        tunnel.assign_pref64_blocking(pref64.clone()).unwrap();
        assert_eq!(stage.told(), Told::Ip(IpEvent::Pref64(pref64.clone())));
        handle.message(Order::Dns(vec![config.clone()])).unwrap();
        assert_eq!(stage.told(), Told::Did(Ok(())));
        handle.message(Order::Pref64(pref64.clone())).unwrap();
        assert_eq!(stage.told(), Told::Did(Ok(())));
        for _ in 0..2 {
            heard(&tunnel);
        }
        let info = tunnel.ip_info().unwrap();
        assert_eq!(
            (info.dns, info.pref64),
            (vec![config.clone()], pref64.clone())
        );
        let wrong = vec!["64:ff9b::/90".parse().unwrap()];
        let error = tunnel.assign_pref64_blocking(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let nobody = DnsConfig {
            nameservers: vec![Nameserver::plain(&[])],
            ..config.clone()
        };
        let error = tunnel.assign_dns_blocking(vec![nobody]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        drop(tunnel);
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

#[test]
fn send_capsule_takes_what_the_tunnel_does_not_send_itself() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.ip(carrier);
        tunnel.send_capsule(0x1234, "there").unwrap();
        assert_eq!(
            stage.told(),
            Told::Capsule(0x1234, "there".into()),
            "{carrier}"
        );
        handle.send_capsule(0x1234, "back").unwrap();
        assert_eq!(tunnel.recv_capsule_blocking().unwrap().value, "back");
        for kind in [0, 1, 2, 3, 0x1ace_79ec, 0x274c_0fbc] {
            let error = tunnel.send_capsule(kind, "").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{kind:#x}");
            handle.message(Order::Capsule(kind, Bytes::new())).unwrap();
            assert_eq!(
                stage.told(),
                Told::Did(Err(SendError::Unsupported)),
                "{kind:#x}"
            );
        }
        drop(tunnel);
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

#[test]
fn ip_info_and_info() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let client = stage.server.client(carrier);
        let starting = client
            .connect_ip(Scope::any().protocol(17))
            .start_ip()
            .unwrap();
        starting.opened_blocking().unwrap();
        stage.opened(bauta::Protocol::Ip);
        let info = starting.info();
        assert_eq!(info.scope, Some(Scope::any().protocol(17)));
        assert_eq!((info.target, info.state), (None, State::Open));
        assert_eq!(info.protocol, bauta::Protocol::Ip);
        let ip_info = starting.ip_info().unwrap();
        assert_eq!(ip_info.carrier, carrier);
        assert_eq!(info.datagram_size_max, Some(ip_info.mtu));
        assert!(ip_info.assigned.is_empty() && ip_info.routes.is_empty());
        drop(starting);
        assert!(matches!(stage.told(), Told::Close(_)));
    }
}

#[test]
fn monitoring_says_who_brought_the_end() {
    let stage = Stage::new();
    for carrier in Carrier::ALL {
        let (tunnel, handle) = stage.ip(carrier);
        handle.close();
        assert!(matches!(tunnel.closed_blocking(), CloseReason::Finished));
        assert_eq!(stage.told(), Told::Close("local"));
        let error = tunnel.assigned_blocking().unwrap_err();
        assert_eq!(
            (error.kind(), error.side()),
            (ErrorKind::Closed, Side::Upstream)
        );

        let (tunnel, handle) = stage.ip(carrier);
        handle.close_with(0x10f);
        let reason = tunnel.closed_blocking();
        assert!(
            matches!(reason, CloseReason::Aborted(_)),
            "{carrier}: {reason:?}"
        );
        assert_eq!(stage.told(), Told::Close("local"));
        while let Ok(event) = tunnel.recv_ip_event_blocking() {
            assert!(matches!(event, IpEvent::Mtu(_)), "{event:?}");
        }

        let (tunnel, _) = stage.ip(carrier);
        let short = Duration::from_millis(1);
        assert!(tunnel.closed_timeout_blocking(short).is_none());
        assert_eq!(tunnel.recv_capsule_timeout_blocking(short).unwrap(), None);
        assert_eq!(tunnel.assigned_timeout_blocking(short).unwrap(), None);
        tunnel.close_blocking();
        assert!(matches!(tunnel.closed_blocking(), CloseReason::Local));
        let reason = smol::block_on(tunnel.closed_timeout(PATIENCE));
        assert!(matches!(reason, Some(CloseReason::Local)));
        assert!(smol::block_on(tunnel.recv_capsule_timeout(PATIENCE)).is_err());
        assert_eq!(stage.told(), Told::Close("finished"), "{carrier}");
    }
}
