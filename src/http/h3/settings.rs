//! The SETTINGS frame (RFC 9114 section 7.2.4, RFC 9204 section 5, RFC 9220 section 3,
//! RFC 9297 section 2.1.1).
//!
//! Payload: pairs of `Identifier (varint), Value (varint)`, each identifier at most once.
//! Setting 0x08 is ours while *frame* 0x08 is forbidden: two registries.
//! What a setting permits or requires is the connection's affair.

use crate::wire::varint;

use super::code::Code;
use super::frame;

/// How many settings a peer may send, the ignored ones included.
pub const SETTINGS_MAX: usize = 64;

/// The longest SETTINGS payload accepted, in octets: [`SETTINGS_MAX`] pairs of two 8-octet varints.
pub const PAYLOAD_LEN_MAX: usize = SETTINGS_MAX * 16;

const QPACK_MAX_TABLE_CAPACITY: u64 = 0x01;
const MAX_FIELD_SECTION_SIZE: u64 = 0x06;
const QPACK_BLOCKED_STREAMS: u64 = 0x07;
const ENABLE_CONNECT_PROTOCOL: u64 = 0x08;
const H3_DATAGRAM: u64 = 0x33;

/// One endpoint's settings; the default is what holds before a SETTINGS frame arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Octets of the largest field section it wants to receive; `None` is no limit. Advisory.
    pub max_field_section_size: Option<u64>,
    /// ENABLE_CONNECT_PROTOCOL: extended CONNECT may be sent to it.
    pub extended_connect: bool,
    /// H3_DATAGRAM: it wants to receive HTTP datagrams.
    pub datagrams: bool,
    /// Octets of dynamic table it keeps as a decoder. Always 0 in ours.
    pub qpack_max_table_capacity: u64,
    /// Streams it lets wait for the dynamic table. Always 0 in ours.
    pub qpack_blocked_streams: u64,
}

/// A reserved setting, sent so that peers keep ignoring what they do not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grease {
    id: u64,
    value: u64,
}

impl Grease {
    /// The reserved setting number `n`, that is `0x1f * n + 0x21`, with any `value`.
    ///
    /// Both should be random; the caller draws them, as nothing here does.
    pub fn new(n: u32, value: u32) -> Self {
        Self {
            id: 0x1f * u64::from(n) + 0x21,
            value: value.into(),
        }
    }
}

impl Settings {
    /// Reads the payload of a SETTINGS frame. Unknown settings are ignored.
    ///
    /// # Errors
    ///
    /// - `H3_FRAME_ERROR` when the last pair is cut.
    /// - `H3_SETTINGS_ERROR` for a setting of HTTP/2, a repeated one, or a Boolean above 1.
    /// - `H3_EXCESSIVE_LOAD` above [`SETTINGS_MAX`] pairs.
    pub fn decode(payload: &[u8]) -> Result<Self, Code> {
        let mut settings = Self::default();
        let mut seen = Vec::new();
        let mut rest = payload;
        while !rest.is_empty() {
            let id = take_varint(&mut rest)?;
            let value = take_varint(&mut rest)?;
            if seen.contains(&id) {
                return Err(Code::H3_SETTINGS_ERROR);
            }
            if seen.len() == SETTINGS_MAX {
                return Err(Code::H3_EXCESSIVE_LOAD);
            }
            seen.push(id);
            match id {
                QPACK_MAX_TABLE_CAPACITY => settings.qpack_max_table_capacity = value,
                MAX_FIELD_SECTION_SIZE => settings.max_field_section_size = Some(value),
                QPACK_BLOCKED_STREAMS => settings.qpack_blocked_streams = value,
                ENABLE_CONNECT_PROTOCOL => settings.extended_connect = boolean(value)?,
                H3_DATAGRAM => settings.datagrams = boolean(value)?,
                // HTTP/2's table size, push, stream, window and frame size settings.
                0x00 | 0x02..=0x05 => return Err(Code::H3_SETTINGS_ERROR),
                _ => {}
            }
        }
        Ok(settings)
    }

    /// Appends the payload of a SETTINGS frame: all values that are not the default, then `grease`.
    pub fn encode(&self, grease: Grease, out: &mut Vec<u8>) {
        let pairs = [
            (
                QPACK_MAX_TABLE_CAPACITY,
                non_zero(self.qpack_max_table_capacity),
            ),
            (MAX_FIELD_SECTION_SIZE, self.max_field_section_size),
            (QPACK_BLOCKED_STREAMS, non_zero(self.qpack_blocked_streams)),
            (
                ENABLE_CONNECT_PROTOCOL,
                non_zero(self.extended_connect.into()),
            ),
            (H3_DATAGRAM, non_zero(self.datagrams.into())),
            (grease.id, Some(grease.value)),
        ];
        for (id, value) in pairs {
            if let Some(value) = value {
                varint::encode(id, out);
                varint::encode(value, out);
            }
        }
    }

    /// Appends the whole SETTINGS frame: type, length and [`encode`](Self::encode)'s payload.
    pub fn encode_frame(&self, grease: Grease, out: &mut Vec<u8>) {
        let mut payload = Vec::with_capacity(32);
        self.encode(grease, &mut payload);
        frame::encode_header(frame::SETTINGS, payload.len() as u64, out);
        out.extend_from_slice(&payload);
    }
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, Code> {
    let (value, used) = varint::decode(rest).ok_or(Code::H3_FRAME_ERROR)?;
    *rest = rest.get(used..).unwrap_or_default();
    Ok(value)
}

fn boolean(value: u64) -> Result<bool, Code> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Code::H3_SETTINGS_ERROR),
    }
}

fn non_zero(value: u64) -> Option<u64> {
    (value != 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::hex;
    use super::*;

    fn decode(payload: &str) -> Result<Settings, Code> {
        Settings::decode(&hex(payload))
    }

    #[test]
    fn writes_the_server_control_stream() {
        let settings = Settings {
            max_field_section_size: Some(16384),
            extended_connect: true,
            datagrams: true,
            ..Settings::default()
        };
        let mut frame = Vec::new();
        // spec: 9114-7.2.4.1-a
        settings.encode_frame(Grease::new(0, 7), &mut frame);
        assert_eq!(frame, hex("04 0b 06 80 00 40 00 08 01 33 01 21 07"));
        assert_eq!(decode("06 80 00 40 00 08 01 33 01 21 07"), Ok(settings));
    }

    #[test]
    fn reads_what_others_send() {
        assert_eq!(decode(""), Ok(Settings::default()));
        let client = Settings {
            max_field_section_size: Some(16384),
            datagrams: true,
            ..Settings::default()
        };
        assert_eq!(decode("06 80 00 40 00 33 01"), Ok(client));
        // spec: 9114-7.2.4-c
        let captured = decode(
            "01 50 00 06 80 02 00 00 07 40 64 08 01 80 ff d2 77 01 42 76 01 33 01 \
             ab 60 37 42 01 40 db c0 00 00 00 fa ce b0 0c",
        );
        let expected = Settings {
            max_field_section_size: Some(131_072),
            extended_connect: true,
            datagrams: true,
            qpack_max_table_capacity: 4096,
            qpack_blocked_streams: 100,
        };
        assert_eq!(captured, Ok(expected));
    }

    #[test]
    fn refuses_bad_settings() {
        // spec: 9114-7.2.4.1-b
        for payload in ["00 00", "02 00", "03 00", "04 00", "05 00", "08 01 02 00"] {
            assert_eq!(decode(payload), Err(Code::H3_SETTINGS_ERROR), "{payload}");
        }
        // spec: 9297-2.1.1-b, 9220-3-c, 8441-3-a
        for payload in ["33 02", "08 02", "33 c0 00 00 00 00 00 00 02"] {
            assert_eq!(decode(payload), Err(Code::H3_SETTINGS_ERROR), "{payload}");
        }
        // spec: 9114-7.2.4-b; the second form of an identifier is the same identifier.
        for payload in ["33 01 33 01", "21 00 21 00", "33 01 40 33 01"] {
            assert_eq!(decode(payload), Err(Code::H3_SETTINGS_ERROR), "{payload}");
        }
        // spec: 9114-7.1-a
        for payload in ["06 40", "33", "80 00"] {
            assert_eq!(decode(payload), Err(Code::H3_FRAME_ERROR), "{payload}");
        }
    }

    #[test]
    fn bounds_the_number_of_settings() {
        // spec: 9114-10.5-a
        let many = |count: usize| {
            let mut payload = Vec::new();
            for n in (0..).take(count) {
                varint::encode(0x1f * n + 0x21, &mut payload);
                varint::encode(0, &mut payload);
            }
            Settings::decode(&payload)
        };
        assert_eq!(many(SETTINGS_MAX), Ok(Settings::default()));
        assert_eq!(many(SETTINGS_MAX + 1), Err(Code::H3_EXCESSIVE_LOAD));
    }

    prop_compose! {
        fn any_settings()(
            max_field_section_size in proptest::option::of(0..=varint::MAX),
            extended_connect: bool,
            datagrams: bool,
            qpack_max_table_capacity in 0..=varint::MAX,
            qpack_blocked_streams in 0..=varint::MAX,
        ) -> Settings {
            Settings {
                max_field_section_size,
                extended_connect,
                datagrams,
                qpack_max_table_capacity,
                qpack_blocked_streams,
            }
        }
    }

    proptest! {
        #[test]
        fn round_trip(settings in any_settings(), n: u32, value: u32) {
            let mut payload = Vec::new();
            settings.encode(Grease::new(n, value), &mut payload);
            prop_assert!(payload.len() <= PAYLOAD_LEN_MAX);
            prop_assert_eq!(Settings::decode(&payload), Ok(settings));
        }

        #[test]
        fn garbage_is_refused_or_round_trips(payload: Vec<u8>) {
            super::super::fuzz_entry::settings(&payload);
        }
    }
}
