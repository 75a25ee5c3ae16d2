//! Operations that change the object, and the clone-on-write before the first of them.

use super::{Answer, Executor, Stop};
use crate::ops::WatchAction;
use crate::ops::info::{INFO_ATTR, ObjectInfo, SNAPSET_ATTR, USER_PREFIX, prefixed, wire_version};
use crate::ops::limits::{check_key, check_omap_value, check_xattr_value, end_of, fail};
use crate::snaps::{self, Common};
use bytes::Bytes;
use nacre_types::{EVersion, SnapId, mutant};
use nacre_wire::messages::{LogEntry, LogKind};
use nacre_wire::op::{BreakLock, Extent, Key, KeyList, Lock, PairList};
use nacre_wire::transaction::{DATA_BYTES_MAX, OBJECT_BYTES_MAX, Pair};
use nacre_wire::{Data, ErrorCode, ObjectName, OpError};

impl Executor<'_> {
    /// Before the first change: clones the head if the writer's context has snapshots it has not been cloned for.
    fn prepare(&mut self) -> Result<(), Stop> {
        if self.prepared {
            return Ok(());
        }
        self.prepared = true;
        let context = self.request.snap_context;
        let snapped = self.view.stored.as_ref().is_some_and(|info| info.snapped);
        if !snapped && context.seq == 0 {
            self.snaps = Some(Default::default());
            return Ok(());
        }
        let seen = match (&self.snaps, &self.view.stored) {
            (Some(set), _) => set.seq,
            (None, Some(info)) => snaps::load_seq(self.store, &self.view.object, info)?,
            (None, None) => 0,
        };
        if snapped {
            self.common = snaps::load_common(self.store, &self.view.object)?;
        }
        if context.seq <= seen {
            return Ok(());
        }
        let pool = self.request.pool;
        let unseen = context.snaps.iter().copied().take_while(|&snap| snap > seen);
        let mut snaps: Vec<u64> = unseen.filter(|&snap| !pool.snap_is_removed(SnapId(snap))).collect();
        snaps.reverse();
        if self.view.exists && !snaps.is_empty() && !mutant!(CloneNotMade) {
            self.clone_head(snaps, snapped)?;
        }
        self.snapset()?.seq = context.seq;
        self.snaps_changed = true;
        Ok(())
    }

    fn clone_head(&mut self, snaps: Vec<u64>, snapped: bool) -> Result<(), Stop> {
        let version = self.request.version;
        let head = self.view.object.clone();
        let clone = head.at(SnapId(*snaps.last().expect("some snapshot asks for the clone")));
        let stored = self.view.stored.as_ref();
        let modified_ms = stored.map_or(0, |info| info.modified_ms);
        let info = ObjectInfo {
            epoch: version.epoch.0,
            seq: version.seq,
            modified_ms,
            snaps: snaps.clone(),
            ..ObjectInfo::default()
        };
        self.transaction.clone_object(&head, &clone);
        let pair = Pair { key: Bytes::from_static(INFO_ATTR.as_bytes()), value: info.to_attr() };
        self.transaction.set_attrs(&clone, vec![pair]);
        if snapped {
            self.transaction.remove_attrs(&clone, vec![Bytes::from_static(SNAPSET_ATTR.as_bytes())]);
        }
        snaps::add_to_index(&mut self.transaction, &clone, &info);
        self.entries.push(LogEntry {
            kind: LogKind::Clone as i32,
            object: Some(ObjectName::from(&clone)),
            version: Some(wire_version(version)),
            prior_version: Some(wire_version(EVersion::ZERO)),
            modified_ms,
            whole: true,
            omap_changed: true,
            ..LogEntry::default()
        });
        // The clone has taken along what the head had in common with the one before.
        let size = self.view.size;
        self.common = Some(Common::all(clone.snap.0, size));
        self.common_changed = true;
        self.snapset()?.add(snaps, size);
        Ok(())
    }

    /// Notes that the head's bytes `[start, end)` are other ones now.
    fn changed(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        if let Some(common) = &mut self.common
            && !mutant!(CommonKept)
        {
            self.common_changed |= common.changed(start, end);
        }
        match self.extents.last_mut() {
            Some(last) if last.offset <= start && start <= last.offset + last.length => {
                last.length = last.length.max(end - last.offset);
            }
            _ => self.extents.push(Extent { offset: start, length: end - start }),
        }
    }

    /// Takes over that the object exists now, before something is put into it.
    fn make_exist(&mut self) -> Result<(), Stop> {
        self.prepare()?;
        if !self.view.exists {
            self.view.exists = true;
            self.whole = true;
            self.omap_changed = true;
        }
        Ok(())
    }

    fn takes_data(&mut self, length: u64) -> Result<(), OpError> {
        self.written_bytes = self.written_bytes.saturating_add(length);
        if self.written_bytes <= DATA_BYTES_MAX as u64 {
            return Ok(());
        }
        let text = format!("one request writes at most {DATA_BYTES_MAX} bytes: write in smaller pieces");
        fail(ErrorCode::TooLarge, text)
    }

    fn put(&mut self, offset: u64, data: Data) {
        let end = offset + data.bytes.len() as u64;
        // What a hole up to the offset reads as did not change, but the size did: the log names the growth.
        self.changed(offset.min(self.view.size), end);
        self.view.write(offset, data.bytes.clone());
        self.transaction.write(&self.view.object, offset, data);
    }

    pub(super) fn write(&mut self, extent: &Extent, data: Data) -> Result<Answer, Stop> {
        end_of(extent.offset, extent.length)?;
        self.takes_data(extent.length)?;
        self.make_exist()?;
        if data.is_empty() {
            self.transaction.create(&self.view.object);
        } else {
            self.put(extent.offset, data);
        }
        Ok(Answer::Nothing)
    }

    pub(super) fn write_full(&mut self, extent: &Extent, data: Data) -> Result<Answer, Stop> {
        if extent.offset != 0 {
            fail(ErrorCode::InvalidArgument, "writing a whole object starts at offset 0")?;
        }
        end_of(0, extent.length)?;
        self.takes_data(extent.length)?;
        self.make_exist()?;
        if self.view.size > extent.length {
            self.cut(extent.length);
        }
        if data.is_empty() {
            self.transaction.create(&self.view.object);
        } else {
            self.put(0, data);
        }
        Ok(Answer::Nothing)
    }

    pub(super) fn append(&mut self, extent: &Extent, data: Data) -> Result<Answer, Stop> {
        if data.verify(0).is_err() {
            fail(ErrorCode::Io, "the appended data does not match its checksums")?;
        }
        let offset = self.view.size;
        let data = if offset == 0 { data } else { Data::checksummed(offset, data.bytes) };
        self.write(&Extent { offset, length: extent.length }, data)
    }

    /// Sets the size of an object that exists.
    fn cut(&mut self, size: u64) {
        let before = self.view.size;
        self.changed(before.min(size), before.max(size));
        self.view.truncate(size);
        self.transaction.truncate(&self.view.object, size);
    }

    pub(super) fn truncate(&mut self, size: u64) -> Result<Answer, Stop> {
        if size > OBJECT_BYTES_MAX {
            let text = format!("an object has at most {OBJECT_BYTES_MAX} bytes, not {size}");
            fail(ErrorCode::TooLarge, text)?;
        }
        if self.view.exists && self.view.size != size {
            self.prepare()?;
            self.cut(size);
        }
        Ok(Answer::Nothing)
    }

    pub(super) fn zero(&mut self, extent: &Extent) -> Result<Answer, Stop> {
        let end = end_of(extent.offset, extent.length)?.min(self.view.size);
        if self.view.exists && extent.offset < end {
            self.prepare()?;
            self.changed(extent.offset, end);
            self.view.overlay.zero(extent.offset, end);
            self.transaction.zero(&self.view.object, extent.offset, end - extent.offset);
        }
        Ok(Answer::Nothing)
    }

    pub(super) fn remove(&mut self) -> Result<Answer, Stop> {
        self.must_exist()?;
        self.prepare()?;
        self.changed(0, u64::MAX);
        self.view.remove();
        self.transaction.remove(&self.view.object);
        // Its xattrs go, too: a whiteout gets both anew.
        self.snapset()?;
        (self.snaps_changed, self.common_changed) = (true, true);
        (self.whole, self.omap_changed) = (true, true);
        self.watch.push(WatchAction::ObjectRemoved);
        Ok(Answer::Nothing)
    }

    pub(super) fn create(&mut self, exclusive: bool) -> Result<Answer, Stop> {
        if self.view.exists {
            if exclusive {
                fail(ErrorCode::AlreadyExists, "the object exists already")?;
            }
            return Ok(Answer::Nothing);
        }
        self.make_exist()?;
        self.transaction.create(&self.view.object);
        Ok(Answer::Nothing)
    }

    fn put_attr(&mut self, key: Bytes, value: Option<Bytes>) {
        match &value {
            Some(value) => {
                let pair = Pair { key: key.clone(), value: value.clone() };
                self.transaction.set_attrs(&self.view.object, vec![pair]);
            }
            None => self.transaction.remove_attrs(&self.view.object, vec![key.clone()]),
        }
        self.view.set_attr(key, value);
    }

    pub(super) fn set_xattr(&mut self, pair: &Pair) -> Result<Answer, Stop> {
        check_key("an xattr's name", &pair.key)?;
        check_xattr_value(&pair.value)?;
        self.make_exist()?;
        self.put_attr(prefixed(USER_PREFIX, &pair.key), Some(pair.value.clone()));
        Ok(Answer::Nothing)
    }

    pub(super) fn remove_xattr(&mut self, key: &Key) -> Result<Answer, Stop> {
        check_key("an xattr's name", &key.key)?;
        self.must_exist()?;
        if self.view.user_attr(&key.key)?.is_some() {
            self.prepare()?;
            self.put_attr(prefixed(USER_PREFIX, &key.key), None);
        }
        Ok(Answer::Nothing)
    }

    pub(super) fn omap_set(&mut self, pairs: &PairList) -> Result<Answer, Stop> {
        for pair in &pairs.pairs {
            check_key("an omap key", &pair.key)?;
            check_omap_value(&pair.value)?;
        }
        let bytes = pairs.pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum::<usize>();
        self.takes_data(bytes as u64)?;
        self.make_exist()?;
        self.omap_changed = true;
        for pair in &pairs.pairs {
            self.view.omap_set(pair.key.clone(), Some(pair.value.clone()));
        }
        self.transaction.omap_set(&self.view.object, pairs.pairs.clone());
        Ok(Answer::Nothing)
    }

    pub(super) fn omap_remove(&mut self, keys: &KeyList) -> Result<Answer, Stop> {
        for key in &keys.keys {
            check_key("an omap key", key)?;
        }
        self.must_exist()?;
        self.prepare()?;
        self.omap_changed = true;
        for key in &keys.keys {
            self.view.omap_set(key.clone(), None);
        }
        self.transaction.omap_remove(&self.view.object, keys.keys.clone());
        Ok(Answer::Nothing)
    }

    pub(super) fn omap_clear(&mut self) -> Result<Answer, Stop> {
        self.must_exist()?;
        self.prepare()?;
        self.omap_changed = true;
        self.view.omap_clear();
        self.transaction.omap_clear(&self.view.object);
        Ok(Answer::Nothing)
    }

    pub(super) fn lock(&mut self, lock: &Lock) -> Result<Answer, Stop> {
        let (key, mut state) = self.lock_state(&lock.name)?;
        state.lock(lock, self.request.client, self.request.entity, self.request.wall_ms)?;
        self.make_exist()?;
        self.put_attr(key, state.store());
        Ok(Answer::Nothing)
    }

    pub(super) fn unlock(&mut self, lock: &Lock) -> Result<Answer, Stop> {
        self.must_exist()?;
        let (key, mut state) = self.lock_state(&lock.name)?;
        state.unlock(lock, self.request.client)?;
        self.prepare()?;
        self.put_attr(key, state.store());
        Ok(Answer::Nothing)
    }

    pub(super) fn break_lock(&mut self, lock: &BreakLock) -> Result<Answer, Stop> {
        self.must_exist()?;
        let (key, mut state) = self.lock_state(&lock.name)?;
        state.break_lock(lock)?;
        self.prepare()?;
        self.put_attr(key, state.store());
        Ok(Answer::Nothing)
    }
}
