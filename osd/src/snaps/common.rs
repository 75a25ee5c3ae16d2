//! What an object has in common with the clone before it.
//!
//! It is noted beside the object: a clone takes along what its head had noted when it was made, and keeps it. Only the
//! head's changes with every write, so that a write costs the same however many clones there are: a bit for each
//! granule, a disk block of objects up to 4 MiB, so that the note has at most 128 bytes however the object is written.

use bytes::Bytes;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::checksum::BLOCK_U64;
use nacre_types::{ObjectId, RangeSet};
use nacre_wire::op::Extent;
use nacre_wire::transaction::OBJECT_BYTES_MAX;
use prost::Message;

/// Granules of an object. Larger objects have larger ones: what is written to a part of one makes all of it count as
/// different, which costs bytes when the object is recovered; a longer note would cost every write.
const GRANULES_MAX: u64 = 1024;

/// Xattr of heads and clones that have a clone before them.
pub const COMMON_ATTR: &str = "sc";

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Common {
    /// The id of the clone before.
    pub older: u64,
    /// That clone's size. Nothing from here on is in common.
    end: u64,
    granule: u64,
    /// A bit for each granule, lowest first: set if its bytes are the same in both. Others may be, too.
    same: Vec<u8>,
}

// Tag 2 was a list of ranges. Who still has one has nothing in common with its clone, as far as this can tell.
#[derive(Clone, PartialEq, Eq, Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    older: u64,
    #[prost(uint64, tag = "3")]
    end: u64,
    #[prost(uint64, tag = "4")]
    granule: u64,
    /// Without the zeroes at its end.
    #[prost(bytes = "vec", tag = "5")]
    same: Vec<u8>,
}

impl Common {
    /// Of a head of `size` bytes that was just cloned.
    pub fn all(older: u64, size: u64) -> Common {
        let granule = size.div_ceil(GRANULES_MAX).next_power_of_two().max(BLOCK_U64);
        let granules = size.div_ceil(granule);
        let mut same = vec![0xff; (granules / 8) as usize];
        if !granules.is_multiple_of(8) {
            same.push((1 << (granules % 8)) - 1);
        }
        Common { older, end: size, granule, same }
    }

    pub fn from_attr(value: &[u8]) -> Option<Common> {
        let Record { older, end, granule, mut same } = Record::decode(value).ok()?;
        if same.is_empty() && granule == 0 {
            return Some(Common { older, end: 0, granule: BLOCK_U64, same });
        }
        if !granule.is_power_of_two() || granule < BLOCK_U64 || end > OBJECT_BYTES_MAX {
            return None;
        }
        let granules = end.div_ceil(granule);
        let bytes = granules.div_ceil(8) as usize;
        let beyond = |last: u8| !granules.is_multiple_of(8) && last >> (granules % 8) != 0;
        if same.len() > bytes || same.len() == bytes && same.last().is_some_and(|&last| beyond(last)) {
            return None;
        }
        same.resize(bytes, 0);
        Some(Common { older, end, granule, same })
    }

    pub fn to_attr(&self) -> Bytes {
        let used = self.same.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        let Common { older, end, granule, .. } = *self;
        Record { older, end, granule, same: self.same[..used].to_vec() }.encode_to_vec().into()
    }

    /// The object's bytes `[start, end)` changed. True if that was news.
    pub(crate) fn changed(&mut self, start: u64, end: u64) -> bool {
        let end = end.min(self.end);
        let mut news = false;
        if start < end {
            for granule in start / self.granule..end.div_ceil(self.granule) {
                let (byte, bit) = (&mut self.same[(granule / 8) as usize], 1 << (granule % 8));
                news |= *byte & bit != 0;
                *byte &= !bit;
            }
        }
        news
    }

    /// What is known to be in common.
    pub fn ranges(&self) -> RangeSet {
        let mut ranges = RangeSet::new();
        let is_same = |granule: u64| self.same[(granule / 8) as usize] >> (granule % 8) & 1 == 1;
        let granules = self.end.div_ceil(self.granule);
        let mut at = 0;
        while at < granules {
            let run = (at..granules).take_while(|&granule| is_same(granule)).count() as u64;
            ranges.insert(at * self.granule, ((at + run) * self.granule).min(self.end));
            at += run + 1;
        }
        ranges
    }

    /// What `newer`, the next one, has in common with the one before this.
    pub(crate) fn and_of(&self, newer: &Common) -> Common {
        let mut both = self.clone();
        let mut at = 0;
        for (start, end) in newer.ranges().iter() {
            both.changed(at, start);
            at = end;
        }
        both.changed(at, u64::MAX);
        both
    }

    pub(crate) fn extents(&self) -> Vec<Extent> {
        self.ranges().iter().map(|(start, end)| Extent { offset: start, length: end - start }).collect()
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

    fn extents(common: &Common) -> Vec<(u64, u64)> {
        common.extents().iter().map(|e| (e.offset, e.length)).collect()
    }

    #[test]
    fn what_is_encoded_decodes() {
        let mut common = Common::all(7, (1 << 22) - 1);
        assert_eq!(Common::from_attr(&common.to_attr()), Some(common.clone()));
        assert!(common.changed(4096, 8192) && !common.changed(4096, 5000) && !common.changed(5000, 5000));
        assert!(common.changed(10, 11) && common.changed(1 << 21, u64::MAX));
        assert!(!common.changed(1 << 22, u64::MAX), "nothing was in common there");
        assert_eq!(Common::from_attr(&common.to_attr()), Some(common.clone()));
        assert_eq!(extents(&common), [(8192, (1 << 21) - 8192)]);
        assert!(common.changed(0, u64::MAX));
        assert!(common.to_attr().len() < 16 && extents(&common).is_empty());
        assert_eq!(Common::from_attr(&common.to_attr()), Some(common));
        assert_eq!(extents(&Common::all(7, 0)), []);
        assert_eq!(Common::from_attr(&Common::all(7, 0).to_attr()), Some(Common::all(7, 0)));
    }

    #[test]
    fn what_makes_no_sense_does_not_decode() {
        let good = Record { older: 1, end: 3 * 4096, granule: 4096, same: vec![0b111] };
        assert_eq!(Common::from_attr(&good.encode_to_vec()), Some(Common::all(1, 3 * 4096)));
        for bad in [
            Record { same: vec![0b1000], ..good.clone() },
            Record { same: vec![0b111, 1], ..good.clone() },
            Record { granule: 4097, ..good.clone() },
            Record { granule: 0, ..good.clone() },
            Record { granule: 1, ..good.clone() },
            Record { end: u64::MAX, ..good },
        ] {
            assert_eq!(Common::from_attr(&bad.encode_to_vec()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_list_of_ranges_from_before_counts_as_nothing() {
        let older_and_runs = [8, 7, 18, 2, 0, 100];
        let common = Common::from_attr(&older_and_runs).expect("it decodes");
        assert_eq!((common.older, extents(&common)), (7, vec![]));
    }

    #[test]
    fn it_is_exact_by_blocks_and_stays_short_however_it_is_written() {
        let (mut common, mut written) = (Common::all(7, 1 << 22), RangeSet::new());
        let mut rng = nacre_types::Rng::new(1);
        for _ in 0..2000 {
            let start = rng.below(1024) * 4096;
            assert_eq!(common.changed(start, start + 4096), !written.contains(start, start + 4096));
            written.insert(start, start + 4096);
            assert!(common.to_attr().len() < 150);
        }
        for block in (0..1 << 22).step_by(4096) {
            assert_ne!(common.ranges().contains(block, block + 4096), written.contains(block, block + 4096));
        }
    }

    #[test]
    fn large_objects_have_large_granules() {
        let mut common = Common::all(7, OBJECT_BYTES_MAX);
        assert!(common.changed(OBJECT_BYTES_MAX - 1, OBJECT_BYTES_MAX));
        assert_eq!(extents(&common), [(0, OBJECT_BYTES_MAX - (128 << 10))]);
        assert!(common.to_attr().len() < 150);
    }

    #[test]
    fn two_steps_leave_what_each_left() {
        const B: u64 = 4096;
        let mut older = Common::all(3, 100 * B);
        older.changed(10 * B, 20 * B);
        let mut newer = Common::all(5, 100 * B);
        newer.changed(15 * B, 40 * B);
        newer.changed(90 * B, 100 * B);
        let both = older.and_of(&newer);
        assert_eq!(both.older, 3);
        assert_eq!(extents(&both), [(0, 10 * B), (40 * B, 50 * B)]);
        // The one between was shorter, and then longer again.
        older.changed(50 * B + 1, u64::MAX);
        let both = older.and_of(&Common::all(5, 50 * B + 1));
        assert_eq!(extents(&both), [(0, 10 * B), (20 * B, 30 * B)]);
    }
}
