//! Changes that the index does not hold yet: one layer per journal record, the last still gathering transactions; below
//! them what the durable records since the last checkpoint changed; below that what a checkpoint is bringing to the index.
//!
//! Nothing reaches the `Kv` before its journal record is durable, yet every answer sees all that was submitted: lookups
//! go through the layers, newest first, then to what has settled, then to what is sealed, then to the `Kv`. A layer is
//! the atomic unit of the journal, so later changes of a key replace earlier ones within it; what has settled goes to the
//! `Kv` at once, so there too, and a key that every write changes costs little.

use crate::{Changes, Kv, KvError};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Data on its way to freshly allocated blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Direct {
    pub bytes: Bytes,
    pub crcs: Vec<u32>,
}

/// Everything one journal record will make durable.
#[derive(Default, Debug)]
pub(crate) struct Layer {
    pub seq: u64,
    pub changes: Changes,
    /// Whole blocks that travel in the journal and are written in place later: (bytes, crc).
    pub payload: BTreeMap<u64, (Bytes, u32)>,
    /// By first block.
    pub direct: BTreeMap<u64, Direct>,
    pub direct_outstanding: usize,
    /// Blocks this record frees: (first, count).
    pub freed: Vec<(u64, u64)>,
    pub tokens: Vec<u64>,
    pub transactions: u32,
}

impl Layer {
    pub fn is_empty(&self) -> bool {
        self.transactions == 0
    }

    /// At least the bytes of the record this becomes.
    pub fn record_bytes(&self) -> u64 {
        use nacre_types::checksum::BLOCK_U64;
        let crcs: usize = self.direct.values().map(|d| d.crcs.len()).sum();
        let ranges: usize = self.changes.ranges().iter().map(|r| r.0.len() + r.1.len() + 20).sum();
        let head =
            80 + self.changes.bytes() + self.payload.len() * 14 + self.direct.len() * 20 + crcs * 4 + ranges;
        (head as u64).next_multiple_of(BLOCK_U64) + self.payload.len() as u64 * BLOCK_U64
    }

    pub fn put(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        self.changes.put(key, value);
    }

    pub fn remove_range(&mut self, first: Vec<u8>, end: Vec<u8>) {
        self.changes.remove_range(first, end);
    }

    /// The bytes of a block that this layer writes.
    fn block(&self, block: u64) -> Option<Bytes> {
        use nacre_types::checksum::BLOCK;
        if let Some((bytes, _)) = self.payload.get(&block) {
            return Some(bytes.clone());
        }
        let (first, direct) = self.direct.range(..=block).next_back()?;
        let at = (block - first) as usize * BLOCK;
        (at < direct.bytes.len()).then(|| direct.bytes.slice(at..at + BLOCK))
    }
}

/// The layers, oldest first; there is always a last one to add to.
#[derive(Debug)]
pub(crate) struct Overlay {
    pub layers: VecDeque<Layer>,
    /// Changes of durable records.
    pub settled: Changes,
    /// Those that are on their way to the index.
    pub sealed: Option<Arc<Changes>>,
}

impl Overlay {
    pub fn new(next_seq: u64) -> Overlay {
        let layers = VecDeque::from([Layer { seq: next_seq, ..Layer::default() }]);
        Overlay { layers, settled: Changes::default(), sealed: None }
    }

    /// Closes what has settled: until the index has it, it is looked up here.
    pub fn seal(&mut self) -> Arc<Changes> {
        assert!(self.sealed.is_none(), "one checkpoint at a time");
        self.sealed.insert(Arc::new(std::mem::take(&mut self.settled))).clone()
    }

    /// All changes that the index may not hold, newest first.
    fn sources(&self) -> impl Iterator<Item = &Changes> {
        let layers = self.layers.iter().rev().map(|layer| &layer.changes);
        layers.chain([&self.settled]).chain(self.sealed.as_deref())
    }

    /// The layer that gathers.
    pub fn top(&mut self) -> &mut Layer {
        self.layers.back_mut().expect("there is always a gathering layer")
    }

    /// Closes the gathering layer and opens the next.
    pub fn push_layer(&mut self) {
        let seq = self.top().seq + 1;
        self.layers.push_back(Layer { seq, ..Layer::default() });
    }

    pub fn layer_mut(&mut self, seq: u64) -> Option<&mut Layer> {
        let first = self.layers.front()?.seq;
        self.layers.get_mut(usize::try_from(seq.checked_sub(first)?).ok()?)
    }

    pub fn get<K: Kv>(&self, kv: &K, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        match self.sources().find_map(|changes| changes.get(key)) {
            Some(value) => Ok(value.cloned()),
            None => kv.get(key),
        }
    }

    /// A block's bytes that are not yet written in place, or not known to be.
    pub fn block(&self, block: u64) -> Option<Bytes> {
        self.layers.iter().rev().find_map(|layer| layer.block(block))
    }

    /// Visits the pairs of `[first, end)` as all submitted changes leave them.
    pub fn scan<K: Kv>(
        &self,
        kv: &K,
        first: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), KvError> {
        if first >= end {
            return Ok(());
        }
        let sources: Vec<&Changes> = self.sources().collect();
        let value = |key: &[u8]| sources.iter().find_map(|changes| changes.get(key)).flatten();
        let mut changed: Vec<_> =
            sources.iter().map(|changes| changes.keys_of(first, end).peekable()).collect();
        // The next key that was changed, up to `last`.
        let mut next = |last: Option<&[u8]>| {
            let heads = changed.iter_mut().filter_map(|keys| keys.peek().map(|(key, _)| key.as_slice()));
            let key = heads.min().filter(|&key| last.is_none_or(|last| key <= last))?;
            for keys in &mut changed {
                keys.next_if(|(head, _)| *head == key);
            }
            Some(key)
        };
        let mut stopped = false;
        kv.scan(first, end, &mut |key, old| {
            while let Some(changed) = next(Some(key)) {
                if let Some(new) = value(changed)
                    && !visit(changed, new)
                {
                    stopped = true;
                    return false;
                }
                if changed == key {
                    return true;
                }
            }
            if sources.iter().any(|changes| changes.ranges().contains(key)) {
                return true;
            }
            stopped = !visit(key, old);
            !stopped
        })?;
        while !stopped && let Some(changed) = next(None) {
            stopped = value(changed).is_some_and(|new| !visit(changed, new));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KvOp;
    use crate::testing::SimKv;
    use nacre_types::Rng;

    /// Whatever lies where, look-ups and scans see the newest state.
    #[test]
    fn look_ups_and_scans_see_all_that_was_submitted() {
        let key = |n: u64| vec![b'k', n as u8];
        for seed in 0..300 {
            let mut rng = Rng::new(seed);
            let (mut kv, mut overlay, mut model) = (SimKv::new(seed), Overlay::new(1), BTreeMap::new());
            for n in (0..50).filter(|n| n % 3 != 0) {
                let value = Bytes::from_static(b"before");
                kv.write(vec![KvOp::Put { key: key(n), value: value.clone() }]).unwrap();
                model.insert(key(n), value);
            }
            for step in 0..60 {
                let at = rng.below(50);
                match rng.below(10) {
                    0 => overlay.push_layer(),
                    1 if overlay.layers.len() > 1 => {
                        let layer = overlay.layers.pop_front().unwrap();
                        overlay.settled.extend(layer.changes);
                    }
                    2 if overlay.sealed.is_none() => kv.start_flush(0, overlay.seal()),
                    3 if kv.complete_flush().is_some() => overlay.sealed = None,
                    4 | 5 => {
                        let end = at + rng.below(9);
                        model.retain(|k, _| !(key(at) <= *k && *k < key(end)));
                        overlay.top().remove_range(key(at), key(end));
                    }
                    6 => {
                        model.remove(&key(at));
                        overlay.top().put(key(at), None);
                    }
                    _ => {
                        let value = Bytes::from(format!("{step}"));
                        model.insert(key(at), value.clone());
                        overlay.top().put(key(at), Some(value));
                    }
                }
                let probe = key(rng.below(50));
                assert_eq!(overlay.get(&kv, &probe).unwrap().as_ref(), model.get(&probe));
                let (first, end, most) = (rng.below(50), rng.below(60), 1 + rng.below(30) as usize);
                let mut seen = Vec::new();
                let visit = &mut |key: &[u8], value: &[u8]| {
                    seen.push((key.to_vec(), Bytes::copy_from_slice(value)));
                    seen.len() < most
                };
                overlay.scan(&kv, &key(first), &key(end), visit).unwrap();
                let within = |(k, _): &(&Vec<u8>, &Bytes)| key(first) <= **k && **k < key(end);
                let want = model.iter().filter(within).take(most).map(|(k, v)| (k.clone(), v.clone()));
                assert_eq!(seen, want.collect::<Vec<_>>(), "seed {seed} step {step}");
            }
        }
    }
}
