//! What a tunnel's handle and its worker share.
//!
//! Both ends change it under a lock and tell each other afterwards: the handle by [`Command::Attend`], once until the
//! worker has looked; the worker by events, and by listing the tunnel with the user's [`Events`].
//!
//! The user's side is here, the worker's in `served`, who holds it in `handle`.

mod handle;
mod ip;
mod served;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use event_listener::Event as Notice;

pub(in crate::embed) use self::handle::{Handle, Held, Receiving};
pub(in crate::embed) use self::served::Work;

use self::ip::IpSide;
use super::events::{Event, Events, Mode, WeakEvents};
use super::info::{Capsule, CloseReason, Datagram, Info, Protocol, ShutdownError, State, TunnelId};
use super::queues::{CAPSULE_BYTES_MAX, CAPSULES_MAX, Inbound, Outbound};
use crate::embed::host::{Command, HostSender};
use crate::embed::lock::Lock;
use crate::error::{Error, ErrorKind, Side};
use crate::tunnel::TunnelId as MachineId;
use crate::wire::capsule::{CapsuleType, UserTypeError};
use crate::wire::carrier::Carrier;
use crate::wire::codepoints::Revision;
use crate::wire::datagram::UDP_PAYLOAD_MAX;
use crate::wire::ip::{Destination, IpCapsule};
use crate::wire::varint;
use crate::worker::{Elsewhere, MTU_MIN};

/// What is decided about a tunnel before it opens.
#[derive(Clone, Debug)]
pub(in crate::embed) struct Terms {
    /// What it carries.
    pub(in crate::embed) protocol: Protocol,
    /// What it reaches.
    pub(in crate::embed) destination: Destination,
    /// The relays, as their origins.
    pub(in crate::embed) relays: Arc<[String]>,
    /// Whether its stream is made of capsules.
    pub(in crate::embed) capsules: bool,
    /// Datagrams that wait for the user, at most.
    pub(in crate::embed) receive_queue: usize,
    /// Where the client is, if its stream is carried by somebody else: then nothing but that stream's end ends the
    /// tunnel in order.
    pub(in crate::embed) elsewhere: Option<Elsewhere>,
}

/// What is known about a tunnel once it is open.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::embed) struct Opened {
    /// The HTTP version.
    pub(in crate::embed) carrier: Option<Carrier>,
    /// The far end of the connection.
    pub(in crate::embed) peer: Option<std::net::SocketAddr>,
    /// The largest payload.
    pub(in crate::embed) size_max: Option<usize>,
}

#[derive(Debug)]
enum Phase {
    Opening,
    Open,
    Closing,
    Closed(CloseReason),
}

#[derive(Debug, Default)]
struct Told {
    opened: bool,
    ended: bool,
    closed: bool,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    was_open: bool,
    /// It is to be broken, not brought to its end.
    broken: bool,
    opened: Opened,
    inbound: Inbound,
    outbound: Outbound,
    events: Option<WeakEvents>,
    /// The events know that there is something.
    listed: bool,
    told: Told,
    /// What only IP tunnels have.
    ip: Option<IpSide>,
    datagrams: [u64; 2],
    bytes: [u64; 2],
}

const SENT: usize = 0;
const RECEIVED: usize = 1;

/// A tunnel as its handle and its worker see it.
pub(in crate::embed) struct Shared {
    id: TunnelId,
    terms: Terms,
    worker: HostSender,
    inner: Lock<Inner>,
    /// The worker was asked to look and has not looked yet.
    asked: AtomicBool,
    machine: OnceLock<MachineId>,
    /// Something can be taken, or never will be.
    readable: Notice,
    /// There is room again, or never will be.
    writable: Notice,
    /// It opened, or closed.
    changed: Notice,
}

impl Shared {
    /// A tunnel that will be opened on the terms.
    pub(in crate::embed) fn new(terms: Terms, worker: HostSender) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: TunnelId(NEXT.fetch_add(1, Ordering::Relaxed)),
            inner: Lock::new(Inner {
                phase: Phase::Opening,
                was_open: false,
                broken: false,
                opened: Opened::default(),
                inbound: Inbound::new(terms.receive_queue),
                outbound: Outbound::new(),
                events: None,
                listed: false,
                told: Told::default(),
                ip: (terms.protocol == Protocol::Ip).then(IpSide::default),
                datagrams: [0; 2],
                bytes: [0; 2],
            }),
            terms,
            worker,
            asked: AtomicBool::new(false),
            machine: OnceLock::new(),
            readable: Notice::new(),
            writable: Notice::new(),
            changed: Notice::new(),
        }
    }

    /// Changes what is shared, then tells the user's events if they do not know yet that there is something.
    fn update<T>(self: &Arc<Self>, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.inner.lock();
        let value = change(&mut inner);
        let events = inner.events_to_tell();
        drop(inner);
        if let Some(events) = events {
            events.list(self);
        }
        value
    }
}

impl fmt::Debug for Shared {
    /// Neither what the tunnel carries nor where it leads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("id", &self.id)
            .field("protocol", &self.terms.protocol)
            .finish_non_exhaustive()
    }
}

/// The user's side.
impl Shared {
    pub(super) const fn id(&self) -> TunnelId {
        self.id
    }

    pub(in crate::embed) const fn readable(&self) -> &Notice {
        &self.readable
    }

    pub(in crate::embed) const fn writable(&self) -> &Notice {
        &self.writable
    }

    pub(super) const fn changed(&self) -> &Notice {
        &self.changed
    }

    pub(super) const fn worker(&self) -> &HostSender {
        &self.worker
    }

    /// Asks the worker to look, unless it was asked already.
    fn ask(self: &Arc<Self>) {
        if !self.asked.swap(true, Ordering::AcqRel) {
            self.worker.send(Command::Attend(Arc::clone(self)));
        }
    }

    /// Whether the tunnel opened, once that is known.
    pub(super) fn opened(&self) -> Option<Result<(), Error>> {
        let inner = self.inner.lock();
        match &inner.phase {
            Phase::Opening => None,
            Phase::Open => Some(Ok(())),
            _ if inner.was_open => Some(Ok(())),
            Phase::Closing => Some(Err(CloseReason::Local.to_error())),
            Phase::Closed(reason) => Some(Err(reason.to_error())),
        }
    }

    /// Why the tunnel is over, once it is.
    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        match &self.inner.lock().phase {
            Phase::Opening | Phase::Open | Phase::Closing => None,
            Phase::Closed(reason) => Some(reason.clone()),
        }
    }

    /// Queues a datagram; it never waits.
    pub(super) fn send(self: &Arc<Self>, datagram: Datagram) -> Result<(), Error> {
        if datagram.context > varint::MAX {
            return Err(too_large("context", datagram.context, varint::MAX));
        }
        let mut inner = self.inner.lock();
        inner.check_usable()?;
        let (len, max) = (datagram.payload.len(), inner.payload_max());
        if len > max {
            // The path may have grown: the worker looks.
            drop(inner);
            self.ask();
            return Err(too_large("UDP payload in bytes", len as u64, max as u64));
        }
        inner.outbound.datagrams.push(datagram);
        inner.count(SENT, 1, len);
        drop(inner);
        self.ask();
        Ok(())
    }

    /// Queues a capsule.
    pub(super) fn send_capsule(self: &Arc<Self>, capsule: Capsule) -> Result<(), Error> {
        if !self.terms.capsules {
            return Err(Error::new(ErrorKind::Unsupported, Side::Local)
                .with_source("the stream of this tunnel is not made of capsules"));
        }
        let revision = match self.terms.protocol {
            Protocol::Udp | Protocol::Ip => None,
            Protocol::Tcp => Some(Revision::newest()),
        };
        let checked = match CapsuleType::of_user(capsule.kind, revision) {
            Ok(kind) if self.terms.protocol == Protocol::Ip && IpCapsule::has(kind) => {
                Err(UserTypeError::Ip(kind))
            }
            checked => checked,
        };
        if let Err(error) = checked {
            return Err(Error::new(ErrorKind::Unsupported, Side::Local).with_source(error));
        }
        let len = capsule.value.len();
        if len > CAPSULE_BYTES_MAX {
            return Err(too_large(
                "capsule value in bytes",
                len as u64,
                CAPSULE_BYTES_MAX as u64,
            ));
        }
        let mut inner = self.inner.lock();
        inner.check_usable()?;
        let capsules = &mut inner.outbound.capsules;
        if capsules.len() >= CAPSULES_MAX {
            let (waiting, max) = (capsules.len() as u64 + 1, CAPSULES_MAX as u64);
            return Err(too_large("capsules that wait", waiting, max).retryable(true));
        }
        capsules.push_back(capsule);
        drop(inner);
        self.ask();
        Ok(())
    }

    /// The next datagram; an error when none will come.
    pub(in crate::embed) fn recv(&self) -> Option<Result<Datagram, Error>> {
        let mut inner = self.inner.lock();
        match inner.inbound.datagrams.pop() {
            Some(datagram) => Some(Ok(datagram)),
            None => inner.over().map(Err),
        }
    }

    /// The next capsule; an error when none will come.
    pub(in crate::embed) fn recv_capsule(&self) -> Option<Result<Capsule, Error>> {
        let mut inner = self.inner.lock();
        match inner.inbound.capsules.pop_front() {
            Some(capsule) => Some(Ok(capsule)),
            None => inner.over().map(Err),
        }
    }

    /// Copies the next bytes; 0 at the end.
    pub(super) fn read(self: &Arc<Self>, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        if buffer.is_empty() {
            return Some(Ok(0));
        }
        let mut inner = self.inner.lock();
        let len = inner.inbound.copy_to(buffer);
        if len > 0 {
            let ask = inner.inbound.wants_more();
            drop(inner);
            if ask {
                self.ask();
            }
            return Some(Ok(len));
        }
        if inner.inbound.ended {
            return Some(Ok(0));
        }
        inner.over().map(|error| Err(error.into()))
    }

    /// Queues as many of the bytes as there is room for.
    pub(in crate::embed) fn write(self: &Arc<Self>, bytes: &[u8]) -> Option<io::Result<usize>> {
        self.write_some(bytes, false)
    }

    /// How many bytes a write would take, once it would take any.
    pub(in crate::embed) fn write_room(&self) -> Option<io::Result<usize>> {
        let inner = self.inner.lock();
        let room = inner.outbound.room();
        match inner.check_usable() {
            Ok(()) => (room > 0).then_some(Ok(room)),
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Queues as [`write`](Self::write) does; who finds no room hears of it by [`Event::Writable`].
    pub(super) fn try_write(self: &Arc<Self>, bytes: &[u8]) -> io::Result<usize> {
        let full = || Err(io::ErrorKind::WouldBlock.into());
        self.write_some(bytes, true).unwrap_or_else(full)
    }

    fn write_some(self: &Arc<Self>, bytes: &[u8], starves: bool) -> Option<io::Result<usize>> {
        let mut inner = self.inner.lock();
        if let Err(error) = inner.check_usable() {
            return Some(Err(error.into()));
        }
        if inner.outbound.shut {
            let text = "the direction was ended before";
            return Some(Err(io::Error::new(io::ErrorKind::BrokenPipe, text)));
        }
        if bytes.is_empty() {
            return Some(Ok(0));
        }
        let len = bytes.len().min(inner.outbound.room());
        if len == 0 {
            inner.outbound.starved |= starves;
            return None;
        }
        inner.outbound.bytes.extend_from_slice(&bytes[..len]);
        drop(inner);
        self.ask();
        Some(Ok(len))
    }

    /// Ends the writing direction behind what was written.
    pub(in crate::embed) fn shut(self: &Arc<Self>) -> Result<(), ShutdownError> {
        let mut inner = self.inner.lock();
        match inner.phase {
            Phase::Opening => return Err(ShutdownError::NotReady),
            Phase::Open => {}
            Phase::Closed(CloseReason::Finished) => return Err(ShutdownError::AlreadyShut),
            Phase::Closing | Phase::Closed(_) => return Err(ShutdownError::Closing),
        }
        if inner.outbound.shut {
            return Err(ShutdownError::AlreadyShut);
        }
        inner.outbound.shut = true;
        drop(inner);
        self.ask();
        Ok(())
    }

    /// Nobody will write any more: the direction ends behind what was written, as soon as the tunnel is open.
    pub(super) fn give_up_writing(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        if !std::mem::replace(&mut inner.outbound.shut, true) {
            drop(inner);
            self.ask();
        }
    }

    /// Starts to close; what was sent still goes out.
    pub(in crate::embed) fn begin_close(self: &Arc<Self>) {
        let began = self.update(|inner| {
            let begins = matches!(inner.phase, Phase::Opening | Phase::Open);
            if begins {
                inner.phase = Phase::Closing;
                inner.outbound.shut = true;
            }
            begins
        });
        if began {
            self.ask();
            self.notify();
        }
    }

    /// Breaks it, even if it is closing already: neither end shall take it for complete.
    pub(in crate::embed) fn begin_reset(self: &Arc<Self>) {
        let began = self.update(|inner| {
            let begins = !matches!(inner.phase, Phase::Closed(_)) && !inner.broken;
            if begins {
                inner.phase = Phase::Closing;
                inner.broken = true;
            }
            begins
        });
        if began {
            self.ask();
            self.notify();
        }
    }

    /// Switches how the user is told; what is queued stays.
    pub(in crate::embed) fn set_mode(self: &Arc<Self>, mode: Mode) {
        self.update(|inner| {
            inner.listed = false;
            inner.events = match &mode {
                Mode::Pull => None,
                Mode::Events(events) => Some(events.downgrade()),
            };
        });
    }

    /// The next event, if the tunnel still belongs to `events`, and whether there are more.
    pub(super) fn next_event(self: &Arc<Self>, events: &Events) -> Option<(Event, bool)> {
        let mut inner = self.inner.lock();
        if !inner.events.as_ref().is_some_and(|own| own.is(events)) {
            return None;
        }
        let event = inner.pop_event();
        inner.listed = inner.has_event();
        let (more, ask) = (inner.listed, inner.inbound.wants_more());
        drop(inner);
        if ask {
            self.ask();
        }
        Some((event?, more))
    }

    pub(super) fn info(&self) -> Info {
        let inner = self.inner.lock();
        Info {
            id: self.id,
            state: match inner.phase {
                Phase::Opening => State::Opening,
                Phase::Open => State::Open,
                Phase::Closing => State::Closing,
                Phase::Closed(_) => State::Closed,
            },
            protocol: self.terms.protocol,
            carrier: inner.opened.carrier,
            relays: self.terms.relays.to_vec(),
            target: self.terms.destination.target().cloned(),
            scope: self.terms.destination.scope().cloned(),
            peer: inner.opened.peer,
            datagrams_sent: inner.datagrams[SENT],
            datagrams_received: inner.datagrams[RECEIVED],
            bytes_sent: inner.bytes[SENT],
            bytes_received: inner.bytes[RECEIVED],
            send_dropped: inner.outbound.datagrams.dropped,
            receive_dropped: inner.inbound.datagrams.dropped,
            capsules_dropped: inner.inbound.capsules_dropped,
            datagram_size_max: match self.terms.protocol {
                Protocol::Udp | Protocol::Ip => inner.opened.carrier.map(|_| inner.payload_max()),
                Protocol::Tcp => None,
            },
        }
    }
}

impl Inner {
    fn count(&mut self, direction: usize, datagrams: u64, bytes: usize) {
        self.datagrams[direction] += datagrams;
        self.bytes[direction] += bytes as u64;
    }

    fn payload_max(&self) -> usize {
        let max = self.opened.size_max.unwrap_or(UDP_PAYLOAD_MAX);
        match self.ip {
            None => max,
            Some(_) => max.max(MTU_MIN),
        }
    }

    /// The error of whoever waits for something that will not come.
    fn over(&self) -> Option<Error> {
        match &self.phase {
            Phase::Opening | Phase::Open => None,
            Phase::Closing => Some(CloseReason::Local.to_error()),
            Phase::Closed(reason) => Some(reason.to_error()),
        }
    }

    fn check_usable(&self) -> Result<(), Error> {
        self.over().map_or(Ok(()), Err)
    }

    fn has_event(&self) -> bool {
        let Self { inbound, told, .. } = self;
        (self.was_open && !told.opened)
            || self.has_room_again()
            || self.ip.as_ref().is_some_and(IpSide::has_event)
            || !inbound.datagrams.is_empty()
            || inbound.has_bytes()
            || !inbound.capsules.is_empty()
            || (inbound.ended && !told.ended)
            || (matches!(self.phase, Phase::Closed(_)) && !told.closed)
    }

    /// Whether somebody found no room, and could write now.
    fn has_room_again(&self) -> bool {
        let Self { outbound, .. } = self;
        let has_room = outbound.room() > 0 && !outbound.datagrams.is_full();
        outbound.starved && !outbound.shut && has_room && self.check_usable().is_ok()
    }

    /// What comes next, in an order in which nothing comes behind the end.
    fn pop_event(&mut self) -> Option<Event> {
        let writable = self.has_room_again();
        let Self {
            inbound,
            outbound,
            told,
            ip,
            ..
        } = self;
        if self.was_open && !std::mem::replace(&mut told.opened, self.was_open) {
            return Some(Event::Opened);
        }
        // Ahead of what came: a target that never stops talking would hold it back for ever.
        if writable {
            outbound.starved = false;
            return Some(Event::Writable);
        }
        // Ahead of packets that are about it.
        if let Some(event) = ip.as_mut().and_then(IpSide::pop_event) {
            return Some(Event::Ip(event));
        }
        if let Some(datagram) = inbound.datagrams.pop() {
            return Some(match ip {
                Some(_) => Event::Packet(datagram.payload),
                None => Event::Datagram(datagram),
            });
        }
        if let Some(bytes) = inbound.pop_bytes() {
            return Some(Event::Data(bytes));
        }
        if let Some(capsule) = inbound.capsules.pop_front() {
            return Some(Event::Capsule(capsule));
        }
        if inbound.ended && !std::mem::replace(&mut told.ended, true) {
            return Some(Event::Eof);
        }
        match &self.phase {
            Phase::Closed(reason) if !std::mem::replace(&mut told.closed, true) => {
                Some(Event::Closed(reason.clone()))
            }
            Phase::Opening | Phase::Open | Phase::Closing | Phase::Closed(_) => None,
        }
    }

    /// The events that have to be told that there is something.
    fn events_to_tell(&mut self) -> Option<Events> {
        if self.listed || !self.has_event() {
            return None;
        }
        let events = self.events.as_ref()?.upgrade()?;
        self.listed = true;
        Some(events)
    }
}

fn too_large(what: &'static str, size: u64, max: u64) -> Error {
    Error::new(ErrorKind::Limit, Side::Local).with_source(format!("{what}: {size}, at most {max}"))
}
