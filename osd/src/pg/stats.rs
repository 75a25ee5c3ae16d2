//! A PG in words and numbers: for the monitors and for `pg query`.

use super::{Pg, PgContext, State};
use crate::pg::pipeline::Stage;
use nacre_types::OsdId;
use nacre_wire::messages::PgStat;
use std::fmt::Write as _;
use std::time::Duration;

impl Pg {
    /// Ceph's words, joined by `+`.
    pub fn state_words(&self, ctx: &PgContext<'_>) -> String {
        let mut words: Vec<&str> = Vec::new();
        let size = ctx.map.pool(self.id.pool).map_or(0, |pool| pool.size) as usize;
        match self.state() {
            State::Active => {
                let recovery = self.recovery_summary();
                words.push(if self.is_writeable(ctx) { "active" } else { "peered" });
                if self.is_writeable(ctx) && self.prior_lease_end(ctx.now).is_some() {
                    words.push("wait");
                } else if !self.may_serve_reads(ctx) {
                    words.push("laggy");
                }
                if self.members.acting.len() < size {
                    words.push("undersized");
                }
                if recovery.degraded > 0 || self.members.acting.len() < size {
                    words.push("degraded");
                }
                if self.members.up != self.members.acting {
                    words.push("remapped");
                }
                words.extend(recovery.words.iter().copied());
                if self.clean && self.members.acting.len() >= size {
                    words.push("clean");
                }
            }
            State::Down { .. } => words.push("down"),
            State::Incomplete { .. } => words.push("incomplete"),
            State::Activating { .. } => words.push("activating"),
            State::Stray => words.push("stray"),
            State::ReplicaActive => words.push("active"),
            State::Removing => words.push("deleting"),
            _ => {
                words.push("peering");
                if self.members.up != self.members.acting {
                    words.push("remapped");
                }
            }
        }
        words.join("+")
    }

    /// The primary's report.
    pub fn stat(&mut self, ctx: &PgContext<'_>) -> PgStat {
        self.report_seq += 1;
        let recovery = self.recovery_summary();
        let size = ctx.map.pool(self.id.pool).map_or(0, |pool| pool.size) as u64;
        let absent = size.saturating_sub(self.members.acting.len() as u64);
        let counters = self.pipeline.counters;
        let ids = |osds: &[OsdId]| osds.iter().map(|osd| osd.0).collect();
        PgStat {
            pg: self.id.as_u64(),
            state: self.state_words(ctx),
            reported_epoch: ctx.epoch().0,
            reported_seq: self.report_seq,
            up: ids(&self.members.up),
            acting: ids(&self.members.acting),
            objects: self.info.objects,
            bytes: self.info.bytes,
            degraded: recovery.degraded + absent * self.info.objects,
            misplaced: recovery.misplaced,
            unfound: recovery.unfound,
            log_entries: self.log.len() as u64,
            last_scrub_ms: self.info.history.last_scrub_ms,
            last_deep_scrub_ms: self.info.history.last_deep_scrub_ms,
            scrub_errors: recovery.scrub_errors,
            waiting_for: self.why().first().map(|reason| reason.needs.to_string()).unwrap_or_default(),
            last_update_epoch: self.log.head().epoch.0,
            last_update_seq: self.log.head().seq,
            read_ops: counters.read_ops,
            read_bytes: counters.read_bytes,
            write_ops: counters.write_ops,
            write_bytes: counters.write_bytes,
            recovered_objects: recovery.recovered_objects,
            recovered_bytes: recovery.recovered_bytes,
        }
    }

    /// Requests older than that.
    pub fn slow_ops(&self, now: nacre_types::Instant, age: Duration) -> u32 {
        let slow = |op: &&super::ClientOp| {
            now.since(op.received) >= age && !matches!(op.stage, Stage::Notifying { .. })
        };
        self.pipeline.ops.values().filter(slow).count() as u32
    }

    pub fn op_count(&self) -> usize {
        self.pipeline.ops.len()
    }

    /// `pg query`: everything, as JSON.
    pub fn query_json(&self, ctx: &PgContext<'_>) -> String {
        let ids = |osds: &[OsdId]| osds.iter().map(|osd| osd.0.to_string()).collect::<Vec<_>>().join(",");
        let mut json = String::from("{");
        let mut field = |name: &str, value: String| {
            let comma = if json.len() > 1 { "," } else { "" };
            let _ = write!(json, "{comma}{}:{value}", quoted(name));
        };
        field("pgid", quoted(&self.id.to_string()));
        field("state", quoted(&self.state_words(ctx)));
        field("peering_state", quoted(self.state().name()));
        field("epoch", self.epoch.0.to_string());
        field("same_interval_since", self.interval().0.to_string());
        field("up", format!("[{}]", ids(&self.members.up)));
        field("acting", format!("[{}]", ids(&self.members.acting)));
        let backfill: Vec<OsdId> = self.backfill_targets.iter().copied().collect();
        field("backfill_targets", format!("[{}]", ids(&backfill)));
        field("last_update", quoted(&self.info.last_update.to_string()));
        field("last_complete", quoted(&self.info.last_complete.to_string()));
        field("log_tail", quoted(&self.info.log_tail.to_string()));
        field("committed_to", quoted(&self.committed_to.to_string()));
        field("last_epoch_started", self.info.history.last_epoch_started.0.to_string());
        field("last_epoch_clean", self.info.history.last_epoch_clean.0.to_string());
        field("objects", self.info.objects.to_string());
        field("bytes", self.info.bytes.to_string());
        field("log_entries", self.log.len().to_string());
        field("missing", self.missing.len().to_string());
        let peers: Vec<String> = self
            .peers
            .iter()
            .map(|(osd, peer)| {
                format!(
                    "{{\"osd\":{},\"last_update\":{},\"missing\":{},\"complete\":{},\"exists\":{}}}",
                    osd.0,
                    quoted(&peer.info.last_update.to_string()),
                    peer.missing.len(),
                    peer.info.is_complete(),
                    peer.info.exists
                )
            })
            .collect();
        field("peers", format!("[{}]", peers.join(",")));
        let intervals: Vec<String> = self
            .past
            .may_have_written(nacre_types::Epoch::ZERO)
            .map(|i| {
                format!("{{\"first\":{},\"last\":{},\"acting\":[{}]}}", i.first.0, i.last.0, ids(&i.acting))
            })
            .collect();
        field("past_intervals", format!("[{}]", intervals.join(",")));
        let waits = self.waits(ctx).iter().map(|wait| crate::explain::wait_json(ctx.now, wait)).collect();
        field("waiting", serde_json::Value::Array(waits).to_string());
        json.push('}');
        json
    }
}

/// A JSON string.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => drop(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
