//! The command line: what there is to type.

use crate::admin::{self, Context};
use crate::output::Format;
use crate::{daemon, dev};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Nacre: replicated object and block storage.
#[derive(Parser)]
#[command(name = "nacre", version, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    /// Credential file of the cluster to talk to.
    #[arg(long, global = true, env = "NACRE_CLUSTER", value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Answer in JSON, with Ceph's field names.
    #[arg(long, global = true)]
    json: bool,
    /// Give up on the cluster after this many seconds.
    #[arg(long, global = true, default_value_t = 30.0, value_name = "SECONDS", value_parser = seconds)]
    timeout: f64,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A whole cluster on this machine, for trying and developing.
    #[command(subcommand)]
    Dev(dev::DevCommand),
    /// What the cluster is, does and suffers from.
    Status,
    /// Whether anything is wrong, and what to do about it.
    Health(admin::status::HealthArgs),
    /// Why something is stuck, down to its cause, and a safe next step.
    #[command(subcommand)]
    Explain(admin::explain::ExplainCommand),
    /// Where the time of a pool's or image's operations goes, and which OSD stands out.
    WhySlow(admin::slow::WhySlowArgs),
    /// Which clients do how much, on which images, and how long they wait for it.
    Top(admin::slow::TopArgs),
    /// Storage daemons.
    #[command(subcommand)]
    Osd(admin::osd::OsdCommand),
    /// Pools.
    #[command(subcommand)]
    Pool(admin::pool::PoolCommand),
    /// Placement groups.
    #[command(subcommand)]
    Pg(admin::pg::PgCommand),
    /// The CRUSH map.
    #[command(subcommand)]
    Crush(admin::crush::CrushCommand),
    /// Central configuration.
    #[command(subcommand)]
    Config(admin::config::ConfigCommand),
    /// Monitors.
    #[command(subcommand)]
    Mon(admin::mon::MonCommand),
    /// Entities and what they may do.
    #[command(subcommand)]
    Auth(admin::auth::AuthCommand),
    /// The cluster log.
    Log(admin::status::LogArgs),
    /// Objects in pools.
    #[command(subcommand)]
    Object(admin::object::ObjectCommand),
    /// Block images.
    #[command(subcommand)]
    Image(admin::image::ImageCommand),
    /// The NBD gateway.
    #[command(subcommand)]
    Nbd(admin::nbd::NbdCommand),
    /// Runs a daemon in the foreground, logging to stderr.
    #[command(subcommand)]
    Daemon(daemon::DaemonCommand),
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds between 0.1 and 86400".into()),
    }
}

impl Cli {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let context = Context {
            cluster: self.cluster,
            format: if self.json { Format::Json } else { Format::Human },
            timeout: Duration::from_secs_f64(self.timeout),
        };
        let done = |()| ExitCode::SUCCESS;
        match self.command {
            Command::Dev(command) => command.run(&context).map(done),
            Command::Status => admin::status::status(&context).map(done),
            Command::Health(args) => admin::status::health(&context, &args).map(done),
            Command::Explain(command) => command.run(&context).map(done),
            Command::WhySlow(args) => args.run(&context).map(done),
            Command::Top(args) => args.run(&context).map(done),
            Command::Osd(command) => command.run(&context),
            Command::Pool(command) => command.run(&context).map(done),
            Command::Pg(command) => command.run(&context).map(done),
            Command::Crush(command) => command.run(&context).map(done),
            Command::Config(command) => command.run(&context).map(done),
            Command::Mon(command) => command.run(&context).map(done),
            Command::Auth(command) => command.run(&context).map(done),
            Command::Log(args) => admin::status::log(&context, &args).map(done),
            Command::Object(command) => command.run(&context).map(done),
            Command::Image(command) => command.run(&context).map(done),
            Command::Nbd(command) => command.run(&context).map(done),
            Command::Daemon(command) => command.run().map(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
