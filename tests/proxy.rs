//! `bauta proxy` with clients that write SOCKS 5 and HTTP by hand: names, addresses, datagrams, refusals, strangers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};

use support::network::Target;
use support::stream::{DeadTarget, EchoTarget, connect, exchange};
use support::{PATIENCE, Relay, Site, any_port, until};

const MIB: usize = 1024 * 1024;
/// Ways to speak with a relay that do not depend on each other.
const CARRIERS: [&str; 3] = ["h3", "h2", "h1"];
/// Targets on this machine, whatever the address family.
const LOOPBACK: &str = "[policy]\nallow = [\"127.0.0.0/8\", \"[::1/128]\"]\n";
/// The reply to a request for a tunnel, code and address left out.
const NOWHERE: [u8; 7] = [1, 0, 0, 0, 0, 0, 0];

/// An address as SOCKS writes it.
fn socks_ip(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address.ip() {
        IpAddr::V4(ip) => [&[1][..], &ip.octets()].concat(),
        IpAddr::V6(ip) => [&[4][..], &ip.octets()].concat(),
    };
    bytes.extend(address.port().to_be_bytes());
    bytes
}

/// A name and a port as SOCKS writes them.
fn socks_name(name: &str, port: u16) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [&[3, length], name.as_bytes(), &port.to_be_bytes()].concat()
}

fn read<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Asks for something and returns the connection with the code of the reply, of which the address is still to be read.
#[track_caller]
fn socks(proxy: SocketAddr, command: u8, address: &[u8]) -> (TcpStream, u8) {
    let mut stream = connect(proxy);
    stream.write_all(&[5, 2, 0, 2]).unwrap();
    assert_eq!(read(&mut stream), [5, 0]);
    stream.write_all(&[5, command, 0]).unwrap();
    stream.write_all(address).unwrap();
    let [version, code, reserved] = read(&mut stream);
    assert_eq!((version, reserved), (5, 0));
    (stream, code)
}

#[track_caller]
fn socks_connect(proxy: SocketAddr, address: &[u8]) -> TcpStream {
    let (mut stream, code) = socks(proxy, 1, address);
    assert_eq!(code, 0);
    assert_eq!(read(&mut stream), NOWHERE);
    stream
}

/// The code of a refusal, behind which the connection ends in order.
#[track_caller]
fn socks_refused(proxy: SocketAddr, command: u8, address: &[u8]) -> u8 {
    let (mut stream, code) = socks(proxy, command, address);
    assert_eq!(read(&mut stream), NOWHERE);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    code
}

/// Sends a request and reads the head of the answer, and not a byte more.
#[track_caller]
fn http(proxy: SocketAddr, request: &str) -> (TcpStream, String) {
    let mut stream = connect(proxy);
    stream.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend(read::<1>(&mut stream));
    }
    (stream, String::from_utf8(head).unwrap())
}

fn connect_request(target: impl std::fmt::Display) -> String {
    format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n")
}

/// An egress and the address of a proxy in front of it.
fn site_with_proxy(site: &Site, extra: &[&str]) -> (Relay, support::Forwarder) {
    let egress = site.relay("egress", LOOPBACK);
    let proxy = site.proxy(&[egress.url()], extra);
    (egress, proxy)
}

#[test]
fn socks_to_addresses_and_names() {
    let (site, target) = (Site::new(), EchoTarget::new());
    for carrier in CARRIERS {
        let (_egress, proxy) = site_with_proxy(&site, &["--carrier", carrier]);
        exchange(
            socks_connect(proxy.address, &socks_ip(target.address)),
            2 * MIB,
        );
        let name = socks_name("localhost", target.address.port());
        exchange(socks_connect(proxy.address, &name), 100_000);
        // An address that the client takes for a name.
        let name = socks_name("127.0.0.1", target.address.port());
        exchange(socks_connect(proxy.address, &name), 0);
    }
}

#[test]
fn socks_to_ipv6() {
    let any = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if UdpSocket::bind(any).is_err() {
        println!("there is no IPv6 on this machine");
        return;
    }
    let (site, target) = (Site::new(), EchoTarget::on(any));
    let (_egress, proxy) = site_with_proxy(&site, &[]);
    exchange(
        socks_connect(proxy.address, &socks_ip(target.address)),
        100_000,
    );
    let (stream, head) = http(proxy.address, &connect_request(target.address));
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    exchange(stream, 100_000);
}

#[test]
fn http_connect() {
    let (site, target) = (Site::new(), EchoTarget::new());
    for carrier in CARRIERS {
        let (_egress, proxy) = site_with_proxy(&site, &["--carrier", carrier]);
        let (stream, head) = http(proxy.address, &connect_request(target.address));
        assert_eq!(head, "HTTP/1.1 200 OK\r\n\r\n");
        exchange(stream, 2 * MIB);
        let name = format!("localhost:{}", target.address.port());
        let (stream, _) = http(proxy.address, &connect_request(name));
        exchange(stream, 100_000);
    }
}

#[test]
fn nested() {
    let (site, target) = (Site::new(), EchoTarget::new());
    for carrier in CARRIERS {
        let egress = site.relay("egress", LOOPBACK);
        let ingress = site.relay("ingress", LOOPBACK);
        let via = [ingress.url(), egress.url()];
        let proxy = site.proxy(&via, &["--carrier", carrier]);
        let name = socks_name("localhost", target.address.port());
        exchange(socks_connect(proxy.address, &name), MIB);
        assert_eq!(ingress.stop().assert_code(0).count("tunnels_opened"), 1);
        assert_eq!(egress.stop().assert_code(0).count("tunnels_opened"), 1);
    }
}

/// What is sent behind a request, before the answer, reaches the target.
#[test]
fn clients_that_do_not_wait() {
    let (site, target) = (Site::new(), EchoTarget::new());
    let (_egress, proxy) = site_with_proxy(&site, &[]);
    let hasty_socks = [&[5, 1, 0, 5, 1, 0], &*socks_ip(target.address), b"early"].concat();
    let hasty_http = format!("{}early", connect_request(target.address));
    let socks_reply = [&[5, 0, 5, 0, 0][..], &NOWHERE, b"early"].concat();
    let http_reply = b"HTTP/1.1 200 OK\r\n\r\nearly".to_vec();
    for (request, expected) in [
        (hasty_socks, socks_reply),
        (hasty_http.into_bytes(), http_reply),
    ] {
        let mut stream = connect(proxy.address);
        stream.write_all(&request).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).unwrap();
        assert_eq!(reply, expected);
    }
}

#[test]
fn refusals_say_why() {
    let (site, dead) = (Site::new(), DeadTarget::new());
    let (_egress, proxy) = site_with_proxy(&site, &[]);
    let proxy = proxy.address;
    let nowhere = socks_name("name.invalid", 80);
    let prohibited = socks_ip(SocketAddr::from(([10, 0, 0, 1], 80)));
    assert_eq!(socks_refused(proxy, 1, &socks_ip(dead.address)), 5);
    assert_eq!(socks_refused(proxy, 1, &prohibited), 2);
    assert_eq!(socks_refused(proxy, 1, &socks_name("a..b", 80)), 4);
    assert!([4, 6].contains(&socks_refused(proxy, 1, &nowhere)));
    assert_eq!(socks_refused(proxy, 2, &socks_ip(dead.address)), 7);
    assert_eq!(socks_refused(proxy, 1, &[9]), 8);

    let (mut stream, head) = http(proxy, &connect_request(dead.address));
    assert!(head.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{head}");
    assert!(head.contains("proxy-status: "), "{head}");
    assert!(head.contains("error=connection_refused"), "{head}");
    let mut body = String::new();
    stream.read_to_string(&mut body).unwrap();
    assert!(
        body.starts_with("tunnel refused by the relay: 502"),
        "{body}"
    );
    let (_, head) = http(proxy, &connect_request("10.0.0.1:80"));
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let (mut stream, head) = http(
        proxy,
        "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
    );
    assert!(head.starts_with("HTTP/1.1 405 "), "{head}");
    body.clear();
    stream.read_to_string(&mut body).unwrap();
    assert!(body.contains("SOCKS5"), "{body}");
}

#[test]
fn a_relay_that_is_not_there() {
    let (site, nobody) = (Site::new(), DeadTarget::new());
    let url = support::url(nobody.address);
    // The forwarder listens all the same.
    let mut proxy = site.proxy(&[url], &["--carrier", "h2"]);
    assert_eq!(
        socks_refused(proxy.address, 1, &socks_name("a.example", 80)),
        1
    );
    proxy
        .program
        .wait_for_text("no tunnel: the relay refused the connection");
    // 502, or 503 while it is not dialled again.
    let (_, head) = http(proxy.address, &connect_request("a.example:80"));
    assert!(head.starts_with("HTTP/1.1 50"), "{head}");
}

/// Whoever tries the port learns nothing from it, and costs nobody anything.
#[test]
fn strangers() {
    let (site, target) = (Site::new(), EchoTarget::new());
    let (egress, mut proxy) = site_with_proxy(&site, &[]);
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"\x04\x01\x00\x50",
        b"\0\0",
        b" GET",
    ] {
        let mut stream = connect(proxy.address);
        stream.write_all(bytes).unwrap();
        let mut said = Vec::new();
        // In order or not, the connection ends.
        drop(stream.read_to_end(&mut said));
        assert!(said.is_empty(), "{bytes:?}: {said:?}");
    }
    // Methods without one that is served.
    let mut stream = connect(proxy.address);
    stream.write_all(&[5, 1, 2]).unwrap();
    assert_eq!(read(&mut stream), [5, 0xff]);
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    // Some that say nothing, and leave or stay.
    drop(connect(proxy.address));
    let _silent = connect(proxy.address);
    exchange(
        socks_connect(proxy.address, &socks_ip(target.address)),
        1000,
    );
    assert!(!proxy.program.said("WARN"));
    assert_eq!(egress.stop().assert_code(0).count("requests"), 1);
}

/// A client that takes its time is cut off: its read ends without anything having been sent.
#[test]
fn slow_handshakes_end() {
    let (site, target) = (Site::new(), EchoTarget::new());
    let (_egress, proxy) = site_with_proxy(&site, &[]);
    let mut slow = connect(proxy.address);
    slow.write_all(&[5]).unwrap();
    let mut half = connect(proxy.address);
    half.write_all(b"CONNECT ").unwrap();
    for stream in [&mut slow, &mut half] {
        let ended = stream.read(&mut [0]);
        assert!(
            matches!(&ended, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset),
            "{ended:?}"
        );
    }
    exchange(
        socks_connect(proxy.address, &socks_ip(target.address)),
        1000,
    );
}

/// Asks for an association; the connection that keeps it, and a socket that is connected to it.
#[track_caller]
fn associate(proxy: SocketAddr) -> (TcpStream, UdpSocket) {
    let (mut control, code) = socks(proxy, 3, &socks_ip(([0, 0, 0, 0], 0).into()));
    assert_eq!(code, 0);
    let [kind, a, b, c, d, port @ ..] = read::<7>(&mut control);
    assert_eq!(kind, 1);
    let relay = SocketAddr::from(([a, b, c, d], u16::from_be_bytes(port)));
    let socket = UdpSocket::bind(any_port()).unwrap();
    socket.connect(relay).unwrap();
    let patience = std::time::Duration::from_millis(250);
    socket.set_read_timeout(Some(patience)).unwrap();
    (control, socket)
}

/// Sends a datagram until it comes back with the same header.
#[track_caller]
fn echo_datagram(socket: &UdpSocket, address: &[u8], payload: &[u8]) {
    let datagram = [&[0, 0, 0], address, payload].concat();
    until("an echo", || {
        socket.send(&datagram).unwrap();
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer).ok()?;
        (buffer[..length] == datagram).then_some(())
    });
}

#[test]
fn udp_associations() {
    let site = Site::new();
    for carrier in ["h3", "h2", "h1"] {
        let (first, second) = (Target::new(), Target::new());
        let (egress, proxy) = site_with_proxy(&site, &["--carrier", carrier]);
        let (mut control, socket) = associate(proxy.address);
        let name = socks_name("localhost", second.address.port());
        for size in [0, 1, 1200] {
            echo_datagram(&socket, &socks_ip(first.address), &vec![1; size]);
            echo_datagram(&socket, &name, &vec![2; size]);
        }
        // Fragments and datagrams without a header are nobody's.
        for broken in [
            &b""[..],
            b"\0\0",
            b"\0\0\x01\x01\x7f\0\0\x01\0\x50x",
            b"\0\0\0\x09",
        ] {
            socket.send(broken).unwrap();
        }
        // Somebody else's datagrams do not get in.
        let stranger = UdpSocket::bind(any_port()).unwrap();
        let datagram = [&[0, 0, 0], &*socks_ip(first.address), b"stranger"].concat();
        stranger
            .send_to(&datagram, socket.peer_addr().unwrap())
            .unwrap();
        echo_datagram(&socket, &socks_ip(first.address), b"after the stranger");

        // The association ends with its connection, and its tunnels with it.
        control.shutdown(Shutdown::Write).unwrap();
        control.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(control.read(&mut [0]).unwrap(), 0);
        assert_eq!(egress.stop().assert_code(0).count("tunnels_opened"), 2);
    }
}

/// More targets than an association has room for: the quiet ones make room, and come back when they are asked for.
#[test]
fn udp_to_many_targets() {
    const TARGETS_MAX: usize = 64;
    let (site, first) = (Site::new(), Target::new());
    let (egress, proxy) = site_with_proxy(&site, &[]);
    let (_control, socket) = associate(proxy.address);
    let first = socks_ip(first.address);
    echo_datagram(&socket, &first, b"first");
    let others: Vec<_> = (0..TARGETS_MAX)
        .map(|_| UdpSocket::bind(any_port()).unwrap())
        .collect();
    for other in &others {
        other.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = other.local_addr().unwrap();
        let datagram = [&[0, 0, 0], &*socks_ip(address), b"x"].concat();
        socket.send(&datagram).unwrap();
        assert_eq!(other.recv(&mut [0; 16]).unwrap(), 1);
    }
    echo_datagram(&socket, &first, b"first again");
    let opened = egress.stop().assert_code(0).count("tunnels_opened");
    assert_eq!(opened, TARGETS_MAX as u64 + 2);
}
