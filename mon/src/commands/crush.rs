//! The CRUSH map: out and in as text, and edits.

use super::{Args, Context, Failure, Reply};
use crate::draft::Draft;
use crate::placement;
use crate::service::Service;
use nacre_crush::{CrushMap, EditError, Step};
use nacre_wire::ErrorCode;
use serde_json::{Value, json};

const TEXT_BYTES_MAX: usize = 4 << 20;

fn refused(error: EditError) -> Failure {
    Failure::invalid(error.to_string())
}

pub(super) fn get(state: &Service, _: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    Ok(Reply::json(json!({"epoch": state.osdmap.epoch().0})).with_output(state.osdmap.crush().to_text()))
}

pub(super) fn set(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    if args.input.len() > TEXT_BYTES_MAX {
        return Err(Failure::new(ErrorCode::TooLarge, "a CRUSH map's text has at most 4 MiB"));
    }
    let text = std::str::from_utf8(&args.input).map_err(|_| Failure::invalid("the CRUSH map is not text"))?;
    let crush =
        CrushMap::parse(text).map_err(|e| Failure::invalid(format!("the CRUSH map does not parse: {e}")))?;
    crush.compile().map_err(|e| Failure::invalid(format!("the CRUSH map does not compile: {e}")))?;
    if let Some((_, pool)) = draft.pools().find(|(_, pool)| !crush.rule_exists(pool.rule)) {
        let text = format!("pool '{}' uses rule {}, which the new map does not have", pool.name, pool.rule);
        return Err(Failure::invalid(text));
    }
    if crush != *draft.crush() {
        draft.step.crush = Some(crush);
    }
    Ok(Reply::done("the CRUSH map is set"))
}

pub(super) fn rule_ls(state: &Service, _: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let names: Vec<&str> = state.osdmap.crush().rules().map(|rule| rule.name.as_str()).collect();
    Ok(Reply::json(json!(names)).with_output(names.join("\n")))
}

pub(super) fn rule_dump(state: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let crush = state.osdmap.crush();
    let wanted = args.text_if("name")?;
    let step = |step: &Step| match step {
        Step::Take { item, class } => {
            json!({"op": "take", "item": item, "item_name": crush.item_name(*item), "class": class})
        }
        Step::Choose { mode, leaf, num, type_id } => {
            let op = format!("{}_{mode:?}", if *leaf { "chooseleaf" } else { "choose" }).to_lowercase();
            json!({"op": op, "num": num, "type": crush.type_name(*type_id)})
        }
        Step::Emit => json!({"op": "emit"}),
        other => json!({"op": format!("{other:?}").to_lowercase()}),
    };
    let rules: Vec<Value> = crush
        .rules()
        .filter(|rule| wanted.is_none_or(|wanted| rule.name == wanted))
        .map(|rule| {
            let steps: Vec<Value> = rule.steps.iter().map(step).collect();
            json!({"rule_id": rule.id, "rule_name": rule.name, "steps": steps})
        })
        .collect();
    match wanted {
        Some(name) if rules.is_empty() => Err(Failure::not_found(format!(
            "there is no CRUSH rule '{}'",
            name.chars().take(80).collect::<String>()
        ))),
        _ => Ok(Reply::json(Value::Array(rules))),
    }
}

pub(super) fn rule_create(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (name, root, domain) = (args.text("name")?, args.text_if("root")?, args.text_if("type")?);
    let (root, domain, class) = (root.unwrap_or("default"), domain.unwrap_or("host"), args.text_if("class")?);
    let id = placement::edit(draft, |crush| crush.create_replicated_rule(name, root, domain, class))
        .map_err(refused)?;
    Ok(Reply::done(format!("rule '{name}' created")).with_json(json!({"rule_id": id})))
}

pub(super) fn rule_rm(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let name = args.text("name")?;
    let id = draft.crush().rule_by_name(name).map(|rule| rule.id);
    if let Some((_, pool)) = draft.pools().find(|(_, pool)| Some(pool.rule) == id) {
        return Err(Failure::new(ErrorCode::Busy, format!("pool '{}' uses rule '{name}'", pool.name)));
    }
    placement::edit(draft, |crush| crush.remove_rule(name)).map_err(refused)?;
    Ok(Reply::done(format!("rule '{name}' removed")))
}

pub(super) fn reweight(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (name, weight) = (args.text("name")?, args.parsed::<f64>("weight", "a weight in TiB")?);
    placement::edit(draft, |crush| crush.reweight_item(name, weight)).map_err(refused)?;
    Ok(Reply::done(format!("'{name}' weighs {weight}")))
}

pub(super) fn add(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (osd, weight) = (args.osd("id")?, args.parsed::<f64>("weight", "a weight in TiB")?);
    let location = args.pairs("location")?;
    if draft.osd(osd).is_none() {
        return Err(Failure::not_found(format!("there is no {osd}: make it with `nacre osd format` first")));
    }
    placement::edit(draft, |crush| {
        crush.add_osd(osd.0, weight, None, &location)?;
        crush.reweight_item(&osd.to_string(), weight)
    })
    .map_err(refused)?;
    Ok(Reply::done(format!("{osd} is in the CRUSH map with weight {weight}")))
}

pub(super) fn add_bucket(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (name, kind, location) = (args.text("name")?, args.text("type")?, args.pairs("location")?);
    placement::edit(draft, |crush| crush.add_bucket(name, kind, &location)).map_err(refused)?;
    Ok(Reply::done(format!("bucket '{name}' of type {kind} added")))
}

pub(super) fn move_item(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (name, location) = (args.text("name")?, args.pairs("location")?);
    placement::edit(draft, |crush| match crush.item_id(name).and_then(|id| u32::try_from(id).ok()) {
        Some(osd) => crush.add_osd(osd, 0.0, None, &location).map(|_| ()),
        None => crush.move_bucket(name, &location),
    })
    .map_err(refused)?;
    Ok(Reply::done(format!("'{name}' moved")))
}

pub(super) fn rm(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let name = args.text("name")?;
    placement::edit(draft, |crush| crush.remove_item(name)).map_err(refused)?;
    Ok(Reply::done(format!("'{name}' removed from the CRUSH map")))
}

pub(super) fn set_device_class(
    draft: &mut Draft<'_>,
    _: &Context<'_>,
    args: &Args,
) -> Result<Reply, Failure> {
    let (class, osds) = (args.text("class")?, args.osds()?);
    for osd in &osds {
        placement::edit(draft, |crush| crush.set_device_class(osd.0, Some(class))).map_err(refused)?;
        let known = draft.osd(*osd).is_some();
        if known && let Some(info) = draft.osd_mut(*osd) {
            info.device_class = class.into();
        }
    }
    Ok(Reply::done(format!("set class '{class}' of {} OSDs", osds.len())))
}
