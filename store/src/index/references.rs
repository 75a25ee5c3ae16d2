//! Reference counts of blocks that clones share, 64 blocks a key. Counts are of *extra* references: a block with none
//! has no entry, so that a store without clones keeps nothing here.

use crate::codec::{Reader, put_varint};
use bytes::Bytes;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let mut references = References::new();
        assert_eq!(references.encode(), None);
        (references.extra[0], references.extra[63]) = (1, 70_000);
        assert_eq!(References::decode(references.encode().unwrap()), Some(references));
        assert_eq!(References::decode(Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0, 0])), None);
    }
}
