//! What is wrong with the cluster, under the codes that people and dashboards know from Ceph, each with what to do.

use crate::commands::Context;
use crate::service::Service;
use nacre_maps::Flag;
use nacre_types::OsdId;
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Severity {
    Ok,
    Warning,
    Error,
}

impl Severity {
    pub fn word(self) -> &'static str {
        match self {
            Severity::Ok => "HEALTH_OK",
            Severity::Warning => "HEALTH_WARN",
            Severity::Error => "HEALTH_ERR",
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Check {
    pub code: &'static str,
    pub severity: Severity,
    pub summary: String,
    pub count: u64,
    pub items: Vec<String>,
    pub fix: &'static str,
}

/// Items listed under one code.
const ITEMS_MAX: usize = 50;
/// A new leader has heard no PG yet: it says nothing about them at first.
const QUIET: Duration = Duration::from_secs(10);

pub(crate) fn overall(checks: &[Check]) -> Severity {
    checks.iter().map(|check| check.severity).max().unwrap_or(Severity::Ok)
}

struct Found(Vec<Check>);

impl Found {
    fn add(
        &mut self,
        code: &'static str,
        severity: Severity,
        summary: String,
        items: Vec<String>,
        fix: &'static str,
    ) {
        let count = items.len().max(1) as u64;
        let mut items = items;
        if items.len() > ITEMS_MAX {
            let more = items.len() - ITEMS_MAX;
            items.truncate(ITEMS_MAX);
            items.push(format!("and {more} more"));
        }
        self.0.push(Check { code, severity, summary, count, items, fix });
    }
}

fn plural(count: usize, one: &str, many: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {many}") }
}

pub(crate) fn checks(state: &Service, context: &Context<'_>) -> Vec<Check> {
    let mut found = Found(Vec::new());
    monitors(state, context, &mut found);
    osds(state, context, &mut found);
    fullness(state, context, &mut found);
    pools(state, context, &mut found);
    pgs(state, context, &mut found);
    found.0
}

fn monitors(state: &Service, context: &Context<'_>, found: &mut Found) {
    let view = &context.quorum;
    if !view.silent.is_empty() {
        let (down, all) = (view.silent.len(), state.monmap.mons.len());
        let items = view.silent.iter().map(|name| {
            let address = state.monmap.mons.get(name).map_or("", |info| info.address.as_str());
            format!("mon.{name} ({address}) is not heard")
        });
        let summary = format!("{down}/{all} mons down, quorum {}", view.in_quorum.join(","));
        found.add(
            "MON_DOWN",
            Severity::Warning,
            summary,
            items.collect(),
            "start the monitor or check its network; if its machine is gone, `nacre mon rm` it and add another",
        );
    }
}

fn osds(state: &Service, context: &Context<'_>, found: &mut Found) {
    let map = &state.osdmap;
    let down: Vec<String> = map
        .osds()
        .filter(|(_, info)| !info.up && info.is_in())
        .map(|(id, info)| format!("{id} (host={}) is down", info.host))
        .collect();
    let down_count = down.len();
    if !down.is_empty() {
        found.add(
            "OSD_DOWN",
            Severity::Warning,
            format!("{} down", plural(down.len(), "osd", "osds")),
            down,
            "start the daemon; if the disk is dead, `nacre osd out` it and replace it",
        );
    }
    let mut hosts: std::collections::BTreeMap<&str, (usize, usize)> = std::collections::BTreeMap::new();
    for (_, info) in map.osds().filter(|(_, info)| info.booted && info.is_in()) {
        let host = hosts.entry(info.host.as_str()).or_default();
        (host.0, host.1) = (host.0 + 1, host.1 + usize::from(!info.up));
    }
    let dark = hosts.iter().filter(|(_, (all, down))| all == down);
    let dark: Vec<String> =
        dark.map(|(host, (all, _))| format!("host {host} ({all} osds) is down")).collect();
    if !dark.is_empty() {
        let summary = format!("{} ({} osds) down", plural(dark.len(), "host", "hosts"), down_count);
        found.add("OSD_HOST_DOWN", Severity::Warning, summary, dark, "look at the machine and its network");
    }
    let flags: Vec<&str> = map.flags().iter().filter(|&flag| flag != Flag::Full).map(Flag::as_str).collect();
    if !flags.is_empty() {
        found.add(
            "OSDMAP_FLAGS",
            Severity::Warning,
            format!("{} flag(s) set", flags.join(",")),
            Vec::new(),
            "`nacre osd unset FLAG` when the work it was set for is done",
        );
    }
    let orphans: Vec<String> = map
        .crush()
        .devices()
        .filter(|(id, _)| map.osd(OsdId(*id)).is_none())
        .map(|(id, _)| format!("osd.{id} is in the CRUSH map but does not exist"))
        .collect();
    if !orphans.is_empty() {
        let summary =
            format!("{} in the CRUSH map without an OSD", plural(orphans.len(), "device", "devices"));
        found.add("OSD_ORPHAN", Severity::Warning, summary, orphans, "`nacre crush rm osd.N`");
    }
    let within = map.osds().filter(|(_, info)| info.is_in()).count();
    let widest = map.pools().map(|(_, pool)| pool.size as usize).max().unwrap_or(0);
    if within < widest {
        found.add(
            "TOO_FEW_OSDS",
            Severity::Warning,
            format!("OSD count {within} < pool size {widest}"),
            Vec::new(),
            "add OSDs, or make pools of a smaller size",
        );
    }
    let slow: Vec<String> = context
        .memory
        .osds
        .iter()
        .filter(|(_, report)| report.stats.slow_ops > 0)
        .map(|(id, report)| format!("{id} has {} slow ops", report.stats.slow_ops))
        .collect();
    if !slow.is_empty() {
        let ops: u64 = context.memory.osds.values().map(|report| u64::from(report.stats.slow_ops)).sum();
        found.add(
            "SLOW_OPS",
            Severity::Warning,
            format!("{ops} slow ops on {}", plural(slow.len(), "osd", "osds")),
            slow,
            "look at the operations in flight of that OSD; one slow disk among its peers is the usual cause",
        );
    }
}

fn fullness(state: &Service, context: &Context<'_>, found: &mut Found) {
    let map = &state.osdmap;
    let ratios = map.ratios();
    let (mut near, mut backfill, mut full) = (Vec::new(), Vec::new(), Vec::new());
    for (id, report) in &context.memory.osds {
        let (used, total) = (report.stats.used_bytes, report.stats.total_bytes);
        if total == 0 || !map.is_in(*id) {
            continue;
        }
        let permille = (u128::from(used) * 1000 / u128::from(total)) as u32;
        let item = format!("{id} is at {}.{} %", permille / 10, permille % 10);
        if permille >= ratios.full_permille {
            full.push(item);
        } else if permille >= ratios.backfillfull_permille {
            backfill.push(item);
        } else if permille >= ratios.nearfull_permille {
            near.push(item);
        }
    }
    let fix =
        "delete data, add OSDs, or move PGs away with `nacre osd reweight`; deletes work even when full";
    if !full.is_empty() || map.flags().contains(Flag::Full) {
        let summary =
            format!("{} full: writes that need space are refused", plural(full.len(), "osd", "osds"));
        found.add("OSD_FULL", Severity::Error, summary, full, fix);
    }
    if !backfill.is_empty() {
        let summary = format!("{} too full for backfill", plural(backfill.len(), "osd", "osds"));
        found.add("OSD_BACKFILLFULL", Severity::Warning, summary, backfill, fix);
    }
    if !near.is_empty() {
        let summary = format!("{} nearly full", plural(near.len(), "osd", "osds"));
        found.add("OSD_NEARFULL", Severity::Warning, summary, near, fix);
    }
}

fn pools(state: &Service, context: &Context<'_>, found: &mut Found) {
    let map = &state.osdmap;
    let usage = context.memory.pool_use();
    let (mut single, mut full, mut near, mut no_app) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, pool) in map.pools() {
        let used = usage.get(&id).copied().unwrap_or_default();
        let name = &pool.name;
        if pool.size == 1 {
            single.push(format!("pool '{name}' has no replicas configured"));
        } else if pool.min_size == 1 {
            single.push(format!("pool '{name}' takes writes with a single copy (min_size 1)"));
        }
        let share = |used: u64, max: u64| {
            if max == 0 { 0 } else { (u128::from(used) * 100 / u128::from(max)) as u64 }
        };
        let share = share(used.bytes, pool.quota_bytes_max).max(share(used.objects, pool.quota_objects_max));
        if pool.full {
            full.push(format!("pool '{name}' is over its quota"));
        } else if share >= 80 {
            near.push(format!("pool '{name}' is at {share} % of its quota"));
        }
        if pool.applications.is_empty() && used.objects > 0 {
            no_app.push(format!("pool '{name}' is used without an application"));
        }
    }
    let count = |items: &Vec<String>| plural(items.len(), "pool", "pools");
    if !single.is_empty() {
        let summary = format!("{} without redundancy", count(&single));
        found.add(
            "POOL_NO_REDUNDANCY",
            Severity::Warning,
            summary,
            single,
            "`nacre pool set POOL size 3`, min_size 2",
        );
    }
    if !full.is_empty() {
        let summary = format!("{} full", count(&full));
        found.add(
            "POOL_FULL",
            Severity::Warning,
            summary,
            full,
            "delete data or raise `nacre pool set POOL quota_max_bytes N`",
        );
    }
    if !near.is_empty() {
        let summary = format!("{} nearly full", count(&near));
        found.add(
            "POOL_NEAR_FULL",
            Severity::Warning,
            summary,
            near,
            "delete data or raise `nacre pool set POOL quota_max_bytes N`",
        );
    }
    if !no_app.is_empty() {
        let summary = format!("{} without an application", count(&no_app));
        let fix = "`nacre pool application POOL rbd` (or cephfs, rgw, a name of yours)";
        found.add("POOL_APP_NOT_ENABLED", Severity::Warning, summary, no_app, fix);
    }
}

fn pgs(state: &Service, context: &Context<'_>, found: &mut Found) {
    let (map, memory) = (&state.osdmap, context.memory);
    let quiet = context.now.since(memory.since) < QUIET;
    let (mut inactive, mut degraded, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
    let (mut unfound, mut misplaced, mut scrub_errors) = (0_u64, 0_u64, 0_u64);
    let (mut objects, mut degraded_objects) = (0_u64, 0_u64);
    for pg in map.pgs() {
        let is = memory.pg_state(context.now, map, pg);
        if is == "unknown" && quiet {
            continue;
        }
        let stat = memory.pgs.get(&pg).map(|report| &report.stat);
        let has = |word: &str| is.split('+').any(|known| known == word);
        let acting: Vec<u32> =
            map.pg(pg).map(|p| p.acting.iter().map(|id| id.0).collect()).unwrap_or_default();
        let waiting = stat.map_or("", |stat| stat.waiting_for.as_str());
        let why = if waiting.is_empty() { String::new() } else { format!(", waiting for {waiting}") };
        let item = format!("pg {pg} is {is}, acting {acting:?}{why}");
        if !has("active") || has("stale") {
            inactive.push(item.clone());
        }
        if has("degraded") || has("undersized") {
            degraded.push(item.clone());
        }
        if has("inconsistent") || has("recovery_unfound") || has("backfill_unfound") || has("failed_repair") {
            damaged.push(item);
        }
        if let Some(stat) = stat {
            unfound = unfound.saturating_add(stat.unfound);
            misplaced = misplaced.saturating_add(stat.misplaced);
            scrub_errors = scrub_errors.saturating_add(stat.scrub_errors);
            degraded_objects = degraded_objects.saturating_add(stat.degraded);
            objects = objects.saturating_add(stat.objects);
        }
    }
    let count = |items: &Vec<String>| plural(items.len(), "pg", "pgs");
    if !inactive.is_empty() {
        let summary = format!("Reduced data availability: {} inactive", count(&inactive));
        let fix = "bring the OSDs back that it waits for (`nacre pg query` names them)";
        found.add("PG_AVAILABILITY", Severity::Warning, summary, inactive, fix);
    }
    if !degraded.is_empty() || degraded_objects > 0 {
        let summary = format!(
            "Degraded data redundancy: {degraded_objects} copies of {objects} objects missing, {} degraded",
            count(&degraded)
        );
        let fix =
            "start the OSDs that are down, or wait for recovery; it needs as many failure domains as copies";
        found.add("PG_DEGRADED", Severity::Warning, summary, degraded, fix);
    }
    if misplaced > 0 {
        let summary = format!("{misplaced} objects misplaced");
        found.add(
            "OBJECT_MISPLACED",
            Severity::Warning,
            summary,
            Vec::new(),
            "none needed: data is moving to its place",
        );
    }
    if unfound > 0 {
        let fix = "`nacre explain pg PG` says which OSDs may have them and what could be given up";
        found.add("OBJECT_UNFOUND", Severity::Warning, format!("{unfound} objects unfound"), Vec::new(), fix);
    }
    if scrub_errors > 0 {
        let summary = format!("{scrub_errors} scrub errors");
        found.add(
            "OSD_SCRUB_ERRORS",
            Severity::Error,
            summary,
            Vec::new(),
            "`nacre pg repair` the PGs listed under PG_DAMAGED",
        );
    }
    if !damaged.is_empty() {
        let summary = format!("Possible data damage: {}", count(&damaged));
        found.add(
            "PG_DAMAGED",
            Severity::Error,
            summary,
            damaged,
            "`nacre pg repair PGID` takes copies whose checksums hold",
        );
    }
}
