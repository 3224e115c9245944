//! The laws of this folder as functions of arbitrary octets, for fuzz targets and property tests.
//!
//! Each function panics when a law is broken, and on nothing else.

use bytes::Bytes;

use super::code::Code;
use super::fields;
use super::frame::{FrameEvent, FrameReader};
use super::qpack::{self, DecoderStream, EncoderStream, FieldLine};
use super::settings::{Grease, Settings};

const SECTION_SIZE_MAX: u64 = 4096;
const HEADERS_LEN_MAX: u64 = 64;

/// A field section stays within its limits, survives being encoded again, and the instruction
/// streams do not care how their octets are split.
///
/// # Panics
/// When the law is broken.
pub fn qpack(data: &[u8]) {
    if let Ok(lines) = qpack::decode(data, SECTION_SIZE_MAX) {
        assert!(lines.len() <= qpack::LINES_MAX);
        assert!(lines.iter().map(FieldLine::size).sum::<u64>() <= SECTION_SIZE_MAX);
        assert_eq!(lines, again(&lines));
    }

    let mut whole = DecoderStream::default();
    let mut pieces = DecoderStream::default();
    let in_pieces = data.chunks(1).try_for_each(|piece| pieces.feed(piece));
    assert_eq!(whole.feed(data), in_pieces);
    let mut whole = EncoderStream::default();
    let mut pieces = EncoderStream::default();
    let in_pieces = data.chunks(1).try_for_each(|piece| pieces.feed(piece));
    assert_eq!(whole.feed(data), in_pieces);
}

/// Frames do not depend on how the stream is split. The first octet is the number of cuts (0 to 7),
/// each of the next is the length of a piece; the stream follows.
///
/// # Panics
/// When the law is broken.
pub fn frame(data: &[u8]) {
    let Some((&count, rest)) = data.split_first() else {
        return;
    };
    let Some((cuts, stream)) = rest.split_at_checked(usize::from(count & 7)) else {
        return;
    };
    let whole = run([stream]);
    let mut rest = stream;
    let mut pieces = Vec::new();
    for &cut in cuts {
        let (piece, tail) = rest.split_at(usize::from(cut).min(rest.len()));
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    assert_eq!(whole, run(pieces));
    assert_eq!(whole, run(stream.chunks(1)));
}

/// Settings survive being encoded again.
///
/// # Panics
/// When the law is broken.
pub fn settings(data: &[u8]) {
    if let Ok(settings) = Settings::decode(data) {
        let mut payload = Vec::new();
        settings.encode(Grease::new(1, 1), &mut payload);
        assert_eq!(Settings::decode(&payload), Ok(settings));
    }
}

/// A head that was accepted is accepted again, and the same, once encoded.
///
/// # Panics
/// When the law is broken.
pub fn fields(data: &[u8]) {
    let Ok(lines) = qpack::decode(data, SECTION_SIZE_MAX) else {
        return;
    };
    // An authority taken from Host adds a line.
    if lines.len() == qpack::LINES_MAX {
        return;
    }
    let decode = |block: &[u8]| qpack::decode(block, u64::MAX).unwrap_or_default();
    let size = |lines: &[FieldLine]| lines.iter().map(FieldLine::size).sum::<u64>();
    if let Ok(head) = fields::request_from_lines(lines.clone()) {
        let mut block = Vec::new();
        fields::encode_request(&head, &mut block);
        let lines = decode(&block);
        assert_eq!(size(&lines), fields::section_size(&head));
        assert_eq!(fields::request_from_lines(lines), Ok(head));
    }
    if let Ok(head) = fields::response_from_lines(lines.clone()) {
        let mut block = Vec::new();
        fields::encode_response(&head, &mut block);
        let lines = decode(&block);
        assert_eq!(size(&lines), fields::response_section_size(&head));
        assert_eq!(fields::response_from_lines(lines), Ok(head));
    }
    if let Ok(headers) = fields::trailers_from_lines(lines) {
        assert!(headers.keys().all(|name| !name.as_str().starts_with(':')));
    }
}

fn again(lines: &[FieldLine]) -> Vec<FieldLine> {
    let mut block = Vec::new();
    let lines = lines
        .iter()
        .map(|line| (&*line.name, &*line.value, line.never_indexed));
    qpack::encode(lines, &mut block);
    qpack::decode(&block, SECTION_SIZE_MAX).unwrap_or_default()
}

/// All that a reader says about a stream; DATA octets that follow one another are one event.
#[derive(Debug, PartialEq)]
struct Outcome {
    events: Vec<FrameEvent>,
    data: Vec<u8>,
    error: Option<Code>,
    is_mid_frame: bool,
    skipped: (u64, u64),
}

fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut reader = FrameReader::new(HEADERS_LEN_MAX);
    let mut events = Vec::new();
    let mut data = Vec::new();
    let mut error = None;
    'stream: for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match reader.next(&mut input) {
                Ok(Some(FrameEvent::Data(piece))) => {
                    data.extend_from_slice(&piece);
                    if !matches!(events.last(), Some(FrameEvent::Data(_))) {
                        events.push(FrameEvent::Data(Bytes::new()));
                    }
                }
                Ok(Some(event)) => {
                    if let FrameEvent::Headers(section) = &event {
                        assert!(section.len() as u64 <= HEADERS_LEN_MAX);
                    }
                    events.push(event);
                }
                Ok(None) => {
                    assert!(input.is_empty());
                    break;
                }
                Err(code) => {
                    error = Some(code);
                    break 'stream;
                }
            }
        }
    }
    Outcome {
        events,
        data,
        error,
        is_mid_frame: reader.is_mid_frame(),
        skipped: (reader.skipped_frames(), reader.skipped_bytes()),
    }
}
