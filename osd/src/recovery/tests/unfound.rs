//! Objects that cannot be found, and what may be given up of them.

use super::*;
use nacre_wire::ErrorCode;
use serde_json::{Value, json};

/// The PG's command at its primary, with what it needs to be told.
pub(super) fn order(c: &mut Cluster, command: &str, args: Value) -> Result<Value, String> {
    c.log.clear();
    c.admin_with(PG, command, &args.to_string());
    c.run_until("the command is answered", |c| c.log.iter().any(|line| line.contains("admin: ")));
    let line = c.log.iter().rev().find(|line| line.contains("admin: ")).unwrap();
    let answer = line.split_once("admin: ").unwrap().1;
    serde_json::from_str(answer).map_err(|_| answer.to_string())
}

fn unfound(c: &Cluster) -> u64 {
    c.osds[&c.primary(PG)].pg(PG).unwrap().recovery_summary().unfound
}

fn append(c: &mut Cluster, object: &nacre_types::ObjectId, bytes: Vec<u8>) -> u64 {
    let op = ObjectOpKind::Append(Extent { offset: 0, length: bytes.len() as u64 });
    c.request(object, vec![op], Data::checksummed(0, bytes.into()))
}

/// `x`, of whose last write only the primary's disk has the data: who that is, and the write's request. What is sent to
/// replicas is still lost.
fn on_the_primary_alone(c: &mut Cluster) -> (OsdId, u64) {
    let x = object("x");
    let primary = c.primary(PG);
    if !c.osds[&primary].store().objects.contains_key(&x) {
        c.write(&x, 0, bytes(1, 5000));
        c.settle();
    }
    c.dropped = Some("RepOp");
    let request = append(c, &x, bytes(2, 700));
    c.run_until("the primary has it", |c| c.osds[&primary].store().objects[&x].data.len() == 5700);
    (primary, request)
}

fn write_others(c: &mut Cluster, times: u64) {
    (0..times).for_each(|n| c.write(&object(&format!("o{}", n % 7)), 0, bytes(n, 10)));
}

/// Two members of three have seen the last write of `x` in their logs alone; the one that has it comes back with rotten
/// bytes. The write's request.
fn written_on_one_that_rots(c: &mut Cluster) -> u64 {
    let x = object("x");
    let (primary, request) = on_the_primary_alone(c);
    let others: Vec<OsdId> = c.osds.keys().copied().filter(|&osd| osd != primary).collect();
    for &osd in &others {
        c.kill(osd);
    }
    c.dropped = None;
    c.disk(primary).bad.insert(x);
    for osd in others {
        c.start(osd);
    }
    request
}

#[test]
fn what_nobody_has_seen_can_be_reverted_without_losing_anything() {
    let mut c = Cluster::new(3, 3, 1);
    let request = written_on_one_that_rots(&mut c);
    c.run_until("it is unfound", |c| unfound(c) == 1);
    let told = order(&mut c, "list_unfound", json!({})).unwrap();
    assert_eq!(told["objects"][0]["revert"]["loses_nothing"], true, "{told}");
    let done = order(&mut c, "mark_unfound_lost", json!({"mode": "revert"})).unwrap();
    assert_eq!(done["reverted"], 1, "{done}");
    // The write is carried out once, now.
    assert_eq!(c.answer(request).0.code, ErrorCode::Ok as i32);
    c.settle();
    let want = [bytes(1, 5000), bytes(2, 700)].concat();
    assert_eq!(c.read(&object("x")), want);
    c.assert_copies_agree();
    assert!(order(&mut c, "mark_unfound_lost", json!({"mode": "revert"})).is_err());
}

/// The version it goes back to lies behind the log's tail, and what is undone would, as others are written all the time.
#[test]
fn what_nobody_has_seen_can_be_reverted_long_after() {
    let mut c = Cluster::new(3, 3, 1);
    c.write(&object("x"), 0, bytes(1, 5000));
    write_others(&mut c, 400);
    c.settle();
    let request = written_on_one_that_rots(&mut c);
    c.run_until("it is unfound", |c| unfound(c) == 1);
    write_others(&mut c, 400);
    let done = order(&mut c, "mark_unfound_lost", json!({"mode": "revert"})).unwrap();
    assert_eq!(done["reverted"], 1, "{done}");
    assert_eq!(c.answer(request).0.code, ErrorCode::Ok as i32);
    c.settle();
    assert_eq!(c.read(&object("x")), [bytes(1, 5000), bytes(2, 700)].concat());
    write_others(&mut c, 400);
    let log = &c.osds[&c.primary(PG)].pg(PG).unwrap().log;
    assert!(log.entries().len() < 200, "it is trimmed again: {}", log.entries().len());
    c.assert_copies_agree();
}

#[test]
fn what_may_have_been_seen_is_reverted_only_on_demand() {
    let mut c = Cluster::new(3, 3, 1);
    let x = object("x");
    c.write(&x, 0, bytes(1, 5000));
    c.settle();
    let down = other_than(&c, c.primary(PG));
    c.kill(down);
    c.write(&x, 1000, bytes(2, 100));
    for osd in c.osds.keys().copied().collect::<Vec<_>>() {
        c.disk(osd).bad.insert(x.clone());
    }
    c.start(down);
    c.run_until("it is unfound", |c| unfound(c) == 1);
    let told = order(&mut c, "list_unfound", json!({})).unwrap();
    assert_eq!(told["objects"][0]["revert"]["loses_nothing"], false, "{told}");
    let refused = order(&mut c, "mark_unfound_lost", json!({"mode": "revert"})).unwrap_err();
    assert!(refused.contains("loses what clients"), "{refused}");
    for bad in [json!({}), json!({"mode": "both"}), json!({"mode": "delete"})] {
        assert!(order(&mut c, "mark_unfound_lost", bad.clone()).is_err(), "{bad}");
    }
    assert_eq!(unfound(&c), 1);
    order(&mut c, "mark_unfound_lost", json!({"mode": "revert", "yes": true})).unwrap();
    c.settle();
    assert_eq!(c.read(&x), bytes(1, 5000));
    c.assert_copies_agree();
}

/// Until it is on all members: it might be given up.
#[test]
fn what_nobody_has_seen_is_not_read_before_it_is_everywhere() {
    let mut c = Cluster::new(3, 3, 1);
    let x = object("x");
    let (primary, _) = on_the_primary_alone(&mut c);
    let until = c.now + std::time::Duration::from_millis(100);
    c.run_until("nothing is on its way to the others", |c| c.now >= until);
    // The write itself, which waits for the others, is forgotten: the read does not wait for that.
    let all: Vec<OsdId> = c.osds.keys().copied().collect();
    all.iter().for_each(|&osd| c.kill(osd));
    c.dropped = Some("Push");
    all.iter().for_each(|&osd| c.start(osd));
    let is_up = |c: &Cluster| c.osds.values().all(crate::Osd::is_up);
    c.run_until("it is active", |c| is_up(c) && c.osds[&primary].pg(PG).is_some_and(|pg| pg.is_active()));
    let read = c.request(&x, vec![ObjectOpKind::Read(Extent { offset: 0, length: 9000 })], Data::default());
    let until = c.now + std::time::Duration::from_secs(3);
    c.run_until("time passes", |c| c.now >= until);
    assert!(!c.is_answered(read), "it was shown while one copy has it");
    c.dropped = None;
    assert_eq!(c.answer(read).1.bytes.len(), 5700);
    c.settle();
    c.assert_copies_agree();
}

/// It fell so far behind that it is filled anew, and has what all others miss.
#[test]
fn what_a_backfill_target_has_left_over_is_found_there() {
    let mut c = Cluster::new(3, 3, 1);
    let x = object("x");
    let (primary, request) = on_the_primary_alone(&mut c);
    let others: Vec<OsdId> = c.osds.keys().copied().filter(|&osd| osd != primary).collect();
    others.iter().for_each(|&osd| c.kill(osd));
    c.dropped = Some("Push");
    others.iter().for_each(|&osd| c.start(osd));
    c.run_until("all know of it", |c| {
        others.iter().all(|osd| c.osds[osd].pg(PG).is_some_and(|pg| pg.missing.contains(&x)))
    });
    let activated = c.delivered["PgActivated"];
    c.run_until("it is written down", |c| c.delivered["PgActivated"] > activated + 1);
    c.kill(primary);
    c.dropped = None;
    c.run_until("it is unfound", |c| c.primary(PG) != primary && unfound(c) == 1);
    // So much that its log entry is not kept any longer.
    write_others(&mut c, 1100);
    c.start(primary);
    assert_eq!(c.answer(request).0.code, ErrorCode::Ok as i32);
    c.settle();
    assert!(c.delivered.contains_key("BackfillScan"));
    assert_eq!(c.read(&x), [bytes(1, 5000), bytes(2, 700)].concat());
    c.assert_copies_agree();
}

/// What a write that is given up has cloned goes with it; what did not exist before does not exist again.
#[test]
fn clones_and_new_objects_of_given_up_writes_are_gone() {
    let mut c = Cluster::new(3, 3, 1);
    let (x, new) = (object("x"), object("new"));
    c.write(&x, 0, bytes(1, 5000));
    c.settle();
    let primary = c.primary(PG);
    c.dropped = Some("RepOp");
    let write = |c: &mut Cluster, object: &nacre_types::ObjectId, seed| {
        let op = ObjectOpKind::Write(Extent { offset: 0, length: 300 });
        c.request_under(object, &[4], vec![op], Data::checksummed(0, bytes(seed, 300).into()))
    };
    let asked = [write(&mut c, &x, 2), write(&mut c, &new, 3)];
    c.run_until("the primary has them", |c| c.osds[&primary].store().objects.len() == 3);
    let others: Vec<OsdId> = c.osds.keys().copied().filter(|&osd| osd != primary).collect();
    others.iter().for_each(|&osd| c.kill(osd));
    c.dropped = None;
    let bad: Vec<_> = c.disk(primary).objects.keys().cloned().collect();
    c.disk(primary).bad.extend(bad);
    others.iter().for_each(|&osd| c.start(osd));
    // The clone is made of what the others have of its head.
    c.run_until("they are unfound", |c| unfound(c) == 2);
    let done = order(&mut c, "mark_unfound_lost", json!({"mode": "revert"})).unwrap();
    assert_eq!((&done["reverted"], &done["left"]), (&json!(2), &json!([])));
    let heads = |c: &Cluster| c.osds[&primary].store().objects.keys().filter(|o| o.snap.is_head()).count();
    for request in asked {
        assert_eq!(c.answer(request).0.code, ErrorCode::Ok as i32);
    }
    c.settle();
    assert_eq!((heads(&c), c.read(&new)), (2, bytes(3, 300).into()));
    let at_four = c.read(&x.at(nacre_types::SnapId(4)));
    assert_eq!(at_four, bytes(1, 5000));
    c.assert_copies_agree();
}
