//! Networks that carry some of what is sent.

use crate::lab::{Lab, PG, Plan, expect, op};
use nacre_client::ClientEvent;
use nacre_explain::{Cause, Question};
use nacre_sim::network::NodeId;

#[test]
fn two_osds_do_not_hear_each_other() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(0), lab.node(1));
    lab.cut(a, b);
    lab.begin_write(0, "x", 100);
    lab.run(9);
    for question in [op("x"), Question::Osd(lab.id(1)), Question::AnyOperation] {
        let answer = lab.ask(question);
        expect(&answer, Cause::LinkCut, &lab.osd(0), "look at the network between");
        assert!(answer.leaf().is_some_and(|leaf| leaf.says.contains(&lab.osd(1))), "{answer}");
    }
}

#[test]
fn one_direction_is_cut() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(0), lab.node(2));
    lab.cut_one_way(a, b);
    lab.begin_write(0, "x", 100);
    lab.run(9);
    let answer = lab.ask(op("x"));
    expect(&answer, Cause::LinkCut, &lab.osd(2), "look at the network between");
}

#[test]
fn the_other_direction_is_cut() {
    let mut lab = Lab::new();
    let (a, b) = (lab.node(0), lab.node(2));
    lab.cut_one_way(b, a);
    lab.begin_write(0, "x", 100);
    lab.run(9);
    let answer = lab.ask(op("x"));
    expect(&answer, Cause::LinkCut, &lab.osd(2), "look at the network between");
}

#[test]
fn an_osd_is_cut_off_from_everybody() {
    let mut lab = Lab::new();
    let node = lab.node(1);
    lab.isolate(node);
    lab.run(12);
    let answer = lab.ask(Question::Osd(lab.id(1)));
    expect(&answer, Cause::OsdUnreachable, &lab.osd(1), "its network");
}

#[test]
fn an_osd_does_not_reach_the_monitors() {
    let mut lab = Lab::new();
    let node = lab.node(1);
    lab.cut_from_monitors(node);
    lab.run(20);
    let answer = lab.ask(Question::Osd(lab.id(1)));
    expect(&answer, Cause::MonitorLink, &lab.osd(1), "and the monitors");
}

#[test]
fn a_primary_that_does_not_reach_the_monitors_cannot_begin_an_interval() {
    let mut lab = Lab::with(Plan { osds: 5, ..Plan::default() });
    let node = lab.node(0);
    lab.cut_from_monitors(node);
    lab.run(12);
    lab.kill(2);
    lab.begin_write(0, "x", 100);
    lab.run(12);
    for question in [Question::Pg(PG), op("x")] {
        let answer = lab.ask(question);
        expect(&answer, Cause::MonitorLink, &lab.osd(0), "and the monitors");
    }
}

#[test]
fn a_client_does_not_reach_the_primary() {
    let mut lab = Lab::new();
    lab.write(1, 10);
    let node = lab.node(0);
    lab.cut(NodeId::Client(0), node);
    lab.begin_write(0, "x", 100);
    lab.run(5);
    let answer = lab.ask_from(0, op("x"));
    expect(&answer, Cause::LinkCut, &lab.osd(0), "between here and");
    // For others it works.
    let answer = lab.ask(op("y"));
    expect(&answer, Cause::Nothing, "", "");
}

#[test]
fn a_client_does_not_reach_the_monitors() {
    let mut lab = Lab::new();
    lab.cut_from_monitors(NodeId::Client(0));
    lab.run(25);
    let answer = lab.ask_from(0, Question::Monitors);
    expect(&answer, Cause::NoMonitor, "no monitor answers", "network");
}

#[test]
fn a_certificate_has_expired() {
    let mut lab = Lab::new();
    lab.cut_from_monitors(NodeId::Client(0));
    lab.run(25);
    // As the messenger tells it.
    let reason = "the peer refuses us: our certificate expired, or a clock is wrong".to_string();
    lab.tell_client(0, ClientEvent::MonitorsUnreachable { reason, rejected: true });
    let answer = lab.ask_from(0, Question::Monitors);
    expect(&answer, Cause::Certificate, "clock", "date -u");
}

#[test]
fn the_monitors_do_not_hear_each_other() {
    let mut lab = Lab::new();
    lab.cut(NodeId::Mon(0), NodeId::Mon(1));
    lab.cut(NodeId::Mon(0), NodeId::Mon(2));
    lab.cut(NodeId::Mon(1), NodeId::Mon(2));
    lab.run(25);
    let answer = lab.ask(Question::Monitors);
    expect(&answer, Cause::NoQuorum, "have no quorum", "mend its network");
}

#[test]
fn one_voice_is_not_enough_to_mark_an_osd_down() {
    let mut lab = Lab::new();
    let node = lab.node(0);
    lab.cut_from_monitors(node);
    lab.run(12);
    lab.kill(2);
    lab.begin_write(0, "x", 100);
    lab.run(12);
    let answer = lab.ask(op("x"));
    expect(&answer, Cause::OsdProcessGone, &lab.osd(2), "osd down");
}
