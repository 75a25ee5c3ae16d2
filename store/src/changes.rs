//! Changes of keys in one piece: ranges that go first, then keys that get a value or none.

use crate::KvOp;
use bytes::Bytes;
use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

/// Removed ranges of keys, `[first, end)` each, apart from one another.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct KeyRanges {
    ranges: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl KeyRanges {
    fn insert(&mut self, mut first: Vec<u8>, mut end: Vec<u8>) {
        // What it overlaps or touches becomes one with it: a log that is trimmed step by step makes one range.
        while let Some((start, stop)) = self.before(&end).filter(|(_, stop)| stop.as_slice() >= &first[..]) {
            let (start, stop) = (start.clone(), stop.clone());
            self.ranges.remove(&start);
            first = first.min(start);
            end = end.max(stop);
        }
        self.ranges.insert(first, end);
    }

    /// The last range that begins at `key` or before.
    fn before(&self, key: &[u8]) -> Option<(&Vec<u8>, &Vec<u8>)> {
        self.ranges.range::<[u8], _>((Bound::Unbounded, Bound::Included(key))).next_back()
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.before(key).is_some_and(|(_, end)| key < end.as_slice())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.ranges.iter().map(|(first, end)| (first.as_slice(), end.as_slice()))
    }

    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

/// What a key weighs beside its bytes, at least, where changes are encoded.
const CHANGE_BYTES: usize = 16;

/// Later changes of a key take the place of earlier ones.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    keys: BTreeMap<Vec<u8>, Option<Bytes>>,
    ranges: KeyRanges,
    bytes: usize,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.ranges.is_empty()
    }

    /// Size of the keys and values, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The keys with their values, in order; `None` for one that is removed.
    pub fn keys(&self) -> &BTreeMap<Vec<u8>, Option<Bytes>> {
        &self.keys
    }

    /// What goes before the changes of single keys come.
    pub fn ranges(&self) -> &KeyRanges {
        &self.ranges
    }

    /// A value, or none, for a key.
    pub fn put(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        self.bytes += value.as_ref().map_or(0, Bytes::len);
        let key_bytes = key.len() + CHANGE_BYTES;
        match self.keys.insert(key, value) {
            Some(old) => self.bytes -= old.map_or(0, |value| value.len()),
            None => self.bytes += key_bytes,
        }
    }

    /// Removes all keys of `[first, end)`.
    pub fn remove_range(&mut self, first: Vec<u8>, end: Vec<u8>) {
        if first >= end {
            return;
        }
        let range = (Bound::Included(first.as_slice()), Bound::Excluded(end.as_slice()));
        let gone: Vec<Vec<u8>> = self.keys.range::<[u8], _>(range).map(|(key, _)| key.clone()).collect();
        for key in gone {
            let value = self.keys.remove(&key).flatten();
            self.bytes -= key.len() + CHANGE_BYTES + value.map_or(0, |value| value.len());
        }
        self.ranges.insert(first, end);
    }

    /// Takes later changes over.
    pub fn extend(&mut self, later: Changes) {
        if self.is_empty() {
            return *self = later;
        }
        later.ranges.ranges.into_iter().for_each(|(first, end)| self.remove_range(first, end));
        later.keys.into_iter().for_each(|(key, value)| self.put(key, value));
    }

    /// What these changes make of a key: `None` if they leave it as it is.
    pub fn get(&self, key: &[u8]) -> Option<Option<&Bytes>> {
        match self.keys.get(key) {
            Some(value) => Some(value.as_ref()),
            None => self.ranges.contains(key).then_some(None),
        }
    }

    pub(crate) fn keys_of<'a>(
        &'a self,
        first: &'a [u8],
        end: &'a [u8],
    ) -> btree_map::Range<'a, Vec<u8>, Option<Bytes>> {
        self.keys.range::<[u8], _>((Bound::Included(first), Bound::Excluded(end)))
    }

    /// The same as single operations, to be carried out in order.
    pub fn ops(&self) -> Vec<KvOp> {
        let ranges = self.ranges.iter().map(|(first, end)| (first.to_vec(), end.to_vec()));
        let ranges = ranges.map(|(first, end)| KvOp::DeleteRange { first, end });
        let keys = self.keys.iter().map(|(key, value)| match value.clone() {
            Some(value) => KvOp::Put { key: key.clone(), value },
            None => KvOp::Delete { key: key.clone() },
        });
        ranges.chain(keys).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::Rng;
    use std::collections::BTreeSet;

    fn key(n: u64) -> Vec<u8> {
        vec![b'k', n as u8]
    }

    #[test]
    fn ranges_are_the_union_of_what_came_in() {
        let mut rng = Rng::new(1);
        for _ in 0..500 {
            let (mut ranges, mut model) = (KeyRanges::default(), BTreeSet::new());
            for _ in 0..rng.below(12) {
                let (first, count) = (rng.below(60), 1 + rng.below(12));
                ranges.insert(key(first), key(first + count));
                model.extend(first..first + count);
            }
            (0..80).for_each(|n| assert_eq!(ranges.contains(&key(n)), model.contains(&n)));
            assert!(!ranges.contains(b"a") && !ranges.contains(b"z"));
            let apart: Vec<_> = ranges.iter().collect();
            assert!(apart.windows(2).all(|two| two[0].1 < two[1].0), "{apart:?}");
            assert_eq!(apart.len(), ranges.len());
        }
    }

    /// However changes are grouped, what they lead to is the same, and its size is known.
    #[test]
    fn later_changes_replace_earlier_ones() {
        let mut rng = Rng::new(2);
        for _ in 0..300 {
            let start: BTreeMap<Vec<u8>, Bytes> =
                (0..40).filter(|_| rng.chance(1, 2)).map(|n| (key(n), Bytes::from_static(b"old"))).collect();
            let (mut model, mut all) = (start.clone(), Changes::default());
            for _ in 0..4 {
                let mut some = Changes::default();
                for _ in 0..rng.below(10) {
                    let at = rng.below(40);
                    if rng.chance(1, 4) {
                        let end = at + rng.below(8);
                        model.retain(|k, _| !(key(at) <= *k && *k < key(end)));
                        some.remove_range(key(at), key(end));
                    } else if rng.chance(1, 3) {
                        model.remove(&key(at));
                        some.put(key(at), None);
                    } else {
                        let value = Bytes::from(vec![0; rng.below(50) as usize]);
                        model.insert(key(at), value.clone());
                        some.put(key(at), Some(value));
                    }
                }
                all.extend(some);
            }
            for n in 0..40 {
                let (was, is) = (start.get(&key(n)), model.get(&key(n)));
                assert_eq!(all.get(&key(n)).unwrap_or(was), is);
            }
            let mut done = start;
            for op in all.ops() {
                match op {
                    KvOp::Put { key, value } => drop(done.insert(key, value)),
                    KvOp::Delete { key } => drop(done.remove(&key)),
                    KvOp::DeleteRange { first, end } => done.retain(|k, _| !(first <= *k && *k < end)),
                }
            }
            assert_eq!(done, model);
            let value = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
            let bytes = all.keys().iter().map(|(k, v)| k.len() + CHANGE_BYTES + value(v));
            assert_eq!(all.bytes(), bytes.sum::<usize>());
        }
    }
}
