//! Networks that carry some of what is sent.

use crate::lab::{Lab, PG, Plan, op};
use nacre_client::ClientEvent;
use nacre_explain::{Cause, Question};
use nacre_sim::network::NodeId;

#[test]
fn two_osds_do_not_hear_each_other() {
    let mut lab = Lab::new();
    lab.cut(lab.node(0), lab.node(1));
    lab.write_stuck(9);
    for question in [op("x"), Question::Osd(lab.id(1)), Question::AnyOperation] {
        let answer = lab.expect(question, Cause::LinkCut, &lab.osd(0), "look at the network between");
        assert!(answer.leaf().is_some_and(|leaf| leaf.says.contains(&lab.osd(1))), "{answer}");
    }
}

#[test]
fn one_direction_is_cut() {
    let mut lab = Lab::new();
    lab.cut_one_way(lab.node(0), lab.node(2));
    lab.write_stuck(9);
    lab.expect(op("x"), Cause::LinkCut, &lab.osd(2), "look at the network between");
}

#[test]
fn the_other_direction_is_cut() {
    let mut lab = Lab::new();
    lab.cut_one_way(lab.node(2), lab.node(0));
    lab.write_stuck(9);
    lab.expect(op("x"), Cause::LinkCut, &lab.osd(2), "look at the network between");
}

#[test]
fn an_osd_is_cut_off_from_everybody() {
    let mut lab = Lab::new();
    lab.isolate(lab.node(1));
    lab.run(12);
    lab.expect(Question::Osd(lab.id(1)), Cause::OsdUnreachable, &lab.osd(1), "its network");
}

#[test]
fn an_osd_does_not_reach_the_monitors() {
    let mut lab = Lab::new();
    lab.cut_from_monitors(lab.node(1));
    lab.run(20);
    lab.expect(Question::Osd(lab.id(1)), Cause::MonitorLink, &lab.osd(1), "and the monitors");
}

#[test]
fn a_primary_that_does_not_reach_the_monitors_cannot_begin_an_interval() {
    let mut lab = Lab::with(Plan { osds: 5, ..Plan::default() });
    lab.cut_from_monitors(lab.node(0));
    lab.run(12);
    lab.kill(2);
    lab.write_stuck(12);
    for question in [Question::Pg(PG), op("x")] {
        lab.expect(question, Cause::MonitorLink, &lab.osd(0), "and the monitors");
    }
}

#[test]
fn a_client_does_not_reach_the_primary() {
    let mut lab = Lab::new();
    lab.write(1, 10);
    lab.cut(NodeId::Client(0), lab.node(0));
    lab.write_stuck(5);
    lab.expect_from(0, op("x"), Cause::LinkCut, &lab.osd(0), "between here and");
    // For others it works.
    lab.expect(op("y"), Cause::Nothing, "", "");
}

#[test]
fn a_client_does_not_reach_the_monitors() {
    let mut lab = Lab::new();
    lab.cut_from_monitors(NodeId::Client(0));
    lab.run(25);
    lab.expect_from(0, Question::Monitors, Cause::NoMonitor, "no monitor answers", "network");
}

#[test]
fn a_certificate_has_expired() {
    let mut lab = Lab::new();
    lab.cut_from_monitors(NodeId::Client(0));
    lab.run(25);
    // As the messenger tells it.
    let reason = "the peer refuses us: our certificate expired, or a clock is wrong".to_string();
    lab.tell_client(0, ClientEvent::MonitorsUnreachable { reason, rejected: true });
    lab.expect_from(0, Question::Monitors, Cause::Certificate, "clock", "date -u");
}

#[test]
fn the_monitors_do_not_hear_each_other() {
    let mut lab = Lab::new();
    lab.cut(NodeId::Mon(0), NodeId::Mon(1));
    lab.cut(NodeId::Mon(0), NodeId::Mon(2));
    lab.cut(NodeId::Mon(1), NodeId::Mon(2));
    lab.run(25);
    lab.expect(Question::Monitors, Cause::NoQuorum, "have no quorum", "mend its network");
}

#[test]
fn one_voice_is_not_enough_to_mark_an_osd_down() {
    let mut lab = Lab::new();
    lab.cut_from_monitors(lab.node(0));
    lab.run(12);
    lab.kill(2);
    lab.write_stuck(12);
    lab.expect(op("x"), Cause::OsdProcessGone, &lab.osd(2), "osd down");
}
