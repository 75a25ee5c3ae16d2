//! A whole simulated cluster: monitors, OSDs, clients, and what operators do to them.

use crate::network::{NodeId, mon_name};
use crate::nodes::{ClientNode, MonDisk, MonNode, OsdDisk, OsdNode, Refusal, SimNode};
use crate::options::Options;
use crate::trace::Trace;
use crate::world::{World, entity, osd_address};
use nacre_client::{ClientConfig, ClientEvent, Cluster};
use nacre_maps::{MonMap, OsdMap};
use nacre_mon::{Bootstrap, Mon, MonConfig};
use nacre_osd::{OsdConfig, Tunables};
use nacre_store::OpenError;
use nacre_store::testing::{Loss, SimDisk, SimKv};
use nacre_types::{ClientId, EVersion, EntityName, Instant, OsdId, PgId};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

pub const FSID: &str = "5e1f0000-0000-4000-8000-000000000001";
/// More than in a real cluster: what follows from it is to meet all faults.
const MEASURE_ONE_IN: u32 = 3;
/// After so long a daemon that did not start is started again, as a service manager does.
const RETRY: Duration = Duration::from_secs(1);

pub struct SimCluster {
    pub world: World<SimNode>,
    /// Disks of monitors that are down.
    mon_disks: BTreeMap<usize, MonDisk>,
    /// Disks of OSDs that are down.
    osd_disks: BTreeMap<usize, OsdDisk>,
    /// OSD numbers in use, up or down.
    pub osds: BTreeSet<usize>,
    /// OSDs whose device lied about flushes until its power went, not started since: where their logs ended.
    forgetful: BTreeMap<usize, BTreeMap<PgId, EVersion>>,
    /// Those of them whose store did not open again.
    pub refused: Vec<usize>,
    /// OSDs whose store did not open because a request failed for once, and when they are tried again.
    retries: Vec<(Instant, usize)>,
    clients: u64,
}

impl SimCluster {
    /// A new cluster: monitors and clients run; the OSDs are formatted and registered by [`SimCluster::add_osd`].
    pub fn new(options: Options, trace: Trace) -> SimCluster {
        let mut cluster = SimCluster {
            world: World::new(options, trace),
            mon_disks: BTreeMap::new(),
            osd_disks: BTreeMap::new(),
            osds: BTreeSet::new(),
            forgetful: BTreeMap::new(),
            refused: Vec::new(),
            retries: Vec::new(),
            clients: 0,
        };
        let options = cluster.world.options.clone();
        let mons: BTreeMap<String, String> =
            (0..options.mons).map(|at| (mon_name(at), format!("mon.{}", mon_name(at)))).collect();
        let all: BTreeMap<String, String> =
            ["mon", "osd"].map(|service| (service.to_string(), "allow *".to_string())).into();
        let clients = (0..options.clients + 1).map(|at| entity(NodeId::Client(at)));
        let names = (0..options.mons).map(|at| EntityName::Mon(mon_name(at)));
        let entities = clients.chain(names).map(|entity| (entity, all.clone())).collect();
        let first = Bootstrap {
            fsid: FSID.into(),
            mons,
            entities,
            ca_key_pem: String::new(),
            ca_cert_pem: String::new(),
            settings: BTreeMap::new(),
            failure_domain: "host".into(),
            created_ms: cluster.world.wall_ms(),
        };
        for at in 0..options.mons {
            let writes = Mon::bootstrap_writes(&mon_name(at), &first).expect("a valid first state");
            cluster.mon_disks.insert(at, MonDisk::new(writes));
            cluster.start_mon(at);
        }
        // The last client is the administrator's.
        for at in 0..options.clients + 1 {
            cluster.start_client(at);
        }
        cluster
    }

    pub fn admin(&self) -> NodeId {
        NodeId::Client(self.world.options.clients)
    }

    /// Has the administrator do something, some time.
    pub fn as_admin<F: Future<Output = ()> + 'static>(&mut self, work: impl FnOnce(Cluster) -> F) {
        self.as_client(self.admin(), work);
    }

    /// Has a client do something.
    pub fn as_client<F: Future<Output = ()> + 'static>(
        &mut self,
        id: NodeId,
        work: impl FnOnce(Cluster) -> F,
    ) {
        self.world.with_node(id, |node, now, wall_ms, out| {
            if let Some(client) = node.client() {
                let work = work(client.cluster.clone());
                client.spawn(work);
                client.turn(now, ClientEvent::Tick { wall_ms }, out);
            }
        });
    }

    /// What PGs wait for, by the OSDs' own words.
    pub fn why_pgs(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for slot in self.world.nodes.values_mut() {
            let Some(osd) = slot.node.osd() else { continue };
            let osd = osd.osd();
            for pg in osd.pgs() {
                let whys = pg.why();
                let whys = whys
                    .iter()
                    .take(3)
                    .map(|why| format!("{} of {}: needs {}", osd.config().id, pg.id, why.needs));
                all.extend(whys);
            }
        }
        all
    }

    /// What clients wait for, in words.
    pub fn waiting(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for (id, slot) in &mut self.world.nodes {
            let Some(client) = slot.node.client().filter(|client| !client.is_idle()) else { continue };
            all.push(format!("{id}: {} tasks", client.tasks()));
            all.extend(client.cluster.waiting().iter().take(4).map(|waiting| format!("{waiting:?}")));
        }
        all
    }

    fn start_client(&mut self, at: usize) {
        self.clients += 1;
        let options = &self.world.options;
        let mons = (0..options.mons).map(|at| (mon_name(at), format!("mon.{}", mon_name(at)))).collect();
        let id = ClientId(options.seed.wrapping_mul(1000) + self.clients);
        let config = ClientConfig::new(entity(NodeId::Client(at)), id, FSID, mons, self.world.rng.next_u64());
        let config = ClientConfig { measure_one_in: MEASURE_ONE_IN, ..config };
        let node = SimNode::Client(Box::new(ClientNode::new(config)));
        self.world.start(NodeId::Client(at), node);
    }

    /// A monitor that joins: it knows the monmap it was given and nothing else.
    pub fn add_mon(&mut self, at: usize, monmap: &MonMap) {
        self.crash_mon(at);
        if let Ok(writes) = Mon::join_writes(&mon_name(at), monmap) {
            self.mon_disks.insert(at, MonDisk::new(writes));
            self.start_mon(at);
        }
    }

    /// A monitor that was taken out of the cluster is switched off for ever.
    pub fn drop_mon(&mut self, at: usize) {
        self.crash_mon(at);
        self.mon_disks.remove(&at);
    }

    pub fn start_mon(&mut self, at: usize) {
        let Some(disk) = self.mon_disks.remove(&at) else { return };
        let config = MonConfig::new(&mon_name(at), FSID, 0);
        let latency = self.world.options.disk_latency_mean;
        let rng = self.world.rng.fork();
        let node = MonNode::open(config, disk, self.world.now, latency, rng);
        self.world.start(NodeId::Mon(at), SimNode::Mon(Box::new(node)));
    }

    /// Kills a monitor; its records stay.
    pub fn crash_mon(&mut self, at: usize) {
        if let Some(SimNode::Mon(node)) = self.world.kill(NodeId::Mon(at), true) {
            self.mon_disks.insert(at, node.crash());
        }
    }

    /// Formats the disk of an OSD that the monitors know under this number and uuid, and starts it.
    pub fn add_osd(&mut self, at: usize, uuid: &str) {
        let (seed, bytes) = (self.world.rng.next_u64(), self.world.options.disk_bytes);
        self.osd_disks.insert(at, OsdDisk::format(FSID, OsdId(at as u32), uuid, seed, bytes));
        self.osds.insert(at);
        self.start_osd(at);
    }

    pub fn start_osd(&mut self, at: usize) {
        let Some(disk) = self.osd_disks.remove(&at) else { return };
        let run = self.world.next_run();
        let config = OsdConfig {
            id: OsdId(at as u32),
            uuid: disk.uuid.clone(),
            fsid: FSID.into(),
            instance: 0,
            seed: 0,
            address: osd_address(at, run),
            host: format!("h{at}"),
            device_class: "ssd".into(),
            version: "sim".into(),
            location: BTreeMap::new(),
            capacity_bytes: 64 << 30,
            tunables: Tunables {
                log_entries_clean: self.world.options.log_entries,
                log_entries_degraded: self.world.options.log_entries * 3,
                lag_max: self.world.options.lag_max,
                log_trim_batch: (self.world.options.log_entries / 4).clamp(1, 64),
                ..Tunables::default()
            },
        };
        let latency = self.world.options.disk_latency_mean;
        let rng = self.world.rng.fork();
        match OsdNode::open(config, disk, self.world.now, latency, rng, self.world.options.plant) {
            Ok(node) => {
                self.note_forgotten(at, &node);
                self.world.start(NodeId::Osd(at), SimNode::Osd(Box::new(node)));
            }
            Err(Refusal::Store(disk, why)) => self.refuse(at, *disk, why),
            Err(Refusal::Osd(why)) => self.world.fail(format!("osd.{at} does not come back: {why}")),
        }
    }

    /// What does not open may be tried again where requests fail for once, and is gone where a device has lied.
    fn refuse(&mut self, at: usize, disk: OsdDisk, why: OpenError) {
        let flaky = disk.is_flaky() && matches!(why, OpenError::Disk(_) | OpenError::Kv(_));
        self.osd_disks.insert(at, disk);
        if self.forgetful.remove(&at).is_some() {
            self.world.mark("met: a store that refused to open after lies");
            self.refused.push(at);
        } else if flaky {
            self.world.mark("met: a store that did not open for once");
            self.retries.push((self.world.now + RETRY, at));
        } else {
            self.world.fail(format!("osd.{at} does not come back: {why}"));
        }
        self.world.trace.note(self.world.now, format_args!("osd.{at} does not open: {why}"));
    }

    fn note_forgotten(&mut self, at: usize, node: &OsdNode) {
        let Some(before) = self.forgetful.remove(&at) else { return };
        let after = |pg| node.osd().pg(pg).map(|pg| pg.log.head());
        let forgot = before.into_iter().filter(|&(pg, head)| after(pg).is_none_or(|now| now < head)).count();
        self.world.mark(match forgot {
            0 => "met: a device that lied and kept all the same",
            _ => "met: an OSD that forgot what was durable",
        });
        self.world.trace.note(self.world.now, format_args!("osd.{at} comes back older in {forgot} PGs"));
    }

    /// Kills an OSD; its disk stays, less what a power cut takes.
    pub fn crash_osd(&mut self, at: usize, power: bool) {
        if let Some(SimNode::Osd(mut node)) = self.world.kill(NodeId::Osd(at), !power) {
            self.note_met(&mut node);
            self.osd_disks.insert(at, node.crash(power));
        }
    }

    /// The power of an OSD goes whose device lied about flushes.
    pub fn lose_osd(&mut self, at: usize, loss: Loss) {
        if let Some(SimNode::Osd(mut node)) = self.world.kill(NodeId::Osd(at), false) {
            self.note_met(&mut node);
            let heads = node.osd().pgs().map(|pg| (pg.id, pg.log.head())).collect();
            self.forgetful.insert(at, heads);
            self.osd_disks.insert(at, node.lose(loss));
        }
    }

    fn note_met(&mut self, node: &mut OsdNode) {
        for (mark, times) in node.met() {
            self.world.mark_times(mark, times);
        }
    }

    /// Acts on the disk and the index of an OSD, which may be down.
    pub fn with_disk(&mut self, at: usize, act: impl FnOnce(&mut SimDisk, &SimKv)) {
        if let Some(disk) = self.osd_disks.get_mut(&at) {
            return act(&mut disk.disk, &disk.kv);
        }
        self.world.with_node(NodeId::Osd(at), |node, _, _, _| {
            if let Some(osd) = node.osd() {
                osd.with_disk(act);
            }
        });
    }

    /// An OSD's disk is emptied; it starts again as the one it was.
    pub fn wipe_osd(&mut self, at: usize) {
        self.crash_osd(at, true);
        if let Some(disk) = self.osd_disks.remove(&at) {
            self.add_osd(at, &disk.uuid);
        }
    }

    /// An OSD's disk is gone for ever.
    pub fn destroy_osd(&mut self, at: usize) {
        self.crash_osd(at, true);
        self.osd_disks.remove(&at);
        self.osds.remove(&at);
    }

    /// The newest osdmap that any running monitor has.
    pub fn newest_map(&mut self) -> Option<OsdMap> {
        let mons = self.world.nodes.values_mut().filter_map(|slot| slot.node.mon());
        mons.map(|mon| mon.mon().osdmap()).max_by_key(|map| map.epoch()).cloned()
    }

    /// Whether every PG is whole, by the machines' own state: all copies are there, current, on daemons that run.
    pub fn is_clean(&mut self) -> bool {
        let nodes = &mut self.world.nodes;
        let maps =
            nodes.values_mut().filter_map(|slot| slot.node.mon().map(|mon| mon.mon().osdmap().clone()));
        let Some(map) = maps.max_by_key(|map| map.epoch()) else { return false };
        let clean = |pg: PgId| {
            let Some(place) = map.pg(pg) else { return false };
            let size = map.pool(pg.pool).map_or(0, |pool| pool.size as usize);
            let Some(primary) = place.primary() else { return false };
            let slot = nodes.get_mut(&NodeId::Osd(primary.0 as usize));
            let Some(osd) = slot.and_then(|slot| slot.node.osd()) else { return false };
            place.acting.len() == size
                && place.up == place.acting
                && osd.osd().map().epoch() == map.epoch()
                && osd.osd().pg(pg).is_some_and(|pg| pg.is_active() && pg.clean)
        };
        map.pgs().all(clean)
    }

    pub fn osd_is_up(&self, at: usize) -> bool {
        self.world.is_up(NodeId::Osd(at))
    }

    pub fn mon_is_up(&self, at: usize) -> bool {
        self.world.is_up(NodeId::Mon(at))
    }

    /// Starts whatever is down.
    pub fn start_everything(&mut self) {
        for at in self.mon_disks.keys().copied().collect::<Vec<_>>() {
            self.start_mon(at);
        }
        for at in self.osds.clone() {
            self.start_osd(at);
        }
    }

    /// Restarts OSDs that ended by themselves; one that failed stays down and is named.
    pub fn tend_ended(&mut self) {
        for (node, reason, failed) in std::mem::take(&mut self.world.ended) {
            let NodeId::Osd(at) = node else { continue };
            self.crash_osd(at, false);
            if failed {
                self.world.mark("met: an OSD that ended with an error");
                self.world.trace.note(self.world.now, format_args!("osd.{at} failed: {reason}"));
            }
            self.start_osd(at);
        }
        let now = self.world.now;
        let due = |&mut (retry, _): &mut (Instant, usize)| retry <= now;
        let due: Vec<(Instant, usize)> = self.retries.extract_if(.., due).collect();
        due.into_iter().for_each(|(_, at)| self.start_osd(at));
    }

    pub fn run_for(&mut self, duration: Duration) {
        let until = self.world.now + duration;
        while self.world.now < until && self.world.failure.is_none() {
            let step = (self.world.now + Duration::from_millis(200)).min(until);
            self.world.run_until(step);
            self.tend_ended();
        }
    }

    /// Runs until `done` holds; false if it does not within `limit`.
    pub fn run_while(&mut self, limit: Duration, mut going: impl FnMut(&mut SimCluster) -> bool) -> bool {
        let until = self.world.now + limit;
        while going(self) {
            if self.world.now >= until || self.world.failure.is_some() {
                return false;
            }
            self.run_for(Duration::from_millis(200));
        }
        true
    }

    /// Deep fsck of every disk, at the end of a run.
    pub fn fsck_all(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        for at in self.osds.clone() {
            self.crash_osd(at, false);
            if let Some(disk) = self.osd_disks.get_mut(&at) {
                let report = disk.fsck();
                problems.extend(report.errors.iter().take(5).map(|error| format!("osd.{at}: {error}")));
            }
        }
        problems
    }
}
