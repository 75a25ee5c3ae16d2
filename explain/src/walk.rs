//! From what is stuck to why: one cause leads to the next until there is none behind it.
//!
//! The walk is pure and may be repeated: what it could not see it notes down as [`Want`]s, and goes on as far as it can.
//! Every step either adds a link or ends in a leaf.

mod monitors;
mod needs;
mod operation;
mod osd;
mod pg;

use crate::evidence::{Evidence, OsdAnswer, OsdView, Want};
use crate::explanation::{Cause, Explanation, Link, Step};
use crate::question::Question;
use nacre_maps::OsdMap;
use nacre_types::{OsdId, PgId};
use std::collections::BTreeSet;
use std::rc::Rc;

/// Silence between daemons from which it counts: below the grace after which the monitors act.
const SILENT_MS: u64 = 3_000;
/// A disk that takes longer for one request is slow.
const DISK_SLOW_MS: u64 = 1_000;
/// An OSD hears from the monitors at least every ten seconds.
const MON_SILENT_MS: u64 = 15_000;
/// OSDs report to the leader every 1.5 s.
const REPORT_LATE_MS: u64 = 6_000;
/// Below this a wait is work under way.
const YOUNG_MS: u64 = 1_000;

/// Explains what is asked by what is known; and says what else would be good to know.
pub fn walk(question: &Question, evidence: &Evidence) -> (Explanation, BTreeSet<Want>) {
    let mut walk = Walk {
        evidence,
        chain: Vec::new(),
        cause: None,
        steps: Vec::new(),
        unseen: Vec::new(),
        wants: BTreeSet::new(),
        visited: BTreeSet::new(),
    };
    match question {
        Question::Pg(pg) => walk.pg(*pg),
        Question::Osd(osd) => walk.osd(*osd),
        Question::Operation(op) => walk.operation(op),
        Question::Request(id) => walk.request(Some(id)),
        Question::AnyOperation => walk.request(None),
        Question::Monitors => walk.monitors_asked(),
    }
    let explanation = Explanation {
        question: question.to_string(),
        chain: walk.chain,
        cause: walk.cause.unwrap_or(Cause::Unknown),
        steps: walk.steps,
        unseen: walk.unseen,
    };
    (explanation, walk.wants)
}

struct Walk<'a> {
    evidence: &'a Evidence,
    chain: Vec<Link>,
    cause: Option<Cause>,
    steps: Vec<Step>,
    unseen: Vec<String>,
    wants: BTreeSet<Want>,
    /// OSDs the chain has passed: it never goes in circles.
    visited: BTreeSet<OsdId>,
}

impl<'a> Walk<'a> {
    fn link(&mut self, on: impl ToString, says: impl Into<String>) {
        self.chain.push(Link { on: on.to_string(), says: says.into() });
    }

    /// The last line. Later ones are ignored: the first cause found is the one that was walked to.
    fn leaf(&mut self, cause: Cause, on: impl ToString, says: impl Into<String>) {
        if self.cause.is_none() {
            self.link(on, says);
            self.cause = Some(cause);
        }
    }

    fn step(&mut self, text: impl Into<String>, command: Option<String>) {
        self.add_step(Step { text: text.into(), command, loses: None, starts: None });
    }

    /// Starting a daemon on its host.
    fn start(&mut self, text: String, daemon: String, command: String) {
        self.add_step(Step { text, command: Some(command), loses: None, starts: Some(daemon) });
    }

    fn add_step(&mut self, step: Step) {
        if !self.steps.contains(&step) {
            self.steps.push(step);
        }
    }

    fn unsafe_step(&mut self, text: impl Into<String>, command: String, loses: impl Into<String>) {
        let (command, loses) = (Some(command), Some(loses.into()));
        self.steps.push(Step { text: text.into(), command, loses, starts: None });
    }

    fn done(&self) -> bool {
        self.cause.is_some()
    }

    fn map(&self) -> Option<Rc<OsdMap>> {
        self.evidence.map.clone()
    }

    /// The OSD's answer; notes that it is wanted if it was not asked.
    fn told(&mut self, osd: OsdId) -> Option<&'a OsdAnswer> {
        let answer = self.evidence.osds.get(&osd);
        if answer.is_none() {
            self.wants.insert(Want::Osd(osd));
        }
        answer
    }

    fn view(&mut self, osd: OsdId) -> Option<&'a OsdView> {
        match self.told(osd) {
            Some(OsdAnswer::Told(view)) => Some(view),
            _ => None,
        }
    }

    /// Notes that the monitors are to be asked about an OSD, if they were not.
    fn ask_monitors_about(&mut self, osd: OsdId) {
        if !self.evidence.asked.contains(&osd) {
            self.wants.insert(Want::MonOsd(osd));
        }
    }

    /// `osd.2 on host h2`.
    fn place(&self, osd: OsdId) -> String {
        match self.map().and_then(|map| map.osd(osd).map(|info| info.host.clone())) {
            Some(host) if !host.is_empty() => format!("{osd} on host {host}"),
            _ => osd.to_string(),
        }
    }

    fn host(&self, osd: OsdId) -> String {
        let host = self.map().and_then(|map| map.osd(osd).map(|info| info.host.clone()));
        host.filter(|host| !host.is_empty()).unwrap_or_else(|| format!("the host of {osd}"))
    }

    /// `, 40 s ago`, if it is known.
    fn ago(&self, at_ms: u64) -> String {
        match self.evidence.wall_ms.checked_sub(at_ms) {
            Some(ms) if at_ms > 0 && ms < 365 * 86_400_000 => format!(", {} ago", span(ms)),
            _ => String::new(),
        }
    }

    fn flag(&mut self, flag: &str, effect: &str) {
        let known = [&self.evidence.leader, &self.evidence.mon];
        let set = known.into_iter().flatten().find_map(|mon| mon.flag(flag));
        let by = match set {
            Some((by, at_ms)) => format!(" (set by {by}{})", self.ago(at_ms)),
            None => String::new(),
        };
        self.leaf(
            Cause::Flag,
            format!("flag {flag}"),
            format!("the cluster flag {flag} is set{by}: {effect}"),
        );
        self.step(
            "clear the flag when the work it was set for is done",
            Some(format!("nacre osd unset {flag}")),
        );
    }

    fn start_step(&mut self, osd: OsdId) {
        let text =
            format!("start {osd} on {} (its service; by hand as below, with its directory)", self.host(osd));
        self.start(text, osd.to_string(), "nacre daemon osd --dir /var/lib/nacre/osd".into());
    }

    fn wait_step(&mut self, for_what: &str, pg: Option<PgId>) {
        let command = pg.map_or("nacre status".to_string(), |pg| format!("nacre explain pg {pg}"));
        self.step(format!("wait: {for_what}; if it takes long, ask again"), Some(command));
    }
}

/// A length of time in words.
fn span(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        s @ 1..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} minutes", s / 60),
        s @ 7200..172_800 => format!("{} hours", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

fn names(osds: &[OsdId]) -> String {
    let named: Vec<String> = osds.iter().take(6).map(ToString::to_string).collect();
    let more = osds.len().saturating_sub(6);
    if more > 0 { format!("{} and {more} more", named.join(", ")) } else { named.join(", ") }
}
