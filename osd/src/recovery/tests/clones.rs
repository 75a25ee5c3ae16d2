//! Clones are brought as what they differ in, and made where they are wanted.

use super::{bytes, other_than, wipe_one};
use crate::testing::{Cluster, PG, POOL, object};
use nacre_types::{ObjectId, SnapId};
use nacre_wire::op::{Extent, ObjectOpKind};
use nacre_wire::{Data, ErrorCode};

const SIZE: u64 = 4_000_000;

/// Changes a little of the object under snapshots up to `snap`.
fn change(c: &mut Cluster, name: &ObjectId, snap: u64) {
    let (offset, length) = (snap * 3 * 4096, 4096);
    let snaps: Vec<u64> = (1..=snap).rev().collect();
    let op = ObjectOpKind::Write(Extent { offset, length });
    let data = Data::checksummed(offset, bytes(snap, length as usize).into());
    let request = c.request_under(name, &snaps, vec![op], data);
    assert_eq!(c.answer(request).0.code, ErrorCode::Ok as i32);
}

fn sent(c: &Cluster) -> u64 {
    c.osds.values().filter_map(|osd| osd.pg(PG)).map(|pg| pg.recovery_summary().recovered_bytes).sum()
}

#[test]
fn clones_are_brought_as_differences() {
    for by_log in [true, false] {
        let mut c = Cluster::new(3, 3, 1);
        let names = ["a", "b", "c"].map(object);
        for name in &names {
            c.write(name, 0, bytes(7, SIZE as usize));
            (1..=5).for_each(|snap| change(&mut c, name, snap));
        }
        // More than the log remembers.
        for n in 0..if by_log { 1 } else { 1200 } {
            c.write(&object("z"), 0, bytes(n, 10));
        }
        c.settle();
        wipe_one(&mut c);
        c.settle();
        c.assert_copies_agree();
        assert_eq!(c.delivered.contains_key("BackfillScan"), !by_log);
        assert!(c.osds.values().all(|osd| osd.store().objects.len() == names.len() * 6 + 1));
        // Each family once, and what changed.
        let most = names.len() as u64 * (SIZE + 5 * 4096) + 10;
        assert!(sent(&c) <= most, "{} bytes are sent, {most} would do", sent(&c));
    }
}

/// A primary that comes back with nothing, which is not much, pulls it all and keeps what clones share as others do.
#[test]
fn clones_are_pulled_as_differences() {
    let mut c = Cluster::new(3, 3, 1);
    let names = ["a", "b"].map(object);
    for name in &names {
        c.write(name, 0, bytes(7, SIZE as usize));
        (1..=3).for_each(|snap| change(&mut c, name, snap));
    }
    c.settle();
    let first = c.primary(PG);
    c.kill(first);
    c.disks.remove(&first);
    c.start(first);
    c.settle();
    assert_eq!(c.primary(PG), first);
    c.assert_copies_agree();
    assert!(c.delivered["Pull"] >= 8 && !c.delivered.contains_key("BackfillScan"), "{:?}", c.delivered);
    let most = names.len() as u64 * (SIZE + 3 * 4096);
    assert!(sent(&c) <= most, "{} bytes are sent, {most} would do", sent(&c));
}

/// A primary that lacks the head does not know which clones there are: what it has of a head then names older ones.
#[test]
fn clones_are_passed_on_as_differences_from_the_right_ones() {
    let mut c = Cluster::new(3, 3, 1);
    c.change(|map, step| {
        let mut pool = map.pool(POOL).unwrap().clone();
        pool.min_size = 1;
        step.pools.insert(POOL, Some(pool));
    });
    let name = object("a");
    c.write(&name, 0, bytes(7, SIZE as usize));
    change(&mut c, &name, 1);
    c.settle();
    let first = c.primary(PG);
    let down = [first, other_than(&c, first)];
    down.iter().for_each(|&osd| c.kill(osd));
    (2..=4).for_each(|snap| change(&mut c, &name, snap));
    down.iter().for_each(|&osd| c.start(osd));
    c.settle();
    assert_eq!(c.primary(PG), first);
    c.assert_copies_agree();
    // For each of the two: the head, and three clones of which the first is what its head was.
    assert!(sent(&c) <= 2 * 6 * 4096, "{} bytes are sent", sent(&c));
}

/// The block that cannot be read may be one that it shares with its neighbours.
#[test]
fn a_damaged_copy_is_replaced_in_full() {
    let mut c = Cluster::new(3, 3, 1);
    let name = object("a");
    c.write(&name, 0, bytes(7, SIZE as usize));
    change(&mut c, &name, 1);
    c.settle();
    let (first, other) = (c.primary(PG), other_than(&c, c.primary(PG)));
    c.disk(first).bad.insert(name.clone());
    assert_eq!(c.read(&name).len() as u64, SIZE);
    c.settle();
    assert!(sent(&c) >= SIZE, "the primary's copy shares what is bad: {} bytes are sent", sent(&c));
    let before = sent(&c);
    c.disk(other).bad.insert(name.clone());
    c.admin(PG, "repair");
    c.run_until("it is repaired", |c| c.log.iter().any(|line| line.contains("deep-scrub ok")));
    assert!(sent(&c) - before >= SIZE, "the replica's copy shares what is bad: {} bytes are sent", sent(&c));
    c.assert_copies_agree();
}

#[test]
fn what_a_primary_cannot_make_is_pulled_in_full() {
    let mut c = Cluster::new(3, 3, 1);
    let name = object("a");
    c.write(&name, 0, bytes(7, SIZE as usize));
    change(&mut c, &name, 1);
    c.settle();
    let down = c.primary(PG);
    c.kill(down);
    change(&mut c, &name, 2);
    // Behind its back the clone that the next is to be made of, and the head, have become others.
    for lost in [name.at(SnapId(1)), name.clone()] {
        c.disk(down).objects.remove(&lost);
    }
    c.start(down);
    c.run_until("it leads again", |c| c.primary(PG) == down);
    assert_eq!(c.read(&name.at(SnapId(2)))[..10_000], bytes(7, SIZE as usize)[..10_000]);
    c.run_until("it has them", |c| {
        let objects = &c.osds[&down].store().objects;
        objects.contains_key(&name) && objects.contains_key(&name.at(SnapId(2)))
    });
}

#[test]
fn a_clone_of_what_the_receiver_has_is_made_there_even_if_its_source_is_damaged() {
    let mut c = Cluster::new(3, 3, 1);
    let name = object("a");
    c.write(&name, 0, bytes(7, SIZE as usize));
    c.settle();
    let (first, down) = (c.primary(PG), other_than(&c, c.primary(PG)));
    c.kill(down);
    change(&mut c, &name, 1);
    change(&mut c, &name, 2);
    for osd in c.osds.keys().copied().collect::<Vec<_>>() {
        c.disk(osd).bad.insert(name.at(SnapId(1)));
    }
    c.start(down);
    c.settle();
    assert_eq!(c.primary(PG), first);
    c.assert_copies_agree();
    assert_eq!(c.osds[&down].store().objects.len(), 3);
    // One change for the second clone, both for the head.
    assert!(sent(&c) <= 3 * 4096, "{} bytes are sent", sent(&c));
}

#[test]
fn what_the_receiver_cannot_make_is_sent_in_full() {
    let mut c = Cluster::new(3, 3, 1);
    let name = object("a");
    c.write(&name, 0, bytes(7, SIZE as usize));
    change(&mut c, &name, 1);
    c.settle();
    let down = other_than(&c, c.primary(PG));
    c.kill(down);
    change(&mut c, &name, 2);
    // It has lost both, without knowing of it.
    let disk = c.disks.get_mut(&down).unwrap();
    disk.objects.remove(&name);
    disk.objects.remove(&name.at(SnapId(1)));
    c.start(down);
    c.settle();
    let (lost, ours) = (c.osds[&down].store(), c.osds[&c.primary(PG)].store());
    for one in [name.clone(), name.at(SnapId(2))] {
        assert_eq!(lost.objects.get(&one), ours.objects.get(&one), "{one}");
    }
}
