//! Steps between epochs: encoding, refusal of what does not fit, and that cached placement is what a fresh map says.

use crate::{Flag, Incremental, MapError, OsdInfo, OsdMap, Pool, WEIGHT_IN};
use nacre_crush::CrushMap;
use nacre_types::{ClientId, Epoch, OsdId, PgId, PoolId, Rng};

const OSDS: u32 = 6;

/// Six OSDs on three hosts.
fn crush() -> CrushMap {
    let mut text = String::from("# begin crush map\n");
    for tunable in [
        "choose_local_tries 0",
        "choose_local_fallback_tries 0",
        "choose_total_tries 50",
        "chooseleaf_descend_once 1",
        "chooseleaf_vary_r 1",
        "chooseleaf_stable 1",
        "straw_calc_version 1",
        "allowed_bucket_algs 54",
    ] {
        text += &format!("tunable {tunable}\n");
    }
    for osd in 0..OSDS {
        text += &format!("device {osd} osd.{osd}\n");
    }
    text += "type 0 osd\ntype 1 host\ntype 2 root\n";
    for host in 0..3 {
        let items = format!("item osd.{} weight 1.0\n item osd.{} weight 1.0", host * 2, host * 2 + 1);
        text += &format!("host h{host} {{\n id -{}\n alg straw2\n hash 0\n {items}\n}}\n", host + 2);
    }
    text += "root default {\n id -1\n alg straw2\n hash 0\n item h0 weight 2.0\n item h1 weight 2.0\n item h2 weight 2.0\n}\n";
    text += "rule replicated_rule {\n id 0\n type replicated\n min_size 1\n max_size 10\n step take default\n step chooseleaf firstn 0 type host\n step emit\n}\n";
    CrushMap::parse(&text).unwrap()
}

fn cluster() -> OsdMap {
    let map = OsdMap::initial("fsid", crush(), 1).unwrap();
    let mut step = Incremental::after(&map, 2);
    for id in 0..OSDS {
        let mut osd = OsdInfo::new(&format!("uuid-{id}"));
        osd.weight = WEIGHT_IN;
        osd.mark_up(step.epoch);
        step.osds.insert(OsdId(id), Some(osd));
    }
    step.pools.insert(PoolId(1), Some(Pool::new("rbd", 3, 2, 32, 0, step.epoch)));
    map.apply(&step).unwrap()
}

fn fresh(map: &OsdMap) -> OsdMap {
    OsdMap::decode(&map.encode()).unwrap()
}

#[test]
fn every_pg_has_three_hosts() {
    let map = cluster();
    assert_eq!(map.pgs().count(), 32);
    for pg in map.pgs() {
        let place = map.pg(pg).unwrap();
        let mut hosts: Vec<u32> = place.acting.iter().map(|osd| osd.0 / 2).collect();
        hosts.sort_unstable();
        assert_eq!(hosts, [0, 1, 2], "{pg}: {place:?}");
    }
    assert!(map.pg(PgId::new(PoolId(1), 32)).is_none());
    assert!(map.pg(PgId::new(PoolId(2), 0)).is_none());
}

#[test]
fn random_steps_keep_cached_placement_and_encoding_true() {
    let mut rng = Rng::new(3);
    let mut map = cluster();
    for round in 0..300 {
        let mut step = Incremental::after(&map, round);
        let pg = PgId::new(PoolId(1), rng.below(32) as u32);
        let id = OsdId(rng.below(u64::from(OSDS)) as u32);
        let epoch = step.epoch;
        // Several OSDs at once, or one.
        for _ in 0..rng.below(3) {
            let id = OsdId(rng.below(u64::from(OSDS)) as u32);
            if let Some(osd) = step.osd_mut(&map, id) {
                osd.weight = rng.below(u64::from(WEIGHT_IN) + 1) as u32;
            }
        }
        let kind = if step.osd_mut(&map, id).is_some() { rng.below(12) } else { 11 };
        match kind {
            0 => step.osd_mut(&map, id).unwrap().mark_down(epoch, round),
            1 => step.osd_mut(&map, id).unwrap().mark_up(epoch),
            2 => step.osd_mut(&map, id).unwrap().set_up_thru(epoch),
            3 => step.osd_mut(&map, id).unwrap().weight = rng.below(u64::from(WEIGHT_IN) + 1) as u32,
            4 => drop(step.pg_temp.insert(pg, vec![id, OsdId((id.0 + 1) % OSDS)])),
            5 => drop(step.pg_temp.insert(pg, Vec::new())),
            6 => drop(step.pg_upmap_items.insert(pg, vec![(id, OsdId((id.0 + 2) % OSDS))])),
            8 => drop(step.pg_upmap.insert(pg, vec![id, OsdId((id.0 + 3) % OSDS)])),
            9 => drop(step.pg_upmap.insert(pg, Vec::new())),
            10 if id.0 == 5 => drop(step.osds.insert(id, None)),
            11 => {
                let mut osd = OsdInfo::new("again");
                osd.weight = WEIGHT_IN;
                osd.mark_up(epoch);
                step.osds.entry(OsdId(5)).or_insert(Some(osd));
            }
            7 => step.osd_mut(&map, id).unwrap().primary_affinity = rng.below(0x1_0001) as u32,
            _ => step.flags = Some(map.flags().with(Flag::NoOut)),
        }
        let decoded = Incremental::decode(&step.encode()).unwrap();
        assert_eq!(decoded, step);
        let next = map.apply(&decoded).unwrap();
        let copy = fresh(&next);
        assert_eq!((copy.hash(), copy.epoch()), (next.hash(), next.epoch()));
        assert_eq!(copy.encode(), next.encode());
        for pg in next.pgs() {
            assert_eq!(next.pg(pg), copy.pg(pg), "{pg} in round {round}");
        }
        map = next;
    }
}

#[test]
fn steps_that_do_not_fit_are_refused() {
    let map = cluster();
    let mut step = Incremental::after(&map, 0);
    step.blocklist.insert(ClientId(7), Some(100));
    let next = map.apply(&step).unwrap();
    assert!(next.is_blocklisted(ClientId(7)) && !map.is_blocklisted(ClientId(7)));
    assert!(matches!(next.apply(&step), Err(MapError::NotNext { .. })));
    let skipped = Incremental { epoch: Epoch(map.epoch().0 + 2), ..step.clone() };
    assert!(matches!(map.apply(&skipped), Err(MapError::NotNext { .. })));
    let foreign = Incremental { base_hash: 1, ..step };
    assert!(matches!(map.apply(&foreign), Err(MapError::WrongBase { .. })));
}

#[test]
fn arbitrary_bytes_are_refused_without_a_panic() {
    let mut rng = Rng::new(9);
    let good = cluster().encode();
    for _ in 0..2000 {
        let mut bytes = good.to_vec();
        for _ in 0..rng.range(1, 6) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = rng.next_u64() as u8;
        }
        bytes.truncate(rng.range(0, bytes.len() as u64 + 1) as usize);
        if let Ok(map) = OsdMap::decode(&bytes) {
            map.pgs().take(64).for_each(|pg| drop(map.pg(pg).cloned()));
        }
        let _ = Incremental::decode(&bytes);
    }
}
