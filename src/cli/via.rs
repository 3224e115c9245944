//! Arguments of the programs that go through relays: which ones, how they are spoken to, and what they are shown.

use std::fs;
use std::path::{Path, PathBuf};

use ::http::{HeaderName, HeaderValue};
use bauta::client::{Credentials, TcpForm};
use bauta::config::{HeadStarts, parse_header};
use bauta::transport::tls::Trust;
use bauta::wire::carrier::Carrier;
use bauta::wire::template::{RelayTemplates, Template, TemplateError};
use bauta::worker::build::RouteOptions;
use clap::Args;

/// Hops of `--via`: each costs a round trip and some forty bytes of every packet, and behind four of them the default
/// MTU leaves less than the 1200 bytes that a further QUIC connection needs.
pub(super) const VIA_MAX: usize = 4;

/// The way through the relays.
#[derive(Debug, Args)]
pub(crate) struct ViaArgs {
    /// Relay to go through: https://HOST[:PORT] or a URI template; give a second one to nest it in the first
    #[arg(long, value_name = "URL", required = true, value_parser = relay)]
    pub(crate) via: Vec<Relay>,

    /// HTTP versions to speak with the relays, the preferred one first
    #[arg(long, value_name = "LIST", default_value = "h3,h2,h1", value_parser = carriers)]
    pub(crate) carrier: Box<[Carrier]>,

    /// How much earlier the first HTTP version starts than the second, and that one than the third
    #[arg(long, value_name = "DURATION,DURATION", default_value_t)]
    pub(crate) head_start: HeadStarts,

    /// Certificate authorities to trust in place of the system's (PEM)
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub(crate) ca: Option<PathBuf>,

    /// Accept any certificate: anybody on the path can read and change everything
    #[arg(long)]
    pub(crate) insecure: bool,

    /// What to show to the first relay; a file keeps it out of the list of processes
    #[arg(long, value_name = "USER:PASSWORD|bearer:TOKEN|@FILE", value_parser = credentials)]
    pub(crate) credentials: Option<Credentials>,

    /// Field to send with each request to the first relay
    #[arg(long, value_name = "NAME:VALUE", value_parser = header)]
    pub(crate) header: Vec<(HeaderName, HeaderValue)>,
}

impl ViaArgs {
    fn templates(&self) -> Vec<RelayTemplates> {
        let relays = self.via.iter();
        relays.map(|relay| relay.templates.clone()).collect()
    }

    /// What is wrong with a relay that is asked for something else than IP.
    pub(super) fn only_ip(&self) -> Option<TemplateError> {
        self.via.iter().find_map(|relay| relay.only_ip)
    }

    /// What the arguments say, TCP tunnels asked for as `tcp_form`.
    pub(crate) fn route(&self, tcp_form: TcpForm) -> RouteOptions {
        let trust = Trust::from_options(self.ca.clone(), self.insecure);
        RouteOptions {
            carriers: self.carrier.to_vec(),
            tcp_form,
            headers: self.header.clone(),
            credentials: self.credentials.clone(),
            ..RouteOptions::new(self.templates(), trust)
        }
    }
}

/// What was given for one relay.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    templates: RelayTemplates,
    /// Why it is a template for IP and for nothing else, if it is.
    only_ip: Option<TemplateError>,
}

/// A template without the variables of UDP may be one for IP, which only `bauta tun` has a use for.
fn relay(text: &str) -> Result<Relay, String> {
    let error = match RelayTemplates::from_relay_url(text) {
        Ok(templates) => {
            return Ok(Relay {
                templates,
                only_ip: None,
            });
        }
        Err(error) => error,
    };
    let ip = Template::parse_ip(text).map_err(|_| error.to_string())?;
    let templates = RelayTemplates::from_relay_url(&format!("https://{}", ip.authority()));
    Ok(Relay {
        templates: RelayTemplates {
            ip: Some(ip),
            ..templates.map_err(|error| error.to_string())?
        },
        only_ip: Some(error),
    })
}

fn credentials(text: &str) -> Result<Credentials, String> {
    let read = |path: &Path| fs::read_to_string(path);
    Credentials::parse(text, read).map_err(|error| error.to_string())
}

fn carriers(text: &str) -> Result<Box<[Carrier]>, String> {
    let mut carriers = Vec::new();
    for name in text.split(',') {
        let carrier: Carrier = name
            .parse()
            .map_err(|_| format!("{name:?} is none of h3, h2 and h1"))?;
        if carriers.contains(&carrier) {
            return Err(format!("{carrier} is named twice"));
        }
        carriers.push(carrier);
    }
    Ok(carriers.into())
}

/// How a TCP tunnel is asked for.
pub(super) fn tcp_form(text: &str) -> Result<TcpForm, String> {
    match text {
        "capsules" => Ok(TcpForm::Capsules),
        "raw" => Ok(TcpForm::Raw),
        "classic" => Ok(TcpForm::Classic),
        _ => Err("must be capsules, raw or classic".to_owned()),
    }
}

/// `name: value`; blanks around the value do not belong to it.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    // A pseudo-header field starts with the colon that would otherwise end the name.
    let end = text
        .char_indices()
        .skip(1)
        .find(|(_, c)| *c == ':')
        .map(|(end, _)| end);
    let (name, value) = end
        .and_then(|end| text.split_at_checked(end))
        .ok_or("must be NAME:VALUE")?;
    let value = value.strip_prefix(':').unwrap_or(value);
    parse_header(name, value.trim_matches([' ', '\t'])).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bauta::wire::ip::Scope;

    #[test]
    fn carriers_in_any_order() {
        use Carrier::{H1, H2, H3};
        assert_eq!(&*carriers("h1,h3").unwrap(), [H1, H3]);
        assert_eq!(&*carriers("h2").unwrap(), [H2]);
        for (text, message) in [
            ("", "\"\" is none of h3, h2 and h1"),
            ("h3,", "\"\" is none of h3, h2 and h1"),
            ("h3 ,h2", "\"h3 \" is none of h3, h2 and h1"),
            ("h3,h2,h3", "h3 is named twice"),
        ] {
            assert_eq!(carriers(text).unwrap_err(), message, "{text:?}");
        }
    }

    #[test]
    fn templates_for_ip() {
        let parsed = relay("https://relay.example/vpn").unwrap();
        assert!(parsed.only_ip.is_some());
        let ip = parsed.templates.ip.unwrap();
        assert_eq!(ip.expand_scope(&Scope::default()), "/vpn");
        assert_eq!(parsed.templates.udp.authority(), "relay.example");
        assert!(relay("https://relay.example").unwrap().only_ip.is_none());
        assert!(relay("http://relay.example/vpn").is_err());
    }

    #[test]
    fn headers() {
        let (name, value) = header("Proxy-Authorization:  Bearer a:b ").unwrap();
        assert_eq!(
            (name.as_str(), value.to_str().unwrap()),
            ("proxy-authorization", "Bearer a:b")
        );
        assert_eq!(header("x:").unwrap().1, "");
        assert_eq!(header("x::a").unwrap().1, ":a");
        for (text, message) in [
            ("", "must be NAME:VALUE"),
            (":", "must be NAME:VALUE"),
            ("x", "must be NAME:VALUE"),
            (":path:/", "pseudo"),
            ("host:x", "host is a field"),
            ("x:a\r\nb", "characters"),
            ("a b:c", "not a field name"),
        ] {
            let error = header(text).unwrap_err();
            assert!(error.contains(message), "{text:?}: {error}");
        }
    }
}
