//! The life of a relay process: start, checks, the development mode, and its end by signals.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::network::{Client, Target};
use support::{
    Finished, LOCAL_TARGETS, OTHER_IP, PATIENCE, Program, Relay, Site, any_port, bauta, listener,
    until,
};

/// An address of this machine that no certificate names.
const UNKNOWN_IP: &str = "127.0.0.3";
/// A drain that no test waits for.
const PATIENT: &str = "[timeouts]\ndrain = \"10m\"\n";

fn egress(site: &Site, settings: &str) -> Relay {
    site.relay("egress", &format!("{LOCAL_TARGETS}{settings}"))
}

// spec: 9114-3.3-a, 9114-5.2-c
#[test]
fn a_drain_keeps_tunnels_and_refuses_new_ones() {
    /// Enough for each worker to be asked.
    const NEW_CLIENTS: usize = 8;

    let (site, target) = (Site::new(), Target::new());
    // Those without a tunnel end early; what is meant for them must not be ignored.
    let mut relay = site.relay("egress", &format!("workers = 4\n{LOCAL_TARGETS}{PATIENT}"));
    let mut forwarder = site.udp(&[relay.url()], target.address);
    let client = Client::new(forwarder.address, 1);
    client.echo(1200);

    relay.program.signal("TERM");
    relay.program.wait_for_text("draining");
    until("a tunnel that is refused", || {
        // Each local program is a new tunnel, and the first may still be in time.
        Client::new(forwarder.address, 2).try_echo(64);
        forwarder.program.said("no tunnel: ").then_some(())
    });
    for _ in 0..NEW_CLIENTS {
        let refused = site.udp_refused(&[relay.url()], target.address);
        // TCP has no word for it, and the order in which carriers fail is theirs.
        assert!(
            refused.contains("h3: the relay refused the connection"),
            "{refused}"
        );
    }
    client.echo(1200);

    // With the last tunnel the relay goes, long before the drain is over.
    forwarder.program.signal("TERM");
    forwarder.program.finish().assert_code(0);
    let finished = relay.program.finish();
    finished.assert_code(0);
    assert!(
        finished.count("tunnels_opened") >= 1
            && finished.count("connections_refused_draining") >= 1,
        "{finished:#?}"
    );
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let (site, target) = (Site::new(), Target::new());
    let relay = egress(&site, "[timeouts]\ndrain = \"500ms\"\n");
    let forwarder = site.udp(&[relay.url()], target.address);
    Client::new(forwarder.address, 1).echo(64);
    relay.program.signal("INT");
    let finished = relay.program.finish();
    assert_eq!(finished.assert_code(0).count("tunnels_opened"), 1);
}

/// Whatever the number of workers, and whichever signal comes second.
#[test]
fn a_second_signal_ends_it_at_once() {
    let (site, target) = (Site::new(), Target::new());
    for (workers, first, second) in [(1, "TERM", "TERM"), (3, "TERM", "INT"), (2, "INT", "INT")] {
        let settings = format!("workers = {workers}\n{LOCAL_TARGETS}{PATIENT}");
        let mut relay = site.relay("egress", &settings);
        let forwarder = site.udp(&[relay.url()], target.address);
        Client::new(forwarder.address, 1).echo(64);
        relay.program.signal(first);
        relay.program.wait_for_text("draining");
        relay.program.signal(second);
        let finished = relay.program.finish();
        assert_eq!(finished.assert_code(0).count("tunnels_opened"), 1);
    }
}

/// Whoever used a relay that was killed and started again is told, and need not wait for a timeout: that would be three
/// minutes here, longer than anything may take.
// spec: 9000-10.3-d
#[test]
fn clients_and_ingresses_notice_a_restart() {
    let (site, target) = (Site::new(), Target::new());
    let start = |address: SocketAddr| {
        let settings = format!("workers = 3\n{LOCAL_TARGETS}");
        let mut program = Program::start(site.relay_command("egress", address, &settings));
        let address = program.address();
        Relay { program, address }
    };
    // Where nobody else takes the port meanwhile.
    let relay = start(format!("{OTHER_IP}:0").parse().unwrap());
    let address = relay.address;
    let ingress = site.ingress(&relay, LOCAL_TARGETS);
    let forwarders = [&relay, &ingress].map(|first| site.udp(&[first.url()], target.address));
    let clients = forwarders
        .each_ref()
        .map(|forwarder| Client::new(forwarder.address, 1));
    clients.iter().for_each(|client| client.echo(64));

    drop(relay);
    let relay = start(address);
    clients.iter().for_each(|client| client.echo(64));
    let finished = relay.stop();
    assert!(finished.count("resets_sent") >= 2, "{finished:#?}");
}

/// Who waits for `listening on` may send a signal right away.
#[test]
fn an_idle_relay_ends_as_soon_as_it_listens() {
    let site = Site::new();
    for signal in ["TERM", "INT"] {
        let relay = egress(&site, PATIENT);
        relay.program.signal(signal);
        let finished = relay.program.finish();
        assert_eq!(finished.assert_code(0).count("connections_opened"), 0);
    }
}

#[test]
fn every_listener_is_printed_and_served() {
    let (site, target) = (Site::new(), Target::new());
    let more = [OTHER_IP, UNKNOWN_IP].map(|ip| listener(format!("{ip}:0")));
    let mut relay = egress(&site, &more.concat());
    let mut url = |ip: &str| {
        let address = relay.program.wait_for(ip, |line| {
            let address: SocketAddr = line.strip_prefix("listening on ")?.parse().ok()?;
            (address.ip().to_string() == ip).then_some(address)
        });
        support::url(address)
    };
    for ip in ["127.0.0.1", OTHER_IP] {
        let forwarder = site.udp(&[url(ip)], target.address);
        Client::new(forwarder.address, 1).echo(64);
    }
    // The right relay, but not under this name.
    let refused = site.udp_refused(&[url(UNKNOWN_IP)], target.address);
    assert_eq!(
        refused,
        "no tunnel: the certificate of the relay is not valid for its name"
    );
}

#[test]
fn check_prints_the_worst_case_and_opens_nothing() {
    let site = Site::new();
    let taken = std::net::UdpSocket::bind(any_port()).unwrap();
    let address = taken.local_addr().unwrap();
    let mut command = site.relay_command("egress", address, "workers = 2\n");
    command.arg("--check");
    let finished = Program::start(command).finish();
    finished.assert_code(0);
    let report = finished.stdout.join("\n");
    for part in [
        "configuration is good",
        &address.to_string(),
        "worst-case memory",
        "workers: 2",
        "tunnels: state",
        "sum",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(finished.stderr.is_empty(), "{finished:#?}");
}

#[test]
fn check_names_every_problem_with_key_value_and_bound() {
    const PROBLEMS: [[&str; 3]; 10] = [
        ["workers: ", "5000", "0 to 1024"],
        ["io: ", "ring", "uring"],
        ["quic.initial_mtu: ", "100", "1200 to 65507"],
        ["quic.idle_timeout: ", "1ms", "must be \"1s\""],
        ["limits.tunnels: ", "0", "must be"],
        ["limits.queue: ", "unknown", "queue_"],
        ["timeouts.open: ", "7200s", "60s"],
        ["upstream.urls[0]: ", "http://x", "https"],
        ["upstream.headers.via: ", "via", ""],
        ["policy.allow[0]: ", "10.0.0.0/64", ""],
    ];
    let site = Site::new();
    let settings = "workers = 5000\nio = \"ring\"\n[quic]\ninitial_mtu = 100\nidle_timeout = \"1ms\"\n\
                    [limits]\ntunnels = 0\nqueue = 3\n[timeouts]\nopen = \"2h\"\n[upstream]\nurls = [\"http://x\"]\n\
                    headers = { via = \"x\" }\n[policy]\nallow = [\"10.0.0.0/64\"]\n";
    for check in [true, false] {
        let mut command = site.relay_command("bad", any_port(), settings);
        command.args(check.then_some("--check"));
        let finished = Program::start(command).finish();
        finished.assert_code(2);
        assert!(finished.stdout.is_empty(), "{finished:#?}");
        assert_eq!(finished.stderr.len(), PROBLEMS.len(), "{finished:#?}");
        for parts in PROBLEMS {
            let named = finished.stderr.iter().filter(|line| {
                let line = line.strip_prefix("error: ").unwrap_or_default();
                line.starts_with(parts[0]) && parts.iter().all(|part| line.contains(part))
            });
            assert_eq!(named.count(), 1, "{parts:?}: {finished:#?}");
        }
    }
}

/// The line that `relay --dev` prints for clients, with a target and a free port filled in.
fn suggested(relay: &mut Program, target: impl ToString) -> Vec<String> {
    let line = relay.wait_for("the line for clients", |line| {
        Some(line.strip_prefix("try: bauta ")?.to_owned())
    });
    let words = line.split(' ').map(|word| match word {
        "127.0.0.1:5353" => any_port().to_string(),
        "HOST:PORT" => target.to_string(),
        word => word.to_owned(),
    });
    words.collect()
}

#[test]
fn development_mode_says_how_to_use_it() {
    let (site, target) = (Site::new(), Target::new());
    let config = site.write("dev.toml", LOCAL_TARGETS);
    let mut command = bauta(["relay", "--dev", "--listen", "127.0.0.1:0", "--config"]);
    command.arg(config).env("TMPDIR", site.directory());
    let mut relay = Program::start(command);
    let address = relay.address();

    let mut client = Program::start(bauta(suggested(&mut relay, target.address)));
    Client::new(client.address(), 1).echo(1200);
    let ca = relay.wait_for("the certificate authority", |line| {
        Some(line.strip_prefix("ca ")?.to_owned())
    });
    assert!(ca.ends_with(&format!("-{}.pem", address.port())), "{ca}");
    assert!(
        std::path::Path::new(&ca).starts_with(site.directory()),
        "{ca}"
    );
}

/// Without any configuration: the line leads to the relay, which keeps clients off this machine.
#[test]
fn development_mode_needs_no_configuration() {
    let (site, target) = (Site::new(), Target::new());
    let mut command = bauta(["relay", "--dev", "--listen", "127.0.0.1:0"]);
    command.env("TMPDIR", site.directory());
    let mut relay = Program::start(command);
    let finished = support::run(suggested(&mut relay, target.address));
    let refused = finished.error(1);
    assert!(
        refused.contains("403 Forbidden") && refused.contains("destination_ip_prohibited"),
        "{refused}"
    );
}

/// Log lines are for files and pipes as well: no colours where there is no terminal.
#[test]
fn log_lines_are_plain_text() {
    let site = Site::new();
    let finished: Finished = egress(&site, "").stop();
    let log = finished.stderr.join("\n");
    assert!(
        log.contains("relay started") && !log.contains('\u{1b}'),
        "{log:?}"
    );
}

/// A relay that stands still for two seconds under load looks like a path that lost its size; the tunnel has to come
/// back to full size (the black-hole detection of QUIC's MTU discovery).
#[track_caller]
fn pause(site: &Site, ingress: &Relay, via: &[String]) {
    /// What is left over from before differs from what counts in the end.
    const SIZES_BYTES: [usize; 2] = [1199, 1200];
    const PAUSE: Duration = Duration::from_secs(2);
    /// Between two bursts of a load of 2,000 datagrams per second.
    const BURST_EVERY: Duration = Duration::from_millis(5);
    const BURST: usize = 10;
    /// Echoes that count as a tunnel that works.
    const ECHOES: usize = 500;

    let target = Target::new();
    let forwarder = site.udp(via, target.address);
    let client = Client::new(forwarder.address, 1);
    // Sends until `enough` says so, which is told how many echoes of `size` bytes came so far.
    let load = |size: usize, enough: &mut dyn FnMut(usize) -> bool| {
        let (mut echoes, mut next) = (0, support::now());
        while !enough(echoes) {
            if support::now() >= next {
                (0..BURST).for_each(|_| client.send(size));
                next += BURST_EVERY;
            }
            while let Some(received) = client.recv(Duration::from_millis(1)) {
                echoes += usize::from(received == size);
            }
        }
    };
    let flows = |when: &str, size: usize| {
        let deadline = support::now() + PATIENCE;
        load(size, &mut |echoes| {
            assert!(support::now() < deadline, "{when}: {echoes} echoes");
            echoes >= ECHOES
        });
    };
    flows("before the pause", SIZES_BYTES[0]);
    ingress.program.signal("STOP");
    let end = support::now() + PAUSE;
    load(SIZES_BYTES[0], &mut |_| support::now() >= end);
    ingress.program.signal("CONT");
    flows("after the pause", SIZES_BYTES[1]);
}

#[test]
fn a_pause_costs_a_chain_no_size() {
    let site = Site::new();
    let relay = egress(&site, "");
    let ingress = site.ingress(&relay, LOCAL_TARGETS);
    pause(&site, &ingress, &[ingress.url()]);
}

#[test]
fn a_pause_costs_a_nested_tunnel_no_size() {
    let site = Site::new();
    let relay = egress(&site, "");
    let ingress = site.relay("ingress", LOCAL_TARGETS);
    pause(&site, &ingress, &[ingress.url(), relay.url()]);
}
