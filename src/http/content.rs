//! Content of a response whose length is known: what its head may say about it, on every HTTP version.
//!
//! Whoever wrote the response knows neither the version nor the connection it leaves on; here its head becomes one that
//! any of them can send. Nothing is added that only its author can know, `Date` for one.

use ::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use ::http::{Method, StatusCode};
use bytes::Bytes;

use super::request::ResponseHead;

/// Fields that mean something to one HTTP/1.1 connection only (RFC 9110 section 7.6.1, RFC 9114 section 4.2).
const CONNECTION_SPECIFIC: [HeaderName; 6] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Makes `head` fit for the response to a request with `method`, and returns what of `body` is sent behind it.
///
/// Fields of a connection and of trailers go. `Content-Length` is the length of `body`, except where there is no
/// content: 204, 205 and 304 lose theirs, and a response to HEAD whose body was left out keeps the one it has
/// (RFC 9110 section 8.6). A status that is not final, or that the type admits and HTTP does not, becomes 500 without
/// content: there is no telling what was meant.
pub fn fit(head: &mut ResponseHead, method: &Method, body: Bytes) -> Bytes {
    let is_final = (200..600).contains(&head.status.as_u16());
    if !is_final {
        *head = ResponseHead::new(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let headers = &mut head.headers;
    remove_connection_specific(headers);
    let body = if is_final { body } else { Bytes::new() };
    match head.status {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => {
            headers.remove(header::CONTENT_LENGTH);
            Bytes::new()
        }
        StatusCode::RESET_CONTENT => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
            Bytes::new()
        }
        _ if *method == Method::HEAD => {
            let length = match body.len() {
                0 => stated_length(headers),
                length => u64::try_from(length).ok(),
            };
            headers.remove(header::CONTENT_LENGTH);
            if let Some(length) = length {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            Bytes::new()
        }
        _ => {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
            body
        }
    }
}

/// The one length that the head states, if it does.
fn stated_length(headers: &HeaderMap) -> Option<u64> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    let digits = value.to_str().ok()?;
    let is_number = digits.bytes().all(|octet| octet.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

fn remove_connection_specific(headers: &mut HeaderMap) {
    let options: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|option| option.trim().parse().ok())
        .collect();
    // No trailers follow, so none are announced.
    for name in CONNECTION_SPECIFIC
        .iter()
        .chain(&[header::TRAILER])
        .chain(&options)
    {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fitted(
        method: Method,
        status: u16,
        fields: &[(&str, &str)],
        body: &str,
    ) -> (ResponseHead, Bytes) {
        let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
        for (name, value) in fields {
            let name: HeaderName = name.parse().unwrap();
            head.headers.append(name, value.parse().unwrap());
        }
        let body = fit(&mut head, &method, Bytes::copy_from_slice(body.as_bytes()));
        (head, body)
    }

    fn length(head: &ResponseHead) -> Option<&str> {
        head.headers
            .get("content-length")
            .map(|value| value.to_str().unwrap())
    }

    #[test]
    fn the_length_is_that_of_the_body() {
        for wrong in [
            &[][..],
            &[("content-length", "99")],
            &[("content-length", "1"), ("content-length", "2")],
        ] {
            let (head, body) = fitted(Method::GET, 200, wrong, "hello");
            assert_eq!((length(&head), &body[..]), (Some("5"), &b"hello"[..]));
            assert_eq!(head.headers.get_all("content-length").iter().count(), 1);
        }
        let (head, body) = fitted(Method::GET, 404, &[], "");
        assert_eq!((length(&head), body.len()), (Some("0"), 0));
    }

    #[test]
    fn what_has_no_content_gets_none() {
        for status in [204, 304] {
            let (head, body) = fitted(Method::GET, status, &[("content-length", "5")], "hello");
            assert_eq!((length(&head), body.len()), (None, 0), "{status}");
        }
        let (head, body) = fitted(Method::GET, 205, &[], "hello");
        assert_eq!((length(&head), body.len()), (Some("0"), 0));
    }

    #[test]
    fn head_says_how_long_the_body_would_be() {
        for (fields, body, said) in [
            (&[][..], "hello", Some("5")),
            (&[("content-length", "7")][..], "", Some("7")),
            (&[("content-length", "7")][..], "hello", Some("5")),
            (&[("content-length", "+7")][..], "", None),
            (&[][..], "", None),
        ] {
            let (head, sent) = fitted(Method::HEAD, 200, fields, body);
            assert_eq!((length(&head), sent.len()), (said, 0));
        }
    }

    #[test]
    fn fields_of_a_connection_stay_here() {
        let fields = [
            ("connection", "x-private, close"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("trailer", "x"),
            ("te", "trailers"),
            ("x-public", "2"),
        ];
        let (head, _) = fitted(Method::GET, 200, &fields, "");
        let names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-public", "content-length"]);
    }

    #[test]
    fn a_status_that_is_not_final_is_a_fault() {
        for status in [100, 101, 199, 600, 999] {
            let (head, body) = fitted(Method::GET, status, &[("x", "y")], "hello");
            assert_eq!(head.status, 500, "{status}");
            assert_eq!(
                (head.headers.len(), length(&head), body.len()),
                (1, Some("0"), 0)
            );
        }
    }

    proptest! {
        #[test]
        fn a_length_never_lies(status in 100u16..1000, is_head: bool, said in ".{0,4}", body in ".{0,40}") {
            let method = if is_head { Method::HEAD } else { Method::GET };
            let Ok(value) = HeaderValue::from_str(&said) else { return Ok(()) };
            let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap());
            head.headers.append("content-length", value);
            let sent = fit(&mut head, &method, Bytes::from(body));
            match length(&head) {
                Some(said) if !is_head => prop_assert_eq!(said, sent.len().to_string()),
                _ => prop_assert!(sent.is_empty()),
            }
        }
    }
}
