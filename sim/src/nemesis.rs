//! What goes wrong during the safety phase: one fault after the other, as the options allow, and their ends.
//!
//! **Fault budget.** Crashes, power cuts, partitions and pauses are not limited: the machines must survive any number
//! of them. What destroys data for ever (replaced disks, rot) happens to one OSD at a time, and only while every PG
//! is clean: else it could be the last good copy, and losing it no bug. Rot stays hidden in a copy that counts as
//! clean, so it also needs a pool that acknowledges no write with a single copy. So do lost and misdirected writes, which
//! befall only the data area of the same disk (a journal that lies is a disk that lies about flushes, after which no
//! restart of its OSD may count as one of the same), and blocks that cannot be read. What a device loses that lied about
//! flushes its OSD has forgotten and does not know: [`lies`] says when that may happen.

mod disks;
mod lies;
mod links;
pub(crate) mod operators;

use crate::cluster::SimCluster;
use crate::network::NodeId;
use crate::run;
use nacre_client::ErrorCode;
use nacre_types::{Instant, Rng};
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

pub struct Nemesis {
    rng: Rng,
    next_at: Instant,
    /// When to bring what back.
    ends: Vec<(Instant, End)>,
    /// The disk being replaced: its uuid, and its number once the monitors have given it one.
    replacing: Option<(String, Rc<Cell<Option<usize>>>)>,
    replaced: u64,
    /// The one OSD whose disk rots.
    rotten: Option<usize>,
    /// What becomes of a device that lies about flushes.
    lie: Option<lies::Lie>,
    /// The one OSD whose disk fails requests at the moment.
    flaky: Option<usize>,
    /// OSDs that are lost and still in the map.
    gone: Vec<usize>,
    operators: operators::Operators,
    /// More than the first fault at a time: mark of what began last.
    load: u64,
}

#[derive(Clone, Copy, Debug)]
enum End {
    StartOsd(usize),
    StartMon(usize),
    Heal,
    Unclog(NodeId, NodeId),
    Quicken(usize),
    Steady(usize),
    FullRatio,
    FlagOff(&'static str),
}

#[derive(Clone, Copy)]
enum Fault {
    CrashOsd { power: bool },
    CrashMon,
    Partition,
    Pause,
    Slow,
    Blackout,
    Reweight,
    Replace,
    Rot,
    SpoilWrite { misdirect: bool },
    Unreadable,
    Lie,
    Transient,
    Sluggish,
    Skew,
    Clog,
    Partial,
    Upmap,
    Resize,
    Crush,
    Mons,
    Gone,
    Orders,
    Overload,
}

impl Nemesis {
    pub fn new(cluster: &mut SimCluster) -> Nemesis {
        let mut nemesis = Nemesis {
            rng: cluster.world.rng.fork(),
            next_at: Instant::ZERO,
            ends: Vec::new(),
            replacing: None,
            replaced: 0,
            rotten: None,
            lie: None,
            flaky: None,
            gone: Vec::new(),
            operators: operators::Operators::default(),
            load: 0,
        };
        nemesis.prepare(cluster);
        nemesis.plan(cluster);
        nemesis
    }

    fn plan(&mut self, cluster: &SimCluster) {
        let mean = cluster.world.options.fault_interval;
        self.next_at = cluster.world.now + mean.mul_f64(0.2 + 1.6 * self.rng.below(1000) as f64 / 1000.0);
    }

    /// Called every now and then during the safety phase.
    pub fn act(&mut self, cluster: &mut SimCluster) {
        let now = cluster.world.now;
        let mut due = Vec::new();
        self.ends.retain(|&(at, end)| {
            if at <= now {
                due.push(end);
            }
            at > now
        });
        for end in due {
            self.end(cluster, end);
        }
        self.finish_replacing(cluster);
        self.finish_mons(cluster);
        self.tend_lie(cluster);
        if now >= self.next_at {
            self.plan(cluster);
            if !self.is_held(now) {
                self.begin(cluster);
            }
        }
    }

    /// Nothing is broken any more.
    pub fn heal(&mut self, cluster: &mut SimCluster) -> Result<(), String> {
        self.ends.clear();
        cluster.world.heal_network();
        let calm = cluster.world.options.calm();
        cluster.world.network.calm(calm);
        cluster.world.unskew();
        self.heal_disks(cluster);
        cluster.start_everything();
        self.replace_refused(cluster);
        cluster.world.trace.note(cluster.world.now, format_args!("healed"));
        if self.replacing.is_some() {
            let limit = cluster.world.options.liveness;
            let done = cluster.run_while(limit, |cluster| {
                self.finish_replacing(cluster);
                self.replacing.is_some()
            });
            if !done {
                let waiting = cluster.waiting().join("; ");
                return Err(format!("a disk could not be replaced within {limit:?}: {waiting}"));
            }
        }
        self.undo_orders(cluster)?;
        let ids: Vec<usize> = cluster.osds.iter().copied().collect();
        for &id in &ids {
            run::command(cluster, json!({"prefix": "osd reweight", "id": id, "weight": 1.0}))?;
        }
        Ok(())
    }

    /// An operator takes a dead disk's number away and gets one for the new disk; both may take a while.
    /// With `keep`, the old number stays in the map, marked lost, until all is healed.
    fn replace(&mut self, cluster: &mut SimCluster, at: usize, keep: bool) {
        cluster.destroy_osd(at);
        self.replaced += 1;
        let uuid = format!("00000000-0000-4000-9000-{:012}", self.replaced);
        let number = Rc::new(Cell::new(None));
        let (result, new) = (number.clone(), json!({"prefix": "osd new", "uuid": uuid}));
        let away = match keep {
            true => json!({"prefix": "osd lost", "id": at, "yes": true}),
            false => json!({"prefix": "osd rm", "id": at, "force": true}),
        };
        if keep {
            self.gone.push(at);
        }
        cluster.as_admin(move |handle| async move {
            for order in [json!({"prefix": "osd down", "ids": [at]}), away] {
                loop {
                    match handle.command(order.to_string(), "").await {
                        Ok(_) => break,
                        Err(error) if error.code == ErrorCode::NotFound => break,
                        Err(error) if error.code == ErrorCode::InvalidArgument => panic!("{order}: {error}"),
                        Err(_) => handle.sleep(Duration::from_millis(500)).await,
                    }
                }
            }
            loop {
                let answer = handle.command(new.to_string(), "").await;
                let id = answer.ok().and_then(|reply| serde_json::from_str::<Value>(&reply.json).ok());
                if let Some(id) = id.and_then(|json| json["osdid"].as_u64()) {
                    result.set(Some(id as usize));
                    return;
                }
                handle.sleep(Duration::from_millis(500)).await;
            }
        });
        self.replacing = Some((uuid, number));
    }

    fn finish_replacing(&mut self, cluster: &mut SimCluster) {
        if let Some((uuid, number)) = &self.replacing
            && let Some(at) = number.get()
        {
            cluster.add_osd(at, uuid);
            self.replacing = None;
        }
    }

    fn begin(&mut self, cluster: &mut SimCluster) {
        let f = cluster.world.options.faults;
        let mut choices = Vec::new();
        let mut offer = |on: bool, fault: Fault, weight: usize| {
            if on {
                choices.extend(std::iter::repeat_n(fault, weight));
            }
        };
        offer(f.crash, Fault::CrashOsd { power: false }, 4);
        offer(f.power, Fault::CrashOsd { power: true }, 4);
        offer(f.crash, Fault::CrashMon, 2);
        offer(f.partition, Fault::Partition, 4);
        offer(f.pause, Fault::Pause, 3);
        offer(f.slow, Fault::Slow, 2);
        offer(f.blackout, Fault::Blackout, 1);
        offer(f.reweight, Fault::Reweight, 3);
        offer(f.replace, Fault::Replace, 3);
        offer(f.rot, Fault::Rot, 4);
        offer(f.lost, Fault::SpoilWrite { misdirect: false }, 4);
        offer(f.misdirect, Fault::SpoilWrite { misdirect: true }, 4);
        offer(f.eio, Fault::Unreadable, 4);
        offer(f.sluggish, Fault::Sluggish, 3);
        offer(f.clock, Fault::Skew, 3);
        offer(f.clog, Fault::Clog, 3);
        offer(f.partial, Fault::Partial, 3);
        offer(f.upmap, Fault::Upmap, 3);
        offer(f.resize, Fault::Resize, 2);
        offer(f.crush, Fault::Crush, 3);
        offer(f.mons, Fault::Mons, 3);
        offer(f.gone, Fault::Gone, 3);
        offer(f.orders, Fault::Orders, 4);
        offer(f.overload, Fault::Overload, 2);
        offer(f.lie, Fault::Lie, 4);
        offer(f.transient, Fault::Transient, 4);
        let Some(&fault) = self.rng.pick(&choices) else { return };
        let now = cluster.world.now;
        // Short and long outages find different things: below and above the heartbeat grace.
        let outage = Duration::from_millis(*self.rng.pick(&[200, 1500, 6000, 15_000]).expect("not empty"));
        match fault {
            Fault::CrashOsd { power } => {
                let Some(at) = self.some_osd(cluster) else { return };
                cluster.world.mark(if power { "fault: power" } else { "fault: crash" });
                self.crash(cluster, at, power);
                self.ends.push((now + outage, End::StartOsd(at)));
            }
            Fault::CrashMon => {
                let at = self.rng.below(cluster.world.options.mons as u64) as usize;
                if cluster.mon_is_up(at) {
                    cluster.world.mark("fault: monitor crash");
                    cluster.crash_mon(at);
                    self.ends.push((now + outage, End::StartMon(at)));
                }
            }
            Fault::Partition => {
                cluster.world.mark("fault: partition");
                self.partition(cluster);
                self.ends.push((now + outage, End::Heal));
            }
            Fault::Pause => {
                let Some(node) = self.some_node(cluster) else { return };
                cluster.world.mark("fault: pause");
                cluster.world.pause(node, outage);
            }
            Fault::Slow => {
                let (Some(a), Some(b)) = (self.some_node(cluster), self.some_node(cluster)) else { return };
                let extra = Duration::from_millis(self.rng.range(5, 800));
                cluster.world.mark("fault: slow link");
                cluster.world.network.slow(a, b, extra);
                cluster.world.trace.note(now, format_args!("{a} -> {b} slows down by {extra:?}"));
                self.ends.push((now + outage, End::Heal));
            }
            Fault::Reweight => {
                let at = *self.rng.pick(&cluster.osds.iter().copied().collect::<Vec<_>>()).unwrap_or(&0);
                let order = match self.rng.below(4) {
                    0 => json!({"prefix": "osd out", "ids": [at]}),
                    1 => json!({"prefix": "osd in", "ids": [at]}),
                    2 => json!({"prefix": "osd reweight", "id": at, "weight": 1.0}),
                    _ => json!({"prefix": "osd reweight", "id": at, "weight": 0.5}),
                };
                cluster.world.mark("fault: reweight");
                self.order(cluster, order);
            }
            Fault::Replace => {
                let Some(at) = self.some_osd(cluster) else { return };
                // One more than copies: else nobody could take over.
                let enough =
                    cluster.osds.len() > cluster.world.options.size as usize || self.rng.chance(1, 2);
                if enough && self.replacing.is_none() && cluster.is_clean() {
                    cluster.world.mark("fault: replaced disk");
                    self.replace(cluster, at, false);
                }
            }
            Fault::Rot => {
                let Some(some) = self.some_osd(cluster) else { return };
                let at = *self.rotten.get_or_insert(some);
                if !cluster.is_clean() {
                    return;
                }
                let rng = &mut self.rng;
                let rotted = cluster.world.with_node(NodeId::Osd(at), |node, _, _, _| {
                    node.osd().is_some_and(|osd| (0..3).any(|_| osd.rot(rng)))
                });
                if rotted == Some(true) {
                    cluster.world.mark("fault: rot");
                    cluster.world.trace.note(now, format_args!("bits rot on osd.{at}"));
                }
            }
            Fault::SpoilWrite { misdirect } => self.spoil_write(cluster, misdirect),
            Fault::Unreadable => self.unreadable(cluster),
            Fault::Lie => self.lie(cluster, outage),
            Fault::Transient => self.transient(cluster, outage),
            Fault::Sluggish => self.sluggish(cluster, outage),
            Fault::Skew => self.skew(cluster),
            Fault::Clog => self.clog(cluster, outage),
            Fault::Partial => {
                self.partial(cluster);
                self.ends.push((now + outage, End::Heal));
            }
            Fault::Upmap => self.upmap(cluster),
            Fault::Resize => self.resize(cluster),
            Fault::Crush => self.crush(cluster),
            Fault::Mons => self.mons(cluster),
            Fault::Gone => {
                let Some(at) = self.some_osd(cluster) else { return };
                if self.replacing.is_none() && cluster.is_clean() {
                    cluster.world.mark("fault: lost OSD");
                    self.replace(cluster, at, true);
                }
            }
            Fault::Orders => self.orders(cluster, outage),
            Fault::Overload => self.overload(cluster),
            Fault::Blackout => {
                cluster.world.mark("fault: blackout");
                for at in cluster.osds.clone() {
                    self.crash(cluster, at, true);
                    let after = Duration::from_millis(self.rng.range(100, 8000));
                    self.ends.push((now + after, End::StartOsd(at)));
                }
                for at in 0..cluster.world.options.mons {
                    cluster.crash_mon(at);
                    let after = Duration::from_millis(self.rng.range(100, 8000));
                    self.ends.push((now + after, End::StartMon(at)));
                }
            }
        }
    }

    fn end(&mut self, cluster: &mut SimCluster, end: End) {
        match end {
            End::StartOsd(at) => cluster.start_osd(at),
            End::StartMon(at) => cluster.start_mon(at),
            End::Heal => {
                cluster.world.trace.note(cluster.world.now, format_args!("network heals"));
                cluster.world.heal_network();
            }
            End::Unclog(a, b) => {
                cluster.world.network.uncut(cluster.world.now, a, b);
                cluster.world.take_network_events();
            }
            End::Quicken(at) => {
                cluster.world.with_node(NodeId::Osd(at), |node, _, _, _| {
                    node.osd().into_iter().for_each(|osd| osd.slow(1));
                });
            }
            End::Steady(at) => self.steady(cluster, at),
            End::FullRatio => self.order(cluster, json!({"prefix": "osd set-full-ratio", "ratio": 0.95})),
            End::FlagOff(flag) => self.order(cluster, json!({"prefix": "osd unset", "key": flag})),
        }
    }

    fn some_osd(&mut self, cluster: &SimCluster) -> Option<usize> {
        let up: Vec<usize> = cluster.osds.iter().copied().filter(|&at| cluster.osd_is_up(at)).collect();
        self.rng.pick(&up).copied()
    }

    fn some_node(&mut self, cluster: &SimCluster) -> Option<NodeId> {
        let nodes: Vec<NodeId> = cluster.world.nodes.keys().copied().collect();
        self.rng.pick(&nodes).copied()
    }

    /// Cuts nodes off: one from all, two groups from each other, or one direction of one link.
    fn partition(&mut self, cluster: &mut SimCluster) {
        let now = cluster.world.now;
        let nodes: Vec<NodeId> = (0..cluster.world.options.mons)
            .map(NodeId::Mon)
            .chain(cluster.osds.iter().copied().map(NodeId::Osd))
            .chain((0..cluster.world.options.clients).map(NodeId::Client))
            .collect();
        let side: Vec<bool> = match self.rng.below(3) {
            0 => {
                let alone = self.rng.below(nodes.len() as u64) as usize;
                (0..nodes.len()).map(|at| at == alone).collect()
            }
            1 => nodes.iter().map(|_| self.rng.chance(1, 2)).collect(),
            _ => {
                let (Some(&a), Some(&b)) = (self.rng.pick(&nodes), self.rng.pick(&nodes)) else { return };
                cluster.world.trace.note(now, format_args!("{a} -> {b} is cut"));
                cluster.world.network.cut(now, a, b);
                cluster.world.take_network_events();
                return;
            }
        };
        let one_way = self.rng.chance(1, 4);
        let inside: Vec<String> =
            nodes.iter().zip(&side).filter(|(_, side)| **side).map(|(node, _)| node.to_string()).collect();
        let how = if one_way { "cannot send to the rest" } else { "are cut off" };
        cluster.world.trace.note(now, format_args!("{} {how}", inside.join(" ")));
        for (a, &a_side) in nodes.iter().zip(&side) {
            for (b, &b_side) in nodes.iter().zip(&side) {
                if a_side && !b_side {
                    cluster.world.network.cut(now, *a, *b);
                    if !one_way {
                        cluster.world.network.cut(now, *b, *a);
                    }
                }
            }
        }
        cluster.world.take_network_events();
    }
}
