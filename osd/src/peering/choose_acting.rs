//! Who leads, who follows, who is to be filled: the choice of an acting set.

use crate::log::{Best, Info, find_best};
use crate::pg::{Membership, Pg, PgContext, State};
use crate::space::is_too_full_to_lead;
use nacre_types::{Needs, OsdId};
use nacre_wire::messages::LogLevel;
use std::collections::{BTreeMap, BTreeSet};

/// What a primary concludes from what it heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// No complete copy of the newest started interval is reachable.
    Incomplete,
    /// Other members would serve the PG better while it recovers; to be asked of the monitors.
    Want(Vec<OsdId>),
    /// The acting set is right: take the log of `best`, fill `backfill`, by log or from the start.
    Go { best: Best, backfill: BTreeSet<OsdId> },
}

/// What bounds a choice.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub size: usize,
    pub min_size: usize,
    /// See [`Tunables::lag_max`](crate::Tunables::lag_max).
    pub lag_max: u64,
}

/// Chooses among all known copies (this OSD's included), as Ceph does for replicated pools:
/// the authoritative log by [`find_best`]; the up primary leads if its log reaches the authoritative one and it lacks little,
/// else the latter's holder does; an up primary that was passed over for being full stays so (`is_full`); members of the up
/// set whose log does not reach, or who lack much, are filled while others that have the data serve.
pub fn choose_acting(
    me: OsdId,
    infos: &BTreeMap<OsdId, &Info>,
    up: &[OsdId],
    acting: &[OsdId],
    sizes: Sizes,
    is_up: impl Fn(OsdId) -> bool,
    is_full: impl Fn(OsdId) -> bool,
) -> Choice {
    let Sizes { size, min_size, lag_max } = sizes;
    let Some(best) = find_best(infos.iter().map(|(&osd, &info)| (osd, info)), Some(me)) else {
        return Choice::Incomplete;
    };
    let tail = infos[&best.osd].log_tail;
    let usable =
        |osd: OsdId| infos.get(&osd).is_some_and(|info| info.is_complete() && info.last_update >= tail);
    let lags = |osd: OsdId| {
        let (info, best) = (infos[&osd], infos[&best.osd]);
        let behind = best.last_update.seq.saturating_sub(info.last_update.seq);
        behind.max(info.missing_count) > lag_max && best.missing_count == 0
    };
    let instead = acting.first().copied().filter(|&osd| osd == me && usable(osd));
    let primary = match (up.first().copied().filter(|&osd| usable(osd)), instead) {
        (Some(osd), Some(instead)) if is_full(osd) => instead,
        (Some(osd), _) if lags(osd) => instead.filter(|&osd| !lags(osd)).unwrap_or(best.osd),
        (Some(osd), _) => osd,
        (None, _) => best.osd,
    };
    let mut want = vec![primary];
    let mut seat = |among: &mut dyn Iterator<Item = OsdId>, seats: usize, lagging: bool| {
        for osd in among {
            if want.len() < seats && !want.contains(&osd) && usable(osd) && (lagging || !lags(osd)) {
                want.push(osd);
            }
        }
    };
    let there = |osd: &OsdId| infos.get(osd).is_some_and(|info| info.exists) && is_up(*osd);
    let others = || acting.iter().chain(infos.keys()).copied().filter(there);
    seat(&mut up.iter().copied(), usize::MAX, false);
    seat(&mut others(), size, false);
    seat(&mut up.iter().copied(), min_size, true);
    seat(&mut others(), min_size, true);
    let backfill = up.iter().copied().filter(|osd| !want.contains(osd)).collect();
    if same_members(&want, acting) { Choice::Go { best, backfill } } else { Choice::Want(want) }
}

/// The same primary and the same others, in whatever order.
pub(crate) fn same_members(a: &[OsdId], b: &[OsdId]) -> bool {
    let set = |list: &[OsdId]| list.iter().copied().collect::<BTreeSet<_>>();
    a.first() == b.first() && set(a) == set(b)
}

impl Pg {
    pub(crate) fn choose(&mut self, ctx: &mut PgContext<'_>) {
        let mut infos: BTreeMap<OsdId, &Info> =
            self.peers.iter().map(|(&osd, peer)| (osd, &peer.info)).collect();
        infos.insert(self.me, &self.info);
        let size = ctx.map.pool(self.id.pool).map_or(1, |pool| pool.size) as usize;
        let sizes = Sizes { size, min_size: self.min_size(&ctx.map), lag_max: ctx.config.tunables.lag_max };
        let map = ctx.map.clone();
        let Membership { up, acting, .. } = &self.members;
        let is_full = |osd| osd != self.me && is_too_full_to_lead(ctx, Some(osd));
        let choice = choose_acting(self.me, &infos, up, acting, sizes, |osd| map.is_up(osd), is_full);
        match choice {
            Choice::Incomplete => {
                let started = self.info.history.last_epoch_started;
                self.enter(ctx, State::Incomplete { needs: Needs::CompleteCopy { started } });
            }
            Choice::Want(want) => {
                self.enter(ctx, State::WaitActingChange { want: want.clone() });
                self.want_acting(ctx, want);
            }
            Choice::Go { best, backfill } => {
                if self.info.last_epoch_started < best.started {
                    self.missing.all_seen();
                }
                self.best = Some(best);
                self.backfill_targets = backfill;
                ctx.requests.pg_temp.remove(&self.id);
                self.start_get_log(ctx, best.osd);
            }
        }
    }

    /// This OSD leads and has no room for what it misses: nobody could even remove it. A member that has everything leads
    /// instead, until all is recovered.
    pub(crate) fn hand_over(&mut self, ctx: &mut PgContext<'_>) {
        if !is_too_full_to_lead(ctx, None) {
            return;
        }
        let has_all =
            |osd: &&OsdId| self.peers.get(osd).is_some_and(|p| p.info.is_complete() && p.missing.is_empty());
        let mut others = self.members.acting.iter().filter(|&&osd| osd != self.me);
        if let Some(&next) = others.find(has_all) {
            let rest = self.members.acting.iter().copied().filter(|&osd| osd != next);
            let want: Vec<OsdId> = [next].into_iter().chain(rest).collect();
            ctx.log(LogLevel::Info, format!("PG {}: too full to lead, {next} is to", self.id));
            self.want_acting(ctx, want);
        }
    }

    /// Asks the monitors for another acting set; the up set itself is asked for by taking the request back.
    pub(crate) fn want_acting(&mut self, ctx: &mut PgContext<'_>, want: Vec<OsdId>) {
        let want = if same_members(&want, &self.members.up) { Vec::new() } else { want };
        ctx.requests.want_acting(self.id, want);
    }
}
