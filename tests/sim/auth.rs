//! Who may come in: tokens and passwords on every carrier, what refusals cost, and clients that are asked.

use std::sync::Arc;

use argon2::password_hash::{PasswordHasher, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use bauta::client::{Credentials, TcpForm};
use bauta::http::h3::frame;
use bauta::http::request::RequestHead;
use bauta::policy::auth::{Auth, AuthLimits, AuthOptions, Secrets};
use bauta::tunnel::TunnelId;
use bauta::wire::carrier::Carrier;
use bauta::worker::Residue;
use http::HeaderValue;

use crate::host::{Behaviour, stream_bytes};
use crate::net::NodeId;
use crate::node::hop_on;
use crate::raw::{connect_udp, frame_of, head_frame};
use crate::sim::{Sim, ms, payload, secs};

/// What tunnels carry, and how they are asked for.
const KINDS: [Option<TcpForm>; 4] = [
    None,
    Some(TcpForm::Classic),
    Some(TcpForm::Raw),
    Some(TcpForm::Capsules),
];
const RIGHT_TOKEN: &str = "bearer:sesame";
const RIGHT_PASSWORD: &str = "alice:wonderland";

/// One token and one password; the password costs as little as Argon2 allows.
pub(crate) fn auth() -> Auth {
    let mut secrets = Secrets::new(&[7; 32]);
    secrets.add_tokens("sesame").expect("a token");
    let params = Params::new(8, 1, 1, None).expect("small parameters");
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let salt = SaltString::encode_b64(&[7; 16]).expect("a salt");
    let hash = argon2.hash_password(b"wonderland", &salt).expect("a hash");
    secrets
        .add_passwords(&format!("alice:{hash}"))
        .expect("a line");
    let limits = AuthLimits {
        checks_max: 4,
        verified_max: 10,
        lifetime: secs(60),
    };
    Auth::new(Arc::new(secrets), AuthOptions::default(), limits)
}

struct Scene {
    sim: Sim,
    client: NodeId,
    relay: NodeId,
}

impl Scene {
    /// A relay that asks, and a client that shows these credentials.
    fn new(seed: u64, carrier: Carrier, credentials: Option<&str>) -> Self {
        let mut sim = Sim::new(seed);
        let relay = sim.relay_with("egress.test", &[], |settings| settings.auth = Some(auth()));
        let mut hop = hop_on("egress.test", &[carrier]);
        hop.credentials = credentials
            .map(|text| Credentials::parse(text, |_| unreachable!()).expect("credentials"));
        let client = sim.client_with_hops(vec![hop], |_| {});
        sim.tcp_host("target.test", 80, Behaviour::Echo);
        sim.host("udp.test", 7, true);
        Self { sim, client, relay }
    }

    fn open(&mut self, kind: Option<TcpForm>) -> TunnelId {
        match kind {
            None => self.sim.open(self.client, "udp.test:7"),
            Some(_) => self.sim.open_tcp(self.client, "target.test:80", kind),
        }
    }

    fn is_open(&self, tunnel: TunnelId) -> bool {
        self.sim.tunnel(self.client, tunnel).is_open()
    }

    /// Nothing was looked up and no socket was opened because of strangers.
    #[track_caller]
    fn assert_cost_nothing(&self, what: &str) {
        let log = self.sim.net.log(self.relay);
        assert!(log.resolved.is_empty(), "{what}");
        assert!(
            log.connected.is_empty() && log.connected_tcp.is_empty(),
            "{what}"
        );
        let residue = self.sim.node(self.relay).machine.residue();
        assert_eq!(residue, Residue::default(), "{what}");
    }
}

#[test]
fn strangers_are_asked_on_every_carrier_and_cost_nothing() {
    for carrier in Carrier::ALL {
        for credentials in [
            None,
            Some("bearer:wrong"),
            Some("alice:wrong"),
            Some("bob:x"),
        ] {
            let mut scene = Scene::new(401, carrier, credentials);
            for kind in KINDS {
                let what = format!("{kind:?} with {credentials:?} on {carrier:?}");
                let tunnel = scene.open(kind);
                scene.sim.run_for(secs(1));
                let (status, field) = match kind {
                    Some(TcpForm::Classic) => (407, "proxy-authenticate"),
                    None | Some(TcpForm::Raw | TcpForm::Capsules) => (401, "www-authenticate"),
                };
                let local = scene.sim.tunnel(scene.client, tunnel);
                assert_eq!(local.status(), Some(status), "{what}");
                let (_, response) = local.refused.as_ref().unwrap();
                let headers = &response.as_ref().unwrap().headers;
                let challenges: Vec<_> = headers.get_all(field).iter().collect();
                assert_eq!(challenges.len(), 2, "{what}: {challenges:?}");
            }
            // Each was asked once: the client had put its credentials where they belong.
            assert_eq!(scene.sim.stats(scene.relay).requests, 4);
            scene.assert_cost_nothing(&format!("{credentials:?} on {carrier:?}"));
        }
    }
}

#[test]
fn those_with_a_token_or_a_password_come_in() {
    for carrier in Carrier::ALL {
        for credentials in [RIGHT_TOKEN, RIGHT_PASSWORD] {
            let mut scene = Scene::new(402, carrier, Some(credentials));
            for kind in KINDS {
                let tunnel = scene.open(kind);
                scene.sim.run_for(secs(1));
                assert!(
                    scene.is_open(tunnel),
                    "{kind:?} with {credentials} on {carrier:?}"
                );
            }
            assert_eq!(scene.sim.stats(scene.relay).requests, 4);
            // A password is checked once and remembered.
            let checked = usize::from(credentials == RIGHT_PASSWORD);
            assert_eq!(scene.sim.net.verified, checked);
        }
    }
}

#[test]
fn requests_with_one_password_share_its_check() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::new(403, carrier, Some(RIGHT_PASSWORD));
        scene.sim.net.verify_delay = ms(300);
        let tunnels = KINDS.map(|kind| scene.open(kind));
        scene.sim.run_for(ms(250));
        assert_eq!(scene.sim.net.log(scene.relay).resolved.len(), 0);
        scene.sim.run_for(secs(1));
        for tunnel in tunnels {
            assert!(scene.is_open(tunnel), "{carrier:?}");
        }
        assert_eq!(scene.sim.net.verified, 1, "{carrier:?}");
    }
}

#[test]
fn who_leaves_while_a_password_is_checked_leaves_nothing_behind() {
    for carrier in Carrier::ALL {
        let mut scene = Scene::new(404, carrier, Some(RIGHT_PASSWORD));
        scene.sim.net.verify_delay = ms(500);
        let tunnels = KINDS.map(|kind| scene.open(kind));
        scene.sim.run_for(ms(100));
        assert_eq!(scene.sim.node(scene.relay).machine.tunnel_count(), 4);
        for tunnel in tunnels {
            scene.sim.close(scene.client, tunnel);
        }
        scene.sim.run_for(ms(100));
        scene.assert_cost_nothing("before the verdict");
        scene.sim.run_for(secs(2));
        scene.assert_cost_nothing("behind the verdict");
        assert_eq!(scene.sim.stats(scene.relay).tunnels_opened, 0);
    }
}

/// What a client sends right behind its request waits for the verdict: datagrams and bytes alike.
#[test]
fn what_comes_before_the_verdict_is_not_lost() {
    let mut sim = Sim::new(405);
    let relay = sim.relay_with("egress.test", &[], |settings| settings.auth = Some(auth()));
    let udp = sim.host("udp.test", 7, false);
    let tcp = sim.tcp_host("target.test", 80, Behaviour::SINK);
    sim.net.verify_delay = ms(300);
    let client = sim.raw_client();
    let (now, to) = (sim.net.now, sim.address(relay));
    sim.raw(client).connect(now, to, "egress.test");
    sim.run_for(ms(100));
    let connection = &mut sim.raw(client).connections[0];
    connection.open_control();
    let value = HeaderValue::from_static("Basic YWxpY2U6d29uZGVybGFuZA==");
    let with = |mut head: RequestHead, name: &'static str| {
        head.headers.insert(name, value.clone());
        head_frame(&head)
    };
    let asked = connection.open_bi(&with(connect_udp("udp.test:7"), "authorization"));
    let sent: Vec<_> = (0..10).map(|number| payload(number, 100)).collect();
    for datagram in &sent {
        let mut bytes = vec![asked.index() as u8, 0];
        bytes.extend_from_slice(datagram);
        connection.datagram(bytes);
    }
    // A byte stream that looks like no capsule.
    let head = RequestHead::classic_connect("target.test:80");
    let tunnel = connection.open_bi(&with(head, "proxy-authorization"));
    let early = stream_bytes(5000);
    connection.write(tunnel, &frame_of(frame::DATA, &early));
    sim.run_for(ms(200));
    assert!(sim.net.log(relay).resolved.is_empty());
    sim.run_for(secs(1));
    assert_eq!(sim.target(udp).payloads(), sent);
    assert_eq!(sim.conversation(tcp, 0).received, early);
    assert_eq!(sim.stats(relay).tunnels_misbehaved, 0);
}

/// A relay behind another one asks as what it is; a client whose field was not the right one answers once.
#[test]
fn a_client_that_is_asked_answers_once() {
    for carrier in Carrier::ALL {
        for (credentials, opens) in [(RIGHT_TOKEN, true), ("bearer:wrong", false)] {
            let mut scene = Scene::new(406, carrier, Some(credentials));
            for kind in KINDS {
                let tunnel = scene.open(kind);
                scene.sim.run_for(secs(1));
                assert_eq!(scene.is_open(tunnel), opens);
            }
            assert_eq!(scene.sim.stats(scene.relay).requests, 4, "no request twice");
        }
    }
}

/// What the first of two relays answers is told to the user as it is, once, and no reason to wait.
#[test]
fn the_first_relay_of_two_challenges() {
    for carriers in [&[Carrier::H3][..], &[Carrier::H2], &Carrier::ALL] {
        let mut sim = Sim::new(407);
        let first = sim.relay_with("ingress.test", &[], |settings| settings.auth = Some(auth()));
        let last = sim.relay("egress.test", &[]);
        sim.host("udp.test", 7, true);
        let hops = ["ingress.test", "egress.test"].map(|name| hop_on(name, carriers));
        let client = sim.client_with_hops(hops.to_vec(), |_| {});
        for asked in 1..=3 {
            let tunnel = sim.open(client, "udp.test:7");
            sim.run_for(ms(200));
            let local = sim.tunnel(client, tunnel);
            assert_eq!(local.status(), Some(401), "{carriers:?}: {local:?}");
            let (_, response) = local.refused.as_ref().unwrap();
            let headers = &response.as_ref().unwrap().headers;
            assert!(headers.contains_key("www-authenticate"), "{headers:?}");
            assert!(headers.contains_key("proxy-status"), "{headers:?}");
            assert_eq!(local.pause, None);
            assert_eq!(local.attempts.len(), 1, "{:?}", local.attempts);
            assert_eq!(sim.stats(first).requests, asked, "{carriers:?}");
        }
        assert_eq!(sim.stats(last).requests, 0);
    }
}
