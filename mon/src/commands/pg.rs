//! PGs: where they lie, how they are, pins.

use super::{Args, Context, Failure, Reply};
use crate::draft::Draft;
use crate::leader::{Memory, PgReport};
use crate::service::Service;
use nacre_maps::OsdMap;
use nacre_types::{Instant, ObjectId, OsdId, PgId};
use nacre_wire::ErrorCode;
use nacre_wire::messages::LogLevel;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn ids(osds: &[OsdId]) -> Vec<u32> {
    osds.iter().map(|id| id.0).collect()
}

fn no_pg(pg: PgId) -> Failure {
    Failure::not_found(format!("there is no PG {pg}: `nacre pg ls` lists them"))
}

fn pg_json(now: Instant, memory: &Memory, map: &OsdMap, pg: PgId) -> Value {
    let place = map.pg(pg).cloned().unwrap_or_default();
    let state = memory.pg_state(now, map, pg);
    let stat = memory.pgs.get(&pg).map(|report: &PgReport| report.stat.clone()).unwrap_or_default();
    json!({
        "pgid": pg.to_string(),
        "state": state,
        "up": ids(&place.up),
        "acting": ids(&place.acting),
        "up_primary": place.up_primary().map_or(-1, |id| i64::from(id.0)),
        "acting_primary": place.primary().map_or(-1, |id| i64::from(id.0)),
        "reported_epoch": stat.reported_epoch,
        "reported_seq": stat.reported_seq,
        "version": format!("{}'{}", stat.last_update_epoch, stat.last_update_seq),
        "log_size": stat.log_entries,
        "last_scrub_ms": stat.last_scrub_ms,
        "last_deep_scrub_ms": stat.last_deep_scrub_ms,
        "waiting_for": stat.waiting_for,
        "stat_sum": {
            "num_objects": stat.objects,
            "num_bytes": stat.bytes,
            "num_objects_degraded": stat.degraded,
            "num_objects_misplaced": stat.misplaced,
            "num_objects_unfound": stat.unfound,
            "num_scrub_errors": stat.scrub_errors,
            "num_read": stat.read_ops,
            "num_write": stat.write_ops,
            "num_objects_recovered": stat.recovered_objects,
            "num_bytes_recovered": stat.recovered_bytes,
        },
    })
}

pub(super) fn ls(state: &Service, context: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let map = &state.osdmap;
    let pool = match args.text_if("pool")? {
        Some(name) => Some(super::pool::find_in(map, name)?.0),
        None => None,
    };
    let osd = if args.has("osd") { Some(args.osd("osd")?) } else { None };
    let states = if args.has("states") { args.list("states")? } else { Vec::new() };
    let wanted = |pg: &PgId| {
        pool.is_none_or(|pool| pg.pool == pool)
            && osd
                .is_none_or(|osd| map.pg(*pg).is_some_and(|p| p.acting.contains(&osd) || p.up.contains(&osd)))
            && (states.is_empty() || {
                let is = context.memory.pg_state(context.now, map, *pg);
                states.iter().all(|state| is.split('+').any(|word| word == state))
            })
    };
    let stats: Vec<Value> =
        map.pgs().filter(wanted).map(|pg| pg_json(context.now, context.memory, map, pg)).collect();
    let mut text = String::from(
        "PG       OBJECTS  DEGRADED  MISPLACED  UNFOUND  BYTES         STATE                    UP          ACTING\n",
    );
    for stat in &stats {
        let sum = |key: &str| stat["stat_sum"][key].as_u64().unwrap_or(0);
        let word = |key: &str| stat[key].as_str().unwrap_or_default().to_string();
        text.push_str(&format!(
            "{:<9}{:<9}{:<10}{:<11}{:<9}{:<14}{:<25}{:<12}{}\n",
            word("pgid"),
            sum("num_objects"),
            sum("num_objects_degraded"),
            sum("num_objects_misplaced"),
            sum("num_objects_unfound"),
            sum("num_bytes"),
            word("state"),
            stat["up"].to_string(),
            stat["acting"]
        ));
    }
    Ok(Reply::json(json!({"pg_stats": stats})).with_output(text))
}

pub(super) fn dump(state: &Service, context: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let map = &state.osdmap;
    let stats: Vec<Value> = map.pgs().map(|pg| pg_json(context.now, context.memory, map, pg)).collect();
    let (used, total) = context.memory.space();
    Ok(Reply::json(json!({
        "pg_map": {
            "version": map.epoch().0,
            "pg_stats": stats,
            "osd_stats_sum": {"kb": total / 1024, "kb_used": used / 1024, "kb_avail": total.saturating_sub(used) / 1024},
        },
    })))
}

pub(super) fn map(state: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let pg = args.pg()?;
    let place = state.osdmap.pg(pg).ok_or_else(|| no_pg(pg))?;
    let text = format!(
        "osdmap e{} pg {pg} -> up {:?} acting {:?}",
        state.osdmap.epoch(),
        ids(&place.up),
        ids(&place.acting)
    );
    let json = json!({
        "epoch": state.osdmap.epoch().0,
        "raw_pgid": pg.to_string(),
        "pgid": pg.to_string(),
        "up": ids(&place.up),
        "acting": ids(&place.acting),
    });
    Ok(Reply::done(text).with_json(json))
}

pub(super) fn osd_map(state: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (id, pool) = super::pool::find_in(&state.osdmap, args.text("pool")?)?;
    let namespace = args.text_if("namespace")?.unwrap_or_default();
    let object =
        ObjectId::new(id, namespace, args.text("object")?).map_err(|e| Failure::invalid(e.to_string()))?;
    let pg = object.pg(pool.pg_num);
    let place = state.osdmap.pg(pg).ok_or_else(|| no_pg(pg))?;
    let text = format!(
        "osdmap e{} pool '{}' ({id}) object '{object}' -> pg {pg} -> up {:?} acting {:?}",
        state.osdmap.epoch(),
        pool.name,
        ids(&place.up),
        ids(&place.acting)
    );
    let json = json!({
        "epoch": state.osdmap.epoch().0,
        "pool": pool.name,
        "pool_id": id.0,
        "objname": args.text("object")?,
        "pgid": pg.to_string(),
        "up": ids(&place.up),
        "up_primary": place.up_primary().map_or(-1, |id| i64::from(id.0)),
        "acting": ids(&place.acting),
        "acting_primary": place.primary().map_or(-1, |id| i64::from(id.0)),
    });
    Ok(Reply::done(text).with_json(json))
}

/// How many PGs are in each state.
pub(crate) fn states(now: Instant, memory: &Memory, map: &OsdMap) -> BTreeMap<String, u64> {
    let mut states = BTreeMap::new();
    for pg in map.pgs() {
        *states.entry(memory.pg_state(now, map, pg)).or_insert(0) += 1;
    }
    states
}

pub(super) fn stat(state: &Service, context: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let states = states(context.now, context.memory, &state.osdmap);
    let total: u64 = states.values().sum();
    let words: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let usage: u64 = context.memory.pool_use().values().map(|pool| pool.bytes).sum();
    let text = format!("{total} pgs: {}; {usage} bytes data", words.join(", "));
    let by_state: Vec<Value> = states.iter().map(|(name, num)| json!({"name": name, "num": num})).collect();
    Ok(Reply::done(text)
        .with_json(json!({"num_pgs": total, "num_pg_by_state": by_state, "num_bytes": usage})))
}

/// A PG that nobody has a copy of may be made again, empty.
pub(super) fn force_create(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    args: &Args,
) -> Result<Reply, Failure> {
    let pg = args.pg()?;
    let pool = draft.pool(pg.pool).filter(|pool| pg.seed < pool.pg_num).ok_or_else(|| no_pg(pg))?;
    if pool.may_begin(pg.seed) {
        return Ok(Reply::done(format!("PG {pg} may be made already")));
    }
    let state = context.memory.pg_state(context.now, &draft.state.osdmap, pg);
    if !state.split('+').any(|word| word == "incomplete" || word == "down") {
        let text = format!("PG {pg} is {state}, not incomplete: `nacre explain pg {pg}` says what it needs");
        return Err(Failure::new(ErrorCode::Busy, text));
    }
    if !args.flag("yes")? {
        let text = format!(
            "this gives up all of PG {pg}, and copies that turn up later are removed: repeat with yes if no disk with a \
             copy exists any more"
        );
        return Err(Failure::new(ErrorCode::NotPermitted, text));
    }
    let epoch = draft.epoch();
    if let Some(pool) = draft.pool_mut(pg.pool) {
        pool.begun_anew.insert(pg.seed, epoch.0);
    }
    draft.log(LogLevel::Warning, "mon", format!("PG {pg} is to be made anew if nobody has a copy of it"));
    Ok(Reply::done(format!("PG {pg} is made anew once every OSD that could have a copy is up or lost")))
}

// Pins. Only such are taken as would be followed: an OSD that is not there or out would make a pin without effect.

fn usable(draft: &Draft<'_>, osds: &[OsdId]) -> Result<(), Failure> {
    for &id in osds {
        let info = draft.osd(id).ok_or_else(|| Failure::not_found(format!("there is no {id}")))?;
        if !info.is_in() {
            return Err(Failure::invalid(format!("{id} is out: a pin to it would have no effect")));
        }
    }
    Ok(())
}

pub(super) fn upmap(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (pg, osds) = (args.pg()?, args.osds()?);
    let pool = draft.pool(pg.pool).filter(|pool| pg.seed < pool.pg_num).ok_or_else(|| no_pg(pg))?;
    let unique: std::collections::BTreeSet<OsdId> = osds.iter().copied().collect();
    if osds.len() != pool.size as usize || unique.len() != osds.len() {
        return Err(Failure::invalid(format!("a pin of {pg} names {} different OSDs", pool.size)));
    }
    usable(draft, &osds)?;
    draft.step.pg_upmap_items.insert(pg, Vec::new());
    draft.step.pg_upmap.insert(pg, osds.clone());
    if !draft.state.osdmap.pg_upmap_items().contains_key(&pg) {
        draft.step.pg_upmap_items.remove(&pg);
    }
    Ok(Reply::done(format!("{pg} is pinned to {:?}", ids(&osds))))
}

pub(super) fn rm_upmap(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let pg = args.pg()?;
    if draft.state.osdmap.pg_upmap().contains_key(&pg) || draft.step.pg_upmap.contains_key(&pg) {
        draft.step.pg_upmap.insert(pg, Vec::new());
    }
    Ok(Reply::done(format!("{pg} is not pinned")))
}

pub(super) fn upmap_items(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (pg, osds) = (args.pg()?, args.osds()?);
    if !draft.pg_exists(pg) {
        return Err(no_pg(pg));
    }
    if osds.len() % 2 != 0 || osds.len() > 32 {
        return Err(Failure::invalid("pins are pairs: from which OSD to which, at most 16 of them"));
    }
    let pairs: Vec<(OsdId, OsdId)> = osds.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    if let Some((same, _)) = pairs.iter().find(|(from, to)| from == to) {
        return Err(Failure::invalid(format!("a pin from {same} to itself has no effect")));
    }
    let to: Vec<OsdId> = pairs.iter().map(|pair| pair.1).collect();
    usable(draft, &to)?;
    draft.step.pg_upmap_items.insert(pg, pairs);
    Ok(Reply::done(format!("{pg} has its pins")))
}

pub(super) fn rm_upmap_items(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let pg = args.pg()?;
    if draft.state.osdmap.pg_upmap_items().contains_key(&pg) || draft.step.pg_upmap_items.contains_key(&pg) {
        draft.step.pg_upmap_items.insert(pg, Vec::new());
    }
    Ok(Reply::done(format!("{pg} has no pins")))
}
