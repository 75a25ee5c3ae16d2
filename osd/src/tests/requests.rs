//! A request takes effect once, however often it is sent and however late a copy of it comes.

use crate::log::DUPS_MAX;
use crate::testing::{Cluster, PG, object};
use nacre_maps::WEIGHT_IN;
use nacre_types::ClientId;
use nacre_wire::op::{Extent, ObjectOpKind};
use nacre_wire::{Data, ErrorCode, Packet};

/// Appends, and returns the request as it was sent.
fn append(c: &mut Cluster, name: &str) -> Packet {
    let op = ObjectOpKind::Append(Extent { offset: 0, length: 4 });
    let request = c.request(&object(name), vec![op], Data::checksummed(0, b"once".to_vec().into()));
    let copy = c.copy_of(request);
    assert_eq!(c.answer(request).0.code, ErrorCode::Ok as i32);
    copy
}

#[test]
fn a_request_is_answered_from_the_log_until_its_client_has_the_answer() {
    let mut c = Cluster::new(1, 1, 1);
    let copy = append(&mut c, "a");
    c.client = ClientId(78);
    for n in 0..DUPS_MAX as u64 + 1500 {
        c.answered_below = c.next_request();
        c.write(&object("b"), 0, vec![n as u8; 8]);
    }
    assert_eq!(c.late_copy(copy.clone()).expect("an answer").code, ErrorCode::Ok as i32);
    assert_eq!(c.read(&object("a")), "once");
    // Now its client says that it has the answer, and asks no more: a copy that comes yet means nothing.
    c.client = copy.request.client;
    for _ in 0..2000 {
        c.answered_below = c.next_request();
        c.write(&object("b"), 0, vec![1; 8]);
    }
    let osd = c.primary(PG);
    c.kill(osd);
    c.start(osd);
    c.settle();
    let copy = Packet { epoch: c.map.epoch(), ..copy };
    assert_eq!(c.late_copy(copy), None);
    assert_eq!(c.read(&object("a")), "once");
}

#[test]
fn a_request_from_before_its_primary_took_over_is_not_carried_out() {
    let mut c = Cluster::new(3, 2, 1);
    let copy = append(&mut c, "a");
    let first = c.primary(PG);
    for weight in [0, WEIGHT_IN] {
        c.change(|map, step| step.osd_mut(map, first).expect("it exists").weight = weight);
        c.settle();
    }
    assert_eq!(c.primary(PG), first);
    let mut unknown = copy.clone();
    unknown.request.seq += 1000;
    let reply = c.late_copy(unknown.clone()).expect("an answer");
    assert_eq!(reply.code, ErrorCode::TryAgain as i32);
    assert!(reply.message.contains("sent in epoch"), "{}", reply.message);
    assert_eq!(c.read(&object("a")), "once");
    // Sent anew it is.
    let again = Packet { epoch: c.map.epoch(), ..unknown };
    assert_eq!(c.late_copy(again).expect("an answer").code, ErrorCode::Ok as i32);
    assert_eq!(c.read(&object("a")), "onceonce");
}
