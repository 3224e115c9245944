//! The built-in handler of IP tunnels: addresses from pools, checks, and an exit: code of the user, or the kernel.
//!
//! ```text
//!   client ─► source, scope, rules ─┬─► TUN, or forward: a hook, for every packet that leaves
//!                                   └─► another client, or the network behind one
//!
//!   TUN, IpProxyHandle::inject ─► whose is the destination? ─► source ─► client
//! ```
//!
//! The worker does it all as `bauta relay` does. Each worker of a listener gets its part of the proxy with its first
//! tunnel; addresses are given once per proxy.

mod exit;
mod handle;
mod tun;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ipnet::{IpNet, Ipv6Net};

pub(super) use self::exit::{Exit, Injected, InstallError};
pub use self::handle::{IpProxyEvent, IpProxyHandle, IpProxyStats, IpSession};
pub use self::tun::TunExit;

use self::exit::Hooks;
use self::tun::{Facts, Interface};
use super::handler::{Accept, Handler, Ready, Reject};
use super::proxy::{Gate, Way, add_rule};
use super::request::Request;
use super::running::not_started;
use super::{Error, Protocol};
use crate::config::limits;
use crate::error::{ErrorKind, Side};
use crate::policy::Policy;
use crate::tunnel::ip::{PoolConfig, Pools, ROUTES_MAX};
use crate::wire::ip::{DnsConfig, overlap};
use crate::worker::build::ip::ranges;
use crate::worker::{Direct, Family, GatewaySettings, MTU_MIN, Site};

/// Says who a client is.
type Identify = Arc<dyn Fn(&Request) -> Option<String> + Send + Sync>;

/// Serves IP tunnels (RFC 9484): gives their clients addresses from pools, tells them routes and name servers, checks
/// every packet, and hands those that leave to [a hook](IpProxyBuilder::forward) or to the kernel, by [a TUN
/// interface](IpProxyBuilder::tun). Rejects other tunnels with 501; [`Proxies::ip`](crate::Proxies::ip) serves all.
///
/// A packet of a client passes when its source is assigned to the client (BCP 38) or in a network behind it, its
/// destination in the scope that the client asked for and allowed by the rules, and its protocol the one of the scope.
/// Otherwise its sender is told by ICMP, at a bounded rate, and the drop is counted and reported.
///
/// Clones are the same proxy, with one set of addresses. It serves one listener, or one
/// [`Embedding`](crate::Embedding): requests at a second one, and those for a second proxy at the same one, are
/// answered with 500.
///
/// ```
/// use bauta::{IpProxy, Listener};
/// use ipnet::IpNet;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let proxy = IpProxy::builder()
///     .pool("10.89.0.0/16".parse::<IpNet>()?)
///     .forward(|_, session, packet| println!("{} bytes of {session} leave", packet.len()))
///     .build()?;
/// let handle = proxy.handle();
/// # let _ =
/// Listener::all(([0, 0, 0, 0], 443)).handler(proxy);
/// // What comes back from outside: handle.inject(packet)
/// # let _ = handle;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct IpProxy {
    exit: Arc<Exit>,
    identify: Option<Identify>,
}

impl IpProxy {
    /// No addresses yet.
    pub fn builder() -> IpProxyBuilder {
        IpProxyBuilder::default()
    }

    /// Where the rest of the program looks up clients, and sends them packets.
    #[must_use]
    pub fn handle(&self) -> IpProxyHandle {
        IpProxyHandle(Arc::clone(&self.exit))
    }
}

impl Handler for IpProxy {
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        if request.protocol() != Some(Protocol::Ip) {
            return Err(Reject::unsupported());
        }
        let identify = self.identify.as_ref();
        Ok(Accept::ready(Ready::Way(Way::Gateway(Gate {
            exit: Arc::clone(&self.exit),
            user: identify
                .and_then(|identify| identify(request))
                .map(Into::into),
            direct: Direct {
                addresses: None,
                policy: Arc::clone(&self.exit.settings.policy),
                family: Family::Any,
                socket: crate::net::SocketOptions::default(),
                timeout: None,
            },
        }))))
    }
}

impl fmt::Debug for IpProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpProxy")
            .field("exit", &self.exit)
            .field("has_identify", &self.identify.is_some())
            .finish()
    }
}

/// What an [`IpProxy`] will be. Every option has a default but [`pool`](Self::pool).
#[must_use]
pub struct IpProxyBuilder {
    pools: PoolConfig,
    routes: Vec<IpNet>,
    settings: GatewaySettings,
    policy: Policy,
    identify: Option<Identify>,
    mtu: Option<u16>,
    hooks: Hooks,
    tun: Option<TunExit>,
}

impl Default for IpProxyBuilder {
    fn default() -> Self {
        Self {
            pools: PoolConfig::default(),
            routes: Vec::new(),
            settings: GatewaySettings {
                inside: Vec::new(),
                routes: Vec::new(),
                dns: Vec::new(),
                pref64: Vec::new(),
                unprompted: true,
                client_to_client: false,
                sites: Vec::new(),
                policy: Arc::default(),
                mtu: usize::from(u16::MAX),
            },
            policy: Policy::default(),
            identify: None,
            mtu: None,
            hooks: Hooks::default(),
            tun: None,
        }
    }
}

/// Addresses.
impl IpProxyBuilder {
    /// Adds a prefix to take addresses from, of either version: at most /30 or /126. The first host in it is the
    /// proxy's own; the network's own address and, in IPv4, that of broadcast are never given away. ICMP to the proxy's
    /// own address, and questions to it where it is a [name server](Self::dns), always leave; everything else to it is
    /// for the rules to allow.
    pub fn pool(mut self, prefix: impl Into<IpNet>) -> Self {
        self.pools.prefixes.push(prefix.into());
        self
    }

    /// The lengths of the prefixes that clients get who wish for nothing. Default: 32 and 128, single addresses.
    pub fn prefix_len(mut self, v4: u8, v6: u8) -> Self {
        (self.pools.prefix_len_v4, self.pools.prefix_len_v6) = (v4, v6);
        self
    }

    /// The lengths of the largest prefixes that a client may wish for. Default: 32 and 128, single addresses.
    pub fn prefix_len_min(mut self, v4: u8, v6: u8) -> Self {
        (self.pools.prefix_len_min_v4, self.pools.prefix_len_min_v6) = (v4, v6);
        self
    }

    /// Prefixes of one tunnel at most, up to 512. Default: 8. Further requests are refused as RFC 9484 §4.7.2 says.
    pub fn assignments_max(mut self, prefixes: usize) -> Self {
        self.pools.assignments_max = prefixes;
        self
    }

    /// Prefixes of one client at most, in all of its tunnels together: of a client that [has a name](Self::user) or,
    /// without one, of an address of IPv4 or a /64 of IPv6. Default: 16,384. Further requests are refused likewise. A
    /// relay that brings the clients of its own is one client.
    pub fn assignments_per_user_max(mut self, prefixes: usize) -> Self {
        self.pools.assignments_per_user_max = prefixes;
        self
    }

    /// How long addresses are kept for a client that [has a name](Self::user), after its tunnel has ended. Default:
    /// five minutes. When nothing else is left, they are given away before, those first whose tunnel ended longest ago.
    ///
    /// Addresses that nobody has a claim to rest for a minute, unless nothing else is left: packets for the client that
    /// had one are still under way.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.pools.grace = grace;
        self
    }

    /// Whether a client gets an address of each version that there is a pool of without asking. Default: true. The
    /// first request that fits is answered with that address.
    pub fn unprompted(mut self, unprompted: bool) -> Self {
        self.settings.unprompted = unprompted;
        self
    }

    /// Says who the client of a request is, by which addresses are [kept](Self::grace) and [sites](Self::site) told
    /// apart. It runs on the worker thread, and must not block. Default: nobody has a name.
    pub fn user(
        mut self,
        user: impl Fn(&Request) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.identify = Some(Arc::new(user));
        self
    }
}

/// Routes and rules.
impl IpProxyBuilder {
    /// Adds a prefix to what clients are told they can reach who ask for everything. Default: everything in the
    /// versions that there are pools of. Clients that ask for an address, a prefix or a name are told that alone.
    pub fn route(mut self, prefix: impl Into<IpNet>) -> Self {
        self.routes.push(prefix.into());
        self
    }

    /// Adds name servers that clients are told (draft-ietf-masque-connect-ip-dns §3).
    pub fn dns(mut self, config: DnsConfig) -> Self {
        self.settings.dns.push(config);
        self
    }

    /// Adds a prefix of NAT64 that clients are told (the same §4).
    pub fn pref64(mut self, prefix: Ipv6Net) -> Self {
        self.settings.pref64.push(prefix);
        self
    }

    /// Whether clients reach each other, and the networks behind each other. Default: no. Of the rules those that
    /// [deny](Self::deny_rule) hold between clients too.
    pub fn client_to_client(mut self, allowed: bool) -> Self {
        self.settings.client_to_client = allowed;
        self
    }

    /// Networks that may be behind a client, which it may advertise and send from: of the client that
    /// [`user`](Self::user) calls so, or of any for `None`. Routes of a client that are in no site are not believed.
    /// Sites have nothing in common with the pools, nor with the sites of others.
    pub fn site(mut self, user: Option<&str>, prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        self.settings.sites.push(Site {
            user: user.map(Into::into),
            prefixes: prefixes.into_iter().collect(),
        });
        self
    }

    /// Whether destinations outside have to be public unless a rule opens their network. Default: true. It does not
    /// concern the pools and the sites.
    pub fn public_only(mut self, public_only: bool) -> Self {
        self.policy.public_only = public_only;
        self
    }

    /// Adds a rule that allows destinations outside, as [`Proxies::allow_rule`](crate::Proxies::allow_rule) does.
    /// Ports are those of TCP and UDP. Packets show no names: a rule with a name holds for tunnels with the name as
    /// their scope, and says nothing about the packets of others.
    ///
    /// # Errors
    /// The rule, and what is wrong with it.
    pub fn allow_rule(mut self, rule: &str) -> Result<Self, Error> {
        add_rule(&mut self.policy, rule, true)?;
        Ok(self)
    }

    /// Adds a rule that denies, outside and between clients. It wins over those that allow.
    ///
    /// # Errors
    /// As [`allow_rule`](Self::allow_rule).
    pub fn deny_rule(mut self, rule: &str) -> Result<Self, Error> {
        add_rule(&mut self.policy, rule, false)?;
        Ok(self)
    }

    /// The largest packet that the exit takes, in bytes, from 1,280 on: TCP connections of clients are told to send no
    /// larger segments, and it is the MTU of the [interface](Self::tun). Default: 1,500 with an interface, 65,535
    /// without.
    pub fn mtu(mut self, bytes: u16) -> Self {
        self.mtu = Some(bytes.max(MTU_MIN as u16));
        self
    }
}

/// The way out.
impl IpProxyBuilder {
    /// Has packets leave by a TUN interface, to where the kernel routes them, and takes those that the kernel routes
    /// to the pools and [sites](Self::site). The exit is the kernel then, and there is no [`forward`](Self::forward).
    ///
    /// [`build`](Self::build) makes the interface and sets it up: the proxy's own address of each pool with the length
    /// of the pool, routes to the sites, and what the [`TunExit`] says of forwarding and NAT. It takes CAP_NET_ADMIN,
    /// or root. Each worker of the listener has a queue of its own, which it opens with its first tunnel, and for which
    /// it needs the same privilege; a worker that does not get it answers requests with 500 and that reason.
    ///
    /// When the listener has ended, or the last clone of a proxy that never served is dropped, all of that is undone.
    /// What a process leaves behind that was killed is written down in `/run/bauta`, or where the environment variable
    /// `BAUTA_STATE_DIR` says, and undone by whichever proxy or relay is started next in the same network namespace.
    pub fn tun(mut self, tun: TunExit) -> Self {
        self.tun = Some(tun);
        self
    }

    /// Is given every packet that leaves: what clients send to the world outside, and to the proxy's own addresses. The
    /// exit is this hook then, and there is no [`tun`](Self::tun). It
    /// runs on the worker thread of the client, and must not block; what it panics with is logged and counted, and the
    /// packet is lost. Answers go back with [`IpProxyHandle::inject`]. Default: nothing leaves.
    ///
    /// The hop limit of these packets is as the client has set it: whoever routes them takes one off.
    pub fn forward(
        mut self,
        forward: impl Fn(&IpProxyHandle, IpSession, Bytes) + Send + Sync + 'static,
    ) -> Self {
        self.hooks.forward = Some(Arc::new(forward));
        self
    }

    /// Is told what becomes of clients and their packets, on the worker thread of the client; it must not block.
    pub fn events(mut self, events: impl Fn(&IpProxyEvent) + Send + Sync + 'static) -> Self {
        self.hooks.watch = Some(Arc::new(events));
        self
    }

    /// Makes the proxy; with an [interface](Self::tun) it waits for the kernel.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] names the pool, length or site that cannot be used, or the interface whose name or
    /// MTU cannot be; [`ErrorKind::Io`] says what is lacking for the interface: a privilege, `/dev/net/tun`, `nft`,
    /// forwarding in the kernel. Then the system is as it was.
    pub fn build(self) -> Result<IpProxy, Error> {
        let Self {
            pools: config,
            routes,
            mut settings,
            mut policy,
            identify,
            mtu,
            hooks,
            tun,
        } = self;
        if config.prefixes.is_empty() {
            return Err(wrong("no addresses to give: call IpProxyBuilder::pool"));
        }
        for (name, value, limit) in [
            (
                "assignments_max",
                config.assignments_max,
                &limits::IP_ASSIGNMENTS,
            ),
            (
                "assignments_per_user_max",
                config.assignments_per_user_max,
                &limits::IP_ASSIGNMENTS_PER_USER,
            ),
        ] {
            if !i64::try_from(value).is_ok_and(|value| limit.range().contains(&value)) {
                let (min, max) = (limit.min, limit.max);
                return Err(wrong(format!("{name}: {value} is not from {min} to {max}")));
            }
        }
        if routes.len() > ROUTES_MAX {
            let count = routes.len();
            return Err(wrong(format!("{count} routes, {ROUTES_MAX} at most")));
        }
        if tun.is_some() && hooks.forward.is_some() {
            return Err(wrong(
                "packets leave by forward, or by tun: there is one way",
            ));
        }
        let behind = settings.sites.iter().flat_map(|site| &site.prefixes);
        let behind: Vec<IpNet> = behind.copied().collect();
        if let Some(prefix) = behind.iter().find(|prefix| **prefix != prefix.trunc()) {
            return Err(wrong(format!(
                "site {prefix} has bits behind its prefix length"
            )));
        }
        // Whoever could send from there could pass for somebody else (BCP 38).
        if let Some((site, other)) = overlapping_site(&config.prefixes, &settings.sites) {
            return Err(wrong(format!(
                "site {site} overlaps {other}, which belongs to somebody else"
            )));
        }
        settings.inside = config.prefixes.iter().chain(&behind).copied().collect();
        settings.routes = match routes.is_empty() {
            true => ranges(&[
                IpNet::V4(ipnet::Ipv4Net::default()),
                IpNet::V6(Ipv6Net::default()),
            ]),
            false => ranges(&routes),
        };
        let mtu = mtu.unwrap_or(match tun {
            Some(_) => limits::TUN_MTU_DEFAULT,
            None => u16::MAX,
        });
        settings.mtu = usize::from(mtu);
        let pools = Pools::new(&config).map_err(wrong)?;
        policy.gateways = pools.gateway_addresses().to_vec();
        if settings.client_to_client {
            policy.inside.clone_from(&settings.inside);
        }
        settings.policy = Arc::new(policy);
        // Last, when nothing else can fail.
        let open = |tun: TunExit| {
            let own = pools.gateway_addresses().iter().zip(&config.prefixes);
            let facts = Facts {
                mtu,
                gateways: own
                    .filter_map(|(own, pool)| of_length(*own, *pool))
                    .collect(),
                behind,
                client_to_client: settings.client_to_client,
            };
            Interface::open(&tun, facts).map_err(not_started)
        };
        let interface = tun.map(open).transpose()?;
        Ok(IpProxy {
            exit: Arc::new(Exit::new(settings, pools, hooks, interface)),
            identify,
        })
    }
}

/// An address of a pool, with its length.
fn of_length(address: IpAddr, pool: IpNet) -> Option<IpNet> {
    IpNet::new(address, pool.prefix_len()).ok()
}

impl fmt::Debug for IpProxyBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IpProxyBuilder")
            .field("pools", &self.pools)
            .field("routes", &self.routes)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// A network of a site that is also, in part, a pool or a network of another user.
fn overlapping_site<'a>(pools: &[IpNet], sites: &'a [Site]) -> Option<(IpNet, IpNet)> {
    let owned = |site: &'a Site| {
        site.prefixes
            .iter()
            .map(move |it| (*it, site.user.as_deref()))
    };
    let owned: Vec<_> = sites.iter().flat_map(owned).collect();
    owned.iter().find_map(|(prefix, user)| {
        let others = owned.iter().filter(|(_, of)| of != user);
        let mut others = pools.iter().chain(others.map(|(other, _)| other));
        let other = others.find(|other| overlap(other, prefix))?;
        Some((*prefix, *other))
    })
}

fn wrong(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Configuration, Side::Local).with_source(what)
}
