//! A head's snapshot set: its clones, oldest first, and what each has in common with the next newer state.

use bytes::Bytes;
use nacre_types::RangeSet;
use nacre_wire::op::{CloneInfo, Extent};
use prost::Message;

#[derive(Clone, PartialEq, Eq, Message)]
pub struct SnapSet {
    /// Newest snapshot that any write to the head has known of.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// Ascending by id.
    #[prost(message, repeated, tag = "2")]
    pub clones: Vec<CloneInfo>,
}

/// What serves a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolved {
    Head,
    Clone(u64),
    Nothing,
}

impl SnapSet {
    pub fn from_attr(value: &[u8]) -> Option<SnapSet> {
        SnapSet::decode(value).ok()
    }

    pub fn to_attr(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    pub fn resolve(&self, snap: u64, head_exists: bool) -> Resolved {
        if snap > self.seq {
            // No write since that snapshot: the head still is what it was then.
            return if head_exists { Resolved::Head } else { Resolved::Nothing };
        }
        let serving = self.clones.iter().find(|clone| clone.id >= snap);
        match serving.filter(|clone| clone.snaps.contains(&snap)) {
            Some(clone) => Resolved::Clone(clone.id),
            None => Resolved::Nothing,
        }
    }

    /// Adds a clone of a head of `size` bytes that serves `snaps` (oldest first), all newer than those before.
    pub(crate) fn add(&mut self, snaps: Vec<u64>, size: u64) {
        let id = *snaps.last().expect("a clone serves a snapshot");
        assert!(self.clones.last().is_none_or(|newest| newest.id < id), "clones are made in order");
        let overlap = if size > 0 { vec![Extent { offset: 0, length: size }] } else { Vec::new() };
        self.clones.push(CloneInfo { id, snaps, size, overlap });
    }

    /// The head's bytes `[start, end)` changed: they are no longer what the newest clone has. True if that was news.
    pub(crate) fn head_changed(&mut self, start: u64, end: u64) -> bool {
        let Some(newest) = self.clones.last_mut() else { return false };
        let touches = |e: &Extent| e.offset < end && start < e.offset + e.length;
        if start >= end || !newest.overlap.iter().any(touches) {
            return false;
        }
        let mut ranges = ranges(&newest.overlap);
        ranges.remove(start, end);
        newest.overlap = extents(&ranges);
        true
    }

    /// Forgets the clone at `at`; the one before it now has in common with the next newer what both steps left.
    pub(crate) fn remove(&mut self, at: usize) {
        let gone = self.clones.remove(at);
        if at > 0 {
            let older = &mut self.clones[at - 1];
            older.overlap = intersection(&older.overlap, &gone.overlap);
        }
    }
}

fn ranges(extents: &[Extent]) -> RangeSet {
    let mut ranges = RangeSet::new();
    for extent in extents {
        ranges.insert(extent.offset, extent.offset.saturating_add(extent.length));
    }
    ranges
}

fn extents(ranges: &RangeSet) -> Vec<Extent> {
    ranges.iter().map(|(start, end)| Extent { offset: start, length: end - start }).collect()
}

fn intersection(a: &[Extent], b: &[Extent]) -> Vec<Extent> {
    let mut result = ranges(a);
    let b = ranges(b);
    let mut at = 0;
    for (start, end) in b.iter() {
        result.remove(at, start);
        at = end;
    }
    result.remove(at, u64::MAX);
    extents(&result)
}
