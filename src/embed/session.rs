//! A tunnel that ends in code of the user: callbacks in, actions out.
//!
//! ```text
//!   client ── datagrams, bytes, capsules ─► Session::on_… ─► Actions ── datagrams, bytes, capsules ─► client
//!                                                ▲
//!   other threads ── TunnelHandle::message ──────┘
//! ```
//!
//! Callbacks of a tunnel run one at a time, all on the worker thread that has its connection. What an action does, it
//! does at once; the packets leave together at the end of the worker's turn.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::net::IpAddr;

use bytes::Bytes;
use ipnet::{IpNet, Ipv6Net};
use thiserror::Error;

use super::ip::{self, Said, Saying};
use super::session_handle::TunnelHandle;
use super::{CloseReason, IpRuleError, Protocol};
use crate::tunnel::TunnelId;
use crate::tunnel::ip::IpEvent;
use crate::wire::ip::{AddressRange, AssignedAddress, DnsConfig, PacketError, RequestedAddress};
use crate::worker::IpInfo;

/// Bytes of [`Actions::send_data`] that may wait for the client before a session gets no more of the client's.
pub const SESSION_WAITING_BYTES_MAX: usize = 256 * 1024;

/// What happens on a tunnel that a [`Handler`](super::Handler) has accepted with
/// [`Accept::session`](super::Accept::session) or [`Accept::init`](super::Accept::init). Every callback has a default.
///
/// Callbacks share their thread with other tunnels, so they must not block. One that panics ends its tunnel with
/// H3_INTERNAL_ERROR; this is logged and counted, and no callback follows.
///
/// ```
/// use bauta::{Actions, Session};
/// use bytes::Bytes;
///
/// /// Says what it hears.
/// struct Echo;
///
/// impl Session for Echo {
///     fn on_packet(&mut self, actions: &mut Actions<'_>, context: u64, payload: Bytes) {
///         // A datagram may get lost, here as anywhere.
///         actions.send_on(context, payload).ok();
///     }
///
///     fn on_data(&mut self, actions: &mut Actions<'_>, data: Bytes) {
///         actions.send_data(data).ok();
///     }
/// }
/// ```
#[expect(unused_variables, reason = "the names say what the arguments are")]
pub trait Session: Send + 'static {
    /// The tunnel is open, the 2xx is on its way. Comes first.
    fn on_open(&mut self, actions: &mut Actions<'_>) {}

    /// A datagram of a UDP or IP tunnel. Context ID 0 means a UDP payload of up to 65,527 bytes (RFC 9298 §5), or a
    /// whole IP packet whose source the client may use (RFC 9484 §6); what others mean was agreed upon elsewhere.
    /// Default: it is dropped.
    fn on_packet(&mut self, actions: &mut Actions<'_>, context: u64, payload: Bytes) {}

    /// Bytes of a TCP tunnel, at least one. Default: they are dropped.
    ///
    /// None come while more than [`SESSION_WAITING_BYTES_MAX`] bytes of this session wait for the client: a client
    /// that does not read is not read from.
    fn on_data(&mut self, actions: &mut Actions<'_>, data: Bytes) {}

    /// The client sends no more bytes: it has shut down its direction of a TCP tunnel. Default: so do we, behind what
    /// waits, which ends the tunnel.
    fn on_eof(&mut self, actions: &mut Actions<'_>) {
        actions.finish(Bytes::new()).ok();
    }

    /// What the client of an IP tunnel says about addresses, routes or names (RFC 9484 §4.7), and what becomes of the
    /// MTU towards it. Default: requests are refused, everything else is ignored.
    ///
    /// A session says what its client can reach with [`Actions::advertise_routes`], and which addresses it has with
    /// [`Actions::assign_addresses`], in [`on_open`](Self::on_open) for instance. Packets to other destinations do not
    /// come, and neither do those from other sources, once there was an assignment.
    fn on_ip_event(&mut self, actions: &mut Actions<'_>, event: IpEvent) {
        if let IpEvent::Requested(requests) = event {
            let mut list = actions
                .ip_info()
                .map_or_else(Vec::new, |info| info.assigned_to_peer);
            list.extend(requests.iter().map(RequestedAddress::refusal));
            actions.assign_addresses(list).ok();
        }
    }

    /// A capsule (RFC 9297 §3.2) of a type that the tunnel itself has no use for. Default: ignored, as the RFC asks.
    fn on_capsule(&mut self, actions: &mut Actions<'_>, kind: u64, value: Bytes) {}

    /// A message from [`TunnelHandle::message`]. Default: dropped.
    fn on_message(&mut self, actions: &mut Actions<'_>, message: Box<dyn Any + Send>) {}

    /// There is room again after [`Actions::room`] said 0, or [`Actions::send_capsule`] that there is none.
    fn on_writable(&mut self, actions: &mut Actions<'_>) {}

    /// The tunnel is over. Comes last, and not after a panic. Bytes that the client sent before it broke off come
    /// before; what is sent then finds the tunnel closed.
    fn on_close(&mut self, reason: CloseReason) {}
}

impl Session for Box<dyn Session> {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        (**self).on_open(actions);
    }

    fn on_packet(&mut self, actions: &mut Actions<'_>, context: u64, payload: Bytes) {
        (**self).on_packet(actions, context, payload);
    }

    fn on_data(&mut self, actions: &mut Actions<'_>, data: Bytes) {
        (**self).on_data(actions, data);
    }

    fn on_eof(&mut self, actions: &mut Actions<'_>) {
        (**self).on_eof(actions);
    }

    fn on_ip_event(&mut self, actions: &mut Actions<'_>, event: IpEvent) {
        (**self).on_ip_event(actions, event);
    }

    fn on_capsule(&mut self, actions: &mut Actions<'_>, kind: u64, value: Bytes) {
        (**self).on_capsule(actions, kind, value);
    }

    fn on_message(&mut self, actions: &mut Actions<'_>, message: Box<dyn Any + Send>) {
        (**self).on_message(actions, message);
    }

    fn on_writable(&mut self, actions: &mut Actions<'_>) {
        (**self).on_writable(actions);
    }

    fn on_close(&mut self, reason: CloseReason) {
        (**self).on_close(reason);
    }
}

/// Why something was not sent.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// A datagram longer than the path takes, or than UDP allows.
    #[error("the datagram is longer than the {max} bytes that the tunnel takes now")]
    TooLong {
        /// The most that it takes now, in bytes of payload.
        max: usize,
    },
    /// A packet larger than the tunnel takes now. One of IPv4 that may be fragmented passes whole, at the cost of
    /// order.
    #[error("the packet of {size} bytes is larger than the MTU of {mtu}")]
    PacketTooLarge {
        /// The size of the packet, in bytes.
        size: usize,
        /// The most that the tunnel takes now, in bytes.
        mtu: usize,
    },
    /// What was sent on an IP tunnel is no packet.
    #[error(transparent)]
    NotAPacket(#[from] PacketError),
    /// What was said about addresses or routes breaks a rule.
    #[error(transparent)]
    Rule(#[from] IpRuleError),
    /// No client has the address that a packet is for.
    #[error("no client has the address {destination}")]
    Unassigned {
        /// The address.
        destination: IpAddr,
    },
    /// There is no room; nothing of it was taken.
    #[error("there is no room")]
    NoRoom,
    /// The tunnel carries something else: datagrams belong to UDP and IP, bytes to TCP, addresses and routes to IP,
    /// and capsules to neither classic CONNECT nor a TCP tunnel without them.
    #[error("the tunnel carries something else")]
    Unsupported,
    /// The tunnel has ended, or this direction of it.
    #[error("the tunnel has ended")]
    Closed,
}

/// What a session sees of its worker.
pub(super) trait Engine {
    /// Sends a datagram to the client.
    fn send(&mut self, tunnel: TunnelId, context: u64, payload: Bytes) -> Result<(), SendError>;
    /// Says something to the client of an IP tunnel.
    fn say(&mut self, tunnel: TunnelId, saying: Saying) -> Said;
    /// What both ends of an IP tunnel have said.
    fn ip_info(&mut self, tunnel: TunnelId) -> Option<IpInfo>;
    /// Sends a capsule to the client.
    fn send_capsule(&mut self, tunnel: TunnelId, kind: u64, value: &[u8]) -> Result<(), SendError>;
    /// Bytes that may be written now.
    fn room(&mut self, tunnel: TunnelId) -> usize;
    /// Writes bytes, no more than there is room for.
    fn write(&mut self, tunnel: TunnelId, data: Bytes);
    /// Ends our direction of the stream.
    fn finish(&mut self, tunnel: TunnelId);
}

/// How a session wants its tunnel to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Behind what waits.
    Orderly,
    /// At once, with a code.
    Abrupt(u64),
}

/// What a session has said that is not sent yet.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) tunnel: TunnelId,
    protocol: Protocol,
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    /// No bytes follow those that wait.
    ended: bool,
    /// The end was passed on.
    finished: bool,
    /// Whether the session was told that there is no room.
    pub(super) starved: bool,
    pub(super) ending: Option<Ending>,
    pub(super) handle: Option<TunnelHandle>,
}

impl Outgoing {
    pub(super) fn new(tunnel: TunnelId, protocol: Protocol) -> Self {
        Self {
            tunnel,
            protocol,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            ended: false,
            finished: false,
            starved: false,
            ending: None,
            handle: None,
        }
    }

    /// Bytes that a session should wait for before it says more.
    pub(super) fn room(&self) -> usize {
        match self.ended {
            true => 0,
            false => SESSION_WAITING_BYTES_MAX.saturating_sub(self.waiting_bytes),
        }
    }

    /// How much waits for the client.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether so much waits that the client is not listened to.
    pub(super) fn is_full(&self) -> bool {
        self.waiting_bytes > SESSION_WAITING_BYTES_MAX
    }

    /// Whether all was passed on.
    fn is_flushed(&self) -> bool {
        self.waiting.is_empty() && self.ended == self.finished
    }

    fn check_datagrams(&self) -> Result<(), SendError> {
        match self.protocol {
            Protocol::Udp | Protocol::Ip if self.ending.is_none() => Ok(()),
            Protocol::Udp | Protocol::Ip => Err(SendError::Closed),
            Protocol::Tcp => Err(SendError::Unsupported),
        }
    }

    fn check_bytes(&self) -> Result<(), SendError> {
        match self.protocol {
            Protocol::Tcp if self.ended || self.ending.is_some() => Err(SendError::Closed),
            Protocol::Tcp => Ok(()),
            Protocol::Udp | Protocol::Ip => Err(SendError::Unsupported),
        }
    }

    pub(super) fn send(
        &self,
        context: u64,
        payload: Bytes,
        engine: &mut dyn Engine,
    ) -> Result<(), SendError> {
        self.check_datagrams()?;
        let payload = match (self.protocol, context) {
            (Protocol::Ip, 0) => ip::packet(payload)?,
            (Protocol::Ip | Protocol::Udp | Protocol::Tcp, _) => payload,
        };
        engine.send(self.tunnel, context, payload)
    }

    pub(super) fn say(&self, saying: Saying, engine: &mut dyn Engine) -> Said {
        match self.protocol {
            Protocol::Ip if self.ending.is_none() => engine.say(self.tunnel, saying),
            Protocol::Ip => Err(SendError::Closed),
            Protocol::Udp | Protocol::Tcp => Err(SendError::Unsupported),
        }
    }

    pub(super) fn send_data(
        &mut self,
        data: Bytes,
        end: bool,
        engine: &mut dyn Engine,
    ) -> Result<(), SendError> {
        self.check_bytes()?;
        self.ended = end;
        if !data.is_empty() {
            self.waiting_bytes += data.len();
            self.waiting.push_back(data);
        }
        self.flush(engine);
        Ok(())
    }

    pub(super) fn send_capsule(
        &mut self,
        kind: u64,
        value: &[u8],
        engine: &mut dyn Engine,
    ) -> Result<(), SendError> {
        // Capsules would overtake the bytes that wait.
        if self.ending.is_some() || self.ended {
            return Err(SendError::Closed);
        }
        let sent = match self.waiting.is_empty() {
            true => engine.send_capsule(self.tunnel, kind, value),
            false => Err(SendError::NoRoom),
        };
        self.starved |= sent == Err(SendError::NoRoom);
        sent
    }

    /// Passes on what there is room for.
    pub(super) fn flush(&mut self, engine: &mut dyn Engine) {
        while let Some(first) = self.waiting.front_mut() {
            let room = engine.room(self.tunnel).min(first.len());
            if room == 0 {
                break;
            }
            let piece = first.split_to(room);
            if first.is_empty() {
                self.waiting.pop_front();
            }
            self.waiting_bytes -= piece.len();
            engine.write(self.tunnel, piece);
        }
        if self.waiting.is_empty() && self.ended && !self.finished {
            self.finished = true;
            engine.finish(self.tunnel);
        }
        if let Some(handle) = &self.handle {
            handle.set_waiting(self.waiting_bytes);
        }
    }

    /// Nothing follows what waits. Returns whether all of it was passed on.
    pub(super) fn end(&mut self, engine: &mut dyn Engine) -> bool {
        if self.protocol == Protocol::Tcp {
            self.ended = true;
            self.flush(engine);
        }
        self.is_flushed()
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The tunnel is gone: what waits is lost, and nothing more is taken.
    pub(super) fn cut(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.ended = true;
        self.finished = true;
    }

    pub(super) fn close(&mut self, ending: Ending) {
        match self.ending {
            // The first word counts, except that an abrupt end overtakes an orderly one.
            None | Some(Ending::Orderly) => self.ending = Some(ending),
            Some(Ending::Abrupt(_)) => {}
        }
    }
}

/// What a [`Session`] can do in a callback.
pub struct Actions<'a> {
    pub(super) outgoing: &'a mut Outgoing,
    pub(super) engine: &'a mut dyn Engine,
    pub(super) handle: &'a dyn Fn() -> TunnelHandle,
}

impl Actions<'_> {
    /// Sends a UDP payload, or an IP packet, to the client: [`send_on`](Self::send_on) with Context ID 0.
    ///
    /// # Errors
    /// As there.
    pub fn send(&mut self, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.send_on(0, payload)
    }

    /// Sends a datagram with that Context ID (RFC 9298 §4) to the client. It may get lost on the way, and while the
    /// client's connection is congested only the newest are kept.
    ///
    /// # Errors
    /// [`SendError::TooLong`] for one that does not fit the path, on an IP tunnel [`SendError::PacketTooLarge`] and
    /// [`SendError::NotAPacket`], [`SendError::NoRoom`] where it was dropped, [`SendError::Unsupported`] on a TCP
    /// tunnel, [`SendError::Closed`] after [`close`](Self::close).
    pub fn send_on(&mut self, context: u64, payload: impl Into<Bytes>) -> Result<(), SendError> {
        self.outgoing.send(context, payload.into(), self.engine)
    }

    /// Asks the client of an IP tunnel for addresses, as
    /// [`IpTunnel::request_addresses`](crate::IpTunnel::request_addresses).
    ///
    /// # Errors
    /// [`SendError::Rule`], [`SendError::Unsupported`] on other tunnels, [`SendError::Closed`] after
    /// [`close`](Self::close).
    pub fn request_addresses(&mut self, wishes: &[IpNet]) -> Result<Vec<u64>, SendError> {
        self.say(Saying::Request(wishes.to_vec()))
    }

    /// Says which addresses the client of an IP tunnel may use as source, as
    /// [`IpTunnel::assign_addresses`](crate::IpTunnel::assign_addresses). Packets from others no longer reach the
    /// session.
    ///
    /// # Errors
    /// As [`request_addresses`](Self::request_addresses).
    pub fn assign_addresses(&mut self, list: Vec<AssignedAddress>) -> Result<(), SendError> {
        self.say(Saying::Assign(list)).map(drop)
    }

    /// Says what the client of an IP tunnel can reach, as
    /// [`IpTunnel::advertise_routes`](crate::IpTunnel::advertise_routes). Packets to elsewhere do not reach the
    /// session.
    ///
    /// # Errors
    /// As [`request_addresses`](Self::request_addresses).
    pub fn advertise_routes(&mut self, list: Vec<AddressRange>) -> Result<(), SendError> {
        self.say(Saying::Routes(list)).map(drop)
    }

    /// Tells the client of an IP tunnel name servers, as [`IpTunnel::assign_dns`](crate::IpTunnel::assign_dns).
    ///
    /// # Errors
    /// As [`request_addresses`](Self::request_addresses).
    pub fn assign_dns(&mut self, list: Vec<DnsConfig>) -> Result<(), SendError> {
        self.say(Saying::Dns(list)).map(drop)
    }

    /// Tells the client of an IP tunnel prefixes of NAT64, as
    /// [`IpTunnel::assign_pref64`](crate::IpTunnel::assign_pref64).
    ///
    /// # Errors
    /// As [`request_addresses`](Self::request_addresses).
    pub fn assign_pref64(&mut self, list: Vec<Ipv6Net>) -> Result<(), SendError> {
        self.say(Saying::Pref64(list)).map(drop)
    }

    fn say(&mut self, saying: Saying) -> Said {
        self.outgoing.say(saying, self.engine)
    }

    /// What both ends of an IP tunnel have told each other, and the MTU; `None` on other tunnels.
    #[must_use]
    pub fn ip_info(&mut self) -> Option<IpInfo> {
        match self.outgoing.protocol {
            Protocol::Ip => self.engine.ip_info(self.outgoing.tunnel),
            Protocol::Udp | Protocol::Tcp => None,
        }
    }

    /// Sends bytes to the client of a TCP tunnel. Nothing is lost: what the client does not take yet waits.
    ///
    /// A session that answers what it reads needs no care, since it reads nothing while more than
    /// [`SESSION_WAITING_BYTES_MAX`] waits. One that talks on its own asks [`room`](Self::room) first.
    ///
    /// # Errors
    /// [`SendError::Unsupported`] on a UDP or IP tunnel, [`SendError::Closed`] after [`finish`](Self::finish) or
    /// [`close`](Self::close).
    pub fn send_data(&mut self, data: impl Into<Bytes>) -> Result<(), SendError> {
        (self.outgoing).send_data(data.into(), false, self.engine)
    }

    /// Sends the last bytes to the client of a TCP tunnel, and the end behind them. The client's direction goes on.
    ///
    /// # Errors
    /// As [`send_data`](Self::send_data).
    pub fn finish(&mut self, data: impl Into<Bytes>) -> Result<(), SendError> {
        (self.outgoing).send_data(data.into(), true, self.engine)
    }

    /// Sends a capsule of type `kind` (RFC 9297 §3.2) on the request stream.
    ///
    /// # Errors
    /// [`SendError::NoRoom`] while bytes wait or the stream has no room, after which [`Session::on_writable`] follows;
    /// [`SendError::TooLong`] for a value above 64 KiB; [`SendError::Unsupported`] on a tunnel without capsules and
    /// for the types that carry the tunnel's own data; [`SendError::Closed`] after the end.
    pub fn send_capsule(&mut self, kind: u64, value: &[u8]) -> Result<(), SendError> {
        self.outgoing.send_capsule(kind, value, self.engine)
    }

    /// How many bytes [`send_data`](Self::send_data) should be given now. After 0, [`Session::on_writable`] follows.
    pub fn room(&mut self) -> usize {
        let room = self.outgoing.room();
        self.outgoing.starved |= room == 0;
        room
    }

    /// Ends the tunnel: what waits is sent first, then both directions end in an orderly way.
    /// [`Session::on_close`] follows when this is done.
    pub fn close(&mut self) {
        self.outgoing.close(Ending::Orderly);
    }

    /// Ends the tunnel at once with a stream code of HTTP/3 (RFC 9114 §8.1), such as 0x10f (H3_CONNECT_ERROR); HTTP/2
    /// gets the code that comes closest, HTTP/1.1 a connection that breaks off. What waits is lost.
    pub fn close_with(&mut self, code: u64) {
        self.outgoing.close(Ending::Abrupt(code));
    }

    /// What the tunnel carries.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.outgoing.protocol
    }

    /// A handle to this tunnel for other threads.
    pub fn handle(&mut self) -> TunnelHandle {
        self.outgoing.handle.get_or_insert_with(self.handle).clone()
    }
}

impl fmt::Debug for Actions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actions")
            .field("outgoing", &self.outgoing)
            .finish_non_exhaustive()
    }
}
