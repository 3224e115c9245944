use ipnet::IpNet;

use super::*;
use crate::tunnel::ip::{IpEvent, REQUESTS_MAX, refusal};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

const ANY: &str = "0.0.0.0/32";

const fn assigned(request_id: u64, prefix: IpNet) -> AssignedAddress {
    AssignedAddress { request_id, prefix }
}

fn requested(event: IpEvent) -> Vec<RequestedAddress> {
    let IpEvent::Requested(list) = event else {
        panic!("{event:?}");
    };
    list
}

fn answers(event: IpEvent) -> Vec<AssignedAddress> {
    let IpEvent::Assigned(list) = event else {
        panic!("{event:?}");
    };
    list
}

// A client, an ingress with an end on each stream, an egress. The ingress has asked for something itself before.
// spec: 9484-4.7.1-b, 9484-4.7.2-a, 9484-4.7.2-e, 9484-4.7.2-f
#[test]
fn requests_and_answers_across_an_ingress() {
    let (mut client, mut egress) = (Peer::default(), Peer::default());
    let (mut down, mut up) = (Peer::default(), Peer::default());
    let mut map = IdMap::default();
    let (own, capsule) = up.request_addresses(&[net(ANY)]).unwrap();
    egress.handle_capsule(capsule).unwrap();

    let (ids, capsule) = client
        .request_addresses(&[net(ANY), net("::/128")])
        .unwrap();
    let wishes = requested(down.handle_capsule(capsule).unwrap());
    let capsule = map.forward(&wishes, &mut up).unwrap();
    let named = requested(egress.handle_capsule(capsule).unwrap());
    assert_eq!(named[0].request_id, own[0] + 1);
    assert_eq!(named[1].prefix, net("::/128"));

    let list = vec![
        assigned(own[0], net("10.0.0.2/32")),
        assigned(named[0].request_id, net("10.0.0.3/32")),
        refusal(named[1]),
        assigned(0, net("2001:db8::/64")),
    ];
    let capsule = egress.assign_addresses(list).unwrap();
    let list = map.answer(&answers(up.handle_capsule(capsule).unwrap()));
    let capsule = down.assign_addresses(list).unwrap();
    let seen = answers(client.handle_capsule(capsule).unwrap());
    let refused = AssignedAddress {
        request_id: ids[1],
        prefix: net("::/128"),
    };
    let kept = [
        assigned(0, net("10.0.0.2/32")),
        assigned(ids[0], net("10.0.0.3/32")),
        assigned(0, net("2001:db8::/64")),
    ];
    assert_eq!(seen, [kept[0], kept[1], refused, kept[2]]);
    assert_eq!(client.assigned(), kept);
    assert_eq!(client.pending(), []);
    assert_eq!(down.pending_of_peer(), []);

    // The full list again, later.
    let capsule = egress
        .assign_addresses(egress.assigned_to_peer()[1..].to_vec())
        .unwrap();
    let list = map.answer(&answers(up.handle_capsule(capsule).unwrap()));
    let capsule = down.assign_addresses(list).unwrap();
    assert_eq!(answers(client.handle_capsule(capsule).unwrap()), kept[1..]);
}

// The next hop refuses what the ingress itself has asked for.
#[test]
fn refusals_of_nothing_stay_here() {
    let mut up = Peer::default();
    let mut map = IdMap::default();
    up.request_addresses(&[net(ANY)]).unwrap();
    let request = RequestedAddress {
        request_id: 1 << 61,
        prefix: net(ANY),
    };
    map.forward(&[request], &mut up).unwrap();
    let list = [1, 2].map(|id| assigned(id, net(ANY)));
    assert_eq!(map.answer(&list), [assigned(1 << 61, net(ANY))]);
}

// spec: 9484-4.7.2-a
#[test]
fn no_more_requests_than_a_stream_may_see() {
    let (mut map, mut up) = (IdMap::default(), Peer::default());
    let request = |request_id| RequestedAddress {
        request_id,
        prefix: net(ANY),
    };
    for id in 1..=REQUESTS_MAX as u64 {
        map.forward(&[request(2 * id)], &mut up).unwrap();
        let list = vec![assigned(id, net("10.0.0.2/32"))];
        up.handle_capsule(IpCapsule::AddressAssign(list)).unwrap();
    }
    let again = map.forward(&[request(1)], &mut up);
    assert_eq!(again, Err(IpError::TooManyRequests));
    assert_eq!(map.names.len(), REQUESTS_MAX);
    assert_eq!(map.asked_as(77), 154);
}
