use super::*;
use crate::tunnel::ip::{Delivery, Inbound};
use crate::wire::ip::{IpCapsuleError, Nameserver};

mod packets;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn assigned(request_id: u64, prefix: &str) -> AssignedAddress {
    let prefix = net(prefix);
    AssignedAddress { request_id, prefix }
}

fn requested(request_id: u64, prefix: &str) -> RequestedAddress {
    let prefix = net(prefix);
    RequestedAddress { request_id, prefix }
}

fn range(start: &str, end: &str, protocol: u8) -> AddressRange {
    AddressRange {
        start: ip(start),
        end: ip(end),
        protocol,
    }
}

fn packet(source: &str, destination: &str, protocol: u8) -> PacketFacts {
    PacketFacts {
        source: ip(source),
        destination: ip(destination),
        protocol,
    }
}

/// Takes a capsule over the wire.
fn send(capsule: &IpCapsule, to: &mut Peer) -> Result<IpEvent, IpError> {
    let mut wire = BytesMut::new();
    capsule.encode(&mut wire);
    let mut read = Vec::new();
    Inbound::default().handle_data(wire.freeze(), |delivery| read.push(delivery))?;
    match &read[..] {
        [Delivery::Ip(read)] => {
            assert_eq!(read, capsule);
            to.handle_capsule(read.clone())
        }
        other => panic!("{other:?}"),
    }
}

fn ask(peer: &mut Peer, ids: impl IntoIterator<Item = u64>) -> Result<IpEvent, IpError> {
    let list = ids.into_iter().map(|id| requested(id, "0.0.0.0/32"));
    peer.handle_capsule(IpCapsule::AddressRequest(list.collect()))
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;

// The order of the remote-access example in the digest.
// spec: 9484-4.7.1-a, 9484-4.7.1-b, 9484-4.7.1-g, 9484-4.7.2-d, 9484-4.7.3-a
#[test]
fn a_client_asks_and_gets() {
    let (mut client, mut proxy) = (Peer::default(), Peer::default());
    let wishes = [net("0.0.0.0/32"), net("2001:db8:0:aa::/64")];
    let (ids, capsule) = client.request_addresses(&wishes).unwrap();
    assert_eq!(ids, [1, 2]);
    let asked = vec![
        requested(1, "0.0.0.0/32"),
        requested(2, "2001:db8:0:aa::/64"),
    ];
    assert_eq!(
        send(&capsule, &mut proxy),
        Ok(IpEvent::Requested(asked.clone()))
    );
    assert_eq!(client.pending(), asked);
    assert_eq!(proxy.pending_of_peer(), asked);

    let list = vec![assigned(1, "192.0.2.11/32"), refusal(asked[1])];
    let capsule = proxy.assign_addresses(list.clone()).unwrap();
    assert_eq!(send(&capsule, &mut client), Ok(IpEvent::Assigned(list)));
    // The refusal is no address, on neither side.
    // spec: 9484-4.7.2-f, 9484-4.7.2-g, 9484-4.7.2-j
    for kept in [client.assigned(), proxy.assigned_to_peer()] {
        assert_eq!(kept, [assigned(1, "192.0.2.11/32")]);
    }
    assert_eq!(client.pending(), []);
    assert_eq!(proxy.pending_of_peer(), []);

    let all = vec![range("0.0.0.0", "255.255.255.255", 0)];
    let capsule = proxy.advertise_routes(all.clone()).unwrap();
    assert_eq!(send(&capsule, &mut client), Ok(IpEvent::Routes(all)));

    // Each list replaces the one before, and an answered request can be answered again.
    let list = vec![assigned(1, "192.0.2.12/32"), assigned(0, "2001:db8::/64")];
    let capsule = proxy.assign_addresses(list.clone()).unwrap();
    assert_eq!(
        send(&capsule, &mut client),
        Ok(IpEvent::Assigned(list.clone()))
    );
    assert_eq!(client.assigned(), list);
    let capsule = proxy.assign_addresses(Vec::new()).unwrap();
    assert_eq!(
        send(&capsule, &mut client),
        Ok(IpEvent::Assigned(Vec::new()))
    );
    assert_eq!(client.assigned(), []);
    let capsule = proxy.advertise_routes(Vec::new()).unwrap();
    assert_eq!(send(&capsule, &mut client), Ok(IpEvent::Routes(Vec::new())));
    assert_eq!(client.routes(), []);
    // Ids go on.
    assert_eq!(client.request_addresses(&wishes[..1]).unwrap().0, [3]);
}

// spec: 9484-4.7.2-a, 9484-4.7.2-j
#[test]
fn request_ids_come_once() {
    let mut peer = Peer::default();
    assert!(ask(&mut peer, [9, 7]).is_ok());
    let reused = |id| Err(IpError::RequestIdReused { id });
    assert_eq!(ask(&mut peer, [8, 7]), reused(7));
    // Nothing of that capsule counts.
    assert!(ask(&mut peer, [8]).is_ok());
    let answers = [7, 8, 9].map(|id| assigned(id, "10.0.0.1/32"));
    peer.assign_addresses(answers.to_vec()).unwrap();
    assert_eq!(ask(&mut peer, [9]), reused(9));
    assert_eq!(peer.pending_of_peer(), []);
}

// spec: 9484-4.7.2-a
#[test]
fn requests_are_bounded() {
    let mut peer = Peer::default();
    assert!(ask(&mut peer, 1..=64).is_ok());
    assert_eq!(ask(&mut peer, [65]), Err(IpError::TooManyPending));
    let mut last = 64;
    while last < REQUESTS_MAX as u64 {
        let pending = peer.pending_of_peer().iter();
        let list = pending.map(|request| refusal(*request)).collect();
        peer.assign_addresses(list).unwrap();
        assert!(ask(&mut peer, last + 1..=last + 64).is_ok());
        last += 64;
    }
    peer.assign_addresses(vec![assigned(last, "10.0.0.1/32")])
        .unwrap();
    assert_eq!(ask(&mut peer, [1 << 60]), Err(IpError::TooManyRequests));
    assert_eq!(
        ask(&mut Peer::default(), 1..=65),
        Err(IpError::TooManyPending)
    );
    assert_eq!(
        IpError::TooManyPending.to_string(),
        "more than 64 address requests without an answer"
    );

    // The same of our own.
    let mut peer = Peer::default();
    let any = [net("::/128"); 64];
    assert!(peer.request_addresses(&any).is_ok());
    assert_eq!(
        peer.request_addresses(&any[..1]),
        Err(IpError::TooManyPending)
    );
    for _ in 1..REQUESTS_MAX / 64 {
        let pending = peer.pending().iter();
        let list = pending.map(|request| refusal(*request)).collect();
        peer.handle_capsule(IpCapsule::AddressAssign(list)).unwrap();
        assert!(peer.request_addresses(&any).is_ok());
    }
    let list = vec![assigned(1024, "10.0.0.1/32")];
    peer.handle_capsule(IpCapsule::AddressAssign(list)).unwrap();
    assert_eq!(
        peer.request_addresses(&any[..1]),
        Err(IpError::TooManyRequests)
    );
}

// spec: 9484-4.7.1-b, 9484-4.7.1-h, 9484-4.7.2-j
#[test]
fn answers_to_nothing() {
    let mut peer = Peer::default();
    let list = vec![
        assigned(5, "10.0.0.1/32"),
        assigned(6, "0.0.0.0/32"),
        assigned(0, "::/128"),
        assigned(0, "::/0"),
    ];
    let kept = vec![assigned(0, "10.0.0.1/32"), assigned(0, "::/0")];
    let event = peer.handle_capsule(IpCapsule::AddressAssign(list));
    assert_eq!(event, Ok(IpEvent::Assigned(kept.clone())));
    assert_eq!(peer.assigned(), kept);

    let assign = |peer: &mut Peer, list: &[AssignedAddress]| {
        let before = peer.assigned_to_peer().to_vec();
        let error = peer.assign_addresses(list.to_vec()).unwrap_err();
        assert_eq!(peer.assigned_to_peer(), before);
        error
    };
    assert!(ask(&mut peer, [7]).is_ok());
    assert!(peer.assign_addresses(kept).is_ok());
    let id = 8;
    assert_eq!(
        assign(&mut peer, &[assigned(8, "10.0.0.2/32")]),
        IpError::UnknownRequest { id }
    );
    let twice = [assigned(7, "10.0.0.2/32"), assigned(7, "0.0.0.0/32")];
    let id = 7;
    assert_eq!(assign(&mut peer, &twice), IpError::AnsweredTwice { id });
    let prefix = net("0.0.0.0/32");
    assert_eq!(
        assign(&mut peer, &[assigned(0, "0.0.0.0/32")]),
        IpError::NoAddress { prefix }
    );
    let prefix = net("10.0.0.2/24");
    assert_eq!(
        assign(&mut peer, &[assigned(7, "10.0.0.2/24")]),
        IpCapsuleError::HostBits { prefix }.into()
    );
    assert_eq!(peer.pending_of_peer().len(), 1);
}

#[test]
fn operations_that_fail_change_nothing() {
    let mut peer = Peer::default();
    assert_eq!(
        peer.request_addresses(&[]),
        Err(IpCapsuleError::NoRequest.into())
    );
    let prefix = net("10.0.0.2/24");
    assert_eq!(
        peer.request_addresses(&[prefix]),
        Err(IpCapsuleError::HostBits { prefix }.into())
    );
    assert_eq!(peer.request_addresses(&[net("::/0")]).unwrap().0, [1]);

    let routes = vec![range("10.0.0.0", "10.0.0.9", 0)];
    peer.advertise_routes(routes.clone()).unwrap();
    let (first, second) = (routes[0], range("10.0.0.9", "10.0.0.9", UDP));
    assert_eq!(
        peer.advertise_routes(vec![second, first]),
        Err(IpError::RangesOverlap { first, second })
    );
    assert_eq!(peer.our_routes(), routes);

    // More than a peer like this one would hold.
    let range = |n: u32| {
        let address = IpAddr::from((0x2001u128 << 112 | u128::from(2 * n)).to_be_bytes());
        AddressRange {
            start: address,
            end: address,
            protocol: 0,
        }
    };
    let kind = crate::wire::capsule::CapsuleType::ROUTE_ADVERTISEMENT;
    let len = 2000 * 34;
    assert_eq!(
        peer.advertise_routes((0..2000).map(range).collect()),
        Err(IpError::CapsuleTooLong { kind, len })
    );
    assert_eq!(peer.our_routes(), routes);
    let capsule = peer.advertise_routes((0..1900).map(range).collect());
    let mut other = Peer::default();
    assert!(send(&capsule.unwrap(), &mut other).is_ok());
    assert_eq!(other.routes(), peer.our_routes());
}

/// Lists that fit into a capsule and are longer than anybody needs end the tunnel that brings them.
#[test]
fn lists_are_bounded() {
    let address = |n: usize| IpAddr::from((0x0a00_0000 + 2 * n as u32).to_be_bytes());
    let routes = |count| -> Vec<_> {
        let range = |n| AddressRange {
            start: address(n),
            end: address(n),
            protocol: 0,
        };
        (0..count).map(range).collect()
    };
    let addresses = |count| -> Vec<_> {
        let entry = |n| AssignedAddress {
            request_id: 0,
            prefix: address(n).into(),
        };
        (0..count).map(entry).collect()
    };
    let (mut us, mut peer) = (Peer::default(), Peer::default());
    let most = us.advertise_routes(routes(ROUTES_MAX)).unwrap();
    assert!(send(&most, &mut peer).is_ok());
    let most = us.assign_addresses(addresses(ADDRESSES_MAX)).unwrap();
    assert!(send(&most, &mut peer).is_ok());

    let count = ROUTES_MAX + 1;
    let error = IpError::TooManyRoutes { count };
    let list = routes(count);
    assert_eq!(us.advertise_routes(list.clone()), Err(error.clone()));
    assert_eq!(
        peer.handle_capsule(IpCapsule::RouteAdvertisement(list)),
        Err(error)
    );
    let count = ADDRESSES_MAX + 1;
    let error = IpError::TooManyAddresses { count };
    let list = addresses(count);
    assert_eq!(us.assign_addresses(list.clone()), Err(error.clone()));
    assert_eq!(
        peer.handle_capsule(IpCapsule::AddressAssign(list)),
        Err(error)
    );
    assert_eq!(
        (peer.routes().len(), peer.assigned().len()),
        (ROUTES_MAX, ADDRESSES_MAX)
    );
}

// spec: cidns-3.4-a, cidns-4.1-a
#[test]
fn name_servers() {
    let (mut us, mut peer) = (Peer::default(), Peer::default());
    let config = DnsConfig {
        nameservers: vec![Nameserver::plain(&[ip("192.0.2.33"), ip("2001:db8::1")])],
        internal_domains: vec!["corp.example".into()],
        search_domains: vec![],
    };
    for list in [vec![config.clone(); 2], vec![config.clone()], vec![]] {
        let capsule = us.assign_dns(list.clone()).unwrap();
        assert_eq!(send(&capsule, &mut peer), Ok(IpEvent::Dns(list.clone())));
        assert_eq!(peer.dns(), list);
    }
    let prefix: Ipv6Net = "64:ff9b::/96".parse().unwrap();
    for list in [vec![prefix; 2], vec![prefix], vec![]] {
        let capsule = us.assign_pref64(list.clone()).unwrap();
        assert_eq!(send(&capsule, &mut peer), Ok(IpEvent::Pref64(list.clone())));
        assert_eq!(peer.pref64(), list);
    }

    let many = vec![DnsConfig::default(); NAMES_MAX];
    assert!(us.assign_dns(many.clone()).is_ok());
    let more = [many, vec![config]].concat();
    let count = NAMES_MAX + 3;
    let too_many = Err(IpError::TooManyNames { count });
    assert_eq!(us.assign_dns(more.clone()), too_many);
    let capsule = IpCapsule::DnsAssign(more);
    assert_eq!(
        peer.handle_capsule(capsule).map(|_| unreachable!()),
        too_many
    );
    assert_eq!(peer.dns(), []);
}
