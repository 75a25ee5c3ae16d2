//! The osdmap and its incrementals as bytes: a prost schema of their own, so that the model can be typed.

use crate::placement::Tables;
use crate::{Flags, Incremental, MapError, OsdInfo, OsdMap, PG_NUM_MAX, Pool, Ratios};
use bytes::Bytes;
use nacre_crush::CrushMap;
use nacre_types::{ClientId, Epoch, OsdId, PgId, PoolId};
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Highest OSD number: arrays are indexed by it, so a hostile map must not cost memory.
const OSD_ID_MAX: u32 = nacre_crush::DEVICE_ID_MAX;

#[derive(Clone, PartialEq, Message)]
struct MapBytes {
    #[prost(string, tag = "1")]
    fsid: String,
    #[prost(uint64, tag = "2")]
    epoch: u64,
    #[prost(fixed64, tag = "3")]
    hash: u64,
    #[prost(uint64, tag = "4")]
    created_ms: u64,
    #[prost(uint64, tag = "5")]
    modified_ms: u64,
    #[prost(uint64, tag = "6")]
    flags: u64,
    #[prost(message, optional, tag = "7")]
    ratios: Option<Ratios>,
    #[prost(message, repeated, tag = "8")]
    osds: Vec<OsdEntry>,
    #[prost(message, repeated, tag = "9")]
    pools: Vec<PoolEntry>,
    #[prost(uint32, tag = "10")]
    last_pool: u32,
    #[prost(string, tag = "11")]
    crush: String,
    #[prost(message, repeated, tag = "12")]
    pg_temp: Vec<PgList>,
    #[prost(message, repeated, tag = "13")]
    pg_upmap: Vec<PgList>,
    #[prost(message, repeated, tag = "14")]
    pg_upmap_items: Vec<PgList>,
    #[prost(message, repeated, tag = "15")]
    blocklist: Vec<Blocked>,
}

#[derive(Clone, PartialEq, Message)]
struct IncrementalBytes {
    #[prost(uint64, tag = "1")]
    epoch: u64,
    #[prost(fixed64, tag = "2")]
    base_hash: u64,
    #[prost(uint64, tag = "3")]
    at_ms: u64,
    #[prost(message, repeated, tag = "4")]
    osds: Vec<OsdEntry>,
    #[prost(message, repeated, tag = "5")]
    pools: Vec<PoolEntry>,
    #[prost(string, optional, tag = "6")]
    crush: Option<String>,
    #[prost(message, repeated, tag = "7")]
    pg_temp: Vec<PgList>,
    #[prost(message, repeated, tag = "8")]
    pg_upmap: Vec<PgList>,
    #[prost(message, repeated, tag = "9")]
    pg_upmap_items: Vec<PgList>,
    #[prost(uint64, optional, tag = "10")]
    flags: Option<u64>,
    #[prost(message, optional, tag = "11")]
    ratios: Option<Ratios>,
    #[prost(message, repeated, tag = "12")]
    blocklist: Vec<Blocked>,
}

/// Absent info or pool in an incremental: removed.
#[derive(Clone, PartialEq, Message)]
struct OsdEntry {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(message, optional, tag = "2")]
    info: Option<OsdInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct PoolEntry {
    #[prost(uint32, tag = "1")]
    id: u32,
    #[prost(message, optional, tag = "2")]
    pool: Option<Pool>,
}

#[derive(Clone, PartialEq, Message)]
struct PgList {
    #[prost(uint64, tag = "1")]
    pg: u64,
    #[prost(uint32, repeated, tag = "2")]
    osds: Vec<u32>,
}

/// `until_ms` absent: taken off the list.
#[derive(Clone, PartialEq, Message)]
struct Blocked {
    #[prost(fixed64, tag = "1")]
    client: u64,
    #[prost(uint64, optional, tag = "2")]
    until_ms: Option<u64>,
}

pub(crate) fn encode_map(map: &OsdMap) -> Bytes {
    let osd = |(id, info): (OsdId, &OsdInfo)| OsdEntry { id: id.0, info: Some(info.clone()) };
    let pool = |(&id, pool): (&PoolId, &Pool)| PoolEntry { id: id.0, pool: Some(pool.clone()) };
    let blocked = |(&client, &until): (&ClientId, &u64)| Blocked { client: client.0, until_ms: Some(until) };
    let bytes = MapBytes {
        fsid: map.fsid.clone(),
        epoch: map.epoch.0,
        hash: map.hash,
        created_ms: map.created_ms,
        modified_ms: map.modified_ms,
        flags: map.flags.0,
        ratios: Some(map.ratios),
        osds: map.osds().map(osd).collect(),
        pools: map.pools.iter().map(pool).collect(),
        last_pool: map.last_pool.0,
        crush: map.crush.to_text(),
        pg_temp: lists(&map.pg_temp),
        pg_upmap: lists(&map.pg_upmap),
        pg_upmap_items: pair_lists(&map.pg_upmap_items),
        blocklist: map.blocklist.iter().map(blocked).collect(),
    };
    bytes.encode_to_vec().into()
}

pub(crate) fn decode_map(bytes: &[u8]) -> Result<OsdMap, MapError> {
    const WHAT: &str = "osdmap";
    let raw = MapBytes::decode(bytes).map_err(|e| MapError::malformed(WHAT, e))?;
    if Epoch(raw.epoch) > OsdMap::EPOCH_MAX {
        return Err(MapError::malformed(WHAT, format!("epoch {} cannot be", raw.epoch)));
    }
    let crush = parse_crush(&raw.crush)?;
    let compiled = crush.compile().map_err(|e| MapError::malformed("CRUSH map", e))?;
    let mut osds = BTreeMap::new();
    for entry in raw.osds {
        let info = entry.info.ok_or_else(|| MapError::malformed(WHAT, "an OSD without its entry"))?;
        osds.insert(osd_id(entry.id, WHAT)?, Arc::new(info));
    }
    let mut pools = BTreeMap::new();
    for entry in raw.pools {
        let pool = entry.pool.ok_or_else(|| MapError::malformed(WHAT, "a pool without its entry"))?;
        pools.insert(PoolId(entry.id), sane_pool(entry.id, pool, WHAT)?);
    }
    let blocklist =
        raw.blocklist.into_iter().filter_map(|b| Some((ClientId(b.client), b.until_ms?))).collect();
    let mut map = OsdMap {
        fsid: raw.fsid,
        epoch: Epoch(raw.epoch),
        hash: raw.hash,
        created_ms: raw.created_ms,
        modified_ms: raw.modified_ms,
        flags: Flags(raw.flags),
        ratios: raw.ratios.unwrap_or_else(Ratios::initial),
        osds,
        pools,
        last_pool: PoolId(raw.last_pool),
        crush: Arc::new(crush),
        compiled: Arc::new(compiled),
        pg_temp: unlist(raw.pg_temp, WHAT)?,
        pg_upmap: unlist(raw.pg_upmap, WHAT)?,
        pg_upmap_items: unlist_pairs(raw.pg_upmap_items, WHAT)?,
        blocklist,
        tables: Arc::default(),
    };
    map.tables = Arc::new(Tables::empty(&map));
    Ok(map)
}

pub(crate) fn encode_incremental(step: &Incremental) -> Bytes {
    let osd = |(&id, info): (&OsdId, &Option<OsdInfo>)| OsdEntry { id: id.0, info: info.clone() };
    let pool = |(&id, pool): (&PoolId, &Option<Pool>)| PoolEntry { id: id.0, pool: pool.clone() };
    let blocked =
        |(&client, &until): (&ClientId, &Option<u64>)| Blocked { client: client.0, until_ms: until };
    let bytes = IncrementalBytes {
        epoch: step.epoch.0,
        base_hash: step.base_hash,
        at_ms: step.at_ms,
        osds: step.osds.iter().map(osd).collect(),
        pools: step.pools.iter().map(pool).collect(),
        crush: step.crush.as_ref().map(CrushMap::to_text),
        pg_temp: lists(&step.pg_temp),
        pg_upmap: lists(&step.pg_upmap),
        pg_upmap_items: pair_lists(&step.pg_upmap_items),
        flags: step.flags.map(|flags| flags.0),
        ratios: step.ratios,
        blocklist: step.blocklist.iter().map(blocked).collect(),
    };
    bytes.encode_to_vec().into()
}

pub(crate) fn decode_incremental(bytes: &[u8]) -> Result<Incremental, MapError> {
    const WHAT: &str = "osdmap incremental";
    let raw = IncrementalBytes::decode(bytes).map_err(|e| MapError::malformed(WHAT, e))?;
    let mut osds = BTreeMap::new();
    for entry in raw.osds {
        osds.insert(osd_id(entry.id, WHAT)?, entry.info);
    }
    let mut pools = BTreeMap::new();
    for entry in raw.pools {
        let pool = entry.pool.map(|pool| sane_pool(entry.id, pool, WHAT)).transpose()?;
        pools.insert(PoolId(entry.id), pool);
    }
    Ok(Incremental {
        epoch: Epoch(raw.epoch),
        base_hash: raw.base_hash,
        at_ms: raw.at_ms,
        osds,
        pools,
        crush: raw.crush.as_deref().map(parse_crush).transpose()?,
        pg_temp: unlist(raw.pg_temp, WHAT)?,
        pg_upmap: unlist(raw.pg_upmap, WHAT)?,
        pg_upmap_items: unlist_pairs(raw.pg_upmap_items, WHAT)?,
        flags: raw.flags.map(Flags),
        ratios: raw.ratios,
        blocklist: raw.blocklist.into_iter().map(|b| (ClientId(b.client), b.until_ms)).collect(),
    })
}

fn parse_crush(text: &str) -> Result<CrushMap, MapError> {
    CrushMap::parse(text).map_err(|e| MapError::malformed("CRUSH map", e))
}

fn osd_id(id: u32, what: &'static str) -> Result<OsdId, MapError> {
    if id > OSD_ID_MAX {
        return Err(MapError::malformed(what, format!("osd.{id} is above the highest number {OSD_ID_MAX}")));
    }
    Ok(OsdId(id))
}

fn sane_pool(id: u32, pool: Pool, what: &'static str) -> Result<Pool, MapError> {
    if !pool.is_sane() || id == u32::MAX {
        let reason = format!("pool {id} has {} PGs (at most {PG_NUM_MAX}), size {}", pool.pg_num, pool.size);
        return Err(MapError::malformed(what, reason));
    }
    Ok(pool)
}

fn lists(map: &BTreeMap<PgId, Vec<OsdId>>) -> Vec<PgList> {
    map.iter()
        .map(|(pg, osds)| PgList { pg: pg.as_u64(), osds: osds.iter().map(|osd| osd.0).collect() })
        .collect()
}

fn pair_lists(map: &BTreeMap<PgId, Vec<(OsdId, OsdId)>>) -> Vec<PgList> {
    let flat = |pairs: &Vec<(OsdId, OsdId)>| pairs.iter().flat_map(|&(a, b)| [a.0, b.0]).collect();
    map.iter().map(|(pg, pairs)| PgList { pg: pg.as_u64(), osds: flat(pairs) }).collect()
}

fn unlist(lists: Vec<PgList>, what: &'static str) -> Result<BTreeMap<PgId, Vec<OsdId>>, MapError> {
    let decode = |list: PgList| {
        let osds = list.osds.into_iter().map(|id| osd_id(id, what)).collect::<Result<_, _>>()?;
        Ok((PgId::from_u64(list.pg), osds))
    };
    lists.into_iter().map(decode).collect()
}

fn unlist_pairs(
    lists: Vec<PgList>,
    what: &'static str,
) -> Result<BTreeMap<PgId, Vec<(OsdId, OsdId)>>, MapError> {
    let mut map = BTreeMap::new();
    for (pg, flat) in unlist(lists, what)? {
        if flat.len() % 2 != 0 {
            return Err(MapError::malformed(what, format!("the pins of {pg} are not pairs")));
        }
        map.insert(pg, flat.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect());
    }
    Ok(map)
}
