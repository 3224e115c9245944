//! A server of one's own in about twenty lines: it sends back what it gets, datagrams of UDP tunnels and bytes of TCP
//! tunnels, over HTTP/3, HTTP/2 and HTTP/1.1. No target is ever connected to.
//!
//! ```console
//! $ cargo run --example echo_relay
//! ```
//!
//! A client in the same process proves it.

#![expect(clippy::print_stdout, reason = "an example prints what it does")]

use std::error::Error;
use std::io::{Read, Write};
use std::time::Duration;

use bauta::{Accept, Actions, Carrier, Client, Identity, Listener, Request, Session, Trust};
use bytes::Bytes;

struct Echo;

impl Session for Echo {
    fn on_packet(&mut self, actions: &mut Actions<'_>, context: u64, payload: Bytes) {
        // A datagram that finds no room is lost, as datagrams are.
        actions.send_on(context, payload).ok();
    }

    fn on_data(&mut self, actions: &mut Actions<'_>, data: Bytes) {
        // Fails only after the end, when nobody listens.
        actions.send_data(data).ok();
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // In earnest: Identity::load("chain.pem", "key.pem")?
    let (identity, authority) = Identity::development(&[])?;
    let relay = Listener::all(([127, 0, 0, 1], 0))
        .identity(identity)
        .handler(|_: &Request| Ok(Accept::session(Echo)))
        .start()?;
    let url = format!("https://{}", relay.local_addr());
    println!("listening on {}", relay.local_addr());

    for carrier in Carrier::ALL {
        let client = Client::builder(&url)
            .trust(Trust::pem(&authority))
            .carriers([carrier])
            .build()?;
        // The session never looks at the target, so any name will do.
        datagrams(&client)?;
        bytes(&client)?;
        println!("{carrier}: a datagram and a stream came back");
    }
    relay.stop_blocking();
    Ok(())
}

fn datagrams(client: &Client) -> Result<(), Box<dyn Error>> {
    let tunnel = client.udp_blocking("echo.invalid:7")?;
    tunnel.send("hello")?;
    let answer = tunnel.recv_timeout_blocking(Duration::from_secs(5))?;
    let answer = answer.ok_or("no datagram came back")?;
    if answer.payload != "hello" {
        return Err(format!("another datagram came back: {:?}", answer.payload).into());
    }
    Ok(())
}

fn bytes(client: &Client) -> Result<(), Box<dyn Error>> {
    let tunnel = client.tcp_blocking("echo.invalid:7")?;
    // Plain threads read and write by reference, so that two of them can share a tunnel.
    (&tunnel).write_all(b"hello")?;
    tunnel.shutdown_write()?;
    let mut answer = String::new();
    (&tunnel).read_to_string(&mut answer)?;
    if answer != "hello" {
        return Err(format!("other bytes came back: {answer:?}").into());
    }
    Ok(())
}
