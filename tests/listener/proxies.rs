//! The built-in handlers, wrapped and with hooks; answers that reject.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use bauta::{
    Accept, Family, Handler, Listener, Protocol, Proxies, Reject, Request, SocketOptions, Target,
    TcpProxy, UdpProxy,
};
use http::{HeaderValue, StatusCode};

use crate::Server;
use crate::raw::PATIENCE;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A UDP target that answers once.
fn udp_target() -> SocketAddr {
    let socket = UdpSocket::bind((HERE, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        socket.send_to(&buffer[..len], from).unwrap();
    });
    address
}

/// A TCP target that answers once.
fn tcp_target() -> SocketAddr {
    let listener = TcpListener::bind((HERE, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 5];
        stream.read_exact(&mut buffer).unwrap();
        stream.write_all(&buffer).unwrap();
    });
    address
}

/// Asks for a TCP tunnel to `target` and uses it.
#[track_caller]
fn use_tcp(server: &Server, target: &str) {
    let mut client = server.connect();
    assert_eq!(client.ask_tcp(target, "").status, 200);
    client.write("hello");
    assert_eq!(client.read(5), b"hello");
}

#[track_caller]
fn refused(server: &Server, target: &str) -> (u16, String) {
    let head = server.connect().ask_tcp(target, "");
    let status = head.field("proxy-status").unwrap_or_default().to_owned();
    (head.status, status)
}

fn loopback() -> Proxies {
    Proxies::new().public_only(false)
}

#[test]
fn udp_and_tcp_reach_their_targets() {
    let server = Server::start(loopback());
    let mut client = server.connect();
    assert_eq!(client.ask_udp(&udp_target().to_string(), "").status, 101);
    client.send(0, b"hello");
    assert_eq!(client.capsule(), (0, b"\0hello".to_vec()));
    use_tcp(&server, &tcp_target().to_string());
    let stats = server.listener.stats();
    assert_eq!((stats.tunnels_opened, stats.handler_panics), (2, 0));
    assert_eq!(stats.connections_opened, 2);
}

#[test]
fn each_proxy_has_its_protocol() {
    let udp = Server::start(UdpProxy::new().public_only(false));
    assert_eq!(refused(&udp, &tcp_target().to_string()).0, 501);
    let tcp = Server::start(TcpProxy::new().public_only(false));
    use_tcp(&tcp, &tcp_target().to_string());
    let head = tcp.connect().ask_udp(&udp_target().to_string(), "");
    assert_eq!(head.status, 501);
}

#[test]
fn what_is_not_public_needs_a_rule() {
    let target = tcp_target();
    let closed = Server::start(Proxies::new());
    assert_eq!(refused(&closed, &target.to_string()).0, 403);
    let open = Proxies::new().allow_rule("127.0.0.0/8").unwrap();
    let denies = open.clone().deny_rule("127.0.0.2").unwrap();
    use_tcp(&Server::start(open), &target.to_string());
    assert_eq!(refused(&Server::start(denies), "127.0.0.2:1").0, 403);
    let error = Proxies::new().allow_rule("127.0.0.0/40").unwrap_err();
    assert_eq!(error.kind(), bauta::ErrorKind::Configuration);
}

#[test]
fn nobody_reaches_the_listener_itself() {
    let server = Server::start(loopback());
    let own = server.listener.local_addr().to_string();
    assert_eq!(refused(&server, &own).0, 508);
}

#[test]
fn allow_decides_at_once_or_later() {
    let target = tcp_target();
    let port = target.port();
    let server = Server::start(loopback().allow(move |target: &Target| target.port == port));
    assert_eq!(refused(&server, "127.0.0.1:1").0, 403);
    use_tcp(&server, &target.to_string());

    let target = tcp_target();
    let port = target.port();
    let allow = move |target: Target| async move {
        tokio::task::yield_now().await;
        target.port == port
    };
    let server = Server::start(loopback().allow_async(allow));
    let (status, proxy_status) = refused(&server, "127.0.0.1:1");
    assert_eq!(status, 403);
    assert!(proxy_status.contains("not allowed"), "{proxy_status}");
    use_tcp(&server, &target.to_string());

    let server = Server::start(loopback().allow(|_| panic!("as it should")));
    assert_eq!(refused(&server, "127.0.0.1:1").0, 500);
    assert_eq!(server.listener.stats().handler_panics, 1);
}

/// A table of one name.
fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    match name {
        "here.example" => Ok(vec!["192.0.2.99".parse().unwrap(), HERE]),
        "private.example" => Ok(vec!["10.0.0.1".parse().unwrap()]),
        "nowhere.example" => Ok(Vec::new()),
        "slow.example" => Err(ErrorKind::TimedOut.into()),
        _ => Err(ErrorKind::NotFound.into()),
    }
}

#[test]
fn names_are_resolved_by_the_user() {
    let here = || Proxies::new().allow_rule("127.0.0.0/8").unwrap();
    let later = |name: String| async move {
        tokio::task::yield_now().await;
        resolve(&name)
    };
    for proxies in [here().resolver(resolve), here().resolver_async(later)] {
        let server = Server::start(proxies);
        use_tcp(&server, &format!("here.example:{}", tcp_target().port()));
        // The rules are judged on what the resolver says.
        assert_eq!(refused(&server, "private.example:1").0, 403);
        for (target, status, error) in [
            ("nowhere.example:1", 502, "error=dns_error"),
            ("slow.example:1", 504, "error=dns_timeout"),
            ("other.example:1", 502, "error=dns_error"),
        ] {
            let refused = refused(&server, target);
            assert_eq!(refused.0, status, "{target}");
            assert!(refused.1.contains(error), "{}", refused.1);
        }
        use_tcp(&server, &tcp_target().to_string());
    }
}

#[test]
fn the_family_and_the_time_are_the_users() {
    let server = Server::start(loopback().family(Family::V6));
    let (status, _) = refused(&server, &tcp_target().to_string());
    assert_eq!(status, 502);
    let never = |_: String| std::future::pending::<io::Result<Vec<IpAddr>>>();
    let listener = Listener::h1((HERE, 0))
        .open_timeout(std::time::Duration::from_secs(1))
        .handler(loopback().resolver_async(never));
    let (status, _) = refused(&Server::build(listener), "name.example:1");
    assert!(matches!(status, 503 | 504), "{status}");
}

/// Lets in who knows the word, and then does what the inner handler does.
struct Guarded<H> {
    inner: H,
    asked: Arc<AtomicUsize>,
}

impl<H: Handler> Handler for Guarded<H> {
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let authorization = request.headers().get("authorization");
        if authorization.is_none_or(|value| value != "PrivateToken token=\"abc\"") {
            let challenge = HeaderValue::from_static("PrivateToken challenge=\"xyz\"");
            return Err(Reject::unauthorized(challenge).reason("a token, please"));
        }
        let accept = self.inner.accept(request)?;
        Ok(accept.header("x-let-in", HeaderValue::from_static("yes")))
    }
}

#[test]
fn a_handler_wraps_another_and_challenges() {
    let asked = Arc::new(AtomicUsize::new(0));
    let server = Server::start(Guarded {
        inner: loopback(),
        asked: Arc::clone(&asked),
    });
    let target = udp_target().to_string();
    let mut client = server.connect();
    let head = client.ask_udp(&target, "");
    assert_eq!(head.status, 401);
    let challenge = head.field("www-authenticate").unwrap();
    assert_eq!(challenge, "PrivateToken challenge=\"xyz\"");
    let status = head.field("proxy-status").unwrap();
    assert!(status.contains("details=\"a token, please\""), "{status}");
    let mut client = server.connect();
    let head = client.ask_udp(&target, "Authorization: PrivateToken token=\"abc\"\r\n");
    assert_eq!((head.status, head.field("x-let-in")), (101, Some("yes")));
    client.send(0, b"hello");
    assert_eq!(client.capsule(), (0, b"\0hello".to_vec()));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

/// Asks somebody else about the token, and then another handler.
pub(crate) struct AsksElsewhere<H>(pub(crate) Arc<H>);

impl<H: Handler> Handler for AsksElsewhere<H> {
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        let (inner, request) = (Arc::clone(&self.0), request.clone());
        let decision = async move {
            let authorization = request.headers().get("authorization").cloned();
            let asked = tokio::spawn(async move {
                tokio::task::yield_now().await;
                authorization.is_some_and(|value| value == "PrivateToken token=\"abc\"")
            });
            match asked.await.unwrap() {
                true => Ok((inner.accept(&request)?).header("x-by", "the inner one".parse()?)),
                false => Err(Reject::unauthorized(
                    "PrivateToken challenge=\"xyz\"".parse()?,
                )),
            }
        };
        let outer = Accept::later(decision).header("x-by", "the outer one".parse()?);
        // A decision may come to one that has yet to be made.
        Ok(Accept::later(async move { Ok(outer) }))
    }
}

#[test]
fn a_handler_asks_elsewhere_and_then_another_handler() {
    let inner = || loopback().deny_rule("192.0.2.1").unwrap();
    for inner in [inner(), inner().allow_async(|_| async { true })] {
        let inner: Box<dyn Handler> = Box::new(inner);
        let server = Server::start(AsksElsewhere(Arc::new(inner)));
        let target = udp_target().to_string();
        let head = server.connect().ask_udp(&target, "");
        assert_eq!(head.status, 401);
        let challenge = head.field("www-authenticate").unwrap();
        assert_eq!(challenge, "PrivateToken challenge=\"xyz\"");
        let token = "Authorization: PrivateToken token=\"abc\"\r\n";
        let mut client = server.connect();
        let head = client.ask_udp(&target, token);
        assert_eq!(
            (head.status, head.field("x-by")),
            (101, Some("the outer one"))
        );
        client.send(0, b"hello");
        assert_eq!(client.capsule(), (0, b"\0hello".to_vec()));
        // The inner one may refuse as well.
        let head = server.connect().ask_udp("192.0.2.1:9", token);
        assert_eq!((head.status, head.field("x-by")), (403, None));
    }
}

#[test]
fn a_handler_that_panics_later_answers_500() {
    let server = Server::start(|_: &Request| Ok(Accept::later(async { panic!("as it should") })));
    assert_eq!(server.connect().ask_tcp("a.example:1", "").status, 500);
    assert_eq!(server.listener.stats().handler_panics, 1);
}

#[test]
fn a_request_shows_what_was_asked() {
    let seen = Arc::new(OnceLock::new());
    let noted = Arc::clone(&seen);
    let server = Server::start(move |request: &Request| -> Result<Accept, Reject> {
        noted.set(request.clone()).unwrap();
        Err(Reject::new(StatusCode::IM_A_TEAPOT)
            .header("x-more", HeaderValue::from_static("tea"))
            .header("content-length", HeaderValue::from_static("7")))
    });
    let mut client = server.connect();
    let from = client.stream.sock.local_addr().unwrap();
    let head = client.ask_udp("dns.example:53", "X-Key: sesame\r\n");
    assert_eq!((head.status, head.field("x-more")), (418, Some("tea")));
    assert_ne!(head.field("content-length"), Some("7"));
    let request = seen.get().unwrap();
    assert_eq!(request.method(), http::Method::CONNECT);
    assert_eq!(request.protocol(), Some(Protocol::Udp));
    assert_eq!(request.token(), Some("connect-udp"));
    assert_eq!(request.target().unwrap().to_string(), "dns.example:53");
    let path = "/.well-known/masque/udp/dns.example/53/";
    assert_eq!(request.path(), Some(path));
    assert_eq!(request.authority(), Some("localhost"));
    assert_eq!(request.scheme(), Some("https"));
    assert_eq!(request.headers()["x-key"], "sesame");
    assert_eq!(request.carrier().as_str(), "h1");
    assert_eq!(request.client(), Some(from));
    assert!(request.certificate().is_none());
}

#[test]
fn targets_see_the_address_that_the_options_name() {
    let target = TcpListener::bind((HERE, 0)).unwrap();
    let address = target.local_addr().unwrap();
    let from: IpAddr = "127.0.0.9".parse().unwrap();
    let options = SocketOptions {
        local_address: Some(from),
        ..SocketOptions::default()
    };
    let server = Server::start(loopback().socket_options(options));
    let head = server.connect().ask_tcp(&address.to_string(), "");
    assert_eq!(head.status, 200);
    assert_eq!(target.accept().unwrap().1.ip(), from);
}
