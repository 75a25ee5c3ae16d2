//! Disks that spoil, stall or slow down.

use super::{End, Nemesis};
use crate::cluster::SimCluster;
use crate::network::NodeId;
use std::time::Duration;

impl Nemesis {
    /// The one OSD whose disk may spoil what it holds, if no other copy is in danger at the moment.
    fn spoilt_osd(&mut self, cluster: &mut SimCluster) -> Option<usize> {
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

    /// No disk is slow any more or spoils another write. What is spoilt stays so.
    pub(super) fn heal_disks(&mut self, cluster: &mut SimCluster) {
        for at in cluster.osds.clone() {
            cluster.world.with_node(NodeId::Osd(at), |node, _, _, _| {
                node.osd().into_iter().for_each(|osd| osd.heal_disk());
            });
        }
    }
}
