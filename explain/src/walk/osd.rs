//! Why an OSD is down, silent, slow or idle.

use super::{DISK_SLOW_MS, SILENT_MS, Walk, names, span};
use crate::evidence::{OsdAnswer, OsdView};
use crate::explanation::Cause;
use nacre_maps::Flag;
use nacre_types::{Needs, OsdId};

/// A request to be marked up that is older than this was the last sign of a run that has ended.
const BOOT_RECENT_MS: u64 = 10_000;

impl<'a> Walk<'a> {
    pub(super) fn osd(&mut self, id: OsdId) {
        let Some(map) = self.map() else {
            self.link(id, format!("where {id} is nobody says"));
            self.monitors();
            return;
        };
        self.ask_monitors_about(id);
        let Some(info) = map.osd(id) else {
            let known: Vec<OsdId> = map.osds().map(|(id, _)| id).collect();
            let known = if known.is_empty() {
                "there are none".into()
            } else {
                format!("there are {}", names(&known))
            };
            self.leaf(
                Cause::OsdUnknown,
                id,
                format!("the cluster has no {id}: it was never made, or removed ({known})"),
            );
            self.step("see which there are", Some("nacre osd tree".into()));
            return;
        };
        if !info.up {
            self.link(id, format!("{} is down", self.place(id)));
            return self.why_down(id);
        }
        match self.told(id) {
            None => {}
            Some(OsdAnswer::Refused(why)) => self.refuses(id, why),
            Some(OsdAnswer::Silent) => {
                self.link(id, format!("{} is up by the osdmap, but does not answer", self.place(id)));
                self.silent(id);
            }
            Some(OsdAnswer::Told(view)) if self.ailing(id, view) => {}
            Some(OsdAnswer::Told(view)) => self.healthy(id, view),
        }
    }

    pub(super) fn refuses(&mut self, id: OsdId, why: &str) {
        self.leaf(Cause::NoCaps, id, format!("{id} answers, but not this question: {why}"));
        self.step("ask as an administrator, or grant the osd caps", Some("nacre auth ls".into()));
    }

    /// The OSD is down by the map.
    pub(super) fn why_down(&mut self, id: OsdId) {
        if !self.visited.insert(id) {
            return;
        }
        self.ask_monitors_about(id);
        let evidence = self.evidence;
        let views = || [&evidence.leader, &evidence.mon].into_iter().flatten();
        if let Some((age, address, refused)) = views().find_map(|mon| mon.boot(id))
            && age < BOOT_RECENT_MS
        {
            return self.wants_up(id, &address, refused);
        }
        if let Some(OsdAnswer::Told(view)) = self.told(id) {
            // It runs all the same.
            self.link(id, format!("{id} runs and is {}", view.phase()));
            if self.monitors() || self.monitor_link(id) || self.own_disk(id, view) {
                return;
            }
            self.leaf(Cause::InProgress, id, format!("{id} is coming up"));
            return self.wait_step("a daemon is up within seconds", None);
        }
        let place = self.place(id);
        let Some(down) = views().find_map(|mon| mon.down(id)) else {
            if !self.evidence.asked.contains(&id) {
                return;
            }
            self.leaf(Cause::OsdDown, id, format!("{place} is down, and no monitor says why"));
            return self.start_step(id);
        };
        let (ago, text) = (self.ago(down.at_ms), down.text.trim_end_matches('.').to_string());
        match down.kind.as_str() {
            "stopped" => {
                self.leaf(Cause::OsdStopped, id, format!("{place} was stopped in order{ago}"));
                self.start_step(id);
            }
            "refused" => {
                self.leaf(
                    Cause::OsdProcessGone,
                    id,
                    format!(
                        "the process of {place} does not run: its host refused connections (cluster log: {text}){ago}"
                    ),
                );
                self.start_step(id);
                self.step("its log says how it ended", None);
            }
            "silent" | "no_report" => {
                self.leaf(
                    Cause::OsdUnreachable,
                    id,
                    format!(
                        "nothing comes back from {place} (cluster log: {text}){ago}: the host is off, its network is cut, or the process hangs"
                    ),
                );
                let host = self.host(id);
                self.step(
                    format!("look at {host}: is it on, does its network reach the others?"),
                    Some(format!("ping {host}")),
                );
                self.start_step(id);
            }
            "disk_failed" => {
                self.leaf(
                    Cause::DiskFailed,
                    id,
                    format!("the disk of {place} has failed (cluster log: {text}){ago}"),
                );
                let host = self.host(id);
                self.step(
                    format!("look for errors of the disk on {host}"),
                    Some("dmesg --level=err | tail -50".into()),
                );
                self.step("if that was transient, starting it again is safe: it checks itself", None);
                self.start_step(id);
                self.step(
                    "if the disk is dead, see first that nothing exists only there",
                    Some(format!("nacre osd safe-to-destroy {id}")),
                );
            }
            "ended" => {
                self.leaf(Cause::OsdEnded, id, format!("{place} ended by itself (cluster log: {text}){ago}"));
                self.step("do what it says, then start it", None);
                self.start_step(id);
            }
            "restarted" => {
                self.leaf(Cause::InProgress, id, format!("{place} was restarted{ago} and is coming up"));
                self.wait_step("a daemon is up within seconds", None);
            }
            "by_hand" => {
                self.leaf(
                    Cause::OsdMarkedDown,
                    id,
                    format!(
                        "{place} was marked down by hand (cluster log: {text}){ago} and did not come back"
                    ),
                );
                self.start_step(id);
            }
            "never_up" => {
                self.leaf(
                    Cause::OsdNeverUp,
                    id,
                    format!("{place} was registered and has never been started"),
                );
                self.start_step(id);
            }
            _ => {
                self.leaf(
                    Cause::OsdDown,
                    id,
                    format!("{place} is down{ago}, for longer than the cluster log goes back"),
                );
                self.start_step(id);
            }
        }
    }

    /// It runs and asks to be marked up.
    fn wants_up(&mut self, id: OsdId, address: &str, refused: Option<String>) {
        self.link(id, format!("{id} runs at {address} and asks to be marked up"));
        let Some(why) = refused else {
            if self.monitors() {
                return;
            }
            if self.map().is_some_and(|map| map.flags().contains(Flag::NoUp)) {
                return self.flag("noup", "no OSD is marked up");
            }
            self.leaf(Cause::InProgress, id, format!("{id} is being marked up"));
            return self.wait_step("a daemon is up within seconds", None);
        };
        if self.map().is_some_and(|map| map.flags().contains(Flag::NoUp)) {
            return self.flag("noup", "no OSD is marked up");
        }
        self.leaf(Cause::OsdRefused, id, format!("the monitors refuse to mark it up: {why}"));
        self.step(
            "give the number its own disk back; a new disk gets a new number by formatting it",
            Some("nacre osd tree".into()),
        );
    }

    /// Up by the map, and no answer from it to us.
    pub(super) fn silent(&mut self, id: OsdId) {
        if !self.visited.insert(id) {
            return;
        }
        self.ask_monitors_about(id);
        let Some(map) = self.map() else { return };
        let others: Vec<OsdId> = map
            .osds()
            .filter(|(other, info)| info.up && *other != id)
            .map(|(other, _)| other)
            .take(4)
            .collect();
        let heard: Vec<(OsdId, u64, bool)> = others
            .iter()
            .filter_map(|&other| self.view(other)?.silence_of(id).map(|(ms, refused)| (other, ms, refused)))
            .collect();
        let place = self.place(id);
        let complain: Vec<OsdId> =
            heard.iter().filter(|(_, ms, refused)| *refused || *ms > SILENT_MS).map(|(by, ..)| *by).collect();
        let refused = heard.iter().any(|(.., refused)| *refused);
        if complain.is_empty() && !heard.is_empty() {
            let (by, ms, _) = heard[0];
            self.leaf(
                Cause::LinkCut,
                id,
                format!("{by} heard {place} {} ago: it runs, but does not reach whoever asks here", span(ms)),
            );
            let host = self.host(id);
            self.step(
                format!("look at the network (UDP) between here and {host}"),
                Some(format!("ping {host}")),
            );
            return;
        }
        if map.flags().contains(Flag::NoDown) {
            let how = if refused { "its process does not run" } else { "nobody hears it" };
            self.link(id, format!("{place}: {how}, and it stays in the PGs"));
            self.flag("nodown", "the monitors do not mark failed OSDs down");
            return self.start_step(id);
        }
        let reports = self.evidence.leader.as_ref().map_or_else(Vec::new, |leader| leader.reports(id));
        if !reports.is_empty() {
            let by: Vec<OsdId> = reports.iter().map(|(by, _)| *by).collect();
            self.step(
                format!("only {} told the monitors, who wait for a second report; a living OSD comes back by itself", names(&by)),
                Some(format!("nacre osd down {id}")),
            );
        }
        let by = if complain.is_empty() { String::new() } else { format!(", say {}", names(&complain)) };
        let unmarked = self.evidence.leader.is_none();
        if refused {
            self.leaf(
                Cause::OsdProcessGone,
                id,
                format!("the process of {place} does not run: connections are refused{by}"),
            );
        } else {
            self.leaf(
                Cause::OsdUnreachable,
                id,
                format!("nothing comes back from {place}{by}: the host is off, its network is cut, or the process hangs"),
            );
            let host = self.host(id);
            self.step(
                format!("look at {host}: is it on, does its network reach the others?"),
                Some(format!("ping {host}")),
            );
        }
        self.start_step(id);
        if unmarked {
            self.step(
                "the monitors cannot mark it down without a quorum, so its PGs cannot go on without it",
                Some("nacre explain mon".into()),
            );
        }
    }

    /// What an OSD that answers suffers from itself. False if nothing.
    pub(super) fn ailing(&mut self, id: OsdId, view: &OsdView) -> bool {
        if view.phase() != "up" {
            self.link(id, format!("{id} runs and is {}", view.phase()));
            if self.monitors() || self.monitor_link(id) {
                return true;
            }
            if self.map().is_some_and(|map| map.flags().contains(Flag::NoUp)) {
                self.flag("noup", "no OSD is marked up");
                return true;
            }
            self.leaf(Cause::InProgress, id, format!("{id} is {}", view.phase()));
            self.wait_step("a daemon is up within seconds", None);
            return true;
        }
        self.own_disk(id, view) || self.monitor_link(id)
    }

    fn own_disk(&mut self, id: OsdId, view: &OsdView) -> bool {
        let oldest = view.oldest_request_ms();
        if oldest < DISK_SLOW_MS {
            return false;
        }
        let place = self.place(id);
        self.leaf(
            Cause::DiskSlow,
            id,
            format!("the disk of {place} has not answered a request for {}", span(oldest)),
        );
        let host = self.host(id);
        self.step(
            format!("look at the disk on {host}"),
            Some("iostat -x 1 5; dmesg --level=err,warn | tail".into()),
        );
        self.step(
            format!("if it stays slow, move its data off: writes wait for the slowest copy; {id} stays up meanwhile"),
            Some(format!("nacre osd out {id}")),
        );
        true
    }

    /// It is up, answers, and its own parts work.
    fn healthy(&mut self, id: OsdId, view: &'a OsdView) {
        let Some(map) = self.map() else { return };
        let unheard: Vec<OsdId> = view
            .peers()
            .into_iter()
            .filter(|&peer| map.is_up(peer) && view.silence_of(peer).is_some_and(|(ms, _)| ms > SILENT_MS))
            .collect();
        for peer in unheard {
            match self.told(peer) {
                Some(OsdAnswer::Told(_)) => return self.cut(id, peer),
                Some(OsdAnswer::Silent) => {
                    self.link(id, format!("{id} runs, but does not hear {peer}"));
                    return self.silent(peer);
                }
                _ => {}
            }
        }
        if let Some(pg) =
            view.pgs().find(|pg| pg.is_primary() && !pg.waits().is_empty()).and_then(|pg| pg.id())
        {
            self.link(id, format!("{id} is up and works; what waits there is PG {pg}"));
            return self.pg(pg);
        }
        let used = view.used_permille();
        if used >= u64::from(map.ratios().nearfull_permille) {
            self.leaf(Cause::Full, id, format!("{} is {}.{} % full", self.place(id), used / 10, used % 10));
            self.step(
                "add OSDs, or delete what is not needed: deletes always work",
                Some("nacre osd df".into()),
            );
            return;
        }
        if view.checksum_errors() > 0 {
            let errors = view.checksum_errors();
            let place = self.place(id);
            self.leaf(
                Cause::DiskDamaged,
                id,
                format!("the disk of {place} returned bad data {errors} times since it started; other copies were served"),
            );
            self.step(
                "look at the disk, and replace it if that goes on",
                Some(format!("nacre osd safe-to-destroy {id}")),
            );
            return;
        }
        if !map.is_in(id) {
            let by = self.evidence.leader.as_ref().and_then(|mon| mon.out(id));
            let by = by.map_or(String::new(), |text| format!(" ({text})"));
            self.leaf(
                Cause::OsdOut,
                id,
                format!("{} is up, but out: placement does not use it{by}", self.place(id)),
            );
            self.step("let placement use it again", Some(format!("nacre osd in {id}")));
            return;
        }
        if let Some(wait) = view.waits().into_iter().find(|wait| wait.age_ms > SILENT_MS)
            && matches!(wait.needs, Some(Needs::Map(_) | Needs::AuthMap))
        {
            return self.monitors_for(id, &format!("{id} needs {}", wait.text));
        }
        self.leaf(
            Cause::Nothing,
            id,
            format!("{} is up and in, answers, and nothing waits there", self.place(id)),
        );
    }

    /// Two OSDs that both answer us, and at least one does not hear the other.
    pub(super) fn cut(&mut self, a: OsdId, b: OsdId) {
        let (host_a, host_b) = (self.host(a), self.host(b));
        self.leaf(
            Cause::LinkCut,
            format!("{a} and {b}"),
            format!(
                "{a} and {b} run, but the network between {host_a} and {host_b} does not carry what they send"
            ),
        );
        self.step(
            format!("look at the network between {host_a} and {host_b}: cables, firewall (UDP), packet size"),
            Some(format!("ping -M do -s 1400 {host_b}   # on {host_a}")),
        );
    }
}
