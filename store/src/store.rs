//! The store's parts, and how it starts and stops.
//!
//! ```text
//! submit -> apply (cache, allocator, overlay) -> gathering layer
//!                                                     | nothing in flight
//!                                                     v
//!                         journal write + flush  -> commit: layer -> settled, payload -> ready
//!                                                     |                    | enough gathered, or a checkpoint
//!        direct writes to fresh blocks ---------------+                    v
//!                                                              write-back in place, sorted
//!                                                                          | journal half full, or much settled
//!                                                                          v
//!                                      checkpoint: disk flush -> settled to the Kv -> journal tail moves
//! ```

use crate::allocator::Allocator;
use crate::checkpoint::CheckpointState;
use crate::deferred::Deferred;
use crate::discard::Discards;
use crate::index::cache::Cache;
use crate::index::keys;
use crate::index::overlay::Overlay;
use crate::index::references::ReferenceCache;
use crate::index::state::{self, Applied, Checkpointed};
use crate::io::Io;
use crate::journal::ring::Ring;
use crate::merge::Merges;
use crate::read::Reads;
use crate::{DiskSync, Kv, StoreError, StoreEvent, StoreStats, Superblock};
use bytes::Bytes;
use nacre_types::checksum::BLOCK_U64;
use std::collections::VecDeque;

/// How the store uses memory and its journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// Small writes gather up to here before they are written back in place.
    pub writeback_bytes: usize,
    /// Write-back requests under way at a time, at most; a quarter of it where that keeps up with what comes. More write
    /// back faster, and make commits meanwhile slower.
    pub writeback_in_flight_max: usize,
    /// Memory for what is durable and not in place. Above this no further record is written until a write-back has
    /// ended; at half of it one begins, however few blocks keep it.
    pub deferred_bytes_max: usize,
    /// A record is closed when it has grown to this; waiting transactions go into the next.
    pub record_bytes_max: u64,
    /// Changes of durable records gather until the next checkpoint, of which one begins when there are more than this.
    pub settled_bytes_max: usize,
    /// Whether the device is told what it need not keep, where it cares.
    pub discard: bool,
    /// Free space is discarded in aligned pieces of at least this.
    pub discard_bytes_min: u64,
    /// Decoded objects kept.
    pub cache_objects: usize,
    /// Decoded extent map shards kept, about 900 bytes each.
    pub cache_shards: usize,
    /// Decoded chunks of reference counts kept, about 300 bytes each.
    pub cache_references: usize,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            writeback_bytes: 16 << 20,
            writeback_in_flight_max: 64,
            deferred_bytes_max: 96 << 20,
            record_bytes_max: 4 << 20,
            settled_bytes_max: 32 << 20,
            discard: true,
            discard_bytes_min: 64 << 10,
            cache_objects: 32 << 10,
            cache_shards: 64 << 10,
            cache_references: 16 << 10,
        }
    }
}

impl StoreConfig {
    pub fn validate(&self) -> Result<(), String> {
        if self.writeback_bytes > self.deferred_bytes_max {
            return Err("writeback_bytes must not exceed deferred_bytes_max: writes would stall".into());
        }
        if self.writeback_in_flight_max == 0 {
            return Err("writeback_in_flight_max must not be zero: nothing would be written back".into());
        }
        let caches = [self.cache_objects, self.cache_shards, self.cache_references];
        if caches.contains(&0) || self.record_bytes_max == 0 {
            return Err(
                "cache_objects, cache_shards, cache_references and record_bytes_max must not be zero".into(),
            );
        }
        Ok(())
    }
}

/// What a mount found in the journal.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplayReport {
    pub records: u64,
    pub transactions: u64,
    pub bytes: u64,
    /// Why replay ended where it did.
    pub stopped: String,
    /// Blocks of committed records that had rotted in the journal: reading them fails until they are repaired.
    pub damaged_blocks: u64,
}

/// The record being written.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub seq: u64,
    pub end: u64,
    pub outstanding: usize,
    /// Of those, parts of the record that are being written.
    pub writes: usize,
    pub payload_blocks: usize,
    /// Where the record's payload begins in it.
    pub payload_at: u64,
    /// Its bytes as the disk gathered them, with their place in the record.
    pub written: Vec<(u64, Bytes)>,
}

#[derive(Debug)]
pub(crate) struct Journal {
    pub ring: Ring,
    pub nonce: u64,
    pub incarnation: u64,
    /// Positions before this are free.
    pub tail: u64,
    /// Where the next record goes.
    pub head: u64,
    pub in_flight: Option<InFlight>,
    /// The last durable record, which the index holds, and the position after it.
    pub committed: (u64, u64),
}

impl Journal {
    pub fn room(&self) -> u64 {
        self.ring.bytes - (self.head - self.tail)
    }
}

/// The object store of one OSD over a device and an index. See [`crate::ObjectStore`].
#[derive(Debug)]
pub struct Store<K> {
    pub(crate) kv: K,
    pub(crate) config: StoreConfig,
    pub(crate) superblock: Superblock,
    pub(crate) journal: Journal,
    pub(crate) overlay: Overlay,
    pub(crate) cache: Cache,
    pub(crate) references: ReferenceCache,
    pub(crate) allocator: Allocator,
    pub(crate) deferred: Deferred,
    pub(crate) checkpoint: CheckpointState,
    /// A checkpoint was asked for, to free what waits for one.
    pub(crate) reclaiming: bool,
    /// `None` where nothing is discarded.
    pub(crate) discards: Option<Discards>,
    pub(crate) reads: Reads,
    pub(crate) merges: Merges,
    pub(crate) io: Io,
    pub(crate) events: VecDeque<StoreEvent>,
    pub(crate) stats: StoreStats,
    pub(crate) next_number: u64,
    /// What the last durable record has led to: written to the index with its changes.
    pub(crate) applied: Applied,
    /// Set by the first error that breaks a promise; nothing happens afterwards.
    pub(crate) failed: bool,
    pub(crate) replayed: ReplayReport,
}

impl<K: Kv> Store<K> {
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// What mounting found to replay.
    pub fn replay_report(&self) -> &ReplayReport {
        &self.replayed
    }

    /// The index, for whoever drives its flushes.
    pub fn kv(&self) -> &K {
        &self.kv
    }

    pub fn kv_mut(&mut self) -> &mut K {
        &mut self.kv
    }

    /// Where a gathering record is closed: several must fit into the journal.
    pub(crate) fn record_bytes_max(&self) -> u64 {
        self.config.record_bytes_max.min(self.journal.ring.bytes / 4)
    }

    /// Whether nothing is under way: no record, no write-back, no checkpoint, no read.
    pub fn is_idle(&self) -> bool {
        let gathered = self.overlay.layers.iter().any(|layer| !layer.is_empty());
        self.io.is_idle() && !gathered && matches!(self.checkpoint, CheckpointState::Idle)
    }

    /// Takes the store down in a state that needs no replay. Transactions not yet committed are dropped: wait for them
    /// first. Requests still with the device must have ended. Not needed for safety.
    pub fn unmount(mut self, disk: &mut dyn DiskSync) -> Result<K, StoreError> {
        if self.failed {
            return Err(StoreError::Corrupt(
                "the store has failed; mount it again to replay its journal".into(),
            ));
        }
        let deferred = self.deferred.take_all();
        for (block, bytes) in deferred {
            disk.write_at(block * BLOCK_U64, &bytes)?;
        }
        disk.flush()?;
        // A checkpoint may be on its way to the index.
        self.kv.flush_sync()?;
        let (seq, position) = self.journal.committed;
        let checkpointed = Checkpointed { seq, position, incarnation: self.journal.incarnation };
        let mut settled = self.overlay.settled;
        settled.put(keys::APPLIED.to_vec(), Some(state::encode(&self.applied)));
        settled.put(keys::CHECKPOINTED.to_vec(), Some(state::encode(&checkpointed)));
        self.kv.write(settled.ops())?;
        self.kv.flush_sync()?;
        Ok(self.kv)
    }

    /// Ends all promises: reports why, once, and does nothing from then on.
    pub(crate) fn fail(&mut self, error: StoreError) {
        if !self.failed {
            self.failed = true;
            self.events.push_back(StoreEvent::Failed(error));
        }
    }

    pub(crate) fn check(&mut self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            self.fail(error);
        }
    }
}
