//! Authentication by challenge (RFC 9110 §11.6, RFC 9577): the relay answers 401 with `WWW-Authenticate: PrivateToken`,
//! the client makes a token for that challenge and asks again.
//!
//! ```text
//!   client ── CONNECT ───────────────────────────────────────────────► relay
//!          ◄─ 401, www-authenticate: PrivateToken challenge="…" ──────
//!          ── CONNECT, authorization: PrivateToken token="…" ────────►
//!          ◄─ 200 ────────────────────────────────────────────────────
//! ```
//!
//! ```console
//! $ cargo run --example auth_challenge
//! ```
//!
//! The token is a toy that anybody can make; in earnest an issuer signs it (RFC 9578). What surrounds it is real.

#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::error::Error;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};
use std::time::Duration;

use bauta::{
    Accept, Actions, Client, Handler, Identity, Listener, Reject, Request, Session, Trust,
};
use bytes::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};

/// Asks every client for a token, and has `inner` decide about those that have one.
struct Challenge<H> {
    inner: H,
    secret: RandomState,
}

impl<H: Handler> Handler for Challenge<H> {
    fn accept(&self, request: &Request) -> Result<Accept, Reject> {
        // The challenge belongs to the target, so nothing has to be remembered.
        let target = request.target().ok_or_else(Reject::not_found)?;
        let challenge = format!("{:016x}", self.secret.hash_one(target.to_string()));
        let expected = format!("PrivateToken token=\"{}\"", make_token(&challenge));
        // Real tokens are verified by their signature; real secrets are compared in constant time.
        let shown = request.headers().get(AUTHORIZATION);
        if shown.is_some_and(|shown| *shown == expected) {
            return self.inner.accept(request);
        }
        let challenge = format!("PrivateToken challenge=\"{challenge}\", token-key=\"toy\"");
        let challenge = HeaderValue::from_str(&challenge)
            .map_err(|_| Reject::new(StatusCode::INTERNAL_SERVER_ERROR))?;
        Err(Reject::unauthorized(challenge).reason("a token is needed"))
    }
}

/// What an issuer would do, together with the client.
fn make_token(challenge: &str) -> String {
    let mut hasher = DefaultHasher::new();
    challenge.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The challenge in an answer, if there is one of our scheme.
fn find_challenge(headers: &HeaderMap) -> Option<&str> {
    headers.get_all(WWW_AUTHENTICATE).iter().find_map(|field| {
        let parameters = field.to_str().ok()?.strip_prefix("PrivateToken ")?;
        let (_, challenge) = parameters.split_once("challenge=\"")?;
        Some(challenge.split_once('"')?.0)
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let (identity, authority) = Identity::development(&[])?;
    let relay = Listener::all(([127, 0, 0, 1], 0))
        .identity(identity)
        .handler(Challenge {
            inner: |_: &Request| Ok(Accept::session(Greeter)),
            secret: RandomState::new(),
        })
        .start()?;
    let client = Client::builder(format!("https://{}", relay.local_addr()))
        .trust(Trust::pem(authority))
        .build()?;

    let target = "target.example:443";
    let error = match client.udp_blocking(target) {
        Ok(_) => return Err("the relay asked for nothing".into()),
        Err(error) if error.status() == Some(StatusCode::UNAUTHORIZED) => error,
        Err(error) => return Err(error.into()),
    };
    let challenge = error.headers().and_then(find_challenge);
    let challenge = challenge.ok_or("the challenge is missing")?;
    println!("401 Unauthorized, challenge {challenge}");

    let token = make_token(challenge);
    println!("asking again with token {token}");
    let tunnel = client
        .connect(target)
        .header("authorization", &format!("PrivateToken token=\"{token}\""))
        .udp_blocking()?;
    let greeting = tunnel.recv_timeout_blocking(Duration::from_secs(5))?;
    let greeting = greeting.ok_or("the tunnel says nothing")?;
    println!("{}", String::from_utf8_lossy(&greeting.payload));
    relay.stop_blocking();
    Ok(())
}

/// Says that the tunnel is open.
struct Greeter;

impl Session for Greeter {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        // On loopback nothing gets lost that has room.
        actions.send(Bytes::from_static(b"welcome")).ok();
    }
}
