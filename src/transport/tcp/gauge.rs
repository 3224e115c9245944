//! Watches the frames that a peer sends on HTTP/2, to tell floods from work.
//!
//! The h2 package answers PING and SETTINGS, follows WINDOW_UPDATE and forgets PRIORITY as fast as they come. A peer
//! that sends nothing else keeps a core busy for free. So each control frame costs a point; data in either direction,
//! and time, give points back. nginx has the same rule by bytes (`total_bytes / 8 > payload_bytes + 1 MiB`).
//!
//! Reads frame headers only (RFC 9113 section 4.1), in any split, and never rejects anything that h2 would take. It
//! also notes what h2 does not tell: the first SETTINGS, GOAWAY and its last stream, and a head that is not complete.

use std::time::Instant;

/// Bytes of DATA, received or sent, that pay for one control frame.
const BYTES_PER_FRAME: u64 = 512;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const RST_STREAM: u8 = 0x3;
const SETTINGS: u8 = 0x4;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const PREFACE_LEN: usize = 24;
const FRAME_HEADER_LEN: usize = 9;

/// The frames of one direction.
#[derive(Debug)]
pub(super) struct Gauge {
    /// Bytes of the preface that are still to come.
    preface: usize,
    header: [u8; FRAME_HEADER_LEN],
    header_len: usize,
    /// Payload bytes of the current frame that are still to come.
    payload: usize,
    /// Where the next payload byte of a GOAWAY goes; the last stream is the first four.
    goaway: Option<(usize, [u8; 4])>,
    /// Stays below `points_max`; zero means a flood.
    points: u64,
    points_max: u64,
    /// Bytes that have not made a whole point.
    bytes: u64,
    refilled: Option<Instant>,
    flooded: bool,
    /// SETTINGS of the peer arrived.
    pub(super) settings_seen: bool,
    /// The last stream of the newest GOAWAY.
    pub(super) goaway_last: Option<u32>,
    /// A field section has begun and is not complete.
    pub(super) is_mid_head: bool,
}

impl Gauge {
    /// `is_server` says that a client preface comes first; `points_max` control frames are free.
    pub(super) fn new(is_server: bool, points_max: u64) -> Self {
        Self {
            preface: if is_server { PREFACE_LEN } else { 0 },
            header: [0; FRAME_HEADER_LEN],
            header_len: 0,
            payload: 0,
            goaway: None,
            points: points_max,
            points_max,
            bytes: 0,
            refilled: None,
            flooded: false,
            settings_seen: false,
            goaway_last: None,
            is_mid_head: false,
        }
    }

    /// Whether the peer sent more control frames than it had points for.
    pub(super) const fn is_flooded(&self) -> bool {
        self.flooded
    }

    /// Gives a tenth of all points back for each second that went by.
    pub(super) fn refill(&mut self, now: Instant) {
        let since = *self.refilled.get_or_insert(now);
        let tenths = now.saturating_duration_since(since).as_secs();
        if tenths > 0 {
            self.refilled = Some(now);
            let gained = self.points_max.saturating_mul(tenths) / 10;
            self.points = self.points_max.min(self.points.saturating_add(gained));
        }
    }

    /// Counts bytes of DATA in either direction as work.
    pub(super) fn note_work(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes >= BYTES_PER_FRAME {
            let gained = self.bytes / BYTES_PER_FRAME;
            self.bytes %= BYTES_PER_FRAME;
            self.points = self.points_max.min(self.points.saturating_add(gained));
        }
    }

    /// Takes in what the peer sent.
    pub(super) fn note_received(&mut self, mut input: &[u8]) {
        let preface = self.preface.min(input.len());
        self.preface -= preface;
        input = input.get(preface..).unwrap_or_default();
        while !input.is_empty() {
            if self.payload > 0 {
                let len = self.payload.min(input.len());
                let (part, rest) = input.split_at(len);
                self.note_payload(part);
                self.payload -= len;
                input = rest;
                continue;
            }
            let missing = FRAME_HEADER_LEN - self.header_len;
            let (part, rest) = input.split_at(missing.min(input.len()));
            if let Some(room) = self.header.get_mut(self.header_len..) {
                for (to, from) in room.iter_mut().zip(part) {
                    *to = *from;
                }
            }
            self.header_len += part.len();
            input = rest;
            if self.header_len == FRAME_HEADER_LEN {
                self.header_len = 0;
                self.note_frame();
            }
        }
    }

    fn note_payload(&mut self, part: &[u8]) {
        if let Some((filled, last)) = &mut self.goaway {
            for &byte in part {
                if let Some(slot) = last.get_mut(*filled) {
                    *slot = byte;
                    *filled += 1;
                }
            }
            if *filled == last.len() {
                self.goaway_last = Some(u32::from_be_bytes(*last) & 0x7fff_ffff);
                self.goaway = None;
            }
        }
    }

    fn note_frame(&mut self) {
        let [a, b, c, kind, flags, ..] = self.header;
        let len = u32::from_be_bytes([0, a, b, c]) as usize;
        self.payload = len;
        self.goaway = None;
        let cost = match kind {
            DATA if len > 0 || flags & END_STREAM != 0 => {
                self.note_work(len);
                0
            }
            HEADERS => {
                self.is_mid_head = flags & END_HEADERS == 0;
                0
            }
            CONTINUATION => {
                self.is_mid_head = flags & END_HEADERS == 0;
                1
            }
            SETTINGS => {
                self.settings_seen |= flags & ACK == 0;
                1
            }
            GOAWAY => {
                self.goaway = Some((0, [0; 4]));
                1
            }
            // Opening and resetting is the dearest that a client can ask for (CVE-2023-44487).
            RST_STREAM => 2,
            WINDOW_UPDATE => 1,
            // An empty DATA, PING, PRIORITY, and what nobody knows.
            _ => 1,
        };
        match self.points.checked_sub(cost) {
            Some(points) => self.points = points,
            None => self.flooded = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    fn start() -> Instant {
        crate::net::clock::now()
    }

    // spec: 9113-10.5-a
    #[test]
    fn control_frames_without_work_are_a_flood() {
        for (kind, free) in [(6, 100), (4, 100), (2, 100), (9, 100), (3, 50), (8, 100)] {
            let mut gauge = Gauge::new(false, 100);
            for _ in 0..free {
                gauge.note_received(&frame(kind, 0, &[0; 8]));
            }
            assert!(!gauge.is_flooded(), "{kind}");
            gauge.note_received(&frame(kind, 0, &[0; 8]));
            assert!(gauge.is_flooded(), "{kind}");
        }
    }

    #[test]
    fn work_and_time_pay_for_control_frames() {
        let mut gauge = Gauge::new(false, 10);
        for _ in 0..1000 {
            gauge.note_received(&frame(8, 0, &[0; 4]));
            gauge.note_received(&frame(DATA, 0, &[0; 600]));
        }
        let now = start();
        gauge.refill(now);
        for second in 1..1000 {
            gauge.refill(now + Duration::from_secs(second));
            gauge.note_received(&frame(6, 0, &[0; 8]));
        }
        assert!(!gauge.is_flooded());
    }

    #[test]
    fn empty_data_is_no_work_unless_it_ends_a_stream() {
        let mut gauge = Gauge::new(false, 10);
        for _ in 0..100 {
            gauge.note_received(&frame(DATA, END_STREAM, &[]));
        }
        assert!(!gauge.is_flooded());
        for _ in 0..11 {
            gauge.note_received(&frame(DATA, 0, &[]));
        }
        assert!(gauge.is_flooded());
    }

    #[test]
    fn knows_settings_goaway_and_heads_that_are_not_complete() {
        let mut gauge = Gauge::new(true, 10);
        gauge.note_received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        gauge.note_received(&frame(SETTINGS, ACK, &[]));
        assert!(!gauge.settings_seen);
        gauge.note_received(&frame(SETTINGS, 0, &[]));
        assert!(gauge.settings_seen && !gauge.is_mid_head);
        gauge.note_received(&frame(HEADERS, 0, b"abc"));
        assert!(gauge.is_mid_head);
        gauge.note_received(&frame(CONTINUATION, END_HEADERS, b"abc"));
        assert!(!gauge.is_mid_head && gauge.goaway_last.is_none());
        gauge.note_received(&frame(GOAWAY, 0, &[0x80, 0, 0, 5, 0, 0, 0, 0]));
        assert_eq!(gauge.goaway_last, Some(5));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            frames in prop::collection::vec((0u8..12, any::<u8>(), 0usize..40), 0..40),
            cuts in prop::collection::vec(1usize..20, 0..60),
        ) {
            let bytes: Vec<u8> = frames
                .iter()
                .flat_map(|&(kind, flags, len)| frame(kind, flags, &vec![kind; len]))
                .collect();
            let mut whole = Gauge::new(false, 20);
            whole.note_received(&bytes);
            let mut pieces = Gauge::new(false, 20);
            let mut rest = &bytes[..];
            for cut in cuts {
                let (piece, tail) = rest.split_at(cut.min(rest.len()));
                pieces.note_received(piece);
                rest = tail;
            }
            pieces.note_received(rest);
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }
    }
}
