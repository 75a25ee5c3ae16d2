//! Starting a store: superblock, replay, free space.
//!
//! The journal's payload is written in place, key changes go to the index, and the mount ends with a checkpoint that
//! starts a new incarnation: an empty journal, whose former records can never count again.

use crate::allocator::Allocator;
use crate::checkpoint::CheckpointState;
use crate::deferred::Deferred;
use crate::discard::Discards;
use crate::index::cache::Cache;
use crate::index::keys;
use crate::index::onode::Onode;
use crate::index::overlay::Overlay;
use crate::index::references::ReferenceCache;
use crate::index::shard::{SHARD_BLOCKS, Shard};
use crate::index::state::{self, Applied, Checkpointed, Identity};
use crate::io::Io;
use crate::journal::record::Record;
use crate::journal::replay::{Found, Walk};
use crate::journal::ring::Ring;
use crate::merge::Merges;
use crate::read::Reads;
use crate::store::{Journal, ReplayReport, Store, StoreConfig};
use crate::{DiskError, DiskSync, Kv, KvOp, OpenError, StoreStats, Superblock, superblock};
use bytes::Bytes;
use nacre_types::checksum::{BLOCK, BLOCK_U64};
use nacre_types::{ObjectId, RangeSet, mutant};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Replayed data gathers up to here before it is written in place.
const REPLAY_BYTES_MAX: usize = 64 << 20;

/// No store lives long enough to count or write this far.
const STATE_MAX: u64 = 1 << 62;

impl<K: Kv> Store<K> {
    /// Opens a store, replaying what its journal holds. Refuses what is not this store, or not whole.
    pub fn mount(disk: &mut dyn DiskSync, mut kv: K, config: StoreConfig) -> Result<Store<K>, OpenError> {
        let superblock = superblock::inspect(disk)?;
        let replayed = recover(disk, &mut kv, &superblock)?;
        let applied: Applied = read_state(&kv, keys::APPLIED, "applied position")?;
        let checkpointed: Checkpointed = read_state(&kv, keys::CHECKPOINTED, "checkpoint")?;
        let space = scan_space(&kv, &superblock)?;
        let mut merges = Merges::default();
        for (id, number, block) in patched_blocks(&kv, &space.patched)? {
            merges.add(&id, number, block);
        }
        let granularity = disk.discard_granularity().filter(|_| config.discard);
        let discards = granularity.map(|bytes| Discards::new(bytes, config.discard_bytes_min));
        let journal = Journal {
            ring: Ring { offset: superblock.journal_offset, bytes: superblock.journal_bytes },
            nonce: superblock.nonce(),
            incarnation: checkpointed.incarnation,
            tail: checkpointed.position,
            head: checkpointed.position,
            in_flight: None,
            committed: (checkpointed.seq, checkpointed.position),
        };
        let mut store = Store {
            kv,
            journal,
            overlay: Overlay::new(checkpointed.seq + 1),
            cache: Cache::new(config.cache_objects, config.cache_shards),
            references: ReferenceCache::new(config.cache_references),
            allocator: Allocator::new(space.free, superblock.data_blocks),
            deferred: Deferred::default(),
            checkpoint: CheckpointState::Idle,
            reclaiming: false,
            discards,
            reads: Reads::default(),
            merges,
            io: Io::default(),
            events: VecDeque::new(),
            stats: StoreStats::default(),
            next_number: applied.next_number,
            applied,
            failed: false,
            replayed,
            config,
            superblock,
        };
        store.maintain();
        Ok(store)
    }
}

fn read_state<K: Kv, M: prost::Message + Default>(
    kv: &K,
    key: &[u8],
    what: &'static str,
) -> Result<M, OpenError> {
    let value = kv.get(key)?.ok_or(OpenError::IndexLost { what })?;
    state::decode(&value).ok_or_else(|| OpenError::IndexCorrupt(format!("its {what} does not decode")))
}

/// Brings device and index to the end of the journal, and leaves the journal empty.
pub(crate) fn recover<K: Kv>(
    disk: &mut dyn DiskSync,
    kv: &mut K,
    superblock: &Superblock,
) -> Result<ReplayReport, OpenError> {
    let identity: Identity = read_state(kv, keys::IDENTITY, "identity")?;
    if identity.osd_uuid != superblock.osd_uuid {
        let (found, expected) = (identity.osd_uuid, superblock.osd_uuid.clone());
        return Err(OpenError::ForeignIndex { found, expected });
    }
    let applied: Applied = read_state(kv, keys::APPLIED, "applied position")?;
    let from: Checkpointed = read_state(kv, keys::CHECKPOINTED, "checkpoint")?;
    let sane = |seq, position| seq <= STATE_MAX && position <= STATE_MAX && position % BLOCK_U64 == 0;
    if !sane(from.seq, from.position)
        || !sane(applied.seq, applied.position)
        || applied.next_number > STATE_MAX
    {
        return Err(OpenError::IndexCorrupt(format!("its positions make no sense: {from:?}, {applied:?}")));
    }
    // A daemon that died may have left records in the device's cache. The index must not know of one that a power cut, or a
    // flush that fails, can still take away.
    disk.flush()?;
    let mut walk = Walk {
        disk,
        ring: Ring { offset: superblock.journal_offset, bytes: superblock.journal_bytes },
        nonce: superblock.nonce(),
        incarnation: from.incarnation,
        position: from.position,
        seq: from.seq + 1,
        tail: from.position,
    };
    let mut replay = Replay { kv, applied, pending: BTreeMap::new(), report: ReplayReport::default() };
    let mut end = (from.seq, from.position);
    let mut last: Option<Found> = None;
    let stopped = loop {
        match walk.step()? {
            Ok(found) => {
                if let Some(committed) = last.replace(found) {
                    end = replay.accept(walk.disk, superblock, committed)?;
                }
            }
            Err(reason) => break reason,
        }
    };
    let corrupt = |seq, position, reason| OpenError::JournalCorrupt { seq, position, reason };
    if let Some(seq) = walk.later_record()? {
        let reason = format!("{stopped}; record {seq} is there");
        return Err(corrupt(walk.seq, walk.position, reason));
    }
    replay.report.stopped = stopped;
    if let Some(found) = last.filter(|_| !mutant!(ReplayStopsEarly)) {
        let committed = found.record.header.stamp.seq <= applied.seq;
        let whole = match found.damaged.first() {
            _ if committed || mutant!(ReplayUnchecked) => Ok(()),
            Some(at) => {
                Err(format!("its data for block {} has a wrong checksum", found.record.payload[*at].0))
            }
            None => walk.direct_matches(&found.record)?,
        };
        match whole {
            Ok(()) => end = replay.accept(walk.disk, superblock, found)?,
            Err(reason) => replay.report.stopped = reason,
        }
    }
    if end.0 < applied.seq {
        let reason = format!("{}; the index has records up to {}", replay.report.stopped, applied.seq);
        return Err(corrupt(end.0 + 1, end.1, reason));
    }
    replay.write_back(walk.disk)?;
    walk.disk.flush()?;
    let Replay { kv, report, .. } = replay;
    let checkpointed = Checkpointed { seq: end.0, position: end.1, incarnation: from.incarnation + 1 };
    let value = state::encode(&checkpointed);
    kv.write(vec![KvOp::Put { key: keys::CHECKPOINTED.to_vec(), value }])?;
    kv.flush_sync()?;
    Ok(report)
}

struct Replay<'a, K> {
    kv: &'a mut K,
    applied: Applied,
    /// The newest bytes of blocks to be written in place.
    pending: BTreeMap<u64, Bytes>,
    report: ReplayReport,
}

impl<K: Kv> Replay<'_, K> {
    /// Takes a committed record; returns its number and the position after it.
    fn accept(
        &mut self,
        disk: &mut dyn DiskSync,
        superblock: &Superblock,
        found: Found,
    ) -> Result<(u64, u64), OpenError> {
        let Found { record: Record { header, payload, mut ops, .. }, payload: bytes, damaged } = found;
        let blocks =
            superblock.data_offset / BLOCK_U64..superblock.data_offset / BLOCK_U64 + superblock.data_blocks;
        for (at, (block, _)) in payload.into_iter().enumerate() {
            if !blocks.contains(&block) {
                let what = format!("record {} writes block {block}, outside the data", header.stamp.seq);
                return Err(OpenError::IndexCorrupt(what));
            }
            if damaged.contains(&at) {
                // In place lies either what this was (written back before) or something whose checksum betrays it.
                self.report.damaged_blocks += 1;
                continue;
            }
            self.pending.insert(block, bytes.slice(at * BLOCK..(at + 1) * BLOCK));
        }
        let (seq, position) = (header.stamp.seq, header.stamp.position + header.total_bytes());
        if mutant!(OmapLostInReplay) {
            ops.retain(|op| match op {
                KvOp::Delete { key } | KvOp::DeleteRange { first: key, .. } => {
                    !key.starts_with(keys::OMAPS.0)
                }
                KvOp::Put { .. } => true,
            });
        }
        if seq > self.applied.seq {
            let applied = Applied { seq, position, next_number: header.next_number };
            ops.push(KvOp::Put { key: keys::APPLIED.to_vec(), value: state::encode(&applied) });
            self.kv.write(ops)?;
        }
        self.report.records += 1;
        self.report.transactions += u64::from(header.transactions);
        self.report.bytes += header.total_bytes();
        if self.pending.len() * BLOCK > REPLAY_BYTES_MAX {
            self.write_back(disk)?;
        }
        Ok((seq, position))
    }

    fn write_back(&mut self, disk: &mut dyn DiskSync) -> Result<(), DiskError> {
        for (block, bytes) in std::mem::take(&mut self.pending) {
            disk.write_at(block * BLOCK_U64, &bytes)?;
        }
        Ok(())
    }
}

struct Space {
    free: RangeSet,
    /// (object number, block) of patched blocks.
    patched: BTreeSet<(u64, u64)>,
}

/// What the extent maps leave free.
fn scan_space<K: Kv>(kv: &K, superblock: &Superblock) -> Result<Space, OpenError> {
    let first = superblock.data_offset / BLOCK_U64;
    let mut used = vec![0_u64; superblock.data_blocks.div_ceil(64) as usize];
    let mut patched = BTreeSet::new();
    let mut bad = None;
    kv.scan(keys::SHARDS.0, keys::SHARDS.1, &mut |key, value| {
        let shard = Shard::decode(Bytes::copy_from_slice(value));
        let (Some((number, index)), Some(shard)) = (keys::parse_shard(key), shard) else {
            bad = Some(format!("shard {key:02x?} does not decode"));
            return false;
        };
        for &block in shard.blocks.iter().filter(|&&b| b != 0) {
            let at = block.wrapping_sub(first);
            if at >= superblock.data_blocks {
                bad = Some(format!("shard {index} of object {number} maps block {block}, outside the data"));
                return false;
            }
            used[(at / 64) as usize] |= 1 << (at % 64);
        }
        let blocks = shard.patches.iter().map(|p| u64::from(p.block));
        patched.extend(blocks.map(|at| (number, u64::from(index) * SHARD_BLOCKS as u64 + at)));
        true
    })?;
    if let Some(what) = bad {
        return Err(OpenError::IndexCorrupt(what));
    }
    Ok(Space { free: free_ranges(&used, first, superblock.data_blocks), patched })
}

/// The zero bits of a map of `count` blocks from `first` on.
fn free_ranges(used: &[u64], first: u64, count: u64) -> RangeSet {
    let mut free = RangeSet::new();
    let mut start = None;
    let mut at = 0;
    while at <= count {
        let word = used.get((at / 64) as usize).copied().unwrap_or(u64::MAX);
        let uniform = at % 64 == 0 && at + 64 <= count && (word == 0 || word == u64::MAX);
        let taken = at == count || word >> (at % 64) & 1 == 1;
        match (taken, start) {
            (false, None) => start = Some(at),
            (true, Some(from)) => {
                free.insert(first + from, first + at);
                start = None;
            }
            _ => {}
        }
        at += if uniform { 64 } else { 1 };
    }
    free
}

/// Finds the names of the objects that have patched blocks.
fn patched_blocks<K: Kv>(
    kv: &K,
    patched: &BTreeSet<(u64, u64)>,
) -> Result<Vec<(ObjectId, u64, u64)>, OpenError> {
    let mut found = Vec::new();
    if patched.is_empty() {
        return Ok(found);
    }
    kv.scan(keys::ONODES.0, keys::ONODES.1, &mut |key, value| {
        if let (Some(id), Some(onode)) = (ObjectId::from_key(&key[1..]), Onode::load(value)) {
            for &(number, block) in patched.range((onode.number, 0)..=(onode.number, u64::MAX)) {
                found.push((id.clone(), number, block));
            }
        }
        true
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::Rng;

    #[test]
    fn free_ranges_are_the_zero_bits() {
        let mut rng = Rng::new(1);
        for _ in 0..300 {
            let count = 1 + rng.below(400);
            let mut used = vec![0_u64; count.div_ceil(64) as usize];
            for word in &mut used {
                *word = match rng.below(3) {
                    0 => 0,
                    1 => u64::MAX,
                    _ => rng.next_u64() & rng.next_u64(),
                };
            }
            let free = free_ranges(&used, 1000, count);
            for at in 0..count {
                let zero = used[(at / 64) as usize] >> (at % 64) & 1 == 0;
                assert_eq!(free.contains(1000 + at, 1001 + at), zero);
            }
            assert!(!free.intersects(1000 + count, u64::MAX));
        }
    }
}
