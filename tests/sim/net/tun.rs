//! TUNs: what a node writes waits for the test, and what the test puts in comes to the node's next turn.

use std::collections::{HashMap, VecDeque};

use bauta::net::{Packets, Received, SocketId};
use bytes::{Bytes, BytesMut};

use super::{Net, NodeId};

/// The kernel's side of a TUN queue.
#[derive(Debug)]
struct Tun {
    node: NodeId,
    tag: u64,
    to_node: VecDeque<Bytes>,
    from_node: Vec<Bytes>,
}

/// All TUN queues.
#[derive(Debug, Default)]
pub(super) struct Tuns(HashMap<SocketId, Tun>);

impl Net {
    /// Gives a node a TUN queue.
    pub(crate) fn add_tun(&mut self, node: NodeId, tag: u64) -> SocketId {
        self.slots += 1;
        let id = SocketId::from_parts(self.slots, 1);
        let tun = Tun {
            node,
            tag,
            to_node: VecDeque::new(),
            from_node: Vec::new(),
        };
        self.tuns.0.insert(id, tun);
        id
    }

    /// Routes a packet into a TUN.
    pub(crate) fn put_packet(&mut self, tun: SocketId, packet: Bytes) {
        let entry = self.tuns.0.get_mut(&tun).expect("a TUN of this network");
        entry.to_node.push_back(packet);
        let node = entry.node;
        self.ports[node.0].ready.push_back(tun);
        let now = self.now;
        self.wake_at(node, now);
    }

    /// What has been written to a TUN since the last time.
    pub(crate) fn take_packets(&mut self, tun: SocketId) -> Vec<Bytes> {
        let entry = self.tuns.0.get_mut(&tun).expect("a TUN of this network");
        std::mem::take(&mut entry.from_node)
    }

    /// What a node writes; nothing becomes of it if the TUN is not there.
    pub(super) fn write_packets(&mut self, tun: SocketId, packets: &mut Vec<Bytes>) {
        if let Some(entry) = self.tuns.0.get_mut(&tun) {
            entry.from_node.append(packets);
        }
        packets.clear();
    }

    /// The next packet for a node, if `id` names a TUN that has one.
    pub(super) fn read_packet(&mut self, id: SocketId) -> Option<(SocketId, u64, Received)> {
        let entry = self.tuns.0.get_mut(&id)?;
        let packet = entry.to_node.pop_front()?;
        let packets = Packets::from(BytesMut::from(&packet[..]));
        Some((id, entry.tag, Received::Packets(packets)))
    }

    /// Closes a TUN queue.
    pub(super) fn remove_tun(&mut self, id: SocketId) {
        self.tuns.0.remove(&id);
    }
}

#[test]
fn packets_pass_in_both_directions() {
    let mut net = Net::new(bauta::net::clock::now(), 1);
    let node = net.add_node([192, 0, 2, 1].into());
    let tun = net.add_tun(node, 5);
    let packets = [Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    for packet in &packets {
        net.put_packet(tun, packet.clone());
    }
    assert!(net.has_work(node));
    let mut out = Vec::new();
    assert!(!net.receive(node, &mut out));
    let read = out.into_iter().flat_map(|(id, tag, received)| {
        assert_eq!((id, tag), (tun, 5));
        let Received::Packets(packets) = received else {
            panic!("{received:?}");
        };
        packets
    });
    assert!(read.eq(packets.clone()));

    let mut written = packets.to_vec();
    net.write_packets(tun, &mut written);
    assert!(written.is_empty());
    assert_eq!(net.take_packets(tun), packets);
    assert!(net.take_packets(tun).is_empty());
    net.remove_tun(tun);
    net.write_packets(tun, &mut packets.to_vec());
}
