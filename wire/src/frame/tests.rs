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

proptest! {
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
