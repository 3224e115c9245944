//! What a machine sees of the outside: a listener, sockets towards targets, a name server that answers at once.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};

use crate::net::{
    Network, Outgoing, Received, SocketId, SocketOptions, TcpClose, TcpId, TcpRead, Train,
    TrainOutcome,
};
use crate::policy::auth::Job;
use crate::policy::resolve::{Resolution, ResolveError};
use crate::wire::datagram::UDP_PAYLOAD_MAX;
use crate::worker::{Outside, Resolve, Tag, TcpTag};

/// Addresses that clients send from.
pub(super) const PEERS: usize = 4;

pub(super) struct World {
    /// Bytes from and to each peer, as UDP payloads.
    pub(super) traffic: [(usize, usize); PEERS],
    /// Packets for the first peer.
    pub(super) sent_to_client: Vec<BytesMut>,
    /// Sockets towards targets that are open.
    pub(super) targets: BTreeMap<u32, Tag>,
    /// What targets got.
    pub(super) delivered: Vec<Bytes>,
    /// Who waits for a name, and what all of them are told.
    pub(super) asked: Vec<Resolve>,
    pub(super) resolution: Resolution,
    answers: VecDeque<(u32, Received)>,
    sockets: u32,
}

impl Default for World {
    fn default() -> Self {
        Self {
            traffic: Default::default(),
            sent_to_client: Vec::new(),
            targets: BTreeMap::new(),
            delivered: Vec::new(),
            asked: Vec::new(),
            resolution: Err(ResolveError::Timeout),
            answers: VecDeque::new(),
            sockets: 0,
        }
    }
}

impl World {
    pub(super) const LISTENER: SocketId = SocketId::from_parts(0, 1);
    pub(super) const DIALLER: SocketId = SocketId::from_parts(1, 1);

    pub(super) fn peer(number: usize) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, number as u8], 50_000))
    }

    /// A target sends datagrams or an ICMP error to the relay's socket.
    pub(super) fn answer(&mut self, selector: u8, bytes: &[u8]) {
        let open = self.targets.len().max(1);
        let Some(&socket) = self.targets.keys().nth(usize::from(selector) % open) else {
            return;
        };
        let received = if selector & 0x80 == 0 {
            Received::Train(Train {
                peer: SocketAddr::from(([192, 0, 2, 9], 7)),
                local_ip: None,
                ecn: None,
                segment_size: bytes.len().min(usize::from(selector) * 32 + 1),
                data: bytes.into(),
            })
        } else {
            Received::Error(io::Error::from_raw_os_error(libc::ECONNREFUSED))
        };
        self.answers.push_back((socket, received));
    }

    /// What targets sent, as long as its socket is open.
    pub(super) fn take_answers(&mut self) -> Vec<(SocketId, Tag, Received)> {
        let answers = std::mem::take(&mut self.answers).into_iter();
        answers
            .filter_map(|(socket, received)| {
                let tag = *self.targets.get(&socket)?;
                Some((SocketId::from_parts(socket, 1), tag, received))
            })
            .collect()
    }

    /// Whether nothing waits to be taken in.
    pub(super) fn is_quiet(&self) -> bool {
        self.answers.is_empty() && self.asked.is_empty()
    }
}

impl Network for World {
    fn send(&mut self, socket: SocketId, outgoing: &Outgoing<'_>) {
        assert_eq!(socket, Self::LISTENER, "there is no next hop");
        let to = outgoing.peer.expect("a shared socket");
        let peer = (0..PEERS).find(|peer| Self::peer(*peer) == to);
        let peer = peer.expect("nobody else has sent anything");
        self.traffic[peer].1 += outgoing.contents.len();
        if peer == 0 {
            let size = outgoing.segment_size.unwrap_or(outgoing.contents.len());
            let packets = outgoing.contents.chunks(size.max(1)).map(BytesMut::from);
            self.sent_to_client.extend(packets);
        }
    }

    fn send_train(&mut self, socket: SocketId, datagrams: &[Bytes]) -> TrainOutcome {
        for datagram in datagrams {
            assert!(datagram.len() <= UDP_PAYLOAD_MAX);
            // A target that refuses: what a socket says when it sends after an ICMP error.
            if datagram.starts_with(b"dead") {
                return TrainOutcome::Dead;
            }
        }
        let known = self
            .targets
            .keys()
            .any(|slot| SocketId::from_parts(*slot, 1) == socket);
        assert!(known, "a socket that is closed");
        self.delivered.extend_from_slice(datagrams);
        TrainOutcome::Done
    }

    fn send_packets(&mut self, _: SocketId, _: &mut Vec<Bytes>) {
        unreachable!("there is no TUN");
    }

    fn read(&mut self, _: TcpId, _: &mut BytesMut, _: usize) -> io::Result<TcpRead> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, _: TcpId, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn shutdown(&mut self, _: TcpId) {}

    fn close(&mut self, _: TcpId, _: TcpClose) {}
}

impl Outside for World {
    fn connect(&mut self, target: SocketAddr, _: &SocketOptions, tag: Tag) -> io::Result<SocketId> {
        assert_ne!(target.port(), 0);
        if target.port() % 4 == 3 {
            return Err(io::Error::from_raw_os_error(libc::ENETUNREACH));
        }
        self.sockets += 1;
        let slot = self.sockets + 1;
        self.targets.insert(slot, tag);
        Ok(SocketId::from_parts(slot, 1))
    }

    fn remove(&mut self, socket: SocketId) {
        let open = self.targets.len();
        self.targets
            .retain(|slot, _| SocketId::from_parts(*slot, 1) != socket);
        assert_eq!(self.targets.len() + 1, open, "a socket is closed once");
    }

    fn resolve(&mut self, name: &str, asker: Resolve) -> bool {
        assert!(!name.is_empty());
        self.asked.push(asker);
        true
    }

    fn forward(&mut self, worker: u32, _: u32, _: Train) -> Option<Train> {
        panic!("there is no worker {worker}")
    }

    fn forward_packet(&mut self, worker: u32, _: Bytes) {
        panic!("there is no worker {worker}")
    }

    fn connect_tcp(&mut self, _: SocketAddr, _: &SocketOptions, _: TcpTag) -> io::Result<TcpId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_tcp_tag(&mut self, _: TcpId, _: TcpTag) {}

    fn local_ip_towards(&mut self, _: SocketAddr) -> Option<IpAddr> {
        None
    }

    fn verify(&mut self, _: Job) -> bool {
        false
    }
}
