//! The reference surface through the public interface alone: a test, or several, for each row, over every carrier where
//! the carrier matters. A test's name begins with its row.
//!
//! | Row | Item | Tests |
//! |---|---|---|
//! | connect/2 | `Client::{udp, tcp}` | `connect::connect_2…` |
//! | connect/3, all options | `ClientBuilder`, `Connect` | `connect::connect_3…` |
//! | send/2 | `UdpTunnel::send`, writing to a `TcpTunnel` | `tunnels::send_2…` |
//! | send/3 | `UdpTunnel::send_with_context` | `tunnels::send_3…` |
//! | recv/2 | `UdpTunnel::recv_timeout` and its siblings | `tunnels::recv_2…` |
//! | set_mode | `set_mode`, `Mode`, `Events` | `tunnels::set_mode…` |
//! | send_capsule | `send_capsule`, `recv_capsule` | `tunnels::send_capsule…` |
//! | shutdown_write | `TcpTunnel::shutdown_write`, `ShutdownError` | `tunnels::shutdown_write…` |
//! | close | `close` | `tunnels::close…` |
//! | info | `Info` | `tunnels::info…` |
//! | version | `version`, `VERSION` | `tunnels::version…` |
//! | owner messages | `Event` | `tunnels::owner_messages…` |
//! | monitoring | `closed`, `CloseReason`, dropping | `tunnels::monitoring…` |
//! | start/stop listener h3, h2, h1 | `Listener`, `ListenerBuilder` | `server::start_and_stop_listener_h3`, `_h2`, `_h1` |
//! | chain listener h3, h2, h1 | `Chain` | `server::chain_listener_h3`, `_h2`, `_h1` |
//! | h3 handler for a user-owned server | `Embedding` | `embedding::h3_handler…` |
//! | h2 handler for a user-owned server | `Embedding` | `embedding::h2_handler…`, `h1_handler…` |
//! | handler callbacks | `Session`, `Accept::init` | `handlers::handler_callbacks…`, `handler_init…` |
//! | all actions | `Actions`, `TunnelHandle` | `handlers::handler_actions…` |
//! | request map | `Request` | `server::request_map…` |
//! | built-in UDP handler | `UdpProxy` | `builtin::udp_handler…` |
//! | built-in TCP handler | `TcpProxy` | `builtin::tcp_handler…` |
//! | allow, resolver, family, socket options, connect timeout | `Proxies` and both | `builtin::built_in…` |
//! | chain handler: upstream URI and options, pool, timeout | `Chain` | `builtin::chain_handler…` |
//! | reject with extra headers | `Reject` | `server::reject…` |
//! | the client's answer by request headers | `Connect::header`, `Error::headers` | `server::reject_with…` |
//! | requests that are no tunnels | `ListenerBuilder::fallback` | `server::fallback…` |
//! | connect_ip | `Client::ip`, `Client::connect_ip`, `Scope` | `ip::connect_ip…` |
//! | send_ip_packet | `IpTunnel::send_ip_packet` and its siblings | `ip::send_ip_packet…` |
//! | recv, recv/1 of packets | `IpTunnel::recv` and its siblings, `Events` | `ip::recv…`, `ip::set_mode…` |
//! | request_addresses, assign_addresses | the same of `IpTunnel`, `Actions`, `TunnelHandle` | `ip::addresses…` |
//! | advertise_routes | the same | `ip::routes…` |
//! | DNS_ASSIGN, PREF64 | `assign_dns`, `assign_pref64` | `ip::names…` |
//! | send_capsule on IP tunnels | `IpTunnel::send_capsule` | `ip::send_capsule…` |
//! | ip_info | `IpTunnel::ip_info`, `IpInfo` | `ip::ip_info…` |
//! | monitoring of IP tunnels | `closed`, `CloseReason` | `ip::monitoring…` |
//! | built-in IP handler: pools, delegation, exhaustion, grace | `IpProxy` | `ip_proxy::pools…` |
//! | forward hook, injection, look-up, events, counters | `IpProxyHandle`, `IpProxyEvent` | `ip_proxy::exit…` |
//! | sites, clients among each other | `IpProxyBuilder` | `ip_proxy::clients…` |
//! | one proxy per listener; chain | `IpProxy`, `Chain::ip` | `ip_proxy::one…`, `ip_proxy::chain…` |
//! | any executor, Send + Sync, threads that end | all handles | `runtimes::…` |

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test names what it waits for, and everything else is a failure"
)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod builtin;
mod connect;
mod embedding;
mod embedding_ip;
mod handlers;
mod ip;
mod ip_path;
mod ip_proxy;
#[path = "../support/packets.rs"]
mod packets;
mod runtimes;
mod server;
mod sessions;
mod tunnels;
mod world;
