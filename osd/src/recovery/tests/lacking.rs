//! Writes to what somebody misses who is being brought up to date.

use super::unfound::order;
use super::*;
use nacre_types::Needs;
use nacre_wire::ErrorCode;
use serde_json::json;
use std::time::Duration;

fn hold_recovery(c: &mut Cluster, held: bool) {
    c.change(|map, step| {
        let flags = map.flags();
        step.flags = Some(if held { flags.with(Flag::NoRecover) } else { flags.without(Flag::NoRecover) });
    });
}

/// One that was down while `x` and others were written, and whom nothing is brought.
fn late_one(c: &mut Cluster) -> OsdId {
    let x = object("x");
    c.write(&x, 0, bytes(1, 3 << 20));
    c.settle();
    let late = other_than(c, c.primary(PG));
    c.kill(late);
    c.write(&x, 1 << 20, bytes(2, 10_000));
    (0..20).for_each(|n| c.write(&object(&format!("o{n}")), 0, bytes(n, 1000)));
    hold_recovery(c, true);
    c.start(late);
    until_filled(c, late);
    late
}

/// Asks for the first three bytes of `x` to be written.
fn write_start(c: &mut Cluster, data: Vec<u8>) -> u64 {
    let op = ObjectOpKind::Write(Extent { offset: 0, length: data.len() as u64 });
    c.request(&object("x"), vec![op], Data::checksummed(0, data.into()))
}

/// It is to be brought up to date beside the two who have all.
fn until_filled(c: &mut Cluster, late: OsdId) {
    c.run_until("it takes part", |c| {
        let leader = c.osds.get(&c.primary(PG)).and_then(|osd| osd.pg(PG));
        is_active(c, 2) && leader.is_some_and(|pg| pg.backfill_targets.contains(&late))
    });
}

fn is_active(c: &Cluster, members: usize) -> bool {
    let leader = c.osds.get(&c.primary(PG)).and_then(|osd| osd.pg(PG));
    leader.is_some_and(|pg| pg.is_active() && pg.members.acting.len() == members)
}

/// Neither the late one nor the primary.
fn third_one(c: &Cluster, late: OsdId) -> OsdId {
    *c.osds.keys().find(|&&osd| osd != late && osd != c.primary(PG)).expect("a third OSD")
}

fn head(c: &Cluster, osd: OsdId) -> EVersion {
    c.osds[&osd].pg(PG).unwrap().log.head()
}

/// What it misses of `x`.
fn missing_on(c: &Cluster, osd: OsdId) -> Option<Missing> {
    c.osds[&osd].pg(PG).unwrap().missing.get(&object("x"))
}

/// What the primary thinks that it misses of `x`.
fn known_of(c: &Cluster, osd: OsdId) -> Option<Missing> {
    c.osds[&c.primary(PG)].pg(PG).unwrap().peers[&osd].missing.get(&object("x"))
}

#[test]
fn operations_do_not_wait_for_who_misses_the_object() {
    let mut c = Cluster::new(3, 3, 1);
    let late = late_one(&mut c);
    assert_ne!(c.primary(PG), late);
    let before = missing_on(&c, late).unwrap();
    for n in 0..20 {
        c.write(&object("x"), n * 5000, bytes(10 + n, 3000));
    }
    assert_eq!(c.delivered.get("Push"), None);
    let after = missing_on(&c, late).unwrap();
    assert_eq!(Some(after), known_of(&c, late));
    assert!(after.need > before.need && after.have == before.have, "{before:?} {after:?}");
    // What is removed it removes later: were that undone, its copy might be needed.
    c.op(&object("o3"), vec![ObjectOpKind::Remove(Empty {})], Data::default());
    assert_eq!(c.delivered.get("Push"), None);
    // All of it is on its disk, as it would be after a crash.
    c.kill(late);
    c.write(&object("x"), 0, bytes(50, 100));
    c.start(late);
    hold_recovery(&mut c, false);
    c.settle();
    c.assert_copies_agree();
    assert_eq!(missing_on(&c, late), None);
    assert!(is_active(&c, 3));
}

#[test]
fn with_too_few_others_they_do_wait() {
    let mut c = Cluster::new(3, 3, 1);
    let late = late_one(&mut c);
    let third = third_one(&c, late);
    // Two are the least to write on, so this one has a seat, and an acknowledged write is on all who have.
    c.kill(third);
    c.dropped = Some("Push");
    let write = write_start(&mut c, bytes(4, 3));
    let until = c.now + Duration::from_secs(3);
    c.run_until("time passes", |c| c.now >= until);
    assert!(!c.is_answered(write));
    c.dropped = None;
    assert_eq!(c.answer(write).0.code, ErrorCode::Ok as i32);
    c.start(third);
    hold_recovery(&mut c, false);
    c.settle();
    c.assert_copies_agree();
}

/// The only OSD that applied a write is gone before anybody else has: the write was not acknowledged, so that copy is
/// not waited for.
#[test]
fn a_copy_that_misses_nothing_leads() {
    let mut c = Cluster::new(3, 3, 1);
    let x = object("x");
    let late = late_one(&mut c);
    let primary = c.primary(PG);
    let third = third_one(&c, late);
    // The late one hears of it; the third one does not.
    c.deaf = Some(third);
    let old = head(&c, late);
    let write = write_start(&mut c, bytes(4, 3));
    c.run_until("it is logged", |c| head(c, late) > old);
    assert!(head(&c, third) == old && !c.is_answered(write));
    c.kill(primary);
    c.deaf = None;
    hold_recovery(&mut c, false);
    c.run_until("the two go on", |c| {
        let leader = &c.osds.get(&c.primary(PG));
        leader.and_then(|osd| osd.pg(PG)).is_some_and(|pg| pg.is_active() && pg.recovery_summary().done)
    });
    assert!(!c.log.iter().any(|line| line.contains("unfound")), "{:#?}", c.log);
    assert_eq!(c.read(&x)[..10], bytes(1, 10)[..]);
    c.start(primary);
    c.settle();
    c.assert_copies_agree();
}

/// Of the two that are left, the one with the longer log never had what a write did: whether anybody has seen that write
/// it cannot know by itself.
#[test]
fn what_only_the_log_tells_was_seen_if_it_was_acknowledged() {
    for acknowledged in [true, false] {
        let mut c = Cluster::new(3, 3, 1);
        let x = object("x");
        let late = late_one(&mut c);
        let primary = c.primary(PG);
        let third = third_one(&c, late);
        // It misses something, too, so neither is preferred.
        c.kill(third);
        c.write(&object("y"), 0, bytes(3, 500));
        c.start(third);
        c.run_until("it is a member again", |c| {
            is_active(c, 2) && c.osds[&third].pg(PG).is_some_and(|pg| pg.missing.len() == 1)
        });
        let old = head(&c, late);
        c.deaf = (!acknowledged).then_some(third);
        let write = write_start(&mut c, bytes(4, 3));
        c.run_until("it is logged", |c| head(c, late) > old && acknowledged == c.is_answered(write));
        c.kill(primary);
        c.deaf = None;
        c.disk(third).bad.insert(x.clone());
        hold_recovery(&mut c, false);
        c.run_until("it is unfound", |c| {
            let pg = c.osds.get(&c.primary(PG)).and_then(|osd| osd.pg(PG));
            pg.is_some_and(|pg| pg.recovery_summary().unfound == 1)
        });
        let told = order(&mut c, "list_unfound", json!({})).unwrap();
        assert_eq!(told["objects"][0]["revert"]["loses_nothing"], !acknowledged, "{told}");
        c.disk(third).bad.clear();
        c.start(primary);
        c.settle();
        c.assert_copies_agree();
        assert_eq!(c.answer(write).0.code, ErrorCode::Ok as i32);
        assert_eq!(c.read(&x)[..3], bytes(4, 3));
    }
}

/// What is on its way when a write comes is given up, and what arrives of it later does not count.
#[test]
fn writes_do_not_wait_for_an_object_on_its_way() {
    let mut c = Cluster::new(3, 3, 1);
    let big = object("big");
    c.write(&object("o"), 0, bytes(0, 10));
    c.settle();
    let late = other_than(&c, c.primary(PG));
    c.kill(late);
    c.write(&big, 0, bytes(1, 3 << 20));
    (0..20).for_each(|n| c.write(&object("o"), 0, bytes(n, 1000)));
    hold_recovery(&mut c, true);
    c.start(late);
    until_filled(&mut c, late);
    c.late = Some("Push");
    hold_recovery(&mut c, false);
    // Of twelve.
    c.run_until("the last piece is on its way", |c| c.delivered.get("Push") == Some(&11));
    let op = ObjectOpKind::Write(Extent { offset: 0, length: 10 });
    let write = c.request(&big, vec![op], Data::checksummed(0, bytes(2, 10).into()));
    c.run_until("it is written", |c| c.is_answered(write));
    assert_eq!(c.delivered["Push"], 11);
    c.run_until("the last piece has come", |c| c.delivered["Push"] == 12);
    assert!(c.osds[&late].pg(PG).unwrap().missing.contains(&big));
    let until = c.now + super::super::STALL / 2;
    c.run_until("it is brought without starting over", |c| c.is_clean() || c.now >= until);
    assert!(c.is_clean());
    c.assert_copies_agree();
}

/// Its turn does not come as long as the other has no room, so writes go on for ever.
#[test]
fn writes_do_not_wait_for_an_object_there_is_no_room_for() {
    let mut c = Cluster::new(3, 3, 1);
    let name = |n: u64| object(&format!("o{}", n % 2));
    (0..2).for_each(|n| c.write(&name(n), 0, bytes(n, 30_000)));
    c.settle();
    let late = other_than(&c, c.primary(PG));
    c.kill(late);
    (0..20).for_each(|n| c.write(&name(n), 0, bytes(n, 120_000)));
    // Too much for any of them, not so much that the cluster is full.
    c.disk(late).total_bytes = 66_000;
    c.start(late);
    until_filled(&mut c, late);
    c.run_until("it has been tried", |c| {
        c.osds[&c.primary(PG)]
            .pg(PG)
            .unwrap()
            .recovery_wait()
            .is_some_and(|(_, needs)| matches!(needs, Needs::Space(_)))
    });
    let before = c.now;
    (0..40).for_each(|n| c.write(&name(n), 0, bytes(n, 100)));
    assert!(c.now < before + super::super::STALL, "{} to {}", before, c.now);
    c.disk(late).total_bytes = 0;
    c.settle();
    c.assert_copies_agree();
}
