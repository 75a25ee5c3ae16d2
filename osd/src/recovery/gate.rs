//! When background recovery and backfill may run: slots at both ends, the cluster's flags, full targets.
//!
//! A PG first gets its own OSD's slot, then those of the OSDs it fills, one after the other in order of their ids: so
//! no two PGs wait for each other.

use super::Stage;
use super::slots::Claim;
use crate::pg::{Pg, PgContext};
use crate::space::is_backfill_full;
use nacre_maps::Flag;
use nacre_types::{Epoch, Instant, Needs, OsdId, mutant};
use nacre_wire::messages::{Reserve, ReserveReply};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a target that is too full is left alone.
const FULL_RETRY: Duration = Duration::from_secs(15);
/// How often held slots are renewed.
const RENEW_INTERVAL: Duration = Duration::from_secs(10);
/// Objects of one PG recovered at once, besides what clients wait for.
const PG_OBJECTS_MAX: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Recovery,
    Backfill,
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    work: Option<Work>,
    local: bool,
    granted: BTreeSet<OsdId>,
    /// Whose slot is asked for, and when it last was.
    asking: Option<(OsdId, Instant)>,
    /// When those granted were last renewed.
    renewed: Instant,
    /// Until when they are left alone.
    too_full: BTreeMap<OsdId, Instant>,
    held_by_flag: bool,
    /// Since when there is this work.
    since: Instant,
}

impl Gate {
    pub(super) fn is_open(&self) -> bool {
        self.local && !self.held_by_flag
    }

    pub(super) fn work(&self) -> Option<Work> {
        self.work
    }

    pub(super) fn too_full(&self) -> bool {
        !self.too_full.is_empty()
    }
}

impl Pg {
    fn work(&self) -> Option<Work> {
        let unfound = &self.recovery.unfound;
        let missing_here = self.missing.len() > unfound.len();
        let missing_there = || {
            self.replicas().iter().filter_map(|osd| self.peers.get(osd)).any(|peer| {
                peer.missing.len() > unfound.len()
                    || peer.missing.iter().any(|(object, _)| !unfound.contains(object))
            })
        };
        if missing_here || !self.recovery.active.is_empty() || missing_there() {
            Some(Work::Recovery)
        } else if self.recovery.backfills.values().any(|backfill| !backfill.is_done()) {
            Some(Work::Backfill)
        } else {
            None
        }
    }

    /// Does what can be done now. Cheap where there is nothing to do; called after every event that may matter.
    pub(crate) fn recovery_advance(&mut self, ctx: &mut PgContext<'_>) {
        if !self.is_primary() || !self.is_active() {
            return;
        }
        let work = self.work();
        if work != self.recovery.gate.work {
            self.close_gate(ctx);
            (self.recovery.gate.work, self.recovery.gate.since) = (work, ctx.now);
            self.recovery.was_done = work.is_none() && self.recovery.was_done;
            self.recovery_changed(ctx);
        }
        let Some(work) = work else {
            if !self.recovery.was_done && self.recovery.unfound.is_empty() {
                self.recovery.was_done = true;
                self.recovery_changed(ctx);
            }
            return self.scrub_advance(ctx);
        };
        let flags = ctx.map.flags();
        let held = match work {
            Work::Recovery => flags.contains(Flag::NoRecover),
            Work::Backfill => flags.contains(Flag::NoBackfill),
        };
        self.recovery.gate.held_by_flag = held;
        if held {
            self.stop_draining(ctx);
            self.backfill_stop_draining(ctx);
        }
        if !held && self.reserve(ctx, work) {
            match work {
                Work::Recovery => self.pump_recovery(ctx),
                Work::Backfill => self.backfill_advance(ctx),
            }
        }
    }

    fn pump_recovery(&mut self, ctx: &mut PgContext<'_>) {
        let draining = self.recovery.draining.take();
        self.start_objects(ctx);
        let room = self.recovery.active.len() < PG_OBJECTS_MAX;
        if room
            && !self.recovery.gate.too_full()
            && let Some(head) = self.next_to_drain()
            && ctx.shared.throttle.may_start_object(ctx.now, self.id)
        {
            self.recovery.draining = Some(head);
        }
        if draining.is_some() && draining != self.recovery.draining {
            ctx.requests.kick.insert(self.id);
        }
    }

    /// Writes of what recovery waited to come to need not wait any more.
    fn stop_draining(&mut self, ctx: &mut PgContext<'_>) {
        if self.recovery.draining.take().is_some() {
            ctx.requests.kick.insert(self.id);
        }
    }

    fn start_objects(&mut self, ctx: &mut PgContext<'_>) {
        while self.recovery.active.len() < PG_OBJECTS_MAX
            && let Some(object) = self.next_to_recover()
            && ctx.shared.throttle.may_start_object(ctx.now, self.id)
        {
            let before = self.missing.len();
            self.recover_object(ctx, &object);
            match self.recovery.active.get_mut(&object) {
                Some(active) => {
                    active.counted = true;
                    ctx.shared.throttle.object_started(ctx.now);
                }
                // Removed at once, or unfound: on to the next one; anything else would go round for ever.
                None if self.missing.len() < before || self.recovery.unfound.contains(&object) => {}
                None => return,
            }
        }
    }

    /// The OSDs that the work at hand fills.
    fn filled(&self, work: Work) -> Vec<OsdId> {
        match work {
            Work::Recovery => {
                let misses = |osd: &OsdId| self.peers.get(osd).is_some_and(|peer| !peer.missing.is_empty());
                self.replicas().into_iter().filter(misses).collect()
            }
            Work::Backfill => {
                let open = |(_, backfill): &(&OsdId, &crate::backfill::Backfill)| !backfill.is_done();
                self.recovery.backfills.iter().filter(open).map(|(&osd, _)| osd).collect()
            }
        }
    }

    /// Whether all slots the work needs are there; asks for the next one if not.
    fn reserve(&mut self, ctx: &mut PgContext<'_>, work: Work) -> bool {
        let now = ctx.now;
        let gate = &mut self.recovery.gate;
        gate.too_full.retain(|_, until| *until > now);
        let backfill = work == Work::Backfill;
        let mut filled = self.filled(work);
        let gate = &mut self.recovery.gate;
        filled.retain(|osd| !gate.too_full.contains_key(osd));
        filled.sort();
        if filled.is_empty() && backfill {
            let since = gate.since;
            self.close_gate(ctx);
            (self.recovery.gate.work, self.recovery.gate.since) = (Some(work), since);
            return false;
        }
        let priority = if backfill { 1 } else { 2 };
        gate.local = ctx.shared.request_local(self.id, priority);
        if !gate.local {
            return false;
        }
        let next = filled.iter().copied().find(|osd| !gate.granted.contains(osd));
        let mut whom = Vec::new();
        let is_due = now.since(gate.renewed) >= RENEW_INTERVAL || mutant!(SlotsRenewedAtOnce);
        if is_due && !gate.granted.is_empty() {
            gate.renewed = now;
            whom.extend(&gate.granted);
        }
        let is_asked = |&(osd, at): &(OsdId, Instant)| {
            next == Some(osd) && now.since(at) < ctx.config.tunables.resend_interval
        };
        if let Some(osd) = next
            && !gate.asking.as_ref().is_some_and(is_asked)
        {
            gate.asking = Some((osd, now));
            whom.push(osd);
        }
        for osd in whom {
            let (interval, bytes) = (self.members.since.0, self.info.bytes);
            self.send(ctx, osd, Reserve { interval, backfill, release: false, priority, bytes });
        }
        next.is_none()
    }

    /// What recovery or backfill waits for and since when, if it has anything to do.
    pub(crate) fn recovery_wait(&self) -> Option<(Instant, Needs)> {
        let gate = &self.recovery.gate;
        let needs = match gate.work {
            _ if gate.too_full() => Needs::Space(gate.too_full.keys().copied().collect()),
            Some(Work::Recovery) if gate.held_by_flag => Needs::Flag(Flag::NoRecover.as_str().into()),
            Some(Work::Backfill) if gate.held_by_flag => Needs::Flag(Flag::NoBackfill.as_str().into()),
            Some(_) if !gate.local => Needs::RecoverySlot(self.me),
            Some(work) => {
                let filled = self.filled(work);
                match filled.iter().filter(|osd| !gate.granted.contains(osd)).min() {
                    Some(&osd) => Needs::RecoverySlot(osd),
                    None => Needs::Transfers(self.transferring(filled)),
                }
            }
            None if self.recovery.unfound.is_empty() => return None,
            None => self.needs_all_found(),
        };
        Some((gate.since, needs))
    }

    /// Whoever objects are on their way to or from.
    fn transferring(&self, mut osds: Vec<OsdId>) -> Vec<OsdId> {
        for active in self.recovery.active.values() {
            match &active.stage {
                Stage::Pull { from, .. } => osds.push(*from),
                Stage::Push { transfers } => osds.extend(transfers.keys()),
            }
        }
        osds.sort();
        osds.dedup();
        osds
    }

    /// Whether backfill to this target may run now.
    pub(crate) fn backfill_is_granted(&self, osd: OsdId) -> bool {
        self.recovery.gate.granted.contains(&osd) && !self.recovery.gate.too_full.contains_key(&osd)
    }

    /// An OSD, perhaps this one, has no room for what it is being brought.
    pub(super) fn gate_too_full(&mut self, ctx: &mut PgContext<'_>, osd: OsdId) {
        let gate = &mut self.recovery.gate;
        gate.granted.remove(&osd);
        gate.too_full.insert(osd, ctx.now + FULL_RETRY);
        self.stop_draining(ctx);
        self.backfill_stop_draining(ctx);
        self.recovery_changed(ctx);
    }

    /// A target that was too full has made room.
    pub(crate) fn gate_ask_again(&mut self, osd: OsdId) {
        self.recovery.gate.too_full.remove(&osd);
    }

    /// Gives all slots back.
    pub(super) fn close_gate(&mut self, ctx: &mut PgContext<'_>) {
        self.stop_draining(ctx);
        self.backfill_stop_draining(ctx);
        let gate = std::mem::take(&mut self.recovery.gate);
        self.recovery.gate.too_full = gate.too_full;
        ctx.requests.kick.extend(ctx.shared.release_local(self.id));
        let backfill = gate.work == Some(Work::Backfill);
        for osd in gate.granted {
            let interval = self.members.since.0;
            self.send(ctx, osd, Reserve { interval, backfill, release: true, ..Reserve::default() });
        }
    }

    pub(super) fn on_reserve(&mut self, ctx: &mut PgContext<'_>, from: OsdId, reserve: &Reserve) {
        if reserve.release {
            return self.release_remote(ctx);
        }
        // What does not make the copy here larger may free what fills this OSD: refused, both would wait for ever.
        let grows = reserve.bytes > self.info.bytes;
        let too_full = reserve.backfill && is_backfill_full(ctx, grows);
        if too_full {
            self.release_remote(ctx);
        }
        let claim = Claim { pg: self.id, primary: from, interval: self.interval() };
        let granted = !too_full && ctx.shared.request_remote(ctx.now, claim);
        // Whoever has to wait hears of it when its turn comes.
        if granted || too_full {
            let reply = ReserveReply { interval: self.interval().0, granted, too_full };
            self.send(ctx, from, reply);
        }
    }

    /// Gives back the slot another primary held here for this PG, and tells whose turn it is.
    pub(super) fn release_remote(&mut self, ctx: &mut PgContext<'_>) {
        for claim in ctx.shared.release_remote(ctx.now, self.id) {
            let Claim { pg, primary, interval: Epoch(interval) } = claim;
            let packet = ctx.packet(ReserveReply { interval, granted: true, too_full: false }).on(pg);
            ctx.send_osd(primary, packet);
        }
    }

    pub(super) fn on_reserve_reply(&mut self, ctx: &mut PgContext<'_>, from: OsdId, reply: &ReserveReply) {
        let gate = &mut self.recovery.gate;
        if reply.granted || reply.too_full {
            gate.asking = gate.asking.filter(|(osd, _)| *osd != from);
        }
        if gate.work.is_none() || !gate.local {
            // The work ended meanwhile: the slot is not needed.
            if reply.granted {
                let release = Reserve { interval: self.members.since.0, release: true, ..Reserve::default() };
                self.send(ctx, from, release);
            }
            return;
        }
        if reply.too_full {
            self.gate_too_full(ctx, from);
            self.backfill_purge(ctx, from);
        } else if reply.granted {
            if gate.granted.is_empty() {
                gate.renewed = ctx.now;
            }
            gate.granted.insert(from);
        }
    }
}
