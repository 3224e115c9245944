//! Changes of the system that outlive the process: each is written down, made, and undone in the end.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use super::dns::{self, DnsOutcome, LinkDns};
use super::error::LinkError;
use super::journal::{Change, Guard, Journal, Other, ResolvConf};
use super::nat::{self, NatTable};
use super::netlink::Links;
use super::routes::{HostRoute, Lead, WayTo};
use super::sysctl::{self, Forwarding};

/// How often, and how long apart, a journal is asked for that another process has: one that starts as well undoes what
/// we left at a crash, which takes as long as `nft` does.
const BUSY_ATTEMPTS: usize = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// What one process changes for one interface. Dropped without [`Changes::undo`], it leaves the work to the next start.
#[derive(Debug)]
pub struct Changes {
    links: Links,
    journal: Journal,
    /// Addresses kept outside whose way was that of the main table, which is followed when it changes. Other ways are
    /// those of rules (`ip rule`), and nobody can ask what they would be without our route.
    by_main_table: BTreeSet<IpAddr>,
}

impl Changes {
    /// Undoes what processes left behind in this network namespace that were killed, and begins to keep a journal for
    /// `interface`. What cannot be undone is logged, and tried again by the next start.
    ///
    /// # Errors
    /// [`LinkError::Busy`] when another process has an interface of that name; [`LinkError::File`] when there is no
    /// place for the journal.
    pub async fn begin(directory: &Path, interface: &str, links: Links) -> Result<Self, LinkError> {
        for journal in Journal::abandoned(directory)? {
            let interface = journal.interface().to_owned();
            tracing::info!(interface, "undoing what an earlier process left");
            for error in undo(journal, &links).await {
                tracing::warn!(interface, "{error}");
            }
        }
        let mut opened = Journal::open(directory, interface);
        for _ in 1..BUSY_ATTEMPTS {
            if !matches!(opened, Err(LinkError::Busy { .. })) {
                break;
            }
            tokio::time::sleep(BUSY_PAUSE).await;
            opened = Journal::open(directory, interface);
        }
        Ok(Self {
            journal: opened?,
            links,
            by_main_table: BTreeSet::new(),
        })
    }

    /// Requests about the interface itself, which nobody has to undo.
    #[must_use]
    pub const fn links(&self) -> &Links {
        &self.links
    }

    /// Gives an interface an address; see [`Links::add_address`]. One that it has already is fine, and not ours.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn add_address(
        &mut self,
        interface: u32,
        name: &str,
        address: IpNet,
    ) -> Result<(), LinkError> {
        let change = Change::Address { interface, address };
        if self.has(&change) {
            return self
                .links
                .add_address(interface, name, address)
                .await
                .map(|_| ());
        }
        let id = self.journal.record(change)?;
        match self.links.add_address(interface, name, address).await {
            Ok(true) => Ok(()),
            Ok(false) => self.journal.undone(id),
            Err(error) => {
                self.journal.undone(id)?;
                Err(error)
            }
        }
    }

    /// Takes back [`Changes::add_address`].
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_address(
        &mut self,
        interface: u32,
        address: IpNet,
    ) -> Result<(), LinkError> {
        let ours = Change::Address { interface, address };
        self.take_back(|change| *change == ours).await
    }

    /// Leads packets to `prefix`, in place of the route `former` of ours if there is one: in a single step then, so
    /// that no packet finds neither.
    ///
    /// # Errors
    /// What the kernel says; EEXIST when somebody else has a route to exactly this prefix. The former route is still
    /// there then.
    pub async fn set_route(
        &mut self,
        prefix: IpNet,
        lead: Lead,
        former: Option<Lead>,
    ) -> Result<(), LinkError> {
        let change = match lead {
            Lead::Into { interface, .. } => Change::Routes { interface },
            Lead::Nowhere => Change::Unreachable { prefix },
        };
        let id = match self.has(&change) {
            true => None,
            false => Some(self.journal.record(change)?),
        };
        let set = match former {
            Some(_) => self.links.replace_route(prefix, lead).await,
            None => self.links.add_route(prefix, lead).await,
        };
        match (set, lead) {
            // It is one of many, or the only one.
            (Ok(()), Lead::Into { .. }) => self.forget(&Change::Unreachable { prefix }),
            (Ok(()), Lead::Nowhere) => Ok(()),
            (Err(error), _) => {
                if let Some(id) = id {
                    self.journal.undone(id)?;
                }
                Err(error)
            }
        }
    }

    /// Takes back [`Changes::set_route`].
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn remove_route(&mut self, prefix: IpNet, lead: Lead) -> Result<(), LinkError> {
        self.links.remove_route(prefix, lead).await?;
        match lead {
            Lead::Into { .. } => Ok(()),
            Lead::Nowhere => self.forget(&Change::Unreachable { prefix }),
        }
    }

    /// Keeps `address` reachable outside the interface `tunnel`, whatever routes lead into that one: a route to just
    /// this address, as packets take now. Called again, it follows the system to another router, in a single step.
    ///
    /// Returns what leads to the address; only [`WayTo::Via`] took a route.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn keep_outside(&mut self, address: IpAddr, tunnel: u32) -> Result<WayTo, LinkError> {
        let now = self.links.way_to(address).await?;
        let beside = self.links.ways_beside(address, tunnel).await?;
        let held = self.host_route(address);
        // Then it is our own route that answers, in place of what the system would do.
        let is_held = held.as_ref().is_some_and(|host| host.way() == now);
        let way = if is_held {
            let follows = self.by_main_table.contains(&address);
            match beside.first() {
                Some(other) if follows && !beside.contains(&now) => other.clone(),
                Some(_) | None => now,
            }
        } else if now == WayTo::None || now.leads_into(tunnel) {
            beside.first().cloned().unwrap_or(WayTo::None)
        } else {
            now
        };
        let WayTo::Via { gateway, interface } = way else {
            return Ok(way);
        };
        let host = HostRoute {
            destination: address,
            gateway,
            interface,
        };
        if held.as_ref() == Some(&host) {
            // The kernel drops it when its interface goes down, and says nothing.
            self.links.add_host_route(&host).await?;
            return Ok(way);
        }
        let id = self.journal.record(Change::Route(host.clone()))?;
        let set = match is_held {
            true => self.links.replace_host_route(&host).await.map(|()| true),
            false => self.links.add_host_route(&host).await,
        };
        match set {
            Ok(true) => {
                match beside.contains(&way) {
                    true => self.by_main_table.insert(address),
                    false => self.by_main_table.remove(&address),
                };
                // The former one is not there any more, or no longer needed.
                let former = |change: &Change| {
                    held.as_ref()
                        .is_some_and(|held| *change == Change::Route(held.clone()))
                };
                self.take_back(former).await.map(|()| way)
            }
            // Somebody else's does as well, and stays when we go.
            Ok(false) => self.journal.undone(id).map(|()| way),
            Err(error) => {
                self.journal.undone(id)?;
                Err(error)
            }
        }
    }

    /// Takes back [`Changes::keep_outside`].
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn let_inside(&mut self, address: IpAddr) -> Result<(), LinkError> {
        self.by_main_table.remove(&address);
        self.take_back(
            |change| matches!(change, Change::Route(host) if host.destination == address),
        )
        .await
    }

    /// Installs the rules of NAT.
    ///
    /// # Errors
    /// What `nft` says.
    pub async fn install_nat(&mut self, table: &NatTable) -> Result<(), LinkError> {
        let change = Change::Nat {
            table: table.name(),
        };
        if !self.has(&change) {
            self.journal.record(change)?;
        }
        table.apply().await
    }

    /// Lets the kernel pass packets on. Returns whether it did not before.
    ///
    /// Where another process has switched it on, the last of both switches it off.
    ///
    /// # Errors
    /// When the setting cannot be read or written.
    pub fn set_forwarding(&mut self, setting: Forwarding) -> Result<bool, LinkError> {
        let guard = self.journal.guard()?;
        let now = sysctl::read(setting.key())?;
        if now != "0" {
            let change = match forwarding_of_others(&self.journal, setting, &guard)? {
                Some(change) if !self.has(&change) => change,
                // Whoever runs this machine wants it so.
                Some(_) | None => return Ok(false),
            };
            self.journal.record(change)?;
            return Ok(false);
        }
        let ours = "1".to_owned();
        let id = self.journal.record(Change::Forwarding {
            setting,
            before: now,
            ours: ours.clone(),
        })?;
        if let Err(error) = sysctl::write(setting.key(), &ours) {
            self.journal.undone(id)?;
            return Err(error);
        }
        Ok(true)
    }

    /// Makes the name servers behind the interface those of the system, in place of what was set before. A file keeps
    /// its mode and its owner; in place of a symbolic link a file is put, and what it points to is left alone.
    ///
    /// # Errors
    /// [`LinkError::DnsTaken`] when another process has put its own there; when the file with the name servers cannot
    /// be replaced.
    pub async fn set_dns(&mut self, dns: &LinkDns) -> Result<DnsOutcome, LinkError> {
        if dns::has_resolved() {
            if !self.has(&Change::Resolved) {
                self.journal.record(Change::Resolved)?;
            }
            match dns::tell_resolved(self.journal.interface(), dns).await {
                Ok(()) => return Ok(DnsOutcome::Resolved),
                Err(error) => tracing::warn!("{error}; the file with the name servers it is"),
            }
            // It may have taken the first half.
            if let Err(error) = self.take_back(|it| *it == Change::Resolved).await {
                tracing::warn!("{error}");
            }
        }
        let guard = self.journal.guard()?;
        let current = dns::current()?;
        let own = self.journal.pending().iter().find_map(|(id, change)| {
            let before = put_there(change, &current)?;
            Some((*id, before.clone()))
        });
        let before = match &own {
            Some((_, before)) => before.clone(),
            None => before_others(&self.journal, &current, &guard)?,
        };
        let ours = dns::resolv_conf(self.journal.interface(), dns);
        let id = self.journal.record(Change::ResolvConf {
            before,
            ours: ours.clone(),
        })?;
        if let Err(error) = dns::put(&ResolvConf::Text(ours)) {
            self.journal.undone(id)?;
            return Err(error);
        }
        if let Some((id, _)) = own {
            self.journal.undone(id)?;
        }
        Ok(match dns.internal.is_empty() {
            true => DnsOutcome::ResolvConf,
            false => DnsOutcome::ResolvConfForAll,
        })
    }

    /// Takes back [`Changes::set_dns`].
    ///
    /// # Errors
    /// When the file with the name servers cannot be replaced, or systemd-resolved does not forget.
    pub async fn clear_dns(&mut self) -> Result<(), LinkError> {
        self.take_back(|change| matches!(change, Change::Resolved | Change::ResolvConf { .. }))
            .await
    }

    /// Undoes everything, the last change first. Returns what could not be undone, which the next start tries again.
    pub async fn undo(self) -> Vec<LinkError> {
        undo(self.journal, &self.links).await
    }

    fn has(&self, change: &Change) -> bool {
        self.number(change).is_some()
    }

    fn number(&self, change: &Change) -> Option<u64> {
        let mut pending = self.journal.pending().iter();
        pending.find_map(|(id, other)| (other == change).then_some(*id))
    }

    fn host_route(&self, address: IpAddr) -> Option<HostRoute> {
        let mut pending = self.journal.pending().iter();
        pending.find_map(|(_, change)| {
            if let Change::Route(host) = change
                && host.destination == address
            {
                Some(host.clone())
            } else {
                None
            }
        })
    }

    /// Something else is there in its place.
    fn forget(&mut self, change: &Change) -> Result<(), LinkError> {
        match self.number(change) {
            Some(id) => self.journal.undone(id),
            None => Ok(()),
        }
    }

    async fn take_back(&mut self, which: impl Fn(&Change) -> bool) -> Result<(), LinkError> {
        let pending = self.journal.pending().iter().rev();
        let chosen: Vec<_> = pending
            .filter(|(_, change)| which(change))
            .cloned()
            .collect();
        for (id, change) in chosen {
            undo_one(&mut self.journal, id, &change, &self.links).await?;
        }
        Ok(())
    }
}

async fn undo(mut journal: Journal, links: &Links) -> Vec<LinkError> {
    let mut errors = Vec::new();
    let pending: Vec<_> = journal.pending().iter().rev().cloned().collect();
    for (id, change) in pending {
        errors.extend(undo_one(&mut journal, id, &change, links).await.err());
    }
    errors.extend(journal.close().err());
    errors
}

async fn undo_one(
    journal: &mut Journal,
    id: u64,
    change: &Change,
    links: &Links,
) -> Result<(), LinkError> {
    match change {
        Change::Address { interface, address } => {
            links.remove_address(*interface, *address).await?;
        }
        Change::Routes { interface } => links.remove_routes_into(*interface).await?,
        Change::Unreachable { prefix } => links.remove_route(*prefix, Lead::Nowhere).await?,
        Change::Route(host) => links.remove_host_route(host).await?,
        Change::Nat { table } => nat::remove(table).await?,
        Change::Forwarding {
            setting,
            before,
            ours,
        } => {
            // Until it is written down: of two that end at the same time one has to be the last.
            let guard = journal.guard()?;
            if sysctl::read(setting.key())? == *ours
                && forwarding_of_others(journal, *setting, &guard)?.is_none()
            {
                sysctl::write(setting.key(), before)?;
            }
            return journal.undone(id);
        }
        Change::Resolved => dns::revert_resolved(journal.interface()).await?,
        Change::ResolvConf { before, ours } => {
            let _guard = journal.guard()?;
            dns::restore(before, ours)?;
            return journal.undone(id);
        }
    }
    journal.undone(id)
}

/// What another process has written down that lives and needs forwarding too.
fn forwarding_of_others(
    journal: &Journal,
    wanted: Forwarding,
    guard: &Guard,
) -> Result<Option<Change>, LinkError> {
    for other in journal.others(guard)? {
        let Other::Alive { pending, .. } = other else {
            continue;
        };
        let mut pending = pending.into_iter();
        let found = pending.find(
            |change| matches!(change, Change::Forwarding { setting, .. } if *setting == wanted),
        );
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// What was there before the file with the name servers that is there now. If that was written by a process that has
/// been killed, what that one found; what it wrote down is done then.
fn before_others(
    journal: &Journal,
    current: &ResolvConf,
    guard: &Guard,
) -> Result<ResolvConf, LinkError> {
    // In any network namespace: they may have the same file.
    for other in journal.others_anywhere(guard)? {
        match other {
            Other::Alive { interface, pending } => {
                if pending
                    .iter()
                    .any(|change| put_there(change, current).is_some())
                {
                    return Err(LinkError::DnsTaken { interface });
                }
            }
            Other::Left(mut left) => {
                let found = left.pending().iter().find_map(|(id, change)| {
                    let before = put_there(change, current)?;
                    Some((*id, before.clone()))
                });
                if let Some((id, before)) = found {
                    left.undone(id)?;
                    left.close_within(guard)?;
                    return Ok(before);
                }
            }
        }
    }
    Ok(current.clone())
}

/// What was there before `change`, if that put there what is there now.
fn put_there<'a>(change: &'a Change, current: &ResolvConf) -> Option<&'a ResolvConf> {
    if let (Change::ResolvConf { before, ours }, ResolvConf::Text(text)) = (change, current)
        && text == ours
    {
        Some(before)
    } else {
        None
    }
}
