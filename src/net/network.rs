//! Sending, as the layers above see it: a driver in production, a simulated network in tests.

use bytes::Bytes;

use super::driver::{Driver, SendError, SocketId};
use super::socket::ends_socket;
use super::train::Outgoing;

/// What became of a run of datagrams for a connected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainOutcome {
    /// Sent, or dropped and counted: datagrams may get lost.
    Done,
    /// The socket is of no use any more (RFC 9298 §3.1).
    Dead,
}

/// Where datagrams leave.
pub trait Network {
    /// Sends one buffer of datagrams on a shared socket. What cannot be sent is lost and counted.
    fn send(&mut self, socket: SocketId, outgoing: &Outgoing<'_>);

    /// Sends datagrams to the peer of a connected socket, in order.
    fn send_train(&mut self, socket: SocketId, datagrams: &[Bytes]) -> TrainOutcome;
}

impl Network for Driver {
    fn send(&mut self, socket: SocketId, outgoing: &Outgoing<'_>) {
        // The driver counts each reason; QUIC recovers from loss.
        drop(Self::send(self, socket, outgoing));
    }

    fn send_train(&mut self, socket: SocketId, datagrams: &[Bytes]) -> TrainOutcome {
        match self.send_vectored(socket, datagrams) {
            Err(SendError::Stale) => TrainOutcome::Dead,
            Err(SendError::Failed(error)) if ends_socket(&error) => TrainOutcome::Dead,
            Ok(()) | Err(SendError::Blocked | SendError::TooLarge | SendError::Failed(_)) => {
                TrainOutcome::Done
            }
        }
    }
}
