//! The next hop as an operator writes it: `https://relay.example`, or a full URI template (RFC 9298 section 2).

use super::Judge;

/// Path of the template that a relay serves when nothing else is configured (RFC 9298 section 2).
pub const DEFAULT_TEMPLATE_PATH: &str = "/.well-known/masque/udp/{target_host}/{target_port}/";

/// Port of `https` URLs that name none.
const HTTPS_PORT: u16 = 443;

/// A relay to go through.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Absolute URI template with both variables.
    pub template: String,
    /// Host to resolve and to verify the certificate against; an IPv6 literal has no brackets here.
    pub host: String,
    /// UDP port of the relay.
    pub port: u16,
}

/// Why a next hop was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HopError {
    /// The URL has another scheme, or none.
    #[error("must start with https://")]
    Scheme,
    /// The URL has no usable host, a port outside 1..=65535, or credentials in it.
    #[error("must name a host, or host:port with a port of 1..=65535, without user information")]
    Authority,
    /// The URL has a path, but not the variables of a template (RFC 9298 section 2).
    #[error(
        "must be https://host:port or hold both {{target_host}} and {{target_port}} after the host"
    )]
    Variables,
    /// The template is not acceptable for another reason.
    #[error("{0}")]
    Template(String),
}

impl Hop {
    /// Reads `https://host[:port]`, which means the default template, or a full template, which `template` judges.
    ///
    /// # Errors
    /// When the text is neither.
    pub fn parse(text: &str, template: Judge) -> Result<Self, HopError> {
        let rest = text.strip_prefix("https://").ok_or(HopError::Scheme)?;
        let (authority, path) =
            rest.split_at(rest.find(['/', '?', '#', '{']).unwrap_or(rest.len()));
        let authority: ::http::uri::Authority =
            authority.parse().map_err(|_| HopError::Authority)?;
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => HTTPS_PORT,
            Some(_) => authority
                .port_u16()
                .filter(|port| *port != 0)
                .ok_or(HopError::Authority)?,
            // Something stands before the host: user information.
            None => return Err(HopError::Authority),
        };
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        if host.is_empty() {
            return Err(HopError::Authority);
        }
        let url = if path.is_empty() || path == "/" {
            format!("https://{authority}{DEFAULT_TEMPLATE_PATH}")
        } else if path.starts_with('/')
            && path.contains("target_host")
            && path.contains("target_port")
        {
            text.to_owned()
        } else {
            return Err(HopError::Variables);
        };
        template(&url).map_err(HopError::Template)?;
        Ok(Self {
            template: url,
            host: host.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(_: &str) -> Result<(), String> {
        Ok(())
    }

    #[test]
    fn host_alone_means_the_default_template() {
        // spec: 9298-2-j
        let hop = Hop::parse("https://relay.example", any).unwrap();
        assert_eq!(
            hop.template,
            "https://relay.example/.well-known/masque/udp/{target_host}/{target_port}/"
        );
        assert_eq!((hop.host.as_str(), hop.port), ("relay.example", 443));

        let hop = Hop::parse("https://[2001:db8::1]:4433/", any).unwrap();
        assert_eq!((hop.host.as_str(), hop.port), ("2001:db8::1", 4433));
        assert!(
            hop.template
                .starts_with("https://[2001:db8::1]:4433/.well-known/")
        );
    }

    #[test]
    fn a_template_stays_as_it_is() {
        let url = "https://relay.example:8443/masque?h={target_host}&p={target_port}";
        let hop = Hop::parse(url, any).unwrap();
        assert_eq!((hop.template.as_str(), hop.port), (url, 8443));
    }

    #[test]
    fn refusals() {
        // spec: 9298-2-b, 9298-2-c, 9298-2-d, 9298-2-e
        for (text, error) in [
            ("relay.example", HopError::Scheme),
            ("http://relay.example", HopError::Scheme),
            ("https://", HopError::Authority),
            ("https://:443", HopError::Authority),
            ("https://relay.example:0", HopError::Authority),
            ("https://relay.example:", HopError::Authority),
            ("https://relay.example:65536", HopError::Authority),
            ("https://me@relay.example", HopError::Authority),
            ("https://{target_host}/x/{target_port}", HopError::Authority),
            ("https://relay.example/{target_host}", HopError::Variables),
            (
                "https://relay.example{target_host}{target_port}",
                HopError::Variables,
            ),
            ("https://relay.example/masque", HopError::Variables),
        ] {
            assert_eq!(Hop::parse(text, any), Err(error), "{text}");
        }
    }

    #[test]
    fn the_judge_has_the_last_word() {
        let refused = Hop::parse("https://relay.example", |_| Err("no".to_owned()));
        assert_eq!(refused, Err(HopError::Template("no".to_owned())));
    }
}
