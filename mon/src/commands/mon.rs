//! The monitors themselves.

use super::{Args, Context, Failure, Reply};
use crate::draft::Draft;
use crate::service::Service;
use nacre_maps::{AuthEntry, Caps, MonInfo};
use nacre_types::EntityName;
use nacre_wire::ErrorCode;
use raft::eraftpb::ConfChangeType;
use serde_json::{Value, json};

const MONS_MAX: usize = 9;

pub(crate) fn monmap_json(state: &Service) -> Value {
    let mons: Vec<Value> = state
        .monmap
        .mons
        .iter()
        .enumerate()
        .map(|(rank, (name, info))| json!({"rank": rank, "name": name, "addr": info.address, "raft_id": info.raft_id}))
        .collect();
    json!({"epoch": state.monmap.epoch.0, "fsid": state.fsid(), "mons": mons})
}

pub(super) fn quorum_status(state: &Service, context: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let view = &context.quorum;
    let ranks: Vec<usize> = view
        .in_quorum
        .iter()
        .filter_map(|name| state.monmap.mons.keys().position(|known| known == name))
        .collect();
    Ok(Reply::json(json!({
        "election_epoch": view.term,
        "quorum": ranks,
        "quorum_names": view.in_quorum,
        "quorum_leader_name": view.leader,
        "quorum_age": view.leading_ms / 1000,
        "outside_quorum": view.silent,
        "learners": view.learners,
        "monmap": monmap_json(state),
    })))
}

pub(super) fn stat(state: &Service, context: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let view = &context.quorum;
    let leader = view.leader.clone().unwrap_or_default();
    let text = format!(
        "e{}: {} mons, leader {leader}, quorum {}",
        state.monmap.epoch,
        state.monmap.mons.len(),
        view.in_quorum.join(",")
    );
    Ok(Reply::done(text).with_json(json!({
        "epoch": state.monmap.epoch.0,
        "num_mons": state.monmap.mons.len(),
        "leader": leader,
        "quorum": view.in_quorum,
        "outside_quorum": view.silent,
        "election_epoch": view.term,
    })))
}

pub(super) fn dump(state: &Service, context: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let mut json = monmap_json(state);
    json["quorum"] = json!(context.quorum.in_quorum);
    Ok(Reply::json(json))
}

pub(super) fn add(draft: &mut Draft<'_>, context: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (name, address) = (args.text("name")?, args.text("address")?);
    let entity: EntityName = format!("mon.{name}")
        .parse()
        .map_err(|e: nacre_types::EntityNameError| Failure::invalid(e.to_string()))?;
    if address.parse::<std::net::SocketAddr>().is_err() {
        let shown: String = address.chars().take(80).collect();
        return Err(Failure::invalid(format!(
            "'{shown}' is no address: give IP:PORT, as 10.0.0.4:6789 or [::1]:6789"
        )));
    }
    let monmap = draft.monmap();
    if let Some(known) = monmap.mons.get(name) {
        if known.address == address {
            return Ok(added(draft, name));
        }
        let text = format!("mon.{name} is in the monmap at {}: `nacre mon rm {name}` first", known.address);
        return Err(Failure::new(ErrorCode::AlreadyExists, text));
    }
    if let Some((other, _)) = monmap.mons.iter().find(|(_, info)| info.address == address) {
        return Err(Failure::new(ErrorCode::AlreadyExists, format!("mon.{other} has the address {address}")));
    }
    if monmap.mons.len() >= MONS_MAX {
        return Err(Failure::invalid(format!(
            "there are {MONS_MAX} monitors already: more make nothing safer"
        )));
    }
    if let Some(learner) = context.quorum.learners.first() {
        let text =
            format!("mon.{learner} has been added and does not vote yet: start it, or remove it, first");
        return Err(Failure::new(ErrorCode::Busy, text));
    }
    let mut monmap = monmap.clone();
    monmap.last_raft_id += 1;
    let raft_id = monmap.last_raft_id;
    monmap.mons.insert(name.into(), MonInfo { address: address.into(), raft_id });
    // It learns first and votes once it has caught up: adding one that never starts costs no quorum.
    draft.set_monmap(monmap, ConfChangeType::AddLearnerNode, raft_id);
    if draft.auth(&entity).is_none() {
        let caps = [("mon".to_string(), Caps::all())].into();
        let entry = AuthEntry { caps, created_ms: draft.at_ms };
        draft.set_auth(entity, Some(entry));
    }
    Ok(added(draft, name))
}

fn added(draft: &Draft<'_>, name: &str) -> Reply {
    let monmap = draft.monmap();
    let hex: String = monmap.encode().iter().map(|byte| format!("{byte:02x}")).collect();
    let mons = monmap
        .mons
        .iter()
        .map(|(name, info)| (name.clone(), json!(info.address)))
        .collect::<serde_json::Map<_, _>>();
    Reply::done(format!("mon.{name} is added; it votes as soon as it has caught up"))
        .with_json(json!({"epoch": monmap.epoch.0, "fsid": monmap.fsid, "mons": mons, "monmap_hex": hex}))
}

pub(super) fn rm(draft: &mut Draft<'_>, context: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let name = args.text("name")?;
    let monmap = draft.monmap();
    let Some(info) = monmap.mons.get(name) else {
        let shown: String = name.chars().take(60).collect();
        return Err(Failure::not_found(format!("there is no mon.{shown}: `nacre mon dump` lists them")));
    };
    let raft_id = info.raft_id;
    if monmap.mons.len() == 1 {
        return Err(Failure::new(ErrorCode::Busy, format!("mon.{name} is the last monitor")));
    }
    if name == context.quorum.me {
        let text = format!(
            "mon.{name} leads and no other monitor has caught up to take over: start the others first"
        );
        return Err(Failure::new(ErrorCode::Busy, text));
    }
    // More than half of those that stay must be there, or the cluster would stop.
    let voters =
        monmap.mons.keys().filter(|known| *known != name && !context.quorum.learners.contains(known)).count();
    let there = context.quorum.in_quorum.iter().filter(|known| *known != name).count();
    if there < voters / 2 + 1 {
        let silent = context.quorum.silent.join(", ");
        let text = format!("without mon.{name} there would be no quorum: start {silent} first");
        return Err(Failure::new(ErrorCode::Busy, text));
    }
    let mut monmap = monmap.clone();
    monmap.mons.remove(name);
    draft.set_monmap(monmap, ConfChangeType::RemoveNode, raft_id);
    draft.set_auth(EntityName::Mon(name.into()), None);
    Ok(Reply::done(format!("mon.{name} is removed: stop it")))
}
