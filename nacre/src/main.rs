//! The `nacre` program: daemons, gateways and administration in one binary.

mod admin;
mod cli;
mod daemon;
mod dev;
mod output;
mod units;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    restore_sigpipe();
    match cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("nacre: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, leaving out those that it has told already.
fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text.trim_end().to_string()
}

/// Rust ignores SIGPIPE, which would make `nacre log | head` end in a write error instead of silently.
#[allow(unsafe_code)]
fn restore_sigpipe() {
    // SAFETY: sets the disposition of one signal before any thread exists; no handler of ours is involved.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let cause = || anyhow::anyhow!("no such file");
        assert_eq!(sentence(&cause().context("cannot read x: no such file")), "cannot read x: no such file");
        assert_eq!(sentence(&cause().context("cannot read x")), "cannot read x: no such file");
    }
}
