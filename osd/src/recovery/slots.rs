//! What the PGs of one OSD share: slots for recovery and backfill, here and for other primaries.
//!
//! A PG recovers in the background only while it holds a slot at its primary and one at every member it fills. Slots
//! granted to other primaries expire unless renewed, so that a lost release costs time, not a slot.

use super::throttle::Throttle;
use crate::Tunables;
use crate::space::Fullness;
use nacre_types::{Epoch, Instant, OsdId, PgId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How long a remote slot is kept without a renewal.
const REMOTE_SLOT_LIFE: Duration = Duration::from_secs(30);

/// OSD-wide state of recovery, backfill and scrub.
#[derive(Debug)]
pub struct OsdShared {
    /// PGs that recover at once with this OSD as their primary, and PGs of other primaries that fill it.
    pgs_max: usize,
    local: BTreeSet<PgId>,
    /// By priority, then first come.
    local_waiting: BTreeSet<(Reverse<u32>, u64, PgId)>,
    arrivals: u64,
    remote: BTreeMap<PgId, Instant>,
    remote_waiting: Vec<Claim>,
    pub throttle: Throttle,
    scrubbing: Option<PgId>,
    /// First come; the slot goes to the first of them when it is free.
    scrub_waiting: VecDeque<PgId>,
    pub fullness: Fullness,
}

/// Another primary's wish for a slot here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    pub pg: PgId,
    pub primary: OsdId,
    pub interval: Epoch,
}

impl OsdShared {
    pub fn new(tunables: &Tunables) -> OsdShared {
        OsdShared {
            pgs_max: tunables.recovery_pgs_max,
            local: BTreeSet::new(),
            local_waiting: BTreeSet::new(),
            arrivals: 0,
            remote: BTreeMap::new(),
            remote_waiting: Vec::new(),
            throttle: Throttle::new(tunables.recovery_objects_max),
            scrubbing: None,
            scrub_waiting: VecDeque::new(),
            fullness: Fullness::default(),
        }
    }

    /// Other bounds from now on. What is above them runs to its end. Returns the PGs that got a slot by that.
    #[must_use]
    pub fn set_bounds(&mut self, tunables: &Tunables) -> Vec<PgId> {
        self.pgs_max = tunables.recovery_pgs_max;
        self.throttle.set_limit(tunables.recovery_objects_max);
        self.grant_local()
    }

    /// Asks for a slot of this OSD's own; asking again is harmless.
    pub fn request_local(&mut self, pg: PgId, priority: u32) -> bool {
        if self.local.contains(&pg) {
            return true;
        }
        if !self.local_waiting.iter().any(|&(_, _, waiting)| waiting == pg) {
            self.arrivals += 1;
            self.local_waiting.insert((Reverse(priority), self.arrivals, pg));
        }
        self.grant_local();
        self.local.contains(&pg)
    }

    /// Gives a slot (or the wish for one) back. Returns the PGs that got one by that.
    #[must_use]
    pub fn release_local(&mut self, pg: PgId) -> Vec<PgId> {
        self.local.remove(&pg);
        self.local_waiting.retain(|&(_, _, waiting)| waiting != pg);
        self.throttle.forget(pg);
        self.grant_local()
    }

    fn grant_local(&mut self) -> Vec<PgId> {
        let mut granted = Vec::new();
        while self.local.len() < self.pgs_max
            && let Some((_, _, pg)) = self.local_waiting.pop_first()
        {
            self.local.insert(pg);
            granted.push(pg);
        }
        granted
    }

    /// Another primary asks for a slot, or renews one.
    pub fn request_remote(&mut self, now: Instant, claim: Claim) -> bool {
        self.remote.retain(|_, expires| *expires > now);
        if self.remote.len() < self.pgs_max || self.remote.contains_key(&claim.pg) {
            self.remote_waiting.retain(|waiting| waiting.pg != claim.pg);
            self.remote.insert(claim.pg, now + REMOTE_SLOT_LIFE);
            return true;
        }
        self.remote_waiting.retain(|waiting| waiting.pg != claim.pg);
        self.remote_waiting.push(claim);
        false
    }

    /// Takes a slot back. Returns those who got one by that and must be told.
    #[must_use]
    pub fn release_remote(&mut self, now: Instant, pg: PgId) -> Vec<Claim> {
        self.remote.remove(&pg);
        self.remote_waiting.retain(|waiting| waiting.pg != pg);
        let mut granted = Vec::new();
        while self.remote.len() < self.pgs_max && !self.remote_waiting.is_empty() {
            let claim = self.remote_waiting.remove(0);
            self.remote.insert(claim.pg, now + REMOTE_SLOT_LIFE);
            granted.push(claim);
        }
        granted
    }

    /// A client's operation took this long from arrival to answer: recovery yields if that is more than usual.
    pub fn client_op_took(&mut self, now: Instant, took: Duration, bytes: u64) {
        let is_filled = self.remote.values().any(|expires| *expires > now);
        self.throttle.client_op_took(now, took, bytes, is_filled);
    }

    /// One PG is scrubbed at a time. Whoever may not now is told by [`OsdShared::scrub_ended`] when its turn comes.
    pub fn may_scrub(&mut self, pg: PgId) -> bool {
        let may = *self.scrubbing.get_or_insert(pg) == pg;
        if may {
            self.scrub_waiting.retain(|&waiting| waiting != pg);
        } else if !self.scrub_waiting.contains(&pg) {
            self.scrub_waiting.push_back(pg);
        }
        may
    }

    /// The PG gives the slot, or its wish for one, back. Whose turn it is now: that one must be run at once, since others
    /// may take the free slot before it.
    pub fn scrub_ended(&mut self, pg: PgId) -> Option<PgId> {
        self.scrub_waiting.retain(|&waiting| waiting != pg);
        if self.scrubbing != Some(pg) {
            return None;
        }
        self.scrubbing = None;
        self.scrub_waiting.pop_front()
    }

    /// PGs that hold this OSD's own slots, and those of other primaries that it gave a slot.
    pub fn slot_holders(&self) -> (Vec<PgId>, Vec<PgId>) {
        (self.local.iter().copied().collect(), self.remote.keys().copied().collect())
    }

    pub fn scrub_holder(&self) -> Option<PgId> {
        self.scrubbing
    }

    /// A PG is gone or starts over: give back whatever it holds.
    pub fn forget(&mut self, pg: PgId) {
        // Whoever gets a slot by this finds out with its next tick.
        let _ = self.release_local(pg);
        self.remote.remove(&pg);
        self.remote_waiting.retain(|waiting| waiting.pg != pg);
        let _ = self.scrub_ended(pg);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::PoolId;

    fn pg(seed: u32) -> PgId {
        PgId::new(PoolId(1), seed)
    }

    #[test]
    fn slots_go_by_priority_and_none_is_lost() {
        let mut shared = OsdShared::new(&Tunables::default());
        assert!((0..3).all(|seed| shared.request_local(pg(seed), 1)));
        assert!(!shared.request_local(pg(3), 1));
        assert!(!shared.request_local(pg(4), 9));
        assert!(!shared.request_local(pg(4), 9));
        assert_eq!(shared.release_local(pg(0)), [pg(4)]);
        assert_eq!(shared.release_local(pg(1)), [pg(3)]);
        assert_eq!(shared.release_local(pg(1)), []);

        let claim = |seed| Claim { pg: pg(seed), primary: OsdId(seed), interval: Epoch(1) };
        let now = Instant::from_millis(1000);
        assert!((0..3).all(|seed| shared.request_remote(now, claim(seed))));
        assert!(!shared.request_remote(now, claim(7)));
        assert!(shared.request_remote(now, claim(0)), "renewed");
        assert_eq!(shared.release_remote(now, pg(2)), [claim(7)]);
        let later = now + REMOTE_SLOT_LIFE;
        assert!(shared.request_remote(later, claim(8)), "what was not renewed has expired");
    }

    #[test]
    fn other_bounds_count_at_once() {
        let mut shared = OsdShared::new(&Tunables::default());
        assert!((0..3).all(|seed| shared.request_local(pg(seed), 1)));
        assert!(!shared.request_local(pg(3), 1) && !shared.request_local(pg(4), 1));
        let more = Tunables { recovery_pgs_max: 4, ..Tunables::default() };
        assert_eq!(shared.set_bounds(&more), [pg(3)]);
        let fewer = Tunables { recovery_pgs_max: 1, recovery_objects_max: 2, ..Tunables::default() };
        assert_eq!(shared.set_bounds(&fewer), []);
        assert_eq!(shared.release_local(pg(0)), [], "three are still above one");
        let (throttle, now) = (&mut shared.throttle, Instant::from_millis(5000));
        throttle.object_started(now);
        throttle.object_finished(now);
        for _ in 0..2 {
            assert!(throttle.may_start_object(now, pg(1)));
            throttle.object_started(now);
        }
        assert!(!throttle.may_start_object(now, pg(1)));
    }

    #[test]
    fn scrubs_take_turns() {
        let mut shared = OsdShared::new(&Tunables::default());
        assert!(shared.may_scrub(pg(0)) && shared.may_scrub(pg(0)));
        assert!(!shared.may_scrub(pg(9)) && !shared.may_scrub(pg(1)) && !shared.may_scrub(pg(9)));
        assert_eq!(shared.scrub_ended(pg(0)), Some(pg(9)));
        assert!(shared.may_scrub(pg(9)) && !shared.may_scrub(pg(0)));
        assert_eq!(shared.scrub_ended(pg(1)), None, "it only waited");
        assert_eq!(shared.scrub_ended(pg(9)), Some(pg(0)));
        assert!(shared.may_scrub(pg(0)));
        assert_eq!(shared.scrub_ended(pg(0)), None);
    }
}
