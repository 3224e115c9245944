use proptest::prelude::*;

use super::super::fuzz_entry;
use super::super::testing::hex;
use super::*;

const SIZE_MAX: u64 = 4096;

fn line(name: &str, value: &str) -> FieldLine {
    FieldLine {
        name: Bytes::copy_from_slice(name.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        never_indexed: false,
    }
}

fn section(lines: &[FieldLine]) -> Vec<u8> {
    let mut out = Vec::new();
    let lines = lines
        .iter()
        .map(|line| (&*line.name, &*line.value, line.never_indexed));
    encode(lines, &mut out);
    out
}

fn integer(flags: u8, prefix_bits: u32, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encode_integer(flags, prefix_bits, value, &mut out);
    out
}

#[test]
fn integer_vectors() {
    let vectors = [
        (0xc0, 6, 25, "d9"),
        (0xc0, 6, 63, "ff 00"),
        (0xc0, 6, 98, "ff 23"),
        (0x70, 4, 84, "7f 45"),
        (0x20, 3, 9, "27 02"),
        (0x00, 5, 1337, "1f 9a 0a"),
    ];
    for (flags, prefix_bits, value, octets) in vectors {
        assert_eq!(integer(flags, prefix_bits, value), hex(octets));
        let octets = hex(octets);
        let mut input = Input(&octets);
        let first = input.octet().unwrap();
        assert_eq!(input.integer(first, prefix_bits), Ok(value));
        assert_eq!(input.0, b"");
    }
}

#[test]
fn integers_have_up_to_62_bits() {
    // spec: 9204-4.1.1-a
    let largest = integer(0, 8, INTEGER_MAX);
    let mut input = Input(&largest);
    let first = input.octet().unwrap();
    assert_eq!(input.integer(first, 8), Ok(INTEGER_MAX));

    let too_large = integer(0, 8, INTEGER_MAX + 1);
    let mut input = Input(&too_large);
    let first = input.octet().unwrap();
    assert!(input.integer(first, 8).is_err());

    // Ten octets of nothing are an odd zero, eleven are an attack.
    for (zeros, expected) in [(9, Some(63)), (10, None)] {
        let octets: Vec<u8> = std::iter::repeat_n(0x80, zeros).chain([0]).collect();
        assert_eq!(Input(&octets).integer(0xff, 6).ok(), expected);
    }
}

#[test]
fn refuses_what_needs_a_dynamic_table() {
    // spec: 9204-4.5.1-a, 9204-3.1-a, 9204-4.1.1-a
    let sections = [
        "01 00 d9",
        "00 80 d9",
        "00 00 80",
        "00 00 10",
        "00 00 40 00",
        "00 00 00 00",
        "00 00 ff 24",
        "00 00 5f 54 00",
        "00 00 50 84 ff ff ff ff",
        "00 00 50 82 1f ff",
        "00 00 50 81 18",
        "00 00 ff ff ff ff ff ff ff ff ff ff ff ff 7f",
        "00 00 50 0b 65",
        "00",
        "",
    ];
    for text in sections {
        let error = decode(&hex(text), SIZE_MAX).unwrap_err();
        assert!(matches!(error, Error::Decompression(_)), "{text}");
        assert_eq!(error.code(), Some(Code::QPACK_DECOMPRESSION_FAILED));
    }
}

#[test]
fn reads_what_is_allowed() {
    let sections = [
        ("00 05 d9", line(":status", "200")),
        ("00 00 ff 23", line("x-frame-options", "sameorigin")),
        ("00 00 ff 00", line(":status", "100")),
        ("00 00 50 00", line(":authority", "")),
        ("00 00 50 81 1f", line(":authority", "a")),
    ];
    for (text, expected) in sections {
        assert_eq!(decode(&hex(text), SIZE_MAX), Ok(vec![expected]), "{text}");
    }
    assert_eq!(decode(&hex("00 00"), SIZE_MAX), Ok(vec![]));
}

#[test]
fn keeps_the_never_indexed_bit() {
    // spec: 9204-4.5.4-a
    let mut expected = line("authorization", "Bearer x");
    expected.never_indexed = true;
    let block = hex("00 00 7f 45 08 42 65 61 72 65 72 20 78");
    assert_eq!(decode(&block, SIZE_MAX), Ok(vec![expected.clone()]));
    let block = section(&[expected]);
    assert!(block.starts_with(&hex("00 00 7f 45")));

    // A line that the table holds is spelt out as well.
    let mut status = line(":status", "200");
    status.never_indexed = true;
    assert!(section(&[status]).starts_with(&hex("00 00 7f 0a")));
    let mut custom = line("x-secret", "~");
    custom.never_indexed = true;
    assert_eq!(
        section(&[custom]).get(2).map(|first| first & 0xf0),
        Some(0x30)
    );
}

#[test]
fn writes_static_references_and_short_strings() {
    assert_eq!(section(&[line(":status", "200")]), hex("00 00 d9"));
    // A status without an entry uses the name of entry 24.
    assert!(section(&[line(":status", "502")]).starts_with(&hex("00 00 5f 09")));
    // Huffman code only where it is shorter.
    let block = section(&[line("capsule-protocol", "?1")]);
    assert_eq!(
        block,
        hex("00 00 2f 04 20 eb 45 b4 15 6a ec 3a 4e 43 d1 02 3f 31")
    );
}

#[test]
fn bounds_the_size_of_a_section() {
    // spec: 9114-4.2.2-a
    let block = section(&[line(":status", "200"), line(":status", "200")]);
    assert!(decode(&block, 84).is_ok());
    let error = decode(&block, 83).unwrap_err();
    assert_eq!(error, Error::TooLarge { size: 84, max: 83 });
    // spec: 9114-4.2.2-c; the connection survives.
    assert_eq!(error.code(), None);
}

#[test]
fn bounds_the_number_of_lines() {
    let block = |lines| [vec![0, 0], vec![0xd9; lines]].concat();
    let lines = decode(&block(LINES_MAX), u64::MAX).unwrap();
    assert_eq!(lines.len(), LINES_MAX);
    assert_eq!(
        decode(&block(LINES_MAX + 1), u64::MAX),
        Err(Error::TooManyLines)
    );
}

#[test]
fn encoder_stream_may_only_set_capacity_0() {
    // spec: 9204-4.3-a
    let mut stream = EncoderStream::default();
    assert_eq!(stream.feed(&hex("20 20")), Ok(()));
    assert_eq!(stream.feed(&[]), Ok(()));
    // Capacity 1 and 31, insert with static and dynamic name, literal insert, duplicate.
    for octets in ["21", "3f 00", "c0 00", "80 00", "41 61 00", "00", "20 21"] {
        let result = EncoderStream::default().feed(&hex(octets));
        assert_eq!(result, Err(Code::QPACK_ENCODER_STREAM_ERROR), "{octets}");
    }
}

#[test]
fn decoder_stream_may_only_cancel_streams() {
    // spec: 9204-4.4-a
    let mut stream = DecoderStream::default();
    for octets in ["40 44 7f", "00", "", "7f 80 80", "01 48"] {
        assert_eq!(stream.feed(&hex(octets)), Ok(()), "{octets}");
    }
    // Section acknowledgment, increments by 0 and 1, and an id of 63 bits.
    for octets in ["80", "00", "01", "40 80", "7f ff ff ff ff ff ff ff ff 7f"] {
        let result = DecoderStream::default().feed(&hex(octets));
        assert_eq!(result, Err(Code::QPACK_DECODER_STREAM_ERROR), "{octets}");
    }
}

prop_compose! {
    fn any_line()(name: Vec<u8>, value: Vec<u8>, never_indexed: bool) -> FieldLine {
        FieldLine { name: name.into(), value: value.into(), never_indexed }
    }
}

fn static_line() -> impl Strategy<Value = FieldLine> {
    (0..99_u64).prop_map(|index| {
        let (name, value) = static_table::entry(index).unwrap();
        line(name, value)
    })
}

proptest! {
    #[test]
    fn round_trip(
        lines in proptest::collection::vec(prop_oneof![any_line(), static_line()], 0..20),
    ) {
        prop_assert_eq!(decode(&section(&lines), u64::MAX), Ok(lines));
    }

    #[test]
    fn integers_round_trip(value in 0..=INTEGER_MAX, prefix_bits in 1..=8_u32) {
        let octets = integer(0, prefix_bits, value);
        let mut input = Input(&octets);
        let first = input.octet().unwrap();
        prop_assert_eq!(input.integer(first, prefix_bits), Ok(value));
        prop_assert!(input.0.is_empty());
    }

    #[test]
    fn a_cut_section_is_refused_or_shorter(
        lines in proptest::collection::vec(any_line(), 1..5),
        cut: proptest::sample::Index,
    ) {
        let block = section(&lines);
        let block = block.get(..cut.index(block.len())).unwrap();
        match decode(block, u64::MAX) {
            Ok(fewer) => prop_assert!(lines.starts_with(&fewer) && fewer.len() < lines.len()),
            Err(error) => prop_assert!(error.code().is_some()),
        }
    }

    #[test]
    fn cancellations_may_be_cut_anywhere(ids in proptest::collection::vec(0..=INTEGER_MAX, 0..9)) {
        let mut octets = Vec::new();
        for id in ids {
            encode_integer(0x40, 6, id, &mut octets);
        }
        let mut stream = DecoderStream::default();
        for piece in octets.chunks(1) {
            prop_assert_eq!(stream.feed(piece), Ok(()));
        }
        prop_assert_eq!(stream.feed(&[0x80]), Err(Code::QPACK_DECODER_STREAM_ERROR));
    }

    #[test]
    fn garbage_is_read_or_refused(mut block: Vec<u8>) {
        fuzz_entry::qpack(&block);
        block.splice(0..0, [0, 0]);
        fuzz_entry::qpack(&block);
    }
}
