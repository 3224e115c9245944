//! IP tunnels whose clients come by the streams of somebody else's server.
//!
//! ```text
//!   user's server ─ bytes ─► embed ─ packets, capsules ─► machine: the peer downstream, as if it had a stream
//!                 ◄───────────────── LocalEvent::Payload, LocalEvent::Capsule ◄─┘
//! ```
//!
//! The user downstream only takes bytes apart and puts them together. What they say is for the machine, which knows the
//! client as the peer of a stream of its own: what was assigned, which routes there are, what may pass. Such a stream
//! carries packets of any size, in capsules.

use std::time::Instant;

use super::super::ends::CapsuleSent;
use super::super::leg::{Deciding, Flow, Leg, State};
use super::super::machine::{End, Machine, Outside};
use super::IpFlow;
use crate::transport::carriers::RequestStream;
use crate::tunnel::TunnelId;
use crate::tunnel::ip::Delivery;
use crate::wire::capsule::CapsuleType;
use crate::wire::carrier::Carrier;
use crate::wire::datagram::UDP_PAYLOAD_MAX;
use crate::wire::ip::{IpCapsule, Scope};

/// How the peer at an end of an IP tunnel is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// By a stream of ours.
    Stream(RequestStream),
    /// By somebody else's, on this HTTP version.
    Carried(Carrier),
}

impl Machine {
    /// Takes over a request for an IP tunnel whose stream is somebody else's, on `carrier`. It is then in the hands of
    /// the handler of this process, as after [`HandlerEvent::Request`](super::super::HandlerEvent::Request). Whoever
    /// carries the bytes is the user downstream: [`LocalEvent::Payload`](super::super::LocalEvent::Payload) is a packet
    /// for the client, and [`LocalEvent::Capsule`](super::super::LocalEvent::Capsule) a capsule, of any type.
    pub fn carry_ip(&mut self, now: Instant, scope: Scope, carrier: Carrier) -> TunnelId {
        let state = State::Deciding(Box::new(Deciding {
            destination: scope.clone().into(),
            via: None,
        }));
        let mut flow = IpFlow::new(scope);
        flow.carried = Some(carrier);
        let id = self.insert(now, Leg::Local, state, Flow::Ip(Box::new(flow)));
        if let Some(tunnel) = self.tunnels.get_mut(id) {
            tunnel.local = true;
        }
        id
    }

    /// A capsule from the client of such a tunnel, of any type but DATAGRAM. One that breaks a rule of RFC 9484 §4.7
    /// breaks the tunnel.
    pub fn carry_capsule(
        &mut self,
        now: Instant,
        id: TunnelId,
        capsule_type: CapsuleType,
        value: &[u8],
        out: &mut impl Outside,
    ) -> CapsuleSent {
        match self.tunnels.get(id) {
            Some(tunnel) if !tunnel.is_open() => return CapsuleSent::Blocked,
            Some(_) => {}
            None => return CapsuleSent::Gone,
        }
        let outcome = match IpCapsule::parse(capsule_type, value) {
            None => return self.send_capsule(now, id, End::Downstream, capsule_type, value),
            Some(Ok(capsule)) => {
                self.ip_delivery(now, id, End::Downstream, Delivery::Ip(capsule), out)
            }
            Some(Err(error)) => Err(error.into()),
        };
        match outcome {
            Ok(()) => CapsuleSent::Sent,
            Err(error) => {
                self.ip_misbehaved(now, id, &error, out);
                CapsuleSent::Gone
            }
        }
    }

    /// The version of the stream by which somebody else carries what is at an end.
    pub(super) fn carrier_elsewhere(&mut self, id: TunnelId, end: End) -> Option<Carrier> {
        match end {
            End::Downstream => self.ip_flow(id)?.carried,
            End::Upstream => None,
        }
    }

    /// How the peer at an end is reached, if there is one: users and gateways are none.
    pub(super) fn reach_of(&mut self, id: TunnelId, end: End) -> Option<Reach> {
        match self.leg(id, end)? {
            Leg::Stream(stream) => Some(Reach::Stream(stream)),
            Leg::Local => self.carrier_elsewhere(id, end).map(Reach::Carried),
            Leg::None | Leg::Socket(_) | Leg::Tcp(_) | Leg::Nested(_) | Leg::Gateway => None,
        }
    }

    /// The largest packet that goes to a peer without being told off.
    pub(super) fn mtu_towards(&mut self, reach: Reach) -> usize {
        match reach {
            Reach::Stream(stream) => self.tunnel_mtu(stream),
            Reach::Carried(_) => UDP_PAYLOAD_MAX,
        }
    }
}
