//! Frames: golden bytes, cuts at every byte, arbitrary bytes.

use super::decoder::RESERVE_BYTES;
use super::*;
use proptest::prelude::*;

fn frame() -> Frame {
    Frame {
        header: Header { kind: 5, flags: 0, pg: 1, epoch: 2, client: 3, seq: 4 },
        body: Bytes::from_static(b"body"),
        crcs: vec![1, 2],
        payload: Bytes::from_static(b"payload"),
    }
}

fn decode(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
    let mut decoder = FrameDecoder::new();
    decoder.feed(bytes);
    decoder.next_frame()
}

#[test]
fn every_flipped_bit_before_the_payload_is_noticed() {
    let good = frame().encode();
    for bit in 0..(good.len() - frame().payload.len()) * 8 {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn lengths_are_bounded_before_anything_is_allocated() {
    for at in [8, 12, 16] {
        let mut bytes = frame().encode().to_vec();
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let crc = checksum::crc32(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        assert!(matches!(decode(&bytes), Err(FrameError::TooLarge { .. })), "field at {at}");
    }
}

#[test]
fn an_end_inside_a_frame_is_noticed() {
    let bytes = frame().encode();
    let mut decoder = FrameDecoder::new();
    decoder.feed(&bytes[..bytes.len() - 1]);
    assert_eq!(decoder.next_frame(), Ok(None));
    assert_eq!(decoder.finish(), Err(FrameError::Truncated));
}

#[test]
fn a_frame_in_one_chunk_is_not_copied() {
    let mut big = frame();
    big.payload = vec![7; 5000].into();
    let mut stream = BytesMut::new();
    for _ in 0..3 {
        stream.extend_from_slice(&big.encode());
    }
    let stream = stream.freeze();
    let mut decoder = FrameDecoder::new();
    decoder.feed_bytes(stream.clone());
    for _ in 0..3 {
        let got = decoder.next_frame().unwrap().unwrap();
        assert_eq!(got, big);
        assert!(stream.as_ptr_range().contains(&got.payload.as_ptr()));
    }
    assert_eq!(decoder.next_frame(), Ok(None));
    decoder.finish().unwrap();
}

#[test]
fn a_large_payload_is_aligned() {
    for (size, body) in [(32 << 10, 0), (1 << 20, 100), (5 << 20, 9000)] {
        let payload: Vec<u8> = (0..size).map(|at| (at / 4093 + at) as u8).collect();
        let big = Frame { body: vec![3; body].into(), payload: payload.into(), ..frame() };
        let stream = [big.encode(), frame().encode(), big.encode()].concat();
        let mut decoder = FrameDecoder::new();
        let mut got = Vec::new();
        for chunk in stream.chunks(6437) {
            decoder.feed(chunk);
            got.extend(std::iter::from_fn(|| decoder.next_frame().unwrap()));
        }
        decoder.finish().unwrap();
        assert_eq!(got, [big.clone(), frame(), big]);
        assert!((got[0].payload.as_ptr() as usize).is_multiple_of(checksum::BLOCK));
    }
}

#[test]
fn an_announced_payload_reserves_little() {
    let header = Header { kind: 1, ..Header::default() };
    let mut head = BytesMut::new();
    write_head(&mut head, &header, &[], PAYLOAD_BYTES_MAX, |_| {});
    let mut decoder = FrameDecoder::new();
    decoder.feed(&head);
    decoder.feed(b"x");
    assert_eq!(decoder.next_frame(), Ok(None));
    assert!(decoder.reserved_bytes() <= RESERVE_BYTES + 2 * checksum::BLOCK);
    // Nor do a few more bytes, in whatever pieces.
    let mut decoder = FrameDecoder::new();
    for piece in [&head[..], &[1; 300]].concat().chunks(37) {
        decoder.feed(piece);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(decoder.reserved_bytes() <= RESERVE_BYTES + 2 * checksum::BLOCK);
    }
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_frames(
        sizes in proptest::collection::vec(prop_oneof![0_usize..9000, 30_000_usize..80_000], 1..6),
        cuts in proptest::collection::vec(1_usize..5000, 1..20),
    ) {
        let frames: Vec<Frame> = sizes.iter().enumerate().map(|(i, &size)| Frame {
            header: Header { seq: i as u64, ..Header::default() },
            body: vec![1; size % 100].into(),
            crcs: vec![9; size % 3],
            payload: (0..size).map(|at| (at / 251 + at + i) as u8).collect(),
        }).collect();
        let mut stream = Bytes::from(frames.iter().flat_map(|f| f.encode().to_vec()).collect::<Vec<u8>>());
        let mut decoder = FrameDecoder::new();
        let mut got = Vec::new();
        for (i, cut) in cuts.iter().cycle().enumerate() {
            if stream.is_empty() {
                break;
            }
            decoder.feed_bytes(stream.split_to((*cut).min(stream.len())));
            if i % 3 != 0 {
                while let Some(frame) = decoder.next_frame().unwrap() {
                    got.push(frame);
                }
            }
        }
        while let Some(frame) = decoder.next_frame().unwrap() {
            got.push(frame);
        }
        decoder.finish().unwrap();
        prop_assert_eq!(got, frames);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        let mut framed = frame().encode().to_vec();
        framed.extend(bytes);
        let mut decoder = FrameDecoder::new();
        decoder.feed(&framed);
        prop_assert_eq!(decoder.next_frame().unwrap().unwrap(), frame());
        let _ = decoder.next_frame();
    }

    #[test]
    fn arbitrary_bodies_decode_or_refuse(kind in 0_u16..128, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = crate::Message::decode(kind, &body);
        let _ = crate::Transaction::decode(&body, crate::Data::default());
    }
}
