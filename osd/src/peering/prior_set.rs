//! Whom a primary must hear from before it may conclude anything (invariant I2).

use crate::log::{History, PastIntervals};
use nacre_maps::OsdMap;
use nacre_types::{Epoch, OsdId};
use std::collections::BTreeSet;

/// For every past interval that may have taken writes one member is enough: a write was acknowledged only when all of
/// them had it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PriorSet {
    /// Up OSDs to ask.
    pub probe: BTreeSet<OsdId>,
    /// OSDs that are down and one of which (per interval) is needed: empty unless the PG is down.
    pub blocked_by: BTreeSet<OsdId>,
    /// An interval that nobody reachable was a member of, for people.
    pub blocking: Option<(Epoch, Epoch)>,
}

impl PriorSet {
    pub fn build(
        me: OsdId,
        map: &OsdMap,
        up: &[OsdId],
        acting: &[OsdId],
        past: &PastIntervals,
        history: &History,
    ) -> PriorSet {
        let mut prior = PriorSet::default();
        prior.probe.extend(up.iter().chain(acting).copied().filter(|&osd| osd != me && map.is_up(osd)));
        for interval in past.may_have_written(history.last_epoch_started) {
            let mut reachable = false;
            let mut down = BTreeSet::new();
            for &osd in &interval.acting {
                match map.osd(osd) {
                    _ if osd == me => reachable = true,
                    Some(info) if info.up => {
                        reachable = true;
                        prior.probe.insert(osd);
                    }
                    // Declared lost after it could have taken writes: nobody waits for it.
                    Some(info) if info.lost_at() > interval.first => {}
                    Some(_) => drop(down.insert(osd)),
                    // Purged: an explicit declaration as well.
                    None => {}
                }
            }
            if !reachable && !down.is_empty() {
                prior.blocked_by.extend(down);
                prior.blocking = Some((interval.first, interval.last));
            }
        }
        prior
    }

    pub fn is_down(&self) -> bool {
        !self.blocked_by.is_empty()
    }
}
