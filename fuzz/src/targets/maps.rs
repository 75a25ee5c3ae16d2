//! The osdmap and its steps, the other maps, and the short texts people write.

use crate::input::{Input, join};
use nacre_crush::CrushMap;
use nacre_maps::{
    AuthEntry, AuthMap, Caps, ConfigMap, Flag, Incremental, MonMap, OsdInfo, OsdMap, Pool, WEIGHT_IN,
};
use nacre_types::{ClientId, EntityName, Epoch, OsdId, PgId, PoolId};
use std::collections::BTreeMap;

/// Above this many PGs in all a map is not placed: it would take too long for a fuzzer.
const PLACED_PGS_MAX: usize = 64;

/// Asks a map all that daemons ask.
fn exercise(map: &OsdMap) {
    let again = OsdMap::decode(&map.encode());
    assert_eq!(again.as_ref(), Ok(map), "what was encoded decodes to the same");
    let pgs: usize = map.pools().map(|(_, pool)| pool.pg_num as usize).sum();
    if pgs <= PLACED_PGS_MAX {
        for pg in map.pgs() {
            let place = map.pg(pg).expect("a PG of a pool is placed");
            assert_eq!(Some(place), again.as_ref().ok().and_then(|map| map.pg(pg)));
            assert!(place.up.len() <= 16 && place.acting.iter().all(|&osd| map.is_up(osd)));
        }
    }
    for (id, osd) in map.osds() {
        let _ = (map.address(id), map.is_in(id), osd.up_from(), osd.up_thru(), osd.down_at(), osd.lost_at());
    }
    for (_, pool) in map.pools() {
        let _ = (pool.snap_is_removed(nacre_types::SnapId(3)), map.pool_by_name(&pool.name));
    }
}

pub fn osdmap(input: &[u8]) {
    let Ok(map) = OsdMap::decode(input) else { return };
    exercise(&map);
    let mut step = Incremental::after(&map, 7);
    step.pools.insert(PoolId(9), Some(Pool::new("p", 2, 1, 4, 0, step.epoch)));
    match map.apply(&step) {
        Ok(next) => exercise(&next),
        Err(error) => assert_eq!(map.epoch(), OsdMap::EPOCH_MAX, "a step made for a map fits it: {error}"),
    }
}

pub fn osdmap_seeds() -> Vec<Vec<u8>> {
    let (map, _) = sample();
    vec![map.encode().to_vec()]
}

/// Applied to the map it was made for, as sent and with the right epoch and hash.
pub fn incremental(input: &[u8]) {
    let Ok(mut step) = Incremental::decode(input) else { return };
    assert_eq!(Incremental::decode(&step.encode()).as_ref(), Ok(&step));
    let _ = step.is_empty();
    let (map, _) = sample();
    for pg in map.pgs() {
        // So that tables are derived, not made anew.
        let _ = map.pg(pg);
    }
    let _ = map.apply(&step);
    let fits = Incremental::after(&map, step.at_ms);
    (step.epoch, step.base_hash) = (fits.epoch, fits.base_hash);
    if let Ok(next) = map.apply(&step) {
        assert_eq!(next.epoch(), map.epoch().next());
        exercise(&next);
    }
}

pub fn incremental_seeds() -> Vec<Vec<u8>> {
    let (map, step) = sample();
    let mut down = Incremental::after(&map, 9);
    let epoch = down.epoch;
    down.osd_mut(&map, OsdId(1)).expect("it exists").mark_down(epoch, 9);
    down.pg_temp.insert(PgId::new(PoolId(1), 2), vec![OsdId(2), OsdId(0)]);
    down.pools.insert(PoolId(1), None);
    down.blocklist.insert(ClientId(4), None);
    let mut crush = Incremental::after(&map, 9);
    crush.crush = Some(CrushMap::initial());
    vec![step.encode().to_vec(), down.encode().to_vec(), crush.encode().to_vec()]
}

/// A map of three OSDs and a pool, and the step that led to it.
pub fn sample() -> (OsdMap, Incremental) {
    let crush = CrushMap::parse(super::crush::SMALL).expect("a legal CRUSH map");
    let first = OsdMap::initial("fsid", crush, 1).expect("a map");
    let mut step = Incremental::after(&first, 2);
    for id in 0..3 {
        let mut osd = OsdInfo::new(&format!("uuid-{id}"));
        (osd.weight, osd.address) = (WEIGHT_IN, format!("10.0.0.{id}:6800"));
        osd.mark_up(step.epoch);
        step.osds.insert(OsdId(id), Some(osd));
    }
    let mut pool = Pool::new("rbd", 3, 2, 8, 0, step.epoch);
    for _ in 0..4 {
        pool.create_snap();
    }
    pool.remove_snap(nacre_types::SnapId(2));
    step.pools.insert(PoolId(1), Some(pool));
    step.pg_temp.insert(PgId::new(PoolId(1), 0), vec![OsdId(1), OsdId(2)]);
    step.pg_upmap.insert(PgId::new(PoolId(1), 1), vec![OsdId(2), OsdId(1)]);
    step.pg_upmap_items.insert(PgId::new(PoolId(1), 2), vec![(OsdId(2), OsdId(1))]);
    step.blocklist.insert(ClientId(4), Some(1000));
    let map = first.apply(&step).expect("a step that fits");
    (map, step)
}

/// A byte of which map, then its bytes.
pub fn others(input: &[u8]) {
    let mut input = Input(input);
    match input.u8() % 3 {
        0 => {
            let Ok(map) = MonMap::decode(input.0) else { return };
            assert_eq!(MonMap::decode(&map.encode()), Ok(map.clone()));
            let _ = (map.name_of(1), map.name_of(map.last_raft_id));
        }
        1 => {
            let Ok(map) = AuthMap::decode(input.0) else { return };
            assert_eq!(AuthMap::decode(&map.encode()), Ok(map.clone()));
            for entity in map.entities.keys() {
                let _ = map.allow_object(entity, nacre_maps::Access::WRITE, "rbd", "");
            }
        }
        _ => {
            let Ok(map) = ConfigMap::decode(input.0) else { return };
            assert_eq!(ConfigMap::decode(&map.encode()), Ok(map.clone()));
            let osd = EntityName::Osd(OsdId(1));
            for option in nacre_mon::options::OPTIONS {
                let _ = map.effective(&osd, option.name);
            }
        }
    }
}

pub fn others_seeds() -> Vec<Vec<u8>> {
    let mons = [("a".to_string(), "10.0.0.1:6789".to_string())].into();
    let caps = BTreeMap::from([("osd".to_string(), "allow rw pool=rbd".parse().expect("caps"))]);
    let entry = AuthEntry { caps, created_ms: 1 };
    let auth =
        AuthMap { epoch: Epoch(3), entities: BTreeMap::from([(EntityName::Client("a".into()), entry)]) };
    let mut config = ConfigMap::default();
    config.set("osd.1", "osd_max_backfills", Some("2".into()));
    let seed = |which: u8, bytes: &[u8]| [&[which], bytes].concat();
    vec![
        seed(0, &MonMap::initial("fsid", &mons).encode()),
        seed(1, &auth.encode()),
        seed(2, &config.encode()),
    ]
}

/// A byte of which kind of word, then the text: what parses prints to what parses to the same.
pub fn words(input: &[u8]) {
    let mut input = Input(input);
    let kind = input.u8();
    let Ok(text) = std::str::from_utf8(input.0) else { return };
    fn same<T: std::str::FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str) {
        if let Ok(value) = text.parse::<T>() {
            assert_eq!(value.to_string().parse::<T>().ok(), Some(value));
        }
    }
    match kind % 6 {
        0 => same::<Caps>(text),
        1 => same::<EntityName>(text),
        2 => same::<PgId>(text),
        3 => same::<OsdId>(text),
        4 => drop(text.parse::<Flag>()),
        _ => {
            for option in nacre_mon::options::OPTIONS {
                if let Ok(value) = option.parse(text) {
                    assert_eq!(option.parse(&value), Ok(value), "{}", option.name);
                }
            }
        }
    }
}

pub fn words_seeds() -> Vec<Vec<u8>> {
    let words: [&[u8]; 8] = [
        b"\x00allow rw pool=a namespace=n, allow r",
        b"\x00allow *",
        b"\x01client.k8s-1.x",
        b"\x0212.2f",
        b"\x03osd.7",
        b"\x04noout",
        b"\x05true",
        b"\x050.85",
    ];
    let mut seeds: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
    seeds.push(join(&[b"x"]));
    seeds
}
