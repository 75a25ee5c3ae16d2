//! Operators: everything they may order of a healthy cluster, ordered of one that is not.

use super::{End, Nemesis};
use crate::cluster::SimCluster;
use crate::network::{NodeId, mon_name};
use crate::run::{self, POOL};
use nacre_client::ErrorCode;
use nacre_maps::MonMap;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// What has been ordered and must be taken back.
#[derive(Default)]
pub(super) struct Operators {
    pinned: Vec<String>,
    racks: u64,
    weights: bool,
    resized: bool,
    orders: bool,
    mons: Option<Membership>,
    /// Orders without an answer yet.
    open: Rc<Cell<u64>>,
}

/// A change of the monitors under way.
struct Membership {
    at: usize,
    /// What the answer to `mon add` says; the new monitor is started with it.
    joining: Rc<RefCell<Option<MonMap>>>,
    joined: bool,
    /// `mon rm` was answered.
    removed: Rc<Cell<bool>>,
    /// Whether it stays in the end.
    stays: bool,
}

/// Weight of a disk in the CRUSH map as the OSDs give it themselves.
const WEIGHT: f64 = 0.0625;
const FLAGS: [&str; 6] = ["noout", "nodown", "norecover", "nobackfill", "noscrub", "pause"];

impl Nemesis {
    /// A command whose answer nobody waits for.
    pub(super) fn order(&mut self, cluster: &mut SimCluster, order: Value) {
        cluster.world.trace.note(cluster.world.now, format_args!("{order}"));
        let open = self.operators.open.clone();
        open.set(open.get() + 1);
        cluster.as_admin(move |handle| async move {
            let _ = handle.command(order.to_string(), "").await;
            open.set(open.get() - 1);
        });
    }

    fn some_pg(&mut self, cluster: &mut SimCluster) -> String {
        format!("1.{:x}", self.rng.below(u64::from(cluster.world.options.pg_num)))
    }

    pub(super) fn upmap(&mut self, cluster: &mut SimCluster) {
        let pgid = self.some_pg(cluster);
        cluster.world.mark("fault: upmap");
        if self.operators.pinned.contains(&pgid) && self.rng.chance(1, 2) {
            return self.order(cluster, json!({"prefix": "osd rm-pg-upmap", "pgid": pgid}));
        }
        let mut ids: Vec<usize> = cluster.osds.iter().copied().collect();
        self.rng.shuffle(&mut ids);
        ids.truncate(cluster.world.options.size as usize);
        self.operators.pinned.push(pgid.clone());
        self.order(cluster, json!({"prefix": "osd pg-upmap", "pgid": pgid, "ids": ids}));
    }

    pub(super) fn resize(&mut self, cluster: &mut SimCluster) {
        let options = cluster.world.options.clone();
        self.operators.resized = true;
        cluster.world.mark("fault: pool resized");
        let lowest = if options.faults.spoils() { 2 } else { 1 };
        let most = cluster.osds.len().min(4) as u64;
        let order = match self.rng.below(2) {
            0 => json!({"prefix": "osd pool set", "pool": POOL, "var": "size",
                "val": self.rng.range(2, most + 1).to_string()}),
            _ => json!({"prefix": "osd pool set", "pool": POOL, "var": "min_size",
                "val": self.rng.range(lowest, u64::from(options.size) + 1).to_string(), "yes": true}),
        };
        self.order(cluster, order);
    }

    pub(super) fn crush(&mut self, cluster: &mut SimCluster) {
        let ids: Vec<usize> = cluster.osds.iter().copied().collect();
        let at = *self.rng.pick(&ids).unwrap_or(&0);
        self.operators.weights = true;
        cluster.world.mark("fault: CRUSH edit");
        match self.rng.below(4) {
            0 => {
                let weight = *self.rng.pick(&[0.0, 0.02, 0.2, WEIGHT]).expect("not empty");
                self.order(
                    cluster,
                    json!({"prefix": "osd crush reweight", "name": format!("osd.{at}"), "weight": weight}),
                );
            }
            1 => {
                let weight = *self.rng.pick(&[0.0, 0.5, 1.0]).expect("not empty");
                self.order(cluster, json!({"prefix": "osd primary-affinity", "id": at, "weight": weight}));
            }
            2 => {
                self.operators.racks += 1;
                let rack = format!("rack{}", self.operators.racks);
                let location = json!({"root": "default"});
                self.order(
                    cluster,
                    json!({"prefix": "osd crush add-bucket", "name": rack, "type": "rack", "location": location}),
                );
            }
            _ => {
                let rack = self.rng.range(0, self.operators.racks + 1);
                let location = match rack {
                    0 => json!({"root": "default"}),
                    rack => json!({"root": "default", "rack": format!("rack{rack}")}),
                };
                self.order(
                    cluster,
                    json!({"prefix": "osd crush move", "name": format!("h{at}"), "location": location}),
                );
            }
        }
    }

    pub(super) fn orders(&mut self, cluster: &mut SimCluster, outage: Duration) {
        let now = cluster.world.now;
        self.operators.orders = true;
        match self.rng.below(5) {
            0 => {
                let Some(at) = self.some_osd(cluster) else { return };
                cluster.world.mark("fault: marked down");
                self.order(cluster, json!({"prefix": "osd down", "ids": [at]}));
            }
            1 => {
                cluster.world.mark("fault: full ratio");
                self.order(cluster, json!({"prefix": "osd set-full-ratio", "ratio": 0.001}));
                self.ends.push((now + outage, End::FullRatio));
            }
            2 | 3 => {
                let flag = *self.rng.pick(&FLAGS).expect("not empty");
                cluster.world.mark("fault: flag");
                self.order(cluster, json!({"prefix": "osd set", "key": flag}));
                self.ends.push((now + outage, End::FlagOff(flag)));
            }
            _ => {
                let pg = self.some_pg(cluster);
                let what = *self.rng.pick(&["scrub", "deep-scrub"]).expect("not empty");
                cluster.world.mark("fault: scrub ordered");
                cluster.world.trace.note(now, format_args!("{what} {pg}"));
                cluster.as_admin(move |handle| async move {
                    if let Ok(pg) = pg.parse() {
                        let _ = handle.pg_admin(pg, what, "{}").await;
                    }
                });
            }
        }
    }

    /// A burst of small writes to objects of their own, all at once.
    pub(super) fn overload(&mut self, cluster: &mut SimCluster) {
        let client = NodeId::Client(self.rng.below(cluster.world.options.clients as u64) as usize);
        let count = self.rng.range(50, 400);
        cluster.world.mark("fault: overload");
        cluster.world.trace.note(cluster.world.now, format_args!("{client} sends {count} writes at once"));
        self.load += 1;
        for at in 0..count {
            let name = format!("load-{}", (self.load * 31 + at) % 64);
            cluster.as_client(client, move |handle| async move {
                if let Ok(pool) = handle.pool(POOL).await {
                    let pool = pool.with_timeout(Some(Duration::from_secs(20)));
                    let _ = pool.object(name).write_full(vec![7; 4096]).await;
                }
            });
        }
    }

    /// Adds a monitor and takes one away: a new one, or one of the first that then comes back with an empty disk.
    pub(super) fn mons(&mut self, cluster: &mut SimCluster) {
        if self.operators.mons.is_some() {
            return;
        }
        let first = cluster.world.options.mons;
        // Members that clients were told of are never gone for good.
        let (at, stays) = match self.rng.below(2) {
            1 if first > 2 => (self.rng.below(first as u64) as usize, true),
            _ => (first, false),
        };
        cluster.world.mark("fault: monitor change");
        let membership =
            Membership { at, joining: Rc::default(), joined: false, removed: Rc::default(), stays };
        let (joining, removed) = (membership.joining.clone(), membership.removed.clone());
        let name = mon_name(at);
        cluster.world.trace.note(cluster.world.now, format_args!("monitor change: mon.{name}"));
        cluster.as_admin(move |handle| async move {
            let rm = json!({"prefix": "mon rm", "name": name}).to_string();
            let add =
                json!({"prefix": "mon add", "name": name, "address": format!("10.0.0.{}:6789", 10 + at)});
            let remove = async || loop {
                match handle.command(rm.clone(), "").await {
                    Ok(_) => break,
                    Err(error) if error.code == ErrorCode::NotFound => break,
                    Err(_) => handle.sleep(Duration::from_millis(700)).await,
                }
            };
            let join = async || loop {
                if let Ok(reply) = handle.command(add.to_string(), "").await
                    && let Ok(json) = serde_json::from_str(&reply.json)
                    && let Some(monmap) = monmap_of(&json)
                {
                    *joining.borrow_mut() = Some(monmap);
                    break;
                }
                handle.sleep(Duration::from_millis(700)).await;
            };
            if stays {
                remove().await;
                removed.set(true);
                handle.sleep(Duration::from_secs(2)).await;
                join().await;
            } else {
                join().await;
                handle.sleep(Duration::from_secs(8)).await;
                remove().await;
                removed.set(true);
            }
        });
        self.operators.mons = Some(membership);
    }

    pub(super) fn finish_mons(&mut self, cluster: &mut SimCluster) {
        let Some(change) = &mut self.operators.mons else { return };
        if change.stays && change.removed.take() {
            cluster.drop_mon(change.at);
            self.ends.retain(|(_, end)| !matches!(end, End::StartMon(at) if *at == change.at));
        }
        if !change.joined
            && let Some(monmap) = change.joining.borrow_mut().take()
        {
            cluster.add_mon(change.at, &monmap);
            change.joined = true;
        }
        let over = if change.stays { change.joined } else { change.removed.get() };
        if over {
            if !change.stays {
                cluster.drop_mon(change.at);
                self.ends.retain(|(_, end)| !matches!(end, End::StartMon(at) if *at == change.at));
            }
            self.operators.mons = None;
        }
    }

    /// Everything is as it was drawn again.
    pub(super) fn undo_orders(&mut self, cluster: &mut SimCluster) -> Result<(), String> {
        let limit = cluster.world.options.liveness;
        // One that found no quorum is sent until it finds one, and would undo what is undone here.
        let open = self.operators.open.clone();
        if !cluster.run_while(limit, |_| open.get() > 0) {
            let waiting = cluster.waiting().join("; ");
            return Err(format!("orders are still without an answer {limit:?} after healing: {waiting}"));
        }
        let changed = cluster.run_while(limit, |cluster| {
            self.finish_mons(cluster);
            self.operators.mons.is_some()
        });
        if !changed {
            let waiting = cluster.waiting().join("; ");
            return Err(format!("a monitor could not be added or removed within {limit:?}: {waiting}"));
        }
        let options = cluster.world.options.clone();
        let mut orders = Vec::new();
        if std::mem::take(&mut self.operators.orders) {
            orders.extend(FLAGS.map(|flag| json!({"prefix": "osd unset", "key": flag})));
            orders.push(json!({"prefix": "osd set-full-ratio", "ratio": 0.95}));
        }
        let set = |var, val: u32| json!({"prefix": "osd pool set", "pool": POOL, "var": var, "val": val.to_string(), "yes": true});
        if std::mem::take(&mut self.operators.resized) {
            orders.extend([set("size", options.size), set("min_size", options.min_size)]);
        }
        if options.faults.full {
            // Where disks are full a copy may wait for room that only clients can make, by deleting.
            orders.push(set("min_size", 1));
        }
        for pgid in std::mem::take(&mut self.operators.pinned) {
            orders.push(json!({"prefix": "osd rm-pg-upmap", "pgid": pgid}));
        }
        for id in std::mem::take(&mut self.gone) {
            orders.push(json!({"prefix": "osd rm", "id": id, "force": true}));
        }
        if std::mem::take(&mut self.operators.weights) {
            for at in cluster.osds.clone() {
                orders.push(
                    json!({"prefix": "osd crush reweight", "name": format!("osd.{at}"), "weight": WEIGHT}),
                );
            }
        }
        for order in orders {
            // What was never there need not be taken back.
            let _ = run::command(cluster, order);
        }
        Ok(())
    }
}

/// The monmap in the answer to `mon add`.
pub(crate) fn monmap_of(json: &Value) -> Option<MonMap> {
    let hex = json["monmap_hex"].as_str()?;
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    MonMap::decode(&bytes?).ok()
}
