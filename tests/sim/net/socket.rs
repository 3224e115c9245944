//! A socket: what waits in it, and the trains in which it is handed out.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;

use bauta::net::{TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX, Train};
use bytes::{Bytes, BytesMut};

use super::NodeId;

#[derive(Debug)]
pub(super) struct Packet {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) ecn: Option<u8>,
    pub(super) data: Bytes,
}

#[derive(Debug)]
pub(super) struct Socket {
    pub(super) node: NodeId,
    pub(super) tag: u64,
    pub(super) local: SocketAddr,
    /// The peer of a connected socket.
    pub(super) connected: Option<SocketAddr>,
    pub(super) queue: VecDeque<Packet>,
    pub(super) queue_bytes: usize,
    pub(super) queue_bytes_max: usize,
    pub(super) error: Option<io::Error>,
    /// The node has it on its list.
    pub(super) ready: bool,
}

impl Socket {
    /// Datagrams of one sender and one size, and at most one shorter one behind them.
    pub(super) fn train(&mut self) -> Option<Train> {
        let first = self.queue.pop_front()?;
        let segment_size = first.data.len();
        let (mut data, mut count) = (BytesMut::from(&first.data[..]), 1);
        while let Some(next) = self.queue.front() {
            let same = (next.from, next.ecn) == (first.from, first.ecn);
            let fits = (1..=segment_size).contains(&next.data.len())
                && data.len() % segment_size.max(1) == 0
                && data.len() + next.data.len() <= TRAIN_BYTES_MAX
                && count < TRAIN_SEGMENTS_MAX;
            if !same || !fits {
                break;
            }
            data.extend_from_slice(&next.data);
            count += 1;
            self.queue.pop_front();
        }
        self.queue_bytes -= data.len();
        let local_ip = self.connected.is_none().then_some(self.local.ip());
        Some(Train {
            peer: first.from,
            local_ip,
            ecn: first.ecn,
            segment_size,
            data,
        })
    }
}
