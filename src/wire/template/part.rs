//! Literals and expressions: the subset of RFC 6570 that RFC 9298 §2 leaves.

use super::{DEFAULT_IP_PATH, DEFAULT_PATH, DEFAULT_TCP_PATH, TemplateError, check_bytes};
use crate::wire::ip::Scope;

/// What a template asks for: which two of its variables have a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// UDP and TCP: a host and a port, none of them optional (RFC 9298 §2).
    Endpoint,
    /// IP: a target and a protocol, each of them optional (RFC 9484 §3).
    Scope,
}

impl Service {
    pub(super) const fn variables(self) -> [&'static str; 2] {
        match self {
            Self::Endpoint => ["target_host", "target_port"],
            Self::Scope => [Scope::TARGET, Scope::PROTOCOL],
        }
    }

    const fn needs_variables(self) -> bool {
        match self {
            Self::Endpoint => true,
            Self::Scope => false,
        }
    }

    pub(super) const fn default_paths(self) -> &'static [&'static str] {
        match self {
            Self::Endpoint => &[DEFAULT_PATH, DEFAULT_TCP_PATH],
            Self::Scope => &[DEFAULT_IP_PATH],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Literal(Box<str>),
    Expression {
        operator: Operator,
        variables: Vec<Variable>,
    },
}

impl Part {
    fn variables(&self) -> &[Variable] {
        match self {
            Self::Literal(_) => &[],
            Self::Expression { variables, .. } => variables,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    /// `{a,b}` gives `1,2`.
    Simple,
    /// `{?a,b}` gives `?a=1&b=2`.
    Query,
    /// `{&a,b}` gives `&a=1&b=2`.
    QueryMore,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Variable {
    pub(super) name: Box<str>,
    /// None for those that RFC 9298 §2 allows and that are never defined here.
    pub(super) slot: Option<Slot>,
}

/// The place of a variable in [`Service::variables`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    First,
    Second,
}

impl Variable {
    pub(super) fn named(name: &str, service: Service) -> Self {
        let [first, second] = service.variables();
        let slot = match name {
            _ if name == first => Some(Slot::First),
            _ if name == second => Some(Slot::Second),
            _ => None,
        };
        let name = name.into();
        Self { name, slot }
    }

    pub(super) const fn is_undefined(&self) -> bool {
        self.slot.is_none()
    }
}

impl Operator {
    /// What stands before the first and before each further value.
    pub(super) const fn separators(self) -> (&'static str, &'static str) {
        match self {
            Self::Simple => ("", ","),
            Self::Query => ("?", "&"),
            Self::QueryMore => ("&", "&"),
        }
    }

    pub(super) const fn is_named(self) -> bool {
        match self {
            Self::Simple => false,
            Self::Query | Self::QueryMore => true,
        }
    }
}

/// Parses path and query of a template, which must hold all variables that the service needs.
pub(super) fn parse(text: &str, service: Service) -> Result<Vec<Part>, TemplateError> {
    check_bytes(text)?;
    if !text.starts_with('/') {
        return Err(TemplateError::Path);
    }
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((literal, tail)) = rest.split_once('{') {
        parse_literal(literal, &mut parts)?;
        let (expression, tail) = tail.split_once('}').ok_or(TemplateError::Brace)?;
        parts.push(parse_expression(expression, service)?);
        rest = tail;
    }
    parse_literal(rest, &mut parts)?;

    if service.needs_variables() {
        for name in service.variables() {
            if !has_variable(&parts, name) {
                return Err(TemplateError::MissingVariable { name });
            }
        }
    }
    Ok(parts)
}

pub(super) fn has_variable(parts: &[Part], name: &str) -> bool {
    let mut variables = parts.iter().flat_map(Part::variables);
    variables.any(|variable| *variable.name == *name)
}

/// Appends a literal, unless it is empty. It is kept as written: each legal byte is one that a URI may hold.
fn parse_literal(text: &str, parts: &mut Vec<Part>) -> Result<(), TemplateError> {
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'}' => return Err(TemplateError::Brace),
            b'#' => return Err(TemplateError::Fragment),
            b'%' if !is_escape(text.get(index..)) => return Err(TemplateError::Escape),
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'|' => {
                return Err(TemplateError::Byte { byte });
            }
            _ => {}
        }
    }
    if !text.is_empty() {
        parts.push(Part::Literal(text.into()));
    }
    Ok(())
}

/// Whether the text starts with a percent sign and two hexadecimal digits.
fn is_escape(text: Option<&str>) -> bool {
    let mut bytes = text.unwrap_or_default().bytes();
    bytes.next() == Some(b'%')
        && (0..2).all(|_| bytes.next().is_some_and(|b| b.is_ascii_hexdigit()))
}

fn parse_expression(text: &str, service: Service) -> Result<Part, TemplateError> {
    let (operator, list) = match text.chars().next() {
        Some('?') => (Operator::Query, text.strip_prefix('?')),
        Some('&') => (Operator::QueryMore, text.strip_prefix('&')),
        Some(operator @ ('+' | '#' | '.' | '/' | ';' | '=' | ',' | '!' | '@' | '|')) => {
            return Err(TemplateError::Operator { operator });
        }
        _ => (Operator::Simple, Some(text)),
    };
    let names = list.unwrap_or_default().split(',');
    let variables = names.map(|name| parse_variable(name, service));
    Ok(Part::Expression {
        operator,
        variables: variables.collect::<Result<_, _>>()?,
    })
}

fn parse_variable(name: &str, service: Service) -> Result<Variable, TemplateError> {
    if let Some(modifier) = name.chars().find(|c| matches!(c, ':' | '*')) {
        return Err(TemplateError::Modifier { modifier });
    }
    let legal = name.bytes().enumerate().all(|(index, byte)| match byte {
        b'%' => is_escape(name.get(index..)),
        _ => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'),
    });
    if !legal || name.split('.').any(str::is_empty) {
        return Err(TemplateError::VariableName);
    }
    Ok(Variable::named(name, service))
}

/// Expands with the values of [`Service::variables`] as RFC 6570 §3.2 says; undefined variables leave nothing behind.
pub(super) fn expand(parts: &[Part], [first, second]: [&str; 2]) -> String {
    let value = |variable: &Variable| match variable.slot? {
        Slot::First => Some(first),
        Slot::Second => Some(second),
    };
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Literal(text) => out.push_str(text),
            Part::Expression {
                operator,
                variables,
            } => {
                let (first, more) = operator.separators();
                let defined = variables.iter().filter_map(|v| Some((v, value(v)?)));
                for (index, (variable, value)) in defined.enumerate() {
                    out.push_str(if index == 0 { first } else { more });
                    if operator.is_named() {
                        out.push_str(&variable.name);
                        out.push('=');
                    }
                    push_encoded(value, &mut out);
                }
            }
        }
    }
    out
}

/// Appends a value; everything outside the unreserved characters is percent-encoded.
fn push_encoded(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if is_unreserved(byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.extend([byte >> 4, byte & 15].map(hex_digit));
        }
    }
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(nibble.into(), 16)
        .unwrap_or_default()
        .to_ascii_uppercase()
}

/// The characters that expansion never encodes (RFC 3986 §2.3).
pub(super) const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}
