//! Checks that cannot fail are none: defects put in on purpose are found.

use nacre_sim::options::{Faults, Plant};
use nacre_sim::{Options, run};
use std::time::Duration;

fn first_failure(plant: Plant, faults: Faults) -> Option<String> {
    let quiet = |seed| {
        let options = Options::draw(seed);
        Options {
            plant,
            faults,
            images: false,
            think: Duration::from_millis(5),
            fault_interval: Duration::from_secs(4),
            safety: Duration::from_secs(30),
            ..options
        }
    };
    (1..10).find_map(|seed| run(quiet(seed), false).failure)
}

#[test]
fn disks_that_lie_about_flushes_are_found() {
    let faults = Faults { blackout: true, ..Faults::default() };
    let failure = first_failure(Plant::LyingFlush, faults).expect("acknowledged writes are gone");
    println!("{failure}");
}

#[test]
fn stale_reads_are_found() {
    let failure = first_failure(Plant::StaleRead, Faults::default()).expect("reads go back in time");
    assert!(failure.contains("no order of its"), "{failure}");
}
