//! The same seed is the same run: in one process, and in another one.

use nacre_sim::{Options, run};
use std::process::Command;
use std::time::Duration;

const SEEDS: std::ops::Range<u64> = 900..904;
const ASKED: &str = "NACRE_SIM_HASHES";

fn hashes() -> Vec<String> {
    let hash = |seed| {
        let options = Options { safety: Duration::from_secs(20), ..Options::draw(seed) };
        let outcome = run(options, false);
        format!("{seed}:{:016x}:{}", outcome.hash, outcome.events)
    };
    SEEDS.map(hash).collect()
}

/// Not a test of its own: the other process of [`the_same_seed_is_the_same_run`].
#[test]
fn print_hashes() {
    if std::env::var_os(ASKED).is_some() {
        println!("hashes {}", hashes().join(" "));
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let first = hashes();
    assert_eq!(hashes(), first, "in the same process");
    let output = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "print_hashes", "--nocapture", "--test-threads", "1"])
        .env(ASKED, "1")
        .output()
        .expect("it runs again");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.rsplit_once("hashes ").map(|(_, hashes)| hashes));
    assert_eq!(line, Some(first.join(" ").as_str()), "in another process");
}
