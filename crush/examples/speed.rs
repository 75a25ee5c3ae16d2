//! Prints mappings per second on 1,000 OSDs in 3 levels (10 racks of 10 hosts of 10), 3 replicas on different hosts:
//! `cargo run --release -p nacre-crush --example speed`. Once with equal weights, once with every weight different,
//! once with a tenth of the OSDs reweighted.

#![expect(clippy::disallowed_methods, reason = "measuring is what it is for")]

use std::fmt::Write;
use std::time::Instant;

use nacre_crush::{CrushMap, Scratch, WEIGHT_ONE};

fn main() {
    let equal = vec![WEIGHT_ONE; 1_000];
    let reweighted: Vec<u32> =
        (0..1_000).map(|osd| if osd % 10 == 3 { WEIGHT_ONE / 2 } else { WEIGHT_ONE }).collect();
    measure("equal weights", &text(|_| 1.0), &equal);
    measure("all weights different", &text(|osd| 1.0 + f64::from(osd * 7 % 1_000) / 1_000.0), &equal);
    measure("a tenth reweighted", &text(|_| 1.0), &reweighted);
}

fn measure(what: &str, text: &str, osd_weights: &[u32]) {
    let map = CrushMap::parse(text).map(|map| map.compile().map_err(|error| error.to_string())).expect(what);
    let map = map.expect(what);
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

/// A map of 10 x 10 x 10 with the given device weights.
fn text(weight: impl Fn(u32) -> f64) -> String {
    let mut text = String::from(
        "tunable choose_local_tries 0\ntunable choose_local_fallback_tries 0\ntunable choose_total_tries 50\n\
         tunable chooseleaf_descend_once 1\ntunable chooseleaf_vary_r 1\ntunable chooseleaf_stable 1\n\
         type 0 osd\ntype 1 host\ntype 3 rack\ntype 11 root\n",
    );
    (0..1_000).for_each(|osd| writeln!(text, "device {osd} osd.{osd}").unwrap());
    for host in 0..100 {
        writeln!(text, "host host{host} {{ alg straw2").unwrap();
        for osd in host * 10..host * 10 + 10 {
            writeln!(text, "item osd.{osd} weight {:.3}", weight(osd)).unwrap();
        }
        text.push_str("}\n");
    }
    for rack in 0..10 {
        writeln!(text, "rack rack{rack} {{ alg straw2").unwrap();
        (rack * 10..rack * 10 + 10).for_each(|host| writeln!(text, "item host{host}").unwrap());
        text.push_str("}\n");
    }
    text.push_str("root default { alg straw2\n");
    (0..10).for_each(|rack| writeln!(text, "item rack{rack}").unwrap());
    text.push_str("}\nrule replicated { id 0 type replicated step take default step chooseleaf firstn 0 type host step emit }\n");
    text
}
