//! What OSDs reported to this leader: space, PGs, complaints. Bounded by the osdmap: what it does not know is dropped.

use super::failure::Reports;
use crate::service::Service;
use nacre_maps::OsdMap;
use nacre_types::{Instant, OsdId, PgId, PoolId};
use nacre_wire::messages::{OsdStats, PgStat};
use std::collections::BTreeMap;
use std::time::Duration;

/// A PG whose primary has said nothing for that long is `stale`.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(60);
/// PGs in one report; more do not exist on an OSD.
const REPORT_PGS_MAX: usize = 70_000;
const TEXT_BYTES_MAX: usize = 500;

#[derive(Clone, Debug)]
pub(crate) struct PgReport {
    pub stat: PgStat,
    pub from: OsdId,
    pub at: Instant,
}

/// An OSD wants to be marked up.
#[derive(Clone, Debug)]
pub(crate) struct BootAsked {
    pub at: Instant,
    pub address: String,
    /// Why it is not done.
    pub refused: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct OsdReport {
    /// Without the PGs.
    pub stats: OsdStats,
    pub at: Instant,
}

pub(crate) struct Memory {
    /// When this leadership began.
    pub since: Instant,
    pub osds: BTreeMap<OsdId, OsdReport>,
    pub pgs: BTreeMap<PgId, PgReport>,
    pub reports: Reports,
    /// OSDs that asked to be marked up and are not.
    pub boots: BTreeMap<OsdId, BootAsked>,
    /// When this leader saw each down OSD down first.
    pub down_since: BTreeMap<OsdId, Instant>,
    /// When it saw each up OSD up first.
    pub up_since: BTreeMap<OsdId, Instant>,
}

#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub(crate) struct PoolUse {
    pub objects: u64,
    pub bytes: u64,
    pub degraded: u64,
    pub misplaced: u64,
    pub unfound: u64,
}

impl Memory {
    pub fn new(now: Instant) -> Memory {
        Memory {
            since: now,
            osds: BTreeMap::new(),
            pgs: BTreeMap::new(),
            reports: Reports::default(),
            boots: BTreeMap::new(),
            down_since: BTreeMap::new(),
            up_since: BTreeMap::new(),
        }
    }

    pub fn stats(&mut self, now: Instant, map: &OsdMap, mut stats: OsdStats) {
        let osd = OsdId(stats.osd);
        if !map.osd(osd).is_some_and(|info| info.up && info.instance == stats.instance) {
            return;
        }
        for mut stat in std::mem::take(&mut stats.pgs).into_iter().take(REPORT_PGS_MAX) {
            let pg = PgId::from_u64(stat.pg);
            let primary = map.pg(pg).and_then(|place| place.primary());
            let newer = self.pgs.get(&pg).is_none_or(|old| {
                (old.stat.reported_epoch, old.stat.reported_seq) <= (stat.reported_epoch, stat.reported_seq)
                    || old.from != osd
            });
            if primary != Some(osd) || !newer {
                continue;
            }
            truncate(&mut stat.state);
            truncate(&mut stat.waiting_for);
            self.pgs.insert(pg, PgReport { stat, from: osd, at: now });
        }
        self.osds.insert(osd, OsdReport { stats, at: now });
    }

    /// Forgets what is gone from the map, and notes who went down or came up.
    pub fn follow(&mut self, now: Instant, state: &Service) {
        let map = &state.osdmap;
        self.pgs.retain(|&pg, _| map.pg_exists(pg));
        self.osds.retain(|&osd, _| map.is_up(osd));
        self.reports.retain(map);
        self.boots.retain(|&osd, boot| !map.is_up(osd) && now.since(boot.at) < STALE_AFTER);
        self.down_since.retain(|&osd, _| map.osd(osd).is_some_and(|info| !info.up));
        self.up_since.retain(|&osd, _| map.is_up(osd));
        for (osd, info) in map.osds() {
            let since = if info.up { &mut self.up_since } else { &mut self.down_since };
            since.entry(osd).or_insert(now);
        }
    }

    /// Ceph's words for a PG's state as far as this leader knows.
    pub fn pg_state(&self, now: Instant, map: &OsdMap, pg: PgId) -> String {
        let Some(report) = self.pgs.get(&pg) else { return "unknown".into() };
        let primary = map.pg(pg).and_then(|place| place.primary());
        let stale = primary != Some(report.from) || now.since(report.at) > STALE_AFTER;
        if stale && primary.is_none() {
            return format!("stale+{}", report.stat.state);
        }
        // A new primary has not reported yet: what the old one said holds no more than that.
        if stale && now.since(report.at) > Duration::from_secs(10) {
            return format!("stale+{}", report.stat.state);
        }
        report.stat.state.clone()
    }

    pub fn pool_use(&self) -> BTreeMap<PoolId, PoolUse> {
        let mut pools: BTreeMap<PoolId, PoolUse> = BTreeMap::new();
        for (pg, report) in &self.pgs {
            let (pool, stat) = (pools.entry(pg.pool).or_default(), &report.stat);
            pool.objects = pool.objects.saturating_add(stat.objects);
            pool.bytes = pool.bytes.saturating_add(stat.bytes);
            pool.degraded = pool.degraded.saturating_add(stat.degraded);
            pool.misplaced = pool.misplaced.saturating_add(stat.misplaced);
            pool.unfound = pool.unfound.saturating_add(stat.unfound);
        }
        pools
    }

    /// Used and total bytes of all OSDs.
    pub fn space(&self) -> (u64, u64) {
        self.osds.values().fold((0, 0), |(used, total), report| {
            (used.saturating_add(report.stats.used_bytes), total.saturating_add(report.stats.total_bytes))
        })
    }
}

fn truncate(text: &mut String) {
    if text.len() > TEXT_BYTES_MAX {
        let cut = (0..=TEXT_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(cut.unwrap_or(0));
    }
}
