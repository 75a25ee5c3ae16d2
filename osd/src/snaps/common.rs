//! What an object has in common with the clone before it.
//!
//! It is noted beside the object: a clone takes along what its head had noted when it was made, and keeps it. Only the
//! head's changes with every write, so that a write costs the same however many clones there are.

use bytes::Bytes;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::{ObjectId, RangeSet};
use nacre_wire::op::Extent;
use prost::Message;

/// With more ranges than so many, only half as many of the longest are kept: what is forgotten counts as different, and
/// costs bytes when the object is recovered; a long list would cost every write.
const RANGES_MAX: usize = 64;

/// Xattr of heads and clones that have a clone before them.
pub const COMMON_ATTR: &str = "sc";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Common {
    /// The id of the clone before.
    pub older: u64,
    /// Bytes that are the same in both; there may be more.
    pub ranges: RangeSet,
}

#[derive(Clone, PartialEq, Eq, Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    older: u64,
    /// In turns how far a range begins behind the end of the one before, and how long it is.
    #[prost(uint64, repeated, tag = "2")]
    runs: Vec<u64>,
}

impl Common {
    /// Of a head of `size` bytes that was just cloned.
    pub fn all(older: u64, size: u64) -> Common {
        let mut ranges = RangeSet::new();
        ranges.insert(0, size);
        Common { older, ranges }
    }

    pub fn from_attr(value: &[u8]) -> Option<Common> {
        let Record { older, runs } = Record::decode(value).ok()?;
        let (runs, rest) = runs.as_chunks::<2>();
        let (mut ranges, mut at) = (RangeSet::new(), 0_u64);
        for [gap, length] in runs {
            let start = at.checked_add(*gap)?;
            at = start.checked_add(*length)?;
            ranges.insert(start, at);
        }
        rest.is_empty().then_some(Common { older, ranges })
    }

    pub fn to_attr(&self) -> Bytes {
        let mut runs = Vec::with_capacity(2 * self.ranges.range_count());
        let mut at = 0;
        for (start, end) in self.ranges.iter() {
            runs.extend([start - at, end - start]);
            at = end;
        }
        Record { older: self.older, runs }.encode_to_vec().into()
    }

    /// The object's bytes `[start, end)` changed. True if that was news.
    pub(crate) fn changed(&mut self, start: u64, end: u64) -> bool {
        let news = self.ranges.intersects(start, end);
        if news {
            self.ranges.remove(start, end);
            if self.ranges.range_count() > RANGES_MAX {
                self.keep_longest(RANGES_MAX / 2);
            }
        }
        news
    }

    fn keep_longest(&mut self, count: usize) {
        let mut ranges: Vec<(u64, u64)> = self.ranges.iter().collect();
        ranges.sort_by_key(|&(start, end)| std::cmp::Reverse(end - start));
        self.ranges = RangeSet::new();
        ranges.iter().take(count).for_each(|&(start, end)| self.ranges.insert(start, end));
    }

    /// What `newer`, the next one, has in common with the one before this.
    pub(crate) fn and_of(&self, newer: &Common) -> Common {
        let mut ranges = self.ranges.clone();
        let mut at = 0;
        for (start, end) in newer.ranges.iter() {
            ranges.remove(at, start);
            at = end;
        }
        ranges.remove(at, u64::MAX);
        Common { older: self.older, ranges }
    }

    pub(crate) fn extents(&self) -> Vec<Extent> {
        self.ranges.iter().map(|(start, end)| Extent { offset: start, length: end - start }).collect()
    }
}

/// What is noted of an object; `None` if nothing is.
pub fn load_common(store: &dyn ObjectStore, object: &ObjectId) -> Result<Option<Common>, StoreError> {
    let Some(value) = store.attr(object, COMMON_ATTR.as_bytes())? else { return Ok(None) };
    let wrong = || StoreError::Corrupt(format!("what {object} has in common with a clone does not decode"));
    Common::from_attr(&value).map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_decodes() {
        let mut common = Common::all(7, 1 << 22);
        assert!(common.changed(4096, 8192) && !common.changed(4096, 5000));
        assert!(common.changed(0, 10) && common.changed(1 << 21, u64::MAX));
        assert_eq!(Common::from_attr(&common.to_attr()), Some(common.clone()));
        let extents: Vec<(u64, u64)> = common.extents().iter().map(|e| (e.offset, e.length)).collect();
        assert_eq!(extents, [(10, 4086), (8192, (1 << 21) - 8192)]);
        for bad in [Record { older: 1, runs: vec![1] }, Record { older: 1, runs: vec![2, u64::MAX] }] {
            assert_eq!(Common::from_attr(&bad.encode_to_vec()), None);
        }
    }

    #[test]
    fn however_it_is_written_the_note_stays_short() {
        let mut common = Common::all(7, 1 << 22);
        let mut written = RangeSet::new();
        let mut rng = nacre_types::Rng::new(1);
        for _ in 0..2000 {
            let start = rng.below(1024) * 4096;
            written.insert(start, start + 4096);
            common.changed(start, start + 4096);
            assert!(common.ranges.range_count() <= RANGES_MAX && common.to_attr().len() < 512);
            assert!(common.ranges.iter().all(|(start, end)| !written.intersects(start, end)));
        }
        // Pages apart, the long ones stay.
        let mut common = Common::all(7, 1 << 22);
        (0..100).for_each(|n| _ = common.changed(n * 8192, n * 8192 + 4096));
        assert!(common.ranges.intersects(1 << 21, 1 << 22));
    }

    #[test]
    fn two_steps_leave_what_each_left() {
        let mut older = Common::all(3, 100);
        older.changed(10, 20);
        let mut newer = Common::all(5, 100);
        newer.changed(15, 40);
        newer.changed(90, 100);
        let both = older.and_of(&newer);
        assert_eq!(both.older, 3);
        let extents: Vec<(u64, u64)> = both.extents().iter().map(|e| (e.offset, e.length)).collect();
        assert_eq!(extents, [(0, 10), (40, 50)]);
    }
}
