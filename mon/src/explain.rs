//! What a monitor can tell of why something is stuck: the evidence that `nacre explain` walks.
//!
//! Asked with `local`, the monitor at hand answers at once from what it has, with or without a quorum; else the leader
//! answers, who alone hears the OSDs' reports. What follows from it is not decided here.

use crate::commands::{Args, Context, Failure, Handler, QuorumView, Reply};
use crate::leader::Memory;
use crate::service::Service;
use nacre_maps::OsdInfo;
use nacre_types::{EntityName, Instant, OsdId};
use nacre_wire::Message;
use nacre_wire::messages::LogLine;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// OSDs told of in one answer.
const OSDS_MAX: usize = 64;
/// OSDs whose signs of life a monitor remembers.
const SIGNS_MAX: usize = 20_000;

/// What this very monitor heard from OSDs, also while nobody leads.
#[derive(Default)]
pub(crate) struct Signs {
    heard: BTreeMap<OsdId, Sign>,
}

struct Sign {
    at: Instant,
    /// The last request to be marked up: when, and the address it gave.
    boot: Option<(Instant, String)>,
}

impl Signs {
    pub fn note(&mut self, now: Instant, entity: &EntityName, message: &Message) {
        let EntityName::Osd(osd) = *entity else { return };
        if self.heard.len() >= SIGNS_MAX && !self.heard.contains_key(&osd) {
            return;
        }
        let sign = self.heard.entry(osd).or_insert(Sign { at: now, boot: None });
        sign.at = now;
        match message {
            Message::OsdBoot(boot) => sign.boot = Some((now, boot.address.chars().take(256).collect())),
            // It knows itself to be up.
            Message::OsdStats(_) | Message::OsdAlive(_) => sign.boot = None,
            _ => {}
        }
    }
}

/// The leader's answer, or with an empty memory that of whoever is asked.
pub(crate) fn explain(state: &Service, context: &Context<'_>, args: &Args) -> Result<Reply, Failure> {
    let osds = if args.has("osds") { args.list("osds")? } else { Vec::new() };
    let osds = osds.iter().filter_map(|id| id.trim_start_matches("osd.").parse().ok()).map(OsdId);
    let mut json = quorum(state, &context.quorum);
    let told: Vec<Value> = osds.take(OSDS_MAX).map(|id| osd(state, context, id)).collect();
    json["osds"] = told.into();
    json["flags"] = flags(state).into();
    json["fullest"] = fullest(context.memory);
    if args.has("pgid") {
        let pg = args.pg()?;
        let report = context.memory.pgs.get(&pg);
        json["pg"] = json!({
            "pgid": pg.to_string(),
            "state": context.memory.pg_state(context.now, &state.osdmap, pg),
            "from": report.map(|report| report.from.0),
            "age_ms": report.map(|report| since(context.now, report.at)),
            "acting": report.map(|report| &report.stat.acting),
            "waiting_for": report.map_or("", |report| &report.stat.waiting_for),
        });
    }
    if args.has("entity") {
        json["entity"] = entity(state, &args.entity("entity")?);
    }
    Ok(Reply::json(json))
}

fn since(now: Instant, then: Instant) -> u64 {
    now.since(then).as_millis() as u64
}

fn quorum(state: &Service, view: &QuorumView) -> Value {
    let mons = state.monmap.mons.iter().map(|(name, info)| json!({"name": name, "address": info.address}));
    json!({
        "mon": view.me,
        "leader": view.leader,
        "leads": view.leader.as_ref() == Some(&view.me),
        "term": view.term,
        "mons": mons.collect::<Vec<_>>(),
        "in_quorum": view.in_quorum,
        "silent": view.silent,
        "learners": view.learners,
        "leading_ms": view.leading_ms,
        "epoch": state.osdmap.epoch().0,
        "at_ms": state.at_ms,
    })
}

fn osd(state: &Service, context: &Context<'_>, id: OsdId) -> Value {
    let memory = context.memory;
    let mut json = json!({"osd": id.0, "known": state.osdmap.osd(id).is_some()});
    if let Some(report) = memory.osds.get(&id) {
        json["report"] = json!({
            "age_ms": since(context.now, report.at),
            "used_bytes": report.stats.used_bytes,
            "total_bytes": report.stats.total_bytes,
            "slow_ops": report.stats.slow_ops,
            "commit_latency_us": report.stats.commit_latency_us,
        });
    }
    if let Some(boot) = memory.boots.get(&id) {
        json["boot"] = json!({
            "age_ms": since(context.now, boot.at), "address": boot.address, "refused": boot.refused,
        });
    }
    let reports = memory
        .reports
        .about(id)
        .map(|(by, refused, at)| json!({"by": by.0, "refused": refused, "age_ms": since(context.now, at)}));
    json["reports"] = reports.collect::<Vec<_>>().into();
    if let Some(info) = state.osdmap.osd(id) {
        json["down"] = went_down(state, id, info);
        if !info.is_in() {
            json["out"] = went_out(state, id, info);
        }
    }
    json
}

/// The last line of the cluster log that tells of the OSD's going down, and its kind. Kinds are for programs.
fn went_down(state: &Service, id: OsdId, info: &OsdInfo) -> Value {
    if info.up {
        return Value::Null;
    }
    let name = format!("{id} ");
    let mut reason = None;
    for line in state.log.iter().rev() {
        if line.who == name.trim_end()
            && let Some(own) = line.text.strip_prefix("stops: ")
        {
            // Its own last words say more than what others saw of it.
            let kind = if own.starts_with("the store has failed") { "disk_failed" } else { "ended" };
            reason = Some((line, kind, own));
            break;
        } else if let Some(rest) = line.text.strip_prefix(&name) {
            if rest.starts_with("is up at ") {
                break;
            }
            if let Some(kind) = down_kind(rest) {
                reason = Some((line, kind, rest));
                break;
            }
        } else if did(line, "osd down", id) {
            reason = Some((line, "by_hand", line.text.as_str()));
            break;
        }
    }
    match reason {
        Some((line, kind, text)) => json!({"kind": kind, "text": text, "at_ms": line.at_ms, "who": line.who}),
        None => {
            let kind = if info.booted { "forgotten" } else { "never_up" };
            json!({"kind": kind, "text": "", "at_ms": info.down_since_ms})
        }
    }
}

/// By the sentences of `leader::osd_work`.
fn down_kind(text: &str) -> Option<&'static str> {
    if let Some(reason) = text.strip_prefix("goes down in order: ") {
        return Some(match reason {
            reason if reason.starts_with("stopped") => "stopped",
            reason if reason.starts_with("the store has failed") => "disk_failed",
            _ => "ended",
        });
    }
    if text.starts_with("goes down: it has been restarted") {
        return Some("restarted");
    }
    let reason = text.strip_prefix("is marked down: ")?;
    Some(match reason {
        reason if reason.contains("refuses connections") => "refused",
        reason if reason.starts_with("no report") => "no_report",
        _ => "silent",
    })
}

fn went_out(state: &Service, id: OsdId, info: &OsdInfo) -> Value {
    let name = format!("{id} ");
    let line = state.log.iter().rev().find(|line| {
        let by_itself = line.text.strip_prefix(&name).is_some_and(|rest| rest.starts_with("is marked out"));
        by_itself || did(line, "osd out", id)
    });
    json!({
        "auto": info.auto_out,
        "text": line.map(|line| &line.text),
        "at_ms": line.map(|line| line.at_ms),
    })
}

/// Whether the line is the audit's of a command about that OSD.
fn did(line: &LogLine, command: &str, id: OsdId) -> bool {
    let Some((_, rest)) = line.text.split_once(&format!(" did '{command}'")) else { return false };
    let number = id.0.to_string();
    rest.split(|c: char| !c.is_ascii_digit()).any(|word| word == number)
}

/// Flags that are set, and who set them as far as the log goes back.
fn flags(state: &Service) -> Vec<Value> {
    let set = state.osdmap.flags().iter().map(|flag| {
        let name = flag.as_str();
        let wanted = format!("did 'osd set' key=\"{name}\"");
        let by_hand = |line: &&LogLine| line.text.contains(&wanted);
        let by_itself = |line: &&LogLine| name == "full" && line.text.starts_with("the cluster is full: ");
        let line = state.log.iter().rev().find(|line| by_hand(line) || by_itself(line));
        let by = line.map(|line| line.text.split(" did ").next().unwrap_or_default());
        json!({"flag": name, "by": by, "at_ms": line.map(|line| line.at_ms)})
    });
    set.collect()
}

fn fullest(memory: &Memory) -> Value {
    let permille = |used: u64, total: u64| match total {
        0 => 0,
        total => (u128::from(used) * 1000 / u128::from(total)) as u64,
    };
    let all = memory.osds.iter();
    let worst = all.map(|(id, r)| (permille(r.stats.used_bytes, r.stats.total_bytes), id.0)).max();
    worst.map_or(Value::Null, |(permille, osd)| json!({"osd": osd, "used_permille": permille}))
}

fn entity(state: &Service, entity: &EntityName) -> Value {
    let entry = state.auth.entities.get(entity);
    let caps: BTreeMap<&str, String> = entry
        .into_iter()
        .flat_map(|entry| entry.caps.iter().map(|(service, caps)| (service.as_str(), caps.to_string())))
        .collect();
    json!({"name": entity.to_string(), "known": entry.is_some(), "caps": caps})
}

/// The answer of this monitor alone, for a command that asks for no more.
pub(crate) fn here(
    state: &Service,
    context: &Context<'_>,
    signs: &Signs,
    led_ms: u64,
    handler: Handler,
    args: &Args,
) -> Result<Reply, Failure> {
    let Handler::Read(handler) = handler else { return Err(Failure::invalid("not a question")) };
    let mut reply = handler(state, context, args)?;
    let Some(json) = &mut reply.json else { return Ok(reply) };
    json["local"] = true.into();
    // How long ago this monitor last knew of a leader.
    json["led_ms"] = led_ms.into();
    for told in json["osds"].as_array_mut().into_iter().flatten() {
        let id = told["osd"].as_u64().and_then(|id| u32::try_from(id).ok()).map(OsdId);
        let Some(sign) = id.and_then(|id| signs.heard.get(&id)) else { continue };
        told["heard_ms"] = since(context.now, sign.at).into();
        if let (Some((at, address)), true) = (&sign.boot, told["boot"].is_null()) {
            told["boot"] = json!({"age_ms": since(context.now, *at), "address": address, "refused": null});
        }
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_of_the_log_have_kinds() {
        for (text, kind) in [
            ("goes down in order: stopped in order", "stopped"),
            ("goes down in order: the store has failed: write error", "disk_failed"),
            ("goes down in order: osd.2 was removed from the cluster", "ended"),
            ("goes down: it has been restarted", "restarted"),
            ("is marked down: osd.2 refuses connections, say osd.0, osd.1", "refused"),
            ("is marked down: osd.2 does not answer, say osd.0, osd.1", "silent"),
            ("is marked down: no report from it for 900 s", "no_report"),
        ] {
            assert_eq!(down_kind(text), Some(kind));
        }
        assert_eq!(down_kind("is marked out: down for 600 s"), None);
    }

    #[test]
    fn the_audit_names_osds() {
        let line = LogLine { text: "client.admin did 'osd down' ids=[2,13]".into(), ..LogLine::default() };
        assert!(did(&line, "osd down", OsdId(13)) && !did(&line, "osd down", OsdId(3)));
        assert!(!did(&line, "osd out", OsdId(13)));
    }
}
