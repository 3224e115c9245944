//! How routes are forgotten that nobody will ask for again.
//!
//! ```text
//!   remove_route ─► nobody counts on the route ─► its hops take leave: idle connections close,
//!                                                 those with tunnels a moment after these have ended
//! ```
//!
//! A route stays as long as another one leads through it, and a hop as long as a route has it.

use std::time::Instant;

use super::{HopId, Pool, RouteId};
use crate::http::h3::code::Code;
use crate::transport::carriers::Carriers;

impl Pool {
    /// Takes back one [`Pool::add_route`]. When all of a route are taken back, its connections end with their last
    /// tunnels, and nothing is left of it. Tunnels that are open, or being opened, are not disturbed; other routes and
    /// their ids stay as they are. A route that is gone is ignored.
    pub fn remove_route(&mut self, now: Instant, route: RouteId, carriers: &mut Carriers) {
        let Some(known) = self.routes.get_mut(route.0) else {
            return;
        };
        known.users = known.users.saturating_sub(1);
        if known.users == 0 {
            self.forgetting = true;
            self.forget(now, carriers);
        }
    }

    /// How many routes are known, those to relays on the way included.
    pub fn route_count(&self) -> usize {
        self.routes.values().count()
    }

    /// Lets go of what no route needs, as far as no tunnel uses it.
    pub(super) fn forget(&mut self, now: Instant, carriers: &mut Carriers) {
        while self.forgetting {
            let before = self.routes.values().count();
            let deserted: Vec<_> = self.deserted().collect();
            self.forgetting = !deserted.is_empty();
            for route in &deserted {
                self.forget_route(now, *route, carriers);
            }
            // A route that went may have been the last that led through another one.
            if self.routes.values().count() == before {
                return;
            }
        }
    }

    /// The routes that nobody counts on.
    fn deserted(&self) -> impl Iterator<Item = RouteId> {
        let routes = self.routes.iter().filter(|(_, route)| route.users == 0);
        routes
            .map(|(number, _)| RouteId(number))
            .filter(|route| self.entries.values().all(|entry| entry.via != Some(*route)))
    }

    fn forget_route(&mut self, now: Instant, route: RouteId, carriers: &mut Carriers) {
        let hops = self.routes[route.0].hops.clone();
        let mut gone = true;
        for (_, hop) in hops {
            let others = self.routes.iter().filter(|(number, _)| *number != route.0);
            let shared = others
                .flat_map(|(_, other)| &other.hops)
                .any(|(_, other)| *other == hop);
            gone &= shared || self.forget_hop(now, hop, carriers);
        }
        if gone {
            self.routes.remove(route.0);
        }
    }

    /// Returns whether nothing is left of a hop.
    fn forget_hop(&mut self, now: Instant, hop: HopId, carriers: &mut Carriers) -> bool {
        let Some(entry) = self.entries.get_mut(hop.0) else {
            return true;
        };
        // What the last tunnel said may still be on its way.
        let mut leaves = None;
        entry.ready.retain_mut(|pooled| {
            pooled.idle = pooled.linger.min(pooled.idle);
            let due = pooled.idle_since + pooled.idle;
            let over = pooled.streams == 0 && due <= now;
            if over {
                carriers.close(now, pooled.id, Code::H3_NO_ERROR);
            } else if pooled.streams == 0 {
                leaves = leaves.min(Some(due)).or(Some(due));
            }
            !over
        });
        let busy = !entry.dials.is_empty() || !entry.waiting.is_empty() || !entry.ready.is_empty();
        if !busy {
            self.entries.remove(hop.0);
        }
        if let Some(due) = leaves {
            self.wake_at(due);
        }
        !busy
    }
}
