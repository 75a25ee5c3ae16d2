//! Objects whose copies are bad or away, and those who watch them.

use crate::lab::{Lab, PG, Plan, op, set_flag};
use nacre_explain::{Cause, Question};
use nacre_sim::network::NodeId;
use nacre_sim::run::POOL;
use std::time::Duration;

/// One OSD is left, which knows that the object was written and has no copy of it.
fn unfound() -> Lab {
    let mut lab = Lab::with(Plan { min_size: 1, ..Plan::default() });
    lab.kill(2);
    lab.run(6);
    lab.write(1, 100);
    set_flag(&mut lab, "norecover");
    lab.start(2);
    lab.run(8);
    lab.stop(1);
    lab.run(4);
    lab.stop(0);
    lab.run(8);
    lab
}

#[test]
fn an_object_is_unfound() {
    let mut lab = unfound();
    lab.begin_read(0, "o0");
    lab.run(5);
    for question in [op("o0"), Question::AnyOperation] {
        let answer = lab.expect(question, Cause::OsdStopped, "osd.", "start osd");
        let gives_up =
            |s: &&nacre_explain::Step| s.command.as_deref().is_some_and(|c| c.contains("mark-unfound-lost"));
        let last = answer.steps.iter().find(gives_up);
        assert!(last.is_some_and(|step| step.loses.is_some()), "{answer}");
    }
}

#[test]
fn every_copy_of_an_object_has_rotted() {
    let mut lab = Lab::new();
    lab.write(1, 65_536);
    lab.run(5);
    for member in 0..3 {
        lab.with_osd(member, |osd| osd.rot_everything());
    }
    lab.begin_read(0, "o0");
    lab.run(8);
    lab.expect(op("o0"), Cause::ObjectDamaged, "every copy", "from a backup");
}

#[test]
fn a_scrub_found_a_bad_copy() {
    let mut lab = Lab::new();
    lab.write(3, 65_536);
    lab.run(5);
    lab.with_osd(1, |osd| osd.rot_everything());
    lab.pg_command("deep-scrub");
    lab.run(20);
    lab.expect(Question::Pg(PG), Cause::ObjectDamaged, "errors", "pg repair 1.0");
}

#[test]
fn a_disk_returns_bad_data() {
    let mut lab = Lab::new();
    lab.write(1, 65_536);
    lab.run(5);
    lab.with_osd(0, |osd| osd.rot_everything());
    lab.begin_read(0, "o0");
    lab.run(8);
    lab.expect(Question::Osd(lab.id(0)), Cause::DiskDamaged, &lab.osd(0), "look at the disk");
}

#[test]
fn a_watcher_does_not_answer() {
    let mut lab = Lab::new();
    lab.write(1, 10);
    lab.as_client(1, |handle| async move {
        let pool = handle.pool(POOL).await.expect("the pool");
        let watch = pool.object("o0").watch().await.expect("watched");
        handle.sleep(Duration::from_secs(600)).await;
        drop(watch);
    });
    lab.run(2);
    lab.cluster.world.pause(NodeId::Client(1), Duration::from_secs(120));
    lab.as_client(0, |handle| async move {
        let pool = handle.pool(POOL).await.expect("the pool").with_timeout(None);
        let _ = pool.object("o0").notify("hello", Duration::from_secs(25)).await;
    });
    lab.run(5);
    lab.expect(op("o0"), Cause::Watchers, "have not answered", "wait");
}

#[test]
fn a_scrub_waits_for_the_pg_to_be_clean() {
    let mut lab = Lab::new();
    lab.write(1, 10);
    lab.stop(1);
    lab.run(5);
    lab.pg_command("scrub");
    lab.run(3);
    lab.expect(Question::Pg(PG), Cause::OsdStopped, &lab.osd(1), "start osd");
}

#[test]
fn a_lease_of_the_primary_before_runs_on() {
    let mut lab = Lab::new();
    lab.write(1, 10);
    lab.power_off(0);
    // Until the others have marked it down and agreed among themselves.
    let waits =
        |lab: &mut Lab| lab.cluster.why_pgs().iter().any(|why| why.contains("read lease of an earlier"));
    for _ in 0..200 {
        lab.run_ms(50);
        lab.begin_read(1, "o0");
        if waits(&mut lab) {
            break;
        }
    }
    let answer = lab.ask(Question::Pg(PG));
    // It may have run out while we asked: then what is left is the dead OSD.
    let expected = [Cause::Lease, Cause::OsdUnreachable];
    assert!(expected.contains(&answer.cause), "{answer}");
}

#[test]
fn a_pause_waits_for_nothing_but_time() {
    let mut lab = Lab::new();
    lab.as_client(1, |handle| async move { handle.sleep(Duration::from_secs(60)).await });
    lab.run(1);
    let slot = lab.cluster.world.nodes.get_mut(&NodeId::Client(1)).expect("a client");
    let waiting = slot.node.client().expect("a client").cluster.waiting();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].needs, nacre_types::Needs::Time);
}

#[test]
fn two_calls_of_one_client_on_one_object() {
    let mut lab = Lab::new();
    lab.with_osd(1, |osd| osd.set_disk_latency(Duration::from_secs(60)));
    lab.write_stuck(1);
    lab.write_stuck(6);
    lab.expect_from(0, op("x"), Cause::DiskSlow, &lab.osd(1), "osd out");
}
