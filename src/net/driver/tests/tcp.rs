//! TCP: readiness without needless calls, every way in which a connection ends, and listeners.

use std::io::{IoSlice, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use super::*;
use crate::net::Network;
use crate::net::tcp::{TcpClose, TcpEvent, TcpId, TcpRead};

const LISTENER: u64 = 7;
const DIALLED: u64 = 8;

/// A driver that listens, and where.
fn listening() -> (Driver, TcpId, SocketAddr) {
    let mut driver = driver();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let id = driver.add_tcp_listener(listener, LISTENER).unwrap();
    let address = driver.tcp_local_addr(id).unwrap();
    (driver, id, address)
}

/// Waits for the next event.
#[track_caller]
fn event(driver: &mut Driver) -> (TcpId, u64, TcpEvent) {
    let deadline = now() + LONG;
    loop {
        if let Some(event) = driver.poll_tcp(now()) {
            return event;
        }
        assert!(now() < deadline, "no event");
        if !driver.has_tcp_events() {
            wait(driver, LONG);
        }
    }
}

/// Waits for an event of this socket that says that a read may find something.
#[track_caller]
fn until_readable(driver: &mut Driver, socket: TcpId) {
    loop {
        let (of, _, event) = event(driver);
        assert_eq!(of, socket, "{event:?}");
        if matches!(event, TcpEvent::Ready { readable: true, .. }) {
            return;
        }
    }
}

/// A connection that a driver has accepted, and its other end.
fn accepted() -> (Driver, TcpId, TcpStream) {
    let (mut driver, listener, address) = listening();
    let peer = TcpStream::connect(address).unwrap();
    peer.set_read_timeout(Some(LONG)).unwrap();
    let (of, tag, TcpEvent::Accepted { socket, peer: from }) = event(&mut driver) else {
        panic!("not accepted");
    };
    assert_eq!((of, tag), (listener, LISTENER));
    assert_eq!(from, peer.local_addr().unwrap());
    (driver, socket, peer)
}

/// A connection that a driver has asked for, and its other end.
fn dialled() -> (Driver, TcpId, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut driver = driver();
    let target = listener.local_addr().unwrap();
    let socket = driver.connect_tcp(target, DIALLED).unwrap();
    let (of, tag, event) = event(&mut driver);
    assert!(matches!(event, TcpEvent::Connected), "{event:?}");
    assert_eq!((of, tag), (socket, DIALLED));
    let (peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(LONG)).unwrap();
    (driver, socket, peer)
}

fn read(driver: &mut Driver, socket: TcpId, bytes_max: usize) -> io::Result<(TcpRead, Vec<u8>)> {
    let mut buffer = BytesMut::from(&b"before"[..]);
    let read = driver.read(socket, &mut buffer, bytes_max)?;
    assert!(buffer.starts_with(b"before"), "what was there stays");
    Ok((read, buffer[6..].to_vec()))
}

/// Reads until nothing is left, or to the end.
fn read_all(driver: &mut Driver, socket: TcpId) -> (TcpRead, Vec<u8>) {
    let mut all = Vec::new();
    loop {
        match read(driver, socket, 1000).unwrap() {
            (TcpRead::Bytes(length), bytes) => {
                assert_eq!(bytes.len(), length);
                all.extend(bytes);
            }
            (last, _) => return (last, all),
        }
    }
}

/// Reads `length` bytes, waiting for them.
fn read_exactly(driver: &mut Driver, socket: TcpId, length: usize) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let (last, bytes) = read_all(driver, socket);
        all.extend(bytes);
        assert_eq!(last, TcpRead::Blocked);
        if all.len() >= length {
            return all;
        }
        until_readable(driver, socket);
    }
}

fn write(driver: &mut Driver, socket: TcpId, data: &[u8]) -> io::Result<usize> {
    driver.write(socket, &[IoSlice::new(data)])
}

/// Writes until there is no more room; how much that was.
fn fill(driver: &mut Driver, socket: TcpId) -> usize {
    let block = pattern(1 << 20);
    let mut total = 0;
    loop {
        let written = write(driver, socket, &block).unwrap();
        total += written;
        if written < block.len() {
            return total;
        }
    }
}

/// Closes a std stream with RST.
fn reset(peer: TcpStream) {
    let peer = Socket::from(peer);
    peer.set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn bytes_travel_both_ways_and_blocked_calls_are_not_made() {
    for (mut driver, socket, mut peer) in [accepted(), dialled()] {
        assert_eq!(read(&mut driver, socket, 10).unwrap().0, TcpRead::Blocked);
        assert_eq!(driver.stats().tcp_read_calls, 0, "nothing was announced");

        peer.write_all(b"one two").unwrap();
        until_readable(&mut driver, socket);
        let first = read(&mut driver, socket, 3).unwrap();
        assert_eq!(first, (TcpRead::Bytes(3), b"one".to_vec()));
        assert_eq!(
            read_all(&mut driver, socket),
            (TcpRead::Blocked, b" two".to_vec())
        );
        // The second read brought less than it might have: there is no third.
        assert_eq!(driver.stats().tcp_read_calls, 2);
        assert_eq!(driver.stats().tcp_read_bytes, 7);

        let slices: Vec<_> = (0..200).map(|i| [i as u8; 3]).collect();
        let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        assert_eq!(driver.write(socket, &slices).unwrap(), 600);
        assert_eq!(driver.write(socket, &[]).unwrap(), 0);
        let mut got = [0; 600];
        peer.read_exact(&mut got).unwrap();
        assert!(got.chunks(3).enumerate().all(|(i, c)| c == [i as u8; 3]));
        assert_eq!(driver.stats().tcp_written_bytes, 600);
    }
}

#[test]
fn connections_and_listeners_have_names_tags_and_options() {
    let (mut driver, listener, address) = listening();
    // A UDP socket with the same slot and generation.
    let (udp, _) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    assert_eq!(
        (udp.slot, udp.generation),
        (listener.slot, listener.generation)
    );
    let dialled = driver.connect_tcp(address, DIALLED).unwrap();
    let mut accepted = None;
    let mut connected = false;
    while accepted.is_none() || !connected {
        match event(&mut driver) {
            (of, LISTENER, TcpEvent::Accepted { socket, .. }) => {
                assert_eq!(of, listener);
                accepted = Some(socket);
            }
            (of, DIALLED, TcpEvent::Connected) => {
                assert_eq!(of, dialled);
                connected = true;
            }
            other => panic!("{other:?}"),
        }
    }
    let accepted = accepted.unwrap();
    for id in [accepted, dialled] {
        let socket = &driver.tcp.find(id).unwrap().socket;
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(60)
        );
    }
    assert_eq!(driver.tcp_local_addr(accepted).unwrap(), address);
    assert_eq!(driver.tcp_socket_count(), 3);

    driver.set_tcp_tag(accepted, 99);
    assert_eq!(write(&mut driver, dialled, b"hello").unwrap(), 5);
    let (of, tag, event) = event(&mut driver);
    assert_eq!((of, tag), (accepted, 99), "{event:?}");

    driver.close(accepted, TcpClose::Orderly);
    driver.close(accepted, TcpClose::Orderly);
    assert_eq!(driver.tcp_socket_count(), 2);
    assert!(driver.tcp_local_addr(accepted).is_err());
    driver.set_tcp_tag(accepted, 1);
    driver.shutdown(accepted);
    let stale = write(&mut driver, accepted, b"x").unwrap_err();
    assert_eq!(stale.kind(), io::ErrorKind::NotFound);
    let stale = read(&mut driver, accepted, 1).unwrap_err();
    assert_eq!(stale.kind(), io::ErrorKind::NotFound);
}

#[test]
fn an_end_right_behind_the_bytes_is_found() {
    let (mut driver, socket, mut peer) = accepted();
    peer.write_all(b"last words").unwrap();
    drop(peer);
    until_readable(&mut driver, socket);
    let mut all = Vec::new();
    loop {
        let (last, bytes) = read_all(&mut driver, socket);
        all.extend(bytes);
        if last == TcpRead::End {
            break;
        }
        until_readable(&mut driver, socket);
    }
    assert_eq!(all, b"last words");
    assert_eq!(read(&mut driver, socket, 10).unwrap().0, TcpRead::End);
}

#[test]
fn bytes_behind_urgent_data_are_found() {
    let (mut driver, socket, mut peer) = accepted();
    let socket_of_peer = Socket::from(peer.try_clone().unwrap());
    peer.write_all(b"before ").unwrap();
    socket_of_peer.send_out_of_band(b"!").unwrap();
    peer.write_all(b"behind").unwrap();
    until_readable(&mut driver, socket);
    assert_eq!(read_exactly(&mut driver, socket, 13), b"before behind");
}

#[test]
fn a_full_connection_blocks_until_the_peer_reads() {
    let (mut driver, socket, mut peer) = accepted();
    let total = fill(&mut driver, socket);
    let calls = driver.stats().tcp_write_calls;
    assert_eq!(write(&mut driver, socket, b"more").unwrap(), 0);
    assert_eq!(driver.stats().tcp_write_calls, calls, "it would block");

    let mut rest = vec![0; total];
    peer.read_exact(&mut rest).unwrap();
    let (of, _, told) = event(&mut driver);
    assert_eq!(of, socket);
    let expected = TcpEvent::Ready {
        readable: false,
        writable: true,
    };
    assert_eq!(format!("{told:?}"), format!("{expected:?}"));
    assert_eq!(write(&mut driver, socket, b"more").unwrap(), 4);
}

#[test]
fn directions_end_one_by_one() {
    let (mut driver, socket, mut peer) = accepted();
    driver.shutdown(socket);
    assert_eq!(peer.read(&mut [0; 10]).unwrap(), 0);
    peer.write_all(b"still there").unwrap();
    until_readable(&mut driver, socket);
    assert_eq!(read_exactly(&mut driver, socket, 11), b"still there");
    peer.shutdown(Shutdown::Write).unwrap();
    until_readable(&mut driver, socket);
    assert_eq!(read(&mut driver, socket, 10).unwrap().0, TcpRead::End);
}

#[test]
fn a_reset_is_an_error_and_stays_one() {
    // Whoever calls first gets the error from the kernel; the other direction must not see an end.
    for write_first in [false, true] {
        let (mut driver, socket, peer) = accepted();
        reset(peer);
        until_readable(&mut driver, socket);
        if write_first {
            let error = write(&mut driver, socket, b"x").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        for _ in 0..2 {
            let error = read(&mut driver, socket, 10).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        assert!(write(&mut driver, socket, b"x").is_err());
    }
}

#[test]
fn a_peer_that_stops_listening_has_still_ended_well() {
    let (mut driver, socket, mut peer) = accepted();
    peer.write_all(b"answer").unwrap();
    drop(peer);
    until_readable(&mut driver, socket);
    // What is written now meets no reader: RST, and then EPIPE.
    let deadline = now() + LONG;
    while write(&mut driver, socket, b"x").is_ok() {
        assert!(now() < deadline, "the peer is gone");
        wait(&mut driver, Duration::from_millis(1));
    }
    let mut all = Vec::new();
    loop {
        match read_all(&mut driver, socket) {
            (TcpRead::End, bytes) => {
                all.extend(bytes);
                break;
            }
            (_, bytes) => all.extend(bytes),
        }
    }
    assert_eq!(all, b"answer");
}

#[test]
fn closing_is_orderly_or_not() {
    for how in [TcpClose::Orderly, TcpClose::Abort] {
        let (mut driver, socket, mut peer) = accepted();
        assert_eq!(write(&mut driver, socket, b"bye").unwrap(), 3);
        let mut bye = [0; 3];
        peer.read_exact(&mut bye).unwrap();
        driver.close(socket, how);
        let end = peer.read(&mut [0; 10]);
        match how {
            TcpClose::Orderly => assert_eq!(end.unwrap(), 0),
            TcpClose::Abort => {
                assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            }
        }
        assert!(driver.poll_tcp(now()).is_none());
    }
}

#[test]
fn what_is_closed_between_two_events_brings_nothing_more() {
    let (mut driver, listener, address) = listening();
    let _peers = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    let sockets = [(); 2].map(|()| match event(&mut driver) {
        (_, _, TcpEvent::Accepted { socket, .. }) => socket,
        other => panic!("{other:?}"),
    });
    for mut peer in &_peers {
        peer.write_all(b"x").unwrap();
    }
    let (first, _, _) = event(&mut driver);
    let second = sockets.into_iter().find(|&id| id != first).unwrap();
    wait(&mut driver, Duration::ZERO);
    driver.close(second, TcpClose::Abort);
    driver.close(listener, TcpClose::Orderly);
    assert!(driver.poll_tcp(now()).is_none());
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
}

#[test]
fn a_refused_connection_fails() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = nobody.local_addr().unwrap();
    drop(nobody);
    let mut driver = driver();
    // The own host may answer before the call returns.
    let error = match driver.connect_tcp(address, DIALLED) {
        Err(error) => error,
        Ok(_) => match event(&mut driver) {
            (_, DIALLED, TcpEvent::Failed(error)) => error,
            other => panic!("{other:?}"),
        },
    };
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(driver.tcp_socket_count(), 0);
    assert_eq!(driver.stats().tcp_connects_failed, 1);
}

#[test]
fn a_connection_that_fails_later_says_why() {
    let busy = Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    busy.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    busy.listen(0).unwrap();
    let address = busy.local_addr().unwrap().as_socket().unwrap();
    // Its queue has room for one, and nobody takes it: the kernel does not answer a second.
    let _first = TcpStream::connect(address).unwrap();
    let mut driver = driver();
    let socket = driver.connect_tcp(address, DIALLED).unwrap();
    wait(&mut driver, Duration::ZERO);
    assert!(driver.poll_tcp(now()).is_none());
    assert_eq!(write(&mut driver, socket, b"x").unwrap(), 0);
    assert_eq!(read(&mut driver, socket, 1).unwrap().0, TcpRead::Blocked);
    drop(busy);
    // The next attempt of the kernel finds nobody.
    let (of, tag, TcpEvent::Failed(error)) = event(&mut driver) else {
        panic!("connected to nobody");
    };
    assert_eq!((of, tag), (socket, DIALLED));
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(driver.tcp_socket_count(), 0);
}

/// One end of a conversation that relies on nothing but what the driver said.
struct End {
    socket: TcpId,
    readable: bool,
    writable: bool,
    sent: usize,
    received: Vec<u8>,
    ended: bool,
}

impl End {
    /// Whether there may be something to do without another event.
    fn is_busy(&self, data: &[u8]) -> bool {
        (self.readable && !self.ended) || (self.writable && self.sent < data.len())
    }

    /// Reads and writes a little, in sizes that differ from call to call.
    fn go_on(&mut self, driver: &mut Driver, data: &[u8], round: usize) {
        if self.readable && !self.ended {
            let bytes_max = 1 + round * 7919 % 30_000;
            let mut buffer = BytesMut::new();
            match driver.read(self.socket, &mut buffer, bytes_max).unwrap() {
                TcpRead::Bytes(_) => self.received.extend_from_slice(&buffer),
                TcpRead::Blocked => self.readable = false,
                TcpRead::End => self.ended = true,
            }
        }
        if self.writable && self.sent < data.len() {
            let piece = &data[self.sent..data.len().min(self.sent + 1 + round * 104_729 % 90_000)];
            let written = write(driver, self.socket, piece).unwrap();
            self.sent += written;
            self.writable = written == piece.len();
            if self.sent == data.len() {
                driver.shutdown(self.socket);
            }
        }
    }
}

#[test]
fn nothing_is_lost_and_nobody_waits_for_ever() {
    let (mut driver, _, address) = listening();
    let dialled = driver.connect_tcp(address, DIALLED).unwrap();
    let data = pattern(8 << 20);
    let mut ends: Vec<End> = Vec::new();
    let deadline = now() + LONG;
    for round in 0.. {
        assert!(now() < deadline, "one waits for the other");
        while let Some((socket, _, event)) = driver.poll_tcp(now()) {
            let socket = match event {
                TcpEvent::Accepted { socket, .. } => socket,
                TcpEvent::Connected => dialled,
                TcpEvent::Ready { readable, writable } => {
                    let end = ends.iter_mut().find(|end| end.socket == socket).unwrap();
                    end.readable |= readable;
                    end.writable |= writable;
                    continue;
                }
                TcpEvent::Failed(error) | TcpEvent::Broken(error) => panic!("{error}"),
            };
            ends.push(End {
                socket,
                readable: false,
                writable: true,
                sent: 0,
                received: Vec::new(),
                ended: false,
            });
        }
        // The second reads only now and then, so that the first runs into its bounds.
        let acting = if round % 5 == 0 { 2 } else { 1 };
        for end in ends.iter_mut().take(acting) {
            end.go_on(&mut driver, &data, round);
        }
        if ends.len() == 2 && ends.iter().all(|end| end.ended) {
            break;
        }
        let busy = ends.iter().any(|end| end.is_busy(&data));
        wait(&mut driver, if busy { Duration::ZERO } else { LONG });
    }
    for end in &ends {
        assert!(end.received == data && end.sent == data.len());
    }
}

/// An end, and a reset behind it, before or after the end was read.
#[test]
fn a_reset_behind_an_end_is_told() {
    for reads_first in [true, false] {
        let (mut driver, _, address) = listening();
        let peer = TcpStream::connect(address).unwrap();
        let (_, _, TcpEvent::Accepted { socket, .. }) = event(&mut driver) else {
            panic!("not accepted");
        };
        peer.shutdown(Shutdown::Write).unwrap();
        let mut buffer = BytesMut::new();
        let mut read = |driver: &mut Driver| driver.read(socket, &mut buffer, 100).unwrap();
        let reset = |peer: TcpStream| {
            let peer = Socket::from(peer);
            peer.set_linger(Some(Duration::ZERO)).unwrap();
        };
        if reads_first {
            assert!(matches!(
                event(&mut driver).2,
                TcpEvent::Ready { readable: true, .. }
            ));
            assert_eq!(read(&mut driver), TcpRead::End);
            reset(peer);
        } else {
            reset(peer);
            assert!(matches!(
                event(&mut driver).2,
                TcpEvent::Ready { readable: true, .. }
            ));
            assert_eq!(read(&mut driver), TcpRead::End);
        }
        let broken = loop {
            // That there is room is told first where both were collected at once.
            match event(&mut driver).2 {
                TcpEvent::Broken(error) => break error,
                TcpEvent::Ready { .. } => {}
                other @ (TcpEvent::Accepted { .. } | TcpEvent::Connected | TcpEvent::Failed(_)) => {
                    panic!("{other:?}")
                }
            }
        };
        assert_eq!(broken.kind(), io::ErrorKind::BrokenPipe, "{reads_first}");
        let written = driver.write(socket, &[IoSlice::new(b"late")]);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        assert!(driver.poll_tcp(now()).is_none(), "once");
    }
}

/// Both directions end in order: nothing is broken.
#[test]
fn two_ends_are_no_reset() {
    let (mut driver, _, address) = listening();
    let peer = TcpStream::connect(address).unwrap();
    let (_, _, TcpEvent::Accepted { socket, .. }) = event(&mut driver) else {
        panic!("not accepted");
    };
    peer.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(
        event(&mut driver).2,
        TcpEvent::Ready { readable: true, .. }
    ));
    let mut buffer = BytesMut::new();
    assert_eq!(driver.read(socket, &mut buffer, 100).unwrap(), TcpRead::End);
    driver.shutdown(socket);
    wait(&mut driver, LONG);
    while let Some((_, _, event)) = driver.poll_tcp(now()) {
        assert!(matches!(event, TcpEvent::Ready { .. }), "{event:?}");
    }
}

#[test]
fn a_crowd_is_accepted_over_several_turns() {
    const CROWD: usize = 100;
    let mut driver = driver();
    let group = crate::net::listen::bind_tcp_group(
        (Ipv4Addr::LOCALHOST, 0).into(),
        1,
        crate::net::listen::Sharing::default(),
    )
    .unwrap();
    let address = group[0].local_addr().unwrap();
    for listener in group {
        driver.add_tcp_listener(listener, LISTENER).unwrap();
    }
    let _crowd: Vec<_> = (0..CROWD)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let mut turns = Vec::new();
    while turns.iter().sum::<usize>() < CROWD {
        // One event announces them all, and what is left after a turn keeps the worker from parking.
        if turns.is_empty() {
            wait(&mut driver, LONG);
        }
        assert!(driver.has_tcp_events());
        let mut accepted = 0;
        while let Some((_, _, event)) = driver.poll_tcp(now()) {
            assert!(matches!(event, TcpEvent::Accepted { .. }), "{event:?}");
            accepted += 1;
        }
        turns.push(accepted);
    }
    assert_eq!(turns, [64, 36]);
    assert!(!driver.has_tcp_events());
    assert_eq!(driver.stats().tcp_accepted, CROWD as u64);
}

#[test]
fn a_listener_that_cannot_accept_waits_instead_of_spinning() {
    let (mut driver, listener, _) = listening();
    // As good as being out of descriptors, which would concern the other tests too: accepting fails at every call.
    let socket = &driver.tcp.find(listener).unwrap().socket;
    socket.shutdown(Shutdown::Read).unwrap();
    wait(&mut driver, LONG);
    let start = now();
    assert!(driver.poll_tcp(start).is_none());
    assert_eq!(driver.stats().tcp_accept_failed, 1);
    assert!(!driver.has_tcp_events());
    assert!(driver.poll_tcp(start).is_none());
    assert_eq!(driver.stats().tcp_accept_failed, 1, "not before its time");

    // Parking ends in time for it.
    driver.set_timer(Some(start + LONG), start).unwrap();
    assert!(driver.collect(LONG / 2).unwrap().timer);
    assert!(driver.poll_tcp(now()).is_none());
    assert_eq!(driver.stats().tcp_accept_failed, 2);

    // A descriptor that comes free is as good.
    let (udp, _) = shared(&mut driver, Ipv4Addr::LOCALHOST, 1);
    driver.remove(udp);
    assert!(driver.has_tcp_events());
    assert!(driver.poll_tcp(start).is_none());
    assert_eq!(driver.stats().tcp_accept_failed, 3);
}

#[test]
fn both_families_are_named_as_they_are() {
    if !has_ipv6() {
        return;
    }
    let any = (Ipv6Addr::UNSPECIFIED, 0).into();
    let group = crate::net::listen::bind_tcp_group(
        any,
        1,
        crate::net::listen::Sharing {
            dual_stack: true,
            ..crate::net::listen::Sharing::default()
        },
    )
    .unwrap();
    let mut driver = driver();
    let port = group[0].local_addr().unwrap().port();
    for listener in group {
        driver.add_tcp_listener(listener, LISTENER).unwrap();
    }
    let peer = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (_, _, TcpEvent::Accepted { socket, peer: from }) = event(&mut driver) else {
        panic!("not accepted");
    };
    assert_eq!(from, peer.local_addr().unwrap());
    assert_eq!(
        driver.tcp_local_addr(socket).unwrap(),
        peer.peer_addr().unwrap()
    );
}
