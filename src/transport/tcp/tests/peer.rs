//! Who is at the other end.

use super::world::{CLIENT, SERVER, World};
use crate::transport::tcp::{CloseReason, TlsFailure};
use crate::transport::tls::{ClientAuth, ClientTls, Trust, tcp_client_config};
use crate::wire::carrier::Carrier;

#[test]
fn the_peer_is_known() {
    let mut world = World::new();
    let id = world.connect(Carrier::H1);
    let far = world.server.hub.connections().next().unwrap();
    let (near_hub, far_hub) = (&world.client.hub, &world.server.hub);
    assert_eq!(near_hub.peer_address(id), SERVER.parse().ok());
    assert_eq!(far_hub.peer_address(far), CLIENT.parse().ok());
    let chain = world.ca.identity.chain();
    assert_eq!(near_hub.peer_certificate(id).as_ref(), chain.first());
    assert_eq!(far_hub.peer_certificate(far), None);

    let mut world = World::new();
    world.client_auth = ClientAuth::Required(world.ca.ca_pem.clone());
    let tls = ClientTls {
        identity: Some(world.ca.identity.clone()),
        ..ClientTls::new(Trust::DangerousAnybody)
    };
    world.dial(tcp_client_config(&tls, Carrier::H2).unwrap());
    world.run();
    let far = world.server.hub.connections().next().unwrap();
    let shown = world.server.hub.peer_certificate(far);
    assert_eq!(shown.as_ref(), world.ca.identity.chain().first());

    // Whoever shows nothing is told what is missing: certificate_required.
    let mut world = World::new();
    world.client_auth = ClientAuth::Required(world.ca.ca_pem.clone());
    world.dial(world.client_tls(Carrier::H2));
    world.run();
    let alert = CloseReason::Tls(TlsFailure::Alert { id: 116 });
    assert_eq!(world.client.closed(), alert);
}
