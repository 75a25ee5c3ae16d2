//! Arbitrary and mutated text: parsing never panics, and what it accepts prints, compiles and maps in bounded time.

mod support;

use std::fmt::Write;

use nacre_crush::{CrushMap, Scratch};
use nacre_types::Rng;
use support::random_map;

/// Whatever was accepted can be used.
fn exercise(text: &str) -> bool {
    let Ok(map) = CrushMap::parse(text) else { return false };
    assert_eq!(CrushMap::parse(&map.to_text()).as_ref(), Ok(&map), "{text}");
    if let Ok(compiled) = map.compile() {
        let (mut scratch, mut out) = (Scratch::new(), Vec::new());
        let weights = vec![0x1_0000; compiled.max_devices().min(1_000) as usize / 2];
        for (rule, num_rep) in compiled.rules().flat_map(|rule| [(rule, 3), (rule, 0), (rule, usize::MAX)]) {
            for x in [0, 1, u32::MAX] {
                compiled.map(rule, x, num_rep, &weights, &mut scratch, &mut out);
                assert!(out.len() <= num_rep);
            }
        }
    }
    true
}

#[test]
fn arbitrary_bytes_are_refused_calmly() {
    let mut rng = Rng::new(1);
    for _ in 0..20_000 {
        let mut bytes = vec![0; rng.below(80) as usize];
        rng.fill(&mut bytes);
        exercise(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn arbitrary_words_are_refused_calmly() {
    let words: Vec<&str> = "tunable device type rule choose_args { } [ ] id alg straw2 list uniform hash item weight pos \
        step take choose chooseleaf firstn indep emit set_choose_tries set_chooseleaf_vary_r choose_total_tries \
        class root host osd a b c 0 1 2 -1 -2 3 4294967295 -2147483648 2147483647 1e9 0.5 nan inf 99999999999999999999 # \n \
        replicated erasure min_size max_size ü"
        .split(' ')
        .collect();
    let mut rng = Rng::new(2);
    for _ in 0..20_000 {
        let mut text = String::from("device 0 a type 0 osd type 1 host host b { id -1 alg straw2 item a } ");
        for _ in 0..rng.below(40) {
            write!(text, "{} ", rng.pick(&words).unwrap()).unwrap();
        }
        exercise(&text);
    }
}

#[test]
fn mutated_maps_parse_or_are_refused() {
    let (mut rng, mut accepted) = (Rng::new(3), 0);
    for _ in 0..400 {
        let text = random_map(&mut rng).0;
        let words: Vec<&str> = text.split_inclusive(char::is_whitespace).collect();
        for _ in 0..4 {
            let mut words = words.clone();
            for _ in 0..rng.range(1, 4) {
                let (at, other) = (rng.below(words.len() as u64) as usize, *rng.pick(&words).unwrap());
                match rng.below(4) {
                    0 => drop(words.remove(at)),
                    1 => words[at] = other,
                    2 => words.insert(at, other),
                    _ => {
                        words[at] =
                            ["4294967295 ", "-1 ", "0 ", "32767 ", "} ", "10000 "][rng.below(6) as usize]
                    }
                }
            }
            accepted += u32::from(exercise(&words.concat()));
        }
    }
    assert!(accepted > 50, "{accepted}: mutations should leave some maps whole");
}

/// Every setting at its bound and nothing that could be placed: ends in a fraction of a second, without the work
/// limit in years.
#[test]
fn the_most_costly_map_ends() {
    let mut text = String::from(
        "tunable choose_local_tries 10000\ntunable choose_local_fallback_tries 10000\ntunable choose_total_tries 10000\n\
         type 0 osd\ntype 1 host\ntype 2 root\n",
    );
    (0..20_000).for_each(|osd| writeln!(text, "device {osd} osd.{osd}").unwrap());
    for (name, alg) in [("a", "straw2"), ("b", "uniform"), ("c", "list")] {
        writeln!(text, "host {name} {{ alg {alg}").unwrap();
        (0..20_000).for_each(|osd| writeln!(text, "item osd.{osd}").unwrap());
        text.push_str("}\n");
    }
    text.push_str("root top { alg straw2 item a item b item c }\n");
    for (id, (take, mode)) in
        [("a", "firstn"), ("b", "firstn"), ("c", "firstn"), ("a", "indep"), ("b", "indep"), ("top", "firstn")]
            .into_iter()
            .enumerate()
    {
        writeln!(text, "rule r{id} {{ id {id} step set_choose_tries 10000 step set_chooseleaf_tries 10000")
            .unwrap();
        for _ in 0..24 {
            writeln!(text, "step take {take} step chooseleaf {mode} 0 type osd step emit").unwrap();
        }
        text.push_str("}\n");
    }
    let compiled = CrushMap::parse(&text).unwrap().compile().unwrap();
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    for rule in compiled.rules() {
        compiled.map(rule, 7, 256, &[], &mut scratch, &mut out);
        assert!(out.len() <= 256);
    }
}

/// 2^32 ways lead from the top to the device. Nothing may walk them all.
#[test]
fn buckets_with_many_parents_cost_no_more() {
    let mut text = String::from("device 0 osd.0 class ssd\ntype 0 osd\ntype 1 node\n");
    text.push_str("node a0 { alg straw2 item osd.0 weight 0.00002 }\nnode b0 { alg straw2 item osd.0 weight 0.00002 }\n");
    for level in 1..32 {
        for side in ["a", "b"] {
            let below = level - 1;
            writeln!(
                text,
                "node {side}{level} {{ alg straw2 item a{below} weight 1 item b{below} weight 1 }}"
            )
            .unwrap();
        }
    }
    text.push_str("rule r { id 0 step take a31 class ssd step chooseleaf firstn 0 type osd step emit }\n");
    assert!(exercise(&text));
    let mut map = CrushMap::parse(&text).unwrap();
    map.set_device_class(0, Some("hdd")).unwrap();
    assert!(map.create_replicated_rule("r2", "a31", "osd", Some("nvme")).is_err());
    map.remove_rule("r").unwrap();
}

#[test]
fn many_buckets_without_ids_parse_quickly() {
    let mut text = String::from("type 0 osd\ntype 1 host\n");
    (0..50_000).for_each(|host| writeln!(text, "host h{host} {{ alg straw2 }}").unwrap());
    assert!(exercise(&text));
}
