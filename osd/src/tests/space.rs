//! Full disks: refused in time, not found out by dying.

use crate::testing::{Cluster, PG, object};
use nacre_maps::Flag;
use nacre_types::OsdId;
use nacre_wire::op::{Empty, Extent, ObjectOpKind};
use nacre_wire::{Data, ErrorCode};
use std::time::Duration;

fn replica(c: &Cluster) -> OsdId {
    *c.osds.keys().find(|&&osd| osd != c.primary(PG)).expect("two OSDs")
}

fn used(c: &Cluster, osd: OsdId) -> u64 {
    c.osds[&osd].store().objects.values().map(|object| object.data.len() as u64).sum()
}

#[test]
fn a_primary_refuses_what_a_member_has_no_space_for() {
    let mut c = Cluster::new(3, 3, 1);
    let full = replica(&c);
    c.write(&object("a"), 0, vec![1; 96_000]);
    c.disk(full).total_bytes = 100_000;
    // It says so with its next promise; the monitors know nothing.
    c.write(&object("b"), 0, vec![1; 10]);
    let write = |c: &mut Cluster, name: &str| {
        let op = ObjectOpKind::Write(Extent { offset: 0, length: 10 });
        let request = c.request(&object(name), vec![op], Data::checksummed(0, vec![2; 10].into()));
        c.answer(request).0
    };
    let reply = write(&mut c, "c");
    assert_eq!(reply.code, ErrorCode::NoSpace as i32);
    assert!(reply.message.starts_with(&format!("{full} is full")), "{}", reply.message);
    // What frees space runs, and the next promise says that there is some.
    c.op(&object("a"), vec![ObjectOpKind::Remove(Empty {})], Data::default());
    assert_eq!(write(&mut c, "d").code, ErrorCode::Ok as i32);
    // Signs of life say it too.
    c.disk(full).total_bytes = 20;
    let until = c.now + Duration::from_secs(10);
    c.run_until("it has been heard", |c| c.now >= until);
    assert_eq!(write(&mut c, "e").code, ErrorCode::NoSpace as i32);
}

#[test]
fn recovery_waits_where_there_is_no_room() {
    let mut c = Cluster::new(3, 3, 1);
    for n in 0..10 {
        c.write(&object(&format!("o{n}")), 0, vec![n; 1000]);
    }
    c.settle();
    let full = replica(&c);
    c.kill(full);
    for n in 0..10 {
        c.write(&object(&format!("o{n}")), 1000, vec![n; 9000]);
    }
    c.disks.get_mut(&full).unwrap().total_bytes = 50_000;
    c.start(full);
    let until = c.now + Duration::from_secs(60);
    c.run_until("it has been tried", |c| c.now >= until);
    assert!(!c.is_clean() && used(&c, full) <= 50_000, "{}", used(&c, full));
    let pg = c.osds[&c.primary(PG)].pg(PG).unwrap();
    assert_eq!(pg.recovery_wait().unwrap().1, nacre_types::Needs::Space(vec![full]));
    // What it misses and waits for can be removed all the same, and that makes room.
    for n in 7..10 {
        c.op(&object(&format!("o{n}")), vec![ObjectOpKind::Remove(Empty {})], Data::default());
    }
    assert!(!c.is_clean());
    for n in 0..3 {
        c.op(&object(&format!("o{n}")), vec![ObjectOpKind::Remove(Empty {})], Data::default());
    }
    c.settle();
    c.assert_copies_agree();
}

#[test]
fn with_room_a_member_is_brought_what_is_removed_next() {
    let mut c = Cluster::new(3, 3, 1);
    c.write(&object("a"), 0, vec![1; 1000]);
    c.settle();
    let late = replica(&c);
    c.kill(late);
    c.write(&object("a"), 0, vec![2; 1000]);
    c.change(|map, step| step.flags = Some(map.flags().with(Flag::NoRecover)));
    c.start(late);
    let until = c.now + Duration::from_secs(20);
    c.run_until("it is a member again", |c| c.now >= until);
    assert_eq!(c.delivered.get("Push"), None, "nobody has asked for the object");
    // Were the removal undone, the others' copies alone would be left to tell what was there.
    c.op(&object("a"), vec![ObjectOpKind::Remove(Empty {})], Data::default());
    assert_eq!(c.delivered.get("Push"), Some(&1));
}
