//! From one wait of a PG to what is behind it.

use super::{SILENT_MS, Walk, names, span};
use crate::evidence::{OsdAnswer, PgView, Wait};
use crate::explanation::Cause;
use nacre_types::{Needs, OsdId, PgId};

impl Walk<'_> {
    pub(super) fn needs(&mut self, pg: PgId, primary: OsdId, view: PgView<'_>, wait: &Wait) {
        let Some(needs) = &wait.needs else {
            self.leaf(Cause::Unknown, format!("PG {pg}"), format!("it needs {}", wait.text));
            return;
        };
        match needs {
            Needs::PastMember { any_of, first, last } => {
                let says = format!(
                    "of {} one must come back: only they may hold what was written in epochs {first} to {last}",
                    names(any_of)
                );
                self.link(format!("PG {pg}"), says);
                self.any_down(any_of);
                let lost: Vec<String> = any_of.iter().map(ToString::to_string).collect();
                let rest = if lost.len() > 1 { " (and the others likewise)" } else { "" };
                self.unsafe_step(
                    format!("only if its disk is gone for ever: give up what it alone has{rest}"),
                    format!(
                        "nacre osd lost {} --yes-i-really-mean-it",
                        lost.first().cloned().unwrap_or_default()
                    ),
                    format!("writes of epochs {first} to {last} that no other OSD has"),
                );
            }
            Needs::InfoOf(osds) | Needs::LogOf(osds) | Needs::Activation(osds) => {
                self.peers(pg, primary, osds, "answer in its peering");
            }
            Needs::Lease(osds) => self.peers(pg, primary, osds, "renew the read lease"),
            Needs::CommitsOf(osds) => self.peers(pg, primary, osds, "commit the write"),
            Needs::ScrubMaps(osds) => self.peers(pg, primary, osds, "describe their objects"),
            Needs::Transfers(osds) => self.peers(pg, primary, osds, "take or give objects"),
            Needs::MatchingLog(osd) => {
                self.leaf(
                    Cause::Incomplete,
                    format!("PG {pg}"),
                    format!("the log of {osd} does not meet that of {primary}: another copy is needed"),
                );
                self.bring_back(view);
            }
            Needs::CompleteCopy { started } => {
                let down = view.past_down();
                if down.is_empty() {
                    self.leaf(
                        Cause::Incomplete,
                        format!("PG {pg}"),
                        format!("no OSD that is up has a whole copy of what PG {pg} served up to epoch {started}, and none that had one is down"),
                    );
                    self.step("see what each copy says", Some(format!("nacre pg query {pg}")));
                } else {
                    self.any_down(&down);
                }
            }
            Needs::AnyCopy => {
                self.leaf(
                    Cause::Incomplete,
                    format!("PG {pg}"),
                    format!("PG {pg} was in use, and every OSD that could have a copy of it says that it has none: their disks were wiped or replaced"),
                );
                self.step("if one of those disks is still somewhere, start its OSD with it", None);
                self.unsafe_step(
                    "only if every copy is gone for ever: begin it anew, empty",
                    format!("nacre pg force-create {pg} --yes-i-really-mean-it"),
                    format!("everything that was in PG {pg}"),
                );
            }
            Needs::MarkedUp | Needs::Boot => {
                self.monitors_for(primary, &format!("{primary} needs to be marked up"))
            }
            Needs::UpThru => {
                self.monitors_for(
                    primary,
                    &format!("the monitors have not recorded that {primary} is alive"),
                );
            }
            Needs::ActingSet(osds) => {
                self.monitors_for(
                    primary,
                    &format!("the monitors have not made {} its acting set", names(osds)),
                );
            }
            Needs::Map(epoch) => self.monitors_for(primary, &format!("{primary} has not got osdmap {epoch}")),
            Needs::AuthMap => self.monitors_for(primary, &format!("{primary} knows nobody's rights yet")),
            Needs::Primary(Some(osd)) if *osd != primary => {
                self.peers(pg, primary, &[*osd], "use or release this copy")
            }
            Needs::Members { have, min_size } => self.below_min_size(pg, primary, view, *have, *min_size),
            Needs::Places { .. } => self.missing_members(pg, view),
            Needs::EarlierLease { left_ms } => {
                self.leaf(
                    Cause::Lease,
                    format!("PG {pg}"),
                    format!(
                        "a primary before {primary} may serve reads for {} more: no other may until then",
                        span(*left_ms)
                    ),
                );
                self.wait_step("it ends by itself", Some(pg));
            }
            Needs::Flag(flag) => {
                let effect = match flag.as_str() {
                    "pause" => "clients neither read nor write",
                    "norecover" => "missing copies are not made",
                    "nobackfill" => "OSDs are not filled",
                    "noscrub" | "nodeep-scrub" => "no scrub starts by itself",
                    _ => "that stops it",
                };
                self.flag(flag, effect);
            }
            Needs::Unfound { objects, unseen } => self.unfound(pg, view, *objects, *unseen),
            Needs::Space(osds) => {
                self.leaf(
                    Cause::BackfillFull,
                    osds.first().map_or("the target".into(), ToString::to_string),
                    format!("{} are too full to be filled further", names(osds)),
                );
                self.step("see how full the OSDs are", Some("nacre osd df".into()));
                self.step(
                    "add OSDs, delete data, or move data off the full ones",
                    Some("nacre osd reweight ID 0.9".into()),
                );
            }
            Needs::RecoverySlot(osd) => self.slots(pg, primary, *osd),
            Needs::Throttle => {
                self.leaf(
                    Cause::Throttle,
                    primary,
                    format!("{primary} holds recovery back so that clients do not suffer"),
                );
                self.wait_step("it goes on as the load allows", Some(pg));
            }
            Needs::Clean => {
                let behind = view.waits().into_iter().find(|other| {
                    !other.is_operation() && other.on != "scrub" && !matches!(other.needs, Some(Needs::Clean))
                });
                self.link(format!("PG {pg}"), format!("PG {pg} is {} and not clean", view.state()));
                match behind {
                    Some(other) => self.needs(pg, primary, view, &other),
                    None => {
                        self.leaf(Cause::InProgress, format!("PG {pg}"), "it is about to be clean");
                        self.wait_step("it goes on by itself", Some(pg));
                    }
                }
            }
            Needs::ScrubSlot(holder) => {
                let who = holder.map_or("another PG".into(), |pg| format!("PG {pg}"));
                self.leaf(
                    Cause::ScrubTurn,
                    primary,
                    format!("{primary} scrubs one PG at a time, and {who} is it now"),
                );
                self.wait_step("the scrubs take turns", Some(pg));
            }
            Needs::EarlierOperations | Needs::EarlierWrites | Needs::Version(_) => {
                let ahead = view.waits().into_iter().filter(Wait::is_operation).find(|other| {
                    other.on != wait.on
                        && !matches!(
                            other.needs,
                            Some(
                                Needs::EarlierOperations
                                    | Needs::EarlierWrites
                                    | Needs::Version(_)
                                    | Needs::Turn
                            )
                        )
                });
                match ahead {
                    Some(ahead) => {
                        self.link(&ahead.on, format!("{} before it needs {}", ahead.on, ahead.text));
                        self.needs(pg, primary, view, &ahead);
                    }
                    None => self.in_progress(pg, primary),
                }
            }
            Needs::ObjectRecovery | Needs::ObjectBackfill | Needs::ObjectScrub => {
                let wanted = |on: &str| view.waits().into_iter().find(|wait| wait.on == on);
                let behind = match needs {
                    Needs::ObjectScrub => wanted("scrub"),
                    _ => wanted("Active").or_else(|| wanted("recovery")),
                };
                match behind {
                    Some(behind) => {
                        self.link(
                            format!("PG {pg}"),
                            format!("{} of PG {pg} needs {}", behind.on, behind.text),
                        );
                        self.needs(pg, primary, view, &behind);
                    }
                    None => self.in_progress(pg, primary),
                }
            }
            Needs::DiskReads { .. } => self.own_work(pg, primary),
            Needs::Watchers { clients } => {
                self.leaf(
                    Cause::Watchers,
                    format!("PG {pg}"),
                    format!("{clients} clients that watch the object have not answered the notification"),
                );
                self.wait_step(
                    "clients that are gone stop counting when their watch runs out (30 s)",
                    Some(pg),
                );
            }
            _ => self.in_progress(pg, primary),
        }
    }

    fn in_progress(&mut self, pg: PgId, primary: OsdId) {
        self.own_work(pg, primary);
    }

    /// It is the primary's own turn.
    fn own_work(&mut self, pg: PgId, primary: OsdId) {
        if let Some(view) = self.view(primary)
            && self.ailing(primary, view)
        {
            return;
        }
        self.leaf(Cause::InProgress, primary, format!("{primary} works on it"));
        self.wait_step("nothing holds it up", Some(pg));
    }

    /// Members that are to do something for the primary: the first with something wrong is the leaf.
    fn peers(&mut self, pg: PgId, primary: OsdId, osds: &[OsdId], what: &str) {
        let Some(map) = self.map() else { return };
        let own = self.view(primary);
        for &osd in osds {
            if self.done() {
                return;
            }
            if osd == primary {
                if let Some(view) = own
                    && self.ailing(primary, view)
                {
                    return;
                }
                continue;
            }
            if !map.is_up(osd) {
                self.link(osd, format!("{osd} has to {what}, and is down"));
                return self.why_down(osd);
            }
            match self.told(osd) {
                None => {}
                Some(OsdAnswer::Refused(why)) => self.unseen.push(format!("{osd}: {why}")),
                Some(OsdAnswer::Silent) => {
                    self.link(osd, format!("{osd} has to {what}, and does not answer"));
                    return self.silent(osd);
                }
                Some(OsdAnswer::Told(view)) => {
                    let there = own.and_then(|own| own.silence_of(osd)).is_some_and(|(ms, _)| ms > SILENT_MS);
                    let back = view.silence_of(primary).is_some_and(|(ms, _)| ms > SILENT_MS);
                    if there || back {
                        self.link(
                            osd,
                            format!("{osd} has to {what}, and {primary} and {osd} do not hear each other"),
                        );
                        return self.cut(primary, osd);
                    }
                    self.link(osd, format!("{osd} has to {what}"));
                    if self.ailing(osd, view) {
                        return;
                    }
                    self.chain.pop();
                }
            }
        }
        if self.done() || !self.wants.is_empty() {
            return;
        }
        if let Some(view) = own
            && self.ailing(primary, view)
        {
            return;
        }
        self.leaf(
            Cause::InProgress,
            format!("PG {pg}"),
            format!("{} have to {what}: all are up, answer, and hear each other", names(osds)),
        );
        self.wait_step("it goes on by itself", Some(pg));
    }

    fn below_min_size(&mut self, pg: PgId, primary: OsdId, view: PgView<'_>, have: u32, min_size: u32) {
        let name =
            self.map().and_then(|map| map.pool(pg.pool).map(|pool| pool.name.clone())).unwrap_or_default();
        let filling = view.waits().into_iter().find(|wait| wait.on == "Active");
        match filling {
            Some(wait) if self.down_members(view).is_empty() && view.is_backfilling() => {
                self.link(
                    format!("PG {pg}"),
                    format!("another copy is being filled, which needs {}", wait.text),
                );
                self.needs(pg, primary, view, &wait);
            }
            _ => self.missing_members(pg, view),
        }
        self.unsafe_step(
            "only if that cannot be mended soon: serve with fewer copies for a while, and set it back afterwards",
            format!("nacre pool set {name} min_size {}", have.max(1)),
            format!("if what is left fails too, writes that only {have} of {min_size} copies have"),
        );
    }

    /// Who is to be a member and is not: OSDs that are down, or places that are not there.
    fn missing_members(&mut self, pg: PgId, view: PgView<'_>) {
        let down = self.down_members(view);
        if down.is_empty() { self.too_few(pg) } else { self.any_down(&down) }
    }

    /// Members that are down; or, maybe before anything was written, whoever is down and in, as it is to be a member of
    /// something.
    fn down_members(&self, view: PgView<'_>) -> Vec<OsdId> {
        let down = view.past_down();
        let Some(map) = self.map().filter(|_| down.is_empty()) else { return down };
        let acting = view.acting();
        let others = map.osds().filter(|(id, info)| !info.up && info.is_in() && !acting.contains(id));
        others.map(|(id, _)| id).collect()
    }

    fn unfound(&mut self, pg: PgId, view: PgView<'_>, objects: u64, unseen: u64) {
        let Some(map) = self.map() else { return };
        let list = format!("nacre pg list-unfound {pg}");
        if unseen > 0 {
            let which = if unseen == objects { "its".into() } else { format!("{unseen} of {objects}") };
            self.leaf(
                Cause::UnfoundUnseen,
                format!("PG {pg}"),
                format!("no good copy of {which} newest versions is reachable, and no client has seen them"),
            );
            self.step("see which objects", Some(list));
            self.step(
                "go back to the versions before: a write that was never acknowledged is given up, nothing else",
                Some(format!("nacre pg mark-unfound-lost {pg} revert")),
            );
            return;
        }
        let mut down = view.past_down();
        if down.is_empty() {
            down = map.osds().filter(|(_, info)| !info.up && info.booted).map(|(id, _)| id).collect();
        }
        let give_up = format!("nacre pg mark-unfound-lost {pg} revert --yes-i-really-mean-it");
        let loses = "the newest writes to these objects; 'delete' instead of 'revert' gives up all of them";
        if down.is_empty() {
            self.leaf(
                Cause::Unfound,
                format!("PG {pg}"),
                "every OSD that may have had a good copy is up and has none".to_string(),
            );
            self.step("see which objects", Some(list));
            self.unsafe_step("only if no disk with a copy can come back: give them up", give_up, loses);
            return;
        }
        self.link(format!("PG {pg}"), format!("{} may have a good copy, and are down", names(&down)));
        self.any_down(&down);
        self.unsafe_step("only if no disk with a copy can come back: give them up", give_up, loses);
    }

    fn bring_back(&mut self, view: PgView<'_>) {
        for osd in view.past_down() {
            self.start_step(osd);
        }
    }

    fn slots(&mut self, pg: PgId, primary: OsdId, osd: OsdId) {
        let Some(map) = self.map() else { return };
        if osd != primary {
            if !map.is_up(osd) {
                self.link(osd, format!("{osd} has to give a slot, and is down"));
                return self.why_down(osd);
            }
            let own = self.view(primary);
            match self.told(osd) {
                Some(OsdAnswer::Silent) => {
                    self.link(osd, format!("{osd} has to give a slot, and does not answer"));
                    return self.silent(osd);
                }
                Some(OsdAnswer::Told(_))
                    if own.and_then(|own| own.silence_of(osd)).is_some_and(|(ms, _)| ms > SILENT_MS) =>
                {
                    return self.cut(primary, osd);
                }
                _ => {}
            }
        }
        let Some(view) = self.view(osd) else { return };
        let holders = view.slot_holders(osd != primary);
        let holders: Vec<String> = holders.into_iter().filter(|holder| *holder != pg.to_string()).collect();
        if holders.is_empty() {
            return self.in_progress(pg, primary);
        }
        self.leaf(
            Cause::RecoverySlots,
            osd,
            format!("{osd} recovers a few PGs at a time, and PGs {} are before it", holders.join(", ")),
        );
        self.wait_step("they take turns", Some(pg));
    }
}
