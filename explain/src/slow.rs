//! `nacre why-slow`: where the time of a pool's or image's operations goes, and whether one OSD stands out.
//!
//! OSDs keep the stages of operations that clients have measured; here they are added up. Stages of one operation add
//! up to what its client saw, so shares are shares of the client's time.

mod ask;
mod peers;
mod record;
mod report;
mod spread;
#[cfg(test)]
mod tests;

pub use ask::OsdsAsked;
pub(crate) use ask::ask_osds;
pub use peers::OsdTimes;
pub(crate) use report::time;
pub use spread::Spread;

use nacre_client::{Cluster, Result};
use nacre_types::OsdId;
use peers::Peers;
use record::Record;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Every stage, in the order an operation passes them: its name in records, and what people call it.
const STAGES: [(&str, &str); 15] = [
    ("client_queue", "client: queue"),
    ("retries", "client: refused or lost, sent again"),
    ("network", "network: client and primary"),
    ("pg", "primary: PG not active, or no lease"),
    ("lock", "primary: earlier operations on the object"),
    ("recovery", "primary: object in recovery or scrub"),
    ("read", "primary: disk reads"),
    ("commit", "primary: commit of a request sent twice"),
    ("journal_queue", "primary: queue of the journal"),
    ("journal_write", "primary: journal write"),
    ("journal_flush", "primary: journal flush"),
    ("replica_network", "network: primary and slowest replica"),
    ("replica_queue", "slowest replica: queue of the journal"),
    ("replica_write", "slowest replica: journal write"),
    ("replica_flush", "slowest replica: journal flush"),
];

/// Where the time goes.
#[derive(Clone, PartialEq, Debug)]
pub struct Slowness {
    /// POOL or POOL/IMAGE.
    pub of: String,
    pub window: Duration,
    pub asked: OsdsAsked,
    /// Measured operations whose clients have not told yet what they saw: not among the others.
    pub untold: usize,
    pub writes: Option<Times>,
    pub reads: Option<Times>,
}

/// Of writes, or of reads.
#[derive(Clone, PartialEq, Debug)]
pub struct Times {
    pub write: bool,
    /// Measured operations.
    pub measured: usize,
    /// As the clients saw them.
    pub total: Spread,
    /// In the order an operation passes them; only those that took any time.
    pub stages: Vec<Stage>,
    pub osds: Vec<OsdTimes>,
    pub blame: Blame,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Stage {
    pub name: String,
    pub title: String,
    pub spread: Spread,
    /// Of the clients' time, from 0 to 1.
    pub share: f64,
}

/// The largest stage, and the OSD that is to blame for it, if one stands out against its peers.
#[derive(Clone, PartialEq, Debug)]
pub struct Blame {
    pub stage: String,
    /// Two are the ends of a link.
    pub osds: Vec<OsdId>,
    pub says: String,
}

/// Where the time of a pool's operations goes, or of an image's; of those answered in the last `window`.
pub async fn why_slow(
    cluster: &Cluster,
    pool: &str,
    image: Option<&str>,
    window: Duration,
) -> Result<Slowness> {
    let pool = cluster.pool(pool).await?;
    let (of, prefix) = match image {
        Some(name) => {
            (format!("{}/{name}", pool.name()), format!("data.{}.", pool.image_info(name).await?.id))
        }
        None => (pool.name().to_string(), String::new()),
    };
    let asked = json!({"pool": pool.id().0, "prefix": prefix, "max_age_ms": window.as_millis() as u64});
    let (answers, asked) = ask_osds(cluster, "stages", &asked).await?;
    Ok(Slowness::add_up(of, window, &answers, asked))
}

impl Slowness {
    /// What OSDs answered to `stages`, added up.
    pub fn add_up(
        of: String,
        window: Duration,
        answers: &BTreeMap<OsdId, Value>,
        asked: OsdsAsked,
    ) -> Slowness {
        let of_osd = |(&osd, answer): (&OsdId, &Value)| {
            let records = answer["records"].as_array().into_iter().flatten();
            records.filter_map(move |record| Record::read(osd, record)).collect::<Vec<_>>()
        };
        let records: Vec<Record> = answers.iter().flat_map(of_osd).collect();
        let (told, untold): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| record.total_ns.is_some());
        let (writes, reads): (Vec<_>, Vec<_>) = told.into_iter().partition(|record| record.write);
        let (writes, reads) = (Times::of(true, &writes), Times::of(false, &reads));
        Slowness { of, window, asked, untold: untold.len(), writes, reads }
    }
}

impl Times {
    fn of(write: bool, records: &[Record]) -> Option<Times> {
        let spread = |ns: &dyn Fn(&Record) -> u64| {
            Spread::of(records.iter().map(|record| (ns(record), record.weight)).collect())
        };
        let total = spread(&|record| record.total_ns.unwrap_or_default())?;
        let mut stages = Vec::new();
        let known = STAGES.iter().map(|(name, title)| (name.to_string(), title.to_string()));
        // What a newer OSD tells of.
        let new: BTreeMap<String, String> = records
            .iter()
            .flat_map(|record| record.stages.keys())
            .filter(|name| !STAGES.iter().any(|(known, _)| known == name))
            .map(|name| (name.clone(), name.clone()))
            .collect();
        for (name, title) in known.chain(new) {
            let of_stage = spread(&|record: &Record| record.stages.get(&name).copied().unwrap_or_default())?;
            if of_stage.mean_ns > 0.0 {
                let share = of_stage.mean_ns / total.mean_ns.max(1.0);
                stages.push(Stage { name, title, spread: of_stage, share });
            }
        }
        let peers = Peers::of(records);
        let blame = report::blame(write, &total, &stages, &peers);
        let osds = peers.into_osds();
        Some(Times { write, measured: records.len(), total, stages, osds, blame })
    }
}
