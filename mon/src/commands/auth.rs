//! Who there is and what each may do.

use super::{Args, Context, Failure, Reply};
use crate::draft::Draft;
use crate::service::Service;
use nacre_maps::{AuthEntry, Caps};
use nacre_types::EntityName;
use nacre_wire::ErrorCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const SERVICES: [&str; 3] = ["mon", "osd", "mds"];
const ENTITIES_MAX: usize = 20_000;
const CAP_BYTES_MAX: usize = 4_096;

fn entry_json(entity: &EntityName, entry: &AuthEntry) -> Value {
    let caps: BTreeMap<&String, String> =
        entry.caps.iter().map(|(service, caps)| (service, caps.to_string())).collect();
    json!({"entity": entity.to_string(), "caps": caps, "created_ms": entry.created_ms})
}

fn no_entity(entity: &EntityName) -> Failure {
    Failure::not_found(format!("there is no entity {entity}: `nacre auth ls` lists them"))
}

/// Caps as an object `{"mon": "allow r", ...}`.
fn parse_caps(args: &Args) -> Result<BTreeMap<String, Caps>, Failure> {
    let mut caps = BTreeMap::new();
    for (service, text) in args.pairs("caps")? {
        if !SERVICES.contains(&service.as_str()) {
            let shown: String = service.chars().take(40).collect();
            return Err(Failure::invalid(format!("'{shown}' checks no caps: give {}", SERVICES.join(", "))));
        }
        if text.len() > CAP_BYTES_MAX {
            return Err(Failure::invalid(format!(
                "the caps for {service} are longer than {CAP_BYTES_MAX} bytes"
            )));
        }
        caps.insert(
            service,
            text.parse().map_err(|e: nacre_maps::CapsError| Failure::invalid(e.to_string()))?,
        );
    }
    Ok(caps)
}

pub(super) fn ls(state: &Service, _: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let entries =
        state.auth.entities.iter().map(|(entity, entry)| entry_json(entity, entry)).collect::<Vec<_>>();
    Ok(Reply::json(json!({"auth_dump": entries})))
}

pub(super) fn get(state: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let entity = args.entity("entity")?;
    let entry = state.auth.entities.get(&entity).ok_or_else(|| no_entity(&entity))?;
    Ok(Reply::json(entry_json(&entity, entry)))
}

pub(super) fn get_or_create(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    args: &Args,
) -> Result<Reply, Failure> {
    let entity = args.entity("entity")?;
    let caps = parse_caps(args)?;
    let entry = match draft.auth(&entity) {
        Some(entry) if args.has("caps") && entry.caps != caps => {
            let text = format!("{entity} exists with other caps: change them with `nacre auth caps`");
            return Err(Failure::new(ErrorCode::AlreadyExists, text));
        }
        Some(entry) => entry.clone(),
        None => {
            if draft.state.auth.entities.len() >= ENTITIES_MAX {
                return Err(Failure::invalid(format!(
                    "there are {ENTITIES_MAX} entities already: remove some"
                )));
            }
            if let EntityName::Osd(id) = &entity
                && draft.osd(*id).is_none()
            {
                return Err(Failure::not_found(format!(
                    "there is no {id}: `nacre osd format` makes it and its entity"
                )));
            }
            let entry = AuthEntry { caps, created_ms: draft.at_ms };
            draft.set_auth(entity.clone(), Some(entry.clone()));
            entry
        }
    };
    let mut json = entry_json(&entity, &entry);
    json["fsid"] = json!(draft.state.fsid());
    json["ca"] = json!(draft.state.ca_cert_pem);
    if let Some(cert) = context.cert_pem {
        json["cert"] = json!(cert);
    }
    let mons = draft.monmap().mons.iter();
    json["mons"] = mons.map(|(name, info)| json!({"name": name, "address": info.address})).collect();
    Ok(Reply::json(json))
}

pub(super) fn caps(draft: &mut Draft<'_>, context: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let entity = args.entity("entity")?;
    let caps = parse_caps(args)?;
    let entry = draft.auth(&entity).ok_or_else(|| no_entity(&entity))?;
    if &entity == context.entity
        && !caps.get("mon").is_some_and(|caps| caps.allow_anywhere(nacre_maps::Access::ALL))
    {
        return Err(Failure::invalid(format!(
            "{entity} would lock itself out: let another administrator do that"
        )));
    }
    if entry.caps != caps {
        let entry = AuthEntry { caps, created_ms: entry.created_ms };
        draft.set_auth(entity.clone(), Some(entry));
    }
    Ok(Reply::done(format!("updated the caps of {entity}")))
}

pub(super) fn rm(draft: &mut Draft<'_>, context: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let entity = args.entity("entity")?;
    if &entity == context.entity {
        return Err(Failure::invalid(format!(
            "{entity} would lock itself out: let another administrator do that"
        )));
    }
    if let EntityName::Mon(name) = &entity
        && draft.monmap().mons.contains_key(name)
    {
        return Err(Failure::new(
            ErrorCode::Busy,
            format!("{entity} is a monitor of this cluster: `nacre mon rm {name}`"),
        ));
    }
    if draft.auth(&entity).is_some() {
        draft.set_auth(entity.clone(), None);
    }
    Ok(Reply::done(format!("{entity} is removed: its certificate opens nothing any more")))
}
