//! Which operations have measured where their time goes, and what this client tells OSDs of them.
//!
//! A counter decides, so that busy clients measure one operation in many; the gaps vary, or a workload that repeats
//! itself would always show the same side. A client that does little measures one in a tenth of a second. Each stands
//! for those since the one before it.

use crate::ClientConfig;
use nacre_types::{Instant, OsdId, Rng};
use nacre_wire::stages::ClientTimes;
use std::collections::BTreeMap;
use std::time::Duration;

/// After so long without one, the next operation is measured.
const QUIET_MAX: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Measure {
    one_in: u32,
    rng: Rng,
    /// Operations since the last measured one, and how many there are to be.
    since: u32,
    gap: u64,
    due: Instant,
    /// What each OSD is to be told with the next operation there.
    times: BTreeMap<OsdId, ClientTimes>,
}

impl Measure {
    pub fn new(config: &ClientConfig) -> Measure {
        Measure {
            one_in: config.measure_one_in,
            rng: Rng::new(config.seed ^ 0x6d65_6173_7572_6500),
            since: 0,
            gap: 1,
            due: Instant::ZERO,
            times: BTreeMap::new(),
        }
    }

    /// An operation starts: for how many it stands if it is to be measured, else 0.
    pub fn pick(&mut self, now: Instant) -> u32 {
        if self.one_in == 0 {
            return 0;
        }
        self.since += 1;
        if u64::from(self.since) < self.gap && now < self.due {
            return 0;
        }
        let weight = std::mem::take(&mut self.since);
        self.gap = self.rng.range(1, 2 * u64::from(self.one_in));
        self.due = now + QUIET_MAX;
        weight
    }

    /// A measured operation is answered. Of two of which an OSD was not told yet it hears of the later.
    pub fn note(&mut self, osd: OsdId, times: ClientTimes) {
        self.times.insert(osd, times);
    }

    pub fn take(&mut self, osd: OsdId) -> Option<Box<ClientTimes>> {
        if self.times.is_empty() {
            return None;
        }
        self.times.remove(&osd).map(Box::new)
    }

    /// OSDs that are gone need not be told.
    pub fn retain(&mut self, is_there: impl Fn(OsdId) -> bool) {
        self.times.retain(|&osd, _| is_there(osd));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::{ClientId, EntityName};

    fn measure(one_in: u32) -> Measure {
        let config = ClientConfig::new(EntityName::Osd(OsdId(0)), ClientId(1), "f", Vec::new(), 7);
        Measure::new(&ClientConfig { measure_one_in: one_in, ..config })
    }

    #[test]
    fn a_busy_client_measures_one_in_so_many_and_they_stand_for_all() {
        let mut measure = measure(64);
        let weights: Vec<u32> = (0..64_000).map(|at| measure.pick(Instant(at))).collect();
        assert_eq!(weights[0], 1, "the first one is");
        let picked = weights.iter().filter(|weight| **weight > 0).count();
        assert!((900..1100).contains(&picked), "{picked} of 64,000");
        let sum: u32 = weights.iter().sum();
        assert!((64_000 - 127..=64_000).contains(&sum), "they stand for {sum}");
        let odd = weights.iter().skip(1).step_by(2).filter(|weight| **weight > 0).count();
        assert!(
            (picked / 3..picked * 2 / 3).contains(&odd),
            "both of two operations that take turns are seen"
        );
    }

    #[test]
    fn a_quiet_client_measures_all_it_does_and_one_that_shall_not_nothing() {
        let mut quiet = measure(64);
        assert!((1..100).all(|second| quiet.pick(Instant::from_millis(second * 1000)) == 1));
        let mut off = measure(0);
        assert!((1..100).all(|second| off.pick(Instant::from_millis(second * 1000)) == 0));
        let mut all = measure(1);
        assert!((0..100).all(|at| all.pick(Instant(at)) == 1));
    }
}
