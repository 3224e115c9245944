//! Who is at the other end.

use super::*;
use crate::transport::tls::{ClientAuth, ListenerTls};

/// A server that asks for certificates, and a client of it that shows one or not.
fn connected(shows: bool) -> (Pair, DevCa, ConnectionId) {
    #[expect(clippy::disallowed_methods, reason = "certificates have dates")]
    let authority = DevCa::new(&["relay.test"], SystemTime::now()).unwrap();
    let listener = ListenerTls {
        client_auth: ClientAuth::Optional(authority.ca_pem.clone()),
        ..authority.identity.clone().into()
    };
    let tls = listener.quic_config(false).unwrap();
    let server = server_with(tls, options().server_transport());
    let mut pair = Pair::with(End::new([192, 0, 2, 1], limits(), Some(server)));
    let tls = ClientTls {
        identity: shows.then(|| authority.identity.clone()),
        ..ClientTls::new(Trust::Pem(authority.ca_pem.clone()))
    };
    let mut config = ClientConfig::new(quic_client(client_config(&tls).unwrap()).unwrap());
    config.transport_config(options().client_transport(false));
    let (endpoint, link) = (pair.client.endpoint, Link::Socket(SOCKET));
    let hub = &mut pair.client.hub;
    let to = pair.server.address;
    let id = hub
        .connect(pair.now, endpoint, config, to, "relay.test", link)
        .unwrap();
    pair.exchange();
    assert!(pair.client.is_connected(id));
    (pair, authority, id)
}

#[test]
fn peers_are_known_by_address_and_certificate() {
    for shows in [true, false] {
        let (mut pair, authority, id) = connected(shows);
        // Nothing of TLS is left at the server, except for this.
        pair.pass(Duration::from_secs(1));
        let chain = authority.identity.chain();
        let served = pair.server.hub.connections().next().unwrap();
        assert_eq!(pair.client.hub.peer_certificate(id).as_ref(), chain.first());
        assert_eq!(
            pair.server.hub.peer_certificate(served).as_ref(),
            chain.first().filter(|_| shows)
        );
        let addresses = (pair.client.address, pair.server.address);
        assert_eq!(pair.server.hub.peer_address(served), Some(addresses.0));
        assert_eq!(pair.client.hub.peer_address(id), Some(addresses.1));
    }
}
