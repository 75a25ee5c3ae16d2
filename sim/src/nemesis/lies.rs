//! A device that reports flushes as done and makes nothing durable, and the power cut that shows it.
//!
//! **When it may.** Each acting member of a PG has all that was acknowledged, so one member answers for an interval (I2),
//! and leases lean on members that remember whom they promised what. A member that has forgotten does not know it: it
//! answers with an older log, or as if it had not been in the interval. If nobody else of the interval is heard, that is
//! taken for all there was (`tests/scenarios/f38-older-image-is-believed.open`). So the power goes only while all PGs are
//! clean, nothing else is broken and everybody is heard, and nothing else breaks before all is clean again: the other
//! members are heard then, and what they tell is newer. Any other power cut leaves a lying device its cache. A store that
//! refuses to open is lost, and another disk takes its place.

use super::Nemesis;
use crate::cluster::SimCluster;
use nacre_store::testing::Loss;
use nacre_types::Instant;
use std::time::Duration;

/// So long a moment is waited for in which the power may go.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Lie {
    at: usize,
    stage: Stage,
    /// What the power cut at its end leaves, if there is one.
    cut: Option<(Loss, Duration)>,
}

enum Stage {
    /// Flushes are lies until then.
    Lying(Instant),
    /// The power is gone until then.
    Down(Instant),
    /// It has started again, or another disk takes its place.
    Back,
}

impl Nemesis {
    pub(super) fn lie(&mut self, cluster: &mut SimCluster, outage: Duration) {
        let now = cluster.world.now;
        if self.lie.is_some() {
            return;
        }
        let Some(at) = self.spoilt_osd(cluster).filter(|&at| cluster.osd_is_up(at)) else { return };
        let index_too = self.rng.chance(2, 3);
        let loss = match self.rng.below(3) {
            0 => Loss::All,
            1 => Loss::After(self.rng.below(1000)),
            _ => Loss::Any,
        };
        let down = Duration::from_millis(*self.rng.pick(&[200, 1500, 8000]).expect("not empty"));
        let cut = self.rng.chance(3, 4).then_some((loss, down));
        cluster.with_disk(at, |disk, kv| {
            disk.lie(true);
            kv.lie(index_too);
        });
        cluster.world.mark("fault: lying flushes");
        cluster.world.trace.note(now, format_args!("flushes of osd.{at} lie, then {cut:?}"));
        self.lie = Some(Lie { at, stage: Stage::Lying(now + outage), cut });
    }

    /// Whether nothing else may break for now.
    pub(super) fn is_held(&self, now: Instant) -> bool {
        self.lie.as_ref().is_some_and(|lie| match lie.stage {
            Stage::Lying(until) => lie.cut.is_some() && now >= until,
            Stage::Down(_) | Stage::Back => true,
        })
    }

    pub(super) fn tend_lie(&mut self, cluster: &mut SimCluster) {
        let now = cluster.world.now;
        let Some(Lie { at, stage, cut }) = &self.lie else { return };
        let at = *at;
        match (stage, *cut) {
            (&Stage::Lying(until), None) if now >= until => self.end_lie(cluster),
            (&Stage::Lying(until), Some((loss, down))) if now >= until => {
                if self.is_calm(cluster) && cluster.osd_is_up(at) {
                    cluster.world.mark("fault: power after lying flushes");
                    cluster
                        .world
                        .trace
                        .note(now, format_args!("osd.{at} loses power, and its device {loss:?}"));
                    cluster.lose_osd(at, loss);
                    self.lie = Some(Lie { at, stage: Stage::Down(now + down), cut: None });
                } else if now >= until + PATIENCE {
                    self.end_lie(cluster);
                }
            }
            (&Stage::Down(until), _) if now >= until => {
                cluster.start_osd(at);
                self.replace_refused(cluster);
                self.lie = Some(Lie { at, stage: Stage::Back, cut: None });
            }
            (Stage::Back, _) if self.replacing.is_none() && cluster.is_clean() => self.lie = None,
            _ => {}
        }
    }

    /// Flushes are true again, and what was said to be durable is.
    pub(super) fn end_lie(&mut self, cluster: &mut SimCluster) {
        let Some(Lie { at, .. }) = self.lie.take() else { return };
        cluster.with_disk(at, |disk, kv| {
            disk.lie(false);
            kv.lie(false);
        });
        cluster.world.trace.note(cluster.world.now, format_args!("flushes of osd.{at} are true again"));
    }

    /// What does not open any more is lost, and another disk is put in under a new number.
    pub(super) fn replace_refused(&mut self, cluster: &mut SimCluster) {
        for at in std::mem::take(&mut cluster.refused) {
            self.replace(cluster, at, false);
        }
    }

    /// Whether all copies are whole, and everybody hears everybody.
    fn is_calm(&self, cluster: &mut SimCluster) -> bool {
        let now = cluster.world.now;
        let awake = cluster.world.nodes.values().all(|slot| slot.paused_until <= now);
        awake && self.ends.is_empty() && self.replacing.is_none() && cluster.is_clean()
    }

    /// An OSD dies. Where a device lies, the machine keeps its power: only [`Nemesis::tend_lie`] may take that.
    pub(super) fn crash(&mut self, cluster: &mut SimCluster, at: usize, power: bool) {
        let lying = self.lie.as_ref().is_some_and(|lie| lie.at == at);
        cluster.crash_osd(at, power && !lying);
    }
}
