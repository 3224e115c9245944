use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn config(prefixes: &[&str]) -> PoolConfig {
    PoolConfig {
        prefixes: prefixes.iter().map(|text| net(text)).collect(),
        prefix_len_min_v4: 30,
        prefix_len_min_v6: 64,
        ..PoolConfig::default()
    }
}

fn pools(prefixes: &[&str]) -> Pools {
    Pools::new(&config(prefixes)).unwrap()
}

const fn owner(tunnel: u64) -> Owner {
    let worker = tunnel as u32 % 2;
    Owner { worker, tunnel }
}

/// Where virtual time starts; the same for the whole of a test.
fn start() -> Instant {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(|| {
        #[expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]
        Instant::now()
    });
    *START
}

const ANY_V4: &str = "0.0.0.0/32";
const ANY_V6: &str = "::/128";

#[test]
fn configurations_that_give_nothing() {
    let error = |config: &PoolConfig| Pools::new(config).unwrap_err();
    let prefix = net("10.0.0.1/24");
    assert_eq!(
        error(&config(&["10.0.0.1/24"])),
        PoolError::HostBits { prefix }
    );
    for text in ["10.0.0.0/31", "2001:db8::/127"] {
        let prefix = net(text);
        assert_eq!(error(&config(&[text])), PoolError::TooSmall { prefix });
    }
    let (first, second) = (net("10.0.0.0/24"), net("10.0.0.128/25"));
    assert_eq!(
        error(&config(&["2001:db8::/64", "10.0.0.0/24", "10.0.0.128/25"])),
        PoolError::Overlap { first, second }
    );
    let mut shorter = config(&[]);
    shorter.prefix_len_v6 = 63;
    let (min, max) = (64, 128);
    let len = 63;
    assert_eq!(error(&shorter), PoolError::Length { len, min, max });
    let mut longer = config(&[]);
    longer.prefix_len_min_v4 = 33;
    let (len, min, max) = (33, 1, 32);
    assert_eq!(error(&longer), PoolError::Length { len, min, max });
    assert_eq!(
        pools(&[]).assign(start(), owner(1), net(ANY_V4), None),
        Err(AssignError::NotDelegable)
    );
}

#[test]
fn the_gateway_and_the_ends_of_a_pool_are_not_given() {
    let pools = pools(&["192.0.2.0/29", "2001:db8::/126", "198.51.100.0/30"]);
    assert_eq!(
        pools.gateway_addresses(),
        [ip("192.0.2.1"), ip("2001:db8::1"), ip("198.51.100.1")]
    );
    assert_eq!(pools.default_wishes(), [net(ANY_V4), net(ANY_V6)]);
    let mut given = Vec::new();
    for tunnel in 0.. {
        match pools.assign(start(), owner(tunnel), net(ANY_V4), None) {
            Ok(prefix) => given.push(prefix),
            Err(error) => {
                assert_eq!(error, AssignError::Exhausted { len: 32 });
                break;
            }
        }
    }
    given.sort_unstable();
    let expected = ["2", "3", "4", "5", "6"].map(|host| net(&format!("192.0.2.{host}/32")));
    assert_eq!(given, [&expected[..], &[net("198.51.100.2/32")]].concat());

    let v6: Vec<_> = (100..103)
        .map(|tunnel| pools.assign(start(), owner(tunnel), net(ANY_V6), None))
        .collect();
    let exhausted = Err(AssignError::Exhausted { len: 128 });
    let expected = [
        Ok(net("2001:db8::2/128")),
        Ok(net("2001:db8::3/128")),
        exhausted,
    ];
    assert_eq!(v6, expected);
    for reserved in ["192.0.2.0/32", "192.0.2.1/32", "192.0.2.7/32"] {
        pools.release(start(), owner(0));
        let got = pools.assign(start(), owner(0), net(reserved), None);
        assert_eq!(got, Ok(net("192.0.2.2/32")));
    }
}

// spec: 9484-4.7.2-c
#[test]
fn wishes() {
    let pools = pools(&["10.0.0.0/16", "2001:db8::/48"]);
    let assign = |tunnel, wish| pools.assign(start(), owner(tunnel), net(wish), None);
    assert_eq!(assign(1, "10.0.9.9/32"), Ok(net("10.0.9.9/32")));
    // Not twice, and not what is elsewhere.
    assert_ne!(assign(2, "10.0.9.9/32"), Ok(net("10.0.9.9/32")));
    assert!(net("10.0.0.0/16").contains(&assign(3, "192.0.2.1/32").unwrap()));
    // Part of it is taken.
    assert_ne!(assign(4, "10.0.9.8/30"), Ok(net("10.0.9.8/30")));
    assert_eq!(assign(5, "10.0.9.4/30"), Ok(net("10.0.9.4/30")));
    // Shorter than may be delegated, on both sides of what there is.
    assert_eq!(assign(6, "10.0.20.0/24"), Ok(net("10.0.20.0/30")));
    assert_eq!(assign(7, "0.0.0.0/0").map(|p| p.prefix_len()), Ok(30));
    assert_eq!(assign(8, "2001:db8:0:7::/64"), Ok(net("2001:db8:0:7::/64")));
    assert_eq!(assign(9, "::/0").map(|p| p.prefix_len()), Ok(64));
    // The first /64 has the gateway in it.
    assert_ne!(assign(10, "2001:db8::/64"), Ok(net("2001:db8::/64")));
    assert_eq!(assign(10, "2001:db8::77/128"), Ok(net("2001:db8::77/128")));

    assert_eq!(pools.owner_of(ip("10.0.9.9")), Some(owner(1)));
    assert_eq!(pools.owner_of(ip("10.0.9.6")), Some(owner(5)));
    assert_eq!(pools.owner_of(ip("2001:db8:0:7:1::")), Some(owner(8)));
    assert_eq!(pools.owner_of(ip("192.0.2.1")), None);
}

#[test]
fn a_pool_smaller_than_the_shortest_prefix_gives_what_it_has() {
    let pools = pools(&["2001:db8::/112"]);
    let got = pools.assign(start(), owner(1), net("::/64"), None);
    assert_eq!(got, Ok(net("2001:db8::8000/113")));
}

#[test]
fn a_share_per_tunnel() {
    let pools = pools(&["10.0.0.0/24"]);
    let assign = |tunnel| pools.assign(start(), owner(tunnel), net(ANY_V4), None);
    for _ in 0..8 {
        assert!(assign(1).is_ok());
    }
    assert_eq!(assign(1), Err(AssignError::TooMany { max: 8 }));
    assert!(assign(2).is_ok());
    assert_eq!(pools.release(start(), owner(1)).len(), 8);
    assert_eq!(pools.release(start(), owner(1)), []);
    assert_eq!(pools.usage().assigned, 1);
}

#[test]
fn an_identity_finds_its_address_again() {
    let pools = pools(&["10.0.0.0/29"]);
    let grace = PoolConfig::default().grace;
    let assign = |at, tunnel, identity| pools.assign(at, owner(tunnel), net(ANY_V4), identity);
    let first = assign(start(), 1, Some("alice")).unwrap();
    pools.release(start(), owner(1));
    let usage = PoolUsage {
        kept: 1,
        ..PoolUsage::default()
    };
    assert_eq!(pools.usage(), usage);
    assert_eq!(pools.owner_of(first.addr()), None);

    // Others get all the others.
    for tunnel in 2..6 {
        assert_ne!(assign(start(), tunnel, Some("bob")), Ok(first));
    }
    let exhausted = Err(AssignError::Exhausted { len: 32 });
    assert_eq!(assign(start(), 6, None), exhausted);
    let late = start() + grace - Duration::from_millis(1);
    assert_eq!(pools.assign(late, owner(6), first, None), exhausted);
    assert_eq!(assign(late, 7, Some("alice")), Ok(first));
    // The grace starts anew.
    pools.release(late, owner(7));
    assert_eq!(assign(start() + grace, 8, Some("carol")), exhausted);
    assert_eq!(assign(late + grace, 8, Some("carol")), Ok(first));
}

#[test]
fn an_identity_keeps_no_more_than_its_share() {
    let mut config = config(&["2001:db8::/64"]);
    config.prefix_len_min_v6 = 128;
    let pools = Pools::new(&config).unwrap();
    for host in 2..1000 {
        let wish = net(&format!("2001:db8::{host:x}/128"));
        let got = pools.assign(start(), owner(1), wish, Some("alice"));
        assert_eq!(got, Ok(wish));
        pools.release(start(), owner(1));
    }
    assert_eq!(pools.usage().kept, state::KEPT_MAX);
    let oldest = net("2001:db8::2/128");
    assert_eq!(
        pools.assign(start(), owner(1), oldest, Some("bob")),
        Ok(oldest)
    );
}

#[test]
fn networks_behind_tunnels() {
    let pools = pools(&["10.0.0.0/24"]);
    let assigned = pools.assign(start(), owner(1), net(ANY_V4), None).unwrap();
    assert!(pools.advertise(owner(2), &[net("10.0.0.0/8"), net("192.0.2.0/24")]));
    assert!(pools.advertise(owner(3), &[net("10.0.0.0/25"), net("192.0.2.0/24")]));
    // What is assigned goes first, then the longest prefix, then the latest.
    assert_eq!(pools.owner_of(assigned.addr()), Some(owner(1)));
    assert_eq!(pools.owner_of(ip("10.0.0.99")), Some(owner(3)));
    assert_eq!(pools.owner_of(ip("10.0.0.199")), Some(owner(2)));
    assert_eq!(pools.owner_of(ip("192.0.2.1")), Some(owner(3)));
    // A list replaces the one before.
    assert!(pools.advertise(owner(3), &[net("198.51.100.0/24"); 2]));
    assert_eq!(pools.owner_of(ip("192.0.2.1")), Some(owner(2)));
    assert_eq!(pools.owner_of(ip("198.51.100.7")), Some(owner(3)));
    assert_eq!(pools.usage().site_prefixes, 3);
    pools.release(start(), owner(2));
    assert!(pools.advertise(owner(3), &[]));
    assert_eq!(pools.usage().site_prefixes, 0);
    assert_eq!(pools.owner_of(ip("192.0.2.1")), None);

    let many = net("2001:db8::/48").subnets(64).unwrap();
    let many: Vec<_> = many.take(SITE_PREFIXES_MAX + 1).collect();
    assert!(!pools.advertise(owner(4), &many));
    assert_eq!(pools.usage().site_prefixes, SITE_PREFIXES_MAX);
    assert!(pools.advertise(owner(4), &many[1..]));
    assert!(pools.advertise(owner(4), &[]));
    assert_eq!(
        pools.usage(),
        PoolUsage {
            assigned: 1,
            ..PoolUsage::default()
        }
    );
}

#[test]
fn a_large_pool_to_the_last_address() {
    let mut config = config(&["10.1.0.0/16"]);
    config.assignments_max = usize::MAX;
    let pools = Pools::new(&config).unwrap();
    for _ in 0..65_533 {
        assert!(pools.assign(start(), owner(1), net(ANY_V4), None).is_ok());
    }
    let exhausted = Err(AssignError::Exhausted { len: 32 });
    assert_eq!(
        pools.assign(start(), owner(1), net(ANY_V4), None),
        exhausted
    );
    assert_eq!(pools.release(start(), owner(1)).len(), 65_533);
    let wish = net("10.1.128.0/30");
    assert_eq!(pools.assign(start(), owner(1), wish, None), Ok(wish));
}

const POOLS: [&str; 3] = ["10.0.0.0/28", "10.0.1.0/29", "2001:db8::/124"];
const RESERVED: [&str; 8] = [
    "10.0.0.0",
    "10.0.0.1",
    "10.0.0.15",
    "10.0.1.0",
    "10.0.1.1",
    "10.0.1.7",
    "2001:db8::",
    "2001:db8::1",
];
const NAMES: [&str; 3] = ["alice", "bob", "carol"];

#[derive(Clone, Debug)]
enum Step {
    Assign {
        tunnel: u64,
        wish: IpNet,
        identity: Option<&'static str>,
    },
    Release(u64),
    Pass(u64),
}

fn wish() -> impl Strategy<Value = IpNet> {
    let any = prop_oneof![
        Just(ANY_V4),
        Just(ANY_V6),
        Just("0.0.0.0/30"),
        Just("::/126")
    ];
    let v4 = (0u8..2, 0u8..16, 29u8..=32)
        .prop_map(|(pool, host, len)| IpNet::new([10, 0, pool, host].into(), len).unwrap().trunc());
    let v6 = (0u16..16, 124u8..=128).prop_map(|(host, len)| {
        let address = [0x2001, 0xdb8, 0, 0, 0, 0, 0, host].into();
        IpNet::new(address, len).unwrap().trunc()
    });
    prop_oneof![4 => any.prop_map(net), 2 => v4, 1 => v6]
}

fn step() -> impl Strategy<Value = Step> {
    let identity = prop::option::of(prop::sample::select(&NAMES[..]));
    prop_oneof![
        6 => (0u64..5, wish(), identity)
            .prop_map(|(tunnel, wish, identity)| Step::Assign { tunnel, wish, identity }),
        2 => (0u64..5).prop_map(Step::Release),
        1 => (0u64..200).prop_map(Step::Pass),
    ]
}

/// The same as lists.
#[derive(Default)]
struct Model {
    assigned: Vec<(IpNet, u64, Option<&'static str>)>,
    /// The oldest first.
    kept: Vec<(IpNet, &'static str, Instant)>,
}

impl Model {
    fn is_free(&self, prefix: &IpNet) -> bool {
        let mut taken = self.assigned.iter().map(|(taken, ..)| taken);
        let mut kept = self.kept.iter().map(|(kept, ..)| kept);
        let overlaps = |other: &IpNet| other.contains(prefix) || prefix.contains(other);
        POOLS.iter().any(|pool| net(pool).contains(prefix))
            && !RESERVED.iter().any(|address| prefix.contains(&ip(address)))
            && !taken.any(overlaps)
            && !kept.any(overlaps)
    }

    fn release(&mut self, now: Instant, index: usize) -> IpNet {
        let (prefix, _, identity) = self.assigned.remove(index);
        self.kept
            .extend(identity.map(|identity| (prefix, identity, now)));
        prefix
    }

    fn owner_of(&self, address: IpAddr) -> Option<Owner> {
        let mut assigned = self.assigned.iter();
        let found = assigned.find(|(prefix, ..)| prefix.contains(&address));
        found.map(|(_, tunnel, _)| owner(*tunnel))
    }
}

proptest! {
    #[test]
    fn as_lists(steps in vec(step(), 0..120)) {
        let mut config = config(&POOLS);
        config.prefix_len_min_v6 = 126;
        config.assignments_max = 6;
        let pools = Pools::new(&config).unwrap();
        let mut model = Model::default();
        let mut now = start();
        for step in steps {
            match step {
                Step::Assign { tunnel, wish, identity } => {
                    model.kept.retain(|(_, _, since)| now - *since < config.grace);
                    let got = pools.assign(now, owner(tunnel), wish, identity);
                    let share = model.assigned.iter().filter(|(_, other, _)| *other == tunnel);
                    if share.count() == 6 {
                        prop_assert_eq!(got, Err(AssignError::TooMany { max: 6 }));
                        continue;
                    }
                    let is_v4 = wish.max_prefix_len() == 32;
                    let len = wish.prefix_len().max(if is_v4 { 30 } else { 126 });
                    let wished = IpNet::new(wish.addr(), len).unwrap();
                    let own = model.kept.iter().position(|(prefix, name, _)| {
                        Some(*name) == identity && *prefix == wished
                    });
                    let own_alike = model.kept.iter().position(|(prefix, name, _)| {
                        Some(*name) == identity
                            && prefix.prefix_len() == len
                            && prefix.max_prefix_len() == wish.max_prefix_len()
                    });
                    let in_pools = POOLS.iter().map(|pool| net(pool));
                    let alike = in_pools.filter(|p| p.max_prefix_len() == wish.max_prefix_len());
                    let mut free = alike
                        .flat_map(|pool| pool.subnets(len).unwrap())
                        .filter(|prefix| model.is_free(prefix));
                    if own.is_some() || model.is_free(&wished) {
                        prop_assert_eq!(got, Ok(wished));
                    } else if let Some(index) = own_alike {
                        prop_assert_eq!(got, Ok(model.kept[index].0));
                    } else if let Ok(got) = got {
                        prop_assert!(free.any(|prefix| prefix == got));
                    } else {
                        prop_assert_eq!(got, Err(AssignError::Exhausted { len }));
                        prop_assert_eq!(free.next(), None);
                    }
                    if let Ok(prefix) = got {
                        model.kept.retain(|(kept, ..)| *kept != prefix);
                        model.assigned.push((prefix, tunnel, identity));
                    }
                }
                Step::Release(tunnel) => {
                    let mut released = Vec::new();
                    while let Some(index) =
                        model.assigned.iter().position(|(_, other, _)| *other == tunnel)
                    {
                        released.push(model.release(now, index));
                    }
                    prop_assert_eq!(pools.release(now, owner(tunnel)), released);
                }
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
            }
            for pool in POOLS.iter().map(|pool| net(pool)) {
                for address in pool.subnets(pool.max_prefix_len()).unwrap() {
                    let address = address.addr();
                    prop_assert_eq!(pools.owner_of(address), model.owner_of(address));
                }
            }
            prop_assert_eq!(pools.usage().assigned, model.assigned.len());
        }

        // Everything comes back.
        for tunnel in 0..5 {
            pools.release(now, owner(tunnel));
        }
        now += config.grace;
        let mut given: HashMap<&str, usize> = HashMap::new();
        for tunnel in 0..100 {
            for wish in [ANY_V4, ANY_V6] {
                if pools.assign(now, owner(tunnel), net(wish), None).is_ok() {
                    *given.entry(wish).or_default() += 1;
                }
            }
        }
        prop_assert_eq!(given, HashMap::from([(ANY_V4, 13 + 5), (ANY_V6, 14)]));
        prop_assert_eq!(pools.usage().kept, 0);
    }
}
