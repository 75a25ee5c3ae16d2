//! A small fixed set of seeds, and all that ever failed. Long sweeps: `cargo xtask sim`.

use nacre_sim::options::Faults;
use nacre_sim::{Options, run};
use std::time::Duration;

fn check(options: Options) {
    let text = options.to_string();
    let seed = options.seed;
    let outcome = run(options, false);
    if let Some(failure) = outcome.failure {
        panic!("seed {seed} ({text}): {failure}\n{}", outcome.recent.join("\n"));
    }
}

#[test]
fn a_few_seeds() {
    for seed in 1..=16 {
        check(Options { safety: Duration::from_secs(20), ..Options::draw(seed) });
    }
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
            faults => options.faults = Faults::parse(faults.unwrap_or_default()).expect("faults by name"),
        }
        check(options);
    }
}
