//! Why an operation is not answered, or is refused.

use super::{Walk, YOUNG_MS, span};
use crate::evidence::{OsdAnswer, PgView, Wait};
use crate::explanation::Cause;
use crate::question::Operation;
use nacre_client::Waiting;
use nacre_maps::Flag;
use nacre_types::{Needs, ObjectId, OsdId, PgId};

impl Walk<'_> {
    pub(super) fn operation(&mut self, op: &Operation) {
        let on = format!("{}/{}", op.pool, op.object);
        let own = self.own_call(op);
        if let Some(call) = &own {
            self.link(&on, format!("{} waits: {}", call.what, call.needs));
            if self.client_side(call) {
                return;
            }
        }
        let Some(map) = self.map() else {
            if own.is_none() {
                self.link(&on, "where the object lies nobody says: there is no osdmap");
            }
            self.monitors();
            return;
        };
        if let Some(client) = op.client
            && map.is_blocklisted(client)
        {
            let until = map.blocklist().get(&client).copied().unwrap_or(0);
            let left = span(until.saturating_sub(self.evidence.wall_ms));
            self.leaf(
                Cause::Blocklisted,
                format!("client {client}"),
                format!("client {client} is shut out for {left} more: somebody took over what it had open"),
            );
            self.step("restart that client: it comes back under a new number, without what it held", None);
            self.unsafe_step(
                "only if nobody else has opened what it had: let it in again",
                format!("nacre osd blocklist rm {client}"),
                "writes it still has queued may land on what a new owner wrote",
            );
            return;
        }
        let Some((pool, info)) = map.pool_by_name(&op.pool) else {
            self.leaf(
                Cause::PoolGone,
                format!("pool '{}'", op.pool),
                format!("there is no pool '{}'", op.pool),
            );
            self.step("see which pools there are", Some("nacre pool ls".into()));
            return;
        };
        if let Some(entity) = &op.entity {
            let known = [&self.evidence.leader, &self.evidence.mon]
                .into_iter()
                .flatten()
                .find_map(|mon| mon.entity_known());
            if known == Some(false) {
                self.leaf(
                    Cause::EntityUnknown,
                    entity,
                    format!(
                        "{entity} is not known to the cluster: it was never made, or its entry was removed"
                    ),
                );
                self.step(
                    "make it, with the rights it needs",
                    Some("nacre auth get NAME -o NAME.nacre".into()),
                );
                return;
            }
        }
        if map.flags().contains(Flag::Pause) {
            return self.flag("pause", "clients neither read nor write");
        }
        let Ok(object) = ObjectId::new(pool, &op.namespace, &op.object) else {
            self.leaf(Cause::Unknown, &on, "the name is longer than names may be");
            return;
        };
        let Some(pg) = map.object_pg(&object) else { return };
        let Some(primary) = self.primary_of(pg) else { return };
        let view = match self.told(primary) {
            Some(OsdAnswer::Told(view)) => view,
            _ => return self.pg(pg),
        };
        if let Some((_, false, false)) = view.caps() {
            return self.no_caps(op, "may neither read nor write");
        }
        if self.object_in(pg, primary, view.pg(pg)) {
            return;
        }
        let (full, quota) = (map.flags().contains(Flag::Full), info.full);
        if full {
            return self.full();
        }
        if quota {
            self.leaf(
                Cause::PoolQuota,
                format!("pool '{}'", op.pool),
                format!("pool '{}' has reached its quota: writes are refused, deletes pass", op.pool),
            );
            self.step(
                "delete what is not needed; that always works",
                Some(format!("nacre object ls {}", op.pool)),
            );
            self.step("or raise the quota", Some(format!("nacre pool set {} quota_max_bytes N", op.pool)));
            return;
        }
        if let Some((_, true, false)) = view.caps() {
            return self.no_caps(op, "may read, but not write");
        }
        self.leaf(
            Cause::Nothing,
            &on,
            format!("nothing waits on {on}: {primary} would serve it now (PG {pg})"),
        );
    }

    /// What the PG says of the object. True if that is the cause.
    fn object_in(&mut self, pg: PgId, primary: OsdId, view: Option<PgView<'_>>) -> bool {
        let Some(view) = view else {
            self.pg(pg);
            return true;
        };
        let waits: Vec<Wait> = view.waits().into_iter().filter(Wait::is_operation).collect();
        if view.object("damaged") && !view.object("unseen") {
            self.leaf(
                Cause::ObjectDamaged,
                format!("PG {pg}"),
                "every copy of the object is damaged: reads get an error, a whole rewrite or a delete works",
            );
            self.step("see which disks return bad data", Some(format!("nacre pg query {pg}")));
            self.step("write the object anew from a backup, or delete it", None);
            return true;
        }
        // The one in front, not those behind it.
        let follows =
            |wait: &Wait| matches!(wait.needs, Some(Needs::EarlierOperations | Needs::EarlierWrites));
        let front = waits
            .iter()
            .filter(|wait| wait.age_ms > YOUNG_MS)
            .min_by_key(|wait| (follows(wait), u64::MAX - wait.age_ms));
        let wait = match (front.cloned(), view.gate()) {
            (Some(wait), _) => wait,
            (None, Some(gate)) => gate,
            (None, None) if view.object("unfound") => {
                self.link(format!("PG {pg}"), "the object is unfound: no good copy is reachable");
                let needs = Wait {
                    on: String::new(),
                    age_ms: 0,
                    needs: Some(Needs::Unfound { objects: 1, unseen: view.object("unseen").into() }),
                    text: String::new(),
                };
                self.needs(pg, primary, view, &needs);
                return true;
            }
            (None, None) => return false,
        };
        let what = if wait.is_operation() {
            format!("{} has waited {}", wait.on, span(wait.age_ms))
        } else {
            "an operation would wait".into()
        };
        self.link(format!("PG {pg}"), format!("at {primary}, {what}: it needs {}", wait.text));
        if matches!(wait.needs, Some(Needs::ActivePg { .. })) {
            self.pg(pg);
        } else {
            self.needs(pg, primary, view, &wait);
        }
        true
    }

    fn full(&mut self) {
        let fullest =
            [&self.evidence.leader, &self.evidence.mon].into_iter().flatten().find_map(|mon| mon.fullest());
        let who = match fullest {
            Some((osd, used)) => format!("{} is at {}.{} %", self.place(osd), used / 10, used % 10),
            None => "an OSD has reached the full ratio".into(),
        };
        let on = fullest.map_or("the cluster".into(), |(osd, _)| osd.to_string());
        self.leaf(
            Cause::Full,
            on,
            format!("the cluster is full: {who}; writes that need space are refused, deletes pass"),
        );
        self.step("delete what is not needed, snapshots too; that always works", Some("nacre df".into()));
        self.step("add OSDs, or move data off the fullest", Some("nacre osd df".into()));
    }

    fn no_caps(&mut self, op: &Operation, what: &str) {
        let Some(entity) = &op.entity else { return };
        let caps = [&self.evidence.leader, &self.evidence.mon]
            .into_iter()
            .flatten()
            .find_map(|mon| mon.entity_caps("osd"));
        let caps = caps.map_or("it has no osd caps".into(), |caps| format!("its osd caps are '{caps}'"));
        self.leaf(Cause::NoCaps, entity, format!("{entity} {what} in pool '{}': {caps}", op.pool));
        self.step(
            "grant what it needs, if it is to have it; that takes effect at once",
            Some(format!("nacre auth caps {entity} osd 'allow rw pool={}'", op.pool)),
        );
    }

    /// The asking client's own oldest call on the object.
    fn own_call(&self, op: &Operation) -> Option<Waiting> {
        let on_it = |call: &&Waiting| {
            call.object
                .as_ref()
                .is_some_and(|object| object.name == op.object && object.namespace == op.namespace)
        };
        self.evidence.waiting.iter().find(on_it).cloned()
    }

    /// Whether what a call waits for lies in the client or between it and the monitors.
    fn client_side(&mut self, call: &Waiting) -> bool {
        match &call.needs {
            Needs::AnyMonitor(_) | Needs::Quorum(_) => self.monitors(),
            Needs::Room => {
                let first = self.evidence.waiting.iter().find(|other| {
                    other.object.is_some() && !matches!(other.needs, Needs::Room | Needs::EarlierCall)
                });
                let first = first.cloned();
                let Some(first) = first else {
                    self.leaf(
                        Cause::ClientRoom,
                        "this client",
                        "this client has as much under way as it may",
                    );
                    self.wait_step("answers make room", None);
                    return true;
                };
                self.link(
                    "this client",
                    format!("what is under way does not end: {} waits for {}", first.what, first.needs),
                );
                self.follow(&first)
            }
            Needs::EarlierCall => {
                let first =
                    self.evidence.waiting.iter().find(|other| {
                        other.object == call.object && !matches!(other.needs, Needs::EarlierCall)
                    });
                match first.cloned() {
                    Some(first) => {
                        self.link(
                            "this client",
                            format!("an earlier one on the object waits for {}", first.needs),
                        );
                        self.client_side(&first)
                    }
                    None => false,
                }
            }
            Needs::ClientLease(text) => {
                self.leaf(Cause::ClientLease, "this client", format!("it must first renew a lease: {text}"));
                self.wait_step("it is renewed as soon as the lease's object can be written", None);
                true
            }
            _ => false,
        }
    }

    /// Goes on with another object's call.
    fn follow(&mut self, call: &Waiting) -> bool {
        let Some(object) = &call.object else { return false };
        let Some(map) = self.map() else { return false };
        let Some(pg) = map.object_pg(object) else { return false };
        if map.flags().contains(Flag::Pause) {
            self.flag("pause", "clients neither read nor write");
            return true;
        }
        self.pg(pg);
        if self.cause == Some(Cause::Nothing) {
            // Its PG is well: the client is just busy.
            self.cause = Some(Cause::ClientRoom);
        }
        true
    }

    /// A request by its id, or whatever has waited longest on any OSD.
    pub(super) fn request(&mut self, id: Option<&str>) {
        let Some(map) = self.map() else {
            self.link("operations", "which OSDs there are nobody says: there is no osdmap");
            self.monitors();
            return;
        };
        let up: Vec<OsdId> = map.osds().filter(|(_, info)| info.up).map(|(id, _)| id).collect();
        let prefix = id.map(|id| format!("osd_op {id} "));
        let mut found: Option<(u64, PgId, OsdId, Wait)> = None;
        let mut silent = Vec::new();
        for osd in up {
            match self.told(osd) {
                Some(OsdAnswer::Told(view)) => {
                    for pg in view.pgs().filter(PgView::is_primary) {
                        let Some(pgid) = pg.id() else { continue };
                        for wait in pg.waits().into_iter().filter(Wait::is_operation) {
                            let asked = prefix.as_ref().is_none_or(|prefix| wait.on.starts_with(prefix));
                            let older = found.as_ref().is_none_or(|(age, ..)| wait.age_ms > *age);
                            if asked && older && (id.is_some() || wait.age_ms > YOUNG_MS) {
                                found = Some((wait.age_ms, pgid, osd, wait));
                            }
                        }
                    }
                }
                Some(_) => silent.push(osd),
                None => {}
            }
        }
        for osd in &silent {
            self.unseen.push(format!("{osd} does not answer"));
        }
        let Some((age, pg, osd, wait)) = found else {
            if let Some(&first) = silent.first() {
                self.link("operations", format!("no other OSD has it; {first} does not answer"));
                return self.silent(first);
            }
            let (cause, says) = match id {
                Some(id) => (
                    Cause::RequestGone,
                    format!("no OSD has request {id}: it was answered, or it has not arrived"),
                ),
                None => (Cause::Nothing, "no operation waits on any OSD".to_string()),
            };
            self.leaf(cause, "operations", says);
            if id.is_some() {
                self.step("ask about the object instead", Some("nacre explain op POOL/OBJECT".into()));
            }
            return;
        };
        self.link(
            &wait.on,
            format!("{} has waited {} at {osd}, in PG {pg}: it needs {}", wait.on, span(age), wait.text),
        );
        let Some(view) = self.view(osd).and_then(|view| view.pg(pg)) else { return };
        match wait.needs {
            Some(Needs::ActivePg { .. }) => self.pg(pg),
            _ => self.needs(pg, osd, view, &wait),
        }
    }
}
