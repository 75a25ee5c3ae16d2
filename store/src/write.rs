//! Data operations: where bytes go.
//!
//! - Whole blocks, more than 32 KiB of them: to freshly allocated blocks at once, beside the journal record.
//! - Fewer whole blocks: through the journal, in place if nobody shares the block.
//! - Part of a block: merged if the rest is known (a hole, or bytes still in memory), else a patch in the shard.

use crate::apply::{Change, onode, shard_count};
use crate::index::cache::Object;
use crate::index::overlay::Direct;
use crate::index::shard::{Patch, SHARD_BLOCKS};
use crate::io::Purpose;
use crate::store::Store;
use crate::{Kv, StoreError};
use bytes::Bytes;
use nacre_types::ObjectId;
use nacre_types::checksum::{BLOCK, BLOCK_U64, crc32};
use nacre_wire::Data;

/// Whole blocks up to here go through the journal.
const DEFERRED_BYTES_MAX: usize = 32 << 10;
/// Data that one transaction may put into the journal before its further writes go to fresh blocks whatever their size.
const PAYLOAD_BYTES_MAX: usize = 512 << 10;

static ZEROES: [u8; BLOCK] = [0; BLOCK];

/// An object has got a block, or lost one.
fn count_blocks(object: &mut Object, change: i64) -> Result<(), StoreError> {
    let onode = onode(object);
    let blocks = onode.blocks.checked_add_signed(change);
    onode.blocks = blocks.ok_or_else(|| {
        let number = onode.number;
        StoreError::Corrupt(format!(
            "the onode of object {number} does not count the blocks of its extent map"
        ))
    })?;
    Ok(())
}

/// Splits an object's block index into shard and place.
pub(crate) fn locate(block: u64) -> (u32, usize) {
    ((block / SHARD_BLOCKS as u64) as u32, (block % SHARD_BLOCKS as u64) as usize)
}

impl<K: Kv> Store<K> {
    pub(crate) fn write(
        &mut self,
        change: &mut Change,
        id: &ObjectId,
        object: &mut Object,
        offset: u64,
        data: &Data,
    ) -> Result<(), StoreError> {
        self.ensure(object);
        if data.bytes.is_empty() {
            return Ok(());
        }
        let end = offset + data.bytes.len() as u64;
        if object.onode.as_ref().is_some_and(|o| o.size < end) {
            onode(object).size = end;
        }
        let (mut at, mut chunk) = (offset, 0);
        while at < end {
            let block = at / BLOCK_U64;
            let place = (at - offset) as usize;
            let within = (at % BLOCK_U64) as usize;
            let whole = ((end - at) / BLOCK_U64) as usize;
            if within == 0 && whole > 0 {
                let bytes = data.bytes.slice(place..place + whole * BLOCK);
                self.write_blocks(change, object, block, bytes, &data.crcs[chunk..chunk + whole])?;
                at += whole as u64 * BLOCK_U64;
                chunk += whole;
            } else {
                let length = (BLOCK - within).min((end - at) as usize);
                let bytes = data.bytes.slice(place..place + length);
                self.write_part(change, id, object, block, within, bytes, data.crcs[chunk])?;
                at += length as u64;
                chunk += 1;
            }
        }
        Ok(())
    }

    /// Writes whole blocks.
    pub(crate) fn write_blocks(
        &mut self,
        change: &mut Change,
        object: &mut Object,
        first: u64,
        bytes: Bytes,
        crcs: &[u32],
    ) -> Result<(), StoreError> {
        let ring = self.journal.ring.bytes as usize;
        let payload_max = if change.tight { ring / 2 } else { PAYLOAD_BYTES_MAX.min(ring / 8) };
        let large = bytes.len() > DEFERRED_BYTES_MAX && !change.tight;
        if large || change.payload_bytes + bytes.len() > payload_max {
            return self.write_direct(change, object, first, bytes, crcs);
        }
        change.payload_bytes += bytes.len();
        for (i, &crc) in crcs.iter().enumerate() {
            let (index, at) = locate(first + i as u64);
            let shard = self.shard(object, index)?;
            let (old, flag) = (shard.blocks[at], shard.is_shared(at));
            let in_place = old != 0 && !self.is_shared(change, old, flag)?;
            let block = if in_place { old } else { self.allocator.one().ok_or(StoreError::NoSpace)? };
            self.shard(object, index)?.set(at, block, crc);
            object.dirty_shards.insert(index);
            self.replaced(change, object, if in_place { None } else { Some((old, flag)) })?;
            let bytes = bytes.slice(i * BLOCK..(i + 1) * BLOCK);
            self.overlay.top().payload.insert(block, (bytes, crc));
        }
        Ok(())
    }

    fn write_direct(
        &mut self,
        change: &mut Change,
        object: &mut Object,
        first: u64,
        bytes: Bytes,
        crcs: &[u32],
    ) -> Result<(), StoreError> {
        let runs = self.allocator.many(crcs.len() as u64).ok_or(StoreError::NoSpace)?;
        let mut i = 0;
        for (start, count) in runs {
            let count = count as usize;
            for n in 0..count {
                let (index, at) = locate(first + (i + n) as u64);
                let shard = self.shard(object, index)?;
                let (old, flag) = (shard.blocks[at], shard.is_shared(at));
                shard.set(at, start + n as u64, crcs[i + n]);
                object.dirty_shards.insert(index);
                self.replaced(change, object, Some((old, flag)))?;
            }
            let part = bytes.slice(i * BLOCK..(i + count) * BLOCK);
            let layer = self.overlay.top();
            layer.direct.insert(start, Direct { bytes: part.clone(), crcs: crcs[i..i + count].to_vec() });
            layer.direct_outstanding += 1;
            self.io.write(Purpose::Direct { seq: layer.seq }, start * BLOCK_U64, vec![part]);
            i += count;
        }
        Ok(())
    }

    /// Accounts for a logical block that has got another disk block; `None` if it kept its own.
    fn replaced(
        &mut self,
        change: &mut Change,
        object: &mut Object,
        old: Option<(u64, bool)>,
    ) -> Result<(), StoreError> {
        match old {
            None => Ok(()),
            Some((0, _)) => count_blocks(object, 1),
            Some((block, flag)) => self.release(change, block, flag),
        }
    }

    /// Writes part of a block.
    #[allow(clippy::too_many_arguments)]
    fn write_part(
        &mut self,
        change: &mut Change,
        id: &ObjectId,
        object: &mut Object,
        block: u64,
        within: usize,
        bytes: Bytes,
        crc: u32,
    ) -> Result<(), StoreError> {
        let (index, at) = locate(block);
        let (old, old_crc) = {
            let shard = self.shard(object, index)?;
            (shard.blocks[at], shard.crcs[at])
        };
        let known = match old {
            0 => Some((vec![0; BLOCK], true)),
            old => self.in_memory(old).map(|known| (known.to_vec(), crc32(&known) == old_crc)),
        };
        let Some((mut content, mut good)) = known else {
            let bytes = Bytes::copy_from_slice(&bytes);
            let shard = self.shard(object, index)?;
            shard.patches.push(Patch { block: at as u8, offset: within as u16, crc, bytes });
            object.dirty_shards.insert(index);
            let number = object.onode.as_ref().map_or(0, |o| o.number);
            self.merges.add(id, number, block);
            return Ok(());
        };
        for patch in self.shard(object, index)?.patches_of(at) {
            good &= patch.apply(&mut content);
        }
        good &= crc32(&bytes) == crc;
        content[within..within + bytes.len()].copy_from_slice(&bytes);
        let crc = crc32(&content);
        // Bytes that were already wrong must not get a right checksum: every read of this block will fail.
        let crc = if good { crc } else { !crc };
        self.write_blocks(change, object, block, content.into(), &[crc])
    }

    /// A block's bytes, if they need not be read from the disk.
    pub(crate) fn in_memory(&self, block: u64) -> Option<Bytes> {
        self.overlay.block(block).or_else(|| self.deferred.get(block))
    }

    pub(crate) fn zero(
        &mut self,
        change: &mut Change,
        id: &ObjectId,
        object: &mut Object,
        offset: u64,
        length: u64,
    ) -> Result<(), StoreError> {
        self.ensure(object);
        let end = offset + length;
        if length > 0 && object.onode.as_ref().is_some_and(|o| o.size < end) {
            onode(object).size = end;
        }
        self.clear(change, id, object, offset, end)
    }

    pub(crate) fn truncate(
        &mut self,
        change: &mut Change,
        id: &ObjectId,
        object: &mut Object,
        size: u64,
    ) -> Result<(), StoreError> {
        self.ensure(object);
        let old = object.onode.as_ref().map_or(0, |o| o.size);
        if size < old {
            // Whole blocks, so that a later growth finds zeroes behind the new end.
            self.clear(change, id, object, size, old.next_multiple_of(BLOCK_U64))?;
        }
        if size != old {
            onode(object).size = size;
        }
        Ok(())
    }

    /// Makes `offset..end` read as zeroes: unmaps whole blocks, writes zeroes into parts of mapped ones.
    fn clear(
        &mut self,
        change: &mut Change,
        id: &ObjectId,
        object: &mut Object,
        offset: u64,
        end: u64,
    ) -> Result<(), StoreError> {
        let shards = shard_count(object.onode.as_ref().map_or(0, |o| o.size));
        let mut at = offset;
        while at < end {
            let (index, place) = locate(at / BLOCK_U64);
            if index >= shards {
                break;
            }
            let next = (at / BLOCK_U64 + 1) * BLOCK_U64;
            let within = (at % BLOCK_U64) as usize;
            let length = (next.min(end) - at) as usize;
            let shard = self.shard(object, index)?;
            if shard.is_empty() {
                at = (u64::from(index) + 1) * SHARD_BLOCKS as u64 * BLOCK_U64;
                continue;
            }
            let (old, flag) = (shard.blocks[place], shard.is_shared(place));
            if old == 0 {
                // Already zeroes.
            } else if length == BLOCK {
                shard.set(place, 0, 0);
                object.dirty_shards.insert(index);
                count_blocks(object, -1)?;
                self.release(change, old, flag)?;
            } else {
                let zeroes = Bytes::from_static(&ZEROES).slice(..length);
                let crc = crc32(&zeroes);
                self.write_part(change, id, object, at / BLOCK_U64, within, zeroes, crc)?;
            }
            at = next;
        }
        Ok(())
    }
}
