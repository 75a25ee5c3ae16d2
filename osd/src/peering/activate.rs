//! Activating and Active: all members record the start of the interval; later, that the PG is clean.

use super::{LOG_PIECE, member::told};
use crate::log::{BackfillMark, encode_version};
use crate::pg::{Membership, Pg, PgContext, State};
use crate::token::PgPurpose;
use nacre_maps::OsdMap;
use nacre_types::buggify;
use nacre_types::{OsdId, mutant};
use nacre_wire::Transaction;
use nacre_wire::messages::{PgActivate, PgActivated, PgQuery, PgRemove, Piece};
use std::collections::BTreeSet;

impl Pg {
    /// Whether the acting set is large enough to accept writes (invariant I1).
    pub(crate) fn is_writeable(&self, ctx: &PgContext<'_>) -> bool {
        self.has_min_size(&ctx.map)
    }

    pub(crate) fn has_min_size(&self, map: &OsdMap) -> bool {
        self.members.acting.len() >= self.min_size(map) || mutant!(MinSizeIgnored)
    }

    /// Members that have to have a write before it is acknowledged.
    pub(crate) fn min_size(&self, map: &OsdMap) -> usize {
        map.pool(self.id.pool).map_or(u32::MAX, |pool| pool.min_size).max(1) as usize
    }

    /// Everybody's log and lacks are known and the map shows us alive: begin the interval.
    pub(crate) fn activate(&mut self, ctx: &mut PgContext<'_>) {
        assert!(self.is_primary() && self.has_up_thru(ctx), "I4: up_thru precedes activation");
        if self.is_writeable(ctx) {
            self.info.last_epoch_started = ctx.epoch();
            self.info.last_interval_started = self.interval();
        }
        self.info.exists = true;
        self.info.follow(&self.log, &self.missing);
        let mut t = Transaction::new(self.id);
        self.gather_unseen(&mut t);
        self.write_info(&mut t);
        ctx.submit(self.id, self.interval(), PgPurpose::Activation, t);
        let mut waiting: BTreeSet<OsdId> = self.replicas().into_iter().collect();
        for &osd in &waiting {
            if self.is_filled_anew(osd)
                && let Some(peer) = self.peers.get_mut(&osd)
            {
                peer.info.last_backfill = BackfillMark::START;
                peer.missing.clear();
                peer.missing_known = true;
                peer.common = None;
            }
        }
        waiting.insert(self.me);
        self.enter(ctx, State::Activating { waiting });
        self.next_resend = ctx.now + ctx.config.tunables.resend_interval;
        self.send_activations(ctx);
    }

    pub(crate) fn send_activations(&mut self, ctx: &mut PgContext<'_>) {
        let State::Activating { waiting } = self.state().clone() else { return };
        let leases = told(ctx.now, self.prior_leases(ctx.now));
        for osd in waiting.into_iter().filter(|&osd| osd != self.me) {
            let since = self.peers.get(&osd).and_then(|peer| peer.common);
            let (tail, entries) = self.log.encode_after(since);
            let most = if buggify("osd: activation in small pieces") { 2 } else { LOG_PIECE };
            let count = entries.len().div_ceil(most).max(1);
            let mut entries = entries.into_iter();
            let unseen = self.peers.get(&osd).map(|peer| self.unseen_news(&peer.missing)).unwrap_or_default();
            let transfer = ctx.rng.next_u64();
            for index in 0..count {
                let message = PgActivate {
                    interval: self.interval().0,
                    info: Some(self.info.encode()),
                    entries: entries.by_ref().take(most).collect(),
                    tail: encode_version(tail),
                    past_intervals: self.past.encode(),
                    start_backfill: since.is_none(),
                    piece: Some(Piece { transfer, index: index as u32, last: index + 1 == count }),
                    prior_leases: leases.clone(),
                    seen_to: encode_version(self.seen_to()),
                    unseen: unseen.clone(),
                    started_before: self.best.map_or(0, |best| best.started.0),
                };
                self.send(ctx, osd, message);
            }
        }
    }

    /// Primary: a member has recorded the start.
    pub(crate) fn on_activated(&mut self, ctx: &mut PgContext<'_>, from: OsdId, _message: &PgActivated) {
        let State::Activating { mut waiting } = self.state().clone() else { return };
        if !waiting.remove(&from) {
            return;
        }
        let head = self.log.head();
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.info.exists = true;
            peer.info.last_update = head;
            peer.info.log_tail = peer.info.log_tail.max(self.log.tail());
            peer.info.last_epoch_started = self.info.last_epoch_started;
            peer.durable = head;
        }
        let done = waiting.is_empty();
        self.enter(ctx, State::Activating { waiting });
        if done {
            self.become_active(ctx);
        }
    }

    fn become_active(&mut self, ctx: &mut PgContext<'_>) {
        self.enter(ctx, State::Active);
        self.committed_to = self.log.head();
        self.own_durable = self.log.head();
        let history = &mut self.info.history;
        history.last_epoch_started = history.last_epoch_started.max(self.info.last_epoch_started);
        history.last_interval_started = history.last_interval_started.max(self.info.last_interval_started);
        self.persist_info(ctx);
        // Members promise nothing before they have recorded the start.
        self.renew_lease(ctx);
        self.share_history(ctx);
        self.watch = crate::watch::Registry::new(ctx.epoch().0 << 24);
        self.recovery_on_activated(ctx);
        ctx.requests.kick.insert(self.id);
    }

    /// All members get to know what this primary has learned of the PG's history.
    pub(crate) fn share_history(&mut self, ctx: &mut PgContext<'_>) {
        self.history_unconfirmed = self.replicas().into_iter().collect();
        self.share_history_again(ctx);
    }

    pub(crate) fn share_history_again(&mut self, ctx: &mut PgContext<'_>) {
        let message = PgQuery { interval: self.interval().0, history: Some(self.info.history.encode()) };
        for osd in self.history_unconfirmed.clone() {
            self.send(ctx, osd, message.clone());
        }
    }

    /// Primary, active: with everything recovered, gives the up set its seats, or notes that the PG is clean.
    pub(crate) fn check_clean(&mut self, ctx: &mut PgContext<'_>) {
        if !self.is_active() || self.clean || !self.recovery_summary().done {
            return;
        }
        let size = ctx.map.pool(self.id.pool).map_or(0, |pool| pool.size as usize);
        let Membership { up, acting, .. } = &self.members;
        // Placement offers too few, and copies elsewhere make up for it: without the exception in the map they would be
        // chosen again, for ever.
        let spares_serve = up.len() < size && up.len() < acting.len() && up.first() == acting.first();
        // In another order too: else the exception in the map would stay for ever.
        if self.members.up != self.members.acting && !spares_serve {
            let up_is_full = self.members.up.iter().all(|osd| {
                self.members.is_acting(*osd)
                    || self.peers.get(osd).is_some_and(|peer| peer.info.is_complete())
            });
            if up_is_full && !self.members.up.is_empty() && !mutant!(PgTempKept) {
                self.want_acting(ctx, self.members.up.clone());
            }
            return;
        }
        if !self.is_writeable(ctx) {
            return;
        }
        self.clean = true;
        self.info.history.last_epoch_clean = ctx.epoch();
        self.info.history.last_interval_clean = self.interval();
        self.past.clear();
        self.persist_info(ctx);
        self.share_history(ctx);
        self.remove_strays(ctx);
        ctx.requests.report.insert(self.id);
    }

    /// Copies that nobody needs any more, now that the members are complete and as many as wanted.
    pub(crate) fn remove_strays(&mut self, ctx: &mut PgContext<'_>) {
        let size = ctx.map.pool(self.id.pool).map_or(usize::MAX, |pool| pool.size as usize);
        if self.members.acting.len() < size {
            return;
        }
        let strays: Vec<OsdId> =
            self.peers.keys().copied().filter(|&osd| !self.members.is_member(osd)).collect();
        for osd in strays {
            self.send(ctx, osd, PgRemove { interval: self.interval().0 });
            self.peers.remove(&osd);
        }
    }
}
