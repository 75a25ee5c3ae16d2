//! Sets of non-overlapping, non-touching half-open ranges of `u64`: free space, dirty extents, missing parts.

use std::collections::BTreeMap;

/// Ranges merge when they touch. Start is the key, end (exclusive) the value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RangeSet {
    ranges: BTreeMap<u64, u64>,
    total: u64,
}

impl RangeSet {
    pub fn new() -> RangeSet {
        RangeSet::default()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many separate ranges there are.
    pub fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// How many numbers are in the set.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Adds `start..end`; what is already there stays.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut start, mut end) = (start, end);
        let touching: Vec<(u64, u64)> = self
            .ranges
            .range(..=end)
            .rev()
            .take_while(|&(_, &e)| e >= start)
            .map(|(&s, &e)| (s, e))
            .collect();
        for (s, e) in touching {
            self.ranges.remove(&s);
            self.total -= e - s;
            start = start.min(s);
            end = end.max(e);
        }
        self.ranges.insert(start, end);
        self.total += end - start;
    }

    /// Takes `start..end` out; what is not there stays away.
    pub fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let overlapping: Vec<(u64, u64)> =
            self.ranges.range(..end).rev().take_while(|&(_, &e)| e > start).map(|(&s, &e)| (s, e)).collect();
        for (s, e) in overlapping {
            self.ranges.remove(&s);
            self.total -= e - s;
            for (s, e) in [(s, start.min(e)), (end.max(s), e)] {
                if s < e {
                    self.ranges.insert(s, e);
                    self.total += e - s;
                }
            }
        }
    }

    /// True if all of `start..end` is in the set.
    pub fn contains(&self, start: u64, end: u64) -> bool {
        start >= end || self.ranges.range(..=start).next_back().is_some_and(|(_, &e)| e >= end)
    }

    /// True if any of `start..end` is in the set.
    pub fn intersects(&self, start: u64, end: u64) -> bool {
        start < end && self.ranges.range(..end).next_back().is_some_and(|(_, &e)| e > start)
    }

    /// The ranges, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(&s, &e)| (s, e))
    }

    /// The first range that ends after `at`, clipped to start no earlier than `at`.
    pub fn next_from(&self, at: u64) -> Option<(u64, u64)> {
        if let Some((_, &end)) = self.ranges.range(..=at).next_back()
            && end > at
        {
            return Some((at, end));
        }
        self.ranges.range(at..).next().map(|(&s, &e)| (s, e))
    }

    pub fn clear(&mut self) {
        self.ranges.clear();
        self.total = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    #[test]
    fn agrees_with_a_bitmap() {
        let mut rng = Rng::new(5);
        let mut set = RangeSet::new();
        let mut model = [false; 200];
        for _ in 0..5000 {
            let start = rng.below(200);
            let end = rng.range(start, 201);
            let add = rng.chance(1, 2);
            if add {
                set.insert(start, end)
            } else {
                set.remove(start, end)
            }
            model[start as usize..end as usize].fill(add);
            assert_eq!(set.total(), model.iter().filter(|&&b| b).count() as u64);
            let (s, e) = (rng.below(200), rng.below(201));
            let span = s as usize..(e.max(s)) as usize;
            assert_eq!(set.contains(s, e), model[span.clone()].iter().all(|&b| b));
            assert_eq!(set.intersects(s, e), model[span].iter().any(|&b| b));
            let from = model[s as usize..].iter().position(|&b| b).map(|p| p as u64 + s);
            assert_eq!(set.next_from(s).map(|r| r.0), from);
            let mut last = None;
            for (s, e) in set.iter() {
                assert!(s < e && last.is_none_or(|l| l < s));
                last = Some(e);
            }
        }
    }
}
