//! GetInfo and Down: hear from everybody whose word counts.

use super::{PriorSet, member::heard, prior_set::Witness};
use crate::log::{Info, PastIntervals};
use crate::pg::{Pg, PgContext, PgPeer, State};
use nacre_maps::OsdMap;
use nacre_types::{EVersion, Epoch, Needs, OsdId};
use nacre_wire::messages::{LogLevel, PgNotify, PgQuery};
use std::collections::BTreeSet;

impl Pg {
    /// Primary of a new interval, or the picture changed: work out whom to hear from.
    pub(crate) fn start_get_info(&mut self, ctx: &mut PgContext<'_>) {
        assert!(self.is_primary());
        self.want_up_thru(ctx);
        let prior = if !self.past_known { self.discovery_set(&ctx.map) } else { self.prior_set(ctx) };
        let waiting: BTreeSet<OsdId> =
            prior.probe.iter().copied().filter(|osd| !self.peers.contains_key(osd)).collect();
        self.probe = prior.probe.clone();
        self.enter(ctx, State::GetInfo { waiting: waiting.clone(), discovery: !self.past_known });
        if prior.is_down() {
            self.blocking = prior.blocking;
            self.enter(ctx, State::Down { blocked_by: prior.blocked_by });
        }
        self.next_resend = ctx.now + ctx.config.tunables.resend_interval;
        self.send_queries(ctx);
        if waiting.is_empty() && matches!(self.state(), State::GetInfo { .. }) {
            self.heard_from_all(ctx);
        }
    }

    pub(crate) fn prior_set(&self, ctx: &PgContext<'_>) -> PriorSet {
        let peers = self.peers.iter().map(|(&osd, peer)| (osd, Witness::of(&peer.info, peer.store_since)));
        let own = (self.me, Witness::of(&self.info, ctx.store_since));
        let witnesses = peers.chain([own]).collect();
        PriorSet::build(self.me, &ctx.map, &self.members, &self.past, &self.info.history, &witnesses)
    }

    /// This OSD knows nothing of the PG, or missed maps. Whoever ran since the pool was made may know more; only when all of
    /// them say that they do not, what is here (or nothing: a new PG) is all there is.
    fn discovery_set(&self, map: &OsdMap) -> PriorSet {
        let mut prior = PriorSet::default();
        let Some(pool) = map.pool(self.id.pool) else { return prior };
        for (osd, info) in map.osds().filter(|(osd, _)| *osd != self.me) {
            if info.up {
                prior.probe.insert(osd);
            } else if info.booted && info.down_at() > pool.created() && info.lost_at() <= pool.created() {
                prior.blocked_by.insert(osd);
            }
        }
        if prior.is_down() {
            prior.blocking = Some((pool.created(), map.epoch()));
        }
        prior
    }

    pub(crate) fn send_queries(&mut self, ctx: &mut PgContext<'_>) {
        let query = PgQuery { interval: self.interval().0, history: Some(self.info.history.encode()) };
        for osd in self.probe.clone() {
            if !self.peers.contains_key(&osd) {
                self.send(ctx, osd, query.clone());
            }
        }
    }

    /// A copy's holder tells what it has, in this interval.
    pub(crate) fn on_notify(&mut self, ctx: &mut PgContext<'_>, from: OsdId, notify: PgNotify) {
        if !self.is_primary() || from == self.me {
            return;
        }
        let decoded = notify.info.as_ref().map(Info::decode);
        let Some(Ok(info)) = decoded.filter(|info| info.as_ref().is_ok_and(|info| info.pg == self.id)) else {
            return ctx.log(LogLevel::Warning, format!("{from} sent a malformed notify of PG {}", self.id));
        };
        ctx.shared.fullness.heard(from, notify.used_permille);
        self.lease.note_prior(from, heard(ctx, &notify.leases));
        self.history_unconfirmed.remove(&from);
        let past = notify.past_known.then_some(&notify.past_intervals[..]);
        let learned = self.learn_history(ctx, &info, past);
        if self.is_active() || matches!(self.state(), State::Activating { .. }) {
            return self.on_stray(ctx, from, info, Epoch(notify.store_since));
        }
        let first = !self.peers.contains_key(&from);
        if first {
            let run = ctx.map.osd(from).map(|osd| osd.up_from()).unwrap_or_default();
            self.peers.insert(from, PgPeer::new(info, run, Epoch(notify.store_since)));
        }
        match self.state().clone() {
            State::GetInfo { .. } | State::Down { .. } | State::Incomplete { .. } if learned => {
                self.start_get_info(ctx)
            }
            State::GetInfo { mut waiting, discovery } => {
                waiting.remove(&from);
                if waiting.is_empty() {
                    self.heard_from_all(ctx);
                } else {
                    self.enter(ctx, State::GetInfo { waiting, discovery });
                }
            }
            State::Incomplete { .. } | State::Down { .. } if first => self.start_get_info(ctx),
            _ => {}
        }
    }

    /// Takes over what another copy knows better of the PG's past. True if that changes whom to ask.
    fn learn_history(&mut self, ctx: &mut PgContext<'_>, info: &Info, past: Option<&[u8]>) -> bool {
        if !info.exists {
            return false;
        }
        let before = (self.info.history.last_epoch_started, self.past.clone(), self.past_known);
        let merged = self.info.history.merge(&info.history);
        if let Some(past) = past.filter(|_| !self.past_known) {
            match PastIntervals::decode(past) {
                Ok(past) => {
                    self.past = past;
                    self.past_known = true;
                }
                Err(error) => ctx.log(LogLevel::Warning, format!("PG {}: {error}", self.id)),
            }
        }
        self.past.prune(self.info.history.last_epoch_clean);
        if merged && self.info.exists {
            self.persist_info(ctx);
        }
        before != (self.info.history.last_epoch_started, self.past.clone(), self.past_known)
    }

    fn heard_from_all(&mut self, ctx: &mut PgContext<'_>) {
        if self.past_known {
            let prior = self.prior_set(ctx);
            if prior.is_down() {
                self.blocking = prior.blocking;
                return self.enter(ctx, State::Down { blocked_by: prior.blocked_by });
            }
        } else {
            // Every OSD that could know more has said that it does not.
            if !self.info.exists {
                let Some(pool) = ctx.map.pool(self.id.pool) else { return };
                if !pool.may_begin(self.id.seed) {
                    return self.enter(ctx, State::Incomplete { needs: Needs::AnyCopy });
                }
                self.info = Info::created(self.id, pool.created());
            }
            self.past_known = true;
            self.info.history.same_interval_since = self.interval();
            self.persist_everything(ctx);
        }
        self.choose(ctx);
    }

    /// Active: a copy that is no member makes itself known. It goes once nobody needs it.
    fn on_stray(&mut self, ctx: &mut PgContext<'_>, from: OsdId, info: Info, store_since: Epoch) {
        if self.members.is_member(from) || self.backfill_targets.contains(&from) {
            return;
        }
        if !info.exists {
            self.peers.remove(&from);
            return;
        }
        let known = self.peers.contains_key(&from);
        let run = ctx.map.osd(from).map(|osd| osd.up_from()).unwrap_or_default();
        self.peers.entry(from).or_insert_with(|| PgPeer::new(info, run, store_since));
        if self.is_active() && self.clean {
            self.remove_strays(ctx);
        } else if !known {
            // It may hold what was thought lost.
            self.recovery_tick(ctx);
        }
    }
}

impl PgPeer {
    pub(crate) fn new(info: Info, run: Epoch, store_since: Epoch) -> PgPeer {
        let missing_known = info.exists && info.missing_count == 0;
        PgPeer {
            info,
            missing: Default::default(),
            durable: EVersion::ZERO,
            missing_known,
            common: None,
            run,
            store_since,
        }
    }
}
