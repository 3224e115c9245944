//! Which packets may pass: the examples of the RFC, and any sequence of steps against the words of the specification.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// A client with an address and a proxy with routes.
fn remote_access(routes: &[AddressRange]) -> (Peer, Peer) {
    let (mut client, mut proxy) = (Peer::default(), Peer::default());
    let list = vec![assigned(0, "192.0.2.42/32"), assigned(0, "2001:db8::/64")];
    let capsule = proxy.assign_addresses(list).unwrap();
    send(&capsule, &mut client).unwrap();
    let capsule = proxy.advertise_routes(routes.to_vec()).unwrap();
    send(&capsule, &mut client).unwrap();
    (client, proxy)
}

// spec: 9484-11-c, 9484-4.7.1-f, 9484-7.2-a, 9484-7.2.1-c
#[test]
fn packets_of_remote_access() {
    let (client, proxy) = remote_access(&[
        range("192.0.2.0", "192.0.2.41", 0),
        range("192.0.2.43", "192.0.2.255", 0),
        range("2001:db8:9::", "2001:db8:9::ff", 0),
    ]);
    for (packet, expected) in [
        (packet("192.0.2.42", "192.0.2.7", UDP), Ok(())),
        (packet("2001:db8::77", "2001:db8:9::7", TCP), Ok(())),
        (
            packet("192.0.2.43", "192.0.2.7", UDP),
            Err(Violation::Source),
        ),
        (
            packet("192.0.2.43", "192.0.2.7", ICMP),
            Err(Violation::Source),
        ),
        (
            packet("2001:db8:0:1::", "2001:db8:9::7", UDP),
            Err(Violation::Source),
        ),
        (
            packet("192.0.2.42", "192.0.3.1", UDP),
            Err(Violation::Destination),
        ),
        (
            packet("192.0.2.42", "192.0.2.42", ICMP),
            Err(Violation::Destination),
        ),
    ] {
        assert_eq!(proxy.check_from_peer(&packet), expected, "{packet:?}");
        // The client knows what it may send, except that ICMP may be forwarded from elsewhere.
        let own = match expected {
            Err(Violation::Source) if packet.is_icmp() => Ok(()),
            Err(Violation::Destination) if packet.destination == ip("192.0.2.42") => {
                Err(Violation::Destination)
            }
            other => other,
        };
        assert_eq!(client.check_to_peer(&packet), own, "{packet:?}");
    }
    for (packet, expected) in [
        (packet("192.0.2.7", "192.0.2.42", UDP), Ok(())),
        (packet("2001:db8:9::1", "2001:db8::1:2:3", TCP), Ok(())),
        // A router on the way.
        (packet("203.0.113.9", "192.0.2.42", ICMP), Ok(())),
        (
            packet("203.0.113.9", "192.0.2.42", UDP),
            Err(Violation::Source),
        ),
        (
            packet("192.0.2.7", "192.0.2.44", UDP),
            Err(Violation::Destination),
        ),
    ] {
        assert_eq!(proxy.check_to_peer(&packet), expected, "{packet:?}");
        // The client has assigned nothing, so it takes any source.
        let own = match expected {
            Err(Violation::Source) => Ok(()),
            other => other,
        };
        assert_eq!(client.check_from_peer(&packet), own, "{packet:?}");
    }
}

// One address, one route, one protocol.
// spec: 9484-4.6-e, 9484-4.7.3-c
#[test]
fn packets_of_flow_forwarding() {
    let (client, proxy) = remote_access(&[range("198.51.100.2", "198.51.100.2", UDP)]);
    for (protocol, expected) in [
        (UDP, Ok(())),
        (ICMP, Ok(())),
        (TCP, Err(Violation::Protocol)),
        // The ICMP of the other version.
        (58, Err(Violation::Protocol)),
    ] {
        let out = packet("192.0.2.42", "198.51.100.2", protocol);
        assert_eq!(client.check_to_peer(&out), expected);
        assert_eq!(proxy.check_from_peer(&out), expected);
        let back = packet("198.51.100.2", "192.0.2.42", protocol);
        assert_eq!(proxy.check_to_peer(&back), expected);
    }
}

// Site to site: both ends advertise, and the networks behind the peer send, once they are believed.
// spec: 9484-11-c
#[test]
fn packets_of_two_sites() {
    let (mut one, mut two) = (Peer::default(), Peer::default());
    let here = vec![range("10.1.0.0", "10.1.255.255", 0)];
    let there = vec![range("10.2.0.0", "10.2.255.255", 0)];
    send(&one.advertise_routes(here).unwrap(), &mut two).unwrap();
    send(&two.advertise_routes(there).unwrap(), &mut one).unwrap();
    let packet = packet("10.1.0.7", "10.2.0.9", TCP);
    assert_eq!(one.check_to_peer(&packet), Ok(()));
    assert_eq!(two.check_from_peer(&packet), Ok(()));

    // A refusal changes nothing; an address makes sources matter, also after it is gone.
    let (_, capsule) = one.request_addresses(&[net("0.0.0.0/32")]).unwrap();
    send(&capsule, &mut two).unwrap();
    let list = vec![refusal(two.pending_of_peer()[0])];
    send(&two.assign_addresses(list).unwrap(), &mut one).unwrap();
    assert_eq!(two.check_from_peer(&packet), Ok(()));
    let list = vec![assigned(0, "10.2.3.4/32")];
    for list in [list, Vec::new()] {
        send(&two.assign_addresses(list).unwrap(), &mut one).unwrap();
        assert_eq!(one.check_to_peer(&packet), Ok(()));
        assert_eq!(two.check_from_peer(&packet), Err(Violation::Source));
    }
    two.allow_sources([net("10.1.0.0/16")]);
    assert_eq!(two.check_from_peer(&packet), Ok(()));
    two.allow_sources([]);
    assert_eq!(two.check_from_peer(&packet), Err(Violation::Source));
}

#[derive(Clone, Debug)]
enum Step {
    Request(Vec<IpNet>),
    /// For each request of the peer, waiting or answered: nothing, an address or a refusal. Then unprompted ones.
    Assign(Vec<Option<IpNet>>, Vec<IpNet>),
    Advertise(Vec<AddressRange>),
    Pref64(Vec<Ipv6Net>),
    AllowSources(Vec<IpNet>),
    Check(PacketFacts),
}

/// Few addresses, so that they meet.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0u8..8).prop_map(|host| IpAddr::from([10, 0, 0, host]));
    let v6 = (0u16..8).prop_map(|host| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]));
    prop_oneof![v4, v6]
}

fn prefix() -> impl Strategy<Value = IpNet> {
    (address(), 29u8..=32).prop_map(|(address, len)| {
        let len = if address.is_ipv6() { len + 96 } else { len };
        IpNet::new(address, len).unwrap().trunc()
    })
}

fn protocol() -> impl Strategy<Value = u8> {
    select(&[0, ICMP, TCP, UDP, 58][..])
}

fn any_range() -> impl Strategy<Value = AddressRange> {
    (prefix(), protocol()).prop_map(|(prefix, protocol)| AddressRange {
        start: prefix.network(),
        end: prefix.broadcast(),
        protocol,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let packet = (address(), address(), protocol());
    let pref64 = select(&[32u8, 40, 48, 56, 64, 96][..]);
    let pref64 = pref64.prop_map(|len| Ipv6Net::new_assert(ip6("2001:db8::"), len));
    prop_oneof![
        2 => vec(prefix(), 0..30).prop_map(Step::Request),
        3 => (vec(prop::option::of(prefix()), 0..40), vec(prefix(), 0..4))
            .prop_map(|(answers, unprompted)| Step::Assign(answers, unprompted)),
        2 => vec(any_range(), 0..6).prop_map(Step::Advertise),
        1 => vec(pref64, 0..3).prop_map(Step::Pref64),
        1 => vec(prefix(), 0..3).prop_map(Step::AllowSources),
        8 => packet.prop_map(|(source, destination, protocol)| {
            Step::Check(PacketFacts { source, destination, protocol })
        }),
    ]
}

fn ip6(text: &str) -> std::net::Ipv6Addr {
    text.parse().unwrap()
}

/// The checks as the words of the specification, over lists.
fn expected_from_peer(
    peer: &Peer,
    sources: Option<&[IpNet]>,
    packet: &PacketFacts,
) -> Option<Violation> {
    if let Some(sources) = sources
        && !sources.iter().any(|prefix| prefix.contains(&packet.source))
        && !holds(peer.assigned_to_peer(), packet.source)
    {
        return Some(Violation::Source);
    }
    if holds(peer.assigned(), packet.destination) {
        return None;
    }
    on_route(
        peer.our_routes(),
        packet.destination,
        packet,
        Violation::Destination,
    )
}

fn expected_to_peer(peer: &Peer, packet: &PacketFacts) -> Option<Violation> {
    let PacketFacts {
        source,
        destination,
        ..
    } = *packet;
    if !holds(peer.assigned_to_peer(), destination)
        && let Some(violation) =
            on_route(peer.routes(), destination, packet, Violation::Destination)
    {
        return Some(violation);
    }
    if holds(peer.assigned(), source) || packet.is_icmp() {
        return None;
    }
    on_route(peer.our_routes(), source, packet, Violation::Source)
}

fn holds(list: &[AssignedAddress], address: IpAddr) -> bool {
    list.iter().any(|entry| entry.prefix.contains(&address))
}

fn on_route(
    routes: &[AddressRange],
    address: IpAddr,
    packet: &PacketFacts,
    otherwise: Violation,
) -> Option<Violation> {
    let mut holding = routes
        .iter()
        .filter(|r| r.start <= address && address <= r.end);
    match holding.clone().next() {
        None => Some(otherwise),
        Some(_) if packet.is_icmp() => None,
        Some(_) if holding.any(|r| [0, packet.protocol].contains(&r.protocol)) => None,
        Some(_) => Some(Violation::Protocol),
    }
}

proptest! {
    // Two ends that tell each other random things agree about all of them.
    #[test]
    fn both_ends_agree(steps in vec((any::<bool>(), step()), 0..60)) {
        let mut ends = [Peer::default(), Peer::default()];
        let mut sources: [Option<Vec<IpNet>>; 2] = Default::default();
        let mut has_assigned = [false; 2];
        let mut asked: [Vec<u64>; 2] = Default::default();
        for (side, step) in steps {
            let (side, other) = (usize::from(side), usize::from(!side));
            let [first, second] = &mut ends;
            let (us, peer) = if side == 0 { (first, second) } else { (second, first) };
            match step {
                Step::Request(wishes) => match us.request_addresses(&wishes) {
                    Ok((ids, capsule)) => {
                        prop_assert_eq!(ids.len(), wishes.len());
                        asked[side].extend(ids);
                        let IpCapsule::AddressRequest(list) = &capsule else { unreachable!() };
                        let event = IpEvent::Requested(list.clone());
                        prop_assert_eq!(send(&capsule, peer), Ok(event));
                    }
                    Err(IpError::TooManyPending) => {
                        prop_assert!(us.pending().len() + wishes.len() > PENDING_MAX);
                    }
                    Err(IpError::TooManyRequests) => {
                        prop_assert!(asked[side].len() + wishes.len() > REQUESTS_MAX);
                    }
                    Err(error) => {
                        prop_assert_eq!(error, IpCapsuleError::NoRequest.into());
                        prop_assert!(wishes.is_empty());
                    }
                },
                Step::Assign(answers, unprompted) => {
                    let answered = asked[other].iter().rev().zip(answers);
                    let mut list: Vec<_> = answered
                        .map(|(&request_id, prefix)| match prefix {
                            Some(prefix) => AssignedAddress { request_id, prefix },
                            None => refusal(requested(request_id, "::/64")),
                        })
                        .collect();
                    let unprompted = unprompted.into_iter();
                    list.extend(unprompted.map(|prefix| AssignedAddress { request_id: 0, prefix }));
                    let capsule = us.assign_addresses(list.clone()).unwrap();
                    has_assigned[side] |= list.iter().any(|entry| !entry.is_refusal());
                    prop_assert_eq!(send(&capsule, peer), Ok(IpEvent::Assigned(list.clone())));
                    list.retain(|entry| !entry.is_refusal());
                    prop_assert_eq!(us.assigned_to_peer(), list);
                }
                Step::Advertise(list) => {
                    let before = us.our_routes().to_vec();
                    match us.advertise_routes(list.clone()) {
                        Ok(capsule) => {
                            prop_assert_eq!(us.our_routes().len(), list.len());
                            let event = IpEvent::Routes(us.our_routes().to_vec());
                            prop_assert_eq!(send(&capsule, peer), Ok(event));
                        }
                        Err(IpError::RangesOverlap { first, second }) => {
                            prop_assert!(list.contains(&first) && list.contains(&second));
                            prop_assert!(first.start <= second.end && second.start <= first.end);
                            prop_assert_eq!(us.our_routes(), before);
                        }
                        Err(error) => prop_assert!(false, "{error}"),
                    }
                }
                Step::Pref64(list) => {
                    let capsule = us.assign_pref64(list.clone()).unwrap();
                    prop_assert_eq!(send(&capsule, peer), Ok(IpEvent::Pref64(list.clone())));
                    prop_assert_eq!(peer.pref64(), list);
                }
                Step::AllowSources(list) => {
                    us.allow_sources(list.iter().copied());
                    sources[side] = Some(list);
                }
                Step::Check(packet) => {
                    let allowed = match &sources[side] {
                        Some(sources) => Some(&sources[..]),
                        None => has_assigned[side].then_some(&[][..]),
                    };
                    let expected = expected_from_peer(us, allowed, &packet);
                    prop_assert_eq!(us.check_from_peer(&packet).err(), expected);
                    let expected = expected_to_peer(us, &packet);
                    let sent = us.check_to_peer(&packet);
                    prop_assert_eq!(sent.err(), expected);
                    // What one end may send, the other takes, unless it knows better where it comes from.
                    if sent.is_ok() {
                        let taken = peer.check_from_peer(&packet);
                        prop_assert!(matches!(taken, Ok(()) | Err(Violation::Source)));
                    }
                }
            }
            for (us, peer) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
                prop_assert_eq!(us.assigned(), peer.assigned_to_peer());
                prop_assert_eq!(us.routes(), peer.our_routes());
                prop_assert_eq!(us.pending(), peer.pending_of_peer());
                prop_assert!(us.pending().len() <= PENDING_MAX);
            }
        }
    }

    // Whatever a peer says, it is not remembered beyond the limits, and not by halves.
    #[test]
    fn a_peer_is_held_to_the_limits(
        capsules in vec(vec((0u64..3000, prefix()), 1..70), 0..60),
        answers in vec(any::<bool>(), 60),
        wild in vec(any::<Index>(), 60),
    ) {
        let mut peer = Peer::default();
        let mut seen = std::collections::BTreeSet::new();
        for ((capsule, answers), wild) in capsules.into_iter().zip(answers).zip(wild) {
            let mut list: Vec<_> = capsule
                .into_iter()
                .map(|(request_id, prefix)| RequestedAddress { request_id, prefix })
                .collect();
            list.sort_unstable_by_key(|request| request.request_id);
            list.dedup_by_key(|request| request.request_id);
            list.retain(|request| request.request_id != 0);
            if wild.index(2) == 0 {
                list.truncate(wild.index(8));
            }
            if list.is_empty() {
                continue;
            }
            let before = peer.pending_of_peer().to_vec();
            let capsule = IpCapsule::AddressRequest(list.clone());
            match send(&capsule, &mut peer) {
                Ok(event) => {
                    prop_assert_eq!(event, IpEvent::Requested(list.clone()));
                    prop_assert!(list.iter().all(|request| seen.insert(request.request_id)));
                }
                Err(error) => {
                    let expected = if before.len() + list.len() > PENDING_MAX {
                        IpError::TooManyPending
                    } else if seen.len() + list.len() > REQUESTS_MAX {
                        IpError::TooManyRequests
                    } else {
                        let mut ids = list.iter().map(|request| request.request_id);
                        let id = ids.find(|id| seen.contains(id)).unwrap();
                        IpError::RequestIdReused { id }
                    };
                    prop_assert_eq!(error, expected);
                    prop_assert_eq!(peer.pending_of_peer(), before);
                }
            }
            prop_assert!(peer.pending_of_peer().len() <= PENDING_MAX);
            prop_assert!(seen.len() <= REQUESTS_MAX);
            if answers {
                let pending = peer.pending_of_peer().iter();
                let list = pending.map(|request| refusal(*request)).collect();
                peer.assign_addresses(list).unwrap();
                prop_assert_eq!(peer.pending_of_peer(), []);
            }
        }
    }
}
