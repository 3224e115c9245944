//! Whole IP packets through relays, without privileges: a relay without TUN connects its clients.
//!
//! ```text
//!   near client ── IP tunnel ──► (ingress ──►) relay, client to client ── IP tunnel ──► far client
//! ```
//!
//! That is all of a relay's work but TUN: source, destination and policy are checked, the hop limit is decremented,
//! and a packet is looked up by its destination. A relay that runs already has to allow it (`ip.client_to_client`).

mod args;
mod compare;
mod engine;
mod outcome;
mod packet;

use std::io;
use std::sync::Arc;

use bauta::wire::ip::IpVersion;

pub(crate) use self::args::IpArgs;
use self::engine::{Packets, Spec};
pub(crate) use self::outcome::IpOutcome;
use crate::engine::Way;
use crate::interrupt::Interrupt;
use crate::run::{Plans, Scene, measure_with};

/// What is wanted.
pub(crate) struct Wanted {
    pub(crate) plans: Plans,
    pub(crate) version: IpVersion,
    /// Bytes of a packet.
    pub(crate) size: usize,
}

/// Runs what is wanted.
///
/// # Errors
/// What keeps it from running to its end; packets that are larger than what the tunnels carry.
pub(crate) async fn measure(wanted: Wanted, interrupt: &mut Interrupt) -> io::Result<IpOutcome> {
    let make = |scene: &Scene| {
        let spec = Arc::new(spec(&wanted, scene));
        move |seat, _: &mut _| Ok(Packets::new(&spec, seat))
    };
    let (measured, engines) = measure_with(&wanted.plans, interrupt, make).await?;
    Ok(IpOutcome::new(&wanted, &measured, &engines))
}

fn spec(wanted: &Wanted, scene: &Scene) -> Spec {
    let (hops, connections) = match &scene.way {
        Way::Tunnels { hops, connections } => (hops.clone(), *connections),
        // No topology of this workload is without a relay.
        Way::Plain(_) => (Vec::new(), 1),
    };
    Spec {
        hops,
        connections,
        groups: wanted.plans.groups.clone(),
        version: wanted.version,
        spin: scene.spins(&wanted.plans),
    }
}
