//! The programs of this workspace as users get them.

use crate::tidy;
use anyhow::{Context as _, ensure};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The binary: `$NACRE_BIN`, or built now.
pub fn nacre() -> anyhow::Result<PathBuf> {
    let path = match std::env::var_os("NACRE_BIN") {
        Some(path) => PathBuf::from(path),
        None => build("nacre", "nacre")?,
    };
    path.canonicalize().with_context(|| format!("no binary {}", path.display()))
}

/// Builds a program; its path.
pub fn build(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(tidy::root().join("target"), PathBuf::from);
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", package, "--bin", name])
        .current_dir(tidy::root())
        .stdin(Stdio::null())
        .status()?;
    ensure!(built.success(), "{name} does not build");
    Ok(target.join("release").join(name))
}
