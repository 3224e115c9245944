//! Laws that hold for every input.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::http::h1::fuzz_entry::{h1_client, h1_server};

/// Pieces of heads, so that many inputs get past the start line.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "GET /masque/a/443/ HTTP/1.1\r\n",
        "CONNECT target.example:443 HTTP/1.1\r\n",
        "CONNECT [2001:db8::1]:443 HTTP/1.0\r\n",
        "GET https://a.example?b HTTP/1.1\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 407 Proxy Authentication Required\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "Host: relay.example\r\n",
        "Connection: upgrade\r\nUpgrade: connect-udp\r\n",
        "Connection: close, x-hop\r\n",
        "X-Hop: 1\r\n",
        "Content-Length: 0\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Proxy-Authorization: Basic YTpi\r\n",
        "\r\n",
        "\r",
        "\n",
        " ",
    ]);
    prop_oneof![
        12 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..12),
        1 => (100..400_usize).prop_map(|len| format!("A: {}\r\n", "a".repeat(len)).into_bytes()),
    ]
}

fn request_head() -> impl Strategy<Value = RequestHead> {
    let host = prop::sample::select(vec!["relay.example", "192.0.2.1", "[2001:db8::1]"]);
    let field = ("x-[a-z]{1,6}", "([!-~]([ -~]{0,12}[!-~])?)?");
    let protocol = prop::sample::select(Limits::UPGRADES);
    (
        host,
        1_u16..,
        prop::option::of((protocol, "/[a-zA-Z0-9/%?=&.]{0,40}")),
        vec(field, 0..6),
    )
        .prop_map(|(host, port, extended, fields)| {
            let authority = format!("{host}:{port}");
            let mut head = match extended {
                None => RequestHead::classic_connect(authority),
                Some((protocol, path)) => {
                    RequestHead::extended_connect(protocol, "https", authority, path)
                }
            };
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| (&**name, &**value))
                .collect();
            head.headers = map(&fields);
            head
        })
}

proptest! {
    #[test]
    fn heads_in_pieces(options in any::<u8>(), cuts in vec(any::<u8>(), 0..16),
        is_cut in any::<bool>(), pieces in vec(piece(), 0..16))
    {
        let count = u8::try_from(cuts.len()).unwrap() | if is_cut { 0x80 } else { 0 };
        let data = [&[options, count], &*cuts, &pieces.concat()].concat();
        h1_server(&data);
        h1_client(&data);
    }

    #[test]
    fn garbage(data in vec(any::<u8>(), 0..200)) {
        h1_server(&data);
        h1_client(&data);
    }

    /// A request goes from a client to a server and comes up as it was; so does the answer on the way back, and what
    /// follows each of them is the tunnel's.
    #[test]
    fn there_and_back(head in request_head(), fields in vec(("x-[a-z]{1,6}", "[!-~]{0,12}"), 0..6),
        code in prop::sample::select(vec![200_u16, 400, 401, 403, 407, 429, 502, 503]))
    {
        let mut client = Client::asking(&head);
        let mut server = Server::with(&client.request);
        prop_assert_eq!(server.request(), head);

        let mut answer = status(code);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        answer.headers = map(&fields);
        prop_assert_eq!(server.respond(&status(100)), Responded::Interim);
        let responded = server.respond(&answer);
        let opens = code == 200;
        prop_assert_eq!(responded == Responded::Tunnel, opens);
        let sent = server.sent();
        let mut seen = client.response(sent + "down");
        prop_assert_eq!(seen.headers.remove("content-length").is_some(), !opens);
        prop_assert_eq!(seen, answer);
        prop_assert_eq!(client.conn.is_tunnel(), opens);
        if opens {
            server.receive("up");
            prop_assert_eq!(server.read(), (b"up".to_vec(), RecvData::Blocked));
            prop_assert_eq!(client.read(), (b"down".to_vec(), RecvData::Blocked));
        }
    }
}
