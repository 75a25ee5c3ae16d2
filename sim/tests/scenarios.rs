//! Every `tests/scenarios/*.txt` (`*.open` are known not to hold yet); `nacre_sim::scenario` says what the words mean.
//! `NACRE_SCENARIO=f16` runs those whose names begin so, open ones too, event by event.

use std::path::{Path, PathBuf};

const ONE: &str = "NACRE_SCENARIO";

fn scenarios(which: impl Fn(&str, &str) -> bool) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/scenarios");
    let entries = std::fs::read_dir(&folder).expect("the folder of scenarios");
    let mut files: Vec<_> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|path| {
        let part = |part: Option<&std::ffi::OsStr>| {
            part.and_then(|part| part.to_str()).unwrap_or_default().to_string()
        };
        which(&part(path.file_name()), &part(path.extension()))
    });
    files.sort();
    files
}

fn run(files: &[PathBuf], print: bool) {
    let mut failures = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).expect("a text file");
        let name = file.file_name().unwrap_or_default().display();
        match nacre_sim::scenario::run(&text, print) {
            Ok(()) => println!("{name} holds"),
            Err(why) => failures.push(format!("{name}: {why}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// In parts, so that they run beside each other.
fn part(of: usize, parts: usize) {
    let files = scenarios(|_, ending| ending == "txt");
    assert!(files.len() >= 3, "scenarios are missing");
    run(&files.into_iter().skip(of).step_by(parts).collect::<Vec<_>>(), false);
}

#[test]
fn scenarios_1() {
    part(0, 2);
}

#[test]
fn scenarios_2() {
    part(1, 2);
}

#[test]
fn every_scenario_says_what_must_hold() {
    for file in scenarios(|_, ending| matches!(ending, "txt" | "open")) {
        let text = std::fs::read_to_string(&file).expect("a text file");
        assert!(text.starts_with("# F"), "{} does not begin with its id and what must hold", file.display());
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test has no other parameters")]
fn the_one_asked_for() {
    if let Ok(wanted) = std::env::var(ONE) {
        run(&scenarios(|name, _| name.starts_with(&wanted)), true);
    }
}
