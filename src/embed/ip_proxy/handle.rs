//! An [`IpProxy`](super::IpProxy) as the rest of a program sees it.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;

use super::exit::Exit;
use super::tun::Interface;
use crate::embed::session::SendError;
use crate::tunnel::ip::Owner;
use crate::worker::DropReason;

/// A tunnel of an [`IpProxy`](crate::IpProxy)'s: unique within the proxy, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpSession(pub(super) Owner);

impl fmt::Display for IpSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}", self.0.worker, self.0.tunnel)
    }
}

/// What becomes of the clients of an [`IpProxy`](crate::IpProxy), and of their packets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpProxyEvent {
    /// A client was given a prefix.
    Assigned {
        /// Whose.
        session: IpSession,
        /// What.
        prefix: IpNet,
    },
    /// A client has given a prefix back, by leaving.
    Released {
        /// Whose.
        session: IpSession,
        /// What.
        prefix: IpNet,
    },
    /// The networks behind a client are these from now on.
    Routes {
        /// Whose.
        session: IpSession,
        /// All of them, without those that are in no [site](crate::IpProxyBuilder::site) of the client.
        prefixes: Vec<IpNet>,
    },
    /// A packet of a client, or for one, was dropped.
    Dropped {
        /// Whose.
        session: IpSession,
        /// Why.
        reason: DropReason,
    },
}

/// What an [`IpProxy`](crate::IpProxy) has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IpProxyStats {
    /// Packets that have left: that were given to the hook, or to the interface.
    pub packets_forwarded: u64,
    /// Packets that were injected.
    pub packets_injected: u64,
    /// Prefixes that were given to clients, all in all.
    pub prefixes_given: u64,
    /// Prefixes that clients have now.
    pub prefixes_assigned: usize,
    /// Prefixes that are kept for clients that have left.
    pub prefixes_kept: usize,
    /// Prefixes of networks behind clients, now.
    pub site_prefixes: usize,
    /// Packets that were dropped, for each reason.
    pub dropped: Vec<(DropReason, u64)>,
}

impl IpProxyStats {
    /// Packets that were dropped for a reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        let mut dropped = self.dropped.iter();
        let found = dropped.find(|(other, _)| *other == reason);
        found.map_or(0, |(_, packets)| *packets)
    }
}

/// A handle to an [`IpProxy`](crate::IpProxy), for any thread. Cheap to clone. Nothing here blocks or waits.
#[derive(Clone, Debug)]
pub struct IpProxyHandle(pub(super) Arc<Exit>);

impl IpProxyHandle {
    /// The client that a packet to `address` goes to: the one that it is assigned to, or else the one with the longest
    /// prefix around it behind it.
    #[must_use]
    pub fn session_of(&self, address: IpAddr) -> Option<IpSession> {
        self.0.session_of(address)
    }

    /// The proxy's own address in each pool, in the order in which they were added.
    #[must_use]
    pub fn gateway_addresses(&self) -> &[IpAddr] {
        self.0.pools.gateway_addresses()
    }

    /// The name of the [interface](crate::IpProxyBuilder::tun) that packets leave by.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        self.0.interface.as_ref().map(Interface::name)
    }

    /// Delivers a packet from outside to the client that has its destination. It goes as it is: the hop limit is the
    /// business of whoever routed it here. A source that the client was not told a route to is dropped and counted, but
    /// for ICMP; one that is larger than the tunnel takes is answered by ICMP, which leaves as packets of clients do.
    ///
    /// # Errors
    /// [`SendError::NotAPacket`]; [`SendError::Unassigned`] when no client has its destination; [`SendError::NoRoom`]
    /// while 4,096 packets are on their way.
    pub fn inject(&self, packet: impl Into<Bytes>) -> Result<(), SendError> {
        self.0.inject(packet.into())
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> IpProxyStats {
        self.0.stats()
    }
}
