//! Where each PG lies: its up set (what CRUSH, pins and the OSDs' state say) and its acting set (who serves it now).

use crate::{AFFINITY_ONE, Incremental, OsdMap};
use nacre_crush::{Scratch, hash2, pg_to_x};
use nacre_types::{OsdId, PgId, PoolId};
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

/// One PG's place. Both sets start with their primary.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PgPlacement {
    pub up: Vec<OsdId>,
    pub acting: Vec<OsdId>,
}

impl PgPlacement {
    pub fn up_primary(&self) -> Option<OsdId> {
        self.up.first().copied()
    }

    pub fn primary(&self) -> Option<OsdId> {
        self.acting.first().copied()
    }
}

type PoolTable = Arc<Vec<PgPlacement>>;

/// Placement of all PGs, computed pool by pool when first asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    pools: BTreeMap<PoolId, OnceLock<PoolTable>>,
}

impl Tables {
    pub(crate) fn empty(map: &OsdMap) -> Tables {
        Tables { pools: map.pools.keys().map(|&id| (id, OnceLock::new())).collect() }
    }

    /// The tables of `next`, taking over from `base` what the step between them cannot have touched.
    pub(crate) fn derived(base: &OsdMap, next: &OsdMap, step: &Incremental) -> Tables {
        let osds_same = step.osds.iter().all(|(id, new)| match (base.osds.get(id), new) {
            (Some(old), Some(new)) => old.same_placement(new),
            (old, new) => old.is_none() && new.as_ref().is_none_or(|new| !new.up && !new.is_in()),
        });
        let mut tables = Tables::empty(next);
        if !osds_same || step.crush.is_some() {
            return tables;
        }
        for (id, slot) in &mut tables.pools {
            let same_pool = match (base.pools.get(id), next.pools.get(id)) {
                (Some(old), Some(new)) => old.same_placement(new),
                _ => false,
            };
            let Some(table) = base.tables.pools.get(id).and_then(OnceLock::get).filter(|_| same_pool) else {
                continue;
            };
            let pinned = step.pg_upmap.keys().chain(step.pg_upmap_items.keys());
            let touched: Vec<PgId> =
                step.pg_temp.keys().chain(pinned).copied().filter(|pg| pg.pool == *id).collect();
            let mut table = table.clone();
            if !touched.is_empty() {
                let rows = Arc::make_mut(&mut table);
                let mut mapper = Mapper::new(next);
                for &pg in &touched {
                    if let Some(row) = rows.get_mut(pg.seed as usize) {
                        *row = mapper.place(pg);
                    }
                }
            }
            *slot = OnceLock::from(table);
        }
        tables
    }
}

impl OsdMap {
    /// Where a PG lies; `None` if there is no such PG.
    pub fn pg(&self, pg: PgId) -> Option<&PgPlacement> {
        let pool = self.pools.get(&pg.pool)?;
        let slot = self.tables.pools.get(&pg.pool)?;
        let table = slot.get_or_init(|| {
            let mut mapper = Mapper::new(self);
            Arc::new((0..pool.pg_num).map(|seed| mapper.place(PgId::new(pg.pool, seed))).collect())
        });
        table.get(pg.seed as usize)
    }
}

/// Maps PGs of one osdmap.
struct Mapper<'a> {
    map: &'a OsdMap,
    weights: Vec<u32>,
    scratch: Scratch,
    out: Vec<i32>,
}

impl Mapper<'_> {
    fn new(map: &OsdMap) -> Mapper<'_> {
        let count = map.osds.last_key_value().map_or(0, |(id, _)| id.0 as usize + 1);
        let mut weights = vec![0; count];
        for (id, osd) in &map.osds {
            weights[id.0 as usize] = osd.weight;
        }
        Mapper { map, weights, scratch: Scratch::new(), out: Vec::new() }
    }

    fn place(&mut self, pg: PgId) -> PgPlacement {
        let pinned = self.map.pg_upmap.get(&pg).filter(|pinned| pinned.iter().all(|&id| self.map.is_in(id)));
        let mut raw = match pinned {
            Some(pinned) => pinned.clone(),
            None => self.crush(pg),
        };
        if pinned.is_none() {
            for &(from, to) in self.map.pg_upmap_items.get(&pg).into_iter().flatten() {
                if self.map.is_in(to)
                    && !raw.contains(&to)
                    && let Some(at) = raw.iter().position(|&id| id == from)
                {
                    raw[at] = to;
                }
            }
        }
        let mut up: Vec<OsdId> = raw.into_iter().filter(|&id| self.map.is_up(id)).collect();
        self.prefer_primary(pg, &mut up);
        let temp = self
            .map
            .pg_temp
            .get(&pg)
            .map(|temp| temp.iter().copied().filter(|&id| self.map.is_up(id)).collect::<Vec<_>>());
        let acting = temp.filter(|temp| !temp.is_empty()).unwrap_or_else(|| up.clone());
        PgPlacement { up, acting }
    }

    fn crush(&mut self, pg: PgId) -> Vec<OsdId> {
        let Some(pool) = self.map.pools.get(&pg.pool) else { return Vec::new() };
        if !self.map.compiled.rule_exists(pool.rule) {
            return Vec::new();
        }
        let x = pg_to_x(pg.pool.0, pg.seed, pool.pgp_num);
        self.out.clear();
        self.map.compiled.map(
            pool.rule,
            x,
            pool.size as usize,
            &self.weights,
            &mut self.scratch,
            &mut self.out,
        );
        let known = |id: &OsdId| self.map.osds.contains_key(id);
        self.out.iter().filter_map(|&id| u32::try_from(id).ok()).map(OsdId).filter(known).collect()
    }

    /// Primary affinity as in Ceph: each OSD in turn declines with its own probability, drawn from the PG's hash.
    fn prefer_primary(&self, pg: PgId, up: &mut [OsdId]) {
        let affinity = |id: &OsdId| self.map.osds.get(id).map_or(AFFINITY_ONE, |osd| osd.primary_affinity);
        if up.iter().all(|id| affinity(id) >= AFFINITY_ONE) {
            return;
        }
        let mut chosen = None;
        for (at, id) in up.iter().enumerate() {
            let affinity = affinity(id);
            if affinity < AFFINITY_ONE && hash2(pg.seed, id.0) >> 16 >= affinity {
                chosen = chosen.or(Some(at));
            } else {
                chosen = Some(at);
                break;
            }
        }
        if let Some(at) = chosen {
            up[..=at].rotate_right(1);
        }
    }
}
