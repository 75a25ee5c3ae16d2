//! What changed from one osdmap epoch to the next.

use crate::placement::Tables;
use crate::{Flags, MapError, OsdInfo, OsdMap, Pool, encode};
use bytes::Bytes;
use nacre_crush::CrushMap;
use nacre_types::{ClientId, Epoch, OsdId, PgId, PoolId, fnv1a64};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// From which share of its space an OSD counts as how full, in thousandths.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ratios {
    /// Warns.
    #[prost(uint32, tag = "1")]
    pub nearfull_permille: u32,
    /// Takes no backfill.
    #[prost(uint32, tag = "2")]
    pub backfillfull_permille: u32,
    /// Takes no write that needs space. What is above it is the reserve for deletes, trims and recovery.
    #[prost(uint32, tag = "3")]
    pub full_permille: u32,
}

impl Ratios {
    /// Ceph's defaults.
    pub fn initial() -> Ratios {
        Ratios { nearfull_permille: 850, backfillfull_permille: 900, full_permille: 950 }
    }
}

/// The step from `epoch - 1` to `epoch`. Absent keys stay as they are; a `None` or an empty list removes.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Incremental {
    pub epoch: Epoch,
    /// [`OsdMap::hash`] of the map this was made for.
    pub base_hash: u64,
    pub at_ms: u64,
    pub osds: BTreeMap<OsdId, Option<OsdInfo>>,
    pub pools: BTreeMap<PoolId, Option<Pool>>,
    pub crush: Option<CrushMap>,
    pub pg_temp: BTreeMap<PgId, Vec<OsdId>>,
    pub pg_upmap: BTreeMap<PgId, Vec<OsdId>>,
    pub pg_upmap_items: BTreeMap<PgId, Vec<(OsdId, OsdId)>>,
    pub flags: Option<Flags>,
    pub ratios: Option<Ratios>,
    /// Until when; `None` removes.
    pub blocklist: BTreeMap<ClientId, Option<u64>>,
}

impl Incremental {
    /// An empty step after `map`.
    pub fn after(map: &OsdMap, at_ms: u64) -> Incremental {
        Incremental { epoch: map.epoch.next(), base_hash: map.hash, at_ms, ..Incremental::default() }
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        let nothing = Incremental {
            epoch: self.epoch,
            base_hash: self.base_hash,
            at_ms: self.at_ms,
            ..Incremental::default()
        };
        *self == nothing
    }

    /// The entry to change of an OSD that exists in `map` or was added by this step.
    pub fn osd_mut(&mut self, map: &OsdMap, id: OsdId) -> Option<&mut OsdInfo> {
        match self.osds.entry(id) {
            Entry::Occupied(changed) => changed.into_mut().as_mut(),
            Entry::Vacant(slot) => slot.insert(Some(map.osd(id)?.clone())).as_mut(),
        }
    }

    /// The entry to change of a pool that exists in `map` or was added by this step.
    pub fn pool_mut(&mut self, map: &OsdMap, id: PoolId) -> Option<&mut Pool> {
        match self.pools.entry(id) {
            Entry::Occupied(changed) => changed.into_mut().as_mut(),
            Entry::Vacant(slot) => slot.insert(Some(map.pools.get(&id)?.clone())).as_mut(),
        }
    }

    pub fn encode(&self) -> Bytes {
        encode::encode_incremental(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Incremental, MapError> {
        encode::decode_incremental(bytes)
    }

    pub(crate) fn apply_to(&self, base: &OsdMap) -> Result<OsdMap, MapError> {
        if self.epoch != base.epoch.next() || self.epoch > OsdMap::EPOCH_MAX {
            return Err(MapError::NotNext { have: base.epoch, found: self.epoch });
        }
        if self.base_hash != base.hash {
            return Err(MapError::WrongBase { epoch: self.epoch });
        }
        let mut map = base.clone();
        map.epoch = self.epoch;
        map.modified_ms = self.at_ms;
        map.hash = fnv1a64(&[&base.hash.to_le_bytes()[..], &self.encode()].concat());
        if let Some(crush) = &self.crush {
            map.compiled = Arc::new(crush.compile().map_err(|e| MapError::malformed("CRUSH map", e))?);
            map.crush = Arc::new(crush.clone());
        }
        for (&id, pool) in &self.pools {
            map.last_pool = map.last_pool.max(id);
            set(&mut map.pools, id, pool.clone());
        }
        for (&id, osd) in &self.osds {
            set(&mut map.osds, id, osd.clone().map(Arc::new));
        }
        let some = |list: &Vec<OsdId>| (!list.is_empty()).then(|| list.clone());
        for (&pg, acting) in &self.pg_temp {
            set(&mut map.pg_temp, pg, some(acting));
        }
        for (&pg, pinned) in &self.pg_upmap {
            set(&mut map.pg_upmap, pg, some(pinned));
        }
        for (&pg, items) in &self.pg_upmap_items {
            set(&mut map.pg_upmap_items, pg, (!items.is_empty()).then(|| items.clone()));
        }
        for (&client, &until) in &self.blocklist {
            set(&mut map.blocklist, client, until);
        }
        map.flags = self.flags.unwrap_or(map.flags);
        map.ratios = self.ratios.unwrap_or(map.ratios);
        // What hangs on a pool goes with it.
        let pools = &map.pools;
        let exists = |pg: &PgId| pools.get(&pg.pool).is_some_and(|pool| pg.seed < pool.pg_num);
        map.pg_temp.retain(|pg, _| exists(pg));
        map.pg_upmap.retain(|pg, _| exists(pg));
        map.pg_upmap_items.retain(|pg, _| exists(pg));
        map.tables = Arc::new(Tables::derived(base, &map, self));
        Ok(map)
    }
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}
