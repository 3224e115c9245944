//! TLS 1.3 as a machine that turns bytes into bytes.
//!
//! ```text
//!   link ─► feed ─► [ rustls ] ─► read  ─► HTTP
//!   link ◄─ drain ◄─ [       ] ◄─ write ◄─ HTTP
//! ```
//!
//! **Invariants.** Decrypted bytes wait up to one record beyond [`PLAINTEXT_BYTES`]: what is fed beyond that stays with
//! the caller. Encrypted bytes wait up to the bound given at the start: [`Session::write`] takes what fits.
//! An end of the link without a closure alert is never taken for an end of the peer's data (RFC 8446 section 6.1).

use std::io::{self, BufRead, IoSlice, Write};
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, ServerName};

use super::gauge::Gauge;
use super::{ConnectError, TlsFailure};
use crate::error::CertificateFault;
use crate::wire::carrier::Carrier;

/// Decrypted bytes beyond which nothing more is decrypted.
const PLAINTEXT_BYTES: usize = 16 * 1024;

/// What a read of decrypted bytes found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plaintext {
    /// This many bytes were handed over.
    Bytes(usize),
    /// Nothing now.
    Blocked,
    /// The peer has ended its direction with a closure alert.
    End,
    /// The link ended without one.
    Truncated,
}

/// One TLS connection.
pub(super) struct Session {
    tls: rustls::Connection,
    /// Decrypted bytes that wait in rustls.
    plaintext: usize,
    peer_closed: bool,
    link_ended: bool,
    closing: bool,
    /// HTTP had bytes to write and found no room.
    pub(super) write_blocked: bool,
    /// Watches decrypted HTTP/2.
    pub(super) gauge: Option<Gauge>,
}

impl Session {
    pub(super) fn server(
        config: Arc<rustls::ServerConfig>,
        pending_bytes_max: usize,
    ) -> Result<Self, ConnectError> {
        let tls = rustls::ServerConnection::new(config)?;
        Ok(Self::new(tls.into(), pending_bytes_max))
    }

    pub(super) fn client(
        config: Arc<rustls::ClientConfig>,
        server_name: &str,
        pending_bytes_max: usize,
    ) -> Result<Self, ConnectError> {
        let name = ServerName::try_from(server_name)
            .map_err(|_| ConnectError::ServerName)?
            .to_owned();
        let tls = rustls::ClientConnection::new(config, name)?;
        Ok(Self::new(tls.into(), pending_bytes_max))
    }

    fn new(mut tls: rustls::Connection, pending_bytes_max: usize) -> Self {
        tls.set_buffer_limit(Some(pending_bytes_max));
        Self {
            tls,
            plaintext: 0,
            peer_closed: false,
            link_ended: false,
            closing: false,
            write_blocked: false,
            gauge: None,
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The peer's own certificate, once the handshake is complete.
    pub(super) fn peer_certificate(&self) -> Option<CertificateDer<'static>> {
        match self.is_handshaking() {
            true => None,
            false => self.tls.peer_certificates()?.first().cloned(),
        }
    }

    /// The carrier that ALPN chose. Without ALPN it is HTTP/1.1 (RFC 9110 section 4.3.3); `None` is a protocol that
    /// neither end could have meant.
    pub(super) fn carrier(&self) -> Option<Carrier> {
        match self.tls.alpn_protocol() {
            None => Some(Carrier::H1),
            Some(name) => [Carrier::H2, Carrier::H1]
                .into_iter()
                .find(|carrier| carrier.alpn().as_bytes() == name),
        }
    }

    /// Decrypts what is there, as far as there is room; the rest stays in `input`.
    ///
    /// # Errors
    /// The peer broke TLS, or is not whom it should be. An alert for it waits to be sent.
    pub(super) fn feed(&mut self, input: &mut BytesMut) -> Result<(), rustls::Error> {
        while !input.is_empty() && self.plaintext <= PLAINTEXT_BYTES && !self.peer_closed {
            // Fails only when rustls is full of decrypted bytes, or a record exceeds its largest size, which is found
            // while processing.
            let Ok(used) = self.tls.read_tls(&mut &input[..]) else {
                break;
            };
            input.advance(used);
            let state = self.tls.process_new_packets()?;
            self.plaintext = state.plaintext_bytes_to_read();
            self.peer_closed = state.peer_has_closed();
            if used == 0 {
                break;
            }
        }
        if self.peer_closed {
            // Nothing may follow a closure alert, and nothing is read.
            input.clear();
        }
        Ok(())
    }

    /// The link has ended: no more bytes will be fed.
    pub(super) fn end(&mut self) {
        self.link_ended = true;
    }

    /// Whether the peer ended its direction, with a closure alert or without.
    pub(super) fn is_ended(&self) -> bool {
        self.peer_closed || self.link_ended
    }

    /// Whether the link ended without a closure alert.
    pub(super) fn is_truncated(&self) -> bool {
        self.link_ended && !self.peer_closed
    }

    /// Whether there is room to decrypt more.
    pub(super) fn has_room(&self) -> bool {
        self.plaintext <= PLAINTEXT_BYTES
    }

    /// Whether our direction has ended.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether decrypted bytes wait.
    pub(super) fn has_plaintext(&self) -> bool {
        self.plaintext > 0
    }

    /// Hands up to `bytes_max` decrypted bytes to `sink`.
    pub(super) fn read(&mut self, bytes_max: usize, sink: impl FnOnce(&[u8])) -> Plaintext {
        let is_truncated = self.is_truncated();
        let mut reader = self.tls.reader();
        let taken = match reader.fill_buf() {
            Ok(ready) if !ready.is_empty() => {
                let len = ready.len().min(bytes_max);
                let part = ready.get(..len).unwrap_or_default();
                if let Some(gauge) = &mut self.gauge {
                    gauge.note_received(part);
                }
                sink(part);
                len
            }
            Ok(_) => return Plaintext::End,
            Err(_) if is_truncated => return Plaintext::Truncated,
            Err(_) => return Plaintext::Blocked,
        };
        reader.consume(taken);
        self.plaintext = self.plaintext.saturating_sub(taken);
        Plaintext::Bytes(taken)
    }

    /// Encrypts as much as there is room for, and returns how many bytes that was.
    pub(super) fn write(&mut self, data: &[IoSlice<'_>]) -> usize {
        if self.closing {
            return 0;
        }
        // Never fails: rustls only copies and encrypts.
        let written = self.tls.writer().write_vectored(data).unwrap_or(0);
        self.write_blocked = written == 0 && data.iter().any(|part| !part.is_empty());
        if let Some(gauge) = &mut self.gauge {
            gauge.note_work(written);
        }
        written
    }

    /// Ends our direction with a closure alert, once.
    pub(super) fn close(&mut self) {
        if !self.closing {
            self.closing = true;
            self.tls.send_close_notify();
        }
    }

    /// Whether encrypted bytes wait.
    pub(super) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// Moves encrypted bytes into `sink` until it takes less than it was given; returns how many.
    ///
    /// # Errors
    /// Those of `sink`.
    pub(super) fn drain(&mut self, sink: &mut impl Write) -> io::Result<usize> {
        let mut total = 0;
        while self.tls.wants_write() {
            match self.tls.write_tls(sink)? {
                0 => break,
                written => total += written,
            }
        }
        Ok(total)
    }
}

/// Why a certificate was not accepted.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the errors of rustls are many, and not ours"
)]
const fn certificate(error: &CertificateError) -> CertificateFault {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            CertificateFault::UnknownIssuer
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateFault::WrongName
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => CertificateFault::Expired,
        CertificateError::ApplicationVerificationFailure => CertificateFault::NotPinned,
        _ => CertificateFault::Other,
    }
}

/// What a failed handshake or a broken record says about the peer.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the errors of rustls are many, and not ours"
)]
pub(super) fn failure_of(error: &rustls::Error) -> TlsFailure {
    match error {
        rustls::Error::InvalidCertificate(error) => TlsFailure::Certificate(certificate(error)),
        rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertRevocationList(_) => {
            TlsFailure::Certificate(CertificateFault::Other)
        }
        rustls::Error::AlertReceived(alert) => TlsFailure::Alert {
            id: u8::from(*alert),
        },
        _ => TlsFailure::Protocol,
    }
}
