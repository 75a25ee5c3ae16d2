//! Prints mappings per second on 1,000 OSDs in 3 levels (10 racks of 10 hosts of 10), 3 replicas on different hosts:
//! `cargo run --release -p nacre-crush --example speed`. Once with equal weights, once with every weight different,
//! once with a tenth of the OSDs reweighted. Then how long all 100,000 PGs of a cluster of 10,000 OSDs take (25 racks of
//! 20 hosts of 20), and how many of them move when one OSD goes out: an osdmap computes them all again then.

#![expect(clippy::disallowed_methods, reason = "measuring is what it is for")]

use std::fmt::Write;
use std::time::Instant;

use nacre_crush::{Compiled, CrushMap, Scratch, WEIGHT_ONE, pg_to_x};

fn main() {
    let equal = vec![WEIGHT_ONE; 1_000];
    let reweighted: Vec<u32> =
        (0..1_000).map(|osd| if osd % 10 == 3 { WEIGHT_ONE / 2 } else { WEIGHT_ONE }).collect();
    measure("equal weights", &text([10, 10, 10], |_| 1.0), &equal);
    measure(
        "all weights different",
        &text([10, 10, 10], |osd| 1.0 + f64::from(osd * 7 % 1_000) / 1_000.0),
        &equal,
    );
    measure("a tenth reweighted", &text([10, 10, 10], |_| 1.0), &reweighted);
    whole_cluster();
}

fn compile(text: &str) -> Compiled {
    CrushMap::parse(text).expect("its own text").compile().expect("its own map")
}

fn measure(what: &str, text: &str, osd_weights: &[u32]) {
    let map = compile(text);
    let (mut scratch, mut out, mut sum) = (Scratch::new(), Vec::new(), 0_u64);
    let inputs = 200_000;
    let mut best = 0.0_f64;
    for _ in 0..5 {
        let start = Instant::now();
        for x in 0..inputs {
            map.map(0, x, 3, osd_weights, &mut scratch, &mut out);
            sum += out.iter().map(|&osd| osd as u64).sum::<u64>();
        }
        best = best.max(f64::from(inputs) / start.elapsed().as_secs_f64());
    }
    println!("{what}: {best:.0} mappings/s (checksum {sum:x})");
}

fn whole_cluster() {
    let map = compile(&text([25, 20, 20], |osd| 1.0 + f64::from(osd % 7) / 10.0));
    let mut weights = vec![WEIGHT_ONE; 10_000];
    let before = place_all(&map, &weights, "all in");
    weights[4_321] = 0;
    let after = place_all(&map, &weights, "one OSD out");
    let moved = before.chunks(3).zip(after.chunks(3)).filter(|(before, after)| before != after).count();
    println!("{moved} PGs move");
}

/// Places 100,000 PGs: the best time of five.
fn place_all(map: &Compiled, weights: &[u32], what: &str) -> Vec<i32> {
    let (mut scratch, mut out, mut all) = (Scratch::new(), Vec::new(), Vec::new());
    let mut best_s = f64::MAX;
    for _ in 0..5 {
        all.clear();
        let start = Instant::now();
        for seed in 0..100_000 {
            map.map(0, pg_to_x(1, seed, 100_000), 3, weights, &mut scratch, &mut out);
            all.extend_from_slice(&out);
        }
        best_s = best_s.min(start.elapsed().as_secs_f64());
    }
    println!("100,000 PGs on 10,000 OSDs, {what}: {:.0} ms", best_s * 1e3);
    all
}

/// A map of so many racks, of so many hosts each, of so many OSDs each, with the given device weights.
fn text([racks, hosts, width]: [u32; 3], weight: impl Fn(u32) -> f64) -> String {
    let (hosts_all, osds) = (racks * hosts, racks * hosts * width);
    let mut text = String::from(
        "tunable choose_local_tries 0\ntunable choose_local_fallback_tries 0\ntunable choose_total_tries 50\n\
         tunable chooseleaf_descend_once 1\ntunable chooseleaf_vary_r 1\ntunable chooseleaf_stable 1\n\
         type 0 osd\ntype 1 host\ntype 3 rack\ntype 11 root\n",
    );
    (0..osds).for_each(|osd| writeln!(text, "device {osd} osd.{osd}").unwrap());
    for host in 0..hosts_all {
        writeln!(text, "host host{host} {{ alg straw2").unwrap();
        for osd in host * width..(host + 1) * width {
            writeln!(text, "item osd.{osd} weight {:.3}", weight(osd)).unwrap();
        }
        text.push_str("}\n");
    }
    for rack in 0..racks {
        writeln!(text, "rack rack{rack} {{ alg straw2").unwrap();
        (rack * hosts..(rack + 1) * hosts).for_each(|host| writeln!(text, "item host{host}").unwrap());
        text.push_str("}\n");
    }
    text.push_str("root default { alg straw2\n");
    (0..racks).for_each(|rack| writeln!(text, "item rack{rack}").unwrap());
    text.push_str("}\nrule replicated { id 0 type replicated step take default step chooseleaf firstn 0 type host step emit }\n");
    text
}
