//! The worker's side: packets between the interface and the tunnel, which is opened again whenever it ends.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ipnet::IpNet;
use tokio::sync::mpsc;

use crate::client::{Request, RouteId, TunnelKind};
use crate::error::Abort;
use crate::net::tun::TunQueue;
use crate::net::{Driver, Network, Received, SocketId};
use crate::program::forward::explain;
use crate::transport::quic::SendOutcome;
use crate::tunnel::TunnelId;
use crate::tunnel::ip::{IpEvent, refusal};
use crate::wire::ip::icmp::{self, IcmpError};
use crate::wire::ip::packet::Packet;
use crate::wire::ip::{Scope, ScopeTarget};
use crate::worker::build::ip::ranges;
use crate::worker::run::{App, World};
use crate::worker::{Closed, End, IpInfo, LocalEvent, Machine, Refused, Tag};

/// The pauses between attempts: the first, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A tunnel that lived for so long makes the next pause the first again.
const STEADY: Duration = Duration::from_secs(10);

/// What the control thread has to know.
#[derive(Debug)]
pub(super) enum Report {
    /// The tunnel is open, or something about it changed.
    Up {
        /// Everything that is known.
        info: Box<IpInfo>,
        /// The relay at the other end of the connection that carries it.
        peer: Option<SocketAddr>,
        /// Whether the relay has said something about name servers since the tunnel is open.
        heard_dns: bool,
    },
    /// It ended, or could not be opened. There will be another attempt.
    Down(String),
    /// The relay refuses what we ask for, from the first attempt on: another one would be no better.
    Refused(String),
}

/// What to ask the relay for, and what to tell it.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) scope: Scope,
    pub(super) advertise: Vec<IpNet>,
}

/// The app.
pub(super) struct TunApp {
    route: RouteId,
    setup: Setup,
    interface: SocketId,
    tunnel: Option<TunnelId>,
    open_since: Option<Instant>,
    has_been_open: bool,
    /// When to open the next tunnel, while there is none.
    next_attempt: Option<Instant>,
    pause: Duration,
    /// Something changed that the control thread has not heard of.
    changed: bool,
    /// Whether the relay has told its routes, and its name servers, since the tunnel is open. Until then what an older
    /// tunnel left is good: without it packets would go another way.
    heard_routes: bool,
    heard_dns: bool,
    /// Packets for the kernel.
    outgoing: Vec<Bytes>,
    reports: mpsc::UnboundedSender<Report>,
    started: bool,
}

impl TunApp {
    pub(super) fn new(
        route: RouteId,
        setup: Setup,
        queue: TunQueue,
        driver: &mut Driver,
        reports: mpsc::UnboundedSender<Report>,
    ) -> io::Result<Self> {
        Ok(Self {
            route,
            setup,
            interface: driver.add_tun(queue, Tag::App(0).to_bits())?,
            tunnel: None,
            open_since: None,
            has_been_open: false,
            next_attempt: None,
            pause: PAUSE_MIN,
            changed: false,
            heard_routes: false,
            heard_dns: false,
            outgoing: Vec::new(),
            reports,
            started: false,
        })
    }

    fn open(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) {
        self.next_attempt = None;
        let request = Request::new(self.setup.scope.clone(), TunnelKind::Ip);
        self.tunnel = Some(machine.open_local_request(now, self.route, request, out));
    }

    /// The tunnel is open: say what we want and what we have.
    fn opened(&mut self, now: Instant, id: TunnelId, machine: &mut Machine, out: &mut World<'_>) {
        self.open_since = Some(now);
        self.has_been_open = true;
        (self.heard_routes, self.heard_dns) = (false, false);
        self.changed = true;
        let end = (id, End::Downstream);
        let wishes = wishes(&self.setup.scope);
        if let Err(error) = machine.ip_request_addresses(now, end, &wishes, out) {
            tracing::warn!("addresses were not asked for: {error}");
        }
        if !self.setup.advertise.is_empty()
            && let Err(error) =
                machine.ip_advertise_routes(now, end, ranges(&self.setup.advertise), out)
        {
            tracing::warn!("routes were not advertised: {error}");
        }
    }

    fn lost(&mut self, now: Instant, reason: String) {
        let lived = self.open_since.take();
        if lived.is_some_and(|since| now.saturating_duration_since(since) >= STEADY) {
            self.pause = PAUSE_MIN;
        }
        self.tunnel = None;
        self.changed = false;
        self.next_attempt = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.report(Report::Down(reason));
    }

    fn refused(&mut self, now: Instant, refused: &Refused) {
        let text = explain(refused);
        let mut response = refused.response.iter();
        let is_our_mistake = response.any(|response| response.status.is_client_error());
        if self.has_been_open || !is_our_mistake {
            return self.lost(now, text);
        }
        self.tunnel = None;
        self.report(Report::Refused(text));
    }

    fn heard(
        &mut self,
        now: Instant,
        id: TunnelId,
        event: IpEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        match event {
            IpEvent::Assigned(_) | IpEvent::Pref64(_) | IpEvent::Mtu(_) => self.changed = true,
            IpEvent::Routes(_) => (self.changed, self.heard_routes) = (true, true),
            IpEvent::Dns(_) => (self.changed, self.heard_dns) = (true, true),
            // We have no addresses to give away.
            IpEvent::Requested(requests) => {
                let refusals = requests.into_iter().map(refusal).collect();
                let end = (id, End::Downstream);
                if let Err(error) = machine.ip_assign_addresses(now, end, refusals, out) {
                    tracing::debug!("a request was not refused: {error}");
                }
            }
        }
    }

    /// A packet from the kernel.
    fn send(
        &mut self,
        now: Instant,
        id: TunnelId,
        packet: Bytes,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let outcome = machine.send_local(now, id, packet.clone(), out);
        match outcome {
            SendOutcome::TooLarge => {}
            SendOutcome::Sent | SendOutcome::Queued | SendOutcome::Blocked | SendOutcome::Gone => {
                return;
            }
        }
        let Some(IpInfo { mtu, .. }) = machine.ip_info(id, End::Downstream) else {
            return;
        };
        let Ok(parsed) = Packet::parse(&packet) else {
            return;
        };
        // From where the packet was going: the kernel believes nothing that comes from its own address.
        let too_big = IcmpError::TooBig {
            mtu: u32::try_from(mtu).unwrap_or(u32::MAX),
        };
        let answer = icmp::error(too_big, &packet, parsed.destination);
        self.outgoing.extend(answer.map(bytes::BytesMut::freeze));
    }

    fn report(&self, report: Report) {
        // The control thread has left when the program ends.
        drop(self.reports.send(report));
    }

    fn is_open(&self) -> bool {
        self.open_since.is_some()
    }
}

impl App for TunApp {
    fn handle(
        &mut self,
        now: Instant,
        event: LocalEvent,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        if self.tunnel != Some(event.tunnel()) {
            return;
        }
        match event {
            LocalEvent::Payload(_, packet) => self.outgoing.push(packet),
            LocalEvent::Opened(id) => self.opened(now, id, machine, out),
            LocalEvent::Refused(_, refused) => self.refused(now, &refused),
            LocalEvent::Ip(id, event) => self.heard(now, id, event, machine, out),
            LocalEvent::Closed(_, closed) => self.lost(now, ending(&closed)),
            LocalEvent::Readable(_) | LocalEvent::Writable(_) => {}
            LocalEvent::Context(..) | LocalEvent::Capsule(..) => {}
        }
    }

    fn handle_received(
        &mut self,
        now: Instant,
        _: (SocketId, u32),
        received: Received,
        machine: &mut Machine,
        out: &mut World<'_>,
    ) {
        let packets = match received {
            Received::Packets(packets) => packets,
            Received::Error(error) => return tracing::warn!(%error, "reading the interface"),
            Received::Train(_) => return,
        };
        // Without a tunnel packets are lost: there is no other way that they may go.
        let Some(id) = self.tunnel.filter(|_| self.is_open()) else {
            return;
        };
        for packet in packets {
            self.send(now, id, packet.freeze(), machine, out);
        }
    }

    fn turn(&mut self, now: Instant, machine: &mut Machine, out: &mut World<'_>) -> bool {
        if !self.started || self.next_attempt.is_some_and(|at| at <= now) {
            self.started = true;
            self.open(now, machine, out);
        }
        if self.heard_routes
            && std::mem::take(&mut self.changed)
            && let Some(id) = self.tunnel
            && let Some(info) = machine.ip_info(id, End::Downstream)
        {
            let described = machine.describe(id, End::Downstream);
            self.report(Report::Up {
                info: Box::new(info),
                peer: described.and_then(|described| described.peer),
                heard_dns: self.heard_dns,
            });
        }
        if !self.outgoing.is_empty() {
            out.send_packets(self.interface, &mut self.outgoing);
        }
        false
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.next_attempt
    }

    fn is_finished(&self) -> bool {
        false
    }
}

/// An address of each version that the scope has.
fn wishes(scope: &Scope) -> Vec<IpNet> {
    let any: [IpAddr; 2] = [[0; 4].into(), [0_u16; 8].into()];
    let wanted = |address: &IpAddr| match &scope.target {
        ScopeTarget::Prefix(prefix) => prefix.addr().is_ipv4() == address.is_ipv4(),
        ScopeTarget::Any | ScopeTarget::Name(_) => true,
    };
    any.into_iter().filter(wanted).map(IpNet::from).collect()
}

fn ending(closed: &Closed) -> String {
    match closed {
        Closed::Finished => "the relay closed the tunnel".to_owned(),
        Closed::Aborted {
            abort: Abort::UpstreamClosed,
            ..
        } => "the relay closed the tunnel".to_owned(),
        Closed::Aborted {
            abort: Abort::UpstreamReset,
            code: None,
        } => "the connection to the relay is lost".to_owned(),
        Closed::Aborted {
            code: Some(code), ..
        } => format!("the relay broke the tunnel with {code}"),
        Closed::Aborted { abort, code: None } => format!("the tunnel ended ({abort:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_of_each_version_of_the_scope() {
        let scope = |target| Scope {
            target,
            protocol: None,
        };
        let printed = |scope| {
            let wishes = wishes(&scope);
            wishes.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(printed(scope(ScopeTarget::Any)), ["0.0.0.0/32", "::/128"]);
        let prefix = ScopeTarget::Prefix("2001:db8::/32".parse().unwrap());
        assert_eq!(printed(scope(prefix)), ["::/128"]);
    }
}
