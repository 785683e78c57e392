use proptest::prelude::*;

use super::*;

fn frame(kind: Kind, payload: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    put(&mut bytes, kind, payload);
    bytes
}

/// All frames in `bytes`, fed in pieces of `step`, and how it ended.
fn decode(bytes: &[u8], step: usize, bytes_max: u32) -> (Vec<Frame>, Result<(), FrameError>) {
    let mut decoder = Decoder::new(bytes_max);
    let mut frames = Vec::new();
    for piece in bytes.chunks(step.max(1)) {
        decoder.room().extend_from_slice(piece);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, Ok(()))
}

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283, "the check value of the CRC catalogue");
}

/// Written down once; a change here is a change of the protocol.
#[test]
fn h137_bytes_of_every_kind() {
    for (kind, payload, want) in [
        (Kind::Hello, &b"h"[..], "4944a740010000000168"),
        (Kind::Refused, &[4, 0], "2c00dd6a02000000020400"),
        (Kind::Message, b"", "c18522560000000003"),
        (Kind::Message, b"hello", "eaf859e0050000000368656c6c6f"),
        (Kind::Ping, &[1, 0, 0, 0, 0, 0, 0, 0], "29afd5a808000000040100000000000000"),
        (Kind::Pong, &[1, 0, 0, 0, 0, 0, 0, 0], "6179eb5c08000000050100000000000000"),
        (Kind::SnapshotBegin, b"head", "57175657040000000668656164"),
        (Kind::SnapshotChunk, &[0, 0, 0, 0, 0, 0, 0, 0, 7], "17ce3f260900000007000000000000000007"),
        (
            Kind::SnapshotEnd,
            &[1, 0, 0, 0, 0, 0, 0, 0, 9, 8, 7, 6],
            "a113fca90c00000008010000000000000009080706",
        ),
        (Kind::SnapshotReply, &[0, 0], "469f28f602000000090000"),
    ] {
        let bytes = frame(kind, payload);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, want, "{kind:?}");
        let (frames, end) = decode(&bytes, 1, 64);
        assert_eq!((frames.len(), end), (1, Ok(())), "{kind:?}");
        assert_eq!((frames[0].kind, &frames[0].payload[..]), (kind, payload));
    }
}

#[test]
fn chunks_of_one_payload_are_one_frame() {
    let chunks = [&b"ab"[..], b"", b"cde"];
    let mut bytes = BytesMut::new();
    bytes.extend_from_slice(&header(Kind::Message, 5, chunks.into_iter()));
    bytes.extend_from_slice(&chunks.concat());
    assert_eq!(bytes, frame(Kind::Message, b"abcde"));
}

#[test]
fn h165_a_length_is_judged_before_it_is_used() {
    for (length, want) in [
        (99, Ok(())),
        (100, Ok(())),
        (101, Err(FrameError::TooLong { bytes: 101, bytes_max: 100 })),
        (u32::MAX, Err(FrameError::TooLong { bytes: u32::MAX, bytes_max: 100 })),
    ] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8] = Kind::Message as u8;
        assert_eq!(decode(&bytes, 64, 100).1, want, "{length}");
    }
}

#[test]
fn h165_memory_grows_with_what_came_and_not_with_what_was_claimed() {
    let mut decoder = Decoder::new(FRAME_BYTES_CEILING);
    let mut head = [0; HEADER_BYTES];
    head[4..8].copy_from_slice(&FRAME_BYTES_CEILING.to_le_bytes());
    head[8] = Kind::Message as u8;
    decoder.room().extend_from_slice(&head);
    for _ in 0..200 {
        let room = decoder.room();
        let (len, capacity) = (room.len(), room.capacity());
        assert!(len < capacity, "there is room to read into");
        assert!(capacity <= 4 * len + 2 * READ_BYTES, "{capacity} for {len} bytes");
        let take = (capacity - len).min(1 << 20).min(10_000);
        room.extend_from_slice(&vec![0; take]);
        assert_eq!(decoder.next(), Ok(None));
    }
}

#[test]
fn kinds_that_are_not_known_are_refused() {
    for kind in [0, 10, 255] {
        let mut bytes = frame(Kind::Message, b"x");
        bytes[8] = kind;
        assert_eq!(decode(&bytes, 64, 64).1, Err(FrameError::UnknownKind { kind }));
    }
}

#[test]
fn h130_no_flipped_bit_goes_unnoticed() {
    let good = frame(Kind::Message, b"some bytes");
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let (frames, end) = decode(&bytes, 64, 1 << 20);
        assert!(frames.is_empty(), "bit {bit} gave {frames:?}");
        // A length that grew waits for bytes that never come; the checksum fails when others do.
        let grown = (32..64).contains(&bit) && end == Ok(());
        assert!(end.is_err() || grown, "bit {bit}");
    }
}

#[test]
fn short_payloads_are_an_error_and_long_ones_are_not() {
    for (length, good) in [(0, false), (7, false), (8, true), (9, true)] {
        let payload = Bytes::from(vec![3; length]);
        let fixed = Frame { kind: Kind::Ping, payload }.fixed::<8>();
        assert_eq!(fixed.is_ok(), good, "{length}");
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    (1u8..=9).prop_map(|byte| Kind::from_byte(byte).expect("in range"))
}

proptest! {
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>, step in 1usize..40, max in 0u32..200) {
        let (frames, _) = decode(&bytes, step, max);
        prop_assert!(frames.iter().all(|frame| frame.payload.len() <= max as usize));
    }

    #[test]
    fn what_was_put_comes_out(
        sent in prop::collection::vec((kinds(), prop::collection::vec(any::<u8>(), 0..300)), 0..20),
        step in 1usize..500,
    ) {
        let mut bytes = BytesMut::new();
        for (kind, payload) in &sent {
            put(&mut bytes, *kind, payload);
        }
        let (frames, end) = decode(&bytes, step, 300);
        prop_assert_eq!(end, Ok(()));
        let got: Vec<_> =
            frames.into_iter().map(|frame| (frame.kind, frame.payload.to_vec())).collect();
        prop_assert_eq!(got, sent);
    }

    /// Damage may end the stream early, but every frame that comes out is one that was put in.
    #[test]
    fn h130_damage_never_makes_a_frame(
        sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 1..8),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4),
        step in 1usize..100,
    ) {
        let mut bytes = BytesMut::new();
        for payload in &sent {
            put(&mut bytes, Kind::Message, payload);
        }
        for (at, mask) in damage {
            let at = at.index(bytes.len());
            bytes[at] ^= mask;
        }
        let (frames, _) = decode(&bytes, step, 1 << 10);
        for (frame, payload) in frames.iter().zip(&sent) {
            prop_assert_eq!(&frame.payload[..], &payload[..]);
        }
        prop_assert!(frames.len() <= sent.len());
    }
}
