//! The far end of the demo: counts data, reports how much arrived, sends probes back.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::BytesMut;
use rustc_hash::FxHashMap;

use super::traffic::{REPORT_EVERY, SIZE_MIN, Traffic};
use crate::net::listen::{Sharing, bind_group};
use crate::net::runtime::{self, IoChoice, yield_now};
use crate::net::{Driver, DriverConfig, Network, Outgoing, Received, SocketKind};

/// What the target tells the thread that watches it.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// Data datagrams received.
    pub(super) delivered: AtomicU64,
    /// Their payload bytes.
    pub(super) bytes: AtomicU64,
    pub(super) stop: AtomicBool,
}

/// A target that is bound but does not run yet.
pub(super) struct Target {
    socket: std::net::UdpSocket,
    pub(super) address: SocketAddr,
    pub(super) counters: Arc<Counters>,
}

impl Target {
    pub(super) fn bind() -> io::Result<Self> {
        let socket = bind_group(SocketAddr::from(([127, 0, 0, 1], 0)), 1, Sharing::default())?;
        let socket = socket.into_iter().next().expect("one was asked for");
        let address = socket.local_addr()?;
        Ok(Self {
            socket,
            address,
            counters: Arc::default(),
        })
    }

    /// Runs until told to stop; the first argument of `ready` wakes it for that.
    pub(super) fn run(
        self,
        io: IoChoice,
        ready: impl FnOnce(crate::net::Waker) + 'static,
    ) -> io::Result<()> {
        runtime::run(io, move |_| self.serve(ready))?
    }

    async fn serve(self, ready: impl FnOnce(crate::net::Waker)) -> io::Result<()> {
        let mut driver = Driver::new(DriverConfig::default())?;
        driver.add(self.socket, SocketKind::Shared, 0)?;
        ready(driver.waker());
        let mut inbox = Vec::new();
        let mut answer = BytesMut::new();
        let mut received = FxHashMap::<SocketAddr, u64>::default();
        while !self.counters.stop.load(Ordering::Relaxed) {
            let more = driver.receive(&mut |socket, _, item| inbox.push((socket, item)));
            for (socket, item) in inbox.drain(..) {
                // An error of a shared socket concerns a relay that closed a tunnel.
                let Received::Train(train) = item else {
                    continue;
                };
                let peer = train.peer;
                let (mut delivered, mut bytes) = (0, 0);
                let mut report = None;
                answer.clear();
                for payload in train.segments() {
                    match Traffic::parse(&payload) {
                        Some(Traffic::Data(_)) => {
                            delivered += 1;
                            bytes += payload.len() as u64;
                            let count = received.entry(peer).or_default();
                            *count += 1;
                            if count.is_multiple_of(REPORT_EVERY) {
                                report = Some(*count);
                            }
                        }
                        Some(Traffic::Probe(_)) => {
                            send(&mut driver, socket, peer, &payload);
                        }
                        Some(Traffic::Report(_)) | None => {}
                    }
                }
                self.counters
                    .delivered
                    .fetch_add(delivered, Ordering::Relaxed);
                self.counters.bytes.fetch_add(bytes, Ordering::Relaxed);
                if let Some(count) = report {
                    Traffic::Report(count).write(SIZE_MIN, &mut answer);
                    send(&mut driver, socket, peer, &answer);
                }
            }
            // A wake-up only says that it is time to look at `stop`.
            let _woken = if more {
                yield_now().await;
                driver.poll_ready_nonblocking()?
            } else {
                driver.ready().await?
            };
        }
        Ok(())
    }
}

fn send(driver: &mut Driver, socket: crate::net::SocketId, peer: SocketAddr, contents: &[u8]) {
    let outgoing = Outgoing {
        peer: Some(peer),
        local_ip: None,
        ecn: None,
        segment_size: None,
        contents,
    };
    Network::send(driver, socket, &outgoing);
}
