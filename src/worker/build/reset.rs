//! QUIC endpoints that listen: whose stateless resets are theirs (RFC 9000 §10.3).

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use quinn_proto::EndpointConfig;

use crate::transport::quic::options::shared_endpoint_config;
use crate::transport::tls::ListenerTls;

/// The settings of what listens at `address`. With the name of the host, its stateless resets are those of the
/// processes before and after this one.
pub fn listener_endpoint(
    tls: &ListenerTls,
    host: Option<&OsStr>,
    address: SocketAddr,
) -> EndpointConfig {
    let mut shared = shared_endpoint_config();
    // A name that machines have by default tells none of them apart.
    let host = host.filter(|host| !host.is_empty() && *host != "localhost");
    // One key, whichever of its certificates a client was shown.
    if let (Some(first), Some(host)) = (tls.identities.first(), host) {
        shared.reset_key(first.reset_key(host.as_bytes(), address));
    }
    shared
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use quinn_proto::DatagramEvent;

    use super::*;
    use crate::net::clock;
    use crate::net::steer::Steer;
    use crate::transport::quic::options::endpoint_config;
    use crate::transport::tls::DevCa;

    /// How worker `worker` of a process resets the connection of this packet.
    fn reset(shared: &EndpointConfig, steer: Steer, worker: u32, packet: &[u8]) -> Option<Vec<u8>> {
        let config = endpoint_config(shared, steer, worker);
        let mut endpoint = quinn_proto::Endpoint::new(config, None, true, None);
        let (peer, mut reset) = (([192, 0, 2, 1], 443).into(), Vec::new());
        let packet = BytesMut::from(packet);
        let event = endpoint.handle(clock::now(), peer, None, None, packet, &mut reset);
        matches!(event, Some(DatagramEvent::Response(_))).then_some(reset)
    }

    // spec: 9000-10.3-a, 9000-10.3-b, 9000-10.3-d, 9000-21.11-a
    #[test]
    fn the_next_process_resets_as_this_one_announced() {
        let tls: ListenerTls = DevCa::new(&[], std::time::SystemTime::UNIX_EPOCH)
            .unwrap()
            .identity
            .into();
        let (host, address) = (Some(OsStr::new("alpha")), ([192, 0, 2, 1], 443).into());
        let packet = [0x40; 100];
        let token = |reset: Vec<u8>| {
            assert!((21..packet.len()).contains(&reset.len()), "{}", reset.len());
            assert_eq!(reset[0] & 0xc0, 0x40);
            reset[reset.len() - 16..].to_vec()
        };
        let alone = Steer::new([0; 4], 1);
        let one = |shared: &EndpointConfig| token(reset(shared, alone, 0, &packet).unwrap());
        let announced = one(&listener_endpoint(&tls, host, address));

        // Other keys for steering, another number of workers: one of them answers.
        let again = listener_endpoint(&tls, host, address);
        let steer = Steer::new([1, 2, 3, 4], 5);
        let resets: Vec<_> = (0..5)
            .filter_map(|worker| reset(&again, steer, worker, &packet))
            .collect();
        let tokens: Vec<_> = resets.into_iter().map(token).collect();
        assert_eq!(tokens, std::slice::from_ref(&announced));

        // Nobody else can: another listener, one that shares its address, what dials.
        let other = listener_endpoint(&tls, host, ([192, 0, 2, 1], 444).into());
        let sharing = listener_endpoint(&tls, None, address);
        for stranger in [other, sharing, shared_endpoint_config()] {
            assert_ne!(one(&stranger), announced);
        }
    }
}
