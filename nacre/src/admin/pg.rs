//! `nacre pg`.

use super::Context;
use crate::output::{self};
use anyhow::Context as _;
use clap::Subcommand;
use nacre_types::{OsdId, PgId};
use serde_json::{Value, json};

#[derive(Subcommand)]
pub enum PgCommand {
    /// Lists placement groups with their state.
    Ls {
        /// Only PGs of this pool.
        #[arg(long)]
        pool: Option<String>,
    },
    /// Where a PG lies.
    Map { pg: PgId },
    /// Everything its primary knows about a PG.
    Query { pg: PgId },
    /// Compares the metadata of all copies of a PG.
    Scrub { pg: PgId },
    /// Reads and compares all data of all copies of a PG.
    DeepScrub { pg: PgId },
    /// Replaces damaged copies by good ones.
    Repair { pg: PgId },
    /// Gives up on objects no copy of which can be found.
    MarkUnfoundLost {
        pg: PgId,
        #[arg(long)]
        yes_i_really_mean_it: bool,
    },
}

impl PgCommand {
    pub fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            PgCommand::Ls { pool } => {
                context.show(json!({"prefix": "pg ls", "pool": pool}), |mut json| json["pg_stats"].take())
            }
            PgCommand::Map { pg } => {
                let reply = context.ask(json!({"prefix": "pg map", "pgid": pg.to_string()}))?;
                output::print(context.format, &reply.json, |map| {
                    format!("{pg} is up on {} and served by {}", map["up"], map["acting"])
                });
                Ok(())
            }
            PgCommand::Query { pg } => {
                let answer = ask_primary(context, pg, "query", json!({}))?;
                output::print(context.format, &answer.1, |query| {
                    serde_json::to_string_pretty(query).unwrap_or_default()
                });
                Ok(())
            }
            PgCommand::Scrub { pg } => tell_primary(context, pg, "scrub", json!({})),
            PgCommand::DeepScrub { pg } => tell_primary(context, pg, "deep-scrub", json!({})),
            PgCommand::Repair { pg } => tell_primary(context, pg, "repair", json!({})),
            PgCommand::MarkUnfoundLost { pg, yes_i_really_mean_it } => {
                anyhow::ensure!(
                    yes_i_really_mean_it,
                    "this deletes the objects for ever; if every OSD that may have them is gone, repeat with \
                     --yes-i-really-mean-it"
                );
                tell_primary(context, pg, "mark_unfound_lost", json!({}))
            }
        }
    }
}

/// What the monitors know of the PGs, of one pool or of all.
pub fn list(context: &Context, pool: Option<&str>) -> anyhow::Result<Value> {
    let mut reply = context.ask(json!({"prefix": "pg ls", "pool": pool}))?;
    let pgs = reply.json.get_mut("pg_stats").map(Value::take);
    pgs.filter(Value::is_array).context("the monitors answered without a list of PGs")
}

/// Sends a PG command to the OSD that serves the PG.
fn ask_primary(
    context: &Context,
    pg: PgId,
    command: &str,
    mut args: Value,
) -> anyhow::Result<(String, Value)> {
    let map = context.ask(json!({"prefix": "pg map", "pgid": pg.to_string()}))?;
    let primary = map.json["acting"].as_array().and_then(|acting| acting.first()).and_then(Value::as_u64);
    let primary = primary
        .and_then(|id| u32::try_from(id).ok())
        .with_context(|| format!("no OSD serves {pg} now: see 'nacre pg ls' and 'nacre osd tree'"))?;
    args["pgid"] = pg.to_string().into();
    context.ask_osd(OsdId(primary), command, args)
}

fn tell_primary(context: &Context, pg: PgId, command: &str, args: Value) -> anyhow::Result<()> {
    let (message, json) = ask_primary(context, pg, command, args)?;
    output::print(context.format, &json, |_| message);
    Ok(())
}
