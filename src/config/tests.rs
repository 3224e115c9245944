//! The configuration as an operator meets it: defaults, everything wrong in one go, relations, the memory sum.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

mod ip;

use super::*;
use crate::wire::carrier::Carrier;
use crate::wire::ip::Scope;
use crate::wire::template::PathTemplate;

const MINIMAL: &str =
    "[[listen]]\naddress = \"[::]:443\"\ncertificate = \"chain.pem\"\nkey = \"/k/key.pem\"\n";

fn environment() -> Environment {
    Environment::new("/etc/bauta", NonZeroUsize::new(4).unwrap(), "bauta-7f")
}

fn development() -> Environment {
    Environment {
        dev_listen: Some(SocketAddr::from(([127, 0, 0, 1], 4433))),
        ..environment()
    }
}

/// The problems of `text` as they are printed.
fn problems(text: &str) -> Vec<String> {
    match parse(text, &environment()) {
        Ok(_) => Vec::new(),
        Err(LoadError::Invalid(list)) => list.iter().map(ToString::to_string).collect(),
        Err(other) => vec![other.to_string()],
    }
}

/// Adds `text` to a file without problems.
fn problems_of(text: &str) -> Vec<String> {
    problems(&format!("{MINIMAL}{text}"))
}

#[test]
fn defaults() {
    let config = parse(MINIMAL, &environment()).unwrap();
    assert_eq!(config.name, "bauta-7f");
    assert_eq!(config.workers.get(), 4);
    assert!(config.pin && config.policy.public_only && config.warnings.is_empty());
    assert_eq!(
        (config.io, config.steering, config.gso, config.gro),
        Default::default()
    );
    assert_eq!(config.listen[0].address, "[::]:443".parse().unwrap());
    let certificate = config.listen[0].certificate.clone().unwrap();
    assert_eq!(certificate.chain, Path::new("/etc/bauta/chain.pem"));
    assert_eq!(certificate.key, Path::new("/k/key.pem"));
    assert_eq!(config.quic.ack_frequency_threshold, Some(10));
    assert_eq!(
        (
            config.quic.min_mtu,
            config.quic.initial_mtu,
            config.quic.mtu_upper_bound
        ),
        (1200, 1350, 1452)
    );
    // spec: rc-all-a, rc-apple-a
    assert_eq!(config.listen[0].carriers, Carrier::ALL);
    assert_eq!(config.upstream.carriers, Carrier::ALL);
    assert_eq!(config.policy.services, Service::ALL);
    assert_eq!((config.auth, config.ip), (None, None));
    assert_eq!(config.upstream.head_starts.to_string(), "250ms,500ms");
    assert_eq!(config.timeouts.tcp_idle, Duration::from_secs(7_440));
    // spec: 9000-10.1-c, 9298-3.1-m
    assert!(config.quic.idle_timeout >= config.timeouts.tunnel_idle);
    assert!(config.timeouts.tunnel_idle >= Duration::from_secs(120));
    // spec: tp-2
    assert!(config.quic.initial_mtu >= 1241);
}

#[test]
fn every_key_is_read() {
    let text = r#"
        name = "edge"
        workers = 2
        pin = false
        io = "epoll"
        steering = "mailbox"
        gso = "off"
        gro = "off"
        log = "debug"

        [[listen]]
        address = "127.0.0.1:0"
        certificate = "a.pem"
        key = "a.key"
        templates = ["/masque?h={target_host}&p={target_port}"]
        carriers = ["h1", "h3"]
        tcp_templates = ["/tcp/{target_host}/{target_port}"]
        ip_templates = ["/vpn{?target,ipproto}"]
        origins = ["Relay.Example:8443"]

        [upstream]
        urls = ["https://egress.example"]
        tcp_urls = ["https://egress.example/t/{target_host}/{target_port}"]
        ip_urls = ["https://egress.example/vpn/{target}/{ipproto}/"]
        carriers = ["h2"]
        head_starts = ["100ms", 1]
        credentials = "secret.txt"
        ca = "ca.pem"
        headers = { proxy-authorization = "Bearer x" }

        [policy]
        services = ["connect-tcp", "connect"]
        public_only = false
        allow = ["10.0.0.0/8"]
        deny = ["*.example:25"]

        [auth]
        tokens = "tokens.txt"
        passwords = "/p/passwords.txt"
        header = "X-Relay-Key"
        realm = "the relay"
        challenge = false
        remember = "1h"

        [tcp]
        connections = 9
        connections_per_address = 3
        handshake_timeout = "2s"
        head_timeout = 3
        idle_timeout = "1m"
        write_timeout = "1500ms"
        stream_window = 65_536
        connection_window = 131_072
        pending_bytes = 65_536
        control_frames = 100
        pending_resets = 5

        [dns]
        servers = ["192.0.2.53", "[2001:db8::53]:5353"]
        timeout = "500ms"

        [quic]
        congestion = "newreno"
        initial_mtu = 1200
        ack_frequency_threshold = 0
        idle_timeout = 300
        keep_alive = "10s"

        [limits]
        connections = 7
        queue_bytes = 65_536

        [timeouts]
        tunnel_idle = "30s"
        tcp_idle = "2m"
        drain = 0
    "#;
    let config = parse(text, &environment()).unwrap();
    assert_eq!(
        (config.name.as_str(), config.workers.get(), config.pin),
        ("edge", 2, false)
    );
    assert_eq!((config.io, config.steering), (Io::Epoll, Steering::Mailbox));
    assert_eq!(
        (config.gso, config.gro, config.log),
        (Offload::Off, Offload::Off, LogLevel::Debug)
    );
    assert_eq!(config.listen[0].origins, ["relay.example:8443"]);
    assert_eq!(config.upstream.hops[0].udp.authority(), "egress.example");
    assert_eq!(
        config.upstream.ca.as_deref(),
        Some(Path::new("/etc/bauta/ca.pem"))
    );
    assert!(config.upstream.headers[0].1.is_sensitive());
    assert_eq!(config.listen[0].carriers, [Carrier::H3, Carrier::H1]);
    let own = PathTemplate::parse("/tcp/{target_host}/{target_port}").unwrap();
    assert_eq!(
        config.listen[0].tcp_templates,
        [PathTemplate::well_known_tcp(), own]
    );
    let own = PathTemplate::parse_ip("/vpn{?target,ipproto}").unwrap();
    assert_eq!(
        config.listen[0].ip_templates,
        [PathTemplate::well_known_ip(), own]
    );
    assert_eq!(config.upstream.carriers, [Carrier::H2]);
    assert_eq!(config.upstream.head_starts.to_string(), "100ms,1000ms");
    let target = "192.0.2.6:443".parse().unwrap();
    let tcp = config.upstream.hops[0].tcp.as_ref().unwrap();
    assert_eq!(tcp.expand_path(&target), "/t/192.0.2.6/443");
    let ip = config.upstream.hops[0].ip.as_ref().unwrap();
    assert_eq!(ip.expand_scope(&Scope::default()), "/vpn/%2A/%2A/");
    assert_eq!(
        config.upstream.credentials.as_deref(),
        Some(Path::new("/etc/bauta/secret.txt"))
    );
    assert_eq!(
        config.policy.services,
        [Service::ConnectTcp, Service::Connect]
    );
    assert_eq!(
        config.auth,
        Some(AuthFiles {
            tokens: Some("/etc/bauta/tokens.txt".into()),
            passwords: Some("/p/passwords.txt".into()),
            header: Some(::http::HeaderName::from_static("x-relay-key")),
            realm: "the relay".to_owned(),
            challenge: false,
            remember: Duration::from_secs(3600),
        })
    );
    assert_eq!(
        config.tcp,
        Tcp {
            connections: 9,
            connections_per_address: 3,
            handshake_timeout: Duration::from_secs(2),
            head_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_millis(1500),
            stream_window: 65_536,
            connection_window: 131_072,
            pending_bytes: 65_536,
            control_frames: 100,
            pending_resets: 5,
        }
    );
    assert_eq!(config.dns.servers[0], "192.0.2.53:53".parse().unwrap());
    assert_eq!(config.dns.timeout, Duration::from_millis(500));
    assert_eq!(config.quic.congestion, Congestion::NewReno);
    assert_eq!(config.quic.ack_frequency_threshold, None);
    assert_eq!(config.quic.idle_timeout, Duration::from_secs(300));
    assert_eq!(
        (config.limits.connections, config.limits.queue_bytes),
        (7, 65_536)
    );
    assert_eq!(config.timeouts.drain, Duration::ZERO);
    let warned: Vec<&str> = config
        .warnings
        .iter()
        .filter_map(|w| w.split(':').next())
        .collect();
    assert_eq!(
        warned,
        [
            "policy.public_only",
            "quic.initial_mtu",
            "timeouts.tunnel_idle",
            "timeouts.tcp_idle",
        ]
    );
}

#[test]
fn everything_wrong_is_reported_in_one_go() {
    let text = r#"
        workers = 5000
        io = "ring"
        colour = true

        [[listen]]
        address = "x"
        certificate = 5
        origins = ["relay.example/path", "ok.example"]

        [[listen]]
        adress = "[::]:443"

        [quic]
        congestion = "cubic"
        keep_alive = "soon"
        initial_mtu = 100

        [limits]
        tunnels = -1
        conections = 4
    "#;
    assert_eq!(
        problems(text),
        [
            "listen[0].certificate: 5: invalid type: integer `5`, expected path string",
            "listen[1].adress: unknown key, did you mean `address`?",
            "quic.keep_alive: \"soon\": not a duration such as \"30s\", \"150ms\", \"2m\" or \"1h\"",
            "limits.conections: unknown key, did you mean `connections`?",
            "colour: unknown key, known are auth, dns, gro, gso, io, ip, limits, listen, log, name, pin, policy, quic, \
             spin_us, steering, tcp, timeouts, upstream, workers",
            "io: \"ring\": unknown variant `ring`, expected one of `auto`, `uring`, `epoll`",
            "workers: 5000: must be 0 to 1024",
            "listen[0].address: \"x\": not an address such as \"[::]:443\"",
            "listen[0].key: missing: path of the private key (PEM)",
            "listen[0].origins[0]: \"relay.example/path\": must be host or host:port, as in :authority",
            "listen[1].address: missing: an address such as \"[::]:443\"",
            "listen[1].certificate: missing: path of the certificate chain (PEM)",
            "listen[1].key: missing: path of the private key (PEM)",
            "quic.initial_mtu: 100: must be 1200 to 65507",
            "limits.tunnels: -1: must be 1 to 1000000",
        ]
    );
}

#[test]
fn head_starts_are_two() {
    assert_eq!(
        problems_of("[upstream]\nhead_starts = [1]"),
        ["upstream.head_starts: 1 durations, must be 2"]
    );
    assert_eq!(
        problems_of("[upstream]\nhead_starts = [0, 11]\n[timeouts]\ntcp_idle = 119"),
        [
            "upstream.head_starts[1]: \"11s\": must be \"0s\" to \"10s\"",
            "timeouts.tcp_idle: \"119s\": must be \"120s\" to \"604800s\"",
        ]
    );
}

#[test]
fn shapes() {
    assert_eq!(
        problems(""),
        ["listen: missing: at least one [[listen]] with address, certificate and key"]
    );
    assert_eq!(
        problems("listen = 3"),
        ["listen: must be a list of tables, each written [[listen]]"]
    );
    assert_eq!(
        problems("listen = [3]"),
        ["listen[0]: 3: must be a table, written [[listen]]"]
    );
    assert_eq!(
        problems(&format!("quic = 3\n{MINIMAL}")),
        ["quic: 3: must be a table, written [quic]"]
    );
    assert_eq!(
        problems_of("[quick]"),
        ["quick: unknown key, did you mean `quic`?"]
    );
    assert!(problems("a = \n").concat().starts_with("line 1: "));
    assert!(
        problems("\n\na = 1\na = 2\n")
            .concat()
            .starts_with("line 4: ")
    );
}

#[test]
fn relations() {
    for (text, expected) in [
        (
            "[quic]\nidle_timeout = 60",
            "quic.idle_timeout: \"60s\": must not be below timeouts.tunnel_idle (\"180s\"), or it would end \
             quiet tunnels",
        ),
        (
            "[quic]\nkeep_alive = 180",
            "quic.keep_alive: \"180s\": must be below quic.idle_timeout (\"180s\")",
        ),
        (
            "[quic]\nmin_mtu = 1400",
            "quic.initial_mtu: 1350: must not be below quic.min_mtu (1400)",
        ),
        (
            "[quic]\nmtu_upper_bound = 1300",
            "quic.mtu_upper_bound: 1300: must not be below quic.initial_mtu (1350)",
        ),
        (
            "[quic]\nretry_handshakes = 2000",
            "quic.retry_handshakes: 2000: must not be above quic.max_pending_handshakes (1024)",
        ),
        (
            "[dns]\ntimeout = 10",
            "dns.timeout: \"10s\": must not be above timeouts.resolve (\"5s\")",
        ),
        (
            "[[listen]]\naddress = \"[::]:443\"\ncertificate = \"a\"\nkey = \"b\"",
            "listen[1].address: \"[::]:443\": an earlier entry listens there",
        ),
        (
            "[upstream]\nca = \"x\"\ndangerous_insecure = true",
            "upstream.dangerous_insecure: true: accepts any certificate, so upstream.ca would have no effect; remove \
             one of them",
        ),
        (
            "[tcp]\nstream_window = 131072\nconnection_window = 65536",
            "tcp.stream_window: 131072: must not be above tcp.connection_window (65536)",
        ),
        (
            "[upstream]\ntcp_urls = [\"https://a/{target_host}/{target_port}\"]",
            "upstream.tcp_urls: 1 templates, must be as many as upstream.urls",
        ),
        (
            "[upstream]\nurls = [\"https://a\"]\ntcp_urls = [\"https://b/{target_host}/{target_port}\"]",
            "upstream.tcp_urls[0]: \"https://b/{target_host}/{target_port}\": must be at the host and port of \
             upstream.urls",
        ),
        (
            "[upstream]\nip_urls = [\"https://a/{target}\"]",
            "upstream.ip_urls: 1 templates, must be as many as upstream.urls",
        ),
        (
            "[auth]\nchallenge = false",
            "auth: asks for credentials and knows none: tokens or passwords must name a file",
        ),
    ] {
        assert_eq!(problems_of(text), [expected], "{text}");
    }
}

#[test]
fn values() {
    for (text, expected) in [
        (
            "[upstream]\nurls = [\"http://x\"]",
            "upstream.urls[0]: \"http://x\": scheme is not https",
        ),
        (
            "[policy]\ndeny = [\"\"]",
            "policy.deny[0]: \"\": must not be blank",
        ),
        (
            "[dns]\nservers = [\"dns.example\"]",
            "dns.servers[0]: \"dns.example\": not an address such as \"192.0.2.53\" or \"[2001:db8::53]:53\"",
        ),
        (
            "[timeouts]\ntunnel_idle = \"500ms\"",
            "timeouts.tunnel_idle: \"500ms\": must be \"1s\" to \"86400s\"",
        ),
        (
            "[timeouts]\nopen = -1",
            "timeouts.open: -1: a duration is not negative",
        ),
        (
            "[upstream.headers]\nvia = \"s3cret\"",
            "upstream.headers.via: via is a field that the library writes itself and cannot be set",
        ),
    ] {
        assert_eq!(problems_of(text), [expected], "{text}");
    }
    for (text, expected) in [
        (
            "[policy]\nservices = []",
            "policy.services: must name at least one of \"connect-udp\", \"connect-tcp\", \"connect\" and \
             \"connect-ip\"",
        ),
        (
            "[policy]\nservices = [\"udp\"]",
            "policy.services: [\"udp\"]: unknown variant `udp`, expected one of `connect-udp`, `connect-tcp`, \
             `connect`, `connect-ip`",
        ),
        (
            "[upstream]\ncarriers = []",
            "upstream.carriers: must name at least one of \"h3\", \"h2\" and \"h1\"",
        ),
        (
            "[upstream]\ncarriers = [\"h3\", \"http/1.1\"]",
            "upstream.carriers[1]: \"http/1.1\": must be \"h3\", \"h2\" or \"h1\"",
        ),
        (
            "[auth]\ntokens = \"x\"\nheader = \"via\"",
            "auth.header: \"via\": via is a field that the library writes itself and cannot be set",
        ),
        (
            "[auth]\ntokens = \"x\"\nrealm = 'a\"b'",
            "auth.realm: 'a\"b': must be 1 to 64 characters of ASCII without quotes and backslashes",
        ),
        (
            "[tcp]\nhead_timeout = \"99ms\"",
            "tcp.head_timeout: \"99ms\": must be \"100ms\" to \"600s\"",
        ),
    ] {
        assert_eq!(problems_of(text), [expected], "{text}");
    }
    let key = "name: \"1 relay\": must be a token of 1 to 64 characters that starts with a letter";
    assert_eq!(problems(&format!("name = \"1 relay\"\n{MINIMAL}")), [key]);
}

#[test]
fn secrets_are_not_printed() {
    for text in [
        "[upstream.headers]\nhost = \"s3cret\"",
        "[upstream.headers]\nx = \"s3\\rcret\"",
        "[upstream]\nheaders = { a = \"s3cret\", b = 1 }",
    ] {
        let printed = problems_of(text).concat();
        assert!(!printed.is_empty() && !printed.contains("s3"), "{printed}");
    }
}

#[test]
fn development_needs_no_file() {
    let config = parse("", &development()).unwrap();
    assert_eq!(
        config.listen[0].address,
        SocketAddr::from(([127, 0, 0, 1], 4433))
    );
    assert_eq!(config.listen[0].certificate, None);

    let half = parse("[[listen]]\ncertificate = \"a\"", &development()).unwrap_err();
    assert_eq!(
        half.to_string(),
        "listen[0].key: missing: path of the private key (PEM)"
    );
}

#[test]
fn policy_rules_are_judged_by_their_own_layer() {
    let environment = Environment {
        rule: |rule| Err(format!("no rule {}", rule.len())),
        ..environment()
    };
    let error = parse(
        &format!("{MINIMAL}[policy]\nallow = [\"abc\"]"),
        &environment,
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "policy.allow[0]: \"abc\": no rule 3");
}

#[test]
fn the_default_template_is_always_served() {
    // spec: 9298-2-k
    let default = parse(MINIMAL, &environment()).unwrap();
    assert_eq!(default.listen[0].templates, [PathTemplate::well_known()]);

    let custom = "templates = [\"https://a.example/masque?h={target_host}&p={target_port}\", \
                  \"/masque?h={target_host}&p={target_port}\"]";
    let config = parse(&format!("{MINIMAL}{custom}"), &environment()).unwrap();
    let own = PathTemplate::parse("/masque?h={target_host}&p={target_port}").unwrap();
    assert_eq!(
        config.listen[0].templates,
        [PathTemplate::well_known(), own]
    );

    // spec: 9298-2-i
    let wrong = "templates = [\"/masque/{target_host}\", \"masque/{target_host}/{target_port}\"]";
    assert_eq!(
        problems(&format!("{MINIMAL}{wrong}")),
        [
            "listen[0].templates[0]: \"/masque/{target_host}\": variable target_port is missing",
            "listen[0].templates[1]: \"masque/{target_host}/{target_port}\": not an absolute URI template",
        ]
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Path::new("/nonexistent/relay.toml"), &environment())
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("/nonexistent/relay.toml: "), "{error}");
}

/// All limits but those that are durations.
fn limits_in_numbers() -> impl Iterator<Item = &'static limits::Limit> {
    let all = limits::ALL.iter().chain(limits::TCP).chain(limits::IP);
    all.copied()
        .filter(|limit| !limit.key.ends_with("_timeout"))
}

/// Each limit is read from its key, refused one beyond its bounds, and accepted at them.
#[test]
fn every_limit_is_enforced_under_its_key() {
    for limit in limits_in_numbers() {
        let (section, key) = limit.key.split_once('.').unwrap();
        for (value, inside) in [
            (limit.min - 1, false),
            (limit.min, true),
            (limit.max, true),
            (limit.max + 1, false),
        ] {
            // Retry asks for room among the pending handshakes, whatever the limit under test is.
            let room = match key {
                "retry_handshakes" => "max_pending_handshakes = 65536\n",
                "max_pending_handshakes" => "retry_handshakes = 0\n",
                "stream_window" => "connection_window = 1073741824\n",
                "connection_window" => "stream_window = 65536\n",
                _ => "",
            };
            let found = problems_of(&format!(
                "[{section}]\n{}{key} = {value}",
                if matches!(section, "quic" | "tcp") {
                    room
                } else {
                    ""
                }
            ));
            if inside {
                assert_eq!(found, [""; 0], "{}", limit.key);
            } else {
                assert_eq!(
                    found,
                    [format!(
                        "{}: {value}: must be {} to {}",
                        limit.key, limit.min, limit.max
                    )]
                );
            }
        }
    }
}

#[test]
fn memory_is_a_sum_that_grows_with_each_limit() {
    let sum = |text: &str| -> u64 {
        let config = parse(&format!("{MINIMAL}{text}"), &environment()).unwrap();
        worst_case_memory(&config)
            .iter()
            .map(MemoryTerm::bytes)
            .sum()
    };
    let default = sum("");
    let with_pool = sum("[ip]\npools = [\"10.89.0.0/16\"]");
    for limit in limits_in_numbers() {
        let (section, key) = limit.key.split_once('.').unwrap();
        let (default, more) = match section {
            "ip" => (with_pool, "pools = [\"10.89.0.0/16\"]\n"),
            _ => (default, ""),
        };
        let grown = sum(&format!("[{section}]\n{more}{key} = {}", limit.default + 1));
        // These bound parts of what another limit pays for, cost memory in steps, or bound how a handshake goes on.
        let free = [
            "tunnels_per_connection",
            "stream_receive_window",
            "early_datagrams",
            "queue_datagrams",
            "retry_handshakes",
            "connections_per_address",
            "assignments_per_user_max",
            "stream_window",
            "control_frames",
            "pending_resets",
        ];
        assert_eq!(grown > default, !free.contains(&key), "{}", limit.key);
    }
    let one = sum("[limits]\nconnections = 1");
    let two = sum("[limits]\nconnections = 2");
    assert_eq!(
        two - one,
        4 * (20 * 1024 + 2048 * 42 + 2 * 512 * 1024 + 2 * (4 << 20) + 64 * 1024)
    );
}

#[test]
fn bytes_for_people() {
    for (bytes, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        ((1 << 20) - 1, "1023.9 KiB"),
        (1 << 20, "1.0 MiB"),
        (3 << 29, "1.5 GiB"),
    ] {
        assert_eq!(Bytes(bytes).to_string(), text);
    }
    assert_eq!(format!("{:>8}", Bytes(0)), "     0 B");
}

proptest! {
    #[test]
    fn garbage_never_panics(text in "[\\[\\]a-z_=\"0-9 .\n-]{0,200}") {
        let outcome = parse(&text, &environment());
        prop_assert!(outcome.is_err());
    }

    /// A key from anywhere with a value of any kind is either accepted or reported under its own name.
    #[test]
    fn one_bad_key_is_reported_alone(
        section in prop::sample::select(vec![
            "quic", "tcp", "ip", "auth", "limits", "timeouts", "dns", "policy", "upstream",
        ]),
        key in "[a-z_]{1,12}",
        value in prop::sample::select(vec!["1.5", "true", "[[1]]", "{ a = 1 }", "1979-05-27", "\"x\"", "-7"]),
    ) {
        for problem in problems_of(&format!("[{section}]\n{key} = {value}")) {
            prop_assert!(problem.starts_with(&format!("{section}.{key}")), "{}", problem);
        }
    }
}
