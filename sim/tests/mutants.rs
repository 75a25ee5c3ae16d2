//! The bugs on purpose that are caught in a moment, so that the suite itself stays in order. All of them:
//! `cargo xtask sim --mutants`.

#![cfg(feature = "mutants")]

use nacre_sim::mutants::{control, trial};
use nacre_types::mutant::Mutant;

/// Seeds that a bug may take here: how many it does take is luck, and falls anew with each change of what is simulated.
const SEEDS: u64 = 40;

const QUICK: &[&str] = &[
    "up-thru-skipped",
    "activated-before-durable",
    "pg-temp-kept",
    "old-version-pushed",
    "lease-ignored",
    "prior-lease-ignored",
    "lease-forgotten-at-restart",
    "clone-not-made",
    "snapset-dropped",
    "blocklist-ignored",
    "lock-not-checked",
    "notify-lost",
    "commit-before-flush",
    "checkpoint-early",
    "replay-stops-early",
    "patch-dropped",
    "clone-uncounted",
    "omap-clear-forgotten",
    "omap-lost-in-replay",
    "one-reporter",
];

#[test]
fn quick_ones_are_caught() {
    let mut missed = Vec::new();
    for name in QUICK {
        let bug = Mutant::parse(name).expect("a mutant's name");
        let caught = (1..=SEEDS).any(|seed| {
            trial(bug, seed, &[], false).caught.is_some() && control(bug, seed, &[], false).caught.is_none()
        });
        if !caught {
            missed.push(*name);
        }
    }
    assert!(missed.is_empty(), "no checker caught {}", missed.join(", "));
}
