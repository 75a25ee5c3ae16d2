//! Whom a primary must hear from before it may conclude anything (invariant I2).

use crate::log::{History, Info, PastIntervals};
use crate::pg::Membership;
use nacre_maps::OsdMap;
use nacre_types::{Epoch, OsdId, mutant};
use std::collections::{BTreeMap, BTreeSet};

/// For every past interval that may have taken writes one member is enough: a write was acknowledged only when all of
/// them had it.
///
/// A member's word counts only if its store is the one that was there: a store made later, under whatever number and
/// identity, says truthfully that it has nothing, and knows nothing. The word of a store that was there counts whatever it
/// says: it would hold the PG if a write had been acknowledged, unless a later interval was clean without it; and that one
/// has its own members to hear from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PriorSet {
    /// Up OSDs to ask.
    pub probe: BTreeSet<OsdId>,
    /// OSDs one of which (per interval) is needed, down or with a store that was not there: empty unless the PG is down.
    pub blocked_by: BTreeSet<OsdId>,
    /// An interval that nobody reachable was a member of, for people.
    pub blocking: Option<(Epoch, Epoch)>,
}

/// What the word of an OSD that was heard is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Witness {
    /// Since when its store takes part.
    pub store_since: Epoch,
    /// The newest start that it recorded with a complete copy: it had heard all there was to hear of what was before.
    pub started: Epoch,
}

impl Witness {
    pub fn of(info: &Info, store_since: Epoch) -> Witness {
        let vouches = info.exists && info.is_complete();
        Witness { store_since, started: if vouches { info.last_epoch_started } else { Epoch::ZERO } }
    }
}

impl PriorSet {
    /// `heard`: those who have spoken in this interval, `me` among them. Others who are up may still.
    pub fn build(
        me: OsdId,
        map: &OsdMap,
        members: &Membership,
        past: &PastIntervals,
        history: &History,
        heard: &BTreeMap<OsdId, Witness>,
    ) -> PriorSet {
        let mut prior = PriorSet::default();
        let all = members.up.iter().chain(&members.acting).copied();
        prior.probe.extend(all.filter(|&osd| osd != me && map.is_up(osd)));
        let started = heard.values().map(|witness| witness.started).max().unwrap_or_default();
        for interval in past.may_have_written(history.last_epoch_started) {
            let mut reachable = interval.last < started;
            let mut needed = BTreeSet::new();
            for &osd in &interval.acting {
                // Purged: an explicit declaration that nobody needs it.
                let Some(info) = map.osd(osd) else { continue };
                let up = info.up || osd == me;
                if up && osd != me {
                    prior.probe.insert(osd);
                }
                // The same: the number belongs to another disk now.
                if info.created() > interval.first {
                    continue;
                }
                if up && heard.get(&osd).is_none_or(|witness| witness.store_since <= interval.first) {
                    reachable = true;
                } else if info.lost_at() <= interval.first && !mutant!(DownIgnored) {
                    // Else declared lost after it could have taken writes: nobody waits for it.
                    needed.insert(osd);
                }
            }
            if !reachable && !needed.is_empty() {
                prior.blocked_by.extend(needed);
                prior.blocking = Some((interval.first, interval.last));
            }
        }
        prior
    }

    pub fn is_down(&self) -> bool {
        !self.blocked_by.is_empty()
    }
}
