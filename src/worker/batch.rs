//! Payloads on their way to target sockets: runs of equal size leave as one train.
//!
//! A run collects what one turn brings for one socket, in order; the driver cuts it into messages that the kernel
//! can segment. Runs live for one turn, so the payloads are never copied: they stay in the buffers they came in.

use bytes::Bytes;

use crate::net::{Network, SocketId, TrainOutcome};
use crate::tunnel::TunnelId;

/// Most datagrams of a run. More than one turn usually brings, and a bound on what a slow turn may hold on to.
const RUN_MAX: usize = 256;

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
        Self {
            turn: 1,
            batches: Vec::new(),
            used: 0,
            dead: Vec::new(),
        }
    }
}

impl Batches {
    /// Adds a payload to the run of its tunnel, and sends the run first if it is full.
    pub(super) fn push(
        &mut self,
        slot: &mut BatchSlot,
        tunnel: TunnelId,
        socket: SocketId,
        payload: Bytes,
        net: &mut impl Network,
    ) {
        if slot.turn != self.turn {
            *slot = BatchSlot {
                turn: self.turn,
                index: self.used as u32,
            };
            match self.batches.get_mut(self.used) {
                Some(batch) => (batch.tunnel, batch.socket) = (tunnel, socket),
                None => {
                    let segments = Vec::with_capacity(RUN_MAX / 4);
                    self.batches.push(Batch {
                        tunnel,
                        socket,
                        segments,
                    });
                }
            }
            self.used += 1;
        }
        let batch = &mut self.batches[slot.index as usize];
        if batch.segments.len() >= RUN_MAX {
            batch.send(net, &mut self.dead);
        }
        batch.segments.push(payload);
    }

    /// Sends the run of a tunnel whose socket is about to be closed.
    pub(super) fn finish(&mut self, slot: BatchSlot, net: &mut impl Network) {
        if slot.turn == self.turn {
            // The tunnel ends anyway, so it does not matter whether the socket is dead.
            self.batches[slot.index as usize].send(net, &mut Vec::new());
        }
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
    fn send(&mut self, net: &mut impl Network, dead: &mut Vec<TunnelId>) {
        if !self.segments.is_empty() {
            match net.send_train(self.socket, &self.segments) {
                TrainOutcome::Done => {}
                TrainOutcome::Dead => dead.push(self.tunnel),
            }
            self.segments.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};

    use bytes::BytesMut;

    use super::*;
    use crate::net::{Outgoing, TcpClose, TcpId, TcpRead};
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
            self.trains
                .push((socket, segments.iter().map(Bytes::len).collect()));
            if self.dead {
                TrainOutcome::Dead
            } else {
                TrainOutcome::Done
            }
        }

        fn send_packets(&mut self, _: SocketId, _: &mut Vec<Bytes>) {
            unreachable!("batches only send trains");
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

    #[test]
    fn a_run_keeps_its_order_and_its_bound_and_reports_dead_sockets() {
        let mut table = Table::default();
        let tunnel = table.insert(());
        let socket = SocketId::from_parts(7, 1);
        let mut net = Recorder {
            dead: true,
            ..Recorder::default()
        };
        let mut batches = Batches::default();
        let mut slot = BatchSlot::default();
        for len in 0..RUN_MAX + 3 {
            batches.push(
                &mut slot,
                tunnel,
                socket,
                Bytes::from(vec![0; len]),
                &mut net,
            );
        }
        let mut dead = Vec::new();
        batches.flush(&mut net, |id| dead.push(id));
        let lens: Vec<_> = net
            .trains
            .iter()
            .flat_map(|(_, lens)| lens.iter().copied())
            .collect();
        assert_eq!(lens, (0..RUN_MAX + 3).collect::<Vec<_>>());
        assert_eq!(net.trains.len(), 2);
        assert_eq!(dead, [tunnel, tunnel]);
        batches.flush(&mut net, |_| panic!("nothing left"));
    }

    #[test]
    fn a_run_that_is_finished_is_sent_once_and_nobody_hears_of_it() {
        let mut table = Table::default();
        let tunnel = table.insert(());
        let socket = SocketId::from_parts(7, 1);
        let mut net = Recorder {
            dead: true,
            ..Recorder::default()
        };
        let mut batches = Batches::default();
        let mut slot = BatchSlot::default();
        batches.finish(slot, &mut net);
        let payload = Bytes::from_static(b"last");
        batches.push(&mut slot, tunnel, socket, payload, &mut net);
        batches.finish(slot, &mut net);
        batches.flush(&mut net, |_| panic!("the tunnel is gone"));
        assert_eq!(net.trains, [(socket, vec![4])]);
        batches.finish(slot, &mut net);
        assert_eq!(net.trains.len(), 1, "a slot of an earlier turn");
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
            batches.push(
                &mut slots[which],
                tunnels[which],
                sockets[which],
                payload,
                &mut net,
            );
        }
        batches.flush(&mut net, |_| panic!("nothing died"));
        assert_eq!(
            net.trains,
            [(sockets[0], vec![50; 5]), (sockets[1], vec![50; 5])]
        );
    }
}
