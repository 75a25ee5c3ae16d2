//! Every target over every input it has: its seeds, the kept corpus, and simple changes of both.

use nacre_fuzz::{TARGETS, Target, memory};
use std::path::Path;

fn kept(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut inputs = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a readable folder").path();
        inputs.push((path.display().to_string(), std::fs::read(&path).expect("a readable file")));
    }
    inputs.sort();
    inputs
}

fn check(target: &Target, what: &str, input: &[u8]) {
    if std::panic::catch_unwind(|| target.check(input)).is_err() {
        panic!("{}: {what} fails; the input: {}", target.name, input.escape_ascii());
    }
}

#[test]
fn every_target_bears_its_corpus() {
    for target in TARGETS {
        for (at, seed) in (target.seeds)().iter().enumerate() {
            assert!(seed.len() <= target.input_bytes_max, "{}: seed {at} is too long", target.name);
            check(target, &format!("seed {at}"), seed);
        }
        for (path, input) in kept(target) {
            check(target, &path, &input);
        }
    }
}

/// Cuts and flips of each seed: what a fuzzer tries first, so that none of it is news.
#[test]
fn every_target_bears_damaged_seeds() {
    for target in TARGETS {
        for seed in (target.seeds)() {
            for at in (0..seed.len()).step_by(seed.len() / 24 + 1) {
                check(target, &format!("a seed cut at {at}"), &seed[..at]);
                for value in [0, 0xff, seed[at] ^ 1, seed[at] ^ 0x80] {
                    let mut damaged = seed.clone();
                    damaged[at] = value;
                    check(target, &format!("a seed with {value} at {at}"), &damaged);
                }
            }
        }
    }
}

#[test]
fn names_are_unique_and_the_corpus_belongs_to_targets() {
    for (at, target) in TARGETS.iter().enumerate() {
        assert!(TARGETS[..at].iter().all(|other| other.name != target.name), "{}", target.name);
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let name = entry.expect("a readable folder").file_name().into_string().expect("a plain name");
        assert!(Target::find(&name).is_some(), "fuzz/corpus/{name} belongs to no target");
    }
}

#[test]
fn the_peak_is_what_was_held_at_once() {
    let peak = memory::peak_of(|| {
        for _ in 0..10 {
            drop(std::hint::black_box(vec![1_u8; 100_000]));
        }
    });
    assert!((100_000..200_000).contains(&peak), "{peak}");
}
