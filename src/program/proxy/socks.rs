//! SOCKS 5 as bytes (RFC 1928): greeting, request, reply, and the header of UDP datagrams.
//!
//! ```text
//!   greeting   5 │ n │ n methods              request   5 │ command │ 0 │ address
//!   choice     5 │ method                     reply     5 │ code    │ 0 │ address
//!   address    type │ 4, 16 or 1 + n bytes │ port       datagram  0 0 │ fragment │ address │ payload
//! ```
//!
//! Parsers take what has arrived so far and say when it is not enough; nothing is longer than [`MESSAGE_BYTES_MAX`].
//! Authentication and BIND do not exist here.

use std::net::{IpAddr, SocketAddr};

use crate::wire::target::{Host, Target};

/// The version, which is the first byte of everything on the connection.
pub(super) const VERSION: u8 = 5;
/// The longest message before the bytes of the tunnel: a request for a name of 255 bytes.
pub(super) const MESSAGE_BYTES_MAX: usize = 3 + ADDRESS_BYTES_MAX;

const ADDRESS_BYTES_MAX: usize = 1 + 1 + 255 + 2;
const NO_AUTHENTICATION: u8 = 0;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// Why bytes are no SOCKS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Another version; there is no way to answer.
    Version,
    /// A type of address that RFC 1928 does not have.
    AddressType,
}

/// A parsed message and its length, or `None` when more bytes are needed.
type Parsed<T> = Result<Option<(T, usize)>, Bad>;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Connect,
    Associate,
    /// BIND, or a number without meaning.
    Unsupported,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) destination: Destination,
}

/// Where a client wants to go, or, for an association, where it will send from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    /// `None` for a name that no resolver would take.
    pub(super) host: Option<Host>,
    pub(super) port: u16,
}

impl Destination {
    /// The target, if this is one: the port of a target is not 0.
    pub(super) fn target(self) -> Option<Target> {
        let host = self.host?;
        let port = self.port;
        (port != 0).then_some(Target { host, port })
    }
}

/// How a request ended (RFC 1928 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    /// "TTL expired", the only one that is about time.
    TimedOut = 6,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

/// Reads a greeting: whether it offers to go without authentication.
pub(super) fn greeting(bytes: &[u8]) -> Parsed<bool> {
    check_version(bytes)?;
    let Some((&count, rest)) = bytes.get(1..).and_then(<[u8]>::split_first) else {
        return Ok(None);
    };
    let methods = rest.get(..usize::from(count));
    Ok(methods.map(|methods| {
        let acceptable = methods.contains(&NO_AUTHENTICATION);
        (acceptable, 2 + methods.len())
    }))
}

/// The answer to a greeting.
pub(super) const fn choice(acceptable: bool) -> [u8; 2] {
    let method = if acceptable {
        NO_AUTHENTICATION
    } else {
        NO_ACCEPTABLE_METHOD
    };
    [VERSION, method]
}

/// Reads a request. The reserved byte may be anything: it has no meaning.
pub(super) fn request(bytes: &[u8]) -> Parsed<Request> {
    check_version(bytes)?;
    let (Some(command), Some(rest)) = (bytes.get(1), bytes.get(3..)) else {
        return Ok(None);
    };
    let command = match command {
        1 => Command::Connect,
        3 => Command::Associate,
        _ => Command::Unsupported,
    };
    let address = address(rest)?;
    Ok(address.map(|(destination, len)| {
        let request = Request {
            command,
            destination,
        };
        (request, 3 + len)
    }))
}

fn check_version(bytes: &[u8]) -> Result<(), Bad> {
    match bytes.first() {
        None | Some(&VERSION) => Ok(()),
        Some(_) => Err(Bad::Version),
    }
}

/// Reads an address and a port.
pub(super) fn address(bytes: &[u8]) -> Parsed<Destination> {
    let Some((&kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    let (host, rest) = match kind {
        IPV4 => match rest.split_first_chunk::<4>() {
            Some((ip, rest)) => (Some(Host::Ip(IpAddr::from(*ip))), rest),
            None => return Ok(None),
        },
        IPV6 => match rest.split_first_chunk::<16>() {
            Some((ip, rest)) => (Some(Host::Ip(IpAddr::from(*ip))), rest),
            None => return Ok(None),
        },
        NAME => {
            let name = rest
                .split_first()
                .and_then(|(&len, rest)| rest.split_at_checked(usize::from(len)));
            match name {
                Some((name, rest)) => (parse_name(name), rest),
                None => return Ok(None),
            }
        }
        _ => return Err(Bad::AddressType),
    };
    let Some((port, rest)) = rest.split_first_chunk::<2>() else {
        return Ok(None);
    };
    let port = u16::from_be_bytes(*port);
    Ok(Some((Destination { host, port }, bytes.len() - rest.len())))
}

/// A name, or an address that a client wrote as one.
fn parse_name(name: &[u8]) -> Option<Host> {
    Host::parse(std::str::from_utf8(name).ok()?).ok()
}

/// The length of the header of a UDP datagram; `None` for what is dropped: a fragment, or no header at all
/// (RFC 1928 section 7).
pub(super) fn datagram_header(datagram: &[u8]) -> Option<usize> {
    let &[_, _, fragment, kind, ..] = datagram else {
        return None;
    };
    if fragment != 0 {
        return None;
    }
    let host = match kind {
        IPV4 => 4,
        IPV6 => 16,
        NAME => 1 + usize::from(*datagram.get(4)?),
        _ => return None,
    };
    let len = 4 + host + 2;
    (len <= datagram.len()).then_some(len)
}

/// Where a datagram with this header goes.
pub(super) fn datagram_target(header: &[u8]) -> Option<Target> {
    let (destination, _) = address(header.get(3..)?).ok()??;
    destination.target()
}

/// The reply to a request; `bound` is where an association listens, and means nothing otherwise.
pub(super) fn reply(reply: Reply, bound: SocketAddr) -> Vec<u8> {
    let mut out = vec![VERSION, reply as u8, 0];
    match bound.ip() {
        IpAddr::V4(ip) => {
            out.push(IPV4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(IPV6);
            out.extend(ip.octets());
        }
    }
    out.extend(bound.port().to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Option<Host> {
        Some(Host::Name(text.into()))
    }

    #[test]
    fn greetings() {
        assert_eq!(greeting(&[5, 1, 0]), Ok(Some((true, 3))));
        assert_eq!(greeting(&[5, 3, 2, 1, 0, 5]), Ok(Some((true, 5))));
        assert_eq!(greeting(&[5, 2, 1, 2]), Ok(Some((false, 4))));
        assert_eq!(greeting(&[5, 0]), Ok(Some((false, 2))));
        for short in [&[][..], &[5], &[5, 1], &[5, 2, 0]] {
            assert_eq!(greeting(short), Ok(None), "{short:?}");
        }
        assert_eq!(greeting(&[4, 1]), Err(Bad::Version));
        assert_eq!(choice(true), [5, 0]);
        assert_eq!(choice(false), [5, 0xff]);
    }

    #[test]
    fn requests() {
        let ip = |ip: &str| Some(Host::Ip(ip.parse().unwrap()));
        let v6: &[u8] = b"\x05\x03\x00\x04\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\0\0";
        for (bytes, command, host, port) in [
            (
                &b"\x05\x01\x00\x01\xc0\x00\x02\x07\x01\xbb"[..],
                Command::Connect,
                ip("192.0.2.7"),
                443,
            ),
            (v6, Command::Associate, ip("2001:db8::1"), 0),
            (
                b"\x05\x02\x07\x03\x09A.example\x00\x50",
                Command::Unsupported,
                name("a.example"),
                80,
            ),
            (
                b"\x05\x01\x00\x03\x099.9.9.9.9\x00\x50",
                Command::Connect,
                None,
                80,
            ),
            (
                b"\x05\x01\x00\x03\x03::1\x00\x50",
                Command::Connect,
                ip("::1"),
                80,
            ),
            (b"\x05\x01\x00\x03\x00\x00\x50", Command::Connect, None, 80),
            (
                b"\x05\x01\x00\x03\x01\xff\x00\x50",
                Command::Connect,
                None,
                80,
            ),
        ] {
            let destination = Destination { host, port };
            let expected = Request {
                command,
                destination,
            };
            assert_eq!(request(bytes), Ok(Some((expected.clone(), bytes.len()))));
            for cut in 0..bytes.len() {
                assert_eq!(request(&bytes[..cut]), Ok(None), "{bytes:?} {cut}");
            }
            let longer = [bytes, b"more"].concat();
            assert_eq!(request(&longer), Ok(Some((expected, bytes.len()))));
        }
        assert_eq!(request(&[5, 1, 0, 2]), Err(Bad::AddressType));
        assert_eq!(request(&[1, 1, 0, 1]), Err(Bad::Version));
    }

    #[test]
    fn the_longest_request_is_the_bound() {
        let mut bytes = vec![5, 1, 0, NAME, 255];
        bytes.resize(MESSAGE_BYTES_MAX, b'a');
        assert_eq!(request(&bytes).unwrap().unwrap().1, MESSAGE_BYTES_MAX);
        assert_eq!(MESSAGE_BYTES_MAX, 262);
        assert_eq!(request(&bytes[..MESSAGE_BYTES_MAX - 1]), Ok(None));
    }

    #[test]
    fn replies() {
        assert_eq!(
            reply(Reply::ConnectionRefused, ([0, 0, 0, 0], 0).into()),
            [5, 5, 0, 1, 0, 0, 0, 0, 0, 0]
        );
        let v6 = reply(Reply::Succeeded, "[::1]:258".parse().unwrap());
        assert_eq!(v6.len(), 22);
        assert_eq!((v6[3], &v6[19..]), (4, &[1, 1, 2][..]));
    }

    #[test]
    fn datagrams() {
        let header = b"\x00\x00\x00\x03\x09a.example\x00\x35";
        let datagram = [&header[..], b"payload"].concat();
        assert_eq!(datagram_header(&datagram), Some(header.len()));
        assert_eq!(datagram_header(header), Some(header.len()));
        let target = Target {
            host: name("a.example").unwrap(),
            port: 53,
        };
        assert_eq!(datagram_target(header), Some(target));
        for cut in 0..header.len() {
            assert_eq!(datagram_header(&header[..cut]), None, "{cut}");
        }
        let mut fragment = datagram;
        fragment[2] = 1;
        assert_eq!(datagram_header(&fragment), None);
        let port_0 = b"\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x00";
        assert_eq!(datagram_header(port_0), Some(10));
        assert_eq!(datagram_target(port_0), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let whole = bytes.len() >= MESSAGE_BYTES_MAX;
            if let Ok(parsed) = request(&bytes) {
                prop_assert!(parsed.is_some() || !whole);
                prop_assert!(parsed.is_none_or(|(_, len)| len <= bytes.len()));
            }
            if let Ok(parsed) = greeting(&bytes) {
                prop_assert!(parsed.is_some() || !whole);
            }
            if let Some(len) = datagram_header(&bytes) {
                prop_assert_eq!(address(&bytes[3..]).unwrap().unwrap().1, len - 3);
            }
        }

        #[test]
        fn an_address_is_read_back(ip in any::<IpAddr>(), port: u16) {
            let bytes = reply(Reply::Succeeded, (ip, port).into());
            let (destination, len) = address(&bytes[3..]).unwrap().unwrap();
            prop_assert_eq!(destination, Destination { host: Some(Host::Ip(ip)), port });
            prop_assert_eq!(len, bytes.len() - 3);
        }
    }
}
