//! What is changed in the system around a tunnel, and undone, on a real kernel.
//!
//! Each test runs in a network namespace and a mount namespace of its own, which takes root: without
//! `BAUTA_PRIVILEGED=1` the tests only say so. Under `CI` the variable has to say which of the two is meant, 1 or 0.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use bauta::net::link::{
    Changes, DnsOutcome, Forwarding, Journal, Lead, LinkDns, LinkError, Links, NatTable, WayTo,
    forwards,
};
use ipnet::IpNet;

const PRIVILEGED: &str = "BAUTA_PRIVILEGED";
/// Tells a test that it is in its namespace.
const INSIDE: &str = "BAUTA_TEST_NAMESPACE";
/// Where journals are, in memory of the mount namespace.
const STATE: &str = "/run/bauta-test";

/// A way out with a default route, and an interface that stands for the tunnel.
const SETUP: &str = "
    set -e
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /mnt
    printf 'nameserver 192.0.2.53\\n' > /mnt/resolv.conf
    ip link set lo up
    ip link add out type veth peer name out-peer
    ip link set out-peer up
    ip address add 192.0.2.2/24 dev out
    ip address add 2001:db8::2/64 dev out nodad
    ip link set out up
    ip route add default via 192.0.2.1
    ip route add default via 2001:db8::1
    ip link add tun0 type veth peer name tun0-peer
    ip link set tun0-peer up
    ip link set tun0 up
    exec \"$@\"";

/// Runs `body` in namespaces of its own; the test is then called `name`.
fn in_namespace<F: Future<Output = ()>>(name: &str, body: impl FnOnce() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(body());
        return;
    }
    let privileged = std::env::var_os(PRIVILEGED);
    if privileged.as_ref().is_none_or(|value| value != "1") {
        let said = privileged.is_some() || std::env::var_os("CI").is_none();
        assert!(
            said,
            "set {PRIVILEGED} to 1, or to 0 where root is not to be had"
        );
        eprintln!("{name} did not run: it takes root, and {PRIVILEGED}=1");
        return;
    }
    let status = Command::new("unshare")
        .args(["--net", "--mount", "sh", "-c", SETUP, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{name}: {status}");
}

/// What a program prints.
fn output(line: &str) -> String {
    let mut words = line.split(' ');
    let program = words.next().unwrap();
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

async fn begin() -> Changes {
    begin_for("tun0").await
}

async fn begin_for(interface: &str) -> Changes {
    let links = Links::open().unwrap();
    let begun = Changes::begin(Path::new(STATE), interface, links);
    begun.await.unwrap()
}

fn into(interface: u32) -> Lead {
    Lead::Into {
        interface,
        source: None,
    }
}

fn from(interface: u32, source: &str) -> Lead {
    Lead::Into {
        interface,
        source: Some(ip(source)),
    }
}

fn dns(server: &str) -> LinkDns {
    LinkDns {
        servers: vec![ip(server)],
        ..LinkDns::default()
    }
}

/// How often it is looked whether the monitor listens.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// What the kernel tells of changes of routes.
struct Monitor {
    program: Child,
    lines: Receiver<String>,
}

impl Monitor {
    /// Returns when it hears what happens.
    fn start() -> Self {
        let mut program = Command::new("ip")
            .args(["monitor", "route"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(program.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in stdout.lines() {
                sender.send(line.unwrap()).unwrap_or_default();
            }
        });
        let monitor = Self { program, lines };
        while monitor.lines.recv_timeout(PROBE_INTERVAL).is_err() {
            mark("203.0.113.250");
        }
        monitor
    }

    /// What it has heard until now.
    fn heard(self) -> Vec<String> {
        mark("203.0.113.251");
        let is_news = |line: &String| !line.contains("203.0.113.251");
        let heard = self.lines.iter().take_while(is_news);
        heard
            .filter(|line| !line.contains("203.0.113.250"))
            .collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.program.kill().unwrap_or_default();
        drop(self.program.wait());
    }
}

fn mark(address: &str) {
    output(&format!("ip route add {address} via 192.0.2.1"));
    output(&format!("ip route delete {address}"));
}

#[test]
fn addresses_and_routes() {
    in_namespace("addresses_and_routes", || async {
        let links = Links::open().unwrap();
        let index = links.index("tun0").await.unwrap();
        assert!(matches!(
            links.index("tun1").await,
            Err(LinkError::NoInterface { .. })
        ));
        links.set_up(index, "tun0", Some(1400)).await.unwrap();
        assert!(output("ip link show tun0").contains("mtu 1400"));
        links.set_mtu(index, 1280).await.unwrap();
        assert!(output("ip link show tun0").contains("mtu 1280"));

        for address in ["10.89.0.7/32", "fd00:ba::7/128"] {
            let add = || links.add_address(index, "tun0", net(address));
            assert!(add().await.unwrap());
            assert!(!add().await.unwrap());
            assert!(output("ip address show tun0").contains(address));
        }
        let routes = [
            ("0.0.0.0/1", "10.89.0.7"),
            ("10.0.0.0/8", "10.89.0.7"),
            ("::/1", "fd00:ba::7"),
        ];
        for (prefix, source) in routes {
            let add = || links.add_route(net(prefix), from(index, source));
            add().await.unwrap();
            assert_eq!(add().await.unwrap_err().errno(), Some(libc::EEXIST));
        }
        let listed = output("ip route show dev tun0");
        assert!(
            listed.contains("0.0.0.0/1 proto 98 scope link src 10.89.0.7"),
            "{listed}"
        );
        let listed = output("ip -6 route show dev tun0");
        assert!(listed.contains("::/1 proto 98 src fd00:ba::7"), "{listed}");
        for (prefix, _) in routes {
            let remove = || links.remove_route(net(prefix), into(index));
            remove().await.unwrap();
            remove().await.unwrap();
        }
        assert_eq!(output("ip route show dev tun0"), "");
        for address in ["10.89.0.7/32", "fd00:ba::7/128"] {
            links.remove_address(index, net(address)).await.unwrap();
            links.remove_address(index, net(address)).await.unwrap();
            assert!(!output("ip address show tun0").contains(address));
        }
    });
}

#[test]
fn a_route_gives_way_in_one_step() {
    in_namespace("a_route_gives_way_in_one_step", || async {
        let mut changes = begin().await;
        let index = changes.links().index("tun0").await.unwrap();
        let addresses = ["10.89.0.7", "10.89.0.8", "fd00:ba::7", "fd00:ba::8"];
        for address in addresses {
            let address = net(&format!(
                "{address}/{}",
                if address.contains(':') { 128 } else { 32 }
            ));
            changes.add_address(index, "tun0", address).await.unwrap();
        }
        for (prefix, [first, second]) in [
            ("0.0.0.0/1", ["10.89.0.7", "10.89.0.8"]),
            ("10.0.0.0/8", ["10.89.0.7", "10.89.0.8"]),
            ("::/1", ["fd00:ba::7", "fd00:ba::8"]),
            ("2001:db8:f::/48", ["fd00:ba::7", "fd00:ba::8"]),
        ] {
            let family = if prefix.contains(':') { "-6" } else { "-4" };
            let shown = || output(&format!("ip {family} route show table main {prefix}"));
            let leads = [
                from(index, first),
                from(index, second),
                Lead::Nowhere,
                from(index, first),
                Lead::Nowhere,
                Lead::Nowhere,
                from(index, second),
            ];
            let mut former = None;
            let monitor = Monitor::start();
            for lead in leads {
                changes.set_route(net(prefix), lead, former).await.unwrap();
                let shown = shown();
                let expected = match lead {
                    Lead::Into { source, .. } => format!("src {}", source.unwrap()),
                    Lead::Nowhere => "unreachable".to_owned(),
                };
                assert!(shown.contains(&expected), "{shown}");
                assert_eq!(shown.lines().count(), 1, "{shown}");
                former = Some(lead);
            }
            let heard = monitor.heard();
            let news = heard.iter().filter(|line| line.contains(prefix));
            assert!(news.count() >= 5, "{heard:?}");
            let is_gap = |line: &&String| line.contains("Deleted") && line.contains(prefix);
            assert_eq!(heard.iter().find(is_gap), None);
        }
        assert!(changes.undo().await.is_empty());
        assert_eq!(output("ip route show proto 98"), "");
        assert_eq!(output("ip -6 route show proto 98"), "");
    });
}

#[test]
fn a_route_of_somebody_else_is_no_place_for_ours() {
    in_namespace("a_route_of_somebody_else_is_no_place_for_ours", || async {
        output("ip route add 10.0.0.0/8 via 192.0.2.9");
        output("ip -6 route add unreachable 2001:db8:f::/48");
        let mut changes = begin().await;
        let index = changes.links().index("tun0").await.unwrap();
        for prefix in ["10.0.0.0/8", "2001:db8:f::/48"] {
            for lead in [into(index), Lead::Nowhere] {
                let set = changes.set_route(net(prefix), lead, None).await;
                assert_eq!(set.unwrap_err().errno(), Some(libc::EEXIST));
            }
        }
        assert!(changes.undo().await.is_empty());
        assert!(output("ip route show 10.0.0.0/8").contains("192.0.2.9"));
        assert!(output("ip -6 route show 2001:db8:f::/48").contains("unreachable"));
    });
}

/// `tun0` stands for one that was made by `ip tuntap add`: it does not go with us.
#[test]
fn an_interface_that_stays_keeps_nothing_of_ours() {
    in_namespace("an_interface_that_stays_keeps_nothing_of_ours", || async {
        output("ip address add 10.89.0.1/32 dev tun0");
        output("ip -6 address add fd00:ba::1/128 dev tun0 nodad");
        output("ip route add 198.51.100.0/24 dev tun0");
        let before = || {
            let shown = ["address show tun0", "route show", "-6 route show"];
            shown.map(|what| output(&format!("ip {what}")))
        };
        let unchanged = before();
        for is_killed in [false, true] {
            let mut changes = begin().await;
            let index = changes.links().index("tun0").await.unwrap();
            for address in [
                "10.89.0.1/32",
                "10.89.0.7/32",
                "fd00:ba::1/128",
                "fd00:ba::7/128",
            ] {
                changes
                    .add_address(index, "tun0", net(address))
                    .await
                    .unwrap();
            }
            for (prefix, source) in [("0.0.0.0/1", "10.89.0.7"), ("::/1", "fd00:ba::7")] {
                let lead = from(index, source);
                changes.set_route(net(prefix), lead, None).await.unwrap();
            }
            for prefix in ["128.0.0.0/1", "8000::/1"] {
                changes
                    .set_route(net(prefix), Lead::Nowhere, None)
                    .await
                    .unwrap();
            }
            // What we did not put there is not ours to take away.
            changes
                .remove_address(index, net("10.89.0.1/32"))
                .await
                .unwrap();
            assert_ne!(before(), unchanged);
            if is_killed {
                drop(changes);
                changes = begin().await;
                assert_eq!(before(), unchanged);
            }
            assert!(changes.undo().await.is_empty());
            assert_eq!(before(), unchanged);
        }
    });
}

#[test]
fn ipv6_is_switched_on_where_it_is_off() {
    in_namespace("ipv6_is_switched_on_where_it_is_off", || async {
        fs::write("/proc/sys/net/ipv6/conf/tun0/disable_ipv6", "1").unwrap();
        let links = Links::open().unwrap();
        let index = links.index("tun0").await.unwrap();
        let address = net("fd00:ba::7/128");
        links.add_address(index, "tun0", address).await.unwrap();
        assert!(output("ip address show tun0").contains("fd00:ba::7/128"));
    });
}

#[test]
fn relays_stay_outside() {
    in_namespace("relays_stay_outside", || async {
        let mut changes = begin().await;
        let links = changes.links().clone();
        let (tunnel, out) = (
            links.index("tun0").await.unwrap(),
            links.index("out").await.unwrap(),
        );
        let relays = [
            ("198.51.100.1", "192.0.2.1"),
            ("2001:db8:f::1", "2001:db8::1"),
        ];
        for (relay, gateway) in relays {
            let way = changes.keep_outside(ip(relay), tunnel).await.unwrap();
            let WayTo::Via {
                gateway: Some(found),
                interface,
                ..
            } = way
            else {
                panic!("{way:?}");
            };
            assert_eq!((found, interface), (ip(gateway), out));
        }
        for prefix in ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"] {
            links.add_route(net(prefix), into(tunnel)).await.unwrap();
        }
        for (relay, gateway) in relays {
            assert!(output(&format!("ip route get {relay}")).contains(gateway));
            // It holds on to what it has.
            changes.keep_outside(ip(relay), tunnel).await.unwrap();
        }
        assert!(output("ip route get 198.51.100.2").contains("tun0"));
        // A relay that becomes known later is led past the tunnel too.
        let late = changes.keep_outside(ip("203.0.113.9"), tunnel).await;
        assert!(matches!(late, Ok(WayTo::Via { interface, .. }) if interface == out));
        assert!(output("ip route get 203.0.113.9").contains("192.0.2.1"));
        // So is one on the link, without a router.
        changes
            .keep_outside(ip("192.0.2.77"), tunnel)
            .await
            .unwrap();
        assert!(!output("ip route show 192.0.2.77").contains("via"));
        // This machine itself needs no route.
        let own = changes.keep_outside(ip("127.0.0.1"), tunnel).await.unwrap();
        assert_eq!(own, WayTo::Local);

        changes.let_inside(ip("203.0.113.9")).await.unwrap();
        assert_eq!(output("ip route show 203.0.113.9"), "");
        assert!(changes.undo().await.is_empty());
        assert_eq!(output("ip route show proto 98 dev out"), "");
        assert_eq!(output("ip -6 route show proto 98 dev out"), "");
        assert_eq!(fs::read_dir(STATE).unwrap().count(), 0);
    });
}

#[test]
fn a_relay_outside_follows_the_router() {
    in_namespace("a_relay_outside_follows_the_router", || async {
        let mut changes = begin().await;
        let tunnel = changes.links().index("tun0").await.unwrap();
        for (family, relay, prefix, routers) in [
            (
                "-4",
                "198.51.100.1",
                "0.0.0.0/1",
                ["192.0.2.1", "192.0.2.9"],
            ),
            (
                "-6",
                "2001:db8:f::1",
                "::/1",
                ["2001:db8::1", "2001:db8::9"],
            ),
        ] {
            let shown = || output(&format!("ip {family} route show {relay}"));
            changes.keep_outside(ip(relay), tunnel).await.unwrap();
            assert!(shown().contains(routers[0]), "{}", shown());
            for lead in [into(tunnel), Lead::Nowhere] {
                let former = (lead == Lead::Nowhere).then(|| into(tunnel));
                changes.set_route(net(prefix), lead, former).await.unwrap();
                for [now, then] in [routers, [routers[1], routers[0]]] {
                    let monitor = Monitor::start();
                    output(&format!("ip {family} route replace default via {then}"));
                    assert!(shown().contains(now), "{}", shown());
                    changes.keep_outside(ip(relay), tunnel).await.unwrap();
                    assert!(shown().contains(then), "{}", shown());
                    assert_eq!(shown().lines().count(), 1, "{}", shown());
                    let heard = monitor.heard();
                    let is_gap = |line: &&String| line.contains("Deleted") && line.contains(relay);
                    assert_eq!(heard.iter().find(is_gap), None);
                }
            }
            // The way that it has is better than none.
            output(&format!("ip {family} route delete default"));
            changes.keep_outside(ip(relay), tunnel).await.unwrap();
            assert!(shown().contains(routers[0]), "{}", shown());
            // One that the kernel has taken away is found again, though the tunnel leads there, or nothing.
            output(&format!("ip {family} route delete {relay}"));
            output(&format!("ip {family} route add default via {}", routers[1]));
            changes.keep_outside(ip(relay), tunnel).await.unwrap();
            assert!(shown().contains(routers[1]), "{}", shown());
        }
        assert!(changes.undo().await.is_empty());
        assert_eq!(output("ip route show proto 98"), "");
        assert_eq!(output("ip -6 route show proto 98"), "");
    });
}

#[test]
fn a_relay_by_a_rule_stays_there() {
    in_namespace("a_relay_by_a_rule_stays_there", || async {
        // As `wg-quick` does: the main table has a default route, and another one comes first.
        output("ip route add default via 192.0.2.7 table 51820");
        output("ip rule add table 51820 priority 20");
        output("ip rule add table main suppress_prefixlength 0 priority 10");
        let mut changes = begin().await;
        let tunnel = changes.links().index("tun0").await.unwrap();
        for _ in 0..2 {
            changes
                .keep_outside(ip("198.51.100.1"), tunnel)
                .await
                .unwrap();
            assert!(output("ip route show 198.51.100.1").contains("192.0.2.7"));
        }
    });
}

#[test]
fn routes_of_others_are_left_alone() {
    in_namespace("routes_of_others_are_left_alone", || async {
        output("ip route add 198.51.100.1 via 192.0.2.9");
        let mut changes = begin().await;
        let tunnel = changes.links().index("tun0").await.unwrap();
        changes
            .keep_outside(ip("198.51.100.1"), tunnel)
            .await
            .unwrap();
        assert!(changes.undo().await.is_empty());
        assert!(output("ip route show 198.51.100.1").contains("192.0.2.9"));
    });
}

#[test]
fn a_crash_is_undone_by_the_next_start() {
    in_namespace("a_crash_is_undone_by_the_next_start", || async {
        output("mount --bind /mnt/resolv.conf /etc/resolv.conf");
        let mut changes = begin().await;
        let tunnel = changes.links().index("tun0").await.unwrap();
        changes
            .keep_outside(ip("198.51.100.1"), tunnel)
            .await
            .unwrap();
        let table = NatTable::new("tun0", &[net("10.89.0.0/16"), net("fd00::/48")]);
        changes.install_nat(&table).await.unwrap();
        assert!(forwards(Forwarding::V4).is_err());
        assert!(changes.set_forwarding(Forwarding::V4).unwrap());
        assert!(!changes.set_forwarding(Forwarding::V4).unwrap());
        forwards(Forwarding::V4).unwrap();
        let dns = LinkDns {
            servers: vec![ip("10.89.0.1")],
            ..LinkDns::default()
        };
        assert_eq!(changes.set_dns(&dns).await.unwrap(), DnsOutcome::ResolvConf);
        let resolv_conf = || fs::read_to_string("/etc/resolv.conf").unwrap();
        assert!(resolv_conf().contains("nameserver 10.89.0.1"));
        assert!(output("nft list ruleset").contains("masquerade"));
        // As a process that is killed: nothing is undone, and the lock is gone.
        drop(changes);

        let changes = begin().await;
        assert_eq!(output("ip route show 198.51.100.1"), "");
        assert_eq!(output("nft list ruleset"), "");
        assert!(forwards(Forwarding::V4).is_err());
        assert_eq!(resolv_conf(), "nameserver 192.0.2.53\n");
        assert!(changes.undo().await.is_empty());
    });
}

#[test]
fn what_others_changed_since_is_theirs() {
    in_namespace("what_others_changed_since_is_theirs", || async {
        output("mount --bind /mnt/resolv.conf /etc/resolv.conf");
        let mut changes = begin().await;
        changes.set_forwarding(Forwarding::V6).unwrap();
        changes.set_dns(&LinkDns::default()).await.unwrap();
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "2").unwrap();
        fs::write("/etc/resolv.conf", "nameserver 192.0.2.99\n").unwrap();
        let table = NatTable::new("tun0", &[net("10.89.0.0/16")]);
        changes.install_nat(&table).await.unwrap();
        output("nft delete table inet bauta_tun0");
        assert!(changes.undo().await.is_empty());
        let forwarding = fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").unwrap();
        assert_eq!(forwarding.trim(), "2");
        let resolv_conf = fs::read_to_string("/etc/resolv.conf").unwrap();
        assert_eq!(resolv_conf, "nameserver 192.0.2.99\n");
    });
}

#[test]
fn the_last_one_switches_forwarding_off() {
    in_namespace("the_last_one_switches_forwarding_off", || async {
        let is_on = || forwards(Forwarding::V4).is_ok();
        // How the first one ends does not matter, nor which of them it is.
        for (is_first, is_killed) in [(true, false), (true, true), (false, false), (false, true)] {
            let (mut one, mut two) = (begin_for("tun0").await, begin_for("tun1").await);
            assert!(one.set_forwarding(Forwarding::V4).unwrap());
            assert!(!two.set_forwarding(Forwarding::V4).unwrap());
            let (leaves, stays) = if is_first { (one, two) } else { (two, one) };
            match is_killed {
                true => drop(leaves),
                false => assert!(leaves.undo().await.is_empty()),
            }
            assert!(is_on());
            // The next start finds what was left.
            let other = begin_for("tun2").await;
            assert!(is_on());
            assert!(stays.undo().await.is_empty());
            assert!(!is_on());
            assert!(other.undo().await.is_empty());
        }
        // Both killed.
        let (mut one, mut two) = (begin_for("tun0").await, begin_for("tun1").await);
        one.set_forwarding(Forwarding::V4).unwrap();
        two.set_forwarding(Forwarding::V4).unwrap();
        drop((one, two));
        let other = begin_for("tun2").await;
        assert!(!is_on());
        // Switched on by somebody else it stays.
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        let (mut one, mut two) = (begin_for("tun0").await, begin_for("tun1").await);
        assert!(!one.set_forwarding(Forwarding::V4).unwrap());
        assert!(!two.set_forwarding(Forwarding::V4).unwrap());
        for changes in [one, two, other] {
            assert!(changes.undo().await.is_empty());
        }
        assert!(is_on());
        assert_eq!(fs::read_dir(STATE).unwrap().count(), 0);
    });
}

#[test]
fn only_one_has_the_file_with_the_name_servers() {
    in_namespace("only_one_has_the_file_with_the_name_servers", || async {
        output("mount -t tmpfs tmpfs /etc");
        let read = || fs::read_to_string("/etc/resolv.conf").unwrap();
        fs::write("/etc/resolv.conf", "nameserver 192.0.2.53\n").unwrap();
        let (mut one, mut two) = (begin_for("tun0").await, begin_for("tun1").await);
        one.set_dns(&dns("10.89.0.1")).await.unwrap();
        let refused = two.set_dns(&dns("10.90.0.1")).await.unwrap_err();
        assert!(
            matches!(&refused, LinkError::DnsTaken { interface } if interface == "tun0"),
            "{refused}"
        );
        // The other one may change its mind, and ends without a trace.
        one.set_dns(&dns("10.89.0.2")).await.unwrap();
        assert!(two.set_dns(&dns("10.90.0.1")).await.is_err());
        assert!(read().contains("10.89.0.2"));
        two.clear_dns().await.unwrap();
        assert!(one.undo().await.is_empty());
        assert_eq!(read(), "nameserver 192.0.2.53\n");

        // One that was killed is in nobody's way, and what it found comes back.
        let mut one = begin_for("tun0").await;
        one.set_dns(&dns("10.89.0.1")).await.unwrap();
        drop(one);
        two.set_dns(&dns("10.90.0.1")).await.unwrap();
        assert!(read().contains("10.90.0.1"));
        let one = begin_for("tun0").await;
        assert!(read().contains("10.90.0.1"));
        assert!(two.undo().await.is_empty());
        assert_eq!(read(), "nameserver 192.0.2.53\n");

        // Nor is one whose text somebody has replaced.
        let mut two = begin_for("tun1").await;
        two.set_dns(&dns("10.90.0.1")).await.unwrap();
        fs::write("/etc/resolv.conf", "nameserver 192.0.2.54\n").unwrap();
        let mut one = one;
        one.set_dns(&dns("10.89.0.1")).await.unwrap();
        assert!(two.undo().await.is_empty());
        assert!(read().contains("10.89.0.1"));
        assert!(one.undo().await.is_empty());
        assert_eq!(read(), "nameserver 192.0.2.54\n");
        assert_eq!(fs::read_dir(STATE).unwrap().count(), 0);
    });
}

#[test]
fn a_file_keeps_its_mode_and_owner() {
    in_namespace("a_file_keeps_its_mode_and_owner", || async {
        output("mount -t tmpfs tmpfs /etc");
        let path = Path::new("/etc/resolv.conf");
        let mode_and_owner = || {
            let metadata = fs::symlink_metadata(path).unwrap();
            (metadata.mode() & 0o7777, metadata.uid(), metadata.gid())
        };
        let mut changes = begin().await;
        changes.set_dns(&dns("10.89.0.1")).await.unwrap();
        assert_eq!(mode_and_owner(), (0o644, 0, 0));
        changes.clear_dns().await.unwrap();

        fs::write(path, "nameserver 192.0.2.53\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o664)).unwrap();
        chown(path, Some(7), Some(9)).unwrap();
        changes.set_dns(&dns("10.89.0.1")).await.unwrap();
        assert_eq!(mode_and_owner(), (0o664, 7, 9));
        changes.set_dns(&dns("10.89.0.2")).await.unwrap();
        assert!(changes.undo().await.is_empty());
        assert_eq!(mode_and_owner(), (0o664, 7, 9));
        assert_eq!(fs::read_to_string(path).unwrap(), "nameserver 192.0.2.53\n");
    });
}

#[test]
fn links_and_files_come_back_as_they_were() {
    in_namespace("links_and_files_come_back_as_they_were", || async {
        // A directory of our own in place of /etc, so that the file can be replaced.
        output("mount -t tmpfs tmpfs /etc");
        let path = Path::new("/etc/resolv.conf");
        let dns = LinkDns {
            servers: vec![ip("10.89.0.1")],
            internal: vec!["corp.example".to_owned()],
            ..LinkDns::default()
        };

        let mut changes = begin().await;
        std::os::unix::fs::symlink("/mnt/resolv.conf", path).unwrap();
        let outcome = changes.set_dns(&dns).await.unwrap();
        assert_eq!(outcome, DnsOutcome::ResolvConfForAll);
        assert!(fs::read_to_string(path).unwrap().contains("10.89.0.1"));
        changes.clear_dns().await.unwrap();
        assert_eq!(fs::read_link(path).unwrap(), Path::new("/mnt/resolv.conf"));

        fs::remove_file(path).unwrap();
        changes.set_dns(&dns).await.unwrap();
        changes.set_dns(&LinkDns::default()).await.unwrap();
        assert!(path.exists());
        assert!(changes.undo().await.is_empty());
        assert!(!path.exists());
        // The file behind the link was never written to.
        let behind = fs::read_to_string("/mnt/resolv.conf").unwrap();
        assert_eq!(behind, "nameserver 192.0.2.53\n");
        assert!(Journal::abandoned(Path::new(STATE)).unwrap().is_empty());
    });
}

#[test]
fn a_lack_of_privilege_is_named() {
    in_namespace("a_lack_of_privilege_is_named", || async {
        let script = "exec setpriv --bounding-set=-net_admin --inh-caps=-net_admin --reuid=65534 --clear-groups \
                      \"$0\" without_privilege --exact --nocapture";
        // The program itself may be where nobody else may read.
        fs::copy(std::env::current_exe().unwrap(), "/mnt/test").unwrap();
        output("chmod 755 /mnt /mnt/test");
        let status = Command::new("sh")
            .args(["-c", script, "/mnt/test"])
            .status();
        assert!(status.unwrap().success());
    });
}

/// Runs the program as root that lacks the capability; what it says is in the output.
fn bauta_without_privilege(words: &[&str]) -> Output {
    let output = Command::new("setpriv")
        .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"])
        .arg(env!("CARGO_BIN_EXE_bauta"))
        .args(words)
        .env("BAUTA_STATE_DIR", STATE)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    output
}

#[test]
fn programs_name_the_privilege_that_they_lack() {
    in_namespace("programs_name_the_privilege_that_they_lack", || async {
        let config = "workers = 1\n[ip]\ntun = \"vpn7\"\npools = [\"10.89.0.0/16\"]\n";
        fs::write("/mnt/relay.toml", config).unwrap();
        let relay = [
            "relay",
            "--dev",
            "--listen",
            "127.0.0.1:0",
            "--config",
            "/mnt/relay.toml",
        ];
        let tun = ["tun", "--via", "https://192.0.2.1", "--name", "vpn7"];
        let before = output("ip address");
        for words in [&relay[..], &tun] {
            let said = bauta_without_privilege(words);
            let said = String::from_utf8(said.stderr).unwrap();
            assert!(
                said.contains("interface vpn7 needs the capability CAP_NET_ADMIN (run as root")
                    && said.contains("Operation not permitted"),
                "{said}"
            );
        }
        assert_eq!(output("ip address"), before);
        // Whoever owns the interface may open it, and not change it.
        output("ip tuntap add vpn7 mode tun user root");
        let before = output("ip address");
        for words in [&relay[..], &[&tun[..], &["--mtu", "1400"]].concat()] {
            let said = bauta_without_privilege(words);
            let said = String::from_utf8(said.stderr).unwrap();
            assert!(
                said.contains("the MTU of interface vpn7") && said.contains("CAP_NET_ADMIN"),
                "{said}"
            );
        }
        assert_eq!(output("ip address"), before);
        // Nor is one of the wrong kind taken for a lack of privilege.
        let config = fs::read_to_string("/mnt/relay.toml").unwrap();
        fs::write(
            "/mnt/relay.toml",
            config.replace("workers = 1", "workers = 2"),
        )
        .unwrap();
        let said = bauta_without_privilege(&relay);
        let said = String::from_utf8(said.stderr).unwrap();
        assert!(
            said.contains("interface vpn7 is there and does not fit"),
            "{said}"
        );
        assert!(said.contains("multi_queue"), "{said}");
    });
}

/// The part of the test further above that runs without privilege; alone it has nothing to do.
#[test]
fn without_privilege() {
    let is_nobody = fs::metadata("/proc/self").is_ok_and(|metadata| {
        use std::os::unix::fs::MetadataExt;
        metadata.uid() == 65534
    });
    if std::env::var_os(INSIDE).is_none() || !is_nobody {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let links = Links::open().unwrap();
        let index = links.index("tun0").await.unwrap();
        let error = links.set_up(index, "tun0", None).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("CAP_NET_ADMIN: run as root, or `setcap"),
            "{text}"
        );
    });
}
