//! A relay of the library whose packets leave by TUN: clients talk to the kernel, and the system is as before in the
//! end.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bauta::wire::ip::checksum::Sum;
use bauta::wire::ip::packet::{Packet, protocol};
use bauta::{
    Client, ErrorKind, Identity, IpProxy, IpProxyBuilder, IpProxyEvent, IpTunnel, Listener, Trust,
    TunExit,
};
use ipnet::IpNet;

use super::{INSIDE, ip};

/// Where the environment says that journals are kept.
pub(super) const STATE: &str = "BAUTA_STATE_DIR";
const PATIENCE: Duration = Duration::from_secs(10);
/// What forwarding is switched on by.
const FORWARDING: [&str; 2] = [
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
];

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn proxy() -> IpProxyBuilder {
    IpProxy::builder()
        .pool(net("10.89.0.0/24"))
        .pool(net("fd89::/64"))
        .public_only(false)
}

fn state() -> PathBuf {
    PathBuf::from(env::var_os(STATE).expect("a directory for journals"))
}

/// Whether nothing is left of an interface, of what it was made for, and of what was written down about it.
#[track_caller]
fn assert_undone(name: &str) {
    let link = Command::new("ip")
        .args(["link", "show", name])
        .output()
        .unwrap();
    assert!(!link.status.success(), "{link:?}");
    assert!(nft_table(name).is_none(), "rules of NAT are left");
    for setting in FORWARDING {
        assert_eq!(fs::read_to_string(setting).unwrap(), "0\n", "{setting}");
    }
    let journals: Vec<_> = fs::read_dir(state()).unwrap().collect();
    assert!(journals.is_empty(), "{journals:?}");
}

/// The rules of NAT of an interface.
fn nft_table(interface: &str) -> Option<String> {
    let table = format!("bauta_{interface}");
    let output = Command::new("nft")
        .args(["list", "table", "inet", &table])
        .output()
        .unwrap();
    let found = output.status.success();
    found.then(|| String::from_utf8(output.stdout).unwrap())
}

/// A UDP datagram as a packet.
fn datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len();
    let mut udp = Vec::new();
    udp.extend_from_slice(&source.port().to_be_bytes());
    udp.extend_from_slice(&destination.port().to_be_bytes());
    udp.extend_from_slice(&(len as u16).to_be_bytes());
    udp.extend_from_slice(&[0, 0]);
    udp.extend_from_slice(payload);
    let sum = Sum::pseudo_header(source.ip(), destination.ip(), protocol::UDP, len).bytes(&udp);
    udp[6..8].copy_from_slice(&sum.checksum().to_be_bytes());
    let mut packet = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol::UDP, 0, 0];
            header[2..4].copy_from_slice(&(20 + len as u16).to_be_bytes());
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            let sum = Sum::of(&header).checksum();
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol::UDP, 64];
            header[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            header.extend_from_slice(&source.octets());
            header.extend_from_slice(&destination.octets());
            header
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("one version"),
    };
    packet.extend_from_slice(&udp);
    packet
}

/// A tunnel that knows its addresses and its routes.
fn open(client: &Client) -> (IpTunnel, Vec<IpAddr>) {
    let tunnel = client.ip_blocking("*").unwrap();
    let assigned = tunnel.assigned_blocking().unwrap();
    while tunnel.ip_info().unwrap().routes.is_empty() {
        let event = tunnel.recv_ip_event_timeout_blocking(PATIENCE).unwrap();
        assert!(event.is_some(), "routes in time");
    }
    (tunnel, assigned.iter().map(|it| it.prefix.addr()).collect())
}

/// Has the kernel answer a client, over a socket at one of its own addresses.
fn talk(tunnel: &IpTunnel, own: IpAddr, server: &UdpSocket) {
    let source = SocketAddr::new(own, 4_711);
    let server_address = server.local_addr().unwrap();
    let packet = datagram(source, server_address, b"to the kernel");
    tunnel.send_ip_packet_blocking(packet).unwrap();
    let mut buffer = [0; 64];
    let (len, peer) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..len], peer), (&b"to the kernel"[..], source));
    server.send_to(b"from the kernel", peer).unwrap();
    // The kernel may have things of its own to say on the interface.
    let is_answer = |packet: &[u8]| packet.ends_with(b"from the kernel");
    let mut received = std::iter::repeat_with(|| {
        let received = tunnel.recv_timeout_blocking(PATIENCE).unwrap();
        received.expect("an answer in time")
    });
    let answer = received.find(|packet| is_answer(packet)).unwrap();
    let parsed = Packet::parse(&answer).unwrap();
    assert_eq!(
        (parsed.source, parsed.destination),
        (server_address.ip(), own)
    );
}

pub(super) fn clients_of_an_ip_proxy_talk_to_the_kernel() {
    let (tell, events) = std::sync::mpsc::channel();
    let proxy = proxy()
        .site(None, [net("10.77.0.0/16")])
        .tun(TunExit::new("bautaexit%d").forwarding(true).nat(true))
        .events(move |event: &IpProxyEvent| drop(tell.send(event.clone())))
        .build()
        .unwrap();
    let handle = proxy.handle();
    let name = handle.interface().unwrap().to_owned();
    assert!(name.starts_with("bautaexit"), "{name}");
    for setting in FORWARDING {
        assert_eq!(fs::read_to_string(setting).unwrap(), "1\n", "{setting}");
    }
    let rules = nft_table(&name).expect("rules of NAT");
    assert!(
        rules.contains("10.77.0.0/16") && rules.contains("10.89.0.0/24"),
        "{rules}"
    );
    assert_eq!(fs::read_dir(state()).unwrap().count(), 1, "a journal");
    let routes = Command::new("ip")
        .args(["route", "show", "dev", &name])
        .output()
        .unwrap();
    let routes = String::from_utf8(routes.stdout).unwrap();
    assert!(
        routes.contains("10.77.0.0/16") && routes.contains("10.89.0.0/24"),
        "{routes}"
    );

    // The world.
    ip("addr add 198.51.100.1/32 dev lo");
    ip("addr add 2001:db8::1/128 dev lo nodad");
    let (identity, ca_pem) = Identity::development(&[]).unwrap();
    let relay = Listener::all(([127, 0, 0, 1], 0))
        .workers(2)
        .identity(identity)
        .handler(proxy)
        .start()
        .unwrap();
    let url = format!("https://{}", relay.local_addr());
    let servers = ["198.51.100.1:0", "[2001:db8::1]:0"].map(|address| {
        let server = UdpSocket::bind(address).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server
    });
    // Until each worker has a client: the kernel spreads them.
    let (mut open_tunnels, mut workers) = (Vec::new(), BTreeSet::new());
    while workers.len() < 2 {
        assert!(open_tunnels.len() < 100, "one worker has all clients");
        let client = Client::builder(&url)
            .trust(Trust::pem(&ca_pem))
            .build()
            .unwrap();
        let (tunnel, own) = open(&client);
        let session = handle.session_of(own[0]).unwrap().to_string();
        workers.insert(session.split('/').next().unwrap().to_owned());
        open_tunnels.push((client, tunnel, own));
    }
    for (_, tunnel, own) in &open_tunnels {
        for (own, server) in own.iter().zip(&servers) {
            assert_eq!(own.is_ipv4(), server.local_addr().unwrap().is_ipv4());
            talk(tunnel, *own, server);
        }
    }
    let stats = handle.stats();
    assert_eq!(stats.packets_forwarded, 2 * open_tunnels.len() as u64);
    let assigned = events
        .try_iter()
        .filter(|it| matches!(it, IpProxyEvent::Assigned { .. }));
    assert_eq!(assigned.count(), 2 * open_tunnels.len());

    relay.stop_blocking();
    assert_undone(&name);
}

pub(super) fn a_proxy_that_never_served_leaves_nothing() {
    let tun = || TunExit::new("bautaidle").forwarding(true).nat(true);
    let first = proxy().tun(tun()).build().unwrap();
    let error = proxy().tun(tun()).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    // It holds what is the first's in nothing.
    assert!(nft_table("bautaidle").is_some());
    drop(first.clone());
    assert!(nft_table("bautaidle").is_some());
    drop(first);
    assert_undone("bautaidle");
}

pub(super) fn what_a_proxy_lacks_is_said() {
    let forwarding = proxy().tun(TunExit::new("bautalack")).build().unwrap_err();
    assert_eq!(forwarding.kind(), ErrorKind::Io);
    assert!(
        format!("{forwarding:#}").contains("ip_forward is 0"),
        "{forwarding:#}"
    );
    assert_undone("bautalack");
    let name = proxy().tun(TunExit::new("a/b")).build().unwrap_err();
    assert_eq!(name.kind(), ErrorKind::Configuration, "{name:#}");
    let both = proxy()
        .tun(TunExit::new("x"))
        .forward(|_, _, _| {})
        .build()
        .unwrap_err();
    assert_eq!(both.kind(), ErrorKind::Configuration, "{both:#}");

    let status = Command::new("setpriv")
        .args(["--bounding-set", "-net_admin", "--"])
        .arg(env::current_exe().unwrap())
        .env(INSIDE, UNPRIVILEGED)
        .status()
        .unwrap();
    assert!(status.success(), "{status}");
}

/// What [`INSIDE`] says to a process that lacks the privilege.
pub(super) const UNPRIVILEGED: &str = "unprivileged";

/// In such a process.
pub(super) fn without_privilege() {
    let error = proxy().tun(TunExit::new("bautalack")).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(format!("{error:#}").contains("CAP_NET_ADMIN"), "{error:#}");
}
