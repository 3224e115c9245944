//! A client of HTTP/1.1 that writes what it wants, over TLS and plain blocking sockets.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// Longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    text: String,
}

impl Head {
    /// The value of a field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// One connection.
pub(crate) struct Raw {
    pub(crate) stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Raw {
    pub(crate) fn connect(address: SocketAddr, ca_pem: &str) -> Self {
        Self::connect_to(address, ca_pem, "localhost").unwrap()
    }

    /// Connects and shakes hands, asking for `name`.
    pub(crate) fn connect_to(address: SocketAddr, ca_pem: &str, name: &str) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(tls, socket);
        stream.flush()?;
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream })
    }

    pub(crate) fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Asks for a UDP tunnel.
    pub(crate) fn ask_udp(&mut self, target: &str, more: &str) -> Head {
        let (host, port) = target.rsplit_once(':').unwrap();
        self.write(format!(
            "GET /.well-known/masque/udp/{host}/{port}/ HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
             Upgrade: connect-udp\r\nCapsule-Protocol: ?1\r\n{more}\r\n"
        ));
        self.head()
    }

    /// Asks for a TCP tunnel by classic CONNECT.
    pub(crate) fn ask_tcp(&mut self, target: &str, more: &str) -> Head {
        self.write(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{more}\r\n"
        ));
        self.head()
    }

    /// Reads the head of a response.
    pub(crate) fn head(&mut self) -> Head {
        let mut text = Vec::new();
        while !text.ends_with(b"\r\n\r\n") {
            text.extend(self.read(1));
        }
        let text = String::from_utf8(text).unwrap();
        Head {
            status: text[9..12].parse().unwrap(),
            text,
        }
    }

    pub(crate) fn read(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Sends a UDP payload, or something in another context, in a DATAGRAM capsule; all numbers below 64.
    pub(crate) fn send(&mut self, context: u8, payload: &[u8]) {
        let len = u8::try_from(payload.len() + 1).unwrap();
        assert!(len < 64 && context < 64);
        self.write([&[0, len, context], payload].concat());
    }

    /// Reads a capsule whose type and length are below 64.
    pub(crate) fn capsule(&mut self) -> (u8, Vec<u8>) {
        let head = self.read(2);
        (head[0], self.read(usize::from(head[1])))
    }

    /// What comes until the end, and whether that was an orderly one.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        let end = self.stream.read_to_end(&mut bytes);
        (bytes, end.is_ok())
    }

    /// Ends our direction: close_notify.
    pub(crate) fn finish(&mut self) {
        self.stream.conn.send_close_notify();
        self.stream.flush().unwrap();
    }
}
