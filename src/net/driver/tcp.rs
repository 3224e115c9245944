//! TCP sockets of the driver.

use std::io::{self, IoSlice};
use std::net::SocketAddr;

use bytes::BytesMut;

use super::Driver;
use crate::net::tcp::{TcpClose, TcpId, TcpRead};

impl Driver {
    /// Starts a TCP connection to `target`; `Connected` or `Failed` follows.
    ///
    /// # Errors
    /// What the system says at once: no route, no descriptor left.
    pub fn connect_tcp(&mut self, _target: SocketAddr, _tag: u64) -> io::Result<TcpId> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives a socket another tag, an accepted one its first of its own.
    pub fn set_tcp_tag(&mut self, _socket: TcpId, _tag: u64) {}

    pub(in crate::net) fn tcp_read(
        &mut self,
        _socket: TcpId,
        _buffer: &mut BytesMut,
        _bytes_max: usize,
    ) -> io::Result<TcpRead> {
        Err(io::ErrorKind::NotFound.into())
    }

    pub(in crate::net) fn tcp_write(
        &mut self,
        _socket: TcpId,
        _data: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        Err(io::ErrorKind::NotFound.into())
    }

    pub(in crate::net) fn tcp_shutdown(&mut self, _socket: TcpId) {}

    pub(in crate::net) fn tcp_close(&mut self, _socket: TcpId, _how: TcpClose) {}
}
