//! IP tunnels of servers that are the user's own, over the streams of hyper.

use std::net::IpAddr;
use std::sync::mpsc::channel;

use bauta::{
    Accept, Actions, AddressRange, AssignedAddress, Carrier, Chain, Embedding, IpEvent, IpProxy,
    IpProxyBuilder, IpTunnel, Request, Session,
};
use bytes::Bytes;
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::embedding::{client, hyper_server};
use crate::packets::{UDP, icmp, marked, packet, ping};
use crate::world::{PATIENCE, Server, any_port, until};

const CARRIERS: [Carrier; 2] = [Carrier::H2, Carrier::H1];
const WORLD: &str = "203.0.113.9";

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn proxy() -> IpProxyBuilder {
    IpProxy::builder()
        .pool(net("10.89.0.0/24"))
        .public_only(false)
}

/// The address of a tunnel that knows its routes too.
fn own_address(tunnel: &IpTunnel) -> IpAddr {
    let assigned = tunnel.assigned_blocking().unwrap();
    let routes = || (!tunnel.ip_info().unwrap().routes.is_empty()).then_some(());
    until("routes", routes);
    assigned[0].prefix.addr()
}

#[track_caller]
fn received(tunnel: &IpTunnel) -> Bytes {
    let packet = tunnel.recv_timeout_blocking(PATIENCE).unwrap();
    packet.expect("a packet in time")
}

#[test]
fn clients_of_an_ip_proxy_come_by_a_server_of_the_users() {
    let (give, left) = channel();
    let proxy = proxy()
        .forward(move |_, _, packet| drop(give.send(packet)))
        .build()
        .unwrap();
    let handle = proxy.handle();
    let address = hyper_server(proxy);
    for carrier in CARRIERS {
        let tunnel = client(address, carrier).ip_blocking("*").unwrap();
        assert_eq!(tunnel.info().carrier, Some(carrier));
        let own = own_address(&tunnel);
        assert!(handle.session_of(own).is_some(), "{carrier}");

        let out = marked(own, ip(WORLD), 1);
        tunnel.send_ip_packet_blocking(out.clone()).unwrap();
        assert_eq!(left.recv_timeout(PATIENCE), Ok(out), "{carrier}");
        // Of any size: it is a stream.
        for back in [
            marked(ip(WORLD), own, 2),
            packet(ip(WORLD), own, UDP, 9_000),
        ] {
            handle.inject(back.clone()).unwrap();
            assert_eq!(received(&tunnel), back, "{carrier}");
        }
        // What was not assigned may not be used.
        let spoofed = marked(ip("10.89.0.77"), ip(WORLD), 3);
        tunnel.send_ip_packet_blocking(spoofed).unwrap();
        assert_eq!(icmp(&received(&tunnel)), Some((3, 13)), "{carrier}");

        let id = tunnel
            .request_addresses_blocking(&[net("10.89.0.99/32")])
            .unwrap()[0];
        let answered = |list: &[AssignedAddress]| {
            let answer = AssignedAddress {
                request_id: id,
                prefix: net("10.89.0.99/32"),
            };
            list.contains(&answer)
        };
        let found = || {
            let event = tunnel.recv_ip_event_timeout_blocking(PATIENCE).unwrap();
            let event = event.expect("an answer in time");
            matches!(event, IpEvent::Assigned(list) if answered(&list)).then_some(())
        };
        until("an answer", found);
        tunnel.close_blocking();
        until("its end", || handle.session_of(own).is_none().then_some(()));
    }
}

/// Gives an address, and sends packets back.
struct Link;

impl Session for Link {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        let info = actions.ip_info().expect("an IP tunnel");
        assert_ne!(info.carrier, Carrier::H3);
        assert!(info.mtu > 60_000, "a stream carries any packet");
        let address = AssignedAddress::unprompted(net("192.0.2.7/32"));
        actions.assign_addresses(vec![address]).unwrap();
        actions
            .advertise_routes(vec![net("0.0.0.0/0").into()])
            .unwrap();
    }

    fn on_packet(&mut self, actions: &mut Actions<'_>, context: u64, payload: Bytes) {
        actions.send_on(context, payload).unwrap();
    }

    fn on_capsule(&mut self, actions: &mut Actions<'_>, kind: u64, value: Bytes) {
        actions.send_capsule(kind, &value).unwrap();
    }

    fn on_ip_event(&mut self, actions: &mut Actions<'_>, event: IpEvent) {
        let IpEvent::Routes(routes) = event else {
            panic!("{event:?}");
        };
        // Said back, for the client to see.
        actions.advertise_routes(routes).unwrap();
    }
}

#[test]
fn sessions_end_ip_tunnels_of_a_server_of_the_users() {
    let address = hyper_server(|_: &Request| Ok(Accept::session(Link)));
    for carrier in CARRIERS {
        let tunnel = client(address, carrier).ip_blocking("*").unwrap();
        assert_eq!(own_address(&tunnel), ip("192.0.2.7"));
        let there = marked(ip("192.0.2.7"), ip(WORLD), 1);
        // To whom it comes back it was not assigned: the session hears it, and the client does not.
        tunnel.send_ip_packet_blocking(there).unwrap();
        let both = ping(ip("192.0.2.7"), ip("192.0.2.7"));
        tunnel.send_ip_packet_blocking(both.clone()).unwrap();
        assert_eq!(received(&tunnel), both, "{carrier}");
        tunnel.send_capsule(0x2a2a, "tea").unwrap();
        assert_eq!(
            tunnel.recv_capsule_blocking().unwrap().value,
            "tea",
            "{carrier}"
        );
        let routes: Vec<AddressRange> = vec![net("10.7.0.0/16").into()];
        tunnel.advertise_routes_blocking(routes.clone()).unwrap();
        let told = || (tunnel.ip_info().unwrap().routes == routes).then_some(());
        until("routes", told);
        tunnel.close_blocking();
    }
}

#[test]
fn a_server_of_the_users_passes_ip_tunnels_on() {
    let (give, left) = channel();
    let proxy = proxy()
        .forward(move |_, _, packet| drop(give.send(packet)))
        .build()
        .unwrap();
    let handle = proxy.handle();
    let egress = Server::new(proxy);
    for next in Carrier::ALL {
        let chain = Chain::through(egress.builder().carriers([next]))
            .unwrap()
            .ip(true);
        let address = hyper_server(chain);
        for carrier in CARRIERS {
            let tunnel = client(address, carrier).ip_blocking("*").unwrap();
            let own = own_address(&tunnel);
            let out = marked(own, ip(WORLD), 1);
            tunnel.send_ip_packet_blocking(out.clone()).unwrap();
            assert_eq!(left.recv_timeout(PATIENCE), Ok(out), "{carrier} {next}");
            let back = marked(ip(WORLD), own, 2);
            handle.inject(back.clone()).unwrap();
            assert_eq!(received(&tunnel), back, "{carrier} {next}");
            if next == Carrier::H3 {
                // The path behind takes no such packet, and the client is told so.
                tunnel
                    .send_ip_packet_blocking(packet(own, ip(WORLD), UDP, 9_000))
                    .unwrap();
                assert_eq!(icmp(&received(&tunnel)), Some((3, 4)), "{carrier}");
            }
            let wish = [net("0.0.0.0/32")];
            let ids = tunnel.request_addresses_blocking(&wish).unwrap();
            let answered = || {
                let assigned = tunnel.ip_info().unwrap().assigned;
                assigned
                    .iter()
                    .any(|it| it.request_id == ids[0])
                    .then_some(())
            };
            until("an answer", answered);
        }
    }
}

/// An upgrade of HTTP/1.1 to an IP tunnel.
fn upgrade(path: &str) -> http::Request<()> {
    http::Request::get(path)
        .header("host", "relay.example")
        .header("connection", "upgrade")
        .header("upgrade", "connect-ip")
        .header("capsule-protocol", "?1")
        .body(())
        .unwrap()
}

#[tokio::test]
async fn capsules_that_break_the_rules_break_the_stream() {
    let embedding = Embedding::builder(proxy().build().unwrap())
        .ip_template("/ip{?target,ipproto}")
        .start()
        .unwrap();
    let well_known = upgrade("/.well-known/masque/ip/*/*/");
    assert!(Embedding::is_tunnel(&well_known));
    for request in [well_known, upgrade("/ip?target=*&ipproto=*")] {
        let mut tunnel = embedding.accept(&request, any_port()).await.unwrap();
        assert_eq!(tunnel.response().status(), 101);
        assert_eq!(tunnel.response().headers()["upgrade"], "connect-ip");
        // ADDRESS_ASSIGN comes first, unprompted.
        assert_eq!(tunnel.read_u8().await.unwrap(), 1);
        // ADDRESS_REQUEST without an entry.
        let error = tunnel.write_all(&[2, 0]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    }
    // An address that the other end does not hold cannot be asked for twice under one id, which only the worker knows.
    let request = upgrade("/.well-known/masque/ip/*/*/");
    let mut tunnel = embedding.accept(&request, any_port()).await.unwrap();
    let ask = [2, 7, 9, 4, 0, 0, 0, 0, 32];
    tunnel.write_all(&[ask, ask].concat()).await.unwrap();
    let mut rest = Vec::new();
    tunnel.read_to_end(&mut rest).await.unwrap_err();
    let malformed = upgrade("/.well-known/masque/ip/10.0.0.1%2F99/*/");
    let refused = embedding.accept(&malformed, any_port()).await;
    assert_eq!(
        refused.err().map(|response| response.status().as_u16()),
        Some(400)
    );
}
