//! Why the monitors do not answer, or do not do what is needed.

use super::{REPORT_LATE_MS, Walk, span};
use crate::evidence::OsdAnswer;
use crate::explanation::Cause;
use nacre_types::OsdId;

/// Without a leader for that long there is no quorum; elections are shorter.
const LEADERLESS_MS: u64 = 2_000;

impl Walk<'_> {
    pub(super) fn monitors_asked(&mut self) {
        self.link("commands", "commands need the leading monitor and a majority behind it");
        if !self.monitors() {
            let leader = self.evidence.leader.as_ref().and_then(|mon| mon.leader()).unwrap_or("?");
            self.chain.clear();
            self.leaf(
                Cause::Nothing,
                "the monitors",
                format!("nothing holds commands up: mon.{leader} leads and answers"),
            );
        }
    }

    /// Looks for what is wrong with the monitors. False if nothing is.
    pub(super) fn monitors(&mut self) -> bool {
        let evidence = self.evidence;
        let Some(mon) = &evidence.mon else {
            if evidence.leader.is_some() {
                return false;
            }
            self.no_monitor();
            return true;
        };
        if evidence.leader.is_some() && mon.led_ms() < LEADERLESS_MS {
            return false;
        }
        let (all, silent) = (mon.mons(), mon.silent());
        let heard = all.saturating_sub(silent.len());
        if mon.leader().is_none() || heard * 2 <= all || mon.led_ms() >= LEADERLESS_MS {
            let who: Vec<String> =
                silent.iter().map(|name| format!("mon.{name} ({})", mon.address(name))).collect();
            let here = mon.name();
            let says = match who.len() {
                0 => format!(
                    "the {all} monitors have no leader yet: mon.{here} hears all of them, an election is on"
                ),
                1 => format!(
                    "the monitors have no quorum: mon.{here} does not hear {}, and {heard} of {all} are no majority",
                    who[0]
                ),
                _ => format!(
                    "the monitors have no quorum: mon.{here} hears none of {}, and {heard} of {all} are no majority",
                    who.join(", ")
                ),
            };
            self.leaf(Cause::NoQuorum, "the monitors", says);
            for name in &silent {
                self.start(
                    format!("start mon.{name} on the host of {}, or mend its network", mon.address(name)),
                    format!("mon.{name}"),
                    format!("nacre daemon mon --dir /var/lib/nacre/mon.{name}"),
                );
            }
            if silent.is_empty() {
                self.wait_step("elections take a second or two", None);
            }
            return true;
        }
        let leader = mon.leader().unwrap_or("?").to_string();
        self.leaf(
            Cause::LeaderSilent,
            format!("mon.{leader}"),
            format!("mon.{leader} leads, but does not answer: its disk or its network is slow, or it hangs"),
        );
        self.step(
            format!("look at the log and the disk of mon.{leader}; another one leads once it is stopped"),
            Some("nacre mon stat".into()),
        );
        true
    }

    fn no_monitor(&mut self) {
        let contact = &self.evidence.contact;
        let reason = contact.unreachable.clone().unwrap_or_default();
        if contact.rejected {
            self.leaf(Cause::Certificate, "certificates", format!("no monitor can be used: {reason}"));
            self.step("compare the clocks of this host and of the monitors' hosts", Some("date -u".into()));
            self.step(
                "if the clocks agree, the certificate has expired or was revoked: get a new credential file",
                Some("nacre auth get NAME -o NAME.nacre".into()),
            );
            return;
        }
        let since = match contact.heard {
            Some(heard) => format!(", the last was heard {} ago", span(heard.as_millis() as u64)),
            None => String::new(),
        };
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        self.leaf(Cause::NoMonitor, "the monitors", format!("no monitor answers{since}{why}"));
        self.step(
            "start the monitors; if they run, look at the network and the UDP port between here and them",
            Some("nacre daemon mon --dir /var/lib/nacre/mon.NAME".into()),
        );
    }

    /// Something that the monitors have to record for an OSD is late: theirs, or the link's fault, or neither.
    pub(super) fn monitors_for(&mut self, osd: OsdId, what: &str) {
        self.link("the monitors", what);
        if self.monitors() || self.monitor_link(osd) {
            return;
        }
        self.leaf(Cause::InProgress, "the monitors", "the monitors have a quorum and will do so presently");
        self.wait_step("that takes a second", None);
    }

    /// Whether the OSD does not get through to the monitors.
    pub(super) fn monitor_link(&mut self, osd: OsdId) -> bool {
        self.ask_monitors_about(osd);
        let heard = match self.evidence.osds.get(&osd) {
            Some(OsdAnswer::Told(view)) => Some(view.mon_heard_ms()),
            _ => None,
        };
        let is_up = self.map().is_some_and(|map| map.is_up(osd));
        let report =
            self.evidence.leader.as_ref().filter(|leader| is_up && leader.leading_ms() > REPORT_LATE_MS);
        let late = match report.map(|leader| leader.report_ms(osd)) {
            Some(Some(age)) => age > REPORT_LATE_MS,
            Some(None) => self.evidence.asked.contains(&osd),
            None => false,
        };
        let deaf = heard.is_some_and(|ms| ms > super::MON_SILENT_MS);
        if !late && !deaf {
            return false;
        }
        let says = match heard {
            Some(ms) if deaf => format!("{} has not heard from a monitor for {}", self.place(osd), span(ms)),
            _ => format!("the leading monitor gets no reports from {}", self.place(osd)),
        };
        self.leaf(
            Cause::MonitorLink,
            osd,
            format!("{says}: the network between them is cut, or a firewall is in the way"),
        );
        let host = self.host(osd);
        self.step(
            format!(
                "look at the network (UDP) between {host} and the monitors; the OSD catches up by itself"
            ),
            Some("nacre mon dump".into()),
        );
        true
    }
}
