//! The network as one machine sees it: what `worker::run` puts in front of a driver, a resolver and a mailbox.

use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

use bauta::net::{
    Network, Outgoing, SocketId, SocketOptions, TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX, TcpClose,
    TcpId, TcpRead, Train, TrainOutcome,
};
use bauta::policy::auth::Job;
use bauta::policy::resolve::ResolveError;
use bauta::worker::{Outside, Resolve, Tag, TcpTag};
use bytes::{Bytes, BytesMut};

use super::{Event, Letter, Net, NodeId};

/// What one node sees of the network.
pub(crate) struct World<'a> {
    pub(crate) net: &'a mut Net,
    pub(super) node: NodeId,
}

impl Network for World<'_> {
    fn send(&mut self, socket: SocketId, outgoing: &Outgoing<'_>) {
        let peer = outgoing.peer.expect("a shared socket needs a destination");
        let size = outgoing
            .segment_size
            .unwrap_or(outgoing.contents.len())
            .max(1);
        assert!(
            outgoing.contents.len() <= TRAIN_BYTES_MAX,
            "a train that no call can carry"
        );
        assert!(
            outgoing.contents.len().div_ceil(size) <= TRAIN_SEGMENTS_MAX,
            "too many segments"
        );
        assert!(
            !outgoing.contents.is_empty(),
            "QUIC sends no empty datagrams"
        );
        for datagram in outgoing.contents.chunks(size) {
            self.net
                .send_from(socket, peer, outgoing.ecn, Bytes::copy_from_slice(datagram));
        }
    }

    fn send_train(&mut self, socket: SocketId, datagrams: &[Bytes]) -> TrainOutcome {
        let Some(peer) = self
            .net
            .sockets
            .get(&socket)
            .and_then(|socket| socket.connected)
        else {
            return TrainOutcome::Dead;
        };
        for datagram in datagrams {
            self.net.send_from(socket, peer, None, datagram.clone());
        }
        TrainOutcome::Done
    }

    fn send_packets(&mut self, tun: SocketId, packets: &mut Vec<Bytes>) {
        self.net.write_packets(tun, packets);
    }

    fn read(
        &mut self,
        socket: TcpId,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<TcpRead> {
        self.net.read_tcp(socket, buffer, bytes_max)
    }

    fn write(&mut self, socket: TcpId, data: &[IoSlice<'_>]) -> io::Result<usize> {
        self.net.write_tcp(socket, data)
    }

    fn shutdown(&mut self, socket: TcpId) {
        self.net.shutdown_tcp(socket);
    }

    fn close(&mut self, socket: TcpId, how: TcpClose) {
        self.net.close_tcp(socket, how);
    }
}

impl Outside for World<'_> {
    fn connect(
        &mut self,
        target: SocketAddr,
        options: &SocketOptions,
        tag: Tag,
    ) -> io::Result<SocketId> {
        let log = &mut self.net.ports[self.node.0].log;
        log.connected.push(target);
        log.options.push(*options);
        if self.net.unroutable.contains(&target.ip()) {
            return Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
        }
        let id = self.net.bind(self.node, None, tag.to_bits());
        self.net.sockets.get_mut(&id).expect("just bound").connected = Some(target);
        Ok(id)
    }

    fn remove(&mut self, socket: SocketId) {
        self.net.remove_tun(socket);
        if let Some(gone) = self.net.sockets.remove(&socket) {
            self.net.bound.remove(&gone.local);
        }
    }

    fn resolve(&mut self, name: &str, asker: Resolve) -> bool {
        self.net.ports[self.node.0]
            .log
            .resolved
            .push(name.to_owned());
        let known = self.net.names.get(name).cloned();
        let resolution = known.unwrap_or(Err(ResolveError::NxDomain));
        let due = self.net.now + self.net.dns_delay;
        self.net.schedule(
            due,
            Event::Resolved {
                node: self.node,
                asker,
                resolution,
            },
        );
        true
    }

    fn forward(&mut self, worker: u32, listener: u32, train: Train) -> Option<Train> {
        self.net.stats.strays += 1;
        let node = self.net.ports[self.node.0].workers[worker as usize];
        self.net.ports[node.0]
            .letters
            .push_back(Letter::Stray { listener, train });
        let now = self.net.now;
        self.net.wake_at(node, now);
        None
    }

    fn forward_packet(&mut self, worker: u32, packet: Bytes) {
        self.net.stats.strays += 1;
        let node = self.net.ports[self.node.0].workers[worker as usize];
        self.net.ports[node.0]
            .letters
            .push_back(Letter::Packet(packet));
        let now = self.net.now;
        self.net.wake_at(node, now);
    }

    fn connect_tcp(
        &mut self,
        target: SocketAddr,
        options: &SocketOptions,
        tag: TcpTag,
    ) -> io::Result<TcpId> {
        self.net.ports[self.node.0].log.options.push(*options);
        self.net.connect_tcp(self.node, target, tag.to_bits())
    }

    fn set_tcp_tag(&mut self, socket: TcpId, tag: TcpTag) {
        self.net.set_tcp_tag(socket, tag.to_bits());
    }

    fn local_ip_towards(&mut self, _: SocketAddr) -> Option<IpAddr> {
        Some(self.net.elsewhere.unwrap_or_else(|| self.net.ip(self.node)))
    }

    fn verify(&mut self, job: Job) -> bool {
        self.net.verify(self.node, job);
        true
    }
}
