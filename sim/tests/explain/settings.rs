//! Flags, limits, rights, and what is not there any more.

use crate::lab::{Lab, PG, Plan, op, set_flag};
use nacre_explain::{Cause, Operation, Question};
use nacre_sim::run::POOL;
use nacre_types::{OsdId, PgId, PoolId};
use serde_json::json;

#[test]
fn the_cluster_is_paused() {
    let mut lab = Lab::new();
    set_flag(&mut lab, "pause");
    lab.write_stuck(3);
    lab.expect(op("x"), Cause::Flag, "pause", "osd unset pause");
    lab.expect_from(0, op("x"), Cause::Flag, "pause", "osd unset pause");
}

#[test]
fn recovery_is_switched_off() {
    let mut lab = Lab::new();
    lab.kill(1);
    lab.run(6);
    lab.write(5, 100);
    set_flag(&mut lab, "norecover");
    lab.start(1);
    lab.run(6);
    lab.expect(Question::Pg(PG), Cause::Flag, "norecover", "osd unset norecover");
}

/// An OSD comes back so late that its log does not reach, and has to be filled with more than it had.
fn backfill(before: impl FnOnce(&mut Lab)) -> Lab {
    let mut lab = Lab::with(Plan { log_entries: 12, ..Plan::default() });
    lab.write(8, 300_000);
    lab.kill(2);
    lab.run(6);
    for _ in 0..4 {
        lab.write(40, 80_000);
    }
    before(&mut lab);
    lab.start(2);
    lab.run(6);
    lab
}

#[test]
fn backfill_is_switched_off() {
    let mut lab = backfill(|lab| set_flag(lab, "nobackfill"));
    lab.expect(Question::Pg(PG), Cause::Flag, "nobackfill", "osd unset nobackfill");
}

fn ratios(lab: &mut Lab, near: f64, backfill: f64, full: f64) {
    lab.command(json!({"prefix": "osd set-nearfull-ratio", "ratio": near}));
    lab.command(json!({"prefix": "osd set-backfillfull-ratio", "ratio": backfill}));
    lab.command(json!({"prefix": "osd set-full-ratio", "ratio": full}));
    lab.run(3);
}

#[test]
fn a_target_is_too_full_to_be_filled() {
    let mut lab = backfill(|lab| ratios(lab, 0.001, 0.002, 0.9));
    lab.expect(Question::Pg(PG), Cause::BackfillFull, &lab.osd(2), "osd df");
}

/// Its PG does not serve, but not because there are too few OSDs.
#[test]
fn a_target_is_too_full_to_be_filled_and_the_rest_are_below_min_size() {
    let mut lab = backfill(|lab| {
        ratios(lab, 0.001, 0.002, 0.9);
        let min_size =
            json!({"prefix": "osd pool set", "pool": POOL, "var": "min_size", "val": "3", "yes": true});
        lab.command(min_size);
    });
    lab.expect(Question::Pg(PG), Cause::BackfillFull, &lab.osd(2), "osd df");
}

#[test]
fn the_cluster_is_full() {
    let mut lab = Lab::new();
    lab.write(8, 300_000);
    ratios(&mut lab, 0.001, 0.002, 0.003);
    lab.run(3);
    lab.expect(op("x"), Cause::Full, "osd.", "delete");
}

#[test]
fn an_osd_is_nearly_full() {
    let mut lab = Lab::new();
    lab.write(8, 300_000);
    ratios(&mut lab, 0.002, 0.8, 0.9);
    lab.expect(Question::Osd(lab.id(1)), Cause::Full, &lab.osd(1), "add OSDs");
}

#[test]
fn a_pool_is_over_its_quota() {
    let mut lab = Lab::new();
    lab.command(json!({"prefix": "osd pool set-quota", "pool": POOL, "field": "max_objects", "val": 2}));
    lab.write(3, 100);
    lab.run(6);
    lab.expect(op("x"), Cause::PoolQuota, POOL, "quota_max");
}

#[test]
fn there_is_no_such_pool() {
    let mut lab = Lab::new();
    let operation = Operation { pool: "rdb".into(), object: "x".into(), ..Operation::default() };
    lab.expect(Question::Operation(operation), Cause::PoolGone, "rdb", "pool ls");
}

#[test]
fn the_pool_was_removed() {
    let mut lab = Lab::new();
    lab.command(json!({"prefix": "osd pool create", "pool": "two", "pg_num": 1, "size": 2}));
    lab.run(3);
    lab.command(
        json!({"prefix": "config set", "who": "global", "name": "mon_allow_pool_delete", "value": "true"}),
    );
    lab.command(json!({"prefix": "osd pool rm", "pool": "two", "pool2": "two", "yes": true}));
    lab.run(3);
    lab.expect(Question::Pg(PgId::new(PoolId(2), 0)), Cause::PoolGone, "removed", "pool ls");
}

#[test]
fn there_is_no_such_pg() {
    let mut lab = Lab::new();
    lab.expect(Question::Pg(PgId::new(PoolId(1), 0x77)), Cause::PgGone, "1.77", "pg ls");
}

#[test]
fn there_is_no_such_osd() {
    let mut lab = Lab::new();
    lab.expect(Question::Osd(OsdId(77)), Cause::OsdUnknown, "osd.77", "osd tree");
}

#[test]
fn a_client_is_blocklisted() {
    let mut lab = Lab::new();
    let client = lab.client_id(1);
    lab.command(json!({"prefix": "osd blocklist add", "client": client.to_string(), "expire": 3600}));
    lab.run(1);
    let operation =
        Operation { pool: POOL.into(), object: "x".into(), client: Some(client), ..Operation::default() };
    lab.expect(Question::Operation(operation), Cause::Blocklisted, "shut out", "restart that client");
}

fn asked_by(entity: &str) -> Question {
    let entity = Some(entity.parse().expect("an entity"));
    Question::Operation(Operation { pool: POOL.into(), object: "x".into(), entity, ..Operation::default() })
}

#[test]
fn an_entity_may_only_read() {
    let mut lab = Lab::new();
    let caps = json!({"mon": "allow r", "osd": "allow r"});
    lab.command(json!({"prefix": "auth get-or-create", "entity": "client.reader", "caps": caps}));
    lab.run(1);
    lab.expect(
        asked_by("client.reader"),
        Cause::NoCaps,
        "may read, but not write",
        "auth caps client.reader",
    );
}

#[test]
fn an_entity_has_rights_elsewhere() {
    let mut lab = Lab::new();
    let caps = json!({"mon": "allow r", "osd": "allow rw pool=other"});
    lab.command(json!({"prefix": "auth get-or-create", "entity": "client.k8s", "caps": caps}));
    lab.run(1);
    lab.expect(asked_by("client.k8s"), Cause::NoCaps, "neither read nor write", "auth caps client.k8s");
}

#[test]
fn an_entity_does_not_exist() {
    let mut lab = Lab::new();
    lab.expect(asked_by("client.nobody"), Cause::EntityUnknown, "client.nobody", "auth get");
}

#[test]
fn an_osd_was_taken_out() {
    let mut lab = Lab::new();
    lab.command(json!({"prefix": "osd out", "ids": [lab.id(1).0]}));
    lab.run(8);
    for question in [Question::Pg(PG), Question::Osd(lab.id(1))] {
        lab.expect(question, Cause::OsdOut, &lab.osd(1), "osd in");
    }
}

#[test]
fn there_are_fewer_hosts_than_copies() {
    let mut lab = Lab::new();
    lab.command(json!({"prefix": "osd pool set", "pool": POOL, "var": "size", "val": "4"}));
    lab.run(8);
    lab.expect(Question::Pg(PG), Cause::TooFewOsds, POOL, "osd tree");
}
