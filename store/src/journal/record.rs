//! One journal record's bytes.
//!
//! ```text
//! header (80 bytes) | payload table | direct table | key changes | key ranges | zeroes to 4 KiB | payload blocks
//! \_______________ crc in the header covers all of this ________/               \_ each by its crc in the table _/
//! ```
//!
//! The payload is whole blocks of data, written in place later. *Direct* data went to fresh blocks at the same time; the
//! record only counts if those blocks match the crcs in its table.

use crate::KvOp;
use crate::codec::{Reader, put_bytes, put_u32, put_varint};
use crate::index::overlay::Layer;
use bytes::Bytes;
use nacre_types::checksum::BLOCK;

pub(crate) const HEADER_BYTES: usize = 80;
const MAGIC: [u8; 4] = *b"NJR1";
const CRC_AT: usize = 76;

/// Ties a record to one store, one mount and one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stamp {
    pub nonce: u64,
    pub incarnation: u64,
    pub seq: u64,
    pub position: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub stamp: Stamp,
    pub next_number: u64,
    pub transactions: u32,
    body_bytes: u32,
    payload_blocks: u32,
    direct_runs: u32,
    ops: u32,
    ranges: u32,
    crc: u32,
}

/// A decoded record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub header: Header,
    /// (block, crc) of each payload block, in order.
    pub payload: Vec<(u64, u32)>,
    /// (first block, crcs).
    pub direct: Vec<(u64, Vec<u32>)>,
    pub ops: Vec<KvOp>,
}

/// Encodes a layer: the head segment, padded to whole blocks, then the payload's blocks as they are.
pub(crate) fn encode(layer: &Layer, stamp: Stamp, next_number: u64) -> Vec<Bytes> {
    debug_assert_eq!(layer.seq, stamp.seq);
    let crcs: usize = layer.direct.values().map(|d| d.crcs.len()).sum();
    let guess =
        HEADER_BYTES + layer.changes.bytes() + layer.payload.len() * 10 + crcs * 4 + layer.direct.len() * 16;
    let mut out = Vec::with_capacity(guess.next_multiple_of(BLOCK) + BLOCK);
    out.resize(HEADER_BYTES, 0);
    for (&block, &(_, crc)) in &layer.payload {
        put_varint(&mut out, block);
        put_u32(&mut out, crc);
    }
    for (&first, direct) in &layer.direct {
        put_varint(&mut out, first);
        put_varint(&mut out, direct.crcs.len() as u64);
        direct.crcs.iter().for_each(|&crc| put_u32(&mut out, crc));
    }
    for (key, value) in layer.changes.keys() {
        out.push(u8::from(value.is_some()));
        put_bytes(&mut out, key);
        if let Some(value) = value {
            put_bytes(&mut out, value);
        }
    }
    for (first, end) in layer.changes.ranges().iter() {
        put_bytes(&mut out, first);
        put_bytes(&mut out, end);
    }
    let body_bytes = u32::try_from(out.len() - HEADER_BYTES).expect("a layer's size is bounded");
    out[..4].copy_from_slice(&MAGIC);
    let words = [stamp.nonce, stamp.incarnation, stamp.seq, stamp.position, next_number];
    for (at, word) in words.into_iter().enumerate() {
        out[8 + at * 8..16 + at * 8].copy_from_slice(&word.to_le_bytes());
    }
    let counts = [
        body_bytes,
        layer.payload.len() as u32,
        layer.direct.len() as u32,
        layer.changes.keys().len() as u32,
        layer.changes.ranges().len() as u32,
        layer.transactions,
    ];
    for (at, count) in counts.into_iter().enumerate() {
        out[48 + at * 4..52 + at * 4].copy_from_slice(&count.to_le_bytes());
    }
    let crc = checksum_of(&out);
    out[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    out.resize(out.len().next_multiple_of(BLOCK), 0);
    let mut segments = Vec::with_capacity(1 + layer.payload.len());
    segments.push(Bytes::from(out));
    segments.extend(layer.payload.values().map(|(bytes, _)| bytes.clone()));
    segments
}

/// Everything but the crc itself.
fn checksum_of(head: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..CRC_AT]);
    hasher.update(&head[HEADER_BYTES..]);
    hasher.finalize()
}

impl Header {
    /// Reads a header; `None` if there is none. Nothing in it is trusted before the whole head's crc has been checked.
    pub fn parse(block: &[u8]) -> Option<Header> {
        let head = block.first_chunk::<HEADER_BYTES>()?;
        if head[..4] != MAGIC {
            return None;
        }
        let u64_at = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        Some(Header {
            stamp: Stamp { nonce: u64_at(8), incarnation: u64_at(16), seq: u64_at(24), position: u64_at(32) },
            next_number: u64_at(40),
            body_bytes: u32_at(48),
            payload_blocks: u32_at(52),
            direct_runs: u32_at(56),
            ops: u32_at(60),
            ranges: u32_at(64),
            transactions: u32_at(68),
            crc: u32_at(CRC_AT),
        })
    }

    /// Gives `head` the magic, a length that fits and the right crc: for fuzzers.
    #[cfg(any(test, feature = "testing"))]
    pub fn put_right(head: &mut [u8]) {
        head[..4].copy_from_slice(&MAGIC);
        let most = (head.len() - HEADER_BYTES) as u32;
        let body = Header::parse(head).map_or(0, |header| header.body_bytes.min(most));
        head[48..52].copy_from_slice(&body.to_le_bytes());
        let crc = checksum_of(&head[..HEADER_BYTES + body as usize]);
        head[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    }

    /// Bytes of the head segment with its padding.
    pub fn head_bytes(&self) -> u64 {
        (HEADER_BYTES as u64 + u64::from(self.body_bytes)).next_multiple_of(BLOCK as u64)
    }

    pub fn payload_bytes(&self) -> u64 {
        u64::from(self.payload_blocks) * BLOCK as u64
    }

    /// Bytes of the whole record.
    pub fn total_bytes(&self) -> u64 {
        self.head_bytes() + self.payload_bytes()
    }

    /// Checks `head` (all of [`Header::head_bytes`]) and decodes it.
    pub fn decode(self, head: Bytes) -> Option<Record> {
        let end = HEADER_BYTES + self.body_bytes as usize;
        if head.len() < end || checksum_of(&head[..end]) != self.crc {
            return None;
        }
        let mut reader = Reader::new(head.slice(HEADER_BYTES..end));
        let mut record = Record { header: self, payload: Vec::new(), direct: Vec::new(), ops: Vec::new() };
        for _ in 0..self.payload_blocks {
            record.payload.push((reader.varint()?, reader.u32()?));
        }
        for _ in 0..self.direct_runs {
            let first = reader.varint()?;
            let count = usize::try_from(reader.varint()?).ok().filter(|&n| n <= reader.remaining() / 4)?;
            let crcs = (0..count).map(|_| reader.u32()).collect::<Option<_>>()?;
            record.direct.push((first, crcs));
        }
        let mut changes = Vec::new();
        for _ in 0..self.ops {
            let put = reader.u8()?;
            let key = reader.bytes()?.to_vec();
            changes.push(match put {
                0 => KvOp::Delete { key },
                1 => KvOp::Put { key, value: reader.bytes()? },
                _ => return None,
            });
        }
        for _ in 0..self.ranges {
            let (first, end) = (reader.bytes()?.to_vec(), reader.bytes()?.to_vec());
            record.ops.push(KvOp::DeleteRange { first, end });
        }
        // The ranges go first, though they come last.
        record.ops.append(&mut changes);
        (reader.remaining() == 0).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::overlay::Direct;

    fn sample() -> (Layer, Stamp) {
        let mut layer = Layer { seq: 9, transactions: 2, ..Layer::default() };
        layer.put(b"Ka".to_vec(), Some(Bytes::from_static(b"value")));
        layer.put(b"Kb".to_vec(), None);
        layer.remove_range(b"Kc".to_vec(), b"Kd".to_vec());
        layer.payload.insert(77, (Bytes::from(vec![1; BLOCK]), 5));
        layer.direct.insert(100, Direct { bytes: Bytes::new(), crcs: vec![1, 2, 3] });
        (layer, Stamp { nonce: 1, incarnation: 2, seq: 9, position: 4096 })
    }

    #[test]
    fn round_trips() {
        let (layer, stamp) = sample();
        let segments = encode(&layer, stamp, 55);
        assert_eq!(segments.iter().map(Bytes::len).collect::<Vec<_>>(), [BLOCK, BLOCK]);
        let header = Header::parse(&segments[0]).unwrap();
        assert_eq!((header.stamp, header.next_number, header.transactions), (stamp, 55, 2));
        assert_eq!((header.head_bytes(), header.total_bytes()), (4096, 8192));
        let record = header.decode(segments[0].clone()).unwrap();
        assert_eq!((record.payload, record.direct), (vec![(77, 5)], vec![(100, vec![1, 2, 3])]));
        assert_eq!(record.ops.len(), 3);
        assert!(
            matches!(record.ops[0], KvOp::DeleteRange { .. }),
            "what a range removes is what was there before"
        );
    }

    #[test]
    fn any_flipped_bit_in_the_head_is_found() {
        let (layer, stamp) = sample();
        let head = encode(&layer, stamp, 55)[0].clone();
        let used = HEADER_BYTES + Header::parse(&head).unwrap().body_bytes as usize;
        for bit in 0..used * 8 {
            let mut damaged = head.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let decoded = Header::parse(&damaged).and_then(|h| {
                (h.head_bytes() as usize <= damaged.len()).then(|| h.decode(damaged.into()))?
            });
            assert_eq!(decoded, None, "bit {bit}");
        }
    }
}
