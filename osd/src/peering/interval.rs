//! Intervals: what each new map means for a PG.

use crate::log::is_new_interval;
use crate::pg::{Membership, Pg, PgContext, State};
use nacre_maps::OsdMap;
use nacre_types::{Epoch, mutant};
use nacre_wire::messages::LogLevel;

impl Pg {
    /// Goes one epoch on. Nothing is sent yet: `activate_map` follows once the newest map is reached.
    pub(crate) fn advance_map(&mut self, ctx: &mut PgContext<'_>, old: &OsdMap, new: &OsdMap) {
        if new.epoch() <= self.epoch || *self.state() == State::Removing {
            return;
        }
        if self.epoch != old.epoch() {
            return self.skip_to_map(ctx, new);
        }
        self.epoch = new.epoch();
        if mutant!(MapSkipped) && new.epoch().0.is_multiple_of(4) {
            return;
        }
        let since = self.members.since;
        let clean = self.info.history.last_epoch_clean;
        let ended = if since == Epoch::ZERO {
            is_new_interval(self.id, old, new)
        } else {
            self.past.check_new_interval(self.id, old, new, since, clean)
        };
        if ended {
            self.start_interval(ctx, new, true);
        }
    }

    /// Epochs in between are unknown: what happened in them has to be learned from others.
    pub(crate) fn skip_to_map(&mut self, ctx: &mut PgContext<'_>, new: &OsdMap) {
        if new.epoch() <= self.epoch || *self.state() == State::Removing {
            return;
        }
        let text = format!("PG {}: maps after {} up to {} are gone", self.id, self.epoch, new.epoch());
        ctx.log(LogLevel::Warning, text);
        self.epoch = new.epoch();
        self.past.clear();
        self.past_known = false;
        self.start_interval(ctx, new, false);
    }

    pub(crate) fn start_interval(&mut self, ctx: &mut PgContext<'_>, map: &OsdMap, sure: bool) {
        let place = map.pg(self.id).cloned().unwrap_or_default();
        let stays = sure && self.members.primary() == place.primary();
        let primary_since = if stays { self.members.primary_since } else { map.epoch() };
        self.members =
            Membership { since: map.epoch(), primary_since, up: place.up, acting: place.acting, sure };
        if let Some(pool) = map.pool(self.id.pool) {
            self.pg_num = pool.pg_num;
        }
        self.info.history.same_interval_since = self.members.since;
        self.peers.clear();
        self.probe.clear();
        self.incoming.clear();
        self.backfill_targets.clear();
        self.best = None;
        self.history_unconfirmed.clear();
        self.blocking = None;
        self.clean = false;
        self.activation_submitted = false;
        self.trimming.restart();
        self.recovery_reset(ctx);
        self.lease.start_interval(ctx.now);
        if !stays {
            self.drop_all_ops(ctx);
        }
        self.reset_pipeline(ctx);
        ctx.requests.pg_temp.remove(&self.id);
        self.enter(ctx, State::Reset);
        self.dirty = true;
    }

    /// The newest map is reached: go on from there.
    pub(crate) fn activate_map(&mut self, ctx: &mut PgContext<'_>) {
        if *self.state() == State::Removing {
            return;
        }
        if !ctx.map.pg_exists(self.id) {
            return self.start_removal(ctx);
        }
        if self.dirty {
            self.dirty = false;
            if self.info.exists {
                self.persist_info(ctx);
            }
        }
        if *self.state() == State::Reset {
            self.wake(ctx);
        } else {
            self.map_changed(ctx);
        }
    }

    fn wake(&mut self, ctx: &mut PgContext<'_>) {
        self.next_resend = ctx.now + ctx.config.tunables.resend_interval;
        if self.is_primary() {
            self.start_get_info(ctx);
        } else if !self.info.exists {
            // Nothing of it is here, and it is not for this OSD to ask.
            ctx.requests.removed.insert(self.id);
        } else {
            self.enter(ctx, State::Stray);
            self.notify_primary(ctx);
        }
    }

    /// The same interval under a newer map.
    fn map_changed(&mut self, ctx: &mut PgContext<'_>) {
        if !self.is_primary() {
            return;
        }
        let map = ctx.map.clone();
        let gone: Vec<_> = self
            .peers
            .iter()
            .filter(|(osd, peer)| map.osd(**osd).is_none_or(|info| !info.up || info.up_from() != peer.run))
            .map(|(&osd, _)| osd)
            .collect();
        for osd in &gone {
            self.peers.remove(osd);
        }
        match self.state().clone() {
            State::Down { .. } | State::Incomplete { .. } => self.start_get_info(ctx),
            State::GetInfo { .. } => {
                let prior = if self.past_known { self.prior_set(ctx) } else { Default::default() };
                if !gone.is_empty() || prior.is_down() || self.probe.iter().any(|&osd| !map.is_up(osd)) {
                    self.start_get_info(ctx);
                }
            }
            State::GetLog { .. }
            | State::GetMissing { .. }
            | State::WaitUpThru
            | State::WaitActingChange { .. }
                if !gone.is_empty() =>
            {
                self.start_get_info(ctx)
            }
            State::WaitUpThru => self.check_up_thru(ctx),
            State::Active => {
                self.trimming.restart();
                self.recovery_tick(ctx);
            }
            _ => {}
        }
    }
}
