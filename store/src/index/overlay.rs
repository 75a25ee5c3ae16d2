//! Changes that the index does not hold yet: one layer per journal record, the last still gathering transactions, and
//! below them what the last durable records changed.
//!
//! Nothing reaches the `Kv` before its journal record is durable (it may flush by itself at any moment), yet every
//! answer sees all that was submitted: lookups go through the layers, newest first, then to what has settled, then to the
//! `Kv`. A layer is the atomic unit of the journal, so later changes of a key replace earlier ones within it; what has
//! settled goes to the `Kv` at once, so there too, and a key that every write changes costs little.

use crate::{Kv, KvError};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// From a first key up to an end.
pub(crate) type KeyRange = (Vec<u8>, Vec<u8>);

fn holds((first, end): &KeyRange, key: &[u8]) -> bool {
    first.as_slice() <= key && key < end.as_slice()
}

/// Drops the changes of keys in a range.
fn drop_range<V>(kv: &mut BTreeMap<Vec<u8>, V>, (first, end): &KeyRange, mut dropped: impl FnMut(&[u8], &V)) {
    while let Some((key, _)) = kv.range(first.clone()..).next().filter(|(key, _)| *key < end) {
        let key = key.clone();
        if let Some(value) = kv.remove(&key) {
            dropped(&key, &value);
        }
    }
}

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
    pub kv: BTreeMap<Vec<u8>, Option<Bytes>>,
    /// Key ranges that go before the changes in `kv` come: what lies in them below this layer is no more.
    pub ranges: Vec<KeyRange>,
    /// Whole blocks that travel in the journal and are written in place later: (bytes, crc).
    pub payload: BTreeMap<u64, (Bytes, u32)>,
    /// By first block.
    pub direct: BTreeMap<u64, Direct>,
    pub direct_outstanding: usize,
    /// Blocks this record frees: (first, count).
    pub freed: Vec<(u64, u64)>,
    pub tokens: Vec<u64>,
    pub transactions: u32,
    /// Size of the keys and values, roughly.
    pub kv_bytes: usize,
}

impl Layer {
    pub fn is_empty(&self) -> bool {
        self.transactions == 0
    }

    /// At least the bytes of the record this becomes.
    pub fn record_bytes(&self) -> u64 {
        use nacre_types::checksum::BLOCK_U64;
        let crcs: usize = self.direct.values().map(|d| d.crcs.len()).sum();
        let ranges: usize = self.ranges.iter().map(|r| r.0.len() + r.1.len() + 20).sum();
        let head = 80 + self.kv_bytes + self.payload.len() * 14 + self.direct.len() * 20 + crcs * 4 + ranges;
        (head as u64).next_multiple_of(BLOCK_U64) + self.payload.len() as u64 * BLOCK_U64
    }

    pub fn put(&mut self, key: Vec<u8>, value: Option<Bytes>) {
        self.kv_bytes += value.as_ref().map_or(0, Bytes::len);
        let key_bytes = key.len() + 16;
        match self.kv.insert(key, value) {
            Some(old) => self.kv_bytes -= old.map_or(0, |v| v.len()),
            None => self.kv_bytes += key_bytes,
        }
    }

    pub fn remove_range(&mut self, first: Vec<u8>, end: Vec<u8>) {
        if first < end {
            let (range, mut dropped) = ((first, end), 0);
            drop_range(&mut self.kv, &range, |key, value| {
                dropped += key.len() + 16 + value.as_ref().map_or(0, Bytes::len);
            });
            self.kv_bytes -= dropped;
            self.ranges.push(range);
        }
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

/// Changes of durable records, on their way to the index.
#[derive(Default, Debug)]
pub(crate) struct Settled {
    pub kv: BTreeMap<Vec<u8>, Option<Bytes>>,
    /// As in a [`Layer`].
    pub ranges: Vec<KeyRange>,
    /// Size of the keys and values that came in, replaced ones included.
    pub bytes: usize,
}

/// The layers, oldest first; there is always a last one to add to.
#[derive(Debug)]
pub(crate) struct Overlay {
    pub layers: VecDeque<Layer>,
    pub settled: Settled,
}

impl Overlay {
    pub fn new(next_seq: u64) -> Overlay {
        let layers = VecDeque::from([Layer { seq: next_seq, ..Layer::default() }]);
        Overlay { layers, settled: Settled::default() }
    }

    /// The oldest layer's record is durable: takes its changes over.
    pub fn settle(&mut self, kv: BTreeMap<Vec<u8>, Option<Bytes>>, ranges: Vec<KeyRange>, bytes: usize) {
        self.settled.bytes += bytes;
        for range in ranges {
            drop_range(&mut self.settled.kv, &range, |_, _| ());
            // A log that is trimmed step by step makes one range.
            match self.settled.ranges.iter_mut().find(|(_, end)| *end == range.0) {
                Some((_, end)) => *end = range.1,
                None => self.settled.ranges.push(range),
            }
        }
        match self.settled.kv.is_empty() {
            true => self.settled.kv = kv,
            false => self.settled.kv.extend(kv),
        }
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
        let settled = (&self.settled.kv, &self.settled.ranges);
        for (changes, ranges) in
            self.layers.iter().rev().map(|layer| (&layer.kv, &layer.ranges)).chain([settled])
        {
            if let Some(value) = changes.get(key) {
                return Ok(value.clone());
            }
            if ranges.iter().any(|range| holds(range, key)) {
                return Ok(None);
            }
        }
        kv.get(key)
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
        let mut changes: BTreeMap<&[u8], Option<&Bytes>> = BTreeMap::new();
        let mut removed: Vec<&KeyRange> = Vec::new();
        let settled = (&self.settled.kv, &self.settled.ranges);
        for (kv, ranges) in
            [settled].into_iter().chain(self.layers.iter().map(|layer| (&layer.kv, &layer.ranges)))
        {
            for range in ranges.iter().filter(|range| range.0.as_slice() < end && range.1.as_slice() > first)
            {
                changes.retain(|key, _| !holds(range, key));
                removed.push(range);
            }
            let range = (std::ops::Bound::Included(first), std::ops::Bound::Excluded(end));
            changes.extend(kv.range::<[u8], _>(range).map(|(k, v)| (k.as_slice(), v.as_ref())));
        }
        let mut changes = changes.into_iter().peekable();
        let mut stopped = false;
        kv.scan(first, end, &mut |key, value| {
            while let Some((changed, new)) = changes.next_if(|(changed, _)| *changed <= key) {
                if let Some(new) = new
                    && !visit(changed, new)
                {
                    stopped = true;
                    return false;
                }
                if changed == key {
                    return true;
                }
            }
            if removed.iter().any(|range| holds(range, key)) {
                return true;
            }
            stopped = !visit(key, value);
            !stopped
        })?;
        if stopped {
            return Ok(());
        }
        for (key, value) in changes {
            if let Some(value) = value
                && !visit(key, value)
            {
                break;
            }
        }
        Ok(())
    }
}
