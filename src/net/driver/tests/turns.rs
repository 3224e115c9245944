//! Many sockets: identity, budgets, fairness.

use std::collections::HashMap;

use super::*;

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

#[test]
fn a_removed_socket_is_gone_for_good() {
    let mut driver = driver();
    let (old, address) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    driver.send(old, &to(address, b"to myself")).unwrap();
    wait(&mut driver, LONG);
    assert!(!driver.ready.is_empty());
    assert!(driver.remove(old));
    assert_eq!(driver.socket_count(), 0);
    let left = driver.receive(&mut |_, _, received| panic!("{received:?}"));
    assert!(!left);

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
