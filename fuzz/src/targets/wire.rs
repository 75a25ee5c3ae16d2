//! Frames, packets, messages, transactions.

use crate::input::{Input, join};
use bytes::Bytes;
use nacre_types::{ClientId, Epoch, ObjectId, PgId, PoolId, RequestId, checksum};
use nacre_wire::frame::{Frame, FrameDecoder, FrameError, HEADER_BYTES};
use nacre_wire::messages::*;
use nacre_wire::op::*;
use nacre_wire::stages::{ClientTimes, ReplicaTimes};
use nacre_wire::transaction::{self, Op};
use nacre_wire::{Data, Message, ObjectName, Packet, Transaction};
use prost::Message as _;

/// First byte: how the stream is cut into chunks. Second byte odd: checksums and magic are put right first.
pub fn frames(input: &[u8]) {
    let mut input = Input(input);
    let (cut, repair) = (usize::from(input.u8()) + 1, input.u8() % 2 == 1);
    let mut stream = input.0.to_vec();
    if repair {
        put_right(&mut stream);
    }
    let whole = decode(&stream, stream.len().max(1));
    assert_eq!(decode(&stream, cut), whole, "the same stream in other chunks");
    let mut at = 0;
    for frame in &whole.0 {
        let again = frame.encode();
        assert_eq!(stream[at..at + again.len()], again, "a frame encodes to what it was");
        at += again.len();
        if let Ok(packet) = Packet::from_frame(frame.clone()) {
            let back = Packet::from_frame(packet.to_frame());
            assert_eq!(back.as_ref(), Ok(&packet));
            let _ = packet.data.verify(0);
            let _ = packet.lane();
        }
    }
}

fn decode(stream: &[u8], cut: usize) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    for chunk in stream.chunks(cut) {
        decoder.feed(chunk);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, decoder.finish().err())
}

/// Makes headers valid as far as the stream reaches, so that what lies behind the checksums is reached.
fn put_right(stream: &mut [u8]) {
    let mut at = 0;
    while stream.len() - at >= HEADER_BYTES {
        let rest = &mut stream[at..];
        rest[..6].copy_from_slice(b"NACR\x01\x00");
        let word =
            |rest: &[u8], at: usize| u32::from_le_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let (body, payload, crcs) =
            (word(rest, 8) as usize, word(rest, 12) as usize, word(rest, 16) as usize);
        let checked = body.saturating_add(crcs.saturating_mul(4));
        if let Some(bytes) = rest[HEADER_BYTES..].get(..checked) {
            let crc = checksum::crc32(bytes);
            rest[56..60].copy_from_slice(&crc.to_le_bytes());
        }
        let crc = checksum::crc32(&rest[..60]);
        rest[60..64].copy_from_slice(&crc.to_le_bytes());
        let total = HEADER_BYTES.saturating_add(checked).saturating_add(payload);
        if total > rest.len() {
            break;
        }
        at += total;
    }
}

pub fn frames_seeds() -> Vec<Vec<u8>> {
    let all: Vec<Vec<u8>> = packets().iter().map(|packet| packet.to_frame().encode().to_vec()).collect();
    let mut seeds: Vec<Vec<u8>> = all.iter().map(|frame| [&[63, 1], &frame[..]].concat()).collect();
    seeds.push([&[7, 1], &all[..4].concat()[..]].concat());
    seeds
}

/// One byte of kind, then the body.
pub fn message(input: &[u8]) {
    let mut input = Input(input);
    let kind = u16::from(input.u8());
    let Ok(message) = Message::decode(kind, input.0) else { return };
    assert_eq!(message.kind(), kind);
    let encoded = message.encode();
    let again = Message::decode(kind, &encoded).expect("what was encoded decodes");
    assert_eq!(again, message);
    assert_eq!(again.encode(), encoded);
    match &message {
        Message::RepOp(op) => drop(Transaction::decode(&op.transaction, Data::default())),
        Message::OsdOp(op) => drop(op.object.as_ref().map(ObjectName::decode)),
        _ => {}
    }
}

pub fn message_seeds() -> Vec<Vec<u8>> {
    packets()
        .iter()
        .map(|packet| [&[packet.message.kind() as u8], &packet.message.encode()[..]].concat())
        .collect()
}

/// The body as a part, then the data.
pub fn transaction(input: &[u8]) {
    let mut input = Input(input);
    let body = input.part();
    // Without checksums, as from a peer that forgot them, and with the right number.
    let _ = Transaction::decode(body, Data::plain(Bytes::copy_from_slice(input.0)));
    let Some(transaction) = decoded_transaction(body, input.0) else { return };
    let again = Transaction::decode(&transaction.encode_body(), transaction.payload());
    assert_eq!(again.as_ref(), Ok(&transaction));
    for op in transaction.ops() {
        if let Op::Clone(on) | Op::Rename(on) = op {
            let _ = (transaction.object(on.from), transaction.object(on.to));
        }
    }
}

/// A transaction whose data has the checksums its writes ask for.
pub fn decoded_transaction(body: &[u8], data: &[u8]) -> Option<Transaction> {
    let raw = transaction::TransactionBody::decode(body).ok()?;
    let mut crcs = Vec::new();
    let mut at = 0_usize;
    for op in raw.ops {
        if let Some(Op::Write(extent)) = op.op {
            let end = at.checked_add(usize::try_from(extent.length).ok()?)?;
            crcs.extend(checksum::crcs(extent.offset % (1 << 40), data.get(at..end)?));
            at = end;
        }
    }
    let bytes = Bytes::copy_from_slice(&data[..at]);
    Transaction::decode(body, Data { bytes, crcs }).ok()
}

pub fn transaction_seeds() -> Vec<Vec<u8>> {
    let transaction = sample_transaction();
    vec![[&join(&[&transaction.encode_body()])[..], &transaction.payload().bytes].concat()]
}

pub fn object(name: &str) -> ObjectId {
    ObjectId::new(PoolId(1), "", name).expect("a legal name")
}

/// One with every operation.
pub fn sample_transaction() -> Transaction {
    let (a, b) = (object("a"), object("b"));
    let key = Bytes::from_static(b"key");
    let pairs = vec![transaction::Pair { key: key.clone(), value: Bytes::from_static(b"value") }];
    let mut t = Transaction::new(PgId::new(PoolId(1), 0));
    t.create(&a);
    t.write(&a, 100, Data::checksummed(100, Bytes::from_static(b"some bytes")));
    t.write(&a, 8000, Data::checksummed(8000, vec![7; 300].into()));
    t.zero(&a, 4096, 4096);
    t.truncate(&a, 9000);
    t.set_attrs(&a, pairs.clone());
    t.remove_attrs(&a, vec![key.clone()]);
    t.omap_set(&a, pairs);
    t.omap_remove(&a, vec![key.clone()]);
    t.clone_object(&a, &b);
    t.omap_clear(&a);
    t.rename(&b, &a);
    t.remove(&a);
    t.meta_set(key.clone(), Bytes::from_static(b"meta"));
    t.meta_remove(vec![key.clone()]);
    t.meta_remove_range(key, Bytes::from_static(b"kez"));
    t
}

/// Packets of many kinds.
pub fn packets() -> Vec<Packet> {
    let version = Some(Version { epoch: 3, seq: 4 });
    let name = Some(ObjectName::from(&object("a")));
    let entry = LogEntry {
        kind: 1,
        object: name.clone(),
        version,
        prior_version: version,
        client: 5,
        request: 6,
        ..LogEntry::default()
    };
    let extent = Extent { offset: 0, length: 5 };
    let times = vec![ReplicaTimes { version, queue_ns: 1, write_ns: 2, flush_ns: 3 }];
    let ops = [
        ObjectOpKind::Write(extent),
        ObjectOpKind::SetXattr(transaction::Pair {
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"v"),
        }),
        ObjectOpKind::Read(extent),
        ObjectOpKind::Stat(Empty {}),
    ];
    let messages: Vec<Message> = vec![
        Ping { sent_ns: 1, from: 2, from_instance: 3, to: 4, to_instance: 5 }.into(),
        MapRequest { after: 5, full: true }.into(),
        Subscribe { osdmap: 1, monmap: 1, authmap: 1, config: 1, log_after: Some(1), once: true }.into(),
        Command { json: "{\"prefix\": \"status\"}".into(), input: Bytes::new() }.into(),
        OsdOp {
            object: name.clone(),
            ops: ops.into_iter().map(ObjectOp::from).collect(),
            measured: 64,
            times: Some(Box::new(ClientTimes { request: 8, total_ns: 900, queue_ns: 10, retries_ns: 20 })),
            ..OsdOp::default()
        }
        .into(),
        OsdOpReply { version, osd_ns: Some(0), ..OsdOpReply::default() }.into(),
        RepOp { transaction: sample_transaction().encode_body().into(), measured: true, ..RepOp::default() }
            .into(),
        RepOpReply { acks: vec![RepAck { pg: 1 << 32, interval: 3, version, times }], used_permille: 7 }
            .into(),
        PgLog { entries: vec![entry], ..PgLog::default() }.into(),
        PgNotify {
            info: Some(PgInfo { pg: 1 << 32, exists: true, ..PgInfo::default() }),
            ..PgNotify::default()
        }
        .into(),
        Maps { fsid: "f".into(), newest: 3, oldest: 1, ..Maps::default() }.into(),
    ];
    let request = RequestId { client: ClientId(7), seq: 9 };
    let dress = |(at, message): (usize, Message)| {
        let packet = Packet::new(Epoch(3), message).request(request);
        if at % 2 == 0 {
            packet.on(PgId::new(PoolId(1), 2)).with(Data::checksummed(0, Bytes::from_static(b"hello")))
        } else {
            packet
        }
    };
    messages.into_iter().enumerate().map(dress).collect()
}
