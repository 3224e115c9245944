//! What one end of an IP tunnel says about addresses and routes, and who hears it.
//!
//! ```text
//!   Peer of the sender ─► IpEvent ─┬─► Leg::Stream    the same with the ids of the other stream
//!                                  ├─► Leg::Local     LocalEvent::Ip
//!                                  └─► Leg::Gateway   answered from the pools
//! ```
//!
//! What the path of a stream says about its MTU is told to users alone.

use std::time::Instant;

use super::super::leg::{Leg, Tunnel};
use super::super::machine::{End, LocalEvent, Machine, Outside};
use super::of_end;
use crate::tunnel::TunnelId;
use crate::tunnel::ip::{IpError, IpEvent, Peer};
use crate::wire::ip::IpCapsule;

impl Machine {
    /// What the users of a tunnel's ends find as its MTU when it opens.
    pub(in crate::worker) fn note_mtu(&mut self, id: TunnelId) {
        for end in [End::Downstream, End::Upstream] {
            self.has_other_mtu(id, end);
        }
    }

    /// The path of a stream takes packets of another size than before: the user of the tunnel's other end is told,
    /// if that makes a difference.
    pub(in crate::worker) fn tell_mtu(&mut self, id: TunnelId) {
        for end in [End::Downstream, End::Upstream] {
            let is_open = self.tunnels.get(id).is_some_and(Tunnel::is_open);
            if is_open && let Some(mtu) = self.has_other_mtu(id, end) {
                self.tell(end, LocalEvent::Ip(id, IpEvent::Mtu(mtu)));
            }
        }
    }

    /// The MTU that the user of an end finds, if there is one, and it is another one than before.
    fn has_other_mtu(&mut self, id: TunnelId, end: End) -> Option<usize> {
        let Some(Leg::Local) = self.leg(id, end) else {
            return None;
        };
        if self.ip_flow(id)?.carried.is_some() {
            return None;
        }
        let stream = self.far_stream(id, end)?;
        let mtu = self.tunnel_mtu(stream);
        let known = &mut self.ip_flow(id)?.side(end).mtu;
        (std::mem::replace(known, mtu) != mtu).then_some(mtu)
    }

    /// Something that the end opposite of `receiver` said.
    pub(super) fn ip_event(
        &mut self,
        now: Instant,
        id: TunnelId,
        receiver: End,
        event: IpEvent,
        out: &mut impl Outside,
    ) -> Result<(), IpError> {
        if self.reach_of(id, receiver).is_some() {
            return self.pass_ip_event(now, id, receiver, event, out);
        }
        match self.leg(id, receiver) {
            Some(Leg::Local) => self.tell(receiver, LocalEvent::Ip(id, event)),
            Some(Leg::Gateway) => self.gateway_event(now, id, event, out),
            Some(Leg::None | Leg::Stream(_) | Leg::Socket(_) | Leg::Tcp(_) | Leg::Nested(_)) => {}
            None => {}
        }
        Ok(())
    }

    /// From one stream to the other: requests get new ids, and answers their old ones.
    fn pass_ip_event(
        &mut self,
        now: Instant,
        id: TunnelId,
        receiver: End,
        event: IpEvent,
        out: &mut impl Outside,
    ) -> Result<(), IpError> {
        let Some(flow) = self.ip_flow(id) else {
            return Ok(());
        };
        let peer = &mut of_end(&mut flow.sides, receiver).peer;
        let capsule = match event {
            IpEvent::Requested(requests) => {
                of_end(&mut flow.ids, receiver.other()).forward(&requests, peer)?
            }
            IpEvent::Assigned(list) => {
                peer.assign_addresses(of_end(&mut flow.ids, receiver).answer(&list))?
            }
            IpEvent::Routes(routes) => peer.advertise_routes(routes)?,
            IpEvent::Dns(configs) => peer.assign_dns(configs)?,
            IpEvent::Pref64(prefixes) => peer.assign_pref64(prefixes)?,
            // Each stream has its own, and nobody says it.
            IpEvent::Mtu(_) => return Ok(()),
        };
        self.send_ip_capsule(now, id, receiver, &capsule, out);
        Ok(())
    }

    /// Has the peer at `receiver` told something, and sends it.
    pub(super) fn tell_peer<T>(
        &mut self,
        now: Instant,
        id: TunnelId,
        receiver: End,
        say: impl FnOnce(&mut Peer) -> Result<(T, IpCapsule), IpError>,
        out: &mut impl Outside,
    ) -> Option<Result<T, IpError>> {
        let flow = self.ip_flow(id)?;
        Some(match say(&mut flow.side(receiver).peer) {
            Ok((said, capsule)) => {
                self.send_ip_capsule(now, id, receiver, &capsule, out);
                Ok(said)
            }
            Err(error) => Err(error),
        })
    }
}
