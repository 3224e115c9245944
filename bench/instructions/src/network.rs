//! The network between the machines: sockets in memory that lose nothing and take no time.
//!
//! ```text
//!   Network::send ───────► train as it was sent ─► inbox of the socket at that address
//!   Network::send_train ─► target: counted, and gone
//!   Net::offer ──────────► trains of one target ─► inbox of the socket that is connected to it
//! ```
//!
//! What one call sends arrives as one train, as loopback and network cards with GRO deliver it. What a machine calls
//! here in a counted turn is named `uncounted_…`: the script stops counting inside, so a figure is the machine's alone.
//! For the same reason machines never free what is allocated here.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bauta::net::{
    Network, Outgoing, SocketId, SocketOptions, TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX, TcpClose,
    TcpId, TcpRead, Train, TrainOutcome,
};
use bauta::policy::auth::Job;
use bauta::worker::{Outside, Resolve, Tag, TcpTag};
use bytes::{Bytes, BytesMut};

/// Sockets are told apart by their ports, which start here.
const FIRST_PORT: usize = 1024;
/// Received trains are parts of chunks of this size, as those of `net::Driver` are.
const CHUNK_BYTES: usize = 256 * 1024;
/// Chunks that are held, so that no machine frees one: more than the trains under way can pin.
const CHUNKS_HELD: usize = 16;
/// Datagrams that one socket brings per turn, as `DriverConfig` has it.
const RECEIVE_BUDGET: usize = 64;

/// One of the machines.
pub(crate) type NodeId = usize;

#[derive(Debug)]
struct Socket {
    id: SocketId,
    node: NodeId,
    tag: Tag,
    /// The target that it is connected to.
    target: Option<SocketAddr>,
    inbox: VecDeque<Train>,
}

/// All sockets, and what the targets got.
#[derive(Debug, Default)]
pub(crate) struct Net {
    sockets: Vec<Socket>,
    chunk: BytesMut,
    chunks: VecDeque<BytesMut>,
    /// Datagrams that reached a target.
    pub(crate) delivered: u64,
    /// Their bytes.
    pub(crate) delivered_bytes: u64,
}

impl Net {
    /// Opens a socket of a machine.
    pub(crate) fn bind(&mut self, node: NodeId, tag: Tag) -> SocketId {
        self.add(node, tag, None)
    }

    fn add(&mut self, node: NodeId, tag: Tag, target: Option<SocketAddr>) -> SocketId {
        let id = SocketId::from_parts(self.sockets.len() as u32, 0);
        self.sockets.push(Socket {
            id,
            node,
            tag,
            target,
            inbox: VecDeque::new(),
        });
        id
    }

    /// The address of the socket that was opened as number `slot`.
    pub(crate) fn address(slot: usize) -> SocketAddr {
        let port = u16::try_from(FIRST_PORT + slot).expect("few sockets");
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), port)
    }

    /// How many sockets are open; the next one gets this number.
    pub(crate) fn socket_count(&self) -> usize {
        self.sockets.len()
    }

    /// The first target sends datagrams of one size.
    pub(crate) fn offer(&mut self, payload: &[u8], count: usize) {
        let mut sockets = self.sockets.iter().enumerate();
        let connected = |(slot, socket): (usize, &Socket)| Some((slot, socket.target?));
        let Some((slot, peer)) = sockets.find_map(connected) else {
            return;
        };
        let per_call = (TRAIN_BYTES_MAX / payload.len()).min(TRAIN_SEGMENTS_MAX);
        let mut left = count;
        while left > 0 {
            let segments = left.min(per_call);
            self.deliver(slot, peer, None, payload.len(), &payload.repeat(segments));
            left -= segments;
        }
    }

    /// What one receive turn of a machine brings.
    pub(crate) fn receive(&mut self, node: NodeId, out: &mut Vec<(SocketId, Tag, Train)>) {
        for socket in self.sockets.iter_mut().filter(|s| s.node == node) {
            let mut datagrams = 0;
            while datagrams < RECEIVE_BUDGET
                && let Some(train) = socket.inbox.pop_front()
            {
                datagrams += train.datagram_count();
                out.push((socket.id, socket.tag, train));
            }
        }
    }

    fn deliver(
        &mut self,
        slot: usize,
        peer: SocketAddr,
        ecn: Option<u8>,
        segment_size: usize,
        contents: &[u8],
    ) {
        if self.chunk.capacity() < contents.len() {
            let spent = std::mem::replace(&mut self.chunk, BytesMut::with_capacity(CHUNK_BYTES));
            self.chunks.push_back(spent);
            if self.chunks.len() > CHUNKS_HELD {
                self.chunks.pop_front();
            }
        }
        self.chunk.extend_from_slice(contents);
        let data = self.chunk.split();
        let socket = &mut self.sockets[slot];
        let shared = socket.target.is_none();
        socket.inbox.push_back(Train {
            peer,
            local_ip: shared.then(|| Self::address(slot).ip()),
            ecn,
            segment_size,
            data,
        });
    }

    fn send(&mut self, socket: SocketId, outgoing: &Outgoing<'_>) {
        let to = outgoing.peer.expect("a shared socket needs a destination");
        let to = usize::from(to.port()) - FIRST_PORT;
        // Those that send this way were opened first, so the search is short.
        let from = self.sockets.iter().position(|s| s.id == socket);
        let from = Self::address(from.expect("an open socket"));
        let size = outgoing.segment_size.unwrap_or(outgoing.contents.len());
        self.deliver(to, from, outgoing.ecn, size, outgoing.contents);
    }

    fn send_train(&mut self, datagrams: &[Bytes]) {
        self.delivered += datagrams.len() as u64;
        self.delivered_bytes += datagrams.iter().map(|d| d.len() as u64).sum::<u64>();
    }

    #[inline(never)]
    fn uncounted_send(&mut self, socket: SocketId, outgoing: &Outgoing<'_>) {
        self.send(socket, outgoing);
    }

    #[inline(never)]
    fn uncounted_send_train(&mut self, datagrams: &[Bytes]) {
        self.send_train(datagrams);
    }
}

/// The network as one machine sees it.
pub(crate) struct World<'a> {
    pub(crate) net: &'a mut Net,
    pub(crate) node: NodeId,
    /// Whether the turn is counted: what stops the count there would start it elsewhere.
    pub(crate) counted: bool,
}

impl Network for World<'_> {
    fn send(&mut self, socket: SocketId, outgoing: &Outgoing<'_>) {
        if self.counted {
            self.net.uncounted_send(socket, outgoing);
        } else {
            self.net.send(socket, outgoing);
        }
    }

    fn send_train(&mut self, _: SocketId, datagrams: &[Bytes]) -> TrainOutcome {
        if self.counted {
            self.net.uncounted_send_train(datagrams);
        } else {
            self.net.send_train(datagrams);
        }
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

impl Outside for World<'_> {
    fn connect(&mut self, target: SocketAddr, _: &SocketOptions, tag: Tag) -> io::Result<SocketId> {
        Ok(self.net.add(self.node, tag, Some(target)))
    }

    fn remove(&mut self, _: SocketId) {
        unreachable!("tunnels stay open");
    }

    fn resolve(&mut self, _: &str, _: Resolve) -> bool {
        unreachable!("everybody is known by address");
    }

    fn forward(&mut self, _: u32, _: u32, _: Train) -> Option<Train> {
        unreachable!("there is one worker");
    }

    fn forward_packet(&mut self, _: u32, _: Bytes) {
        unreachable!("there is one worker");
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
