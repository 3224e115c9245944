//! The TUN of the driver against the kernel: what comes out of one socket goes through the driver into another.
//!
//! ```text
//!   client ─► 10.9.0.2 ─► TUN ─► driver: swap the addresses ─► TUN ─► 10.9.0.1: server
//! ```
//!
//! And the library's IP proxy with an interface, in `proxy`.
//!
//! Needs root, `ip`, `unshare`, `setpriv` and `nft`, and says so with `BAUTA_PRIVILEGED=1`; then a lack of any of them
//! is a failure. Without, nothing is run, and nothing is reported as passed. Under `CI` the variable has to say which
//! of the two is meant, 1 or 0. Everything happens in a network namespace of its own.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "this file is its own test harness")]

#[path = "tun/proxy.rs"]
mod proxy;

use std::env;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bauta::net::tun::{Tun, TunOptions, TunQueue};
use bauta::net::{Driver, DriverConfig, Outgoing, Received, SocketId, Stats, clock};
use bauta::wire::ip::checksum::Sum;
use bauta::wire::ip::packet::{IpVersion, Packet, protocol};
use bytes::{Bytes, BytesMut};

/// Says whether this process has what it takes.
const PRIVILEGED: &str = "BAUTA_PRIVILEGED";
/// Set in the process that has a network namespace.
const INSIDE: &str = "BAUTA_TEST_NAMESPACE";

const TESTS: &[(&str, fn())] = &[
    ("tcp_in_super_packets", || tcp(true)),
    ("tcp_in_single_packets", || tcp(false)),
    ("udp_in_super_packets", || udp(true)),
    ("udp_in_single_packets", || udp(false)),
    ("flows_are_spread_over_queues", flows_are_spread_over_queues),
    ("turns_have_a_budget", turns_have_a_budget),
    ("an_interface_that_is_down", an_interface_that_is_down),
    ("an_interface_that_goes_away", an_interface_that_goes_away),
    ("what_the_kernel_refuses", what_the_kernel_refuses),
    ("nobody_else_opens_a_queue", nobody_else_opens_a_queue),
    (
        "clients_of_an_ip_proxy_talk_to_the_kernel",
        proxy::clients_of_an_ip_proxy_talk_to_the_kernel,
    ),
    (
        "a_proxy_that_never_served_leaves_nothing",
        proxy::a_proxy_that_never_served_leaves_nothing,
    ),
    (
        "what_a_proxy_lacks_is_said",
        proxy::what_a_proxy_lacks_is_said,
    ),
];

fn main() -> ExitCode {
    match env::var(PRIVILEGED).as_deref() {
        Ok("1") => match env::var(INSIDE).as_deref() {
            Ok(proxy::UNPRIVILEGED) => {
                proxy::without_privilege();
                ExitCode::SUCCESS
            }
            Ok(NOBODY) => {
                as_nobody();
                ExitCode::SUCCESS
            }
            Ok(_) => run(),
            Err(_) => enter_namespace(),
        },
        Err(_) if env::var_os("CI").is_some() => {
            println!("set {PRIVILEGED} to 1, or to 0 where root is not to be had");
            ExitCode::FAILURE
        }
        _ => {
            println!("no test was run: they need root, and {PRIVILEGED}=1");
            ExitCode::SUCCESS
        }
    }
}

/// Starts this program again where it may set up what it likes.
fn enter_namespace() -> ExitCode {
    let state = tempfile::tempdir().unwrap();
    let status = Command::new("unshare")
        .args(["--net", "--"])
        .arg(env::current_exe().unwrap())
        .args(env::args_os().skip(1))
        .env(INSIDE, "")
        .env(proxy::STATE, state.path())
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        status => {
            println!("failed, or no network namespace to be had: {status:?}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the tests whose names contain an argument, or all. A panic ends the process with a failure.
fn run() -> ExitCode {
    let filters: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    ip("link set lo up");
    let mut passed = 0;
    for (name, test) in TESTS {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter)) {
            println!("test {name}");
            test();
            passed += 1;
        }
    }
    println!("{passed} passed");
    ExitCode::SUCCESS
}

fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
}

/// An interface that is up and has addresses. The kernel is .1 and ::1, everybody else is behind it.
fn open(queues: usize, offload: bool) -> Tun {
    let options = TunOptions {
        name: Some("bautatest%d".to_owned()),
        queues,
        offload,
        mtu: Some(1400),
    };
    let tun = Tun::open(&options).unwrap();
    assert_eq!(tun.queues.len(), queues);
    let name = &tun.name;
    ip(&format!("addr add 10.9.0.1/24 dev {name}"));
    ip(&format!("addr add fd09::1/64 dev {name} nodad"));
    ip(&format!("link set {name} up"));
    tun
}

/// The kernel's own address, and one that leads into the TUN.
fn addresses() -> [(IpAddr, IpAddr); 2] {
    [
        ([10, 9, 0, 1].into(), [10, 9, 0, 2].into()),
        ("fd09::1".parse().unwrap(), "fd09::2".parse().unwrap()),
    ]
}

/// A driver on a thread, which sends everything back from where it came.
struct Mirror {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Stats, Vec<u64>)>,
}

impl Mirror {
    fn start(queues: Vec<TunQueue>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut driver = Driver::new(DriverConfig::default()).unwrap();
            let mut packets = vec![Vec::new(); queues.len()];
            let mut counts = vec![0; queues.len()];
            let mut ids = Vec::new();
            for (tag, queue) in queues.into_iter().enumerate() {
                ids.push(driver.add_tun(queue, tag as u64).unwrap());
            }
            while !stopped.load(Ordering::Relaxed) {
                let more = driver.receive(&mut |id, tag, received| {
                    let tag = usize::try_from(tag).unwrap();
                    assert_eq!(id, ids[tag]);
                    let Received::Packets(brought) = received else {
                        panic!("{received:?}");
                    };
                    for packet in brought {
                        counts[tag] += 1;
                        packets[tag].push(mirrored(packet));
                    }
                });
                for (id, packets) in ids.iter().zip(&mut packets) {
                    driver.send_packets(*id, packets);
                    assert!(packets.is_empty());
                }
                if !more {
                    thread::yield_now();
                }
                let _woken = driver.poll_ready_nonblocking().unwrap();
            }
            (driver.stats(), counts)
        });
        Self { stop, thread }
    }

    /// What has passed, and how much of it by each queue.
    fn stop(self) -> (Stats, Vec<u64>) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Checks a packet of the kernel, and swaps its addresses, which changes no checksum.
fn mirrored(mut packet: BytesMut) -> Bytes {
    let parsed = Packet::parse(&packet).unwrap();
    assert_eq!(parsed.len, packet.len());
    assert!(packet.len() <= 1400, "{} bytes", packet.len());
    let (header, segment) = packet.split_at(parsed.transport);
    if parsed.version == IpVersion::V4 {
        assert!(Sum::of(header).is_right());
    }
    if matches!(parsed.protocol, protocol::TCP | protocol::UDP) {
        let (source, destination) = (parsed.source, parsed.destination);
        let sum = Sum::pseudo_header(source, destination, parsed.protocol, segment.len());
        assert!(sum.bytes(segment).is_right(), "{parsed:?}");
    }
    let (at, len) = match parsed.version {
        IpVersion::V4 => (12, 4),
        IpVersion::V6 => (8, 16),
    };
    let (source, destination) = packet[at..at + 2 * len].split_at_mut(len);
    source.swap_with_slice(destination);
    packet.freeze()
}

/// Bytes that are nowhere the same.
fn bulk() -> Vec<u8> {
    let mut state = 1u64;
    let words = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 32) as u32
    });
    words.take(4 << 20).flat_map(u32::to_le_bytes).collect()
}

fn tcp(offload: bool) {
    let tun = open(1, offload);
    assert_eq!(tun.offloads.tcp, offload);
    let mirror = Mirror::start(tun.queues);
    for (own, behind) in addresses() {
        let listener = TcpListener::bind((own, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip(), behind);
            let mut received = Vec::new();
            stream.read_to_end(&mut received).unwrap();
            stream.write_all(&received).unwrap();
        });
        let mut client = TcpStream::connect((behind, port)).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let sent = bulk();
        client.write_all(&sent).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert!(received == sent, "what came back is not what was sent");
        server.join().unwrap();
    }
    let (stats, _) = mirror.stop();
    check(&stats, offload);
}

fn check(stats: &Stats, offload: bool) {
    assert_eq!(stats.tun_read_malformed, 0, "{stats:?}");
    assert_eq!(
        stats.tun_write_invalid + stats.tun_write_failed,
        0,
        "{stats:?}"
    );
    assert_eq!(
        stats.tun_packets_read,
        stats.tun_packets_written + stats.tun_write_blocked + stats.tun_write_down,
        "{stats:?}"
    );
    if offload {
        assert!(stats.tun_read_super_packets > 0, "{stats:?}");
        assert!(stats.tun_write_super_packets > 0, "{stats:?}");
        assert!(stats.tun_read_calls < stats.tun_packets_read, "{stats:?}");
        assert!(stats.tun_write_calls < stats.tun_packets_read, "{stats:?}");
    } else {
        assert_eq!(stats.tun_write_calls, stats.tun_packets_read, "{stats:?}");
        assert_eq!(stats.tun_write_super_packets, 0);
    }
}

/// Sends trains, which the kernel hands out as super-packets where it may.
fn udp(offload: bool) {
    const SIZE: usize = 1000;
    let tun = open(1, offload);
    let in_super_packets = tun.offloads.udp;
    let mirror = Mirror::start(tun.queues);
    let mut client = Driver::new(DriverConfig::default()).unwrap();
    let contents = bulk();
    for (own, behind) in addresses() {
        let server = UdpSocket::bind((own, 0)).unwrap();
        server
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let port = server.local_addr().unwrap().port();
        let socket = client.connect((behind, port).into(), 1).unwrap();
        let mut buffer = [0; 2 * SIZE];
        for train in contents.chunks(20 * SIZE + 7).take(50) {
            let outgoing = Outgoing {
                peer: None,
                local_ip: None,
                ecn: None,
                segment_size: Some(SIZE),
                contents: train,
            };
            client.send(socket, &outgoing).unwrap();
            for datagram in train.chunks(SIZE) {
                let (len, peer) = server.recv_from(&mut buffer).unwrap();
                assert_eq!(peer.ip(), behind);
                assert_eq!(&buffer[..len], datagram);
            }
        }
    }
    let (stats, _) = mirror.stop();
    check(&stats, in_super_packets);
    assert!(stats.tun_packets_read >= 2 * 50 * 21, "{stats:?}");
}

fn flows_are_spread_over_queues() {
    let tun = open(4, true);
    let mirror = Mirror::start(tun.queues);
    let (own, behind) = addresses()[0];
    let server = UdpSocket::bind((own, 0)).unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let port = server.local_addr().unwrap().port();
    let mut buffer = [0; 100];
    for _ in 0..64 {
        let client = UdpSocket::bind((own, 0)).unwrap();
        client.send_to(b"hello", (behind, port)).unwrap();
        let (len, peer) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"hello");
        assert_eq!(
            peer,
            SocketAddr::new(behind, client.local_addr().unwrap().port())
        );
    }
    let (stats, counts) = mirror.stop();
    assert_eq!(stats.tun_packets_read, counts.iter().sum::<u64>());
    let used = counts.iter().filter(|count| **count > 0).count();
    assert!(used > 1, "{counts:?}");
}

/// A driver with one queue.
fn driver(queue: TunQueue) -> (Driver, SocketId) {
    let mut driver = Driver::new(DriverConfig::default()).unwrap();
    let id = driver.add_tun(queue, 7).unwrap();
    (driver, id)
}

/// One turn.
fn receive(driver: &mut Driver) -> Vec<BytesMut> {
    let mut all = Vec::new();
    let _woken = driver.poll_ready_nonblocking().unwrap();
    let _more = driver.receive(&mut |_, _, received| {
        let Received::Packets(packets) = received else {
            panic!("{received:?}");
        };
        all.extend(packets);
    });
    all
}

fn turns_have_a_budget() {
    let budget = DriverConfig::default().receive_budget_datagrams;
    let count = 3 * budget;
    let mut tun = open(1, false);
    let (mut driver, _) = driver(tun.queues.remove(0));
    let (own, behind) = addresses()[0];
    let client = UdpSocket::bind((own, 0)).unwrap();
    for _ in 0..count {
        client.send_to(b"hello", (behind, 9)).unwrap();
    }
    let mut seen = 0;
    let deadline = clock::now() + Duration::from_secs(10);
    while seen < count {
        assert!(clock::now() < deadline);
        let packets = receive(&mut driver);
        assert!(packets.len() <= budget);
        seen += packets
            .iter()
            .filter(|packet| packet.ends_with(b"hello"))
            .count();
    }
}

fn an_interface_that_is_down() {
    for offload in [true, false] {
        let mut tun = open(1, offload);
        ip(&format!("link set {} down", tun.name));
        let (mut driver, id) = driver(tun.queues.remove(0));
        let mut packets = vec![Bytes::from_static(&[0x45; 40]); 3];
        driver.send_packets(id, &mut packets);
        assert!(packets.is_empty());
        assert_eq!(driver.stats().tun_write_down, 3);
        receive(&mut driver);
        // What is no packet at all is refused once it is up.
        ip(&format!("link set {} up", tun.name));
        driver.send_packets(id, &mut vec![Bytes::from_static(&[0x15; 40])]);
        assert_eq!(driver.stats().tun_write_invalid, 1);
        // And the kernel's packets come again.
        let (own, behind) = addresses()[0];
        let client = UdpSocket::bind((own, 0)).unwrap();
        client.send_to(b"hello", (behind, 9)).unwrap();
        let deadline = clock::now() + Duration::from_secs(10);
        while !receive(&mut driver)
            .iter()
            .any(|packet| packet.ends_with(b"hello"))
        {
            assert!(clock::now() < deadline);
        }
        assert!(driver.remove(id));
        assert!(!driver.remove(id));
        driver.send_packets(id, &mut packets);
    }
}

fn an_interface_that_goes_away() {
    let mut tun = open(1, true);
    let (mut driver, id) = driver(tun.queues.remove(0));
    ip(&format!("link del {}", tun.name));
    let deadline = clock::now() + Duration::from_secs(10);
    let mut errors: Vec<io::Error> = Vec::new();
    while errors.is_empty() {
        assert!(clock::now() < deadline);
        let _woken = driver.poll_ready_nonblocking().unwrap();
        let _more = driver.receive(&mut |socket, tag, received| {
            assert_eq!((socket, tag), (id, 7));
            if let Received::Error(error) = received {
                errors.push(error);
            }
        });
    }
    assert_eq!(errors.len(), 1);
    // Told once: the queue has nothing more to say.
    let _woken = driver.poll_ready_nonblocking().unwrap();
    let more = driver.receive(&mut |_, _, received| panic!("{received:?}"));
    assert!(!more);
    driver.send_packets(id, &mut vec![Bytes::from_static(&[0x45; 40])]);
    assert_eq!(driver.stats().tun_packets_written, 0);
    assert!(driver.remove(id));
}

/// What [`INSIDE`] says to a process that is to be nobody.
const NOBODY: &str = "nobody";
const OWNED: &str = "bautaowned";

/// Whoever has a queue reads packets of clients and sends as the tunnel.
fn nobody_else_opens_a_queue() {
    for queues in [1, 2] {
        let options = TunOptions {
            name: Some(OWNED.to_owned()),
            queues,
            ..TunOptions::default()
        };
        let tun = Tun::open(&options).unwrap();
        TunQueue::attach(OWNED, tun.index, false).unwrap();
        let status = Command::new(env::current_exe().unwrap())
            .env(INSIDE, NOBODY)
            .status()
            .unwrap();
        assert!(status.success(), "{status}");
    }
}

/// In a process of another user, without privileges.
fn as_nobody() {
    use bauta::net::tun::TunError;
    use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

    let index = nix::net::if_::if_nametoindex(OWNED).unwrap();
    setgroups(&[]).unwrap();
    setgid(Gid::from_raw(65_534)).unwrap();
    setuid(Uid::from_raw(65_534)).unwrap();
    let error = TunQueue::attach(OWNED, index, false).unwrap_err();
    // The first where anybody may open the device.
    assert!(
        matches!(
            error,
            TunError::NotPermitted { .. } | TunError::Unavailable(_)
        ),
        "{error}"
    );
}

fn what_the_kernel_refuses() {
    use bauta::net::tun::TunError;

    let options = |name: &str, queues| TunOptions {
        name: Some(name.to_owned()),
        queues,
        ..TunOptions::default()
    };
    for name in ["", "sixteen-bytes-xx", "a/b", "a b"] {
        let error = Tun::open(&options(name, 1)).unwrap_err();
        assert!(matches!(error, TunError::Name { .. }), "{error}");
    }
    let first = Tun::open(&options("bautabusy", 1)).unwrap();
    assert_eq!(first.name, "bautabusy");
    // Of another kind.
    let error = Tun::open(&options("lo", 1)).unwrap_err();
    assert!(matches!(error, TunError::Unfit { .. }), "{error}");
    let tiny = TunOptions {
        mtu: Some(20),
        ..TunOptions::default()
    };
    let error = Tun::open(&tiny).unwrap_err();
    assert!(matches!(error, TunError::Mtu { mtu: 20, .. }), "{error}");

    // One that waits for a program, made for one queue.
    ip("tuntap add dev bautawaits mode tun");
    let error = Tun::open(&options("bautawaits", 2)).unwrap_err();
    assert!(error.to_string().contains("multi_queue"), "{error}");
    let tun = Tun::open(&options("bautawaits", 1)).unwrap();
    assert!(tun.offloads.tcp);
    let error = Tun::open(&options("bautawaits", 1)).unwrap_err();
    assert!(matches!(error, TunError::Busy { .. }), "{error}");
}
