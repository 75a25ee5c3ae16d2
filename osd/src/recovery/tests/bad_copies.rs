//! Copies that are damaged, and disks that give none.

use super::*;
use nacre_wire::ErrorCode;
use std::time::Duration;

/// A read of the first bytes that was sent.
fn ask(c: &mut Cluster, name: &str) -> u64 {
    c.request(&object(name), vec![ObjectOpKind::Read(Extent { offset: 0, length: 100 })], Data::default())
}

fn pass(c: &mut Cluster, seconds: u64) {
    let until = c.now + Duration::from_secs(seconds);
    c.run_until("time passes", |c| c.now >= until);
}

/// `x` on two OSDs, of which the primary cannot read it.
fn unread_at_the_primary() -> (Cluster, OsdId, OsdId) {
    let mut c = Cluster::new(2, 2, 1);
    c.write(&object("x"), 0, bytes(1, 8192));
    c.settle();
    let primary = c.primary(PG);
    let other = other_than(&c, primary);
    c.disk(primary).unreadable.insert(object("x"));
    (c, primary, other)
}

/// An administrator says that what was on a disk is gone.
fn declare_lost(c: &mut Cluster, osd: OsdId) {
    c.change(|map, step| {
        let epoch = step.epoch;
        step.osd_mut(map, osd).expect("it exists").mark_lost(epoch);
    });
}

fn is_unfound(c: &Cluster) -> bool {
    c.osds.values().any(|osd| osd.pg(PG).is_some_and(|pg| pg.recovery_summary().unfound == 1))
}

#[test]
fn a_damaged_copy_at_the_primary_is_read_elsewhere_and_repaired() {
    let mut c = Cluster::new(3, 3, 1);
    let o = object("x");
    c.write(&o, 0, bytes(1, 8192));
    c.settle();
    let primary = c.primary(PG);
    c.disk(primary).bad.insert(o.clone());
    assert_eq!(c.read(&o), bytes(1, 8192));
    c.settle();
    assert!(c.disk(primary).bad.is_empty(), "it is written anew");
    c.assert_copies_agree();
}

#[test]
fn all_copies_damaged_blocks_only_that_object() {
    let mut c = Cluster::new(2, 2, 1);
    let o = object("x");
    c.write(&o, 0, bytes(1, 8192));
    c.write(&object("y"), 0, bytes(2, 100));
    for osd in [OsdId(0), OsdId(1)] {
        c.disk(osd).bad.insert(o.clone());
    }
    let read = |c: &mut Cluster| {
        let ops = vec![ObjectOpKind::Read(nacre_wire::op::Extent { offset: 0, length: 100 })];
        let request = c.request(&o, ops, Data::default());
        c.answer(request).0.code
    };
    assert_eq!(read(&mut c), nacre_wire::ErrorCode::Io as i32);
    assert_eq!(c.read(&object("y")), bytes(2, 100));
    c.write(&object("z"), 0, bytes(3, 100));
}

#[test]
fn the_only_copy_is_asked_for_until_its_disk_gives_it() {
    let (mut c, primary, other) = unread_at_the_primary();
    c.kill(other);
    let read = ask(&mut c, "x");
    pass(&mut c, 20);
    assert!(!c.is_answered(read), "it may be had later");
    c.disk(primary).unreadable.clear();
    let (reply, data) = c.answer(read);
    assert_eq!((reply.code, data.bytes.to_vec()), (ErrorCode::Ok as i32, bytes(1, 8192)[..100].to_vec()));
    c.write(&object("x"), 10, bytes(2, 10));
    c.start(other);
    c.settle();
    c.assert_copies_agree();
}

#[test]
fn a_disk_that_gives_nothing_for_long_is_told_of_and_still_asked() {
    let (mut c, primary, other) = unread_at_the_primary();
    c.kill(other);
    let read = ask(&mut c, "x");
    pass(&mut c, 100);
    assert!(!c.is_answered(read), "whoever is down may have it");
    declare_lost(&mut c, other);
    assert_eq!(c.answer(read).0.code, ErrorCode::Io as i32);
    let told = c.log.iter().filter(|line| line.contains("is unfound")).count();
    assert_eq!(told, 1, "{:?}", c.log);
    let read = ask(&mut c, "x");
    pass(&mut c, 1);
    assert!(c.is_answered(read), "nobody waits for what failed for so long");
    // Across a restart, too.
    c.kill(primary);
    c.start(primary);
    c.run_until("it is missed", is_unfound);
    c.disk(primary).unreadable.clear();
    c.run_until("it is found", |c| !is_unfound(c));
    assert_eq!(c.read(&object("x")), bytes(1, 8192));
}

/// Another copy was known, so this one was given up for it; then the other went away.
#[test]
fn what_was_given_up_for_another_copy_is_taken_back_when_that_goes() {
    let (mut c, primary, other) = unread_at_the_primary();
    c.dropped = Some("Push");
    let read = ask(&mut c, "x");
    c.run_until("the other is asked", |c| c.delivered.contains_key("Pull"));
    c.kill(other);
    c.disk(primary).unreadable.clear();
    assert_eq!(c.answer(read).0.code, ErrorCode::Ok as i32);
    c.dropped = None;
    c.start(other);
    c.settle();
    c.assert_copies_agree();
}

/// The primary misses it, and the disk of whoever has it gives it late.
#[test]
fn a_source_that_cannot_read_is_asked_again() {
    let mut c = Cluster::new(2, 2, 1);
    c.write(&object("x"), 0, bytes(1, 8192));
    c.settle();
    let primary = c.primary(PG);
    let other = other_than(&c, primary);
    c.kill(primary);
    c.write(&object("x"), 0, bytes(2, 8192));
    c.disk(other).unreadable.insert(object("x"));
    c.start(primary);
    c.run_until("it is unfound", is_unfound);
    let read = ask(&mut c, "x");
    pass(&mut c, 5);
    assert!(!c.is_answered(read));
    // Whoever leads next knows that it was not gone for good.
    c.kill(other);
    c.disk(other).unreadable.clear();
    c.start(other);
    assert_eq!(c.answer(read).1.bytes.to_vec(), bytes(2, 8192)[..100].to_vec());
    c.settle();
    c.assert_copies_agree();
}

/// What fails its checksum is gone, and another try does not make it right.
#[test]
fn damaged_bytes_are_not_asked_for_again() {
    let (mut c, primary, other) = unread_at_the_primary();
    c.kill(other);
    let read = ask(&mut c, "x");
    pass(&mut c, 3);
    c.disk(primary).unreadable.clear();
    c.disk(primary).bad.insert(object("x"));
    pass(&mut c, 100);
    assert!(!c.is_answered(read), "whoever is down may have it");
    declare_lost(&mut c, other);
    assert_eq!(c.answer(read).0.code, ErrorCode::Io as i32);
    c.disk(primary).bad.clear();
    pass(&mut c, 100);
    assert!(is_unfound(&c));
}

/// The PG was clean without it: it is no member of old, but has a place there.
#[test]
fn a_damaged_copy_waits_for_one_that_is_down() {
    let mut c = Cluster::new(3, 3, 1);
    c.write(&object("x"), 0, bytes(1, 8192));
    c.settle();
    let primary = c.primary(PG);
    let away = other_than(&c, primary);
    c.kill(away);
    c.settle();
    let rest: Vec<OsdId> = c.osds.keys().copied().collect();
    for osd in rest {
        c.disk(osd).bad.insert(object("x"));
    }
    let read = ask(&mut c, "x");
    pass(&mut c, 60);
    assert!(!c.is_answered(read) && is_unfound(&c));
    c.start(away);
    let (reply, data) = c.answer(read);
    assert_eq!((reply.code, data.bytes.to_vec()), (ErrorCode::Ok as i32, bytes(1, 8192)[..100].to_vec()));
    c.settle();
    c.assert_copies_agree();
}

/// One that was asked did not answer, and the next has nothing: the first is asked again.
#[test]
fn a_silent_source_is_not_given_up() {
    let mut c = Cluster::new(3, 3, 1);
    c.write(&object("x"), 0, bytes(1, 8192));
    c.settle();
    let primary = c.primary(PG);
    let last = c.osds.keys().copied().filter(|&osd| osd != primary).max().unwrap();
    c.disk(primary).bad.insert(object("x"));
    c.disk(last).bad.insert(object("x"));
    c.dropped = Some("Push");
    let read = ask(&mut c, "x");
    c.run_until("the other is asked", |c| c.delivered.get("Pull") > Some(&1));
    c.dropped = None;
    assert_eq!(c.answer(read).0.code, ErrorCode::Ok as i32);
    c.settle();
    c.assert_copies_agree();
}
