//! Payloads on their way to target sockets: runs of equal size leave as one train.
//!
//! The kernel cuts a message with UDP_SEGMENT into datagrams of one size, of which only the last may be shorter.
//! So a run takes payloads as long as they have the size of its first; a shorter one is the last; anything else
//! starts a new run. Runs live for one turn.

use bytes::Bytes;

use crate::net::{Network, SocketId, TrainOutcome};
use crate::tunnel::TunnelId;

/// Most datagrams of one train (the kernel's UDP_MAX_SEGMENTS of older releases).
const SEGMENTS_MAX: usize = 64;
/// Most bytes of one train: the largest UDP payload over IPv4.
const BYTES_MAX: usize = 65_507;

/// Where a tunnel's run stands in [`Batches`]; meaningless once the turn is over.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BatchSlot {
    turn: u64,
    index: u32,
}

#[derive(Debug)]
struct Batch {
    tunnel: TunnelId,
    socket: SocketId,
    segments: Vec<Bytes>,
    bytes: usize,
}

/// The runs of one turn.
#[derive(Debug)]
pub(super) struct Batches {
    turn: u64,
    /// The first `used` are this turn's; the rest are kept for their vectors.
    batches: Vec<Batch>,
    used: usize,
    dead: Vec<TunnelId>,
}

impl Default for Batches {
    fn default() -> Self {
        Self { turn: 1, batches: Vec::new(), used: 0, dead: Vec::new() }
    }
}

impl Batches {
    /// Adds a payload to the run of its tunnel, and sends the run first if it does not fit in.
    pub(super) fn push(
        &mut self,
        slot: &mut BatchSlot,
        tunnel: TunnelId,
        socket: SocketId,
        payload: Bytes,
        net: &mut impl Network,
    ) {
        if slot.turn != self.turn {
            *slot = BatchSlot { turn: self.turn, index: self.used as u32 };
            match self.batches.get_mut(self.used) {
                Some(batch) => (batch.tunnel, batch.socket) = (tunnel, socket),
                None => {
                    let segments = Vec::with_capacity(SEGMENTS_MAX);
                    self.batches.push(Batch { tunnel, socket, segments, bytes: 0 });
                }
            }
            self.used += 1;
        }
        let batch = &mut self.batches[slot.index as usize];
        if !batch.takes(payload.len()) {
            batch.send(net, &mut self.dead);
        }
        batch.bytes += payload.len();
        batch.segments.push(payload);
    }

    /// Sends every run of the turn. Tunnels whose socket turned out dead are handed to `dead`.
    pub(super) fn flush(&mut self, net: &mut impl Network, mut dead: impl FnMut(TunnelId)) {
        for batch in &mut self.batches[..self.used] {
            batch.send(net, &mut self.dead);
        }
        self.used = 0;
        self.turn += 1;
        self.dead.drain(..).for_each(&mut dead);
    }
}

impl Batch {
    fn takes(&self, len: usize) -> bool {
        let (Some(first), Some(last)) = (self.segments.first(), self.segments.last()) else {
            return true;
        };
        // An empty datagram cannot be a segment.
        len > 0
            && len <= first.len()
            && last.len() == first.len()
            && self.segments.len() < SEGMENTS_MAX
            && self.bytes + len <= BYTES_MAX
    }

    fn send(&mut self, net: &mut impl Network, dead: &mut Vec<TunnelId>) {
        if !self.segments.is_empty() {
            match net.send_train(self.socket, &self.segments) {
                TrainOutcome::Done => {}
                TrainOutcome::Dead => dead.push(self.tunnel),
            }
            self.segments.clear();
            self.bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Outgoing;
    use crate::tunnel::Table;

    #[derive(Default)]
    struct Recorder {
        trains: Vec<(SocketId, Vec<usize>)>,
        dead: bool,
    }

    impl Network for Recorder {
        fn send(&mut self, _: SocketId, _: &Outgoing<'_>) {
            unreachable!("batches only send trains");
        }
        fn send_train(&mut self, socket: SocketId, segments: &[Bytes]) -> TrainOutcome {
            self.trains.push((socket, segments.iter().map(Bytes::len).collect()));
            if self.dead { TrainOutcome::Dead } else { TrainOutcome::Done }
        }
    }

    #[test]
    fn runs_break_where_the_kernel_needs_it_and_order_is_kept() {
        let mut table = Table::default();
        let tunnel = table.insert(());
        let socket = SocketId::from_parts(7, 1);
        let mut net = Recorder::default();
        let mut batches = Batches::default();
        let mut slot = BatchSlot::default();
        for len in [100, 100, 60, 100, 0, 0, 200, 100] {
            batches.push(&mut slot, tunnel, socket, Bytes::from(vec![0; len]), &mut net);
        }
        batches.flush(&mut net, |_| panic!("nothing died"));
        let lens: Vec<_> = net.trains.drain(..).map(|(_, lens)| lens).collect();
        assert_eq!(lens, [vec![100, 100, 60], vec![100], vec![0], vec![0], vec![200, 100]]);

        for _ in 0..130 {
            batches.push(&mut slot, tunnel, socket, Bytes::from(vec![0; 1200]), &mut net);
        }
        net.dead = true;
        let mut dead = Vec::new();
        batches.flush(&mut net, |id| dead.push(id));
        let lens: Vec<_> = net.trains.iter().map(|(_, lens)| lens.len()).collect();
        assert_eq!(lens, [54, 54, 22]);
        assert_eq!(dead, [tunnel]);
    }

    #[test]
    fn tunnels_do_not_mix() {
        let mut table = Table::default();
        let tunnels = [table.insert(()), table.insert(())];
        let sockets = [SocketId::from_parts(0, 1), SocketId::from_parts(1, 1)];
        let mut slots = [BatchSlot::default(); 2];
        let mut net = Recorder::default();
        let mut batches = Batches::default();
        for n in 0..10 {
            let (which, payload) = (n % 2, Bytes::from(vec![n as u8; 50]));
            batches.push(&mut slots[which], tunnels[which], sockets[which], payload, &mut net);
        }
        batches.flush(&mut net, |_| panic!("nothing died"));
        assert_eq!(net.trains, [(sockets[0], vec![50; 5]), (sockets[1], vec![50; 5])]);
    }
}
