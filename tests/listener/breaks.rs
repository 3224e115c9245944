//! Streams of embedded tunnels that are cut: neither a target nor a session may take them for complete.

use std::io::{self, ErrorKind, Read};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use bauta::{
    Accept, Actions, CloseReason, EmbeddedTunnel, Embedding, Proxies, Request,
    SESSION_WAITING_BYTES_MAX, Session,
};
use bytes::Bytes;
use futures_util::{AsyncReadExt, AsyncWriteExt};

use crate::raw::PATIENCE;

/// DATA of draft-ietf-httpbis-connect-tcp: "hello".
const DATA: &[u8] = b"\xa0\x28\xd7\xf2\x05hello";
/// The head of one with 16 KiB.
const DATA_16_KIB: &[u8] = b"\xa0\x28\xd7\xf2\x80\x00\x40\x00";
/// FINAL_DATA without bytes.
const FINAL: &[u8] = b"\xa0\x28\xd7\xf3\0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Classic,
    Capsules,
    Udp,
}

impl Form {
    fn request(self, target: &str) -> http::Request<()> {
        let (host, port) = target.rsplit_once(':').unwrap();
        let upgrade = |kind: &str| {
            let path = format!("/.well-known/masque/{kind}/{host}/{port}/");
            http::Request::get(path)
                .header("host", "localhost")
                .header("connection", "upgrade")
                .header("upgrade", format!("connect-{kind}"))
                .header("capsule-protocol", "?1")
        };
        let request = match self {
            Self::Classic => http::Request::connect(target),
            Self::Capsules => upgrade("tcp"),
            Self::Udp => upgrade("udp"),
        };
        request.body(()).unwrap()
    }

    /// What carries "hello".
    fn hello(self) -> &'static [u8] {
        match self {
            Self::Classic => b"hello",
            Self::Capsules => DATA,
            Self::Udp => b"\0\x06\0hello",
        }
    }
}

async fn open(embedding: &Embedding, form: Form, target: &str) -> EmbeddedTunnel {
    let client = ([192, 0, 2, 7], 7).into();
    let tunnel = embedding.accept(&form.request(target), client).await;
    tunnel.unwrap()
}

/// How a user's stream comes to its end.
type Cut = fn(EmbeddedTunnel);

/// The user's stream failed: nothing else can be done.
fn dropped(tunnel: EmbeddedTunnel) {
    drop(tunnel);
}

/// The client's direction has ended, and then the stream failed.
fn dropped_after_its_end(mut tunnel: EmbeddedTunnel) {
    smol::block_on(async {
        tunnel.write_all(FINAL).await.unwrap();
        tunnel.close().await.unwrap();
    });
}

/// The client's direction ends where its framing does not.
fn cut_short(mut tunnel: EmbeddedTunnel) {
    let error = smol::block_on(tunnel.close()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    smol::block_on(tunnel.closed());
}

/// A capsule that no longer can follow.
fn broken_framing(mut tunnel: EmbeddedTunnel) {
    let broken = [FINAL, DATA].concat();
    let error = smol::block_on(async {
        tunnel.write_all(&broken).await?;
        tunnel.flush().await
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidData);
    smol::block_on(tunnel.closed());
}

/// A DATAGRAM capsule without a Context ID (RFC 9298 §5).
fn broken_datagram(mut tunnel: EmbeddedTunnel) {
    let error = smol::block_on(tunnel.write_all(b"\0\0")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    smol::block_on(tunnel.closed());
}

/// A UDP payload that no UDP datagram holds (RFC 9298 §5).
// spec: 9298-5-d
fn too_long(mut tunnel: EmbeddedTunnel) {
    let capsule = [&b"\0\x80\x00\xff\xf9\0"[..], &[7; 65_528]].concat();
    let error = smol::block_on(tunnel.write_all(&capsule)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    smol::block_on(tunnel.closed());
}

/// The same, longer than any value is kept.
fn far_too_long(mut tunnel: EmbeddedTunnel) {
    let error = smol::block_on(tunnel.write_all(b"\0\xbf\xff\xff\xff\0")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    smol::block_on(tunnel.closed());
}

const CUTS: [(Form, Cut); 5] = [
    (Form::Classic, dropped),
    (Form::Capsules, dropped),
    (Form::Capsules, dropped_after_its_end),
    (Form::Capsules, cut_short),
    (Form::Capsules, broken_framing),
];

/// What a target read, and how that ended.
type Reading = thread::JoinHandle<(Vec<u8>, io::Result<usize>)>;

/// A target that reads until the end.
fn target() -> (String, Reading) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let reading = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes);
        // A target that was told of the end in order still has the other direction.
        let end = end.and_then(|_| stream.read(&mut [0]));
        (bytes, end)
    });
    (address, reading)
}

#[test]
fn a_target_sees_a_reset() {
    let embedding = Embedding::new(Proxies::new().public_only(false)).unwrap();
    for (form, cut) in CUTS {
        if cut as usize == dropped_after_its_end as Cut as usize {
            continue;
        }
        let (address, reading) = target();
        let mut tunnel = smol::block_on(open(&embedding, form, &address));
        smol::block_on(tunnel.write_all(form.hello())).unwrap();
        cut(tunnel);
        let (_, end) = reading.join().unwrap();
        assert_eq!(
            end.unwrap_err().kind(),
            ErrorKind::ConnectionReset,
            "{form:?}"
        );
    }
}

#[test]
fn a_target_that_is_told_of_the_end_sees_it_in_order() {
    let embedding = Embedding::new(Proxies::new().public_only(false)).unwrap();
    for form in [Form::Classic, Form::Capsules] {
        let (address, reading) = target();
        let exchange = async {
            let mut tunnel = open(&embedding, form, &address).await;
            tunnel.write_all(form.hello()).await.unwrap();
            if form == Form::Capsules {
                tunnel.write_all(FINAL).await.unwrap();
            }
            tunnel.close().await.unwrap();
            let mut rest = Vec::new();
            tunnel.read_to_end(&mut rest).await.unwrap();
            rest
        };
        let rest = smol::block_on(exchange);
        assert_eq!(rest, if form == Form::Capsules { FINAL } else { b"" });
        let (bytes, end) = reading.join().unwrap();
        assert_eq!((&*bytes, end.unwrap()), (&b"hello"[..], 0), "{form:?}");
    }
}

#[test]
fn the_end_of_the_embedding_cuts_too() {
    let embedding = Embedding::new(Proxies::new().public_only(false)).unwrap();
    let (address, reading) = target();
    let mut tunnel = smol::block_on(open(&embedding, Form::Classic, &address));
    smol::block_on(tunnel.write_all(b"hello")).unwrap();
    embedding.stop_blocking();
    let (_, end) = reading.join().unwrap();
    assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// Says more than anybody takes, keeps what it hears, and tells of it at its end.
struct Listening {
    says: usize,
    heard: Vec<u8>,
    told: Sender<(Vec<u8>, CloseReason)>,
}

impl Session for Listening {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        if self.says > 0 {
            actions.send_data(vec![0; self.says]).unwrap();
        }
    }

    fn on_packet(&mut self, _: &mut Actions<'_>, _: u64, payload: Bytes) {
        self.heard.extend_from_slice(&payload);
    }

    fn on_data(&mut self, _: &mut Actions<'_>, data: Bytes) {
        self.heard.extend_from_slice(&data);
    }

    fn on_eof(&mut self, _: &mut Actions<'_>) {}

    fn on_close(&mut self, reason: CloseReason) {
        let heard = std::mem::take(&mut self.heard);
        self.told.send((heard, reason)).unwrap();
    }
}

fn listening(says: usize) -> (Embedding, Receiver<(Vec<u8>, CloseReason)>) {
    let (told, ends) = channel();
    let handler = move |_: &Request| {
        Ok(Accept::session(Listening {
            says,
            heard: Vec::new(),
            told: told.clone(),
        }))
    };
    (Embedding::new(handler).unwrap(), ends)
}

/// What a write took is on its way, whether or not anybody writes or flushes again.
#[test]
fn nothing_that_was_taken_waits_for_another_call() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let embedding = Embedding::new(Proxies::new().public_only(false)).unwrap();
    for form in [Form::Classic, Form::Capsules] {
        let mut tunnel = smol::block_on(open(&embedding, form, &address));
        let (mut target, _) = listener.accept().unwrap();
        target.set_read_timeout(Some(PATIENCE)).unwrap();
        // DATA capsules of 16 KiB, or the same bytes as they are.
        let piece = [DATA_16_KIB, &[7; 16 * 1024]].concat();
        let mut taken = 0;
        while let Some(written) = {
            let rest = &piece[taken % piece.len()..];
            smol::block_on(smol::future::poll_once(tunnel.write(rest)))
        } {
            taken += written.unwrap();
        }
        let (pieces, rest) = (taken / piece.len(), taken % piece.len());
        let expected = match form {
            Form::Classic => taken,
            Form::Capsules | Form::Udp => {
                taken - pieces * DATA_16_KIB.len() - rest.min(DATA_16_KIB.len())
            }
        };
        target.read_exact(&mut vec![0; expected]).unwrap();
        drop(tunnel);
    }
}

#[test]
fn a_session_hears_that_it_was_aborted() {
    let (embedding, ends) = listening(0);
    let udp: [(Form, Cut); 4] = [
        (Form::Udp, dropped),
        (Form::Udp, broken_datagram),
        (Form::Udp, too_long),
        (Form::Udp, far_too_long),
    ];
    for (form, cut) in CUTS.into_iter().chain(udp) {
        let mut tunnel = smol::block_on(open(&embedding, form, "192.0.2.1:80"));
        smol::block_on(tunnel.write_all(form.hello())).unwrap();
        cut(tunnel);
        let (heard, reason) = ends.recv_timeout(PATIENCE).unwrap();
        assert_eq!(heard, b"hello", "{form:?}");
        assert!(
            matches!(reason, CloseReason::Aborted(_)),
            "{form:?}: {reason}"
        );
    }
}

#[test]
fn a_udp_tunnel_ends_in_order_with_either_direction() {
    let (embedding, ends) = listening(0);
    let mut tunnel = smol::block_on(open(&embedding, Form::Udp, "192.0.2.1:80"));
    smol::block_on(tunnel.close()).unwrap();
    drop(tunnel);
    let (_, reason) = ends.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(reason, CloseReason::Finished), "{reason}");
}

#[test]
fn a_session_gets_what_came_before_the_break() {
    // So much waits for the client that the session hears nothing more of it.
    let (embedding, ends) = listening(8 * SESSION_WAITING_BYTES_MAX);
    for form in [Form::Classic, Form::Capsules] {
        let mut tunnel = smol::block_on(open(&embedding, form, "192.0.2.1:80"));
        smol::block_on(tunnel.write_all(form.hello())).unwrap();
        drop(tunnel);
        let (heard, reason) = ends.recv_timeout(PATIENCE).unwrap();
        assert_eq!(heard, b"hello", "{form:?}");
        assert!(matches!(reason, CloseReason::Aborted(_)), "{reason}");
    }
}
