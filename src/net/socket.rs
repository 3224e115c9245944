//! Socket set-up: which options each kind of socket gets, and what the kernel grants.
//!
//! | option | shared (QUIC) | connected (target) | why |
//! |---|---|---|---|
//! | path MTU discovery | PROBE | DO | no fragments; QUIC probes beyond the path MTU that the kernel believes in |
//! | packet information | yes | no | a QUIC peer must be answered from the address it sent to |
//! | ECN reporting | yes | no | RFC 9000 section 13.4; RFC 9298 section 6.2 ignores what a target marks |
//! | UDP_GRO | yes | yes | trains in |

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::sys;

/// How long a TCP connection is silent before the kernel asks whether the peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Time between two such questions, of which nine remain unanswered before the connection breaks (tcp(7)).
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Whether to use an offload of the kernel or the network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// Where the kernel has it. A send that fails because of it is repeated without, and the socket stays without.
    #[default]
    Auto,
    /// Never. For network cards that announce it and corrupt packets.
    Off,
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketKind {
    /// Unconnected, many peers: QUIC. Reports and sets ECN and the local address.
    Shared,
    /// Connected to one peer, usually a target: the kernel drops what anybody else sends, and reports ICMP errors.
    Connected,
}

/// Whether an error of a connected socket ends it, according to RFC 9298 section 3.1 ("the socket is no longer
/// usable"). Every other error costs a datagram and no more.
#[must_use]
pub fn ends_socket(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH)
    )
}

/// Whether this kernel cuts trains up on sending (Linux 4.18).
pub(super) fn segmentation_supported() -> bool {
    let Ok(probe) = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)) else {
        return false;
    };
    sys::set_option(probe.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 1200).is_ok()
}

/// What a socket towards a target has beyond the defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketOptions {
    /// The address of this host that the target sees; the kernel's choice if `None`. Targets of the other family are
    /// out of reach then.
    pub local_address: Option<IpAddr>,
    /// Kernel receive buffer (`SO_RCVBUF`). The kernel bounds it by `net.core.rmem_max`, unless the process may exceed
    /// that.
    pub receive_buffer_bytes: Option<usize>,
    /// Kernel send buffer (`SO_SNDBUF`), bounded by `net.core.wmem_max` in the same way.
    pub send_buffer_bytes: Option<usize>,
    /// Hops that a packet may take (`IP_TTL`, `IPV6_UNICAST_HOPS`), 1 to 255.
    pub ttl: Option<u32>,
    /// The mark of packets, which routing rules and firewalls look at (`SO_MARK`). Needs CAP_NET_ADMIN or CAP_NET_RAW.
    pub mark: Option<u32>,
    /// Whether TCP waits with small segments until earlier ones are acknowledged (Nagle, RFC 9293 section 3.7.4), which
    /// spares packets and costs time. Otherwise it does not (`TCP_NODELAY`).
    pub nagle: bool,
}

impl SocketOptions {
    /// Gives a new socket everything that has to be there before it connects to `target`, except for buffers.
    fn prepare(&self, socket: &Socket, target: SocketAddr) -> io::Result<()> {
        let set = |level, name, value| sys::set_option(socket.as_fd(), level, name, value);
        let signed = |value| i32::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
        if let Some(mark) = self.mark {
            set(libc::SOL_SOCKET, libc::SO_MARK, mark.cast_signed())?;
        }
        if let Some(ttl) = self.ttl {
            let ttl = signed(ttl)?;
            match target {
                SocketAddr::V4(_) => set(libc::IPPROTO_IP, libc::IP_TTL, ttl)?,
                SocketAddr::V6(_) => set(libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, ttl)?,
            }
        }
        let Some(address) = self.local_address else {
            return Ok(());
        };
        if address.is_ipv4() != target.is_ipv4() {
            return Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
        }
        // The port is chosen when the peer is known: one port serves connections to several peers then. A kernel that
        // does not know that (before Linux 4.2) has fewer ports.
        drop(set(libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1));
        socket.bind(&SocketAddr::new(address, 0).into())
    }
}

/// A new non-blocking socket connected to `target`, before [`configure`].
pub(super) fn connected(target: SocketAddr, options: &SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(target),
        Type::DGRAM.nonblocking(),
        Some(Protocol::UDP),
    )?;
    options.prepare(&socket, target)?;
    socket.connect(&target.into())?;
    Ok(socket)
}

/// A new non-blocking TCP socket on its way to `target`, with the options of [`configure_stream`].
pub(super) fn connecting(target: SocketAddr, options: &SocketOptions) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(target),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    configure_stream(&socket)?;
    socket.set_tcp_nodelay(!options.nagle)?;
    options.prepare(&socket, target)?;
    // Before the handshake, which announces the window.
    set_buffers(
        &socket,
        options.receive_buffer_bytes,
        options.send_buffer_bytes,
    )?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        Ok(()) | Err(_) => Ok(socket),
    }
}

/// Makes a TCP socket send what it is given at once, and notice a peer that is gone. Connections inherit both from
/// their listener.
///
/// # Errors
/// When the descriptor is not a TCP socket.
pub(super) fn configure_stream(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL);
    socket.set_tcp_keepalive(&keepalive)
}

/// Gives a socket the options of its kind. Returns whether GRO is on.
///
/// # Errors
/// When an option is refused that correctness rests on; offloads may be refused.
pub(super) fn configure(
    socket: &Socket,
    kind: SocketKind,
    ipv6: bool,
    gro: Offload,
) -> io::Result<bool> {
    let set = |level, name, value| sys::set_option(socket.as_fd(), level, name, value);
    let discovery = match kind {
        SocketKind::Shared => libc::IP_PMTUDISC_PROBE,
        SocketKind::Connected => libc::IP_PMTUDISC_DO,
    };
    // An IPv6 socket carries IPv4 as well, unless it was told not to: set both.
    set(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discovery)?;
    if ipv6 {
        // The values of both families are the same numbers.
        set(libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, discovery)?;
        set(libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1)?;
    }
    if kind == SocketKind::Shared {
        set(libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        set(libc::IPPROTO_IP, libc::IP_RECVTOS, 1)?;
        if ipv6 {
            set(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            set(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1)?;
        }
    }
    Ok(gro == Offload::Auto && set(libc::SOL_UDP, libc::UDP_GRO, 1).is_ok())
}

/// Asks for kernel buffers of these sizes, where there is one: beyond the system's maximum where the process may
/// (CAP_NET_ADMIN), up to it otherwise.
///
/// # Errors
/// When the descriptor is not a socket.
pub(super) fn set_buffers(
    socket: &Socket,
    receive_bytes: Option<usize>,
    send_bytes: Option<usize>,
) -> io::Result<()> {
    let force = |name, bytes: usize| {
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        sys::set_option(socket.as_fd(), libc::SOL_SOCKET, name, bytes)
    };
    if let Some(bytes) = receive_bytes
        && force(libc::SO_RCVBUFFORCE, bytes).is_err()
    {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = send_bytes
        && force(libc::SO_SNDBUFFORCE, bytes).is_err()
    {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(())
}
