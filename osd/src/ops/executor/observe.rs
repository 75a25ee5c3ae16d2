//! Operations that change nothing.

use super::{Answer, Executor, Stop};
use crate::ops::info::{LOCK_PREFIX, ObjectInfo, prefixed, wire_version};
use crate::ops::limits::{ANSWER_BYTES_MAX, NOTIFY_BYTES_MAX, READ_BYTES_MAX, check_key, fail};
use crate::ops::locks::LockState;
use crate::ops::{ReadWanted, WatchAction};
use crate::snaps;
use bytes::Bytes;
use nacre_types::{EVersion, SnapId};
use nacre_wire::op::{
    CompareXattr, Comparison, Extent, ExtentList, Key, KeyList, LIST_ENTRIES_MAX, Lock, Notify, NotifyAck,
    OmapList, PairList, SnapList, StatReply, Version, Watch,
};
use nacre_wire::transaction::Pair;
use nacre_wire::{Data, ErrorCode, OpError};
use prost::Message;

fn encoded(message: &impl Message) -> Result<Answer, Stop> {
    Ok(Answer::Encoded(message.encode_to_vec().into()))
}

impl Executor<'_> {
    pub(super) fn must_exist(&self) -> Result<(), OpError> {
        if self.view.exists { Ok(()) } else { fail(ErrorCode::NotFound, "the object does not exist") }
    }

    /// The bytes of a range inside the object; `None` if the store has to be asked first.
    fn bytes(&mut self, offset: u64, length: u64) -> Option<Data> {
        let base = match self.view.base_range(offset, length) {
            None => None,
            Some((start, length)) => match self.reads.get(&self.view.object, start, length) {
                Some(data) => Some(data),
                None => {
                    let object = self.view.object.clone();
                    self.wanted.push(ReadWanted { object, offset: start, length });
                    return None;
                }
            },
        };
        if let Some(data) = base.filter(|_| self.view.is_plain(offset, length)) {
            return Some(data.clone());
        }
        let base: &[u8] = base.map_or(&[], |data| &data.bytes);
        Some(Data::checksummed(offset, self.view.overlay.apply(offset, length, base)))
    }

    pub(super) fn read(&mut self, extent: &Extent) -> Result<Answer, Stop> {
        self.must_exist()?;
        let end = extent.offset.saturating_add(extent.length).min(self.view.size);
        let length = end.saturating_sub(extent.offset);
        self.read_bytes = self.read_bytes.saturating_add(length);
        if self.read_bytes > READ_BYTES_MAX {
            let text = format!("one request reads at most {READ_BYTES_MAX} bytes: read in smaller pieces");
            fail(ErrorCode::TooLarge, text)?;
        }
        if length == 0 {
            return Ok(Answer::Data { offset: extent.offset, data: Data::default() });
        }
        let data = self.bytes(extent.offset, length).unwrap_or_default();
        Ok(Answer::Data { offset: extent.offset, data })
    }

    pub(super) fn compare(&mut self, extent: &Extent, expected: Data) -> Result<Answer, Stop> {
        crate::ops::limits::end_of(extent.offset, extent.length)?;
        let end = (extent.offset + extent.length).min(self.view.size);
        let inside = end.saturating_sub(extent.offset);
        let found = match inside {
            0 => Data::default(),
            inside => match self.bytes(extent.offset, inside) {
                Some(found) => found,
                None => return Ok(Answer::Nothing),
            },
        };
        let (same, beyond) = expected.bytes.split_at(found.bytes.len());
        let differs = same.iter().zip(&found.bytes).position(|(a, b)| a != b);
        let differs = differs.or_else(|| beyond.iter().position(|&b| b != 0).map(|at| at + same.len()));
        match differs {
            None => Ok(Answer::Nothing),
            Some(at) => {
                let at = extent.offset + at as u64;
                fail(ErrorCode::Canceled, format!("the data differs from what was expected at byte {at}"))?
            }
        }
    }

    /// The version a reader sees: the pending one once the request has changed something.
    fn version(&self) -> EVersion {
        match &self.view.stored {
            _ if !self.view.exists => EVersion::ZERO,
            _ if !self.transaction.is_empty() => self.own_version(),
            stored => stored.as_ref().map_or(EVersion::ZERO, ObjectInfo::version),
        }
    }

    pub(super) fn stat(&mut self) -> Result<Answer, Stop> {
        self.must_exist()?;
        let stored = self.view.stored.as_ref().map_or(0, |info| info.modified_ms);
        let modified_ms = if self.transaction.is_empty() { stored } else { self.request.wall_ms };
        let version = Some(wire_version(self.version()));
        encoded(&StatReply { size: self.view.size, modified_ms, version })
    }

    pub(super) fn assert_version(&mut self, expected: &Version) -> Result<Answer, Stop> {
        let found = wire_version(self.version());
        if found == *expected {
            return Ok(Answer::Nothing);
        }
        let text = format!(
            "the object is at version {}'{}, not {}'{}",
            found.epoch, found.seq, expected.epoch, expected.seq
        );
        fail(ErrorCode::Canceled, text)?
    }

    pub(super) fn get_xattr(&mut self, key: &Key) -> Result<Answer, Stop> {
        self.must_exist()?;
        check_key("an xattr's name", &key.key)?;
        match self.view.user_attr(&key.key)? {
            Some(value) => Ok(Answer::Data { offset: 0, data: Data::plain(value) }),
            None => {
                let name = String::from_utf8_lossy(&key.key);
                fail(ErrorCode::NotFound, format!("there is no xattr '{name}'"))?
            }
        }
    }

    pub(super) fn get_xattrs(&mut self) -> Result<Answer, Stop> {
        self.must_exist()?;
        let pairs = self.view.user_attrs()?;
        check_answer(&pairs)?;
        encoded(&PairList { pairs, more: false })
    }

    pub(super) fn compare_xattr(&mut self, compare: &CompareXattr) -> Result<Answer, Stop> {
        check_key("an xattr's name", &compare.key)?;
        let Ok(comparison) = Comparison::try_from(compare.comparison) else {
            return fail(ErrorCode::NotSupported, "this OSD does not know the comparison")?;
        };
        let found = self.view.user_attr(&compare.key)?.unwrap_or_default();
        let order = found.cmp(&compare.value);
        let holds = match comparison {
            Comparison::Equal => order.is_eq(),
            Comparison::NotEqual => order.is_ne(),
            Comparison::Greater => order.is_gt(),
            Comparison::GreaterOrEqual => order.is_ge(),
            Comparison::Less => order.is_lt(),
            Comparison::LessOrEqual => order.is_le(),
        };
        if holds {
            return Ok(Answer::Nothing);
        }
        let name = String::from_utf8_lossy(&compare.key);
        fail(ErrorCode::Canceled, format!("xattr '{name}' does not compare as asked"))?
    }

    pub(super) fn omap_get(&mut self, keys: &KeyList) -> Result<Answer, Stop> {
        self.must_exist()?;
        if keys.keys.len() > LIST_ENTRIES_MAX as usize {
            fail(ErrorCode::TooLarge, format!("at most {LIST_ENTRIES_MAX} keys at once"))?;
        }
        let pairs = self.view.omap_get(&keys.keys)?;
        check_answer(&pairs)?;
        encoded(&PairList { pairs, more: false })
    }

    pub(super) fn omap_list(&mut self, list: &OmapList) -> Result<Answer, Stop> {
        self.must_exist()?;
        let entries = if list.entries_max == 0 { LIST_ENTRIES_MAX } else { list.entries_max };
        let entries = entries.min(LIST_ENTRIES_MAX) as usize;
        let (pairs, more) = self.view.omap_list(&list.after, &list.prefix, entries)?;
        encoded(&PairList { pairs, more })
    }

    pub(super) fn map_extents(&mut self, extent: &Extent) -> Result<Answer, Stop> {
        self.must_exist()?;
        let extents = self.view.extents(extent.offset, extent.length)?;
        let extents = extents.into_iter().map(|(offset, length)| Extent { offset, length }).collect();
        encoded(&ExtentList { extents })
    }

    pub(super) fn lock_state(&self, name: &str) -> Result<(Bytes, LockState), Stop> {
        check_key("a lock's name", name.as_bytes())?;
        let key = prefixed(LOCK_PREFIX, name.as_bytes());
        let state = LockState::load(self.view.attr(&key)?)?;
        Ok((key, state))
    }

    pub(super) fn get_lock(&mut self, key: &Key) -> Result<Answer, Stop> {
        self.must_exist()?;
        let Ok(name) = std::str::from_utf8(&key.key) else {
            return fail(ErrorCode::InvalidArgument, "a lock's name is UTF-8")?;
        };
        let (_, state) = self.lock_state(name)?;
        encoded(&state.info(self.request.wall_ms))
    }

    pub(super) fn assert_locked(&mut self, lock: &Lock) -> Result<Answer, Stop> {
        let (_, state) = self.lock_state(&lock.name)?;
        state.assert_held(lock, self.request.client)?;
        Ok(Answer::Nothing)
    }

    pub(super) fn list_snaps(&mut self) -> Result<Answer, Stop> {
        let head_exists = if self.request.object.snap.is_head() {
            self.view.exists
        } else {
            super::super::resolve(self.store, &self.request.object.head())?.is_some()
        };
        let mut set = self.snapset()?.clone();
        if !head_exists && set.clones.is_empty() {
            fail(ErrorCode::NotFound, "the object does not exist")?;
        }
        let head = self.request.object.head();
        for at in 0..set.clones.len() {
            let newer = match set.clones.get(at + 1) {
                Some(newer) => snaps::load_common(self.store, &head.at(SnapId(newer.id)))?,
                None if self.prepared => self.common.clone(),
                None => snaps::load_common(self.store, &head)?,
            };
            let clone = &mut set.clones[at];
            clone.overlap =
                newer.filter(|common| common.older == clone.id).map_or(Vec::new(), |c| c.extents());
        }
        encoded(&SnapList { seq: set.seq, clones: set.clones, head_exists })
    }

    pub(super) fn watch(&mut self, watch: &Watch) -> Result<Answer, Stop> {
        let cookie = watch.cookie;
        if watch.unwatch {
            self.watch.push(WatchAction::Unwatch { cookie });
        } else {
            self.must_exist()?;
            self.watch.push(WatchAction::Watch { cookie, timeout_ms: watch.timeout_ms });
        }
        Ok(Answer::Nothing)
    }

    pub(super) fn notify(&mut self, op: usize, notify: &Notify) -> Result<Answer, Stop> {
        self.must_exist()?;
        check_notify(&notify.payload)?;
        let (payload, timeout_ms) = (notify.payload.clone(), notify.timeout_ms);
        self.watch.push(WatchAction::Notify { op, payload, timeout_ms });
        Ok(Answer::Nothing)
    }

    pub(super) fn notify_ack(&mut self, ack: &NotifyAck) -> Result<Answer, Stop> {
        check_notify(&ack.reply)?;
        let NotifyAck { notify_id, cookie, ref reply } = *ack;
        self.watch.push(WatchAction::Ack { notify_id, cookie, reply: reply.clone() });
        Ok(Answer::Nothing)
    }
}

fn check_notify(payload: &Bytes) -> Result<(), OpError> {
    if payload.len() <= NOTIFY_BYTES_MAX {
        return Ok(());
    }
    fail(ErrorCode::TooLarge, format!("a notification and its replies have at most {NOTIFY_BYTES_MAX} bytes"))
}

fn check_answer(pairs: &[Pair]) -> Result<(), OpError> {
    let bytes: usize = pairs.iter().map(|pair| pair.key.len() + pair.value.len()).sum();
    if bytes <= ANSWER_BYTES_MAX {
        return Ok(());
    }
    fail(
        ErrorCode::TooLarge,
        format!("the answer would have {bytes} bytes, at most {ANSWER_BYTES_MAX}: ask for less"),
    )
}
