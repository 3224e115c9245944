//! Decides what becomes of a request for a tunnel. Opens nothing itself.
//!
//! ```text
//!   target ─► direct: this relay resolves and connects   (egress)
//!          ─► chain:  the next hop does                  (ingress)
//! ```
//!
//! Both judge the target before anything is spent on it. The direct handler also judges every address that a
//! name resolves to, and the socket connects to exactly the address that was judged (design decision 7).

use std::net::{IpAddr, SocketAddr};

use crate::error::Refusal;
use crate::policy::Policy;
use crate::wire::ip::{Destination, Scope};

/// What to do with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Open a socket to the target.
    Direct,
    /// Ask the next hop.
    Chain,
    /// Ask the handler of this process.
    Ask,
    /// Answer with this.
    Refuse(Refusal),
}

/// The built-in handlers.
#[derive(Clone, Debug)]
pub enum Handler {
    /// Opens targets itself.
    Direct(Policy),
    /// Passes targets on. Only rules on names, ports and literal addresses apply: what a name resolves to is for
    /// the relay that connects.
    Chain(Policy),
    /// A handler of this process, which judges by itself.
    Embedded,
}

impl Handler {
    /// Decides on a target before anything is resolved or dialled.
    pub fn decide(&self, destination: &Destination) -> Decision {
        let (policy, allowed) = match self {
            Self::Direct(policy) => (policy, Decision::Direct),
            Self::Chain(policy) => (policy, Decision::Chain),
            Self::Embedded => return Decision::Ask,
        };
        let checked = match destination {
            Destination::Target(target) => policy.check_target(target),
            Destination::Scope(scope) => policy.check_scope(scope),
        };
        match checked {
            Ok(()) => allowed,
            Err(denied) => Decision::Refuse(denied.into()),
        }
    }

    /// Those of the resolved `addresses` of a scope that some packet may go to. See [`Policy::allowed_in_scope`].
    ///
    /// # Errors
    /// As there.
    pub fn allowed_in_scope(
        &self,
        scope: &Scope,
        addresses: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Refusal> {
        match self {
            Self::Direct(policy) | Self::Chain(policy) => policy.allowed_in_scope(scope, addresses),
            Self::Embedded => Err(Refusal::Misconfigured),
        }
    }

    /// Those of the resolved `addresses` that may be connected to, in order and in their plain form.
    ///
    /// # Errors
    /// Why the first one is refused, when none is left.
    pub fn allowed(
        &self,
        addresses: &[IpAddr],
        port: u16,
        name: Option<&str>,
    ) -> Result<Vec<SocketAddr>, Refusal> {
        match self {
            Self::Direct(policy) | Self::Chain(policy) => policy.allowed(addresses, port, name),
            Self::Embedded => Err(Refusal::Misconfigured),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Destination {
        Destination::Target(text.parse().unwrap())
    }

    // spec: 9298-7-b, 9298-7-c
    #[test]
    fn only_addresses_that_pass_are_tried_in_order() {
        let handler = Handler::Direct(Policy::default());
        assert_eq!(handler.decide(&target("example.org:443")), Decision::Direct);
        assert!(matches!(
            handler.decide(&target("127.0.0.1:443")),
            Decision::Refuse(_)
        ));
        let addresses = ["::ffff:10.0.0.1", "8.8.8.8", "127.0.0.1", "::ffff:1.1.1.1"]
            .map(|text| text.parse().unwrap());
        let allowed = handler
            .allowed(&addresses, 53, Some("example.org"))
            .unwrap();
        assert_eq!(
            allowed,
            ["8.8.8.8:53", "1.1.1.1:53"].map(|text| text.parse().unwrap())
        );
        let private = ["192.168.1.1".parse().unwrap()];
        assert!(matches!(
            handler.allowed(&private, 53, Some("rebind.example")),
            Err(Refusal::AddressProhibited { .. })
        ));
    }

    // spec: 9298-3.1-a
    #[test]
    fn a_chain_passes_names_on() {
        let handler = Handler::Chain(Policy {
            public_only: false,
            ..Policy::default()
        });
        assert_eq!(handler.decide(&target("example.org:443")), Decision::Chain);
        assert_eq!(handler.decide(&target("10.0.0.1:53")), Decision::Chain);
    }
}
