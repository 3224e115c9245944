//! Relays that let nobody in without credentials, and clients that have some.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::network::{Client, Target};
use support::{Forwarder, LOCAL_TARGETS, Program, Relay, Site};

const AUTH: &str = "name = \"egress\"\n[auth]\ntokens = \"tokens.txt\"\n";
const TOKENS: &str = "# one of each kind\nalice:9f2c51d0\nbob:Preshared 77e1\n";

fn guarded(site: &Site, options: &str) -> Relay {
    site.write("tokens.txt", TOKENS);
    site.relay("egress", &format!("{AUTH}{options}{LOCAL_TARGETS}"))
}

/// A forwarder with further arguments, whose tunnel opens.
#[track_caller]
fn forwarder(site: &Site, relay: &Relay, target: &Target, arguments: &[&str]) -> Forwarder {
    let mut command = site.udp_command(&[relay.url()], target.address);
    command.args(arguments);
    let mut program = Program::start(command);
    let address = program.address();
    Forwarder { program, address }
}

// spec: map-9, rc-all-b, rc-apple-b, rc-firefox-a, ctcp-3.3.2-b
#[test]
fn only_those_with_a_token_come_in() {
    let (site, target) = (Site::new(), Target::new());
    let relay = guarded(&site, "header = \"x-relay-key\"\n");
    let refused = site.udp_refused(&[relay.url()], target.address);
    assert!(refused.contains("401 Unauthorized"), "{refused}");
    let secret = site.write("secret.txt", "bearer:9f2c51d0\n");
    let file = format!("@{}", secret.display());
    for arguments in [
        ["--credentials", "bearer:9f2c51d0"],
        ["--credentials", &file],
        ["--header", "proxy-authorization: Bearer 9f2c51d0"],
        ["--header", "authorization: preshared 77e1"],
        ["--header", "x-relay-key: 9f2c51d0"],
    ] {
        let forwarder = forwarder(&site, &relay, &target, &arguments);
        Client::new(forwarder.address, b'a').echo(100);
    }
    for wrong in ["bearer:9f2c51d1", "alice:9f2c51d0"] {
        let mut command = site.udp_command(&[relay.url()], target.address);
        command.args(["--credentials", wrong]);
        let finished = Program::start(command).finish();
        let error = finished.error(1);
        assert!(error.contains("401 Unauthorized"), "{wrong}: {error}");
        assert!(!error.contains("9f2c51d"), "{error}");
    }
}

// spec: rc-all-c
#[test]
fn a_relay_may_keep_quiet_about_credentials() {
    let (site, target) = (Site::new(), Target::new());
    let relay = guarded(&site, "challenge = false\n");
    let refused = site.udp_refused(&[relay.url()], target.address);
    assert!(refused.contains("403 Forbidden"), "{refused}");
}

#[test]
fn an_ingress_shows_its_own_credentials() {
    let (site, target) = (Site::new(), Target::new());
    let egress = guarded(&site, "");
    site.write("secret.txt", "bearer:9f2c51d0\n");
    let upstream = |credentials: &str| {
        let url = egress.url();
        format!("[upstream]\nurls = [\"{url}\"]\nca = \"ca.pem\"\n{credentials}")
    };
    let ingress = site.relay("ingress", &upstream("credentials = \"secret.txt\"\n"));
    let forwarder = site.udp(&[ingress.url()], target.address);
    Client::new(forwarder.address, b'a').echo(100);

    let stranger = site.relay("stranger", &upstream(""));
    let refused = site.udp_refused(&[stranger.url()], target.address);
    assert!(refused.contains("401 Unauthorized"), "{refused}");
}
