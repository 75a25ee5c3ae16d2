//! Small writes that are durable in the journal and not yet in place.
//!
//! `ready` gathers committed blocks; a *round* writes them back sorted and merged. One round at a time, so that two
//! writes of one block are never under way together. A block that a read under way still wants as it was waits for it.

use bytes::Bytes;
use nacre_types::RangeSet;
use nacre_types::checksum::BLOCK;
use std::collections::BTreeMap;

/// Blocks in one write request.
const RUN_BLOCKS_MAX: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct Deferred {
    ready: BTreeMap<u64, Bytes>,
    /// The round under way: everything of it until all of it is written.
    writing: BTreeMap<u64, Bytes>,
    /// Blocks of the round whose write has not been issued.
    waiting: BTreeMap<u64, Bytes>,
    pub outstanding: usize,
}

impl Deferred {
    /// A committed block's bytes.
    pub fn insert(&mut self, block: u64, bytes: Bytes) {
        self.ready.insert(block, bytes);
    }

    /// Blocks that a committed record freed need not be written. One that is being written stays until then.
    pub fn forget(&mut self, first: u64, count: u64) {
        while let Some((&block, _)) = self.ready.range(first..first + count).next() {
            self.ready.remove(&block);
        }
    }

    pub fn get(&self, block: u64) -> Option<Bytes> {
        self.ready.get(&block).or_else(|| self.writing.get(&block)).cloned()
    }

    pub fn ready_bytes(&self) -> usize {
        self.ready.len() * BLOCK
    }

    pub fn total_bytes(&self) -> usize {
        (self.ready.len() + self.writing.len()) * BLOCK
    }

    pub fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    pub fn start_round(&mut self) {
        assert!(self.writing.is_empty() && self.outstanding == 0, "one round at a time");
        self.writing = std::mem::take(&mut self.ready);
        self.waiting = self.writing.clone();
    }

    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The writes that can go now, as many as keep no more than `in_flight_max` under way: (first block, segments).
    pub fn issue(&mut self, busy: &RangeSet, in_flight_max: usize) -> Vec<(u64, Vec<Bytes>)> {
        let mut writes: Vec<(u64, Vec<Bytes>)> = Vec::new();
        let mut held = BTreeMap::new();
        while let Some((block, bytes)) = self.waiting.pop_first() {
            if !busy.is_empty() && busy.intersects(block, block + 1) {
                held.insert(block, bytes);
                continue;
            }
            let full = self.outstanding + writes.len() >= in_flight_max;
            match writes.last_mut() {
                Some((first, run)) if *first + run.len() as u64 == block && run.len() < RUN_BLOCKS_MAX => {
                    run.push(bytes);
                }
                _ if full => {
                    self.waiting.insert(block, bytes);
                    break;
                }
                _ => writes.push((block, vec![bytes])),
            }
        }
        self.waiting.append(&mut held);
        self.outstanding += writes.len();
        writes
    }

    /// One of the round's writes has ended; true if that was the last.
    pub fn written(&mut self) -> bool {
        self.outstanding -= 1;
        let done = self.outstanding == 0 && self.waiting.is_empty();
        if done {
            self.writing.clear();
        }
        done
    }

    /// Everything not known to be in place, the newest of each block.
    pub fn take_all(&mut self) -> BTreeMap<u64, Bytes> {
        let mut all = std::mem::take(&mut self.writing);
        all.append(&mut self.ready);
        all
    }
}
