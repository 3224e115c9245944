//! What the kernel refuses: segmentation, sizes, closed ports.

use std::os::fd::AsFd;

use super::*;

#[test]
fn segmentation_that_fails_is_switched_off() {
    let mut driver = driver();
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let id = driver.connect(address, 2).unwrap();
    // The kernel cannot segment what it must not checksum, and says EINVAL.
    let socket = &driver.entry(id).unwrap().socket;
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    for round in 1..=2 {
        let contents = pattern(5 * 800);
        let outgoing = Outgoing {
            segment_size: Some(800),
            ..connected(&contents)
        };
        driver.send(id, &outgoing).unwrap();
        assert_eq!(receive_datagrams(&mut driver, 5).concat(), contents);
        assert_eq!(driver.stats().sent_datagrams, 5 * round);
        assert_eq!(driver.stats().segmentation_failures, 1);
    }
    assert!(!driver.entry(id).unwrap().segmentation);
    assert!(driver.entry(target).unwrap().segmentation);
}

#[test]
fn segments_above_the_mtu_do_not_switch_segmentation_off() {
    // spec: 9298-3.1-p
    let mut driver = driver();
    let (_, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let id = driver.connect(address, 2).unwrap();
    let large = Bytes::from(pattern(65_508));
    let small = Bytes::from_static(b"small");
    let result = driver.send_vectored(id, &[large.clone(), small.clone(), large, small]);
    assert!(matches!(result, Err(SendError::TooLarge)), "{result:?}");
    assert_eq!(receive_datagrams(&mut driver, 2), [&b"small"[..]; 2]);
    let stats = driver.stats();
    assert_eq!((stats.sent_datagrams, stats.send_too_large), (2, 2));
    assert_eq!(stats.segmentation_failures, 0);
}

#[test]
fn nothing_is_fragmented_towards_targets() {
    // spec: 9298-3.1-p, 9298-3.1-q
    let mut driver = driver();
    let (_, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let id = driver.connect(address, 2).unwrap();
    let socket = driver.entry(id).unwrap().socket.as_fd();
    let discovery = sys::option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER).unwrap();
    assert_eq!(discovery, libc::IP_PMTUDISC_DO, "DF on every packet");

    if !has_ipv6() {
        return;
    }
    // Headers included 65,555 bytes: more than loopback carries in one packet, less than fragments could.
    let (_, address) = shared(&mut driver, Ipv6Addr::LOCALHOST, 1);
    let id = driver.connect(address, 2).unwrap();
    let result = driver.send(id, &connected(&pattern(65_507)));
    assert!(matches!(result, Err(SendError::TooLarge)), "{result:?}");
    driver.send(id, &connected(b"small")).unwrap();
    assert_eq!(receive_datagrams(&mut driver, 1), [&b"small"[..]]);
}

/// The address of a closed port.
fn closed_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

fn refusals(all: &[(u64, Received)]) -> usize {
    all.iter()
        .filter(|(tag, received)| match received {
            Received::Error(error) => {
                assert_eq!((*tag, ends_socket(error)), (5, true), "{error}");
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
                true
            }
            Received::Train(_) | Received::Packets(_) => false,
        })
        .count()
}

#[test]
fn a_closed_port_is_reported() {
    // spec: 9298-3.1-k
    let mut driver = driver();
    let id = driver.connect(closed_port(), 5).unwrap();
    driver.send(id, &connected(b"hello?")).unwrap();
    receive_until(&mut driver, |all| refusals(all) == 1);
    assert_eq!(driver.stats().receive_errors, 1);
}

#[test]
fn an_error_that_a_send_meets_is_not_lost_and_costs_nothing() {
    // spec: 9298-3.1-k
    let mut driver = driver();
    let id = driver.connect(closed_port(), 5).unwrap();
    // The answer to the first is there before the second is sent: loopback delivers within the call.
    for _ in 0..2 {
        driver.send(id, &connected(b"hello?")).unwrap();
    }
    assert_eq!(driver.stats().sent_datagrams, 2);
    assert_eq!(
        driver.stats().send_calls,
        3,
        "the second was sent once more"
    );
    // One from the send call, one that the second datagram caused.
    receive_until(&mut driver, |all| refusals(all) == 2);
}

#[test]
fn an_error_met_by_a_send_keeps_the_worker_awake() {
    let mut driver = driver();
    let id = driver.connect(closed_port(), 5).unwrap();
    for _ in 0..2 {
        driver.send(id, &connected(b"hello?")).unwrap();
    }
    assert!(!driver.ready.is_empty(), "ready() returns at once");
    let mut all = Vec::new();
    let _left = driver.receive(&mut |_, tag, received| all.push((tag, received)));
    assert!(refusals(&all) >= 1);
}
