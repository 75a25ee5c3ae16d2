//! What this OSD can tell of why something waits: the evidence that `nacre explain` walks.
//!
//! An OSD answers by itself, with or without monitors. It says what it sees, as values with codes; what follows from it
//! is for the walk over everybody's evidence to say, which is the same in the simulator and in the cluster.

use crate::osd::Osd;
use crate::pg::{Pg, PgContext, Stage, State};
use nacre_maps::Access;
use nacre_store::ObjectStore;
use nacre_types::{EntityName, Instant, Needs, ObjectId, OsdId, Outbox, PgId, WaitReason, WaitRecord};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Waits told of one PG.
const WAITS_MAX: usize = 64;
/// PGs told of where none is asked for.
const PGS_MAX: usize = 32;
/// An operation younger than that is under way, not stuck.
const YOUNG_MS: u128 = 500;

/// A wait for people and programs.
pub fn wait_json(now: Instant, wait: &WaitReason) -> Value {
    let WaitRecord { code, osds, pg, word, numbers } = wait.needs.record();
    let mut json = json!({
        "on": wait.on,
        "age_ms": now.since(wait.since).as_millis() as u64,
        "needs": wait.needs.to_string(),
        "code": code,
    });
    if !osds.is_empty() {
        json["osds"] = ids(&osds);
    }
    if let Some(pg) = pg {
        json["pg"] = pg.to_string().into();
    }
    if !word.is_empty() {
        json["word"] = word.into();
    }
    if numbers != [0, 0] {
        json["numbers"] = json!(numbers);
    }
    json
}

fn ids(osds: &[OsdId]) -> Value {
    osds.iter().map(|osd| osd.0).collect::<Vec<_>>().into()
}

impl Pg {
    /// What the PG's state and every operation here wait for, oldest first.
    pub fn why(&self) -> Vec<WaitReason> {
        let mut reasons = Vec::new();
        let osds = |set: &BTreeSet<OsdId>| set.iter().copied().collect::<Vec<_>>();
        let needs = match self.state() {
            State::Active if self.clean => None,
            State::Active => self.recovery_summary().waiting_for,
            State::ReplicaActive => None,
            State::Reset => Some(Needs::MarkedUp),
            State::GetInfo { waiting, .. } => Some(Needs::InfoOf(osds(waiting))),
            State::Down { blocked_by } => {
                let (first, last) = self.blocking.unwrap_or_default();
                Some(Needs::PastMember { any_of: osds(blocked_by), first, last })
            }
            State::GetLog { from } => Some(Needs::LogOf(vec![*from])),
            State::WaitActingChange { want } => Some(Needs::ActingSet(want.clone())),
            State::Incomplete { needs } => Some(needs.clone()),
            State::GetMissing { waiting } => Some(Needs::LogOf(osds(waiting))),
            State::WaitUpThru => Some(Needs::UpThru),
            State::Activating { waiting } => Some(Needs::Activation(osds(waiting))),
            State::Stray => Some(Needs::Primary(self.members.primary())),
            State::Removing => Some(Needs::Removal),
        };
        if let Some(needs) = needs {
            reasons.push(WaitReason { on: self.state().name().into(), since: self.state_since(), needs });
        }
        reasons.extend(self.operations(None));
        reasons
    }

    /// What operations wait for: all, or those on one object.
    fn operations<'a>(&'a self, head: Option<&'a ObjectId>) -> impl Iterator<Item = WaitReason> + 'a {
        let of = move |op: &&crate::pg::ClientOp| head.is_none_or(|head| op.object.head() == *head);
        self.pipeline.ops.iter().filter(move |(_, op)| of(op)).map(|(id, op)| {
            let queue = self.pipeline.objects.get(&op.object.head());
            let is_first = queue.is_none_or(|queue| queue.waiting.front() == Some(id));
            let needs = match &op.stage {
                Stage::Queued if !is_first => Needs::EarlierOperations,
                // Put back when the interval ended: it has not been looked at since.
                Stage::Queued if op.wait == Needs::Turn && !self.is_active() => {
                    Needs::ActivePg { pg: self.id, state: self.state().name().into() }
                }
                Stage::Queued => op.wait.clone(),
                Stage::Reading { outstanding, .. } => Needs::DiskReads { outstanding: *outstanding as u64 },
                Stage::InFlight { .. } => Needs::CommitsOf(self.lagging()),
                Stage::Duplicate(version) => Needs::Version(*version),
                Stage::Notifying { .. } => Needs::Watchers { clients: self.watch.waited_for() as u64 },
            };
            let on = format!("osd_op {} {}", op.request, op.object);
            WaitReason { on, since: op.received, needs }
        })
    }

    /// Everything that waits here: state, recovery, scrub, trimming, operations.
    pub(crate) fn waits(&self, ctx: &PgContext<'_>) -> Vec<WaitReason> {
        let mut waits = self.why();
        if !self.is_active() {
            return waits;
        }
        let mut add = |on: &str, wait: Option<(Instant, Needs)>| {
            if let Some((since, needs)) = wait {
                waits.push(WaitReason { on: on.into(), since, needs });
            }
        };
        if !self.is_writeable(ctx) {
            let min_size = ctx.map.pool(self.id.pool).map_or(0, |pool| pool.min_size);
            let have = self.members.acting.len() as u32;
            add("serving", Some((self.state_since(), Needs::Members { have, min_size })));
        } else if let Some(end) = self.prior_lease_end(ctx.now) {
            let left_ms = end.since(ctx.now).as_millis() as u64;
            add("serving", Some((self.state_since(), Needs::EarlierLease { left_ms })));
        } else if !self.may_serve_reads(ctx) {
            add("serving", Some((self.state_since(), Needs::Lease(self.lease_lacks(ctx)))));
        }
        match self.recovery_wait() {
            // What stands still is told by `why` already.
            Some((since, Needs::Transfers(_)))
                if ctx.shared.throttle.holds(self.id) && !self.recovery.moves() =>
            {
                add("recovery", Some((since, Needs::Throttle)));
            }
            Some((since, needs @ Needs::Transfers(_))) => add("recovery", Some((since, needs))),
            _ => {}
        }
        let size = ctx.map.pool(self.id.pool).map_or(0, |pool| pool.size);
        let have = self.members.up.len() as u32;
        if have < size {
            add("redundancy", Some((self.state_since(), Needs::Places { have, size })));
        }
        add("scrub", self.scrub_wait(ctx));
        add("snap_trim", self.trimming.wait());
        waits
    }

    fn explain(&self, ctx: &PgContext<'_>, head: Option<&ObjectId>) -> Value {
        let mut waits = self.waits(ctx);
        if let Some(head) = head {
            waits.retain(|wait| !wait.on.starts_with("osd_op"));
            waits.extend(self.operations(Some(head)));
        }
        let waits: Vec<Value> = waits.iter().take(WAITS_MAX).map(|wait| wait_json(ctx.now, wait)).collect();
        let mut json = json!({
            "pgid": self.id.to_string(),
            "state": self.state_words(ctx),
            "peering_state": self.state().name(),
            "primary": self.is_primary(),
            "clean": self.clean,
            "up": ids(&self.members.up),
            "acting": ids(&self.members.acting),
            "epoch": self.epoch.0,
            "interval": self.interval().0,
            "past_down": ids(&self.absent(ctx)),
            "peers": ids(&self.peers.keys().copied().collect::<Vec<_>>()),
            "scrub_errors": self.recovery.scrub.errors(),
            "unfound": self.recovery.unfound.len(),
            "waits": waits,
        });
        if let Some(head) = head {
            json["object"] = json!({
                "unfound": self.recovery.unfound.contains(head),
                "missing_here": self.missing.contains(head),
                "damaged": self.is_damaged(ctx, head),
                "unseen": self.reverts_unseen(head),
            });
            // What an operation would meet that came now.
            if let Err(needs) = self.gate(ctx, true).and_then(|()| self.gate(ctx, false)) {
                let wait = WaitReason { on: "new operations".into(), since: self.state_since(), needs };
                json["gate"] = wait_json(ctx.now, &wait);
            }
        }
        json
    }
}

/// What a question names, as far as it does.
#[derive(Default)]
struct Asked {
    pg: Option<PgId>,
    object: Option<ObjectId>,
    request: Option<String>,
    entity: Option<EntityName>,
}

impl Asked {
    fn read(json: &str) -> Asked {
        let value: Value = serde_json::from_str(json).unwrap_or_default();
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let object = || {
            let pool = value.get("pool")?.as_u64().and_then(|pool| u32::try_from(pool).ok())?;
            let namespace = text("namespace").unwrap_or_default();
            ObjectId::new(nacre_types::PoolId(pool), namespace, text("object")?).ok()
        };
        Asked {
            pg: text("pgid").and_then(|pg| pg.parse().ok()),
            object: object(),
            request: text("request").map(String::from),
            entity: text("entity").and_then(|entity| entity.parse().ok()),
        }
    }
}

impl<S: ObjectStore> Osd<S> {
    /// What the OSD itself waits for, besides its PGs.
    pub fn own_waits(&self) -> Vec<WaitReason> {
        let core = &self.core;
        let mut waits = Vec::new();
        let mut add = |on: &str, since: Instant, needs: Needs| {
            waits.push(WaitReason { on: on.into(), since, needs });
        };
        let (phase, since) = &core.phase_since;
        if let Some(needs) = phase.needs(core.maps.heard_of) {
            add("osd", *since, needs);
        }
        if core.auth.is_none() {
            add("clients", *since, Needs::AuthMap);
        }
        if core.maps.heard_of > core.maps.epoch() {
            add("maps", core.mon_heard, Needs::Map(core.maps.heard_of));
        }
        waits
    }

    pub(crate) fn explain_json(
        &mut self,
        now: Instant,
        question: &str,
        out: &mut Outbox<crate::OsdEffect>,
    ) -> String {
        let asked = Asked::read(question);
        let waits: Vec<Value> = self.own_waits().iter().map(|wait| wait_json(now, wait)).collect();
        let core = &self.core;
        let usage = core.store.usage();
        let millis = |duration: std::time::Duration| duration.as_millis() as u64;
        let silent = core.heartbeat.watched().map(|(osd, heard, refused)| {
            json!({"osd": osd.0, "silent_ms": millis(now.since(heard)), "refused": refused})
        });
        let (slots, lent) = core.shared.slot_holders();
        let names = |pgs: Vec<PgId>| pgs.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut json = json!({
            "osd": core.config.id.0,
            "phase": core.phase_since.0.name(),
            "host": core.config.host,
            "address": core.config.address,
            "epoch": core.maps.epoch().0,
            "heard_of": core.maps.heard_of.0,
            "mon_heard_ms": millis(now.since(core.mon_heard)),
            "heartbeats": silent.collect::<Vec<_>>(),
            "store": {
                "total_bytes": usage.total_bytes,
                "used_bytes": usage.used_bytes,
                "oldest_request_ms": core.tokens.oldest_age(now).map(millis),
                "checksum_errors": core.store.stats().checksum_errors,
            },
            "recovery_slots": names(slots),
            "slots_lent": names(lent),
            "held": core.held.len(),
            "waits": waits,
        });
        if core.auth.is_none() {
            return json.to_string();
        }
        if let (Some(entity), Some(object)) = (&asked.entity, &asked.object) {
            let pool = core.maps.current().pool(object.pool).map_or("", |pool| pool.name.as_str());
            let caps = core.auth.as_ref().and_then(|auth| auth.caps(entity, "osd"));
            let may = |access| caps.is_some_and(|caps| caps.allow(access, pool, &object.namespace));
            let write = Access { read: false, write: true, execute: false };
            json["caps"] = json!({"known": caps.is_some(), "read": may(Access::READ), "write": may(write)});
        }
        let Osd { core, pgs } = self;
        let ctx = core.ctx(now, out);
        let head = asked.object.as_ref().map(ObjectId::head);
        let is_stuck = |pg: &&Pg| {
            let waits = pg.waits(&ctx);
            match &asked.request {
                Some(request) => {
                    let on = format!("osd_op {request} ");
                    waits.iter().any(|wait| wait.on.starts_with(&on))
                }
                None => waits.iter().any(|wait| {
                    !matches!(wait.needs, Needs::Primary(_)) && now.since(wait.since).as_millis() > YOUNG_MS
                }),
            }
        };
        let told: Vec<Value> = match asked.pg {
            Some(pg) => pgs.get(&pg).into_iter().map(|pg| pg.explain(&ctx, head.as_ref())).collect(),
            None => pgs.values().filter(is_stuck).take(PGS_MAX).map(|pg| pg.explain(&ctx, None)).collect(),
        };
        json["pgs"] = told.into();
        json.to_string()
    }
}
