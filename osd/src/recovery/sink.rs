//! Receiving one object, piece by piece.
//!
//! An object in one piece replaces the old one in one transaction, together with the change of the missing set. One in
//! several pieces is built under a name in [`TEMP_POOL`], which no client, scrub or backfill ever sees, and takes its
//! place with the last piece. A crash in between leaves only that temporary object, which the next start removes.

use super::Waiting;
use super::source::{split_sequence, usable_version};
use crate::log::{decode_version, encode_version, persist};
use crate::ops::{INFO_ATTR, ObjectInfo};
use crate::pg::{Pg, PgContext};
use crate::snaps;
use crate::space::lacks_room;
use crate::token::PgPurpose;
use bytes::Bytes;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::{EVersion, ObjectId, OsdId, PgId, PoolId, SnapId, fnv1a64};
use nacre_wire::messages::{LogLevel, Push, PushReply};
use nacre_wire::transaction::OBJECT_BYTES_MAX;
use nacre_wire::{Data, ErrorCode, ObjectName, Transaction};
use std::collections::BTreeSet;

/// No pool has this number: objects in it are on their way to their real names.
pub const TEMP_POOL: PoolId = PoolId(u32::MAX - 1);

/// An object on its way in.
#[derive(Debug)]
pub(crate) struct Sink {
    from: OsdId,
    transfer: u64,
    next_piece: u32,
    temp: ObjectId,
    info: Option<ObjectInfo>,
}

impl Sink {
    /// Where its pieces are put together.
    pub(super) fn temp(&self) -> &ObjectId {
        &self.temp
    }
}

fn temp_object(pg: PgId, object: &ObjectId) -> ObjectId {
    let name = format!("{pg}.{:016x}", fnv1a64(&object.key()));
    ObjectId::new(TEMP_POOL, "", &name).expect("a short name without NUL is legal")
}

/// What transfers that a crash interrupted have left behind, to be removed at the next start.
pub fn leftovers(store: &dyn ObjectStore) -> Result<Vec<ObjectId>, StoreError> {
    let (first, end) = (TEMP_POOL.0.to_be_bytes(), (TEMP_POOL.0 + 1).to_be_bytes());
    store.list(&first, true, &end, 10_000)
}

/// Removes an object and, of a clone, its place in the snapshot index.
pub(crate) fn remove_object(
    store: &dyn ObjectStore,
    t: &mut Transaction,
    object: &ObjectId,
) -> Result<(), StoreError> {
    forget_in_index(store, t, object)?;
    t.remove(object);
    Ok(())
}

fn forget_in_index(
    store: &dyn ObjectStore,
    t: &mut Transaction,
    object: &ObjectId,
) -> Result<(), StoreError> {
    if !object.snap.is_head()
        && let Some(raw) = store.attr(object, INFO_ATTR.as_bytes())?
        && let Some(info) = ObjectInfo::from_attr(&raw)
    {
        snaps::remove_from_index(t, object, &info);
    }
    Ok(())
}

/// Why a piece is not taken.
enum Refusal {
    /// It does not fit what came before: its sender starts over by itself.
    Stale,
    Answer(ErrorCode),
    Store(StoreError),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Refusal {
        Refusal::Store(error)
    }
}

impl Pg {
    pub(super) fn on_push(&mut self, ctx: &mut PgContext<'_>, from: OsdId, push: &Push, data: &Data) {
        let object = match push.object.as_ref().map(ObjectName::decode) {
            Some(Ok(object)) if object.pool == self.id.pool => object,
            _ => return ctx.log(LogLevel::Warning, format!("{from} pushes an illegal object; ignored")),
        };
        match self.take_piece(ctx, from, &object, push, data) {
            Ok(()) | Err(Refusal::Stale) => {}
            Err(Refusal::Store(error)) => self.recovery_store_failed(ctx, &error),
            Err(Refusal::Answer(code)) => {
                if let Some(sink) = self.recovery.sinks.remove(&object) {
                    let mut t = Transaction::new(self.id);
                    t.remove(&sink.temp);
                    ctx.submit_unwatched(t);
                }
                if code == ErrorCode::NoSpace && self.is_primary() {
                    let me = self.me;
                    self.gate_too_full(ctx, me);
                    self.hand_over(ctx);
                }
                self.reply_push(ctx, from, &object, decode_version(push.version), push.sequence, code);
            }
        }
    }

    pub(super) fn reply_push(
        &self,
        ctx: &mut PgContext<'_>,
        to: OsdId,
        object: &ObjectId,
        version: EVersion,
        sequence: u64,
        code: ErrorCode,
    ) {
        let reply = PushReply {
            interval: self.interval().0,
            object: Some(ObjectName::from(object)),
            version: encode_version(version),
            sequence,
            code: code as i32,
            unread: code == ErrorCode::Io && self.missing.get(object).is_some_and(|missing| missing.unread),
        };
        self.send(ctx, to, reply);
    }

    fn take_piece(
        &mut self,
        ctx: &mut PgContext<'_>,
        from: OsdId,
        object: &ObjectId,
        push: &Push,
        data: &Data,
    ) -> Result<(), Refusal> {
        let (transfer, piece) = split_sequence(push.sequence);
        let version = decode_version(push.version);
        if push.first {
            self.refuse_stale(ctx, object, version, push)?;
        } else {
            let sink = self.recovery.sinks.get(object).ok_or(Refusal::Stale)?;
            if (sink.from, sink.transfer, sink.next_piece) != (from, transfer, piece) {
                return Err(Refusal::Stale);
            }
        }
        if !push.delete && lacks_room(ctx, data.bytes.len() as u64) {
            return Err(Refusal::Answer(ErrorCode::NoSpace));
        }
        let origin = if push.first { self.origin(ctx, object, push)? } else { None };
        let mut t = Transaction::new(self.id);
        if push.delete {
            self.recovery.sinks.remove(object);
            remove_object(ctx.store, &mut t, object)?;
        } else {
            self.build_piece(ctx, from, object, origin.as_ref(), push, data, &mut t)?;
        }
        if push.last {
            self.count_change(ctx, object, push, &mut t)?;
            persist::remove_missing(&mut t, object);
            // From here on every read sees the object as it will be, so the set follows at once.
            self.missing.remove(object);
            self.info.follow(&self.log, &self.missing);
            self.recovery.tried.remove(object);
            self.recovery.unfound.remove(object);
        }
        let waiting = Waiting::Piece {
            to: from,
            object: object.clone(),
            version,
            sequence: push.sequence,
            last: push.last,
        };
        let number = self.recovery.number(waiting);
        let interval = self.interval();
        ctx.submit(self.id, interval, PgPurpose::Recovery(number), t);
        Ok(())
    }

    /// What the last piece does to the counts of objects and bytes on this disk.
    fn count_change(
        &mut self,
        ctx: &PgContext<'_>,
        object: &ObjectId,
        push: &Push,
        t: &mut Transaction,
    ) -> Result<(), Refusal> {
        let was = ctx.store.stat(object)?.map(|stat| stat.size);
        self.count(was, (!push.delete).then_some(push.size));
        persist::counts(t, self.info.objects, self.info.bytes);
        Ok(())
    }

    /// An object of this disk changes its size, or comes, or goes.
    fn count(&mut self, was: Option<u64>, is: Option<u64>) {
        let count = |before: u64, plus: u64, minus: u64| (before + plus).saturating_sub(minus);
        self.info.objects = count(self.info.objects, is.is_some().into(), was.is_some().into());
        self.info.bytes = count(self.info.bytes, is.unwrap_or(0), was.unwrap_or(0));
    }

    pub(crate) fn count_removal(&mut self, ctx: &PgContext<'_>, object: &ObjectId) -> Result<(), StoreError> {
        let was = ctx.store.stat(object)?.map(|stat| stat.size);
        self.count(was, None);
        Ok(())
    }

    /// Objects that `t` is going to remove leave the counts and, if clones, the snapshot index.
    pub(crate) fn note_removals(
        &mut self,
        ctx: &mut PgContext<'_>,
        t: &mut Transaction,
        objects: &[ObjectId],
    ) {
        for object in objects {
            let noted = forget_in_index(ctx.store, t, object).and_then(|()| self.count_removal(ctx, object));
            if let Err(error) = noted {
                return self.recovery_store_failed(ctx, &error);
            }
        }
        persist::counts(t, self.info.objects, self.info.bytes);
    }

    /// A first piece that would take an object back in time, or overlay something else than it was made for.
    fn refuse_stale(
        &self,
        ctx: &PgContext<'_>,
        object: &ObjectId,
        version: EVersion,
        push: &Push,
    ) -> Result<(), Refusal> {
        let stored = usable_version(ctx.store, object)?;
        let relied_on = !self.missing.contains(object) && self.info.last_backfill.covers(object);
        // An object that was removed meanwhile has no version to tell by; the log has.
        let mut after = self.log.entries().rev().take_while(|entry| entry.version > version);
        let changed = after.any(|entry| !entry.is_error() && entry.object == *object);
        if changed || relied_on && stored > version {
            return Err(Refusal::Stale);
        }
        if push.base.is_some() && stored != decode_version(push.base) {
            return Err(Refusal::Answer(ErrorCode::Canceled));
        }
        Ok(())
    }

    /// What the object is to be made of, which must be here in just that version.
    fn origin(
        &self,
        ctx: &PgContext<'_>,
        object: &ObjectId,
        push: &Push,
    ) -> Result<Option<ObjectId>, Refusal> {
        let Some(name) = &push.origin else { return Ok(None) };
        let bad = || Refusal::Answer(ErrorCode::InvalidArgument);
        let origin = name.decode().map_err(|_| bad())?;
        if origin.head() != object.head() || origin == *object || push.base.is_some() {
            return Err(bad());
        }
        let version = decode_version(push.origin_version);
        let is_it = self.missing.get(&origin).is_none_or(|missing| missing.have == version);
        if version == EVersion::ZERO || !is_it || usable_version(ctx.store, &origin)? != version {
            return Err(Refusal::Answer(ErrorCode::Canceled));
        }
        Ok(Some(origin))
    }

    #[allow(clippy::too_many_arguments)]
    fn build_piece(
        &mut self,
        ctx: &PgContext<'_>,
        from: OsdId,
        object: &ObjectId,
        origin: Option<&ObjectId>,
        push: &Push,
        data: &Data,
        t: &mut Transaction,
    ) -> Result<(), Refusal> {
        let (transfer, piece) = split_sequence(push.sequence);
        let temp = temp_object(self.id, object);
        let single = push.first && push.last;
        let target = if single { object } else { &temp };
        let bad = || Refusal::Answer(ErrorCode::InvalidArgument);
        if push.size > OBJECT_BYTES_MAX {
            return Err(bad());
        }
        if push.first {
            let info = push.attrs.iter().find(|pair| pair.key == INFO_ATTR.as_bytes());
            let info = info.and_then(|pair| ObjectInfo::from_attr(&pair.value));
            if push.base.is_none() && single {
                forget_in_index(ctx.store, t, object)?;
            }
            match origin.or(push.base.is_some().then_some(object)) {
                None => {
                    t.remove(target);
                    t.create(target);
                }
                Some(origin) => {
                    let pushed: BTreeSet<&Bytes> = push.attrs.iter().map(|pair| &pair.key).collect();
                    let held = ctx.store.attrs(origin)?.into_iter().map(|(key, _)| key);
                    let gone: Vec<Bytes> = held.filter(|key| !pushed.contains(key)).collect();
                    if origin != target {
                        t.clone_object(origin, target);
                    }
                    if !gone.is_empty() {
                        t.remove_attrs(target, gone);
                    }
                    if push.omap_complete {
                        t.omap_clear(target);
                    }
                }
            }
            t.truncate(target, push.size);
            t.set_attrs(target, push.attrs.clone());
            let sink = Sink { from, transfer, next_piece: piece, temp: temp.clone(), info };
            self.recovery.sinks.insert(object.clone(), sink);
        }
        let inside = |e: &nacre_wire::op::Extent| {
            e.length > 0 && e.offset.checked_add(e.length).is_some_and(|end| end <= push.size)
        };
        if !push.zeroes.iter().chain(&push.extents).all(inside) {
            return Err(bad());
        }
        for zero in &push.zeroes {
            t.zero(target, zero.offset, zero.length);
        }
        let mut cutter = data.cutter();
        for extent in &push.extents {
            let data = cutter.next(extent.offset, extent.length as usize).ok_or_else(bad)?;
            data.verify(extent.offset).map_err(|_| Refusal::Answer(ErrorCode::TryAgain))?;
            t.write(target, extent.offset, data);
        }
        if !push.omap.is_empty() {
            t.omap_set(target, push.omap.clone());
        }
        let Some(sink) = self.recovery.sinks.get_mut(object) else { return Err(Refusal::Stale) };
        sink.next_piece = piece + 1;
        if push.last {
            let info = sink.info.take();
            self.recovery.sinks.remove(object);
            if !single {
                forget_in_index(ctx.store, t, object)?;
                t.rename(&temp, object);
            }
            if let Some(info) = info {
                snaps::add_to_index(t, object, &info);
            }
        }
        Ok(())
    }

    /// Gives up what is on its way in; its pieces go.
    pub(super) fn drop_sinks(&mut self, ctx: &mut PgContext<'_>) {
        let sinks = std::mem::take(&mut self.recovery.sinks);
        if sinks.is_empty() {
            return;
        }
        let mut t = Transaction::new(self.id);
        sinks.values().for_each(|sink| t.remove(&sink.temp));
        ctx.submit_unwatched(t);
    }
}

/// All names an object family can have: its clones and head.
pub(crate) fn family(object: &ObjectId) -> std::ops::RangeInclusive<ObjectId> {
    object.at(SnapId(0))..=object.head()
}
