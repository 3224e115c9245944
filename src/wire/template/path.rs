//! Request paths against a template: which target or scope does this one ask for?

use std::borrow::Cow;

use super::part::{self, Operator, Part, Service, Slot, Variable, is_unreserved};
use super::{DEFAULT_IP_PATH, DEFAULT_PATH, DEFAULT_TCP_PATH, TemplateError};
use crate::wire::ip::{Scope, ScopeError};
use crate::wire::target::{Target, TargetError};

/// Path and query of a template, as a server matches requests against it.
///
/// A variable in the path ends at the next slash or at the literal behind it, which has to start with a character that
/// expansion always encodes. Query fields are matched by name in any order; a field that the template does not have is
/// no match. Literals match exactly, escapes included. A variable is percent-decoded once (RFC 9298 §3.1), and `+` is
/// not a blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    elements: Vec<Element>,
    query: Option<Vec<Field>>,
    /// The well-known paths are served with and without their last slash, because clients differ.
    slash_optional: bool,
}

/// What a [`PathTemplate`] for UDP or TCP says about a request path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The path does not have the structure of the template.
    NoMatch,
    /// It has, but the variables make no target.
    Malformed(TargetError),
    /// The request asks for this target.
    Target(Target),
}

/// What a [`PathTemplate`] for IP says about a request path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScopeMatch {
    /// The path does not have the structure of the template.
    NoMatch,
    /// It has, but the variables make no scope.
    Malformed(ScopeError),
    /// The request asks for this scope.
    Scope(Scope),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Element {
    Literal(Box<str>),
    /// A variable and the character that ends it, besides a slash and the end of the path.
    Variable(Variable, Option<char>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    name: Box<str>,
    value: Element,
}

/// The raw values of [`Service::variables`] in one request path.
#[derive(Default)]
struct Captured<'a> {
    first: Option<&'a str>,
    second: Option<&'a str>,
    twice: bool,
}

impl PathTemplate {
    /// Parses path and query of a template for UDP or TCP, `/` first. The checks of RFC 9298 §2 apply as in
    /// [`Template::parse`](super::Template::parse).
    ///
    /// # Errors
    /// [`TemplateError`] names the violation, or why requests could not be matched.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::parse_for(text, Service::Endpoint)
    }

    /// Parses path and query of a template for IP, `/` first. The checks of RFC 9484 §3 apply as in
    /// [`Template::parse_ip`](super::Template::parse_ip).
    ///
    /// # Errors
    /// [`TemplateError`] names the violation, or why requests could not be matched.
    pub fn parse_ip(text: &str) -> Result<Self, TemplateError> {
        Self::parse_for(text, Service::Scope)
    }

    fn parse_for(text: &str, service: Service) -> Result<Self, TemplateError> {
        Self::new(&part::parse(text, service)?, service)
    }

    /// The template of [`DEFAULT_PATH`].
    ///
    /// # Panics
    /// Never: the text is a constant.
    #[must_use]
    pub fn well_known() -> Self {
        Self::parse(DEFAULT_PATH).expect("the default template is valid")
    }

    /// The template of [`DEFAULT_TCP_PATH`].
    ///
    /// # Panics
    /// Never: the text is a constant.
    #[must_use]
    pub fn well_known_tcp() -> Self {
        Self::parse(DEFAULT_TCP_PATH).expect("the default template is valid")
    }

    /// The template of [`DEFAULT_IP_PATH`].
    ///
    /// # Panics
    /// Never: the text is a constant.
    #[must_use]
    pub fn well_known_ip() -> Self {
        Self::parse_ip(DEFAULT_IP_PATH).expect("the default template is valid")
    }

    pub(super) fn new(parts: &[Part], service: Service) -> Result<Self, TemplateError> {
        let text = canonical(parts)?;
        for name in service.variables() {
            if text.matches(&format!("{{{name}}}")).count() > 1 {
                return Err(TemplateError::RepeatedVariable { name });
            }
        }
        let slashless = text.strip_suffix('/').unwrap_or(&text);
        let is_default = |path: &&str| path.strip_suffix('/') == Some(slashless);
        let slash_optional = service.default_paths().iter().any(is_default);
        let text = if slash_optional { slashless } else { &text };
        let (path, query) = split_query(text);
        Ok(Self {
            elements: elements(path, service)?,
            query: query.map(|query| fields(query, service)).transpose()?,
            slash_optional,
        })
    }

    /// Matches the path and query of a request (`:path`, or the origin form of HTTP/1.1) for UDP or TCP.
    #[must_use]
    pub fn match_path(&self, path_and_query: &str) -> Match {
        self.capture(path_and_query)
            .map_or(Match::NoMatch, |captured| {
                captured
                    .target()
                    .map_or_else(Match::Malformed, Match::Target)
            })
    }

    /// Matches the path and query of a request for IP; the template is one for IP too.
    #[must_use]
    pub fn match_scope(&self, path_and_query: &str) -> ScopeMatch {
        self.capture(path_and_query)
            .map_or(ScopeMatch::NoMatch, |captured| {
                captured
                    .scope()
                    .map_or_else(ScopeMatch::Malformed, ScopeMatch::Scope)
            })
    }

    /// The values of the variables, if the path has the structure of the template.
    fn capture<'a>(&self, path_and_query: &'a str) -> Option<Captured<'a>> {
        let (path, query) = split_query(path_and_query);
        let mut captured = Captured::default();
        self.capture_path(path, &mut captured)?;
        self.capture_query(query, &mut captured)?;
        Some(captured)
    }

    fn capture_path<'a>(&self, path: &'a str, captured: &mut Captured<'a>) -> Option<()> {
        let mut rest = match path.strip_suffix('/') {
            Some(path) if self.slash_optional => path,
            _ => path,
        };
        for element in &self.elements {
            match element {
                Element::Literal(text) => rest = rest.strip_prefix(&**text)?,
                Element::Variable(variable, delimiter) => {
                    let end = rest.find(|c| c == '/' || Some(c) == *delimiter);
                    let (value, tail) = rest.split_at(end.unwrap_or(rest.len()));
                    captured.set(variable, value);
                    rest = tail;
                }
            }
        }
        rest.is_empty().then_some(())
    }

    fn capture_query<'a>(&self, query: Option<&'a str>, captured: &mut Captured<'a>) -> Option<()> {
        let Some(fields) = &self.query else {
            return query.is_none().then_some(());
        };
        let given = || query.into_iter().flat_map(split_fields);
        for (name, value) in given() {
            match &fields.iter().find(|field| *field.name == *name)?.value {
                Element::Literal(text) if **text == *value => {}
                Element::Literal(_) => return None,
                Element::Variable(variable, _) => captured.set(variable, value),
            }
        }
        let all_literals = fields.iter().all(|field| match field.value {
            Element::Literal(_) => given().any(|(name, _)| *field.name == *name),
            Element::Variable(..) => true,
        });
        all_literals.then_some(())
    }
}

impl<'a> Captured<'a> {
    fn set(&mut self, variable: &Variable, value: &'a str) {
        let value_of = match variable.slot {
            Some(Slot::First) => &mut self.first,
            Some(Slot::Second) => &mut self.second,
            None => return,
        };
        self.twice |= value_of.replace(value).is_some();
    }

    /// The decoded values; `None` for what the request does not have.
    fn values(&self) -> Result<[Option<Cow<'a, str>>; 2], TargetError> {
        if self.twice {
            return Err(TargetError::Twice);
        }
        let decode = |value: Option<&'a str>| value.map(percent_decode).transpose();
        Ok([decode(self.first)?, decode(self.second)?])
    }

    fn target(&self) -> Result<Target, TargetError> {
        let [host, port] = self.values()?;
        Target::from_parts(&host.unwrap_or_default(), &port.unwrap_or_default())
    }

    fn scope(&self) -> Result<Scope, ScopeError> {
        let [target, protocol] = self.values()?;
        Scope::from_variables(target.as_deref(), protocol.as_deref())
    }
}

/// The template with all separators written out and every expression of the form `{name}`.
///
/// Braces occur in no literal, so the text says the same as the parts, and splits like a request path.
fn canonical(parts: &[Part]) -> Result<String, TemplateError> {
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        match part {
            Part::Literal(literal) => text.push_str(literal),
            Part::Expression {
                operator,
                variables,
            } => {
                let is_last = index + 1 == parts.len();
                if !is_canonical(*operator, variables, &text, is_last) {
                    return Err(TemplateError::Undelimited);
                }
                let (mut separator, more) = operator.separators();
                for name in variables.iter().map(|variable| &*variable.name) {
                    text.push_str(separator);
                    if operator.is_named() {
                        text.extend([name, "="]);
                    }
                    text.extend(["{", name, "}"]);
                    separator = more;
                }
            }
        }
    }
    Ok(text)
}

/// Whether requests read like the canonical text although undefined variables expand to nothing.
fn is_canonical(operator: Operator, variables: &[Variable], before: &str, is_last: bool) -> bool {
    let mut undefined = variables.iter().map(Variable::is_undefined);
    match operator {
        // The comma goes with the variable, and nothing tells which of the others is left.
        Operator::Simple => variables.len() == 1 || !undefined.any(|v| v),
        // If no variable is left the question mark goes as well, and nothing can follow. A second one starts no query.
        Operator::Query => !before.contains('?') && (is_last || !undefined.all(|v| v)),
        // Without a question mark these are no query fields.
        Operator::QueryMore => before.contains('?'),
    }
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    text.split_once('?')
        .map_or((text, None), |(path, query)| (path, Some(query)))
}

fn split_fields(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .map(|field| field.split_once('=').unwrap_or((field, "")))
}

/// The path of a canonical template.
fn elements(mut text: &str, service: Service) -> Result<Vec<Element>, TemplateError> {
    let mut elements = Vec::new();
    while let Some((literal, tail)) = text.split_once('{') {
        let (name, tail) = tail.split_once('}').ok_or(TemplateError::Brace)?;
        let delimiter = tail.chars().next();
        if delimiter
            .is_some_and(|c| matches!(c, '%' | '{') || u8::try_from(c).is_ok_and(is_unreserved))
        {
            return Err(TemplateError::Undelimited);
        }
        if !literal.is_empty() {
            elements.push(Element::Literal(literal.into()));
        }
        elements.push(Element::Variable(Variable::named(name, service), delimiter));
        text = tail;
    }
    if !text.is_empty() {
        elements.push(Element::Literal(text.into()));
    }
    Ok(elements)
}

/// The query of a canonical template: each field is `name=literal` or `name={variable}`.
fn fields(query: &str, service: Service) -> Result<Vec<Field>, TemplateError> {
    let mut fields: Vec<Field> = Vec::new();
    for (name, value) in split_fields(query) {
        let variable = value
            .strip_prefix('{')
            .and_then(|value| value.strip_suffix('}'));
        let value = match variable {
            Some(variable) if !variable.contains(['{', '}']) => {
                Element::Variable(Variable::named(variable, service), None)
            }
            _ => Element::Literal(value.into()),
        };
        let has_brace = matches!(&value, Element::Literal(text) if text.contains('{'));
        if has_brace || name.contains('{') || fields.iter().any(|field| *field.name == *name) {
            return Err(TemplateError::Undelimited);
        }
        fields.push(Field {
            name: name.into(),
            value,
        });
    }
    Ok(fields)
}

/// Decodes once. Values are ASCII, so that other bytes are refused here.
fn percent_decode(text: &str) -> Result<Cow<'_, str>, TargetError> {
    if !text.contains('%') {
        return Ok(text.into());
    }
    let mut decoded = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'%' => {
                let (high, low) = (hex_value(bytes.next()), hex_value(bytes.next()));
                high.zip(low)
                    .map(|(high, low)| high << 4 | low)
                    .ok_or(TargetError::Escape)?
            }
            byte => byte,
        };
        if !byte.is_ascii() {
            return Err(TargetError::Byte { byte });
        }
        decoded.push(char::from(byte));
    }
    Ok(decoded.into())
}

fn hex_value(digit: Option<u8>) -> Option<u8> {
    let value = char::from(digit?).to_digit(16)?;
    u8::try_from(value).ok()
}
