//! Parts add up, members and clients are believed as far as it fits, and what is kept is bounded.

use super::log::RECORDS_MAX;
use super::*;
use crate::ops::ReadCache;
use crate::pg::{ClientOp, Stage};
use nacre_store::StoreStats;
use nacre_types::{ClientId, EVersion, EntityName, Epoch, ObjectId, PoolId, RequestId};
use nacre_wire::stages::{ClientTimes, ReplicaTimes};
use nacre_wire::{Data, Peer, SessionId};
use serde_json::{Value, json};

const ME: OsdId = OsdId(0);

fn us(us: u64) -> Instant {
    Instant(us * 1000)
}

fn version(seq: u64) -> EVersion {
    EVersion::new(Epoch(3), seq)
}

fn op(client: u64, seq: u64, object: &str, write: bool) -> ClientOp {
    ClientOp {
        from: Peer { session: SessionId(1), entity: EntityName::Client("vm".into()) },
        request: RequestId { client: ClientId(client), seq },
        sent_in: Epoch(3),
        message: Default::default(),
        data: if write { Data::plain(vec![0; 4096].into()) } else { Data::default() },
        object: ObjectId::new(PoolId(1), "", object).expect("a name"),
        write,
        received: us(0),
        stage: Stage::Queued,
        reads: ReadCache::new(),
        wanted: Vec::new(),
        arrived: Vec::new(),
        wait: Needs::Turn,
        watch: Vec::new(),
        stopwatch: None,
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

fn records(log: &StageLog, now: Instant, asked: Value) -> Vec<Value> {
    let answer = json(&log.stages_json(ME, now, &asked.to_string()).expect("a good question"));
    answer["records"].as_array().expect("records").clone()
}

/// A write that waits for the PG, then for an earlier one, and last for a replica.
#[test]
fn the_parts_of_a_write_add_up_and_the_last_member_has_the_wait() {
    let mut watch = Stopwatch::start(64, us(10)).expect("measured");
    watch.waits(us(10), &Needs::Lease(Vec::new()));
    watch.waits(us(30), &Needs::EarlierWrites);
    watch.turn(us(35), Part::Commit);
    let mut writes = MeasuredWrites::default();
    writes.lead(version(7), us(35));
    assert!(writes.leads(version(7)) && !writes.leads(version(8)));
    let mut clock = JournalClock::default();
    let stats = |journal_writes, journal_written| StoreStats {
        journal_writes,
        journal_written,
        ..StoreStats::default()
    };
    clock.look(us(40), &stats(1, 0));
    clock.look(us(70), &stats(1, 1));
    writes.own_commit(ME, version(7), us(90), &clock);
    let told = ReplicaTimes {
        version: crate::log::encode_version(version(7)),
        queue_ns: 1000,
        write_ns: 20_000,
        flush_ns: 50_000,
    };
    writes.acknowledged(OsdId(2), version(6), us(95), &[told]);
    writes.acknowledged(OsdId(2), version(8), us(135), &[told]);
    writes.acknowledged(OsdId(2), version(9), us(500), &[told]);
    let write = writes.take(version(7)).expect("measured");
    watch.committed(ME, us(135), write);
    let mut log = StageLog::default();
    let osd_ns = log.answered(us(135), &op(5, 1, "data.a1.0", true), &watch, 0);
    assert_eq!(osd_ns, 125_000, "from arrival to answer");
    let record = records(&log, us(200), json!({})).remove(0);
    let stages = json!({
        "pg": 20_000, "lock": 5_000,
        "replica_network": 29_000, "replica_queue": 1000, "replica_write": 20_000, "replica_flush": 50_000,
    });
    assert_eq!(record["stages"], stages);
    let members = json!([
        {"osd": 0, "total_ns": 55_000, "queue_ns": 5000, "write_ns": 30_000, "flush_ns": 20_000},
        {"osd": 2, "total_ns": 100_000, "queue_ns": 1000, "write_ns": 20_000, "flush_ns": 50_000},
    ]);
    assert_eq!(record["members"], members);
    assert_eq!(record["total_ns"], Value::Null, "its client has not said anything yet");
}

#[test]
fn a_member_is_not_believed_more_than_there_was() {
    let mut watch = Stopwatch::start(1, us(0)).expect("measured");
    watch.turn(us(0), Part::Commit);
    let mut writes = MeasuredWrites::default();
    writes.lead(version(1), us(0));
    let told = ReplicaTimes {
        version: crate::log::encode_version(version(1)),
        queue_ns: 7_000,
        write_ns: u64::MAX,
        flush_ns: u64::MAX,
    };
    writes.acknowledged(OsdId(1), version(1), us(10), &[told]);
    watch.committed(ME, us(10), writes.take(version(1)).expect("measured"));
    let mut log = StageLog::default();
    assert_eq!(log.answered(us(10), &op(5, 1, "o", true), &watch, 0), 10_000);
    let record = records(&log, us(10), json!({})).remove(0);
    assert_eq!(record["stages"], json!({"replica_queue": 7000, "replica_write": 3000}));
    assert_eq!(json(&log.top_json(ME, us(10)))["rows"][0]["osd_ns"], 10_000);
}

#[test]
fn a_replica_tells_its_own_times_once() {
    let mut writes = MeasuredWrites::default();
    writes.follow(version(4), us(100));
    let mut clock = JournalClock::default();
    clock.look(us(120), &StoreStats { journal_writes: 9, ..StoreStats::default() });
    clock.look(us(150), &StoreStats { journal_writes: 9, journal_written: 9, ..StoreStats::default() });
    assert_eq!(writes.durable(version(3), us(150), &clock), None);
    let told = writes.durable(version(5), us(180), &clock).expect("it is durable");
    assert_eq!((told.queue_ns, told.write_ns, told.flush_ns), (20_000, 30_000, 30_000));
    assert_eq!(writes.durable(version(5), us(180), &clock), None);
}

#[test]
fn what_the_client_saw_completes_a_record() {
    let mut log = StageLog::default();
    let mut watch = Stopwatch::start(1, us(0)).expect("measured");
    watch.turn(us(0), Part::Read);
    log.answered(us(300), &op(5, 1, "data.a1.0", false), &watch, 512);
    let times = ClientTimes { request: 1, total_ns: 500_000, queue_ns: 50_000, retries_ns: 20_000 };
    log.told(ClientId(6), &times);
    assert_eq!(records(&log, us(300), json!({}))[0]["total_ns"], Value::Null, "another client's request");
    log.told(ClientId(5), &times);
    log.told(ClientId(5), &ClientTimes { total_ns: 1, ..times });
    let record = records(&log, us(300), json!({})).remove(0);
    assert_eq!(record["total_ns"], 500_000);
    let stages = json!({"client_queue": 50_000, "retries": 20_000, "network": 130_000, "read": 300_000});
    assert_eq!(record["stages"], stages);
    let row = json(&log.top_json(ME, us(300)))["rows"][0].clone();
    assert_eq!(
        (&row["client_ns"], &row["read_bytes"], &row["image"]),
        (&json!(500_000), &json!(512), &json!("a1"))
    );
}

#[test]
fn a_client_that_says_nonsense_harms_only_its_record() {
    let mut log = StageLog::default();
    let watch = Stopwatch::start(1, us(0)).expect("measured");
    for seq in 1..=3 {
        log.answered(us(300), &op(5, seq, "o", false), &watch, 0);
    }
    for (request, times) in [(1, [0; 3]), (2, [u64::MAX; 3]), (3, [400_000, u64::MAX, u64::MAX])] {
        let [total_ns, queue_ns, retries_ns] = times;
        log.told(ClientId(5), &ClientTimes { request, total_ns, queue_ns, retries_ns });
    }
    for record in records(&log, us(300), json!({})) {
        let stages = record["stages"].as_object().expect("stages").values();
        let sum: u64 = stages.map(|ns| ns.as_u64().expect("a number")).sum();
        assert_eq!(sum, record["total_ns"].as_u64().expect("told"));
    }
    log.top_json(ME, us(300));
}

#[test]
fn only_so_much_is_kept_and_the_newest_of_it() {
    let mut log = StageLog::default();
    let watch = Stopwatch::start(10, us(0)).expect("measured");
    let many = 3 * RECORDS_MAX as u64;
    for seq in 0..many {
        log.answered(us(seq), &op(seq % 600, seq, &format!("data.{}.0", seq % 700), true), &watch, 0);
        log.check();
        if seq % 3 == 0 {
            let times = ClientTimes { request: seq, total_ns: u64::MAX, ..ClientTimes::default() };
            log.told(ClientId(seq % 600), &times);
        }
    }
    log.told(ClientId(1), &ClientTimes { request: 1, ..ClientTimes::default() });
    let kept = records(&log, us(many), json!({}));
    assert_eq!(kept.len(), RECORDS_MAX);
    assert_eq!(
        kept[0]["request"],
        op((many - RECORDS_MAX as u64) % 600, many - RECORDS_MAX as u64, "o", true).request.to_string()
    );
    let top = json(&log.top_json(ME, us(many)));
    assert!(top["rows"].as_array().expect("rows").len() <= 256);
    assert_eq!(top["window_ms"], (RECORDS_MAX as u64) / 1000, "rates go back as far as the records do");
}

#[test]
fn who_asks_gets_the_pool_the_objects_and_the_time_asked_for() {
    let mut log = StageLog::default();
    let watch = Stopwatch::start(64, us(0)).expect("measured");
    for (seq, object) in ["data.a1.0", "data.a1.1", "data.a12.0", "other"].into_iter().enumerate() {
        log.answered(Instant::from_millis(seq as u64 * 1000), &op(5, seq as u64, object, true), &watch, 0);
    }
    let now = Instant::from_millis(4000);
    let count = |asked: Value| records(&log, now, asked).len();
    assert_eq!(count(json!({"pool": 1, "prefix": "data.a1."})), 2);
    assert_eq!(count(json!({"pool": 2})), 0);
    assert_eq!(count(json!({"max_age_ms": 2000})), 2);
    assert_eq!(count(json!({})), 4);
    for bad in ["", "{", "{\"pool\":\"rbd\"}", "{\"pool\":99999999999}", "{\"max_age_ms\":-1}"] {
        log.stages_json(ME, now, bad).expect_err(bad);
    }
    let rows = json(&log.top_json(ME, now))["rows"].clone();
    let told: Vec<_> =
        rows.as_array().expect("rows").iter().map(|row| (&row["image"], &row["writes"])).collect();
    assert_eq!(told[0], (&json!("a1"), &json!(128)), "with those it stands for");
    assert_eq!(rows[0]["written_bytes"], 128 * 4096);
    let rows = json(&log.top_json(ME, now + std::time::Duration::from_secs(60)))["rows"].clone();
    assert_eq!(rows, json!([]), "that was a minute ago");
}
