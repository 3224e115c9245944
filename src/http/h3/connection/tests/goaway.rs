//! Shutdown in both directions (RFC 9114 section 5.2).

use super::*;
use crate::http::h3::event::{Abort, GoAway, RequestError};

#[test]
fn a_server_drains() {
    // spec: 9114-5.2-a, 9114-5.2-f
    let mut script = Script::server();
    script.feed(request(0), CONNECT_UDP).unwrap();
    let control = peer_uni(Role::Client, 0);
    script.sent(control);

    script.machine.goaway(&mut script.t, GoAway::Soft).unwrap();
    assert_eq!(script.sent(control), hex("07 08 ff ff ff ff ff ff ff fc"));
    assert_eq!(
        script.feed(request(1), CONNECT_UDP).unwrap().len(),
        1,
        "still served"
    );

    script.machine.goaway(&mut script.t, GoAway::Final).unwrap();
    assert_eq!(script.sent(control), hex("07 01 08"));
    // spec: 9114-4.1.1-b, 9114-5.2-e
    let events = script.feed(request(2), CONNECT_UDP).unwrap();
    assert_eq!(
        events,
        [Event::Aborted {
            id: request(2),
            reason: Abort::NotProcessed
        }]
    );
    assert_eq!(script.aborted(2), Some(Code::H3_REQUEST_REJECTED));

    // spec: 9114-5.2-d
    script.machine.goaway(&mut script.t, GoAway::Soft).unwrap();
    script.machine.goaway(&mut script.t, GoAway::Final).unwrap();
    assert!(script.sent(control).is_empty(), "the id never grows");

    assert!(!script.machine.is_idle());
    script.respond(0, 403, true);
    script
        .machine
        .reset(&mut script.t, request(1), Code::H3_REQUEST_CANCELLED);
    assert!(script.machine.is_idle());
}

#[test]
fn a_client_says_goodbye_with_a_push_id() {
    // spec: 9114-5.2-b
    let mut script = Script::ready_client();
    let control = peer_uni(Role::Server, 0);
    script.sent(control);
    script.machine.goaway(&mut script.t, GoAway::Soft).unwrap();
    script.machine.goaway(&mut script.t, GoAway::Final).unwrap();
    assert_eq!(script.sent(control), hex("07 01 00"));
    let error = script
        .machine
        .request(&mut script.t, &connect_udp())
        .unwrap_err();
    assert_eq!(error, RequestError::GoingAway);
}

#[test]
fn a_client_learns_what_was_not_processed() {
    // spec: 9114-5.2-c, 9114-5.2-g
    let mut script = Script::requesting_client();
    script
        .machine
        .request(&mut script.t, &connect_udp())
        .unwrap();
    let control = peer_uni(Role::Client, 0);
    let events = script
        .feed(control, "07 08 ff ff ff ff ff ff ff fc")
        .unwrap();
    assert_eq!(events, [Event::GoAway { id: (1 << 62) - 4 }]);
    let events = script.feed(control, "07 01 04").unwrap();
    let unprocessed = Event::Aborted {
        id: request(1),
        reason: Abort::NotProcessed,
    };
    assert_eq!(events, [Event::GoAway { id: 4 }, unprocessed]);
    // spec: 9114-4.1.1-d
    assert_eq!(script.aborted(1), Some(Code::H3_REQUEST_CANCELLED));
    let error = script
        .machine
        .request(&mut script.t, &connect_udp())
        .unwrap_err();
    assert_eq!(error, RequestError::GoingAway);
    assert_eq!(
        script.feed(request(0), OK).unwrap().len(),
        1,
        "the older one goes on"
    );
}

#[test]
fn ids_of_the_peer_are_checked() {
    // spec: 9114-5.2-d
    let mut client = Script::ready_client();
    assert_eq!(
        client.error(peer_uni(Role::Client, 0), "07 01 04 07 01 08"),
        Code::H3_ID_ERROR
    );
    // spec: 9114-7.2.6-a
    for frame in ["07 01 01", "07 01 02", "07 01 07"] {
        let mut client = Script::ready_client();
        assert_eq!(
            client.error(peer_uni(Role::Client, 0), frame),
            Code::H3_ID_ERROR,
            "{frame}"
        );
    }
    let mut server = Script::server();
    let id = peer_uni(Role::Server, 0);
    assert_eq!(
        server.feed(id, "00 04 00 07 01 03 07 01 03").unwrap().len(),
        3
    );
    assert_eq!(server.error(id, "07 01 04"), Code::H3_ID_ERROR);
}

#[test]
fn goaway_stays_on_the_control_stream() {
    // spec: 9114-7.2.6-b, 9114-7.2.6-c
    let mut client = Script::requesting_client();
    assert_eq!(
        client.error(request(0), "07 01 00"),
        Code::H3_FRAME_UNEXPECTED
    );
    let mut server = Script::server();
    assert_eq!(
        server.error(request(0), "07 01 00"),
        Code::H3_FRAME_UNEXPECTED
    );
}
