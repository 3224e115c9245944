//! From the file format to checked types: bounds of single values, then relations between them.
//!
//! Every problem is reported and replaced by something harmless, so that the check always reaches its end; the result
//! is handed out only when there was no problem.

mod auth;
mod ip;
mod tcp;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::checked::{
    Certificate, Checked, Dns, Limits, Listener, PolicyText, Quic, Timeouts, Upstream,
};
use super::duration::Period;
use super::limits::{self, Limit};
use super::{Environment, Problems, RuleKind, Service, parse_header, relay};
use crate::wire::carrier::Carrier;
use crate::wire::template::{PathTemplate, RelayTemplates, Template, TemplateError};

/// Longest spin: a hundred times what a wake-up takes.
const SPIN_US_MAX: i64 = 1_000;
/// More workers than any machine has cores.
const WORKERS_MAX: i64 = 1_024;
/// Characters of a name that every log and every `Via` field repeats.
const NAME_CHARS_MAX: usize = 64;
/// Hops behind an ingress. Two make a chain of three relays; each costs a round trip and some forty bytes of MTU.
const HOPS_MAX: usize = 2;
/// Name servers to ask; a resolver that needs more is broken.
const DNS_SERVERS_MAX: usize = 8;
/// Port of DNS (RFC 1035 section 4.2.1).
const DNS_PORT: u16 = 53;
/// Smallest MTU of QUIC (RFC 9000 section 14).
const MTU_MIN: i64 = 1_200;
/// Largest UDP payload over IPv4.
const MTU_MAX: i64 = 65_507;
/// Start MTU at which a QUIC Initial of 1200 bytes fits through a tunnel.
const MTU_FOR_INNER_INITIAL: u16 = 1_241;
/// The ACK frequency draft allows more; beyond this, loss is noticed too late.
const ACK_THRESHOLD_MAX: i64 = 1_000;
/// The least idle time that RFC 9298 section 3.1 wants.
const TUNNEL_IDLE_WANTED: Duration = Duration::from_secs(120);
/// The least idle time of TCP that RFC 5382 section 5 wants.
const TCP_IDLE_WANTED: Duration = Duration::from_secs(7_440);

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// Checks everything; what is wrong goes to `problems`, and the result is then not to be used.
pub(super) fn check(
    file: relay::File,
    environment: &Environment,
    problems: &mut Problems,
) -> Checked {
    let mut checker = Checker {
        environment,
        problems,
        warnings: Vec::new(),
    };
    let relay::File {
        process,
        listen,
        upstream,
        policy,
        auth,
        dns,
        ip,
        quic,
        tcp,
        limits,
        timeouts,
    } = file;
    let workers = checker.integer("workers", process.workers, 0..=WORKERS_MAX);
    let spin_us = checker.integer("spin_us", process.spin_us, 0..=SPIN_US_MAX);
    let name = checker.name(process.name);
    let listen = checker.listeners(listen);
    let upstream = checker.upstream(upstream);
    let services = policy.services.clone();
    let (policy, names) = checker.policy(policy);
    let auth = checker.auth(auth);
    let dns = checker.dns(dns);
    let ip = checker.ip(ip, services.as_deref(), &upstream, auth.as_ref());
    checker.names_and_packets(ip.is_some(), &policy.services, &names);
    let quic = checker.quic(quic);
    let tcp = checker.tcp(tcp);
    let limits = checker.limits(limits);
    let timeouts = checker.timeouts(timeouts);
    checker.relations(&dns, &quic, &timeouts);
    Checked {
        name,
        workers: NonZeroUsize::new(count(workers)).unwrap_or(environment.cores),
        pin: process.pin.unwrap_or(true),
        io: process.io,
        spin: Duration::from_micros(u64::from(small(spin_us))),
        steering: process.steering,
        gso: process.gso,
        gro: process.gro,
        log: process.log,
        listen,
        upstream,
        policy,
        auth,
        dns,
        ip,
        quic,
        tcp,
        limits,
        timeouts,
        warnings: checker.warnings,
    }
}

/// How the text of a template is read: the variables depend on the service.
type Parse<T> = fn(&str) -> Result<T, TemplateError>;

struct Checker<'a> {
    environment: &'a Environment,
    problems: &'a mut Problems,
    warnings: Vec<String>,
}

impl Checker<'_> {
    fn name(&mut self, name: Option<String>) -> String {
        let name = name.unwrap_or_else(|| self.environment.name.clone());
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        // Proxy-Status wants a token of structured fields, which starts with a letter or an asterisk.
        let starts = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*');
        if !starts || !name.bytes().all(token) || name.len() > NAME_CHARS_MAX {
            let bound = format!(
                "must be a token of 1 to {NAME_CHARS_MAX} characters that starts with a letter"
            );
            self.problems.value("name", quoted(&name), bound);
        }
        name
    }

    fn listeners(&mut self, listen: Vec<relay::Listen>) -> Vec<Listener> {
        let mut listeners: Vec<Listener> = Vec::with_capacity(listen.len());
        for (index, entry) in listen.into_iter().enumerate() {
            let key = format!("listen[{index}]");
            let address = self.address(&key, entry.address);
            // Port 0 is a different address every time.
            if address.port() != 0 && listeners.iter().any(|other| other.address == address) {
                self.problems.value(
                    format!("{key}.address"),
                    quoted(address),
                    "an earlier entry listens there",
                );
            }
            let certificate = self.certificate(&key, entry.certificate, entry.key);
            let carriers = self.carriers(&key, entry.carriers);
            let templates = self.templates(
                &format!("{key}.templates"),
                PathTemplate::well_known(),
                &entry.templates,
                (PathTemplate::parse, Template::parse),
            );
            let tcp_templates = self.templates(
                &format!("{key}.tcp_templates"),
                PathTemplate::well_known_tcp(),
                &entry.tcp_templates,
                (PathTemplate::parse, Template::parse),
            );
            let ip_templates = self.templates(
                &format!("{key}.ip_templates"),
                PathTemplate::well_known_ip(),
                &entry.ip_templates,
                (PathTemplate::parse_ip, Template::parse_ip),
            );
            let origins = self.origins(&key, entry.origins);
            listeners.push(Listener {
                address,
                carriers,
                certificate,
                templates,
                tcp_templates,
                ip_templates,
                origins,
                reuseport: false,
            });
        }
        match self.environment.dev_listen {
            Some(address) if listeners.is_empty() => {
                listeners.push(Listener {
                    address,
                    carriers: Carrier::ALL.to_vec(),
                    certificate: None,
                    templates: vec![PathTemplate::well_known()],
                    tcp_templates: vec![PathTemplate::well_known_tcp()],
                    ip_templates: vec![PathTemplate::well_known_ip()],
                    origins: Vec::new(),
                    reuseport: false,
                });
            }
            None if listeners.is_empty()
                && self
                    .problems
                    .list
                    .iter()
                    .all(|p| !p.key.starts_with("listen")) =>
            {
                self.problems.key(
                    "listen",
                    "missing: at least one [[listen]] with address, certificate and key",
                );
            }
            Some(_) | None => {}
        }
        listeners
    }

    fn address(&mut self, at: &str, address: Option<String>) -> SocketAddr {
        let key = format!("{at}.address");
        match (address, self.environment.dev_listen) {
            (None, None) => self
                .problems
                .key(key, "missing: an address such as \"[::]:443\""),
            (None, Some(address)) => return address,
            (Some(text), _) => match text.parse() {
                Ok(address) => return address,
                Err(_) => {
                    self.problems
                        .value(key, quoted(text), "not an address such as \"[::]:443\"")
                }
            },
        }
        // The rest of the entry is worth checking too; port 0 collides with nothing.
        SocketAddr::from(([0, 0, 0, 0], 0))
    }

    fn certificate(
        &mut self,
        at: &str,
        chain: Option<PathBuf>,
        key: Option<PathBuf>,
    ) -> Option<Certificate> {
        match (chain, key) {
            (Some(chain), Some(key)) => Some(Certificate {
                chain: self.path(&chain),
                key: self.path(&key),
            }),
            (None, None) if self.environment.dev_listen.is_some() => None,
            (chain, key) => {
                if chain.is_none() {
                    self.problems.key(
                        format!("{at}.certificate"),
                        "missing: path of the certificate chain (PEM)",
                    );
                }
                if key.is_none() {
                    self.problems.key(
                        format!("{at}.key"),
                        "missing: path of the private key (PEM)",
                    );
                }
                None
            }
        }
    }

    fn path(&self, path: &std::path::Path) -> PathBuf {
        self.environment.directory.join(path)
    }

    /// The default template is served whatever else is: clients configured with host and port look for it.
    fn templates(
        &mut self,
        key: &str,
        default: PathTemplate,
        texts: &[String],
        (parse_path, parse_url): (Parse<PathTemplate>, Parse<Template>),
    ) -> Vec<PathTemplate> {
        let parse = |text: &str| {
            if text.starts_with('/') {
                parse_path(text)
            } else {
                parse_url(text)?.path_template()
            }
        };
        let mut templates = vec![default];
        for (index, text) in texts.iter().enumerate() {
            match parse(text) {
                Ok(template) if templates.contains(&template) => {}
                Ok(template) => templates.push(template),
                Err(error) => {
                    self.problems
                        .value(format!("{key}[{index}]"), quoted(text), error.to_string());
                }
            }
        }
        templates
    }

    fn origins(&mut self, at: &str, origins: Vec<String>) -> Vec<String> {
        let mut list = Vec::with_capacity(origins.len());
        for (index, origin) in origins.into_iter().enumerate() {
            // What can stand in front of the default path is what clients send as :authority.
            match Template::default_for(&origin) {
                Ok(_) => list.push(origin.to_ascii_lowercase()),
                Err(_) => {
                    let key = format!("{at}.origins[{index}]");
                    self.problems.value(
                        key,
                        quoted(origin),
                        "must be host or host:port, as in :authority",
                    );
                }
            }
        }
        list
    }

    fn upstream(&mut self, upstream: relay::Upstream) -> Upstream {
        let relay::Upstream {
            urls,
            tcp_urls,
            ip_urls,
            carriers,
            head_starts,
            credentials,
            ca,
            dangerous_insecure,
            headers,
        } = upstream;
        if urls.len() > HOPS_MAX {
            self.problems.key(
                "upstream.urls",
                format!("{} hops, must be at most {HOPS_MAX}", urls.len()),
            );
        }
        let mut hops = Vec::with_capacity(urls.len());
        for (index, url) in urls.iter().enumerate() {
            match RelayTemplates::from_relay_url(url) {
                Ok(hop) => hops.push(hop),
                Err(error) => self.template_problem("upstream.urls", index, url, error),
            }
        }
        let wanted = urls.len();
        let tcp = self.more_urls(
            "upstream.tcp_urls",
            &tcp_urls,
            wanted,
            &hops,
            Template::parse,
        );
        for (hop, tcp) in hops.iter_mut().zip(tcp) {
            hop.tcp = tcp.or_else(|| hop.tcp.take());
        }
        let ip = self.more_urls(
            "upstream.ip_urls",
            &ip_urls,
            wanted,
            &hops,
            Template::parse_ip,
        );
        for (hop, ip) in hops.iter_mut().zip(ip) {
            hop.ip = ip.or_else(|| hop.ip.take());
        }
        let carriers = self.carriers("upstream", carriers);
        let head_starts = self.head_starts(head_starts);
        if ca.is_some() && dangerous_insecure {
            let message = "true: accepts any certificate, so upstream.ca would have no effect; remove one of them";
            self.problems.key("upstream.dangerous_insecure", message);
        }
        if dangerous_insecure {
            self.warnings.push(
                "upstream.dangerous_insecure: the next hop is not authenticated, anybody on the path can replace it"
                    .to_owned(),
            );
        }
        let mut fields = Vec::with_capacity(headers.len());
        for (name, value) in &headers {
            match parse_header(name, value) {
                Ok(field) => fields.push(field),
                Err(error) => self
                    .problems
                    .key(format!("upstream.headers.{name}"), error.to_string()),
            }
        }
        let ca = ca.map(|path| self.path(&path));
        Upstream {
            hops,
            carriers,
            head_starts,
            credentials: credentials.map(|path| self.path(&path)),
            ca,
            dangerous_insecure,
            headers: fields,
        }
    }

    /// The templates for another service than UDP, one for each hop or none at all. One that is wrong is `None`.
    fn more_urls(
        &mut self,
        key: &str,
        urls: &[String],
        wanted: usize,
        hops: &[RelayTemplates],
        parse: Parse<Template>,
    ) -> Vec<Option<Template>> {
        if !urls.is_empty() && urls.len() != wanted {
            let message = format!("{} templates, must be as many as upstream.urls", urls.len());
            self.problems.key(key, message);
        }
        let mut templates = Vec::with_capacity(urls.len());
        for (index, url) in urls.iter().enumerate() {
            let hop = hops.get(index);
            templates.push(match parse(url) {
                Ok(template) if hop.is_some_and(|hop| !same_relay(&hop.udp, &template)) => {
                    let message = "must be at the host and port of upstream.urls";
                    self.problems
                        .value(format!("{key}[{index}]"), quoted(url), message);
                    None
                }
                Ok(template) => Some(template),
                Err(error) => {
                    self.template_problem(key, index, url, error);
                    None
                }
            });
        }
        templates
    }

    fn template_problem(&mut self, key: &str, index: usize, url: &str, error: TemplateError) {
        self.problems
            .value(format!("{key}[{index}]"), quoted(url), error.to_string());
    }

    /// The rules, and those of them that are about names.
    fn policy(&mut self, policy: relay::Policy) -> (PolicyText, Vec<String>) {
        let relay::Policy {
            services,
            public_only,
            allow,
            deny,
        } = policy;
        let mut names = Vec::new();
        for (key, rules) in [("policy.allow", &allow), ("policy.deny", &deny)] {
            for (index, rule) in rules.iter().enumerate() {
                let key = format!("{key}[{index}]");
                match (self.environment.rule)(rule) {
                    Ok(RuleKind::Addresses) => {}
                    Ok(RuleKind::Names) => names.push(format!("{key}: {}", quoted(rule))),
                    Err(message) => self.problems.value(key, quoted(rule), message),
                }
            }
        }
        let services = services.unwrap_or_else(|| Service::ALL.to_vec());
        if services.is_empty() {
            let message = "must name at least one of \"connect-udp\", \"connect-tcp\", \"connect\" and \"connect-ip\"";
            self.problems.key("policy.services", message);
        }
        if !public_only {
            self.warnings.push(
                "policy.public_only: false opens the networks of this machine to every client, but for policy.deny"
                    .to_owned(),
            );
        }
        let policy = PolicyText {
            services,
            public_only,
            allow,
            deny,
        };
        (policy, names)
    }

    fn dns(&mut self, dns: relay::Dns) -> Dns {
        if dns.servers.len() > DNS_SERVERS_MAX {
            let message = format!(
                "{} servers, must be at most {DNS_SERVERS_MAX}",
                dns.servers.len()
            );
            self.problems.key("dns.servers", message);
        }
        let mut servers = Vec::with_capacity(dns.servers.len());
        for (index, text) in dns.servers.iter().enumerate() {
            let address = text
                .parse::<IpAddr>()
                .map(|ip| SocketAddr::new(ip, DNS_PORT))
                .or_else(|_| text.parse::<SocketAddr>());
            match address {
                Ok(address) => servers.push(address),
                Err(_) => {
                    let key = format!("dns.servers[{index}]");
                    self.problems.value(
                        key,
                        quoted(text),
                        "not an address such as \"192.0.2.53\" or \"[2001:db8::53]:53\"",
                    );
                }
            }
        }
        Dns {
            servers,
            timeout: self.duration("dns.timeout", dns.timeout, MILLISECOND * 10..=MINUTE),
        }
    }

    fn quic(&mut self, quic: relay::Quic) -> Quic {
        let threshold = self.integer(
            "quic.ack_frequency_threshold",
            quic.ack_frequency_threshold,
            0..=ACK_THRESHOLD_MAX,
        );
        Quic {
            congestion: quic.congestion,
            initial_mtu: self.mtu("quic.initial_mtu", quic.initial_mtu),
            min_mtu: self.mtu("quic.min_mtu", quic.min_mtu),
            mtu_upper_bound: self.mtu("quic.mtu_upper_bound", quic.mtu_upper_bound),
            mtu_black_hole_cooldown: self.duration(
                "quic.mtu_black_hole_cooldown",
                quic.mtu_black_hole_cooldown,
                MILLISECOND * 100..=HOUR,
            ),
            ack_frequency_threshold: u32::try_from(threshold)
                .ok()
                .filter(|threshold| *threshold != 0),
            datagram_send_buffer: count(
                self.limit(&limits::DATAGRAM_SEND_BUFFER, quic.datagram_send_buffer),
            ),
            datagram_receive_buffer: count(self.limit(
                &limits::DATAGRAM_RECEIVE_BUFFER,
                quic.datagram_receive_buffer,
            )),
            stream_receive_window: small(
                self.limit(&limits::STREAM_RECEIVE_WINDOW, quic.stream_receive_window),
            ),
            receive_window: small(self.limit(&limits::RECEIVE_WINDOW, quic.receive_window)),
            send_window: small(self.limit(&limits::SEND_WINDOW, quic.send_window)),
            idle_timeout: self.duration("quic.idle_timeout", quic.idle_timeout, SECOND..=DAY),
            keep_alive: self.duration("quic.keep_alive", quic.keep_alive, SECOND..=HOUR),
            retry_handshakes: count(self.limit(&limits::RETRY_HANDSHAKES, quic.retry_handshakes)),
            max_pending_handshakes: count(
                self.limit(&limits::PENDING_HANDSHAKES, quic.max_pending_handshakes),
            ),
        }
    }

    fn limits(&mut self, file: relay::Limits) -> Limits {
        Limits {
            connections: count(self.limit(&limits::CONNECTIONS, file.connections)),
            tunnels_per_connection: small(
                self.limit(&limits::TUNNELS_PER_CONNECTION, file.tunnels_per_connection),
            ),
            tunnels: count(self.limit(&limits::TUNNELS, file.tunnels)),
            target_sockets: count(self.limit(&limits::TARGET_SOCKETS, file.target_sockets)),
            early_datagrams: count(self.limit(&limits::EARLY_DATAGRAMS, file.early_datagrams)),
            early_bytes: count(self.limit(&limits::EARLY_BYTES, file.early_bytes)),
            queue_datagrams: count(self.limit(&limits::QUEUE_DATAGRAMS, file.queue_datagrams)),
            queue_bytes: count(self.limit(&limits::QUEUE_BYTES, file.queue_bytes)),
            tcp_buffer_bytes: count(self.limit(&limits::TCP_BUFFER_BYTES, file.tcp_buffer_bytes)),
            field_section_bytes: u64::from(small(
                self.limit(&limits::FIELD_SECTION_BYTES, file.field_section_bytes),
            )),
            mailbox: count(self.limit(&limits::MAILBOX, file.mailbox)),
            resolves: count(self.limit(&limits::RESOLVES, file.resolves)),
            password_checks: count(self.limit(&limits::PASSWORD_CHECKS, file.password_checks)),
            verified_passwords: count(
                self.limit(&limits::VERIFIED_PASSWORDS, file.verified_passwords),
            ),
        }
    }

    fn timeouts(&mut self, file: relay::Timeouts) -> Timeouts {
        Timeouts {
            tunnel_idle: self.duration("timeouts.tunnel_idle", file.tunnel_idle, SECOND..=DAY),
            tcp_idle: self.duration("timeouts.tcp_idle", file.tcp_idle, MINUTE * 2..=DAY * 7),
            resolve: self.duration("timeouts.resolve", file.resolve, MILLISECOND * 100..=MINUTE),
            open: self.duration("timeouts.open", file.open, MILLISECOND * 100..=MINUTE),
            drain: self.duration("timeouts.drain", file.drain, Duration::ZERO..=HOUR),
            handshake: self.duration(
                "timeouts.handshake",
                file.handshake,
                MILLISECOND * 100..=MINUTE,
            ),
        }
    }

    /// Rules between keys; each names the key that an operator would change first. A value that stands in for a wrong
    /// one proves nothing about others.
    fn relations(&mut self, dns: &Dns, quic: &Quic, timeouts: &Timeouts) {
        let wrong: Vec<String> = self.problems.list.iter().map(|p| p.key.clone()).collect();
        let both_given = |keys: [&str; 2]| !wrong.iter().any(|key| keys.contains(&key.as_str()));
        if both_given(["quic.initial_mtu", "quic.min_mtu"]) && quic.initial_mtu < quic.min_mtu {
            let message = format!("must not be below quic.min_mtu ({})", quic.min_mtu);
            self.problems
                .value("quic.initial_mtu", quic.initial_mtu, message);
        }
        if both_given(["quic.mtu_upper_bound", "quic.initial_mtu"])
            && quic.mtu_upper_bound < quic.initial_mtu
        {
            let message = format!("must not be below quic.initial_mtu ({})", quic.initial_mtu);
            self.problems
                .value("quic.mtu_upper_bound", quic.mtu_upper_bound, message);
        }
        if quic.initial_mtu < MTU_FOR_INNER_INITIAL {
            self.warnings.push(format!(
                "quic.initial_mtu: {}: below {MTU_FOR_INNER_INITIAL} no QUIC handshake fits into a tunnel",
                quic.initial_mtu
            ));
        }
        if both_given(["quic.idle_timeout", "timeouts.tunnel_idle"])
            && quic.idle_timeout < timeouts.tunnel_idle
        {
            let bound = Period(timeouts.tunnel_idle);
            let message = format!(
                "must not be below timeouts.tunnel_idle ({bound}), or it would end quiet tunnels"
            );
            self.problems
                .value("quic.idle_timeout", Period(quic.idle_timeout), message);
        }
        if both_given(["quic.keep_alive", "quic.idle_timeout"])
            && quic.keep_alive >= quic.idle_timeout
        {
            let message = format!(
                "must be below quic.idle_timeout ({})",
                Period(quic.idle_timeout)
            );
            self.problems
                .value("quic.keep_alive", Period(quic.keep_alive), message);
        }
        if both_given(["quic.retry_handshakes", "quic.max_pending_handshakes"])
            && quic.retry_handshakes > quic.max_pending_handshakes
        {
            let message = format!(
                "must not be above quic.max_pending_handshakes ({})",
                quic.max_pending_handshakes
            );
            self.problems
                .value("quic.retry_handshakes", quic.retry_handshakes, message);
        }
        if both_given(["dns.timeout", "timeouts.resolve"]) && dns.timeout > timeouts.resolve {
            let message = format!(
                "must not be above timeouts.resolve ({})",
                Period(timeouts.resolve)
            );
            self.problems
                .value("dns.timeout", Period(dns.timeout), message);
        }
        if timeouts.tunnel_idle < TUNNEL_IDLE_WANTED {
            self.warnings.push(format!(
                "timeouts.tunnel_idle: {}: RFC 9298 section 3.1 asks for two minutes or more",
                Period(timeouts.tunnel_idle)
            ));
        }
        if timeouts.tcp_idle < TCP_IDLE_WANTED {
            self.warnings.push(format!(
                "timeouts.tcp_idle: {}: RFC 5382 section 5 asks for two hours and four minutes or more",
                Period(timeouts.tcp_idle)
            ));
        }
    }

    fn limit(&mut self, limit: &Limit, value: i64) -> i64 {
        self.integer(limit.key, value, limit.range())
    }

    fn mtu(&mut self, key: &str, value: i64) -> u16 {
        u16::try_from(self.integer(key, value, MTU_MIN..=MTU_MAX)).unwrap_or(u16::MAX)
    }

    fn integer(&mut self, key: &str, value: i64, range: RangeInclusive<i64>) -> i64 {
        if !range.contains(&value) {
            self.problems.value(
                key,
                value,
                format!("must be {} to {}", range.start(), range.end()),
            );
        }
        value.clamp(*range.start(), *range.end())
    }

    fn duration(&mut self, key: &str, value: Period, range: RangeInclusive<Duration>) -> Duration {
        if !range.contains(&value.0) {
            let message = format!(
                "must be {} to {}",
                Period(*range.start()),
                Period(*range.end())
            );
            self.problems.value(key, value, message);
        }
        value.0.clamp(*range.start(), *range.end())
    }
}

/// One connection carries all services of a relay.
fn same_relay(one: &Template, other: &Template) -> bool {
    (one.host(), one.port()) == (other.host(), other.port())
}

fn quoted(text: impl ToString) -> String {
    super::reader::show(&toml::Value::String(text.to_string()))
}

/// For values that were checked against a range without negative numbers.
fn count(value: i64) -> usize {
    usize::try_from(value).unwrap_or_default()
}

/// For values that were checked against a range inside that of `u32`.
fn small(value: i64) -> u32 {
    u32::try_from(value).unwrap_or_default()
}
