//! Unidirectional streams (RFC 9114 section 6.2, RFC 9204 section 4.2).

use super::*;

#[test]
fn opens_control_and_qpack_streams_first() {
    // spec: 9114-3.2-b, 9114-6.2-c, 9114-6.2.1-a, 9114-7.2.4.1-a, 9114-7.2.4.2-a, 9204-4.2-c
    // spec: 9297-2.1.1-a, 9297-2.1.1-g, rc-firefox-b
    let mut script = Script::server();
    let sent: Vec<Vec<u8>> = (0..3)
        .map(|index| script.sent(peer_uni(Role::Client, index)))
        .collect();
    assert_eq!(
        sent,
        [
            hex("00 04 0c 06 80 00 40 00 08 01 33 01 40 40 00"),
            hex("02"),
            hex("03")
        ]
    );

    let mut script = Script::client();
    let control = script.sent(peer_uni(Role::Server, 0));
    assert_eq!(control, hex("00 04 0a 06 80 00 40 00 33 01 40 40 00"));
}

#[test]
fn waits_for_streams_and_credit() {
    let mut t = MemoryTransport::new(Side::Server);
    t.set_open_max(Dir::Uni, 0);
    t.set_send_window(4);
    let mut machine = Connection::new(Role::Server, Config::default());
    machine.start(&mut t).unwrap();
    t.set_open_max(Dir::Uni, 2);
    t.set_open_max(Dir::Uni, 3);
    let control = peer_uni(Role::Client, 0);
    let mut sent = Vec::new();
    while let Some(event) = t.poll_event() {
        machine.handle_stream_event(&mut t, event).unwrap();
        let piece = t.take_sent(control, 3);
        sent.extend(piece);
    }
    sent.extend(t.take_sent(control, usize::MAX));
    assert_eq!(sent, hex("00 04 0c 06 80 00 40 00 08 01 33 01 40 40 00"));
    assert_eq!(t.take_sent(peer_uni(Role::Client, 2), 9), hex("03"));
}

#[test]
fn unknown_streams_are_stopped() {
    // spec: 9114-6.2-d, 9114-9-a
    for bytes in ["21", "40 41 01 02 03", "ff ff ff ff ff ff ff ff", "54 00"] {
        let mut script = Script::server();
        let id = peer_uni(Role::Server, 0);
        assert_eq!(script.feed(id, bytes).unwrap(), []);
        assert_eq!(script.t.sent_stop(id), Some(Code::H3_STREAM_CREATION_ERROR));
        assert_eq!(
            script.feed(id, "00 04 00").unwrap(),
            [],
            "what follows is not read"
        );
    }
}

#[test]
fn too_many_unknown_streams_are_a_load() {
    // spec: 9114-10.5-a
    let mut script = Script::server();
    for index in 0..u64::from(Config::UNKNOWN_STREAMS_MAX) {
        script.feed(peer_uni(Role::Server, index), "21").unwrap();
    }
    let next = peer_uni(Role::Server, Config::UNKNOWN_STREAMS_MAX.into());
    assert_eq!(script.error(next, "21"), Code::H3_EXCESSIVE_LOAD);
}

#[test]
fn a_stream_may_end_before_its_type() {
    // spec: 9114-6.2-e
    for bytes in ["", "40", "c0 00 00"] {
        let mut script = Script::server();
        assert_eq!(
            script.feed_fin(peer_uni(Role::Server, 0), bytes).unwrap(),
            []
        );
        script.t.inject(peer_uni(Role::Server, 1), &hex(bytes));
        script
            .t
            .inject_reset(peer_uni(Role::Server, 1), Code::H3_NO_ERROR);
        assert_eq!(script.run().unwrap(), []);
    }
}

#[test]
fn a_type_may_arrive_in_pieces() {
    let mut script = Script::server();
    let id = peer_uni(Role::Server, 0);
    for piece in ["c0 00", "00 00 00 00 00", "00", "04", "00"] {
        assert!(script.machine.peer_settings().is_none());
        script.feed(id, piece).unwrap();
    }
    assert!(script.machine.peer_settings().is_some());
}

#[test]
fn critical_streams_come_once() {
    // spec: 9114-6.2.1-c, 9204-4.2-a
    for ty in ["00", "02", "03"] {
        let mut script = Script::server();
        script.feed(peer_uni(Role::Server, 0), ty).unwrap();
        let error = script.error(peer_uni(Role::Server, 1), ty);
        assert_eq!(error, Code::H3_STREAM_CREATION_ERROR, "type {ty}");
    }
}

#[test]
fn critical_streams_stay_open() {
    // spec: 9114-6.2.1-d, 9204-4.2-b
    for bytes in [
        "00",
        "00 04 00",
        "00 04 02 06",
        "02",
        "02 20",
        "03",
        "03 44",
    ] {
        let mut script = Script::server();
        let error = script
            .feed_fin(peer_uni(Role::Server, 0), bytes)
            .unwrap_err();
        assert_eq!(error.code, Code::H3_CLOSED_CRITICAL_STREAM, "{bytes}");

        let mut script = Script::server();
        script.feed(peer_uni(Role::Server, 0), bytes).unwrap();
        script
            .t
            .inject_reset(peer_uni(Role::Server, 0), Code::H3_NO_ERROR);
        assert_eq!(
            script.run().unwrap_err().code,
            Code::H3_CLOSED_CRITICAL_STREAM,
            "{bytes}"
        );
    }
    for index in 0..3 {
        let mut script = Script::client();
        script
            .t
            .inject_stop(peer_uni(Role::Server, index), Code::H3_NO_ERROR);
        assert_eq!(
            script.run().unwrap_err().code,
            Code::H3_CLOSED_CRITICAL_STREAM
        );
    }
}

#[test]
fn push_streams_are_errors() {
    // spec: 9114-6.2.2-a
    let mut server = Script::server();
    let error = server.error(peer_uni(Role::Server, 0), "01 00");
    assert_eq!(error, Code::H3_STREAM_CREATION_ERROR);
    // spec: 9114-6.2.2-b
    let mut client = Script::client();
    assert_eq!(
        client.error(peer_uni(Role::Client, 0), "01 00"),
        Code::H3_ID_ERROR
    );
}

#[test]
fn servers_open_no_bidirectional_streams() {
    // spec: 9114-6.1-b
    let mut client = Script::client();
    let id = StreamId::new(Side::Server, Dir::Bi, 0);
    assert_eq!(client.error(id, "21 00"), Code::H3_STREAM_CREATION_ERROR);
}

#[test]
fn qpack_streams_are_checked() {
    // spec: 9204-4.2-d, 9204-4.3-a, 9204-4.4-a
    let mut script = Script::server();
    script.feed(peer_uni(Role::Server, 0), "02 20 20").unwrap();
    script.feed(peer_uni(Role::Server, 1), "03 44").unwrap();
    script.feed(peer_uni(Role::Server, 1), "7f").unwrap();
    script.feed(peer_uni(Role::Server, 1), "05").unwrap();
    assert_eq!(
        script.error(peer_uni(Role::Server, 0), "21"),
        Code::QPACK_ENCODER_STREAM_ERROR
    );
    for bytes in ["03 84", "03 01", "03 00"] {
        let mut script = Script::server();
        let error = script.error(peer_uni(Role::Server, 0), bytes);
        assert_eq!(error, Code::QPACK_DECODER_STREAM_ERROR, "{bytes}");
    }
}

#[test]
fn endless_instructions_are_a_load() {
    // spec: 9114-10.5-a
    let mut script = Script::server();
    let id = peer_uni(Role::Server, 0);
    script.feed(id, "03").unwrap();
    let cancellations = vec![0x44; 64 * 1024];
    let error = (0..32).find_map(|_| {
        script.t.inject(id, &cancellations);
        script.run().err()
    });
    assert_eq!(error.unwrap().code, Code::H3_EXCESSIVE_LOAD);
}
