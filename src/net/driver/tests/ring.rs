//! Connected sockets through a ring: what it does differently, and what it must not.

use super::*;

/// A driver with a ring of `buffers` buffers, not more; `None` where this machine forbids rings.
fn ring(buffers: u16) -> Option<Driver> {
    check_ring().ok()?;
    Some(with_ring(RingConfig {
        buffers,
        buffers_max: buffers,
    }))
}

fn bytes(contents: &[u8]) -> Bytes {
    Bytes::copy_from_slice(contents)
}

/// A connected socket and the address that its peer sees.
fn connect(driver: &mut Driver, target: SocketAddr, tag: u64) -> (SocketId, SocketAddr) {
    let id = driver.connect(target, tag).unwrap();
    let local = driver.local_addr(id).unwrap();
    (id, local)
}

#[test]
fn trains_go_both_ways() {
    let Some(mut driver) = ring(8) else { return };
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let (id, local) = connect(&mut driver, address, 2);
    let datagrams: Vec<Bytes> = (0..20).map(|_| pattern(1200).into()).collect();
    driver.send_vectored(id, &datagrams).unwrap();
    assert_eq!(
        driver.stats().sent_datagrams,
        0,
        "they leave at the end of the turn"
    );
    let up = receive_trains(&mut driver, 20);
    assert_eq!(
        (up.len(), up[0].datagram_count(), up[0].peer),
        (1, 20, local)
    );
    let stats = driver.stats();
    assert_eq!((stats.send_calls, stats.sent_datagrams), (1, 20));
    assert_eq!(stats.sent_bytes, 20 * 1200);

    for _ in 0..3 {
        let contents = pattern(30 * 1000 + 7);
        let outgoing = Outgoing {
            segment_size: Some(1000),
            ..to(local, &contents)
        };
        driver.send(target, &outgoing).unwrap();
        let down = receive_trains(&mut driver, 31);
        assert_eq!((down.len(), down[0].segment_size), (1, 1000));
        assert_eq!((down[0].peer, down[0].ecn), (address, None));
        assert_eq!(down[0].data, contents);
    }
    assert_eq!(driver.stats().truncated, 0);
    assert_eq!(
        driver.stats().ring_rearmed,
        0,
        "one receive for all of them"
    );
}

#[test]
fn a_ring_without_buffers_goes_on_when_it_has_some() {
    const SOCKETS: usize = 40;
    let Some(mut driver) = ring(4) else { return };
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, u64::MAX);
    let locals: Vec<_> = (0..SOCKETS as u64)
        .map(|tag| connect(&mut driver, address, tag).1)
        .collect();
    end_turn(&mut driver);
    for round in 1..=3u8 {
        for local in &locals {
            driver.send(target, &to(*local, &[round])).unwrap();
        }
        let mut tags = Vec::new();
        for (tag, received) in receive_until(&mut driver, |all| all.len() == SOCKETS) {
            let Received::Train(train) = received else {
                panic!("{received:?}")
            };
            assert_eq!(train.data, [round][..]);
            tags.push(tag);
        }
        tags.sort_unstable();
        assert!(
            tags.into_iter().eq(0..SOCKETS as u64),
            "each has got its own"
        );
    }
    let stats = driver.stats();
    assert!(stats.ring_no_buffers > 0, "{stats:?}");
    assert!(stats.ring_rearmed >= stats.ring_no_buffers, "{stats:?}");
}

/// Every one of these sockets runs out of buffers at once, which is more than the completion queue holds.
#[test]
fn more_completions_than_the_queue_holds_are_not_lost() {
    const SOCKETS: usize = 4500;
    let limit = sys::raise_file_limit().unwrap();
    let Some(mut driver) = ring(4).filter(|_| limit > 2 * SOCKETS as u64) else {
        return;
    };
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, u64::MAX);
    let locals: Vec<_> = (0..SOCKETS as u64)
        .map(|tag| connect(&mut driver, address, tag).1)
        .collect();
    while driver.has_work() {
        end_turn(&mut driver);
    }
    for local in &locals {
        driver.send(target, &to(*local, b"x")).unwrap();
    }
    receive_datagrams(&mut driver, SOCKETS);
    let stats = driver.stats();
    assert!(stats.ring_no_buffers > 4096, "{stats:?}");
    assert!(driver.ring.as_mut().unwrap().quiesce());
}

#[test]
fn buffers_join_when_small_datagrams_run_out_of_them() {
    const SOCKETS: usize = 200;
    if check_ring().is_err() {
        return;
    }
    let mut driver = with_ring(RingConfig {
        buffers: 2,
        buffers_max: 256,
    });
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, u64::MAX);
    let locals: Vec<_> = (0..SOCKETS as u64)
        .map(|tag| connect(&mut driver, address, tag).1)
        .collect();
    end_turn(&mut driver);
    let mut starved = Vec::new();
    for _ in 0..10 {
        let before = driver.stats().ring_no_buffers;
        for local in &locals {
            driver.send(target, &to(*local, b"small")).unwrap();
        }
        receive_datagrams(&mut driver, SOCKETS);
        starved.push(driver.stats().ring_no_buffers - before);
    }
    assert!(starved[0] > 0, "{starved:?}");
    assert_eq!(starved[9], 0, "{starved:?}");
}

#[test]
fn a_socket_removed_with_operations_under_way_is_gone() {
    let Some(mut driver) = ring(4) else { return };
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let (old, local) = connect(&mut driver, address, 2);
    end_turn(&mut driver);
    // In the backlog, in the socket behind the last buffer, and on the way out.
    for _ in 0..10 {
        driver.send(target, &to(local, b"late")).unwrap();
    }
    end_turn(&mut driver);
    driver.send_vectored(old, &[bytes(b"farewell")]).unwrap();
    assert!(driver.remove(old));
    assert!(!driver.remove(old));
    let (new, _) = connect(&mut driver, address, 3);
    assert_eq!(new.slot, old.slot, "the slot is used again");
    let result = driver.send_vectored(old, &[bytes(b"stale")]);
    assert!(matches!(result, Err(SendError::Stale)), "{result:?}");

    // What was sent before is sent, and nothing of the old socket is heard.
    let all = receive_until(&mut driver, |all| !all.is_empty());
    assert_eq!(all[0].0, 1);
    assert_eq!(trains(all)[0].data, b"farewell"[..]);
    end_turn(&mut driver);
    let leftovers = driver.ring.as_ref().unwrap().leftovers();
    assert_eq!(leftovers, 0, "its descriptor is closed");

    driver.send_vectored(new, &[bytes(b"fresh")]).unwrap();
    let fresh = receive_trains(&mut driver, 1);
    driver.send(target, &to(fresh[0].peer, b"answer")).unwrap();
    let all = receive_until(&mut driver, |all| !all.is_empty());
    assert_eq!(all[0].0, 3);
    assert_eq!(trains(all)[0].data, b"answer"[..]);
}

#[test]
fn sockets_that_come_and_go_leave_nothing_behind() {
    let Some(mut driver) = ring(4) else { return };
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    for round in 0..300u64 {
        let (id, local) = connect(&mut driver, address, 2);
        if round % 3 > 0 {
            end_turn(&mut driver);
        }
        driver.send(target, &to(local, b"x")).unwrap();
        if round % 2 > 0 {
            driver
                .send_vectored(id, &[bytes(b"y"), bytes(b"z")])
                .unwrap();
        }
        assert!(driver.remove(id));
        let _left = driver.receive(&mut |_, tag, _| assert_eq!(tag, 1));
    }
    for _ in 0..3 {
        end_turn(&mut driver);
        let _left = driver.receive(&mut |_, tag, _| assert_eq!(tag, 1));
    }
    assert!(!driver.has_work());
    let held = driver.ring.as_ref().unwrap().leftovers();
    assert_eq!(
        held, 0,
        "every receive has ended, every descriptor is closed"
    );
}

#[test]
fn a_driver_dropped_with_operations_under_way_ends_them() {
    for queued in [false, true] {
        let Some(mut driver) = ring(16) else { return };
        let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
        let sockets: Vec<_> = (0..50)
            .map(|tag| connect(&mut driver, address, tag))
            .collect();
        end_turn(&mut driver);
        for (id, local) in &sockets {
            driver.send(target, &to(*local, b"down")).unwrap();
            driver.send_vectored(*id, &[bytes(b"up")]).unwrap();
        }
        if !queued {
            end_turn(&mut driver);
        }
        assert!(driver.ring.as_mut().unwrap().quiesce());
    }
}

#[test]
fn more_than_a_batch_leaves_in_order() {
    let Some(mut driver) = ring(16) else { return };
    let (_, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let (id, _) = connect(&mut driver, address, 2);
    // Growing ones are singles: none is a train with the next.
    let datagrams: Vec<Bytes> = (1..=600).map(|length| pattern(length).into()).collect();
    driver.send_vectored(id, &datagrams).unwrap();
    assert_eq!(receive_datagrams(&mut driver, 600), datagrams);
    let stats = driver.stats();
    assert_eq!((stats.sent_datagrams, stats.send_calls), (600, 600));
    assert_eq!(stats.ring_bypassed, 0);
    assert!(stats.ring_submissions <= 4, "{stats:?}");
}

#[test]
fn without_coalescing_every_datagram_has_its_own_receive() {
    if check_ring().is_err() {
        return;
    }
    let mut driver = Driver::new(DriverConfig {
        gro: Offload::Off,
        ring: Some(RingConfig::default()),
        ..DriverConfig::default()
    })
    .unwrap();
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let (_, local) = connect(&mut driver, address, 2);
    let contents = pattern(5 * 900);
    let outgoing = Outgoing {
        segment_size: Some(900),
        ..to(local, &contents)
    };
    driver.send(target, &outgoing).unwrap();
    driver.send(target, &to(local, b"")).unwrap();
    driver.send(target, &to(local, &pattern(65_507))).unwrap();
    let received = receive_datagrams(&mut driver, 7);
    assert_eq!(received[..5].concat(), contents);
    assert_eq!((received[5].len(), received[6].len()), (0, 65_507));
    assert_eq!(driver.stats().received_trains, 0);
}

#[test]
fn a_flooded_ring_does_not_starve_a_shared_socket() {
    const FLOOD: usize = 60;
    if check_ring().is_err() {
        return;
    }
    let mut driver = Driver::new(DriverConfig {
        turn_budget_datagrams: 8,
        ring: Some(RingConfig::default()),
        ..DriverConfig::default()
    })
    .unwrap();
    let (target, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let (_, local) = connect(&mut driver, address, 2);
    end_turn(&mut driver);
    for _ in 0..FLOOD {
        driver.send(target, &to(local, b"flood")).unwrap();
        driver.send(target, &to(address, b"flood")).unwrap();
    }
    end_turn(&mut driver);
    let mut counts = [0; 3];
    let left = driver.receive(&mut |_, tag, _| counts[tag as usize] += 1);
    assert_eq!((counts, left), ([0, 4, 4], true));
    let rest = receive_until(&mut driver, |all| all.len() == 2 * FLOOD - 8);
    assert_eq!(rest.iter().filter(|(tag, _)| *tag == 2).count(), FLOOD - 4);
}

#[test]
fn sends_that_fail_are_counted_and_the_others_arrive() {
    let Some(mut driver) = ring(4) else { return };
    let (_, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    let (id, _) = connect(&mut driver, address, 2);
    let large = Bytes::from(pattern(65_508));
    let small = bytes(b"small");
    let datagrams = [large.clone(), small.clone(), large, small];
    driver.send_vectored(id, &datagrams).unwrap();
    assert_eq!(receive_datagrams(&mut driver, 2), [&b"small"[..]; 2]);
    let stats = driver.stats();
    assert_eq!((stats.sent_datagrams, stats.send_too_large), (2, 2));
    assert_eq!(stats.segmentation_failures, 0);

    // The kernel cannot segment what it must not checksum.
    let socket = &driver.entry(id).unwrap().socket;
    sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NO_CHECK, 1).unwrap();
    for _ in 0..2 {
        let datagrams = vec![Bytes::from(pattern(800)); 5];
        driver.send_vectored(id, &datagrams).unwrap();
        assert_eq!(receive_datagrams(&mut driver, 5), datagrams);
        assert_eq!(driver.stats().segmentation_failures, 1);
    }
}
