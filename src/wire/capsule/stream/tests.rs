use bytes::BytesMut;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::wire::capsule::{encode_capsule, encode_head};
use crate::wire::varint;

/// What a data stream in pieces says: the bytes, whether they ended, and whether it may end here.
type Outcome = (Vec<u8>, bool, Result<(), StreamError>);

/// Unknown capsules with the offset in the stream at which each came.
type Kept = Vec<(usize, CapsuleType, Bytes)>;

fn read_pieces<'a>(token: &str, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Outcome, Work) {
    let (outcome, kept, work) = read_keeping(token, None, pieces);
    assert_eq!(kept, []);
    (outcome, work)
}

fn read_keeping<'a>(
    token: &str,
    keep: Option<usize>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Outcome, Kept, Work) {
    let mut reader = StreamReader::new(Revision::of_token(token).unwrap());
    if let Some(bytes_max) = keep {
        reader.keep_unknown(bytes_max);
    }
    let held_max = keep.unwrap_or_default();
    let (mut bytes, mut ends, mut kept) = (Vec::new(), 0, Vec::new());
    let mut feed = |piece: &[u8]| {
        let mut input = Bytes::copy_from_slice(piece);
        while let Some(event) = reader.read(&mut input)? {
            match event {
                StreamEvent::Data(data) => {
                    assert!(!data.is_empty());
                    bytes.extend_from_slice(&data);
                }
                StreamEvent::Ended => ends += 1,
                StreamEvent::Unknown {
                    capsule_type,
                    value,
                } => kept.push((bytes.len(), capsule_type, value)),
            }
        }
        assert!(input.is_empty());
        assert!(reader.buffered() <= held_max.max(varint::SIZE_MAX));
        assert!(reader.value.capacity() <= held_max);
        Ok(())
    };
    let fed = pieces.into_iter().try_for_each(&mut feed);
    assert_eq!(u32::from(reader.is_ended()), ends);
    let end = fed.and_then(|()| reader.finish());
    ((bytes, reader.is_ended(), end), kept, reader.work())
}

fn read(stream: &[u8]) -> Outcome {
    let whole = read_pieces("connect-tcp", [stream]);
    assert_eq!(whole, read_pieces("connect-tcp", stream.chunks(1)));
    whole.0
}

fn stream(bytes: &[u8], ended: bool, end: Result<(), StreamError>) -> Outcome {
    (bytes.to_vec(), ended, end)
}

// spec: ctcp-3-d, ctcp-3-g; the vectors of section 6 of the CONNECT-TCP digest
#[test]
fn vectors() {
    let (data, last) = (b"\xa0\x28\xd7\xf2", b"\xa0\x28\xd7\xf3");
    let abc = [&data[..], b"\x03abc"].concat();
    assert_eq!(read(&abc), stream(b"abc", false, Err(StreamError::NoFinal)));
    let empty = [&last[..], b"\0"].concat();
    assert_eq!(read(&empty), stream(b"", true, Ok(())));
    let last_abc = [&last[..], b"\x03abc"].concat();
    assert_eq!(read(&last_abc), stream(b"abc", true, Ok(())));
    let longer = [&data[..], b"\x40\x05hello", last, b"\0"].concat();
    assert_eq!(read(&longer), stream(b"hello", true, Ok(())));
    let split = [&data[..], b"\x01a", last, b"\x02bc"].concat();
    assert_eq!(read(&split), read(&last_abc));
    let wide = [&b"\xc0\0\0\0\x20\x28\xd7\xf2\x01a"[..], last, b"\0"].concat();
    assert_eq!(read(&wide), stream(b"a", true, Ok(())));
    let other = b"\x17\x03\xaa\xbb\xcc";
    let between = [
        &data[..],
        b"\x01a",
        other,
        data,
        b"\x01b",
        last,
        b"\0",
        other,
    ]
    .concat();
    assert_eq!(read(&between), stream(b"ab", true, Ok(())));
    assert_eq!(read(b""), stream(b"", false, Err(StreamError::NoFinal)));

    let old = b"\xa0\x28\xd7\xf0\x03abc\xa0\x28\xd7\xf1\0";
    let (outcome, work) = read_pieces("connect-tcp-07", [&old[..]]);
    assert_eq!(outcome, stream(b"abc", true, Ok(())));
    assert_eq!((work.capsules, work.capsules_skipped), (2, 0));
    let skipped = stream(b"", false, Err(StreamError::NoFinal));
    assert_eq!(read(old), skipped);
}

// spec: ctcp-3-d
#[test]
fn nothing_of_the_stream_follows_its_end() {
    for (capsule_type, number) in [(0x2028_d7f2, b"\xf2"), (0x2028_d7f3, b"\xf3")] {
        let stream = [b"\xa0\x28\xd7\xf3\x01z\xa0\x28\xd7", &number[..], b"\0"].concat();
        let capsule_type = CapsuleType(capsule_type);
        let error = StreamError::AfterFinal { capsule_type };
        assert_eq!(read(&stream), (b"z".to_vec(), true, Err(error)));
    }
}

// spec: 9297-3.3-c
#[test]
fn ends_inside_a_capsule() {
    let head = Err(CapsuleError::EndInHead.into());
    let value = |missing| Err(CapsuleError::EndInValue { missing }.into());
    assert_eq!(read(b"\xa0\x28"), stream(b"", false, head));
    assert_eq!(read(b"\xa0\x28\xd7\xf2"), stream(b"", false, head));
    assert_eq!(read(b"\xa0\x28\xd7\xf2\x40"), stream(b"", false, head));
    let cut = b"\xa0\x28\xd7\xf3\x03ab";
    assert_eq!(read(cut), stream(b"ab", false, value(1)));
    assert_eq!(read(b"\x17\x05ab"), stream(b"", false, value(3)));
    let behind = b"\xa0\x28\xd7\xf3\0\x17";
    assert_eq!(read(behind), stream(b"", true, head));
}

// spec: 9297-3.2-a, ctcp-3-g
#[test]
fn unknown_capsules_are_kept_for_those_who_ask() {
    let wire = [
        &b"\0\x02\0z\xa0\x28\xd7\xf2\x02ab\xa0\x28\xd7\xf0\0"[..],
        b"\x17\x04long\xa0\x28\xd7\xf3\x01c\x40\x40\x03def",
    ]
    .concat();
    let expected = [
        // A datagram means nothing here.
        (0, CapsuleType::DATAGRAM, Bytes::from_static(b"\0z")),
        // DATA of another revision.
        (2, CapsuleType(0x2028_d7f0), Bytes::new()),
        (3, CapsuleType(0x40), Bytes::from_static(b"def")),
    ];
    for cut in 1..=wire.len() {
        let (outcome, kept, work) = read_keeping("connect-tcp", Some(3), wire.chunks(cut));
        assert_eq!(outcome, stream(b"abc", true, Ok(())));
        assert_eq!(kept, expected);
        let skipped = Work {
            capsules: 6,
            capsules_skipped: 1,
            bytes_skipped: 4,
        };
        assert_eq!(work, skipped);
    }
}

// spec: 9297-3.3-c
#[test]
fn ends_inside_a_kept_capsule() {
    for wire in [&b"\x17\x03a"[..], b"\xa0\x28\xd7\xf3\0\x17\x03a"] {
        let ((_, _, end), kept, _) = read_keeping("connect-tcp", Some(3), [wire]);
        assert_eq!(kept, []);
        assert_eq!(end, Err(CapsuleError::EndInValue { missing: 2 }.into()));
    }
}

// spec: ctcp-3-e
#[test]
fn payload_does_not_wait_for_its_capsule() {
    let mut input = BytesMut::new();
    encode_head(Revision::newest().data, varint::MAX, &mut input);
    input.extend_from_slice(b"first");
    let mut reader = StreamReader::new(Revision::newest());
    let mut input = input.freeze();
    let first = StreamEvent::Data(Bytes::from_static(b"first"));
    assert_eq!(reader.read(&mut input), Ok(Some(first)));
    assert_eq!(reader.read(&mut input), Ok(None));
    let missing = varint::MAX - 5;
    assert_eq!(
        reader.finish(),
        Err(CapsuleError::EndInValue { missing }.into())
    );
}

proptest! {
    // spec: ctcp-3-f
    #[test]
    fn any_capsules_in_any_split_carry_the_same_bytes(
        chunks in vec((vec(any::<u8>(), 0..20), any::<bool>()), 0..12),
        last in vec(any::<u8>(), 0..20),
        cut in 1_usize..40,
        keep in 0_usize..20,
    ) {
        let revision = Revision::newest();
        let (mut wire, mut sent, mut others) = (BytesMut::new(), Vec::new(), Vec::new());
        for (chunk, is_data) in &chunks {
            let other = CapsuleType(0x17);
            let capsule_type = if *is_data { revision.data } else { other };
            encode_capsule(capsule_type, chunk, &mut wire);
            if *is_data {
                sent.extend_from_slice(chunk);
            } else if chunk.len() <= keep {
                others.push((sent.len(), other, Bytes::copy_from_slice(chunk)));
            }
        }
        encode_capsule(revision.final_data, &last, &mut wire);
        sent.extend_from_slice(&last);
        let (outcome, work) = read_pieces(revision.token, wire.chunks(cut));
        prop_assert_eq!(&outcome, &(sent, true, Ok(())));
        prop_assert_eq!(work.capsules, chunks.len() as u64 + 1);

        let (same, kept, _) = read_keeping(revision.token, Some(keep), wire.chunks(cut));
        prop_assert_eq!((same, kept), (outcome, others));
    }

    #[test]
    fn garbage_is_harmless(
        wire in vec(prop_oneof![0u8..20, any::<u8>()], 0..300),
        cut in 1_usize..40,
        keep in 0_usize..40,
    ) {
        let whole = read_pieces("connect-tcp", [&wire[..]]);
        prop_assert_eq!(&whole, &read_pieces("connect-tcp", wire.chunks(cut)));

        let kept = read_keeping("connect-tcp", Some(keep), [&wire[..]]);
        prop_assert_eq!(&kept, &read_keeping("connect-tcp", Some(keep), wire.chunks(cut)));
        prop_assert_eq!(kept.0, whole.0);
    }
}
