//! OSDs booting, failing, returning; pools and placement.

use super::harness::World;
use nacre_types::{Epoch, OsdId};
use nacre_wire::Packet;
use nacre_wire::messages::{OsdAlive, OsdFailure, OsdPgTemp, OsdStats, OsdStopping, PgStat, PgTempWant};
use serde_json::json;
use std::time::Duration;

fn world(hosts: &[&str]) -> World {
    let mut world = World::new(1, 1);
    world.elect();
    for host in hosts {
        world.add_osd(host);
    }
    world
}

fn say(world: &mut World, osd: u32, message: impl Into<nacre_wire::Message>) {
    let session = world.connect(&format!("osd.{osd}"), 0);
    world.send(session, Packet::new(Epoch(0), message));
    world.run(Duration::from_millis(100));
}

fn failure(reporter: u32, failed: u32, refused: bool) -> OsdFailure {
    OsdFailure { reporter, failed, failed_instance: 1, silent_ms: 4_100, recovered: false, refused }
}

fn is_up(world: &World, osd: u32) -> bool {
    world.mon(0).osdmap().is_up(OsdId(osd))
}

#[test]
fn osds_boot_into_crush_and_pools_are_placed_on_them() {
    let mut world = world(&["h1", "h2", "h3"]);
    let pool = world.ok(json!({"prefix": "osd pool create", "pool": "rbd"}));
    assert_eq!(pool["pg_num"], 64);
    let map = world.mon(0).osdmap();
    for pg in map.pgs() {
        assert_eq!(map.pg(pg).unwrap().acting.len(), 3);
    }
    let tree = world.ok(json!({"prefix": "osd tree"}));
    let names: Vec<&str> =
        tree["nodes"].as_array().unwrap().iter().map(|n| n["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "h1", "osd.0", "h2", "osd.1", "h3", "osd.2"]);
    assert_eq!(tree["nodes"][2]["crush_weight"], 1.0);
    assert_eq!(world.ok(json!({"prefix": "osd stat"}))["num_in_osds"], 3);
}

#[test]
fn osds_may_speak_to_any_monitor() {
    let mut world = World::new(3, 4);
    let leader = world.elect();
    world.run(Duration::from_secs(1));
    world.ok(json!({"prefix": "osd new", "uuid": "d"}));
    let boot = nacre_wire::messages::OsdBoot {
        osd: 0,
        uuid: "d".into(),
        instance: 5,
        address: "10.1.0.1:7000".into(),
        host: "h".into(),
        ..Default::default()
    };
    let session = world.connect("osd.0", (leader + 1) % 3);
    world.send(session, Packet::new(Epoch(0), boot.clone()));
    world.run(Duration::from_millis(300));
    assert!(world.mon(leader).osdmap().is_up(OsdId(0)));
    // But only for itself.
    world.ok(json!({"prefix": "osd new", "uuid": "e"}));
    world.send(
        session,
        Packet::new(Epoch(0), nacre_wire::messages::OsdBoot { osd: 1, uuid: "e".into(), ..boot }),
    );
    world.run(Duration::from_millis(300));
    assert!(!world.mon(leader).osdmap().is_up(OsdId(1)));
}

#[test]
fn two_hosts_must_report_silence_but_two_osds_may_report_refusal() {
    let mut world = world(&["h1", "h1", "h2", "h3"]);
    say(&mut world, 0, failure(0, 3, false));
    say(&mut world, 1, failure(1, 3, false));
    assert!(is_up(&world, 3), "both reporters are on one host");
    say(&mut world, 2, failure(2, 3, false));
    assert!(!is_up(&world, 3));

    let mut world = self::world(&["h1", "h1", "h2"]);
    say(&mut world, 0, failure(0, 2, true));
    assert!(is_up(&world, 2));
    say(&mut world, 1, failure(1, 2, true));
    assert!(!is_up(&world, 2));
}

#[test]
fn a_report_can_be_taken_back_and_must_be_about_this_run() {
    let mut world = world(&["h1", "h2", "h3"]);
    say(&mut world, 0, failure(0, 2, false));
    say(&mut world, 0, OsdFailure { recovered: true, ..failure(0, 2, false) });
    say(&mut world, 1, failure(1, 2, false));
    assert!(is_up(&world, 2));
    say(&mut world, 0, OsdFailure { failed_instance: 77, ..failure(0, 2, false) });
    assert!(is_up(&world, 2));
    // Nobody speaks for another.
    say(&mut world, 1, failure(0, 2, false));
    assert!(is_up(&world, 2));
}

#[test]
fn on_one_host_osds_are_the_domains_and_the_last_one_suffices() {
    let mut world = world(&["h", "h", "h"]);
    say(&mut world, 0, failure(0, 2, false));
    assert!(is_up(&world, 2));
    say(&mut world, 1, failure(1, 2, false));
    assert!(!is_up(&world, 2));
    say(&mut world, 0, failure(0, 1, false));
    assert!(!is_up(&world, 1), "only osd.0 is left to speak");
}

#[test]
fn a_restarted_osd_goes_down_before_it_comes_up() {
    let mut world = world(&["h1", "h2", "h3"]);
    let before = world.mon(0).osdmap().epoch();
    let uuid = world.mon(0).osdmap().osd(OsdId(1)).unwrap().uuid.clone();
    world.boot(1, "h2", &uuid, 2);
    let info = world.mon(0).osdmap().osd(OsdId(1)).unwrap();
    assert!(info.up && info.instance == 2);
    assert_eq!(info.down_at(), before.next());
    assert_eq!(info.up_from(), before.next().next());
    // Another disk under its number stays out.
    world.boot(1, "h2", "another", 3);
    assert_eq!(world.mon(0).osdmap().osd(OsdId(1)).unwrap().instance, 2);
}

#[test]
fn stopping_is_at_once_and_out_comes_later_and_in_again_with_the_boot() {
    let mut world = world(&["h1", "h2", "h3"]);
    say(&mut world, 1, OsdStopping { osd: 1, instance: 1, reason: "upgrade".into() });
    assert!(!is_up(&world, 1));
    assert!(world.mon(0).osdmap().is_in(OsdId(1)));
    let report = |world: &mut World| {
        for osd in [0, 2] {
            say(world, osd, OsdStats { osd, instance: 1, ..OsdStats::default() });
        }
    };
    for _ in 0..9 {
        report(&mut world);
        world.run(Duration::from_secs(60));
    }
    assert!(world.mon(0).osdmap().is_in(OsdId(1)));
    report(&mut world);
    world.run(Duration::from_secs(70));
    assert!(!world.mon(0).osdmap().is_in(OsdId(1)));
    let uuid = world.mon(0).osdmap().osd(OsdId(1)).unwrap().uuid.clone();
    world.boot(1, "h2", &uuid, 2);
    assert!(world.mon(0).osdmap().is_in(OsdId(1)));
}

#[test]
fn a_whole_rack_is_not_marked_out() {
    let mut world = world(&["h1", "h2", "h3", "h4"]);
    for (rack, hosts) in [("r1", ["h1", "h2"]), ("r2", ["h3", "h4"])] {
        world.ok(json!({"prefix": "osd crush add-bucket", "name": rack, "type": "rack", "location": "root=default"}));
        for host in hosts {
            world.ok(json!({"prefix": "osd crush move", "name": host, "location": {"rack": rack}}));
        }
    }
    world.ok(json!({"prefix": "config set", "who": "mon", "name": "mon_osd_down_out_interval", "value": 10}));
    for osd in [0, 1] {
        say(&mut world, osd, OsdStopping { osd, instance: 1, reason: String::new() });
    }
    world.run(Duration::from_secs(30));
    assert!(world.mon(0).osdmap().is_in(OsdId(0)) && world.mon(0).osdmap().is_in(OsdId(1)));
    say(&mut world, 2, OsdStopping { osd: 2, instance: 1, reason: String::new() });
    world.run(Duration::from_secs(30));
    assert!(!world.mon(0).osdmap().is_in(OsdId(2)), "only one host of its rack is down");
}

#[test]
fn up_thru_and_acting_sets_follow_requests_of_the_right_run() {
    let mut world = world(&["h1", "h2", "h3"]);
    world.ok(json!({"prefix": "osd pool create", "pool": "p", "pg_num": 8}));
    let map = world.mon(0).osdmap();
    let pg = map.pgs().next().unwrap();
    let acting = map.pg(pg).unwrap().acting.clone();
    let want = map.epoch();
    let primary = acting[0].0;
    say(&mut world, primary, OsdAlive { osd: primary, instance: 9, want_up_thru: want.0 });
    assert_ne!(world.mon(0).osdmap().osd(OsdId(primary)).unwrap().up_thru(), want);
    say(&mut world, primary, OsdAlive { osd: primary, instance: 1, want_up_thru: want.0 });
    assert_eq!(world.mon(0).osdmap().osd(OsdId(primary)).unwrap().up_thru(), want);

    let other = [acting[1].0, acting[0].0];
    let wants = |acting: &[u32]| vec![PgTempWant { pg: pg.as_u64(), acting: acting.to_vec() }];
    say(&mut world, other[0], OsdPgTemp { osd: other[0], wants: wants(&other) });
    assert_eq!(world.mon(0).osdmap().pg(pg).unwrap().acting, acting, "not from a replica");
    say(&mut world, primary, OsdPgTemp { osd: primary, wants: wants(&other) });
    assert_eq!(world.mon(0).osdmap().pg(pg).unwrap().acting, other.map(OsdId));
    say(&mut world, other[0], OsdPgTemp { osd: other[0], wants: wants(&[]) });
    assert_eq!(world.mon(0).osdmap().pg(pg).unwrap().acting, acting);
    assert!(world.mon(0).osdmap().pg_temp().is_empty());
}

#[test]
fn full_is_set_and_cleared_with_hysteresis_and_quotas_fill_pools() {
    let mut world = world(&["h1", "h2", "h3"]);
    world.ok(json!({"prefix": "osd pool create", "pool": "p", "pg_num": 1}));
    world.ok(json!({"prefix": "osd pool set-quota", "pool": "p", "field": "max_bytes", "val": 1000}));
    let full = |world: &mut World, permille: u64| {
        for osd in 0..3 {
            let stats =
                OsdStats { osd, instance: 1, total_bytes: 1000, used_bytes: permille, ..OsdStats::default() };
            say(world, osd, stats);
        }
        world.run(Duration::from_secs(1));
        world.mon(0).osdmap().flags().contains(nacre_maps::Flag::Full)
    };
    assert!(!full(&mut world, 949));
    assert!(full(&mut world, 950));
    assert!(full(&mut world, 945));
    assert!(!full(&mut world, 930));
    let map = world.mon(0).osdmap();
    let pg = map.pgs().next().unwrap();
    let primary = map.pg(pg).unwrap().primary().unwrap().0;
    let mut report = |bytes: u64, seq: u64| {
        let stat = PgStat {
            pg: pg.as_u64(),
            state: "active+clean".into(),
            bytes,
            reported_epoch: 100,
            reported_seq: seq,
            ..PgStat::default()
        };
        say(
            &mut world,
            primary,
            OsdStats { osd: primary, instance: 1, pgs: vec![stat], ..OsdStats::default() },
        );
        world.run(Duration::from_secs(1));
        world.mon(0).osdmap().pool_by_name("p").unwrap().1.full
    };
    assert!(report(1000, 1));
    assert!(!report(999, 2));
}

#[test]
fn a_pg_that_was_in_use_is_made_anew_only_by_order() {
    let mut world = world(&["h1", "h2", "h3"]);
    world.ok(json!({"prefix": "osd pool create", "pool": "p", "pg_num": 2}));
    let map = world.mon(0).osdmap();
    let pgs: Vec<_> = map.pgs().collect();
    let primaries: Vec<u32> = pgs.iter().map(|&pg| map.pg(pg).unwrap().primary().unwrap().0).collect();
    let report = |world: &mut World, seed: usize, state: &str, epoch: u64| {
        let (pg, osd) = (pgs[seed].as_u64(), primaries[seed]);
        let stat = PgStat { pg, state: state.into(), reported_epoch: epoch, ..PgStat::default() };
        say(world, osd, OsdStats { osd, instance: 1, pgs: vec![stat], ..OsdStats::default() });
        world.run(Duration::from_secs(1));
        world.mon(0).osdmap().pool_by_name("p").unwrap().1.clone()
    };
    let order = |world: &mut World, yes: bool| {
        let order = json!({"prefix": "osd force-create-pg", "pgid": pgs[1].to_string(), "yes": yes});
        world.command(order).code == 0
    };
    assert!(!report(&mut world, 0, "active+clean", 1).started);
    assert!(!report(&mut world, 1, "activating", 1).started);
    assert!(order(&mut world, false), "it may be made already");
    assert!(report(&mut world, 1, "active+degraded", 1).started);

    assert!(!order(&mut world, true), "it is active");
    let pool = report(&mut world, 1, "incomplete", 2);
    assert!(pool.started && !pool.may_begin(1));
    assert!(!order(&mut world, false), "it wants to be told that this is meant");
    assert!(order(&mut world, true));
    let epoch = world.mon(0).osdmap().epoch().0;
    // What was said of it under an older map is no sign that it was made.
    let pool = report(&mut world, 1, "active+clean", epoch - 1);
    assert!(pool.may_begin(1) && !pool.may_begin(0));
    assert!(!report(&mut world, 1, "active+clean", epoch).may_begin(1), "once");
}

#[test]
fn health_names_what_is_wrong() {
    let mut world = world(&["h1", "h2", "h3"]);
    world.ok(json!({"prefix": "osd pool create", "pool": "p", "pg_num": 4}));
    world.ok(json!({"prefix": "osd set", "key": "noout"}));
    say(&mut world, 1, OsdStopping { osd: 1, instance: 1, reason: String::new() });
    world.run(Duration::from_secs(11));
    let health = world.ok(json!({"prefix": "health", "detail": true}));
    let codes: Vec<&String> = health["checks"].as_object().unwrap().keys().collect();
    assert_eq!(codes, ["OSDMAP_FLAGS", "OSD_DOWN", "OSD_HOST_DOWN", "PG_AVAILABILITY"]);
    assert_eq!(health["status"], "HEALTH_WARN");
    assert!(health["checks"]["OSD_DOWN"]["detail"][0]["message"].as_str().unwrap().contains("osd.1"));
}
