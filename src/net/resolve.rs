//! Name resolution: hickory on the control thread's tokio runtime, shaped into one answer per name.
//!
//! ```text
//!  name ─► hosts file ─► found: these addresses and no others
//!              │
//!              └► AAAA ─┬─ whoever answers first waits a moment for the other ─► IPv6, then IPv4
//!                 A    ─┘
//! ```
//!
//! **Invariants.** Every name is fully qualified: search domains of the system never apply, or the client of a relay
//! could name hosts of the relay's network. A name server that is silent for one family (a common fault for AAAA)
//! does not delay the answer of the other. A lookup ends within the timeout plus [`RESOLUTION_DELAY`].
//!
//! RFC 9298 section 3.1 (resolve before the response), RFC 8305 section 3 (both families), RFC 6761 (localhost).
//! It does not judge addresses, that is [`crate::policy`], and it keeps no cache besides hickory's, which goes by TTL.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    Hosts, ResolverBuilder, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RecordType},
    },
};

use crate::policy::resolve::{Resolution, ResolveError};

/// Time that a lookup may take by default.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// How long the family that has addresses waits for the other (RFC 8305 section 8, Resolution Delay).
pub const RESOLUTION_DELAY: Duration = Duration::from_millis(50);
/// Most addresses per family in an answer; those behind are left out.
pub const ADDRESSES_MAX: usize = 16;

/// A resolver that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The system's configuration is missing, or names no name server.
    #[error("cannot use the system's resolver configuration")]
    System(#[source] NetError),
    /// The list of name servers is empty.
    #[error("no name server is given")]
    NoNameServers,
    /// The resolver refuses the configuration.
    #[error("cannot set up the resolver")]
    Build(#[source] NetError),
}

/// Looks up the addresses of names. A clone shares cache and connections.
///
/// The system's configuration and hosts file are read once; a new resolver reads them again.
#[derive(Clone)]
pub struct Resolver {
    dns: TokioResolver,
    hosts: Arc<Hosts>,
    timeout: Duration,
}

impl Resolver {
    /// A resolver with the name servers of `/etc/resolv.conf`. Of its options, `timeout`, `attempts` and the search
    /// list do not apply.
    ///
    /// # Errors
    /// [`SetupError::System`] if the file is missing, malformed, or names no server.
    pub fn from_system(timeout: Duration) -> Result<Self, SetupError> {
        let builder = TokioResolver::builder_tokio().map_err(SetupError::System)?;
        Self::build(builder, timeout)
    }

    /// A resolver that asks `name_servers`, over UDP and, where an answer is truncated, TCP.
    ///
    /// # Errors
    /// [`SetupError::NoNameServers`] if there are none.
    pub fn with_name_servers(
        name_servers: &[SocketAddr],
        timeout: Duration,
    ) -> Result<Self, SetupError> {
        if name_servers.is_empty() {
            return Err(SetupError::NoNameServers);
        }
        let servers = name_servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
            let connections = connections.map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        Self::build(builder, timeout)
    }

    fn build(
        mut builder: ResolverBuilder<TokioRuntimeProvider>,
        timeout: Duration,
    ) -> Result<Self, SetupError> {
        let options = builder.options_mut();
        // Two rounds fit into the timeout, so that a third server is asked when the first two are silent.
        options.timeout = timeout / 2;
        options.attempts = 1;
        // The hosts file decides for both families at once, which hickory does for each on its own.
        options.use_hosts_file = ResolveHosts::Never;
        Ok(Self {
            dns: builder.build().map_err(SetupError::Build)?,
            hosts: Arc::new(Hosts::from_system().unwrap_or_default()),
            timeout,
        })
    }

    /// The addresses of `name`, IPv6 before IPv4. Must run on a tokio runtime; dropping the future abandons the lookup.
    ///
    /// # Errors
    /// Why there is no address. If both families fail, the error that says most about the name.
    pub async fn lookup(&self, name: &str) -> Resolution {
        let mut name = Name::from_ascii(name).map_err(|_| ResolveError::Other)?;
        name.set_fqdn(true);
        if name.is_root() {
            return Err(ResolveError::Other);
        }
        if let Some(addresses) = self.static_addresses(&name) {
            return Ok(addresses);
        }

        let mut v6 = pin!(self.query(name.clone(), RecordType::AAAA));
        let mut v4 = pin!(self.query(name, RecordType::A));
        let (v6, v4) = tokio::select! {
            first = &mut v6 => { let second = after(&first, v4).await; (first, second) }
            first = &mut v4 => { let second = after(&first, v6).await; (second, first) }
        };
        merge(v6, v4)
    }

    /// What the hosts file says, if it knows the name.
    fn static_addresses(&self, name: &Name) -> Option<Vec<IpAddr>> {
        let families = [RecordType::AAAA, RecordType::A].into_iter();
        let lookups = families.filter_map(|family| {
            let query = Query::query(name.clone(), family);
            self.hosts.lookup_static_host(&query)
        });
        let addresses: Vec<_> = lookups
            .flat_map(|lookup| {
                addresses(lookup.answers().iter().map(|record| record.data.ip_addr()))
            })
            .collect();
        (!addresses.is_empty()).then_some(addresses)
    }

    /// Asks for one family.
    async fn query(&self, name: Name, family: RecordType) -> Resolution {
        let lookup = tokio::time::timeout(self.timeout, self.dns.lookup(name, family));
        let lookup = lookup.await.map_err(|_| ResolveError::Timeout)?;
        let lookup = lookup.map_err(|error| reason(&error))?;
        // The answer holds the CNAME records on the way as well.
        let found = addresses(lookup.answers().iter().map(|record| record.data.ip_addr()));
        if found.is_empty() {
            Err(ResolveError::NoRecords)
        } else {
            Ok(found)
        }
    }
}

fn addresses(records: impl Iterator<Item = Option<IpAddr>>) -> Vec<IpAddr> {
    records.flatten().take(ADDRESSES_MAX).collect()
}

/// Waits for the second family: briefly if the first brought addresses, otherwise for as long as it takes.
async fn after(first: &Resolution, second: impl Future<Output = Resolution>) -> Resolution {
    if first.is_err() {
        return second.await;
    }
    let second = tokio::time::timeout(RESOLUTION_DELAY, second).await;
    second.unwrap_or(Err(ResolveError::Timeout))
}

fn merge(v6: Resolution, v4: Resolution) -> Resolution {
    match (v6, v4) {
        (Ok(mut addresses), Ok(more)) => {
            addresses.extend(more);
            Ok(addresses)
        }
        (Ok(addresses), Err(_)) | (Err(_), Ok(addresses)) => Ok(addresses),
        (Err(a), Err(b)) => Err(std::cmp::max_by_key(a, b, |error| weight(*error))),
    }
}

/// How much an error says: NXDOMAIN holds for every type (RFC 8020), an answer beats silence, and "no records" of one
/// type says nothing about the other.
fn weight(error: ResolveError) -> u8 {
    match error {
        ResolveError::NxDomain => 5,
        ResolveError::ServFail => 4,
        ResolveError::Refused => 3,
        ResolveError::Other => 2,
        ResolveError::Timeout => 1,
        ResolveError::NoRecords => 0,
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the enums are hickory's, and whatever else they hold is no answer"
)]
fn reason(error: &NetError) -> ResolveError {
    let code = match error {
        NetError::Timeout => return ResolveError::Timeout,
        NetError::Dns(DnsError::ResponseCode(code)) => *code,
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
        _ => return ResolveError::Other,
    };
    match code {
        ResponseCode::NoError => ResolveError::NoRecords,
        ResponseCode::NXDomain => ResolveError::NxDomain,
        ResponseCode::ServFail => ResolveError::ServFail,
        ResponseCode::Refused => ResolveError::Refused,
        _ => ResolveError::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_resolver::config::ResolverConfig;
    use tokio::net::UdpSocket;

    use super::*;

    const V4: [u8; 4] = [192, 0, 2, 1];
    const V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const TYPE_A: u16 = 1;
    const TYPE_CNAME: u16 = 5;
    const TYPE_AAAA: u16 = 28;

    /// What the name server does with one question.
    enum Reply {
        Silence,
        Code(u8),
        /// Type and data of each record; the owner is the name asked for.
        Records(Vec<(u16, Vec<u8>)>),
    }

    fn reply(name: &str, qtype: u16) -> Reply {
        let none = || Reply::Records(vec![]);
        let address = || match qtype {
            TYPE_A => Reply::Records(vec![(TYPE_A, V4.into())]),
            TYPE_AAAA => Reply::Records(vec![(TYPE_AAAA, V6.into())]),
            _ => none(),
        };
        match (name, qtype) {
            ("both.test" | "host.corp.test" | "pinned.test", _) => address(),
            ("four.test" | "slow6.test", TYPE_A) => address(),
            ("four.test" | "empty.test", _) => none(),
            ("slow6.test" | "silent.test", _) => Reply::Silence,
            ("half.test", TYPE_A) => none(),
            ("broken.test" | "half.test", _) => Reply::Code(2),
            ("closed.test", _) => Reply::Code(5),
            ("odd.test", _) => Reply::Code(4),
            ("many.test", TYPE_A) => {
                Reply::Records((0..40).map(|i| (TYPE_A, vec![192, 0, 2, i])).collect())
            }
            ("many.test", _) => none(),
            ("alias.test", TYPE_A) => {
                let mut record = encode("real.test");
                record.push(0);
                Reply::Records(vec![(TYPE_CNAME, record)])
            }
            ("alias.test", _) => none(),
            ("real.test", TYPE_A) => address(),
            ("real.test", _) => none(),
            _ => Reply::Code(3),
        }
    }

    fn encode(name: &str) -> Vec<u8> {
        let label = |label: &str| [&[label.len() as u8], label.as_bytes()].concat();
        name.split('.').flat_map(label).collect()
    }

    fn answer(question: &[u8]) -> Option<Vec<u8>> {
        let mut labels = vec![];
        let mut at = 12;
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            labels.push(
                std::str::from_utf8(&question[at + 1..end])
                    .unwrap()
                    .to_ascii_lowercase(),
            );
            at = end;
        }
        let qtype = u16::from_be_bytes([question[at + 1], question[at + 2]]);
        let (code, records) = match reply(&labels.join("."), qtype) {
            Reply::Silence => return None,
            Reply::Code(code) => (code, vec![]),
            Reply::Records(records) => (0, records),
        };
        // The same id; QR, RD, RA; one question; no additional records.
        let mut out = question[..2].to_vec();
        out.extend([0x81, 0x80 | code, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
        out.extend(&question[12..at + 5]);
        for (rtype, data) in records {
            // The owner is a pointer to the question; class IN, TTL one minute.
            out.extend([0xc0, 12]);
            out.extend(rtype.to_be_bytes());
            out.extend([0, 1, 0, 0, 0, 60]);
            out.extend((data.len() as u16).to_be_bytes());
            out.extend(data);
        }
        Some(out)
    }

    /// Starts a name server on a port of its own; it ends with the test's runtime.
    async fn name_server() -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut question = [0; 1500];
            while let Ok((len, from)) = socket.recv_from(&mut question).await {
                if let Some(answer) = answer(&question[..len]) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        address
    }

    async fn resolver() -> Resolver {
        Resolver::with_name_servers(&[name_server().await], TIMEOUT_DEFAULT).unwrap()
    }

    fn v4() -> IpAddr {
        V4.into()
    }

    fn v6() -> IpAddr {
        V6.into()
    }

    // spec: 9298-3.1-c
    #[tokio::test]
    async fn both_families_ipv6_first() {
        let resolver = resolver().await;
        assert_eq!(resolver.lookup("both.test").await, Ok(vec![v6(), v4()]));
        assert_eq!(resolver.lookup("Both.TEST.").await, Ok(vec![v6(), v4()]));
        assert_eq!(resolver.lookup("four.test").await, Ok(vec![v4()]));
        assert_eq!(resolver.lookup("alias.test").await, Ok(vec![v4()]));
        assert_eq!(
            resolver.lookup("many.test").await.unwrap().len(),
            ADDRESSES_MAX
        );
    }

    // spec: map-13
    #[tokio::test]
    async fn failures_are_told_apart() {
        let resolver = resolver().await;
        for (name, error) in [
            ("missing.test", ResolveError::NxDomain),
            ("broken.test", ResolveError::ServFail),
            ("half.test", ResolveError::ServFail),
            ("closed.test", ResolveError::Refused),
            ("empty.test", ResolveError::NoRecords),
            ("odd.test", ResolveError::Other),
            ("", ResolveError::Other),
            (".", ResolveError::Other),
            ("a..b", ResolveError::Other),
        ] {
            assert_eq!(resolver.lookup(name).await, Err(error), "{name:?}");
        }
    }

    // spec: map-14
    #[tokio::test]
    async fn silence_ends_with_the_timeout() {
        let servers = [name_server().await];
        let resolver = Resolver::with_name_servers(&servers, Duration::from_millis(40)).unwrap();
        assert_eq!(
            resolver.lookup("silent.test").await,
            Err(ResolveError::Timeout)
        );
    }

    #[tokio::test]
    async fn one_silent_family_does_not_delay_the_other() {
        let resolver = resolver().await;
        let lookup = resolver.lookup("slow6.test");
        let within = tokio::time::timeout(TIMEOUT_DEFAULT / 4, lookup).await;
        assert_eq!(within.unwrap(), Ok(vec![v4()]));
    }

    #[tokio::test]
    async fn search_domains_do_not_apply() {
        let server = name_server().await;
        let mut udp = ConnectionConfig::udp();
        udp.port = server.port();
        let server = NameServerConfig::new(server.ip(), true, vec![udp]);
        let corp = Name::from_ascii("corp.test.").unwrap();
        let config = ResolverConfig::from_parts(Some(corp.clone()), vec![corp], vec![server]);
        let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let resolver = Resolver::build(builder, TIMEOUT_DEFAULT).unwrap();
        assert_eq!(resolver.lookup("host").await, Err(ResolveError::NxDomain));
        assert_eq!(
            resolver.lookup("host.corp.test").await,
            Ok(vec![v6(), v4()])
        );
    }

    #[tokio::test]
    async fn the_hosts_file_decides_for_both_families() {
        let mut hosts = Hosts::default();
        hosts
            .read_hosts_conf(&b"203.0.113.5 Pinned.test other.test\n"[..])
            .unwrap();
        let resolver = Resolver {
            hosts: Arc::new(hosts),
            ..resolver().await
        };
        let pinned = Ok(vec![IpAddr::from([203, 0, 113, 5])]);
        assert_eq!(resolver.lookup("pinned.test").await, pinned);
        assert_eq!(resolver.lookup("PINNED.test.").await, pinned);
        assert_eq!(resolver.lookup("both.test").await, Ok(vec![v6(), v4()]));
    }

    // spec: RFC 6761 section 6.3
    #[tokio::test]
    async fn localhost_is_loopback_without_a_query() {
        let resolver = resolver().await;
        let found = resolver.lookup("localhost").await.unwrap();
        assert!(
            !found.is_empty() && found.iter().all(IpAddr::is_loopback),
            "{found:?}"
        );
    }

    #[test]
    fn the_error_that_says_most_is_kept() {
        use ResolveError::*;
        for (v6, v4, kept) in [
            (NoRecords, Timeout, Timeout),
            (Timeout, NxDomain, NxDomain),
            (NoRecords, ServFail, ServFail),
            (ServFail, NxDomain, NxDomain),
            (NoRecords, NoRecords, NoRecords),
        ] {
            assert_eq!(merge(Err(v6), Err(v4)), Err(kept));
            assert_eq!(merge(Err(v4), Err(v6)), Err(kept));
        }
        assert_eq!(merge(Err(Timeout), Ok(vec![v6()])), Ok(vec![v6()]));
    }

    #[test]
    fn setup_needs_a_name_server() {
        let error = Resolver::with_name_servers(&[], TIMEOUT_DEFAULT)
            .err()
            .unwrap();
        assert!(matches!(error, SetupError::NoNameServers));
    }
}
