//! The `Proxy-Status` field (RFC 9209): which relay answered, and why.
//!
//! ```text
//!   Proxy-Status: egress.example; error=dns_error; rcode="NXDOMAIN", "ingress.example"; received-status=502
//!                 └──────────── nearest to the target ────────────┘  └──── nearest to the client ─────────┘
//! ```
//!
//! A relay that forwards a response appends its own member and keeps the others as they are. On receipt unknown
//! parameters, unknown error types and parameters of the wrong type are ignored; a field that does not parse is absent.
//! What a member says is a claim of the peer, for diagnostics only.
//!
//! Which failure gets which error type is decided elsewhere, and so is what may be told to whom: `details` and
//! `next-hop` can leak topology.

mod error;

use std::fmt;

use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use sfv::{BareItem, KeyRef, ListEntry, ListSerializer, StringRef, TokenRef, key_ref};

pub use self::error::ProxyError;

use super::field::{FieldError, joined};

/// The name of the field.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

const ERROR: &KeyRef = key_ref("error");
const NEXT_HOP: &KeyRef = key_ref("next-hop");
const NEXT_PROTOCOL: &KeyRef = key_ref("next-protocol");
const RECEIVED_STATUS: &KeyRef = key_ref("received-status");
const DETAILS: &KeyRef = key_ref("details");
const RCODE: &KeyRef = key_ref("rcode");
const INFO_CODE: &KeyRef = key_ref("info-code");
const ALERT_ID: &KeyRef = key_ref("alert-id");

/// The members of a message's Proxy-Status field, nearest to the target first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyStatus {
    /// One per intermediary.
    pub members: Vec<Member>,
}

/// The name of an intermediary: a deployment, not a product (RFC 9209 §2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A Token: begins with a letter or `*`.
    Token(Box<str>),
    /// A String: printable ASCII. An IP address has this form.
    String(Box<str>),
}

/// What one intermediary says about a response (RFC 9209 §2.1). Absent parameters are `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who says it.
    pub name: Name,
    /// `error`: why the response is not the one that was asked for.
    pub error: Option<ProxyError>,
    /// `next-hop`: host, address or alias of where the request went.
    pub next_hop: Option<Box<str>>,
    /// `next-protocol`: the ALPN identifier spoken with the next hop, at most 255 bytes in TLS.
    pub next_protocol: Option<Box<[u8]>>,
    /// `received-status`: the status that the next hop answered.
    pub received_status: Option<u16>,
    /// `rcode`, with [`ProxyError::DnsError`]: the mnemonic of the DNS response code, such as `NXDOMAIN`.
    pub rcode: Option<Box<str>>,
    /// `info-code`, with [`ProxyError::DnsError`]: an extended DNS error code (RFC 8914).
    pub info_code: Option<u16>,
    /// `alert-id`, with [`ProxyError::TlsAlertReceived`]: the TLS alert.
    pub alert_id: Option<u8>,
    /// `details`: text for people.
    pub details: Option<Box<str>>,
}

impl ProxyStatus {
    /// Reads the field from all of its lines; none, or lines that do not parse, give no members.
    ///
    /// List members that name no intermediary (neither Token nor String) are left out.
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Self {
        let members = joined(headers, &PROXY_STATUS).and_then(|value| parse_list(&value));
        Self {
            members: members
                .iter()
                .flatten()
                .filter_map(Member::from_entry)
                .collect(),
        }
    }

    /// The field value; `None` without members, because an empty List is not sent.
    #[must_use]
    pub fn serialize(&self) -> Option<String> {
        let mut list = ListSerializer::new();
        for member in &self.members {
            member.serialize(&mut list);
        }
        list.finish()
    }
}

fn parse_list(value: &[u8]) -> Option<sfv::List> {
    sfv::Parser::new(value).parse().ok()
}

/// Appends `member` to the field, behind the members that the message has (RFC 9209 §2).
///
/// Those stay byte for byte, except that the lines become one. A field that does not parse is replaced: appending to it
/// would make the own member unreadable as well.
///
/// # Errors
/// [`FieldError`] when the message cannot hold the field.
pub fn append(headers: &mut HeaderMap, member: &Member) -> Result<(), FieldError> {
    let own = member.to_string();
    let value = match joined(headers, &PROXY_STATUS) {
        Some(others) if parse_list(&others).is_some_and(|list| !list.is_empty()) => {
            HeaderValue::from_bytes(&[&others, &b", "[..], own.as_bytes()].concat())?
        }
        _ => HeaderValue::try_from(own)?,
    };
    headers.try_insert(PROXY_STATUS, value)?;
    Ok(())
}

impl Name {
    /// The text, without the quotes of a String.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Token(text) | Self::String(text) => text,
        }
    }
}

impl Member {
    /// A member that says nothing but who it is of; the name is sent as a String.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: Name::String(name.into()),
            error: None,
            next_hop: None,
            next_protocol: None,
            received_status: None,
            rcode: None,
            info_code: None,
            alert_id: None,
            details: None,
        }
    }

    fn from_entry(entry: &ListEntry) -> Option<Self> {
        let ListEntry::Item(item) = entry else {
            return None;
        };
        let name = match token(&item.bare_item) {
            Some(token) => Name::Token(token.into()),
            None => Name::String(string(&item.bare_item)?.into()),
        };
        let param = |key: &KeyRef| item.params.get(key);
        let text = |key| param(key).and_then(string).map(Box::from);
        Some(Self {
            name,
            error: param(ERROR)
                .and_then(token)
                .and_then(ProxyError::from_token),
            next_hop: param(NEXT_HOP)
                .and_then(|v| token(v).or_else(|| string(v)))
                .map(Box::from),
            next_protocol: param(NEXT_PROTOCOL)
                .and_then(|v| token(v).map(str::as_bytes).or_else(|| v.as_byte_sequence()))
                .map(Box::from),
            received_status: param(RECEIVED_STATUS).and_then(integer),
            rcode: text(RCODE),
            info_code: param(INFO_CODE).and_then(integer),
            alert_id: param(ALERT_ID).and_then(integer),
            details: text(DETAILS),
        })
    }

    fn serialize(&self, list: &mut ListSerializer<String>) {
        let text = |text: &Option<Box<str>>| text.as_deref().map(string_item);
        let params = [
            (ERROR, self.error.map(|error| token_item(error.as_str()))),
            (RCODE, text(&self.rcode)),
            (INFO_CODE, self.info_code.map(BareItem::from)),
            (ALERT_ID, self.alert_id.map(BareItem::from)),
            (NEXT_HOP, text(&self.next_hop)),
            (
                NEXT_PROTOCOL,
                self.next_protocol.as_deref().map(protocol_item),
            ),
            (RECEIVED_STATUS, self.received_status.map(BareItem::from)),
            (DETAILS, text(&self.details)),
        ];
        let name = match &self.name {
            Name::Token(name) => token_item(name),
            Name::String(name) => string_item(name),
        };
        let present = params
            .iter()
            .filter_map(|(key, value)| Some((*key, value.as_ref()?)));
        let _buffer = list.bare_item(&name).parameters(present).finish();
    }
}

impl fmt::Display for Member {
    /// Writes the member as it stands in the field. Text outside 0x20 to 0x7e is dropped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = ListSerializer::new();
        self.serialize(&mut list);
        f.write_str(&list.finish().unwrap_or_default())
    }
}

fn token(value: &BareItem) -> Option<&str> {
    value.as_token().map(TokenRef::as_str)
}

fn string(value: &BareItem) -> Option<&str> {
    value.as_string().map(StringRef::as_str)
}

fn integer<T: TryFrom<sfv::Integer>>(value: &BareItem) -> Option<T> {
    value.as_integer()?.try_into().ok()
}

/// A Token, or a String for text that cannot be one.
fn token_item(text: &str) -> BareItem {
    TokenRef::from_str(text).map_or_else(|_| string_item(text), BareItem::from)
}

fn string_item(text: &str) -> BareItem {
    let printable: String = text.chars().filter(|c| matches!(c, ' '..='~')).collect();
    StringRef::from_str(&printable).unwrap_or_default().into()
}

/// A Token whenever the ALPN identifier can be one, otherwise a Byte Sequence (RFC 9209 §2.1.3).
fn protocol_item(id: &[u8]) -> BareItem {
    TokenRef::from_bytes(id).map_or_else(|_| BareItem::from(id), BareItem::from)
}

#[cfg(test)]
mod tests;
