//! OSDs compared with each other: whose disk, whose links take longer than everybody else's.

use super::record::Record;
use nacre_types::OsdId;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// With fewer operations an OSD is not judged.
const OPERATIONS_MIN: u64 = 3;
/// How many times as long as its peers' one's has to be to stand out.
const STANDS_OUT: f64 = 2.0;

/// What of an OSD is compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Of {
    /// From a write's arrival until it was durable there, by its own account.
    Disk,
    /// The rest of what the primary waited for a replica.
    Link,
    /// Disk reads, as primary.
    Reads,
    /// Between it, as primary, and clients.
    ClientLink,
}

#[derive(Clone, Copy, Default)]
struct Mean {
    sum_ns: u128,
    weight: u128,
    operations: u64,
}

impl Mean {
    fn add(&mut self, ns: u64, weight: u64) {
        self.sum_ns += u128::from(ns) * u128::from(weight);
        self.weight += u128::from(weight);
        self.operations += 1;
    }

    fn is_judged(&self) -> bool {
        self.operations >= OPERATIONS_MIN
    }

    fn ns(&self) -> f64 {
        self.sum_ns as f64 / self.weight.max(1) as f64
    }
}

#[derive(Default)]
pub(super) struct Peers {
    osds: BTreeMap<(Of, OsdId), Mean>,
    /// By both ends, the lower number first: whichever of them is the primary.
    links: BTreeMap<(OsdId, OsdId), Mean>,
}

/// An OSD that stands out, or a link by its two ends.
pub(super) struct Outlier {
    pub osds: Vec<OsdId>,
    pub ns: f64,
    /// What the middle one of its peers takes.
    pub peers_ns: f64,
}

/// One OSD's part, in means over the measured operations it had to do with.
#[derive(Clone, PartialEq, Debug)]
pub struct OsdTimes {
    pub osd: OsdId,
    pub disk_ns: Option<f64>,
    pub link_ns: Option<f64>,
    pub reads_ns: Option<f64>,
    pub client_link_ns: Option<f64>,
}

impl Peers {
    pub fn of(records: &[Record]) -> Peers {
        let Peers { mut osds, mut links } = Peers::default();
        let mut add = |of: Of, osd: OsdId, ns: u64, weight: u64| {
            osds.entry((of, osd)).or_default().add(ns, weight);
        };
        for record in records {
            add(Of::ClientLink, record.osd, record.stage("network"), record.weight);
            if !record.write {
                add(Of::Reads, record.osd, record.stage("read"), record.weight);
            }
            for member in &record.members {
                // Who gave no account may have spent all of it, or nothing.
                let Some(own_ns) = member.own_ns else { continue };
                add(Of::Disk, member.osd, own_ns, record.weight);
                if member.osd != record.osd {
                    let away_ns = member.total_ns.saturating_sub(own_ns);
                    add(Of::Link, member.osd, away_ns, record.weight);
                    let ends = (member.osd.min(record.osd), member.osd.max(record.osd));
                    links.entry(ends).or_default().add(away_ns, record.weight);
                }
            }
        }
        Peers { osds, links }
    }

    /// The slowest, if it is so by far, and if that matters against `whole_ns`.
    pub fn outlier(&self, of: Of, whole_ns: f64) -> Option<Outlier> {
        if of == Of::Link {
            return self.slow_link(whole_ns);
        }
        let of_it = self.osds.iter().filter(|((what, _), mean)| *what == of && mean.is_judged());
        stands_out(of_it.map(|((_, osd), mean)| (mean.ns(), vec![*osd])).collect(), whole_ns)
    }

    /// An OSD all of whose links are slow, else one link.
    fn slow_link(&self, whole_ns: f64) -> Option<Outlier> {
        let links: Vec<(f64, Vec<OsdId>)> = self
            .links
            .iter()
            .filter(|(_, mean)| mean.is_judged())
            .map(|(&(a, b), mean)| (mean.ns(), vec![a, b]))
            .collect();
        let mut best: BTreeMap<OsdId, (f64, usize)> = BTreeMap::new();
        for (ns, ends) in &links {
            for end in ends {
                let (least, count) = best.entry(*end).or_insert((f64::MAX, 0));
                (*least, *count) = (least.min(*ns), *count + 1);
            }
        }
        let osds = best.into_iter().filter(|(_, (_, count))| *count > 1);
        let osds = osds.map(|(osd, (least, _))| (least, vec![osd])).collect();
        stands_out(osds, whole_ns).or_else(|| stands_out(links, whole_ns))
    }

    pub fn into_osds(self) -> Vec<OsdTimes> {
        let mut osds: Vec<OsdId> = self.osds.keys().map(|(_, osd)| *osd).collect();
        osds.sort_unstable();
        osds.dedup();
        let mean = |of: Of, osd: OsdId| self.osds.get(&(of, osd)).map(Mean::ns);
        let times = |osd: OsdId| OsdTimes {
            osd,
            disk_ns: mean(Of::Disk, osd),
            link_ns: mean(Of::Link, osd),
            reads_ns: mean(Of::Reads, osd),
            client_link_ns: mean(Of::ClientLink, osd),
        };
        osds.into_iter().map(times).collect()
    }
}

fn stands_out(mut means: Vec<(f64, Vec<OsdId>)>, whole_ns: f64) -> Option<Outlier> {
    means.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ns, osds) = means.pop()?;
    let peers_ns = means.get(means.len() / 2)?.0;
    let matters = ns >= peers_ns * STANDS_OUT && ns - peers_ns >= whole_ns / 10.0;
    matters.then_some(Outlier { osds, ns, peers_ns })
}

impl OsdTimes {
    pub fn to_json(&self) -> Value {
        let whole = |ns: Option<f64>| ns.map(|ns| ns.round() as u64);
        json!({
            "osd": self.osd.0,
            "disk_ns": whole(self.disk_ns),
            "link_ns": whole(self.link_ns),
            "reads_ns": whole(self.reads_ns),
            "client_link_ns": whole(self.client_link_ns),
        })
    }
}
