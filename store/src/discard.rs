//! Telling the device what it need not keep.
//!
//! What a checkpoint has freed is discarded in aligned granules, each as soon as all of it is free. Blocks being discarded
//! cannot be allocated: a write must not be overtaken by the discard that came before it. One request at a time, and
//! none while space is short, so that neither clients' writes nor their space suffer. What waits is forgotten when the
//! store stops; a granule gets another chance when any of its blocks is freed again.

use crate::allocator::Allocator;
use crate::store::Store;
use crate::{DiskError, Kv};
use nacre_types::RangeSet;
use nacre_types::checksum::BLOCK_U64;

/// What one request discards at most: deleting a large image must not take all free space away for as long as it lasts.
const DISCARD_BYTES_MAX: u64 = 32 << 20;

/// Blocks to be discarded.
#[derive(Debug)]
pub(crate) struct Discards {
    granule: u64,
    /// Whole granules that may be free.
    waiting: RangeSet,
    /// (first, count).
    under_way: Option<(u64, u64)>,
}

impl Discards {
    /// For a device that discards pieces of `granularity` bytes, where pieces below `bytes_min` are not worth a request.
    pub fn new(granularity: u64, bytes_min: u64) -> Discards {
        let piece = granularity.max(1).next_multiple_of(BLOCK_U64);
        let granule = bytes_min.max(1).next_multiple_of(piece) / BLOCK_U64;
        Discards { granule, waiting: RangeSet::new(), under_way: None }
    }

    /// Blocks have become free.
    fn freed(&mut self, first: u64, count: u64) {
        let end = (first + count).next_multiple_of(self.granule);
        self.waiting.insert(first / self.granule * self.granule, end);
    }

    /// The next run of whole free granules, if there is one and it can be spared: (first, count).
    fn next(&mut self, allocator: &Allocator) -> Option<(u64, u64)> {
        let most = (DISCARD_BYTES_MAX / BLOCK_U64 / self.granule).max(1) * self.granule;
        while let Some((start, end)) = self.waiting.next_from(0) {
            let Some((from, to)) = allocator.free_within(start, end) else {
                self.waiting.remove(start, end);
                continue;
            };
            let first = from.next_multiple_of(self.granule);
            let last = (to / self.granule * self.granule).min(first.saturating_add(most));
            if first >= last {
                self.waiting.remove(start, to);
                continue;
            }
            if !allocator.can_lend(last - first) {
                return None;
            }
            self.waiting.remove(start, last);
            return Some((first, last - first));
        }
        None
    }
}

impl<K: Kv> Store<K> {
    /// Blocks have become free that nothing durable refers to any more.
    pub(crate) fn discard(&mut self, freed: Vec<(u64, u64)>) {
        if let Some(discards) = &mut self.discards {
            freed.into_iter().for_each(|(first, count)| discards.freed(first, count));
            self.discard_next();
        }
    }

    fn discard_next(&mut self) {
        if let Some(discards) = &mut self.discards
            && discards.under_way.is_none()
            && let Some((first, count)) = discards.next(&self.allocator)
        {
            discards.under_way = Some((first, count));
            self.allocator.lend(first, count);
            self.io.discard(first * BLOCK_U64, count * BLOCK_U64);
        }
    }

    /// The discard under way has ended.
    pub(crate) fn discarded(&mut self, result: Result<(), DiskError>) {
        let Some(discards) = &mut self.discards else { return };
        let Some((first, count)) = discards.under_way.take() else { return };
        self.allocator.give_back(first, count);
        match result {
            Ok(()) => {
                self.stats.discards += 1;
                self.stats.discarded_bytes += count * BLOCK_U64;
                self.discard_next();
            }
            // A device that cannot do what it said it could: it will not be asked again before the next mount.
            Err(_) => {
                self.stats.discard_errors += 1;
                self.discards = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocator() -> Allocator {
        let mut free = RangeSet::new();
        free.insert(0, 100_000);
        Allocator::new(free, 100_000)
    }

    #[test]
    fn whole_granules_are_discarded_as_soon_as_all_of_them_is_free() {
        let mut allocator = allocator();
        let mut discards = Discards::new(4096, 64 << 10);
        assert_eq!(allocator.many(40), Some(vec![(0, 40)]));
        allocator.quarantine(1, &[(3, 20), (30, 10)]);
        for (first, count) in allocator.release(1, &RangeSet::new()) {
            discards.freed(first, count);
        }
        // 0..16 and 16..32 are still used in part.
        assert_eq!(discards.next(&allocator), Some((32, 16)));
        assert_eq!(discards.next(&allocator), None);
        allocator.quarantine(2, &[(23, 7)]);
        for (first, count) in allocator.release(2, &RangeSet::new()) {
            discards.freed(first, count);
        }
        assert_eq!(discards.next(&allocator), Some((16, 16)));
        assert_eq!(discards.next(&allocator), None);
    }

    #[test]
    fn what_has_been_allocated_again_is_left_alone() {
        let mut allocator = allocator();
        let mut discards = Discards::new(512, 4096);
        discards.freed(10, 10);
        assert_eq!(allocator.many(15), Some(vec![(0, 15)]));
        assert_eq!(discards.next(&allocator), Some((15, 5)));
        assert_eq!(discards.next(&allocator), None);
    }

    #[test]
    fn large_ranges_go_in_parts_and_wait_while_space_is_short() {
        let mut allocator = allocator();
        let mut discards = Discards::new(192 << 10, 64 << 10);
        let taken = allocator.many(80_000).unwrap();
        assert_eq!(taken, [(0, 80_000)]);
        discards.freed(80_000, 20_000);
        let granule = (192 << 10) / BLOCK_U64;
        let first = discards.next(&allocator).unwrap();
        assert!(first.0 >= 80_000 && first.0.is_multiple_of(granule));
        assert!(first.1 <= DISCARD_BYTES_MAX / BLOCK_U64 && first.1.is_multiple_of(granule), "{first:?}");
        allocator.lend(first.0, first.1);
        assert_eq!(discards.next(&allocator), None, "too little would be left");
        allocator.quarantine(1, &taken);
        allocator.release(1, &RangeSet::new());
        assert_eq!(discards.next(&allocator).unwrap().0, first.0 + first.1);
    }
}
