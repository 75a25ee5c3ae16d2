//! Disks that spoil, stall or slow down.

use super::{End, Nemesis};
use crate::cluster::SimCluster;
use crate::network::NodeId;
use nacre_store::testing::Flaky;
use std::time::Duration;

impl Nemesis {
    /// The one OSD whose disk may spoil what it holds, if no other copy is in danger at the moment.
    pub(super) fn spoilt_osd(&mut self, cluster: &mut SimCluster) -> Option<usize> {
        let some = self.some_osd(cluster)?;
        let at = *self.rotten.get_or_insert(some);
        cluster.is_clean().then_some(at)
    }

    pub(super) fn spoil_write(&mut self, cluster: &mut SimCluster, misdirect: bool) {
        let Some(at) = self.spoilt_osd(cluster) else { return };
        let armed = cluster.world.with_node(NodeId::Osd(at), |node, _, _, _| {
            node.osd().map(|osd| osd.spoil_write(misdirect)).is_some()
        });
        if armed == Some(true) {
            let (mark, how) = match misdirect {
                true => ("fault: misdirected write", "lands beside its place"),
                false => ("fault: lost write", "is lost"),
            };
            cluster.world.mark(mark);
            cluster.world.trace.note(cluster.world.now, format_args!("a write on osd.{at} {how}"));
        }
    }

    pub(super) fn unreadable(&mut self, cluster: &mut SimCluster) {
        let Some(at) = self.spoilt_osd(cluster) else { return };
        let rng = &mut self.rng;
        let broken = cluster.world.with_node(NodeId::Osd(at), |node, _, _, _| {
            node.osd().is_some_and(|osd| (0..2).any(|_| osd.break_block(rng)))
        });
        if broken == Some(true) {
            cluster.world.mark("fault: unreadable block");
            cluster.world.trace.note(cluster.world.now, format_args!("a block of osd.{at} cannot be read"));
        }
    }

    /// A disk gets slow, up to standing still for seconds per request.
    pub(super) fn sluggish(&mut self, cluster: &mut SimCluster, outage: Duration) {
        let Some(at) = self.some_osd(cluster) else { return };
        let slowness = *self.rng.pick(&[5, 50, 500]).expect("not empty");
        cluster.world.with_node(NodeId::Osd(at), |node, _, _, _| {
            node.osd().into_iter().for_each(|osd| osd.slow(slowness));
        });
        cluster.world.mark("fault: slow disk");
        let now = cluster.world.now;
        cluster.world.trace.note(now, format_args!("the disk of osd.{at} is {slowness} times slower"));
        self.ends.push((now + outage, End::Quicken(at)));
    }

    /// Reads, writes or flushes of a disk, or flushes of its index, fail now and then.
    pub(super) fn transient(&mut self, cluster: &mut SimCluster, outage: Duration) {
        let Some(at) = self.some_osd(cluster).filter(|_| self.flaky.is_none()) else { return };
        let permille = *self.rng.pick(&[5, 50, 300]).expect("not empty");
        let (mark, what, flaky, index) = match self.rng.below(5) {
            0 | 1 => {
                ("fault: passing read errors", "reads", Flaky { reads: permille, ..Flaky::default() }, 0)
            }
            2 => ("fault: passing write errors", "writes", Flaky { writes: permille, ..Flaky::default() }, 0),
            3 => {
                ("fault: passing flush errors", "flushes", Flaky { flushes: permille, ..Flaky::default() }, 0)
            }
            _ => ("fault: passing index errors", "flushes of the index", Flaky::default(), permille),
        };
        cluster.with_disk(at, |disk, kv| {
            disk.set_flaky(flaky);
            kv.set_flaky(index);
        });
        self.flaky = Some(at);
        cluster.world.mark(mark);
        let now = cluster.world.now;
        cluster
            .world
            .trace
            .note(now, format_args!("{permille} of 1000 {what} of osd.{at} fail for {outage:?}"));
        self.ends.push((now + outage, End::Steady(at)));
    }

    pub(super) fn steady(&mut self, cluster: &mut SimCluster, at: usize) {
        self.flaky = None;
        cluster.with_disk(at, |disk, kv| {
            disk.set_flaky(Flaky::default());
            kv.set_flaky(0);
        });
        cluster.world.trace.note(cluster.world.now, format_args!("no request of osd.{at} fails any more"));
    }

    /// No disk is slow any more or spoils another write. What is spoilt stays so.
    pub(super) fn heal_disks(&mut self, cluster: &mut SimCluster) {
        for at in cluster.osds.clone() {
            cluster.world.with_node(NodeId::Osd(at), |node, _, _, _| {
                node.osd().into_iter().for_each(|osd| osd.slow(1));
            });
            // Also of one that is down.
            cluster.with_disk(at, |disk, _| {
                disk.misdirect_writes(0);
                disk.lose_writes(0);
            });
        }
        if let Some(at) = self.flaky {
            self.steady(cluster, at);
        }
        self.end_lie(cluster);
    }
}
