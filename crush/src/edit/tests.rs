//! Edits: what they change, what they refuse, and that a refused one changes nothing.

use nacre_types::Rng;

use super::*;
use crate::mapper::Scratch;

fn at(levels: &[(&str, &str)]) -> Location {
    levels.iter().map(|(level, name)| ((*level).into(), (*name).into())).collect()
}

fn host(name: &str) -> Location {
    at(&[("host", name), ("root", "default")])
}

fn three_hosts() -> CrushMap {
    let mut map = CrushMap::initial();
    for osd in 0..6 {
        assert_eq!(map.add_osd(osd, 2.0, Some("hdd"), &host(&format!("node{}", osd / 2))), Ok(true));
    }
    map
}

fn weight_in(map: &CrushMap, parent: &str, item: &str) -> Option<f64> {
    let id = map.item_id(item)?;
    let item = map.bucket_by_name(parent)?.items.iter().find(|item| item.id == id)?;
    Some(f64::from(item.weight) / 65_536.0)
}

#[test]
fn a_new_cluster_fills_and_maps() {
    let map = three_hosts();
    assert_eq!(weight_in(&map, "default", "node1"), Some(4.0));
    let compiled = map.compile().unwrap();
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    for x in 0..200 {
        compiled.map(0, x, 3, &[0x1_0000; 6], &mut scratch, &mut out);
        let mut hosts: Vec<i32> = out.iter().map(|osd| osd / 2).collect();
        hosts.sort_unstable();
        assert_eq!(hosts, [0, 1, 2], "{out:?}");
    }
    assert_eq!(CrushMap::parse(&map.to_text()).as_ref(), Ok(&map));
}

#[test]
fn adding_again_changes_nothing_and_elsewhere_moves() {
    let mut map = three_hosts();
    map.reweight_item("osd.3", 1.5).unwrap();
    let before = map.clone();
    assert_eq!(map.add_osd(3, 9.0, Some("ssd"), &host("node1")), Ok(false));
    assert_eq!(map, before);
    assert_eq!(
        map.add_osd(3, 9.0, None, &at(&[("host", "node7"), ("rack", "r1"), ("root", "default")])),
        Ok(true)
    );
    assert_eq!(weight_in(&map, "node7", "osd.3"), Some(1.5), "the weight moves along");
    assert_eq!(weight_in(&map, "node1", "osd.3"), None);
    assert_eq!(weight_in(&map, "default", "node1"), Some(2.0));
    assert_eq!(weight_in(&map, "default", "r1"), Some(1.5));
    assert_eq!(map.device(3).unwrap().class.as_deref(), Some("hdd"));
}

#[test]
fn buckets_move_with_their_weight() {
    let mut map = three_hosts();
    map.move_bucket("node2", &at(&[("rack", "r1"), ("root", "default")])).unwrap();
    assert_eq!(weight_in(&map, "r1", "node2"), Some(4.0));
    assert_eq!(weight_in(&map, "default", "r1"), Some(4.0));
    assert_eq!(weight_in(&map, "default", "node2"), None);
    map.add_bucket("r2", "rack", &at(&[("root", "default")])).unwrap();
    map.move_bucket("node2", &at(&[("rack", "r2")])).unwrap();
    assert_eq!(weight_in(&map, "default", "r1"), Some(0.0));
    map.remove_item("r1").unwrap();
    assert_eq!(map.item_id("r1"), None);
    map.add_bucket("row1", "row", &at(&[("rack", "r2"), ("root", "default")])).unwrap();
    map.move_bucket("r2", &at(&[("row", "row1")])).unwrap();
    let inside = map.clone().move_bucket("row1", &at(&[("root", "default"), ("host", "node2")]));
    assert_eq!(inside, Ok(()), "levels below its own do not concern it");
}

#[test]
fn removal_needs_an_empty_unused_item() {
    let mut map = three_hosts();
    let name = || String::from("node0");
    assert_eq!(map.remove_item("node0"), Err(EditError::NotEmpty { name: name(), items: 2 }));
    map.remove_item("osd.0").unwrap();
    map.remove_item("osd.1").unwrap();
    map.remove_item("node0").unwrap();
    assert_eq!(map.remove_item("node0"), Err(EditError::NoItem { name: name() }));
    let mut empty = CrushMap::initial();
    let (name, rule) = ("default".into(), "replicated_rule".into());
    assert_eq!(empty.remove_item("default"), Err(EditError::InUse { name, rule }));
    empty.remove_rule("replicated_rule").unwrap();
    empty.remove_item("default").unwrap();
}

#[test]
fn rules_of_a_class_keep_their_shadows() {
    let mut map = three_hosts();
    let no_ssd = map.create_replicated_rule("fast", "default", "host", Some("ssd"));
    assert!(matches!(no_ssd, Err(EditError::NoClass { .. })));
    for osd in [0, 2, 4] {
        map.set_device_class(osd, Some("ssd")).unwrap();
    }
    assert_eq!(map.create_replicated_rule("fast", "default", "host", Some("ssd")), Ok(1));
    assert_eq!(map.create_replicated_rule("wide", "default", "osd", None), Ok(2));
    let shadow = map.bucket(-1).unwrap().shadows["ssd"];
    map.add_osd(6, 1.0, Some("nvme"), &host("node3")).unwrap();
    for osd in [0, 2, 4] {
        map.set_device_class(osd, None).unwrap();
    }
    assert_eq!(map.bucket(-1).unwrap().shadows["ssd"], shadow, "kept as long as a rule takes it");
    map.set_device_class(1, Some("ssd")).unwrap();
    let (mut scratch, mut out) = (Scratch::new(), Vec::new());
    map.compile().unwrap().map(1, 5, 3, &[0x1_0000; 7], &mut scratch, &mut out);
    assert_eq!(out, [1]);
    map.remove_rule("fast").unwrap();
    map.set_device_class(1, None).unwrap();
    assert!(!map.bucket(-1).unwrap().shadows.contains_key("ssd"));
    assert_eq!(map.create_replicated_rule("again", "default", "host", None), Ok(1), "the lowest free id");
}

#[test]
fn refused_edits_name_the_cause_and_change_nothing() {
    let mut map = three_hosts();
    let before = map.clone();
    let errors = [
        map.add_osd(9, -1.0, None, &host("a")).map(drop),
        map.add_osd(9, f64::NAN, None, &host("a")).map(drop),
        map.add_osd(9, 40_000.0, None, &host("a")).map(drop),
        map.add_osd(9, 1.0, None, &Location::new()).map(drop),
        map.add_osd(9, 1.0, None, &at(&[("shelf", "a")])).map(drop),
        map.add_osd(9, 1.0, None, &at(&[("rack", "node1")])).map(drop),
        map.add_osd(9, 1.0, None, &at(&[("host", "osd.1")])).map(drop),
        map.add_osd(9, 1.0, None, &at(&[("host", "no spaces")])).map(drop),
        map.add_osd(9, 1.0, Some("no spaces"), &host("a")).map(drop),
        map.add_osd(5_000_000, 1.0, None, &host("a")).map(drop),
        map.add_osd(u32::MAX, 1.0, None, &host("a")).map(drop),
        map.add_bucket("node1", "host", &Location::new()),
        map.move_bucket("osd.1", &host("a")),
        map.move_bucket("default", &Location::new()),
        map.reweight_item("node1", 1.0),
        map.reweight_item("nobody", 1.0),
        map.set_device_class(99, None),
        map.create_replicated_rule("replicated_rule", "default", "host", None).map(drop),
        map.create_replicated_rule("r", "default", "shelf", None).map(drop),
        map.create_replicated_rule("r", "osd.1", "host", None).map(drop),
        map.remove_rule("r"),
    ];
    for (at, error) in errors.into_iter().enumerate() {
        let error = error.expect_err(&format!("case {at}"));
        assert!(error.to_string().len() > 20, "{error}");
    }
    assert_eq!(map, before);
}

#[test]
fn any_sequence_of_edits_leaves_a_sound_map() {
    for seed in 0..30 {
        let mut rng = Rng::new(seed);
        let mut map = CrushMap::initial();
        for _ in 0..60 {
            let pick = |rng: &mut Rng, from: &[&str]| String::from(*rng.pick(from).unwrap());
            let names = ["node0", "node1", "r0", "r1", "row0", "default", "other", "osd.1", "osd.2"];
            let levels =
                [("host", "node0"), ("host", "node1"), ("rack", "r0"), ("rack", "r1"), ("row", "row0")];
            let mut location = Location::new();
            for (level, name) in levels.into_iter().chain([("root", "default"), ("root", "other")]) {
                if rng.chance(1, 3) {
                    location.insert(level.into(), name.into());
                }
            }
            let class = pick(&mut rng, &["hdd", "ssd"]);
            let class = Some(class.as_str()).filter(|_| rng.chance(2, 3));
            let (osd, name) = (rng.below(8) as u32, pick(&mut rng, &names));
            let weight = rng.below(4_000) as f64 / 1_000.0;
            // Refusals are fine; an unsound map is not.
            let _ = match rng.below(7) {
                0 | 1 => map.add_osd(osd, weight, class, &location).map(drop),
                2 => map.move_bucket(&name, &location),
                3 => map.remove_item(&name),
                4 => map.reweight_item(&format!("osd.{osd}"), weight),
                5 => map.set_device_class(osd, class),
                _ => map.create_replicated_rule(&format!("r{osd}"), "default", "host", class).map(drop),
            };
            assert_eq!(map.check(), Ok(()));
            assert!(map.compile().is_ok());
            for parent in map.buckets() {
                for item in parent.items.iter().filter(|item| item.id < 0) {
                    assert_eq!(item.weight, map.bucket(item.id).unwrap().weight(), "seed {seed}");
                }
            }
        }
        assert_eq!(CrushMap::parse(&map.to_text()).as_ref(), Ok(&map), "seed {seed}\n{}", map.to_text());
    }
}
