//! One session and its tunnel: events in, callbacks out, back-pressure between.

use bytes::Bytes;
use std::time::Instant;

use super::sessions::{Act, Serve};
use crate::embed::handler_guard::{Panicked, guarded};
use crate::embed::ip::{Said, Saying};
use crate::embed::session::{self, Actions, Ending, Outgoing, SendError, Session};
use crate::embed::session_handle::TunnelHandle;
use crate::embed::{CloseReason, Protocol, failure};
use crate::http::h3::code::Code;
use crate::transport::quic::SendOutcome;
use crate::tunnel::TunnelId;
use crate::tunnel::ip::IpEvent;
use crate::wire::capsule::{CapsuleType, UNKNOWN_VALUE_MAX};
use crate::wire::datagram::{ContextId, UDP_PAYLOAD_MAX};
use crate::wire::varint;
use crate::worker::run::World;
use crate::worker::{CapsuleSent, Closed, End, IpInfo, LocalRead, Machine};

/// Bytes of one client that a session is given before others get their turn.
const BYTES_PER_TURN: usize = 256 * 1024;
/// Bytes that a session is given at once.
const BYTES_PER_CALL: usize = 64 * 1024;

/// What a callback can reach.
pub(super) struct Engine<'a, 'b> {
    pub(super) now: Instant,
    pub(super) machine: &'a mut Machine,
    pub(super) out: &'a mut World<'b>,
    pub(super) serve: &'a Serve,
}

impl Engine<'_, '_> {
    /// Ends a tunnel in an orderly way.
    pub(super) fn close(&mut self, tunnel: TunnelId) {
        (self.machine).close_end(self.now, tunnel, End::Upstream, None, self.out);
    }

    fn close_with(&mut self, tunnel: TunnelId, code: u64) {
        let code = Some(Code(code.min(varint::MAX)));
        (self.machine).close_end(self.now, tunnel, End::Upstream, code, self.out);
    }

    /// Ends a tunnel whose session is broken.
    pub(super) fn break_off(&mut self, tunnel: TunnelId) {
        self.close_with(tunnel, Code::H3_INTERNAL_ERROR.0);
    }
}

impl session::Engine for Engine<'_, '_> {
    fn send(&mut self, tunnel: TunnelId, context: u64, payload: Bytes) -> Result<(), SendError> {
        if context > varint::MAX {
            return Err(SendError::Unsupported);
        }
        if payload.len() > UDP_PAYLOAD_MAX {
            let max = UDP_PAYLOAD_MAX;
            return Err(SendError::TooLong { max });
        }
        let size = payload.len();
        let sent = self.machine.send_end(
            self.now,
            tunnel,
            End::Upstream,
            ContextId(context),
            payload,
            self.out,
        );
        match sent {
            SendOutcome::Sent | SendOutcome::Queued => Ok(()),
            SendOutcome::TooLarge => {
                let description = self.machine.describe(tunnel, End::Upstream);
                let max = description.and_then(|it| it.payload_size_max);
                if let Some(info) = self.machine.ip_info(tunnel, End::Upstream) {
                    let mtu = info.mtu;
                    return Err(SendError::PacketTooLarge { size, mtu });
                }
                Err(SendError::TooLong {
                    max: max.unwrap_or(0),
                })
            }
            SendOutcome::Blocked => Err(SendError::NoRoom),
            SendOutcome::Gone => Err(SendError::Closed),
        }
    }

    fn say(&mut self, tunnel: TunnelId, saying: Saying) -> Said {
        saying.say(self.now, (tunnel, End::Upstream), self.machine, self.out)
    }

    fn ip_info(&mut self, tunnel: TunnelId) -> Option<IpInfo> {
        self.machine.ip_info(tunnel, End::Upstream)
    }

    fn send_capsule(&mut self, tunnel: TunnelId, kind: u64, value: &[u8]) -> Result<(), SendError> {
        let kind = CapsuleType(kind);
        // No receiver of ours keeps more, and no stream may ever have room for it.
        if value.len() > UNKNOWN_VALUE_MAX {
            let max = UNKNOWN_VALUE_MAX;
            return Err(SendError::TooLong { max });
        }
        match (self.machine).send_capsule(self.now, tunnel, End::Upstream, kind, value) {
            CapsuleSent::Sent => Ok(()),
            CapsuleSent::Blocked => Err(SendError::NoRoom),
            CapsuleSent::Unsupported | CapsuleSent::Reserved(_) => Err(SendError::Unsupported),
            CapsuleSent::Gone => Err(SendError::Closed),
        }
    }

    fn room(&mut self, tunnel: TunnelId) -> usize {
        self.machine.end_room(tunnel, End::Upstream)
    }

    fn write(&mut self, tunnel: TunnelId, data: Bytes) {
        (self.machine).write_end(self.now, tunnel, End::Upstream, data, self.out);
    }

    fn finish(&mut self, tunnel: TunnelId) {
        (self.machine).finish_end(self.now, tunnel, End::Upstream, self.out);
    }
}

/// What follows a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// There is more to read, in another turn.
    ReadOn,
}

/// A session whose tunnel is open.
pub(super) struct Live {
    session: Box<dyn Session>,
    outgoing: Outgoing,
    /// The client's direction has ended, and the session knows.
    eof: bool,
    /// Reading stopped because too much waits for the client.
    paused: bool,
    /// The end that the session wants was passed on.
    ending: bool,
    /// Until when its client may take to end too.
    pub(super) lingers: Option<Instant>,
    /// What waited for the client when that was decided, in bytes.
    left: usize,
}

impl Live {
    pub(super) fn new(id: TunnelId, protocol: Protocol, session: Box<dyn Session>) -> Self {
        Self {
            session,
            outgoing: Outgoing::new(id, protocol),
            eof: false,
            paused: false,
            ending: false,
            lingers: None,
            left: 0,
        }
    }

    pub(super) fn id(&self) -> TunnelId {
        self.outgoing.tunnel
    }

    /// Calls the session, unless it has said its last word.
    fn call(
        &mut self,
        what: &'static str,
        engine: &mut Engine<'_, '_>,
        callback: impl FnOnce(&mut dyn Session, &mut Actions<'_>),
    ) -> Result<(), Panicked> {
        let serve = engine.serve;
        if self.outgoing.ending.is_some() {
            // A message is the user's, and may panic when it is dropped.
            return guarded("drop", &serve.counters.panics, || drop(callback));
        }
        let tunnel = self.id();
        let mut actions = Actions {
            outgoing: &mut self.outgoing,
            engine,
            handle: &|| TunnelHandle::new(tunnel, serve.sender.clone()),
        };
        let session = &mut *self.session;
        guarded(what, &serve.counters.panics, || {
            callback(session, &mut actions);
        })
    }

    /// Does what a callback, or a handle, has decided about the end of the tunnel.
    fn settle(&mut self, engine: &mut Engine<'_, '_>) {
        let id = self.id();
        let Some(ending) = self.outgoing.ending.filter(|_| !self.ending) else {
            return;
        };
        match ending {
            Ending::Abrupt(code) => engine.close_with(id, code),
            Ending::Orderly if !self.outgoing.end(engine) => return,
            // A datagram tunnel has no half to wait for.
            Ending::Orderly if self.outgoing.protocol() != Protocol::Tcp => engine.close(id),
            // The client has a while to end its direction.
            Ending::Orderly => {}
        }
        self.ending = true;
    }

    /// Whether the time begins in which the client of a session that has closed has to do something: with the close,
    /// not behind what waits, as a client that does not read would put it off for ever.
    pub(super) fn lingers_anew(&mut self) -> bool {
        let is_tcp = self.outgoing.protocol() == Protocol::Tcp;
        if !is_tcp || self.outgoing.ending != Some(Ending::Orderly) {
            return false;
        }
        let before = std::mem::replace(&mut self.left, self.outgoing.waiting_bytes());
        self.lingers.is_none() || self.left < before
    }

    pub(super) fn open(&mut self, engine: &mut Engine<'_, '_>) -> Result<Next, Panicked> {
        self.call("on_open", engine, |session, actions| {
            session.on_open(actions);
        })?;
        self.settle(engine);
        Ok(Next::Nothing)
    }

    pub(super) fn packet(
        &mut self,
        context: u64,
        payload: Bytes,
        engine: &mut Engine<'_, '_>,
    ) -> Result<Next, Panicked> {
        self.call("on_packet", engine, |session, actions| {
            session.on_packet(actions, context, payload);
        })?;
        self.settle(engine);
        Ok(Next::Nothing)
    }

    pub(super) fn ip_event(
        &mut self,
        event: IpEvent,
        engine: &mut Engine<'_, '_>,
    ) -> Result<Next, Panicked> {
        self.call("on_ip_event", engine, |session, actions| {
            session.on_ip_event(actions, event);
        })?;
        self.go_on(engine)
    }

    pub(super) fn capsule(
        &mut self,
        kind: u64,
        value: Bytes,
        engine: &mut Engine<'_, '_>,
    ) -> Result<Next, Panicked> {
        self.call("on_capsule", engine, |session, actions| {
            session.on_capsule(actions, kind, value);
        })?;
        self.go_on(engine)
    }

    /// Reads while the session keeps up.
    pub(super) fn read(&mut self, engine: &mut Engine<'_, '_>) -> Result<Next, Panicked> {
        let mut room = BYTES_PER_TURN;
        while !self.eof && !self.outgoing.is_full() {
            if room == 0 {
                return Ok(Next::ReadOn);
            }
            let (now, bytes_max) = (engine.now, room.min(BYTES_PER_CALL));
            let read =
                (engine.machine).read_end(now, self.id(), End::Upstream, bytes_max, engine.out);
            match read {
                LocalRead::Data(data) => {
                    room = room.saturating_sub(data.len());
                    self.call("on_data", engine, |session, actions| {
                        session.on_data(actions, data);
                    })?;
                }
                LocalRead::Blocked => break,
                LocalRead::End => {
                    self.eof = true;
                    self.call("on_eof", engine, |session, actions| {
                        session.on_eof(actions);
                    })?;
                }
            }
            self.settle(engine);
        }
        self.paused = !self.eof && self.outgoing.is_full();
        Ok(Next::Nothing)
    }

    /// Gives the session what came before its tunnel broke, however much of its own waits: there will be no other time.
    pub(super) fn read_rest(&mut self, engine: &mut Engine<'_, '_>) -> Result<(), Panicked> {
        self.outgoing.cut();
        let (now, id) = (engine.now, self.id());
        while let LocalRead::Data(data) =
            (engine.machine).read_end(now, id, End::Upstream, BYTES_PER_CALL, engine.out)
        {
            self.call("on_data", engine, |session, actions| {
                session.on_data(actions, data);
            })?;
        }
        Ok(())
    }

    /// Settles, and reads on where reading stopped, if there is room now: whatever made it.
    fn go_on(&mut self, engine: &mut Engine<'_, '_>) -> Result<Next, Panicked> {
        self.settle(engine);
        match self.paused && !self.outgoing.is_full() {
            true => self.read(engine),
            false => Ok(Next::Nothing),
        }
    }

    /// There is room towards the client.
    pub(super) fn writable(&mut self, engine: &mut Engine<'_, '_>) -> Result<Next, Panicked> {
        self.outgoing.flush(engine);
        if self.outgoing.starved && self.outgoing.room() > 0 {
            self.outgoing.starved = false;
            self.call("on_writable", engine, |session, actions| {
                session.on_writable(actions);
            })?;
        }
        self.go_on(engine)
    }

    /// Does what a handle orders.
    pub(super) fn act(&mut self, act: Act, engine: &mut Engine<'_, '_>) -> Result<Next, Panicked> {
        // What becomes of an order is not told.
        match act {
            Act::Message(message) => {
                self.call("on_message", engine, |session, actions| {
                    session.on_message(actions, message);
                })?;
            }
            Act::Send(context, payload) => drop(self.outgoing.send(context, payload, engine)),
            Act::Data(data, end) => drop(self.outgoing.send_data(data, end, engine)),
            Act::Capsule(kind, value) => {
                drop(self.outgoing.send_capsule(kind, &value, engine));
            }
            Act::Say(saying) => drop(self.outgoing.say(saying, engine)),
            Act::Close(ending) => self.outgoing.close(ending),
        }
        self.go_on(engine)
    }

    /// Why the tunnel is over, as the session sees it.
    pub(super) fn reason(&self, closed: Closed) -> CloseReason {
        match closed {
            _ if self.ending => CloseReason::Local,
            Closed::Finished => CloseReason::Finished,
            Closed::Aborted { abort, code } => {
                failure::aborted(self.outgoing.protocol(), abort, code)
            }
        }
    }

    /// The tunnel is over.
    pub(super) fn close(mut self, reason: CloseReason, serve: &Serve) {
        self.give_up();
        let panics = &serve.counters.panics;
        let told = guarded("on_close", panics, || self.session.on_close(reason));
        // A session that panics once more while it is dropped would end the process, were both one call.
        let dropped = guarded("drop", panics, || drop(self));
        drop((told, dropped));
    }

    /// Tells the handles that the tunnel is over.
    pub(super) fn give_up(&self) {
        if let Some(handle) = &self.outgoing.handle {
            handle.set_closed();
        }
    }
}
