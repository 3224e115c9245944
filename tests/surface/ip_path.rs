//! IP tunnels over a path that becomes narrower.
//!
//! ```text
//!   client ─► narrow place, which drops what is too large ─► relay
//! ```

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use bauta::{
    Accept, Actions, Carrier, Client, Event, Events, IpEvent, IpTunnel, Mode, Request, Session,
    Trust,
};
use bytes::Bytes;
use ipnet::IpNet;

use crate::packets::{UDP, packet};
use crate::world::{PATIENCE, Server, any_port, shared_worker, until};

/// A UDP payload that passes before, and one that passes after.
const WIDE: usize = 1_500;
const NARROW: usize = 1_380;

/// A place on the way that drops datagrams above a size.
struct Place {
    address: SocketAddr,
    largest: Arc<AtomicUsize>,
}

impl Place {
    fn before(relay: SocketAddr) -> Self {
        let near = Arc::new(UdpSocket::bind(any_port()).unwrap());
        let far = Arc::new(UdpSocket::bind(any_port()).unwrap());
        far.connect(relay).unwrap();
        let address = near.local_addr().unwrap();
        let largest = Arc::new(AtomicUsize::new(WIDE));
        let client = Arc::new(OnceLock::<SocketAddr>::new());
        let (up_near, up_far) = (Arc::clone(&near), Arc::clone(&far));
        let (up_client, up_largest) = (Arc::clone(&client), Arc::clone(&largest));
        // The threads end with the test.
        thread::spawn(move || {
            let mut buffer = [0; 65_535];
            while let Ok((len, peer)) = up_near.recv_from(&mut buffer) {
                up_client.get_or_init(|| peer);
                if len <= up_largest.load(Ordering::Relaxed) {
                    up_far.send(&buffer[..len]).ok();
                }
            }
        });
        let down_largest = Arc::clone(&largest);
        thread::spawn(move || {
            let mut buffer = [0; 65_535];
            while let Ok(len) = far.recv(&mut buffer) {
                if let Some(client) = client.get()
                    && len <= down_largest.load(Ordering::Relaxed)
                {
                    near.send_to(&buffer[..len], client).ok();
                }
            }
        });
        Self { address, largest }
    }
}

/// Sends packets back, and says what it hears of the MTU.
struct Watching(Sender<usize>);

impl Session for Watching {
    fn on_open(&mut self, actions: &mut Actions<'_>) {
        let everything: IpNet = "0.0.0.0/0".parse().unwrap();
        actions.advertise_routes(vec![everything.into()]).unwrap();
    }

    fn on_packet(&mut self, actions: &mut Actions<'_>, _: u64, payload: Bytes) {
        // It may be too large for the way back already.
        actions.send(payload).ok();
    }

    fn on_ip_event(&mut self, actions: &mut Actions<'_>, event: IpEvent) {
        if let IpEvent::Mtu(mtu) = event {
            assert_eq!(actions.ip_info().expect("an IP tunnel").mtu, mtu);
            self.0.send(mtu).ok();
        }
    }
}

/// A packet of the largest size that passes, as far as the tunnel knows.
fn send_full(tunnel: &IpTunnel) {
    let own = "10.0.0.1".parse().unwrap();
    let full = packet(own, own, UDP, tunnel.ip_info().unwrap().mtu);
    // The path may have become smaller a moment ago.
    tunnel.send_ip_packet_blocking(full).ok();
}

#[test]
fn mtu_events_reach_clients_and_sessions() {
    let (tell, told) = channel();
    let server = Server::new(move |_: &Request| Ok(Accept::session(Watching(tell.clone()))));
    let place = Place::before(server.address());
    let client = Client::builder(format!("https://{}", place.address))
        .trust(Trust::dangerous_anybody())
        .carriers([Carrier::H3])
        .worker(shared_worker())
        .build()
        .unwrap();
    let events = Events::new();
    let connect = client.connect_ip("*").mode(Mode::Events(events.clone()));
    let (pulled, reporting) = (
        client.ip_blocking("*").unwrap(),
        connect.ip_blocking().unwrap(),
    );
    // Nobody sends anything: the event alone brings it up to date.
    let wide = 1_390;
    until("the width of the path", || {
        let is_wide = |tunnel: &IpTunnel| tunnel.ip_info().unwrap().mtu >= wide;
        (is_wide(&pulled) && is_wide(&reporting)).then_some(())
    });

    place.largest.store(NARROW, Ordering::Relaxed);
    let heard = until("a narrower path, when asked", || {
        send_full(&pulled);
        match pulled.try_recv_ip_event().unwrap() {
            Some(IpEvent::Mtu(mtu)) if mtu < wide => Some(mtu),
            _ => None,
        }
    });
    assert!((1_280..NARROW).contains(&heard), "{heard}");
    let reported = until("a narrower path, among events", || {
        let (id, event) = events.recv_timeout_blocking(PATIENCE)?;
        assert_eq!(id, reporting.id());
        match event {
            Event::Ip(IpEvent::Mtu(mtu)) if mtu < wide => Some(mtu),
            _ => None,
        }
    });
    assert!((1_280..NARROW).contains(&reported), "{reported}");
    until("a narrower path, at the session", || {
        send_full(&pulled);
        told.try_iter().find(|mtu| *mtu < wide)
    });
}
