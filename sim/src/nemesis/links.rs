//! Links and clocks that trouble nodes without cutting them off.

use super::{End, Nemesis};
use crate::cluster::SimCluster;
use crate::network::{NodeId, Trouble};
use nacre_types::Rng;
use std::time::Duration;

/// Drift that a lease must bear: its members add one part in 50.
const DRIFT_PPM_MAX: u64 = 2000;

impl Nemesis {
    /// What is there from the beginning of the safety phase on.
    pub(super) fn prepare(&mut self, cluster: &mut SimCluster) {
        let faults = cluster.world.options.faults;
        let mut rng = Rng::new(cluster.world.options.seed ^ 0x006c_696e_6b73);
        let trouble = Trouble {
            connect_fails_percent: if faults.connect { rng.range(5, 60) } else { 0 },
            half_open_per_100k: if faults.halfopen { rng.range(5, 80) } else { 0 },
        };
        cluster.world.network.trouble(trouble, rng);
        // From the next start of a process on.
        cluster.world.drift_ppm_max = if faults.clock { DRIFT_PPM_MAX } else { 0 };
    }

    /// A wall clock jumps: by a little, by an hour, forwards or back.
    pub(super) fn skew(&mut self, cluster: &mut SimCluster) {
        let Some(node) = self.some_node(cluster) else { return };
        let most = *self.rng.pick(&[200, 5_000, 3_600_000]).expect("not empty");
        let skew = self.rng.range(0, 2 * most + 1) as i64 - most as i64;
        // An OSD's wall clock decides when a lock runs out, and the workload holds it to that.
        if matches!(node, NodeId::Osd(_)) && cluster.world.options.work.locks {
            return;
        }
        cluster.world.mark("fault: wall clock jump");
        cluster.world.skew(node, skew);
    }

    /// Links hold what they carry: all of half of the daemons, beginning one by one and ending one by one, and some pairs.
    pub(super) fn clog(&mut self, cluster: &mut SimCluster, outage: Duration) {
        let now = cluster.world.now;
        // Longer than a session's patience is a partition.
        let length = outage.min(Duration::from_secs(8));
        let nodes: Vec<NodeId> = cluster.world.nodes.keys().copied().collect();
        let mut chosen: Vec<NodeId> =
            nodes.iter().copied().filter(|node| !matches!(node, NodeId::Client(_))).collect();
        self.rng.shuffle(&mut chosen);
        chosen.truncate(chosen.len().div_ceil(2));
        let mut links: Vec<(NodeId, NodeId)> = Vec::new();
        for &a in &chosen {
            links.extend(nodes.iter().filter(|b| **b != a).map(|&b| (a, b)));
        }
        for _ in 0..6 {
            if let (Some(&a), Some(&b)) = (self.rng.pick(&nodes), self.rng.pick(&nodes)) {
                links.push((a, b));
            }
        }
        let names: Vec<String> = chosen.iter().map(ToString::to_string).collect();
        cluster.world.mark("fault: clogged links");
        cluster.world.trace.note(now, format_args!("links from {} clog for {length:?}", names.join(" ")));
        let mut at = None;
        let mut end = now + length;
        for (a, b) in links {
            if at != Some(a) {
                at = Some(a);
                end = now + length.mul_f64(0.5 + self.rng.below(500) as f64 / 1000.0);
            }
            cluster.world.network.cut(now, a, b);
            self.ends.push((end, End::Unclog(a, b)));
        }
        cluster.world.take_network_events();
    }

    /// Two groups that cannot talk, with nodes between that hear both; or pairs at random.
    pub(super) fn partial(&mut self, cluster: &mut SimCluster) {
        let now = cluster.world.now;
        let daemons: Vec<NodeId> =
            cluster.world.nodes.keys().copied().filter(|node| !matches!(node, NodeId::Client(_))).collect();
        let bridge = self.rng.chance(1, 2);
        // 0 and 1 are the sides, 2 hears both.
        let sides: Vec<u64> =
            daemons.iter().map(|_| if self.rng.chance(1, 4) { 2 } else { self.rng.below(2) }).collect();
        let mut cuts = 0;
        for (at, &a) in daemons.iter().enumerate() {
            for (other, &b) in daemons.iter().enumerate().take(at) {
                let cut = match bridge {
                    true => sides[at] != 2 && sides[other] != 2 && sides[at] != sides[other],
                    false => self.rng.chance(1, 4),
                };
                if cut {
                    cuts += 1;
                    cluster.world.network.cut(now, a, b);
                    cluster.world.network.cut(now, b, a);
                }
            }
        }
        cluster.world.mark("fault: partial partition");
        let how = if bridge { "with a bridge" } else { "at random" };
        cluster.world.trace.note(now, format_args!("{cuts} pairs are cut, {how}"));
        cluster.world.take_network_events();
    }
}
