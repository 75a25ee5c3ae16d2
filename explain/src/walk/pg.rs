//! Why a PG is not active, or not clean.

use super::{Walk, names};
use crate::evidence::{OsdAnswer, PgView, Wait};
use crate::explanation::Cause;
use nacre_types::{Needs, OsdId, PgId};

impl Walk<'_> {
    pub(super) fn pg(&mut self, pg: PgId) {
        let Some(primary) = self.primary_of(pg) else { return };
        match self.told(primary) {
            None => {}
            Some(OsdAnswer::Refused(why)) => self.refuses(primary, why),
            Some(OsdAnswer::Silent) => {
                self.link(
                    format!("PG {pg}"),
                    format!("PG {pg} is served by {primary}, which does not answer"),
                );
                self.silent(primary);
            }
            Some(OsdAnswer::Told(view)) => match view.pg(pg) {
                Some(state) => self.pg_told(pg, primary, state),
                None => {
                    self.link(
                        format!("PG {pg}"),
                        format!("{primary} is to serve PG {pg} and does not have it yet"),
                    );
                    if !self.ailing(primary, view) {
                        self.monitors_for(primary, &format!("{primary} needs the newest osdmap for that"));
                    }
                }
            },
        }
    }

    /// The PG's primary; a leaf if it has none.
    pub(super) fn primary_of(&mut self, pg: PgId) -> Option<OsdId> {
        let Some(map) = self.map() else {
            self.link(format!("PG {pg}"), format!("where PG {pg} lies nobody says: there is no osdmap"));
            self.monitors();
            return None;
        };
        let Some(pool) = map.pool(pg.pool) else {
            let gone = pg.pool.0 <= map.last_pool().0;
            let says = if gone { "was removed" } else { "was never made" };
            self.leaf(
                Cause::PoolGone,
                format!("pool {}", pg.pool),
                format!("PG {pg} does not exist: its pool {says}"),
            );
            self.step("see which pools there are", Some("nacre pool ls".into()));
            return None;
        };
        if !map.pg_exists(pg) {
            let count = pool.pg_num;
            self.leaf(
                Cause::PgGone,
                format!("PG {pg}"),
                format!(
                    "PG {pg} does not exist: its pool '{}' has PGs 0 to {:x}",
                    pool.name,
                    count.saturating_sub(1)
                ),
            );
            self.step("see which PGs there are", Some(format!("nacre pg ls --pool {}", pool.name)));
            return None;
        }
        let place = map.pg(pg)?;
        if let Some(primary) = place.primary() {
            return Some(primary);
        }
        self.link(format!("PG {pg}"), format!("PG {pg} is down: none of its OSDs is up"));
        self.nobody_serves(pg);
        None
    }

    /// No OSD of the PG is up.
    pub(super) fn nobody_serves(&mut self, pg: PgId) {
        let Some(map) = self.map() else { return };
        let last = [&self.evidence.leader, &self.evidence.mon];
        let last: Vec<OsdId> =
            last.into_iter().flatten().map(|mon| mon.pg_acting()).find(|a| !a.is_empty()).unwrap_or_default();
        let down: Vec<OsdId> = map.osds().filter(|(_, info)| !info.up).map(|(id, _)| id).collect();
        let mut suspects: Vec<OsdId> = last.into_iter().filter(|osd| down.contains(osd)).collect();
        if suspects.is_empty() {
            suspects = down.into_iter().filter(|&osd| map.is_in(osd)).collect();
        }
        if suspects.is_empty() {
            return self.too_few(pg);
        }
        self.any_down(&suspects);
    }

    /// Placement finds fewer OSDs than copies are wanted, and none is down.
    pub(super) fn too_few(&mut self, pg: PgId) {
        let Some(map) = self.map() else { return };
        let Some(pool) = map.pool(pg.pool) else { return };
        let out: Vec<OsdId> =
            map.osds().filter(|(_, info)| info.up && !info.is_in()).map(|(id, _)| id).collect();
        let rule = map.crush().rules().find(|rule| rule.id == pool.rule);
        let rule = rule.map_or(String::new(), |rule| format!(" by rule '{}'", rule.name));
        if !out.is_empty() {
            for &osd in &out {
                self.ask_monitors_about(osd);
            }
            self.leaf(
                Cause::OsdOut,
                out[0],
                format!(
                    "{} are up, but out: placement does not use them, and the others are too few",
                    names(&out)
                ),
            );
            for osd in out {
                self.step("let placement use it again", Some(format!("nacre osd in {osd}")));
            }
            return;
        }
        self.leaf(
            Cause::TooFewOsds,
            format!("pool '{}'", pool.name),
            format!(
                "pool '{}' wants {} copies in different places{rule}, and the CRUSH tree has too few that are up and in",
                pool.name, pool.size
            ),
        );
        self.step("add an OSD on another host, or look at the tree", Some("nacre osd tree".into()));
        self.step("or keep fewer copies", Some(format!("nacre pool set {} size N", pool.name)));
    }

    /// Some OSDs are down; the first that tells why is the leaf.
    pub(super) fn any_down(&mut self, osds: &[OsdId]) {
        for &osd in osds {
            if self.done() {
                // Told of, so that nothing is forgotten.
                self.start_step(osd);
                continue;
            }
            self.link(osd, format!("{} is down", self.place(osd)));
            self.why_down(osd);
        }
    }

    fn pg_told(&mut self, pg: PgId, primary: OsdId, view: PgView<'_>) {
        let waits = view.waits();
        let state: Option<&Wait> = waits.iter().find(|wait| !wait.is_operation());
        let Some(wait) = state else {
            let oldest =
                waits.iter().filter(|wait| wait.age_ms > super::YOUNG_MS).max_by_key(|wait| wait.age_ms);
            if let Some(op) = oldest {
                self.link(
                    format!("PG {pg}"),
                    format!("PG {pg} is {}, and {} waits for {}", view.state(), op.on, op.text),
                );
                let op = op.clone();
                return self.needs(pg, primary, view, &op);
            }
            if view.scrub_errors() > 0 {
                return self.inconsistent(pg, view);
            }
            self.leaf(
                Cause::Nothing,
                format!("PG {pg}"),
                format!("PG {pg} is {}: nothing waits there", view.state()),
            );
            return;
        };
        // What keeps it from serving before what keeps it from being clean.
        let serving = waits.iter().find(|wait| wait.on == "serving").unwrap_or(wait);
        // A PG that recovers while an OSD is away is unclean for that reason.
        let places = waits.iter().find(|wait| wait.on == "redundancy");
        let moving = matches!(serving.needs, Some(Needs::Transfers(_) | Needs::Throttle));
        let wait = places.filter(|_| moving).unwrap_or(serving).clone();
        self.link(
            format!("PG {pg}"),
            format!("PG {pg} is {}: {} needs {}", view.state(), on(&wait), wait.text),
        );
        self.needs(pg, primary, view, &wait);
    }

    fn inconsistent(&mut self, pg: PgId, view: PgView<'_>) {
        self.leaf(
            Cause::ObjectDamaged,
            format!("PG {pg}"),
            format!("PG {pg} is {}: its last scrub found {} errors", view.state(), view.scrub_errors()),
        );
        self.step(
            "replace the bad copies by ones whose checksums hold",
            Some(format!("nacre pg repair {pg}")),
        );
    }
}

/// What waits, in words.
fn on(wait: &Wait) -> String {
    match wait.on.as_str() {
        "Active" => "recovery".into(),
        "serving" => "it".into(),
        "redundancy" => "full redundancy".into(),
        "snap_trim" => "trimming of snapshots".into(),
        "recovery" | "scrub" => wait.on.clone(),
        state => format!("peering ({state})"),
    }
}
