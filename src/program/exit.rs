//! The system around the TUN interface of an exit: addresses, routes, forwarding, NAT, and how all of it is undone.
//!
//! The same for `bauta relay`, whose configuration says it, and for the library, whose user does.

use std::io::Write;

use ipnet::IpNet;

use super::threads::StartError;
use crate::config::{Ip, Nat};
use crate::net::link::{
    Changes, Forwarding, Lead, LinkError, Links, NatTable, forwards, state_directory,
};
use crate::worker::build::ip::TunInfo;

/// What the system around an interface shall be.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The interface.
    pub tun: TunInfo,
    /// Its MTU.
    pub mtu: u16,
    /// Our own address in each pool, with the prefix length of the pool.
    pub gateways: Vec<IpNet>,
    /// Networks behind clients.
    pub behind: Vec<IpNet>,
    /// Whether the kernel is told to pass packets on.
    pub forwarding: bool,
    /// Whether clients reach each other, which makes sense where the kernel passes nothing on.
    pub client_to_client: bool,
    /// What becomes of the addresses of clients.
    pub nat: Nat,
}

impl Surroundings {
    /// What a configuration says.
    #[must_use]
    pub fn new(ip: &Ip, tun: TunInfo) -> Self {
        let behind = ip.sites.iter().flat_map(|site| site.prefixes.iter());
        Self {
            tun,
            mtu: ip.mtu,
            gateways: ip.gateways(),
            behind: behind.copied().collect(),
            forwarding: ip.forwarding,
            client_to_client: ip.client_to_client,
            nat: ip.nat,
        }
    }

    /// Makes the interface the gateway of the pools: up, with our address of each pool, so that the pools are led
    /// there, and with routes to the networks behind clients. Prints the rules of NAT to `out` where that is asked for.
    ///
    /// # Errors
    /// What the system refuses, everything undone; [`LinkError::NotForwarding`] when the kernel would drop what comes
    /// out of the interface, unless clients may at least reach each other.
    pub async fn prepare(&self, out: &mut dyn Write) -> Result<Changes, StartError> {
        let mut changes =
            Changes::begin(&state_directory(), &self.tun.name, Links::open()?).await?;
        match self.change(&mut changes, out).await {
            Ok(()) => Ok(changes),
            Err(error) => {
                undo(changes).await;
                Err(error)
            }
        }
    }

    async fn change(&self, changes: &mut Changes, out: &mut dyn Write) -> Result<(), StartError> {
        for setting in [Forwarding::V4, Forwarding::V6] {
            let is_v6 = setting == Forwarding::V6;
            if !self.gateways.iter().any(|it| it.addr().is_ipv6() == is_v6) {
                continue;
            }
            if !self.forwarding {
                match forwards(setting) {
                    // They still reach each other, which may be all that is wanted.
                    Err(error @ LinkError::NotForwarding { .. }) if self.client_to_client => {
                        tracing::warn!("{error}");
                    }
                    outcome => outcome?,
                }
            } else if changes.set_forwarding(setting)? {
                tracing::info!(
                    setting = setting.key(),
                    "forwarding is on until the last relay ends"
                );
            }
        }
        let TunInfo { name, index } = &self.tun;
        let links = changes.links();
        links.set_up(*index, name, Some(self.mtu)).await?;
        for gateway in &self.gateways {
            changes.add_address(*index, name, *gateway).await?;
        }
        let lead = Lead::Into {
            interface: *index,
            source: None,
        };
        for prefix in IpNet::aggregate(&self.behind) {
            match changes.set_route(prefix, lead, None).await {
                // Somebody else leads there; clients reach each other all the same.
                Err(error) if error.errno() == Some(libc::EEXIST) => tracing::warn!("{error}"),
                outcome => outcome?,
            }
        }
        let pools = self.gateways.iter().map(IpNet::trunc);
        let inside: Vec<IpNet> = pools.chain(self.behind.iter().copied()).collect();
        let table = NatTable::new(name, &IpNet::aggregate(&inside));
        match self.nat {
            Nat::Off => {}
            Nat::Print => write!(out, "{table}")?,
            Nat::Apply => changes.install_nat(&table).await?,
        }
        Ok(())
    }
}

/// Makes everything as it was; what is left is logged, and undone by the next start.
pub async fn undo(changes: Changes) {
    for error in changes.undo().await {
        tracing::error!("not undone, the next start tries again: {error}");
    }
}
