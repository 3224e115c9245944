//! What is changed in the system around a tunnel, and undone, on a real kernel.
//!
//! Each test runs in a network namespace and a mount namespace of its own, which takes root: without
//! `BAUTA_PRIVILEGED=1` the tests only say so. Under `CI` the variable has to say which of the two is meant, 1 or 0.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;

use bauta::net::link::{
    Changes, DnsOutcome, Forwarding, Journal, LinkDns, LinkError, Links, NatTable, WayTo, forwards,
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
    let links = Links::open().unwrap();
    Changes::begin(Path::new(STATE), "tun0", links)
        .await
        .unwrap()
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
            links
                .add_address(index, "tun0", net(address))
                .await
                .unwrap();
            // One that is there is fine.
            links
                .add_address(index, "tun0", net(address))
                .await
                .unwrap();
            assert!(output("ip address show tun0").contains(address));
        }
        let routes = [
            ("0.0.0.0/1", "10.89.0.7"),
            ("10.0.0.0/8", "10.89.0.7"),
            ("::/1", "fd00:ba::7"),
        ];
        for (prefix, source) in routes {
            let add = || links.add_route(index, net(prefix), Some(ip(source)));
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
            links.remove_route(index, net(prefix)).await.unwrap();
            links.remove_route(index, net(prefix)).await.unwrap();
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

/// The part of the test above that runs without privilege; alone it has nothing to do.
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
