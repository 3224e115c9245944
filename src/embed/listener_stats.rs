//! What a listener has done, in numbers.

use crate::worker::run::Report;

/// Counters of a [`Listener`](super::Listener), all since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Connections that clients have made, on all carriers.
    pub connections_opened: u64,
    /// Tunnels that were answered with 2xx, by the relay or by a handler.
    pub tunnels_opened: u64,
    /// Requests that got another answer.
    pub requests_refused: u64,
    /// Calls into code of the user that panicked: handlers, callbacks, hooks, futures.
    pub handler_panics: u64,
    /// Every counter of the workers by its name, as `bauta relay` prints them at its end. They are for people who look
    /// for a cause: names come and go with versions, and some count one carrier only, as `connections_opened` does
    /// those of HTTP/3 and `tcp_connections_opened` the others.
    pub counters: Vec<(&'static str, u64)>,
}

impl ListenerStats {
    pub(super) fn new(reports: &[Report], handler_panics: u64) -> Self {
        let mut machine = crate::worker::stats::Stats::default();
        let mut hub = crate::transport::quic::HubStats::default();
        let mut tcp = crate::transport::tcp::TcpHubStats::default();
        let mut net = crate::net::Stats::default();
        for report in reports {
            machine += report.machine;
            hub += report.hub;
            tcp += report.tcp;
            net += report.net;
        }
        Self {
            connections_opened: hub.connections_opened + tcp.tcp_connections_opened,
            tunnels_opened: machine.tunnels_opened,
            requests_refused: machine.requests_refused,
            handler_panics,
            counters: crate::worker::stats::named(&machine, &hub, &tcp, &net).collect(),
        }
    }
}
