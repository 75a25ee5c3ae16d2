//! The osdmaps an OSD has: the current one, recent ones as values, older incrementals as bytes for peers that are
//! behind, all of them kept in the store under [`OSD_META`].
//!
//! Maps are applied one by one, because intervals are worked out epoch by epoch. Where the monitors no longer have the
//! incrementals in between, a full map is taken and the epochs before it count as unknown ([`Step::Gap`]).
//!
//! | key | value |
//! |---|---|
//! | `map/full/` epoch (big-endian) | an encoded `OsdMap`: the first, each [`FULL_EVERY`]th, and after gaps |
//! | `map/inc/` epoch | an encoded `Incremental` |

use bytes::Bytes;
use nacre_crush::CrushMap;
use nacre_maps::{Incremental, MapError, OsdMap};
use nacre_store::{OSD_META, ObjectStore, StoreError};
use nacre_types::Epoch;
use nacre_types::buggify;
use nacre_wire::Transaction;
use nacre_wire::messages::Maps;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A full map is stored that often, so that a start replays few incrementals.
const FULL_EVERY: u64 = 64;
/// Maps kept as values: what messages that crossed a map change are judged by.
const RECENT_MAX: usize = 48;
/// Most incrementals handed to a peer at once; it asks again.
const SHARE_MAX: usize = 100;

const FULL: &[u8] = b"map/full/";
const INC: &[u8] = b"map/inc/";

/// One change of the current map.
#[derive(Clone, Debug)]
pub enum Step {
    Next {
        old: Arc<OsdMap>,
        new: Arc<OsdMap>,
    },
    /// Epochs between `old` and `new` are unknown.
    Gap {
        old: Arc<OsdMap>,
        new: Arc<OsdMap>,
    },
}

#[derive(Debug)]
pub struct MapsKeeper {
    current: Arc<OsdMap>,
    recent: BTreeMap<Epoch, Arc<OsdMap>>,
    incrementals: BTreeMap<Epoch, Bytes>,
    fulls: BTreeSet<Epoch>,
    /// Since when there is no gap.
    contiguous_from: Epoch,
    /// Newest epoch heard of from anybody.
    pub heard_of: Epoch,
}

fn key(prefix: &[u8], epoch: Epoch) -> Vec<u8> {
    [prefix, &epoch.0.to_be_bytes()].concat()
}

fn epoch_of(prefix: &[u8], key: &[u8]) -> Option<Epoch> {
    let raw: [u8; 8] = key.strip_prefix(prefix)?.try_into().ok()?;
    Some(Epoch(u64::from_be_bytes(raw)))
}

impl MapsKeeper {
    /// No map yet.
    pub fn empty(fsid: &str) -> MapsKeeper {
        let map = OsdMap::initial(fsid, CrushMap::default(), 0).expect("an empty CRUSH map compiles");
        let current = Arc::new(map);
        MapsKeeper {
            recent: BTreeMap::new(),
            incrementals: BTreeMap::new(),
            fulls: BTreeSet::new(),
            contiguous_from: Epoch::ZERO,
            heard_of: Epoch::ZERO,
            current,
        }
    }

    /// What the store holds, from the newest full map at or before `needed` on: the keeper as of that map, and the
    /// steps from there.
    pub fn load(
        store: &dyn ObjectStore,
        fsid: &str,
        needed: Epoch,
    ) -> Result<(MapsKeeper, Vec<Step>), LoadMapsError> {
        let mut keeper = MapsKeeper::empty(fsid);
        let mut fulls: BTreeMap<Epoch, Bytes> = BTreeMap::new();
        store.meta_scan(OSD_META, b"map/", b"map0", &mut |key, value| {
            if let Some(epoch) = epoch_of(FULL, key) {
                fulls.insert(epoch, Bytes::copy_from_slice(value));
            } else if let Some(epoch) = epoch_of(INC, key) {
                keeper.incrementals.insert(epoch, Bytes::copy_from_slice(value));
            }
            true
        })?;
        keeper.fulls = fulls.keys().copied().collect();
        let base = fulls.range(..=needed).next_back().or_else(|| fulls.first_key_value());
        let Some((_, base)) = base else { return Ok((keeper, Vec::new())) };
        keeper.adopt(Arc::new(OsdMap::decode(base)?));
        keeper.contiguous_from = keeper.current.epoch();
        let mut steps = Vec::new();
        loop {
            let old = keeper.current.clone();
            if let Some(bytes) = keeper.incrementals.get(&old.epoch().next()) {
                let new = Arc::new(old.apply(&Incremental::decode(bytes)?)?);
                keeper.adopt(new.clone());
                steps.push(Step::Next { old, new });
                continue;
            }
            use std::ops::Bound::{Excluded, Unbounded};
            let Some((_, bytes)) = fulls.range((Excluded(old.epoch()), Unbounded)).next() else { break };
            let new = Arc::new(OsdMap::decode(bytes)?);
            keeper.contiguous_from = new.epoch();
            keeper.adopt(new.clone());
            steps.push(Step::Gap { old, new });
        }
        Ok((keeper, steps))
    }

    fn adopt(&mut self, map: Arc<OsdMap>) {
        self.heard_of = self.heard_of.max(map.epoch());
        self.recent.insert(map.epoch(), map.clone());
        let most = if buggify("osd: few maps in memory") { 1 } else { RECENT_MAX };
        while self.recent.len() > most {
            self.recent.pop_first();
        }
        self.current = map;
    }

    pub fn current(&self) -> &Arc<OsdMap> {
        &self.current
    }

    pub fn epoch(&self) -> Epoch {
        self.current.epoch()
    }

    pub fn oldest(&self) -> Epoch {
        self.incrementals.first_key_value().map_or(self.epoch(), |(epoch, _)| *epoch)
    }

    /// A map that messages may still refer to.
    pub fn recent(&self, epoch: Epoch) -> Option<&Arc<OsdMap>> {
        self.recent.get(&epoch)
    }

    /// Takes in what somebody sent, noting in `transaction` what to keep. Stops at the first piece that does not fit.
    pub fn take(&mut self, maps: &Maps, transaction: &mut Transaction) -> Result<Vec<Step>, MapError> {
        self.heard_of = self.heard_of.max(Epoch(maps.newest));
        let mut steps = Vec::new();
        let decoded: Vec<Incremental> =
            maps.incrementals.iter().map(|bytes| Incremental::decode(bytes)).collect::<Result<_, _>>()?;
        let fits = decoded.iter().any(|step| step.epoch == self.epoch().next()) && self.epoch() > Epoch::ZERO;
        if let Some(bytes) = maps.osdmap.as_ref().filter(|_| !fits) {
            let map = OsdMap::decode(bytes)?;
            if map.fsid() != self.current.fsid() {
                let (expected, found) = (self.current.fsid().to_string(), map.fsid().to_string());
                return Err(MapError::WrongCluster { expected, found });
            }
            if map.epoch() > self.epoch() {
                let (old, new) = (self.current.clone(), Arc::new(map));
                transaction.meta_set(key(FULL, new.epoch()), bytes.clone());
                self.fulls.insert(new.epoch());
                self.contiguous_from = new.epoch();
                self.adopt(new.clone());
                steps.push(Step::Gap { old, new });
            }
        }
        for (step, bytes) in decoded.iter().zip(&maps.incrementals) {
            if step.epoch != self.epoch().next() || self.epoch() == Epoch::ZERO {
                continue;
            }
            let old = self.current.clone();
            let new = match old.apply(step) {
                Ok(new) => Arc::new(new),
                Err(error) if steps.is_empty() => return Err(error),
                Err(_) => break,
            };
            transaction.meta_set(key(INC, new.epoch()), bytes.clone());
            self.incrementals.insert(new.epoch(), bytes.clone());
            if new.epoch().0 % FULL_EVERY == 0 {
                transaction.meta_set(key(FULL, new.epoch()), new.encode());
                self.fulls.insert(new.epoch());
            }
            self.adopt(new.clone());
            steps.push(Step::Next { old, new });
        }
        Ok(steps)
    }

    /// Forgets maps that are neither among the last `kept` nor needed by a PG last advanced in `needed`.
    pub fn trim(&mut self, kept: usize, needed: Epoch, transaction: &mut Transaction) {
        let bound = needed.min(Epoch(self.epoch().0.saturating_sub(kept as u64)));
        let Some(&base) = self.fulls.range(..=bound).next_back() else { return };
        let old: Vec<Epoch> = self.fulls.range(..base).copied().collect();
        let mut keys: Vec<Bytes> = old.iter().map(|&epoch| key(FULL, epoch).into()).collect();
        for epoch in old {
            self.fulls.remove(&epoch);
        }
        while let Some((&epoch, _)) = self.incrementals.first_key_value().filter(|(epoch, _)| **epoch <= base)
        {
            self.incrementals.remove(&epoch);
            keys.push(key(INC, epoch).into());
        }
        if !keys.is_empty() {
            transaction.meta_remove(keys);
        }
    }

    /// What to send to somebody whose newest map is `after`.
    pub fn share(&self, after: Epoch, full: bool) -> Maps {
        let mut maps = Maps {
            fsid: self.current.fsid().into(),
            newest: self.epoch().0,
            oldest: self.oldest().0,
            ..Maps::default()
        };
        let known = self.incrementals.contains_key(&after.next()) && after > Epoch::ZERO;
        if (full || !known) && after < self.epoch() {
            maps.osdmap = Some(self.current.encode());
        } else {
            maps.incrementals = self
                .incrementals
                .range(after.next()..)
                .take(if buggify("osd: maps shared one by one") { 1 } else { SHARE_MAX })
                .map(|(_, bytes)| bytes.clone())
                .collect();
        }
        maps
    }

    /// Whether the PG's interval that an OSD with map `seen` was in has lasted until now. `None` if that cannot be told.
    pub fn interval_lasts(&self, pg: nacre_types::PgId, seen: Epoch) -> Option<bool> {
        if seen < self.contiguous_from || seen > self.epoch() {
            return None;
        }
        let mut old = self.recent.get(&seen)?;
        for (_, new) in self.recent.range(seen.next()..) {
            if old.epoch().next() != new.epoch() {
                return None;
            }
            if crate::log::is_new_interval(pg, old, new) {
                return Some(false);
            }
            old = new;
        }
        Some(true)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LoadMapsError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a stored map is damaged: {0}")]
    Map(#[from] MapError),
}
