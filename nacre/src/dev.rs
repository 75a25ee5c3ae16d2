//! `nacre dev`: a whole cluster on this machine, every daemon a process of its own, on loopback and free ports.
//!
//! ```text
//! D/dev.json            what the cluster was made of
//! D/admin.nacre         credential file of client.admin
//! D/mon.a/ D/osd.0/     the daemons' directories
//! D/pids/osd.0          process id, while it runs
//! D/log/osd.0.log       what it logged
//! ```

mod layout;
mod process;
mod up;

use crate::admin::Context;
use crate::output::{self};
use crate::units::parse_size;
use clap::{Args, Subcommand};
use layout::{DaemonName, Layout};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The command that starts a daemon, if the credential file is that of a dev cluster which has the daemon.
pub fn start_command(credentials: &Path, daemon: &str) -> Option<String> {
    let layout = Layout::open(credentials.parent()?).ok()?;
    let its_own = layout.admin().canonicalize().ok()? == credentials.canonicalize().ok()?;
    let known = layout.check_daemon(&daemon.parse().ok()?).is_ok();
    (its_own && known).then(|| format!("nacre dev start {daemon} --dir {}", layout.root.display()))
}

#[derive(Subcommand)]
pub enum DevCommand {
    /// Makes a cluster in a directory, or resumes the one there is; prints `ready` when a write would succeed.
    Up(UpArgs),
    /// Stops every daemon. The data stays: `dev up` resumes it.
    Down(DirArgs),
    /// Which daemons run.
    Status(DirArgs),
    /// Starts one daemon, for example osd.1.
    Start(DaemonArgs),
    /// Stops one daemon in order.
    Stop(DaemonArgs),
    /// Kills one daemon with SIGKILL.
    Kill(DaemonArgs),
}

#[derive(Args)]
pub struct DirArgs {
    /// The cluster's directory.
    #[arg(long, value_name = "D")]
    dir: PathBuf,
}

#[derive(Args)]
pub struct UpArgs {
    #[command(flatten)]
    dir: DirArgs,
    /// OSDs of a new cluster.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    osds: Option<u32>,
    /// Monitors of a new cluster: 1, 3 or 5.
    #[arg(long, value_parser = odd_mons)]
    mons: Option<u32>,
    /// Space of each OSD of a new cluster.
    #[arg(long, value_parser = parse_size)]
    size: Option<u64>,
}

#[derive(Args)]
pub struct DaemonArgs {
    daemon: DaemonName,
    #[command(flatten)]
    dir: DirArgs,
}

fn odd_mons(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        _ => Err("a quorum is 1, 3 or 5 monitors".into()),
    }
}

impl DevCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            DevCommand::Up(args) => {
                up::up(&args.dir.dir, &up::Wanted { osds: args.osds, mons: args.mons, size: args.size })
            }
            DevCommand::Down(args) => {
                let layout = Layout::open(&args.dir)?;
                let _lock = layout.lock()?;
                process::stop_all(&layout)
            }
            DevCommand::Status(args) => status(context, &Layout::open(&args.dir)?),
            DevCommand::Start(args) => {
                let layout = Layout::open(&args.dir.dir)?;
                let _lock = layout.lock()?;
                layout.check_daemon(&args.daemon)?;
                if let Some(pid) = process::running(&layout, &args.daemon) {
                    anyhow::bail!("{} already runs as process {pid}", args.daemon);
                }
                process::start(&layout, &[args.daemon])
            }
            DevCommand::Stop(args) => signal(&args, process::Stop::Orderly),
            DevCommand::Kill(args) => signal(&args, process::Stop::Kill),
        }
    }
}

fn signal(args: &DaemonArgs, how: process::Stop) -> anyhow::Result<()> {
    let layout = Layout::open(&args.dir.dir)?;
    let _lock = layout.lock()?;
    layout.check_daemon(&args.daemon)?;
    if process::running(&layout, &args.daemon).is_none() {
        anyhow::bail!("{} does not run", args.daemon);
    }
    process::stop(&layout, &args.daemon, how)
}

fn status(context: &Context, layout: &Layout) -> anyhow::Result<()> {
    let daemon = |name: &DaemonName| {
        let pid = process::running(layout, name);
        let state = if pid.is_some() { "running" } else { "stopped" };
        json!({"daemon": name.to_string(), "state": state, "pid": pid, "log": layout.log(name)})
    };
    let daemons: Vec<_> = layout.daemons().iter().map(daemon).collect();
    output::print(context.format, &daemons.into(), |daemons| {
        output::rows(daemons, &[("DAEMON", "daemon"), ("STATE", "state"), ("PID", "pid"), ("LOG", "log")])
    });
    Ok(())
}
