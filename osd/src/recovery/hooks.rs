//! What the rest of the PG calls: the seams described in `pg::hooks`.

use super::gate::Work;
use super::{Recovery, Waiting, family};
use crate::backfill::Backfill;
use crate::pg::hooks::{Readiness, RecoverySummary};
use crate::pg::{Pg, PgContext};
use nacre_store::StoreError;
use nacre_types::{Instant, Needs, ObjectId, OsdId, mutant};
use nacre_wire::{Data, ErrorCode, Message, Packet};
use std::collections::BTreeSet;

impl Pg {
    /// Drops all work in progress: an interval ended.
    pub(crate) fn recovery_reset(&mut self, ctx: &mut PgContext<'_>) {
        self.drop_sinks(ctx);
        for _ in self.recovery.active.values().filter(|active| active.counted) {
            ctx.shared.throttle.object_finished(ctx.now);
        }
        for _ in 0..self.recovery.backfills.values().map(|backfill| backfill.counted()).sum() {
            ctx.shared.throttle.object_finished(ctx.now);
        }
        ctx.requests.kick.extend(ctx.shared.release_local(self.id));
        self.release_remote(ctx);
        self.scrub_reset(ctx);
        let old = std::mem::take(&mut self.recovery);
        self.recovery = Recovery { last_number: old.last_number, scrub: old.scrub, ..Recovery::default() };
    }

    /// Primary: every member has recorded the activation.
    pub(crate) fn recovery_on_activated(&mut self, ctx: &mut PgContext<'_>) {
        self.backfill_start();
        self.recovery.next_tick = ctx.now;
        self.recovery_advance(ctx);
    }

    /// Any member: a message of the recovery, backfill or scrub family, of this interval.
    pub(crate) fn recovery_on_message(&mut self, ctx: &mut PgContext<'_>, from: OsdId, packet: Packet) {
        let primary = self.is_primary() && self.is_active();
        let from_primary = self.members.primary() == Some(from);
        match &packet.message {
            Message::Push(push) => self.on_push(ctx, from, push, &packet.data),
            Message::PushReply(reply) => self.on_push_reply(ctx, from, reply),
            Message::Pull(pull) if from_primary => self.on_pull(ctx, from, pull),
            Message::Reserve(reserve) if from_primary => self.on_reserve(ctx, from, reserve),
            Message::ReserveReply(reply) if primary => self.on_reserve_reply(ctx, from, reply),
            Message::BackfillScan(scan) if from_primary => self.on_backfill_scan(ctx, from, scan),
            Message::BackfillDigest(digest) if primary => self.on_backfill_digest(ctx, from, digest),
            Message::BackfillProgress(progress) if from_primary && !progress.ack => {
                self.on_backfill_progress(ctx, from, progress);
            }
            Message::BackfillProgress(progress) if primary => self.on_backfill_ack(ctx, from, progress),
            Message::ScrubRequest(request) if from_primary => self.on_scrub_request(ctx, from, request),
            Message::ScrubMap(map) if primary => self.on_scrub_map(ctx, from, map),
            _ => {}
        }
        self.recovery_advance(ctx);
    }

    /// A transaction submitted with `PgPurpose::Recovery` in this interval is durable.
    pub(crate) fn recovery_on_committed(&mut self, ctx: &mut PgContext<'_>, token: u64) {
        match self.recovery.waiting.remove(&token) {
            Some(Waiting::Piece { to, object, version, sequence, last }) => {
                self.piece_committed(ctx, to, &object, version, sequence, last);
            }
            Some(Waiting::Mark { to, last_backfill, done }) => {
                self.backfill_mark_committed(ctx, to, last_backfill, done);
            }
            Some(Waiting::Read { .. }) | None => {}
        }
        self.recovery_advance(ctx);
    }

    pub(crate) fn recovery_on_read(
        &mut self,
        ctx: &mut PgContext<'_>,
        token: u64,
        result: Result<Data, StoreError>,
    ) {
        if let Some(Waiting::Read { transfer }) = self.recovery.waiting.remove(&token) {
            self.read_for_transfer(ctx, transfer, token, result);
        }
        self.recovery_advance(ctx);
    }

    /// The map changed without ending the interval (flags, pool options, an OSD came back), or time passed.
    pub(crate) fn recovery_tick(&mut self, ctx: &mut PgContext<'_>) {
        self.scrub_retry(ctx);
        if ctx.now >= self.recovery.next_tick {
            self.recovery.next_tick = ctx.now + ctx.config.tunables.resend_interval;
            self.restart_stalled(ctx);
            if self.is_primary() && self.is_active() {
                self.look_for_unfound(ctx);
                self.backfill_tick(ctx);
                self.scrub_tick(ctx);
            }
        }
        self.recovery_advance(ctx);
    }

    pub(crate) fn recovery_next_deadline(&self) -> Option<Instant> {
        let recovery = &self.recovery;
        let busy = !recovery.active.is_empty()
            || !recovery.transfers.is_empty()
            || !recovery.unfound.is_empty()
            || recovery.gate.work().is_some()
            || self.scrub_is_running();
        let tick = busy.then_some(recovery.next_tick);
        let scrub = if self.is_primary() && self.is_active() { self.scrub_deadline() } else { None };
        // Scrub gets its turns from the same tick.
        let scrub = scrub.map(|at| at.max(recovery.next_tick));
        [tick, scrub].into_iter().flatten().min()
    }

    fn any_missing(&self) -> bool {
        !self.missing.is_empty() || self.peers.values().any(|peer| !peer.missing.is_empty())
    }

    /// Before an operation reads `object` (a head: with its clones) on the primary. Starts its recovery if need be.
    pub(crate) fn ready_to_read(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) -> Readiness {
        if self.missing.is_empty() && self.recovery.unseen.is_empty() {
            return Readiness::Ready;
        }
        let mut missing: Vec<ObjectId> = self.missing.family(family(object)).cloned().collect();
        if !mutant!(UnseenShown) {
            missing.extend(self.unseen_lacking(object));
        }
        self.wait_for(ctx, missing)
    }

    fn wait_for(&mut self, ctx: &mut PgContext<'_>, missing: Vec<ObjectId>) -> Readiness {
        let mut waits = false;
        for one in missing {
            self.recover_object(ctx, &one);
            if self.recovery.unfound.contains(&one) {
                return match self.is_damaged(ctx, &one) && !self.reverts_unseen(&one) {
                    true => Readiness::Failed(ErrorCode::Io, format!("every copy of {one} is damaged")),
                    false => Readiness::Unfound,
                };
            }
            waits |= self.missing.contains(&one) || self.recovery.active.contains_key(&one);
        }
        if waits { Readiness::Wait(Needs::ObjectRecovery) } else { Readiness::Ready }
    }

    /// Before an operation changes `object`: it must be whole on every acting member, not be on its way to anybody and not
    /// be under scrub. Others who are being filled and miss it get the log entries, and the object later.
    pub(crate) fn ready_to_write(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) -> Readiness {
        if self.any_missing() || !self.recovery.active.is_empty() || !self.recovery.backfills.is_empty() {
            self.give_way(ctx, object);
            let family = family(object);
            let mut waits: Vec<ObjectId> = self.missing.family(family.clone()).cloned().collect();
            waits.extend(self.recovery.active.range(family.clone()).map(|(object, _)| object.clone()));
            waits.extend(self.unseen_lacking(object));
            for peer in self.members.acting.iter().filter_map(|osd| self.peers.get(osd)) {
                waits.extend(peer.missing.family(family.clone()).cloned());
            }
            let ready = self.wait_for(ctx, waits);
            if ready != Readiness::Ready {
                return ready;
            }
            if self.recovery.draining.as_ref() == Some(&object.head()) {
                return Readiness::Wait(Needs::ObjectRecovery);
            }
        }
        self.not_held(object)
    }

    /// The same for an operation that only removes `object`, which has no clones. While there is no room to bring it to
    /// members that miss it, they need not have it first: they may wait for just this. Otherwise they must: should the
    /// removal be undone, a copy has to be left somewhere.
    pub(crate) fn ready_to_remove(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) -> Readiness {
        if !self.recovery.gate.too_full() || self.missing.family(family(object)).next().is_some() {
            return self.ready_to_write(ctx, object);
        }
        self.not_held(object)
    }

    fn not_held(&self, object: &ObjectId) -> Readiness {
        if self.backfill_holds(object) {
            return Readiness::Wait(Needs::ObjectBackfill);
        }
        if self.scrub_holds(object) {
            return Readiness::Wait(Needs::ObjectScrub);
        }
        Readiness::Ready
    }

    /// A removal goes to all members but those `lacking` the object: nobody else misses it any more, and nobody brings it
    /// to them.
    pub(crate) fn recovery_on_removal(
        &mut self,
        ctx: &mut PgContext<'_>,
        object: &ObjectId,
        lacking: &BTreeSet<OsdId>,
    ) {
        for (_, peer) in self.peers.iter_mut().filter(|(osd, _)| !lacking.contains(osd)) {
            peer.missing.remove(object);
        }
        self.cancel_object(ctx, object);
    }

    /// A write was submitted here and sent to the peers: what scrub and backfill must know.
    pub(crate) fn recovery_on_write(
        &mut self,
        ctx: &mut PgContext<'_>,
        object: &ObjectId,
        touched: &[ObjectId],
    ) {
        self.forget_deleted(ctx, object);
        self.scrub_retry(ctx);
        self.backfill_on_write(object, touched);
    }

    /// Writes are on all members: what is to be brought to somebody may wait for that.
    pub(crate) fn recovery_on_commit(&mut self, ctx: &mut PgContext<'_>) {
        if self.recovery.draining.is_some() || self.recovery.backfills.values().any(Backfill::is_pushing) {
            self.recovery_advance(ctx);
        }
    }

    /// A client read failed on the primary's disk: mark the object missing here and recover it from another copy; the
    /// read is run again afterwards. False if there is no other copy, and nothing to be hoped of this one.
    pub(crate) fn recover_bad_copy(
        &mut self,
        ctx: &mut PgContext<'_>,
        object: &ObjectId,
        error: &StoreError,
    ) -> bool {
        if self.missing.contains(object) {
            return true;
        }
        let version = match super::usable_version(ctx.store, object) {
            Ok(version) => version,
            Err(error) => {
                self.recovery_store_failed(ctx, &error);
                return false;
            }
        };
        let elsewhere = !self.sources(ctx, object, version).is_empty();
        self.found_bad(ctx, object, version, error);
        self.recover_object(ctx, object);
        elsewhere || !self.is_damaged(ctx, object)
    }

    pub(crate) fn recovery_summary(&self) -> RecoverySummary {
        let recovery = &self.recovery;
        let mut summary = RecoverySummary {
            unfound: recovery.unfound.len() as u64,
            recovered_objects: recovery.recovered_objects,
            recovered_bytes: recovery.recovered_bytes,
            scrub_errors: recovery.scrub.errors(),
            degraded: self.missing.len() as u64,
            ..RecoverySummary::default()
        };
        let replicas = self.replicas();
        let missing = |osd: &OsdId| self.peers.get(osd).map_or(0, |peer| peer.missing.len() as u64);
        summary.degraded += replicas.iter().map(missing).sum::<u64>();
        let left = self.backfill_objects_left();
        // Enough whole copies elsewhere: what is left to fill is only in the wrong place.
        if self.members.acting.len() >= self.members.up.len() {
            summary.misplaced += left;
        } else {
            summary.degraded += left;
        }
        let gate = &recovery.gate;
        match gate.work() {
            Some(Work::Recovery) if gate.too_full() => summary.words.push("recovery_toofull"),
            Some(Work::Recovery) if gate.is_open() => summary.words.push("recovering"),
            Some(Work::Recovery) => summary.words.push("recovery_wait"),
            Some(Work::Backfill) if gate.too_full() => summary.words.push("backfill_toofull"),
            Some(Work::Backfill) if gate.is_open() => summary.words.push("backfilling"),
            Some(Work::Backfill) => summary.words.push("backfill_wait"),
            None => {}
        }
        summary.waiting_for = self
            .recovery_wait()
            .map(|(_, needs)| needs)
            .filter(|needs| !matches!(needs, Needs::Transfers(_)));
        summary.words.extend(recovery.scrub.words());
        summary.done =
            self.missing.is_empty() && gate.work().is_none() && summary.degraded + summary.misplaced == 0;
        summary
    }
}
