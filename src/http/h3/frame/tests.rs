use proptest::prelude::*;

use super::super::fuzz_entry;
use super::super::testing::hex;
use super::*;

const HEADERS_LEN_MAX: u64 = 100;

/// Everything that `octets` make in one piece, and the state afterwards.
fn read(octets: &[u8]) -> Result<(Vec<FrameEvent>, FrameReader), Code> {
    let mut reader = FrameReader::new(HEADERS_LEN_MAX);
    let mut input = Bytes::copy_from_slice(octets);
    let mut events = Vec::new();
    while let Some(event) = reader.next(&mut input)? {
        events.push(event);
    }
    assert!(input.is_empty());
    Ok((events, reader))
}

fn events(octets: &str) -> Result<Vec<FrameEvent>, Code> {
    read(&hex(octets)).map(|(events, _)| events)
}

#[test]
fn goaway_vectors() {
    let vectors = [
        ("07 08 ff ff ff ff ff ff ff fc", (1 << 62) - 4),
        ("07 01 08", 8),
        ("07 01 00", 0),
    ];
    for (octets, id) in vectors {
        assert_eq!(events(octets), Ok(vec![FrameEvent::GoAway(id)]));
        let mut frame = Vec::new();
        encode_goaway(id, &mut frame);
        assert_eq!(frame, hex(octets));
    }
}

#[test]
fn skips_what_it_does_not_know() {
    // spec: 9114-7.2.8-a, 9114-9-a
    let (events, reader) = read(&hex("21 02 aa bb 40 5f 00")).unwrap();
    let skipped = |ty, len| FrameEvent::Skipped { ty, len };
    assert_eq!(events, [skipped(0x21, 2), skipped(0x5f, 0)]);
    assert_eq!((reader.skipped_frames(), reader.skipped_bytes()), (2, 2));
    assert!(!reader.is_mid_frame());

    // spec: 9218-7.2-a; PRIORITY_UPDATE is not implemented, so it is unknown.
    let (events, reader) = read(&hex("80 0f 07 00 06 00 75 3d 31 2c 69")).unwrap();
    assert_eq!(events, [skipped(0xf0700, 6)]);
    assert_eq!((reader.skipped_frames(), reader.skipped_bytes()), (1, 6));
}

#[test]
fn announces_a_skipped_frame_before_its_payload() {
    // spec: 9114-10.5-a; whoever counts them need not wait for 2^62 octets.
    let (events, reader) = read(&hex("21 ff ff ff ff ff ff ff ff aa")).unwrap();
    assert_eq!(
        events,
        [FrameEvent::Skipped {
            ty: 0x21,
            len: varint::MAX
        }]
    );
    assert_eq!(reader.skipped_bytes(), 1);
    assert!(reader.is_mid_frame());
}

#[test]
fn streams_data_of_any_length() {
    let mut reader = FrameReader::new(HEADERS_LEN_MAX);
    let mut input = Bytes::from(hex("00 ff ff ff ff ff ff ff ff"));
    assert_eq!(reader.next(&mut input), Ok(None));
    assert!(reader.is_mid_frame());
    for piece in [b"one".as_slice(), b"two"] {
        let mut input = Bytes::copy_from_slice(piece);
        let data = FrameEvent::Data(Bytes::copy_from_slice(piece));
        assert_eq!(reader.next(&mut input), Ok(Some(data)));
        assert_eq!(reader.next(&mut input), Ok(None));
    }
}

#[test]
fn an_empty_data_frame_is_an_event() {
    // spec: 9114-4.1-b; its place on the stream matters although it holds nothing.
    assert_eq!(events("00 00"), Ok(vec![FrameEvent::Data(Bytes::new())]));
}

#[test]
fn data_is_not_copied() {
    let mut input = Bytes::from(hex("00 02 aa bb"));
    let payload = input.slice(2..);
    let mut reader = FrameReader::new(HEADERS_LEN_MAX);
    let Ok(Some(FrameEvent::Data(data))) = reader.next(&mut input) else {
        panic!("no data");
    };
    assert_eq!(data.as_ptr(), payload.as_ptr());
}

#[test]
fn control_frames() {
    let expected = vec![
        FrameEvent::Settings(Bytes::from(hex("33 01"))),
        FrameEvent::MaxPushId(5),
        FrameEvent::CancelPush(0x40),
        FrameEvent::PushPromise,
        FrameEvent::Headers(Bytes::from(hex("00 00 d9"))),
    ];
    let octets = "04 02 33 01  0d 01 05  03 02 40 40  05 03 00 00 00  01 03 00 00 d9";
    assert_eq!(events(octets), Ok(expected));
}

#[test]
fn refuses_the_types_of_http2() {
    // spec: 9114-7.2.8-b
    for ty in ["02", "06", "08", "09", "40 08"] {
        let frame = format!("{ty} 00");
        assert_eq!(events(&frame), Err(Code::H3_FRAME_UNEXPECTED), "{frame}");
    }
}

#[test]
fn refuses_surplus_and_missing_octets() {
    // spec: 9114-7.1-a
    for ty in ["07", "0d", "03"] {
        for payload in ["00", "02 00 00", "01 40", "09 00 00 00 00 00 00 00 00 00"] {
            let frame = format!("{ty} {payload}");
            assert_eq!(events(&frame), Err(Code::H3_FRAME_ERROR), "{frame}");
        }
    }
}

#[test]
fn refuses_what_it_would_have_to_buffer() {
    // spec: 9114-4.2.2-c; the length alone is enough.
    assert_eq!(events("01 40 64"), Ok(vec![]));
    assert_eq!(events("01 40 65"), Err(Code::H3_EXCESSIVE_LOAD));
    assert_eq!(events("04 44 00"), Ok(vec![]));
    assert_eq!(events("04 44 01"), Err(Code::H3_EXCESSIVE_LOAD));
    assert_eq!(settings::PAYLOAD_LEN_MAX, 0x400);
}

#[test]
fn knows_where_a_frame_ends() {
    // spec: 9114-7.1-b
    let stream = hex("40 21 40 02 aa bb 01 03 00 00 d9 00 02 aa bb 07 01 00");
    let ends = [0, 6, 11, 15, 18];
    for len in 0..=stream.len() {
        let (_, reader) = read(stream.get(..len).unwrap()).unwrap();
        assert_eq!(reader.is_mid_frame(), !ends.contains(&len), "{len}");
    }
}

#[test]
fn reads_a_varint_in_pieces() {
    // RFC 9000 appendix A.1.
    let vectors = [
        ("c2 19 7c 5e ff 14 e8 8c", 151_288_809_941_952_652),
        ("9d 7f 3e 7d", 494_878_333),
        ("7b bd", 15_293),
        ("25", 37),
        ("40 25", 37),
    ];
    for (octets, value) in vectors {
        let mut reader = VarintReader::default();
        let octets = hex(octets);
        let (last, others) = octets.split_last().unwrap();
        for &octet in others {
            assert_eq!(reader.read(&mut Bytes::from(vec![octet])), None);
            assert!(reader.is_started());
        }
        let mut input = Bytes::from(vec![*last, 0xaa]);
        assert_eq!(reader.read(&mut input), Some(value));
        assert_eq!(input.len(), 1);
    }
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..80);
    let known = prop_oneof![
        Just(DATA),
        Just(HEADERS),
        Just(SETTINGS),
        Just(PUSH_PROMISE),
        0..=varint::MAX
    ];
    let with_payload = (known, payload).prop_map(|(ty, payload)| {
        let mut frame = Vec::new();
        encode_header(ty, payload.len() as u64, &mut frame);
        frame.extend_from_slice(&payload);
        frame
    });
    let with_id = (0..=varint::MAX).prop_map(|id| {
        let mut frame = Vec::new();
        encode_goaway(id, &mut frame);
        frame
    });
    prop_oneof![with_payload, with_id]
}

proptest! {
    #[test]
    fn any_split_gives_the_same_frames(
        cuts in proptest::collection::vec(any::<u8>(), 7),
        frames in proptest::collection::vec(any_frame(), 0..8),
        len: proptest::sample::Index,
    ) {
        let mut data = vec![7];
        data.extend(cuts);
        let stream = frames.concat();
        data.extend(stream.iter().take(len.index(stream.len() + 1)));
        fuzz_entry::frame(&data);
    }

    #[test]
    fn garbage_is_read_or_refused(data: Vec<u8>) {
        fuzz_entry::frame(&data);
    }

    #[test]
    fn unknown_frames_leave_no_trace(ty in 0..1_000_000_u64, payload: Vec<u8>) {
        let mut stream = Vec::new();
        encode_header(0x1f * ty + 0x21, payload.len() as u64, &mut stream);
        stream.extend_from_slice(&payload);
        encode_goaway(4, &mut stream);
        let (events, reader) = read(&stream).unwrap();
        prop_assert_eq!(events.last(), Some(&FrameEvent::GoAway(4)));
        prop_assert_eq!(reader.skipped_bytes(), payload.len() as u64);
    }
}
