//! `cargo xtask tidy`: what the architecture forbids and the compiler allows.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Crates behind the purity line: no threads, sockets, files, clocks, unseeded randomness.
pub const PURE: &[&str] = &["types", "crush", "maps", "wire", "store", "mon", "osd", "client", "explain"];
/// What none of them may depend on, directly or through another crate of ours.
const FORBIDDEN_CRATES: &[&str] = &[
    "tokio",
    "quinn",
    "io-uring",
    "rocksdb",
    "rustix",
    "libc",
    "rand",
    "getrandom",
    "socket2",
    "nacre-runtime",
];
/// What none of their sources may name (tests aside).
const FORBIDDEN_WORDS: &[&str] = &[
    "std::thread",
    "std::net::Udp",
    "std::net::Tcp",
    "std::fs",
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime::now",
    "thread_rng",
    "RandomState",
    "tokio::",
];
/// Which of our crates each may use.
const MAY_USE: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("crush", &["types"]),
    ("maps", &["types", "crush"]),
    ("wire", &["types", "crush", "maps"]),
    ("store", &["types", "wire"]),
    ("mon", &["types", "crush", "maps", "wire"]),
    ("osd", &["types", "crush", "maps", "wire", "store"]),
    ("client", &["types", "crush", "maps", "wire"]),
    ("explain", &["types", "maps", "client"]),
];
const FILE_LINES_MAX: usize = 700;

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_path_buf()
}

pub fn main() -> anyhow::Result<ExitCode> {
    let problems = check()?;
    for problem in &problems {
        println!("{problem}");
    }
    println!("tidy: {} problems", problems.len());
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub fn check() -> anyhow::Result<Vec<String>> {
    let mut problems = dependencies()?;
    for folder in PURE {
        for file in sources(&root().join(folder).join("src"))? {
            purity(&file, &mut problems)?;
        }
    }
    for file in tracked_sources()? {
        shape(&file, &mut problems)?;
    }
    Ok(problems)
}

fn dependencies() -> anyhow::Result<Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let mut problems = Vec::new();
    for package in metadata["packages"].as_array().context("no packages")? {
        let name = package["name"].as_str().unwrap_or_default().trim_start_matches("nacre-").to_string();
        if enables_mutants(package) {
            problems.push(format!(
                "{name} turns bugs on purpose on: only a build that asks for them may have them"
            ));
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(folder, _)| *folder == name) else { continue };
        let allowed: BTreeSet<String> = allowed.iter().map(|folder| format!("nacre-{folder}")).collect();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if dependency["kind"] == "dev" {
                continue;
            }
            let on = dependency["name"].as_str().unwrap_or_default();
            if FORBIDDEN_CRATES.contains(&on) {
                problems.push(format!("{name} is pure, but depends on {on}"));
            }
            if on.starts_with("nacre-") && !allowed.contains(on) {
                problems.push(format!("{name} must not use {on}"));
            }
        }
    }
    Ok(problems)
}

/// Whether a crate has the feature `mutants` of another one on unless told otherwise, or passes it on though it is none of
/// the mutation suite's.
fn enables_mutants(package: &Value) -> bool {
    let is = |feature: &Value| feature.as_str().is_some_and(|feature| feature.ends_with("mutants"));
    let any = |features: &Value| features.as_array().into_iter().flatten().any(is);
    let suite = matches!(package["name"].as_str(), Some("nacre-sim" | "nacre-xtask"));
    let passes = package["features"].as_object().into_iter().flatten().any(|(_, features)| any(features));
    let dependencies = package["dependencies"].as_array().into_iter().flatten();
    dependencies.map(|on| &on["features"]).any(any)
        || any(&package["features"]["default"])
        || (passes && !suite)
}

fn sources(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn tracked_sources() -> anyhow::Result<Vec<PathBuf>> {
    let output = Command::new("git").args(["ls-files", "*.rs"]).current_dir(root()).output()?;
    let list = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(list.lines().map(|line| root().join(line)).filter(|path| path.exists()).collect())
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        matches!(part.as_ref(), "tests" | "tests.rs" | "testing" | "testing.rs" | "examples" | "benches")
    })
}

fn purity(path: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    if is_test(path) {
        return Ok(());
    }
    let text = std::fs::read_to_string(path)?;
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&text);
    for (at, line) in code.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("//") {
            continue;
        }
        for word in FORBIDDEN_WORDS {
            if line.contains(word) {
                problems.push(format!("{}:{}: pure code names {word}", shown(path), at + 1));
            }
        }
    }
    Ok(())
}

fn shape(path: &Path, problems: &mut Vec<String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("//!") {
        problems.push(format!("{}: does not open with a //! line", shown(path)));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX && !is_test(path) {
        problems.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", shown(path)));
    }
    Ok(())
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_is_tidy() {
        let problems = super::check().unwrap();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }
}
