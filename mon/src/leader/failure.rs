//! Who says of whom that it does not answer, and when that is enough.
//!
//! Silence needs reporters in two failure domains (hosts): a cut cable makes one host complain about all others. Where
//! there is only one other host with OSDs, two OSDs do, and where only one OSD is left to speak, that one. A refused
//! connection is certain: two OSDs of whatever host, or the only one.

use nacre_maps::OsdMap;
use nacre_types::{Instant, OsdId, mutant};
use nacre_wire::messages::OsdFailure;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A report that is not renewed is forgotten.
const REPORT_LIFETIME: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
struct Report {
    instance: u64,
    refused: bool,
    at: Instant,
}

/// Reports by whom they are about and from. Bounded by OSDs squared; in practice by heartbeat peers.
#[derive(Default)]
pub(crate) struct Reports {
    about: BTreeMap<OsdId, BTreeMap<OsdId, Report>>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    pub osd: OsdId,
    pub instance: u64,
    pub why: String,
}

/// Reporters kept per OSD: as many as could ever be asked for, with room.
const REPORTERS_MAX: usize = 64;

impl Reports {
    pub fn retain(&mut self, map: &OsdMap) {
        self.about.retain(|&failed, reports| {
            let Some(info) = map.osd(failed).filter(|info| info.up) else { return false };
            reports.retain(|&reporter, report| map.is_up(reporter) && report.instance == info.instance);
            !reports.is_empty()
        });
    }

    pub fn forget(&mut self, osd: OsdId) {
        self.about.remove(&osd);
    }

    /// Who complains of an OSD, whether of refused connections, and when last.
    pub fn about(&self, osd: OsdId) -> impl Iterator<Item = (OsdId, bool, Instant)> + '_ {
        let reports = self.about.get(&osd).into_iter().flatten();
        reports.map(|(&by, report)| (by, report.refused, report.at))
    }

    /// Takes a report in. `Some` if the failed OSD is to be marked down.
    pub fn report(
        &mut self,
        now: Instant,
        map: &OsdMap,
        reporters_min: u64,
        grace_ms: u64,
        failure: &OsdFailure,
    ) -> Option<Verdict> {
        let (reporter, failed) = (OsdId(failure.reporter), OsdId(failure.failed));
        let info = map.osd(failed).filter(|info| info.up && info.instance == failure.failed_instance)?;
        if reporter == failed || !map.is_up(reporter) {
            return None;
        }
        let reports = self.about.entry(failed).or_default();
        reports
            .retain(|_, report| now.since(report.at) < REPORT_LIFETIME && report.instance == info.instance);
        if failure.recovered {
            reports.remove(&reporter);
            return None;
        }
        if !failure.refused && failure.silent_ms < grace_ms {
            return None;
        }
        if reports.len() < REPORTERS_MAX || reports.contains_key(&reporter) {
            reports.insert(reporter, Report { instance: info.instance, refused: failure.refused, at: now });
        }

        let others: Vec<OsdId> =
            map.osds().filter(|(id, osd)| *id != failed && osd.up).map(|(id, _)| id).collect();
        let host = |id: OsdId| map.osd(id).map_or("", |info| info.host.as_str());
        let hosts_up: BTreeSet<&str> = others.iter().map(|&id| host(id)).collect();
        let hosts: BTreeSet<&str> = reports.keys().map(|&id| host(id)).collect();
        let refused = reports.values().filter(|report| report.refused).count();
        let wanted = if mutant!(OneReporter) { 1 } else { (reporters_min as usize).max(1) };
        let by_refusal = refused >= wanted.min(2).min(others.len());
        let by_silence = if hosts_up.len() >= wanted {
            hosts.len() >= wanted
        } else {
            reports.len() >= wanted.min(others.len())
        };
        if !(by_refusal && refused > 0 || by_silence) {
            return None;
        }
        let names: Vec<String> = reports.keys().map(OsdId::to_string).collect();
        let how = if by_refusal && refused > 0 { "refuses connections" } else { "does not answer" };
        let why = format!("{failed} {how}, say {}", names.join(", "));
        Some(Verdict { osd: failed, instance: info.instance, why })
    }
}
