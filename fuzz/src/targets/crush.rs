//! The text form of CRUSH maps.

use nacre_crush::{CrushMap, Scratch};

/// Three OSDs on two hosts.
pub const SMALL: &str = "\
tunable choose_local_tries 0
tunable choose_local_fallback_tries 0
tunable choose_total_tries 50
tunable chooseleaf_descend_once 1
tunable chooseleaf_vary_r 1
tunable chooseleaf_stable 1
device 0 osd.0 class ssd
device 1 osd.1
device 2 osd.2 class hdd
type 0 osd
type 1 host
type 2 root
host a {
 id -2
 alg straw2
 hash 0
 item osd.0 weight 1.0
 item osd.1 weight 2.0
}
host b {
 id -3
 alg uniform
 hash 0
 item osd.2 weight 1.0
}
root default {
 id -1
 alg straw2
 hash 0
 item a weight 3.0
 item b weight 1.0
}
rule r {
 id 0
 type replicated
 step take default
 step chooseleaf firstn 0 type osd
 step emit
}
rule e {
 id 1
 type erasure
 step set_chooseleaf_tries 5
 step take default class ssd
 step choose indep 0 type osd
 step emit
}
";

/// What parses prints to what parses to the same, compiles or says why not, maps within bounds, and can be edited.
pub fn text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let Ok(map) = CrushMap::parse(text) else { return };
    assert_eq!(CrushMap::parse(&map.to_text()).as_ref(), Ok(&map));
    if let Ok(compiled) = map.compile() {
        let (mut scratch, mut out) = (Scratch::new(), Vec::new());
        let weights = [0x1_0000; 4];
        for rule in compiled.rules().take(8) {
            for (x, wanted) in [(0, 3), (7, 0), (u32::MAX, 5)] {
                out.clear();
                compiled.map(rule, x, wanted, &weights, &mut scratch, &mut out);
                assert!(out.len() <= wanted);
            }
        }
    }
    let mut edited = map.clone();
    let first = map.buckets().next().map(|bucket| bucket.name.clone());
    if let Some(name) = first {
        let _ = edited.create_replicated_rule("fuzzed", &name, "osd", None);
        let _ = edited.set_device_class(0, Some("nvme"));
        let _ = edited.remove_rule("fuzzed");
        assert!(edited.check().is_ok(), "edits keep a map sound");
    }
}

pub fn text_seeds() -> Vec<Vec<u8>> {
    let list = SMALL.replace("alg uniform", "alg list");
    vec![SMALL.as_bytes().to_vec(), list.into_bytes(), CrushMap::initial().to_text().into_bytes()]
}
