//! The cluster at a glance.

use super::{Args, Context, Failure, Reply};
use crate::health::{self, Severity};
use crate::service::Service;
use nacre_wire::messages::LogLevel;
use serde_json::{Value, json};

const LOG_DEFAULT: usize = 20;
const LOG_MAX: usize = 1_000;

fn health_json(checks: &[health::Check], detail: bool) -> Value {
    let check = |check: &health::Check| {
        let mut value = json!({
            "severity": check.severity.word(),
            "summary": {"message": check.summary, "count": check.count},
            "fix": check.fix,
            "muted": false,
        });
        if detail {
            value["detail"] = check.items.iter().map(|item| json!({"message": item})).collect();
        }
        (check.code.to_string(), value)
    };
    let checks_json: serde_json::Map<String, Value> = checks.iter().map(check).collect();
    json!({"status": health::overall(checks).word(), "checks": checks_json, "mutes": []})
}

pub(super) fn health(state: &Service, context: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let detail = args.flag("detail")?;
    let checks = health::checks(state, context);
    let mut text = health::overall(&checks).word().to_string();
    for check in &checks {
        text.push_str(&format!("\n[{}] {}: {}", check.severity.short(), check.code, check.summary));
        if detail {
            check.items.iter().for_each(|item| text.push_str(&format!("\n    {item}")));
            text.push_str(&format!("\n    fix: {}", check.fix));
        }
    }
    Ok(Reply::done(text).with_json(health_json(&checks, detail)))
}

pub(super) fn status(state: &Service, context: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let map = &state.osdmap;
    let checks = health::checks(state, context);
    let (all, up, within) = super::osd::counts(map);
    let states = super::pg::states(context.now, context.memory, map);
    let usage = context.memory.pool_use();
    let sum = |field: fn(&crate::leader::PoolUse) -> u64| usage.values().map(field).sum::<u64>();
    let (objects, bytes) = (sum(|u| u.objects), sum(|u| u.bytes));
    let (degraded, misplaced, unfound) = (sum(|u| u.degraded), sum(|u| u.misplaced), sum(|u| u.unfound));
    let (used, total) = context.memory.space();
    let pgs: u64 = states.values().sum();
    let by_state: Vec<Value> =
        states.iter().map(|(name, n)| json!({"state_name": name, "count": n})).collect();
    let view = &context.quorum;

    let mut text = format!(
        "  cluster:\n    id:     {}\n    health: {}\n",
        state.fsid(),
        health::overall(&checks).word()
    );
    for check in &checks {
        text.push_str(&format!("            {}\n", check.summary));
    }
    let out = if view.silent.is_empty() {
        String::new()
    } else {
        format!(", out of quorum: {}", view.silent.join(","))
    };
    text.push_str(&format!(
        "\n  services:\n    mon: {} daemons, quorum {} (leader {}){out}\n    osd: {all} osds: {up} up, {within} in\n",
        state.monmap.mons.len(),
        view.in_quorum.join(","),
        view.leader.clone().unwrap_or_default(),
    ));
    text.push_str(&format!(
        "\n  data:\n    pools:   {} pools, {pgs} pgs\n    objects: {objects} objects, {}\n    usage:   {} used, {} / {} avail\n",
        map.pools().count(),
        size(bytes),
        size(used),
        size(total.saturating_sub(used)),
        size(total),
    ));
    let mut lead = "    pgs:     ";
    for (share, what) in [(degraded, "degraded"), (misplaced, "misplaced"), (unfound, "unfound")] {
        if share > 0 {
            text.push_str(&format!("{lead}{share} objects {what}\n"));
            lead = "             ";
        }
    }
    for (state, count) in &states {
        text.push_str(&format!("{lead}{count} {state}\n"));
        lead = "             ";
    }
    let json = json!({
        "fsid": state.fsid(),
        "health": health_json(&checks, false),
        "election_epoch": view.term,
        "quorum": view.in_quorum.iter().filter_map(|n| state.monmap.mons.keys().position(|k| k == n)).collect::<Vec<_>>(),
        "quorum_names": view.in_quorum,
        "quorum_leader_name": view.leader,
        "quorum_age": view.leading_ms / 1000,
        "monmap": {"epoch": state.monmap.epoch.0, "num_mons": state.monmap.mons.len()},
        "osdmap": {
            "epoch": map.epoch().0,
            "num_osds": all,
            "num_up_osds": up,
            "num_in_osds": within,
            "num_remapped_pgs": states.iter().filter(|(s, _)| s.contains("remapped")).map(|(_, n)| n).sum::<u64>(),
        },
        "pgmap": {
            "pgs_by_state": by_state,
            "num_pgs": pgs,
            "num_pools": map.pools().count(),
            "num_objects": objects,
            "data_bytes": bytes,
            "bytes_used": used,
            "bytes_avail": total.saturating_sub(used),
            "bytes_total": total,
            "degraded_objects": degraded,
            "misplaced_objects": misplaced,
            "unfound_objects": unfound,
        },
    });
    Ok(Reply::done(text).with_json(json))
}

fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut at = 0;
    while value >= 1024.0 && at + 1 < UNITS.len() {
        value /= 1024.0;
        at += 1;
    }
    if at == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[at]) }
}

pub(super) fn df(state: &Service, context: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let (used, total) = context.memory.space();
    let avail = total.saturating_sub(used);
    let usage = context.memory.pool_use();
    let mut text = format!(
        "RAW STORAGE  SIZE {}  AVAIL {}  USED {}\n\nPOOL  ID  PGS  STORED  OBJECTS  QUOTA\n",
        size(total),
        size(avail),
        size(used)
    );
    let mut pools = Vec::new();
    for (id, pool) in state.osdmap.pools() {
        let used = usage.get(&id).copied().unwrap_or_default();
        let quota = if pool.quota_bytes_max > 0 { size(pool.quota_bytes_max) } else { "-".into() };
        text.push_str(&format!(
            "{}  {id}  {}  {}  {}  {quota}\n",
            pool.name,
            pool.pg_num,
            size(used.bytes),
            used.objects
        ));
        pools.push(json!({
            "name": pool.name,
            "id": id.0,
            "stats": {
                "stored": used.bytes,
                "objects": used.objects,
                "bytes_used": used.bytes.saturating_mul(u64::from(pool.size)),
                "max_avail": avail / u64::from(pool.size.max(1)),
                "quota_bytes": pool.quota_bytes_max,
                "quota_objects": pool.quota_objects_max,
            },
        }));
    }
    let stats = json!({"total_bytes": total, "total_avail_bytes": avail, "total_used_bytes": used});
    Ok(Reply::done(text).with_json(json!({"stats": stats, "pools": pools})))
}

pub(super) fn fsid(state: &Service, _: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    Ok(Reply::done(state.fsid()).with_json(json!({"fsid": state.fsid()})))
}

pub(super) fn version(_: &Service, context: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    Ok(Reply::done(format!("nacre version {}", context.version))
        .with_json(json!({"version": context.version})))
}

pub(super) fn versions(state: &Service, context: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let mut osds = std::collections::BTreeMap::new();
    for (_, info) in state.osdmap.osds().filter(|(_, info)| info.up) {
        *osds.entry(info.version.clone()).or_insert(0_u64) += 1;
    }
    Ok(Reply::json(json!({"leader": context.version, "osd": osds})))
}

pub(super) fn log_last(state: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let num = args.parsed_if::<usize>("num", "a number of lines")?.unwrap_or(LOG_DEFAULT).min(LOG_MAX);
    let level = match args.text_if("level")? {
        None | Some("debug") => LogLevel::Debug,
        Some("info") => LogLevel::Info,
        Some("warn" | "warning") => LogLevel::Warning,
        Some("error") => LogLevel::Error,
        Some(other) => {
            let shown: String = other.chars().take(40).collect();
            return Err(Failure::invalid(format!("'{shown}' is no level: give debug, info, warn or error")));
        }
    };
    let wanted = state.log.iter().rev().filter(|line| line.level >= level as i32).take(num);
    let mut lines: Vec<_> = wanted.collect();
    lines.reverse();
    let word = |level: i32| match LogLevel::try_from(level).unwrap_or(LogLevel::Info) {
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warning => "warn",
        LogLevel::Error => "error",
    };
    let text: String = lines
        .iter()
        .map(|line| format!("{} {} [{}] {}\n", line.at_ms, line.who, word(line.level), line.text))
        .collect();
    let json = lines
        .iter()
        .map(|l| json!({"seq": l.seq, "stamp_ms": l.at_ms, "who": l.who, "priority": word(l.level), "message": l.text}))
        .collect();
    Ok(Reply::json(json).with_output(text))
}

pub(super) fn log(
    draft: &mut crate::draft::Draft<'_>,
    context: &Context<'_>,
    args: &Args,
) -> Result<Reply, Failure> {
    let text = args.text("text")?;
    draft.log(LogLevel::Info, &context.entity.to_string(), text);
    Ok(Reply::done("logged"))
}

impl Severity {
    fn short(self) -> &'static str {
        match self {
            Severity::Ok => "OK",
            Severity::Warning => "WRN",
            Severity::Error => "ERR",
        }
    }
}
