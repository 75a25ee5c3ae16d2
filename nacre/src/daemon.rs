//! `nacre daemon`: runs one daemon in the foreground, logging to stderr, and says when it is ready in the way of sd_notify.

mod mon;
mod osd;
mod ready;
mod settings;

use clap::{Args, Subcommand};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

pub use osd::host_name;
pub use settings::Settings;

#[derive(Subcommand)]
pub enum DaemonCommand {
    /// A monitor, from the directory that `nacre mon bootstrap` made.
    Mon(DaemonArgs),
    /// An OSD, from the directory that `nacre osd format` made.
    Osd(DaemonArgs),
}

#[derive(Args)]
pub struct DaemonArgs {
    /// The daemon's directory.
    #[arg(long, value_name = "D")]
    dir: PathBuf,
}

impl DaemonCommand {
    pub fn run(self) -> anyhow::Result<()> {
        let filter =
            EnvFilter::try_from_env("NACRE_LOG").unwrap_or_else(|_| EnvFilter::new("info,quinn=warn"));
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false)
            .init();
        match self {
            DaemonCommand::Mon(args) => mon::run(&args.dir),
            DaemonCommand::Osd(args) => osd::run(&args.dir),
        }
    }
}

/// Resolves at SIGTERM or SIGINT. SIGHUP is ignored: the terminal may go, the daemon stays.
pub async fn shutdown() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
    else {
        tracing::error!("cannot listen to signals; stop this daemon with SIGKILL");
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return,
            _ = interrupt.recv() => return,
            _ = hangup.recv() => {}
        }
    }
}

/// A number no other run has.
pub fn random_u64() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 ^ uuid::Uuid::new_v4().as_u64_pair().1.rotate_left(32)
}
