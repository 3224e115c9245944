//! The data stream of a tunnel: back-pressure, ends, resets, skipping (RFC 9114 section 4.4).

use super::*;
use crate::http::h3::event::SendData;

#[test]
fn data_comes_out_without_frames() {
    // spec: 9114-7.2.8-a, 9114-4.4-c
    let mut script = Script::tunnel(CLASSIC_CONNECT);
    let frames = "00 03 61 62 63 21 02 aa bb 00 00 40 5f 00 00 40 02 64 65";
    assert_eq!(
        script.feed(request(0), frames).unwrap(),
        [Event::Readable { id: request(0) }]
    );
    assert_eq!(
        script.recv_all(0).unwrap(),
        (b"abcde".to_vec(), RecvData::Blocked)
    );
    // spec: 9114-4.4-d
    script.t.inject_fin(request(0));
    assert_eq!(
        script.recv_all(0).unwrap(),
        (Vec::new(), RecvData::Finished)
    );
    assert_eq!(script.recv_all(0).unwrap(), (Vec::new(), RecvData::Gone));
    let written = script.machine.send_data(&mut script.t, request(0), b"late");
    assert_eq!(written, SendData::Written, "half-closed is legal");
    script.machine.finish(&mut script.t, request(0));
    assert_eq!(
        script.sent(request(0)),
        hex("01 03 00 00 d9 00 04 6c 61 74 65")
    );
    assert!(script.t.sent_fin(request(0)) && script.machine.is_idle());
}

#[test]
fn nothing_is_read_without_room() {
    let mut script = Script::tunnel(CLASSIC_CONNECT);
    script.feed(request(0), "00 06 61 62 63 64 65 66").unwrap();
    assert_eq!(script.t.unread_bytes(), 8);
    let mut recv = |bytes_max| {
        script
            .machine
            .recv_data(&mut script.t, request(0), bytes_max)
            .unwrap()
    };
    assert_eq!(recv(0), RecvData::Blocked);
    assert_eq!(
        recv(4),
        RecvData::Data(b"ab"[..].into()),
        "two bytes went to the header"
    );
    assert_eq!(recv(4), RecvData::Data(b"cdef"[..].into()));
    assert_eq!(script.t.unread_bytes(), 0);
}

#[test]
fn data_behind_the_head_is_not_lost() {
    let mut script = Script::server();
    script
        .feed_fin(
            request(0),
            &format!("{CONNECT_UDP} 00 03 61 62 63 00 01 64"),
        )
        .unwrap();
    let mut data = Vec::new();
    let end = loop {
        match script
            .machine
            .recv_data(&mut script.t, request(0), 2)
            .unwrap()
        {
            RecvData::Data(piece) => {
                assert!(piece.len() <= 2);
                data.extend_from_slice(&piece);
            }
            end
            @ (RecvData::Blocked | RecvData::Finished | RecvData::Reset(_) | RecvData::Gone) => {
                break end;
            }
        }
    };
    assert_eq!((data.as_slice(), end), (&b"abcd"[..], RecvData::Finished));
}

#[test]
fn an_end_inside_a_frame_is_an_error() {
    // spec: 9114-7.1-b
    for bytes in ["00", "00 02 61", "21 01", "40"] {
        let mut script = Script::tunnel(CLASSIC_CONNECT);
        script.feed_fin(request(0), bytes).unwrap();
        assert_eq!(
            script.recv_all(0).unwrap_err().code,
            Code::H3_FRAME_ERROR,
            "{bytes}"
        );
    }
}

#[test]
fn a_reset_overtakes_data() {
    // spec: 9114-4.4-g, 9114-7.1-b
    let mut script = Script::tunnel(CLASSIC_CONNECT);
    script.feed(request(0), "00 05 61 62").unwrap();
    script.t.inject_reset(request(0), Code::H3_CONNECT_ERROR);
    let code = Code::H3_CONNECT_ERROR;
    assert_eq!(
        script.run().unwrap(),
        [Event::Reset {
            id: request(0),
            code
        }]
    );
    assert_eq!(script.recv_all(0).unwrap().1, RecvData::Gone);
    script.machine.reset(&mut script.t, request(0), code);
    assert_eq!(script.t.sent_reset(request(0)), Some(code));
    assert_eq!(script.t.sent_stop(request(0)), None, "nothing to stop");
    assert!(script.machine.is_idle());
}

#[test]
fn a_reset_is_also_found_by_reading() {
    let mut script = Script::tunnel(CLASSIC_CONNECT);
    script.t.inject_reset(request(0), Code::H3_CONNECT_ERROR);
    assert_eq!(
        script.recv_all(0).unwrap().1,
        RecvData::Reset(Code::H3_CONNECT_ERROR)
    );
    assert_eq!(script.run().unwrap(), [], "told once");
}

#[test]
fn stop_sending_resets_our_side() {
    // spec: 9114-4.4-g
    let mut script = Script::tunnel(CLASSIC_CONNECT);
    let code = Code::H3_REQUEST_CANCELLED;
    script.t.inject_stop(request(0), code);
    assert_eq!(
        script.run().unwrap(),
        [Event::Stopped {
            id: request(0),
            code
        }]
    );
    assert_eq!(script.t.sent_reset(request(0)), Some(code));
    assert_eq!(
        script.machine.send_data(&mut script.t, request(0), b"x"),
        SendData::Gone
    );
    script.machine.reset(&mut script.t, request(0), code);
    assert_eq!(script.aborted(0), Some(code));
}

#[test]
fn resetting_abandons_both_directions() {
    // spec: 9114-4.1.1-a, 9220-3-b, 9114-4.4-f
    let mut script = Script::tunnel(CLASSIC_CONNECT);
    script
        .machine
        .reset(&mut script.t, request(0), Code::H3_CONNECT_ERROR);
    assert_eq!(script.aborted(0), Some(Code::H3_CONNECT_ERROR));
    assert!(script.machine.is_idle());
    assert_eq!(script.feed(request(0), "00 01 61").unwrap(), []);
}

#[test]
fn writes_wait_for_credit_within_the_limit() {
    let config = Config {
        pending_write_bytes_max: 16,
        ..Config::default()
    };
    let mut script = Script::new(Role::Server, config);
    script.feed(request(0), CLASSIC_CONNECT).unwrap();
    script.respond(0, 200, false);
    let mut sent = script.sent(request(0));
    script.t.set_send_window(4);
    let mut send = |data: &[u8]| script.machine.send_data(&mut script.t, request(0), data);
    assert_eq!(
        send(b"0123456789"),
        SendData::Written,
        "two bytes leave, eight wait"
    );
    assert_eq!(send(b"abcdefgh"), SendData::Written, "as much as may wait");
    assert_eq!(send(b"x"), SendData::Blocked);
    script.machine.finish(&mut script.t, request(0));
    assert!(
        !script.t.sent_fin(request(0)),
        "the end waits behind the data"
    );
    let mut events = Vec::new();
    loop {
        let piece = script.t.take_sent(request(0), 3);
        if piece.is_empty() {
            break;
        }
        sent.extend(piece);
        events.extend(script.run().unwrap());
    }
    let mut wanted = hex("01 03 00 00 d9 00 0a");
    wanted.extend(b"0123456789\x00\x08abcdefgh");
    assert_eq!(sent, wanted);
    assert_eq!(events, [Event::Writable { id: request(0) }]);
    assert!(script.t.sent_fin(request(0)));
}

#[test]
fn a_large_frame_is_taken_when_nothing_waits() {
    let config = Config {
        pending_write_bytes_max: 16,
        ..Config::default()
    };
    let mut script = Script::new(Role::Server, config);
    script.feed(request(0), CLASSIC_CONNECT).unwrap();
    script.respond(0, 200, false);
    script.sent(request(0));
    script.t.set_send_window(1);
    let large = [7; 1000];
    assert_eq!(
        script.machine.send_data(&mut script.t, request(0), &large),
        SendData::Written
    );
    assert_eq!(
        script.machine.send_data(&mut script.t, request(0), &large),
        SendData::Blocked
    );
    assert_eq!(
        script.machine.send_data(&mut script.t, request(0), &[]),
        SendData::Written
    );
}

#[test]
fn skipping_gives_credit_back_until_it_is_a_load() {
    // spec: 9114-10.5-a
    let mut script = Script::tunnel(CLASSIC_CONNECT);
    script
        .feed(request(0), "21 ff ff ff ff ff ff ff ff")
        .unwrap();
    let junk = vec![0; 16 * 1024];
    let error = (0..8).find_map(|_| {
        script.t.inject(request(0), &junk);
        let error = script.recv_all(0).err();
        assert_eq!(script.t.unread_bytes(), 0);
        error
    });
    assert_eq!(error.unwrap().code, Code::H3_EXCESSIVE_LOAD);
}

#[test]
fn content_pays_for_reserved_frames() {
    // spec: 9114-7.2.8-a
    let mut script = Script::tunnel(CLASSIC_CONNECT);
    let mut bytes = hex("00 40 64");
    bytes.extend([b'd'; 100]);
    bytes.extend(hex("21 40 50"));
    bytes.extend([0; 80]);
    for _ in 0..20_000 {
        script.t.inject(request(0), &bytes);
        assert_eq!(script.recv_all(0).unwrap().0.len(), 100);
    }
    // One octet in a frame with the longest header is content as well.
    let bytes = hex("c0 00 00 00 00 00 00 00 c0 00 00 00 00 00 00 01 61");
    for _ in 0..20_000 {
        script.t.inject(request(0), &bytes);
        assert_eq!(script.recv_all(0).unwrap().0, b"a");
    }
}

#[test]
fn a_frame_of_any_length_streams() {
    // traps of section 9: DATA frames can be 2^62-1 long
    let mut script = Script::tunnel(CLASSIC_CONNECT);
    script
        .feed(request(0), "00 ff ff ff ff ff ff ff ff")
        .unwrap();
    for _ in 0..100 {
        script.t.inject(request(0), &[b'x'; 1000]);
        assert_eq!(script.recv_all(0).unwrap().0.len(), 1000);
    }
}
