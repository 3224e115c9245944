//! Options of sockets towards targets, as the kernel and the target see them.

use std::net::TcpListener;

use super::*;
use crate::net::SocketOptions;

const BYTES: usize = 40_000;

/// What the kernel says of a socket.
fn look(socket: &Socket, options: &SocketOptions, target: SocketAddr) {
    let local = socket.local_addr().unwrap().as_socket().unwrap();
    if let Some(address) = options.local_address {
        assert_eq!(local.ip(), address);
        assert_ne!(local.port(), 0);
    }
    // The kernel counts its own bookkeeping, and reports twice the size (socket(7)).
    let buffers = (
        socket.recv_buffer_size().unwrap(),
        socket.send_buffer_size().unwrap(),
    );
    let are_small = options.receive_buffer_bytes.is_some();
    assert_eq!(buffers == (2 * BYTES, 2 * BYTES), are_small, "{buffers:?}");
    let hops = match target {
        SocketAddr::V4(_) => socket.ttl_v4(),
        SocketAddr::V6(_) => socket.unicast_hops_v6(),
    };
    assert_eq!(hops.unwrap() == 5, options.ttl.is_some());
}

fn all(local_address: &str) -> SocketOptions {
    SocketOptions {
        local_address: Some(local_address.parse().unwrap()),
        receive_buffer_bytes: Some(BYTES),
        send_buffer_bytes: Some(BYTES),
        ttl: Some(5),
        nagle: true,
        mark: None,
    }
}

#[test]
fn udp_options_take_effect() {
    let mut driver = driver();
    for (target, local) in [("127.0.0.1:0", "127.0.0.2"), ("[::1]:0", "::1")] {
        let target = UdpSocket::bind(target).unwrap();
        let address = target.local_addr().unwrap();
        for options in [SocketOptions::default(), all(local)] {
            let id = driver.connect_with(address, &options, 1).unwrap();
            look(&driver.entry(id).unwrap().socket, &options, address);
            driver.send(id, &connected(b"hello")).unwrap();
            let (_, from) = target.recv_from(&mut [0; 10]).unwrap();
            assert_eq!(from, driver.local_addr(id).unwrap());
        }
    }
}

#[test]
fn tcp_options_take_effect() {
    let mut driver = driver();
    for (target, local) in [("127.0.0.1:0", "127.0.0.2"), ("[::1]:0", "::1")] {
        let target = TcpListener::bind(target).unwrap();
        let address = target.local_addr().unwrap();
        for options in [SocketOptions::default(), all(local)] {
            let id = driver.connect_tcp_with(address, &options, 1).unwrap();
            let (_, from) = target.accept().unwrap();
            assert_eq!(from, driver.tcp_local_addr(id).unwrap());
            let socket = &driver.tcp.find(id).unwrap().socket;
            look(socket, &options, address);
            assert_eq!(socket.tcp_nodelay().unwrap(), !options.nagle);
        }
    }
}

#[test]
fn options_that_cannot_be_had_are_errors() {
    let mut driver = driver();
    let target = "127.0.0.1:9".parse().unwrap();
    let local = |address: &str| SocketOptions {
        local_address: Some(address.parse().unwrap()),
        ..SocketOptions::default()
    };
    let ttl = |ttl| SocketOptions {
        ttl: Some(ttl),
        ..SocketOptions::default()
    };
    for (options, code) in [
        (local("::1"), Some(libc::ENETUNREACH)),
        (local("192.0.2.77"), Some(libc::EADDRNOTAVAIL)),
        (ttl(0), Some(libc::EINVAL)),
        (ttl(256), Some(libc::EINVAL)),
        (ttl(u32::MAX), None),
    ] {
        let udp = driver.connect_with(target, &options, 1).unwrap_err();
        let tcp = driver.connect_tcp_with(target, &options, 1).unwrap_err();
        assert_eq!([udp, tcp].map(|error| error.raw_os_error()), [code; 2]);
    }
    assert_eq!((driver.socket_count(), driver.tcp_socket_count()), (0, 0));
}

/// Whether a process may mark packets is the system's to say; it is told either way.
#[test]
fn a_mark_is_set_or_refused() {
    let mut driver = driver();
    let options = SocketOptions {
        mark: Some(0x8000_0007),
        ..SocketOptions::default()
    };
    match driver.connect_with("127.0.0.1:9".parse().unwrap(), &options, 1) {
        Ok(id) => {
            let mark = driver.entry(id).unwrap().socket.mark();
            assert_eq!(mark.unwrap(), 0x8000_0007);
        }
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
    }
}
