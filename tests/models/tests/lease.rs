//! Every state of the lease model: no stale read; and without any one of the rules, there is one.

use nacre_models::lease::{Lease, Rules};
use nacre_models::{Report, explore};

const BASE: Lease =
    Lease { rules: Rules::ALL, epochs: 4, steps: 5, slow_answers: false, restarts: false, all_clocks: false };

fn visit(model: &Lease) -> Report {
    let describe = model.clone();
    explore(model.clone(), |action, state| describe.describe(action, state))
}

fn holds(model: Lease) {
    let report = visit(&model);
    println!("{model:?}: {} states, {} steps deep", report.states, report.depth);
    if let Some((name, steps)) = report.counterexample {
        panic!("{name}:\n  {}", steps.join("\n  "));
    }
    assert_eq!(report.reached.len(), 2, "{:?}", report.reached);
}

/// What must break without a rule, breaks; the way there is printed.
fn breaks(rules: Rules, model: Lease) {
    let report = visit(&Lease { rules, epochs: 3, ..model });
    let (name, steps) = report.counterexample.unwrap_or_else(|| panic!("{rules:?} read nothing stale"));
    println!("{rules:?}\n{name}:\n  {}", steps.join("\n  "));
}

#[test]
fn four_epochs_in_a_short_time() {
    holds(Lease { steps: 3, ..BASE });
}

#[test]
fn three_epochs() {
    holds(Lease { epochs: 3, steps: 6, ..BASE });
}

#[test]
fn restarts() {
    holds(Lease { epochs: 3, steps: 4, restarts: true, ..BASE });
}

#[test]
fn clocks_of_every_kind() {
    holds(Lease { epochs: 3, steps: 4, all_clocks: true, ..BASE });
}

#[test]
fn slow_answers() {
    holds(Lease { epochs: 3, slow_answers: true, ..BASE });
}

#[test]
fn without_waiting() {
    breaks(Rules { waited: false, ..Rules::ALL }, BASE);
}

#[test]
fn without_room_for_drift() {
    breaks(Rules { drift: false, ..Rules::ALL }, BASE);
}

#[test]
fn counted_from_the_answer() {
    breaks(Rules { from_asking: false, ..Rules::ALL }, Lease { slow_answers: true, ..BASE });
}

#[test]
fn forgotten_over_a_restart() {
    breaks(Rules { restart: false, ..Rules::ALL }, Lease { restarts: true, ..BASE });
}

#[test]
fn by_one_member_alone() {
    breaks(Rules { of_all: false, ..Rules::ALL }, BASE);
}

#[test]
fn not_passed_on() {
    breaks(Rules { passed_on: false, ..Rules::ALL }, BASE);
}
