//! An IP tunnel (CONNECT-IP, RFC 9484): a client gets addresses and pings its relay, over HTTP/3, HTTP/2 and HTTP/1.1.
//!
//! ```console
//! $ cargo run --example ip_client
//! ```
//!
//! The relay is in the same process, and so is the network behind it: a hook that answers pings. No interface and no
//! privilege is needed.

#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bauta::{Carrier, Client, Identity, IpProxy, IpProxyHandle, IpSession, Listener, Trust};
use bytes::Bytes;
use ipnet::Ipv4Net;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let proxy = IpProxy::builder()
        .pool("10.89.0.0/24".parse::<Ipv4Net>()?)
        .forward(answer_pings)
        .build()?;
    // In earnest: Identity::load("chain.pem", "key.pem")?
    let (identity, authority) = Identity::development(&[])?;
    let relay = Listener::all(([127, 0, 0, 1], 0))
        .identity(identity)
        .handler(proxy)
        .start()?;

    for carrier in Carrier::ALL {
        let client = Client::builder(format!("https://{}", relay.local_addr()))
            .trust(Trust::pem(&authority))
            .carriers([carrier])
            .build()?;
        let tunnel = client.ip_blocking("*")?;
        let assigned = tunnel.assigned_blocking()?;
        for address in &assigned {
            println!("{carrier}: we are {}", address.prefix);
        }
        let IpAddr::V4(own) = assigned.first().ok_or("no address")?.prefix.addr() else {
            return Err("the pool is one of IPv4".into());
        };
        let gateway = Ipv4Addr::new(10, 89, 0, 1);
        tunnel.send_ip_packet_blocking(echo(own, gateway, ECHO_REQUEST))?;
        let answer = tunnel.recv_timeout_blocking(Duration::from_secs(5))?;
        match ping_of(&answer.ok_or("no answer")?) {
            Some((source, _, ECHO_REPLY)) => println!("{carrier}: {source} answers"),
            _ => return Err("something else than an answer came back".into()),
        }
    }
    relay.stop_blocking();
    Ok(())
}

/// The network behind the relay: whatever is pinged answers.
fn answer_pings(relay: &IpProxyHandle, _: IpSession, packet: Bytes) {
    if let Some((source, destination, ECHO_REQUEST)) = ping_of(&packet) {
        // A packet that finds no room, or nobody, is lost, as packets are.
        relay.inject(echo(destination, source, ECHO_REPLY)).ok();
    }
}

/// Source, destination and type of an ICMP message over IPv4 without options.
fn ping_of(packet: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr, u8)> {
    let (header, message) = packet.split_first_chunk::<20>()?;
    let [0x45, _, _, _, _, _, _, _, _, 1, _, _, addresses @ ..] = header else {
        return None;
    };
    let [s0, s1, s2, s3, d0, d1, d2, d3] = *addresses;
    let (source, destination) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    Some((source, destination, *message.first()?))
}

/// An ICMP message (RFC 792) of eight bytes in an IPv4 packet.
fn echo(source: Ipv4Addr, destination: Ipv4Addr, kind: u8) -> Vec<u8> {
    let mut header = [
        0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    header[12..16].copy_from_slice(&source.octets());
    header[16..20].copy_from_slice(&destination.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    let mut message = [kind, 0, 0, 0, 0, 7, 0, 1];
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    [&header[..], &message[..]].concat()
}

/// The sum of RFC 1071.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.as_chunks::<2>().0.iter();
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!(folded as u16)).to_be_bytes()
}
