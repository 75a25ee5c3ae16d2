//! The osdmap: OSDs, pools, CRUSH, pins and switches at one epoch.

use crate::placement::Tables;
use crate::{Flags, Incremental, MapError, OsdInfo, Pool, Ratios, encode};
use bytes::Bytes;
use nacre_crush::{Compiled, CrushMap};
use nacre_types::{ClientId, Epoch, ObjectId, OsdId, PgId, PoolId};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The state of placement at one epoch. Clone is cheap enough to keep several epochs around: epochs share CRUSH, and what
/// they know of each OSD and PG.
#[derive(Clone, Debug)]
pub struct OsdMap {
    pub(crate) fsid: String,
    pub(crate) epoch: Epoch,
    /// Chained over all incrementals since the first map: the same in every daemon at the same epoch.
    pub(crate) hash: u64,
    pub(crate) created_ms: u64,
    pub(crate) modified_ms: u64,
    pub(crate) flags: Flags,
    pub(crate) ratios: Ratios,
    pub(crate) osds: BTreeMap<OsdId, Arc<OsdInfo>>,
    pub(crate) pools: BTreeMap<PoolId, Pool>,
    /// Highest pool number ever given.
    pub(crate) last_pool: PoolId,
    pub(crate) crush: Arc<CrushMap>,
    pub(crate) compiled: Arc<Compiled>,
    pub(crate) pg_temp: BTreeMap<PgId, Vec<OsdId>>,
    pub(crate) pg_upmap: BTreeMap<PgId, Vec<OsdId>>,
    pub(crate) pg_upmap_items: BTreeMap<PgId, Vec<(OsdId, OsdId)>>,
    /// Clients that may not touch anything until that wall time.
    pub(crate) blocklist: BTreeMap<ClientId, u64>,
    pub(crate) tables: Arc<Tables>,
}

impl PartialEq for OsdMap {
    fn eq(&self, other: &OsdMap) -> bool {
        self.encode() == other.encode()
    }
}

impl OsdMap {
    /// Not reached in practice. No map is above it, so that the next epoch can always be named.
    pub const EPOCH_MAX: Epoch = Epoch(u64::MAX >> 1);

    /// The empty map before a cluster's first epoch: epoch 0, no OSDs, no pools.
    pub fn initial(fsid: &str, crush: CrushMap, now_ms: u64) -> Result<OsdMap, MapError> {
        let compiled = crush.compile().map_err(|e| MapError::malformed("CRUSH map", e))?;
        Ok(OsdMap {
            fsid: fsid.into(),
            epoch: Epoch::ZERO,
            hash: nacre_types::fnv1a64(fsid.as_bytes()),
            created_ms: now_ms,
            modified_ms: now_ms,
            flags: Flags::default(),
            ratios: Ratios::initial(),
            osds: BTreeMap::new(),
            pools: BTreeMap::new(),
            last_pool: PoolId(0),
            crush: Arc::new(crush),
            compiled: Arc::new(compiled),
            pg_temp: BTreeMap::new(),
            pg_upmap: BTreeMap::new(),
            pg_upmap_items: BTreeMap::new(),
            blocklist: BTreeMap::new(),
            tables: Arc::default(),
        })
    }

    pub fn fsid(&self) -> &str {
        &self.fsid
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn created_ms(&self) -> u64 {
        self.created_ms
    }

    pub fn modified_ms(&self) -> u64 {
        self.modified_ms
    }

    pub fn flags(&self) -> Flags {
        self.flags
    }

    pub fn ratios(&self) -> Ratios {
        self.ratios
    }

    pub fn osds(&self) -> impl Iterator<Item = (OsdId, &OsdInfo)> {
        self.osds.iter().map(|(&id, info)| (id, &**info))
    }

    pub fn osd(&self, id: OsdId) -> Option<&OsdInfo> {
        self.osds.get(&id).map(|info| &**info)
    }

    pub fn is_up(&self, id: OsdId) -> bool {
        self.osds.get(&id).is_some_and(|osd| osd.up)
    }

    pub fn is_in(&self, id: OsdId) -> bool {
        self.osds.get(&id).is_some_and(|osd| osd.is_in())
    }

    /// Where to send to an OSD, if it is up.
    pub fn address(&self, id: OsdId) -> Option<&str> {
        self.osds.get(&id).filter(|osd| osd.up).map(|osd| osd.address.as_str())
    }

    pub fn pools(&self) -> impl Iterator<Item = (PoolId, &Pool)> {
        self.pools.iter().map(|(&id, pool)| (id, pool))
    }

    pub fn pool(&self, id: PoolId) -> Option<&Pool> {
        self.pools.get(&id)
    }

    pub fn pool_by_name(&self, name: &str) -> Option<(PoolId, &Pool)> {
        self.pools().find(|(_, pool)| pool.name == name)
    }

    pub fn last_pool(&self) -> PoolId {
        self.last_pool
    }

    pub fn crush(&self) -> &CrushMap {
        &self.crush
    }

    pub fn compiled(&self) -> &Compiled {
        &self.compiled
    }

    pub fn pg_temp(&self) -> &BTreeMap<PgId, Vec<OsdId>> {
        &self.pg_temp
    }

    pub fn pg_upmap(&self) -> &BTreeMap<PgId, Vec<OsdId>> {
        &self.pg_upmap
    }

    pub fn pg_upmap_items(&self) -> &BTreeMap<PgId, Vec<(OsdId, OsdId)>> {
        &self.pg_upmap_items
    }

    pub fn blocklist(&self) -> &BTreeMap<ClientId, u64> {
        &self.blocklist
    }

    pub fn is_blocklisted(&self, client: ClientId) -> bool {
        self.blocklist.contains_key(&client)
    }

    /// Whether the PG exists: its pool does, and it is one of its PGs.
    pub fn pg_exists(&self, pg: PgId) -> bool {
        self.pools.get(&pg.pool).is_some_and(|pool| pg.seed < pool.pg_num)
    }

    /// All PGs, pool by pool.
    pub fn pgs(&self) -> impl Iterator<Item = PgId> {
        self.pools.iter().flat_map(|(&id, pool)| (0..pool.pg_num).map(move |seed| PgId::new(id, seed)))
    }

    /// The PG an object belongs to, if its pool exists.
    pub fn object_pg(&self, object: &ObjectId) -> Option<PgId> {
        self.pools.get(&object.pool).map(|pool| object.pg(pool.pg_num))
    }

    /// The map of the next epoch. Refuses an incremental made for another map.
    pub fn apply(&self, incremental: &Incremental) -> Result<OsdMap, MapError> {
        incremental.apply_to(self)
    }

    pub fn encode(&self) -> Bytes {
        encode::encode_map(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<OsdMap, MapError> {
        encode::decode_map(bytes)
    }
}

#[cfg(test)]
mod tests;
