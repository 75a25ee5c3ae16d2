//! Every state of the peering model: nothing breaks; and without any one of the rules, something does.

use nacre_models::peering::{Peering, Rules};
use nacre_models::{Report, explore};

const LOST: &str = "no acked write is missing from an active PG";
const BACK: &str = "nothing that was gone comes back";

fn model(size: usize, min_size: usize) -> Peering {
    Peering { rules: Rules::ALL, size, min_size, epochs: 4, writes: 1, wipes: 0, watch_heard: true }
}

fn visit(model: &Peering) -> Report {
    let describe = model.clone();
    explore(model.clone(), |action, state| describe.describe(action, state))
}

fn holds(model: Peering) {
    let report = visit(&model);
    println!("{model:?}: {} states, {} steps deep", report.states, report.depth);
    if let Some((name, steps)) = report.counterexample {
        panic!("{name}:\n  {}", steps.join("\n  "));
    }
    assert_eq!(report.reached.len(), 3, "{:?}", report.reached);
}

/// What must break without a rule, breaks; the way there is printed.
fn breaks(rules: Rules, model: Peering, property: &str) {
    let model = Peering { rules, watch_heard: false, ..model };
    let report = visit(&model);
    let (name, steps) = report.counterexample.unwrap_or_else(|| panic!("{rules:?} lose nothing"));
    println!("{rules:?}\n{name}:\n  {}", steps.join("\n  "));
    assert_eq!(name, property);
}

#[test]
fn three_copies_two_needed() {
    holds(model(3, 2));
}

#[test]
fn three_copies_two_needed_two_writes() {
    holds(Peering { writes: 2, ..model(3, 2) });
}

#[test]
fn two_copies_one_needed() {
    holds(model(2, 1));
}

#[test]
fn two_copies_one_needed_two_writes() {
    holds(Peering { writes: 2, ..model(2, 1) });
}

#[test]
fn a_disk_is_emptied() {
    holds(Peering { wipes: 1, ..model(3, 2) });
}

#[test]
fn without_up_thru() {
    breaks(Rules { up_thru: false, ..Rules::ALL }, model(2, 1), LOST);
}

#[test]
fn without_min_size() {
    breaks(Rules { min_size: false, ..Rules::ALL }, model(3, 2), LOST);
}

#[test]
fn without_hearing_past_intervals() {
    breaks(Rules { prior_set: false, ..Rules::ALL }, model(2, 1), LOST);
}

#[test]
fn with_the_start_recorded_before_the_log() {
    breaks(Rules { start_with_log: false, ..Rules::ALL }, model(3, 2), BACK);
}

#[test]
fn with_the_newest_entry_instead_of_the_newest_start() {
    breaks(Rules { best_by_start: false, ..Rules::ALL }, model(3, 2), BACK);
}

#[test]
fn with_messages_of_other_intervals_taken() {
    breaks(Rules { interval_guard: false, ..Rules::ALL }, model(3, 2), LOST);
}

#[test]
fn with_acks_of_most_members() {
    breaks(Rules { ack_by_all: false, ..Rules::ALL }, model(3, 1), LOST);
}

#[test]
fn with_an_emptied_disk_as_witness() {
    breaks(Rules { wiped_is_no_witness: false, ..Rules::ALL }, Peering { wipes: 1, ..model(3, 2) }, LOST);
}
