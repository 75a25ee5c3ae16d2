//! The same seed is the same run: in one process, and in another one with another environment. Across builds:
//!
//! ```text
//! for seed in 900 901 902 903; do
//!     cargo run -q -p nacre-xtask -- sim --seed $seed --hash; cargo run -q --release -p nacre-xtask -- sim --seed $seed --hash
//! done
//! ```

use nacre_sim::{Options, run};
use std::process::Command;
use std::time::Duration;

const SEEDS: std::ops::Range<u64> = 900..904;
const ASKED: &str = "NACRE_SIM_HASHES";

fn hashes() -> Vec<String> {
    let hash = |seed| {
        let options = Options { safety: Duration::from_secs(20), ..Options::sweep(seed) };
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
        .env_clear()
        .env(ASKED, "1")
        .env("TZ", "Asia/Tokyo")
        .env("LANG", "tr_TR.UTF-8")
        .env("RUST_BACKTRACE", "1")
        .output()
        .expect("it runs again");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.rsplit_once("hashes ").map(|(_, hashes)| hashes));
    assert_eq!(line, Some(first.join(" ").as_str()), "in another process");
}
