//! What IP tunnels may reach: their scope when they open, and each of their packets.
//!
//! ```text
//!   scope  ─► is there any packet in it that may pass? ─► open
//!   packet ─► address, port and, where the scope is one, name ─► pass
//! ```
//!
//! A packet shows no name. Rules with names hold for the packets of a tunnel that was asked for by name, and mean
//! nothing for those of another. Rules with ports hold for TCP and UDP; other protocols have no ports, and pass where
//! no port matters. What is behind the gateway of the relay, [`Policy::inside`], is opened by whoever has put it there:
//! deny rules alone count.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::address;
use super::{Denied, Policy, Rule, ends_in_number, normal};
use crate::error::Refusal;
use crate::wire::ip::{Scope, ScopeTarget};

/// Addresses of a prefix that are looked at before it is opened on trust: every packet is judged by itself.
const CANDIDATES_MAX: usize = 128;
/// The protocols whose ports rules are about.
const WITH_PORTS: [u8; 2] = [6, 17];

impl Policy {
    /// Judges the scope of an IP tunnel before resolution: whether a packet to some address in it and of some port, or
    /// of none, could pass. Of a name, whether it could at some address. Every packet is judged by itself later, so
    /// what is open here may be closed to the packets that are sent.
    ///
    /// # Errors
    /// The reason for the first address, if nothing could make the scope acceptable.
    pub fn check_scope(&self, scope: &Scope) -> Result<(), Denied> {
        let ports = self.ports(scope);
        match &scope.target {
            ScopeTarget::Any => Ok(()),
            ScopeTarget::Prefix(prefix) => self.check_prefix(prefix, &ports),
            ScopeTarget::Name(name) => {
                let name = normal(name);
                if ends_in_number(name) {
                    return Err(Denied::NumericName);
                }
                let is_open = |port: &Option<u16>| {
                    let denies =
                        |rule: &Rule| rule.hosts.matches_name(name) && rule.matches_any_port(*port);
                    let allows = |rule: &Rule| {
                        (rule.is_about_addresses() || rule.hosts.matches_name(name))
                            && rule.matches_any_port(*port)
                    };
                    let is_denied = self.deny.iter().any(denies);
                    !is_denied && (self.allow.is_empty() || self.allow.iter().any(allows))
                };
                match ports.iter().any(is_open) {
                    true => Ok(()),
                    false => Err(Denied::ByRule),
                }
            }
        }
    }

    /// Those of the `addresses` of the name of a scope to which some packet could pass, in order.
    ///
    /// # Errors
    /// Why the first one is refused, when none is left.
    pub fn allowed_in_scope(
        &self,
        scope: &Scope,
        addresses: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Refusal> {
        let (ports, name) = (self.ports(scope), scope.target_name());
        let mut denied = None;
        let mut allowed = Vec::new();
        for address in addresses.iter().map(IpAddr::to_canonical) {
            match self.check_any_port(address, &ports, |port| {
                self.check_behind(address, port, name)
            }) {
                Ok(()) => allowed.push(address),
                Err(reason) => denied = denied.or(Some(reason)),
            }
        }
        match denied {
            Some(reason) if allowed.is_empty() => Err(reason.into()),
            Some(_) | None => Ok(allowed),
        }
    }

    /// Judges where an IP packet goes: `port` is the destination's of TCP and UDP. Without one only rules about all
    /// ports count. `name` is that of the scope of its tunnel, which the destination is an address of.
    ///
    /// # Errors
    /// As [`check_address`](Self::check_address).
    pub fn check_packet(
        &self,
        destination: IpAddr,
        port: Option<u16>,
        name: Option<&str>,
    ) -> Result<(), Denied> {
        self.check_ends(destination, address::unmap(destination), port, name)
    }

    /// Judges a packet to a client or to the network behind one: only deny rules count.
    ///
    /// # Errors
    /// [`Denied::ByRule`].
    pub fn check_inside(
        &self,
        destination: IpAddr,
        port: Option<u16>,
        name: Option<&str>,
    ) -> Result<(), Denied> {
        match matches(&self.deny, destination, port, name) {
            true => Err(Denied::ByRule),
            false => Ok(()),
        }
    }

    /// As the one or the other, whichever is right for the destination.
    fn check_behind(
        &self,
        destination: IpAddr,
        port: Option<u16>,
        name: Option<&str>,
    ) -> Result<(), Denied> {
        match self.is_inside(destination) {
            true => self.check_inside(destination, port, name),
            false => self.check_packet(destination, port, name),
        }
    }

    fn is_inside(&self, address: IpAddr) -> bool {
        self.inside.iter().any(|prefix| prefix.contains(&address))
    }

    /// Judges a packet that can end up at any of `ends`.
    fn check_ends(
        &self,
        destination: IpAddr,
        mut ends: impl Iterator<Item = IpAddr> + Clone,
        port: Option<u16>,
        name: Option<&str>,
    ) -> Result<(), Denied> {
        if let Some(port) = port
            && ends.clone().any(|ip| self.is_own(ip, port))
        {
            return Err(Denied::OwnAddress);
        }
        if (ends.clone()).any(|ip| matches(&self.deny, ip, port, name)) {
            return Err(Denied::ByRule);
        }
        if !self.allow.is_empty() && !matches(&self.allow, destination, port, name) {
            return Err(Denied::ByRule);
        }
        let opens =
            |ip| (self.allow.iter()).any(|rule| rule.opens(ip) && rule.matches_any_port(port));
        ends.try_for_each(|ip| match address::judge(ip) {
            Err(special) if !special.can_open => Err(special.into()),
            Err(special) if self.public_only && !opens(ip) => Err(special.into()),
            Ok(()) | Err(_) => Ok(()),
        })
    }

    /// Whether some packet to an address in a prefix could pass.
    fn check_prefix(&self, prefix: &IpNet, ports: &[Option<u16>]) -> Result<(), Denied> {
        if prefix.prefix_len() == prefix.max_prefix_len() {
            let address = prefix.addr();
            // The link itself answers, whatever rules say about the world.
            if self.gateways.contains(&address) {
                return Ok(());
            }
            return self.check_any_port(address, ports, |port| {
                self.check_behind(address, port, None)
            });
        }
        let mut denied = None;
        for (index, address) in self.candidates(prefix).enumerate() {
            // What an address carries inside is left to its packets.
            let outcome =
                self.check_any_port(address, ports, |port| match self.is_inside(address) {
                    true => self.check_inside(address, port, None),
                    false => self.check_ends(address, std::iter::once(address), port, None),
                });
            match outcome {
                Err(reason) if index < CANDIDATES_MAX => denied = denied.or(Some(reason)),
                Ok(()) | Err(_) => return Ok(()),
            }
        }
        denied.map_or(Ok(()), Err)
    }

    fn check_any_port(
        &self,
        address: IpAddr,
        ports: &[Option<u16>],
        check: impl Fn(Option<u16>) -> Result<(), Denied>,
    ) -> Result<(), Denied> {
        let mut denied = None;
        for port in ports {
            match check(*port) {
                Ok(()) => return Ok(()),
                Err(reason) => denied = denied.or(Some(reason)),
            }
        }
        debug_assert!(denied.is_some(), "{address} has been judged");
        denied.map_or(Ok(()), Err)
    }

    /// Addresses of a prefix among which there is one for each decision that is made in it: networks hold each other or
    /// have nothing in common, so whatever is decided starts where one starts, or right behind one.
    fn candidates(&self, prefix: &IpNet) -> impl Iterator<Item = IpAddr> {
        let rules = self.allow.iter().chain(&self.deny);
        let nets = rules
            .filter_map(Rule::net)
            .chain(self.inside.iter().copied());
        let own = self.own.iter().map(|own| IpNet::from(own.ip()));
        let nets = nets.chain(own).chain(address::ranges());
        let edges = nets.flat_map(|net| [Some(net.network()), next(net.broadcast())]);
        let inside = edges.flatten().filter(|address| prefix.contains(address));
        std::iter::once(prefix.network()).chain(inside)
    }

    /// Ports among which there is one for each decision, and none: there are packets without.
    fn ports(&self, scope: &Scope) -> Vec<Option<u16>> {
        let mut ports = vec![None];
        if (scope.protocol).is_none_or(|protocol| WITH_PORTS.contains(&protocol)) {
            let rules = self.allow.iter().chain(&self.deny);
            let edges = rules.flat_map(|rule| {
                let behind = rule.ports.end().checked_add(1);
                [Some(*rule.ports.start()), behind]
            });
            let own = self.own.iter().map(|own| own.port().checked_add(1));
            ports.extend(edges.chain(own).filter(Option::is_some));
            ports.push(Some(1));
            ports.sort_unstable();
            ports.dedup();
        }
        ports
    }
}

fn matches(rules: &[Rule], ip: IpAddr, port: Option<u16>, name: Option<&str>) -> bool {
    let mut rules = rules.iter();
    rules.any(|rule| rule.matches_host(ip, name) && rule.matches_any_port(port))
}

/// The address behind one.
fn next(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => IpAddr::V4(address.to_bits().checked_add(1)?.into()),
        IpAddr::V6(address) => IpAddr::V6(address.to_bits().checked_add(1)?.into()),
    })
}

#[cfg(test)]
mod tests;
