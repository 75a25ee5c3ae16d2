//! Processes, hosts and disks.

use crate::lab::{Lab, PG, Plan, op, set_flag};
use nacre_explain::{Cause, Question};
use serde_json::json;
use std::time::Duration;

#[test]
fn nothing_is_wrong() {
    let mut lab = Lab::new();
    for question in
        [Question::Pg(PG), Question::Osd(lab.id(0)), op("x"), Question::AnyOperation, Question::Monitors]
    {
        lab.expect(question, Cause::Nothing, "", "");
    }
}

#[test]
fn a_process_was_killed() {
    let mut lab = Lab::new();
    lab.kill(1);
    lab.run(6);
    lab.expect(Question::Osd(lab.id(1)), Cause::OsdProcessGone, &lab.osd(1), "start osd");
}

#[test]
fn a_killed_process_leaves_a_pg_degraded() {
    let mut lab = Lab::new();
    lab.write(3, 100);
    lab.kill(2);
    lab.run(8);
    lab.expect(Question::Pg(PG), Cause::OsdProcessGone, &lab.osd(2), "start osd");
}

#[test]
fn a_host_lost_power() {
    let mut lab = Lab::new();
    lab.power_off(1);
    lab.run(15);
    lab.expect(Question::Osd(lab.id(1)), Cause::OsdUnreachable, &lab.osd(1), "ping");
}

#[test]
fn an_osd_was_stopped_in_order() {
    let mut lab = Lab::new();
    lab.stop(2);
    lab.run(4);
    lab.expect(Question::Osd(lab.id(2)), Cause::OsdStopped, &lab.osd(2), "start osd");
}

#[test]
fn an_osd_that_hangs_is_down() {
    let mut lab = Lab::new();
    lab.pause(1, 120);
    lab.run(15);
    lab.expect(Question::Osd(lab.id(1)), Cause::OsdUnreachable, &lab.osd(1), "ping");
}

#[test]
fn an_osd_that_hangs_is_not_down_yet() {
    let mut lab = Lab::new();
    lab.pause(1, 120);
    lab.begin_write(0, "x", 100);
    lab.run_ms(3500);
    lab.expect(op("x"), Cause::OsdUnreachable, &lab.osd(1), "");
}

#[test]
fn too_few_members_to_write() {
    let mut lab = Lab::new();
    lab.kill(1);
    lab.run(6);
    lab.kill(2);
    lab.begin_write(0, "x", 100);
    // Nobody but the primary is left to say so.
    lab.run(20);
    for question in [Question::Pg(PG), op("x"), Question::AnyOperation] {
        let answer = lab.expect(question, Cause::OsdProcessGone, "osd.", "min_size 1");
        assert!(answer.steps.iter().any(|step| step.loses.is_some()));
    }
}

#[test]
fn min_size_is_as_many_as_there_are() {
    let mut lab = Lab::with(Plan { min_size: 3, ..Plan::default() });
    lab.stop(1);
    lab.begin_read(0, "x");
    lab.run(6);
    lab.expect(op("x"), Cause::OsdStopped, &lab.osd(1), "start osd");
}

#[test]
fn every_osd_is_dead() {
    let mut lab = Lab::new();
    for member in 0..3 {
        lab.kill(member);
        lab.run(8);
    }
    // The last one has nobody left who could report it.
    lab.expect(Question::Pg(PG), Cause::OsdUnreachable, &lab.osd(2), "start osd");
}

/// The only one that may hold newer writes is away.
fn split_history() -> Lab {
    let mut lab = Lab::with(Plan { osds: 2, size: 2, min_size: 1, ..Plan::default() });
    lab.kill(1);
    lab.run(8);
    lab.write(2, 100);
    lab.stop(0);
    lab.run(3);
    lab.start(1);
    lab.run(8);
    lab
}

#[test]
fn the_last_writer_is_away() {
    let mut lab = split_history();
    for question in [Question::Pg(PG), op("x")] {
        let answer = lab.expect(question, Cause::OsdStopped, &lab.osd(0), "start osd");
        let lost = answer.steps.iter().find(|s| s.command.as_deref().is_some_and(|c| c.contains("osd lost")));
        assert!(lost.is_some_and(|step| step.loses.is_some()), "{answer}");
    }
}

#[test]
fn every_disk_was_wiped() {
    let mut lab = Lab::new();
    lab.write(2, 100);
    lab.run(2);
    (0..3).for_each(|member| lab.kill(member));
    (0..3).for_each(|member| lab.wipe(member));
    (0..3).for_each(|member| lab.start(member));
    lab.run(20);
    for question in [Question::Pg(PG), op("x")] {
        lab.expect(question, Cause::Incomplete, "none", "pg force-create 1.0");
    }
}

#[test]
fn an_operation_waits_for_the_last_writer() {
    let mut lab = split_history();
    lab.begin_write(1, "x", 100);
    lab.run(5);
    lab.expect_from(1, op("x"), Cause::OsdStopped, &lab.osd(0), "start osd");
}

#[test]
fn a_disk_fails_while_writing() {
    let mut lab = Lab::new();
    lab.with_osd(2, |osd| osd.disk_mut().fail_writes(true));
    lab.write_stuck(8);
    lab.expect(Question::Osd(lab.id(2)), Cause::DiskFailed, &lab.osd(2), "safe-to-destroy");
}

#[test]
fn a_failed_disk_stops_a_pg() {
    let mut lab = Lab::with(Plan { min_size: 3, ..Plan::default() });
    lab.with_osd(1, |osd| osd.disk_mut().fail_flushes(true));
    lab.write_stuck(8);
    lab.expect(op("x"), Cause::DiskFailed, &lab.osd(1), "dmesg");
}

#[test]
fn a_replicas_disk_is_slow() {
    let mut lab = Lab::new();
    lab.with_osd(1, |osd| osd.set_disk_latency(Duration::from_secs(60)));
    lab.write_stuck(10);
    for question in [op("x"), Question::AnyOperation, Question::Osd(lab.id(1))] {
        lab.expect(question, Cause::DiskSlow, &lab.osd(1), "osd out");
    }
    let client = lab.client_id(0);
    let waiting = lab.cluster.waiting().join(" ");
    let seq = waiting.split("seq: ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a request");
    lab.expect(Question::Request(format!("{client}:{seq}")), Cause::DiskSlow, &lab.osd(1), "osd out");
}

#[test]
fn the_primarys_disk_is_slow() {
    let mut lab = Lab::new();
    lab.with_osd(0, |osd| osd.set_disk_latency(Duration::from_secs(60)));
    lab.write_stuck(10);
    lab.expect(op("x"), Cause::DiskSlow, &lab.osd(0), "iostat");
}

#[test]
fn one_operation_waits_behind_another() {
    let mut lab = Lab::new();
    lab.with_osd(2, |osd| osd.set_disk_latency(Duration::from_secs(60)));
    lab.write_stuck(1);
    lab.begin_read(1, "x");
    lab.run(8);
    lab.expect_from(1, op("x"), Cause::DiskSlow, &lab.osd(2), "iostat");
}

#[test]
fn an_osd_was_marked_down_by_hand_and_is_dead() {
    let mut lab = Lab::new();
    lab.power_off(1);
    lab.command(json!({"prefix": "osd down", "ids": [lab.id(1).0]}));
    lab.run(3);
    lab.expect(Question::Osd(lab.id(1)), Cause::OsdMarkedDown, &lab.osd(1), "start osd");
}

#[test]
fn an_osd_was_never_started() {
    let mut lab = Lab::new();
    lab.command(json!({"prefix": "osd new", "uuid": "00000000-0000-4000-8000-00000000cafe"}));
    lab.expect(Question::Osd(nacre_types::OsdId(3)), Cause::OsdNeverUp, "osd.3", "start osd.3");
}

#[test]
fn the_wrong_disk_is_in_the_slot() {
    let mut lab = Lab::new();
    lab.power_off(1);
    lab.run(15);
    let at = lab.members[1];
    lab.cluster.add_osd(at, "00000000-0000-4000-8000-00000000beef");
    lab.run(5);
    lab.expect(Question::Osd(lab.id(1)), Cause::OsdEnded, "disk", "start");
}

#[test]
fn an_osd_was_removed() {
    let mut lab = Lab::with(Plan { osds: 4, ..Plan::default() });
    lab.kill(2);
    lab.run(6);
    lab.command(json!({"prefix": "osd rm", "id": lab.id(2).0, "force": true}));
    lab.run(2);
    lab.expect(Question::Osd(lab.id(2)), Cause::OsdUnknown, &lab.osd(2), "osd tree");
}

// Monitors.

#[test]
fn two_of_three_monitors_are_dead() {
    let mut lab = Lab::new();
    lab.cluster.crash_mon(0);
    lab.cluster.crash_mon(1);
    lab.run(15);
    lab.expect(Question::Monitors, Cause::NoQuorum, "mon.a", "start mon.b");
}

#[test]
fn without_a_quorum_what_works_is_said_to_work() {
    let mut lab = Lab::new();
    lab.cluster.crash_mon(0);
    lab.cluster.crash_mon(1);
    lab.run(15);
    for question in [op("x"), Question::Pg(PG), Question::Osd(lab.id(1))] {
        lab.expect(question, Cause::Nothing, "", "");
    }
}

#[test]
fn without_a_quorum_a_dead_osd_is_found_all_the_same() {
    let mut lab = Lab::new();
    lab.cluster.crash_mon(1);
    lab.cluster.crash_mon(2);
    lab.run(15);
    lab.kill(1);
    lab.write_stuck(8);
    for question in [op("x"), Question::Osd(lab.id(1))] {
        lab.expect(question, Cause::OsdProcessGone, &lab.osd(1), "without a quorum");
    }
}

#[test]
fn without_a_quorum_a_restarted_osd_waits_for_one() {
    let mut lab = Lab::new();
    lab.cluster.crash_mon(0);
    lab.cluster.crash_mon(2);
    lab.run(15);
    lab.kill(1);
    lab.run(1);
    lab.start(1);
    lab.run(8);
    lab.expect(Question::Osd(lab.id(1)), Cause::NoQuorum, "mon.", "start mon.");
}

#[test]
fn without_a_quorum_a_new_interval_waits_for_one() {
    let mut lab = Lab::new();
    lab.stop(1);
    lab.run_ms(100);
    lab.cluster.crash_mon(0);
    lab.cluster.crash_mon(1);
    lab.cluster.crash_mon(2);
    lab.run(1);
    lab.cluster.start_mon(0);
    lab.write_stuck(10);
    lab.expect(Question::Monitors, Cause::NoQuorum, "mon.b", "start mon.b");
}

#[test]
fn every_monitor_is_dead() {
    let mut lab = Lab::new();
    for at in 0..3 {
        lab.cluster.crash_mon(at);
    }
    lab.run(15);
    lab.expect(Question::Monitors, Cause::NoMonitor, "no monitor answers", "start the monitors");
    // What needs none goes on, and that is told from the map there is.
    lab.expect(op("x"), Cause::Nothing, "would serve it now", "");
}

#[test]
fn the_only_monitor_is_dead() {
    let mut lab = Lab::with(Plan { mons: 1, ..Plan::default() });
    lab.cluster.crash_mon(0);
    lab.run(15);
    lab.expect(Question::Monitors, Cause::NoMonitor, "no monitor answers", "");
}

#[test]
fn an_osd_is_not_marked_up() {
    let mut lab = Lab::new();
    set_flag(&mut lab, "noup");
    lab.kill(1);
    lab.run(6);
    lab.start(1);
    lab.run(5);
    let answer = lab.expect(Question::Osd(lab.id(1)), Cause::Flag, "noup", "osd unset noup");
    assert!(answer.leaf().is_some_and(|leaf| leaf.says.contains("set by client.")), "{answer}");
}

#[test]
fn a_dead_osd_is_not_marked_down() {
    let mut lab = Lab::new();
    set_flag(&mut lab, "nodown");
    lab.kill(1);
    lab.write_stuck(10);
    lab.expect(op("x"), Cause::Flag, "nodown", "osd unset nodown");
}
