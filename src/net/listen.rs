//! Listening sockets: several on one address, one for each worker.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// Binds `count` UDP sockets to the same address as one SO_REUSEPORT group, in order: the first is socket 0 of a
/// [`steer`](super::steer) program. With port 0 the first picks a port and the others follow.
///
/// An IPv6 socket accepts IPv6 only; with `dual_stack` it also accepts IPv4, as mapped addresses.
///
/// The group is exclusive: it fails if anybody listens there already, be it another relay of the same user, with which
/// a plain SO_REUSEPORT bind would share the clients.
///
/// Give the sockets to [`Driver::add`](super::Driver::add), which sets the options and the buffer sizes.
///
/// # Errors
/// With the address in the text: `listen on 127.0.0.1:443: address in use`.
pub fn bind_group(
    address: SocketAddr,
    count: usize,
    dual_stack: bool,
) -> io::Result<Vec<UdpSocket>> {
    bind_all(address, count, dual_stack).map_err(|error| {
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
    })
}

fn bind_all(mut address: SocketAddr, count: usize, dual_stack: bool) -> io::Result<Vec<UdpSocket>> {
    let mut group = Vec::with_capacity(count);
    for index in 0..count {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )?;
        if address.is_ipv6() {
            socket.set_only_v6(!dual_stack)?;
        }
        // The first binds before it agrees to share, so it collides with everyone else; the others share with it.
        if index > 0 {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        let socket = if index == 0 {
            socket.set_reuse_port(true)?;
            let socket = UdpSocket::from(socket);
            address = socket.local_addr()?;
            socket
        } else {
            UdpSocket::from(socket)
        };
        group.push(socket);
    }
    Ok(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_shares_one_port() {
        let group = bind_group(([127, 0, 0, 1], 0).into(), 4, false).unwrap();
        let port = group[0].local_addr().unwrap().port();
        assert_ne!(port, 0);
        assert_eq!(group.len(), 4);
        for socket in &group {
            assert_eq!(socket.local_addr().unwrap().port(), port);
        }
    }

    #[test]
    fn a_group_is_exclusive() {
        let group = bind_group(([127, 0, 0, 1], 0).into(), 2, false).unwrap();
        let address = group[0].local_addr().unwrap();
        let error = bind_group(address, 2, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(
            error.to_string(),
            format!("listen on {address}: address in use")
        );
        drop(group);
        bind_group(address, 2, false).unwrap();
    }

    #[test]
    fn the_error_names_the_address() {
        // A documentation address (RFC 5737): nobody has it.
        let address = ([192, 0, 2, 1], 0).into();
        let error = bind_group(address, 1, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "listen on 192.0.2.1:0: address not available"
        );
    }
}
