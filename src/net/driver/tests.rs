use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::sync::mpsc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::net::clock::now;
use crate::net::runtime::{IoChoice, run};
use crate::net::{Outgoing, TRAIN_SEGMENTS_MAX, ends_socket, sys};

/// Nothing on loopback takes this long; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(10);

/// Collects events without looking at the reasons.
fn wait(driver: &mut Driver, timeout: Duration) {
    let _woken = driver.collect(timeout).unwrap();
}

fn driver() -> Driver {
    Driver::new(DriverConfig::default()).unwrap()
}

fn without_offloads() -> Driver {
    Driver::new(DriverConfig {
        gso: Offload::Off,
        gro: Offload::Off,
        ..DriverConfig::default()
    })
    .unwrap()
}

fn shared(driver: &mut Driver, ip: impl Into<IpAddr>, tag: u64) -> (SocketId, SocketAddr) {
    let socket = UdpSocket::bind((ip.into(), 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let id = driver.add(socket, SocketKind::Shared, tag).unwrap();
    (id, address)
}

fn to(peer: SocketAddr, contents: &[u8]) -> Outgoing<'_> {
    Outgoing {
        peer: Some(peer),
        local_ip: None,
        ecn: None,
        segment_size: None,
        contents,
    }
}

fn connected(contents: &[u8]) -> Outgoing<'_> {
    Outgoing {
        peer: None,
        ..to(([0, 0, 0, 0], 0).into(), contents)
    }
}

/// Receives until `enough` says so, and returns everything in order.
fn receive_until(
    driver: &mut Driver,
    mut enough: impl FnMut(&[(u64, Received)]) -> bool,
) -> Vec<(u64, Received)> {
    let mut all = Vec::new();
    let deadline = now() + LONG;
    loop {
        let left = driver.receive(&mut |_, tag, received| all.push((tag, received)));
        if enough(&all) {
            return all;
        }
        assert!(now() < deadline, "only {all:?}");
        let timeout = if left { Duration::ZERO } else { LONG };
        wait(driver, timeout);
    }
}

fn trains(all: Vec<(u64, Received)>) -> Vec<Train> {
    all.into_iter()
        .map(|(_, received)| match received {
            Received::Train(train) => train,
            Received::Error(error) => panic!("{error}"),
        })
        .collect()
}

/// Receives until `count` datagrams have come, as trains.
fn receive_trains(driver: &mut Driver, count: usize) -> Vec<Train> {
    let all = receive_until(driver, |all| {
        let datagrams = all.iter().map(|(_, received)| match received {
            Received::Train(train) => train.datagram_count(),
            Received::Error(error) => panic!("{error}"),
        });
        datagrams.sum::<usize>() >= count
    });
    trains(all)
}

fn receive_datagrams(driver: &mut Driver, count: usize) -> Vec<BytesMut> {
    let trains = receive_trains(driver, count);
    trains.into_iter().flat_map(Train::segments).collect()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i / 7 % 251) as u8).collect()
}

/// Whether this machine has IPv6 on loopback.
fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

#[test]
fn a_train_sent_is_a_train_received() {
    let mut driver = driver();
    let (sender, from) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let (_, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 2);
    let contents = pattern(10 * 1200 + 77);
    let outgoing = Outgoing {
        segment_size: Some(1200),
        ..to(address, &contents)
    };
    driver.send(sender, &outgoing).unwrap();

    let all = receive_until(&mut driver, |all| !all.is_empty());
    assert_eq!(all[0].0, 2, "the tag of the receiving socket");
    let trains = trains(all);
    assert_eq!(trains.len(), 1);
    assert_eq!(trains[0].segment_size, 1200);
    assert_eq!(trains[0].datagram_count(), 11);
    assert_eq!(trains[0].peer, from);
    assert_eq!(trains[0].data, contents);
    let stats = driver.stats();
    assert_eq!(stats.send_calls, 1);
    assert_eq!(stats.sent_datagrams, 11);
    assert_eq!(stats.received_datagrams, 11);
    assert_eq!(stats.received_trains, 1);
    assert_eq!(stats.sent_bytes, contents.len() as u64);
    assert_eq!(stats.received_bytes, contents.len() as u64);
}

#[test]
fn long_contents_are_split_into_calls() {
    let mut driver = driver();
    let (sender, _) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let (_, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 2);
    for (segment_size, count, calls) in [(1200, 100, 2), (100, 200, 4), (1, 65, 2)] {
        let contents = pattern(segment_size * count);
        let outgoing = Outgoing {
            segment_size: Some(segment_size),
            ..to(address, &contents)
        };
        let before = driver.stats().send_calls;
        driver.send(sender, &outgoing).unwrap();
        assert_eq!(driver.stats().send_calls - before, calls);
        let received = receive_datagrams(&mut driver, count);
        assert_eq!(received.len(), count);
        assert_eq!(received.concat(), contents);
    }
}

#[test]
fn without_offloads_every_datagram_still_arrives() {
    let mut driver = without_offloads();
    let (sender, _) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let (_, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 2);
    let contents = pattern(20 * 1200 + 5);
    let outgoing = Outgoing {
        segment_size: Some(1200),
        ..to(address, &contents)
    };
    driver.send(sender, &outgoing).unwrap();
    let received = receive_datagrams(&mut driver, 21);
    assert_eq!(received.len(), 21);
    assert_eq!(received.concat(), contents);
    assert_eq!(driver.stats().send_calls, 21);
    assert_eq!(driver.stats().received_trains, 0);
}

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
fn scattered_datagrams_leave_in_as_few_calls_as_possible() {
    let mut driver = driver();
    let (_, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let id = driver.connect(address, 2).unwrap();
    let lengths = [1200, 1200, 900, 900, 900, 0, 0, 300, 400, 400, 100, 400];
    let datagrams: Vec<Bytes> = lengths.iter().map(|&n| pattern(n).into()).collect();
    driver.send_vectored(id, &datagrams).unwrap();
    let received = receive_datagrams(&mut driver, lengths.len());
    assert_eq!(received, datagrams);
    // 1200 1200 900 | 900 900 | 0 | 0 | 300 | 400 400 100 | 400
    assert_eq!(driver.stats().send_calls, 7);
    assert_eq!(driver.stats().sent_datagrams, 12);

    driver.send_vectored::<Bytes>(id, &[]).unwrap();
    assert_eq!(driver.stats().send_calls, 7);
}

#[test]
fn empty_datagrams_arrive_empty() {
    let mut driver = driver();
    let (sender, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let id = driver.connect(address, 2).unwrap();
    driver.send(id, &connected(b"")).unwrap();
    let first = receive_trains(&mut driver, 1);
    assert_eq!(first[0].datagram_count(), 1);
    let peer = first[0].peer;
    assert_eq!(peer, driver.local_addr(id).unwrap());
    let segments: Vec<BytesMut> = first.into_iter().flat_map(Train::segments).collect();
    assert_eq!(segments, [&b""[..]]);

    let outgoing = Outgoing {
        segment_size: Some(1200),
        ..to(peer, b"")
    };
    driver.send(sender, &outgoing).unwrap();
    assert_eq!(receive_datagrams(&mut driver, 1), [&b""[..]]);
    assert_eq!(driver.stats().sent_datagrams, 2);
    assert_eq!(driver.stats().received_datagrams, 2);
}

#[test]
fn the_largest_datagram_arrives_whole() {
    let mut driver = driver();
    let (_, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let id = driver.connect(address, 2).unwrap();
    let contents = pattern(65_507);
    // Through a chunk that has little room left, too.
    for _ in 0..10 {
        driver.send(id, &connected(&contents)).unwrap();
        assert_eq!(receive_datagrams(&mut driver, 1), [&contents[..]]);
    }
    assert_eq!(driver.stats().truncated, 0);

    // spec: 9298-3.1-r
    let result = driver.send(id, &connected(&pattern(65_508)));
    assert!(matches!(result, Err(SendError::TooLarge)), "{result:?}");
    assert_eq!(driver.stats().send_too_large, 1);
}

/// ECN and local addresses, both ways, between two wildcard sockets.
fn round_trip(ip: impl Into<IpAddr>, wildcard: impl Into<IpAddr>) {
    let (ip, wildcard) = (ip.into(), wildcard.into());
    let mut driver = driver();
    let (sender, from) = shared(&mut driver, wildcard, 1);
    let (_, address) = shared(&mut driver, wildcard, 2);
    let peer = SocketAddr::new(ip, address.port());
    for ecn in 0..4 {
        let contents = pattern(3 * 500);
        let outgoing = Outgoing {
            local_ip: Some(ip),
            ecn: Some(ecn),
            segment_size: Some(500),
            ..to(peer, &contents)
        };
        driver.send(sender, &outgoing).unwrap();
        let trains = receive_trains(&mut driver, 3);
        assert_eq!(trains[0].ecn, Some(ecn));
        assert_eq!(trains[0].local_ip, Some(ip));
        assert_eq!(trains[0].peer, SocketAddr::new(ip, from.port()));
    }
}

#[test]
fn ecn_and_addresses_make_the_round_trip() {
    round_trip(Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED);
    // The packet leaves from the address that was asked for, not from the one the route prefers.
    round_trip(Ipv4Addr::new(127, 9, 8, 7), Ipv4Addr::UNSPECIFIED);
    if has_ipv6() {
        round_trip(Ipv6Addr::LOCALHOST, Ipv6Addr::UNSPECIFIED);
    }
}

#[test]
fn a_dual_stack_socket_speaks_both_families() {
    if !has_ipv6() {
        return;
    }
    let mut driver = driver();
    let wildcard = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let group = crate::net::listen::bind_group(wildcard, 1, true).unwrap();
    let port = group[0].local_addr().unwrap().port();
    let server = group.into_iter().next().unwrap();
    let server = driver.add(server, SocketKind::Shared, 1).unwrap();
    for ip in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let (client, _) = shared(&mut driver, ip, 2);
        let request = Outgoing {
            ecn: Some(0b10),
            ..to(SocketAddr::new(ip, port), b"request")
        };
        driver.send(client, &request).unwrap();
        let request = receive_trains(&mut driver, 1).remove(0);
        assert_eq!(request.ecn, Some(0b10));
        let answer = Outgoing {
            local_ip: request.local_ip,
            ecn: Some(0b01),
            ..to(request.peer, b"answer")
        };
        driver.send(server, &answer).unwrap();
        let answer = receive_trains(&mut driver, 1).remove(0);
        assert_eq!(answer.peer, SocketAddr::new(ip, port));
        assert_eq!(answer.ecn, Some(0b01));
    }
}

#[test]
fn nothing_is_marked_nor_fragmented_towards_targets() {
    // spec: 9298-6.2-a, 9298-6.2-b, 9298-3.1-q
    let mut driver = driver();
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let id = driver.connect(address, 2).unwrap();
    let marked = Outgoing {
        ecn: Some(0b11),
        ..connected(b"up")
    };
    driver.send(id, &marked).unwrap();
    let up = receive_trains(&mut driver, 1);
    assert_eq!(up[0].ecn, Some(0));

    let marked = Outgoing {
        ecn: Some(0b11),
        ..to(up[0].peer, b"down")
    };
    driver.send(target, &marked).unwrap();
    let down = receive_trains(&mut driver, 1);
    assert_eq!(
        down[0].ecn, None,
        "whatever the target marks is not looked at"
    );
    assert_eq!(down[0].peer, address);
}

#[test]
fn strangers_are_not_heard() {
    let mut driver = driver();
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let (stranger, _) = shared(&mut driver, Ipv4Addr::LOCALHOST, 2);
    let id = driver.connect(address, 3).unwrap();
    let local = driver.local_addr(id).unwrap();
    driver.send(stranger, &to(local, b"stranger")).unwrap();
    driver.send(target, &to(local, b"target")).unwrap();
    assert_eq!(receive_datagrams(&mut driver, 1), [&b"target"[..]]);
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
            Received::Train(_) => false,
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

#[test]
fn a_removed_socket_is_gone_for_good() {
    let mut driver = driver();
    let (old, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    driver.send(old, &to(address, b"to myself")).unwrap();
    wait(&mut driver, LONG);
    assert!(!driver.ready.is_empty());
    assert!(driver.remove(old));
    assert!(driver.ready.is_empty());
    assert_eq!(driver.socket_count(), 0);

    let (new, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 2);
    assert_eq!(new.slot, old.slot, "the slot is used again");
    assert_ne!(new, old);
    assert!(!driver.remove(old));
    assert!(driver.local_addr(old).is_err());
    let result = driver.send(old, &to(address, b"stale"));
    assert!(matches!(result, Err(SendError::Stale)), "{result:?}");
    let result = driver.send_vectored(old, &[b"stale"]);
    assert!(matches!(result, Err(SendError::Stale)), "{result:?}");
    assert_eq!(driver.stats().send_calls, 1);

    driver.send(new, &to(address, b"fresh")).unwrap();
    assert_eq!(receive_datagrams(&mut driver, 1), [&b"fresh"[..]]);
}

#[test]
fn an_event_of_a_removed_socket_is_ignored() {
    let mut driver = driver();
    let (old, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    driver.send(old, &to(address, b"unread")).unwrap();
    // A duplicate keeps the socket alive behind the driver's back.
    let duplicate = driver.entry(old).unwrap().socket.try_clone().unwrap();
    assert!(driver.remove(old));
    let (new, _) = shared(&mut driver, Ipv4Addr::LOCALHOST, 2);
    assert_eq!(new.slot, old.slot);
    wait(&mut driver, Duration::ZERO);
    assert!(driver.ready.is_empty());
    drop(duplicate);
}

#[test]
fn a_thousand_sockets_each_get_their_own() {
    const SOCKETS: u64 = 1000;
    sys::raise_file_limit().unwrap();
    let mut driver = driver();
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, u64::MAX);
    let ids: Vec<SocketId> = (0..SOCKETS)
        .map(|tag| driver.connect(address, tag).unwrap())
        .collect();
    let mut answers = HashMap::new();
    // In portions that the smallest receive buffer holds.
    for portion in ids.chunks(50) {
        for id in portion {
            let number = id.slot.to_be_bytes();
            driver.send(*id, &connected(&number)).unwrap();
        }
        for request in receive_trains(&mut driver, portion.len()) {
            let peer = request.peer;
            driver.send(target, &to(peer, &request.data)).unwrap();
        }
        let received = receive_until(&mut driver, |all| all.len() == portion.len());
        for (tag, received) in received {
            let Received::Train(train) = received else {
                panic!("{received:?}")
            };
            answers.insert(tag, train.data);
        }
    }
    assert_eq!(answers.len() as u64, SOCKETS);
    for (tag, id) in ids.iter().enumerate() {
        assert_eq!(answers[&(tag as u64)], id.slot.to_be_bytes()[..]);
        assert!(driver.remove(*id));
    }
    assert_eq!(driver.socket_count(), 1);
}

#[test]
fn a_flooded_socket_does_not_starve_another() {
    const FLOOD: usize = 100;
    let mut driver = Driver::new(DriverConfig {
        receive_budget_datagrams: 16,
        turn_budget_datagrams: 24,
        ..DriverConfig::default()
    })
    .unwrap();
    let (flooded, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let (_, quiet) = shared(&mut driver, Ipv4Addr::LOCALHOST, 2);
    for _ in 0..FLOOD {
        driver.send(flooded, &to(address, b"flood")).unwrap();
    }
    driver.send(flooded, &to(quiet, b"quiet")).unwrap();
    wait(&mut driver, LONG);

    let turn = |driver: &mut Driver| {
        let mut counts = [0; 3];
        let left = driver.receive(&mut |_, tag, _| counts[tag as usize] += 1);
        (counts[1], counts[2], left)
    };
    assert_eq!(turn(&mut driver), (16, 1, true));
    assert_eq!(turn(&mut driver), (16, 0, true));
    // The turn's own budget: of three flooded sockets the first gets 16, the second 8, the third comes next.
    let mut left = true;
    let mut count = 32;
    while left {
        let (flood, _, more) = turn(&mut driver);
        count += flood;
        left = more;
    }
    assert_eq!(count, FLOOD);
}

#[test]
fn a_turn_ends_and_the_next_goes_on_with_the_others() {
    let mut driver = Driver::new(DriverConfig {
        receive_budget_datagrams: 16,
        turn_budget_datagrams: 24,
        ..DriverConfig::default()
    })
    .unwrap();
    let ids: Vec<_> = (0..3)
        .map(|tag| shared(&mut driver, Ipv4Addr::LOCALHOST, tag))
        .collect();
    for (id, address) in &ids {
        for _ in 0..20 {
            driver.send(*id, &to(*address, b"x")).unwrap();
        }
    }
    wait(&mut driver, LONG);
    let mut turns = Vec::new();
    loop {
        let mut counts = [0; 3];
        let left = driver.receive(&mut |_, tag, _| counts[tag as usize] += 1);
        turns.push(counts);
        if !left {
            break;
        }
    }
    assert_eq!(turns[..2], [[16, 8, 0], [4, 4, 16]]);
    let totals = turns.iter().fold([0; 3], |sum, turn| {
        [sum[0] + turn[0], sum[1] + turn[1], sum[2] + turn[2]]
    });
    assert_eq!(totals, [20; 3]);
}

#[test]
fn the_timer_is_set_only_to_fire_earlier() {
    let mut driver = driver();
    let start = now();
    driver.set_timer(None, start).unwrap();
    assert_eq!(driver.collect(Duration::ZERO).unwrap(), Woken::default());

    driver
        .set_timer(Some(start + Duration::from_millis(5)), start)
        .unwrap();
    driver.set_timer(Some(start + LONG * 10), start).unwrap();
    driver.set_timer(None, start).unwrap();
    assert!(driver.collect(LONG).unwrap().timer);
    assert!(now() >= start + Duration::from_millis(5));

    // It fired once, and is free for a later deadline; one in the past fires at once.
    assert_eq!(driver.collect(Duration::ZERO).unwrap(), Woken::default());
    driver.set_timer(Some(start + LONG * 10), start).unwrap();
    driver.set_timer(Some(start), now()).unwrap();
    assert!(driver.collect(LONG).unwrap().timer);
}

#[test]
fn wakers_coalesce_and_outlive_the_driver() {
    let mut driver = driver();
    let waker = driver.waker();
    let mailbox = Woken {
        timer: false,
        mailbox: true,
    };
    for _ in 0..3 {
        for _ in 0..1000 {
            waker.clone().wake();
        }
        assert_eq!(driver.collect(LONG).unwrap(), mailbox);
        assert_eq!(driver.collect(Duration::ZERO).unwrap(), Woken::default());
    }
    drop(driver);
    waker.wake();
}

/// The drivers that run on this machine: epoll always, io_uring unless it is forbidden.
fn runnable() -> impl Iterator<Item = IoChoice> {
    let ring = monoio::utils::detect_uring().then_some(IoChoice::Uring);
    [IoChoice::Auto, IoChoice::Epoll].into_iter().chain(ring)
}

/// Parks until `done`; every wake-up counts.
async fn park_until(driver: &mut Driver, mut done: impl FnMut(&mut Driver, Woken) -> bool) {
    let deadline = now() + LONG;
    loop {
        assert!(now() < deadline);
        driver.set_timer(Some(deadline), now()).unwrap();
        let woken = driver.ready().await.unwrap();
        if done(driver, woken) {
            return;
        }
    }
}

#[test]
fn a_parked_driver_is_woken_by_another_thread() {
    for io in runnable() {
        let (sender, receiver) = mpsc::channel::<(Waker, mpsc::Sender<u32>)>();
        let other = std::thread::spawn(move || {
            let (waker, mailbox) = receiver.recv().unwrap();
            for message in 0..100 {
                mailbox.send(message).unwrap();
                waker.wake();
            }
        });
        run(io, async move |_| {
            let mut driver = driver();
            let (mailbox, messages) = mpsc::channel();
            sender.send((driver.waker(), mailbox)).unwrap();
            let mut expected = 0;
            park_until(&mut driver, |_, woken| {
                if woken.mailbox {
                    while let Ok(message) = messages.try_recv() {
                        assert_eq!(message, expected);
                        expected += 1;
                    }
                }
                expected == 100
            })
            .await;
            assert!(driver.stats().wakeups > 0);
        })
        .unwrap();
        other.join().unwrap();
    }
}

#[test]
fn a_parked_driver_is_woken_by_its_timer() {
    for io in runnable() {
        run(io, async |_| {
            let mut driver = driver();
            for _ in 0..3 {
                let deadline = now() + Duration::from_millis(2);
                driver.set_timer(Some(deadline), now()).unwrap();
                while !driver.ready().await.unwrap().timer {}
                assert!(now() >= deadline);
            }
            assert!(driver.stats().wakeups >= 3);
        })
        .unwrap();
    }
}

#[test]
fn a_parked_driver_is_woken_by_datagrams() {
    for io in runnable() {
        let (sender, receiver) = mpsc::channel::<SocketAddr>();
        let echo = std::thread::spawn(move || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let peer = receiver.recv().unwrap();
            socket.connect(peer).unwrap();
            socket.set_read_timeout(Some(LONG)).unwrap();
            socket.send(b"begin").unwrap();
            let mut buffer = [0; 100];
            for _ in 0..100 {
                let length = socket.recv(&mut buffer).unwrap();
                socket.send(&buffer[..length]).unwrap();
            }
        });
        run(io, async move |_| {
            let mut driver = driver();
            let (id, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 7);
            sender.send(address).unwrap();
            let mut rounds = 0u8;
            park_until(&mut driver, |driver, _| {
                let mut peers = Vec::new();
                let _left = driver.receive(&mut |_, _, received| match received {
                    Received::Train(train) => peers.push(train.peer),
                    Received::Error(error) => panic!("{error}"),
                });
                for peer in peers {
                    if rounds < 100 {
                        driver.send(id, &to(peer, &[rounds])).unwrap();
                    }
                    rounds += 1;
                }
                rounds == 101
            })
            .await;
        })
        .unwrap();
        echo.join().unwrap();
    }
}

#[test]
fn dropping_ready_loses_nothing() {
    for io in runnable() {
        run(io, async |_| {
            let mut driver = driver();
            let waker = driver.waker();
            {
                let mut ready = std::pin::pin!(driver.ready());
                let polled = std::future::poll_fn(|cx| {
                    std::task::Poll::Ready(ready.as_mut().poll(cx).is_pending())
                });
                assert!(polled.await, "nothing is ready");
            }
            waker.wake();
            park_until(&mut driver, |_, woken| woken.mailbox).await;
        })
        .unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_sent_arrives_in_order(
        offloads in any::<bool>(),
        lengths in proptest::collection::vec(
            prop_oneof![Just(0usize), Just(1), Just(300), 1usize..2000],
            1..2 * TRAIN_SEGMENTS_MAX,
        ),
    ) {
        let mut driver = if offloads { driver() } else { without_offloads() };
        let (_, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
        let id = driver.connect(address, 2).unwrap();
        let datagrams: Vec<Vec<u8>> = lengths.iter().map(|&length| pattern(length)).collect();
        for portion in datagrams.chunks(50) {
            driver.send_vectored(id, portion).unwrap();
            let received = receive_datagrams(&mut driver, portion.len());
            prop_assert_eq!(received, portion);
        }
        prop_assert_eq!(driver.stats().sent_datagrams, lengths.len() as u64);
    }
}
