//! The simplest object store there is, for tests here and of crates above: everything in memory, applied at once, committed when polled.

use bytes::Bytes;
use nacre_store::{
    DiskDone, DiskError, DiskRequest, KvError, ObjectStat, ObjectStore, StoreError, StoreEvent, StoreStats,
    Usage,
};
use nacre_types::{BLOCK_U64, ObjectId, PgId};
use nacre_wire::transaction::Op;
use nacre_wire::{Data, Transaction};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One object of the model.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ModelObject {
    pub data: Vec<u8>,
    pub attrs: BTreeMap<Bytes, Bytes>,
    pub omap: BTreeMap<Bytes, Bytes>,
}

/// See the module's description.
#[derive(Clone, Debug, Default)]
pub struct ModelStore {
    pub objects: BTreeMap<ObjectId, ModelObject>,
    pub meta: BTreeMap<(PgId, Vec<u8>), Bytes>,
    /// Objects whose data fails its checksum until it is replaced.
    pub bad: BTreeSet<ObjectId>,
    /// Objects whose data the disk gives an error for.
    pub unreadable: BTreeSet<ObjectId>,
    /// How much it holds; zero says that nobody knows.
    pub total_bytes: u64,
    /// Freed and not yet room again.
    pub freed_bytes: u64,
    /// Reads of fewer bytes are not done before this is smaller.
    pub slow_below: u64,
    slow: Vec<(u64, StoreEvent)>,
    events: VecDeque<StoreEvent>,
}

impl ModelStore {
    pub fn apply(&mut self, transaction: &Transaction) {
        let mut writes = transaction.writes().iter();
        let pg = transaction.pg();
        for op in transaction.ops() {
            let object = |index| transaction.object(index).clone();
            match op {
                Op::Create(on) => {
                    self.objects.entry(object(on.object)).or_default();
                }
                Op::Write(on) => {
                    let bytes = &writes.next().expect("data for each write").bytes;
                    let data = &mut self.objects.entry(object(on.object)).or_default().data;
                    let end = on.offset as usize + bytes.len();
                    data.resize(data.len().max(end), 0);
                    data[on.offset as usize..end].copy_from_slice(bytes);
                }
                Op::Zero(on) => {
                    let data = &mut self.objects.entry(object(on.object)).or_default().data;
                    let end = (on.offset + on.length) as usize;
                    data.resize(data.len().max(end), 0);
                    data[on.offset as usize..end].fill(0);
                }
                Op::Truncate(on) => {
                    self.objects.entry(object(on.object)).or_default().data.resize(on.size as usize, 0)
                }
                Op::Remove(on) => {
                    self.bad.remove(transaction.object(on.object));
                    self.objects.remove(&object(on.object));
                }
                Op::SetAttrs(on) => {
                    let attrs = &mut self.objects.entry(object(on.object)).or_default().attrs;
                    attrs.extend(on.pairs.iter().map(|p| (p.key.clone(), p.value.clone())));
                }
                Op::RemoveAttrs(on) => {
                    let attrs = &mut self.objects.entry(object(on.object)).or_default().attrs;
                    attrs.retain(|key, _| !on.keys.contains(key));
                }
                Op::OmapSet(on) => {
                    let omap = &mut self.objects.entry(object(on.object)).or_default().omap;
                    omap.extend(on.pairs.iter().map(|p| (p.key.clone(), p.value.clone())));
                }
                Op::OmapRemove(on) => {
                    let omap = &mut self.objects.entry(object(on.object)).or_default().omap;
                    omap.retain(|key, _| !on.keys.contains(key));
                }
                Op::OmapClear(on) => self.objects.entry(object(on.object)).or_default().omap.clear(),
                Op::Clone(two) => {
                    let copy = self.objects.get(&object(two.from)).cloned().expect("a source to clone");
                    self.objects.insert(object(two.to), copy);
                }
                Op::Rename(two) => {
                    self.bad.remove(transaction.object(two.to));
                    let moved = self.objects.remove(&object(two.from)).expect("a source to rename");
                    self.objects.insert(object(two.to), moved);
                }
                Op::MetaSet(pairs) => {
                    self.meta.extend(pairs.pairs.iter().map(|p| ((pg, p.key.to_vec()), p.value.clone())))
                }
                Op::MetaRemove(keys) => {
                    self.meta.retain(|(of, key), _| *of != pg || !keys.keys.iter().any(|k| k == key))
                }
                Op::MetaRemoveRange(range) => self.meta.retain(|(of, key), _| {
                    *of != pg || key[..] < range.first[..] || key[..] >= range.end[..]
                }),
            }
        }
    }
}

impl ObjectStore for ModelStore {
    fn submit(&mut self, token: u64, transaction: Transaction) {
        self.apply(&transaction);
        self.events.push_back(StoreEvent::Committed { token });
    }

    fn read(&mut self, token: u64, object: &ObjectId, offset: u64, length: u64) {
        if self.bad.contains(object) {
            let result = Err(StoreError::Checksum { object: object.to_string(), block: 0 });
            return self.events.push_back(StoreEvent::ReadDone { token, result });
        }
        if self.unreadable.contains(object) {
            let result = Err(DiskError::Io { offset, reason: "unreadable".into() }.into());
            return self.events.push_back(StoreEvent::ReadDone { token, result });
        }
        let range = offset as usize..(offset + length) as usize;
        let bytes = self.objects.get(object).and_then(|o| o.data.get(range));
        let result = bytes
            .map(|bytes| Data::checksummed(offset, Bytes::copy_from_slice(bytes)))
            .ok_or_else(|| StoreError::NotFound { object: object.to_string() });
        self.slow.push((length, StoreEvent::ReadDone { token, result }));
    }

    fn stat(&self, object: &ObjectId) -> Result<Option<ObjectStat>, StoreError> {
        let stat = |o: &&ModelObject| {
            let size = o.data.len() as u64;
            ObjectStat { size, allocated_bytes: size.next_multiple_of(BLOCK_U64) }
        };
        Ok(self.objects.get(object).as_ref().map(stat))
    }

    fn attr(&self, object: &ObjectId, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.objects.get(object).and_then(|o| o.attrs.get(name).cloned()))
    }

    fn attrs(&self, object: &ObjectId) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let attrs = self.objects.get(object).map(|o| o.attrs.clone()).unwrap_or_default();
        Ok(attrs.into_iter().collect())
    }

    fn omap_get(&self, object: &ObjectId, keys: &[Bytes]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let Some(object) = self.objects.get(object) else { return Ok(Vec::new()) };
        Ok(keys.iter().filter_map(|key| Some((key.clone(), object.omap.get(key)?.clone()))).collect())
    }

    fn omap_list(
        &self,
        object: &ObjectId,
        after: Option<&[u8]>,
        prefix: &[u8],
        entries_max: usize,
    ) -> Result<(Vec<(Bytes, Bytes)>, bool), StoreError> {
        let Some(object) = self.objects.get(object) else { return Ok((Vec::new(), false)) };
        let follows = |key: &Bytes| key.starts_with(prefix) && after.is_none_or(|after| key[..] > *after);
        let mut found: Vec<(Bytes, Bytes)> =
            object.omap.iter().filter(|(k, _)| follows(k)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let more = found.len() > entries_max;
        found.truncate(entries_max);
        Ok((found, more))
    }

    fn extents(&self, object: &ObjectId, offset: u64, length: u64) -> Result<Vec<(u64, u64)>, StoreError> {
        let size = self.objects.get(object).map_or(0, |o| o.data.len() as u64);
        let end = offset.saturating_add(length).min(size);
        Ok(if offset < end { vec![(offset, end - offset)] } else { Vec::new() })
    }

    fn list(
        &self,
        after: &[u8],
        inclusive: bool,
        end: &[u8],
        entries_max: usize,
    ) -> Result<Vec<ObjectId>, StoreError> {
        let inside = |object: &&ObjectId| {
            let key = object.key();
            (key[..] > *after || (inclusive && key[..] == *after)) && key[..] < *end
        };
        Ok(self.objects.keys().filter(inside).take(entries_max).cloned().collect())
    }

    fn meta_get(&self, pg: PgId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.meta.get(&(pg, key.to_vec())).cloned())
    }

    fn meta_scan(
        &self,
        pg: PgId,
        first: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        for ((of, key), value) in self.meta.range((pg, first.to_vec())..) {
            if *of != pg || (!end.is_empty() && key[..] >= *end) || !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn meta_pgs(&self) -> Result<Vec<PgId>, StoreError> {
        let mut pgs: Vec<PgId> = self.meta.keys().map(|(pg, _)| *pg).collect();
        pgs.dedup();
        Ok(pgs)
    }

    fn usage(&self) -> Usage {
        let used_bytes = self.objects.values().map(|object| object.data.len() as u64).sum();
        Usage { total_bytes: self.total_bytes, used_bytes, freed_bytes: self.freed_bytes }
    }

    fn stats(&self) -> StoreStats {
        StoreStats::default()
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        let slow_below = self.slow_below;
        self.events
            .extend(self.slow.extract_if(.., |(length, _)| *length >= slow_below).map(|(_, done)| done));
        self.events.pop_front()
    }

    fn wants_disk(&self) -> bool {
        false
    }

    fn poll_disk(&mut self) -> Option<DiskRequest> {
        None
    }

    fn disk_done(&mut self, _: DiskDone) {}

    fn kv_flushed(&mut self, _: u64, _: Result<(), KvError>) {}
}
