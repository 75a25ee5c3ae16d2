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
            eprintln!("nacre: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Rust ignores SIGPIPE, which would make `nacre log | head` end in a write error instead of silently.
#[allow(unsafe_code)]
fn restore_sigpipe() {
    // SAFETY: sets the disposition of one signal before any thread exists; no handler of ours is involved.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}
