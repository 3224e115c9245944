//! The system around a relay's TUN interface: addresses, routes, forwarding, NAT, and how all of it is undone.

use std::io::Write;

use ipnet::IpNet;

use super::threads::StartError;
use crate::config::{Ip, Nat};
use crate::net::link::{
    Changes, Forwarding, Lead, LinkError, Links, NatTable, forwards, state_directory,
};
use crate::worker::build::ip::TunInfo;

/// Makes the interface the gateway of the pools: up, with the first address of each pool, so that the pools are led
/// there, and with routes to the networks behind clients. Prints the rules of NAT to `out` where that is asked for.
///
/// # Errors
/// What the system refuses, everything undone; [`LinkError::NotForwarding`] when the kernel would drop what comes out
/// of the interface, unless clients may at least reach each other.
pub(super) async fn prepare(
    ip: &Ip,
    tun: &TunInfo,
    out: &mut dyn Write,
) -> Result<Changes, StartError> {
    let mut changes = Changes::begin(&state_directory(), &tun.name, Links::open()?).await?;
    match change(&mut changes, ip, tun, out).await {
        Ok(()) => Ok(changes),
        Err(error) => {
            undo(changes).await;
            Err(error)
        }
    }
}

/// Makes everything as it was; what is left is logged, and undone by the next start.
pub(super) async fn undo(changes: Changes) {
    for error in changes.undo().await {
        tracing::error!("not undone, the next start tries again: {error}");
    }
}

async fn change(
    changes: &mut Changes,
    ip: &Ip,
    tun: &TunInfo,
    out: &mut dyn Write,
) -> Result<(), StartError> {
    for setting in [Forwarding::V4, Forwarding::V6] {
        let has_version = |pool: &IpNet| pool.addr().is_ipv6() == (setting == Forwarding::V6);
        if !ip.pools.iter().any(has_version) {
            continue;
        }
        if !ip.forwarding {
            match forwards(setting) {
                // They still reach each other, which may be all that is wanted.
                Err(error @ LinkError::NotForwarding { .. }) if ip.client_to_client => {
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
    let mtu = Some(ip.mtu);
    changes.links().set_up(tun.index, &tun.name, mtu).await?;
    for gateway in ip.gateways() {
        changes.add_address(tun.index, &tun.name, gateway).await?;
    }
    let lead = Lead::Into {
        interface: tun.index,
        source: None,
    };
    let behind = ip.sites.iter().flat_map(|site| site.prefixes.iter());
    let behind: Vec<IpNet> = behind.copied().collect();
    for prefix in IpNet::aggregate(&behind) {
        match changes.set_route(prefix, lead, None).await {
            // Somebody else leads there; clients reach each other all the same.
            Err(error) if error.errno() == Some(libc::EEXIST) => tracing::warn!("{error}"),
            outcome => outcome?,
        }
    }
    let inside: Vec<IpNet> = ip.pools.iter().chain(&behind).copied().collect();
    let table = NatTable::new(&tun.name, &IpNet::aggregate(&inside));
    match ip.nat {
        Nat::Off => {}
        Nat::Print => write!(out, "{table}")?,
        Nat::Apply => changes.install_nat(&table).await?,
    }
    Ok(())
}
