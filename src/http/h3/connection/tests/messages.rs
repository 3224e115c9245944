//! Heads of requests and responses (RFC 9114 sections 4.1 to 4.4).

use super::*;
use crate::http::h3::event::{Abort, RequestError, RespondError, SendData};

fn head_of(events: &[Event]) -> &RequestHead {
    let [Event::Request { head, .. }] = events else {
        panic!("{events:?}");
    };
    head
}

#[test]
fn a_request_may_come_before_settings() {
    // spec: 9114-7.2.4.2-a; traps: h2o #3040, #3200
    let mut script = Script::server();
    let events = script.feed(request(0), CONNECT_UDP).unwrap();
    let head = head_of(&events);
    assert_eq!(head.protocol.as_deref(), Some("connect-udp"));
    assert_eq!(head.authority.as_deref(), Some("example.org"));
}

#[test]
fn a_request_arrives_in_any_pieces() {
    for count in 1..80 {
        let mut script = Script::server();
        let mut events = Vec::new();
        for piece in hex(&format!("21 02 aa bb {CONNECT_UDP}")).chunks(count) {
            script.t.inject(request(0), piece);
            events.extend(script.run().unwrap());
        }
        head_of(&events);
    }
}

#[test]
fn an_unfinished_request_is_incomplete() {
    // spec: 9114-4.1-d
    for bytes in ["", "21 00"] {
        let mut script = Script::server();
        let events = script.feed_fin(request(0), bytes).unwrap();
        assert_eq!(
            events,
            [Event::Aborted {
                id: request(0),
                reason: Abort::Incomplete
            }]
        );
        assert_eq!(
            script.t.sent_reset(request(0)),
            Some(Code::H3_REQUEST_INCOMPLETE)
        );
        assert!(script.machine.is_idle());
    }
    // spec: 9114-7.1-b
    for bytes in ["01", "40", "01 17 00 00", "21 05 00"] {
        let mut script = Script::server();
        let error = script.feed_fin(request(0), bytes).unwrap_err();
        assert_eq!(error.code, Code::H3_FRAME_ERROR, "{bytes}");
    }
}

#[test]
fn a_reset_inside_the_head_is_no_error() {
    // spec: 9114-7.1-b
    let mut script = Script::server();
    script.feed(request(0), "01 17 00 00").unwrap();
    script
        .t
        .inject_reset(request(0), Code::H3_REQUEST_CANCELLED);
    let code = Code::H3_REQUEST_CANCELLED;
    assert_eq!(
        script.run().unwrap(),
        [Event::Reset {
            id: request(0),
            code
        }]
    );
    assert_eq!(script.t.sent_reset(request(0)), Some(code));
    assert!(script.machine.is_idle());
}

#[test]
fn frames_have_their_place() {
    // spec: 9114-4.1-b, 9114-7.2-a, 9114-7.2.5-a, 9114-7.2.8-b
    for frame in [
        "00 01 61", "00 00", "03 01 00", "04 00", "05 00", "07 01 00", "0d 01 00", "02 00", "08 00",
    ] {
        let mut script = Script::server();
        assert_eq!(
            script.error(request(0), frame),
            Code::H3_FRAME_UNEXPECTED,
            "{frame}"
        );
    }
    for (frame, code) in [
        ("00 01 61", Code::H3_FRAME_UNEXPECTED),
        ("05 00", Code::H3_ID_ERROR),
        ("04 00", Code::H3_FRAME_UNEXPECTED),
    ] {
        let mut script = Script::requesting_client();
        assert_eq!(script.error(request(0), frame), code, "{frame}");
    }
}

#[test]
fn malformed_requests_end_their_stream_only() {
    // spec: 9114-4.1.2-a, 9114-4.4-a, 9114-4.3-a, 9220-3-d
    for bytes in [
        // Classic CONNECT with :scheme and :path; CONNECT without :authority; GET without :path.
        "01 08 00 00 cf d7 c1 50 01 61",
        "01 03 00 00 cf",
        "01 07 00 00 d1 d7 50 01 61",
    ] {
        let mut script = Script::server();
        let events = script.feed(request(0), bytes).unwrap();
        let [
            Event::Aborted {
                reason: Abort::Malformed(_),
                ..
            },
        ] = events.as_slice()
        else {
            panic!("{bytes}: {events:?}");
        };
        assert_eq!(script.aborted(0), Some(Code::H3_MESSAGE_ERROR));
        head_of(&script.feed(request(1), CONNECT_UDP).unwrap());
        assert_eq!(script.machine.request_count(), 1);
    }
}

#[test]
fn undecodable_heads_end_the_connection() {
    // spec: 9204-3.1-a, 9204-4.5.1-a, 9204-7.4-a
    for section in ["01 00 d9", "00 80 d9", "00 00 80", "00 00 ff 24", "00"] {
        let bytes = format!("01 {:02x} {section}", section.split(' ').count());
        let mut script = Script::server();
        assert_eq!(
            script.error(request(0), &bytes),
            Code::QPACK_DECOMPRESSION_FAILED,
            "{section}"
        );
    }
}

#[test]
fn a_head_too_large_gets_431() {
    // spec: 9114-4.2.2-a, 9114-4.2.2-c, 9114-4.1-e
    let config = Config {
        field_section_size_max: 100,
        ..Config::default()
    };
    let mut script = Script::new(Role::Server, config.clone());
    let events = script.feed(request(0), CONNECT_UDP).unwrap();
    let [
        Event::Aborted {
            reason: Abort::TooLarge(_),
            ..
        },
    ] = events.as_slice()
    else {
        panic!("{events:?}");
    };
    assert_eq!(
        script.sent(request(0)),
        hex("01 08 00 00 5f 09 03 34 33 31")
    );
    assert!(script.t.sent_fin(request(0)));
    assert_eq!(script.t.sent_stop(request(0)), Some(Code::H3_NO_ERROR));
    assert!(script.machine.is_idle());

    let config = Config {
        headers_len_max: 50,
        ..config
    };
    let mut script = Script::new(Role::Server, config);
    assert_eq!(
        script.error(request(0), CONNECT_UDP),
        Code::H3_EXCESSIVE_LOAD
    );
}

#[test]
fn an_early_answer_ends_both_directions() {
    // spec: 9114-4.1-e
    let mut script = Script::server();
    script.feed(request(0), CONNECT_UDP).unwrap();
    script.respond(0, 404, true);
    assert_eq!(script.sent(request(0)), hex(NOT_FOUND));
    assert!(script.t.sent_fin(request(0)));
    assert_eq!(script.t.sent_stop(request(0)), Some(Code::H3_NO_ERROR));
    assert!(script.machine.is_idle());
    let head = ResponseHead::new(::http::StatusCode::OK);
    let again = script
        .machine
        .respond(&mut script.t, request(0), &head, false);
    assert_eq!(again, Err(RespondError::Gone));
}

#[test]
fn one_final_response() {
    // spec: 9114-4.1-a, 9114-4.1-g
    let mut script = Script::server();
    script.feed(request(0), CLASSIC_CONNECT).unwrap();
    script.respond(0, 103, false);
    script.respond(0, 200, false);
    assert_eq!(script.sent(request(0)), hex(&format!("{EARLY_HINTS} {OK}")));
    let head = ResponseHead::new(::http::StatusCode::OK);
    let again = script
        .machine
        .respond(&mut script.t, request(0), &head, false);
    assert_eq!(again, Err(RespondError::Answered));
}

#[test]
fn trailers_come_once_and_not_on_connect() {
    // spec: 9114-4.1-b
    let mut script = Script::server();
    script
        .feed(request(0), &format!("{GET} 00 01 61 {TRAILERS} 21 00"))
        .unwrap();
    assert_eq!(
        script.recv_all(0).unwrap(),
        (b"a".to_vec(), RecvData::Blocked)
    );
    script.t.inject_fin(request(0));
    assert_eq!(
        script.recv_all(0).unwrap(),
        (Vec::new(), RecvData::Finished)
    );
    for frame in [TRAILERS, "00 01 61", "00 00"] {
        let mut script = Script::server();
        script
            .feed(request(0), &format!("{GET} {TRAILERS} {frame}"))
            .unwrap();
        assert_eq!(
            script.recv_all(0).unwrap_err().code,
            Code::H3_FRAME_UNEXPECTED,
            "{frame}"
        );
    }
    // spec: 9114-4.4-c
    for head in [CONNECT_UDP, CLASSIC_CONNECT] {
        for frame in [TRAILERS, "04 00", "07 01 00", "05 00", "0d 01 00"] {
            let mut script = Script::tunnel(head);
            script.feed(request(0), frame).unwrap();
            assert_eq!(
                script.recv_all(0).unwrap_err().code,
                Code::H3_FRAME_UNEXPECTED,
                "{frame}"
            );
        }
    }
}

#[test]
fn pseudo_headers_in_trailers_are_malformed() {
    // spec: 9114-4.3-a, 9114-4.1-a
    let mut script = Script::server();
    script.feed(request(0), &format!("{GET} {GET}")).unwrap();
    assert_eq!(script.recv_all(0).unwrap().1, RecvData::Gone);
    assert!(matches!(
        script.run().unwrap().as_slice(),
        [Event::Aborted { .. }]
    ));
    assert_eq!(script.aborted(0), Some(Code::H3_MESSAGE_ERROR));
}

#[test]
fn interim_responses_are_skipped() {
    // spec: 9114-4.1-g
    let mut script = Script::requesting_client();
    assert_eq!(script.feed(request(0), EARLY_HINTS).unwrap(), []);
    let events = script
        .feed(request(0), &format!("{EARLY_HINTS} {OK}"))
        .unwrap();
    let [Event::Response { head, .. }] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!(head.status, 200);
    // spec: 9114-4.4-c
    script.feed(request(0), OK).unwrap();
    assert_eq!(
        script.recv_all(0).unwrap_err().code,
        Code::H3_FRAME_UNEXPECTED
    );
}

#[test]
fn endless_interim_responses_are_a_load() {
    // spec: 9114-10.5-a
    let mut script = Script::requesting_client();
    let hints = hex(EARLY_HINTS).repeat(1000);
    let error = (0..100).find_map(|_| {
        script.t.inject(request(0), &hints);
        script.run().err()
    });
    assert_eq!(error.unwrap().code, Code::H3_EXCESSIVE_LOAD);
}

#[test]
fn malformed_responses_end_their_stream() {
    // spec: 9114-4.1.2-a, 9297-3.2-f, 9297-3.2-h
    for bytes in [
        "01 03 00 00 cf",
        "01 02 00 00",
        // 101; 200 with content-length 0 (static 4) on a capsule stream.
        "01 08 00 00 5f 09 03 31 30 31",
        "01 04 00 00 d9 c4",
    ] {
        let mut script = Script::requesting_client();
        let events = script.feed(request(0), bytes).unwrap();
        let [
            Event::Aborted {
                reason: Abort::Malformed(_),
                ..
            },
        ] = events.as_slice()
        else {
            panic!("{bytes}: {events:?}");
        };
        assert_eq!(script.aborted(0), Some(Code::H3_MESSAGE_ERROR));
    }
    let mut script = Script::requesting_client();
    let events = script.feed_fin(request(0), EARLY_HINTS).unwrap();
    assert_eq!(
        events,
        [Event::Aborted {
            id: request(0),
            reason: Abort::Incomplete
        }]
    );
    assert_eq!(
        script.t.sent_reset(request(0)),
        Some(Code::H3_MESSAGE_ERROR)
    );
}

#[test]
fn a_refused_tunnel_has_content_and_trailers() {
    let mut script = Script::requesting_client();
    let events = script
        .feed_fin(request(0), &format!("{NOT_FOUND} 00 02 6e 6f {TRAILERS}"))
        .unwrap();
    assert!(matches!(events.first(), Some(Event::Response { .. })));
    assert_eq!(
        script.recv_all(0).unwrap(),
        (b"no".to_vec(), RecvData::Finished)
    );
    script.machine.finish(&mut script.t, request(0));
    assert!(script.machine.is_idle());
}

#[test]
fn a_complete_response_survives_stop_sending() {
    // spec: 9114-4.1-f, 9114-8-a
    let mut script = Script::requesting_client();
    for code in [Code::H3_NO_ERROR, Code(0x1234_5678)] {
        script.t.inject_stop(request(0), code);
    }
    let code = Code::H3_NO_ERROR;
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
    let events = script.feed_fin(request(0), NOT_FOUND).unwrap();
    assert!(matches!(events.first(), Some(Event::Response { .. })));
    assert_eq!(
        script.recv_all(0).unwrap(),
        (Vec::new(), RecvData::Finished)
    );
    assert!(script.machine.is_idle());
}

#[test]
fn a_rejected_request_is_over() {
    let mut script = Script::requesting_client();
    let code = Code::H3_REQUEST_REJECTED;
    script.t.inject_reset(request(0), code);
    script.t.inject_stop(request(0), code);
    assert_eq!(
        script.run().unwrap(),
        [Event::Reset {
            id: request(0),
            code
        }]
    );
    assert!(script.machine.is_idle());
}

#[test]
fn a_client_that_reads_no_answer_gets_none() {
    let mut script = Script::server();
    script.feed(request(0), "01 40").unwrap();
    script.t.inject_stop(request(0), Code::H3_REQUEST_CANCELLED);
    assert_eq!(script.run().unwrap(), []);
    let rest = CONNECT_UDP.trim_start_matches("01 40");
    assert_eq!(script.feed(request(0), rest).unwrap(), []);
    assert!(script.machine.is_idle());
}

#[test]
fn streams_run_out_and_come_back() {
    let mut script = Script::ready_client();
    script.t.set_open_max(Dir::Bi, 0);
    assert_eq!(script.run().unwrap(), [], "nobody waits");
    let error = script
        .machine
        .request(&mut script.t, &connect_udp())
        .unwrap_err();
    assert_eq!(error, RequestError::StreamsExhausted);
    script.t.set_open_max(Dir::Bi, 1);
    assert_eq!(script.run().unwrap(), [Event::StreamsAvailable]);
    script
        .machine
        .request(&mut script.t, &connect_udp())
        .unwrap();
}
