//! What the h2 package takes for its socket: the plaintext side of a TLS session, in memory.
//!
//! Nobody is woken from here. Whoever feeds or drains the session polls the HTTP connection again afterwards.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::tls::{Plaintext, Session};

/// A shared session: the connection feeds and drains one side, HTTP reads and writes the other.
pub(super) struct Io(pub(super) Rc<RefCell<Session>>);

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self
            .0
            .borrow_mut()
            .read(buf.remaining(), |part| buf.put_slice(part));
        match read {
            Plaintext::Bytes(_) | Plaintext::End => Poll::Ready(Ok(())),
            Plaintext::Blocked => Poll::Pending,
            Plaintext::Truncated => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.0.borrow_mut().write(data) {
            0 if data.iter().any(|part| !part.is_empty()) => Poll::Pending,
            written => Poll::Ready(Ok(written)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
