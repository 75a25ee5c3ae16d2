//! [`ObjectStore`] for [`Store`]: submission, answers from the index, and the events of disk and index.

use crate::index::keys;
use crate::index::onode::Onode;
use crate::index::overlay::Layer;
use crate::index::shard::{SHARD_BLOCKS, Shard};
use crate::io::Purpose;
use crate::store::Store;
use crate::write::locate;
use crate::{
    DiskDone, DiskRequest, Kv, KvError, ObjectStat, ObjectStore, StoreError, StoreEvent, StoreStats, Usage,
};
use bytes::Bytes;
use nacre_types::buggify;
use nacre_types::checksum::BLOCK_U64;
use nacre_types::{ObjectId, PgId};
use nacre_wire::Transaction;

impl<K: Kv> Store<K> {
    fn with_onode<T>(&self, id: &ObjectId, missing: T, f: impl FnOnce(&Onode) -> T) -> Result<T, StoreError> {
        match self.cache.peek(id) {
            Some(object) => Ok(object.onode.as_ref().map_or(missing, f)),
            None => Ok(self.load_onode(id)?.as_ref().map_or(missing, f)),
        }
    }
}

impl<K: Kv> ObjectStore for Store<K> {
    fn submit(&mut self, token: u64, transaction: Transaction) {
        if self.failed {
            return;
        }
        let full = self.overlay.top().record_bytes() > self.record_bytes_max();
        if full || (self.overlay.top().transactions > 0 && buggify("store: short record")) {
            self.overlay.push_layer();
        }
        let result = self.apply(&transaction);
        self.check(result);
        let layer = self.overlay.top();
        layer.transactions += 1;
        layer.tokens.push(token);
        self.stats.transactions += 1;
        self.cache.evict();
        if self.journal.in_flight.is_none() || !self.merges.is_empty() {
            self.maintain();
        }
    }

    fn read(&mut self, token: u64, object: &ObjectId, offset: u64, length: u64) {
        if !self.failed {
            self.start_read(token, object, offset, length);
            self.cache.evict();
        }
    }

    fn stat(&self, object: &ObjectId) -> Result<Option<ObjectStat>, StoreError> {
        self.with_onode(object, None, |onode| {
            Some(ObjectStat { size: onode.size, allocated_bytes: onode.blocks * BLOCK_U64 })
        })
    }

    fn attr(&self, object: &ObjectId, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.with_onode(object, None, |onode| onode.attr(name).cloned())
    }

    fn attrs(&self, object: &ObjectId) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.with_onode(object, Vec::new(), |onode| {
            onode.attrs.iter().map(|p| (p.key.clone(), p.value.clone())).collect()
        })
    }

    fn omap_get(&self, object: &ObjectId, names: &[Bytes]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let number = self.with_onode(object, 0, |onode| onode.omap)?;
        let mut found = Vec::new();
        if number != 0 {
            for name in names {
                if let Some(value) = self.overlay.get(&self.kv, &keys::omap(number, name))? {
                    found.push((name.clone(), value));
                }
            }
        }
        Ok(found)
    }

    fn omap_list(
        &self,
        object: &ObjectId,
        after: Option<&[u8]>,
        prefix: &[u8],
        entries_max: usize,
    ) -> Result<(Vec<(Bytes, Bytes)>, bool), StoreError> {
        let number = self.with_onode(object, 0, |onode| onode.omap)?;
        let (mut found, mut more) = (Vec::new(), false);
        if number == 0 {
            return Ok((found, more));
        }
        let mut first = keys::omap(number, prefix);
        if let Some(after) = after {
            let mut next = keys::omap(number, after);
            next.push(0);
            first = first.max(next);
        }
        let end = keys::omap_range(number).1;
        self.overlay.scan(&self.kv, &first, &end, &mut |key, value| {
            let name = &key[keys::HEAD_BYTES..];
            if !name.starts_with(prefix) {
                return false;
            }
            if found.len() >= entries_max {
                more = true;
                return false;
            }
            found.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
            true
        })?;
        Ok((found, more))
    }

    fn extents(&self, object: &ObjectId, offset: u64, length: u64) -> Result<Vec<(u64, u64)>, StoreError> {
        let (number, size) = self.with_onode(object, (0, 0), |onode| (onode.number, onode.size))?;
        let end = offset.saturating_add(length).min(size);
        let mut found: Vec<(u64, u64)> = Vec::new();
        let mut at = offset;
        while at < end {
            let (index, _) = locate(at / BLOCK_U64);
            let start = u64::from(index) * SHARD_BLOCKS as u64 * BLOCK_U64;
            let mut add = |shard: &Shard| {
                for (i, _) in shard.blocks.iter().enumerate().filter(|(_, b)| **b != 0) {
                    let from = (start + i as u64 * BLOCK_U64).max(at);
                    let to = (start + (i as u64 + 1) * BLOCK_U64).min(end);
                    match found.last_mut() {
                        _ if from >= to => {}
                        Some((o, l)) if *o + *l == from => *l += to - from,
                        _ => found.push((from, to - from)),
                    }
                }
            };
            match self.cache.peek(object).and_then(|o| o.shards.get(&index)) {
                Some(shard) => add(shard),
                None => {
                    if let Some(value) = self.overlay.get(&self.kv, &keys::shard(number, index))? {
                        let what = || format!("shard {index} of {object} does not decode");
                        add(&*Shard::decode(value).ok_or_else(|| StoreError::Corrupt(what()))?);
                    }
                }
            }
            at = start + SHARD_BLOCKS as u64 * BLOCK_U64;
        }
        Ok(found)
    }

    fn list(
        &self,
        after: &[u8],
        inclusive: bool,
        end: &[u8],
        entries_max: usize,
    ) -> Result<Vec<ObjectId>, StoreError> {
        let mut first = keys::onode_raw(after);
        if !inclusive {
            first.push(0);
        }
        let end = keys::onode_raw(end);
        let mut found = Vec::new();
        let mut bad = None;
        if entries_max == 0 {
            return Ok(found);
        }
        self.overlay.scan(&self.kv, &first, &end, &mut |key, _| match ObjectId::from_key(&key[1..]) {
            Some(id) => {
                found.push(id);
                found.len() < entries_max
            }
            None => {
                bad = Some(format!("the object key {key:02x?} does not decode"));
                false
            }
        })?;
        bad.map_or(Ok(found), |what| Err(StoreError::Corrupt(what)))
    }

    fn meta_get(&self, pg: PgId, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.overlay.get(&self.kv, &keys::meta(pg, key))?)
    }

    fn meta_scan(
        &self,
        pg: PgId,
        first: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let first = keys::meta(pg, first);
        let end = if end.is_empty() { keys::meta_end(pg) } else { keys::meta(pg, end) };
        self.overlay
            .scan(&self.kv, &first, &end, &mut |key, value| visit(&key[keys::HEAD_BYTES..], value))?;
        Ok(())
    }

    fn meta_pgs(&self) -> Result<Vec<PgId>, StoreError> {
        let mut found = Vec::new();
        let mut first = keys::METAS.0.to_vec();
        loop {
            let mut next = None;
            self.overlay.scan(&self.kv, &first, keys::METAS.1, &mut |key, _| {
                next = keys::parse_number(key);
                false
            })?;
            let Some(pg) = next.map(PgId::from_u64) else { return Ok(found) };
            found.push(pg);
            first = keys::meta_end(pg);
        }
    }

    fn usage(&self) -> Usage {
        let (total, used) = self.allocator.usage();
        let freed = self.allocator.withheld_blocks();
        Usage { total_bytes: total * BLOCK_U64, used_bytes: used * BLOCK_U64, freed_bytes: freed * BLOCK_U64 }
    }

    fn backlog_bytes(&self) -> u64 {
        let started = usize::from(self.journal.in_flight.is_some());
        let waiting = self.overlay.layers.iter().skip(started).filter(|layer| !layer.is_empty());
        waiting.map(Layer::record_bytes).sum()
    }

    fn reclaim(&mut self) {
        self.reclaiming = self.allocator.is_worth_reclaiming();
        self.maintain();
    }

    fn stats(&self) -> StoreStats {
        self.stats
    }

    fn poll_event(&mut self) -> Option<StoreEvent> {
        self.events.pop_front()
    }

    fn wants_disk(&self) -> bool {
        let idle = !self.failed && self.journal.in_flight.is_none();
        !self.io.is_drained() || idle && (self.may_launch() || self.may_issue())
    }

    fn poll_disk(&mut self) -> Option<DiskRequest> {
        if self.io.is_drained() {
            self.launch();
            if self.journal.in_flight.is_none() {
                // No record to go with; or one that waits for these.
                self.issue_some_writes();
            }
        }
        self.io.next_request()
    }

    fn disk_done(&mut self, done: DiskDone) {
        let Some(purpose) = self.io.ended(done.token) else { return };
        if self.failed {
            return;
        }
        match (purpose, done.result) {
            (Purpose::Read { read, run }, result) => self.read_done(read, run, result),
            (Purpose::Merge { merge }, result) => self.merge_read(merge, result),
            (Purpose::Discard, result) => self.discarded(result.map(|_| ())),
            // A write or flush that failed once may have lost what it was for: no retry can know. The store ends.
            (_, Err(error)) => self.fail(error.into()),
            (Purpose::Journal { at }, Ok(bytes)) => self.journal_written(at, bytes),
            (Purpose::JournalFlush, Ok(_)) => self.journal_done(),
            (Purpose::Direct { seq }, Ok(_)) => self.direct_done(seq),
            (Purpose::WriteBack, Ok(_)) => self.write_back_done(),
            (Purpose::CheckpointFlush, Ok(_)) => self.checkpoint_flushed(),
        }
    }

    fn kv_flushed(&mut self, token: u64, result: Result<(), KvError>) {
        self.index_flushed(token, result);
    }
}
