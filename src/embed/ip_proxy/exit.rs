//! What the workers of a listener and the handles of an [`IpProxy`](super::IpProxy) share.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use thiserror::Error;

use super::handle::{IpProxyEvent, IpProxyHandle, IpProxyStats, IpSession};
use super::tun::Interface;
use crate::embed::handler_guard::guarded;
use crate::embed::host::sessions::Counters;
use crate::embed::host::{Command, HostSender};
use crate::embed::ip;
use crate::embed::lock::Lock;
use crate::embed::session::SendError;
use crate::net::Driver;
use crate::net::tun::TunError;
use crate::policy::Policy;
use crate::tunnel::TunnelId;
use crate::tunnel::ip::{Owner, Pools};
use crate::wire::ip::Packet;
use crate::worker::{self, DropReason, Gateway, GatewayEvent, GatewaySettings, Machine, Tag};

/// Packets of one proxy that may be on their way to its workers at once.
const INJECTED_MAX: usize = 4_096;

/// A hook that is given packets.
pub(super) type Forward = Arc<dyn Fn(&IpProxyHandle, IpSession, Bytes) + Send + Sync>;
/// A hook that is told what happens.
pub(super) type Watch = Arc<dyn Fn(&IpProxyEvent) + Send + Sync>;

/// The hooks of one proxy.
#[derive(Default)]
pub(super) struct Hooks {
    pub(super) forward: Option<Forward>,
    pub(super) watch: Option<Watch>,
}

/// A way out for IP packets, of one listener.
pub(in crate::embed) struct Exit {
    pub(super) settings: GatewaySettings,
    pub(super) pools: Pools,
    pub(super) hooks: Hooks,
    /// The interface that packets leave by, if they do not leave by a hook.
    pub(super) interface: Option<Interface>,
    /// Workers that have their part, and have not ended.
    users: AtomicUsize,
    /// The listener that it serves.
    home: OnceLock<Home>,
    /// How the workers that have it are reached, by their number.
    workers: Lock<Vec<Option<HostSender>>>,
    /// Packets that the workers have not seen yet.
    injected: AtomicUsize,
    counts: Counts,
}

/// Why a worker has no part in an exit.
#[derive(Debug, Error)]
pub(in crate::embed) enum InstallError {
    /// One of them has another already.
    #[error("one listener has one IP proxy, and an IP proxy one listener")]
    Elsewhere,
    /// The interface has no queue for it.
    #[error(transparent)]
    Queue(#[from] TunError),
    /// The system refuses something else.
    #[error("the queue of the interface cannot be used: {0}")]
    System(#[from] io::Error),
}

/// What all workers of a listener have in common.
struct Home {
    listener: Arc<Counters>,
    settings: Arc<GatewaySettings>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Shared with the gateways of the workers.
    forwarded: Arc<AtomicU64>,
    injected: AtomicU64,
    assigned: AtomicU64,
    dropped: [AtomicU64; DROP_REASONS.len()],
}

const DROP_REASONS: [DropReason; 6] = [
    DropReason::Source,
    DropReason::Destination,
    DropReason::Protocol,
    DropReason::Prohibited,
    DropReason::HopLimit,
    DropReason::NoExit,
];

impl Exit {
    pub(super) fn new(
        settings: GatewaySettings,
        pools: Pools,
        hooks: Hooks,
        interface: Option<Interface>,
    ) -> Self {
        Self {
            settings,
            pools,
            hooks,
            interface,
            users: AtomicUsize::new(0),
            home: OnceLock::new(),
            workers: Lock::default(),
            injected: AtomicUsize::new(0),
            counts: Counts::default(),
        }
    }

    /// Gives a worker its part, if it is of the listener that the exit serves. `policy` completes the rules by what the
    /// listener knows.
    pub(in crate::embed) fn install(
        &self,
        listener: &Arc<Counters>,
        sender: &HostSender,
        policy: impl FnOnce(&Arc<Policy>) -> Arc<Policy>,
        machine: &mut Machine,
        driver: &mut Driver,
    ) -> Result<(), InstallError> {
        let home = self.home.get_or_init(|| Home {
            listener: Arc::clone(listener),
            settings: Arc::new(GatewaySettings {
                policy: policy(&self.settings.policy),
                ..self.settings.clone()
            }),
        });
        if !Arc::ptr_eq(&home.listener, listener) {
            return Err(InstallError::Elsewhere);
        }
        let exit = match &self.interface {
            Some(interface) => {
                let queue = interface.queue()?;
                worker::Exit::Tun(driver.add_tun(queue, Tag::Tun.to_bits())?)
            }
            None => worker::Exit::Handler,
        };
        let (settings, worker) = (Arc::clone(&home.settings), machine.worker());
        let gateway = Gateway::new(settings, self.pools.clone(), worker, exit);
        machine.set_gateway(gateway.watched(Arc::clone(&self.counts.forwarded)));
        self.users.fetch_add(1, Ordering::AcqRel);
        let mut workers = self.workers.lock();
        let index = worker as usize;
        if workers.len() <= index {
            workers.resize(index + 1, None);
        }
        workers[index] = Some(sender.clone());
        Ok(())
    }

    /// A worker that had a part has ended. With the last one the system is made as it was, which is waited for.
    pub(in crate::embed) fn leave(&self) {
        let was_last = self.users.fetch_sub(1, Ordering::AcqRel) == 1;
        if let (true, Some(interface)) = (was_last, &self.interface) {
            interface.close();
        }
    }

    /// Something happened at a worker's part.
    pub(in crate::embed) fn handle(
        self: &Arc<Self>,
        worker: u32,
        event: GatewayEvent,
        panics: &AtomicU64,
    ) {
        let session = |id: TunnelId| {
            IpSession(Owner {
                worker,
                tunnel: id.to_bits(),
            })
        };
        let event = match event {
            GatewayEvent::Packet(id, packet) => match &self.hooks.forward {
                Some(forward) => {
                    self.counts.forwarded.fetch_add(1, Ordering::Relaxed);
                    let (id, handle) = (session(id), IpProxyHandle(Arc::clone(self)));
                    drop(guarded("forward", panics, || forward(&handle, id, packet)));
                    return;
                }
                None => self.dropped(session(id), DropReason::NoExit),
            },
            GatewayEvent::Dropped(id, reason) => self.dropped(session(id), reason),
            GatewayEvent::Assigned(id, prefix) => {
                self.counts.assigned.fetch_add(1, Ordering::Relaxed);
                let session = session(id);
                IpProxyEvent::Assigned { session, prefix }
            }
            GatewayEvent::Released(id, prefix) => {
                let session = session(id);
                IpProxyEvent::Released { session, prefix }
            }
            GatewayEvent::Routes(id, prefixes) => {
                let session = session(id);
                IpProxyEvent::Routes { session, prefixes }
            }
        };
        if let Some(watch) = &self.hooks.watch {
            drop(guarded("events", panics, || watch(&event)));
        }
    }

    fn dropped(&self, session: IpSession, reason: DropReason) -> IpProxyEvent {
        self.counts.of(reason).fetch_add(1, Ordering::Relaxed);
        IpProxyEvent::Dropped { session, reason }
    }

    pub(super) fn session_of(&self, address: IpAddr) -> Option<IpSession> {
        self.pools.owner_of(address).map(IpSession)
    }

    pub(super) fn inject(self: &Arc<Self>, packet: Bytes) -> Result<(), SendError> {
        let packet = ip::packet(packet)?;
        let destination = Packet::parse(&packet)?.destination;
        let owner = self.pools.owner_of(destination);
        let sender = owner.and_then(|owner| {
            let workers = self.workers.lock();
            workers.get(owner.worker as usize).cloned().flatten()
        });
        let Some(sender) = sender else {
            return Err(SendError::Unassigned { destination });
        };
        // Racing threads may pass the bound by a packet each.
        if self.injected.load(Ordering::Relaxed) >= INJECTED_MAX {
            return Err(SendError::NoRoom);
        }
        self.injected.fetch_add(1, Ordering::Relaxed);
        self.counts.injected.fetch_add(1, Ordering::Relaxed);
        let exit = Arc::clone(self);
        sender.send(Command::Inject(Injected { exit, packet }));
        Ok(())
    }

    pub(super) fn stats(&self) -> IpProxyStats {
        let usage = self.pools.usage();
        let Counts {
            forwarded,
            injected,
            assigned,
            dropped: _,
        } = &self.counts;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IpProxyStats {
            packets_forwarded: count(forwarded),
            packets_injected: count(injected),
            prefixes_given: count(assigned),
            prefixes_assigned: usage.assigned,
            prefixes_kept: usage.kept,
            site_prefixes: usage.site_prefixes,
            dropped: DROP_REASONS
                .map(|reason| (reason, count(self.counts.of(reason))))
                .to_vec(),
        }
    }
}

impl Counts {
    fn of(&self, reason: DropReason) -> &AtomicU64 {
        let [
            source,
            destination,
            protocol,
            prohibited,
            hop_limit,
            no_exit,
        ] = &self.dropped;
        match reason {
            DropReason::Source => source,
            DropReason::Destination => destination,
            DropReason::Protocol => protocol,
            DropReason::Prohibited => prohibited,
            DropReason::HopLimit => hop_limit,
            DropReason::NoExit => no_exit,
        }
    }
}

/// A packet from outside on its way to a worker.
pub(in crate::embed) struct Injected {
    exit: Arc<Exit>,
    packet: Bytes,
}

impl Injected {
    /// The packet, which the worker has taken.
    pub(in crate::embed) fn take(mut self) -> Bytes {
        std::mem::take(&mut self.packet)
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        self.exit.injected.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exit")
            .field("settings", &self.settings)
            .field("interface", &self.interface)
            .field("has_forward", &self.hooks.forward.is_some())
            .field("has_events", &self.hooks.watch.is_some())
            .finish_non_exhaustive()
    }
}
