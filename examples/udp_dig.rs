//! Asks a name server through a relay: one DNS query in a UDP tunnel (RFC 9298), from a plain thread.
//!
//! ```console
//! $ cargo run --example udp_dig
//! $ cargo run --example udp_dig -- --via https://relay.example --server 192.0.2.53:53 example.org
//! ```
//!
//! Without arguments the relay and a name server that knows one address are in this process, on loopback.

#![expect(clippy::print_stdout, reason = "an example prints what it finds")]

use std::env;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::Duration;

use bauta::{Client, Identity, Listener, Trust, UdpProxy, UdpTunnel};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long an answer may take before the question is asked again.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["--via", relay, "--server", server, name] => {
            let client = Client::builder(relay).build()?;
            dig(&client.udp_blocking(server)?, name)
        }
        [] => dig_on_loopback(),
        _ => Err("usage: udp_dig [--via URL --server ADDRESS:PORT NAME]".into()),
    }
}

fn dig_on_loopback() -> Result<()> {
    let server = start_name_server()?;
    let (identity, authority) = Identity::development(&[])?;
    let relay = Listener::all(([127, 0, 0, 1], 0))
        .identity(identity)
        // The name server is on this machine, which is closed to tunnels otherwise.
        .handler(UdpProxy::new().public_only(false))
        .start()?;

    let client = Client::builder(format!("https://{}", relay.local_addr()))
        .trust(Trust::pem(authority))
        .build()?;
    dig(&client.udp_blocking(server)?, "example.org")?;
    relay.stop_blocking();
    Ok(())
}

/// Asks for the IPv4 addresses of `name`, three times at most: datagrams get lost, in a tunnel as anywhere.
fn dig(tunnel: &UdpTunnel, name: &str) -> Result<()> {
    let query = query(name)?;
    for _ in 0..3 {
        tunnel.send(query.clone())?;
        if let Some(answer) = tunnel.recv_timeout_blocking(PATIENCE)? {
            for address in addresses(&answer.payload).ok_or("this is no answer")?? {
                println!("{name} has address {address}");
            }
            let info = tunnel.info();
            let carrier = info.carrier.ok_or("the tunnel is not open")?;
            let target = info
                .target
                .map_or_else(String::new, |target| target.to_string());
            println!("asked {target} over {carrier}");
            return Ok(());
        }
    }
    Err("no answer".into())
}

/// A question for A records (RFC 1035 §4). The ID is 0, as the tunnel carries this one question only.
fn query(name: &str) -> Result<Vec<u8>> {
    let mut query = vec![0, 0, 0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        if label.is_empty() || label.len() > 63 {
            return Err(format!("{name:?} is no name").into());
        }
        query.push(u8::try_from(label.len())?);
        query.extend_from_slice(label.as_bytes());
    }
    query.extend_from_slice(&[0, 0, 1, 0, 1]);
    Ok(query)
}

/// The A records of an answer; `None` when it ends too early.
fn addresses(answer: &[u8]) -> Option<Result<Vec<Ipv4Addr>>> {
    let code = *answer.get(3)? & 0xf;
    if code != 0 {
        return Some(Err(format!("the name server says: code {code}").into()));
    }
    let number = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let mut at = skip_name(answer, 12)? + 4;
    let mut addresses = Vec::new();
    for _ in 0..number(6)? {
        at = skip_name(answer, at)?;
        let (kind, len) = (number(at)?, usize::from(number(at + 8)?));
        let data = answer.get(at + 10..at + 10 + len)?;
        if kind == 1 {
            addresses.push(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?));
        }
        at += 10 + len;
    }
    Some(Ok(addresses))
}

/// Where the name ends that begins at `at`; a pointer (RFC 1035 §4.1.4) is its end.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            len => at += 1 + usize::from(len),
        }
    }
}

/// A name server that gives every name the same address.
fn start_name_server() -> io::Result<std::net::SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    thread::spawn(move || -> io::Result<()> {
        let mut buffer = [0; 512];
        loop {
            let (len, client) = socket.recv_from(&mut buffer)?;
            let mut answer = buffer[..len].to_vec();
            // A response, no error, one answer: the name of the question, A, IN, 300 s, four bytes.
            answer[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1]);
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, 7]);
            socket.send_to(&answer, client)?;
        }
    });
    Ok(address)
}
