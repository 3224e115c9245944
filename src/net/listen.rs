//! Listening sockets: several on one address, one for each worker.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Socket, Type};

/// Connections that wait to be accepted, per socket; the system may allow fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;
/// How many ports [`bind_both`] tries when any will do.
const PORT_TRIES: usize = 16;

/// With whom an address is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// An IPv6 socket accepts IPv4 too, as mapped addresses.
    pub dual_stack: bool,
    /// Other groups of the same user that say so as well may have the address too, and the kernel spreads clients over
    /// all sockets. Otherwise the group is exclusive: it fails if anybody listens there already.
    pub reuseport: bool,
}

/// Binds `count` UDP sockets to the same address as one SO_REUSEPORT group, in order: unless it is shared with others,
/// the first is socket 0 of a [`steer`](super::steer) program. With port 0 the first picks a port and the others
/// follow.
///
/// Give the sockets to [`Driver::add`](super::Driver::add), which sets the options and the buffer sizes.
///
/// # Errors
/// With the address in the text: `listen on 127.0.0.1:443: address in use`.
pub fn bind_group(
    address: SocketAddr,
    count: usize,
    sharing: Sharing,
) -> io::Result<Vec<UdpSocket>> {
    let group = bind_all(address, count, sharing, Type::DGRAM);
    let group = group.map_err(|error| explain(address, &error))?;
    Ok(group.into_iter().map(UdpSocket::from).collect())
}

/// Binds `count` listening TCP sockets to the same address, among which the kernel spreads the connections; otherwise
/// as [`bind_group`]. An address that only connections of an earlier process still use is free.
///
/// Give the sockets to [`Driver::add_tcp_listener`](super::Driver::add_tcp_listener).
///
/// # Errors
/// As [`bind_group`].
pub fn bind_tcp_group(
    address: SocketAddr,
    count: usize,
    sharing: Sharing,
) -> io::Result<Vec<TcpListener>> {
    let group = bind_all(address, count, sharing, Type::STREAM);
    let group = group.map_err(|error| explain(address, &error))?;
    Ok(group.into_iter().map(TcpListener::from).collect())
}

/// Binds a group of each kind to one address and one port number, as HTTP/3 beside HTTP/2 wants it. With port 0 a port
/// is picked that is free for both.
///
/// # Errors
/// As [`bind_group`].
pub fn bind_both(
    address: SocketAddr,
    count: usize,
    sharing: Sharing,
) -> io::Result<(Vec<UdpSocket>, Vec<TcpListener>)> {
    // The groups that found the TCP side taken stay bound until the end, so that no try gets the same port.
    let mut passed_over = Vec::new();
    loop {
        let datagrams = bind_group(address, count, sharing)?;
        let chosen = match datagrams.first() {
            Some(first) => SocketAddr::new(address.ip(), first.local_addr()?.port()),
            None => address,
        };
        match bind_tcp_group(chosen, count, sharing) {
            Ok(streams) => return Ok((datagrams, streams)),
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && address.port() == 0
                    && passed_over.len() + 1 < PORT_TRIES =>
            {
                passed_over.push(datagrams);
            }
            Err(error) => return Err(error),
        }
    }
}

fn explain(address: SocketAddr, error: &io::Error) -> io::Error {
    let kind = error.kind();
    // The names of these kinds are shorter than the system's text with its error number.
    let text = if matches!(
        kind,
        io::ErrorKind::AddrInUse
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied
    ) {
        format!("listen on {address}: {kind}")
    } else {
        format!("listen on {address}: {error}")
    };
    io::Error::new(kind, text)
}

fn bind_all(
    mut address: SocketAddr,
    count: usize,
    sharing: Sharing,
    kind: Type,
) -> io::Result<Vec<Socket>> {
    let mut group = Vec::with_capacity(count);
    for index in 0..count {
        let socket = Socket::new(Domain::for_address(address), kind.nonblocking(), None)?;
        if address.is_ipv6() {
            socket.set_only_v6(!sharing.dual_stack)?;
        }
        if kind == Type::STREAM {
            // Only for TCP: connections in TIME_WAIT are in nobody's way. On UDP it would mean sharing.
            socket.set_reuse_address(true)?;
        }
        // The first of an exclusive group binds before it agrees to share, so it collides with everyone else; the
        // others share with it.
        if index > 0 || sharing.reuseport {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        if index == 0 {
            socket.set_reuse_port(true)?;
            let bound = socket.local_addr()?.as_socket();
            address = bound.ok_or(io::ErrorKind::InvalidInput)?;
        }
        group.push(socket);
    }
    if kind == Type::STREAM {
        // Last, so that nobody is let in before the group is whole.
        for socket in &group {
            socket.listen(BACKLOG)?;
        }
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_shares_one_port() {
        let group = bind_group(([127, 0, 0, 1], 0).into(), 4, Sharing::default()).unwrap();
        let port = group[0].local_addr().unwrap().port();
        assert_ne!(port, 0);
        assert_eq!(group.len(), 4);
        for socket in &group {
            assert_eq!(socket.local_addr().unwrap().port(), port);
        }
    }

    #[test]
    fn a_group_is_exclusive() {
        let group = bind_group(([127, 0, 0, 1], 0).into(), 2, Sharing::default()).unwrap();
        let address = group[0].local_addr().unwrap();
        let error = bind_group(address, 2, Sharing::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            error.to_string(),
            format!("listen on {address}: address in use")
        );
        drop(group);
        bind_group(address, 2, Sharing::default()).unwrap();
    }

    #[test]
    fn tcp_groups_are_shared_and_exclusive_alike() {
        let group = bind_tcp_group(([127, 0, 0, 1], 0).into(), 3, Sharing::default()).unwrap();
        let address = group[0].local_addr().unwrap();
        assert_eq!(group.len(), 3);
        for socket in &group {
            assert_eq!(socket.local_addr().unwrap(), address);
        }
        let error = bind_tcp_group(address, 1, Sharing::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            error.to_string(),
            format!("listen on {address}: address in use")
        );
        // A connection that this end has closed first keeps nobody from listening again.
        let client = std::net::TcpStream::connect(address).unwrap();
        let accepted = group.iter().find_map(|socket| socket.accept().ok());
        drop(accepted.expect("it is somewhere in the group"));
        drop(client);
        drop(group);
        bind_tcp_group(address, 2, Sharing::default()).unwrap();
    }

    #[test]
    fn both_kinds_get_one_port() {
        let (datagrams, streams) =
            bind_both(([127, 0, 0, 1], 0).into(), 2, Sharing::default()).unwrap();
        assert_eq!((datagrams.len(), streams.len()), (2, 2));
        let address = datagrams[0].local_addr().unwrap();
        for stream in &streams {
            assert_eq!(stream.local_addr().unwrap(), address);
        }
        drop(datagrams);
        // The TCP side of a port that was asked for is taken.
        let error = bind_both(address, 2, Sharing::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("listen on {address}: address in use")
        );
    }

    #[test]
    fn the_error_names_the_address() {
        // A documentation address (RFC 5737): nobody has it.
        let address = ([192, 0, 2, 1], 0).into();
        let error = bind_group(address, 1, Sharing::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "listen on 192.0.2.1:0: address not available"
        );
    }
}
