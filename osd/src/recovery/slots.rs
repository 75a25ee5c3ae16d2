//! What the PGs of one OSD share: slots for recovery and backfill, here and for other primaries, and the throttle that
//! keeps recovery out of clients' way.
//!
//! A PG recovers in the background only while it holds a slot at its primary and one at every member it fills. Slots
//! granted to other primaries expire unless renewed, so that a lost release costs time, not a slot.

use crate::Tunables;
use crate::space::Fullness;
use nacre_types::{Epoch, Instant, OsdId, PgId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How long a remote slot is kept without a renewal.
const REMOTE_SLOT_LIFE: Duration = Duration::from_secs(30);
/// Objects on their way at once over all PGs when clients suffer.
const OBJECTS_MIN: usize = 1;
/// How often the throttle moves by one, and of how many operations it has to know by then.
const ADJUST_INTERVAL: Duration = Duration::from_millis(100);
const ADJUST_OPERATIONS: u32 = 16;
/// Without operations for so long clients are idle.
const CLIENTS_IDLE: Duration = Duration::from_secs(1);
/// What an operation takes counts for so many of its bytes.
const UNIT_BYTES: u64 = 64 << 10;
/// What operations usually take, until that is known.
const USUAL_START: Duration = Duration::from_millis(4);
/// So many of a hundred operations usually take longer than what is called usual.
const USUAL_SLOWER_PERCENT: u32 = 2;
/// Operations that take so many times as long as usual are slow; of a hundred so many may be.
const SLOW_TIMES: u32 = 2;
const SLOW_PERCENT_MAX: u32 = 2;

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
    objects: usize,
    /// PGs that would start another object if they might.
    starved: BTreeSet<PgId>,
    throttle: Throttle,
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

#[derive(Debug)]
struct Throttle {
    limit: usize,
    /// When clients are idle.
    limit_max: usize,
    adjusted: Instant,
    last_client_op: Instant,
    /// What all but a few operations took when nothing was being recovered.
    usual: Duration,
    /// Operations since the last adjustment, and how many of them were slow.
    operations: u32,
    slow: u32,
}

impl OsdShared {
    pub fn new(tunables: &Tunables) -> OsdShared {
        let limit_max = tunables.recovery_objects_max;
        OsdShared {
            pgs_max: tunables.recovery_pgs_max,
            local: BTreeSet::new(),
            local_waiting: BTreeSet::new(),
            arrivals: 0,
            remote: BTreeMap::new(),
            remote_waiting: Vec::new(),
            objects: 0,
            starved: BTreeSet::new(),
            throttle: Throttle {
                limit: OBJECTS_MIN,
                limit_max,
                adjusted: Instant::ZERO,
                last_client_op: Instant::ZERO,
                usual: USUAL_START,
                operations: 0,
                slow: 0,
            },
            scrubbing: None,
            scrub_waiting: VecDeque::new(),
            fullness: Fullness::default(),
        }
    }

    /// Other bounds from now on. What is above them runs to its end. Returns the PGs that got a slot by that.
    #[must_use]
    pub fn set_bounds(&mut self, tunables: &Tunables) -> Vec<PgId> {
        self.pgs_max = tunables.recovery_pgs_max;
        self.throttle.limit_max = tunables.recovery_objects_max;
        self.throttle.limit = self.throttle.limit.min(self.throttle.limit_max);
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
        self.starved.remove(&pg);
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

    /// Whether one more object may be on its way. If not, the PG gets a turn once that changes.
    pub fn may_start_object(&mut self, pg: PgId) -> bool {
        let may = self.objects < self.throttle.limit;
        if may {
            self.starved.remove(&pg);
        } else {
            self.starved.insert(pg);
        }
        may
    }

    pub fn object_started(&mut self) {
        self.objects += 1;
    }

    /// Returns the PGs that wait for their turn.
    #[must_use]
    pub fn object_finished(&mut self, now: Instant) -> BTreeSet<PgId> {
        assert!(self.objects > 0, "every object that finishes was started");
        self.objects -= 1;
        if now.since(self.throttle.last_client_op) > CLIENTS_IDLE {
            self.throttle.limit = self.throttle.limit_max;
        }
        std::mem::take(&mut self.starved)
    }

    /// A client's operation took this long from arrival to answer: recovery yields if that is more than usual. What an
    /// operation of many bytes takes counts for each [`UNIT_BYTES`].
    pub fn client_op_took(&mut self, now: Instant, took: Duration, bytes: u64) {
        let units = 1 + bytes / UNIT_BYTES;
        let took = took / u32::try_from(units).unwrap_or(u32::MAX);
        let recovers = self.objects > 0 || self.remote.values().any(|expires| *expires > now);
        let throttle = &mut self.throttle;
        let were_idle = now.since(std::mem::replace(&mut throttle.last_client_op, now)) > CLIENTS_IDLE;
        if !recovers {
            throttle.learn(took);
        }
        // It begins carefully: the other way round clients suffer until that is noticed.
        if !recovers || were_idle {
            return throttle.restart(now);
        }
        throttle.operations += 1;
        throttle.slow += u32::from(took > throttle.usual * SLOW_TIMES);
        throttle.adjust(now);
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

    /// Whether the throttle keeps the PG from starting another object.
    pub fn is_throttled(&self, pg: PgId) -> bool {
        self.starved.contains(&pg)
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

impl Throttle {
    /// Moves what is usual by a little: up or down so that in the end the wanted share is slower.
    fn learn(&mut self, took: Duration) {
        let step = self.usual / 2000;
        self.usual = match took > self.usual {
            true => (self.usual + step * (100 - USUAL_SLOWER_PERCENT)).min(took),
            false => (self.usual - step * USUAL_SLOWER_PERCENT).max(took),
        };
    }

    fn restart(&mut self, now: Instant) {
        self.limit = OBJECTS_MIN;
        self.adjusted = now;
        (self.operations, self.slow) = (0, 0);
    }

    fn adjust(&mut self, now: Instant) {
        let since = now.since(self.adjusted);
        if since < ADJUST_INTERVAL || self.operations < ADJUST_OPERATIONS && since < CLIENTS_IDLE {
            return;
        }
        let suffers = self.slow * 100 > self.operations * SLOW_PERCENT_MAX;
        self.limit = match suffers {
            true => (self.limit / 2).max(OBJECTS_MIN),
            false => (self.limit + 1).min(self.limit_max),
        };
        self.adjusted = now;
        (self.operations, self.slow) = (0, 0);
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
        shared.object_started();
        let _ = shared.object_finished(Instant::from_millis(5000));
        assert_eq!(shared.release_local(pg(0)), [], "three are still above one");
        for _ in 0..2 {
            assert!(shared.may_start_object(pg(1)));
            shared.object_started();
        }
        assert!(!shared.may_start_object(pg(1)));
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

    #[test]
    fn suffering_clients_slow_recovery_down_and_idle_ones_let_it_go() {
        let mut shared = OsdShared::new(&Tunables::default());
        let mut now = Instant::from_millis(1000);
        let most = Tunables::default().recovery_objects_max;
        let room = |shared: &mut OsdShared| {
            let mut started = 0;
            while shared.may_start_object(pg(0)) {
                shared.object_started();
                started += 1;
            }
            shared.objects -= started;
            started
        };
        // One in twenty usually takes 9 ms, the others 3.
        let mut operations = |shared: &mut OsdShared, count: u64, slow_ms: u64| {
            for n in 0..count {
                now = now + Duration::from_micros(500);
                let took = if n % 20 == 0 { 9 } else { 3 };
                let took = if n % 5 == 0 { slow_ms.max(took) } else { took };
                shared.client_op_took(now, Duration::from_millis(took), 4096);
            }
            now
        };
        operations(&mut shared, 20_000, 0);
        let usual = shared.throttle.usual;
        assert!((2..9).contains(&usual.as_millis()), "{usual:?}");
        assert_eq!(room(&mut shared), OBJECTS_MIN);
        shared.object_started();
        operations(&mut shared, 5000, 0);
        assert_eq!(room(&mut shared), most - 1, "nobody suffers");
        operations(&mut shared, 2000, 30);
        assert_eq!(room(&mut shared), OBJECTS_MIN - 1);
        let now = operations(&mut shared, 5000, 0);
        assert_eq!(room(&mut shared), most - 1);
        assert_eq!(shared.throttle.usual, usual, "what happens meanwhile is not usual");
        operations(&mut shared, 2000, 30);
        let _ = shared.object_finished(now + Duration::from_secs(60));
        assert_eq!(room(&mut shared), most, "they are idle");
    }
}
