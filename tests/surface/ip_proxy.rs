//! The built-in handler of IP tunnels.

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bauta::{
    AssignedAddress, Carrier, Chain, Client, DnsConfig, DropReason, ErrorKind, Identity, IpEvent,
    IpProxy, IpProxyBuilder, IpProxyEvent, IpProxyHandle, IpSession, IpTunnel, Listener, Proxies,
    SendError,
};
use bytes::Bytes;
use ipnet::IpNet;

use crate::packets::{UDP, addresses, icmp, marked, packet, ping};
use crate::world::{PATIENCE, Server, any_port, echo, udp_echo, until};

const WORLD: &str = "203.0.113.9";

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A server with a proxy, what leaves it, and what happens in it.
struct Exit {
    server: Server,
    handle: IpProxyHandle,
    left: Receiver<(IpSession, Bytes)>,
    events: Receiver<IpProxyEvent>,
}

impl Exit {
    fn new(describe: impl FnOnce(IpProxyBuilder) -> IpProxyBuilder) -> Self {
        let (give, left): (Sender<(IpSession, Bytes)>, _) = channel();
        let (tell, events): (Sender<IpProxyEvent>, _) = channel();
        let builder = IpProxy::builder()
            .pool(net("10.89.0.0/24"))
            .pool(net("fd89::/64"))
            .public_only(false)
            .forward(move |_, session, packet| drop(give.send((session, packet))))
            .events(move |event| drop(tell.send(event.clone())));
        let proxy = describe(builder).build().unwrap();
        Self {
            handle: proxy.handle(),
            server: Server::new(proxy),
            left,
            events,
        }
    }

    #[track_caller]
    fn left(&self) -> (IpSession, Bytes) {
        self.left.recv_timeout(PATIENCE).expect("a packet in time")
    }

    #[track_caller]
    fn event(&self) -> IpProxyEvent {
        self.events
            .recv_timeout(PATIENCE)
            .expect("an event in time")
    }

    #[track_caller]
    fn open(&self, carrier: Carrier) -> (IpTunnel, IpAddr, IpAddr) {
        open(&self.server.client(carrier), "*")
    }
}

/// A tunnel that knows its addresses and its routes.
#[track_caller]
fn open(client: &Client, scope: &str) -> (IpTunnel, IpAddr, IpAddr) {
    let tunnel = client.ip_blocking(scope).unwrap();
    let assigned = tunnel.assigned_blocking().unwrap();
    let routes = || (!tunnel.ip_info().unwrap().routes.is_empty()).then_some(());
    until("routes", routes);
    let address = |is_v4: bool| {
        let mut own = assigned.iter().map(|it| it.prefix.addr());
        own.find(|address| address.is_ipv4() == is_v4).unwrap()
    };
    (tunnel, address(true), address(false))
}

#[track_caller]
fn received(tunnel: &IpTunnel) -> Bytes {
    let packet = tunnel.recv_timeout_blocking(PATIENCE).unwrap();
    packet.expect("a packet in time")
}

#[test]
fn exit_gives_addresses_and_moves_packets_both_ways() {
    let dns = DnsConfig::plain(&[ip("10.89.0.1")]);
    let pref64: ipnet::Ipv6Net = "64:ff9b::/96".parse().unwrap();
    let exit = Exit::new(|it| it.dns(dns.clone()).pref64(pref64));
    let gateways = exit.handle.gateway_addresses().to_vec();
    assert_eq!(gateways, [ip("10.89.0.1"), ip("fd89::1")]);
    for carrier in Carrier::ALL {
        let (tunnel, v4, v6) = exit.open(carrier);
        let session = exit.handle.session_of(v4).unwrap();
        for address in [v4, v6] {
            let prefix = address.into();
            let event = exit.event();
            assert_eq!(
                event,
                IpProxyEvent::Assigned { session, prefix },
                "{carrier}"
            );
            assert_eq!(exit.handle.session_of(address), Some(session));
        }
        let told = || {
            let info = tunnel.ip_info().unwrap();
            (info.dns == [dns.clone()] && info.pref64 == [pref64]).then_some(())
        };
        until("name servers", told);

        for (own, world) in [(v4, ip(WORLD)), (v6, ip("2001:db8::9")), (v4, gateways[0])] {
            tunnel.send_ip_packet_blocking(ping(own, world)).unwrap();
            assert_eq!(exit.left(), (session, ping(own, world)), "{carrier}");
            exit.handle.inject(ping(world, own)).unwrap();
            assert_eq!(received(&tunnel), ping(world, own), "{carrier}");
        }
        tunnel.close_blocking();
        for address in [v4, v6] {
            let prefix = address.into();
            assert_eq!(exit.event(), IpProxyEvent::Released { session, prefix });
            assert_eq!(exit.handle.session_of(address), None);
        }
        let error = exit.handle.inject(ping(ip(WORLD), v4)).unwrap_err();
        assert_eq!(error, SendError::Unassigned { destination: v4 });
    }
    let error = exit.handle.inject("no packet").unwrap_err();
    assert!(matches!(error, SendError::NotAPacket(_)));
    let stats = exit.handle.stats();
    assert_eq!((stats.packets_forwarded, stats.packets_injected), (9, 9));
    assert_eq!((stats.prefixes_given, stats.prefixes_assigned), (6, 0));
}

#[test]
fn exit_drops_what_may_not_pass_and_counts_it() {
    let exit = Exit::new(|it| it.deny_rule("198.51.100.0/24").unwrap());
    for (round, carrier) in (1..).zip(Carrier::ALL) {
        let client = exit.server.client(carrier);
        let tunnel = client.ip_blocking(WORLD).unwrap();
        // There is nothing in IPv6 to be reached.
        let assigned = tunnel.assigned_blocking().unwrap();
        let [AssignedAddress { prefix, .. }] = *assigned else {
            panic!("{carrier}: {assigned:?}");
        };
        let v4 = prefix.addr();
        let session = exit.handle.session_of(v4).unwrap();
        drop(exit.event());
        for (source, destination, reason) in [
            // Spoofed: somebody else's, and nobody's.
            (ip("10.89.0.200"), ip(WORLD), DropReason::Source),
            (ip("192.0.2.1"), ip(WORLD), DropReason::Source),
            // Out of the scope.
            (v4, ip("203.0.113.10"), DropReason::Destination),
        ] {
            tunnel
                .send_ip_packet_blocking(marked(source, destination, 1))
                .unwrap();
            assert_eq!(
                exit.event(),
                IpProxyEvent::Dropped { session, reason },
                "{carrier}"
            );
        }
        // The senders are told, also the ones that are none.
        let answers = [received(&tunnel), received(&tunnel), received(&tunnel)];
        let told = answers.map(|answer| (addresses(&answer).1, icmp(&answer).unwrap().0));
        assert_eq!(told[2], (v4, 3), "{carrier}: {told:?}");
        tunnel.close_blocking();
        drop(exit.event());

        let (tunnel, v4, _) = exit.open(carrier);
        let session = exit.handle.session_of(v4).unwrap();
        drop((exit.event(), exit.event()));
        for (destination, reason) in [
            ("198.51.100.1", DropReason::Prohibited),
            // Clients do not reach each other, and nobody is there.
            ("10.89.0.77", DropReason::Prohibited),
        ] {
            tunnel
                .send_ip_packet_blocking(marked(v4, ip(destination), 1))
                .unwrap();
            assert_eq!(
                exit.event(),
                IpProxyEvent::Dropped { session, reason },
                "{carrier}"
            );
        }
        assert_eq!(exit.handle.stats().dropped(DropReason::Source), 2 * round);
        assert_eq!(
            exit.handle.stats().dropped(DropReason::Prohibited),
            2 * round
        );
        tunnel.close_blocking();
        drop((exit.event(), exit.event()));
    }
    assert_eq!(exit.handle.stats().packets_forwarded, 0);
}

#[test]
fn exit_scope_of_one_protocol() {
    let exit = Exit::new(|it| it);
    for carrier in Carrier::ALL {
        let client = exit.server.client(carrier);
        let scope = bauta::Scope::from(ip(WORLD)).protocol(6);
        let tunnel = client.ip_blocking(scope).unwrap();
        let own = tunnel.assigned_blocking().unwrap()[0].prefix.addr();
        tunnel
            .send_ip_packet_blocking(marked(own, ip(WORLD), 1))
            .unwrap();
        let tcp = packet(own, ip(WORLD), 6, 40);
        tunnel.send_ip_packet_blocking(tcp.clone()).unwrap();
        assert_eq!(exit.left().1, tcp, "{carrier}");
        assert!(exit.handle.stats().dropped(DropReason::Protocol) > 0);
        // ICMP belongs to it.
        tunnel
            .send_ip_packet_blocking(ping(own, ip(WORLD)))
            .unwrap();
        assert_eq!(exit.left().1, ping(own, ip(WORLD)));
    }
}

#[test]
fn exit_packets_that_are_too_large_are_answered() {
    let exit = Exit::new(|it| it);
    let (tunnel, v4, _) = exit.open(Carrier::H3);
    let len = tunnel.ip_info().unwrap().mtu + 10_000;
    let large = packet(ip(WORLD), v4, UDP, len);
    exit.handle.inject(large).unwrap();
    let (_, answer) = exit.left();
    assert_eq!(icmp(&answer), Some((3, 4)), "fragmentation needed");
    assert_eq!(addresses(&answer).1, ip(WORLD));
}

#[test]
fn exit_reaches_clients_on_every_worker() {
    let proxy = IpProxy::builder()
        .pool(net("10.89.0.0/24"))
        .client_to_client(true)
        .build()
        .unwrap();
    let handle = proxy.handle();
    let (identity, ca_pem) = Identity::development(&["relay.example"]).unwrap();
    let builder = Listener::all(any_port()).identity(identity).workers(3);
    let listener = builder.handler(proxy).start().unwrap();
    let server = Server { listener, ca_pem };
    let open = |carrier: Carrier| {
        let tunnel = server.client(carrier).ip_blocking("*").unwrap();
        let own = tunnel.assigned_blocking().unwrap()[0].prefix.addr();
        (tunnel, own)
    };
    let tunnels: Vec<_> = Carrier::ALL.into_iter().cycle().take(9).map(open).collect();
    for (tunnel, own) in &tunnels {
        handle.inject(ping(ip(WORLD), *own)).unwrap();
        assert_eq!(received(tunnel), ping(ip(WORLD), *own));
    }
    // The kernel has spread them over the workers as it likes; they reach each other all the same.
    let (first, from) = &tunnels[0];
    for (tunnel, own) in &tunnels[1..] {
        first.send_ip_packet_blocking(ping(*from, *own)).unwrap();
        assert_eq!(addresses(&received(tunnel)), (*from, *own));
    }
}

#[test]
fn exit_without_a_hook_lets_nothing_leave() {
    let proxy = IpProxy::builder()
        .pool(net("10.89.0.0/24"))
        .public_only(false);
    let proxy = proxy.build().unwrap();
    let handle = proxy.handle();
    let server = Server::new(Proxies::new().public_only(false).ip(proxy));
    let target = udp_echo();
    for (round, carrier) in (1..).zip(Carrier::ALL) {
        let client = server.client(carrier);
        let tunnel = client.ip_blocking("*").unwrap();
        let own = tunnel.assigned_blocking().unwrap()[0].prefix.addr();
        tunnel
            .send_ip_packet_blocking(marked(own, ip(WORLD), 1))
            .unwrap();
        let dropped = || (handle.stats().dropped(DropReason::NoExit) == round).then_some(());
        until("the drop", dropped);
        // The other kinds go on beside it.
        echo(&client.udp_blocking(target).unwrap(), "hello");
    }
}

#[test]
fn pools_delegate_and_run_out() {
    let proxy = IpProxy::builder()
        .pool(net("fd89::/60"))
        .prefix_len_min(32, 64)
        .assignments_max(2)
        .unprompted(false)
        .build()
        .unwrap();
    let server = Server::new(proxy);
    for (carrier, host) in Carrier::ALL.into_iter().zip(7..) {
        let client = server.client(carrier);
        let tunnel = client.ip_blocking("*").unwrap();
        let wishes = [
            net("::/64"),
            // What another tunnel had rests.
            net(&format!("fd89:0:0:5::{host}/128")),
            net("::/64"),
            net("0.0.0.0/32"),
        ];
        let ids = tunnel.request_addresses_blocking(&wishes).unwrap();
        let answers = loop {
            if let IpEvent::Assigned(list) = tunnel.recv_ip_event_blocking().unwrap() {
                break list;
            }
        };
        let answer = |id| {
            let mut answers = answers.iter();
            *answers
                .find(|it: &&AssignedAddress| it.request_id == id)
                .unwrap()
        };
        let given = answer(ids[0]).prefix;
        assert!(
            net("fd89::/60").contains(&given) && given.prefix_len() == 64,
            "{given}"
        );
        assert_eq!(answer(ids[1]).prefix, wishes[1]);
        // The tunnel has its share, and there is no pool of IPv4.
        assert!(
            answer(ids[2]).is_refusal() && answer(ids[3]).is_refusal(),
            "{answers:?}"
        );
        assert_eq!(tunnel.ip_info().unwrap().assigned.len(), 2);
        tunnel.close_blocking();
    }
}

#[test]
fn pools_keep_addresses_for_who_has_a_name() {
    let name = |request: &bauta::Request| {
        let name = request.headers().get("x-name")?.to_str().ok()?;
        Some(name.to_owned())
    };
    let exit = Exit::new(|it| it.user(name).grace(Duration::from_secs(300)));
    for carrier in Carrier::ALL {
        let client = exit.server.client(carrier);
        let connect = |name: &str| {
            let tunnel = client.connect_ip("*").header("x-name", name).ip_blocking();
            tunnel.unwrap()
        };
        let first = connect(carrier.as_str());
        let own = first.assigned_blocking().unwrap();
        first.close_blocking();
        let kept = || (exit.handle.stats().prefixes_assigned == 0).then_some(());
        until("the end", kept);
        let other = connect("other");
        assert_ne!(other.assigned_blocking().unwrap(), own);
        let again = connect(carrier.as_str());
        assert_eq!(again.assigned_blocking().unwrap(), own, "{carrier}");
        for tunnel in [other, again] {
            tunnel.close_blocking();
        }
        until("the end", kept);
    }
}

#[test]
fn pools_that_cannot_be_are_named() {
    let wrong = |builder: IpProxyBuilder, part: &str| {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        let text = format!("{error:#}");
        assert!(text.contains(part), "{text}");
    };
    let pool = |text| IpProxy::builder().pool(net(text));
    wrong(IpProxy::builder(), "IpProxyBuilder::pool");
    wrong(pool("10.0.0.1/24"), "10.0.0.1/24");
    wrong(pool("10.0.0.0/31"), "too small");
    wrong(pool("10.0.0.0/8").pool(net("10.1.0.0/16")), "10.1.0.0/16");
    wrong(pool("10.0.0.0/8").prefix_len_min(33, 64), "33");
    wrong(
        pool("10.0.0.0/8").site(None, [net("10.9.0.1/16")]),
        "10.9.0.1/16",
    );
    wrong(
        pool("10.0.0.0/8").assignments_max(513),
        "assignments_max: 513 is not from 1 to 512",
    );
    wrong(
        pool("10.0.0.0/8").assignments_per_user_max(0),
        "per_user_max: 0",
    );
    // Whoever has such a site could send from the addresses of others.
    let site = |text| [net(text)];
    wrong(
        pool("10.89.0.0/24").site(Some("a"), site("10.0.0.0/8")),
        "site 10.0.0.0/8 overlaps 10.89.0.0/24",
    );
    let one = pool("10.89.0.0/24").site(Some("a"), site("10.1.0.0/16"));
    wrong(one.site(Some("b"), site("10.1.2.0/24")), "10.1.2.0/24");
    let one = pool("10.89.0.0/24").site(Some("a"), site("10.1.0.0/16"));
    assert!(one.site(Some("a"), site("10.1.2.0/24")).build().is_ok());
    let error = IpProxy::builder().allow_rule("a b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
}

#[test]
fn clients_and_sites_reach_each_other() {
    let name =
        |request: &bauta::Request| Some(request.headers().get("x-name")?.to_str().ok()?.to_owned());
    let exit = Exit::new(|it| {
        it.user(name)
            .site(Some("branch"), [net("10.1.0.0/16")])
            .client_to_client(true)
    });
    for carrier in Carrier::ALL {
        let client = exit.server.client(carrier);
        let branch = client.connect_ip("*").header("x-name", "branch");
        let branch = branch.ip_blocking().unwrap();
        branch.assigned_blocking().unwrap();
        drop((exit.event(), exit.event()));
        // What is not of its site is not believed.
        let routes = vec![net("10.1.2.0/24").into(), net("10.2.0.0/24").into()];
        branch.advertise_routes_blocking(routes).unwrap();
        let session = exit
            .handle
            .session_of(branch.assigned_blocking().unwrap()[0].prefix.addr());
        let session = session.unwrap();
        let prefixes = vec![net("10.1.2.0/24")];
        assert_eq!(exit.event(), IpProxyEvent::Routes { session, prefixes });
        assert_eq!(exit.handle.session_of(ip("10.1.2.3")), Some(session));
        assert_eq!(exit.handle.session_of(ip("10.2.0.3")), None);

        let (other, own, _) = open(&client, "*");
        other
            .send_ip_packet_blocking(marked(own, ip("10.1.2.3"), 7))
            .unwrap();
        let there = received(&branch);
        assert_eq!(addresses(&there), (own, ip("10.1.2.3")), "{carrier}");
        assert_eq!(there[8], 63, "a router was on the way");
        branch
            .send_ip_packet_blocking(marked(ip("10.1.2.3"), own, 8))
            .unwrap();
        assert_eq!(addresses(&received(&other)), (ip("10.1.2.3"), own));
        other.close_blocking();
        branch.close_blocking();
        for _ in 0..6 {
            drop(exit.event());
        }
        assert_eq!(exit.handle.stats().site_prefixes, 0);
    }
}

#[test]
fn scopes_may_name_the_pool_where_clients_reach_each_other() {
    for together in [true, false] {
        let builder = IpProxy::builder().pool(net("10.89.0.0/24"));
        let server = Server::new(builder.client_to_client(together).build().unwrap());
        for carrier in Carrier::ALL {
            let client = server.client(carrier);
            let tunnel = client.ip_blocking("10.89.0.0/24");
            assert_eq!(tunnel.is_ok(), together, "{carrier}");
            assert!(client.ip_blocking("10.89.0.1").is_ok(), "the proxy itself");
            assert!(client.ip_blocking("10.88.0.0/24").is_err());
        }
    }
}

#[test]
fn shares_are_of_users_and_not_of_tunnels() {
    let name =
        |request: &bauta::Request| Some(request.headers().get("x-name")?.to_str().ok()?.to_owned());
    let exit = Exit::new(|it| it.user(name).assignments_per_user_max(3));
    let client = exit.server.client(Carrier::H3);
    let assigned = |name: Option<&str>| {
        let connect = client.connect_ip("*");
        let connect = match name {
            Some(name) => connect.header("x-name", name),
            None => connect,
        };
        let tunnel = connect.ip_blocking().unwrap();
        let count = tunnel.assigned_blocking().unwrap().len();
        (tunnel, count)
    };
    let mut open = Vec::new();
    for name in [Some("alice"), Some("bob"), None] {
        let (first, second) = (assigned(name), assigned(name));
        assert_eq!((first.1, second.1), (2, 1), "{name:?}");
        let third = match name {
            Some(name) => client.connect_ip("*").header("x-name", name).ip_blocking(),
            None => client.ip_blocking("*"),
        };
        assert!(third.is_err(), "{name:?}");
        open.extend([first, second]);
    }
    assert_eq!(exit.handle.stats().prefixes_assigned, 9);
}

#[test]
fn one_proxy_serves_one_listener() {
    let proxy = || {
        let builder = IpProxy::builder().pool(net("10.89.0.0/24"));
        builder.build().unwrap()
    };
    let (first, second) = (proxy(), proxy());
    let both = (first.clone(), second);
    let either = move |request: &bauta::Request| {
        let (first, second) = &both;
        match request.headers().contains_key("x-second") {
            true => bauta::Handler::accept(second, request),
            false => bauta::Handler::accept(first, request),
        }
    };
    let server = Server::new(either);
    let elsewhere = Server::new(first);
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        client.ip_blocking("*").unwrap();
        let second = client.connect_ip("*").header("x-second", "1").ip_blocking();
        let at_another = elsewhere.client(carrier).ip_blocking("*");
        for error in [second.unwrap_err(), at_another.unwrap_err()] {
            assert_eq!(error.status().unwrap(), 500, "{carrier}");
            let reason = error.proxy_status().unwrap();
            assert!(reason.contains("one listener"), "{reason}");
        }
        // What is no IP tunnel is not its business.
        let error = client.udp_blocking("192.0.2.1:9").unwrap_err();
        assert_eq!(error.status().unwrap(), 501);
    }
}

#[test]
fn a_hook_that_panics_loses_a_packet_and_no_more() {
    let forward =
        |_: &IpProxyHandle, _: IpSession, packet: Bytes| assert!(packet[20] != 1, "as it should");
    let exit = Exit::new(|it| it.forward(forward));
    let (tunnel, own, _) = exit.open(Carrier::H3);
    for mark in [1, 2] {
        tunnel
            .send_ip_packet_blocking(marked(own, ip(WORLD), mark))
            .unwrap();
    }
    let both = || (exit.handle.stats().packets_forwarded == 2).then_some(());
    until("both packets", both);
    assert_eq!(exit.server.listener.stats().handler_panics, 1);
}

#[test]
fn chain_handler_passes_ip_where_it_shall() {
    let exit = Exit::new(|it| it);
    for carrier in Carrier::ALL {
        let through = || Chain::through(exit.server.builder().carriers([carrier])).unwrap();
        let closed = Server::new(through());
        let error = closed.client(Carrier::H3).ip_blocking("*").unwrap_err();
        assert_eq!(error.status().unwrap(), 501);
        let entry = Server::new(through().ip(true));
        let (tunnel, own, _) = open(&entry.client(Carrier::H2), "*");
        tunnel
            .send_ip_packet_blocking(ping(own, ip(WORLD)))
            .unwrap();
        let (session, left) = exit.left();
        assert_eq!(left, ping(own, ip(WORLD)), "{carrier}");
        assert_eq!(exit.handle.session_of(own), Some(session));
        exit.handle.inject(ping(ip(WORLD), own)).unwrap();
        assert_eq!(received(&tunnel), ping(ip(WORLD), own));
        // Requests have other ids on the way, and the answers the right ones.
        let ids = tunnel
            .request_addresses_blocking(&[net("0.0.0.0/32")])
            .unwrap();
        let answered = || {
            let info = tunnel.ip_info().unwrap();
            info.assigned
                .iter()
                .any(|it| it.request_id == ids[0])
                .then_some(())
        };
        until("the answer", answered);
    }
}
