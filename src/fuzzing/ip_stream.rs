//! A target for the request stream of an IP tunnel: what arrives, and what it makes this end believe.

use std::net::IpAddr;

use bytes::Bytes;

use super::cut;
use crate::tunnel::ip::{
    Delivery, Inbound, IpError, IpEvent, NAMES_MAX, PENDING_MAX, PacketFacts, Peer, REQUESTS_MAX,
    refusal,
};
use crate::wire::capsule::UNKNOWN_VALUE_MAX;
use crate::wire::ip::IpCapsule;

/// The data stream of an IP tunnel gives the same deliveries and the same end, cut or whole, and whether or not
/// unknown capsules are wanted. What it says is held within the limits; what can be reached by it can be reached; and
/// what one end accepts, another may say.
///
/// Input: one byte for the number of cuts (modulo 16), one byte per cut for the length of a piece, then the stream.
///
/// # Panics
/// When the law is broken.
pub fn ip_stream(data: &[u8]) {
    let [cuts, rest @ ..] = data else {
        return;
    };
    let (stream, pieces) = cut(*cuts, rest);
    let (mut kept, end) = read(true, &[stream]);
    assert_eq!((kept.clone(), end.clone()), read(true, &pieces));
    kept.retain(|delivery| !matches!(delivery, Delivery::Capsule { .. }));
    assert_eq!((kept.clone(), end), read(false, &pieces));

    let mut peer = Peer::default();
    let any = [IpAddr::from([0; 4]).into(), IpAddr::from([0; 16]).into()];
    peer.request_addresses(&any).expect("two are few");
    let mut asked = 0;
    for delivery in kept {
        if let Delivery::Ip(capsule) = delivery
            && believe(&mut peer, &capsule, &mut asked).is_err()
        {
            return;
        }
    }
}

fn read(keep: bool, pieces: &[&[u8]]) -> (Vec<Delivery>, Result<(), IpError>) {
    let mut inbound = Inbound::default();
    if keep {
        inbound.keep_unknown(UNKNOWN_VALUE_MAX);
    }
    let mut found = Vec::new();
    for piece in pieces {
        let piece = Bytes::copy_from_slice(piece);
        let result = inbound.handle_data(piece, |delivery| found.push(delivery));
        if result.is_err() {
            return (found, result);
        }
    }
    (found, inbound.handle_finished())
}

/// Takes a capsule; `asked` counts the requests of the peer.
fn believe(peer: &mut Peer, capsule: &IpCapsule, asked: &mut usize) -> Result<(), IpError> {
    let event = peer.handle_capsule(capsule.clone())?;
    match event {
        IpEvent::Assigned(list) => {
            let (refused, held): (Vec<_>, Vec<_>) =
                list.into_iter().partition(|entry| entry.is_refusal());
            assert_eq!(peer.assigned(), held);
            let mut ids = refused.iter().chain(&held).map(|entry| entry.request_id);
            assert!(ids.all(|id| id <= 2));
            for entry in held {
                let packet = icmp(entry.prefix.network(), entry.prefix.broadcast());
                assert_eq!(peer.check_from_peer(&packet), Ok(()));
            }
        }
        IpEvent::Requested(list) => {
            *asked += list.len();
            assert!(peer.pending_of_peer().ends_with(&list));
            assert!(peer.pending_of_peer().len() <= PENDING_MAX && *asked <= REQUESTS_MAX);
            // Every other one is answered, which makes room.
            if asked.is_multiple_of(2) {
                let pending = peer.pending_of_peer().iter();
                let list = pending.map(|request| refusal(*request)).collect();
                peer.assign_addresses(list).expect("answers");
                assert_eq!(peer.pending_of_peer(), []);
            }
        }
        IpEvent::Routes(list) => {
            assert_eq!(peer.routes(), list);
            for range in &list {
                let packet = icmp(range.start, range.end);
                assert_eq!(peer.check_to_peer(&packet), Ok(()));
            }
            assert_eq!(Peer::default().advertise_routes(list), Ok(capsule.clone()));
        }
        IpEvent::Dns(list) => {
            assert!(list.len() <= NAMES_MAX);
            assert_eq!(peer.dns(), list);
            assert_eq!(Peer::default().assign_dns(list), Ok(capsule.clone()));
        }
        IpEvent::Pref64(list) => {
            assert_eq!(peer.pref64(), list);
            assert_eq!(Peer::default().assign_pref64(list), Ok(capsule.clone()));
        }
        IpEvent::Mtu(_) => panic!("no capsule says that"),
    }
    Ok(())
}

/// A packet that passes all checks of protocols.
const fn icmp(source: IpAddr, destination: IpAddr) -> PacketFacts {
    let protocol = if destination.is_ipv4() { 1 } else { 58 };
    PacketFacts {
        source,
        destination,
        protocol,
    }
}
