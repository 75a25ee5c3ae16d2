//! A minimal object store in memory: what is submitted shows at once and is durable only when the world says so.

use bytes::Bytes;
use nacre_store::{
    DiskDone, DiskRequest, KvError, ObjectStat, ObjectStore, StoreError, StoreEvent, StoreStats, Usage,
};
use nacre_types::{ObjectId, PgId};
use nacre_wire::transaction::Op;
use nacre_wire::{Data, Transaction};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Object {
    pub data: Vec<u8>,
    pub attrs: BTreeMap<Bytes, Bytes>,
    pub omap: BTreeMap<Bytes, Bytes>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Content {
    pub objects: BTreeMap<Vec<u8>, Object>,
    pub meta: BTreeMap<(PgId, Bytes), Bytes>,
}

impl Content {
    fn object(&mut self, id: &ObjectId) -> &mut Object {
        self.objects.entry(id.key()).or_default()
    }

    fn apply(&mut self, t: &Transaction) {
        let mut writes = t.writes().iter();
        for op in t.ops() {
            match op {
                Op::Create(on) => drop(self.object(t.object(on.object))),
                Op::Write(on) => {
                    let data = writes.next().expect("data of each write");
                    let object = self.object(t.object(on.object));
                    let (start, end) = (on.offset as usize, (on.offset + on.length) as usize);
                    object.data.resize(object.data.len().max(end), 0);
                    object.data[start..end].copy_from_slice(&data.bytes);
                }
                Op::Zero(on) => {
                    let object = self.object(t.object(on.object));
                    let (start, end) = (on.offset as usize, (on.offset + on.length) as usize);
                    object.data.resize(object.data.len().max(end), 0);
                    object.data[start..end].fill(0);
                }
                Op::Truncate(on) => self.object(t.object(on.object)).data.resize(on.size as usize, 0),
                Op::Remove(on) => drop(self.objects.remove(&t.object(on.object).key())),
                Op::SetAttrs(on) => {
                    let pairs = on.pairs.iter().map(|p| (p.key.clone(), p.value.clone()));
                    self.object(t.object(on.object)).attrs.extend(pairs);
                }
                Op::RemoveAttrs(on) => {
                    let object = self.object(t.object(on.object));
                    on.keys.iter().for_each(|key| drop(object.attrs.remove(key)));
                }
                Op::OmapSet(on) => {
                    let pairs = on.pairs.iter().map(|p| (p.key.clone(), p.value.clone()));
                    self.object(t.object(on.object)).omap.extend(pairs);
                }
                Op::OmapRemove(on) => {
                    let object = self.object(t.object(on.object));
                    on.keys.iter().for_each(|key| drop(object.omap.remove(key)));
                }
                Op::OmapClear(on) => self.object(t.object(on.object)).omap.clear(),
                Op::Clone(on) => {
                    let copy = self.object(t.object(on.from)).clone();
                    *self.object(t.object(on.to)) = copy;
                }
                Op::Rename(on) => {
                    let moved = self.objects.remove(&t.object(on.from).key()).unwrap_or_default();
                    *self.object(t.object(on.to)) = moved;
                }
                Op::MetaSet(set) => {
                    let pairs = set.pairs.iter().map(|p| ((t.pg(), p.key.clone()), p.value.clone()));
                    self.meta.extend(pairs);
                }
                Op::MetaRemove(keys) => {
                    keys.keys.iter().for_each(|key| drop(self.meta.remove(&(t.pg(), key.clone()))));
                }
                Op::MetaRemoveRange(range) => {
                    let (pg, first, end) = (t.pg(), range.first.clone(), range.end.clone());
                    self.meta
                        .retain(|(of, key), _| *of != pg || *key < first || (!end.is_empty() && *key >= end));
                }
            }
        }
    }
}

/// Clones share nothing; `durable` is what a crash leaves.
#[derive(Clone, Debug, Default)]
pub struct MemStore {
    pub live: Content,
    pub durable: Content,
    uncommitted: VecDeque<(u64, Transaction)>,
    reads: VecDeque<(u64, Result<Data, StoreError>)>,
    events: VecDeque<StoreEvent>,
    /// The next work fails for good.
    pub fail: bool,
    /// How often it was told to make freed space available.
    pub reclaims: u32,
}

impl MemStore {
    /// What is left after a crash: some prefix of what was submitted, at least all that was reported.
    pub fn crash(mut self, also: usize) -> MemStore {
        for (_, t) in self.uncommitted.drain(..).take(also) {
            self.durable.apply(&t);
        }
        MemStore { live: self.durable.clone(), durable: self.durable, ..MemStore::default() }
    }

    pub fn uncommitted(&self) -> usize {
        self.uncommitted.len()
    }

    pub fn is_busy(&self) -> bool {
        !self.uncommitted.is_empty() || !self.reads.is_empty()
    }

    /// The disk has worked: everything submitted so far becomes durable, reads end.
    pub fn work(&mut self) {
        if self.fail {
            self.uncommitted.clear();
            let error = StoreError::Corrupt("the disk is gone".into());
            return self.events.push_back(StoreEvent::Failed(error));
        }
        for (token, t) in self.uncommitted.drain(..) {
            self.durable.apply(&t);
            self.events.push_back(StoreEvent::Committed { token });
        }
        for (token, result) in self.reads.drain(..) {
            self.events.push_back(StoreEvent::ReadDone { token, result });
        }
    }

    fn get(&self, object: &ObjectId) -> Option<&Object> {
        self.live.objects.get(&object.key())
    }
}

impl ObjectStore for MemStore {
    fn submit(&mut self, token: u64, transaction: Transaction) {
        self.live.apply(&transaction);
        self.uncommitted.push_back((token, transaction));
    }

    fn read(&mut self, token: u64, object: &ObjectId, offset: u64, length: u64) {
        let result = match self.get(object) {
            None => Err(StoreError::NotFound { object: object.to_string() }),
            Some(found) => {
                let bytes = found.data[offset as usize..(offset + length) as usize].to_vec();
                Ok(Data::checksummed(offset, bytes.into()))
            }
        };
        self.reads.push_back((token, result));
    }

    fn stat(&self, object: &ObjectId) -> Result<Option<ObjectStat>, StoreError> {
        Ok(self.get(object).map(|found| {
            let size = found.data.len() as u64;
            ObjectStat { size, allocated_bytes: size }
        }))
    }

    fn attr(&self, object: &ObjectId, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.get(object).and_then(|found| found.attrs.get(name)).cloned())
    }

    fn attrs(&self, object: &ObjectId) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let all = self.get(object).map(|found| found.attrs.clone()).unwrap_or_default();
        Ok(all.into_iter().collect())
    }

    fn omap_get(&self, object: &ObjectId, keys: &[Bytes]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let found = self.get(object);
        let pair = |key: &Bytes| Some((key.clone(), found?.omap.get(key)?.clone()));
        Ok(keys.iter().filter_map(pair).collect())
    }

    fn omap_list(
        &self,
        object: &ObjectId,
        after: Option<&[u8]>,
        prefix: &[u8],
        entries_max: usize,
    ) -> Result<(Vec<(Bytes, Bytes)>, bool), StoreError> {
        let omap = self.get(object).map(|found| found.omap.clone()).unwrap_or_default();
        let wanted = |key: &Bytes| after.is_none_or(|after| key[..] > *after) && key.starts_with(prefix);
        let mut pairs: Vec<_> = omap.into_iter().filter(|(key, _)| wanted(key)).collect();
        let more = pairs.len() > entries_max;
        pairs.truncate(entries_max);
        Ok((pairs, more))
    }

    fn extents(&self, object: &ObjectId, offset: u64, length: u64) -> Result<Vec<(u64, u64)>, StoreError> {
        let size = self.get(object).map_or(0, |found| found.data.len() as u64);
        let end = size.min(offset.saturating_add(length));
        Ok(if offset < end { vec![(offset, end - offset)] } else { Vec::new() })
    }

    fn list(
        &self,
        after: &[u8],
        inclusive: bool,
        end: &[u8],
        entries_max: usize,
    ) -> Result<Vec<ObjectId>, StoreError> {
        let first = if inclusive { Bound::Included(after.to_vec()) } else { Bound::Excluded(after.to_vec()) };
        if after >= end {
            return Ok(Vec::new());
        }
        let range = self.live.objects.range((first, Bound::Excluded(end.to_vec())));
        Ok(range.take(entries_max).filter_map(|(key, _)| ObjectId::from_key(key)).collect())
    }

    fn meta_get(&self, pg: PgId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.live.meta.get(&(pg, Bytes::copy_from_slice(key))).cloned())
    }

    fn meta_scan(
        &self,
        pg: PgId,
        first: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for ((of, key), value) in self.live.meta.range((pg, Bytes::copy_from_slice(first))..) {
            if *of != pg || (!end.is_empty() && key[..] >= *end) || !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn meta_pgs(&self) -> Result<Vec<PgId>, StoreError> {
        let pgs: BTreeSet<PgId> = self.live.meta.keys().map(|(pg, _)| *pg).collect();
        Ok(pgs.into_iter().collect())
    }

    fn usage(&self) -> Usage {
        let used_bytes = self.live.objects.values().map(|object| object.data.len() as u64).sum();
        Usage { total_bytes: 1 << 40, used_bytes, freed_bytes: 0 }
    }

    fn reclaim(&mut self) {
        self.reclaims += 1;
    }

    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        self.events.pop_front()
    }

    fn wants_disk(&self) -> bool {
        false
    }

    fn poll_disk(&mut self) -> Option<DiskRequest> {
        None
    }

    /// The world's way to say that the disk has worked.
    fn disk_done(&mut self, _done: DiskDone) {
        self.work();
    }

    fn kv_flushed(&mut self, _token: u64, _result: Result<(), KvError>) {}
}
