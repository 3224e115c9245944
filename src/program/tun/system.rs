//! The control thread's side: makes the system what the relay says, step by step, and says what changed.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Client;
use super::app::Report;
use super::plan::Wanted;
use crate::net::link::{
    Changes, DnsOutcome, Lead, LinkDns, LinkError, Links, WayTo, state_directory,
};
use crate::worker::IpInfo;

/// The interface and what belongs to it.
pub(super) struct System {
    client: Client,
    name: String,
    index: u32,
    changes: Changes,
    /// What the interface has.
    addresses: Vec<IpNet>,
    routes: Vec<(IpNet, Lead)>,
    dns: LinkDns,
    mtu: u16,
    /// What was asked for last; it may not all have worked.
    wanted: Option<Wanted>,
    /// The relay at the other end of the connection that carries the tunnel, or did.
    peer: Option<SocketAddr>,
    /// Relays that are kept outside.
    outside: Vec<IpAddr>,
    /// Whether the last line about it said that the tunnel is up.
    is_up: bool,
    last_reason: String,
}

impl System {
    /// Undoes what a crash left, and switches the interface on.
    pub(super) async fn begin(client: &Client, name: &str, index: u32) -> Result<Self, LinkError> {
        let changes = Changes::begin(&state_directory(), name, Links::open()?).await?;
        changes
            .links()
            .set_up(index, name, Some(client.mtu))
            .await?;
        Ok(Self {
            client: client.clone(),
            name: name.to_owned(),
            index,
            changes,
            addresses: Vec::new(),
            routes: Vec::new(),
            dns: LinkDns::default(),
            mtu: client.mtu,
            wanted: None,
            peer: None,
            outside: Vec::new(),
            is_up: false,
            last_reason: String::new(),
        })
    }

    /// Carries out a report; `relays` is where the relay may be. Returns the lines that tell of it.
    pub(super) async fn handle(&mut self, report: Report, relays: &[IpAddr]) -> Vec<String> {
        let mut lines = Vec::new();
        match report {
            Report::Up {
                info,
                peer,
                heard_dns,
            } => {
                self.peer = peer;
                self.up(&info, heard_dns, relays, &mut lines).await;
            }
            Report::Down(reason) | Report::Refused(reason) => {
                // Perhaps the network is another one now.
                self.keep_outside(relays).await;
                if self.is_up || self.last_reason != reason {
                    lines.push(format!("down: {reason}; trying again"));
                }
                self.is_up = false;
                self.last_reason = reason;
            }
        }
        lines
    }

    async fn up(
        &mut self,
        info: &IpInfo,
        heard_dns: bool,
        relays: &[IpAddr],
        lines: &mut Vec<String>,
    ) {
        let wanted = Wanted::new(&self.client, info);
        // A new tunnel has no addresses at first; what an older one left is good until it is known to be otherwise.
        if wanted.addresses.is_empty() {
            return;
        }
        let before = self.wanted.replace(wanted.clone());
        self.set_addresses(&wanted).await;
        self.set_mtu(wanted.mtu).await;
        self.keep_outside(relays).await;
        self.set_routes(&wanted).await;
        self.drop_addresses(&wanted).await;

        let changed = |part: fn(&Wanted) -> Vec<String>| {
            let now = part(&wanted);
            let same = before.as_ref().is_some_and(|before| part(before) == now);
            (!same && !now.is_empty()).then(|| now.join(" "))
        };
        let addresses = changed(|wanted| texts(wanted.addresses.iter()));
        if !self.is_up || addresses.is_some() {
            let relay = self
                .peer
                .map_or_else(String::new, |peer| format!(" by {peer}"));
            lines.push(format!(
                "up {}{relay} over {}, mtu {}",
                texts(wanted.addresses.iter()).join(" "),
                info.carrier,
                wanted.mtu
            ));
            self.is_up = true;
        } else if before
            .as_ref()
            .is_some_and(|before| before.mtu != wanted.mtu)
        {
            lines.push(format!("mtu {}", wanted.mtu));
        }
        if let Some(routes) = changed(|wanted| texts(wanted.routes.iter().map(|route| route.0))) {
            lines.push(format!("routes {routes}"));
        }
        if let Some(barred) = changed(|wanted| texts(wanted.barred.iter())) {
            lines.push(format!("unreachable {barred}"));
        }
        if let Some(missing) = changed(|wanted| texts(wanted.missing.iter())) {
            tracing::warn!("the relay does not lead to {missing}");
        }
        if wanted.left_out > 0 {
            tracing::warn!("{} routes are too many and left out", wanted.left_out);
        }
        if heard_dns {
            self.set_dns(&wanted.dns, lines).await;
        }
    }

    /// Leads packets to the relays past the interface, where it would take them.
    pub(super) async fn keep_outside(&mut self, relays: &[IpAddr]) {
        let Some(wanted) = &self.wanted else {
            return;
        };
        // The one that is spoken to, whatever its name leads to by now.
        let peer = self.peer.map(|peer| peer.ip());
        let covered = relays.iter().copied().chain(peer);
        let covered: Vec<_> = covered.filter(|relay| wanted.leads(*relay)).collect();
        for relay in &covered {
            match self.changes.keep_outside(*relay, self.index).await {
                Ok(WayTo::Via { .. } | WayTo::Local) => {}
                Ok(WayTo::None) => tracing::debug!("nothing leads to the relay at {relay}"),
                Err(error) => tracing::warn!("the relay is not kept outside the tunnel: {error}"),
            }
        }
        let former = std::mem::replace(&mut self.outside, covered);
        for relay in former {
            if !self.outside.contains(&relay) {
                warn(self.changes.let_inside(relay).await);
            }
        }
    }

    async fn set_addresses(&mut self, wanted: &Wanted) {
        for address in &wanted.addresses {
            if self.addresses.contains(address) {
                continue;
            }
            let changes = &mut self.changes;
            if warn(changes.add_address(self.index, &self.name, *address).await) {
                self.addresses.push(*address);
            }
        }
    }

    /// Behind the new routes, which nothing is sent from old addresses by.
    async fn drop_addresses(&mut self, wanted: &Wanted) {
        let (keep, gone) = std::mem::take(&mut self.addresses)
            .into_iter()
            .partition::<Vec<_>, _>(|address| wanted.addresses.contains(address));
        self.addresses = keep;
        for address in gone {
            warn(self.changes.remove_address(self.index, address).await);
        }
    }

    async fn set_mtu(&mut self, mtu: u16) {
        if self.mtu != mtu && warn(self.changes.links().set_mtu(self.index, mtu).await) {
            self.mtu = mtu;
        }
    }

    /// A route that changes gives way to the new one in a single step: what is sent meanwhile goes no other way.
    async fn set_routes(&mut self, wanted: &Wanted) {
        let into = |(prefix, source): &(IpNet, IpAddr)| {
            let lead = Lead::Into {
                interface: self.index,
                source: Some(*source),
            };
            (*prefix, lead)
        };
        let nowhere = |prefix: &IpNet| (*prefix, Lead::Nowhere);
        let routes = wanted.routes.iter().map(into);
        let routes: Vec<_> = routes.chain(wanted.barred.iter().map(nowhere)).collect();
        let mut former = std::mem::take(&mut self.routes);
        for (prefix, lead) in routes {
            let before = former.iter().position(|(other, _)| *other == prefix);
            let before = before.map(|at| former.swap_remove(at).1);
            let is_set =
                before == Some(lead) || warn(self.changes.set_route(prefix, lead, before).await);
            let there = if is_set { Some(lead) } else { before };
            self.routes.extend(there.map(|lead| (prefix, lead)));
        }
        for (prefix, lead) in former {
            warn(self.changes.remove_route(prefix, lead).await);
        }
    }

    async fn set_dns(&mut self, dns: &LinkDns, lines: &mut Vec<String>) {
        if self.dns == *dns {
            return;
        }
        if dns.servers.is_empty() {
            if warn(self.changes.clear_dns().await) {
                self.dns = dns.clone();
            }
            return;
        }
        let how = match self.changes.set_dns(dns).await {
            Ok(DnsOutcome::Resolved) => "systemd-resolved",
            Ok(DnsOutcome::ResolvConf) => "resolv.conf",
            Ok(DnsOutcome::ResolvConfForAll) => {
                tracing::warn!(
                    "the name servers answer for {} only, and all names go to them: resolv.conf knows no difference",
                    dns.internal.join(", ")
                );
                "resolv.conf"
            }
            Err(error) => return tracing::warn!("the name servers are not used: {error}"),
        };
        self.dns = dns.clone();
        lines.push(format!(
            "dns {} ({how})",
            texts(dns.servers.iter()).join(" ")
        ));
    }

    /// Makes everything as it was.
    pub(super) async fn undo(self) {
        for error in self.changes.undo().await {
            tracing::error!("not undone, the next start tries again: {error}");
        }
    }
}

fn texts(items: impl Iterator<Item = impl ToString>) -> Vec<String> {
    items.map(|item| item.to_string()).collect()
}

/// Tells of a failure, which the rest can do without; whether there was none.
fn warn(outcome: Result<(), LinkError>) -> bool {
    if let Err(error) = &outcome {
        tracing::warn!("{error}");
    }
    outcome.is_ok()
}
