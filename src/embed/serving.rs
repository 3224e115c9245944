//! What a listener and an embedding are told alike, in the words of the configuration of a relay, which checks it.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use toml::{Table, Value};

use super::listener::pseudonym;
use crate::config::{self, Environment};
use crate::error::{Error, ErrorKind, Side};
use crate::wire::carrier::Carrier;
use crate::worker::build::rule_kind;

/// Options of a server of tunnels; all have defaults.
#[derive(Debug, Default)]
pub(super) struct Serving {
    /// Paths of UDP tunnels, beside the well-known one.
    pub(super) udp_templates: Vec<String>,
    /// The same for TCP.
    pub(super) tcp_templates: Vec<String>,
    /// The same for IP.
    pub(super) ip_templates: Vec<String>,
    /// Accepted values of `:authority`.
    pub(super) origins: Vec<String>,
    /// The name in Via and Proxy-Status.
    pub(super) name: Option<String>,
    /// Whether workers are pinned to cores.
    pub(super) pin: bool,
    /// Worker threads.
    pub(super) workers: Option<usize>,
    limits: Table,
    timeouts: Table,
}

impl Serving {
    /// Sets `limits.KEY`.
    pub(super) fn limit(&mut self, key: &str, value: usize) {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.limits.insert(key.to_owned(), Value::Integer(value));
    }

    /// Sets `timeouts.KEY`.
    pub(super) fn timeout(&mut self, key: &str, value: Duration) {
        let value = format!("{}ms", value.as_millis());
        self.timeouts.insert(key.to_owned(), Value::String(value));
    }

    /// The configuration of a relay that says the same and listens at `address`, with so many workers by default.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] names every value that is out of bounds, with the bound.
    pub(super) fn checked(
        &self,
        address: SocketAddr,
        carriers: &[Carrier],
        workers: NonZeroUsize,
    ) -> Result<config::Checked, Error> {
        let texts = |texts: &[String]| -> Value { texts.to_vec().into() };
        let carriers: Vec<_> = carriers.iter().map(|it| it.as_str().to_owned()).collect();
        let mut listen = Table::new();
        listen.insert("address".to_owned(), address.to_string().into());
        listen.insert("carriers".to_owned(), texts(&carriers));
        listen.insert("templates".to_owned(), texts(&self.udp_templates));
        listen.insert("tcp_templates".to_owned(), texts(&self.tcp_templates));
        listen.insert("ip_templates".to_owned(), texts(&self.ip_templates));
        listen.insert("origins".to_owned(), texts(&self.origins));
        let mut file = Table::new();
        file.insert("listen".to_owned(), Value::Array(vec![listen.into()]));
        file.insert("limits".to_owned(), self.limits.clone().into());
        file.insert("timeouts".to_owned(), self.timeouts.clone().into());
        file.insert("pin".to_owned(), self.pin.into());
        if let Some(workers) = self.workers {
            if workers == 0 {
                return Err(misuse("workers: 0: at least one"));
            }
            let workers = i64::try_from(workers).unwrap_or(i64::MAX);
            file.insert("workers".to_owned(), workers.into());
        }
        if let Some(name) = &self.name {
            file.insert("name".to_owned(), name.as_str().into());
        }
        let environment = Environment {
            // Certificates come from elsewhere.
            dev_listen: Some(address),
            rule: |text| rule_kind(text).map_err(|it| it.to_string()),
            ..Environment::new("", workers, pseudonym())
        };
        let text = toml::to_string(&file)
            .map_err(|error| Error::new(ErrorKind::Internal, Side::Local).with_source(error))?;
        config::parse(&text, &environment)
            .map_err(|error| Error::new(ErrorKind::Configuration, Side::Local).with_source(error))
    }
}

/// The caller has forgotten something.
pub(super) fn misuse(what: &'static str) -> Error {
    Error::new(ErrorKind::Configuration, Side::Local).with_source(what)
}
