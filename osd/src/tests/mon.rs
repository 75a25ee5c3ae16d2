//! A monitor that always agrees with itself: marks OSDs up and down, records what primaries ask for, publishes maps.

use bytes::Bytes;
use nacre_crush::CrushMap;
use nacre_maps::{AuthEntry, AuthMap, Flag, Incremental, OsdInfo, OsdMap, Pool, WEIGHT_IN, WEIGHT_OUT};
use nacre_types::{EntityName, Epoch, OsdId, PgId, PoolId};
use nacre_wire::Message;
use nacre_wire::messages::Maps;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub const FSID: &str = "fsid-of-tests";

pub struct FakeMon {
    pub map: Arc<OsdMap>,
    incrementals: BTreeMap<Epoch, Bytes>,
    auth: AuthMap,
    step: Incremental,
    pub subscribers: BTreeMap<OsdId, Epoch>,
    /// Reporters by failed OSD.
    failures: BTreeMap<OsdId, BTreeSet<OsdId>>,
    /// States of PGs as their primaries report them.
    pub stats: BTreeMap<PgId, String>,
}

fn crush(osds: u32) -> CrushMap {
    let mut text = String::from("# begin crush map\n");
    for tunable in [
        "choose_local_tries 0",
        "choose_local_fallback_tries 0",
        "choose_total_tries 50",
        "chooseleaf_descend_once 1",
        "chooseleaf_vary_r 1",
        "chooseleaf_stable 1",
        "straw_calc_version 1",
        "allowed_bucket_algs 54",
    ] {
        text += &format!("tunable {tunable}\n");
    }
    for osd in 0..osds {
        text += &format!("device {osd} osd.{osd}\n");
    }
    text += "type 0 osd\ntype 1 root\nroot default {\n id -1\n alg straw2\n hash 0\n";
    for osd in 0..osds {
        text += &format!(" item osd.{osd} weight 1.0\n");
    }
    text += "}\nrule replicated_rule {\n id 0\n type replicated\n min_size 1\n max_size 10\n step take default\n step choose firstn 0 type osd\n step emit\n}\n";
    CrushMap::parse(&text).expect("a CRUSH map")
}

impl FakeMon {
    pub fn new(osds: u32) -> FakeMon {
        let map = OsdMap::initial(FSID, crush(osds), 1).expect("a map");
        let mut step = Incremental::after(&map, 1);
        for id in 0..osds {
            let mut info = OsdInfo::new(&uuid(OsdId(id)));
            info.weight = WEIGHT_IN;
            step.osds.insert(OsdId(id), Some(info));
        }
        let mut auth = AuthMap { epoch: Epoch(1), ..AuthMap::default() };
        let caps = [("osd".to_string(), "allow *".parse().expect("caps"))].into();
        let admin = EntityName::Client("admin".into());
        auth.entities.insert(admin, AuthEntry { caps, created_ms: 1 });
        let mut mon = FakeMon {
            map: Arc::new(map),
            incrementals: BTreeMap::new(),
            auth,
            step,
            subscribers: BTreeMap::new(),
            failures: BTreeMap::new(),
            stats: BTreeMap::new(),
        };
        mon.commit();
        mon
    }

    pub fn create_pool(&mut self, id: u32, size: u32, min_size: u32, pg_num: u32) {
        let pool = Pool::new(&format!("pool{id}"), size, min_size, pg_num, 0, self.step.epoch);
        self.step.pools.insert(PoolId(id), Some(pool));
    }

    pub fn edit_pool(&mut self, id: u32, edit: impl FnOnce(&mut Pool)) {
        edit(self.step.pool_mut(&self.map, PoolId(id)).expect("a pool"));
    }

    pub fn set_flag(&mut self, flag: Flag, on: bool) {
        let flags = self.map.flags();
        self.step.flags = Some(if on { flags.with(flag) } else { flags.without(flag) });
    }

    pub fn blocklist(&mut self, client: nacre_types::ClientId) {
        self.step.blocklist.insert(client, Some(u64::MAX));
    }

    pub fn remove_pool(&mut self, id: u32) {
        self.step.pools.insert(PoolId(id), None);
    }

    pub fn set_in(&mut self, osd: OsdId, is_in: bool) {
        if let Some(info) = self.step.osd_mut(&self.map, osd) {
            info.weight = if is_in { WEIGHT_IN } else { WEIGHT_OUT };
        }
    }

    pub fn mark_down(&mut self, osd: OsdId) {
        let epoch = self.step.epoch;
        if self.map.is_up(osd) {
            self.failures.remove(&osd);
            if let Some(info) = self.step.osd_mut(&self.map, osd) {
                info.mark_down(epoch, epoch.0);
            }
        }
    }

    /// Publishes what has gathered. True if there is a new epoch.
    pub fn commit(&mut self) -> bool {
        if self.step.is_empty() {
            return false;
        }
        let bytes = self.step.encode();
        let map = self.map.apply(&self.step).expect("a step fits");
        self.incrementals.insert(map.epoch(), bytes);
        self.step = Incremental::after(&map, map.epoch().0);
        self.map = Arc::new(map);
        true
    }

    pub fn forget_maps_before(&mut self, epoch: Epoch) {
        self.incrementals = self.incrementals.split_off(&epoch);
    }

    /// Maps for somebody at `after`.
    pub fn maps(&self, after: Epoch) -> Maps {
        let mut maps = Maps {
            fsid: FSID.into(),
            newest: self.map.epoch().0,
            oldest: 1,
            authmap: Some(self.auth.encode()),
            ..Maps::default()
        };
        if after == Epoch::ZERO
            || (after < self.map.epoch() && !self.incrementals.contains_key(&after.next()))
        {
            maps.osdmap = Some(self.map.encode());
        } else {
            maps.incrementals =
                self.incrementals.range(after.next()..).map(|(_, bytes)| bytes.clone()).collect();
        }
        maps
    }

    /// A message of an OSD. Returns what to answer at once.
    pub fn receive(&mut self, from: OsdId, message: Message) -> Option<Maps> {
        match message {
            Message::Subscribe(m) => {
                self.subscribers.insert(from, Epoch(m.osdmap));
                return Some(self.maps(Epoch(m.osdmap)));
            }
            Message::MapRequest(m) => return Some(self.maps(Epoch(if m.full { 0 } else { m.after }))),
            Message::OsdBoot(m) => {
                let id = OsdId(m.osd);
                let known = self.map.osd(id).is_some_and(|info| info.up && info.instance == m.instance);
                if known {
                    return Some(self.maps(Epoch(m.newest_map)));
                }
                if self.map.is_up(id) {
                    self.mark_down(id);
                    self.commit();
                }
                let epoch = self.step.epoch;
                if let Some(info) = self.step.osd_mut(&self.map, id) {
                    info.address = m.address;
                    info.instance = m.instance;
                    info.mark_up(epoch);
                }
                self.failures.remove(&id);
            }
            Message::OsdAlive(m) => {
                let own = self.map.osd(from).is_some_and(|info| info.up && info.instance == m.instance);
                if own && let Some(info) = self.step.osd_mut(&self.map, from) {
                    info.set_up_thru(Epoch(m.want_up_thru));
                }
            }
            Message::OsdFailure(m) => {
                let failed = OsdId(m.failed);
                let current =
                    self.map.osd(failed).is_some_and(|info| info.up && info.instance == m.failed_instance);
                if !current || !self.map.is_up(from) {
                    return None;
                }
                let reporters = self.failures.entry(failed).or_default();
                if m.recovered {
                    reporters.remove(&from);
                } else {
                    reporters.insert(from);
                }
                let reporters = reporters.len();
                let accused = |osd: &OsdId| self.failures.get(osd).is_some_and(|by| !by.is_empty());
                let speakers = self.map.osds().filter(|(osd, info)| info.up && !accused(osd)).count();
                if reporters >= speakers.clamp(1, 2) {
                    self.mark_down(failed);
                }
            }
            Message::OsdStopping(m) if self.map.osd(from).is_some_and(|info| info.instance == m.instance) => {
                self.mark_down(from);
            }
            Message::OsdPgTemp(m) => {
                for want in m.wants {
                    let pg = PgId::from_u64(want.pg);
                    let acting: Vec<OsdId> = want.acting.into_iter().map(OsdId).collect();
                    let is_primary = self.map.pg(pg).is_some_and(|place| place.primary() == Some(from));
                    if is_primary && self.map.pg_temp().get(&pg).cloned().unwrap_or_default() != acting {
                        self.step.pg_temp.insert(pg, acting);
                    }
                }
            }
            Message::OsdStats(m) => {
                for stat in m.pgs {
                    self.stats.insert(PgId::from_u64(stat.pg), stat.state);
                }
            }
            _ => {}
        }
        None
    }
}

pub fn uuid(osd: OsdId) -> String {
    format!("uuid-{}", osd.0)
}
