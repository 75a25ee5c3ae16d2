//! Where each PG lies: its up set (what CRUSH, pins and the OSDs' state say) and its acting set (who serves it now).

use crate::{AFFINITY_ONE, Incremental, OsdInfo, OsdMap, Pool};
use nacre_crush::{Scratch, hash2, pg_to_x};
use nacre_types::{OsdId, PgId, PoolId};
use std::collections::{BTreeMap, BTreeSet};
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

/// A PG's place, and the OSDs that CRUSH asked on the way to it: those it chose and those that turned it away.
#[derive(Clone, Debug)]
struct Row {
    place: PgPlacement,
    asked: Vec<OsdId>,
}

/// Rows that are copied together when one of them changes.
const CHUNK: usize = 32;

#[derive(Clone, Debug)]
struct Chunk {
    rows: Vec<Row>,
    /// All OSDs that any of the rows asked, in order.
    asked: Vec<OsdId>,
}

/// The placement of a pool's PGs. Epochs share the chunks in which nothing differs.
#[derive(Clone, Debug)]
struct PoolTable {
    chunks: Vec<Arc<Chunk>>,
}

impl Chunk {
    fn new(rows: Vec<Row>) -> Chunk {
        let mut chunk = Chunk { rows, asked: Vec::new() };
        chunk.note_asked();
        chunk
    }

    fn note_asked(&mut self) {
        self.asked.clear();
        self.asked.extend(self.rows.iter().flat_map(|row| &row.asked));
        self.asked.sort();
        self.asked.dedup();
    }
}

impl PoolTable {
    fn new(map: &OsdMap, id: PoolId, pool: &Pool) -> PoolTable {
        let mut mapper = Mapper::new(map);
        let mut rows = (0..pool.pg_num).map(|seed| mapper.place(PgId::new(id, seed)));
        let chunks = std::iter::from_fn(|| {
            let chunk: Vec<Row> = rows.by_ref().take(CHUNK).collect();
            (!chunk.is_empty()).then(|| Arc::new(Chunk::new(chunk)))
        });
        PoolTable { chunks: chunks.collect() }
    }

    fn get(&self, seed: u32) -> Option<&Row> {
        self.chunks.get(seed as usize / CHUNK)?.rows.get(seed as usize % CHUNK)
    }

    /// Computes these rows anew.
    fn replace(&mut self, seeds: &BTreeSet<u32>, mut place: impl FnMut(u32) -> Row) {
        for seeds in
            seeds.iter().copied().collect::<Vec<_>>().chunk_by(|a, b| a / CHUNK as u32 == b / CHUNK as u32)
        {
            let Some(chunk) = self.chunks.get_mut(seeds[0] as usize / CHUNK) else { continue };
            let chunk = Arc::make_mut(chunk);
            for &seed in seeds {
                if let Some(row) = chunk.rows.get_mut(seed as usize % CHUNK) {
                    *row = place(seed);
                }
            }
            chunk.note_asked();
        }
    }
}

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
        let mut tables = Tables::empty(next);
        if step.crush.is_some() {
            return tables;
        }
        let changed = changed_osds(base, step);
        let mut mapper = None;
        for (&id, slot) in &mut tables.pools {
            let same_pool = match (base.pools.get(&id), next.pools.get(&id)) {
                (Some(old), Some(new)) => old.same_placement(new),
                _ => false,
            };
            let Some(table) = base.tables.pools.get(&id).and_then(OnceLock::get).filter(|_| same_pool) else {
                continue;
            };
            let mut touched = table.touched_by(&changed);
            touched
                .extend(exceptions(base, next, step, &changed).filter(|pg| pg.pool == id).map(|pg| pg.seed));
            let mut table = table.clone();
            table.replace(&touched, |seed| {
                mapper.get_or_insert_with(|| Mapper::new(next)).place(PgId::new(id, seed))
            });
            *slot = OnceLock::from(table);
        }
        tables
    }
}

/// The OSDs that placement may treat differently after the step.
fn changed_osds(base: &OsdMap, step: &Incremental) -> BTreeSet<OsdId> {
    let differs = |(id, new): &(&OsdId, &Option<OsdInfo>)| match (base.osd(**id), new) {
        (Some(old), Some(new)) => !old.same_placement(new),
        (old, new) => old.is_some() || new.is_some(),
    };
    step.osds.iter().filter(differs).map(|(&id, _)| id).collect()
}

impl PoolTable {
    fn touched_by(&self, changed: &BTreeSet<OsdId>) -> BTreeSet<u32> {
        let holds = |chunk: &Chunk| changed.iter().any(|osd| chunk.asked.binary_search(osd).is_ok());
        let chunks = self.chunks.iter().enumerate().filter(|(_, chunk)| holds(chunk));
        let rows = chunks.flat_map(|(at, chunk)| (at as u32 * CHUNK as u32..).zip(&chunk.rows));
        rows.filter(|(_, row)| row.asked.iter().any(|osd| changed.contains(osd)))
            .map(|(seed, _)| seed)
            .collect()
    }
}

/// PGs that lie elsewhere than CRUSH says, or are to from now on, as far as the step or what became of an OSD matters.
fn exceptions<'a>(
    base: &'a OsdMap,
    next: &'a OsdMap,
    step: &'a Incremental,
    changed: &'a BTreeSet<OsdId>,
) -> impl Iterator<Item = PgId> + 'a {
    let named = step.pg_temp.keys().chain(step.pg_upmap.keys()).chain(step.pg_upmap_items.keys());
    let maps = [base, next].into_iter().filter(|_| !changed.is_empty());
    let mentioned = maps.flat_map(|map| {
        let lists = map.pg_temp.iter().chain(&map.pg_upmap);
        let lists = lists.filter(|(_, osds)| osds.iter().any(|osd| changed.contains(osd)));
        let pairs = map.pg_upmap_items.iter();
        let pairs = pairs.filter(|(_, pairs)| {
            pairs.iter().any(|(from, to)| changed.contains(from) || changed.contains(to))
        });
        lists.map(|(pg, _)| pg).chain(pairs.map(|(pg, _)| pg))
    });
    named.chain(mentioned).copied()
}

impl OsdMap {
    /// Where a PG lies; `None` if there is no such PG.
    pub fn pg(&self, pg: PgId) -> Option<&PgPlacement> {
        let pool = self.pools.get(&pg.pool)?;
        let slot = self.tables.pools.get(&pg.pool)?;
        let table = slot.get_or_init(|| PoolTable::new(self, pg.pool, pool));
        table.get(pg.seed).map(|row| &row.place)
    }

    /// The OSDs that would have a say in where a PG lies if all were up: those in its place, and some that are not.
    pub fn pg_candidates(&self, pg: PgId) -> BTreeSet<OsdId> {
        let table = self.pg(pg).and_then(|_| self.tables.pools.get(&pg.pool)?.get());
        let asked = table.and_then(|table| table.get(pg.seed)).into_iter().flat_map(|row| &row.asked);
        let pinned = self.pg_upmap.get(&pg).into_iter().flatten();
        let moved = self.pg_upmap_items.get(&pg).into_iter().flatten().map(|(_, to)| to);
        asked.chain(pinned).chain(moved).copied().filter(|&osd| self.is_in(osd)).collect()
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

    fn place(&mut self, pg: PgId) -> Row {
        let pinned = self.map.pg_upmap.get(&pg).filter(|pinned| pinned.iter().all(|&id| self.map.is_in(id)));
        let mut raw = match pinned {
            Some(pinned) => pinned.clone(),
            None => self.crush(pg),
        };
        let mut asked = Vec::new();
        if pinned.is_none() {
            asked.extend(self.scratch.asked().iter().filter_map(|&id| u32::try_from(id).ok()).map(OsdId));
            asked.sort();
            asked.dedup();
        }
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
        Row { place: PgPlacement { up, acting }, asked }
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
