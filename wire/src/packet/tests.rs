//! Packets: golden bytes of messages, kinds that are unknown.

use super::*;
use crate::frame::FrameDecoder;
use nacre_types::PoolId;

fn packet() -> Packet {
    let request = RequestId { client: ClientId(7), seq: 9 };
    Packet::new(Epoch(3), Ping { sent_ns: 1, from: 2, from_instance: 3, to: 4, to_instance: 5 })
        .on(PgId::new(PoolId(1), 2))
        .request(request)
        .with(Data::checksummed(100, Bytes::from(vec![5; 9000])))
}

#[test]
fn a_packet_survives_the_wire() {
    let packet = packet();
    let mut decoder = FrameDecoder::new();
    for chunk in packet.to_frame().encode().chunks(777) {
        assert_eq!(decoder.next_frame().unwrap(), None);
        decoder.feed(chunk);
    }
    let frame = decoder.next_frame().unwrap().unwrap();
    decoder.finish().unwrap();
    assert_eq!(Packet::from_frame(frame).unwrap(), packet);
}

#[test]
fn a_head_written_in_place_is_the_frames() {
    let packet = packet();
    let mut out = BytesMut::from(&b"earlier"[..]);
    packet.write_head(&mut out);
    assert_eq!(&out[7..], &packet.to_frame().encode_head()[..]);
}

#[test]
fn golden_bytes_of_a_frame() {
    let packet = Packet::new(Epoch(3), MapRequest { after: 5, full: true });
    let hex: String = packet.to_frame().encode().iter().map(|b| format!("{b:02x}")).collect();
    let expected = concat!(
        "4e414352",         // magic
        "0100",             // version
        "4200",             // kind
        "04000000",         // body_len
        "00000000",         // payload_len
        "00000000",         // crc_count
        "00000000",         // flags
        "ffffffffffffffff", // no PG
        "0300000000000000", // epoch
        "0000000000000000", // client
        "0000000000000000", // seq
    );
    assert_eq!(&hex[..112], expected);
    assert_eq!(&hex[128..], "08051001");
}

#[test]
fn an_unknown_kind_is_refused_by_number() {
    let mut frame = packet().to_frame();
    frame.header.kind = 9999;
    let error = Packet::from_frame(frame).unwrap_err();
    assert_eq!(error, PacketError::UnknownKind { kind: 9999 });
    assert!(error.to_string().contains("9999"));
}

#[test]
fn pieces_are_cut_as_they_were_joined() {
    let pieces =
        [Data::checksummed(10, Bytes::from_static(b"abc")), Data::checksummed(4095, vec![1; 4098].into())];
    let all = Data::concat(&pieces);
    let mut cut = all.cutter();
    assert_eq!(cut.next(10, 3).unwrap(), pieces[0]);
    assert!(!cut.is_done());
    assert_eq!(cut.next(4095, 4098).unwrap(), pieces[1]);
    assert!(cut.is_done());
    assert_eq!(cut.next(0, 1), None);
}
