//! Whole OSDs lose and regain objects: by log, by backfill, by repair.

mod bad_copies;
mod clones;
mod gate;
mod lacking;
mod thrash;
mod unfound;

use super::usable_version;
use crate::log::Missing;
use crate::testing::{Cluster, PG, POOL, object};
use nacre_maps::{Flag, Flags, SnapRange, WEIGHT_IN};
use nacre_store::ObjectStore;
use nacre_types::{EVersion, OsdId, Rng};
use nacre_wire::Data;
use nacre_wire::op::{Empty, Extent, ObjectOpKind, PairList};
use nacre_wire::transaction::Pair;

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

fn other_than(cluster: &Cluster, osd: OsdId) -> OsdId {
    *cluster.osds.keys().find(|&&id| id != osd).expect("two OSDs")
}

/// Objects `o0` to `o299`, of which a member that then went down has the first versions: it takes no more than that.
fn one_is_full() -> (Cluster, OsdId) {
    let mut c = Cluster::new(3, 3, 1);
    for n in 0..300 {
        c.write(&object(&format!("o{n}")), 0, bytes(n, 3000));
    }
    c.settle();
    let down = other_than(&c, c.primary(PG));
    c.kill(down);
    c.disks.get_mut(&down).unwrap().total_bytes = 300 * 3000 + 1000;
    (c, down)
}

/// Removes all but the first twenty.
fn remove_most(c: &mut Cluster) {
    for n in 20..300 {
        c.op(&object(&format!("o{n}")), vec![ObjectOpKind::Remove(Empty {})], Data::default());
    }
}

/// An OSD that does not lead the PG comes back with nothing.
fn wipe_one(c: &mut Cluster) -> OsdId {
    let down = other_than(c, c.primary(PG));
    c.kill(down);
    c.disks.remove(&down);
    c.start(down);
    down
}

fn until_a_window_is_compared(c: &mut Cluster) {
    c.run_until("a window is compared", |c| c.delivered.get("BackfillDigest") == Some(&1));
}

#[test]
fn a_revived_replica_catches_up_by_log() {
    let mut c = Cluster::new(3, 3, 1);
    let big = object("big");
    c.write(&big, 0, bytes(1, 5 << 20));
    c.write(&object("gone"), 0, bytes(2, 1000));
    c.settle();
    let down = other_than(&c, c.primary(PG));
    c.kill(down);
    c.write(&big, 1 << 20, bytes(3, 10_000));
    c.write(&object("large new"), 0, bytes(4, 3 << 20));
    c.op(&object("gone"), vec![ObjectOpKind::Remove(Empty {})], Data::default());
    let pairs =
        (0..2500).map(|n| Pair { key: format!("k{n:05}").into(), value: bytes(n, 300).into() }).collect();
    c.op(&object("map"), vec![ObjectOpKind::OmapSet(PairList { pairs, more: false })], Data::default());
    c.start(down);
    c.settle();
    c.assert_copies_agree();
    assert_eq!(c.delivered.get("BackfillScan"), None);
    assert!(c.delivered["Push"] >= 3);
}

#[test]
fn a_revived_primary_recovers_what_clients_want_first() {
    let mut c = Cluster::new(3, 3, 1);
    for n in 0..40 {
        c.write(&object(&format!("o{n}")), 0, bytes(n, 9000));
    }
    let down = c.primary(PG);
    c.kill(down);
    for n in 0..40 {
        c.write(&object(&format!("o{n}")), 4000, bytes(100 + n, 100));
    }
    c.start(down);
    c.run_until("it leads again", |c| c.primary(PG) == down);
    let mut want = bytes(39, 9000);
    want[4000..4100].copy_from_slice(&bytes(139, 100));
    assert_eq!(c.read(&object("o39")), want);
    c.write(&object("o38"), 0, bytes(7, 10));
    c.settle();
    c.assert_copies_agree();
}

#[test]
fn a_wiped_osd_is_filled_while_clients_write() {
    let mut c = Cluster::new(3, 3, 2);
    for n in 0..300 {
        c.write(&object(&format!("o{n}")), 0, bytes(n, 3000));
    }
    wipe_one(&mut c);
    for n in 0..200 {
        match n % 4 {
            0 => drop(c.op(&object(&format!("o{n}")), vec![ObjectOpKind::Remove(Empty {})], Data::default())),
            1 => c.write(&object(&format!("new{n}")), 0, bytes(n, 500)),
            _ => c.write(&object(&format!("o{n}")), 1000, bytes(n, 500)),
        }
    }
    c.settle();
    c.assert_copies_agree();
    assert!(c.delivered["BackfillScan"] >= 2, "{:?}", c.delivered);
}

#[test]
fn backfill_interrupted_goes_on_from_its_mark_and_leftovers_go() {
    let mut c = Cluster::new(4, 3, 1);
    for n in 0..600 {
        c.write(&object(&format!("o{n}")), 0, bytes(n, 200));
    }
    let spare = *c.osds.keys().find(|osd| !c.map.pg(PG).unwrap().acting.contains(osd)).unwrap();
    let out = other_than(&c, c.primary(PG));
    let out = if out == spare { *c.map.pg(PG).unwrap().acting.last().unwrap() } else { out };
    c.change(|map, step| step.osd_mut(map, out).unwrap().weight = 0);
    c.run_until("some of it is filled", |c| c.osds[&spare].store().objects.len() > 300 && !c.is_clean());
    c.kill(spare);
    for n in 0..50 {
        c.op(&object(&format!("o{n}")), vec![ObjectOpKind::Remove(Empty {})], Data::default());
    }
    let scans = c.delivered["BackfillScan"];
    c.start(spare);
    c.settle();
    c.assert_copies_agree();
    assert!(c.delivered["BackfillScan"] - scans < 5, "it started over");
    // And back again, over what was left behind.
    c.write(&object("o100"), 0, bytes(5, 50));
    c.change(|map, step| step.osd_mut(map, out).unwrap().weight = WEIGHT_IN);
    c.settle();
    c.assert_copies_agree();
}

/// Clones made of families that are still to go to the target go with them; those trimmed meanwhile do not.
#[test]
fn clones_made_while_their_family_waits_for_backfill_are_filled_too() {
    for trim in [false, true] {
        let mut c = Cluster::new(3, 3, 1);
        for n in 0..100 {
            c.write(&object(&format!("o{n}")), 0, bytes(n, 3000));
        }
        wipe_one(&mut c);
        until_a_window_is_compared(&mut c);
        let requests: Vec<u64> = (0..100)
            .map(|n| {
                let op = ObjectOpKind::Write(Extent { offset: 100, length: 500 });
                let data = Data::checksummed(100, bytes(100 + n, 500).into());
                c.request_under(&object(&format!("o{n}")), &[1], vec![op], data)
            })
            .collect();
        if trim {
            c.change(|map, step| {
                let mut pool = map.pool(POOL).unwrap().clone();
                pool.removed_snaps = vec![SnapRange { start: 1, length: 1 }];
                step.pools.insert(POOL, Some(pool));
            });
        }
        for request in requests {
            assert_eq!(c.answer(request).0.code, nacre_wire::ErrorCode::Ok as i32);
        }
        c.settle();
        if trim {
            let alone = |c: &Cluster| c.osds.values().all(|osd| osd.store().objects.len() == 100);
            c.run_until("all clones are trimmed", alone);
        }
        c.settle();
        c.assert_copies_agree();
        let copies = if trim { 100 } else { 200 };
        assert!(c.osds.values().all(|osd| osd.store().objects.len() == copies));
    }
}

/// Writes come later than pushes of what they made: the target must not get objects that are newer than its log, since
/// what is in no log can neither be undone nor be known for a duplicate.
#[test]
fn backfill_never_runs_ahead_of_the_log() {
    let mut c = Cluster::new(3, 3, 1);
    for n in 0..100 {
        c.write(&object(&format!("o{n}")), 0, bytes(n, 3000));
    }
    let down = wipe_one(&mut c);
    until_a_window_is_compared(&mut c);
    c.late = Some("RepOp");
    // Each object twice, so that some writes find others of their object under way.
    let requests: Vec<u64> = (0..200)
        .map(|n| {
            let op = ObjectOpKind::Write(Extent { offset: 100, length: 500 });
            let data = Data::checksummed(100, bytes(100 + n, 500).into());
            c.request(&object(&format!("o{}", n % 100)), vec![op], data)
        })
        .collect();
    c.run_until("all is filled", |c| {
        let osd = &c.osds[&down];
        if let Some(pg) = osd.pg(PG) {
            for object in osd.store().objects.keys().filter(|object| object.pool == POOL) {
                let version = usable_version(osd.store(), object).unwrap();
                let head = pg.log.head();
                assert!(version <= head, "{object} is at {version}, the log ends at {head}");
            }
        }
        c.is_clean()
    });
    for request in requests {
        assert_eq!(c.answer(request).0.code, nacre_wire::ErrorCode::Ok as i32);
    }
    c.settle();
    c.assert_copies_agree();
}

/// An OSD was away while what fills it was deleted. Only its backfill can tell it, and for that it is too full.
#[test]
fn a_target_that_is_too_full_gives_up_what_was_deleted_meanwhile() {
    let (mut c, down) = one_is_full();
    // The end of the range as well, which the backfill comes to last; and more than the log remembers.
    remove_most(&mut c);
    for n in 0..20 {
        c.write(&object(&format!("o{n}")), 0, bytes(1000 + n, 3000));
    }
    c.start(down);
    c.run_until("the full OSD is filled", Cluster::is_clean);
    c.settle();
    c.assert_copies_agree();
    assert!(c.delivered["BackfillScan"] > 0, "by log it would have been easy");
}

#[test]
fn a_target_that_is_too_full_gives_up_what_is_deleted_while_it_waits() {
    let (mut c, down) = one_is_full();
    // More than the log remembers, of objects that are larger now.
    for n in 0..1200 {
        c.write(&object(&format!("o{}", n % 20)), 3000, bytes(1000 + n, 3000));
    }
    c.start(down);
    until_a_window_is_compared(&mut c);
    let until = c.now + std::time::Duration::from_secs(60);
    c.run_until("it has been asked again", |c| c.now >= until);
    assert!(!c.is_clean(), "nothing that it has is gone elsewhere");
    let scans = c.delivered["BackfillScan"];
    assert!(scans < 10, "and it is not looked through again and again: {scans}");
    remove_most(&mut c);
    c.run_until("the full OSD is filled", Cluster::is_clean);
    c.settle();
    c.assert_copies_agree();
}

/// A primary comes back and has no room for what was written meanwhile: while it led, what takes the room could not even be
/// removed.
#[test]
fn a_primary_too_full_for_what_it_misses_lets_another_lead() {
    let mut c = Cluster::new(3, 3, 1);
    for n in 0..20 {
        c.write(&object(&format!("o{n}")), 0, bytes(n, 3000));
    }
    c.settle();
    let full = c.primary(PG);
    c.kill(full);
    for n in 0..40 {
        c.write(&object(&format!("o{n}")), 0, bytes(100 + n, 3000));
    }
    c.disk(full).total_bytes = 20 * 3000 + 100;
    c.start(full);
    c.run_until("another leads", |c| c.osds[&full].pg(PG).is_some() && c.primary(PG) != full);
    for n in 10..30 {
        c.op(&object(&format!("o{n}")), vec![ObjectOpKind::Remove(Empty {})], Data::default());
    }
    c.run_until("there is room for all", Cluster::is_clean);
    c.settle();
    assert_eq!(c.primary(PG), full, "it leads again");
    c.assert_copies_agree();
}

#[test]
fn what_was_only_just_freed_is_no_room_yet() {
    let mut c = Cluster::new(3, 3, 1);
    c.write(&object("x"), 0, bytes(1, 3000));
    c.settle();
    let down = other_than(&c, c.primary(PG));
    c.kill(down);
    c.write(&object("y"), 0, bytes(2, 3000));
    let disk = c.disk(down);
    (disk.total_bytes, disk.freed_bytes) = (9000, 5000);
    c.start(down);
    let until = c.now + std::time::Duration::from_secs(20);
    c.run_until("some time has passed", |c| c.now >= until);
    assert!(!c.is_clean());
    c.disk(down).freed_bytes = 0;
    c.run_until("it is filled", Cluster::is_clean);
    c.assert_copies_agree();
}

/// What the members lack themselves, the target must keep, old as it may be: nobody else has anything of it.
#[test]
fn a_target_keeps_what_is_missing_at_its_primary() {
    let (mut c, down) = one_is_full();
    remove_most(&mut c);
    for n in 0..20 {
        c.write(&object(&format!("o{n}")), 0, bytes(1000 + n, 3000));
    }
    c.settle();
    let lost = object("o7");
    for id in c.osds.keys().copied().collect::<Vec<_>>() {
        let need = usable_version(c.osds[&id].store(), &lost).unwrap();
        c.disk(id).objects.remove(&lost);
        let pg = c.osds.get_mut(&id).unwrap().pgs.get_mut(&PG).unwrap();
        pg.missing.add(lost.clone(), Missing::of(need, EVersion::ZERO));
        pg.info.follow(&pg.log, &pg.missing);
    }
    c.start(down);
    c.run_until("it has given up the rest", |c| c.osds[&down].store().objects.len() < 100);
    for _ in 0..2000 {
        c.turn();
    }
    assert!(c.osds[&down].store().objects.contains_key(&lost), "the last of it");
}

#[test]
fn deep_scrub_finds_and_repair_mends() {
    let mut c = Cluster::new(3, 3, 1);
    for n in 0..30 {
        c.write(&object(&format!("o{n}")), 0, bytes(n, 700_000));
    }
    c.settle();
    let primary = c.primary(PG);
    let replicas: Vec<OsdId> = c.osds.keys().copied().filter(|&osd| osd != primary).collect();
    c.disk(primary).bad.insert(object("o1"));
    c.disk(replicas[0]).bad.insert(object("o1"));
    c.disk(replicas[1]).bad.insert(object("o2"));
    c.disk(replicas[0]).objects.remove(&object("o3"));
    let summary = |c: &Cluster| c.osds[&primary].pg(PG).unwrap().recovery_summary();
    c.admin(PG, "pg deep-scrub");
    c.run_until("errors are found", |c| summary(c).scrub_errors == 4);
    assert!(summary(&c).words.contains(&"inconsistent"));
    // Asked again while it waits or runs, it does not begin anew.
    (0..20).for_each(|_| c.admin(PG, "pg repair"));
    c.run_until("all is repaired and looked at again", |c| {
        summary(c).scrub_errors == 0 && c.is_clean() && summary(c).words.is_empty()
    });
    assert!((0..3).all(|osd| c.disk(OsdId(osd)).bad.is_empty()));
    assert_eq!(c.disk(primary).stat(&object("o1")).unwrap().unwrap().size, 700_000);
    // The counts of the copy that had lost an object behind its back are off; the objects are not.
    for osd in replicas {
        for n in 0..30 {
            let o = object(&format!("o{n}"));
            assert_eq!(c.disk(osd).objects[&o].data, bytes(n, 700_000), "{o} on {osd}");
        }
    }
}

/// Small messages overtake large ones. A write that first has to read is under way as much as one that was sent.
#[test]
fn nothing_is_brought_that_a_write_under_way_changes() {
    // By log, by backfill.
    for writes_before in [1, 300] {
        let mut c = Cluster::new(3, 3, 1);
        let x = object("x");
        (0..writes_before).for_each(|n| c.write(&x, 0, bytes(n, 2000)));
        c.write(&x, 0, bytes(1, 3 * super::source::PIECE_BYTES_MAX as usize));
        c.settle();
        let held = |c: &mut Cluster, held: bool| {
            c.change(|map, step| {
                let flag = |flags: Flags, flag| if held { flags.with(flag) } else { flags.without(flag) };
                step.flags = Some(flag(flag(map.flags(), Flag::NoBackfill), Flag::NoRecover));
            });
        };
        held(&mut c, true);
        let filled = wipe_one(&mut c);
        c.run_until("it is a member again", |c| {
            let pg = c.osds[&c.primary(PG)].pg(PG);
            c.osds[&filled].is_up() && pg.is_some_and(|pg| pg.is_active() && pg.epoch == c.map.epoch())
        });
        let primary = c.primary(PG);
        c.disk(primary).slow_below = 100;
        let (read, write) = (Extent { offset: 0, length: 10 }, Extent { offset: 5, length: 10 });
        let ops = vec![ObjectOpKind::Read(read), ObjectOpKind::Write(write)];
        let write = c.request(&x, ops, Data::checksummed(5, bytes(2, 10).into()));
        c.late = Some("Push");
        held(&mut c, false);
        let until = c.now + std::time::Duration::from_secs(1);
        c.run_until("the last piece is on its way", |c| {
            c.delivered.get("Push") == Some(&2) || c.now >= until
        });
        c.disk(primary).slow_below = 0;
        c.tick(primary);
        c.run_until("it is written", |c| c.is_answered(write));
        let scans = c.delivered.get("BackfillScan").copied().unwrap_or_default();
        assert_eq!(scans > 0, writes_before > 1, "{writes_before}: {scans} scans");
        c.run_until("it is brought without starting over", |c| {
            c.is_clean() || c.now >= until + super::STALL / 2
        });
        assert!(c.is_clean());
        c.assert_copies_agree();
    }
}
