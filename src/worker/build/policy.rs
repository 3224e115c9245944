//! From checked configuration to the policy of a process.

use std::net::SocketAddr;

use super::BuildError;
use crate::config::{self, Checked};
use crate::net::own_interfaces;
use crate::policy::{Policy, Rule, RuleError, own_addresses};

/// What a rule is about, as the configuration wants to know it.
///
/// # Errors
/// What is wrong with it.
pub fn rule_kind(text: &str) -> Result<config::RuleKind, RuleError> {
    text.parse()
        .map(|rule: Rule| match rule.is_about_addresses() {
            true => config::RuleKind::Addresses,
            false => config::RuleKind::Names,
        })
}

/// The rules of a process whose listeners are at these addresses.
pub(super) fn policy(checked: &Checked, listeners: &[SocketAddr]) -> Result<Policy, BuildError> {
    let rules = |texts: &[String]| {
        texts
            .iter()
            .map(|text| text.parse())
            .collect::<Result<_, _>>()
    };
    let chained = !checked.upstream.hops.is_empty();
    let ip = checked.ip.as_ref();
    Ok(Policy {
        allow: rules(&checked.policy.allow)?,
        deny: rules(&checked.policy.deny)?,
        // What is public for the relay that connects is not ours to know.
        public_only: checked.policy.public_only && !chained,
        own: own_addresses(listeners, &own_interfaces()?),
        inside: ip
            .filter(|ip| ip.client_to_client)
            .map(config::Ip::inside)
            .unwrap_or_default(),
        gateways: ip
            .map(config::Ip::gateways)
            .unwrap_or_default()
            .iter()
            .map(ipnet::IpNet::addr)
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::config::{Environment, parse};
    use crate::wire::ip::Scope;

    /// Scopes may name what clients reach of each other, though it is not public.
    #[test]
    fn a_policy_knows_what_is_behind_the_gateway() {
        let mut environment = Environment::new("/", NonZeroUsize::MIN, "relay.test");
        environment.dev_listen = Some(([192, 0, 2, 1], 443).into());
        let behind = "pools = [\"10.89.0.0/24\"]\n[[ip.site]]\nprefixes = [\"10.1.0.0/16\"]";
        for together in [true, false] {
            let text = format!("[ip]\nclient_to_client = {together}\n{behind}");
            let policy = policy(&parse(&text, &environment).unwrap(), &[]).unwrap();
            let opens = |target: &str| {
                let target = target.parse().unwrap();
                let protocol = None;
                policy.check_scope(&Scope { target, protocol }).is_ok()
            };
            assert_eq!(opens("10.89.0.0/24"), together);
            assert_eq!(opens("10.1.7.0/24"), together);
            assert!(opens("10.89.0.1") && !opens("10.2.0.0/16"));
        }
    }
}
