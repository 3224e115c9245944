//! Opening a TUN: the interface and its queues.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use super::header::HEADER_BYTES;
use super::{TunError, TunOffloads, TunOptions};
use crate::net::sys;

const DEVICE: &str = "/dev/net/tun";
/// What the kernel makes of it is a free name.
const ANY_NAME: &str = "tun%d";
/// `IFNAMSIZ`, without the zero behind it.
const NAME_BYTES_MAX: usize = 15;

const TCP_OFFLOADS: u32 =
    libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
/// The kernel wants both or none.
const UDP_OFFLOADS: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;

/// An interface of ours. It goes away with its last queue, unless it was made to stay (`ip tuntap add`).
#[derive(Debug)]
#[non_exhaustive]
pub struct Tun {
    /// Its name.
    pub name: String,
    /// Its number, for whoever sets addresses and routes.
    pub index: u32,
    /// One for each worker: [`Driver::add_tun`](crate::net::Driver::add_tun).
    pub queues: Vec<TunQueue>,
    /// What all queues have.
    pub offloads: TunOffloads,
}

/// A queue of a [`Tun`].
#[derive(Debug)]
pub struct TunQueue {
    file: File,
    /// Whether a header stands before every packet.
    has_header: bool,
    offloads: TunOffloads,
}

impl Tun {
    /// Makes the interface, or takes over one that waits for a program. It is down until somebody sets it up. One that
    /// was made here is owned by the user of this process: nobody else may open a queue of it, unless privileged.
    ///
    /// # Errors
    /// [`TunError`] says what is lacking.
    pub fn open(options: &TunOptions) -> Result<Self, TunError> {
        let mut name = options.name.clone().unwrap_or_else(|| ANY_NAME.to_owned());
        let is_name = !name.is_empty()
            && name.len() <= NAME_BYTES_MAX
            && !name
                .bytes()
                .any(|byte| byte == 0 || byte == b'/' || byte.is_ascii_whitespace());
        if !is_name {
            return Err(TunError::Name { name });
        }
        let is_new = index_of(&name).is_err();
        let count = options.queues.max(1);
        let mut queues = Vec::with_capacity(count);
        for _ in 0..count {
            let (queue, given) = TunQueue::open(&name, count, options.offload)?;
            name = given;
            if is_new && queues.is_empty() {
                sys::tun_set_owner(queue.as_fd()).map_err(refused(&name))?;
            }
            queues.push(queue);
        }
        if let Some(mtu) = options.mtu {
            set_mtu(&name, mtu)?;
        }
        let index = index_of(&name)?;
        // Queues of one interface share what the last of them was set to.
        let offloads = queues
            .last()
            .map_or_else(TunOffloads::default, |queue| queue.offloads);
        Ok(Self {
            name,
            index,
            queues,
            offloads,
        })
    }
}

/// The number of an interface.
fn index_of(name: &str) -> Result<u32, TunError> {
    let index = nix::net::if_::if_nametoindex(name);
    index.map_err(|errno| refused(name)(errno.into()))
}

fn refused(name: &str) -> impl FnOnce(io::Error) -> TunError + use<> {
    let name = name.to_owned();
    move |source| match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TunError::NotPermitted { name, source },
        Some(libc::EBUSY) => TunError::Busy { name, source },
        Some(libc::EINVAL) => TunError::Unfit { name, source },
        _ => TunError::Refused { name, source },
    }
}

fn set_mtu(name: &str, mtu: u16) -> Result<(), TunError> {
    let any_socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(refused(name))?;
    let set = sys::set_interface_mtu(any_socket.as_fd(), name, mtu);
    let name = name.to_owned();
    set.map_err(|source| match source.raw_os_error() {
        Some(libc::EPERM) => TunError::MtuNotPermitted { name, mtu, source },
        Some(_) | None => TunError::Mtu { name, mtu, source },
    })
}

impl TunQueue {
    /// Opens one more queue of an interface that is there: for a worker that comes later than [`Tun::open`].
    ///
    /// # Errors
    /// [`TunError`] says what is lacking: the privilege, or the interface of number `index`, which has gone, or was
    /// made for one queue.
    pub fn attach(name: &str, index: u32, offload: bool) -> Result<Self, TunError> {
        // The kernel would make another interface in the place of one that has gone, for as long as this queue lives.
        let (queue, given) = Self::open(name, 2, offload)?;
        match index_of(&given)? == index {
            true => Ok(queue),
            false => Err(refused(name)(io::ErrorKind::NotFound.into())),
        }
    }

    /// Opens one queue of `count`; returns the name of the interface as well.
    fn open(name: &str, count: usize, offload: bool) -> Result<(Self, String), TunError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(DEVICE)
            .map_err(TunError::Unavailable)?;
        let mut flags = libc::IFF_TUN | libc::IFF_NO_PI;
        if offload {
            flags |= libc::IFF_VNET_HDR;
        }
        let attach = |flags| sys::tun_attach(file.as_fd(), name, flags);
        let mut attached = attach(flags | libc::IFF_MULTI_QUEUE);
        // An interface that exists already may have been made for one queue.
        if count == 1 && is_invalid(&attached) {
            attached = attach(flags);
        }
        let name = attached.map_err(refused(name))?;
        let mut offloads = TunOffloads::default();
        if offload {
            sys::tun_set_header_len(file.as_fd(), HEADER_BYTES).map_err(refused(&name))?;
            offloads = set_offloads(file.as_fd()).map_err(refused(&name))?;
        }
        let queue = Self {
            file,
            has_header: offload,
            offloads,
        };
        Ok((queue, name))
    }

    /// Whether [`read`](Self::read) brings a header, and a write needs one.
    pub(in crate::net) const fn has_header(&self) -> bool {
        self.has_header
    }

    pub(in crate::net) const fn offloads(&self) -> TunOffloads {
        self.offloads
    }

    /// Reads a packet, or a super-packet, and returns the length without its header.
    pub(in crate::net) fn read(
        &self,
        header: &mut [u8; HEADER_BYTES],
        packet: &mut [u8],
    ) -> io::Result<usize> {
        if !self.has_header {
            return (&self.file).read(packet);
        }
        let mut slices = [IoSliceMut::new(header), IoSliceMut::new(packet)];
        let len = (&self.file).read_vectored(&mut slices)?;
        Ok(len.saturating_sub(HEADER_BYTES))
    }

    /// Writes a packet in parts; the first is the header, if the queue has one. The kernel takes all or nothing.
    pub(in crate::net) fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.file).write_vectored(parts)
    }
}

impl AsFd for TunQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn is_invalid<T>(result: &io::Result<T>) -> bool {
    let error = result.as_ref().err().and_then(io::Error::raw_os_error);
    error == Some(libc::EINVAL)
}

/// Asks for all offloads, then for fewer: UDP is refused before Linux 6.2.
fn set_offloads(device: BorrowedFd<'_>) -> io::Result<TunOffloads> {
    for (flags, tcp, udp) in [
        (TCP_OFFLOADS | UDP_OFFLOADS, true, true),
        (TCP_OFFLOADS, true, false),
        (0, false, false),
    ] {
        let set = sys::tun_set_offloads(device, flags);
        if !is_invalid(&set) {
            return set.map(|()| TunOffloads { tcp, udp });
        }
    }
    Ok(TunOffloads::default())
}
