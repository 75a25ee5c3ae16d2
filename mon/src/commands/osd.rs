//! OSDs: made, marked, removed, weighed; flags, ratios, blocklist; how they are and lie.

use super::{Args, Context, Failure, Reply};
use crate::draft::Draft;
use crate::placement;
use crate::service::Service;
use nacre_crush::CrushMap;
use nacre_maps::{AFFINITY_ONE, AuthEntry, Caps, Flag, OsdInfo, OsdMap, WEIGHT_IN, WEIGHT_OUT};
use nacre_types::{ClientId, EntityName, Epoch, OsdId, PgId};
use nacre_wire::ErrorCode;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const OSDS_MAX: usize = 10_000;
const BLOCKLIST_MAX: usize = 10_000;
const BLOCKLIST_DEFAULT_S: u64 = 3_600;

fn no_osd(id: OsdId) -> Failure {
    Failure::not_found(format!("there is no {id}: `nacre osd tree` lists them"))
}

pub(super) fn new(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let uuid = args.text("uuid")?;
    if uuid.is_empty() || uuid.len() > 64 || !uuid.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(Failure::invalid("a uuid has 1 to 64 letters, digits and '-'"));
    }
    // Asked twice for one disk, the answer is the same.
    if let Some((id, _)) = draft.osds().find(|(_, info)| info.uuid == uuid) {
        return Ok(Reply::json(json!({"osdid": id.0})));
    }
    let id = match args.has("id") {
        true => args.osd("id")?,
        false => (0..).map(OsdId).find(|&id| draft.osd(id).is_none()).unwrap_or(OsdId(0)),
    };
    if draft.osd(id).is_some() {
        let text =
            format!("{id} exists with another disk: purge it first, or leave the number to the monitors");
        return Err(Failure::new(ErrorCode::AlreadyExists, text));
    }
    if draft.osd_ids().len() >= OSDS_MAX {
        return Err(Failure::invalid(format!("there are {OSDS_MAX} OSDs already")));
    }
    let info = OsdInfo::new(uuid).created_in(draft.epoch());
    draft.step.osds.insert(id, Some(info));
    let entity = EntityName::Osd(id);
    if draft.auth(&entity).is_none() {
        let read = "allow r"
            .parse()
            .map_err(|_| Failure::new(ErrorCode::Internal, "a built-in cap does not parse"))?;
        let caps = [("mon".to_string(), read), ("osd".to_string(), Caps::all())].into();
        draft.set_auth(entity, Some(AuthEntry { caps, created_ms: draft.at_ms }));
    }
    Ok(Reply::json(json!({"osdid": id.0})))
}

/// Runs `change` on each OSD named; all must exist.
fn each(
    draft: &mut Draft<'_>,
    args: &Args,
    mut change: impl FnMut(&mut Draft<'_>, OsdId),
) -> Result<Vec<String>, Failure> {
    let osds = args.osds()?;
    if let Some(&missing) = osds.iter().find(|&&id| draft.osd(id).is_none()) {
        return Err(no_osd(missing));
    }
    osds.iter().for_each(|&id| change(draft, id));
    Ok(osds.iter().map(OsdId::to_string).collect())
}

pub(super) fn mark_in(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let names = each(draft, args, |draft, id| {
        if draft.osd(id).is_some_and(|info| !info.is_in())
            && let Some(info) = draft.osd_mut(id)
        {
            info.weight = if info.weight_before_out == 0 { WEIGHT_IN } else { info.weight_before_out };
            info.auto_out = false;
        }
    })?;
    Ok(Reply::done(format!("{} in", names.join(", "))))
}

pub(super) fn mark_out(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let names = each(draft, args, |draft, id| {
        if draft.osd(id).is_some_and(|info| info.is_in() || info.auto_out)
            && let Some(info) = draft.osd_mut(id)
        {
            if info.is_in() {
                info.weight_before_out = info.weight;
            }
            info.weight = WEIGHT_OUT;
            info.auto_out = false;
        }
    })?;
    Ok(Reply::done(format!("{} out: their data moves elsewhere", names.join(", "))))
}

pub(super) fn mark_down(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let names = each(draft, args, |draft, id| {
        let (epoch, at_ms) = (draft.epoch(), draft.at_ms);
        if draft.osd(id).is_some_and(|info| info.up)
            && let Some(info) = draft.osd_mut(id)
        {
            info.mark_down(epoch, at_ms);
        }
    })?;
    Ok(Reply::done(format!("{} down; one that still runs comes up again", names.join(", "))))
}

pub(super) fn lost(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let id = args.osd("id")?;
    let info = draft.osd(id).ok_or_else(|| no_osd(id))?;
    if info.up {
        return Err(Failure::new(ErrorCode::Busy, format!("{id} is up: what it has is not lost")));
    }
    if !args.flag("yes")? {
        let text =
            format!("this gives up whatever only {id} has: repeat with yes if its disk is gone for good");
        return Err(Failure::new(ErrorCode::NotPermitted, text));
    }
    let epoch = draft.epoch();
    if let Some(info) = draft.osd_mut(id) {
        info.mark_lost(epoch);
    }
    Ok(Reply::done(format!("{id} is lost")))
}

/// Purge: out of the map, out of CRUSH, its key invalid.
pub(super) fn rm(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let force = args.flag("force")?;
    let osds = args.osds()?;
    for &id in &osds {
        let info = draft.osd(id).ok_or_else(|| no_osd(id))?;
        if info.up {
            return Err(Failure::new(ErrorCode::Busy, format!("{id} is up: stop its daemon first")));
        }
        if info.is_in() && !force {
            let text = format!(
                "{id} is in: `nacre osd out {id}` and wait until `nacre osd safe-to-destroy {id}` says yes, or force"
            );
            return Err(Failure::new(ErrorCode::Busy, text));
        }
        draft.step.osds.insert(id, None);
        draft.set_auth(EntityName::Osd(id), None);
        if draft.crush().device(id.0).is_some() {
            let name = id.to_string();
            placement::edit(draft, |crush| crush.remove_item(&name))
                .map_err(|e| Failure::invalid(e.to_string()))?;
        }
    }
    let names: Vec<String> = osds.iter().map(OsdId::to_string).collect();
    Ok(Reply::done(format!("{} removed", names.join(", "))))
}

fn share(args: &Args, name: &str) -> Result<u32, Failure> {
    let weight: f64 = args.parsed(name, "a number from 0 to 1")?;
    if !(0.0..=1.0).contains(&weight) {
        return Err(Failure::invalid(format!("{name} {weight} is not between 0 and 1")));
    }
    Ok((weight * f64::from(WEIGHT_IN)).round() as u32)
}

pub(super) fn reweight(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (id, weight) = (args.osd("id")?, share(args, "weight")?);
    let info = draft.osd_mut(id).ok_or_else(|| no_osd(id))?;
    (info.weight, info.auto_out) = (weight, false);
    Ok(Reply::done(format!("reweighted {id} to {:.4}", f64::from(weight) / f64::from(WEIGHT_IN))))
}

pub(super) fn primary_affinity(
    draft: &mut Draft<'_>,
    _: &Context<'_>,
    args: &Args,
) -> Result<Reply, Failure> {
    let (id, weight) = (args.osd("id")?, share(args, "weight")?);
    let info = draft.osd_mut(id).ok_or_else(|| no_osd(id))?;
    info.primary_affinity = weight;
    Ok(Reply::done(format!("primary affinity of {id} is {:.4}", f64::from(weight) / f64::from(AFFINITY_ONE))))
}

fn flag(args: &Args) -> Result<Flag, Failure> {
    let flag: Flag = args.text("key")?.parse().map_err(Failure::invalid)?;
    if flag == Flag::Full {
        return Err(Failure::invalid(
            "'full' follows from how full the OSDs are: free space, or raise the full ratio",
        ));
    }
    Ok(flag)
}

pub(super) fn set_flag(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let flag = flag(args)?;
    if !draft.flags().contains(flag) {
        draft.step.flags = Some(draft.flags().with(flag));
    }
    Ok(Reply::done(format!("{} is set", flag.as_str())))
}

pub(super) fn unset_flag(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let flag = flag(args)?;
    if draft.flags().contains(flag) {
        draft.step.flags = Some(draft.flags().without(flag));
    }
    Ok(Reply::done(format!("{} is unset", flag.as_str())))
}

fn set_ratio(
    draft: &mut Draft<'_>,
    args: &Args,
    set: impl FnOnce(&mut nacre_maps::Ratios, u32),
) -> Result<Reply, Failure> {
    let ratio: f64 = args.parsed("ratio", "a number from 0 to 1")?;
    if !(0.0..=1.0).contains(&ratio) {
        return Err(Failure::invalid(format!("ratio {ratio} is not between 0 and 1")));
    }
    let mut ratios = draft.ratios();
    set(&mut ratios, (ratio * 1000.0).round() as u32);
    let ordered = ratios.nearfull_permille < ratios.backfillfull_permille
        && ratios.backfillfull_permille < ratios.full_permille
        && ratios.full_permille <= 985;
    if !ordered {
        return Err(Failure::invalid("the ratios must be nearfull < backfillfull < full <= 0.985"));
    }
    if ratios != draft.ratios() {
        draft.step.ratios = Some(ratios);
    }
    Ok(Reply::done(format!("the ratio is {ratio}")))
}

pub(super) fn set_nearfull(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    set_ratio(draft, args, |ratios, value| ratios.nearfull_permille = value)
}

pub(super) fn set_backfillfull(
    draft: &mut Draft<'_>,
    _: &Context<'_>,
    args: &Args,
) -> Result<Reply, Failure> {
    set_ratio(draft, args, |ratios, value| ratios.backfillfull_permille = value)
}

pub(super) fn set_full(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    set_ratio(draft, args, |ratios, value| ratios.full_permille = value)
}

fn client(args: &Args) -> Result<ClientId, Failure> {
    let text = args.text("client")?;
    u64::from_str_radix(text, 16).map(ClientId).map_err(|_| {
        Failure::invalid(
            "a client is named by the hexadecimal number of its run, as in `nacre osd blocklist ls`",
        )
    })
}

pub(super) fn blocklist_add(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let client = client(args)?;
    let seconds = args.parsed_if::<u64>("expire", "a number of seconds")?.unwrap_or(BLOCKLIST_DEFAULT_S);
    if draft.state.osdmap.blocklist().len() + draft.step.blocklist.len() >= BLOCKLIST_MAX {
        return Err(Failure::invalid(format!("{BLOCKLIST_MAX} clients are blocked already: remove some")));
    }
    let until_ms = draft.at_ms.saturating_add(seconds.saturating_mul(1000));
    draft.blocklist(client, Some(until_ms));
    Ok(Reply::done(format!("client {client} is blocked for {seconds} s"))
        .with_json(json!({"until_ms": until_ms})))
}

pub(super) fn blocklist_rm(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let client = client(args)?;
    if !draft.state.osdmap.is_blocklisted(client) && !draft.step.blocklist.contains_key(&client) {
        return Err(Failure::not_found(format!("client {client} is not blocked")));
    }
    draft.blocklist(client, None);
    Ok(Reply::done(format!("client {client} is no longer blocked")))
}

pub(super) fn blocklist_ls(state: &Service, _: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let entry = |(client, until): (&ClientId, &u64)| json!({"client": client.to_string(), "until_ms": until});
    Ok(Reply::json(state.osdmap.blocklist().iter().map(entry).collect()))
}

// Looking.

fn status_word(info: &OsdInfo) -> &'static str {
    if info.up { "up" } else { "down" }
}

fn share_of(weight: u32) -> f64 {
    f64::from(weight) / f64::from(WEIGHT_IN)
}

pub(super) fn tree(state: &Service, _: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let (map, crush) = (&state.osdmap, state.osdmap.crush());
    let mut nodes = Vec::new();
    let roots: Vec<i32> =
        crush.buckets().map(|b| b.id).filter(|&id| placement::parent(crush, id).is_none()).collect();
    for root in roots {
        tree_below(map, crush, root, 0.0, 0, &mut nodes);
    }
    let strays: Vec<Value> = map
        .osds()
        .filter(|(id, _)| placement::parent(crush, id.0 as i32).is_none())
        .map(|(id, _)| osd_node(map, crush, id, 0.0, 0))
        .collect();
    let mut text = format!(
        "{:<5}{:<7}{:<10}{:<22}{:<7}{:<10}PRI-AFF\n",
        "ID", "CLASS", "WEIGHT", "TYPE NAME", "STATUS", "REWEIGHT"
    );
    for node in nodes.iter().chain(&strays) {
        let get = |key: &str| node.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
        let num = |key: &str| node.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        let indent = "    ".repeat(num("depth") as usize);
        let is_osd = get("type") == "osd";
        let name = if is_osd {
            format!("{indent}{}", get("name"))
        } else {
            format!("{indent}{} {}", get("type"), get("name"))
        };
        text.push_str(&format!(
            "{:<5}{:<7}{:<10.5}{name:<22}",
            num("id"),
            get("device_class"),
            num("crush_weight")
        ));
        if is_osd {
            text.push_str(&format!(
                "{:<7}{:<10.5}{:.5}",
                get("status"),
                num("reweight"),
                num("primary_affinity")
            ));
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    Ok(Reply::json(json!({"nodes": nodes, "stray": strays})).with_output(text))
}

fn tree_below(map: &OsdMap, crush: &CrushMap, id: i32, weight: f64, depth: u32, nodes: &mut Vec<Value>) {
    if let Ok(osd) = u32::try_from(id) {
        return nodes.push(osd_node(map, crush, OsdId(osd), weight, depth));
    }
    let Some(bucket) = crush.bucket(id) else { return };
    let weight = if depth == 0 { f64::from(bucket.weight()) / 65_536.0 } else { weight };
    nodes.push(json!({
        "id": id,
        "name": bucket.name,
        "type": crush.type_name(bucket.type_id),
        "type_id": bucket.type_id,
        "crush_weight": weight,
        "depth": depth,
        "children": bucket.items.iter().map(|item| item.id).collect::<Vec<_>>(),
    }));
    for item in &bucket.items {
        tree_below(map, crush, item.id, f64::from(item.weight) / 65_536.0, depth + 1, nodes);
    }
}

fn osd_node(map: &OsdMap, crush: &CrushMap, id: OsdId, weight: f64, depth: u32) -> Value {
    let info = map.osd(id);
    json!({
        "id": id.0,
        "name": id.to_string(),
        "type": "osd",
        "type_id": 0,
        "device_class": crush.device(id.0).and_then(|device| device.class.clone()),
        "crush_weight": weight,
        "depth": depth,
        "exists": u8::from(info.is_some()),
        "status": info.map_or("destroyed", status_word),
        "reweight": info.map_or(0.0, |info| share_of(info.weight)),
        "primary_affinity": info.map_or(1.0, |info| share_of(info.primary_affinity)),
    })
}

pub(super) fn df(state: &Service, context: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let map = &state.osdmap;
    let (used_all, total_all) = context.memory.space();
    let average = if total_all == 0 { 0.0 } else { used_all as f64 / total_all as f64 };
    let mut nodes = Vec::new();
    let mut text = String::from(
        "ID  CLASS  WEIGHT    REWEIGHT  SIZE KiB      USED KiB      AVAIL KiB     %USE   VAR   PGS  STATUS\n",
    );
    for (id, info) in map.osds() {
        let stats = context.memory.osds.get(&id).map(|report| &report.stats);
        let (total, used) =
            stats.map_or((info.capacity_bytes, 0), |stats| (stats.total_bytes, stats.used_bytes));
        let use_share = if total == 0 { 0.0 } else { used as f64 / total as f64 };
        let var = if average == 0.0 { 0.0 } else { use_share / average };
        let pgs = stats.map_or(0, |stats| stats.pg_count);
        let weight = placement::weight(map.crush(), id);
        let class = map.crush().device(id.0).and_then(|d| d.class.clone()).unwrap_or_default();
        let free = total.saturating_sub(used);
        text.push_str(&format!(
            "{:<4}{class:<7}{weight:<10.5}{:<10.5}{:<14}{:<14}{:<14}{:<7.2}{var:<6.2}{pgs:<5}{}\n",
            id.0,
            share_of(info.weight),
            total / 1024,
            used / 1024,
            free / 1024,
            use_share * 100.0,
            status_word(info)
        ));
        nodes.push(json!({
            "id": id.0,
            "name": id.to_string(),
            "type": "osd",
            "device_class": class,
            "crush_weight": weight,
            "reweight": share_of(info.weight),
            "kb": total / 1024,
            "kb_used": used / 1024,
            "kb_avail": free / 1024,
            "utilization": use_share * 100.0,
            "var": var,
            "pgs": pgs,
            "objects": stats.map_or(0, |stats| stats.objects),
            "commit_latency_us": stats.map_or(0, |stats| stats.commit_latency_us),
            "status": status_word(info),
        }));
    }
    let summary = json!({
        "total_kb": total_all / 1024,
        "total_kb_used": used_all / 1024,
        "total_kb_avail": total_all.saturating_sub(used_all) / 1024,
        "average_utilization": average * 100.0,
    });
    Ok(Reply::json(json!({"nodes": nodes, "summary": summary})).with_output(text))
}

/// Counts of OSDs: all, up, in.
pub(crate) fn counts(map: &OsdMap) -> (usize, usize, usize) {
    map.osds().fold((0, 0, 0), |(all, up, within), (_, info)| {
        (all + 1, up + usize::from(info.up), within + usize::from(info.is_in()))
    })
}

pub(super) fn stat(state: &Service, _: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let (all, up, within) = counts(&state.osdmap);
    let text = format!("{all} osds: {up} up, {within} in; epoch: e{}", state.osdmap.epoch());
    let json =
        json!({"epoch": state.osdmap.epoch().0, "num_osds": all, "num_up_osds": up, "num_in_osds": within});
    Ok(Reply::done(text).with_json(json))
}

pub(super) fn ls(state: &Service, _: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let ids: Vec<u32> = state.osdmap.osds().map(|(id, _)| id.0).collect();
    Ok(Reply::json(json!(ids)))
}

pub(super) fn find(state: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let id = args.osd("id")?;
    let info = state.osdmap.osd(id).ok_or_else(|| no_osd(id))?;
    let location = placement::location(state.osdmap.crush(), id);
    Ok(Reply::json(json!({
        "osd": id.0,
        "addrs": info.address,
        "osd_fsid": info.uuid,
        "host": info.host,
        "crush_location": location,
    })))
}

fn osd_json(id: OsdId, info: &OsdInfo) -> Value {
    json!({
        "osd": id.0,
        "uuid": info.uuid,
        "up": u8::from(info.up),
        "in": u8::from(info.is_in()),
        "weight": share_of(info.weight),
        "primary_affinity": share_of(info.primary_affinity),
        "up_from": info.up_from().0,
        "up_thru": info.up_thru().0,
        "down_at": info.down_at().0,
        "lost_at": info.lost_at().0,
        "public_addr": info.address,
        "instance": format!("{:016x}", info.instance),
        "host": info.host,
        "device_class": info.device_class,
        "version": info.version,
        "capacity_bytes": info.capacity_bytes,
        "auto_out": info.auto_out,
    })
}

fn pg_lists<'a, T: 'a>(
    map: impl IntoIterator<Item = (&'a PgId, &'a Vec<T>)>,
    item: impl Fn(&T) -> Value,
) -> Vec<Value> {
    map.into_iter()
        .map(|(pg, list)| json!({"pgid": pg.to_string(), "osds": list.iter().map(&item).collect::<Vec<_>>()}))
        .collect()
}

pub(super) fn dump(state: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let past = match args.parsed_if::<u64>("epoch", "an epoch")? {
        None => None,
        Some(epoch) => Some(state.history.at(Epoch(epoch)).ok_or_else(|| {
            let (oldest, newest) = (state.history.oldest(), state.history.newest());
            Failure::not_found(format!(
                "the osdmap of epoch {epoch} is not kept: there are {oldest} to {newest}"
            ))
        })?),
    };
    let map = past.as_ref().unwrap_or(&state.osdmap);
    let ratios = map.ratios();
    let permille = |value: u32| f64::from(value) / 1000.0;
    let osd = |id: &OsdId| json!(id.0);
    let pair = |(from, to): &(OsdId, OsdId)| json!({"from": from.0, "to": to.0});
    Ok(Reply::json(json!({
        "epoch": map.epoch().0,
        "fsid": map.fsid(),
        "hash": format!("{:016x}", map.hash()),
        "created_ms": map.created_ms(),
        "modified_ms": map.modified_ms(),
        "flags": map.flags().to_string(),
        "nearfull_ratio": permille(ratios.nearfull_permille),
        "backfillfull_ratio": permille(ratios.backfillfull_permille),
        "full_ratio": permille(ratios.full_permille),
        "oldest_epoch": state.history.oldest().0,
        "pools": super::pool::all_details(map),
        "osds": map.osds().map(|(id, info)| osd_json(id, info)).collect::<Vec<_>>(),
        "pg_temp": pg_lists(map.pg_temp(), osd),
        "pg_upmap": pg_lists(map.pg_upmap(), osd),
        "pg_upmap_items": pg_lists(map.pg_upmap_items(), pair),
        "blocklist": map.blocklist().iter().map(|(c, u)| json!({"client": c.to_string(), "until_ms": u})).collect::<Vec<_>>(),
    })))
}

/// PGs that would fall below min_size, and those that would lose their last whole copies, without some OSDs.
fn without(state: &Service, gone: &BTreeSet<OsdId>) -> (Vec<String>, Vec<String>) {
    let map = &state.osdmap;
    let (mut stopped, mut held) = (Vec::new(), Vec::new());
    for pg in map.pgs() {
        let (Some(place), Some(pool)) = (map.pg(pg), map.pool(pg.pool)) else { continue };
        let concerned = place.acting.iter().any(|id| gone.contains(id));
        let left = place.acting.iter().filter(|id| !gone.contains(id)).count();
        if concerned && left < pool.min_size as usize {
            stopped.push(pg.to_string());
        }
        if concerned {
            held.push(pg.to_string());
        }
    }
    (stopped, held)
}

fn some(names: &[String]) -> String {
    let shown = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > 5 { format!("{shown} and {} more", names.len() - 5) } else { shown }
}

pub(super) fn ok_to_stop(state: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let gone: BTreeSet<OsdId> = args.osds()?.into_iter().collect();
    let (stopped, _) = without(state, &gone);
    let json = json!({"ok_to_stop": stopped.is_empty(), "bad_become_inactive": stopped});
    if stopped.is_empty() {
        return Ok(Reply::done("yes: all PGs stay active").with_json(json));
    }
    let text = format!("no: {} PGs would stop: {}", stopped.len(), some(&stopped));
    Err(Failure::new(ErrorCode::Busy, text))
}

pub(super) fn safe_to_destroy(state: &Service, context: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let gone: BTreeSet<OsdId> = args.osds()?.into_iter().collect();
    let (_, held) = without(state, &gone);
    if !held.is_empty() {
        let text = format!("no: {} PGs still use them: {}; mark them out and wait", held.len(), some(&held));
        return Err(Failure::new(ErrorCode::Busy, text));
    }
    let unclean: Vec<String> = state
        .osdmap
        .pgs()
        .filter(|&pg| !context.memory.pg_state(context.now, &state.osdmap, pg).contains("clean"))
        .map(|pg| pg.to_string())
        .collect();
    if !unclean.is_empty() {
        let text = format!("no: {} PGs are not clean and may need them: {}", unclean.len(), some(&unclean));
        return Err(Failure::new(ErrorCode::Busy, text));
    }
    Ok(Reply::done("yes")
        .with_json(json!({"safe_to_destroy": gone.iter().map(|id| id.0).collect::<Vec<_>>()})))
}
