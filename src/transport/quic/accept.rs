//! New connections from clients: accept, ask for a Retry, or refuse.

use std::time::Instant;

use quinn_proto::Incoming;

use super::{EndpointId, Hub, Link, respond};
use crate::http::h3;
use crate::net::Network;

impl Hub {
    pub(super) fn handle_incoming(
        &mut self,
        now: Instant,
        endpoint: EndpointId,
        link: Link,
        incoming: Incoming,
        net: &mut impl Network,
    ) {
        let quinn = &mut self.endpoints[endpoint.0].quinn;
        self.response.clear();
        // Address validation comes first: a spoofed flood must not take the places of real clients (RFC 9000 §8.1).
        let crowded = self.handshakes >= self.limits.retry_handshakes;
        if !self.draining && crowded && incoming.may_retry() && !incoming.remote_address_validated()
        {
            if let Ok(transmit) = quinn.retry(incoming, &mut self.response) {
                self.stats.retries_sent += 1;
                respond(net, link, &transmit, &self.response);
            }
            return;
        }
        let refused = if self.draining {
            Some(&mut self.stats.connections_refused_draining)
        } else if self.served >= self.limits.connections_max {
            Some(&mut self.stats.connections_refused)
        } else if self.handshakes >= self.limits.handshakes_max {
            Some(&mut self.stats.handshakes_refused)
        } else {
            None
        };
        if let Some(counter) = refused {
            *counter += 1;
            let transmit = quinn.refuse(incoming, &mut self.response);
            respond(net, link, &transmit, &self.response);
            return;
        }
        match quinn.accept(incoming, now, &mut self.response, None) {
            Ok((handle, quic)) => {
                self.served += 1;
                self.handshakes += 1;
                self.insert(now, endpoint, handle, quic, link, h3::Role::Server);
            }
            Err(error) => {
                self.stats.handshakes_failed += 1;
                if let Some(transmit) = error.response {
                    respond(net, link, &transmit, &self.response);
                }
            }
        }
    }
}
