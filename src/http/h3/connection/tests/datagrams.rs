//! Where QUIC datagrams belong (RFC 9297 sections 2.1 and 4 of its digest).

use super::*;
use crate::http::h3::event::{Abort, DatagramDrop, DatagramMode, DatagramRoute};

impl Script {
    fn route(&mut self, payload: &str) -> Result<DatagramRoute, ConnectionError> {
        self.machine.route_datagram(&mut self.t, &hex(payload))
    }
}

#[test]
fn the_quarter_stream_id_is_checked() {
    // spec: 9297-2.1-b, 9297-2.1-c
    for payload in ["", "40", "c0 00 00 00 00 00 00", "d0 00 00 00 00 00 00 00"] {
        let mut script = Script::server();
        assert_eq!(
            script.route(payload).unwrap_err().code,
            Code::H3_DATAGRAM_ERROR,
            "{payload}"
        );
    }
}

#[test]
fn an_open_request_gets_its_datagrams() {
    // spec: 9297-2.1-a, 9297-2.1-d, 9297-1.1-a
    let mut script = Script::server();
    for index in 0..=11 {
        script.feed(request(index), CONNECT_UDP).unwrap();
    }
    for (payload, index, header_len) in [
        ("00 00 68 65 6c 6c 6f", 0, 1),
        ("01 00 68 65 6c 6c 6f", 1, 1),
        ("0b 00 68 65 6c 6c 6f", 11, 1),
        ("0b", 11, 1),
        ("40 0b 00", 11, 2),
        ("c0 00 00 00 00 00 00 0b 00", 11, 8),
    ] {
        let id = request(index);
        assert_eq!(
            script.route(payload).unwrap(),
            DatagramRoute::Stream { id, header_len },
            "{payload}"
        );
    }
    let mut client = Script::requesting_client();
    let id = request(0);
    assert_eq!(
        client.route("00 00").unwrap(),
        DatagramRoute::Stream { id, header_len: 1 }
    );
}

#[test]
fn a_datagram_may_overtake_its_request() {
    // spec: 9297-2.1-g
    let mut script = Script::server();
    let early = |id| DatagramRoute::Early { id, header_len: 1 };
    assert_eq!(script.route("01 00").unwrap(), early(request(1)));
    script.feed(request(1), "01 40").unwrap();
    assert_eq!(
        script.route("01 00").unwrap(),
        early(request(1)),
        "its head is cut"
    );
    assert_eq!(
        script.route("00 00").unwrap(),
        early(request(0)),
        "opened with it, but empty"
    );
    let id = StreamId::new(Side::Client, Dir::Bi, (1 << 60) - 1);
    let largest = script.route("cf ff ff ff ff ff ff ff 00").unwrap();
    assert_eq!(largest, DatagramRoute::Early { id, header_len: 8 });

    let mut client = Script::requesting_client();
    let dropped = client.route("01 00").unwrap();
    assert_eq!(dropped, DatagramRoute::Drop(DatagramDrop::NotOpened));
}

#[test]
fn closed_streams_drop_datagrams() {
    // spec: 9297-2.1-f; traps: h2o #3533
    let mut script = Script::tunnel(CONNECT_UDP);
    script.feed_fin(request(0), "").unwrap();
    assert_eq!(script.recv_all(0).unwrap().1, RecvData::Finished);
    let closed = DatagramRoute::Drop(DatagramDrop::ReceiveClosed);
    assert_eq!(script.route("00 00").unwrap(), closed);
    script.machine.finish(&mut script.t, request(0));
    let gone = DatagramRoute::Drop(DatagramDrop::StreamGone);
    assert_eq!(script.route("00 00").unwrap(), gone);

    script.feed(request(1), CONNECT_UDP).unwrap();
    script
        .t
        .inject_reset(request(1), Code::H3_REQUEST_CANCELLED);
    script.run().unwrap();
    assert_eq!(script.route("01 00").unwrap(), closed);
}

#[test]
fn a_request_without_datagrams_is_aborted() {
    // spec: 9297-2-b
    for head in [CLASSIC_CONNECT, GET] {
        let mut script = Script::server();
        script.feed(request(0), head).unwrap();
        let route = script.route("00 00").unwrap();
        assert_eq!(route, DatagramRoute::Drop(DatagramDrop::Unexpected));
        let reason = Abort::DatagramUnexpected;
        assert_eq!(
            script.run().unwrap(),
            [Event::Aborted {
                id: request(0),
                reason
            }]
        );
        assert_eq!(script.aborted(0), Some(Code::H3_DATAGRAM_ERROR));
        let route = script.route("00 00").unwrap();
        assert_eq!(route, DatagramRoute::Drop(DatagramDrop::StreamGone));
    }
}

#[test]
fn the_mode_follows_both_ends() {
    // spec: 9297-2.1.1-c, 9297-2.1.1-h, 9297-2.1.1-i, rc-curl-a
    let mut script = Script::client();
    assert_eq!(
        script.machine.datagram_mode(&mut script.t),
        DatagramMode::Pending
    );
    script
        .feed(peer_uni(Role::Client, 0), SERVER_CONTROL)
        .unwrap();
    assert_eq!(
        script.machine.datagram_mode(&mut script.t),
        DatagramMode::Frames
    );
    script.t.set_datagram_size_max(None);
    assert_eq!(
        script.machine.datagram_mode(&mut script.t),
        DatagramMode::Capsules
    );

    let mut script = Script::server();
    script.feed(peer_uni(Role::Server, 0), "00 04 00").unwrap();
    assert_eq!(
        script.machine.datagram_mode(&mut script.t),
        DatagramMode::Capsules
    );
    let mut script = Script::server();
    script
        .feed(peer_uni(Role::Server, 0), CLIENT_CONTROL)
        .unwrap();
    assert_eq!(
        script.machine.datagram_mode(&mut script.t),
        DatagramMode::Frames
    );
}
