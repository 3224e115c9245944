//! What either end of an IP tunnel says about addresses and routes, and why it was not said (RFC 9484 §4.7).
//!
//! ```text
//!   IpTunnel ─ Command::Say ─┐
//!   Actions ─────────────────┼─► Saying ─► Machine ─► capsule
//!   TunnelHandle ─ Act::Say ─┘
//! ```

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use event_listener::Event;
use ipnet::{IpNet, Ipv6Net};
use thiserror::Error;

use super::lock::Lock;
use super::session::SendError;
use crate::error::{Error, ErrorKind, Side};
use crate::tunnel::TunnelId;
use crate::tunnel::ip::IpError;
use crate::wire::ip::{AddressRange, AssignedAddress, DnsConfig, Packet, PacketError};
use crate::worker::run::World;
use crate::worker::{End, IpRequestError, Machine};

/// A rule of RFC 9484 that something breaks which was to be said on an IP tunnel; nothing was said. Print it: it names
/// the entries that it is about.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(transparent)]
pub struct IpRuleError(IpError);

impl IpRuleError {
    /// Whether it is about how much was said, and not about what.
    #[must_use]
    pub const fn is_limit(&self) -> bool {
        matches!(
            self.0,
            IpError::TooManyPending
                | IpError::TooManyRequests
                | IpError::TooManyNames { .. }
                | IpError::CapsuleTooLong { .. }
        )
    }
}

impl From<IpRuleError> for Error {
    fn from(error: IpRuleError) -> Self {
        let kind = match error.is_limit() {
            true => ErrorKind::Limit,
            false => ErrorKind::Configuration,
        };
        // Requests are answered with time.
        let goes_by = matches!(error.0, IpError::TooManyPending);
        (Self::new(kind, Side::Local).retryable(goes_by)).with_source(error)
    }
}

impl From<PacketError> for Error {
    fn from(error: PacketError) -> Self {
        Self::new(ErrorKind::Configuration, Side::Local).with_source(error)
    }
}

/// The packet that `bytes` begin with, without what follows it.
pub(super) fn packet(mut bytes: Bytes) -> Result<Bytes, PacketError> {
    let len = Packet::parse(&bytes)?.len;
    bytes.truncate(len);
    Ok(bytes)
}

/// Something to say to the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Saying {
    /// ADDRESS_REQUEST.
    Request(Vec<IpNet>),
    /// ADDRESS_ASSIGN.
    Assign(Vec<AssignedAddress>),
    /// ROUTE_ADVERTISEMENT.
    Routes(Vec<AddressRange>),
    /// DNS_ASSIGN.
    Dns(Vec<DnsConfig>),
    /// PREF64.
    Pref64(Vec<Ipv6Net>),
}

/// What comes of it: the ids of requests, in order; of all else nothing.
pub(super) type Said = Result<Vec<u64>, SendError>;

impl Saying {
    /// Has the machine say it, for the user of an end.
    pub(super) fn say(
        self,
        now: Instant,
        at: (TunnelId, End),
        machine: &mut Machine,
        out: &mut World<'_>,
    ) -> Said {
        let none = |(): ()| Vec::new();
        let said = match self {
            Self::Request(wishes) => machine.ip_request_addresses(now, at, &wishes, out),
            Self::Assign(list) => machine.ip_assign_addresses(now, at, list, out).map(none),
            Self::Routes(list) => machine.ip_advertise_routes(now, at, list, out).map(none),
            Self::Dns(list) => machine.ip_assign_dns(now, at, list, out).map(none),
            Self::Pref64(list) => machine.ip_assign_pref64(now, at, list, out).map(none),
        };
        said.map_err(|error| match error {
            IpRequestError::NotOpen => SendError::Closed,
            IpRequestError::Rules(error) => SendError::Rule(IpRuleError(error)),
        })
    }

    /// About how much it takes while it is on its way, in bytes.
    pub(super) fn weight(&self) -> usize {
        const ENTRY_BYTES: usize = 64;
        let entries = match self {
            Self::Request(list) => list.len(),
            Self::Assign(list) => list.len(),
            Self::Routes(list) => list.len(),
            Self::Dns(list) => list.iter().map(|it| 1 + it.nameservers.len()).sum(),
            Self::Pref64(list) => list.len(),
        };
        entries * ENTRY_BYTES
    }
}

/// Where a handle waits for what comes of an order.
#[derive(Debug, Default)]
pub(super) struct Reply {
    said: Lock<Option<Said>>,
    pub(super) event: Event,
}

impl Reply {
    pub(super) fn take(&self) -> Option<Said> {
        self.said.lock().take()
    }
}

/// The worker's side of a [`Reply`]: whatever happens to the order, the handle hears of it.
#[derive(Debug)]
pub(super) struct Replier(Arc<Reply>);

impl Replier {
    pub(super) fn new() -> (Self, Arc<Reply>) {
        let reply = Arc::new(Reply::default());
        (Self(Arc::clone(&reply)), reply)
    }

    pub(super) fn answer(self, said: Said) {
        *self.0.said.lock() = Some(said);
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        self.0.said.lock().get_or_insert(Err(SendError::Closed));
        self.0.event.notify(usize::MAX);
    }
}
