//! The central configuration.

use super::{Args, Context, Failure, Reply};
use crate::draft::Draft;
use crate::options::{self, ConfigOption, Kind, OPTIONS};
use crate::service::Service;
use nacre_types::EntityName;
use serde_json::{Value, json};

const KINDS: [&str; 4] = ["mon", "osd", "mds", "client"];

/// Sections are `global`, a kind of daemon, or one entity.
fn section(args: &Args) -> Result<&str, Failure> {
    let who = args.text("who")?;
    if who == "global" || KINDS.contains(&who) || who.parse::<EntityName>().is_ok() {
        return Ok(who);
    }
    let shown: String = who.chars().take(60).collect();
    Err(Failure::invalid(format!(
        "'{shown}' is nobody: give global, one of {}, or a daemon like osd.3",
        KINDS.join(", ")
    )))
}

fn option(name: &str) -> Result<&'static ConfigOption, Failure> {
    options::find(name).ok_or_else(|| {
        let shown: String = name.chars().take(60).collect();
        Failure::not_found(format!("there is no setting '{shown}': `nacre config ls` lists them"))
    })
}

pub(super) fn set(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (who, option) = (section(args)?, option(args.text("name")?)?);
    let kind = who.split('.').next().unwrap_or_default();
    if who != "global" && !option.services.contains(&kind) {
        let readers = option.services.join(", ");
        return Err(Failure::invalid(format!(
            "{} is read by {readers} only: set for {who} it would do nothing",
            option.name
        )));
    }
    let value = option.parse(&args.scalar("value")?).map_err(Failure::invalid)?;
    if draft.config(who, option.name) != Some(&value) {
        draft.set_config(who, option.name, Some(value.clone()));
    }
    Ok(Reply::done(format!("{} of {who} is {value}", option.name)))
}

pub(super) fn rm(draft: &mut Draft<'_>, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let (who, name) = (section(args)?, args.text("name")?);
    if draft.config(who, name).is_some() {
        draft.set_config(who, name, None);
    }
    Ok(Reply::done(format!(
        "{who} has no value for {} of its own",
        name.chars().take(80).collect::<String>()
    )))
}

pub(super) fn get(state: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let who = section(args)?;
    // A section stands for an entity of that kind without settings of its own.
    let entity: EntityName = match who {
        "global" => EntityName::Client("-".into()),
        kind if KINDS.contains(&kind) => match kind {
            "osd" => EntityName::Osd(nacre_types::OsdId(nacre_crush::DEVICE_ID_MAX + 1)),
            kind => format!("{kind}.-").parse().map_err(|_| Failure::invalid("not a kind of daemon"))?,
        },
        name => name.parse().map_err(|e: nacre_types::EntityNameError| Failure::invalid(e.to_string()))?,
    };
    let show = |option: &ConfigOption| {
        let set = match who {
            "global" => state
                .config
                .sections
                .get("global")
                .and_then(|s| s.get(option.name))
                .map(|v| (v.as_str(), "global")),
            _ => state.config.effective(&entity, option.name),
        };
        let (value, section) = set.unwrap_or((option.default, "default"));
        json!({"name": option.name, "value": value, "section": section})
    };
    if let Some(name) = args.text_if("name")? {
        let shown = show(option(name)?);
        let value = shown["value"].as_str().unwrap_or_default().to_string();
        return Ok(Reply::done(value).with_json(shown));
    }
    let kind = who.split('.').next().unwrap_or_default();
    let known = OPTIONS.iter().filter(|option| who == "global" || option.services.contains(&kind));
    Ok(Reply::json(known.map(show).collect()))
}

pub(super) fn dump(state: &Service, _: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let sections = state.config.sections.iter();
    let lines: Vec<Value> = sections
        .flat_map(|(who, values)| {
            values.iter().map(move |(name, value)| json!({"section": who, "name": name, "value": value}))
        })
        .collect();
    Ok(Reply::json(Value::Array(lines)))
}

fn describe(option: &ConfigOption) -> Value {
    let (kind, range) = match option.kind {
        Kind::Number { min, max } => ("uint", json!([min, max])),
        Kind::Fraction { min, max } => ("float", json!([min, max])),
        Kind::Bool => ("bool", Value::Null),
        Kind::Choice(choices) => ("enum", json!(choices)),
    };
    json!({
        "name": option.name,
        "type": kind,
        "range": range,
        "default": option.default,
        "services": option.services,
        "desc": option.description,
        "can_update_at_runtime": true,
    })
}

pub(super) fn ls(_: &Service, _: &Context<'_>, _: &Args) -> Result<Reply, Failure> {
    let names: Vec<&str> = OPTIONS.iter().map(|option| option.name).collect();
    Ok(Reply::json(OPTIONS.iter().map(describe).collect()).with_output(names.join("\n")))
}

pub(super) fn help(_: &Service, _: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let option = option(args.text("name")?)?;
    Ok(Reply::done(option.description).with_json(describe(option)))
}
