//! Plain datagrams on their way out: runs of one size for one peer leave as one train.

use std::net::SocketAddr;

use bauta::net::{Network, Outgoing, SocketId, TRAIN_BYTES_MAX, TRAIN_SEGMENTS_MAX, Train};
use bytes::BytesMut;

use super::packet::Header;

/// The run that is being filled.
#[derive(Debug, Default)]
pub(super) struct Runs {
    open: Option<(SocketId, SocketAddr, usize)>,
    bytes: BytesMut,
}

impl Runs {
    /// Adds a datagram; sends what is there first if it does not go with it.
    pub(super) fn push(
        &mut self,
        socket: SocketId,
        peer: SocketAddr,
        header: Header,
        size: usize,
        net: &mut impl Network,
    ) {
        let full = self.bytes.len() + size > TRAIN_BYTES_MAX
            || self.bytes.len() >= size * TRAIN_SEGMENTS_MAX;
        if self.open != Some((socket, peer, size)) || full {
            self.flush(net);
            self.open = Some((socket, peer, size));
        }
        header.write(size, &mut self.bytes);
    }

    /// Sends what is there.
    pub(super) fn flush(&mut self, net: &mut impl Network) {
        if let Some((socket, peer, size)) = self.open.take() {
            net.send(socket, &plain(peer, size, &self.bytes));
        }
        self.bytes.clear();
    }
}

/// Sends a train to where it came from.
pub(super) fn send_back(socket: SocketId, train: &Train, net: &mut impl Network) {
    net.send(socket, &plain(train.peer, train.segment_size, &train.data));
}

fn plain(peer: SocketAddr, size: usize, contents: &[u8]) -> Outgoing<'_> {
    Outgoing {
        peer: Some(peer),
        local_ip: None,
        ecn: None,
        segment_size: Some(size),
        contents,
    }
}
