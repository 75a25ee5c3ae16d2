//! How much recovery and backfill this OSD does at once, so that clients hardly notice it.
//!
//! Operations that take longer than usual say that clients suffer. Then fewer objects are on their way at once, and once
//! it is a single one, pauses between objects grow, in proportion to what the object took. Where nobody suffers it goes
//! the other way; where nobody asks for anything all of the machine is recovery's.

use nacre_types::{Instant, PgId};
use std::collections::BTreeSet;
use std::time::Duration;

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
/// Pauses, in percent of what the object before took: shorter ones are none; the longest still leave recovery a fifth
/// of the time; and what it begins with beside clients.
const PAUSE_PERCENT_MIN: u32 = 25;
const PAUSE_PERCENT_MAX: u32 = 400;
const PAUSE_PERCENT_START: u32 = 100;
/// However long the object took.
const PAUSE_MAX: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct Throttle {
    /// Objects on their way.
    objects: usize,
    limit: usize,
    /// When clients are idle.
    limit_max: usize,
    /// PGs that would start another object if they might.
    starved: BTreeSet<PgId>,
    /// Since when there have been objects on their way, if there are.
    busy_since: Instant,
    pause_percent: u32,
    /// Until when nothing starts.
    pause_until: Instant,
    adjusted: Instant,
    last_client_op: Instant,
    /// What all but a few operations took when nothing was being recovered.
    usual: Duration,
    /// Operations since the last adjustment, and how many of them were slow.
    operations: u32,
    slow: u32,
}

impl Throttle {
    pub fn new(limit_max: usize) -> Throttle {
        Throttle {
            objects: 0,
            limit: OBJECTS_MIN,
            limit_max,
            starved: BTreeSet::new(),
            busy_since: Instant::ZERO,
            pause_percent: 0,
            pause_until: Instant::ZERO,
            adjusted: Instant::ZERO,
            last_client_op: Instant::ZERO,
            usual: USUAL_START,
            operations: 0,
            slow: 0,
        }
    }

    /// Another bound from now on. What is above it runs to its end.
    pub fn set_limit(&mut self, limit_max: usize) {
        self.limit_max = limit_max;
        self.limit = self.limit.min(limit_max);
    }

    /// Whether one more object may be on its way. If not, the PG gets a turn once that changes.
    pub fn may_start_object(&mut self, now: Instant, pg: PgId) -> bool {
        let may = self.objects < self.limit && now >= self.pause_until;
        if may {
            self.starved.remove(&pg);
        } else {
            self.starved.insert(pg);
        }
        may
    }

    pub fn object_started(&mut self, now: Instant) {
        if self.objects == 0 {
            self.busy_since = now;
        }
        self.objects += 1;
    }

    pub fn object_finished(&mut self, now: Instant) {
        assert!(self.objects > 0, "every object that finishes was started");
        self.objects -= 1;
        if now.since(self.last_client_op) > CLIENTS_IDLE {
            self.limit = self.limit_max;
            self.pause_percent = 0;
        }
        if self.objects == 0 {
            let took = now.since(self.busy_since);
            self.pause_until = now + (took * self.pause_percent / 100).min(PAUSE_MAX);
        }
    }

    /// When [`Throttle::turns`] has something to say.
    pub fn next_turn(&self) -> Option<Instant> {
        (self.objects < self.limit && !self.starved.is_empty()).then_some(self.pause_until)
    }

    /// The PGs whose turn it is now.
    #[must_use]
    pub fn turns(&mut self, now: Instant) -> BTreeSet<PgId> {
        match self.next_turn().is_some_and(|at| at <= now) {
            true => std::mem::take(&mut self.starved),
            false => BTreeSet::new(),
        }
    }

    /// The PG has nothing to start any more.
    pub fn forget(&mut self, pg: PgId) {
        self.starved.remove(&pg);
    }

    /// Whether it keeps the PG from starting another object.
    pub fn holds(&self, pg: PgId) -> bool {
        self.starved.contains(&pg)
    }

    /// A client's operation took this long from arrival to answer. What an operation of many bytes takes counts for each
    /// [`UNIT_BYTES`]. `is_filled`: other primaries recover to this OSD.
    pub fn client_op_took(&mut self, now: Instant, took: Duration, bytes: u64, is_filled: bool) {
        let units = 1 + bytes / UNIT_BYTES;
        let took = took / u32::try_from(units).unwrap_or(u32::MAX);
        let recovers = is_filled || self.objects > 0 || !self.starved.is_empty();
        let were_idle = now.since(std::mem::replace(&mut self.last_client_op, now)) > CLIENTS_IDLE;
        if !recovers {
            self.learn(took);
        }
        // It begins carefully: the other way round clients suffer until that is noticed.
        if !recovers || were_idle {
            return self.restart(now);
        }
        self.operations += 1;
        self.slow += u32::from(took > self.usual * SLOW_TIMES);
        self.adjust(now);
    }

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
        self.pause_percent = PAUSE_PERCENT_START;
        self.adjusted = now;
        (self.operations, self.slow) = (0, 0);
    }

    fn adjust(&mut self, now: Instant) {
        let since = now.since(self.adjusted);
        if since < ADJUST_INTERVAL || self.operations < ADJUST_OPERATIONS && since < CLIENTS_IDLE {
            return;
        }
        let suffers = self.slow * 100 > self.operations * SLOW_PERCENT_MAX;
        let pause = self.pause_percent;
        match suffers {
            true if self.limit > OBJECTS_MIN => self.limit = (self.limit / 2).max(OBJECTS_MIN),
            true => self.pause_percent = (pause * 3 / 2).clamp(PAUSE_PERCENT_MIN, PAUSE_PERCENT_MAX),
            false if pause > PAUSE_PERCENT_MIN => self.pause_percent = pause - pause / 6,
            false if pause > 0 => self.pause_percent = 0,
            false => self.limit = (self.limit + 1).min(self.limit_max),
        }
        self.adjusted = now;
        (self.operations, self.slow) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::PoolId;

    const MOST: usize = 16;

    fn pg(seed: u32) -> PgId {
        PgId::new(PoolId(1), seed)
    }

    /// Clients of which one operation in twenty usually takes 9 ms, the others 3.
    struct Clients {
        throttle: Throttle,
        now: Instant,
    }

    impl Clients {
        fn new() -> Clients {
            let mut clients = Clients { throttle: Throttle::new(MOST), now: Instant::from_millis(1000) };
            clients.work(20_000, 0);
            clients
        }

        /// One operation each half millisecond, each fifth of which takes at least `slow_ms`.
        fn work(&mut self, count: u64, slow_ms: u64) {
            for n in 0..count {
                self.now = self.now + Duration::from_micros(500);
                let took = if n % 20 == 0 { 9 } else { 3 };
                let took = if n % 5 == 0 { slow_ms.max(took) } else { took };
                self.throttle.client_op_took(self.now, Duration::from_millis(took), 4096, false);
            }
        }

        /// How many objects may start now.
        fn room(&mut self) -> usize {
            let mut started = 0;
            while self.throttle.may_start_object(self.now, pg(0)) {
                self.throttle.object_started(self.now);
                started += 1;
            }
            self.throttle.objects -= started;
            started
        }

        /// One object that takes 10 ms, then the time until the next one may start.
        fn pause(&mut self) -> Duration {
            self.throttle.object_started(self.now);
            self.now = self.now + Duration::from_millis(10);
            self.throttle.object_finished(self.now);
            match self.throttle.may_start_object(self.now, pg(3)) {
                true => Duration::ZERO,
                false => self.throttle.next_turn().expect("somebody waits").since(self.now),
            }
        }
    }

    #[test]
    fn suffering_clients_slow_recovery_down_and_idle_ones_let_it_go() {
        let mut clients = Clients::new();
        let usual = clients.throttle.usual;
        assert!((2..9).contains(&usual.as_millis()), "{usual:?}");
        assert_eq!(clients.room(), OBJECTS_MIN);
        clients.throttle.object_started(clients.now);
        clients.work(10_000, 0);
        assert_eq!(clients.room(), MOST - 1, "nobody suffers");
        clients.work(2000, 30);
        assert_eq!(clients.room(), OBJECTS_MIN - 1);
        clients.work(10_000, 0);
        assert_eq!(clients.room(), MOST - 1);
        assert_eq!(clients.throttle.usual, usual, "what happens meanwhile is not usual");
        clients.work(2000, 30);
        clients.now = clients.now + Duration::from_secs(60);
        clients.throttle.object_finished(clients.now);
        assert_eq!(clients.room(), MOST, "they are idle");
    }

    #[test]
    fn pauses_grow_while_clients_suffer_and_go_when_they_do_not() {
        let mut clients = Clients::new();
        assert_eq!(clients.pause(), Duration::from_millis(10), "it begins carefully");
        clients.work(2000, 30);
        assert_eq!(clients.pause(), Duration::from_millis(40), "a fifth of the time");
        assert!(clients.throttle.holds(pg(3)));
        assert!(clients.throttle.turns(clients.now).is_empty());
        clients.now = clients.throttle.next_turn().unwrap();
        assert_eq!(clients.throttle.turns(clients.now), [pg(3)].into());
        assert_eq!(clients.throttle.next_turn(), None, "it was told");
        assert!(clients.throttle.may_start_object(clients.now, pg(3)));
        clients.throttle.object_started(clients.now);
        clients.work(8000, 0);
        clients.throttle.object_finished(clients.now);
        assert_eq!(clients.pause(), Duration::ZERO);
        // A long one.
        clients.throttle.object_started(clients.now);
        clients.work(20_000, 30);
        clients.throttle.object_finished(clients.now);
        clients.now = clients.now + PAUSE_MAX;
        assert_eq!(clients.room(), OBJECTS_MIN);
    }

    #[test]
    fn whoever_waits_is_told_when_there_is_more_room() {
        let mut clients = Clients::new();
        clients.throttle.object_started(clients.now);
        assert!(!clients.throttle.may_start_object(clients.now, pg(1)));
        assert_eq!(clients.throttle.next_turn(), None);
        clients.work(10_000, 0);
        assert_eq!(clients.throttle.turns(clients.now), [pg(1)].into());
        assert!(!clients.throttle.holds(pg(1)));
        assert!(clients.throttle.may_start_object(clients.now, pg(1)));
    }
}
