//! Backfill: filling a target that the log cannot bring up to date, in key order, behind a mark.
//!
//! ```text
//!    done, whole          window: compared          not looked at
//!   |------------------|------------------------|----------------->  keys
//!                     mark                      end
//!   writes are shipped   shipped, unless the      only their log
//!                        object is still to go    entries go
//! ```
//!
//! The primary asks what the target has in a window, pushes what differs, has removed what should not be, and moves the
//! mark, durably at the target; an interruption starts over from there. Windows end between object families, so that a
//! head and its clones are never parted.

mod member;
mod purge;

use crate::log::BackfillMark;
use crate::pg::{Pg, PgContext};
use crate::recovery::{PushPurpose, family, older, usable_version};
use bytes::Bytes;
use nacre_store::StoreError;
use nacre_types::buggify;
use nacre_types::{EVersion, Instant, ObjectId, OsdId, mutant};
use nacre_wire::ObjectName;
use nacre_wire::messages::{BackfillDigest, BackfillProgress, BackfillScan, LogLevel, ObjectVersion};
use purge::Purge;
use std::collections::{BTreeMap, BTreeSet};

/// Objects per window: bounds messages, and what one interruption repeats.
const WINDOW_OBJECTS: usize = 128;
/// Objects of one target on their way at once.
const TARGET_OBJECTS_MAX: usize = 8;

/// One target's backfill, at the primary.
#[derive(Debug)]
pub(crate) struct Backfill {
    /// Keys up to it are whole at the target (or a message saying so is on its way).
    mark: Bytes,
    stage: Stage,
    /// Objects behind the mark so far in this interval, for progress.
    passed: u64,
    /// Changes that removed something here of which the target was not told: it comes to that later.
    removals: u64,
    /// With so many of them the target, too full, had nothing that it could give up.
    purged: Option<u64>,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Scanning {
        asked: Instant,
    },
    Filling(Window),
    /// The mark is on its way; what it removes must not be made again before.
    Moving {
        asked: Instant,
        last: bool,
        remove: BTreeMap<ObjectId, EVersion>,
    },
    /// The target is too full: first it makes room.
    Purging(Purge),
    Done,
}

#[derive(Debug, Default)]
struct Window {
    end: Bytes,
    /// Nothing lies behind it.
    last: bool,
    /// To be pushed.
    pending: BTreeSet<ObjectId>,
    /// On their way, by transfer.
    in_flight: BTreeMap<ObjectId, u64>,
    /// The head of one to be pushed that is always being written: further writes of it wait, so that its turn comes.
    draining: Option<ObjectId>,
    /// The target has them and should not.
    remove: BTreeMap<ObjectId, EVersion>,
    objects: u64,
}

impl Window {
    /// Whether the object lies in it, behind `mark`.
    fn covers(&self, mark: &[u8], object: &ObjectId) -> bool {
        let key = object.key();
        key.as_slice() > mark && (self.last || key.as_slice() <= self.end.as_ref())
    }
}

impl Backfill {
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done)
    }

    /// Whether it has objects to push, which may wait for writes of theirs.
    pub(crate) fn is_pushing(&self) -> bool {
        matches!(&self.stage, Stage::Filling(window) if !window.pending.is_empty())
    }

    /// Whether an object of the window at hand is at the target, because it was already or because it was pushed.
    pub(crate) fn has_pushed(&self, object: &ObjectId) -> bool {
        match &self.stage {
            Stage::Filling(window) => {
                window.covers(&self.mark, object)
                    && !window.pending.contains(object)
                    && !window.in_flight.contains_key(object)
            }
            _ => false,
        }
    }

    /// Objects it has in the OSD's throttle.
    pub(crate) fn counted(&self) -> usize {
        match &self.stage {
            Stage::Filling(window) => window.in_flight.len(),
            _ => 0,
        }
    }
}

/// The key just after all of an object's family, inclusively: its head's.
fn family_end(object: &ObjectId) -> Bytes {
    object.head().key().into()
}

/// The smallest key greater than `key`.
fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

impl Pg {
    /// The PG's keys, first and end.
    fn key_range(&self, ctx: &PgContext<'_>) -> (Vec<u8>, Vec<u8>) {
        let pg_num = ctx.map.pool(self.id.pool).map_or(1, |pool| pool.pg_num);
        ObjectId::pg_key_range(self.id, pg_num)
    }

    /// Up to about `max` objects after `mark` and up to `end` (the PG's end if empty) with whole families, and the key
    /// the list reaches to; empty if that is the end.
    pub(crate) fn list_families(
        &self,
        ctx: &PgContext<'_>,
        mark: &[u8],
        end: &[u8],
        max: usize,
    ) -> Result<(Vec<ObjectId>, Bytes), StoreError> {
        let (first, pg_end) = self.key_range(ctx);
        let limit = if end.is_empty() { pg_end } else { after(end) };
        let mut objects = match mark.is_empty() {
            true => ctx.store.list(&first, true, &limit, max)?,
            false => ctx.store.list(mark, false, &limit, max)?,
        };
        if objects.len() < max {
            return Ok((objects, Bytes::copy_from_slice(end)));
        }
        let Some(last) = objects.last() else { return Ok((objects, Bytes::copy_from_slice(end))) };
        let reach = family_end(last);
        let mut rest = ctx.store.list(&last.key(), false, &after(&reach), usize::MAX)?;
        objects.append(&mut rest);
        Ok((objects, reach))
    }

    /// Begins what the interval's targets need.
    pub(crate) fn backfill_start(&mut self) {
        for osd in self.backfill_targets.clone() {
            let Some(peer) = self.peers.get_mut(&osd) else { continue };
            if peer.common.is_none() {
                peer.info.last_backfill = BackfillMark::START;
            }
            let (mark, stage) = match &peer.info.last_backfill {
                BackfillMark::Complete => (Bytes::new(), Stage::Done),
                BackfillMark::At(mark) => (mark.clone(), Stage::Idle),
            };
            self.recovery
                .backfills
                .insert(osd, Backfill { mark, stage, passed: 0, removals: 0, purged: None });
        }
    }

    pub(crate) fn backfill_advance(&mut self, ctx: &mut PgContext<'_>) {
        for osd in self.recovery.backfills.keys().copied().collect::<Vec<_>>() {
            if self.backfill_is_granted(osd) {
                self.advance_target(ctx, osd);
            }
        }
    }

    fn advance_target(&mut self, ctx: &mut PgContext<'_>, osd: OsdId) {
        let Some(backfill) = self.recovery.backfills.get_mut(&osd) else { return };
        match &mut backfill.stage {
            Stage::Idle => {
                backfill.stage = Stage::Scanning { asked: ctx.now };
                let after = backfill.mark.clone();
                self.send_scan(ctx, osd, after);
            }
            Stage::Filling(_) => self.fill(ctx, osd),
            Stage::Scanning { .. } | Stage::Moving { .. } | Stage::Purging(_) | Stage::Done => {}
        }
    }

    fn send_scan(&self, ctx: &mut PgContext<'_>, osd: OsdId, after: Bytes) {
        let interval = self.interval().0;
        self.send(ctx, osd, BackfillScan { interval, after, entries_max: WINDOW_OBJECTS as u32 });
    }

    pub(crate) fn on_backfill_digest(
        &mut self,
        ctx: &mut PgContext<'_>,
        from: OsdId,
        digest: &BackfillDigest,
    ) {
        let Some(backfill) = self.recovery.backfills.get(&from) else { return };
        match &backfill.stage {
            Stage::Scanning { .. } if digest.after == backfill.mark => {}
            Stage::Purging(_) => {}
            _ => return,
        }
        let purging = matches!(backfill.stage, Stage::Purging(_));
        let mut theirs = BTreeMap::new();
        for record in &digest.objects {
            let Some(Ok(object)) = record.object.as_ref().map(ObjectName::decode) else {
                return ctx.log(LogLevel::Warning, format!("{from} lists an illegal object; ignored"));
            };
            theirs.insert(object, crate::log::decode_version(record.version));
        }
        if purging {
            return self.purge_listed(ctx, from, &digest.after, &digest.end, theirs);
        }
        match self.compare(ctx, &digest.after, &digest.end, theirs) {
            Ok(window) => {
                if let Some(backfill) = self.recovery.backfills.get_mut(&from) {
                    backfill.stage = Stage::Filling(window);
                }
                self.fill(ctx, from);
            }
            Err(error) => self.recovery_store_failed(ctx, &error),
        }
    }

    fn compare(
        &self,
        ctx: &PgContext<'_>,
        mark: &[u8],
        end: &[u8],
        mut theirs: BTreeMap<ObjectId, EVersion>,
    ) -> Result<Window, StoreError> {
        let most = if buggify("osd: small backfill window") { 2 } else { WINDOW_OBJECTS };
        let (ours, end) = self.list_families(ctx, mark, end, most)?;
        let mut window = Window { last: end.is_empty(), objects: ours.len() as u64, ..Window::default() };
        if !window.last {
            theirs.retain(|object, _| object.key().as_slice() <= end.as_ref());
        }
        window.end = end;
        for object in ours {
            let version = usable_version(ctx.store, &object)?;
            let equal = theirs.remove(&object) == Some(version) && version != EVersion::ZERO;
            if !equal {
                window.pending.insert(object);
            }
        }
        // What is missing here is there all the same: it is to be pushed once it is found, and until then what the target
        // has of it may be all that is left.
        for (object, _) in self.missing.iter() {
            if window.covers(mark, object) {
                theirs.remove(object);
                window.pending.insert(object.clone());
            }
        }
        window.remove = theirs;
        Ok(window)
    }

    fn fill(&mut self, ctx: &mut PgContext<'_>, osd: OsdId) {
        let draining = |pg: &Pg| match pg.recovery.backfills.get(&osd).map(|backfill| &backfill.stage) {
            Some(Stage::Filling(window)) => window.draining.clone(),
            _ => None,
        };
        let before = draining(self);
        self.fill_window(ctx, osd);
        if before.is_some() && before != draining(self) {
            ctx.requests.kick.insert(self.id);
        }
    }

    fn fill_window(&mut self, ctx: &mut PgContext<'_>, osd: OsdId) {
        loop {
            let granted = self.backfill_is_granted(osd);
            let Some(Backfill { stage: Stage::Filling(window), .. }) = self.recovery.backfills.get_mut(&osd)
            else {
                return;
            };
            window.draining = None;
            let idle = |object: &&ObjectId| {
                !self.recovery.active.contains_key(*object) && !self.missing.contains(object)
            };
            let most = if buggify("osd: one backfill push at a time") { 1 } else { TARGET_OBJECTS_MAX };
            if window.in_flight.len() >= most || !granted {
                return;
            }
            // A write that is not on all members may yet be undone. What is pushed must not be ahead of that, or the target
            // is left with an object that is newer than its log.
            let pipeline = &self.pipeline;
            // Nor does an object start before those of its family that it may be made of.
            let settled = |object: &&ObjectId| {
                let older = || window.in_flight.range(older(object)).next();
                idle(object) && !pipeline.is_written(object) && older().is_none()
            };
            let Some(object) = window.pending.iter().find(settled).cloned() else {
                window.draining = window.pending.iter().find(idle).map(ObjectId::head);
                break;
            };
            if !ctx.shared.throttle.may_start_object(ctx.now, self.id) {
                return;
            }
            let head = self.log.head();
            let started = self.start_transfer(ctx, osd, &object, EVersion::ZERO, head, PushPurpose::Backfill);
            let Some(transfer) = started else { return };
            ctx.shared.throttle.object_started(ctx.now);
            if let Some(Backfill { stage: Stage::Filling(window), .. }) =
                self.recovery.backfills.get_mut(&osd)
            {
                window.pending.remove(&object);
                window.in_flight.insert(object, transfer);
            }
            self.pump_transfer(ctx, transfer);
        }
        self.move_mark(ctx, osd);
    }

    /// All of the window is there: the mark goes to its end.
    fn move_mark(&mut self, ctx: &mut PgContext<'_>, osd: OsdId) {
        // What is missing here itself cannot have been looked at: the mark must not pass it.
        let Some(backfill) = self.recovery.backfills.get_mut(&osd) else { return };
        let Stage::Filling(window) = &mut backfill.stage else { return };
        if !window.pending.is_empty()
            || !window.in_flight.is_empty()
            || self.missing.iter().any(|(object, _)| window.covers(&backfill.mark, object))
        {
            return;
        }
        let remove = std::mem::take(&mut window.remove);
        let last = window.last;
        backfill.passed += window.objects;
        if !last {
            backfill.mark = window.end.clone();
        }
        backfill.stage = Stage::Moving { asked: ctx.now, last, remove };
        self.send_mark(ctx, osd);
    }

    fn send_mark(&self, ctx: &mut PgContext<'_>, osd: OsdId) {
        let Some(backfill) = self.recovery.backfills.get(&osd) else { return };
        let Stage::Moving { last, remove, .. } = &backfill.stage else { return };
        self.send_progress(ctx, osd, backfill.mark.clone(), *last, remove);
    }

    fn send_progress(
        &self,
        ctx: &mut PgContext<'_>,
        osd: OsdId,
        last_backfill: Bytes,
        done: bool,
        remove: &BTreeMap<ObjectId, EVersion>,
    ) {
        let record = |(object, version): (&ObjectId, &EVersion)| ObjectVersion {
            object: Some(ObjectName::from(object)),
            version: crate::log::encode_version(*version),
        };
        let message = BackfillProgress {
            interval: self.interval().0,
            last_backfill,
            done,
            ack: false,
            remove: remove.iter().map(record).collect(),
        };
        self.send(ctx, osd, message);
    }

    pub(crate) fn on_backfill_ack(&mut self, ctx: &mut PgContext<'_>, from: OsdId, ack: &BackfillProgress) {
        let Some(backfill) = self.recovery.backfills.get_mut(&from) else { return };
        if matches!(backfill.stage, Stage::Purging(_)) && ack.last_backfill == backfill.mark && !ack.done {
            return self.purge_removed(ctx, from);
        }
        let Stage::Moving { last, .. } = backfill.stage else { return };
        if ack.last_backfill != backfill.mark || ack.done != last {
            return;
        }
        backfill.stage = if last { Stage::Done } else { Stage::Idle };
        let mark = if last { BackfillMark::Complete } else { BackfillMark::At(backfill.mark.clone()) };
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.info.last_backfill = mark;
        }
        if last {
            ctx.log(LogLevel::Info, format!("PG {}: backfill of {from} is complete", self.id));
        }
        self.recovery_changed(ctx);
    }

    /// A push of backfill is durable at its target.
    pub(crate) fn backfill_pushed(&mut self, ctx: &mut PgContext<'_>, osd: OsdId, object: &ObjectId) {
        self.backfill_push_ended(ctx, osd, object, false);
        self.object_recovered(ctx, object);
    }

    pub(crate) fn backfill_push_failed(&mut self, ctx: &mut PgContext<'_>, osd: OsdId, object: &ObjectId) {
        self.backfill_push_ended(ctx, osd, object, true);
        self.kick(ctx);
    }

    fn backfill_push_ended(&mut self, ctx: &mut PgContext<'_>, osd: OsdId, object: &ObjectId, again: bool) {
        let Some(Backfill { stage: Stage::Filling(window), .. }) = self.recovery.backfills.get_mut(&osd)
        else {
            return;
        };
        if window.in_flight.remove(object).is_none() {
            return;
        }
        if again {
            window.pending.insert(object.clone());
        }
        ctx.shared.throttle.object_finished(ctx.now);
    }

    /// Sends again what was not answered, starts over what stands still.
    pub(crate) fn backfill_tick(&mut self, ctx: &mut PgContext<'_>) {
        for osd in self.recovery.backfills.keys().copied().collect::<Vec<_>>() {
            let interval = ctx.config.tunables.resend_interval * 3;
            let Some(backfill) = self.recovery.backfills.get_mut(&osd) else { continue };
            match &mut backfill.stage {
                Stage::Scanning { asked } if ctx.now.since(*asked) >= interval => {
                    *asked = ctx.now;
                    let after = backfill.mark.clone();
                    self.send_scan(ctx, osd, after);
                }
                Stage::Moving { asked, .. } if ctx.now.since(*asked) >= interval => {
                    *asked = ctx.now;
                    self.send_mark(ctx, osd);
                }
                Stage::Purging(_) => self.purge_again(ctx, osd, interval),
                Stage::Filling(window) => {
                    let in_flight = window.in_flight.clone();
                    for (object, transfer) in in_flight {
                        if self.drop_if_stalled(ctx, transfer) {
                            self.backfill_push_ended(ctx, osd, &object, true);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether anything of the object's family is on its way to a target.
    pub(crate) fn backfill_pushes(&self, object: &ObjectId) -> bool {
        self.recovery.backfills.values().any(|backfill| match &backfill.stage {
            Stage::Filling(window) => window.in_flight.range(family(object)).next().is_some(),
            _ => false,
        })
    }

    /// What is on its way to a target is to go again.
    pub(crate) fn backfill_give_way(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) {
        for osd in self.recovery.backfills.keys().copied().collect::<Vec<_>>() {
            let Some(Backfill { stage: Stage::Filling(window), .. }) = self.recovery.backfills.get(&osd)
            else {
                continue;
            };
            for (object, transfer) in window.in_flight.clone().range(family(object)) {
                self.forget_transfer(*transfer);
                self.backfill_push_ended(ctx, osd, object, true);
            }
        }
    }

    /// Whether writes to an object have to wait until backfill is past it.
    pub(crate) fn backfill_holds(&self, object: &ObjectId) -> bool {
        self.recovery.backfills.values().any(|backfill| match &backfill.stage {
            Stage::Filling(window) => {
                window.draining.as_ref() == Some(&object.head())
                    || window.in_flight.range(family(object)).next().is_some()
            }
            Stage::Moving { remove, .. } => remove.range(family(object)).next().is_some(),
            _ => false,
        })
    }

    /// Backfill stops for a while: no write waits for it.
    pub(crate) fn backfill_stop_draining(&mut self, ctx: &mut PgContext<'_>) {
        for backfill in self.recovery.backfills.values_mut() {
            if let Stage::Filling(window) = &mut backfill.stage
                && window.draining.take().is_some()
            {
                ctx.requests.kick.insert(self.id);
            }
        }
    }

    /// Whether the object's changes go to this peer, or (it lies beyond its mark) only their log entries.
    pub(crate) fn backfill_ships(&self, peer: OsdId, object: &ObjectId) -> bool {
        let Some(backfill) = self.recovery.backfills.get(&peer) else { return true };
        let key = family_end(object);
        let below = !backfill.mark.is_empty() && key <= backfill.mark;
        let below = below && !(mutant!(BackfillMarkOff) && key == backfill.mark);
        match &backfill.stage {
            Stage::Done | Stage::Moving { last: true, .. } => true,
            Stage::Filling(window) if !below => {
                let inside = window.last || key <= window.end;
                // A head that was not looked at yet has nothing at the target to apply a change to.
                inside
                    && window.pending.range(family(object)).next().is_none()
                    && window.remove.range(family(object)).next().is_none()
            }
            _ => below && !mutant!(BelowMarkNotShipped),
        }
    }

    /// A write changed `touched`, all of `object`'s family: what it makes or removes beside the head counts as well.
    pub(crate) fn backfill_on_write(&mut self, object: &ObjectId, touched: &[ObjectId]) {
        for backfill in self.recovery.backfills.values_mut() {
            let Stage::Filling(window) = &mut backfill.stage else { continue };
            // The target holds something old under that name: it is to be replaced by what is there now.
            let stale: Vec<ObjectId> = window.remove.range(family(object)).map(|(o, _)| o.clone()).collect();
            for object in stale {
                window.remove.remove(&object);
                window.pending.insert(object);
            }
            // A family of which anything is still to go got no change: all of it goes (again).
            if window.pending.range(family(object)).next().is_some() {
                window.pending.insert(object.head());
                window.pending.extend(touched.iter().cloned());
            }
        }
    }

    /// Objects still to be looked at, as far as can be told.
    pub(crate) fn backfill_objects_left(&self) -> u64 {
        let left = |backfill: &Backfill| match backfill.stage {
            Stage::Done => 0,
            _ => self.info.objects.saturating_sub(backfill.passed).max(1),
        };
        self.recovery.backfills.values().map(left).sum()
    }
}
