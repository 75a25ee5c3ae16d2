//! Pools: made, changed, removed; self-managed snapshots.

use super::{Args, Context, Failure, Reply};
use crate::draft::Draft;
use crate::options::mon_number;
use crate::service::Service;
use nacre_maps::{OsdMap, PG_NUM_MAX, Pool};
use nacre_types::{EntityName, PoolId, SnapId};
use nacre_wire::ErrorCode;
use serde_json::{Map, Value, json};

const NAME_BYTES_MAX: usize = 128;
const SIZE_MAX: u32 = 10;
/// Pools of a cluster.
const POOLS_MAX: usize = 1_000;
/// PG copies per OSD that the default aims at.
const PGS_PER_OSD: u64 = 100;
const PG_NUM_DEFAULT_MIN: u64 = 32;
const PG_NUM_DEFAULT_MAX: u64 = 1024;
/// Settings of a pool that are only kept, for whoever they are for.
const FREE_OPTIONS: &[(&str, &str)] = &[
    ("nodelete", "bool"),
    ("nosizechange", "bool"),
    ("noscrub", "bool"),
    ("nodeep-scrub", "bool"),
    ("bulk", "bool"),
    ("scrub_min_interval", "seconds"),
    ("scrub_max_interval", "seconds"),
    ("deep_scrub_interval", "seconds"),
    ("recovery_priority", "-10..10"),
];

fn no_pool(name: &str) -> Failure {
    let shown: String = name.chars().take(80).collect();
    Failure::not_found(format!("there is no pool '{shown}': `nacre pool ls` lists them"))
}

fn find(draft: &Draft<'_>, name: &str) -> Result<PoolId, Failure> {
    draft.pool_by_name(name).map(|(id, _)| id).ok_or_else(|| no_pool(name))
}

pub(crate) fn find_in<'a>(map: &'a OsdMap, name: &str) -> Result<(PoolId, &'a Pool), Failure> {
    map.pool_by_name(name).ok_or_else(|| no_pool(name))
}

fn check_name(name: &str) -> Result<(), Failure> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(legal) {
        let shown: String = name.chars().take(80).collect();
        let text = format!(
            "'{shown}' cannot be a pool's name: use 1 to {NAME_BYTES_MAX} letters, digits, '.', '_', '-'"
        );
        return Err(Failure::invalid(text));
    }
    Ok(())
}

fn mon_entity(context: &Context<'_>) -> EntityName {
    EntityName::Mon(context.quorum.me.clone())
}

/// As many PGs as give each OSD its share when a handful of pools like this one exist; a power of two.
fn default_pg_num(draft: &Draft<'_>, size: u32) -> u32 {
    let osds = draft.osds().filter(|(_, info)| info.is_in()).count() as u64;
    let wanted = osds * PGS_PER_OSD / (u64::from(size) * 2);
    wanted.next_power_of_two().clamp(PG_NUM_DEFAULT_MIN, PG_NUM_DEFAULT_MAX) as u32
}

fn check_sizes(draft: &Draft<'_>, context: &Context<'_>, size: u32, min_size: u32) -> Result<(), Failure> {
    if !(1..=SIZE_MAX).contains(&size) {
        return Err(Failure::invalid(format!("size {size} is not between 1 and {SIZE_MAX}")));
    }
    if !(1..=size).contains(&min_size) {
        return Err(Failure::invalid(format!(
            "min_size {min_size} is not between 1 and the pool's size {size}"
        )));
    }
    let allowed = mon_number(&draft.state.config, &mon_entity(context), "mon_allow_pool_size_one") == 1;
    if size == 1 && !allowed {
        return Err(Failure::new(
            ErrorCode::NotPermitted,
            "a pool of size 1 loses data with the first failed disk; if that is meant: \
             `nacre config set global mon_allow_pool_size_one true`",
        ));
    }
    Ok(())
}

pub(super) fn create(draft: &mut Draft<'_>, context: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let name = args.text("pool")?;
    check_name(name)?;
    if let Some((id, _)) = draft.pool_by_name(name) {
        // As with Ceph, so that scripts can be run twice.
        return Ok(Reply::done(format!("pool '{name}' already exists")).with_json(json!({"pool_id": id.0})));
    }
    if draft.pools().count() >= POOLS_MAX {
        return Err(Failure::invalid(format!(
            "there are {POOLS_MAX} pools already: use namespaces within a pool"
        )));
    }
    let me = mon_entity(context);
    let setting = |key: &str| mon_number(&draft.state.config, &me, key) as u32;
    let size =
        args.parsed_if("size", "a number of copies")?.unwrap_or_else(|| setting("osd_pool_default_size"));
    let min_size = match args.parsed_if("min_size", "a number of copies")? {
        Some(min_size) => min_size,
        None => match setting("osd_pool_default_min_size") {
            0 => size / 2 + 1,
            given => given.min(size),
        },
    };
    check_sizes(draft, context, size, min_size)?;
    let rule = match args.text_if("rule")? {
        Some(rule) => rule_id(draft, rule)?,
        None => match draft.crush().rules().next() {
            Some(rule) => rule.id,
            None => return Err(Failure::not_found("the CRUSH map has no rule: make one first")),
        },
    };
    let pg_num = match args.parsed_if::<u32>("pg_num", "a number of PGs")?.unwrap_or(0) {
        0 => match setting("osd_pool_default_pg_num") {
            0 => default_pg_num(draft, size),
            given => given,
        },
        given => given,
    };
    if !(1..=PG_NUM_MAX).contains(&pg_num) {
        return Err(Failure::invalid(format!("pg_num {pg_num} is not between 1 and {PG_NUM_MAX}")));
    }
    let id = draft.next_pool();
    let mut pool = Pool::new(name, size, min_size, pg_num, rule, draft.epoch());
    pool.created_ms = draft.at_ms;
    pool.applications = args.text_if("application")?.map(String::from).into_iter().collect();
    draft.step.pools.insert(id, Some(pool));
    let message = format!("pool '{name}' created");
    Ok(Reply::done(message).with_json(json!({"pool_id": id.0, "pg_num": pg_num, "size": size})))
}

fn rule_id(draft: &Draft<'_>, rule: &str) -> Result<u32, Failure> {
    let found = draft.crush().rule_by_name(rule).map(|rule| rule.id);
    let found = found.or_else(|| rule.parse().ok().filter(|&id| draft.crush().rule_exists(id)));
    found.ok_or_else(|| {
        let shown: String = rule.chars().take(80).collect();
        Failure::not_found(format!("there is no CRUSH rule '{shown}': `nacre crush show` lists them"))
    })
}

fn details(map: &OsdMap, id: PoolId, pool: &Pool) -> Value {
    let options: Map<String, Value> =
        pool.options.iter().map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect();
    json!({
        "pool_id": id.0,
        "pool_name": pool.name,
        "size": pool.size,
        "min_size": pool.min_size,
        "pg_num": pool.pg_num,
        "pg_placement_num": pool.pgp_num,
        "crush_rule": pool.rule,
        "crush_rule_name": map.crush().rule(pool.rule).map(|rule| rule.name.clone()),
        "type": "replicated",
        "create_epoch": pool.created().0,
        "application_metadata": pool.applications,
        "quota_max_bytes": pool.quota_bytes_max,
        "quota_max_objects": pool.quota_objects_max,
        "snap_seq": pool.snap_seq().0,
        "removed_snaps": pool.removed_snaps.iter().map(|r| json!([r.start, r.length])).collect::<Vec<_>>(),
        "full": pool.full,
        "options": options,
    })
}

pub(crate) fn all_details(map: &OsdMap) -> Vec<Value> {
    map.pools().map(|(id, pool)| details(map, id, pool)).collect()
}

pub(super) fn ls(state: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let map = &state.osdmap;
    if args.flag("detail")? {
        return Ok(Reply::json(Value::Array(all_details(map))));
    }
    let names: Vec<&str> = map.pools().map(|(_, pool)| pool.name.as_str()).collect();
    Ok(Reply::json(json!(names)).with_output(names.join("\n")))
}

pub(super) fn get(state: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (id, pool) = find_in(&state.osdmap, args.text("pool")?)?;
    let all = details(&state.osdmap, id, pool);
    let var = args.text_if("var")?.unwrap_or("all");
    let key = match var {
        "all" => return Ok(Reply::json(all)),
        "crush_rule" => "crush_rule_name",
        "pgp_num" => "pg_placement_num",
        other => other,
    };
    let value = all.get(key).or_else(|| all.get("options").and_then(|options| options.get(key)));
    let value = value.cloned().ok_or_else(|| {
        Failure::not_found(format!(
            "pool '{}' has no setting '{}'",
            pool.name,
            var.chars().take(60).collect::<String>()
        ))
    })?;
    Ok(Reply::json(json!({"pool": pool.name, "pool_id": id.0, var: value})))
}

pub(super) fn set(draft: &mut Draft<'_>, context: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let name = args.text("pool")?;
    let id = find(draft, name)?;
    let pool = draft.pool(id).cloned().ok_or_else(|| no_pool(name))?;
    let (var, val) = (args.text("var")?, args.scalar("val")?);
    let number = || {
        val.parse::<u32>()
            .map_err(|_| Failure::invalid(format!("'{val}' is no value for {var}: give a number")))
    };
    let mut new = pool.clone();
    match var {
        "size" => {
            new.size = number()?;
            new.min_size = new.min_size.min(new.size).max(if new.size > 1 { 1 } else { new.size });
            if pool.options.get("nosizechange").is_some_and(|v| v == "true") {
                return Err(Failure::new(
                    ErrorCode::NotPermitted,
                    format!("pool '{name}' has nosizechange set"),
                ));
            }
            check_sizes(draft, context, new.size, new.min_size)?;
        }
        "min_size" => {
            new.min_size = number()?;
            check_sizes(draft, context, new.size, new.min_size)?;
            if new.min_size < new.size / 2 + 1 && new.min_size < pool.min_size && !args.flag("yes")? {
                return Err(Failure::new(
                    ErrorCode::NotPermitted,
                    format!(
                        "with min_size {} of {} a write may exist only once, and be lost with that disk; \
                         repeat with yes if that is meant",
                        new.min_size, new.size
                    ),
                ));
            }
        }
        "pg_num" | "pgp_num" => {
            let wanted = number()?;
            if wanted == pool.pg_num {
                return Ok(Reply::done(format!("pool '{name}' has {wanted} PGs")));
            }
            return Err(Failure::new(
                ErrorCode::NotSupported,
                format!(
                    "the PGs of '{name}' cannot be split or merged yet: make a pool with {wanted} and copy"
                ),
            ));
        }
        "crush_rule" => new.rule = rule_id(draft, &val)?,
        "target_max_bytes" | "quota_max_bytes" => {
            new.quota_bytes_max = val.parse().map_err(|_| Failure::invalid("give a number of bytes"))?;
        }
        other => {
            let Some((_, kind)) = FREE_OPTIONS.iter().find(|(known, _)| *known == other) else {
                let known: Vec<&str> = FREE_OPTIONS.iter().map(|(known, _)| *known).collect();
                let shown: String = other.chars().take(60).collect();
                let known = known.join(", ");
                let text =
                    format!("pools have no setting '{shown}'; there are size, min_size, crush_rule, {known}");
                return Err(Failure::invalid(text));
            };
            let value = match (*kind, val.as_str()) {
                ("bool", "true" | "1" | "yes" | "on") => "true".to_string(),
                ("bool", "false" | "0" | "no" | "off") => "false".to_string(),
                ("seconds", text) if text.parse::<u64>().is_ok() => text.to_string(),
                ("-10..10", text) if text.parse::<i32>().is_ok_and(|n| (-10..=10).contains(&n)) => {
                    text.to_string()
                }
                _ => return Err(Failure::invalid(format!("'{val}' is no value for {other}: give {kind}"))),
            };
            new.options.insert(other.into(), value);
        }
    }
    if new != pool {
        draft.step.pools.insert(id, Some(new));
    }
    Ok(Reply::done(format!("set {var} of pool '{name}' to {val}")))
}

pub(super) fn set_quota(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let name = args.text("pool")?;
    let id = find(draft, name)?;
    let (field, value) = (args.text("field")?, args.parsed::<u64>("val", "a number; 0 for no quota")?);
    let pool = draft.pool_mut(id).ok_or_else(|| no_pool(name))?;
    match field {
        "max_bytes" => pool.quota_bytes_max = value,
        "max_objects" => pool.quota_objects_max = value,
        _ => return Err(Failure::invalid("a quota is on max_bytes or max_objects")),
    }
    Ok(Reply::done(format!("quota {field} of pool '{name}' is {value}")))
}

pub(super) fn rename(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (name, to) = (args.text("pool")?, args.text("to")?);
    check_name(to)?;
    let id = find(draft, name)?;
    if name != to && draft.pool_by_name(to).is_some() {
        return Err(Failure::new(ErrorCode::AlreadyExists, format!("there is a pool '{to}' already")));
    }
    if let Some(pool) = draft.pool_mut(id) {
        pool.name = to.into();
    }
    Ok(Reply::done(format!("pool '{name}' is '{to}' now; caps that name '{name}' no longer fit it")))
}

pub(super) fn rm(draft: &mut Draft<'_>, context: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let name = args.text("pool")?;
    let id = find(draft, name)?;
    if args.text_if("pool2")? != Some(name) || !args.flag("yes")? {
        return Err(Failure::new(
            ErrorCode::NotPermitted,
            format!(
                "this destroys all data of pool '{name}': give its name twice (pool, pool2) and \
                 yes (--yes-i-really-really-mean-it)"
            ),
        ));
    }
    if mon_number(&draft.state.config, &mon_entity(context), "mon_allow_pool_delete") != 1 {
        return Err(Failure::new(
            ErrorCode::NotPermitted,
            "pools may not be deleted here; first `nacre config set global mon_allow_pool_delete true`",
        ));
    }
    if draft.pool(id).is_some_and(|pool| pool.options.get("nodelete").is_some_and(|v| v == "true")) {
        let text = format!("pool '{name}' has nodelete set; first `nacre pool set {name} nodelete false`");
        return Err(Failure::new(ErrorCode::NotPermitted, text));
    }
    draft.step.pools.insert(id, None);
    Ok(Reply::done(format!("pool '{name}' removed")))
}

pub(super) fn application_enable(
    draft: &mut Draft<'_>,
    _: &Context<'_>,
    args: &Args,
) -> Result<Reply, Failure> {
    let (name, app) = (args.text("pool")?, args.text("app")?);
    if app.is_empty() || app.len() > 64 {
        return Err(Failure::invalid("an application's name has 1 to 64 bytes, such as rbd, cephfs, rgw"));
    }
    let id = find(draft, name)?;
    if draft.pool(id).is_some_and(|pool| !pool.applications.iter().any(|known| known == app))
        && let Some(pool) = draft.pool_mut(id)
    {
        if pool.applications.len() >= 4 {
            return Err(Failure::invalid(format!("pool '{name}' has 4 applications already")));
        }
        pool.applications.push(app.into());
    }
    Ok(Reply::done(format!("enabled application '{app}' on pool '{name}'")))
}

pub(super) fn snap_create(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let name = args.text("pool")?;
    let id = find(draft, name)?;
    let pool = draft.pool_mut(id).ok_or_else(|| no_pool(name))?;
    let snap = pool.create_snap();
    Ok(Reply::json(json!({"snapid": snap.0})))
}

pub(super) fn snap_rm(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let name = args.text("pool")?;
    let id = find(draft, name)?;
    let snap = SnapId(args.parsed("snapid", "a snapshot's number")?);
    let known = draft.pool(id).is_some_and(|pool| snap.0 > 0 && snap <= pool.snap_seq());
    if !known {
        return Err(Failure::not_found(format!("pool '{name}' has no snapshot {snap}")));
    }
    if draft.pool(id).is_some_and(|pool| !pool.snap_is_removed(snap))
        && let Some(pool) = draft.pool_mut(id)
    {
        pool.remove_snap(snap);
    }
    Ok(Reply::done(format!("snapshot {snap} of pool '{name}' removed")))
}
