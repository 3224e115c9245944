//! Targets whose input is text: what users write, and what clients put into paths and authorities.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;

use crate::config::{self, Environment, LoadError, MemoryTerm, worst_case_memory};
use crate::policy::{Policy, Rule};
use crate::wire::target::{Host, Target};
use crate::wire::template::{Match, PathTemplate, Template};
use crate::worker::build::rule_kind;

/// A configuration is refused with reasons, or it is one whose parts another layer accepts.
///
/// Input: a configuration file.
///
/// # Panics
/// When the law is broken.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut environment = Environment::new("/", NonZeroUsize::MIN, "relay.example");
    environment.rule = |rule| rule_kind(rule).map_err(|e| e.to_string());
    let production = config::parse(text, &environment).is_ok();
    environment.dev_listen = Some(SocketAddr::from(([192, 0, 2, 1], 443)));
    match config::parse(text, &environment) {
        Ok(checked) => {
            let sum = worst_case_memory(&checked)
                .iter()
                .map(MemoryTerm::bytes)
                .try_fold(0_u64, u64::checked_add);
            assert!(sum.is_some_and(|sum| sum > 0));
            assert!(!checked.listen.is_empty());
            let rules = checked.policy.allow.iter().chain(&checked.policy.deny);
            assert!(rules.clone().all(|rule| rule.parse::<Rule>().is_ok()));
        }
        Err(error) => {
            assert!(!production, "development asks for less");
            if let LoadError::Invalid(problems) = &error {
                assert!(!problems.is_empty());
            }
            assert!(!error.to_string().is_empty());
        }
    }
}

/// A rule that parses prints as itself, a deny rule takes away and never gives, and only allow rules open.
///
/// Input: a rule in the first line, a target in the second.
///
/// # Panics
/// When the law is broken.
pub fn rule(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (rule, target) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(rule) = rule.parse::<Rule>() else {
        return;
    };
    assert_eq!(rule.to_string().parse().as_ref(), Ok(&rule));
    let Ok(target) = target.parse::<Target>() else {
        return;
    };

    let open = Policy {
        public_only: false,
        ..Policy::default()
    };
    let with = |base: &Policy, allow: bool, deny: bool| Policy {
        allow: allow.then(|| rule.clone()).into_iter().collect(),
        deny: deny.then(|| rule.clone()).into_iter().collect(),
        ..base.clone()
    };
    let address = match &target.host {
        Host::Ip(ip) => *ip,
        Host::Name(_) => IpAddr::from([192, 0, 2, 7]),
    };
    let name = match &target.host {
        Host::Ip(_) => None,
        Host::Name(name) => Some(&**name),
    };
    let address = SocketAddr::new(address.to_canonical(), target.port);
    let judge = |policy: Policy| {
        let early = policy.check_target(&target);
        let late = policy.check_address(address, name);
        // What is refused without an address is refused with one.
        assert!(early.is_ok() || late.is_err(), "{early:?} {late:?}");
        late.is_ok()
    };
    for base in [&Policy::default(), &open] {
        let bare = judge(with(base, false, false));
        assert!(bare || !judge(with(base, false, true)));
        assert!(!judge(with(base, true, true)));
    }
    assert!(judge(with(&open, true, false)) || !judge(with(&Policy::default(), true, false)));
}

/// A target that parses prints as itself, and a name is nothing that reads as an address.
///
/// Input: the authority form, or `target_host` and `target_port` in two lines.
///
/// # Panics
/// When the law is broken.
pub fn target(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (host, port) = text.split_once('\n').unwrap_or((text, "443"));
    let authority = text.parse::<Target>();
    let parts = Target::from_parts(host, port);
    for target in [authority, parts].into_iter().flatten() {
        assert_ne!(target.port, 0);
        if let Host::Name(name) = &target.host {
            assert!(name.parse::<IpAddr>().is_err());
            assert_eq!(name.to_ascii_lowercase(), **name);
        }
        assert_eq!(target.to_string().parse(), Ok(target));
    }
}

/// A template that parses prints as itself, and a server that uses it understands what a client sends.
///
/// Input: the first line is a template, or the path of one; the second, if any, is a request path for it.
///
/// # Panics
/// When the law is broken.
pub fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (text, request) = text.split_once('\n').unwrap_or((text, ""));
    let targets = ["192.0.2.6:443", "[2001:db8::42]:1", "_a-b.example:65535"];
    let targets = targets.map(|target| target.parse::<Target>().expect("a target"));

    if let Ok(template) = Template::from_authority_or_template(text) {
        assert_eq!(
            Template::parse(&template.to_string()).as_ref(),
            Ok(&template)
        );
        for target in &targets {
            let path = template.expand_path(target);
            if let Ok(server) = template.path_template() {
                assert_eq!(
                    server.match_path(&path),
                    Match::Target(target.clone()),
                    "{path}"
                );
            }
        }
    }
    let well_known = PathTemplate::well_known();
    for server in [PathTemplate::parse(text).as_ref(), Ok(&well_known)]
        .into_iter()
        .flatten()
    {
        if let Match::Target(target) = server.match_path(request) {
            assert_ne!(target.port, 0);
            assert_eq!(target.to_string().parse(), Ok(target));
        }
    }
}
