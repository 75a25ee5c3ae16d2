//! What clients notice besides their data: permissions, full clusters, fences, listings, watches, snapshots, admin commands.

use super::mon::FakeMon;
use super::world::{Node, World};
use nacre_types::{ClientId, ObjectId, OsdId, PgId, PoolId, RequestId};
use nacre_wire::messages::{PgAdmin, PgAdminReply};
use nacre_wire::op::*;
use nacre_wire::{Data, ErrorCode, Message, ObjectName, Packet};

/// A client that is driven by hand: node `Client(0)`, whose packets the world collects.
struct Hand {
    world: World,
    seq: u64,
}

impl Hand {
    fn new(osds: u32) -> Hand {
        let mut world = World::new(osds, 41);
        assert!(world.run_until(20_000, |w| w.mon.map.osds().all(|(_, info)| info.up)));
        world.mon.create_pool(1, 3.min(osds), 2.min(osds), 4);
        world.publish();
        assert!(world.run_until(20_000, |w| w.is_clean()), "{}", world.explain());
        world.collect = Some(Vec::new());
        Hand { world, seq: 0 }
    }

    fn object(name: &str) -> ObjectId {
        ObjectId::new(PoolId(1), "", name).unwrap()
    }

    fn send(&mut self, pg: PgId, message: OsdOp, data: Data, request: RequestId) {
        let primary = self.world.mon.map.pg(pg).and_then(|place| place.primary()).unwrap();
        let packet = Packet::new(self.world.mon.map.epoch(), message).on(pg).request(request).with(data);
        let to = self.world.run_of(Node::Osd(primary.0));
        self.world.send((Node::Client(0), 1), to, packet);
    }

    fn next_request(&mut self) -> RequestId {
        self.seq += 1;
        RequestId { client: ClientId(7), seq: self.seq }
    }

    /// The answer that comes within that time.
    fn reply(&mut self, request: RequestId, ms: u64) -> Option<(OsdOpReply, Data)> {
        let mut found = None;
        self.world.run_until(ms, |w| {
            for packet in w.collect.as_mut().unwrap().drain(..) {
                if let Message::OsdOpReply(reply) = packet.message
                    && packet.request == request
                {
                    found = Some((reply, packet.data));
                }
            }
            found.is_some()
        });
        found
    }

    fn run(
        &mut self,
        object: &ObjectId,
        ops: Vec<ObjectOpKind>,
        data: Data,
    ) -> (ErrorCode, OsdOpReply, Data) {
        self.run_with(object, ops, data, |_| {})
    }

    fn run_with(
        &mut self,
        object: &ObjectId,
        ops: Vec<ObjectOpKind>,
        data: Data,
        edit: impl FnOnce(&mut OsdOp),
    ) -> (ErrorCode, OsdOpReply, Data) {
        let request = self.next_request();
        let ops = ops.into_iter().map(ObjectOp::from).collect();
        let mut message = OsdOp { object: Some(ObjectName::from(object)), ops, ..OsdOp::default() };
        edit(&mut message);
        let pg = self.world.mon.map.object_pg(object).unwrap();
        self.send(pg, message, data, request);
        let (reply, data) = self.reply(request, 10_000).expect("an answer");
        (ErrorCode::from_raw(reply.code), reply, data)
    }

    fn write(&mut self, object: &ObjectId, text: &'static str) -> ErrorCode {
        let op = ObjectOpKind::WriteFull(Extent { offset: 0, length: text.len() as u64 });
        self.run(object, vec![op], Data::checksummed(0, text.as_bytes().into())).0
    }

    fn read(&mut self, object: &ObjectId) -> (ErrorCode, Vec<u8>) {
        let op = ObjectOpKind::Read(Extent { offset: 0, length: 1 << 20 });
        let (code, _, data) = self.run(object, vec![op], Data::default());
        (code, data.bytes.to_vec())
    }

    fn publish(&mut self, edit: impl FnOnce(&mut FakeMon)) {
        edit(&mut self.world.mon);
        self.world.publish();
        self.world.run(200);
    }
}

#[test]
fn what_is_written_is_read_and_listed() {
    let mut hand = Hand::new(3);
    let mut names = Vec::new();
    for at in 0..20 {
        let object = Hand::object(&format!("o{at}"));
        assert_eq!(hand.write(&object, "hello"), ErrorCode::Ok);
        assert_eq!(hand.read(&object), (ErrorCode::Ok, b"hello".to_vec()));
        names.push(object.name);
    }
    let gone = Hand::object("o3");
    assert_eq!(hand.run(&gone, vec![ObjectOpKind::Remove(Empty {})], Data::default()).0, ErrorCode::Ok);
    assert_eq!(hand.read(&gone).0, ErrorCode::NotFound);
    names.retain(|name| name != "o3");
    let mut listed = Vec::new();
    for seed in 0..4 {
        let mut after = bytes::Bytes::new();
        loop {
            let request = hand.next_request();
            let list = ListObjects { after: after.clone(), entries_max: 3, namespace: None };
            let message = OsdOp { list: Some(list), ..OsdOp::default() };
            hand.send(PgId::new(PoolId(1), seed), message, Data::default(), request);
            let (reply, _) = hand.reply(request, 5000).expect("an answer");
            let list = reply.list.expect("a list");
            listed.extend(list.objects.into_iter().map(|object| object.name));
            after = list.next;
            if after.is_empty() {
                break;
            }
        }
    }
    listed.sort();
    names.sort();
    assert_eq!(listed, names);
}

#[test]
fn a_request_sent_twice_is_done_once_and_answered_alike() {
    let mut hand = Hand::new(3);
    let object = Hand::object("counter");
    let pg = hand.world.mon.map.object_pg(&object).unwrap();
    let request = hand.next_request();
    let op = ObjectOpKind::Append(Extent { offset: 0, length: 1 });
    let message = OsdOp { object: Some(ObjectName::from(&object)), ops: vec![op.into()], ..OsdOp::default() };
    let data = Data::checksummed(0, b"x".to_vec().into());
    let mut versions = Vec::new();
    for _ in 0..3 {
        hand.send(pg, message.clone(), data.clone(), request);
        let (reply, _) = hand.reply(request, 5000).expect("an answer");
        assert_eq!(reply.code, 0);
        versions.push(reply.version);
    }
    assert!(versions.iter().all(|version| *version == versions[0]), "{versions:?}");
    // A failure is remembered too.
    let failing = hand.next_request();
    let op = ObjectOpKind::Create(Create { exclusive: true });
    let message = OsdOp { object: Some(ObjectName::from(&object)), ops: vec![op.into()], ..OsdOp::default() };
    hand.send(pg, message.clone(), Data::default(), failing);
    let first = hand.reply(failing, 5000).expect("an answer").0;
    assert_eq!(first.code, ErrorCode::AlreadyExists as i32);
    assert_eq!(hand.run(&object, vec![ObjectOpKind::Remove(Empty {})], Data::default()).0, ErrorCode::Ok);
    hand.send(pg, message, Data::default(), failing);
    assert_eq!(hand.reply(failing, 5000).expect("an answer").0.code, ErrorCode::AlreadyExists as i32);
    assert_eq!(hand.read(&object).0, ErrorCode::NotFound);
}

#[test]
fn full_and_fenced_and_paused() {
    let mut hand = Hand::new(3);
    let object = Hand::object("o");
    assert_eq!(hand.write(&object, "before"), ErrorCode::Ok);
    hand.publish(|mon| mon.edit_pool(1, |pool| pool.full = true));
    assert_eq!(hand.write(&object, "more"), ErrorCode::QuotaExceeded);
    assert_eq!(hand.run(&object, vec![ObjectOpKind::Remove(Empty {})], Data::default()).0, ErrorCode::Ok);
    hand.publish(|mon| mon.edit_pool(1, |pool| pool.full = false));
    assert_eq!(hand.write(&object, "more"), ErrorCode::Ok);
    hand.publish(|mon| mon.blocklist(ClientId(7)));
    assert_eq!(hand.write(&object, "zombie"), ErrorCode::Fenced);
    assert_eq!(hand.read(&object).0, ErrorCode::Fenced);
}

#[test]
fn watchers_hear_and_notifiers_are_answered() {
    let mut hand = Hand::new(3);
    let object = Hand::object("header");
    assert_eq!(hand.write(&object, "x"), ErrorCode::Ok);
    let watch = Watch { cookie: 5, unwatch: false, timeout_ms: 30_000 };
    assert_eq!(hand.run(&object, vec![ObjectOpKind::Watch(watch)], Data::default()).0, ErrorCode::Ok);
    let request = hand.next_request();
    let op = ObjectOpKind::Notify(Notify { payload: b"news".to_vec().into(), timeout_ms: 5000 });
    let message = OsdOp { object: Some(ObjectName::from(&object)), ops: vec![op.into()], ..OsdOp::default() };
    let pg = hand.world.mon.map.object_pg(&object).unwrap();
    hand.send(pg, message, Data::default(), request);
    let mut event = None;
    hand.world.run_until(3000, |w| {
        for packet in w.collect.as_mut().unwrap().drain(..) {
            if let Message::WatchEvent(heard) = packet.message {
                event = Some(heard);
            }
        }
        event.is_some()
    });
    let event = event.expect("the watcher hears");
    assert_eq!((event.cookie, &event.payload[..]), (5, &b"news"[..]));
    let ack = NotifyAck { notify_id: event.notify_id, cookie: 5, reply: b"ok".to_vec().into() };
    hand.run_ack(&object, ack);
    let (reply, _) = hand.reply(request, 4000).expect("the notifier is answered");
    let answer = <NotifyReply as prost::Message>::decode(reply.results[0].answer.clone()).unwrap();
    assert_eq!((answer.acks.len(), answer.missed.len()), (1, 0));
}

impl Hand {
    /// Sends an acknowledgement without waiting, so that no other answer is lost meanwhile.
    fn run_ack(&mut self, object: &ObjectId, ack: NotifyAck) {
        let request = self.next_request();
        let ops = vec![ObjectOp::from(ObjectOpKind::NotifyAck(ack))];
        let message = OsdOp { object: Some(ObjectName::from(object)), ops, ..OsdOp::default() };
        let pg = self.world.mon.map.object_pg(object).unwrap();
        self.send(pg, message, Data::default(), request);
    }
}

#[test]
fn removed_snapshots_are_trimmed() {
    let mut hand = Hand::new(3);
    let object = Hand::object("image");
    hand.publish(|mon| {
        mon.edit_pool(1, |pool| {
            pool.create_snap();
            pool.create_snap();
        })
    });
    assert_eq!(hand.write(&object, "first"), ErrorCode::Ok);
    let op = ObjectOpKind::WriteFull(Extent { offset: 0, length: 6 });
    let data = Data::checksummed(0, b"second".to_vec().into());
    let (code, _, _) = hand.run_with(&object, vec![op], data, |op| (op.snap_seq, op.snaps) = (2, vec![2, 1]));
    assert_eq!(code, ErrorCode::Ok);
    let clones = |hand: &Hand| {
        let count = |slot: &super::world::Slot| {
            let objects = &slot.osd.as_ref().unwrap().store().live.objects;
            objects.keys().filter_map(|key| ObjectId::from_key(key)).filter(|o| !o.snap.is_head()).count()
        };
        hand.world.slots.iter().map(count).collect::<Vec<_>>()
    };
    assert_eq!(clones(&hand), [1, 1, 1]);
    let old = object.at(nacre_types::SnapId(1));
    assert_eq!(hand.read(&old), (ErrorCode::Ok, b"first".to_vec()));
    hand.publish(|mon| mon.edit_pool(1, |pool| assert!(pool.remove_snap(nacre_types::SnapId(1)))));
    hand.world.run(3000);
    assert_eq!(clones(&hand), [1, 1, 1]);
    hand.publish(|mon| mon.edit_pool(1, |pool| assert!(pool.remove_snap(nacre_types::SnapId(2)))));
    hand.world.run(3000);
    assert_eq!(clones(&hand), [0, 0, 0]);
    assert_eq!(hand.read(&object), (ErrorCode::Ok, b"second".to_vec()));
    hand.world.check_replicas();
}

#[test]
fn a_clone_its_head_does_not_know_stops_neither_the_osd_nor_other_trims() {
    let mut hand = Hand::new(3);
    hand.publish(|mon| {
        mon.edit_pool(1, |pool| {
            pool.create_snap();
        })
    });
    let names: Vec<String> = (0..6).map(|at| format!("image{at}")).collect();
    for name in &names {
        let object = Hand::object(name);
        assert_eq!(hand.write(&object, "first"), ErrorCode::Ok);
        let op = ObjectOpKind::WriteFull(Extent { offset: 0, length: 6 });
        let data = Data::checksummed(0, b"second".to_vec().into());
        let (code, _, _) =
            hand.run_with(&object, vec![op], data, |op| (op.snap_seq, op.snaps) = (1, vec![1]));
        assert_eq!(code, ErrorCode::Ok);
    }
    let broken = Hand::object(&names[0]);
    for slot in &mut hand.world.slots {
        let objects = &mut slot.osd.as_mut().unwrap().core.store.live.objects;
        let head = objects.get_mut(&broken.key()).expect("a copy on every OSD");
        head.attrs.insert(crate::ops::SNAPSET_ATTR.into(), Default::default());
    }
    hand.publish(|mon| mon.edit_pool(1, |pool| assert!(pool.remove_snap(nacre_types::SnapId(1)))));
    hand.world.run(5000);
    for slot in &hand.world.slots {
        assert_eq!(slot.stopped, None);
        let objects = &slot.osd.as_ref().unwrap().store().live.objects;
        let clones = objects.keys().filter_map(|key| ObjectId::from_key(key)).filter(|o| !o.snap.is_head());
        assert_eq!(clones.collect::<Vec<_>>(), [broken.at(nacre_types::SnapId(1))]);
    }
    assert_eq!(hand.write(&broken, "third"), ErrorCode::Ok);
    let pg = hand.world.mon.map.object_pg(&broken).unwrap();
    let primary = hand.world.mon.map.pg(pg).unwrap().primary().unwrap();
    let osd = hand.world.slots[primary.0 as usize].osd.as_ref().unwrap();
    assert_eq!(osd.pgs[&pg].recovery_summary().scrub_errors, 1);
}

#[test]
fn administrators_can_look() {
    let mut hand = Hand::new(3);
    let ask = |hand: &mut Hand, command: &str, json: &str| -> PgAdminReply {
        let request = hand.next_request();
        let primary = hand.world.mon.map.pg(PgId::new(PoolId(1), 2)).unwrap().acting[0];
        let message = PgAdmin { command: command.into(), json: json.into() };
        let packet = Packet::new(hand.world.mon.map.epoch(), message).request(request);
        let to = hand.world.run_of(Node::Osd(primary.0));
        hand.world.send((Node::Client(0), 1), to, packet);
        hand.world.run(500);
        let answers = hand.world.collect.as_mut().unwrap().drain(..);
        let mut replies = answers.filter_map(|packet| match packet.message {
            Message::PgAdminReply(reply) => Some(reply),
            _ => None,
        });
        replies.next().expect("an answer")
    };
    let reply = ask(&mut hand, "pg query", "{\"pgid\": \"1.2\"}");
    let value: serde_json::Value = serde_json::from_str(&reply.json).expect("JSON");
    assert_eq!(value["state"], "active+clean");
    assert_eq!(value["acting"].as_array().map(Vec::len), Some(3));
    let reply = ask(&mut hand, "status", "{}");
    let value: serde_json::Value = serde_json::from_str(&reply.json).expect("JSON");
    assert_eq!(value["phase"], "Up");
    let reply = ask(&mut hand, "dump ops", "{}");
    assert!(serde_json::from_str::<serde_json::Value>(&reply.json).is_ok());
    for (command, list) in [("stages", "records"), ("top", "rows")] {
        let reply = ask(&mut hand, command, "{}");
        let value: serde_json::Value = serde_json::from_str(&reply.json).expect("JSON");
        assert!(value[list].is_array(), "{command}: {value}");
    }
    assert_eq!(ask(&mut hand, "stages", "{\"pool\":\"p\"}").code, ErrorCode::InvalidArgument as i32);
    let reply = ask(&mut hand, "pg query", "{\"pgid\": \"9.9\"}");
    assert_eq!(reply.code, ErrorCode::NotFound as i32);
}

#[test]
fn a_bad_disk_ends_the_osd_in_order() {
    let mut hand = Hand::new(3);
    let slot = &mut hand.world.slots[0];
    slot.osd.as_mut().unwrap().core.store.fail = true;
    let object = Hand::object("o");
    for at in 0..4 {
        assert_eq!(hand.write(&Hand::object(&format!("o{at}")), "x"), ErrorCode::Ok);
    }
    assert!(hand.world.slots[0].stopped.as_deref().is_some_and(|why| why.contains("store")));
    assert!(!hand.world.mon.map.is_up(OsdId(0)));
    assert_eq!(hand.write(&object, "x"), ErrorCode::Ok);
}

/// Times of a measured write: what the reply says, and the record of its primary.
fn measured_write(hand: &mut Hand, edit: impl FnOnce(&mut OsdOp)) -> (OsdOpReply, serde_json::Value) {
    let object = Hand::object("data.a1.0");
    let op = ObjectOpKind::WriteFull(Extent { offset: 0, length: 5 });
    let (code, reply, _) = hand.run_with(&object, vec![op], Data::checksummed(0, b"hello"[..].into()), edit);
    assert_eq!(code, ErrorCode::Ok);
    let pg = hand.world.mon.map.object_pg(&object).unwrap();
    let primary = hand.world.mon.map.pg(pg).unwrap().primary().unwrap();
    let osd = hand.world.slots[primary.0 as usize].osd.as_ref().unwrap();
    let told = osd.core.stages.stages_json(primary, hand.world.now, "{\"pool\":1}").unwrap();
    (reply, serde_json::from_str(&told).unwrap())
}

#[test]
fn replicas_tell_what_they_spent_on_measured_writes() {
    let mut hand = Hand::new(3);
    let (reply, told) = measured_write(&mut hand, |_| {});
    assert_eq!((reply.osd_ns, &told["records"]), (None, &serde_json::json!([])), "nothing of what is not");
    let (reply, told) = measured_write(&mut hand, |op| op.measured = 64);
    let record = &told["records"][0];
    let number = |value: &serde_json::Value| value.as_u64().expect("a number");
    assert!(reply.osd_ns.expect("measured") > 0);
    assert_eq!(number(&record["osd_ns"]), reply.osd_ns.expect("measured"));
    let sum: u64 = record["stages"].as_object().unwrap().values().map(number).sum();
    assert_eq!(sum, number(&record["osd_ns"]));
    let members = record["members"].as_array().unwrap();
    assert_eq!(members.len(), 3);
    let primary = number(&told["osd"]);
    for member in members {
        let own = number(&member["queue_ns"]) + number(&member["write_ns"]) + number(&member["flush_ns"]);
        assert!(own > 0, "{member} says what it spent");
        let away = number(&member["total_ns"]) - own;
        // There and back, 50 us to 1.5 ms each; the primary has no way to itself.
        let range = if number(&member["osd"]) == primary { 0..=0 } else { 100_000..=3_000_000 };
        assert!(range.contains(&away), "{member}: {away} ns on the way");
    }
    let times = nacre_wire::stages::ClientTimes {
        request: hand.next_request().seq - 1,
        total_ns: u64::MAX,
        ..Default::default()
    };
    let (_, told) = measured_write(&mut hand, |op| op.times = Some(Box::new(times)));
    assert_eq!(told["records"].as_array().unwrap().len(), 1);
    assert_eq!(number(&told["records"][0]["total_ns"]), u64::MAX, "its client has told");
}

#[test]
fn what_a_measured_operation_waited_for_the_pg_is_told_apart() {
    let mut hand = Hand::new(3);
    hand.publish(|mon| mon.set_flag(nacre_maps::Flag::Pause, true));
    let object = Hand::object("data.a1.0");
    let pg = hand.world.mon.map.object_pg(&object).unwrap();
    let send = |hand: &mut Hand| {
        let op = ObjectOpKind::WriteFull(Extent { offset: 0, length: 5 });
        let object = Some(ObjectName::from(&object));
        let message = OsdOp { object, ops: vec![op.into()], measured: 1, ..OsdOp::default() };
        let request = hand.next_request();
        hand.send(pg, message, Data::checksummed(0, b"hello"[..].into()), request);
        request
    };
    let requests = [send(&mut hand), send(&mut hand)];
    hand.world.run(3000);
    hand.publish(|mon| mon.set_flag(nacre_maps::Flag::Pause, false));
    hand.reply(requests[1], 10_000);
    let primary = hand.world.mon.map.pg(pg).unwrap().primary().unwrap();
    let osd = hand.world.slots[primary.0 as usize].osd.as_ref().unwrap();
    let told = osd.core.stages.stages_json(primary, hand.world.now, "{}").unwrap();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let ns = |at: usize, stage: &str| told["records"][at]["stages"][stage].as_u64().unwrap_or(0);
    assert!(ns(0, "pg") > 2_900_000_000 && ns(0, "lock") == 0, "the first waits for the PG: {told}");
    assert!(ns(1, "lock") > 2_900_000_000 && ns(1, "pg") == 0, "the second for the first: {told}");
}

#[test]
fn an_idle_osd_asks_its_store_to_reclaim_freed_space() {
    let mut hand = Hand::new(1);
    let reclaims = |hand: &Hand| {
        let slot = &hand.world.slots[0];
        slot.osd.as_ref().unwrap().store().reclaims
    };
    let before = reclaims(&hand);
    hand.world.run(60_000);
    let asked = reclaims(&hand) - before;
    assert!((5..=7).contains(&asked), "{asked} times in a minute");
}
