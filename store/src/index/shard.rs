//! One shard of an object's extent map: 64 logical blocks, each a hole or a disk block with its crc32.
//!
//! A partial write to a block whose bytes are only on the disk does not read it: it adds a *patch*, which lives in the
//! shard (and so in the journal and the index) until the block is read, patched and rewritten as a whole. Reads lay
//! the patches over the verified block. So every checksum always covers bytes that are durable as they are.
//!
//! Encoded: version, encoding (reserved for compression), runs (start, length, first disk block), crcs of the mapped
//! blocks, shared bits, patches.

use crate::codec::{Reader, put_bytes, put_u32, put_varint};
use bytes::Bytes;
use nacre_types::checksum::{BLOCK, crc32};

/// Logical blocks of a shard. A 4 KiB overwrite rewrites one shard: about 280 bytes.
pub(crate) const SHARD_BLOCKS: usize = 64;
const VERSION: u8 = 1;
/// No device has blocks beyond this: 2^60 bytes.
const BLOCK_MAX: u64 = 1 << 48;

/// Bytes laid over a block, with their own checksum.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Patch {
    pub block: u8,
    pub offset: u16,
    pub crc: u32,
    pub bytes: Bytes,
}

impl Patch {
    /// Lays the patch over its block; false if its own checksum does not hold.
    pub fn apply(&self, block: &mut [u8]) -> bool {
        let at = self.offset as usize;
        block[at..at + self.bytes.len()].copy_from_slice(&self.bytes);
        crc32(&self.bytes) == self.crc
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shard {
    /// Disk block of each logical block; zero is a hole (block zero is the superblock's).
    pub blocks: [u64; SHARD_BLOCKS],
    pub crcs: [u32; SHARD_BLOCKS],
    /// Blocks that may be referenced from elsewhere: ask the reference counts.
    pub shared: u64,
    /// In the order they were written.
    pub patches: Vec<Patch>,
}

impl Shard {
    pub fn new() -> Box<Shard> {
        Box::new(Shard { blocks: [0; SHARD_BLOCKS], crcs: [0; SHARD_BLOCKS], shared: 0, patches: Vec::new() })
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.iter().all(|&b| b == 0)
    }

    pub fn is_shared(&self, at: usize) -> bool {
        self.shared >> at & 1 == 1
    }

    pub fn patches_of(&self, at: usize) -> impl Iterator<Item = &Patch> {
        self.patches.iter().filter(move |p| p.block as usize == at)
    }

    pub fn drop_patches(&mut self, at: usize) {
        if !self.patches.is_empty() {
            self.patches.retain(|p| p.block as usize != at);
        }
    }

    /// Maps a block to bytes that nobody else refers to.
    pub fn set(&mut self, at: usize, block: u64, crc: u32) {
        self.blocks[at] = block;
        self.crcs[at] = crc;
        self.shared &= !(1 << at);
        self.drop_patches(at);
    }

    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(32 + 4 * SHARD_BLOCKS);
        out.extend_from_slice(&[VERSION, 0]);
        let mut at = 0;
        while at < SHARD_BLOCKS {
            let first = self.blocks[at];
            if first == 0 {
                at += 1;
                continue;
            }
            let mut end = at + 1;
            while end < SHARD_BLOCKS && self.blocks[end] == first + (end - at) as u64 {
                end += 1;
            }
            out.extend_from_slice(&[at as u8, (end - at) as u8]);
            put_varint(&mut out, first);
            at = end;
        }
        out.push(0xff);
        for (&block, &crc) in self.blocks.iter().zip(&self.crcs) {
            if block != 0 {
                put_u32(&mut out, crc);
            }
        }
        put_varint(&mut out, self.shared);
        put_varint(&mut out, self.patches.len() as u64);
        for patch in &self.patches {
            out.push(patch.block);
            put_varint(&mut out, u64::from(patch.offset));
            put_u32(&mut out, patch.crc);
            put_bytes(&mut out, &patch.bytes);
        }
        out.into()
    }

    pub fn decode(bytes: Bytes) -> Option<Box<Shard>> {
        let mut shard = Shard::new();
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION || reader.u8()? != 0 {
            return None;
        }
        let mut from = 0;
        loop {
            let start = reader.u8()? as usize;
            if start == 0xff {
                break;
            }
            let length = reader.u8()? as usize;
            let first = reader.varint()?;
            if start < from || length == 0 || start + length > SHARD_BLOCKS || first == 0 || first > BLOCK_MAX
            {
                return None;
            }
            for i in 0..length {
                shard.blocks[start + i] = first + i as u64;
            }
            from = start + length;
        }
        for at in 0..SHARD_BLOCKS {
            if shard.blocks[at] != 0 {
                shard.crcs[at] = reader.u32()?;
            }
        }
        shard.shared = reader.varint()?;
        for _ in 0..reader.varint()? {
            let block = reader.u8()?;
            let offset = u16::try_from(reader.varint()?).ok()?;
            let crc = reader.u32()?;
            let bytes = reader.bytes()?;
            if block as usize >= SHARD_BLOCKS || offset as usize + bytes.len() > BLOCK {
                return None;
            }
            // A copy: the patch must not keep a whole index block or network buffer alive.
            shard.patches.push(Patch { block, offset, crc, bytes: Bytes::copy_from_slice(&bytes) });
        }
        (reader.remaining() == 0).then_some(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::Rng;

    #[test]
    fn round_trips_and_is_small() {
        let mut rng = Rng::new(3);
        for round in 0..200 {
            let mut shard = Shard::new();
            for at in 0..SHARD_BLOCKS {
                if rng.chance(round % 5, 4) {
                    let block = if rng.chance(3, 4) { 5000 + at as u64 } else { 1 + rng.below(1 << 40) };
                    shard.set(at, block, rng.next_u64() as u32);
                }
            }
            shard.shared = rng.next_u64();
            if rng.chance(1, 3) {
                let bytes = Bytes::from_static(b"patch");
                shard.patches.push(Patch { block: 9, offset: 4000, crc: 1, bytes });
            }
            assert_eq!(Shard::decode(shard.encode()), Some(shard));
        }
        let mut whole = Shard::new();
        (0..SHARD_BLOCKS).for_each(|at| whole.set(at, 1_000_000 + at as u64, 1));
        assert!(whole.encode().len() < 300, "{}", whole.encode().len());
    }

    #[test]
    fn garbage_does_not_panic() {
        let mut rng = Rng::new(4);
        for _ in 0..20_000 {
            let mut bytes = vec![0; rng.below(80) as usize];
            rng.fill(&mut bytes);
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if let Some(second) = bytes.get_mut(1) {
                *second = 0;
            }
            if let Some(shard) = Shard::decode(bytes.into()) {
                let _ = shard.encode();
            }
        }
    }
}
