//! Targets of CONNECT-IP: its capsules, and the text that asks for a scope.

use bytes::{Bytes, BytesMut};

use crate::wire::capsule::{CapsuleEvent, CapsuleReader, CapsuleType, UNKNOWN_VALUE_MAX};
use crate::wire::ip::{IpCapsule, Scope, ScopeError};
use crate::wire::template::{PathTemplate, ScopeMatch, Template};

/// A capsule that parses passes its own check, and its encoding is no longer and parses to the same.
///
/// Input: a stream of capsules.
///
/// # Panics
/// When the law is broken.
pub fn ip_capsule(data: &[u8]) {
    for (capsule_type, value) in capsules(Bytes::copy_from_slice(data)) {
        let Some(Ok(capsule)) = IpCapsule::parse(capsule_type, &value) else {
            continue;
        };
        assert_eq!(capsule.capsule_type(), capsule_type);
        assert_eq!(capsule.check(), Ok(()));
        let mut again = BytesMut::new();
        capsule.encode(&mut again);
        let again = capsules(again.freeze());
        let [(again_type, again_value)] = &again[..] else {
            panic!("{} capsules", again.len());
        };
        assert!(again_value.len() <= value.len());
        let parsed = IpCapsule::parse(*again_type, again_value);
        assert_eq!(parsed, Some(Ok(capsule)));
    }
}

fn capsules(mut stream: Bytes) -> Vec<(CapsuleType, Bytes)> {
    let mut reader = CapsuleReader::default();
    reader.keep_unknown(UNKNOWN_VALUE_MAX);
    let mut found = Vec::new();
    while let Some(event) = reader.read(&mut stream) {
        match event {
            CapsuleEvent::Unknown {
                capsule_type,
                value,
            } => found.push((capsule_type, value)),
            CapsuleEvent::Datagram(_)
            | CapsuleEvent::Oversize { .. }
            | CapsuleEvent::TooLong { .. } => {}
        }
    }
    found
}

/// A scope that parses survives being written, and a server understands what a client sends.
///
/// Input: four lines, each of which may be missing: a template or the path of one, a request path for it, and the
/// variables `target` and `ipproto`.
///
/// # Panics
/// When the law is broken.
pub fn scope(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n');
    let (text, request) = (lines.next().unwrap_or_default(), lines.next());
    let given = Scope::from_variables(lines.next(), lines.next());
    for scope in given.iter().chain([&Scope::default()]) {
        assert_eq!(Ok(scope), again(scope).as_ref());
        if let Ok(template) = Template::parse_ip(text) {
            let printed = template.to_string();
            assert_eq!(Template::parse_ip(&printed).as_ref(), Ok(&template));
            if let Ok(server) = template.path_template()
                && template.expresses(scope)
            {
                let path = template.expand_scope(scope);
                let matched = server.match_scope(&path);
                assert_eq!(matched, ScopeMatch::Scope(scope.clone()), "{path}");
            }
        }
    }
    let well_known = PathTemplate::well_known_ip();
    for server in [PathTemplate::parse_ip(text).as_ref(), Ok(&well_known)]
        .into_iter()
        .flatten()
    {
        if let ScopeMatch::Scope(scope) = server.match_scope(request.unwrap_or_default()) {
            assert_eq!(Ok(&scope), again(&scope).as_ref());
        }
    }
}

/// What the receiver of a scope's variables makes of them.
fn again(scope: &Scope) -> Result<Scope, ScopeError> {
    let (target, protocol) = scope.variables();
    Scope::from_variables(Some(&target), Some(&protocol))
}
