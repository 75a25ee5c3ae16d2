//! A small fixed set of seeds, and all that ever failed. Long sweeps: `cargo xtask sim`.

use nacre_sim::options::Faults;
use nacre_sim::{Options, run};
use std::time::Duration;

fn check(options: Options) -> Vec<&'static str> {
    let text = options.to_string();
    let seed = options.seed;
    let outcome = run(options, false);
    if let Some(failure) = outcome.failure {
        panic!("seed {seed} ({text}): {failure}\n{}", outcome.recent.join("\n"));
    }
    outcome.marks.into_keys().collect()
}

/// Faults and places that 60 short runs must come by: a sweep that breaks nothing proves nothing.
const MUST_HIT: [&str; 8] = [
    "fault: crash",
    "fault: power",
    "fault: partition",
    "fault: pause",
    "fault: clogged links",
    "fault: CRUSH edit",
    "fault: slow disk",
    "store: early checkpoint",
];

#[test]
fn a_few_seeds() {
    let mut marks = std::collections::BTreeSet::new();
    for seed in 1..=60 {
        marks.extend(check(Options { safety: Duration::from_secs(20), ..Options::sweep(seed) }));
    }
    let missing: Vec<_> = MUST_HIT.iter().filter(|mark| !marks.contains(*mark)).collect();
    assert!(missing.is_empty(), "never hit: {missing:?}");
}

#[test]
fn seeds_that_once_failed() {
    for line in
        include_str!("seeds.txt").lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let mut words = line.split_whitespace();
        let seed = words.next().and_then(|word| word.parse().ok()).expect("a line starts with its seed");
        let mut options = Options::draw(seed);
        match words.next() {
            Some("drawn") => {}
            Some("swarm") => options = Options::swarm(seed),
            Some("sweep") => options = Options::sweep(seed),
            faults => options.faults = Faults::parse(faults.unwrap_or_default()).expect("faults by name"),
        }
        for setting in words.take_while(|word| word.contains('=')) {
            options.set(setting).expect("a setting");
        }
        check(options);
    }
}
