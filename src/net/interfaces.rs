//! What this machine is: its addresses, for the rule that a relay never opens a tunnel to itself, and its name.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// The addresses of all interfaces.
///
/// # Errors
/// When the system does not tell.
pub fn own_interfaces() -> io::Result<Vec<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address
            .as_sockaddr_in()
            .map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| {
            address
                .as_sockaddr_in6()
                .map(|address| IpAddr::V6(address.ip()))
        })
    });
    Ok(addresses.collect())
}

/// The name of this machine, as its kernel knows it.
///
/// # Errors
/// When the system does not tell.
pub fn host_name() -> io::Result<OsString> {
    Ok(nix::unistd::gethostname()?)
}

/// The address from which this machine would speak to `peer`; `None` where nothing leads there. Sends nothing.
pub fn local_ip_towards(peer: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(peer).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    #[test]
    fn loopback_is_among_them() {
        let own = super::own_interfaces().unwrap();
        assert!(own.iter().any(std::net::IpAddr::is_loopback), "{own:?}");
    }
}
