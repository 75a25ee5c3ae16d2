//! Prints how long placing 100,000 PGs on 10,000 OSDs takes, how large that map is and how long it takes to decode, and how
//! long an epoch in which one OSD goes out, comes back, or goes down: `cargo run --release -p nacre-maps --example remap`.

#![expect(clippy::disallowed_methods, reason = "measuring is what it is for")]

use nacre_crush::CrushMap;
use nacre_maps::{Incremental, OsdInfo, OsdMap, Pool, WEIGHT_IN};
use nacre_types::{OsdId, PoolId};
use std::fmt::Write;
use std::time::{Duration, Instant};

const OSDS: u32 = 10_000;
const PGS: u32 = 100_000;

fn main() {
    let mut map = OsdMap::initial("fsid", crush(), 1).expect("a map");
    let mut step = Incremental::after(&map, 2);
    for id in 0..OSDS {
        let mut osd = OsdInfo::new(&format!("uuid-{id}"));
        osd.weight = WEIGHT_IN;
        osd.mark_up(step.epoch);
        step.osds.insert(OsdId(id), Some(osd));
    }
    // A pool has at most 65,536.
    for id in 1..=2 {
        let pool = Pool::new(&format!("pool{id}"), 3, 2, PGS / 2, 0, step.epoch);
        step.pools.insert(PoolId(id), Some(pool));
    }
    map = map.apply(&step).expect("it fits");
    println!("all PGs: {:.1} ms", millis(place(&map)));
    let encoded = map.encode();
    let start = Instant::now();
    let decoded = OsdMap::decode(&encoded).expect("a map");
    let took = millis(start.elapsed());
    assert_eq!(decoded.epoch(), map.epoch());
    println!("the map: {:.2} MB, decoded in {took:.1} ms", encoded.len() as f64 / 1e6);
    let osd = OsdId(4711);
    step_by(&mut map, "one OSD is marked out", |osd| osd.weight = 0, osd);
    step_by(&mut map, "it is marked in again", |osd| osd.weight = WEIGHT_IN, osd);
    let epoch = map.epoch();
    step_by(&mut map, "it goes down", |osd| osd.mark_down(epoch, 3), osd);
}

/// Asks for every PG.
fn place(map: &OsdMap) -> Duration {
    let start = Instant::now();
    let placed = map.pgs().filter(|&pg| map.pg(pg).is_some_and(|place| !place.acting.is_empty())).count();
    assert_eq!(placed, PGS as usize);
    start.elapsed()
}

fn step_by(map: &mut OsdMap, what: &str, change: impl FnOnce(&mut OsdInfo), osd: OsdId) {
    let mut step = Incremental::after(map, 3);
    change(step.osd_mut(map, osd).expect("it exists"));
    let encoded = step.encode();
    let start = Instant::now();
    let step = Incremental::decode(&encoded).expect("a step");
    let next = map.apply(&step).expect("it fits");
    let applied = start.elapsed();
    let moved = map.pgs().filter(|&pg| map.pg(pg) != next.pg(pg)).count();
    let bytes = encoded.len();
    println!("{what}: {:.2} ms for the epoch of {bytes} bytes, {moved} PGs lie elsewhere", millis(applied));
    *map = next;
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// 25 racks of 20 hosts of 20 OSDs.
fn crush() -> CrushMap {
    let mut text = String::from(
        "tunable choose_local_tries 0\ntunable choose_local_fallback_tries 0\ntunable choose_total_tries 50\n\
         tunable chooseleaf_descend_once 1\ntunable chooseleaf_vary_r 1\ntunable chooseleaf_stable 1\n",
    );
    (0..OSDS).for_each(|osd| writeln!(text, "device {osd} osd.{osd}").expect("text"));
    text.push_str("type 0 osd\ntype 1 host\ntype 3 rack\ntype 11 root\n");
    let mut bucket = |kind: &str, name: String, items: &mut dyn Iterator<Item = String>| {
        let items: String = items.map(|item| format!("item {item} weight 1.0\n")).collect();
        writeln!(text, "{kind} {name} {{ alg straw2\n{items}}}").expect("text");
    };
    for host in 0..500 {
        let mut osds = (host * 20..host * 20 + 20).map(|osd| format!("osd.{osd}"));
        bucket("host", format!("host{host}"), &mut osds);
    }
    for rack in 0..25 {
        let mut hosts = (rack * 20..rack * 20 + 20).map(|host| format!("host{host}"));
        bucket("rack", format!("rack{rack}"), &mut hosts);
    }
    bucket("root", "default".into(), &mut (0..25).map(|rack| format!("rack{rack}")));
    text.push_str("rule replicated { id 0 type replicated step take default step chooseleaf firstn 0 type host step emit }\n");
    CrushMap::parse(&text).expect("a CRUSH map")
}
