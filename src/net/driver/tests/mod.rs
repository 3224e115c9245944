//! The driver on real loopback sockets.

mod errors;
mod options;
mod park;
mod tcp;
mod trains;
mod turns;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Bytes, BytesMut};

use super::*;
use crate::net::clock::now;
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
            Received::Packets(_) => panic!("there is no TUN"),
            Received::Error(error) => panic!("{error}"),
        })
        .collect()
}

/// Receives until `count` datagrams have come, as trains.
fn receive_trains(driver: &mut Driver, count: usize) -> Vec<Train> {
    let all = receive_until(driver, |all| {
        let datagrams = all.iter().map(|(_, received)| match received {
            Received::Train(train) => train.datagram_count(),
            Received::Packets(_) => panic!("there is no TUN"),
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
