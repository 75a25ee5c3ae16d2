//! The answer, for people and programs.

use super::peers::{Of, Outlier, Peers};
use super::{Blame, OsdsAsked, Slowness, Spread, Stage, Times};
use serde_json::{Value, json};
use std::fmt;

/// What is compared among OSDs where a stage is the largest, and how a sentence calls it.
fn compared(stage: &str) -> Option<(Of, &'static str)> {
    match stage {
        "journal_queue" | "journal_write" | "journal_flush" | "replica_queue" | "replica_write"
        | "replica_flush" => Some((Of::Disk, "its journal takes")),
        "replica_network" => Some((Of::Link, "the way between it and other OSDs, there and back, takes")),
        "read" => Some((Of::Reads, "its disk takes")),
        "network" => Some((Of::ClientLink, "the way between it and clients, there and back, takes")),
        _ => None,
    }
}

/// The largest stage, in one sentence or two.
pub(super) fn blame(write: bool, total: &Spread, stages: &[Stage], peers: &Peers) -> Blame {
    let what = if write { "Writes" } else { "Reads" };
    let largest = stages.iter().max_by(|a, b| a.share.total_cmp(&b.share));
    let Some(largest) = largest else {
        return Blame { stage: String::new(), osds: Vec::new(), says: format!("{what} took no time.") };
    };
    let mut says = format!(
        "{what} spend most of their time, {:.0} %, in '{}': {} of {} on average.",
        largest.share * 100.0,
        largest.title,
        time(largest.spread.mean_ns),
        time(total.mean_ns),
    );
    let compared = compared(&largest.name);
    let outlier = compared.and_then(|(of, takes)| Some((peers.outlier(of, total.mean_ns)?, takes)));
    let osds = match outlier {
        Some((Outlier { osds, ns, peers_ns }, takes)) => {
            let (ns, peers_ns) = (time(ns), time(peers_ns));
            says += &match osds[..] {
                [a, b] => format!(
                    " It is the link between {a} and {b}: there and back takes {ns}, elsewhere {peers_ns}."
                ),
                _ => format!(" It is {}: {takes} {ns}, its peers' {peers_ns}.", osds[0]),
            };
            osds
        }
        None if compared.is_some() => {
            says += " No OSD stands out against its peers.";
            Vec::new()
        }
        None => Vec::new(),
    };
    Blame { stage: largest.name.clone(), osds, says }
}

/// A duration with as many digits as matter.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        ns if ns < 999.5 => format!("{ns:.0} ns"),
        ns if ns < 99_950.0 => format!("{:.1} us", ns / 1e3),
        ns if ns < 999_500.0 => format!("{:.0} us", ns / 1e3),
        ns if ns < 99_950_000.0 => format!("{:.1} ms", ns / 1e6),
        ns if ns < 999_500_000.0 => format!("{:.0} ms", ns / 1e6),
        ns => format!("{:.1} s", ns / 1e9),
    }
}

impl Slowness {
    /// In a sentence for each of writes and reads, or why there is none.
    pub fn says(&self) -> Vec<String> {
        let told: Vec<String> =
            [&self.writes, &self.reads].into_iter().flatten().map(|times| times.blame.says.clone()).collect();
        if !told.is_empty() {
            return told;
        }
        let seconds = self.window.as_secs();
        vec![match self.untold {
            0 => format!(
                "Nothing on {} was measured in the last {seconds} s. Clients measure one operation in 64, and at least one \
                 in a tenth of a second in which they do anything: let one work, and ask again.",
                self.of
            ),
            untold => format!(
                "{untold} operations on {} were measured in the last {seconds} s, but their clients have not told yet what \
                 they saw: they do so with their next operations. Ask again.",
                self.of
            ),
        }]
    }

    pub fn to_json(&self) -> Value {
        json!({
            "of": self.of,
            "seconds": self.window.as_secs(),
            "untold": self.untold,
            "writes": self.writes.as_ref().map(Times::to_json),
            "reads": self.reads.as_ref().map(Times::to_json),
            "says": self.says(),
            "not_answered": self.asked.to_json(),
        })
    }
}

impl OsdsAsked {
    /// Those that did not answer.
    pub(crate) fn to_json(&self) -> Value {
        self.others.iter().map(|(osd, reason)| json!({"osd": osd.0, "reason": reason})).collect()
    }

    pub(crate) fn write_others(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.others.iter().try_for_each(|(osd, reason)| writeln!(f, "Without {osd}: {reason}."))
    }
}

impl Times {
    fn to_json(&self) -> Value {
        let stages = self.stages.iter().map(|stage| {
            let mut json = stage.spread.to_json();
            json["stage"] = stage.name.clone().into();
            json["share"] = stage.share.into();
            json
        });
        let osds: Vec<u32> = self.blame.osds.iter().map(|osd| osd.0).collect();
        json!({
            "measured": self.measured,
            "total": self.total.to_json(),
            "stages": stages.collect::<Vec<_>>(),
            "osds": self.osds.iter().map(super::OsdTimes::to_json).collect::<Vec<_>>(),
            "blame": {"stage": self.blame.stage, "osds": osds},
        })
    }
}

impl fmt::Display for Slowness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for times in [&self.writes, &self.reads].into_iter().flatten() {
            writeln!(f, "{times}")?;
        }
        self.says().iter().try_for_each(|sentence| writeln!(f, "{sentence}"))?;
        self.asked.write_others(f)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.write { "WRITES" } else { "READS" };
        let title = format!("{what} ({} measured)", self.measured);
        writeln!(f, "{title:<44}{:>9}{:>10}{:>10}{:>8}", "MEAN", "P50", "P99", "SHARE")?;
        let mut line = |title: &str, spread: &Spread, share: f64| {
            let [mean, p50, p99] = [spread.mean_ns, spread.p50_ns as f64, spread.p99_ns as f64].map(time);
            let share = format!("{:.0} %", share * 100.0);
            writeln!(f, "{title:<44}{mean:>9}{p50:>10}{p99:>10}{share:>8}")
        };
        self.stages.iter().try_for_each(|stage| line(&stage.title, &stage.spread, stage.share))?;
        line("all, as the client saw it", &self.total, 1.0)?;
        let known = |ns: Option<f64>| ns.map_or("-".to_string(), time);
        writeln!(f, "\n{:<10}{:>14}{:>16}{:>16}", "OSD", self.disk_title(), "TO PRIMARY", "TO CLIENTS")?;
        for osd in &self.osds {
            let disk = if self.write { osd.disk_ns } else { osd.reads_ns };
            let (disk, link, client) = (known(disk), known(osd.link_ns), known(osd.client_link_ns));
            writeln!(f, "{:<10}{disk:>14}{link:>16}{client:>16}", osd.osd.to_string())?;
        }
        Ok(())
    }
}

impl Times {
    fn disk_title(&self) -> &'static str {
        if self.write { "JOURNAL" } else { "DISK READS" }
    }
}
