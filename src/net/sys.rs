//! The system calls that neither std nor socket2 wraps, as safe functions.
//!
//! This is the only file of the crate with `unsafe` code. Each block is one operation; what it relies on is either
//! checked a line above or promised by a type that a safe caller cannot break. Nothing here decides anything.

#![expect(
    unsafe_code,
    reason = "these system calls have no safe wrapper in std or socket2"
)]

use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use bytes::BytesMut;
use socket2::{MaybeUninitSlice, MsgHdrMut, SockAddr, SockAddrStorage, Socket};

use super::control;

/// Turns the C convention (-1 and `errno`) into a `Result`.
fn check(returned: c_int) -> io::Result<c_int> {
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(returned)
}

/// Takes ownership of a descriptor that a system call has just returned.
fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: all callers pass the successful result of a call that creates a descriptor, so it is open and no one
    // else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// How many events one wait takes out of the kernel; the rest stay there for the next.
const EVENTS_MAX: usize = 1024;

/// An epoll set and the buffer that its waits fill.
pub(super) struct Epoll {
    fd: OwnedFd,
    events: Box<[libc::epoll_event]>,
}

impl Epoll {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointer.
        let created = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        Ok(Self {
            fd: own(check(created)?),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX].into_boxed_slice(),
        })
    }

    /// Adds a descriptor, edge-triggered for errors and for `interest` (EPOLLIN and the like); `token` comes back with
    /// each event.
    pub(super) fn add(&self, fd: BorrowedFd<'_>, interest: c_int, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: (interest | libc::EPOLLET).cast_unsigned(),
            u64: token,
        };
        self.control(libc::EPOLL_CTL_ADD, fd, &mut event)
    }

    pub(super) fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        self.control(libc::EPOLL_CTL_DEL, fd, &mut event)
    }

    fn control(
        &self,
        operation: c_int,
        fd: BorrowedFd<'_>,
        event: &mut libc::epoll_event,
    ) -> io::Result<()> {
        let set = self.fd.as_raw_fd();
        // SAFETY: both descriptors are borrowed for the call, and `event` is valid for reads; the kernel keeps neither
        // pointer.
        let returned = unsafe { libc::epoll_ctl(set, operation, fd.as_raw_fd(), event) };
        check(returned).map(drop)
    }

    /// Collects pending events, waiting at most `timeout` (rounded up to milliseconds) for the first, and yields their
    /// tokens and what they say (EPOLLIN and the like).
    pub(super) fn wait(
        &mut self,
        timeout: Duration,
    ) -> io::Result<impl Iterator<Item = (u64, c_int)> + '_> {
        let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
        let milliseconds = c_int::try_from(milliseconds).unwrap_or(c_int::MAX);
        let room = EVENTS_MAX as c_int;
        let set = self.fd.as_raw_fd();
        // SAFETY: `events` is valid for writes of EVENTS_MAX events, the length it was made with.
        let returned =
            unsafe { libc::epoll_wait(set, self.events.as_mut_ptr(), room, milliseconds) };
        let filled = match check(returned) {
            Ok(count) => count.unsigned_abs() as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        let filled = self.events.iter().take(filled);
        Ok(filled.map(|event| (event.u64, event.events.cast_signed())))
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A new non-blocking eventfd; writing eight bytes to it makes it readable.
pub(super) fn eventfd() -> io::Result<File> {
    // SAFETY: the call takes no pointer.
    let created = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    Ok(File::from(own(check(created)?)))
}

/// A one-shot timer that is a descriptor.
pub(super) struct Timer(OwnedFd);

impl Timer {
    pub(super) fn new() -> io::Result<Self> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: the call takes no pointer.
        let created = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        Ok(Self(own(check(created)?)))
    }

    /// Fires once, `after` from now, instead of whatever was set before. Zero fires at once.
    pub(super) fn arm(&self, after: Duration) -> io::Result<()> {
        // A value of zero would disarm the timer.
        let after = after.max(Duration::from_nanos(1));
        let setting = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: after.subsec_nanos().into(),
            },
        };
        let fd = self.0.as_raw_fd();
        // SAFETY: `setting` is valid for reads, and a null pointer for the old value is allowed by timerfd_settime(2).
        let returned = unsafe { libc::timerfd_settime(fd, 0, &setting, std::ptr::null_mut()) };
        check(returned).map(drop)
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sets a socket option whose value is a plain `int`.
pub(super) fn set_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    set_option_value(socket, level, name, &value)
}

/// Reads a socket option whose value is a plain `int`.
#[cfg(test)]
pub(super) fn option(socket: BorrowedFd<'_>, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    let fd = socket.as_raw_fd();
    let pointer: *mut c_int = &mut value;
    // SAFETY: `value` is valid for writes of `length` bytes, its size, and `length` is valid for reads and writes.
    let returned = unsafe { libc::getsockopt(fd, level, name, pointer.cast(), &mut length) };
    check(returned)?;
    Ok(value)
}

/// Gives the SO_REUSEPORT group of `socket` a classic BPF program that picks the socket for each datagram.
pub(super) fn attach_reuseport_program(
    socket: BorrowedFd<'_>,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let length =
        u16::try_from(program.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let value = libc::sock_fprog {
        len: length,
        // The kernel only reads the program.
        filter: program.as_ptr().cast_mut(),
    };
    set_option_value(
        socket,
        libc::SOL_SOCKET,
        libc::SO_ATTACH_REUSEPORT_CBPF,
        &value,
    )
}

/// Sets a socket option from a C value. Private: `T` must be the type that the option expects, with every pointer
/// inside it valid for the call, which holds for both callers above.
fn set_option_value<T>(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &T,
) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    let fd = socket.as_raw_fd();
    let value: *const T = value;
    // SAFETY: `value` is valid for reads of `length` bytes during the call, and setsockopt(2) keeps no pointer to it.
    let returned = unsafe { libc::setsockopt(fd, level, name, value.cast(), length) };
    check(returned).map(drop)
}

/// CPU time that the calling thread has used, in user and kernel mode.
pub(super) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes.
    let returned = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    debug_assert_eq!(returned, 0, "the clock of the own thread always exists");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(seconds, nanoseconds)
}

/// A request about the interface of this name; one that is too long is cut.
fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: it consists of integers and of a union of integers and pointers, all of which may be zero.
    let mut request: libc::ifreq = unsafe { MaybeUninit::zeroed().assume_init() };
    // The zero that ends the name stays.
    let (_, room) = request
        .ifr_name
        .split_last_mut()
        .unwrap_or((&mut 0, &mut []));
    for (to, from) in room.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed() as libc::c_char;
    }
    request
}

/// Makes `device`, an open `/dev/net/tun`, a queue of the interface `name`, which is made if there is none. Returns the
/// name that the kernel has given it.
pub(super) fn tun_attach(device: BorrowedFd<'_>, name: &str, flags: c_int) -> io::Result<String> {
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    let fd = device.as_raw_fd();
    let pointer: *mut libc::ifreq = &mut request;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which is valid for both during the call.
    let returned = unsafe { libc::ioctl(fd, libc::TUNSETIFF, pointer) };
    check(returned)?;
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0);
    let name = name.map(|byte| *byte as u8).collect();
    String::from_utf8(name).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Gives a TUN to the user of this process. Without an owner anybody may open a queue of it.
pub(super) fn tun_set_owner(device: BorrowedFd<'_>) -> io::Result<()> {
    let owner = nix::unistd::geteuid().as_raw();
    let fd = device.as_raw_fd();
    // SAFETY: TUNSETOWNER takes its argument by value.
    let returned = unsafe { libc::ioctl(fd, libc::TUNSETOWNER, libc::c_ulong::from(owner)) };
    check(returned).map(drop)
}

/// Sets how many bytes of `virtio_net_hdr` stand before every packet of a TUN.
pub(super) fn tun_set_header_len(device: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = c_int::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let fd = device.as_raw_fd();
    let pointer: *const c_int = &bytes;
    // SAFETY: TUNSETVNETHDRSZ reads one `int`, which is valid for reads during the call.
    let returned = unsafe { libc::ioctl(fd, libc::TUNSETVNETHDRSZ, pointer) };
    check(returned).map(drop)
}

/// Sets which super-packets a TUN may hand out (`TUN_F_CSUM` and the like).
pub(super) fn tun_set_offloads(device: BorrowedFd<'_>, flags: u32) -> io::Result<()> {
    let fd = device.as_raw_fd();
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let returned = unsafe { libc::ioctl(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) };
    check(returned).map(drop)
}

/// Sets the MTU of an interface. Any socket will do.
pub(super) fn set_interface_mtu(socket: BorrowedFd<'_>, name: &str, mtu: u16) -> io::Result<()> {
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_mtu = mtu.into();
    let fd = socket.as_raw_fd();
    let pointer: *const libc::ifreq = &request;
    // SAFETY: SIOCSIFMTU reads one `ifreq`, which is valid for reads during the call.
    let returned = unsafe { libc::ioctl(fd, libc::SIOCSIFMTU, pointer) };
    check(returned).map(drop)
}

/// Raises this process's limit of open descriptors to what the system allows it, and returns the new limit. A relay
/// needs one descriptor per tunnel, and the usual default of 1024 is a limit for programs that use `select`.
///
/// # Errors
/// When the limit cannot be read or set.
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writes.
    let returned = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    check(returned)?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for reads.
    let returned = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    check(returned)?;
    Ok(limit.rlim_cur)
}

/// What one receive call brought besides the bytes.
pub(super) struct Arrival {
    /// The sender; `None` when it was not asked for.
    pub(super) peer: Option<SocketAddr>,
    /// The kernel had more bytes than the buffer had room for.
    pub(super) truncated: bool,
    pub(super) control: control::Received,
}

/// Receives one train behind the bytes that `buffer` holds, into its spare capacity.
///
/// `want_peer` asks for the sender's address, which a connected socket knows anyway.
///
/// # Errors
/// `WouldBlock` when the socket is empty; a pending ICMP error of a connected socket.
pub(super) fn receive(
    socket: &Socket,
    buffer: &mut BytesMut,
    want_peer: bool,
) -> io::Result<Arrival> {
    let start = buffer.len();
    let mut control = control::Space::new();
    // Large enough for either family.
    let mut peer = SockAddr::from(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)));
    let mut slices = [MaybeUninitSlice::new(buffer.spare_capacity_mut())];
    let mut message = MsgHdrMut::new()
        .with_buffers(&mut slices)
        .with_control(&mut control.0);
    if want_peer {
        message = message.with_addr(&mut peer);
    }
    let length = socket.recvmsg(&mut message, libc::MSG_DONTWAIT)?;
    let truncated = message.flags().is_truncated();
    let control_length = message.control_len();

    let end = (start + length).min(buffer.capacity());
    // SAFETY: recvmsg(2) has written `length` bytes to the spare capacity, which begins at `start`.
    unsafe { buffer.set_len(end) };
    let filled: &[MaybeUninit<u8>] = control.0.get(..control_length).unwrap_or_default();
    // SAFETY: `control::Space::new` initialises every byte of the array, and the kernel only writes more bytes.
    let filled = unsafe { filled.assume_init_ref() };
    Ok(Arrival {
        peer: if want_peer { peer.as_socket() } else { None },
        truncated,
        control: control::Received::parse(filled),
    })
}

/// Receives up to `bytes_max` bytes of a stream behind those that `buffer` holds; makes room for them first. Returns
/// how many came; none is the end of the stream.
///
/// # Errors
/// `WouldBlock` when there is nothing yet; what broke the connection.
pub(super) fn receive_stream(
    socket: &Socket,
    buffer: &mut BytesMut,
    bytes_max: usize,
) -> io::Result<usize> {
    buffer.reserve(bytes_max);
    let start = buffer.len();
    let spare = buffer.spare_capacity_mut();
    let room = spare.len().min(bytes_max);
    let length = socket.recv_with_flags(&mut spare[..room], libc::MSG_DONTWAIT)?;
    // SAFETY: recv(2) has written `length` bytes to the spare capacity, which begins at `start`; it returns no more
    // than it was given room for.
    unsafe { buffer.set_len(start + length.min(room)) };
    Ok(length)
}

/// Takes the next connection of a listener, non-blocking, and its peer.
///
/// # Errors
/// Those of accept(2).
pub(super) fn accept(listener: &Socket) -> io::Result<(Socket, SockAddr)> {
    let fd = listener.as_raw_fd();
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let accept4 = |storage: *mut SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: `try_init` lends the storage and its length for the call, both valid for reads and writes.
        check(unsafe { libc::accept4(fd, storage.cast(), length, flags) })
    };
    // SAFETY: accept4(2) writes an address to the storage, which has room for any, and its length to the length.
    let (accepted, peer) = unsafe { SockAddr::try_init(accept4) }?;
    Ok((Socket::from(own(accepted)), peer))
}
