//! A session's tunnel, seen from other threads.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use ipnet::IpNet;

use super::host::sessions::{Act, SessionCommand};
use super::host::{Command, HostSender};
use super::ip::Saying;
use super::session::{Ending, SendError};
use crate::tunnel::TunnelId;
use crate::wire::ip::{AddressRange, AssignedAddress};

/// Orders of one tunnel's handles that may be on their way to its worker at once.
const ORDERS_MAX: usize = 1024;
/// Bytes of one tunnel's handles that may be on their way to the client at once.
const BYTES_MAX: usize = 1024 * 1024;

/// The tunnel of a [`Session`](super::Session), for anybody who is not in one of its callbacks: other tunnels, other
/// threads, tasks of any runtime. From [`Actions::handle`](super::Actions::handle).
///
/// Nothing here blocks or waits: an order travels to the worker of the tunnel and is carried out there, and what
/// becomes of it is not told. Orders keep their order. A handle does not keep its tunnel open.
#[derive(Clone)]
pub struct TunnelHandle(Arc<Shared>);

struct Shared {
    tunnel: TunnelId,
    sender: HostSender,
    closed: AtomicBool,
    /// Orders and bytes that the worker has not seen yet.
    orders: AtomicUsize,
    bytes: AtomicUsize,
    /// Bytes that wait at the worker.
    waiting: AtomicUsize,
}

impl TunnelHandle {
    pub(super) fn new(tunnel: TunnelId, sender: HostSender) -> Self {
        Self(Arc::new(Shared {
            tunnel,
            sender,
            closed: AtomicBool::new(false),
            orders: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        }))
    }

    /// Gives the session a message: [`Session::on_message`](super::Session::on_message).
    ///
    /// # Errors
    /// [`SendError::NoRoom`] while 1,024 orders are on their way, [`SendError::Closed`] when the tunnel has ended.
    pub fn message(&self, message: impl Any + Send) -> Result<(), SendError> {
        self.order(0, Act::Message(Box::new(message)))
    }

    /// Sends a UDP payload, or an IP packet, to the client, as [`Actions::send`](super::Actions::send).
    ///
    /// # Errors
    /// As [`message`](Self::message), and [`SendError::NoRoom`] while 1 MiB is on its way.
    pub fn send(&self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.send_on(0, payload)
    }

    /// Sends a datagram with that Context ID, as [`Actions::send_on`](super::Actions::send_on).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_on(&self, context: u64, payload: impl Into<Bytes>) -> Result<(), SendError> {
        let payload = payload.into();
        self.order(payload.len(), Act::Send(context, payload))
    }

    /// Sends bytes to the client of a TCP tunnel, as [`Actions::send_data`](super::Actions::send_data).
    ///
    /// # Errors
    /// As [`send`](Self::send); then nothing of `data` was taken.
    pub fn send_data(&self, data: impl Into<Bytes>) -> Result<(), SendError> {
        let data = data.into();
        self.order(data.len(), Act::Data(data, false))
    }

    /// Sends the last bytes and the end, as [`Actions::finish`](super::Actions::finish).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn finish(&self, data: impl Into<Bytes>) -> Result<(), SendError> {
        let data = data.into();
        self.order(data.len(), Act::Data(data, true))
    }

    /// Sends a capsule, as [`Actions::send_capsule`](super::Actions::send_capsule).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_capsule(&self, kind: u64, value: impl Into<Bytes>) -> Result<(), SendError> {
        let value = value.into();
        self.order(value.len(), Act::Capsule(kind, value))
    }

    /// Asks the client of an IP tunnel for addresses, as
    /// [`Actions::request_addresses`](super::Actions::request_addresses); the ids are not told.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn request_addresses(&self, wishes: &[IpNet]) -> Result<(), SendError> {
        self.say(Saying::Request(wishes.to_vec()))
    }

    /// Says which addresses the client of an IP tunnel may use, as
    /// [`Actions::assign_addresses`](super::Actions::assign_addresses).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn assign_addresses(&self, list: Vec<AssignedAddress>) -> Result<(), SendError> {
        self.say(Saying::Assign(list))
    }

    /// Says what the client of an IP tunnel can reach, as
    /// [`Actions::advertise_routes`](super::Actions::advertise_routes).
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn advertise_routes(&self, list: Vec<AddressRange>) -> Result<(), SendError> {
        self.say(Saying::Routes(list))
    }

    fn say(&self, saying: Saying) -> Result<(), SendError> {
        self.order(saying.weight(), Act::Say(saying))
    }

    /// Ends the tunnel behind what waits, as [`Actions::close`](super::Actions::close).
    pub fn close(&self) {
        self.end(Ending::Orderly);
    }

    /// Ends the tunnel at once, as [`Actions::close_with`](super::Actions::close_with).
    pub fn close_with(&self, code: u64) {
        self.end(Ending::Abrupt(code));
    }

    /// Whether the tunnel has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.closed.load(Ordering::Acquire)
    }

    fn order(&self, len: usize, act: Act) -> Result<(), SendError> {
        let Shared {
            orders,
            bytes,
            waiting,
            ..
        } = &*self.0;
        if self.is_closed() {
            return Err(SendError::Closed);
        }
        // Racing threads may pass both bounds by an order each.
        let on_the_way = bytes.load(Ordering::Relaxed) + waiting.load(Ordering::Relaxed);
        let is_full = orders.load(Ordering::Relaxed) >= ORDERS_MAX;
        if is_full || (len > 0 && on_the_way >= BYTES_MAX) {
            return Err(SendError::NoRoom);
        }
        orders.fetch_add(1, Ordering::Relaxed);
        bytes.fetch_add(len, Ordering::Relaxed);
        self.post(len, act);
        Ok(())
    }

    /// An end needs no room, and none is needed after it; those beyond the bound say nothing new.
    fn end(&self, ending: Ending) {
        let orders = &self.0.orders;
        if !self.is_closed() && orders.load(Ordering::Relaxed) < 2 * ORDERS_MAX {
            orders.fetch_add(1, Ordering::Relaxed);
            self.post(0, Act::Close(ending));
        }
    }

    fn post(&self, len: usize, act: Act) {
        self.0.sender.send(Command::Session(SessionCommand::Act {
            tunnel: self.0.tunnel,
            handle: self.clone(),
            len,
            act,
        }));
    }

    /// The worker has taken an order.
    pub(super) fn taken(&self, len: usize) {
        self.0.orders.fetch_sub(1, Ordering::Relaxed);
        self.0.bytes.fetch_sub(len, Ordering::Relaxed);
    }

    /// So many bytes wait at the worker.
    pub(super) fn set_waiting(&self, bytes: usize) {
        self.0.waiting.store(bytes, Ordering::Relaxed);
    }

    /// The tunnel has ended.
    pub(super) fn set_closed(&self) {
        self.0.closed.store(true, Ordering::Release);
    }
}

impl fmt::Debug for TunnelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelHandle")
            .field("tunnel", &self.0.tunnel)
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
