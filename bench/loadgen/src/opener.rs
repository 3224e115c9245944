//! An app that opens tunnels by order, and measures nothing itself: for what tunnels cost, busy or idle.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use bauta::client::{Hop, RouteId};
use bauta::program::threads::Workers;
use bauta::wire::target::Target;
use bauta::worker::build::Plan;
use bauta::worker::mailbox::Letter;
use bauta::worker::run::{App, World};
use bauta::worker::{LocalEvent, Machine};
use crossbeam::channel::{Receiver, Sender, bounded};

use crate::child::settings;

/// What to open next.
#[derive(Clone, Copy, Debug)]
struct Order {
    /// Tunnels, round-robin over the connections.
    count: u32,
    /// Whether each is closed as soon as it is open.
    close: bool,
}

/// A thread that opens tunnels to a target of its own.
pub(crate) struct Opening {
    workers: Workers<Opener>,
    orders: Sender<Order>,
    news: Receiver<Result<(), String>>,
    /// Kept open: tunnels lead here.
    _target: UdpSocket,
}

impl Opening {
    /// Starts the thread, on `core` if there is one. `connections` share nothing; at most `concurrency` tunnels are
    /// being opened at any time.
    ///
    /// # Errors
    /// What the system refuses.
    pub(crate) fn start(
        hops: &[Hop],
        connections: u32,
        concurrency: u32,
        core: Option<usize>,
    ) -> io::Result<Self> {
        let target = UdpSocket::bind("127.0.0.1:0")?;
        let routes = (0..connections).map(|number| {
            // Hops that differ in what stands for their trust never share a connection.
            let apart = hops.iter().cloned().map(|mut hop| {
                hop.tls_hash = hop.tls_hash.wrapping_add(number.into());
                hop
            });
            apart.collect()
        });
        let (orders, inbox) = bounded(1);
        let (outbox, news) = bounded(1);
        let opener = Opener {
            hops: routes.collect(),
            routes: Vec::new(),
            target: target.local_addr()?.into(),
            orders: inbox,
            news: outbox,
            concurrency,
            order: None,
            left: 0,
            next: 0,
            opening: 0,
        };
        let mut plan = Plan::new(
            settings("loadgen", 1.try_into().expect("not zero"), false, &[])?,
            None,
        )
        .map_err(io::Error::other)?;
        let workers = Workers::start(&mut plan, "load", core, move |_, _, _| Ok(opener.clone()))
            .map_err(io::Error::other)?;
        Ok(Self {
            workers,
            orders,
            news,
            _target: target,
        })
    }

    /// Opens `count` tunnels, and returns when all are open.
    ///
    /// # Errors
    /// The first that is refused, or that some do not open within `limit`.
    pub(crate) fn open(&self, count: u32, close: bool, limit: Duration) -> io::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let order = Order { count, close };
        self.orders.send(order).map_err(io::Error::other)?;
        self.workers.peers[0].wake();
        match self.news.recv_timeout(limit) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(text)) => Err(io::Error::other(text)),
            Err(_) => Err(io::Error::other(format!(
                "{count} tunnels did not open within {} s",
                limit.as_secs()
            ))),
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        // Its connections must not go on into what is measured next.
        self.workers.tell(|| Letter::Stop);
    }
}

#[derive(Clone)]
struct Opener {
    /// One route per connection, until they are known to the machine.
    hops: Vec<Vec<Hop>>,
    routes: Vec<RouteId>,
    target: Target,
    orders: Receiver<Order>,
    news: Sender<Result<(), String>>,
    concurrency: u32,
    order: Option<Order>,
    left: u32,
    next: usize,
    opening: u32,
}

impl Opener {
    fn say(&self, news: Result<(), String>) {
        // Nobody listens any more if the measurement was given up.
        drop(self.news.try_send(news));
    }
}

impl App for Opener {
    fn handle(
        &mut self,
        now: Instant,
        event: LocalEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        match event {
            LocalEvent::Opened(tunnel) => {
                self.opening -= 1;
                if self.order.is_some_and(|order| order.close) {
                    machine.close_local(now, tunnel, out);
                }
                if self.opening == 0 && self.left == 0 {
                    self.say(Ok(()));
                }
            }
            LocalEvent::Refused(_, refused) => {
                self.say(Err(bauta::program::forward::explain(&refused)));
            }
            // Told of those that we close, too.
            LocalEvent::Closed(_, _) if self.order.is_some_and(|order| order.close) => {}
            LocalEvent::Closed(_, _) => self.say(Err("the relay ended a tunnel".to_owned())),
            LocalEvent::Payload(..) | LocalEvent::Readable(_) | LocalEvent::Writable(_) => {}
            LocalEvent::Context(..) | LocalEvent::Capsule(..) | LocalEvent::Ip(..) => {}
        }
    }

    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool {
        for hops in self.hops.drain(..) {
            self.routes.push(machine.add_route(hops));
        }
        if let Ok(order) = self.orders.try_recv() {
            self.left = order.count;
            self.order = Some(order);
        }
        while self.left > 0 && self.opening < self.concurrency {
            let route = self.routes[self.next % self.routes.len()];
            self.next += 1;
            self.left -= 1;
            self.opening += 1;
            machine.open_local(now, route, self.target.clone(), out);
        }
        false
    }

    fn next_timeout(&self) -> Option<Instant> {
        None
    }

    fn is_finished(&self) -> bool {
        false
    }
}
