//! Who gets how much, whose it is afterwards, and what clients may send each other.

use bauta::client::Credentials;
use bauta::policy::auth::{Auth, AuthLimits, AuthOptions, Secrets};

use super::*;

/// The lists of addresses that a tunnel was told, in order.
fn told(sim: &Sim, client: NodeId, tunnel: TunnelId) -> Vec<Vec<AssignedAddress>> {
    let heard = sim.tunnel(client, tunnel).ip.iter();
    let lists = heard.filter_map(|event| {
        let IpEvent::Assigned(list) = event else {
            return None;
        };
        Some(list.clone())
    });
    lists.collect()
}

/// What it was told first; empty if it was refused.
fn first_told(sim: &Sim, client: NodeId, tunnel: TunnelId) -> Vec<AssignedAddress> {
    told(sim, client, tunnel)
        .into_iter()
        .next()
        .unwrap_or_default()
}

/// The tunnels of one user share what one user may have; others are not touched by that.
// spec: 9484-4.7.2-f
#[test]
fn a_user_drains_no_pool_with_many_tunnels() {
    let mut sim = Sim::new(31);
    let config = PoolConfig {
        prefixes: POOLS.map(net).to_vec(),
        assignments_per_user_max: 5,
        ..PoolConfig::default()
    };
    let gateway = (
        Arc::new(gateway_settings()),
        Pools::new(&config).expect("pools"),
    );
    let workers = sim.workers_with("egress.test", 2, |settings| {
        settings.gateway = Some(gateway.clone());
    });
    let client = sim.client(&["egress.test"]);
    let tunnels: Vec<_> = (0..2)
        .map(|_| open(&mut sim, client, Scope::default()))
        .collect();
    sim.run_for(secs(2));
    for tunnel in &tunnels {
        assert_eq!(first_told(&sim, client, *tunnel).len(), 2);
    }
    // One is left: the second request has no answer but the empty address, under its id.
    let ids = sim.act(client, |node, net| {
        let (now, end) = (net.now, (tunnels[0], End::Downstream));
        let wishes = [super::net("10.89.0.77/32"), super::net("10.89.0.78/32")];
        let world = &mut net.world(client);
        node.machine.ip_request_addresses(now, end, &wishes, world)
    });
    let ids = ids.expect("an open tunnel");
    sim.run_for(secs(1));
    let answers = told(&sim, client, tunnels[0]).pop().expect("an answer");
    let answer = |id| {
        let mut answers = answers.iter();
        answers.find(|it| it.request_id == id).map(|it| it.prefix)
    };
    assert_eq!(answer(ids[0]), Some(net("10.89.0.77/32")));
    assert_eq!(answer(ids[1]), Some(net("0.0.0.0/32")));
    let refused = |sim: &Sim| -> u64 {
        let workers = workers.iter();
        workers.map(|it| sim.stats(*it).ip_shares_refused).sum()
    };
    assert_eq!(refused(&sim), 1);
    // A further tunnel would have nothing.
    let third = open(
        &mut sim,
        client,
        Scope {
            target: ScopeTarget::Prefix(net("203.0.113.0/24")),
            protocol: None,
        },
    );
    sim.run_for(secs(2));
    let refusal = sim
        .tunnel(client, third)
        .refused
        .as_ref()
        .map(|(refusal, _)| *refusal);
    assert!(refusal.is_some() && refused(&sim) > 1, "{refusal:?}");
    let other = sim.client(&["egress.test"]);
    let theirs = open(&mut sim, other, Scope::default());
    sim.run_for(secs(2));
    assert_eq!(first_told(&sim, other, theirs).len(), 2);
}

/// Tokens without names are not one user: nobody takes over what another token had.
#[test]
fn every_token_is_a_user_of_its_own() {
    let mut sim = Sim::new(32);
    let mut secrets = Secrets::new(&[7; 32]);
    secrets.add_tokens("sesame\nthyme").expect("two tokens");
    let limits = AuthLimits {
        checks_max: 1,
        verified_max: 1,
        lifetime: secs(60),
    };
    let auth = Auth::new(Arc::new(secrets), AuthOptions::default(), limits);
    let gateway = with_gateway(|_| {});
    sim.relay_with("egress.test", &[], |settings| {
        gateway(settings);
        settings.auth = Some(auth);
    });
    let told: Vec<_> = ["sesame", "thyme", "sesame"]
        .map(|token| {
            let mut hop = hop_on("egress.test", &[Carrier::H3]);
            let text = format!("bearer:{token}");
            let credentials = Credentials::parse(&text, |_| unreachable!());
            hop.credentials = Some(credentials.expect("credentials"));
            let client = sim.client_with_hops(vec![hop], |_| {});
            let tunnel = open(&mut sim, client, Scope::default());
            sim.run_for(secs(2));
            let told = first_told(&sim, client, tunnel);
            sim.act(client, |node, net| {
                let (now, world) = (net.now, &mut net.world(client));
                node.machine.close_local(now, tunnel, world);
            });
            sim.run_for(secs(1));
            told
        })
        .into();
    assert_eq!(told[0].len(), 2);
    assert_ne!(told[0], told[1]);
    assert_eq!(told[0], told[2]);
}

/// Rules that deny hold between clients, by address, port and protocol.
#[test]
fn deny_rules_hold_between_clients() {
    let mut scene = Scene::with(Carrier::H3, Scope::default(), |settings| {
        settings.client_to_client = true;
        settings.policy = Arc::new(Policy {
            allow: vec!["*:443".parse().expect("a rule")],
            deny: ["*:25", "10.89.0.64/26"]
                .map(|rule| rule.parse().expect("a rule"))
                .to_vec(),
            ..Policy::default()
        });
    });
    let hops = vec![hop_on("egress.test", &[Carrier::H2])];
    let other = scene.sim.client_with_hops(hops, |_| {});
    let tunnel = open(&mut scene.sim, other, Scope::default());
    scene.sim.run_for(secs(2));
    let theirs = first_told(&scene.sim, other, tunnel)[0].prefix.addr();
    let asked = scene.sim.act(other, |node, net| {
        let (now, end) = (net.now, (tunnel, End::Downstream));
        let wishes = [super::net("10.89.0.70/32")];
        let world = &mut net.world(other);
        node.machine.ip_request_addresses(now, end, &wishes, world)
    });
    assert!(asked.is_ok());
    scene.sim.run_for(secs(1));
    let own = scene.address();
    let to = |destination, protocol, port: u16| {
        let mut bytes = BytesMut::from(&packet(own, destination, protocol, 60)[..]);
        bytes[22..24].copy_from_slice(&port.to_be_bytes());
        bytes.freeze()
    };
    // Rules that allow are about the world outside.
    for (destination, protocol, port, passes) in [
        (theirs, UDP, 80, true),
        (theirs, UDP, 25, false),
        (theirs, 6, 25, false),
        (theirs, 47, 25, true),
        (theirs, UDP, 80, true),
        (ip("10.89.0.70"), UDP, 80, false),
        (ip("10.89.0.70"), 1, 0, false),
    ] {
        let before = scene.sim.tunnel(other, tunnel).payloads.len();
        scene.send(to(destination, protocol, port));
        let arrived = scene.sim.tunnel(other, tunnel).payloads.len() - before;
        assert_eq!(
            arrived,
            usize::from(passes),
            "{destination} {protocol} {port}"
        );
    }
    assert_eq!(scene.sim.stats(scene.egress).ip_dropped_prohibited, 4);
}

/// A scope with a name has the rules of that name, packet by packet.
#[test]
fn rules_with_names_hold_for_scopes_with_names() {
    let scope = Scope {
        target: ScopeTarget::Name("world.test".into()),
        protocol: None,
    };
    let policy = Policy {
        allow: vec!["world.test:80".parse().expect("a rule")],
        public_only: false,
        ..Policy::default()
    };
    let mut sim = Sim::new(33);
    sim.net.set_name("world.test", Ok(vec![ip(WORLD)]));
    let packets = Arc::new(policy.clone());
    let gateway = with_gateway(|settings| settings.policy = packets);
    let egress = sim.relay_with("egress.test", &[], |settings| {
        gateway(settings);
        settings.policy = policy;
    });
    let client = sim.client_with_hops(vec![hop_on("egress.test", &[Carrier::H3])], |_| {});
    let tunnel = open(&mut sim, client, scope);
    let mut scene = Scene {
        sim,
        client,
        egress,
        tunnel,
    };
    scene.opened("a name with one port");
    let own = scene.address();
    let to = |port: u16| {
        let mut bytes = BytesMut::from(&packet(own, ip(WORLD), UDP, 60)[..]);
        bytes[22..24].copy_from_slice(&port.to_be_bytes());
        bytes.freeze()
    };
    scene.send(to(443));
    scene.send(to(80));
    assert_eq!(scene.left(), [to(80)]);
}

/// Whoever may not reach other clients does not reach them through a translator either.
#[test]
fn a_translator_is_no_way_to_clients() {
    for (client_to_client, passes) in [(false, false), (true, true)] {
        let mut scene = Scene::with(Carrier::H3, Scope::default(), |settings| {
            settings.client_to_client = client_to_client;
            settings.pref64 = vec!["64:ff9b::/96".parse().expect("a prefix")];
        });
        let assigned = scene.assigned();
        let own = assigned.iter().find(|it| it.prefix.addr().is_ipv6());
        let own = own.expect("an address").prefix.addr();
        scene.send(packet(own, ip("64:ff9b::10.89.0.9"), UDP, 100));
        assert_eq!(scene.left().len(), usize::from(passes));
    }
}

/// Nor is it a way to the relay itself, which is no client.
#[test]
fn a_translator_is_no_way_to_the_relay() {
    let mut scene = Scene::with(Carrier::H3, Scope::default(), |settings| {
        settings.client_to_client = true;
        settings.pref64 = vec!["2620:64::/96".parse().expect("a prefix")];
        settings.policy = Arc::new(Policy::default());
    });
    let assigned = scene.assigned();
    let own = assigned.iter().find(|it| it.prefix.addr().is_ipv6());
    let own = own.expect("an address").prefix.addr();
    scene.send(packet(own, ip("2620:64::10.89.0.1"), UDP, 100));
    let to_client = packet(own, ip("2620:64::10.89.0.9"), UDP, 100);
    scene.send(to_client.clone());
    assert_eq!(scene.left(), [to_client]);
}

/// Nobody outside is a client: a packet from there with the source of one is a forgery.
// spec: 9484-11-c
#[test]
fn the_world_does_not_pass_for_a_client() {
    for (client_to_client, passes) in [(false, 2), (true, 4)] {
        let mut scene = Scene::with(Carrier::H3, Scope::default(), |settings| {
            settings.client_to_client = client_to_client;
        });
        let own = scene.address();
        for source in [WORLD, "10.89.0.1", "10.89.0.200"].map(ip) {
            scene.inject(&packet(source, own, UDP, 100));
        }
        scene.inject(&packet(own, own, UDP, 100));
        assert_eq!(scene.received().len(), passes);
        let dropped = scene.sim.stats(scene.egress).ip_dropped_source;
        assert_eq!(dropped, 4 - passes as u64);
    }
}
