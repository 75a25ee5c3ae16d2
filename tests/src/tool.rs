//! Running programs: the binary under test and other people's tools.

use anyhow::{Context as _, bail};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// From now on this is the binary under test, unless `$NACRE_BIN` names another.
pub fn use_binary(path: PathBuf) {
    let _ = CHOSEN.set(path);
}

/// The binary under test: `$NACRE_BIN`, the one that was chosen, or the one beside the tests in the target directory.
pub fn nacre() -> PathBuf {
    if let Some(path) = std::env::var_os("NACRE_BIN") {
        return path.into();
    }
    if let Some(path) = CHOSEN.get() {
        return path.clone();
    }
    let test = std::env::current_exe().expect("a test has a path");
    // target/release/deps/test -> target/release/nacre
    let path = test.ancestors().nth(2).expect("a target directory").join("nacre");
    assert!(path.exists(), "{} is missing: build it with 'cargo build --release -p nacre'", path.display());
    path
}

/// Whether a tool is installed. Where it is not, a test says that it was skipped: CI installs them all.
pub fn installed(tool: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool).exists()));
    if !found {
        eprintln!("skipped: {tool} is not installed");
    }
    found
}

/// Runs a command that must succeed and returns what it printed.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}):\n{}", output.status, text(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Everything a command printed.
pub fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    format!("{out}{err}")
}
