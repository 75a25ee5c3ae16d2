//! Reference counts of blocks that clones share, 64 blocks a key. Counts are of *extra* references: a block with none
//! has no entry, so that a store without clones keeps nothing here.

use crate::codec::{Reader, put_varint};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

pub(crate) const CHUNK_BLOCKS: u64 = 64;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct References {
    pub extra: [u32; CHUNK_BLOCKS as usize],
}

impl References {
    pub fn new() -> References {
        References { extra: [0; CHUNK_BLOCKS as usize] }
    }

    /// `None` where there is nothing to keep.
    pub fn encode(&self) -> Option<Bytes> {
        let bits = self.extra.iter().enumerate().fold(0_u64, |bits, (at, &n)| bits | u64::from(n > 0) << at);
        if bits == 0 {
            return None;
        }
        let mut out = Vec::with_capacity(10 + bits.count_ones() as usize);
        out.extend_from_slice(&bits.to_le_bytes());
        self.extra.iter().filter(|&&n| n > 0).for_each(|&n| put_varint(&mut out, u64::from(n)));
        Some(out.into())
    }

    pub fn decode(bytes: Bytes) -> Option<References> {
        let mut reader = Reader::new(bytes);
        let bits = u64::from(reader.u32()?) | u64::from(reader.u32()?) << 32;
        let mut references = References::new();
        for at in 0..CHUNK_BLOCKS as usize {
            if bits >> at & 1 == 1 {
                references.extra[at] = u32::try_from(reader.varint()?).ok().filter(|&n| n > 0)?;
            }
        }
        (reader.remaining() == 0).then_some(references)
    }
}

/// Decoded counts, as all submitted transactions leave them: where snapshots are, every overwrite gives one up. Bounded,
/// the one that came first goes first.
#[derive(Debug)]
pub(crate) struct ReferenceCache {
    chunks: HashMap<u64, References>,
    queue: VecDeque<u64>,
    chunks_max: usize,
}

impl ReferenceCache {
    pub fn new(chunks_max: usize) -> ReferenceCache {
        ReferenceCache { chunks: HashMap::new(), queue: VecDeque::new(), chunks_max }
    }

    pub fn get(&self, chunk: u64) -> Option<&References> {
        self.chunks.get(&chunk)
    }

    pub fn put(&mut self, chunk: u64, references: References) {
        if self.chunks.insert(chunk, references).is_some() {
            return;
        }
        self.queue.push_back(chunk);
        if self.queue.len() > self.chunks_max
            && let Some(first) = self.queue.pop_front()
        {
            self.chunks.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_bounded_and_has_the_newest_state() {
        let with = |n: u32| References { extra: [n; CHUNK_BLOCKS as usize] };
        let mut cache = ReferenceCache::new(2);
        for (chunk, n) in [(7, 1), (8, 2), (7, 3), (9, 4)] {
            cache.put(chunk, with(n));
        }
        assert_eq!((cache.get(7), cache.get(8), cache.get(9)), (None, Some(&with(2)), Some(&with(4))));
        cache.put(8, with(5));
        assert_eq!((cache.get(8), cache.chunks.len(), cache.queue.len()), (Some(&with(5)), 2, 2));
    }

    #[test]
    fn round_trips() {
        let mut references = References::new();
        assert_eq!(references.encode(), None);
        (references.extra[0], references.extra[63]) = (1, 70_000);
        assert_eq!(References::decode(references.encode().unwrap()), Some(references));
        assert_eq!(References::decode(Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0, 0])), None);
    }
}
