//! The TUN interface that packets of an [`IpProxy`](super::IpProxy) leave by, and the system around it.
//!
//! ```text
//!   build ─► interface, first queue
//!              └─► keeper, a thread: addresses, routes, forwarding, NAT ─ undone at the end ◄─ last worker, or dropped
//!   worker's first tunnel ─► its queue
//! ```
//!
//! The keeper has a thread of its own, so that a proxy can be built inside and outside of an executor. Everything that
//! it does is what `bauta relay` does.

use std::io;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use ipnet::IpNet;
use tokio::sync::oneshot;

use crate::config::Nat;
use crate::embed::lock::Lock;
use crate::net::tun::{Tun, TunError, TunOptions, TunQueue};
use crate::program::exit::{self, Surroundings};
use crate::program::threads::{StartError, control_runtime};
use crate::worker::build::ip::TunInfo;

/// A TUN interface for packets of an [`IpProxy`](crate::IpProxy) to leave by: see
/// [`IpProxyBuilder::tun`](crate::IpProxyBuilder::tun).
///
/// It ends with the proxy: when the [`Listener`](crate::Listener) or [`Embedding`](crate::Embedding) that the proxy
/// serves has ended or, where it never served a tunnel, when the last clone of it is dropped. A handle that is kept
/// ([`IpProxyHandle`](crate::IpProxyHandle)) keeps such a proxy too.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct TunExit {
    name: String,
    offload: bool,
    forwarding: bool,
    nat: bool,
}

impl TunExit {
    /// An interface of this name, of 15 bytes at most; `%d` in it stands for a number that the kernel chooses. One that
    /// waits for a program (`ip tuntap add … multi_queue`) is taken over, and stays when the proxy ends.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            offload: true,
            forwarding: false,
            nat: false,
        }
    }

    /// Whether many packets of one flow cross the interface as one, in segments of TCP and UDP that the kernel cuts, or
    /// has not cut yet. Default: true, where the kernel can.
    pub fn offload(mut self, offload: bool) -> Self {
        self.offload = offload;
        self
    }

    /// Whether the kernel's forwarding (`net.ipv4.ip_forward`, `net.ipv6.conf.all.forwarding`) is switched on, in the
    /// versions that there are pools of, until the last of those that need it ends: other proxies and relays on this
    /// machine may. Default: no; where it is off, [`build`](crate::IpProxyBuilder::build) fails then, unless clients
    /// reach each other.
    pub fn forwarding(mut self, forwarding: bool) -> Self {
        self.forwarding = forwarding;
        self
    }

    /// Whether the addresses of clients, and of networks behind them, are replaced by the machine's own where their
    /// packets leave it, by a table of nftables that goes with the proxy. It needs the program `nft`. Default: no, the
    /// network around the machine routes the pools to it.
    pub fn nat(mut self, nat: bool) -> Self {
        self.nat = nat;
        self
    }
}

/// What the rest of a proxy knows that matters for its interface.
pub(super) struct Facts {
    pub(super) mtu: u16,
    pub(super) gateways: Vec<IpNet>,
    pub(super) behind: Vec<IpNet>,
    pub(super) client_to_client: bool,
}

/// An interface that is up.
#[derive(Debug)]
pub(super) struct Interface {
    info: TunInfo,
    offload: bool,
    /// The first queue, until a worker has it.
    first: Lock<Option<TunQueue>>,
    keeper: Lock<Option<Keeper>>,
}

impl Interface {
    /// Makes the interface, and the system around it what it has to be. Waits for that.
    pub(super) fn open(options: &TunExit, facts: Facts) -> Result<Self, StartError> {
        let tun = Tun::open(&TunOptions {
            name: Some(options.name.clone()),
            queues: 1,
            offload: options.offload,
            mtu: Some(facts.mtu),
        })?;
        let info = TunInfo {
            name: tun.name,
            index: tun.index,
        };
        let keeper = Keeper::start(Surroundings {
            tun: info.clone(),
            mtu: facts.mtu,
            gateways: facts.gateways,
            behind: facts.behind,
            forwarding: options.forwarding,
            client_to_client: facts.client_to_client,
            nat: match options.nat {
                true => Nat::Apply,
                false => Nat::Off,
            },
        })?;
        Ok(Self {
            info,
            offload: options.offload,
            first: Lock::new(tun.queues.into_iter().next()),
            keeper: Lock::new(Some(keeper)),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.info.name
    }

    /// A queue for one more worker.
    pub(super) fn queue(&self) -> Result<TunQueue, TunError> {
        let TunInfo { name, index } = &self.info;
        match self.first.lock().take() {
            Some(queue) => Ok(queue),
            None => TunQueue::attach(name, *index, self.offload),
        }
    }

    /// Makes the system as it was, and waits for that. The interface goes with the queues that workers have.
    pub(super) fn close(&self) {
        drop(self.first.lock().take());
        drop(self.keeper.lock().take());
    }
}

/// The thread that has changed the system, and will undo that.
#[derive(Debug)]
struct Keeper {
    /// Dropped to say that it is time.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn start(surroundings: Surroundings) -> Result<Self, StartError> {
        let (end, ended) = oneshot::channel::<()>();
        let (tell, told) = mpsc::sync_channel(1);
        let keep = move || {
            let prepared = control_runtime().map(|runtime| {
                let changes = runtime.block_on(surroundings.prepare(&mut io::sink()));
                (runtime, changes)
            });
            let (runtime, changes) = match prepared {
                Ok((runtime, Ok(changes))) => (runtime, changes),
                Ok((_, Err(error))) => return drop(tell.send(Err(error))),
                Err(error) => return drop(tell.send(Err(error.into()))),
            };
            drop(tell.send(Ok(())));
            runtime.block_on(async {
                // Nothing is ever sent.
                drop(ended.await);
                exit::undo(changes).await;
            });
        };
        let thread = thread::Builder::new()
            .name("bauta-tun".to_owned())
            .spawn(keep)?;
        let keeper = Self {
            end: Some(end),
            thread: Some(thread),
        };
        match told.recv() {
            Ok(outcome) => outcome.map(|()| keeper),
            Err(_) => {
                Err(io::Error::other("the thread that sets up the interface panicked").into())
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It says itself what it could not undo.
            drop(thread.join());
        }
    }
}
