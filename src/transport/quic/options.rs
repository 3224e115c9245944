//! From configuration to quinn-proto's settings: one place for every number that makes QUIC fast or slow.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::congestion::{BbrConfig, ControllerFactory, CubicConfig, NewRenoConfig};
use quinn_proto::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
};

use super::cid::SteeredCids;
use super::credit;
use crate::config::{Congestion, Quic};
use crate::net::steer::Steer;

/// Control and QPACK streams, and as many again for extensions (RFC 9114 §6.2 asks for at least three).
const UNI_STREAMS: u32 = 8;
/// What a path may carry over one tunnel more at most: no link needs it larger.
const UDP_PAYLOAD_MAX: u16 = 65_527;
/// Smallest MTU of QUIC (RFC 9000 §14).
const MTU_MIN: u16 = 1_200;
/// What our first datagram to a next hop is padded to. Servers on quiche, Envoy among them, send no packet larger
/// than it, and a UDP payload of 1,200 bytes needs 1,241. Browsers show that nearly all paths carry 1,250.
const FIRST_DATAGRAM: u16 = 1_250;
/// How close the search for the MTU of a path comes to it. quinn-proto's 20 leaves a path of 1,260 bytes at 1,231,
/// and then no QUIC connection fits into a tunnel: its smallest packets need 1,241.
const MTU_STEP_MIN: u16 = 5;

/// Shortest time between two stateless resets of a worker on one listener. After a restart each client wants one, and
/// has a connection again the sooner. A reset is smaller than what it answers and costs no more to make, so a flood
/// gains nothing by it, and two ends that reset each other stop after some.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// Settings of connections, as checked configuration.
#[derive(Clone, Debug)]
pub struct Options {
    quic: Quic,
    streams: u32,
}

impl Options {
    /// `streams` is how many requests a client may ever have open on one connection.
    pub fn new(quic: Quic, streams: u32) -> Self {
        Self { quic, streams }
    }

    /// Connections that clients open to us. The stream credit starts low, and a hub raises it to
    /// [`HubLimits::streams_max`](super::HubLimits::streams_max). Keep-alives are theirs to send (RFC 9114 §5.1).
    pub fn server_transport(&self) -> Arc<TransportConfig> {
        let mut transport = self.transport();
        transport.max_concurrent_bidi_streams(credit::initial(self.streams).into());
        Arc::new(transport)
    }

    /// Connections that we open over a socket. `small_path` is for one that swallows what is larger than QUIC's
    /// smallest MTU.
    pub fn client_transport(&self, small_path: bool) -> Arc<TransportConfig> {
        let mut transport = self.transport();
        if !small_path {
            let padded = FIRST_DATAGRAM.min(self.quic.initial_mtu);
            transport.min_mtu(padded.max(self.quic.min_mtu));
        }
        transport.max_concurrent_bidi_streams(0u32.into());
        transport.keep_alive_interval(Some(self.quic.keep_alive));
        Arc::new(transport)
    }

    /// Connections that we open inside a tunnel whose datagrams carry `room` bytes of UDP payload now.
    ///
    /// The tunnel is the path: its size is known, so nothing is gained by starting lower or probing higher.
    pub fn nested_transport(&self, room: usize) -> Arc<TransportConfig> {
        let room = u16::try_from(room)
            .unwrap_or(u16::MAX)
            .clamp(MTU_MIN, UDP_PAYLOAD_MAX);
        let mut transport = self.transport();
        transport.max_concurrent_bidi_streams(0u32.into());
        transport.keep_alive_interval(Some(self.quic.keep_alive));
        transport.min_mtu(MTU_MIN).initial_mtu(room);
        let mut discovery = self.discovery();
        discovery.upper_bound(room);
        transport.mtu_discovery_config(Some(discovery));
        Arc::new(transport)
    }

    fn transport(&self) -> TransportConfig {
        let quic = &self.quic;
        let congestion: Arc<dyn ControllerFactory + Send + Sync> = match quic.congestion {
            Congestion::Cubic => Arc::new(CubicConfig::default()),
            Congestion::Bbr => Arc::new(BbrConfig::default()),
            Congestion::NewReno => Arc::new(NewRenoConfig::default()),
        };
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_uni_streams(UNI_STREAMS.into())
            .max_idle_timeout(Some(idle_timeout(quic.idle_timeout)))
            .stream_receive_window(quic.stream_receive_window.into())
            .receive_window(quic.receive_window.into())
            .send_window(quic.send_window.into())
            .min_mtu(quic.min_mtu)
            .initial_mtu(quic.initial_mtu)
            .mtu_discovery_config(Some(self.discovery()))
            .datagram_send_buffer_size(quic.datagram_send_buffer)
            .datagram_receive_buffer_size(Some(quic.datagram_receive_buffer))
            .congestion_controller_factory(congestion);
        if let Some(threshold) = quic.ack_frequency_threshold {
            let mut acks = AckFrequencyConfig::default();
            acks.ack_eliciting_threshold(threshold.into());
            transport.ack_frequency_config(Some(acks));
        }
        transport
    }

    fn discovery(&self) -> MtuDiscoveryConfig {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery
            .upper_bound(self.quic.mtu_upper_bound)
            .minimum_change(MTU_STEP_MIN)
            .black_hole_cooldown(self.quic.mtu_black_hole_cooldown);
        discovery
    }
}

fn idle_timeout(timeout: Duration) -> IdleTimeout {
    IdleTimeout::try_from(timeout).unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX))
}

/// The endpoint settings that all workers share. The key of stateless resets is a random one, which ends with the
/// process: what dials needs no other, as whoever listens asks nobody to come back.
pub fn shared_endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.min_reset_interval(RESET_INTERVAL);
    config
}

/// The endpoint settings of one worker.
///
/// # Errors
/// None in practice: the receive size is within QUIC's bounds.
pub fn endpoint_config(shared: &EndpointConfig, steer: Steer, worker: u32) -> Arc<EndpointConfig> {
    let mut config = shared.clone();
    config.cid_generator(move || Box::new(SteeredCids::new(steer, worker)));
    config
        .max_udp_payload_size(UDP_PAYLOAD_MAX)
        .expect("65,527 is within the bounds of RFC 9000");
    Arc::new(config)
}
