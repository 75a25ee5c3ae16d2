//! Turning patched blocks back into plain ones: read the block, lay the patches over it, write it as a whole through
//! the journal. Patches are durable where they are, so this is housekeeping, and keeps shards small.

use crate::apply::Change;
use crate::io::Purpose;
use crate::store::Store;
use crate::write::locate;
use crate::{DiskError, Kv, StoreError};
use bytes::Bytes;
use nacre_types::checksum::{BLOCK, BLOCK_U64, crc32};
use nacre_types::{ObjectId, mutant};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Blocks read for merging at once.
const MERGES_MAX: usize = 32;

/// One block being read to be merged.
#[derive(Clone, Debug)]
struct Merge {
    id: ObjectId,
    number: u64,
    block: u64,
    disk_block: u64,
    crc: u32,
}

/// Patched blocks, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Merges {
    queue: VecDeque<(ObjectId, u64, u64)>,
    /// (object number, block) in the queue or being read.
    known: BTreeSet<(u64, u64)>,
    reading: BTreeMap<u64, Merge>,
    next: u64,
}

impl Merges {
    pub fn add(&mut self, id: &ObjectId, number: u64, block: u64) {
        if self.known.insert((number, block)) {
            self.queue.push_back((id.clone(), number, block));
        }
    }

    /// Whether no block waits to be read.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Disk blocks being read.
    pub fn busy(&self) -> impl Iterator<Item = u64> {
        self.reading.values().map(|m| m.disk_block)
    }
}

impl<K: Kv> Store<K> {
    pub(crate) fn start_merges(&mut self) {
        while self.merges.reading.len() < MERGES_MAX
            && let Some((id, number, block)) = self.merges.queue.pop_front()
        {
            let result = self.start_merge(&id, number, block);
            if !matches!(result, Ok(true)) {
                self.merges.known.remove(&(number, block));
            }
            self.check(result.map(|_| ()));
        }
    }

    /// Reads a patched block, if it still is one.
    fn start_merge(&mut self, id: &ObjectId, number: u64, block: u64) -> Result<bool, StoreError> {
        let mut object = self.load(id)?;
        let mut found = None;
        if object.onode.as_ref().is_some_and(|o| o.number == number) {
            let (index, at) = locate(block);
            let shard = self.shard(&mut object, index)?;
            if shard.patches_of(at).next().is_some() {
                found = Some((shard.blocks[at], shard.crcs[at]));
            }
        }
        self.close(id, object);
        let Some((disk_block, crc)) = found else { return Ok(false) };
        self.merges.next += 1;
        let merge = self.merges.next;
        self.merges.reading.insert(merge, Merge { id: id.clone(), number, block, disk_block, crc });
        self.io.read(Purpose::Merge { merge }, disk_block * BLOCK_U64, BLOCK);
        Ok(true)
    }

    /// A patched block has been read.
    pub(crate) fn merge_read(&mut self, merge: u64, result: Result<Bytes, DiskError>) {
        let Some(merge) = self.merges.reading.remove(&merge) else { return };
        self.merges.known.remove(&(merge.number, merge.block));
        // What cannot be read stays patched: reads of it fail, and whoever reads repairs it from another copy.
        if let Ok(bytes) = result
            && bytes.len() == BLOCK
            && crc32(&bytes) == merge.crc
        {
            let result = self.merge(&merge, &bytes);
            self.check(result);
        } else {
            self.stats.checksum_errors += 1;
        }
        self.read_ended();
        self.maintain();
    }

    fn merge(&mut self, merge: &Merge, base: &[u8]) -> Result<(), StoreError> {
        let mut object = self.load(&merge.id)?;
        let (index, at) = locate(merge.block);
        if object.onode.as_ref().is_some_and(|o| o.number == merge.number) {
            let shard = self.shard(&mut object, index)?;
            let same = shard.blocks[at] == merge.disk_block && shard.crcs[at] == merge.crc;
            if same && shard.patches_of(at).next().is_some() {
                let mut content = base.to_vec();
                let skip = usize::from(mutant!(PatchDropped));
                let good = shard
                    .patches_of(at)
                    .skip(skip)
                    .fold(true, |good, patch| patch.apply(&mut content) & good);
                let crc = crc32(&content);
                let crc = if good { crc } else { !crc };
                let mut change = Change { tight: true, ..Change::default() };
                self.write_blocks(&mut change, &mut object, merge.block, content.into(), &[crc])?;
                self.finish(change);
                self.overlay.top().transactions += 1;
            }
        }
        self.close(&merge.id, object);
        Ok(())
    }
}
