//! One machine, built from the defaults of the configuration as `worker::build` does it, with sockets in memory.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bauta::client::{Hop, Pool, Request, RouteId, TunnelKind};
use bauta::config::{self, Environment};
use bauta::handler::Handler;
use bauta::net::steer::Steer;
use bauta::net::{Received, SocketId, Train};
use bauta::policy::Policy;
use bauta::server::{Server, Services};
use bauta::transport::carriers::Carriers;
use bauta::transport::quic::Hub;
use bauta::transport::quic::options::{Options, endpoint_config, shared_endpoint_config};
use bauta::transport::tcp::TcpHub;
use bauta::transport::tls::{DevCa, Trust, quic_server, server_config};
use bauta::tunnel::TunnelId;
use bauta::tunnel::ip::IpEvent;
use bauta::wire::ip::Scope;
use bauta::wire::target::Target;
use bauta::wire::template::{PathTemplate, RelayTemplates};
use bauta::worker::build::{
    RouteOptions, h3_config, hops, hub_limits, ip, machine_limits, pool_limits, tcp_hub_limits,
};
use bauta::worker::{Exit, Gateway, LocalEvent, Machine, Setup, Tag};
use bytes::Bytes;
use quinn_proto::{ServerConfig, crypto};

use crate::network::{Net, NodeId, World};

/// What makes a relay one between its clients.
const BETWEEN_CLIENTS: &str = "
ip.pools = [\"198.18.0.0/15\"]
ip.tun = \"off\"
ip.client_to_client = true
";

/// A machine with its place in the network.
pub(crate) struct Node {
    pub(crate) machine: Machine,
    id: NodeId,
    /// Where the machine's route leads.
    hop: Option<RouteId>,
    is_client: bool,
    inbox: Vec<(SocketId, Tag, Train)>,
    pub(crate) events: Events,
}

/// What the local user of a machine has heard of.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// Tunnels that are open.
    pub(crate) opened: usize,
    /// Addresses of IP tunnels.
    pub(crate) assigned: Vec<(TunnelId, IpAddr)>,
    /// Payloads from targets, or packets from another client.
    pub(crate) delivered: u64,
    /// Their bytes.
    pub(crate) delivered_bytes: u64,
}

impl Events {
    fn note(&mut self, event: &LocalEvent) {
        match event {
            LocalEvent::Opened(_) => self.opened += 1,
            LocalEvent::Payload(_, payload) => {
                self.delivered += 1;
                self.delivered_bytes += payload.len() as u64;
            }
            LocalEvent::Ip(id, IpEvent::Assigned(list)) => {
                self.assigned
                    .extend(list.iter().map(|it| (*id, it.prefix.addr())));
            }
            LocalEvent::Ip(_, IpEvent::Routes(_) | IpEvent::Mtu(_)) => {}
            LocalEvent::Refused(..)
            | LocalEvent::Closed(_, _)
            | LocalEvent::Context(..)
            | LocalEvent::Capsule(..)
            | LocalEvent::Ip(..)
            | LocalEvent::Readable(_)
            | LocalEvent::Writable(_) => {
                panic!("tunnels open and stay open: {event:?}");
            }
        }
    }
}

impl Node {
    /// A relay, which listens. With a next hop it chains, without one it connects to targets.
    pub(crate) fn relay(net: &mut Net, id: NodeId, next: Option<SocketAddr>) -> (Self, SocketAddr) {
        let address = Net::address(net.socket_count());
        net.bind(id, Tag::Listener(0));
        (Self::new(net, id, "", true, next), address)
    }

    /// A relay that passes the IP packets of its clients to each other.
    pub(crate) fn between_clients(net: &mut Net, id: NodeId) -> (Self, SocketAddr) {
        let address = Net::address(net.socket_count());
        net.bind(id, Tag::Listener(0));
        (Self::new(net, id, BETWEEN_CLIENTS, true, None), address)
    }

    /// A client of the relay at `next`.
    pub(crate) fn client(net: &mut Net, id: NodeId, next: SocketAddr) -> Self {
        Self::new(net, id, "", false, Some(next))
    }

    fn new(
        net: &mut Net,
        id: NodeId,
        settings: &str,
        listens: bool,
        next: Option<SocketAddr>,
    ) -> Self {
        // Relays of one name would take a chain for a loop.
        let name = format!("relay-{id}.test");
        let mut environment = Environment::new("/", NonZeroUsize::MIN, name);
        environment.dev_listen = Some(Net::address(0));
        let checked = config::parse(settings, &environment).expect("settings are valid");
        let options = Options::new(checked.quic.clone(), checked.limits.tunnels_per_connection);

        let mut hub = Hub::new(hub_limits(&checked), h3_config(&checked));
        let steer = Steer::new([1, 2, 3, 4], 1);
        let mut endpoint = |server| {
            let mut shared = shared_endpoint_config();
            shared.rng_seed(Some([id as u8; 32]));
            let config = endpoint_config(&shared, steer, 0);
            hub.add_endpoint(quinn_proto::Endpoint::new(config, server, true, None))
        };
        let listeners = if listens {
            vec![endpoint(Some(quic_server_config(&options)))]
        } else {
            Vec::new()
        };
        let dialler = (endpoint(None), net.bind(id, Tag::Dialler));
        let mut pool = Pool::new(pool_limits(&checked), dialler, options);
        let hop = next.map(|next| pool.add_route(hops_to(next)));
        let policy = Policy {
            public_only: false,
            ..Policy::default()
        };
        let gateway = checked.ip.as_ref().map(|of| {
            let settings = Arc::new(ip::settings(of, policy.clone()));
            Gateway::new(settings, ip::pools(of).expect("checked"), 0, Exit::Nowhere)
        });
        let handler = match hop {
            Some(_) => Handler::Chain(policy),
            None => Handler::Direct(policy),
        };
        let services = Services {
            udp: vec![PathTemplate::well_known()],
            tcp: Vec::new(),
            ip: vec![PathTemplate::well_known_ip()],
            classic: false,
        };
        let machine = Machine::new(Setup {
            carriers: Carriers {
                quic: hub,
                tcp: TcpHub::new(tcp_hub_limits(&checked)),
            },
            tcp_listeners: Vec::new(),
            listeners: listeners.into_iter().map(Some).collect(),
            dialler,
            pool,
            route: hop,
            server: Server::new(&checked.name, services, Vec::new(), handler),
            gateway,
            steer: (steer, 0),
            limits: machine_limits(&checked),
        });
        Self {
            machine,
            id,
            hop,
            is_client: !listens,
            inbox: Vec::new(),
            events: Events::default(),
        }
    }

    /// Opens a tunnel to `target`.
    pub(crate) fn open(&mut self, now: Instant, net: &mut Net, target: Target) -> TunnelId {
        let hop = self.hop.expect("a client has a route");
        let world = &mut World {
            net,
            node: self.id,
            counted: false,
        };
        self.machine.open_local(now, hop, target, world)
    }

    /// Opens an IP tunnel on a connection of its own, the `number`th, to the relay at `next`.
    pub(crate) fn open_ip(
        &mut self,
        now: Instant,
        net: &mut Net,
        next: SocketAddr,
        number: u64,
    ) -> TunnelId {
        // Hops that differ in what stands for their trust never share a connection.
        let apart = hops_to(next).into_iter().map(|mut hop| {
            hop.tls_hash = hop.tls_hash.wrapping_add(1 + number);
            hop
        });
        let route = self.machine.add_route(apart);
        let world = &mut World {
            net,
            node: self.id,
            counted: false,
        };
        let request = Request::new(Scope::default(), TunnelKind::Ip);
        self.machine.open_local_request(now, route, request, world)
    }

    /// Sends a payload or a packet; it leaves with the next turn.
    pub(crate) fn send(&mut self, now: Instant, net: &mut Net, tunnel: TunnelId, payload: Bytes) {
        let world = &mut World {
            net,
            node: self.id,
            counted: false,
        };
        self.machine.send_local(now, tunnel, payload, world);
    }

    /// Takes a turn if there is anything to do.
    pub(crate) fn turn(&mut self, now: Instant, net: &mut Net, counted: bool) {
        let Self {
            machine, inbox, id, ..
        } = self;
        net.receive(*id, inbox);
        let due = machine.next_timeout().is_some_and(|due| due <= now);
        // A client may have been given something to send.
        if inbox.is_empty() && !due && !machine.is_busy() && !self.is_client {
            return;
        }
        let world = World {
            net,
            node: *id,
            counted,
        };
        if counted {
            measured_turn(machine, inbox, now, world, &mut self.events);
        } else {
            turn(machine, inbox, now, world, &mut self.events);
        }
    }
}

fn hops_to(relay: SocketAddr) -> Vec<Hop> {
    let relay = RelayTemplates::from_relay_url(&format!("https://{relay}")).expect("an address");
    let hops = hops(RouteOptions::new(vec![relay], Trust::DangerousAnybody));
    hops.expect("nothing is read")
}

/// The region whose instructions are counted, by this name.
#[inline(never)]
fn measured_turn(
    machine: &mut Machine,
    inbox: &mut Vec<(SocketId, Tag, Train)>,
    now: Instant,
    world: World<'_>,
    events: &mut Events,
) {
    turn(machine, inbox, now, world, events);
}

/// What happens from receive call to send call, in the order of `worker::run`.
fn turn(
    machine: &mut Machine,
    inbox: &mut Vec<(SocketId, Tag, Train)>,
    now: Instant,
    mut world: World<'_>,
    events: &mut Events,
) {
    for (socket, tag, train) in inbox.drain(..) {
        machine.handle_received(now, socket, tag, Received::Train(train), &mut world);
    }
    machine.turn(now, &mut world);
    while let Some(event) = machine.poll_local() {
        events.note(&event);
    }
    machine.flush(now, &mut world);
}

fn quic_server_config(options: &Options) -> Arc<ServerConfig> {
    let authority = DevCa::new(&[], SystemTime::UNIX_EPOCH).expect("a name");
    let tls = server_config(&authority.identity, false).expect("a working provider");
    let crypto: Arc<dyn crypto::ServerConfig> = quic_server(tls).expect("AES-128");
    let mut server = ServerConfig::with_crypto(crypto);
    server.transport_config(options.server_transport());
    server.incoming_buffer_size(config::limits::HANDSHAKE_BUFFER_BYTES);
    Arc::new(server)
}
