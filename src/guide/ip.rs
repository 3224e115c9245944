//! Chapter 9: IP tunnels.
//!
//! ```text
//!   IpTunnel ── whole packets of IPv4 and IPv6 ──► IpProxy ─┬─► TUN, or your hook ─► the world
//!      └─────── addresses, routes, name servers ◄───┘       └─► another client, the network behind one
//! ```
//!
//! CONNECT-IP (RFC 9484) carries whole packets: a VPN, or a link between two sites. Where a UDP tunnel has a target,
//! an IP tunnel has a [`Scope`]: the part of the network that it shall reach, an address, a prefix, a name, or `*` for
//! everything that the relay offers.
//!
//! # A client with addresses
//!
//! The relay assigns addresses, and says what can be reached. [`IpTunnel::assigned`] waits for the first,
//! [`IpTunnel::ip_info`] has everything that is known.
//!
//! ```
//! use bauta::{Client, Identity, IpProxy, Listener, Trust};
//! use ipnet::IpNet;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let proxy = IpProxy::builder().pool("10.89.0.0/24".parse::<IpNet>()?).build()?;
//! # let (identity, ca_pem) = Identity::development(&[])?;
//! # let relay = Listener::all(([127, 0, 0, 1], 0)).identity(identity).handler(proxy).start()?;
//! # let url = format!("https://{}", relay.local_addr());
//! let client = Client::builder(url).trust(Trust::pem(ca_pem)).build()?;
//! let tunnel = client.ip_blocking("*")?;
//! let assigned = tunnel.assigned_blocking()?;
//! let pool: IpNet = "10.89.0.0/24".parse()?;
//! assert!(pool.contains(&assigned[0].prefix));
//!
//! let info = tunnel.ip_info().ok_or("not open")?;
//! assert!(info.mtu >= 1_280);
//! # Ok(())
//! # }
//! ```
//!
//! A relay that assigns nothing by itself is asked: [`IpTunnel::request_addresses`] gives the ids of the requests, and
//! the answers come under these ids. Both ends may do all of this. [`IpTunnel::recv_ip_event`] tells what the other
//! one says, or [`Events`](crate::Events) do, as [`Event::Ip`](crate::Event::Ip). Addresses, packets and these events
//! can be waited for with a timeout.
//!
//! Packets are yours to make: addresses, checksums and hop limit go out as they are. One that is larger than the
//! [MTU](crate::IpInfo::mtu) is an error with both sizes; the MTU follows the path and is never below 1,280, and
//! [`IpEvent::Mtu`](crate::IpEvent::Mtu) tells of each change. What the network has to say about a packet comes as
//! ICMP, as everywhere. Linux has interfaces for programs (TUN) to fetch packets from; a client's own, with all routes
//! of a machine in it, is the business of `bauta tun`.
//!
//! # A relay with a hook
//!
//! [`IpProxy`] is the handler. It has pools, gives addresses, checks every packet by source, destination and protocol,
//! and hands those that leave to [`forward`](crate::IpProxyBuilder::forward). What comes back from outside goes in by
//! [`IpProxyHandle::inject`](crate::IpProxyHandle::inject), to whoever has the destination. This one sends everything
//! back where it came from, with source and destination changed over:
//!
//! ```
//! use bauta::{Client, Identity, IpProxy, Listener, Proxies, Trust};
//! use ipnet::IpNet;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let proxy = IpProxy::builder()
//!     .pool("10.89.0.0/24".parse::<IpNet>()?)
//!     .forward(|relay, _session, packet| {
//!         let mut answer = packet.to_vec();
//!         if answer[0] == 0x45 {
//!             // Changing the two over leaves the checksum as it is.
//!             let (source, destination) = (packet.slice(12..16), packet.slice(16..20));
//!             answer[12..16].copy_from_slice(&destination);
//!             answer[16..20].copy_from_slice(&source);
//!             relay.inject(answer).ok();
//!         }
//!     })
//!     .build()?;
//! let handle = proxy.handle();
//! let (identity, ca_pem) = Identity::development(&[])?;
//! let relay = Listener::all(([127, 0, 0, 1], 0))
//!     .identity(identity)
//!     .handler(Proxies::new().ip(proxy))
//!     .start()?;
//!
//! # let url = format!("https://{}", relay.local_addr());
//! # let client = Client::builder(url).trust(Trust::pem(ca_pem)).build()?;
//! let tunnel = client.ip_blocking("*")?;
//! let own = tunnel.assigned_blocking()?[0].prefix.addr();
//! assert!(handle.session_of(own).is_some());
//! # let std::net::IpAddr::V4(v4) = own else { unreachable!() };
//! # let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9];
//! # packet[12..16].copy_from_slice(&v4.octets());
//! tunnel.send_ip_packet_blocking(packet)?;
//! let answer = tunnel.recv_blocking()?;
//! assert_eq!(answer[12..16], [9, 9, 9, 9]);
//! assert_eq!(handle.stats().packets_forwarded, 1);
//! # Ok(())
//! # }
//! ```
//!
//! Destinations outside have to be public unless rules open them, as everywhere in this library; pings of the proxy's
//! own addresses, the first of each pool, always reach the hook. A packet that may not pass is dropped, its sender told
//! by ICMP, and the drop counted by [reason](crate::DropReason) and reported to
//! [`events`](crate::IpProxyBuilder::events).
//!
//! Rules that deny hold between clients as well. A rule with a name holds for tunnels whose scope is that name, and for
//! no packets of others: packets have addresses alone. One client gets up to 16,384 addresses in all of its tunnels,
//! which [`assignments_per_user_max`](crate::IpProxyBuilder::assignments_per_user_max) changes; who is one client,
//! [`user`](crate::IpProxyBuilder::user) says, or else the address that requests come from.
//!
//! # A relay with an interface
//!
//! Most relays let the kernel route, as `bauta relay` does: packets leave by a TUN interface, and come back by it. The
//! proxy makes the interface, gives it its own address of each pool, leads the pools and the sites to it, switches
//! forwarding on and installs NAT where it is told to, and undoes all of it when the listener ends.
//!
//! ```no_run
//! use bauta::{Identity, IpProxy, Listener, Proxies, TunExit};
//! use ipnet::IpNet;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let proxy = IpProxy::builder()
//!     .pool("10.89.0.0/16".parse::<IpNet>()?)
//!     .pool("fd89::/64".parse::<IpNet>()?)
//!     .tun(TunExit::new("bauta%d").forwarding(true).nat(true))
//!     .build()?;
//! println!("clients leave by {:?}", proxy.handle().interface());
//! let relay = Listener::all(([0, 0, 0, 0], 443))
//!     .identity(Identity::load("chain.pem", "key.pem")?)
//!     .handler(Proxies::new().ip(proxy))
//!     .start()?;
//! # relay.stop_blocking();
//! # Ok(())
//! # }
//! ```
//!
//! It takes CAP_NET_ADMIN, or root, and `nft` for NAT; [`build`](crate::IpProxyBuilder::build) says which of them is
//! lacking. The workers have a queue of the interface each, and many packets of a flow cross it as one
//! ([`TunExit::offload`](crate::TunExit::offload)). Every check of packets is made as with a hook, by the same rules.
//!
//! # Site to site
//!
//! A client may have a network behind it. It advertises the network, and the proxy believes it where a
//! [`site`](crate::IpProxyBuilder::site) says so:
//!
//! ```
//! # use bauta::{Client, Identity, IpProxy, Listener, Request, Trust};
//! # use ipnet::IpNet;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let user = |request: &Request| {
//!     // In earnest: what a certificate or a token says.
//!     Some(request.headers().get("x-site")?.to_str().ok()?.to_owned())
//! };
//! let proxy = IpProxy::builder()
//!     .pool("10.89.0.0/24".parse::<IpNet>()?)
//!     .user(user)
//!     .site(Some("north"), ["10.1.0.0/16".parse()?])
//!     .site(Some("south"), ["10.2.0.0/16".parse()?])
//!     .client_to_client(true)
//!     .build()?;
//! # let (identity, ca_pem) = Identity::development(&[])?;
//! # let relay = Listener::all(([127, 0, 0, 1], 0)).identity(identity).handler(proxy).start()?;
//! # let client = Client::builder(format!("https://{}", relay.local_addr())).trust(Trust::pem(ca_pem)).build()?;
//! let site = |name: &str, network: &str| -> Result<_, Box<dyn std::error::Error>> {
//!     let tunnel = client.connect_ip("*").header("x-site", name).ip_blocking()?;
//!     tunnel.assigned_blocking()?;
//!     tunnel.advertise_routes_blocking(vec![network.parse::<IpNet>()?.into()])?;
//!     Ok(tunnel)
//! };
//! let (north, south) = (site("north", "10.1.0.0/16")?, site("south", "10.2.0.0/16")?);
//! # let packet = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 1, 0, 0, 10, 1, 0, 7, 10, 2, 0, 7];
//! # // The relay hears of the routes in its own time.
//! # let heard = || -> Result<_, bauta::Error> {
//! #     north.send_ip_packet_blocking(packet.to_vec())?;
//! #     south.recv_timeout_blocking(std::time::Duration::from_millis(100))
//! # };
//! # let received = (0..100).find_map(|_| heard().transpose()).expect("a packet within ten seconds")?;
//! // A packet from 10.1.0.7 to 10.2.0.7 goes in at one end and comes out at the other.
//! assert_eq!(received[16..20], [10, 2, 0, 7]);
//! # Ok(())
//! # }
//! ```
//!
//! # Sessions
//!
//! Where the tunnel shall end in your code and the proxy does too much, a [`Session`](crate::Session) takes packets in
//! [`on_packet`](crate::Session::on_packet) and everything else in [`on_ip_event`](crate::Session::on_ip_event). It
//! says what can be reached with [`Actions::advertise_routes`](crate::Actions::advertise_routes), and addresses with
//! [`Actions::assign_addresses`](crate::Actions::assign_addresses); packets to or from elsewhere do not reach it.
//!
//! # A server of your own
//!
//! Under hyper or h2 an [`Embedding`](crate::Embedding) carries IP tunnels too, on the streams of your server: to an
//! [`IpProxy`], a session, or a chain.
//!
//! # Chains
//!
//! A [`Chain`](crate::Chain) passes IP tunnels when [told to](crate::Chain::ip): addresses, routes and packets are
//! then the business of the relay behind it. Nested relays carry IP tunnels as they carry all others.
//!
//! [`IpProxy`]: crate::IpProxy
//! [`IpTunnel::assigned`]: crate::IpTunnel::assigned
//! [`IpTunnel::ip_info`]: crate::IpTunnel::ip_info
//! [`IpTunnel::recv_ip_event`]: crate::IpTunnel::recv_ip_event
//! [`IpTunnel::request_addresses`]: crate::IpTunnel::request_addresses
//! [`Scope`]: crate::Scope
