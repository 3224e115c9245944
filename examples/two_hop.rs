//! Two relays in a row, so that none of them knows both ends: nested by the client, and chained by the first relay.
//!
//! ```text
//!   nested    client ══ tunnel to the egress ══► ingress ── the client's second connection ──► egress ─► target
//!   chained   client ══ tunnel to the target ══► ingress ══ tunnel to the target ══► egress ─► target
//! ```
//!
//! ```console
//! $ cargo run --example two_hop
//! ```
//!
//! Everything is in this process, on loopback. Nested, the ingress sees the egress alone, and the client judges the
//! certificates of both. Chained, the ingress learns the target's name, and the client knows nothing of the egress.

#![expect(clippy::print_stdout, reason = "an example prints what it does")]
#![expect(clippy::disallowed_methods, reason = "an example measures")]

use std::error::Error;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use bauta::{Chain, Client, Handler, Identity, Listener, Proxies, Trust};

fn main() -> Result<(), Box<dyn Error>> {
    let target = start_echo()?;
    // The same certificate for all relays: here they differ in their ports only.
    let (identity, authority) = Identity::development(&[])?;
    let trust = Trust::pem(authority);
    let proxies = Proxies::new().public_only(false);

    let egress = relay(&identity, proxies.clone())?;
    let ingress = relay(&identity, proxies)?;
    let nested = Client::builder(url(&ingress))
        .hop(url(&egress))
        .trust(trust.clone())
        .build()?;
    exchange("nested", &nested, target)?;

    let chain = Chain::through(Client::builder(url(&egress)).trust(trust.clone()))?;
    let chaining = relay(&identity, chain)?;
    let chained = Client::builder(url(&chaining)).trust(trust).build()?;
    exchange("chained", &chained, target)?;
    Ok(())
}

fn relay(identity: &Identity, handler: impl Handler) -> Result<Listener, bauta::Error> {
    Listener::all(([127, 0, 0, 1], 0))
        .identity(identity.clone())
        .handler(handler)
        .workers(1)
        .start()
}

fn url(relay: &Listener) -> String {
    format!("https://{}", relay.local_addr())
}

/// Opens two tunnels, the second on the connections of the first, and says what that took.
fn exchange(title: &str, client: &Client, target: SocketAddr) -> Result<(), Box<dyn Error>> {
    for which in ["first", "second"] {
        let started = Instant::now();
        let tunnel = client.udp_blocking(target)?;
        let opened = started.elapsed();

        tunnel.send("ping")?;
        let answer = tunnel.recv_timeout_blocking(Duration::from_secs(5))?;
        let round_trip = started.elapsed() - opened;
        if answer.ok_or("no datagram came back")?.payload != "ping" {
            return Err("another datagram came back".into());
        }

        let info = tunnel.info();
        let carrier = info.carrier.ok_or("the tunnel is not open")?;
        println!(
            "{title}: {which} tunnel open in {opened:.1?}, there and back in {round_trip:.1?}, over {carrier}"
        );
        for relay in info.relays {
            println!("  by {relay}");
        }
        tunnel.close_blocking();
    }
    Ok(())
}

/// A target that sends datagrams back.
fn start_echo() -> io::Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    thread::spawn(move || -> io::Result<()> {
        let mut buffer = [0; 2048];
        loop {
            let (len, sender) = socket.recv_from(&mut buffer)?;
            socket.send_to(&buffer[..len], sender)?;
        }
    });
    Ok(address)
}
