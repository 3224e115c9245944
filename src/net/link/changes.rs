//! Changes of the system that outlive the process: each is written down, made, and undone in the end.

use std::net::IpAddr;
use std::path::Path;

use super::dns::{self, DnsOutcome, LinkDns};
use super::error::LinkError;
use super::journal::{Change, Journal, ResolvConf};
use super::nat::{self, NatTable};
use super::netlink::{HostRoute, Links, WayTo};
use super::sysctl::{self, Forwarding};

/// What one process changes for one interface. Dropped without [`Changes::undo`], it leaves the work to the next start.
#[derive(Debug)]
pub struct Changes {
    links: Links,
    journal: Journal,
    resolved: bool,
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
        Ok(Self {
            journal: Journal::open(directory, interface)?,
            links,
            resolved: false,
        })
    }

    /// Requests about the interface itself, which nobody has to undo.
    #[must_use]
    pub const fn links(&self) -> &Links {
        &self.links
    }

    /// Keeps `address` reachable outside the interface `tunnel`, whatever routes lead into that one: a route to just
    /// this address, as packets take now. Called again, it follows the system to another router.
    ///
    /// Returns what leads to the address; only [`WayTo::Via`] took a route.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn keep_outside(&mut self, address: IpAddr, tunnel: u32) -> Result<WayTo, LinkError> {
        let way = self.links.way_to(address, Some(tunnel)).await?;
        let WayTo::Via {
            gateway, interface, ..
        } = way
        else {
            return Ok(way);
        };
        let host = HostRoute {
            destination: address,
            gateway,
            interface,
        };
        if self.has(&Change::Route(host.clone())) {
            // The kernel drops it when its interface goes down, and says nothing.
            self.links.add_host_route(&host).await?;
            return Ok(way);
        }
        self.let_inside(address).await?;
        let id = self.journal.record(Change::Route(host.clone()))?;
        match self.links.add_host_route(&host).await {
            Ok(true) => Ok(way),
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
        let to_address = |change: &Change| match change {
            Change::Route(host) => host.destination == address,
            Change::Nat { .. } | Change::Forwarding { .. } | Change::ResolvConf { .. } => false,
        };
        self.take_back(to_address).await
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
    /// # Errors
    /// When the setting cannot be read or written.
    pub fn set_forwarding(&mut self, setting: Forwarding) -> Result<bool, LinkError> {
        let before = sysctl::read(setting.key())?;
        if before != "0" {
            return Ok(false);
        }
        let ours = "1".to_owned();
        let id = self.journal.record(Change::Forwarding {
            setting,
            before,
            ours: ours.clone(),
        })?;
        if let Err(error) = sysctl::write(setting.key(), &ours) {
            self.journal.undone(id)?;
            return Err(error);
        }
        Ok(true)
    }

    /// Makes the name servers behind the interface those of the system, in place of what was set before.
    ///
    /// # Errors
    /// When the file with the name servers cannot be replaced.
    pub async fn set_dns(&mut self, dns: &LinkDns) -> Result<DnsOutcome, LinkError> {
        self.clear_dns().await?;
        if dns::has_resolved() {
            let interface = self.journal.interface();
            match dns::tell_resolved(interface, dns).await {
                Ok(()) => {
                    self.resolved = true;
                    return Ok(DnsOutcome::Resolved);
                }
                Err(error) => tracing::warn!("{error}; the file with the name servers it is"),
            }
        }
        let ours = dns::resolv_conf(self.journal.interface(), dns);
        let id = self.journal.record(Change::ResolvConf {
            before: dns::current()?,
            ours: ours.clone(),
        })?;
        if let Err(error) = dns::put(&ResolvConf::Text(ours)) {
            self.journal.undone(id)?;
            return Err(error);
        }
        Ok(match dns.internal.is_empty() {
            true => DnsOutcome::ResolvConf,
            false => DnsOutcome::ResolvConfForAll,
        })
    }

    /// Takes back [`Changes::set_dns`].
    ///
    /// # Errors
    /// When the file with the name servers cannot be replaced.
    pub async fn clear_dns(&mut self) -> Result<(), LinkError> {
        if std::mem::take(&mut self.resolved) {
            dns::revert_resolved(self.journal.interface()).await?;
        }
        let is_file = |change: &Change| match change {
            Change::ResolvConf { .. } => true,
            Change::Route(_) | Change::Nat { .. } | Change::Forwarding { .. } => false,
        };
        self.take_back(is_file).await
    }

    /// Undoes everything, the last change first. Returns what could not be undone, which the next start tries again.
    pub async fn undo(self) -> Vec<LinkError> {
        undo(self.journal, &self.links).await
    }

    fn has(&self, change: &Change) -> bool {
        self.journal
            .pending()
            .iter()
            .any(|(_, other)| other == change)
    }

    async fn take_back(&mut self, which: impl Fn(&Change) -> bool) -> Result<(), LinkError> {
        let pending = self.journal.pending().iter().rev();
        let chosen: Vec<_> = pending
            .filter(|(_, change)| which(change))
            .cloned()
            .collect();
        for (id, change) in chosen {
            undo_one(&change, &self.links).await?;
            self.journal.undone(id)?;
        }
        Ok(())
    }
}

async fn undo(mut journal: Journal, links: &Links) -> Vec<LinkError> {
    let mut errors = Vec::new();
    let pending: Vec<_> = journal.pending().iter().rev().cloned().collect();
    for (id, change) in pending {
        let undone = undo_one(&change, links).await;
        errors.extend(undone.and_then(|()| journal.undone(id)).err());
    }
    errors.extend(journal.close().err());
    errors
}

async fn undo_one(change: &Change, links: &Links) -> Result<(), LinkError> {
    match change {
        Change::Route(host) => links.remove_host_route(host).await,
        Change::Nat { table } => nat::remove(table).await,
        Change::Forwarding {
            setting,
            before,
            ours,
        } => match sysctl::read(setting.key())? == *ours {
            true => sysctl::write(setting.key(), before),
            false => Ok(()),
        },
        Change::ResolvConf { before, ours } => dns::restore(before, ours),
    }
}
