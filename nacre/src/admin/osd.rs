//! `nacre osd`.

use super::{Context, osd_local};
use crate::output::{self, Table, cell};
use crate::units::human_bytes;
use clap::Subcommand;
use nacre_types::OsdId;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Subcommand)]
pub enum OsdCommand {
    /// The CRUSH hierarchy with the state of every OSD.
    Tree,
    /// How full every OSD is.
    Df,
    /// Lets placement use OSDs again.
    In {
        #[arg(required = true)]
        osds: Vec<OsdId>,
    },
    /// Moves data off OSDs, which stay up.
    Out {
        #[arg(required = true)]
        osds: Vec<OsdId>,
    },
    /// Marks OSDs down; a living one comes back by itself.
    Down {
        #[arg(required = true)]
        osds: Vec<OsdId>,
    },
    /// Gives an OSD only a part (0 to 1) of what its CRUSH weight says.
    Reweight { osd: OsdId, weight: f64 },
    /// Forgets an OSD for ever: its entry, its place in the CRUSH map and its key.
    Rm {
        osd: OsdId,
        #[arg(long)]
        yes_i_really_mean_it: bool,
    },
    /// Sets a cluster flag: noout, noup, nodown, noin, norecover, nobackfill, noscrub, nodeep-scrub, pause.
    Set { flag: String },
    /// Clears a cluster flag.
    Unset { flag: String },
    /// Whether OSDs could stop now without any PG stopping.
    OkToStop {
        #[arg(required = true)]
        osds: Vec<OsdId>,
    },
    /// Whether everything on OSDs exists elsewhere in full.
    SafeToDestroy {
        #[arg(required = true)]
        osds: Vec<OsdId>,
    },
    /// Declares an OSD's data lost, so that PGs stop waiting for it. Writes that only it had are gone.
    Lost {
        osd: OsdId,
        #[arg(long)]
        yes_i_really_mean_it: bool,
    },
    /// Clients that may not touch anything.
    #[command(subcommand)]
    Blocklist(BlocklistCommand),
    /// The whole osdmap.
    Dump,
    /// What one OSD says of itself: device, flush policy, costs, operations in flight.
    Status { osd: OsdId },
    /// Prepares a device or file for an OSD and registers it with the cluster.
    Format(osd_local::FormatArgs),
    /// Checks a stopped OSD's store.
    Fsck(osd_local::FsckArgs),
}

impl OsdCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<ExitCode> {
        let ids = |osds: Vec<OsdId>| osds.iter().map(OsdId::to_string).collect::<Vec<_>>();
        match self {
            OsdCommand::Tree => {
                let reply = context.ask(json!({"prefix": "osd tree"}))?;
                output::print(context.format, &reply.json, tree_text);
            }
            OsdCommand::Df => {
                let reply = context.ask(json!({"prefix": "osd df"}))?;
                output::print(context.format, &reply.json, df_text);
            }
            OsdCommand::In { osds } => context.tell(json!({"prefix": "osd in", "ids": ids(osds)}))?,
            OsdCommand::Out { osds } => context.tell(json!({"prefix": "osd out", "ids": ids(osds)}))?,
            OsdCommand::Down { osds } => context.tell(json!({"prefix": "osd down", "ids": ids(osds)}))?,
            OsdCommand::Reweight { osd, weight } => {
                context.tell(json!({"prefix": "osd reweight", "id": osd.0, "weight": weight}))?;
            }
            OsdCommand::Rm { osd, yes_i_really_mean_it } => {
                anyhow::ensure!(
                    yes_i_really_mean_it,
                    "{osd} could never come back with its data; if that is what you want, repeat with \
                     --yes-i-really-mean-it"
                );
                context.tell(json!({"prefix": "osd rm", "id": osd.0, "force": true}))?;
            }
            OsdCommand::Set { flag } => context.tell(json!({"prefix": "osd set", "key": flag}))?,
            OsdCommand::Unset { flag } => context.tell(json!({"prefix": "osd unset", "key": flag}))?,
            OsdCommand::OkToStop { osds } => {
                context.show(json!({"prefix": "osd ok-to-stop", "ids": ids(osds)}), |json| json)?;
            }
            OsdCommand::SafeToDestroy { osds } => {
                context.show(json!({"prefix": "osd safe-to-destroy", "ids": ids(osds)}), |json| json)?;
            }
            OsdCommand::Lost { osd, yes_i_really_mean_it } => {
                context.tell(json!({"prefix": "osd lost", "id": osd.0, "yes": yes_i_really_mean_it}))?;
            }
            OsdCommand::Blocklist(command) => command.run(context)?,
            OsdCommand::Dump => {
                let reply = context.ask(json!({"prefix": "osd dump"}))?;
                output::print(context.format, &reply.json, pretty);
            }
            OsdCommand::Status { osd } => {
                let (_, json) = context.ask_osd(osd, "status", json!({}))?;
                output::print(context.format, &json, pretty);
            }
            OsdCommand::Format(args) => osd_local::format(context, &args)?,
            OsdCommand::Fsck(args) => return osd_local::fsck(context, &args),
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Subcommand)]
pub enum BlocklistCommand {
    /// Lists them.
    Ls,
    /// Shuts a client out, by the number `nacre osd blocklist ls` and lock holders are shown with.
    Add {
        client: String,
        /// Seconds until it is let in again.
        #[arg(long, default_value_t = 3600)]
        expire: u64,
    },
    /// Lets a client in again.
    Rm { client: String },
}

impl BlocklistCommand {
    fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            BlocklistCommand::Ls => {
                let reply = context.ask(json!({"prefix": "osd blocklist ls"}))?;
                output::print(context.format, &reply.json, pretty);
                Ok(())
            }
            BlocklistCommand::Add { client, expire } => {
                context.tell(json!({"prefix": "osd blocklist add", "client": client, "expire": expire}))
            }
            BlocklistCommand::Rm { client } => {
                context.tell(json!({"prefix": "osd blocklist rm", "client": client}))
            }
        }
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn tree_text(tree: &Value) -> String {
    let mut table = Table::new(&["ID", "CLASS", "WEIGHT", "NAME", "STATUS", "REWEIGHT"]);
    for node in tree["nodes"].as_array().into_iter().flatten() {
        let depth = node["depth"].as_u64().unwrap_or(0) as usize;
        let is_osd = node["type"] == "osd";
        let name = match is_osd {
            true => cell(&node["name"]),
            false => format!("{} {}", cell(&node["type"]), cell(&node["name"])),
        };
        let only_osd = |field: &str| if is_osd { cell(&node[field]) } else { String::new() };
        table.row([
            cell(&node["id"]),
            only_osd("device_class"),
            cell(&node["crush_weight"]),
            format!("{}{name}", "  ".repeat(depth)),
            only_osd("status"),
            only_osd("reweight"),
        ]);
    }
    table.render()
}

fn df_text(df: &Value) -> String {
    let mut table = Table::new(&["OSD", "CLASS", "SIZE", "USED", "FREE", "USE%", "PGS", "STATUS"]);
    let bytes = |value: &Value| value.as_u64().map_or("-".into(), |kb| human_bytes(kb * 1024));
    for node in df["nodes"].as_array().into_iter().flatten() {
        table.row([
            cell(&node["name"]),
            cell(&node["device_class"]),
            bytes(&node["kb"]),
            bytes(&node["kb_used"]),
            bytes(&node["kb_avail"]),
            node["utilization"].as_f64().map_or("-".into(), |percent| format!("{percent:.1}")),
            cell(&node["pgs"]),
            cell(&node["status"]),
        ]);
    }
    table.render()
}
