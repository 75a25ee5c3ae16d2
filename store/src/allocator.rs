//! Free space in blocks, rebuilt from the index at mount.
//!
//! Allocation goes on where the last one ended, prefers one contiguous run, and falls back to pieces, so that space
//! that is there can always be used. Freed blocks wait in quarantine until a checkpoint has passed the record that
//! freed them: before that, replaying an older record would find somebody else's data. Free blocks are lent for as long
//! as the device discards them.

use nacre_types::checksum::BLOCK_U64;
use nacre_types::{RangeSet, mutant};
use std::collections::VecDeque;

/// How many free ranges are looked at for a whole run before pieces are taken.
const LOOK_MAX: usize = 64;
/// Less than this, on all but the smallest devices, waits for a checkpoint that is due anyway.
const RECLAIM_BYTES_MIN: u64 = 16 << 20;

#[derive(Debug)]
pub(crate) struct Allocator {
    free: RangeSet,
    /// (record, first, count), in record order.
    quarantine: VecDeque<(u64, u64, u64)>,
    quarantined: u64,
    lent: u64,
    cursor: u64,
    total: u64,
    reserve: u64,
}

impl Allocator {
    /// `free` of `total` blocks. What [`Allocator::usage`] shows leaves a reserve out, so that whoever keeps to it
    /// always has space for metadata's sake: unsharing, unaligned edges.
    pub fn new(free: RangeSet, total: u64) -> Allocator {
        let cursor = free.iter().next().map_or(0, |r| r.0);
        let reserve = (total / 64).max(16).min(total / 4);
        Allocator { free, quarantine: VecDeque::new(), quarantined: 0, lent: 0, cursor, total, reserve }
    }

    pub fn free_blocks(&self) -> u64 {
        self.free.total()
    }

    /// Blocks that are nobody's and cannot be allocated yet.
    pub fn withheld_blocks(&self) -> u64 {
        self.quarantined + self.lent
    }

    /// Whether so much waits in quarantine that a checkpoint is due: half as much as is free, or any while whoever
    /// keeps to [`Allocator::usage`] will soon find nothing free.
    pub fn is_starved(&self) -> bool {
        let free = self.free.total();
        self.quarantined > free / 2 || (self.quarantined > 0 && free < self.soon())
    }

    /// Whether what waits in quarantine is worth a checkpoint though nobody needs the space yet.
    pub fn is_worth_reclaiming(&self) -> bool {
        self.quarantined * BLOCK_U64 >= RECLAIM_BYTES_MIN || self.quarantined > self.total / 64
    }

    /// Whoever keeps to [`Allocator::usage`] will soon find nothing free when less than this is.
    fn soon(&self) -> u64 {
        self.reserve + 256.min(self.total / 16)
    }

    /// (total, used) without the reserve.
    pub fn usage(&self) -> (u64, u64) {
        let total = self.total - self.reserve;
        let used = self.total - self.free.total() - self.withheld_blocks();
        (total, used.min(total))
    }

    /// One block, next to the last one if possible.
    pub fn one(&mut self) -> Option<u64> {
        let (first, _) = self.free.next_from(self.cursor).or_else(|| self.free.next_from(0))?;
        self.take(first, 1);
        Some(first)
    }

    /// `count` blocks as (first, count) runs; `None`, and nothing taken, if there are not as many.
    pub fn many(&mut self, count: u64) -> Option<Vec<(u64, u64)>> {
        if count > self.free.total() {
            return None;
        }
        if let Some(first) = self.find(count) {
            self.take(first, count);
            return Some(vec![(first, count)]);
        }
        let mut runs = Vec::new();
        let mut missing = count;
        while missing > 0 {
            let (first, end) = self.free.next_from(self.cursor).or_else(|| self.free.next_from(0))?;
            let part = missing.min(end - first);
            self.take(first, part);
            runs.push((first, part));
            missing -= part;
        }
        Some(runs)
    }

    fn find(&self, count: u64) -> Option<u64> {
        let mut at = self.cursor;
        let mut wrapped = false;
        for _ in 0..LOOK_MAX {
            match self.free.next_from(at) {
                Some((first, end)) if end - first >= count => return Some(first),
                Some((_, end)) => at = end,
                None if wrapped => return None,
                None => (at, wrapped) = (0, true),
            }
        }
        None
    }

    fn take(&mut self, first: u64, count: u64) {
        assert!(self.free.contains(first, first + count), "only free blocks are allocated");
        self.free.remove(first, first + count);
        self.cursor = first + count;
    }

    /// Takes blocks that record `seq` freed.
    pub fn quarantine(&mut self, seq: u64, freed: &[(u64, u64)]) {
        for &(first, count) in freed {
            self.quarantined += count;
            self.quarantine.push_back((seq, first, count));
        }
    }

    /// Frees what records up to `seq` gave back, but not what `busy` (reads under way) still touches. Returns what is
    /// free now, as (first, count).
    pub fn release(&mut self, seq: u64, busy: &RangeSet) -> Vec<(u64, u64)> {
        let mut freed = Vec::new();
        let due = self.quarantine.partition_point(|entry| entry.0 <= seq);
        let due: Vec<_> = self.quarantine.drain(..due).collect();
        for (freed_by, first, count) in due.into_iter().rev() {
            if busy.intersects(first, first + count) {
                self.quarantine.push_front((freed_by, first, count));
                continue;
            }
            assert!(!self.free.intersects(first, first + count), "block {first} is freed twice");
            self.free.insert(first, first + count);
            self.quarantined -= count;
            freed.push((first, count));
        }
        freed
    }

    /// The first free blocks of `first..end`.
    pub fn free_within(&self, first: u64, end: u64) -> Option<(u64, u64)> {
        let (from, to) = self.free.next_from(first)?;
        (from < end).then_some((from, to.min(end)))
    }

    /// Whether so many blocks can be spared for a while: whoever was promised space must find it.
    pub fn can_lend(&self, count: u64) -> bool {
        self.free.total() >= count + self.soon() + self.total / 16
    }

    /// Withholds free blocks until they are given back.
    pub fn lend(&mut self, first: u64, count: u64) {
        assert!(self.free.contains(first, first + count), "only free blocks are lent");
        if !mutant!(DiscardedInUse) {
            self.free.remove(first, first + count);
            self.lent += count;
        }
    }

    pub fn give_back(&mut self, first: u64, count: u64) {
        if !mutant!(DiscardedInUse) {
            self.free.insert(first, first + count);
            self.lent -= count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::Rng;

    fn allocator(blocks: u64) -> Allocator {
        let mut free = RangeSet::new();
        free.insert(100, 100 + blocks);
        Allocator::new(free, blocks)
    }

    #[test]
    fn worst_fragmentation_still_serves_everything_that_is_free() {
        let mut a = allocator(1000);
        let all: Vec<u64> = (0..1000).map(|_| a.one().unwrap()).collect();
        assert_eq!(a.one(), None);
        let holes: Vec<(u64, u64)> = all.iter().step_by(2).map(|&b| (b, 1)).collect();
        a.quarantine(5, &holes);
        a.release(4, &RangeSet::new());
        assert_eq!(a.many(1), None);
        a.release(5, &RangeSet::new());
        let runs = a.many(500).unwrap();
        assert_eq!(runs.iter().map(|r| r.1).sum::<u64>(), 500);
        assert_eq!(a.free_blocks(), 0);
    }

    #[test]
    fn blocks_are_never_given_twice() {
        let mut rng = Rng::new(1);
        let mut a = allocator(300);
        let mut held: Vec<(u64, u64)> = Vec::new();
        let mut owned = RangeSet::new();
        for seq in 1..3000 {
            if rng.chance(1, 2) {
                for run in a.many(1 + rng.below(20)).unwrap_or_default() {
                    assert!(!owned.intersects(run.0, run.0 + run.1));
                    owned.insert(run.0, run.0 + run.1);
                    held.push(run);
                }
            } else if !held.is_empty() {
                let run = held.swap_remove(rng.below(held.len() as u64) as usize);
                owned.remove(run.0, run.0 + run.1);
                a.quarantine(seq, &[run]);
            }
            if rng.chance(1, 10) {
                a.release(seq, &RangeSet::new());
            }
            assert_eq!(a.free_blocks() + a.withheld_blocks() + owned.total(), 300);
        }
    }

    #[test]
    fn what_is_lent_is_neither_used_nor_allocated() {
        let mut a = allocator(1600);
        let used = a.usage();
        assert!(a.can_lend(1000) && !a.can_lend(1500));
        a.lend(200, 1000);
        assert_eq!((a.usage(), a.withheld_blocks()), (used, 1000));
        let runs = a.many(600).unwrap();
        assert!(runs.iter().all(|run| run.0 + run.1 <= 200 || run.0 >= 1200));
        assert_eq!(a.one(), None);
        a.give_back(200, 1000);
        assert_eq!(a.many(1000), Some(vec![(200, 1000)]));
    }

    #[test]
    fn reads_under_way_hold_their_blocks() {
        let mut a = allocator(10);
        let run = a.many(10).unwrap();
        a.quarantine(1, &run);
        let mut busy = RangeSet::new();
        busy.insert(103, 104);
        a.release(1, &busy);
        assert_eq!(a.free_blocks(), 0);
        a.release(1, &RangeSet::new());
        assert_eq!(a.free_blocks(), 10);
    }
}
