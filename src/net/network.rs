//! Sending, as the layers above see it: a driver in production, a simulated network in tests.

use std::io::{self, IoSlice};

use bytes::{Bytes, BytesMut};

use super::driver::{Driver, SendError, SocketId};
use super::socket::ends_socket;
use super::tcp::{TcpClose, TcpId, TcpRead};
use super::train::Outgoing;

/// What became of a run of datagrams for a connected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrainOutcome {
    /// Sent, or dropped and counted: datagrams may get lost.
    Done,
    /// The socket is of no use any more (RFC 9298 §3.1).
    Dead,
}

/// Where datagrams leave, and where the bytes of TCP connections come and go.
pub trait Network {
    /// Sends one buffer of datagrams on a shared socket. What cannot be sent is lost and counted.
    fn send(&mut self, socket: SocketId, outgoing: &Outgoing<'_>);

    /// Sends datagrams to the peer of a connected socket, in order.
    fn send_train(&mut self, socket: SocketId, datagrams: &[Bytes]) -> TrainOutcome;

    /// Gives whole IP packets with complete checksums to a TUN, and empties `packets`. Those of one flow stay in order.
    /// What cannot be written is lost and counted.
    fn send_packets(&mut self, tun: SocketId, packets: &mut Vec<Bytes>);

    /// Appends up to `bytes_max` bytes that the peer sent to `buffer`, which is given room for that many if something
    /// may be there. `bytes_max` is not zero.
    ///
    /// # Errors
    /// The connection broke (`ConnectionReset` and the like), and every call from now on says so; or the name is stale
    /// (`NotFound`).
    fn read(
        &mut self,
        socket: TcpId,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<TcpRead>;

    /// Sends as much of `data` as there is room for, and returns how many bytes that was. Less than all of it means
    /// that there is no more room; [`TcpEvent::Ready`](super::TcpEvent::Ready) follows.
    ///
    /// # Errors
    /// As [`Network::read`].
    fn write(&mut self, socket: TcpId, data: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends our direction (FIN) behind everything written. A stale name is ignored.
    fn shutdown(&mut self, socket: TcpId);

    /// Closes a connection or a listener. A stale name is ignored.
    fn close(&mut self, socket: TcpId, how: TcpClose);
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

    fn send_packets(&mut self, tun: SocketId, packets: &mut Vec<Bytes>) {
        Self::send_packets(self, tun, packets);
    }

    fn read(
        &mut self,
        socket: TcpId,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<TcpRead> {
        self.tcp_read(socket, buffer, bytes_max)
    }

    fn write(&mut self, socket: TcpId, data: &[IoSlice<'_>]) -> io::Result<usize> {
        self.tcp_write(socket, data)
    }

    fn shutdown(&mut self, socket: TcpId) {
        self.tcp_shutdown(socket);
    }

    fn close(&mut self, socket: TcpId, how: TcpClose) {
        self.tcp_close(socket, how);
    }
}
