use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::tunnel::ip::ADDRESSES_MAX;

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
        assignments_per_user_max: usize::MAX,
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

/// Somebody with a name or, without one, somewhere.
fn holder(name: Option<&str>) -> Holder {
    Holder::new(name, ip("192.0.2.99"))
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
        pools(&[]).assign(start(), owner(1), net(ANY_V4), &holder(None)),
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
        match pools.assign(start(), owner(tunnel), net(ANY_V4), &holder(None)) {
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
        .map(|tunnel| pools.assign(start(), owner(tunnel), net(ANY_V6), &holder(None)))
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
        let got = pools.assign(start(), owner(0), net(reserved), &holder(None));
        assert_eq!(got, Ok(net("192.0.2.2/32")));
    }
}

// spec: 9484-4.7.2-c
#[test]
fn wishes() {
    let pools = pools(&["10.0.0.0/16", "2001:db8::/48"]);
    let assign = |tunnel, wish| pools.assign(start(), owner(tunnel), net(wish), &holder(None));
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
    let got = pools.assign(start(), owner(1), net("::/64"), &holder(None));
    assert_eq!(got, Ok(net("2001:db8::8000/113")));
}

#[test]
fn a_share_per_tunnel() {
    let pools = pools(&["10.0.0.0/24"]);
    let assign = |tunnel| pools.assign(start(), owner(tunnel), net(ANY_V4), &holder(None));
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
fn a_share_per_user() {
    let mut config = config(&["10.0.0.0/16", "2001:db8::/48"]);
    config.assignments_per_user_max = 10;
    let pools = Pools::new(&config).unwrap();
    let full = Err(AssignError::TooManyOfUser { max: 10 });
    let somewhere = |text: &str| Holder::new(None, ip(text));
    for (first, (user, other)) in (0..).step_by(100).zip([
        (holder(Some("alice")), holder(Some("bob"))),
        (somewhere("192.0.2.1"), somewhere("192.0.2.2")),
        (somewhere("2001:db8::1"), somewhere("2001:db8:0:1::1")),
    ]) {
        // Over tunnels, workers and versions; one at a time is no more than another.
        for tunnel in first..first + 5 {
            for wish in [ANY_V4, "::/64"] {
                let got = pools.assign(start(), owner(tunnel), net(wish), &user);
                assert!(got.is_ok(), "{user:?}: {got:?}");
            }
        }
        let assign = |user| pools.assign(start(), owner(first + 6), net(ANY_V4), user);
        assert_eq!(assign(&user), full);
        assert!(assign(&other).is_ok());
        // What is kept or rests counts for nobody.
        pools.release(start(), owner(first));
        assert!(assign(&user).is_ok());
        assert!(assign(&user).is_ok());
        assert_eq!(assign(&user), full);
    }
    // One host has all of a /64 to choose from.
    assert_eq!(somewhere("2001:db8::1"), somewhere("2001:db8::2:1"));
    assert_eq!(somewhere("::ffff:192.0.2.1"), somewhere("192.0.2.1"));
}

#[test]
fn a_name_finds_its_address_again() {
    let pools = pools(&["10.0.0.0/29"]);
    let grace = PoolConfig::default().grace;
    let assign = |at, tunnel, wish, name| pools.assign(at, owner(tunnel), wish, &holder(name));
    let any = net(ANY_V4);
    let first = assign(start(), 1, any, Some("alice")).unwrap();
    pools.release(start(), owner(1));
    let usage = PoolUsage {
        kept: 1,
        ..PoolUsage::default()
    };
    assert_eq!(pools.usage(), usage);
    assert_eq!(pools.owner_of(first.addr()), None);

    // Others get all the others, whatever they wish for.
    for tunnel in 2..6 {
        let got = assign(start(), tunnel, first, Some("bob"));
        assert!(got.is_ok_and(|prefix| prefix != first), "{got:?}");
    }
    let late = start() + grace - Duration::from_millis(1);
    assert_eq!(assign(late, 7, any, Some("alice")), Ok(first));
    let exhausted = Err(AssignError::Exhausted { len: 32 });
    assert_eq!(assign(late, 8, any, None), exhausted);
    // The grace starts anew.
    pools.release(late, owner(7));
    pools.release(late, owner(2));
    let later = late + grace - Duration::from_millis(1);
    assert_eq!(assign(later, 9, any, Some("alice")), Ok(first));
    // When it is over, what was kept is like any other.
    pools.release(later, owner(9));
    let got = assign(later + grace, 10, first, Some("carol"));
    assert_eq!(got, Ok(first));
}

#[test]
fn nobody_waits_for_somebody_who_is_not_there() {
    let pools = pools(&["10.0.0.0/29"]);
    let after = |seconds| start() + Duration::from_secs(seconds);
    let assign = |at, tunnel, name| pools.assign(at, owner(tunnel), net(ANY_V4), &holder(name));
    let names = ["a", "b", "c", "d", "e"];
    let all: Vec<_> = (1..)
        .zip(names)
        .map(|(tunnel, name)| assign(start(), tunnel, Some(name)).unwrap())
        .collect();
    for (seconds, tunnel) in [(1, 4), (2, 2), (3, 5)] {
        pools.release(after(seconds), owner(tunnel));
    }
    // Whose tunnel ended first loses first, and is a stranger then.
    assert_eq!(assign(after(4), 6, None), Ok(all[3]));
    assert_eq!(assign(after(4), 7, Some("d")), Ok(all[1]));
    assert_eq!(assign(after(4), 8, Some("e")), Ok(all[4]));
    let exhausted = Err(AssignError::Exhausted { len: 32 });
    assert_eq!(assign(after(4), 9, None), exhausted);
    assert_eq!(pools.usage().kept, 0);
}

#[test]
fn neighbours_that_are_kept_make_room_together() {
    let pools = pools(&["10.0.0.0/28"]);
    let assign =
        |tunnel, wish, name| pools.assign(start(), owner(tunnel), net(wish), &holder(name));
    for tunnel in 0..13 {
        assert!(assign(tunnel, ANY_V4, Some("alice")).is_ok());
    }
    let kept = 4..8;
    for tunnel in (0..13).filter(|t| kept.contains(&pools_host(&pools, *t))) {
        pools.release(start(), owner(tunnel));
    }
    assert_eq!(pools.usage().kept, 4);
    assert_eq!(assign(20, "0.0.0.0/30", None), Ok(net("10.0.0.4/30")));
    assert_eq!(
        assign(21, ANY_V4, None),
        Err(AssignError::Exhausted { len: 32 })
    );
}

/// The last octet of the address of a tunnel.
fn pools_host(pools: &Pools, tunnel: u64) -> u8 {
    let has = |host: &u8| pools.owner_of([10, 0, 0, *host].into()) == Some(owner(tunnel));
    (0..=255).find(has).expect("an address")
}

#[test]
fn what_was_given_back_rests() {
    let pools = pools(&["10.0.0.0/29"]);
    let assign = |at, tunnel, wish| pools.assign(at, owner(tunnel), wish, &holder(None));
    let first = assign(start(), 1, net(ANY_V4)).unwrap();
    pools.release(start(), owner(1));
    assert_eq!((pools.usage().kept, pools.usage().resting), (0, 1));
    // Not even by a wish, as long as there are others.
    let soon = start() + QUARANTINE - Duration::from_millis(1);
    for tunnel in 2..6 {
        let got = assign(soon, tunnel, first);
        assert!(got.is_ok_and(|prefix| prefix != first), "{got:?}");
    }
    assert_eq!(assign(soon, 6, first), Ok(first));
    // And when it has rested, by a wish.
    pools.release(soon, owner(6));
    pools.release(soon, owner(5));
    assert_eq!(assign(soon + QUARANTINE, 7, first), Ok(first));
}

#[test]
fn a_name_keeps_no_more_than_its_share() {
    let mut config = config(&["2001:db8::/64"]);
    config.prefix_len_min_v6 = 128;
    let pools = Pools::new(&config).unwrap();
    let alice = holder(Some("alice"));
    for host in 2..1000 {
        let wish = net(&format!("2001:db8::{host:x}/128"));
        assert_eq!(pools.assign(start(), owner(1), wish, &alice), Ok(wish));
        pools.release(start(), owner(1));
    }
    assert_eq!(pools.usage().kept, kept::CLAIMS_MAX);
    let oldest = net("2001:db8::2/128");
    let assign = |at, tunnel| pools.assign(at, owner(tunnel), oldest, &holder(Some("bob")));
    // It rests all the same.
    assert_ne!(assign(start(), 1), Ok(oldest));
    assert_eq!(assign(start() + QUARANTINE, 2), Ok(oldest));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut config = config(&["2001:db8::/64"]);
    config.prefix_len_min_v6 = 128;
    let pools = Pools::new(&config).unwrap();
    for round in 0..=KEPT_MAX {
        let got = pools.assign(start(), owner(1), net(ANY_V6), &holder(None));
        assert!(got.is_ok(), "{round}: {got:?}");
        pools.release(start(), owner(1));
    }
    assert_eq!(pools.usage().resting, KEPT_MAX);
}

#[test]
fn networks_behind_tunnels() {
    let pools = pools(&["10.0.0.0/24"]);
    let assigned = pools
        .assign(start(), owner(1), net(ANY_V4), &holder(None))
        .unwrap();
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
    let assign = |at, tunnel, wish: &str| pools.assign(at, owner(tunnel), net(wish), &holder(None));
    // A tunnel is never given more than its peer can be told of.
    let most = ADDRESSES_MAX as u64;
    let tunnels = 0..=65_533 / most;
    for address in 0..65_533 {
        assert!(assign(start(), address / most, ANY_V4).is_ok());
    }
    let too_many = Err(AssignError::TooMany { max: ADDRESSES_MAX });
    assert_eq!(assign(start(), 0, ANY_V4), too_many);
    let exhausted = Err(AssignError::Exhausted { len: 32 });
    assert_eq!(assign(start(), 999, ANY_V4), exhausted);
    let released = tunnels.map(|tunnel| pools.release(start(), owner(tunnel)).len());
    assert_eq!(released.sum::<usize>(), 65_533);
    let wish = "10.1.128.0/30";
    assert_eq!(assign(start() + QUARANTINE, 1, wish), Ok(net(wish)));
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
#[derive(Clone, Debug)]
enum Step {
    Assign {
        tunnel: u64,
        wish: IpNet,
        holder: Holder,
    },
    Release(u64),
    Pass(u64),
}

fn holders() -> Vec<Holder> {
    let named = ["alice", "bob", "carol"].map(|name| holder(Some(name)));
    let unnamed = ["192.0.2.1", "2001:db8:9::1"].map(|text| Holder::new(None, ip(text)));
    named.into_iter().chain(unnamed).collect()
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
    prop_oneof![
        6 => (0u64..5, wish(), prop::sample::select(holders()))
            .prop_map(|(tunnel, wish, holder)| Step::Assign { tunnel, wish, holder }),
        2 => (0u64..5).prop_map(Step::Release),
        1 => (0u64..200).prop_map(Step::Pass),
    ]
}

/// The same as lists.
#[derive(Default)]
struct Model {
    assigned: Vec<(IpNet, u64, Holder)>,
    /// The oldest first.
    kept: Vec<(IpNet, Holder, Instant)>,
    grace: Duration,
}

impl Model {
    /// Whether no tunnel has any of it.
    fn is_idle(&self, prefix: &IpNet) -> bool {
        POOLS.iter().any(|pool| net(pool).contains(prefix))
            && !RESERVED.iter().any(|address| prefix.contains(&ip(address)))
            && !self
                .assigned
                .iter()
                .any(|(taken, ..)| overlap(taken, prefix))
    }

    fn is_free(&self, prefix: &IpNet) -> bool {
        self.is_idle(prefix) && !self.kept.iter().any(|(kept, ..)| overlap(kept, prefix))
    }

    fn blocks(like: IpNet, len: u8) -> impl Iterator<Item = IpNet> {
        let alike = move |pool: &IpNet| pool.max_prefix_len() == like.max_prefix_len();
        let pools = POOLS.iter().map(|pool| net(pool)).filter(alike);
        pools.flat_map(move |pool| pool.subnets(len).unwrap())
    }

    fn forget(&mut self, now: Instant) {
        let grace = self.grace;
        self.kept.retain(|(_, holder, since)| {
            let named = holder.name().map_or(Duration::ZERO, |_| grace);
            now - *since < named.max(QUARANTINE)
        });
    }

    /// The oldest prefix that somebody has a claim to, and that will do.
    fn claimed(
        &self,
        now: Instant,
        holder: &Holder,
        will_do: impl Fn(&IpNet) -> bool,
    ) -> Option<IpNet> {
        let claims = self.kept.iter().filter(|(prefix, of, since)| {
            of.name().is_some() && of == holder && now - *since < self.grace && will_do(prefix)
        });
        claims.map(|(prefix, ..)| *prefix).next()
    }

    fn release(&mut self, now: Instant, index: usize) -> IpNet {
        let (prefix, _, holder) = self.assigned.remove(index);
        self.kept.push((prefix, holder, now));
        prefix
    }

    fn owner_of(&self, address: IpAddr) -> Option<Owner> {
        let mut assigned = self.assigned.iter();
        let found = assigned.find(|(prefix, ..)| prefix.contains(&address));
        found.map(|(_, tunnel, _)| owner(*tunnel))
    }
}

proptest! {
    // No address is given twice; wishes and claims hold; what is kept or rests is given to others last, the oldest
    // first; nobody is refused while there is something, nor gets more than a share.
    #[test]
    fn as_lists(
        steps in vec(step(), 0..120),
        grace in prop::sample::select(vec![0u64, 30, 300]),
    ) {
        let mut config = config(&POOLS);
        config.prefix_len_min_v6 = 126;
        config.assignments_max = 6;
        config.assignments_per_user_max = 9;
        config.grace = Duration::from_secs(grace);
        let pools = Pools::new(&config).unwrap();
        let mut model = Model { grace: config.grace, ..Model::default() };
        let mut now = start();
        for step in steps {
            match step {
                Step::Assign { tunnel, wish, holder } => {
                    model.forget(now);
                    let got = pools.assign(now, owner(tunnel), wish, &holder);
                    let count = |is_it: &dyn Fn(&(IpNet, u64, Holder)) -> bool| {
                        model.assigned.iter().filter(|lease| is_it(lease)).count()
                    };
                    if count(&|(_, other, _)| *other == tunnel) == 6 {
                        prop_assert_eq!(got, Err(AssignError::TooMany { max: 6 }));
                        continue;
                    }
                    if count(&|(.., other)| *other == holder) == 9 {
                        prop_assert_eq!(got, Err(AssignError::TooManyOfUser { max: 9 }));
                        continue;
                    }
                    let is_v4 = wish.max_prefix_len() == 32;
                    let len = wish.prefix_len().max(if is_v4 { 30 } else { 126 });
                    let wished = IpNet::new(wish.addr(), len).unwrap();
                    let is_alike = |prefix: &IpNet| {
                        prefix.prefix_len() == len && prefix.max_prefix_len() == wish.max_prefix_len()
                    };
                    let own = (model.claimed(now, &holder, |prefix| *prefix == wished))
                        .or_else(|| model.claimed(now, &holder, is_alike));
                    let oldest = model.kept.iter().map(|(prefix, ..)| prefix).find(|prefix| {
                        prefix.max_prefix_len() == wish.max_prefix_len() && prefix.prefix_len() <= len
                    });
                    let mut blocks = Model::blocks(wish, len);
                    if model.is_free(&wished) {
                        prop_assert_eq!(got, Ok(wished));
                    } else if let Some(own) = own {
                        prop_assert_eq!(got, Ok(own));
                    } else if blocks.any(|block| model.is_free(&block)) {
                        prop_assert!(got.is_ok_and(|got| model.is_free(&got)), "{:?}", got);
                    } else if let Some(oldest) = oldest {
                        prop_assert!(got.is_ok_and(|got| oldest.contains(&got)), "{:?}", got);
                    } else if Model::blocks(wish, len).any(|block| model.is_idle(&block)) {
                        prop_assert!(got.is_ok_and(|got| model.is_idle(&got)), "{:?}", got);
                    } else {
                        prop_assert_eq!(got, Err(AssignError::Exhausted { len }));
                    }
                    if let Ok(prefix) = got {
                        prop_assert!(is_alike(&prefix) && model.is_idle(&prefix));
                        model.kept.retain(|(kept, ..)| !overlap(kept, &prefix));
                        model.assigned.push((prefix, tunnel, holder));
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
        let mut given: HashMap<&str, usize> = HashMap::new();
        for tunnel in 0u8..100 {
            let holder = Holder::new(None, [192, 0, 2, tunnel].into());
            for wish in [ANY_V4, ANY_V6] {
                if pools.assign(now, owner(tunnel.into()), net(wish), &holder).is_ok() {
                    *given.entry(wish).or_default() += 1;
                }
            }
        }
        prop_assert_eq!(given, HashMap::from([(ANY_V4, 13 + 5), (ANY_V6, 14)]));
        prop_assert_eq!((pools.usage().kept, pools.usage().resting), (0, 0));
    }
}
