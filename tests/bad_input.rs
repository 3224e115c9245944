//! What is wrong is said in one line, with the exit code or the status that fits.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::net::UdpSocket;

use support::network::{NameServer, Target, silent};
use support::{LOCAL_TARGETS, Program, Site, any_port, bauta, listener, run, url};

/// Timeouts that a test can wait for.
const SHORT: &str =
    "[timeouts]\nopen = \"500ms\"\nresolve = \"500ms\"\n[dns]\ntimeout = \"200ms\"\n";

/// The one line with which a relay refuses to start after `spoil` was at its files.
#[track_caller]
fn refuses_to_start(code: i32, settings: &str, spoil: impl Fn(&Site)) -> String {
    let site = Site::new();
    spoil(&site);
    let finished = Program::start(site.relay_command("egress", any_port(), settings)).finish();
    assert!(finished.stdout.is_empty(), "{finished:#?}");
    finished.error(code).to_owned()
}

#[test]
fn certificates_that_cannot_be_used() {
    let other = Site::new();
    let foreign = fs::read_to_string(other.directory().join("key.pem")).unwrap();
    let unreadable = |site: &Site| {
        fs::remove_file(site.directory().join("chain.pem")).unwrap();
        fs::create_dir(site.directory().join("chain.pem")).unwrap();
    };
    type Spoil<'a> = &'a dyn Fn(&Site);
    let cases: [(Spoil<'_>, &str); 6] = [
        (
            &|site| fs::remove_file(site.directory().join("chain.pem")).unwrap(),
            "chain.pem: No such file",
        ),
        (
            &|site| fs::remove_file(site.directory().join("key.pem")).unwrap(),
            "key.pem: No such file",
        ),
        (&unreadable, "chain.pem: "),
        (
            &|site| drop(site.write("chain.pem", "hello")),
            "chain.pem: no certificate in it",
        ),
        (
            &|site| drop(site.write("key.pem", "hello")),
            "key.pem: no private key in it",
        ),
        (
            &|site| drop(site.write("key.pem", &foreign)),
            "key.pem do not work together",
        ),
    ];
    for (spoil, message) in cases {
        let error = refuses_to_start(2, "", spoil);
        assert!(error.contains(message), "{message}: {error}");
    }
}

#[test]
fn a_port_that_is_taken() {
    let (site, target) = (Site::new(), Target::new());
    let taken = UdpSocket::bind(any_port()).unwrap();
    let address = taken.local_addr().unwrap();
    for settings in ["", "workers = 2\n"] {
        let finished = Program::start(site.relay_command("egress", address, settings)).finish();
        assert_eq!(
            finished.error(1),
            format!("listen on {address}: address in use")
        );
    }

    // Nor do two relays share one.
    let first = site.relay("first", "workers = 2\n");
    let second =
        Program::start(site.relay_command("second", first.address, "workers = 2\n")).finish();
    assert_eq!(
        second.error(1),
        format!("listen on {}: address in use", first.address)
    );

    let mut command = bauta(["udp", "--via", "https://127.0.0.1:1", "--insecure"]);
    command.args([
        "--listen",
        &address.to_string(),
        "--target",
        &target.address.to_string(),
    ]);
    let finished = Program::start(command).finish();
    assert_eq!(
        finished.error(1),
        format!("listen on {address}: address in use")
    );
}

#[test]
fn io_uring_that_is_refused() {
    let site = Site::new();
    let start = |io: &str| {
        let mut command = site.relay_command("egress", any_port(), &format!("io = \"{io}\"\n"));
        command.env("MONOIO_FORCE_LEGACY_DRIVER", "1");
        Program::start(command)
    };
    let finished = start("uring").finish();
    let error = finished.error(1);
    assert!(
        error.contains("io_uring is configured, but not usable"),
        "{error}"
    );

    let mut relay = start("auto");
    relay.address();
    let log = relay.wait_for_text("relay started");
    assert!(
        log.contains("epoll") && log.contains("io_uring is not usable"),
        "{log}"
    );
}

// spec: 9298-3.1-e, map-13
#[test]
fn names_that_do_not_resolve() {
    let (site, names) = (Site::new(), NameServer::new());
    let servers = |address| format!("[dns]\nservers = [\"{address}\"]\n");
    let relay = site.relay("egress", &servers(names.address));
    let refused = site.udp_refused(&[relay.url()], "nobody.example:53");
    for part in ["502 Bad Gateway", "error=dns_error", "rcode=\"NXDOMAIN\""] {
        assert!(refused.contains(part), "{part}: {refused}");
    }

    let (_socket, silence) = silent().unwrap();
    let settings = format!(
        "{}timeout = \"200ms\"\n[timeouts]\nresolve = \"500ms\"\n",
        servers(silence)
    );
    let relay = site.relay("egress", &settings);
    let refused = site.udp_refused(&[relay.url()], "nobody.example:53");
    for part in ["504 Gateway Timeout", "error=dns_timeout"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}

#[test]
fn targets_that_are_refused() {
    let (site, target) = (Site::new(), Target::new());
    let relay = site.relay("egress", "name = \"egress\"\n");
    let refused = site.udp_refused(&[relay.url()], target.address);
    assert_eq!(
        refused,
        "tunnel refused by the relay: 403 Forbidden \
         (egress;error=destination_ip_prohibited;details=\"the address of the target is prohibited\")"
    );

    let settings = format!("{LOCAL_TARGETS}deny = [\"*:{}\"]\n", target.address.port());
    let relay = site.relay("egress", &settings);
    let refused = site.udp_refused(&[relay.url()], target.address);
    assert!(
        refused.contains("403 Forbidden") && refused.contains("error=http_request_denied"),
        "{refused}"
    );

    // The relay's own address is no target either.
    let relay = site.relay("egress", LOCAL_TARGETS);
    let refused = site.udp_refused(&[relay.url()], relay.address);
    assert!(refused.contains("508 Loop Detected"), "{refused}");
}

/// The refusal travels back through the ingress, with both relays in Proxy-Status.
#[test]
fn targets_that_the_next_hop_refuses() {
    let (site, target) = (Site::new(), Target::new());
    let relay = site.relay("egress", "name = \"egress\"\n");
    let ingress = site.ingress(&relay, "name = \"ingress\"\n");
    let refused = site.udp_refused(&[ingress.url()], target.address);
    for part in [
        "403 Forbidden",
        "egress;error=destination_ip_prohibited",
        "ingress;",
        "received-status=403",
    ] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
}

/// A nested egress is a target of the ingress like any other.
#[test]
fn second_relays_that_the_first_refuses() {
    let (site, target) = (Site::new(), Target::new());
    let relay = site.relay("egress", LOCAL_TARGETS);
    let ingress = site.relay("ingress", "");
    let refused = site.udp_refused(&[ingress.url(), relay.url()], target.address);
    assert!(refused.contains("403 Forbidden"), "{refused}");
    assert!(
        refused.contains("error=destination_ip_prohibited"),
        "{refused}"
    );
}

#[test]
fn next_hops_that_are_down() {
    let (site, target) = (Site::new(), Target::new());
    let (socket, silence) = silent().unwrap();
    let closed = {
        // No test binds to this address.
        let socket = UdpSocket::bind("127.19.84.7:0").unwrap();
        socket.local_addr().unwrap()
    };
    for next in [silence, closed] {
        let settings = format!(
            "{SHORT}[upstream]\nurls = [\"{}\"]\nca = \"ca.pem\"\n",
            url(next)
        );
        let relay = site.relay("ingress", &settings);
        let refused = site.udp_refused(&[relay.url()], target.address);
        assert!(refused.contains("504 Gateway Timeout"), "{refused}");
        assert!(refused.contains("error=connection_timeout"), "{refused}");
    }
    drop(socket);
}

#[test]
fn next_hops_that_do_not_resolve() {
    let (site, names, target) = (Site::new(), NameServer::new(), Target::new());
    let settings = format!(
        "[dns]\nservers = [\"{}\"]\n[upstream]\nurls = [\"https://nobody.example\"]\nca = \"ca.pem\"\n",
        names.address
    );
    let relay = site.relay("ingress", &settings);
    let refused = site.udp_refused(&[relay.url()], target.address);
    assert!(
        refused.contains("502 Bad Gateway") && refused.contains("error=dns_error"),
        "{refused}"
    );
}

#[test]
fn next_hops_that_are_not_trusted() {
    let (site, other, target) = (Site::new(), Site::new(), Target::new());
    let stranger = other.relay("egress", LOCAL_TARGETS);
    let ingress = site.ingress(&stranger, "");
    let refused = site.udp_refused(&[ingress.url()], target.address);
    assert!(refused.contains("502 Bad Gateway"), "{refused}");
    assert!(refused.contains("error=tls_certificate_error"), "{refused}");

    // The same without a relay in between, and inside a tunnel.
    let ingress = site.relay("ingress", LOCAL_TARGETS);
    for via in [vec![stranger.url()], vec![ingress.url(), stranger.url()]] {
        let refused = site.udp_refused(&via, target.address);
        assert_eq!(
            refused,
            "no tunnel: the certificate of the relay is from an unknown issuer"
        );
    }
}

#[test]
fn requests_that_fit_no_template_or_origin() {
    let (site, target) = (Site::new(), Target::new());
    let relay = site.relay("egress", LOCAL_TARGETS);
    let elsewhere = format!("{}/elsewhere/{{target_host}}/{{target_port}}/", relay.url());
    let refused = site.udp_refused(&[elsewhere], target.address);
    assert!(refused.contains("404 Not Found"), "{refused}");

    let origins = format!("{}origins = [\"relay.example\"]\n", listener(any_port()));
    let relay = site.relay("egress", &format!("{LOCAL_TARGETS}{origins}"));
    let refused = site.udp_refused(&[relay.url()], target.address);
    assert!(refused.contains("421 Misdirected Request"), "{refused}");
}

#[test]
fn certificate_authorities_that_cannot_be_used() {
    let site = Site::new();
    let missing = site.directory().join("missing.pem");
    let empty = site.write("empty.pem", "");
    for (path, message) in [
        (missing, "missing.pem: No such file"),
        (empty, "empty.pem: no certificate in it"),
    ] {
        let path = path.to_str().unwrap();
        let finished = run([
            "udp",
            "--via",
            "https://127.0.0.1:1",
            "--listen",
            "127.0.0.1:0",
            "--target",
            "127.0.0.1:1",
            "--ca",
            path,
        ]);
        let error = finished.error(2);
        assert!(error.contains(message), "{error}");
        let settings = format!("[upstream]\nurls = [\"https://127.0.0.1:1\"]\nca = \"{path}\"\n");
        let error = refuses_to_start(2, &settings, |_| ());
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn arguments_that_mean_nothing() {
    let forward = |via: &str, target: &str, more: &[&str]| {
        let arguments = [
            "udp",
            "--via",
            via,
            "--listen",
            "127.0.0.1:0",
            "--target",
            target,
        ];
        run([&arguments, more].concat())
    };
    let (via, target) = ("https://127.0.0.1:1", "127.0.0.1:1");
    for (finished, message) in [
        (
            forward("127.0.0.1:1", target, &[]),
            "not an absolute URI template",
        ),
        (forward("http://127.0.0.1:1", target, &[]), "https"),
        (
            forward("https://127.0.0.1:1/{target_host}", target, &[]),
            "target_port",
        ),
        (forward(via, "127.0.0.1", &[]), "port is missing"),
        (forward(via, "127.0.0.1:70000", &[]), "port"),
        (
            forward(via, target, &["--header", "via:x"]),
            "via is a field that",
        ),
        (
            forward(via, target, &["--header", "no colon"]),
            "must be NAME:VALUE",
        ),
        (forward(via, target, &["--header", ":path:/"]), "pseudo"),
    ] {
        let error = finished.error(2);
        assert!(error.contains(message), "{message}: {error}");
        assert!(finished.stdout.is_empty(), "{finished:#?}");
    }
}

#[test]
fn files_that_are_no_configuration() {
    let site = Site::new();
    let start = |path: &std::path::Path| run(["relay", "--config", path.to_str().unwrap()]);
    let finished = start(&site.directory().join("missing.toml"));
    let error = finished.error(2);
    assert!(error.contains("missing.toml: No such file"), "{error}");
    let finished = start(site.directory());
    assert!(finished.error(2).contains("directory"), "{finished:#?}");
    let finished = start(&site.write("broken.toml", "[[listen]]\naddress = \"x\nkey = 1\n"));
    assert!(finished.error(2).starts_with("line 2: "), "{finished:#?}");
}
