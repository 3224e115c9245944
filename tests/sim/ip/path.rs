//! The MTU of a tunnel follows the path of the connection that carries it, and both users hear of it.

use std::time::Instant;

use bauta::client::RouteId;
use bauta::worker::{HandlerEvent, LocalEvent, Machine};

use crate::net::{Link, World};
use crate::sim::ms;

use super::*;

/// A capsule that says what a handler was told.
const TOLD: CapsuleType = CapsuleType(0x2a2a);

/// Takes every tunnel, and tells its client what the MTU of its own side is.
fn says_its_mtu(
    now: Instant,
    event: HandlerEvent,
    machine: &mut Machine,
    _: Option<RouteId>,
    out: &mut World<'_>,
) {
    match event {
        HandlerEvent::Request(id, _) => machine.accept_request(now, id, out),
        HandlerEvent::End(LocalEvent::Ip(id, IpEvent::Mtu(mtu))) => {
            let info = machine.ip_info(id, End::Upstream);
            assert_eq!(info.map(|info| info.mtu), Some(mtu));
            let value = mtu.to_string();
            machine.send_capsule(now, id, End::Upstream, TOLD, value.as_bytes());
        }
        HandlerEvent::End(_) | HandlerEvent::Fallback(..) | HandlerEvent::Gateway(_) => {}
    }
}

impl Scene {
    /// Packets of all sizes for a while: QUIC notices the path by what gets lost.
    fn fill(&mut self, own: IpAddr) {
        let (client, tunnel) = (self.client, self.tunnel);
        for round in 0..1_000 {
            let len = match round % 2 {
                0 => 1_280,
                _ => self.mtu(),
            };
            let out = packet(own, ip(WORLD), UDP, len);
            self.sim.act(client, |node, net| {
                let now = net.now;
                let world = &mut net.world(client);
                node.machine.send_local(now, tunnel, out, world);
            });
            self.sim.run_for(ms(5));
        }
        self.sim.run_for(secs(5));
    }

    fn mtu(&mut self) -> usize {
        let tunnel = self.tunnel;
        let info = self.sim.act(self.client, |node, _| {
            node.machine.ip_info(tunnel, End::Downstream)
        });
        info.expect("an open tunnel").mtu
    }

    /// The sizes that the client has heard of, one after the other.
    fn heard(&self) -> Vec<usize> {
        let heard = self.sim.tunnel(self.client, self.tunnel).ip.iter();
        let sizes = heard.filter_map(|event| {
            let IpEvent::Mtu(mtu) = event else {
                return None;
            };
            Some(*mtu)
        });
        sizes.collect()
    }

    fn set_mtu(&mut self, mtu: usize) {
        let link = Link {
            mtu,
            ..self.sim.net.link
        };
        let (client, egress) = (self.client, self.egress);
        self.sim.net.set_link(client, egress, link);
    }
}

#[test]
fn the_client_hears_of_a_path_that_shrinks_and_grows() {
    let mut scene = Scene::direct(Carrier::H3);
    let own = scene.address();
    scene.sim.run_for(secs(5));
    let wide = scene.mtu();

    scene.set_mtu(1_370);
    scene.fill(own);
    let narrow = scene.mtu();
    assert!(narrow < wide, "{narrow}");
    assert_eq!(scene.heard().last(), Some(&narrow));
    let longest = packet(own, ip(WORLD), UDP, narrow);
    scene.send(longest.clone());
    assert_eq!(scene.left().last(), Some(&longest));

    scene.set_mtu(1_472);
    // QUIC looks again after ten minutes.
    scene.sim.run_for(secs(700));
    scene.fill(own);
    assert_eq!(scene.mtu(), wide);
    let heard = scene.heard();
    assert_eq!(heard.last(), Some(&wide));
    assert!(heard.windows(2).all(|two| two[0] != two[1]), "{heard:?}");
}

/// What makes no difference for packets is told to nobody: TCP carries any size, however narrow the path is.
#[test]
fn what_makes_no_difference_is_not_told() {
    for carrier in [Carrier::H2, Carrier::H1] {
        let mut scene = Scene::direct(carrier);
        let own = scene.address();
        scene.set_mtu(1_370);
        scene.fill(own);
        assert_eq!(scene.heard(), Vec::<usize>::new(), "{carrier}");
    }
}

/// A handler at the other end has an MTU of its own, that of the way back.
#[test]
fn a_handler_hears_of_it_too() {
    let mut sim = Sim::new(9);
    let egress = sim.relay_with("egress.test", &[], |settings| {
        settings.handler = Some(says_its_mtu);
    });
    let hops = vec![hop_on("egress.test", &[Carrier::H3])];
    let client = sim.client_with_hops(hops, |settings| settings.checked.quic.initial_mtu = 1_400);
    let tunnel = open(&mut sim, client, Scope::default());
    let mut scene = Scene {
        sim,
        client,
        egress,
        tunnel,
    };
    scene.sim.run_for(secs(10));
    assert!(scene.sim.tunnel(client, tunnel).is_open());
    let told = |scene: &Scene| -> Vec<usize> {
        let told = scene.sim.tunnel(client, tunnel).capsules.iter();
        let texts = told.map(|(_, value)| std::str::from_utf8(value).expect("a number"));
        texts.map(|text| text.parse().expect("a number")).collect()
    };
    let wide = scene.mtu();
    assert_eq!(told(&scene).last(), Some(&wide), "{:?}", told(&scene));
}
