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
    /// Blocks of the round whose write has not been issued, the last one first.
    waiting: Vec<u64>,
    /// Those of them that a read wants as they are.
    held: Vec<u64>,
    /// Blocks of the reads that began before the round. Later ones find the round's blocks in memory.
    busy: RangeSet,
    outstanding: usize,
    /// Memory behind the blocks of `ready`: they are slices of the buffers their records were written from, and one
    /// block keeps a whole buffer. Of `writing` likewise.
    ready_held: usize,
    writing_held: usize,
}

impl Deferred {
    /// A committed block's bytes.
    pub fn insert(&mut self, block: u64, bytes: Bytes) {
        self.ready.insert(block, bytes);
    }

    /// A record has committed whose blocks are slices of buffers of `bytes` in all.
    pub fn hold(&mut self, bytes: usize) {
        self.ready_held += bytes;
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

    /// Memory that what is ready may keep.
    pub fn ready_held(&self) -> usize {
        self.ready_held
    }

    /// Memory that all of it may keep.
    pub fn total_held(&self) -> usize {
        self.ready_held + self.writing_held
    }

    /// What counts against the limit: the blocks themselves, or what they keep in memory where that is more.
    pub fn kept_bytes(&self) -> usize {
        self.total_bytes().max(self.total_held())
    }

    /// Whether there are writes of the round that can go now.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes under way.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    pub fn is_writing(&self) -> bool {
        !self.writing.is_empty()
    }

    /// Begins to write back all that is ready, but for what `busy` holds.
    pub fn start_round(&mut self, busy: RangeSet) {
        assert!(self.writing.is_empty() && self.outstanding == 0, "one round at a time");
        self.writing = std::mem::take(&mut self.ready);
        let held = std::mem::take(&mut self.ready_held);
        // Nothing is left of what was freed meanwhile, and no write will end that could say so.
        self.writing_held = if self.writing.is_empty() { 0 } else { held };
        self.waiting.clear();
        self.waiting.extend(self.writing.keys().rev());
        self.busy = busy;
    }

    /// Whether a read may hold up the round.
    pub fn is_held(&self) -> bool {
        !self.busy.is_empty()
    }

    /// A read has ended.
    pub fn set_busy(&mut self, busy: RangeSet) {
        self.busy = busy;
        if !self.held.is_empty() {
            self.waiting.append(&mut self.held);
            self.waiting.sort_unstable_by(|a, b| b.cmp(a));
        }
    }

    /// The writes that can go now, as many as keep no more than `in_flight_max` under way: (first block, segments).
    pub fn issue(&mut self, in_flight_max: usize) -> Vec<(u64, Vec<Bytes>)> {
        let mut writes: Vec<(u64, Vec<Bytes>)> = Vec::new();
        while let Some(block) = self.waiting.pop() {
            if !self.busy.is_empty() && self.busy.intersects(block, block + 1) {
                self.held.push(block);
                continue;
            }
            let bytes = self.writing[&block].clone();
            match writes.last_mut() {
                Some((first, run)) if *first + run.len() as u64 == block && run.len() < RUN_BLOCKS_MAX => {
                    run.push(bytes);
                }
                _ if self.outstanding >= in_flight_max => {
                    self.waiting.push(block);
                    break;
                }
                _ => {
                    writes.push((block, vec![bytes]));
                    self.outstanding += 1;
                }
            }
        }
        writes
    }

    /// One of the round's writes has ended; true if that was the last.
    pub fn written(&mut self) -> bool {
        self.outstanding -= 1;
        let done = self.outstanding == 0 && self.waiting.is_empty() && self.held.is_empty();
        if done {
            self.writing.clear();
            self.writing_held = 0;
        }
        done
    }

    /// Everything not known to be in place, the newest of each block.
    pub fn take_all(&mut self) -> BTreeMap<u64, Bytes> {
        (self.ready_held, self.writing_held) = (0, 0);
        let mut all = std::mem::take(&mut self.writing);
        all.append(&mut self.ready);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_before_its_round_keeps_no_memory() {
        let mut deferred = Deferred::default();
        let bytes = Bytes::from(vec![0; BLOCK]);
        deferred.insert(7, bytes.clone());
        deferred.hold(3 * BLOCK);
        deferred.forget(7, 1);
        deferred.start_round(RangeSet::default());
        assert!(!deferred.is_writing());
        assert_eq!(deferred.total_held(), 0, "commits would wait for it for ever");
        deferred.insert(8, bytes);
        deferred.hold(2 * BLOCK);
        deferred.start_round(RangeSet::default());
        assert_eq!((deferred.issue(1).len(), deferred.total_held()), (1, 2 * BLOCK));
        assert!(deferred.written());
        assert_eq!(deferred.total_held(), 0);
    }
}
