//! What a client's options and tunnels look like to the relay: a handler of this process is the other end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bauta::{
    Accept, Actions, Carrier, Client, ClientBuilder, CloseReason, Credentials, Datagram, ErrorKind,
    Identity, Listener, Reject, Request, Session, TcpForm, Trust, UdpTunnel,
};
use bytes::Bytes;

const PATIENCE: Duration = Duration::from_secs(30);
/// What nobody gets to see: the handler takes every tunnel itself.
const TARGET: &str = "192.0.2.1:9";
/// A payload that asks the session for something.
const CLOSE_WITH_CODE: &[u8] = b"close with a code";
const CLOSE: &[u8] = b"close";
const CODE: u64 = 0x1234;

/// Sends everything back.
struct Echo;

impl Session for Echo {
    fn on_packet(&mut self, actions: &mut Actions<'_>, context: u64, payload: Bytes) {
        match &*payload {
            CLOSE_WITH_CODE => actions.close_with(CODE),
            CLOSE => actions.close(),
            _ => actions.send_on(context, payload).unwrap(),
        }
    }

    fn on_data(&mut self, actions: &mut Actions<'_>, data: Bytes) {
        match &*data {
            CLOSE_WITH_CODE => actions.close_with(CODE),
            _ => actions.send_data(data).unwrap(),
        }
    }

    fn on_capsule(&mut self, actions: &mut Actions<'_>, kind: u64, value: Bytes) {
        actions.send_capsule(kind, &value).unwrap();
    }
}

struct Server {
    listener: Listener,
    ca_pem: String,
    requests: Receiver<(SocketAddr, Vec<(String, String)>)>,
}

impl Server {
    fn start() -> Self {
        let (sender, requests): (Sender<_>, _) = channel();
        let (identity, ca_pem) = Identity::development(&[]).unwrap();
        let handler = move |request: &Request| {
            let fields = request.headers().iter();
            let fields =
                fields.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            let client = request.client().unwrap();
            sender.send((client, fields.collect())).unwrap();
            match request.headers().get("x-refuse") {
                Some(_) => Err(Reject::unauthorized(
                    "PrivateToken challenge=\"x\"".parse().unwrap(),
                )
                .reason("no token")),
                None => Ok(Accept::session(Echo)),
            }
        };
        let listener = Listener::all(([127, 0, 0, 1], 0))
            .identity(identity)
            .workers(1)
            .handler(handler)
            .start()
            .unwrap();
        Self {
            listener,
            ca_pem,
            requests,
        }
    }

    fn builder(&self) -> ClientBuilder {
        // A busy machine is no reason for a second carrier.
        let patient = Duration::from_secs(10);
        Client::builder(format!("https://{}", self.listener.local_addr()))
            .trust(Trust::pem(&self.ca_pem))
            .head_starts(patient, patient)
    }

    fn client(&self, carrier: Carrier) -> Client {
        self.builder().carriers([carrier]).build().unwrap()
    }

    /// Where the next request came from, and its fields.
    fn request(&self) -> (SocketAddr, Vec<(String, String)>) {
        self.requests.recv_timeout(PATIENCE).unwrap()
    }
}

fn recv(tunnel: &UdpTunnel) -> Datagram {
    tunnel.recv_timeout_blocking(PATIENCE).unwrap().unwrap()
}

#[test]
fn requests_carry_what_was_asked_for() {
    let server = Server::start();
    for carrier in Carrier::ALL {
        let client = server
            .builder()
            .carriers([carrier])
            .header("x-all", "of the client")
            .header("x-one", "of the client")
            .credentials(Credentials::bearer("token").unwrap())
            .build()
            .unwrap();
        let connect = client.connect(TARGET).header("x-one", "of the tunnel");
        drop(connect.udp_blocking().unwrap());
        let (_, fields) = server.request();
        let value = |name: &str| {
            let mut values = fields.iter().filter(|(known, _)| known == name);
            let value = values.next().map(|(_, value)| value.as_str());
            assert!(values.next().is_none(), "{fields:?}");
            value
        };
        assert_eq!(value("x-all"), Some("of the client"));
        assert_eq!(value("x-one"), Some("of the tunnel"));
        assert_eq!(value("authorization"), Some("Bearer token"));
        assert_eq!(value("capsule-protocol"), Some("?1"));
    }
}

#[test]
fn a_challenge_reaches_the_user() {
    let server = Server::start();
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        let connect = client.connect(TARGET).header("x-refuse", "1");
        let error = connect.tcp_blocking().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert_eq!(error.status().unwrap(), 401);
        let challenge = &error.headers().unwrap()["www-authenticate"];
        assert_eq!(challenge, "PrivateToken challenge=\"x\"");
        assert!(error.proxy_status().unwrap().contains("no token"));
    }
}

#[test]
fn contexts_and_capsules_go_both_ways() {
    let server = Server::start();
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        let tunnel = client.udp_blocking(TARGET).unwrap();
        tunnel.send("plain").unwrap();
        assert_eq!(recv(&tunnel), Datagram::new(0, "plain"));
        tunnel.send_with_context(42, "extended").unwrap();
        assert_eq!(recv(&tunnel), Datagram::new(42, "extended"), "{carrier}");
        tunnel.send_capsule(0x3f2a, "value").unwrap();
        let capsule = tunnel.recv_capsule_blocking().unwrap();
        assert_eq!((capsule.kind, &*capsule.value), (0x3f2a, &b"value"[..]));
        assert_eq!(tunnel.try_recv_capsule().unwrap(), None);

        let tunnel = client.tcp_blocking(TARGET).unwrap();
        tunnel.send_capsule(0x3f2a, "value").unwrap();
        let capsule = tunnel.recv_capsule_blocking().unwrap();
        assert_eq!((capsule.kind, &*capsule.value), (0x3f2a, &b"value"[..]));
        for form in [TcpForm::Raw, TcpForm::Classic] {
            let tunnel = client
                .connect(TARGET)
                .tcp_form(form)
                .tcp_blocking()
                .unwrap();
            let error = tunnel.send_capsule(0x3f2a, "value").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
    }
}

#[test]
fn a_close_has_its_reason() {
    let server = Server::start();
    for carrier in Carrier::ALL {
        let client = server.client(carrier);
        let tunnel = client.udp_blocking(TARGET).unwrap();
        tunnel.send(CLOSE).unwrap();
        let reason = tunnel.closed_blocking();
        assert!(
            matches!(reason, CloseReason::Finished),
            "{carrier}: {reason:?}"
        );

        let udp = client.udp_blocking(TARGET).unwrap();
        udp.send(CLOSE_WITH_CODE).unwrap();
        let tcp = client.tcp_blocking(TARGET).unwrap();
        (&tcp).write_all(CLOSE_WITH_CODE).unwrap();
        for reason in [udp.closed_blocking(), tcp.closed_blocking()] {
            let CloseReason::Aborted(error) = reason else {
                panic!("{carrier}: {reason:?}");
            };
            assert_eq!(error.kind(), ErrorKind::Aborted);
            if carrier == Carrier::H3 {
                assert_eq!(error.code(), Some(CODE));
            }
        }
        assert!((&tcp).read(&mut [0]).is_err());
    }
}

/// How many connections `tunnels` tunnels at the same time take.
fn connections(server: &Server, builder: ClientBuilder, tunnels: usize) -> usize {
    let client = builder.build().unwrap();
    let open = || client.udp_blocking(TARGET).unwrap();
    let _tunnels: Vec<_> = std::iter::repeat_with(open).take(tunnels).collect();
    let mut clients: Vec<_> = (0..tunnels).map(|_| server.request().0).collect();
    clients.sort_unstable();
    clients.dedup();
    clients.len()
}

/// Over TCP, where a connection is known by its port.
#[test]
fn tunnels_share_connections_as_they_are_told() {
    let server = Server::start();
    let h2 = || server.builder().carriers([Carrier::H2]);
    assert_eq!(connections(&server, h2(), 4), 1);
    assert_eq!(connections(&server, h2().streams_per_connection(2), 4), 2);
    assert_eq!(connections(&server, h2().pooled(false), 4), 4);
}
