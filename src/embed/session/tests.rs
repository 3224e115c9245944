use super::*;

/// A client that takes what there is room for.
#[derive(Default)]
struct Client {
    room: usize,
    written: Vec<u8>,
    finished: bool,
    datagrams: Vec<(u64, Bytes)>,
    capsules: Vec<(u64, Vec<u8>)>,
    said: Vec<Saying>,
}

impl Engine for Client {
    fn send(&mut self, _: TunnelId, context: u64, payload: Bytes) -> Result<(), SendError> {
        self.datagrams.push((context, payload));
        Ok(())
    }

    fn send_capsule(&mut self, _: TunnelId, kind: u64, value: &[u8]) -> Result<(), SendError> {
        self.capsules.push((kind, value.to_vec()));
        Ok(())
    }

    fn say(&mut self, _: TunnelId, saying: Saying) -> Said {
        self.said.push(saying);
        Ok(Vec::new())
    }

    fn ip_info(&mut self, _: TunnelId) -> Option<IpInfo> {
        None
    }

    fn room(&mut self, _: TunnelId) -> usize {
        self.room
    }

    fn write(&mut self, _: TunnelId, data: Bytes) {
        assert!(!self.finished && data.len() <= self.room && !data.is_empty());
        self.room -= data.len();
        self.written.extend_from_slice(&data);
    }

    fn finish(&mut self, _: TunnelId) {
        assert!(
            !std::mem::replace(&mut self.finished, true),
            "an end comes once"
        );
    }
}

fn tcp() -> Outgoing {
    Outgoing::new(TunnelId::from_bits(1), Protocol::Tcp)
}

fn udp() -> Outgoing {
    Outgoing::new(TunnelId::from_bits(1), Protocol::Udp)
}

fn with<T>(
    outgoing: &mut Outgoing,
    client: &mut Client,
    act: impl FnOnce(&mut Actions<'_>) -> T,
) -> T {
    act(&mut Actions {
        outgoing,
        engine: client,
        handle: &|| unreachable!("no test asks for a handle"),
    })
}

#[test]
fn bytes_go_as_far_as_there_is_room_and_the_end_behind_them() {
    let (mut outgoing, mut client) = (tcp(), Client::default());
    client.room = 3;
    with(&mut outgoing, &mut client, |actions| {
        actions.send_data("he").unwrap();
        actions.send_data("llo").unwrap();
        actions.finish(", you").unwrap();
        assert_eq!(actions.send_data("more"), Err(SendError::Closed));
        assert_eq!(actions.finish(""), Err(SendError::Closed));
        assert_eq!(actions.send_capsule(42, b""), Err(SendError::Closed));
        assert_eq!(actions.room(), 0);
    });
    assert_eq!((&client.written[..], client.finished), (&b"hel"[..], false));
    for _ in 0..4 {
        client.room = 2;
        outgoing.flush(&mut client);
    }
    assert_eq!(client.written, b"hello, you");
    assert!(client.finished && outgoing.is_flushed());
}

#[test]
fn a_session_is_full_when_more_than_the_bound_waits() {
    let (mut outgoing, mut client) = (tcp(), Client::default());
    let room = with(&mut outgoing, &mut client, |actions| actions.room());
    assert_eq!(room, SESSION_WAITING_BYTES_MAX);
    let say = |outgoing: &mut Outgoing, client: &mut Client, len: usize| {
        with(outgoing, client, |actions| actions.send_data(vec![0; len])).unwrap();
    };
    say(&mut outgoing, &mut client, SESSION_WAITING_BYTES_MAX);
    assert!(!outgoing.is_full());
    assert_eq!(
        with(&mut outgoing, &mut client, |actions| actions.room()),
        0
    );
    assert!(outgoing.starved, "on_writable has to follow");
    // More is a mistake of the session, and kept all the same.
    say(&mut outgoing, &mut client, 1);
    assert!(outgoing.is_full());
    client.room = 1;
    outgoing.flush(&mut client);
    assert!(!outgoing.is_full());
    assert_eq!(outgoing.room(), 0);
    client.room = 10;
    outgoing.flush(&mut client);
    assert_eq!(outgoing.room(), 10);
}

#[test]
fn capsules_do_not_overtake_bytes() {
    let (mut outgoing, mut client) = (tcp(), Client::default());
    with(&mut outgoing, &mut client, |actions| {
        actions.send_capsule(42, b"first").unwrap();
        actions.send_data("bytes").unwrap();
        assert_eq!(actions.send_capsule(42, b""), Err(SendError::NoRoom));
    });
    client.room = 5;
    outgoing.flush(&mut client);
    with(&mut outgoing, &mut client, |actions| {
        actions.send_capsule(42, b"second")
    })
    .unwrap();
    assert_eq!(
        client.capsules,
        [(42, b"first".to_vec()), (42, b"second".to_vec())]
    );
}

#[test]
fn each_protocol_has_its_own() {
    let (mut outgoing, mut client) = (udp(), Client::default());
    with(&mut outgoing, &mut client, |actions| {
        assert_eq!(actions.protocol(), Protocol::Udp);
        assert_eq!(actions.send_data("x"), Err(SendError::Unsupported));
        assert_eq!(actions.finish("x"), Err(SendError::Unsupported));
        actions.send("a").unwrap();
        actions.send_on(2, "b").unwrap();
        actions.close();
        assert_eq!(actions.send("c"), Err(SendError::Closed));
    });
    assert_eq!(client.datagrams, [(0, "a".into()), (2, "b".into())]);
    let (mut outgoing, mut client) = (tcp(), Client::default());
    let sent = with(&mut outgoing, &mut client, |actions| actions.send("a"));
    assert_eq!(sent, Err(SendError::Unsupported));
    assert_eq!(client.datagrams, []);
}

#[test]
fn an_orderly_end_waits_for_the_bytes_and_an_abrupt_one_overtakes_it() {
    let (mut outgoing, mut client) = (tcp(), Client::default());
    with(&mut outgoing, &mut client, |actions| {
        actions.send_data("hello").unwrap();
        actions.close();
        assert_eq!(actions.send_data("more"), Err(SendError::Closed));
    });
    assert_eq!(outgoing.ending, Some(Ending::Orderly));
    assert!(!outgoing.end(&mut client) && !client.finished);
    client.room = 5;
    assert!(outgoing.end(&mut client) && client.finished);
    assert_eq!(client.written, b"hello");
    with(&mut outgoing, &mut client, |actions| actions.close_with(7));
    with(&mut outgoing, &mut client, |actions| actions.close());
    assert_eq!(outgoing.ending, Some(Ending::Abrupt(7)));
}

#[test]
fn a_tunnel_that_is_gone_takes_nothing() {
    let (mut outgoing, mut client) = (tcp(), Client::default());
    with(&mut outgoing, &mut client, |actions| {
        actions.send_data("hello")
    })
    .unwrap();
    outgoing.cut();
    client.room = 100;
    outgoing.flush(&mut client);
    with(&mut outgoing, &mut client, |actions| {
        assert_eq!(actions.send_data("more"), Err(SendError::Closed));
        assert_eq!(actions.send_capsule(42, b""), Err(SendError::Closed));
        assert_eq!(actions.room(), 0);
    });
    assert!(client.written.is_empty() && !client.finished && !outgoing.is_full());
}

#[test]
fn a_session_that_does_not_care_refuses_requests() {
    struct Silent;
    impl Session for Silent {}

    let mut outgoing = Outgoing::new(TunnelId::from_bits(1), Protocol::Ip);
    let mut client = Client::default();
    let wish = RequestedAddress {
        request_id: 7,
        prefix: "10.0.0.0/24".parse().unwrap(),
    };
    with(&mut outgoing, &mut client, |actions| {
        Silent.on_ip_event(actions, IpEvent::Requested(vec![wish]));
        Silent.on_ip_event(actions, IpEvent::Routes(Vec::new()));
        let sent = actions.send("no packet");
        assert!(matches!(sent, Err(SendError::NotAPacket(_))), "{sent:?}");
        assert_eq!(actions.send_data("bytes"), Err(SendError::Unsupported));
    });
    assert_eq!(client.said, [Saying::Assign(vec![wish.refusal()])]);
    let said = with(&mut udp(), &mut client, |actions| {
        actions.advertise_routes(Vec::new())
    });
    assert_eq!(said, Err(SendError::Unsupported));
}
