//! What must hold of the machines at any instant, looked at every second: logs of a PG's members are prefixes of its
//! primary's, nothing grows without bound, nothing waits for long without a reason.

use crate::cluster::SimCluster;
use crate::network::NodeId;
use nacre_osd::pg::{Pg, State};
use nacre_types::{EVersion, Needs, OsdId, PgId, RequestId};
use std::collections::BTreeMap;
use std::time::Duration;

/// After so long `its turn` is no reason to wait any more.
const TURN_MAX: Duration = Duration::from_secs(20);
/// Requests of one client that may be under way.
const CLIENT_CALLS_MAX: usize = 4096;

/// A member's log, as far as it is compared.
struct Log {
    osd: OsdId,
    interval: nacre_types::Epoch,
    tail: EVersion,
    head: EVersion,
    entries: BTreeMap<EVersion, RequestId>,
}

impl Log {
    fn of(osd: OsdId, pg: &Pg) -> Log {
        let entries = pg.log.entries().map(|entry| (entry.version, entry.request)).collect();
        Log { osd, interval: pg.interval(), tail: pg.log.tail(), head: pg.log.head(), entries }
    }

    /// Whether a member's log says the same as its primary's, where both say something.
    fn is_prefix_of(&self, primary: &Log, pg: PgId) -> Result<(), String> {
        let wrong = |what: String| Err(format!("log prefixes: {pg} in interval {}: {what}", self.interval));
        if self.head > primary.head {
            return wrong(format!(
                "{} has entries up to {}, its primary {} up to {}",
                self.osd, self.head, primary.osd, primary.head
            ));
        }
        let from = self.tail.max(primary.tail);
        let mut theirs = primary.entries.range(from..).filter(|(version, _)| **version > from);
        for (version, request) in self.entries.range(from..).filter(|(version, _)| **version > from) {
            match theirs.next() {
                Some((other, theirs)) if (other, theirs) == (version, request) => {}
                other => {
                    return wrong(format!(
                        "{} has {version} of {request:?} where its primary {} has {other:?}",
                        self.osd, primary.osd
                    ));
                }
            }
        }
        Ok(())
    }
}

/// One look at everything.
pub fn audit(cluster: &mut SimCluster) -> Result<(), String> {
    let log_max = 3 * cluster.world.options.log_entries + 2 * nacre_osd::Tunables::default().queued_ops_max;
    let mut primaries: BTreeMap<PgId, Log> = BTreeMap::new();
    let mut members: BTreeMap<PgId, Vec<Log>> = BTreeMap::new();
    let ids: Vec<NodeId> = cluster.world.nodes.keys().copied().collect();
    for id in ids {
        let now = cluster.world.local(id);
        let Some(slot) = cluster.world.nodes.get_mut(&id) else { continue };
        let paused = slot.paused_until > cluster.world.now;
        if let Some(client) = slot.node.client() {
            let (calls, _) = client.cluster.inflight();
            bound(&id.to_string(), "requests under way", calls, CLIENT_CALLS_MAX)?;
        }
        let Some(osd) = slot.node.osd() else { continue };
        let osd = osd.osd();
        let (me, tunables) = (osd.config().id, &osd.config().tunables);
        for pg in osd.pgs() {
            let name = format!("{me}: {}", pg.id);
            bound(&name, "log entries", pg.log.len(), log_max)?;
            bound(&name, "operations", pg.op_count(), tunables.queued_ops_max)?;
            bound(&name, "remembered requests", pg.log.dup_count(), nacre_osd::log::DUPS_MAX)?;
            let stuck = |since| !paused && now.since(since) > TURN_MAX;
            if let Some(why) = pg.why().iter().find(|why| why.needs == Needs::Turn && stuck(why.since)) {
                return Err(format!("stuck: {name}: {} waits for no reason since {}", why.on, why.since));
            }
            match pg.state() {
                State::Active if pg.is_primary() => drop(primaries.insert(pg.id, Log::of(me, pg))),
                State::ReplicaActive => members.entry(pg.id).or_default().push(Log::of(me, pg)),
                _ => {}
            }
        }
    }
    for (pg, logs) in &members {
        let Some(primary) = primaries.get(pg) else { continue };
        for log in logs.iter().filter(|log| log.interval == primary.interval) {
            log.is_prefix_of(primary, *pg)?;
        }
    }
    Ok(())
}

fn bound(who: &str, what: &str, count: usize, most: usize) -> Result<(), String> {
    if count <= most {
        return Ok(());
    }
    Err(format!("bounds: {who} has {count} {what}, at most {most} are allowed"))
}

/// At the end, when all is clean and nothing is written: the members of a PG count the same objects and bytes.
pub fn accounts(cluster: &mut SimCluster) -> Result<(), String> {
    let Some(map) = cluster.newest_map() else { return Ok(()) };
    for pg in map.pgs() {
        let Some(place) = map.pg(pg) else { continue };
        let mut counts: Vec<(OsdId, u64, u64)> = Vec::new();
        for &osd in &place.acting {
            let slot = cluster.world.nodes.get_mut(&NodeId::Osd(osd.0 as usize));
            let node = slot.and_then(|slot| slot.node.osd());
            if let Some(copy) = node.and_then(|node| node.osd().pg(pg)) {
                counts.push((osd, copy.info.objects, copy.info.bytes));
            }
        }
        if counts.windows(2).any(|two| (two[0].1, two[0].2) != (two[1].1, two[1].2)) {
            let told: Vec<String> = counts
                .iter()
                .map(|(osd, objects, bytes)| format!("{osd} {objects} objects, {bytes} bytes"))
                .collect();
            return Err(format!("accounts: {pg}: {}", told.join("; ")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::{ClientId, Epoch};

    #[test]
    fn another_entry_a_hole_and_one_too_many_are_found() {
        let log = |osd, entries: &[(u64, u64)]| Log {
            osd: OsdId(osd),
            interval: Epoch(3),
            tail: EVersion::ZERO,
            head: EVersion::new(Epoch(3), entries.last().map_or(0, |entry| entry.0)),
            entries: entries
                .iter()
                .map(|&(seq, request)| {
                    (EVersion::new(Epoch(3), seq), RequestId { client: ClientId(1), seq: request })
                })
                .collect(),
        };
        let pg = PgId::new(nacre_types::PoolId(1), 0);
        let primary = log(0, &[(1, 1), (2, 2), (3, 3)]);
        assert_eq!(log(1, &[(1, 1), (2, 2)]).is_prefix_of(&primary, pg), Ok(()));
        assert!(log(1, &[(1, 1), (2, 9)]).is_prefix_of(&primary, pg).is_err(), "another request");
        assert!(log(1, &[(1, 1), (3, 3)]).is_prefix_of(&primary, pg).is_err(), "a hole");
        assert!(log(1, &[(1, 1), (2, 2), (3, 3), (4, 4)]).is_prefix_of(&primary, pg).is_err(), "too far");
        assert!(bound("x", "things", 5, 4).is_err());
    }
}
