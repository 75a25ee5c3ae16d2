//! Forming a quorum, losing and changing it.

use super::harness::World;
use nacre_wire::ErrorCode;
use nacre_wire::Packet;
use nacre_wire::messages::Subscribe;
use serde_json::json;
use std::time::Duration;

#[test]
fn one_monitor_leads_at_once_and_remembers_after_a_restart() {
    let mut world = World::new(1, 1);
    world.run(Duration::from_millis(200));
    assert_eq!(world.leader(), Some(0));
    world.ok(json!({"prefix": "osd pool create", "pool": "rbd"}));
    let epoch = world.mon(0).osdmap().epoch();
    world.crash(0);
    world.start(0);
    world.elect();
    world.run(Duration::from_millis(500));
    assert_eq!(world.mon(0).osdmap().epoch(), epoch);
    assert!(world.mon(0).osdmap().pool_by_name("rbd").is_some());
}

#[test]
fn three_monitors_elect_quickly_and_followers_answer() {
    for seed in 0..10 {
        let mut world = World::new(3, seed);
        let start = world.now;
        let leader = world.elect();
        assert!(world.now.since(start) < Duration::from_secs(3));
        for mon in 0..3 {
            let reply = world.command_at(
                mon,
                json!({"prefix": "config set", "who": "osd", "name": "osd_max_backfills", "value": mon + 1}),
            );
            assert_eq!(reply.code, 0, "{}", reply.message);
            let status = world.command_at(mon, json!({"prefix": "quorum_status"}));
            let status: serde_json::Value = serde_json::from_str(&status.json).unwrap();
            assert_eq!(status["quorum_names"], json!(["a", "b", "c"]));
            assert_eq!(status["quorum_leader_name"], super::harness::letter(leader));
        }
        world.settle();
    }
}

#[test]
fn a_new_leader_answers_within_five_seconds() {
    for seed in 0..20 {
        let mut world = World::new(3, seed);
        let old = world.elect();
        world.run(Duration::from_secs(1));
        world.crash(old);
        let start = world.now;
        let other = (old + 1) % 3;
        let reply = world.command_at(other, json!({"prefix": "osd pool create", "pool": "p"}));
        assert_eq!(reply.code, 0, "{}", reply.message);
        assert!(world.now.since(start) < Duration::from_secs(5));
    }
}

#[test]
fn without_quorum_a_command_is_told_who_is_missing() {
    let mut world = World::new(3, 3);
    world.elect();
    world.crash(1);
    world.crash(2);
    world.run(Duration::from_secs(4));
    let start = world.now;
    let reply = world.command_at(0, json!({"prefix": "status"}));
    assert_eq!(reply.code, ErrorCode::NoQuorum as i32);
    assert!(reply.message.contains("mon.b, mon.c do not answer"), "{}", reply.message);
    let old: serde_json::Value = serde_json::from_str(&reply.json).unwrap();
    assert_eq!(old["monmap"]["num_mons"], 3);
    assert!(world.now.since(start) <= Duration::from_millis(5_200));
}

#[test]
fn a_deposed_leader_does_not_answer_reads() {
    let mut world = World::new(5, 5);
    let old = world.elect();
    let session = world.connect("client.admin", old);
    world.isolate(old);
    let request = world.request(session);
    world.ask(session, request, &json!({"prefix": "osd pool ls"}), b"");
    world.run(Duration::from_secs(8));
    let replies = world.replies(session);
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].1.code, ErrorCode::NoQuorum as i32);
}

#[test]
fn a_follower_far_behind_gets_a_checkpoint() {
    let mut world = World::new(3, 7);
    let leader = world.elect();
    let behind = (leader + 1) % 3;
    world.crash(behind);
    // More entries than are kept behind a checkpoint.
    for at in 0..1_700 {
        let session = world.connect("client.admin", leader);
        let request = world.request(session);
        world.ask(session, request, &json!({"prefix": "log", "text": format!("line {at}")}), b"");
        world.run(Duration::from_millis(40));
        world.clients.remove(&session);
    }
    world.start(behind);
    world.run(Duration::from_secs(5));
    assert!(world.logs.iter().any(|line| line.contains("took over the state")), "{:#?}", world.logs);
    world.settle();
}

#[test]
fn monitors_join_and_leave() {
    let mut world = World::new(1, 9);
    world.elect();
    for (name, address) in [("b", "10.0.0.2:6789"), ("c", "10.0.0.3:6789")] {
        world.ok(json!({"prefix": "mon add", "name": name, "address": address}));
        // One that does not run yet costs nothing.
        world.ok(json!({"prefix": "config set", "who": "global", "name": "mon_allow_pool_delete", "value": "true"}));
        let monmap = world.mon(0).monmap().clone();
        let at = world.join(&monmap);
        world.start(at);
        world.run(Duration::from_secs(3));
        let status = world.ok(json!({"prefix": "quorum_status"}));
        assert_eq!(status["learners"], json!([]), "{:#?}", world.logs);
    }
    assert_eq!(world.ok(json!({"prefix": "mon stat"}))["quorum"], json!(["a", "b", "c"]));
    world.settle();
    // The leader may be taken out too: another leads then.
    let leader = world.elect();
    let name = super::harness::letter(leader);
    let reply = world.command_at((leader + 1) % 3, json!({"prefix": "mon rm", "name": name}));
    assert_eq!(reply.code, 0, "{}", reply.message);
    world.crash(leader);
    world.run(Duration::from_secs(3));
    let stat = world.ok(json!({"prefix": "mon stat"}));
    assert_eq!(stat["num_mons"], 2);
    // Back with its old store, it disturbs nobody.
    let term = world.mon(world.leader().unwrap()).term();
    world.start(leader);
    world.run(Duration::from_secs(10));
    assert_eq!(world.mon((leader + 1) % 3).term(), term);
    assert!(!world.mon(leader).is_leader());
}

#[test]
fn all_monitors_are_replaced_one_by_one() {
    let mut world = World::new(3, 21);
    world.elect();
    let session = world.connect("osd.0", 0);
    world.ok(json!({"prefix": "osd new", "uuid": "d"}));
    for old in 0..3 {
        let new = world.mons();
        let name = super::harness::letter(new);
        let address = format!("10.0.0.{}:6789", new + 1);
        world.ok(json!({"prefix": "mon add", "name": name, "address": address}));
        let leader = world.elect();
        let monmap = world.mon(leader).monmap().clone();
        assert_eq!(world.join(&monmap), new);
        world.start(new);
        world.run(Duration::from_secs(3));
        // Through a monitor that stays.
        let reply = world.command_at(new, json!({"prefix": "mon rm", "name": super::harness::letter(old)}));
        assert_eq!(reply.code, 0, "{}: {:#?}", reply.message, world.logs);
        world.run(Duration::from_secs(1));
        world.crash(old);
        world.run(Duration::from_secs(3));
    }
    world.clients.remove(&session);
    let stat = world.ok(json!({"prefix": "mon stat"}));
    assert_eq!((&stat["num_mons"], &stat["quorum"]), (&json!(3), &json!(["d", "e", "f"])));
    assert!(world.mon(3).osdmap().osd(nacre_types::OsdId(0)).is_some());
    let hashes: Vec<_> = (3..6).map(|at| world.mon(at).applied()).collect();
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
}

#[test]
fn a_resent_command_takes_effect_once() {
    let mut world = World::new(3, 11);
    let leader = world.elect();
    world.ok(json!({"prefix": "osd pool create", "pool": "p"}));
    let session = world.connect("client.admin", (leader + 1) % 3);
    let request = world.request(session);
    let create = json!({"prefix": "selfmanaged-snap create", "pool": "p"});
    for _ in 0..3 {
        world.ask(session, request, &create, b"");
        world.run(Duration::from_millis(30));
    }
    world.run(Duration::from_secs(1));
    let session2 = world.connect("client.admin", leader);
    world.ask(session2, request, &create, b"");
    world.run(Duration::from_secs(1));
    let replies: Vec<String> =
        [session, session2].into_iter().flat_map(|s| world.replies(s)).map(|(_, reply)| reply.json).collect();
    assert!(replies.len() >= 2 && replies.iter().all(|json| json == "{\"snapid\":1}"), "{replies:?}");
}

#[test]
fn subscribers_get_maps_as_they_change() {
    let mut world = World::new(3, 13);
    let leader = world.elect();
    let follower = (leader + 1) % 3;
    world.run(Duration::from_secs(1));
    let session = world.connect("client.admin", follower);
    world.send(session, Packet::new(nacre_types::Epoch(0), Subscribe::default()));
    let first = world.maps(session);
    assert_eq!(first.len(), 1);
    assert!(first[0].osdmap.is_some() && first[0].monmap.is_some() && first[0].authmap.is_none());
    let mut map = nacre_maps::OsdMap::decode(first[0].osdmap.as_ref().unwrap()).unwrap();
    for name in ["x", "y", "z"] {
        world.ok(json!({"prefix": "osd pool create", "pool": name}));
    }
    world.run(Duration::from_millis(500));
    for maps in world.maps(session) {
        assert!(maps.osdmap.is_none());
        for step in &maps.incrementals {
            map = map.apply(&nacre_maps::Incremental::decode(step).unwrap()).unwrap();
        }
    }
    assert_eq!(map.hash(), world.mon(leader).osdmap().hash());
    assert_eq!(map.pools().count(), 3);
}

#[test]
fn a_damaged_store_does_not_open() {
    let mut world = World::new(1, 15);
    world.elect();
    world.ok(json!({"prefix": "osd pool create", "pool": "p"}));
    world.run(Duration::from_secs(1));
    let good = world.records(0);
    let open = |records: Vec<(Vec<u8>, bytes::Bytes)>| {
        let config = crate::MonConfig::new("a", super::harness::FSID, 1);
        crate::Mon::open(config, records, nacre_types::Instant::ZERO).map(|_| ())
    };
    assert!(open(good.clone()).is_ok());
    assert_eq!(open(Vec::new()), Err(crate::OpenError::Empty));
    for at in 0..good.len() {
        let mut bad = good.clone();
        let mut value = bad[at].1.to_vec();
        let byte = value.len() / 2;
        value[byte] ^= 4;
        bad[at].1 = value.into();
        assert!(matches!(open(bad), Err(crate::OpenError::Corrupt { .. })), "record {at}");
    }
    // A hole in the log, and a committed end that is gone.
    let log: Vec<usize> = (0..good.len()).filter(|&at| good[at].0.starts_with(b"log/")).collect();
    for at in [log[0], log[log.len() - 2]] {
        let mut bad = good.clone();
        bad.remove(at);
        assert!(open(bad).is_err());
    }
    let other = crate::MonConfig::new("a", "another", 1);
    let error = crate::Mon::open(other, good, nacre_types::Instant::ZERO).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("cluster"), "{error}");
}

#[test]
fn a_monitor_whose_store_was_put_back_takes_no_part() {
    let mut world = World::new(3, 17);
    let leader = world.elect();
    let wiped = (leader + 1) % 3;
    let old = world.records(wiped);
    for name in ["x", "y", "z"] {
        world.ok(json!({"prefix": "osd pool create", "pool": name}));
    }
    world.run(Duration::from_secs(1));
    world.crash(wiped);
    world.put_back(wiped, old);
    world.start(wiped);
    world.run(Duration::from_secs(3));
    assert!(world.logs.iter().any(|line| line.contains("takes no part")), "{:#?}", world.logs);
    // With the leader gone there is no majority that remembers everything: better no quorum than lost changes.
    world.crash(leader);
    world.run(Duration::from_secs(10));
    assert_eq!(world.leader(), None);
}

#[test]
fn a_leader_whose_disk_hangs_lets_another_lead() {
    let mut world = World::new(3, 19);
    let old = world.elect();
    world.run(Duration::from_secs(1));
    world.hang_disk(old, Duration::from_secs(60));
    let session = world.connect("client.admin", (old + 1) % 3);
    let request = world.request(session);
    world.ask(session, request, &json!({"prefix": "osd pool create", "pool": "p"}), b"");
    world.run(Duration::from_secs(9));
    let leader = world.leader().unwrap();
    assert_ne!(leader, old);
    let reply = world.command_at(leader, json!({"prefix": "osd pool create", "pool": "q"}));
    assert_eq!(reply.code, 0, "{}", reply.message);
}
