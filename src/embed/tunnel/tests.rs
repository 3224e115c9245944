use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::queues::{CAPSULES_MAX, RECEIVE_BYTES_MAX, SEND_BYTES_MAX, SEND_DATAGRAMS_MAX};
use super::*;
use crate::embed::host;
use crate::embed::ip::Saying;
use crate::error::{Error, ErrorKind, Side};
use crate::tunnel::ip::IpEvent;
use crate::wire::target::Target;
use crate::worker::mailbox::mailbox;

/// A tunnel whose worker only counts how often it is called.
struct World {
    shared: Arc<Shared>,
    commands: crossbeam::channel::Receiver<host::Command>,
}

impl World {
    fn new(protocol: Protocol) -> Self {
        let (address, _) = mailbox(1);
        let (worker, commands) = host::channel(address);
        let terms = Terms {
            protocol,
            destination: "192.0.2.1:9".parse::<Target>().unwrap().into(),
            relays: Arc::new([]),
            capsules: true,
            receive_queue: 2,
            carried: None,
        };
        let shared = Arc::new(Shared::new(terms, worker));
        Self { shared, commands }
    }

    fn open(protocol: Protocol) -> Self {
        let world = Self::new(protocol);
        world.shared.handle_opened(Opened::default());
        world
    }

    fn commands(&self) -> usize {
        self.commands.try_iter().count()
    }
}

#[test]
fn the_worker_is_asked_once_until_it_looks() {
    let world = World::open(Protocol::Udp);
    for _ in 0..3 {
        world.shared.send(Datagram::new(0, "x")).unwrap();
    }
    assert_eq!(world.commands(), 1);
    let mut datagrams = VecDeque::new();
    world.shared.take_work(&mut datagrams, 0);
    assert_eq!(datagrams.len(), 3);
    world.shared.send(Datagram::new(0, "x")).unwrap();
    assert_eq!(world.commands(), 1);
}

#[test]
fn every_queue_has_its_bound() {
    let world = World::open(Protocol::Udp);
    for _ in 0..SEND_DATAGRAMS_MAX + 1 {
        world.shared.send(Datagram::new(0, "x")).unwrap();
    }
    for _ in 0..3 {
        world.shared.handle_datagram(Datagram::new(0, "x"));
    }
    for _ in 0..CAPSULES_MAX {
        world.shared.send_capsule(Capsule::new(0x17, "x")).unwrap();
        world.shared.handle_capsule(Capsule::new(0x17, "x"));
    }
    world.shared.handle_capsule(Capsule::new(0x17, "x"));
    let error = world.shared.send_capsule(Capsule::new(0x17, "x"));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Limit);
    let info = world.shared.info();
    assert_eq!(
        (
            info.send_dropped,
            info.receive_dropped,
            info.capsules_dropped
        ),
        (1, 1, 1)
    );

    let world = World::open(Protocol::Tcp);
    let bytes = vec![0; SEND_BYTES_MAX + 1];
    let written = world.shared.write(&bytes).unwrap().unwrap();
    assert_eq!(written, SEND_BYTES_MAX);
    assert!(world.shared.write(&bytes).is_none());
    let work = world.shared.take_work(&mut VecDeque::new(), 1);
    assert!(work.is_partial && work.bytes.len() == 1);
    assert_eq!(world.shared.write(&bytes).unwrap().unwrap(), 1);

    world
        .shared
        .handle_bytes(Bytes::from(vec![0; RECEIVE_BYTES_MAX]));
    assert_eq!(world.shared.read_room(), None);
    world.commands();
    // The worker reads on when half of it was taken, and not before.
    let mut buffer = vec![0; RECEIVE_BYTES_MAX / 2 - 1];
    world.shared.read(&mut buffer).unwrap().unwrap();
    world.shared.read(&mut [0]).unwrap().unwrap();
    assert_eq!(world.commands(), 0);
    world.shared.take_work(&mut VecDeque::new(), 0);
    world.shared.read(&mut [0]).unwrap().unwrap();
    assert_eq!(world.commands(), 1);
}

#[test]
fn bytes_before_an_abort_come_before_the_error() {
    let world = World::open(Protocol::Tcp);
    world.shared.handle_bytes(Bytes::from_static(b"last words"));
    let error = Error::new(ErrorKind::Aborted, Side::Upstream).with_code(Some(0x10f));
    let reason = CloseReason::Aborted(error);
    world.shared.handle_closed(reason);
    let mut buffer = [0; 64];
    assert_eq!(world.shared.read(&mut buffer).unwrap().unwrap(), 10);
    let error = world.shared.read(&mut buffer).unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let error: Error = error.downcast().unwrap();
    assert_eq!(
        (error.kind(), error.code()),
        (ErrorKind::Aborted, Some(0x10f))
    );
    assert!(world.shared.write(b"x").unwrap().is_err());
    assert_eq!(world.shared.shut(), Err(ShutdownError::Closing));
}

#[test]
fn half_closes_have_their_errors() {
    let world = World::open(Protocol::Tcp);
    assert_eq!(world.shared.shut(), Ok(()));
    assert_eq!(world.shared.shut(), Err(ShutdownError::AlreadyShut));
    world.shared.begin_close();
    assert_eq!(world.shared.shut(), Err(ShutdownError::Closing));
}

#[test]
fn a_writer_that_is_done_ends_its_direction_when_the_tunnel_is_open() {
    let world = World::new(Protocol::Tcp);
    world.shared.write(b"all of it").unwrap().unwrap();
    assert_eq!(world.shared.shut(), Err(ShutdownError::NotReady));
    world.shared.give_up_writing();
    assert!(world.shared.write(b"more").unwrap().is_err());
    assert!(!world.shared.take_work(&mut VecDeque::new(), 0).finish);
    world.shared.handle_opened(Opened::default());
    let work = world.shared.take_work(&mut VecDeque::new(), 100);
    assert_eq!((&*work.bytes, work.finish), (&b"all of it"[..], true));
}

#[test]
fn who_found_no_room_hears_once_when_there_is_some() {
    let world = World::open(Protocol::Tcp);
    let events = Events::new();
    world.shared.set_mode(Mode::Events(events.clone()));
    let next = || Some(events.try_recv()?.1.to_string_for_test());
    assert_eq!(next(), Some("opened"));
    let bytes = vec![0; SEND_BYTES_MAX];
    world.shared.try_write(&bytes).unwrap();
    world.shared.take_work(&mut VecDeque::new(), 1);
    assert_eq!(next(), None, "nobody asked");
    world.shared.try_write(b"x").unwrap();
    let full = world.shared.try_write(b"x").unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    assert_eq!(next(), None);
    world.shared.handle_bytes(Bytes::from_static(b"x"));
    world.shared.take_work(&mut VecDeque::new(), 100);
    world.shared.take_work(&mut VecDeque::new(), 100);
    assert_eq!(
        (next(), next(), next()),
        (Some("writable"), Some("data"), None)
    );
    // Nobody writes on a tunnel that is over.
    world.shared.try_write(&bytes).unwrap();
    world.shared.try_write(&bytes).unwrap_err();
    world.shared.handle_closed(CloseReason::Finished);
    world.shared.take_work(&mut VecDeque::new(), 100);
    assert_eq!((next(), next()), (Some("closed"), None));
}

#[test]
fn own_capsules_are_not_for_users() {
    for (protocol, kinds) in [
        (Protocol::Udp, &[0][..]),
        (Protocol::Tcp, &[0x2028_d7f2, 0x2028_d7f3]),
    ] {
        let world = World::open(protocol);
        for kind in kinds {
            let error = world.shared.send_capsule(Capsule::new(*kind, "x"));
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
        }
        let error = world
            .shared
            .send_capsule(Capsule::new(0x17, vec![0; 1 << 20]));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Limit);
        let error = world.shared.send_capsule(Capsule::new(u64::MAX, "x"));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn events_come_in_order_and_in_turns() {
    let (events, elsewhere) = (Events::new(), Events::new());
    let (first, second) = (World::new(Protocol::Udp), World::new(Protocol::Tcp));
    for world in [&first, &second] {
        world.shared.set_mode(Mode::Events(events.clone()));
        world.shared.handle_opened(Opened::default());
    }
    first.shared.handle_datagram(Datagram::new(7, "x"));
    second.shared.handle_bytes(Bytes::from_static(b"x"));
    second.shared.handle_end();
    second.shared.handle_closed(CloseReason::Finished);
    let [one, two] = [first.shared.id(), second.shared.id()];
    let mut seen = Vec::new();
    while let Some((id, event)) = events.try_recv() {
        seen.push((id, event.to_string_for_test()));
    }
    let expected = [
        (one, "opened"),
        (two, "opened"),
        (one, "datagram"),
        (two, "data"),
        (two, "eof"),
        (two, "closed"),
    ];
    assert_eq!(seen, expected);

    // What waits goes where the mode leads, once.
    first.shared.handle_datagram(Datagram::new(0, "y"));
    first.shared.set_mode(Mode::Events(elsewhere.clone()));
    assert!(events.try_recv().is_none());
    assert!(matches!(
        elsewhere.try_recv(),
        Some((_, Event::Datagram(_)))
    ));
    first.shared.handle_datagram(Datagram::new(0, "z"));
    first.shared.set_mode(Mode::Pull);
    assert!(elsewhere.try_recv().is_none());
    assert_eq!(first.shared.recv().unwrap().unwrap().payload, "z");
}

#[test]
fn a_worker_that_is_gone_closes_its_tunnels() {
    let world = World::open(Protocol::Udp);
    drop(Held(Arc::clone(&world.shared)));
    let reason = world.shared.close_reason().unwrap();
    assert_eq!(reason.error().unwrap().kind(), ErrorKind::Aborted);
}

#[test]
fn packets_wait_for_room_and_are_told_of_it() {
    let world = World::open(Protocol::Ip);
    let events = Events::new();
    world.shared.set_mode(Mode::Events(events.clone()));
    let packet = Bytes::from_static(b"a packet");
    for _ in 0..SEND_DATAGRAMS_MAX {
        world.shared.send_packet(&packet, true).unwrap().unwrap();
    }
    assert!(world.shared.packet_room().is_none());
    assert!(world.shared.send_packet(&packet, true).is_none());
    let told = |events: &Events| {
        events
            .try_recv()
            .map(|(_, event)| event.to_string_for_test())
    };
    assert_eq!(told(&events), Some("opened"));
    assert_eq!(told(&events), None);
    let mut datagrams = VecDeque::new();
    world.shared.take_work(&mut datagrams, 0);
    assert_eq!(datagrams.len(), SEND_DATAGRAMS_MAX);
    assert_eq!(told(&events), Some("writable"));
    assert_eq!(told(&events), None);
    world.shared.handle_datagram(packet.clone().into());
    world
        .shared
        .handle_ip_event(IpEvent::Routes(Vec::new()), None);
    // What was said goes ahead of packets that it may be about.
    assert_eq!(told(&events), Some("ip"));
    assert_eq!(told(&events), Some("packet"));
    let large = Bytes::from(vec![0; 65_528]);
    let error = world.shared.send_packet(&large, true).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    world.shared.begin_close();
    let error = world
        .shared
        .send_packet(&packet, true)
        .unwrap()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn an_order_that_nobody_carries_out_is_answered() {
    let world = World::open(Protocol::Ip);
    let shared = Arc::clone(&world.shared);
    let asked = std::thread::spawn(move || shared.say_blocking(Saying::Assign(Vec::new())));
    let command = world.commands.recv().unwrap();
    drop(command);
    let error = asked.join().unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error:#}");
    world.shared.handle_closed(CloseReason::Finished);
    drop(world.commands);
    let error = world
        .shared
        .say_blocking(Saying::Dns(Vec::new()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

impl Event {
    fn to_string_for_test(&self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Datagram(_) => "datagram",
            Self::Packet(_) => "packet",
            Self::Ip(_) => "ip",
            Self::Data(_) => "data",
            Self::Writable => "writable",
            Self::Capsule(_) => "capsule",
            Self::Eof => "eof",
            Self::Closed(_) => "closed",
        }
    }
}
