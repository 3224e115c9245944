//! Where QUIC datagrams belong (RFC 9297 section 2.1).

use super::super::event::{Abort, ConnectionError, DatagramDrop, DatagramRoute, Role};
use super::super::stream::Recv;
use super::{Code, Connection, Transport, request_id};
use crate::wire::datagram::split_quarter_stream_id;

impl Connection {
    /// Finds the request of a QUIC DATAGRAM payload; one look-up. The payload after `header_len` is the HTTP datagram,
    /// which may be empty.
    ///
    /// # Errors
    /// H3_DATAGRAM_ERROR for a quarter stream id that is cut or above 2^60 - 1.
    pub fn route_datagram(
        &mut self,
        t: &mut impl Transport,
        payload: &[u8],
    ) -> Result<DatagramRoute, ConnectionError> {
        let (quarter, header_len) = split_quarter_stream_id(payload)
            .map_err(|_| ConnectionError::new(Code::H3_DATAGRAM_ERROR, "bad quarter stream id"))?;
        let index = quarter.0;
        let id = request_id(index);
        let early = DatagramRoute::Early { id, header_len };
        let route = match self.requests.get(&index) {
            Some(stream) if stream.recv == Recv::Closed => {
                DatagramRoute::Drop(DatagramDrop::ReceiveClosed)
            }
            // The datagram overtook a part of its request.
            Some(stream) if stream.recv == Recv::Head && self.role == Role::Server => early,
            Some(stream) if stream.kind.has_datagrams() => DatagramRoute::Stream { id, header_len },
            Some(_) => {
                self.abort(t, id, Abort::DatagramUnexpected);
                DatagramRoute::Drop(DatagramDrop::Unexpected)
            }
            None if index < self.requests_next => DatagramRoute::Drop(DatagramDrop::StreamGone),
            None => match self.role {
                Role::Server => early,
                Role::Client => DatagramRoute::Drop(DatagramDrop::NotOpened),
            },
        };
        Ok(route)
    }
}
