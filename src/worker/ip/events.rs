//! What one end of an IP tunnel says about addresses and routes, and who hears it.
//!
//! ```text
//!   Peer of the sender ─► IpEvent ─┬─► Leg::Stream    the same with the ids of the other stream
//!                                  ├─► Leg::Local     LocalEvent::Ip
//!                                  └─► Leg::Gateway   answered from the pools
//! ```

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::super::leg::Leg;
use super::super::machine::{End, LocalEvent, Machine, Outside};
use super::of_end;
use crate::tunnel::TunnelId;
use crate::tunnel::ip::{IpError, IpEvent, Peer};
use crate::wire::ip::IpCapsule;

impl Machine {
    /// Something that the end opposite of `receiver` said.
    pub(super) fn ip_event(
        &mut self,
        now: Instant,
        id: TunnelId,
        receiver: End,
        event: IpEvent,
        out: &mut impl Outside,
    ) -> Result<(), IpError> {
        match self.leg(id, receiver) {
            Some(Leg::Stream(_)) => return self.pass_ip_event(now, id, receiver, event, out),
            Some(Leg::Local) => self.tell(receiver, LocalEvent::Ip(id, event)),
            Some(Leg::Gateway) => self.gateway_event(now, id, event, out),
            Some(Leg::None | Leg::Socket(_) | Leg::Tcp(_) | Leg::Nested(_)) | None => {}
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
        of_end(&mut flow.sides, receiver.other())
            .peer
            .forget_names();
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
        };
        self.send_ip_capsule(now, id, receiver, encoded(&capsule), out);
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
                self.send_ip_capsule(now, id, receiver, encoded(&capsule), out);
                Ok(said)
            }
            Err(error) => Err(error),
        })
    }
}

fn encoded(capsule: &IpCapsule) -> Bytes {
    let mut bytes = BytesMut::new();
    capsule.encode(&mut bytes);
    bytes.freeze()
}
