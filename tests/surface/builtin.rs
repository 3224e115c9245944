//! The built-in handlers and their options.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bauta::{
    Carrier, Chain, ErrorKind, Family, Handler, Proxies, SocketOptions, Target, TcpProxy, Trust,
    UdpProxy,
};

use crate::world::{PATIENCE, Server, any_port, echo, exchange, now, payload, tcp_echo, udp_echo};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The status and the error of Proxy-Status with which a UDP tunnel is refused.
#[track_caller]
fn refused(server: &Server, carrier: Carrier, target: &str) -> (u16, String) {
    let error = server.client(carrier).udp_blocking(target).unwrap_err();
    let status = error.status().unwrap_or_else(|| panic!("{error:?}"));
    (status.as_u16(), error.proxy_status().unwrap_or_default())
}

#[test]
fn udp_handler_serves_udp_alone() {
    let server = Server::new(UdpProxy::new().public_only(false));
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        echo(&client.udp_blocking(udp_echo()).unwrap(), "hello");
        let error = client.tcp_blocking(tcp_echo()).unwrap_err();
        assert_eq!(error.status().unwrap(), 501, "{carrier}");
    }
}

#[test]
fn tcp_handler_serves_tcp_alone() {
    let server = Server::new(TcpProxy::new().public_only(false));
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        exchange(&client.tcp_blocking(tcp_echo()).unwrap(), b"hello");
        let error = client.udp_blocking(udp_echo()).unwrap_err();
        assert_eq!(error.status().unwrap(), 501, "{carrier}");
    }
}

#[test]
fn built_in_rules_and_public_addresses() {
    let target = udp_echo();
    let closed = Server::new(Proxies::new());
    let open = Proxies::new().allow_rule("127.0.0.0/8").unwrap();
    let denies = Server::new(open.clone().deny_rule("127.0.0.1").unwrap());
    let open = Server::new(open);
    for carrier in Carrier::ALL {
        let (status, reason) = refused(&closed, carrier, &target.to_string());
        assert_eq!(status, 403, "{carrier}");
        assert!(reason.contains("destination_ip_prohibited"), "{reason}");
        assert_eq!(refused(&denies, carrier, &target.to_string()).0, 403);
        echo(&open.client(carrier).udp_blocking(target).unwrap(), "hello");
        // No tunnel leads to the relay itself.
        let own = open.address().to_string();
        assert_eq!(refused(&open, carrier, &own).0, 508, "{carrier}");
    }
    for wrong in ["127.0.0.0/40", "", "a b"] {
        let error = UdpProxy::new().allow_rule(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong:?}");
        let error = TcpProxy::new().deny_rule(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong:?}");
    }
}

#[test]
fn built_in_allow_now_and_later() {
    let target = udp_echo();
    let port = target.port();
    let proxy = || UdpProxy::new().public_only(false);
    let later = move |target: Target| async move {
        tokio::task::yield_now().await;
        target.port == port
    };
    for proxy in [
        proxy().allow(move |target| target.port == port),
        proxy().allow_async(later),
    ] {
        let server = Server::new(proxy);
        for carrier in Carrier::ALL {
            let (status, reason) = refused(&server, carrier, "127.0.0.1:9");
            assert_eq!(status, 403);
            assert!(reason.contains("not allowed"), "{reason}");
            echo(
                &server.client(carrier).udp_blocking(target).unwrap(),
                "hello",
            );
        }
    }
}

/// A table of names.
fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    match name {
        "here.example" => Ok(vec![HERE]),
        "private.example" => Ok(vec!["10.0.0.1".parse().unwrap()]),
        "nowhere.example" => Ok(Vec::new()),
        "slow.example" => Err(io::ErrorKind::TimedOut.into()),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

#[test]
fn built_in_resolver_now_and_later() {
    let (udp_target, tcp_target) = (udp_echo(), tcp_echo());
    let proxies = || Proxies::new().allow_rule("127.0.0.0/8").unwrap();
    let later = |name: String| async move {
        tokio::task::yield_now().await;
        resolve(&name)
    };
    for proxies in [proxies().resolver(resolve), proxies().resolver_async(later)] {
        let server = Server::new(proxies);
        for carrier in Carrier::ALL {
            let client = server.client(carrier);
            let udp = client.udp_blocking(("here.example", udp_target.port()));
            echo(&udp.unwrap(), "hello");
            let tcp = client.tcp_blocking(("here.example", tcp_target.port()));
            exchange(&tcp.unwrap(), b"hello");
            // Rules are judged on what the resolver says.
            assert_eq!(refused(&server, carrier, "private.example:9").0, 403);
            assert_eq!(refused(&server, carrier, "nowhere.example:9").0, 502);
            assert_eq!(refused(&server, carrier, "other.example:9").0, 502);
            assert_eq!(refused(&server, carrier, "slow.example:9").0, 504);
        }
    }
}

#[test]
fn built_in_family() {
    let (udp_target, tcp_target) = (udp_echo(), tcp_echo());
    let proxies = |family| Proxies::new().public_only(false).family(family);
    for carrier in Carrier::ALL {
        for family in [Family::Any, Family::V4] {
            let client = Server::new(proxies(family));
            let client = (client.client(carrier), client);
            echo(&client.0.udp_blocking(udp_target).unwrap(), "hello");
            exchange(&client.0.tcp_blocking(tcp_target).unwrap(), b"hello");
        }
        let server = Server::new(proxies(Family::V6));
        let target = udp_target.to_string();
        assert_eq!(refused(&server, carrier, &target).0, 502, "{carrier}");
    }
}

#[test]
fn built_in_connect_timeout() {
    let never = |_: String| std::future::pending::<io::Result<Vec<IpAddr>>>();
    let proxies = Proxies::new().resolver_async(never);
    let server = Server::new(proxies.connect_timeout(Duration::from_millis(100)));
    for carrier in Carrier::ALL {
        let started = now();
        let (status, _) = refused(&server, carrier, "name.example:9");
        assert!(matches!(status, 503 | 504), "{carrier} {status}");
        // The listener alone would wait for ten seconds.
        assert!(now() - started < Duration::from_secs(8), "{carrier}");
    }
}

#[test]
fn chain_handler_upstream_uri_and_options() {
    let (udp_target, tcp_target) = (udp_echo(), tcp_echo());
    let guarded = move |request: &bauta::Request| {
        if request
            .headers()
            .get("x-key")
            .is_none_or(|key| key != "sesame")
        {
            return Err(bauta::Reject::forbidden());
        }
        Proxies::new().public_only(false).accept(request)
    };
    let exit = Server::new(guarded);
    for carrier in Carrier::ALL {
        let upstream = exit.builder().carriers([carrier]).header("x-key", "sesame");
        let chain = Chain::through(upstream).unwrap();
        let chain = chain.allow(move |target| target.port != 9);
        let entry = Server::new(chain);
        let client = entry.client(Carrier::H3);
        echo(&client.udp_blocking(udp_target).unwrap(), "hello");
        exchange(&client.tcp_blocking(tcp_target).unwrap(), b"hello");
        assert_eq!(refused(&entry, Carrier::H3, "127.0.0.1:9").0, 403);
        // What the upstream relay refuses is passed on.
        let unknown = Chain::through(exit.builder().carriers([carrier])).unwrap();
        let entry = Server::new(unknown);
        let (status, reason) = refused(&entry, Carrier::H2, &udp_target.to_string());
        assert!(matches!(status, 403 | 502), "{carrier}: {status} {reason}");
    }
    for wrong in ["http://relay.example", "relay", ""] {
        let error = Chain::new(wrong).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{wrong:?}");
    }
    drop(Chain::new("https://relay.example").unwrap());
}

#[test]
fn chain_handler_pool_shares_connections() {
    let target = udp_echo();
    for carrier in [Carrier::H3, Carrier::H2] {
        for (pooled, connections) in [(true, 1), (false, 3)] {
            let exit = Server::relay();
            let upstream = exit.builder().carriers([carrier]).pooled(pooled);
            let entry = Server::new(Chain::through(upstream).unwrap());
            let client = entry.client(Carrier::H2);
            let tunnels = [(); 3].map(|()| client.udp_blocking(target).unwrap());
            for tunnel in &tunnels {
                echo(tunnel, "hello");
            }
            let stats = exit.listener.stats();
            assert_eq!(stats.connections_opened, connections, "{carrier} {pooled}");
        }
    }
}

#[test]
fn chain_handler_upstream_timeout() {
    let hole = std::net::UdpSocket::bind(any_port()).unwrap();
    let upstream = bauta::Client::builder(format!("https://{}", hole.local_addr().unwrap()))
        .carriers([Carrier::H3])
        .trust(Trust::dangerous_anybody());
    let chain = Chain::through(upstream).unwrap();
    let entry = Server::new(chain.timeout(Duration::from_millis(100)));
    for carrier in Carrier::ALL {
        let started = now();
        let (status, _) = refused(&entry, carrier, "192.0.2.1:9");
        assert!(matches!(status, 502..=504), "{carrier} {status}");
        assert!(now() - started < PATIENCE);
    }
}

#[test]
fn built_in_socket_options() {
    // The target sees the address that the sockets have.
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
    let udp = std::net::UdpSocket::bind(any_port()).unwrap();
    let tcp = std::net::TcpListener::bind(any_port()).unwrap();
    udp.set_read_timeout(Some(PATIENCE)).unwrap();
    let options = || SocketOptions {
        local_address: Some(from),
        receive_buffer_bytes: Some(64 * 1024),
        send_buffer_bytes: Some(64 * 1024),
        ttl: Some(9),
        ..SocketOptions::default()
    };
    let proxies = Proxies::new().public_only(false);
    let server = Server::new(proxies.socket_options(options()));
    let v6 = SocketOptions {
        local_address: Some("::1".parse().unwrap()),
        ..options()
    };
    let proxies = Proxies::new().public_only(false);
    let unreachable = Server::new(proxies.socket_options(v6));
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        let tunnel = client.udp_blocking(udp.local_addr().unwrap()).unwrap();
        tunnel.send("hello").unwrap();
        let mut buffer = [0; 8];
        let (len, peer) = udp.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], peer.ip()), (&b"hello"[..], from));
        udp.send_to(b"back", peer).unwrap();
        assert_eq!(payload(&tunnel), "back");
        let tunnel = client.tcp_blocking(tcp.local_addr().unwrap()).unwrap();
        let (stream, peer) = tcp.accept().unwrap();
        assert_eq!(peer.ip(), from, "{carrier}");
        drop((tunnel, stream));
        let target = udp.local_addr().unwrap().to_string();
        let (status, _) = refused(&unreachable, carrier, &target);
        assert_eq!(status, 502, "{carrier}");
    }
}
