//! What is sent arrives: trains, single datagrams, sizes, ECN, addresses.

use proptest::prelude::*;

use super::*;

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
    let group = crate::net::listen::bind_group(
        wildcard,
        1,
        crate::net::listen::Sharing {
            dual_stack: true,
            ..crate::net::listen::Sharing::default()
        },
    )
    .unwrap();
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
fn nothing_is_marked_towards_targets() {
    // spec: 9298-6.2-a, 9298-6.2-b
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
