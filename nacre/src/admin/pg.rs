//! `nacre pg`.

use super::Context;
use crate::output::{self};
use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
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
    /// Objects no good copy of which is reachable: which, where they were looked for, and what could be done.
    ListUnfound { pg: PgId },
    /// Gives up on the newest versions of such objects.
    MarkUnfoundLost {
        pg: PgId,
        /// Back to the newest version that is left, or away with them.
        #[arg(value_enum)]
        mode: GiveUp,
        /// Also where clients have seen what is given up.
        #[arg(long)]
        yes_i_really_mean_it: bool,
    },
    /// Begins a PG anew, empty, of which no copy exists any more. Gives up all that was in it.
    ForceCreate {
        pg: PgId,
        /// Copies that turn up later are removed.
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
            PgCommand::ListUnfound { pg } => {
                let (_, unfound) = ask_primary(context, pg, "list_unfound", json!({}))?;
                output::print(context.format, &unfound, list_unfound);
                Ok(())
            }
            PgCommand::MarkUnfoundLost { pg, mode, yes_i_really_mean_it } => {
                let mode = match mode {
                    GiveUp::Revert => "revert",
                    GiveUp::Delete => "delete",
                };
                let args = json!({"mode": mode, "yes": yes_i_really_mean_it});
                let (_, done) = ask_primary(context, pg, "mark_unfound_lost", args)?;
                output::print(context.format, &done, gave_up);
                Ok(())
            }
            PgCommand::ForceCreate { pg, yes_i_really_mean_it: yes } => {
                context.tell(json!({"prefix": "osd force-create-pg", "pgid": pg.to_string(), "yes": yes}))
            }
        }
    }
}

/// What is to become of objects that cannot be found.
#[derive(Clone, Copy, ValueEnum)]
pub enum GiveUp {
    Revert,
    Delete,
}

fn list_unfound(unfound: &Value) -> String {
    let objects = unfound["objects"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut text = format!("{} unfound objects\n", unfound["num_unfound"]);
    for object in objects {
        let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), String::from);
        let revert = &object["revert"];
        let outlook = match (&revert["to"], revert["loses_nothing"] == true) {
            (Value::Null, _) => format!("cannot be reverted: {}", word(&revert["impossible"])),
            (to, true) => format!("reverting it to {} loses nothing a client has seen", word(to)),
            (to, false) => format!("reverting it to {} loses what clients have seen", word(to)),
        };
        text += &format!("{} needs {}: {outlook}\n", word(&object["object"]), word(&object["need"]));
        for asked in object["osds"].as_array().into_iter().flatten() {
            text += &format!("    osd.{}: {}\n", asked["osd"], word(&asked["status"]));
        }
    }
    text.trim_end().into()
}

fn gave_up(done: &Value) -> String {
    if let Some(deleted) = done["deleted"].as_u64() {
        return format!("{deleted} objects deleted");
    }
    let mut text = format!("{} objects reverted", done["reverted"]);
    for left in done["left"].as_array().into_iter().flatten() {
        text += &format!(
            "\nleft: {}: {}",
            left["object"].as_str().unwrap_or_default(),
            left["why"].as_str().unwrap_or_default()
        );
    }
    text
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
