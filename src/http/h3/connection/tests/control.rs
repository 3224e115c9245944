//! Frames on the control stream (RFC 9114 section 7.2).

use super::*;
use crate::http::h3::event::RequestError;

#[test]
fn the_first_frame_is_settings() {
    // spec: 9114-6.2.1-b
    for frame in [
        "21 00",
        "40 5f 00",
        "07 01 00",
        "0d 01 00",
        "00 01 00",
        "01 03 00 00 d9",
        "80 0f 07 00 01 00",
    ] {
        let mut script = Script::server();
        let error = script.error(peer_uni(Role::Server, 0), &format!("00 {frame}"));
        assert_eq!(error, Code::H3_MISSING_SETTINGS, "{frame}");
    }
}

#[test]
fn settings_reach_the_owner_once() {
    // spec: 9114-7.2.4-a
    let mut script = Script::client();
    let id = peer_uni(Role::Client, 0);
    let events = script.feed(id, SERVER_CONTROL).unwrap();
    let [Event::Settings(settings)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert!(settings.extended_connect && settings.datagrams);
    assert_eq!(settings.max_field_section_size, Some(16384));
    assert_eq!(script.error(id, "04 00"), Code::H3_FRAME_UNEXPECTED);
}

#[test]
fn bad_settings_have_their_codes() {
    // spec: 9114-7.2.4-b, 9114-7.2.4.1-b, 9297-2.1.1-b, 9220-3-c, 9114-7.1-a
    for (frame, code) in [
        ("04 02 02 00", Code::H3_SETTINGS_ERROR),
        ("04 02 33 02", Code::H3_SETTINGS_ERROR),
        ("04 02 08 02", Code::H3_SETTINGS_ERROR),
        ("04 04 33 01 33 01", Code::H3_SETTINGS_ERROR),
        ("04 02 06 40", Code::H3_FRAME_ERROR),
        ("04 01 33", Code::H3_FRAME_ERROR),
    ] {
        let mut script = Script::client();
        let error = script.error(peer_uni(Role::Client, 0), &format!("00 {frame}"));
        assert_eq!(error, code, "{frame}");
    }
}

#[test]
fn frames_of_other_streams_are_unexpected() {
    // spec: 9114-7.2-a, 9114-7.2.8-b
    for frame in [
        "00 01 00",
        "00 00",
        "01 03 00 00 d9",
        "02 00",
        "06 00",
        "08 00",
        "09 00",
        "05 00",
    ] {
        let mut script = Script::server();
        let error = script.error(peer_uni(Role::Server, 0), &format!("00 04 00 {frame}"));
        assert_eq!(error, Code::H3_FRAME_UNEXPECTED, "{frame}");
    }
}

#[test]
fn unknown_frames_are_skipped() {
    // spec: 9114-7.2.8-a, 9218-7.2-a
    let mut script = Script::server();
    let id = peer_uni(Role::Server, 0);
    script
        .feed(
            id,
            "00 04 00 21 02 aa bb 40 5f 00 80 0f 07 00 06 00 75 3d 31 2c 69",
        )
        .unwrap();
    assert_eq!(
        script.feed(id, "07 01 00").unwrap(),
        [Event::GoAway { id: 0 }]
    );
}

#[test]
fn endless_unknown_frames_are_a_load() {
    // spec: 9114-10.5-a
    let mut script = Script::server();
    let id = peer_uni(Role::Server, 0);
    script
        .feed(id, "00 04 00 21 ff ff ff ff ff ff ff ff")
        .unwrap();
    let junk = vec![0; 64 * 1024];
    let error = (0..32).find_map(|_| {
        script.t.inject(id, &junk);
        script.run().err()
    });
    assert_eq!(error.unwrap().code, Code::H3_EXCESSIVE_LOAD);
    assert_eq!(
        script.t.unread_bytes(),
        0,
        "skipped bytes give their credit back"
    );
}

#[test]
fn push_ids_only_grow() {
    // spec: 9114-7.2.7-a
    let mut script = Script::server();
    let id = peer_uni(Role::Server, 0);
    script
        .feed(id, "00 04 00 0d 01 05 0d 01 05 0d 01 09")
        .unwrap();
    assert_eq!(script.error(id, "0d 01 08"), Code::H3_ID_ERROR);

    let mut client = Script::ready_client();
    let error = client.error(peer_uni(Role::Client, 0), "0d 01 00");
    assert_eq!(error, Code::H3_FRAME_UNEXPECTED);
}

#[test]
fn there_is_no_push_to_cancel() {
    let mut server = Script::server();
    assert_eq!(
        server.error(peer_uni(Role::Server, 0), "00 04 00 03 01 00"),
        Code::H3_ID_ERROR
    );
    let mut client = Script::ready_client();
    assert_eq!(
        client.error(peer_uni(Role::Client, 0), "03 01 00"),
        Code::H3_ID_ERROR
    );
}

#[test]
fn ids_fill_their_frame() {
    // spec: 9114-7.1-a
    for frame in ["07 00", "07 02 00 00", "07 01 40", "0d 03 40 00 00"] {
        let mut script = Script::server();
        let error = script.error(peer_uni(Role::Server, 0), &format!("00 04 00 {frame}"));
        assert_eq!(error, Code::H3_FRAME_ERROR, "{frame}");
    }
}

#[test]
fn extended_connect_waits_for_the_setting() {
    // spec: 8441-3-b, 9114-7.2.4.2-e
    let mut script = Script::client();
    let error = script
        .machine
        .request(&mut script.t, &connect_udp())
        .unwrap_err();
    assert_eq!(error, RequestError::NoSettingsYet);
    // spec: 9114-7.2.4.2-b
    let classic = RequestHead::classic_connect("target.example:443");
    script.machine.request(&mut script.t, &classic).unwrap();

    script
        .feed(peer_uni(Role::Client, 0), "00 04 02 33 01")
        .unwrap();
    let error = script
        .machine
        .request(&mut script.t, &connect_udp())
        .unwrap_err();
    assert_eq!(error, RequestError::ExtendedConnectUnsupported);
}

#[test]
fn the_client_side_setting_has_no_effect() {
    // spec: 8441-3-c
    let mut script = Script::server();
    script
        .feed(peer_uni(Role::Server, 0), "00 04 02 08 01")
        .unwrap();
}

#[test]
fn heads_respect_the_size_that_the_peer_accepts() {
    // spec: 9114-4.2.2-b
    let mut script = Script::client();
    script
        .feed(peer_uni(Role::Client, 0), "00 04 05 08 01 06 40 64")
        .unwrap();
    let error = script
        .machine
        .request(&mut script.t, &connect_udp())
        .unwrap_err();
    assert!(
        matches!(
            error,
            RequestError::TooLarge {
                size: 200..,
                max: 100
            }
        ),
        "{error:?}"
    );
    assert_eq!(script.machine.request_count(), 0);

    let mut script = Script::server();
    script
        .feed(peer_uni(Role::Server, 0), "00 04 02 06 20")
        .unwrap();
    script.feed(request(0), CONNECT_UDP).unwrap();
    let head = ResponseHead::new(::http::StatusCode::OK);
    let error = script
        .machine
        .respond(&mut script.t, request(0), &head, false)
        .unwrap_err();
    assert!(error.to_string().contains("the peer accepts 32"), "{error}");
}
