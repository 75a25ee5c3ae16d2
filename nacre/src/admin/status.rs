//! `nacre status`, `nacre health`, `nacre log`.

use super::Context;
use crate::output::{self, Table, cell};
use crate::units::human_bytes;
use clap::Args;
use serde_json::{Value, json};

#[derive(Args)]
pub struct HealthArgs {
    /// `detail` lists every finding with its fix.
    #[arg(value_parser = ["detail"])]
    detail: Option<String>,
}

#[derive(Args)]
pub struct LogArgs {
    /// How many of the newest lines.
    #[arg(default_value_t = 50)]
    lines: u32,
    /// Only lines of at least this level.
    #[arg(long, value_parser = ["debug", "info", "warning", "error"])]
    level: Option<String>,
}

pub fn status(context: &Context) -> anyhow::Result<()> {
    let reply = context.ask(json!({"prefix": "status"}))?;
    output::print(context.format, &reply.json, status_text);
    Ok(())
}

pub fn health(context: &Context, args: &HealthArgs) -> anyhow::Result<()> {
    let detail = args.detail.is_some();
    let reply = context.ask(json!({"prefix": "health", "detail": detail}))?;
    output::print(context.format, &reply.json, |health| health_text(health, detail));
    Ok(())
}

pub fn log(context: &Context, args: &LogArgs) -> anyhow::Result<()> {
    let command = json!({"prefix": "log last", "num": args.lines, "level": args.level});
    context.show(command, |json| json)
}

fn health_text(health: &Value, detail: bool) -> String {
    let mut text = cell(&health["status"]);
    text.push('\n');
    for (code, check) in health["checks"].as_object().into_iter().flatten() {
        let severity = cell(&check["severity"]);
        let mark = if severity == "HEALTH_ERR" { "[ERR]" } else { "[WRN]" };
        text.push_str(&format!("{mark} {code}: {}\n", cell(&check["summary"]["message"])));
        if !detail {
            continue;
        }
        for line in check["detail"].as_array().into_iter().flatten() {
            text.push_str(&format!("    {}\n", cell(line.get("message").unwrap_or(line))));
        }
        if let Some(fix) = check["fix"].as_str() {
            text.push_str(&format!("    fix: {fix}\n"));
        }
    }
    text
}

fn status_text(status: &Value) -> String {
    let number = |pointer: &str| status.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    let mut text = format!("  cluster:\n    id:     {}\n", cell(&status["fsid"]));
    let health = health_text(&status["health"], false);
    text.push_str(&format!("    health: {}\n", health.trim_end().replace('\n', "\n            ")));
    let quorum: Vec<String> = status["quorum_names"].as_array().into_iter().flatten().map(cell).collect();
    text.push_str(&format!(
        "\n  services:\n    mon: {} monitors, quorum {}\n    osd: {} OSDs: {} up, {} in (epoch {})\n",
        number("/monmap/num_mons"),
        quorum.join(","),
        number("/osdmap/num_osds"),
        number("/osdmap/num_up_osds"),
        number("/osdmap/num_in_osds"),
        number("/osdmap/epoch"),
    ));
    text.push_str(&format!(
        "\n  data:\n    pools:   {} pools, {} PGs\n    objects: {} objects, {}\n    usage:   {} used, {} of {} free\n",
        number("/pgmap/num_pools"),
        number("/pgmap/num_pgs"),
        number("/pgmap/num_objects"),
        human_bytes(number("/pgmap/data_bytes")),
        human_bytes(number("/pgmap/bytes_used")),
        human_bytes(number("/pgmap/bytes_avail")),
        human_bytes(number("/pgmap/bytes_total")),
    ));
    let mut label = "    pgs:     ";
    for state in status.pointer("/pgmap/pgs_by_state").and_then(Value::as_array).into_iter().flatten() {
        text.push_str(&format!("{label}{} {}\n", cell(&state["count"]), cell(&state["state_name"])));
        label = "             ";
    }
    let degraded = number("/pgmap/degraded_objects");
    let misplaced = number("/pgmap/misplaced_objects");
    let unfound = number("/pgmap/unfound_objects");
    for (count, what) in [(degraded, "degraded"), (misplaced, "misplaced"), (unfound, "unfound")] {
        if count > 0 {
            text.push_str(&format!("             {count} object copies {what}\n"));
        }
    }
    let io = [
        ("read_bytes_sec", "read_op_per_sec", "read"),
        ("write_bytes_sec", "write_op_per_sec", "written"),
        ("recovering_bytes_per_sec", "recovering_objects_per_sec", "recovered"),
    ];
    let mut table = Table::new(&["", ""]);
    let mut any = false;
    for (bytes, ops, what) in io {
        let (bytes, ops) = (number(&format!("/pgmap/{bytes}")), number(&format!("/pgmap/{ops}")));
        if bytes + ops > 0 {
            any = true;
            table.row([format!("    {}/s {what},", human_bytes(bytes)), format!("{ops} a second")]);
        }
    }
    if any {
        text.push_str(&format!("\n  io:{}", table.render()));
    }
    text
}
