//! A small cluster of whole OSDs over model stores, for tests: one PG map keeper in the monitors' place, a network that
//! delivers in order, and time that jumps to the next deadline.

use crate::ops::testing::ModelStore;
use crate::{Osd, OsdConfig, OsdEffect, OsdEvent, Tunables};
use bytes::Bytes;
use nacre_crush::CrushMap;
use nacre_maps::{AuthMap, ConfigMap, Incremental, OsdInfo, OsdMap, Pool, WEIGHT_IN};
use nacre_types::{
    ClientId, EntityName, Epoch, Instant, Machine, Needs, ObjectId, OsdId, Outbox, PgId, PoolId, RequestId,
};
use nacre_wire::messages::{Maps, PgAdmin};
use nacre_wire::op::{Extent, ObjectOp, ObjectOpKind, OsdOp, OsdOpReply};
use nacre_wire::{Address, Data, ErrorCode, Message, ObjectName, Packet, Peer, SessionId};
use std::collections::{BTreeMap, VecDeque};

const FSID: &str = "test";
const WALL_START_MS: u64 = 1_700_000_000_000;
pub(crate) const POOL: PoolId = PoolId(1);
pub(crate) const PG: PgId = PgId::new(POOL, 0);
/// Sessions: the OSD's own number in the high half, its peer's in the low half.
const MON: u64 = 1000;
const CLIENT: u64 = 2000;

fn entity(id: u64) -> EntityName {
    match id {
        MON => EntityName::Mon("a".into()),
        CLIENT => EntityName::Client("test".into()),
        id => EntityName::Osd(OsdId(id as u32)),
    }
}

pub(crate) struct Cluster {
    pub(crate) now: Instant,
    pub(crate) map: OsdMap,
    incrementals: Vec<Bytes>,
    pub(crate) osds: BTreeMap<OsdId, Osd<ModelStore>>,
    /// Of OSDs that are not running.
    pub(crate) disks: BTreeMap<OsdId, ModelStore>,
    runs: u64,
    network: VecDeque<(u64, u64, Packet)>,
    /// Messages of this name come after all others.
    pub(crate) late: Option<&'static str>,
    /// Somebody has versions given up that nobody has seen and nobody can find.
    pub(crate) operated: bool,
    /// Messages of this name are lost.
    pub(crate) dropped: Option<&'static str>,
    /// Writes for this OSD's copies are lost.
    pub(crate) deaf: Option<OsdId>,
    replies: BTreeMap<u64, Packet>,
    requests: u64,
    /// Who asks, and below which number it has its answers.
    pub(crate) client: ClientId,
    pub(crate) answered_below: u64,
    asked: BTreeMap<u64, Packet>,
    unanswered: u32,
    pub(crate) log: Vec<String>,
    pub(crate) delivered: BTreeMap<&'static str, u64>,
}

fn crush(osds: u32) -> CrushMap {
    let mut text = String::from("tunable choose_total_tries 50\ntunable chooseleaf_vary_r 1\n");
    text += "tunable chooseleaf_stable 1\ntunable chooseleaf_descend_once 1\n";
    for osd in 0..osds {
        text += &format!("device {osd} osd.{osd}\n");
    }
    text += "type 0 osd\ntype 1 root\nroot default {\n id -1\n alg straw2\n hash 0\n";
    for osd in 0..osds {
        text += &format!(" item osd.{osd} weight 1.0\n");
    }
    text += "}\nrule r {\n id 0\n type replicated\n step take default\n step choose firstn 0 type osd\n step emit\n}\n";
    CrushMap::parse(&text).expect("a legal CRUSH map")
}

impl Cluster {
    /// `osds` OSDs, and one pool of `pg_num` PGs with `size` copies.
    pub(crate) fn new(osds: u32, size: u32, pg_num: u32) -> Cluster {
        let map = OsdMap::initial(FSID, crush(osds), WALL_START_MS).expect("a map");
        let mut cluster = Cluster {
            now: Instant::from_millis(1000),
            map,
            incrementals: Vec::new(),
            osds: BTreeMap::new(),
            disks: BTreeMap::new(),
            runs: 0,
            network: VecDeque::new(),
            late: None,
            operated: false,
            dropped: None,
            deaf: None,
            replies: BTreeMap::new(),
            requests: 0,
            client: ClientId(77),
            answered_below: 0,
            asked: BTreeMap::new(),
            unanswered: 0,
            log: Vec::new(),
            delivered: BTreeMap::new(),
        };
        cluster.change(|_, step| {
            for id in 0..osds {
                let mut osd = OsdInfo::new(&format!("uuid-{id}"));
                osd.weight = WEIGHT_IN;
                step.osds.insert(OsdId(id), Some(osd));
            }
        });
        for id in 0..osds {
            cluster.start(OsdId(id));
        }
        cluster.run_until("all are up", |c| c.osds.values().all(Osd::is_up));
        cluster.change(|_, step| {
            step.pools.insert(POOL, Some(Pool::new("p", size, size.div_ceil(2), pg_num, 0, step.epoch)));
        });
        cluster.settle();
        cluster
    }

    /// One epoch on.
    pub(crate) fn change(&mut self, edit: impl FnOnce(&OsdMap, &mut Incremental)) {
        let mut step = Incremental::after(&self.map, WALL_START_MS + self.now.as_millis());
        edit(&self.map, &mut step);
        self.map = self.map.apply(&step).expect("a step that fits");
        self.incrementals.push(step.encode());
        let ids: Vec<OsdId> = self.osds.keys().copied().collect();
        for id in ids {
            let maps = self.maps_after(self.map.epoch().0 - 1);
            self.network.push_back((MON, id.0.into(), Packet::new(self.map.epoch(), maps)));
        }
    }

    /// Hands the central configuration to all OSDs.
    pub(crate) fn configure(&mut self, config: &ConfigMap) {
        for id in self.osds.keys().copied().collect::<Vec<_>>() {
            let maps = Maps { config: Some(config.encode()), ..self.maps_after(self.map.epoch().0) };
            self.deliver(MON, id.0.into(), Packet::new(self.map.epoch(), maps));
        }
    }

    fn maps_after(&self, epoch: u64) -> Maps {
        let after = self.incrementals.iter().skip(epoch as usize);
        Maps {
            fsid: FSID.into(),
            osdmap: (epoch == 0).then(|| self.map.encode()),
            incrementals: if epoch == 0 { Vec::new() } else { after.cloned().collect() },
            authmap: Some(self.auth()),
            newest: self.map.epoch().0,
            oldest: 1,
            ..Maps::default()
        }
    }

    fn auth(&self) -> Bytes {
        let mut auth = AuthMap { epoch: Epoch(1), ..AuthMap::default() };
        let entry = auth.entities.entry(entity(CLIENT)).or_default();
        entry.caps.insert("osd".into(), "allow *".parse().expect("caps"));
        auth.encode()
    }

    /// Starts an OSD from its disk; an empty one if it has none.
    pub(crate) fn start(&mut self, id: OsdId) {
        self.runs += 1;
        let config = OsdConfig {
            id,
            uuid: format!("uuid-{}", id.0),
            fsid: FSID.into(),
            instance: self.runs,
            seed: self.runs,
            address: format!("osd:{}", id.0),
            host: format!("h{}", id.0),
            device_class: "ssd".into(),
            version: "test".into(),
            location: BTreeMap::new(),
            capacity_bytes: 1 << 40,
            tunables: Tunables {
                log_entries_clean: 60,
                log_entries_degraded: 100,
                log_entries_held: 1000,
                log_trim_batch: 10,
                ..Tunables::default()
            },
        };
        let disk = self.disks.remove(&id).unwrap_or_default();
        let osd = Osd::open(config, disk, self.now).expect("the disk opens");
        self.osds.insert(id, osd);
        self.tick(id);
    }

    /// kill -9: the disk stays. The monitors notice at once.
    pub(crate) fn kill(&mut self, id: OsdId) {
        let osd = self.osds.remove(&id).expect("it runs");
        self.disks.insert(id, osd.store().clone());
        let me = u64::from(id.0);
        self.network.retain(|(from, to, _)| *from != me && *to != me);
        for other in self.osds.keys().copied().collect::<Vec<_>>() {
            self.step(other, OsdEvent::SessionClosed(session(other.0.into(), me)));
        }
        let now = WALL_START_MS + self.now.as_millis();
        self.change(|map, step| {
            let epoch = step.epoch;
            step.osd_mut(map, id).expect("it exists").mark_down(epoch, now);
        });
    }

    fn step(&mut self, id: OsdId, event: OsdEvent) {
        let Some(osd) = self.osds.get_mut(&id) else { return };
        let mut out = Outbox::new();
        osd.step(self.now, event, &mut out);
        osd.check();
        for effect in out.take() {
            match effect {
                OsdEffect::Send { to, packet } => self.send(id.0.into(), to, packet),
                OsdEffect::Log { text, .. } => self.log.push(format!("{} {id}: {text}", self.now)),
                OsdEffect::Stopped { reason, .. } => panic!("{id} stopped: {reason}"),
                OsdEffect::CloseSession(_) | OsdEffect::Disk(_) | OsdEffect::Gather => {}
            }
        }
    }

    fn send(&mut self, from: u64, to: Address, packet: Packet) {
        let to = match to {
            Address::AnyMon | Address::Mon { .. } => MON,
            Address::Osd { id, .. } => id.0.into(),
            Address::Session(SessionId(session)) => session % 10_000,
        };
        self.network.push_back((from, to, packet));
    }

    fn deliver(&mut self, from: u64, to: u64, packet: Packet) {
        let name = packet.message.name();
        let unheard = name == "RepOp" && self.deaf.is_some_and(|osd| u64::from(osd.0) == to);
        if Some(name) == self.dropped || unheard {
            return;
        }
        *self.delivered.entry(name).or_default() += 1;
        match to {
            MON => self.mon(from, packet),
            CLIENT => drop(self.replies.insert(packet.request.seq, packet)),
            osd => {
                let from = Peer { session: session(osd, from), entity: entity(from) };
                self.step(OsdId(osd as u32), OsdEvent::Received { from, packet });
            }
        }
    }

    fn mon(&mut self, from: u64, packet: Packet) {
        let current = |c: &Cluster, osd: u32, instance| {
            c.map.osd(OsdId(osd)).is_some_and(|info| info.up && info.instance == instance)
        };
        match packet.message {
            Message::Subscribe(m) => {
                let maps = self.maps_after(m.osdmap);
                self.network.push_back((MON, from, Packet::new(self.map.epoch(), maps)));
            }
            Message::MapRequest(m) => {
                let maps = self.maps_after(m.after);
                self.network.push_back((MON, from, Packet::new(self.map.epoch(), maps)));
            }
            Message::OsdBoot(m) if !current(self, m.osd, m.instance) => self.change(|map, step| {
                let epoch = step.epoch;
                let info = step.osd_mut(map, OsdId(m.osd)).expect("it exists");
                (info.instance, info.address) = (m.instance, m.address);
                info.mark_up(epoch);
            }),
            Message::OsdAlive(m) if current(self, m.osd, m.instance) => {
                let known = self.map.osd(OsdId(m.osd)).map(|info| info.up_thru().0);
                if known < Some(m.want_up_thru) {
                    self.change(|map, step| {
                        let info = step.osd_mut(map, OsdId(m.osd)).expect("it exists");
                        info.set_up_thru(Epoch(m.want_up_thru));
                    });
                }
            }
            Message::PgAdminReply(m) => self.log.push(format!("{} admin: {}{}", self.now, m.message, m.json)),
            Message::OsdPgTemp(m) => self.change(|_, step| {
                for want in m.wants {
                    let acting = want.acting.into_iter().map(OsdId).collect();
                    step.pg_temp.insert(PgId::from_u64(want.pg), acting);
                }
            }),
            _ => {}
        }
    }

    /// Delivers everything, or lets time pass to the next deadline. False if there is nothing to come.
    pub(crate) fn turn(&mut self) -> bool {
        let due = self.network.iter().position(|(_, _, packet)| Some(packet.message.name()) != self.late);
        if let Some((from, to, packet)) = self.network.remove(due.unwrap_or(0)) {
            self.deliver(from, to, packet);
            return true;
        }
        let next = self.osds.iter().filter_map(|(&id, osd)| Some((osd.next_deadline()?, id))).min();
        let Some((at, id)) = next else { return false };
        self.now = self.now.max(at);
        self.tick(id);
        true
    }

    pub(crate) fn tick(&mut self, id: OsdId) {
        self.step(id, OsdEvent::Tick { wall_ms: WALL_START_MS + self.now.as_millis() });
    }

    pub(crate) fn run_until(&mut self, what: &str, mut done: impl FnMut(&Cluster) -> bool) {
        let end = self.now + std::time::Duration::from_secs(600);
        let mut turns = 0;
        while !done(self) {
            turns += 1;
            if !self.turn() || self.now > end || turns > 400_000 {
                for line in self.log.iter().rev().take(30).rev() {
                    eprintln!("{line}");
                }
                for osd in self.osds.values() {
                    for pg in osd.pgs() {
                        let summary = pg.recovery_summary();
                        eprintln!("{}: {} {:?} clean {} {summary:?}", pg.me, pg.id, pg.state(), pg.clean);
                    }
                }
                panic!("not within bounds at {} after {turns} turns: {what}", self.now);
            }
        }
    }

    pub(crate) fn primary(&self, pg: PgId) -> OsdId {
        self.map.pg(pg).and_then(|place| place.primary()).expect("a primary")
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.map.pgs().all(|id| {
            let primary = self.map.pg(id).and_then(|place| place.primary());
            let pg = primary.and_then(|osd| self.osds.get(&osd)).and_then(|osd| osd.pg(id));
            pg.is_some_and(|pg| pg.is_active() && pg.clean && pg.epoch == self.map.epoch())
        })
    }

    /// Until all PGs are active and clean and nothing is on its way.
    pub(crate) fn settle(&mut self) {
        self.run_until("all PGs are clean", |c| c.is_clean() && c.network.is_empty());
    }

    /// A request by the test's client, without waiting for the answer.
    pub(crate) fn request(&mut self, object: &ObjectId, ops: Vec<ObjectOpKind>, data: Data) -> u64 {
        self.request_under(object, &[], ops, data)
    }

    /// The same with a snapshot context, newest first.
    pub(crate) fn request_under(
        &mut self,
        object: &ObjectId,
        snaps: &[u64],
        ops: Vec<ObjectOpKind>,
        data: Data,
    ) -> u64 {
        self.requests += 1;
        let pg = self.map.object_pg(object).expect("the pool");
        let message = OsdOp {
            object: Some(ObjectName::from(object)),
            snap_seq: snaps.first().copied().unwrap_or_default(),
            snaps: snaps.to_vec(),
            ops: ops.into_iter().map(ObjectOp::from).collect(),
            answered_below: self.answered_below,
            ..OsdOp::default()
        };
        let request = RequestId { client: self.client, seq: self.requests };
        let packet = Packet::new(self.map.epoch(), message).on(pg).request(request).with(data);
        self.asked.insert(self.requests, packet);
        self.ask(self.requests);
        self.requests
    }

    fn ask(&mut self, request: u64) {
        let mut packet = self.asked[&request].clone();
        packet.epoch = self.map.epoch();
        let pg = packet.pg.expect("requests name their PG");
        if let Some(primary) = self.map.pg(pg).and_then(|place| place.primary()) {
            self.network.push_back((CLIENT, primary.0.into(), packet));
        }
    }

    /// The number of the next request.
    pub(crate) fn next_request(&self) -> u64 {
        self.requests + 1
    }

    /// The request as it was first sent.
    pub(crate) fn copy_of(&self, request: u64) -> Packet {
        self.asked[&request].clone()
    }

    /// A copy of a request comes to the PG's present primary, whatever epoch it was sent in. What it is answered, if
    /// it is.
    pub(crate) fn late_copy(&mut self, copy: Packet) -> Option<OsdOpReply> {
        let (pg, request) = (copy.pg.expect("requests name their PG"), copy.request.seq);
        let primary = self.primary(pg);
        self.replies.remove(&request);
        self.network.push_back((CLIENT, primary.0.into(), copy));
        let until = self.now + std::time::Duration::from_secs(1);
        self.run_until("a moment has passed", |c| c.now >= until);
        match self.replies.remove(&request)?.message {
            Message::OsdOpReply(reply) => Some(reply),
            other => panic!("{other:?} answers an operation"),
        }
    }

    /// Waits for the answer. Asks again as clients do: on a new map, when told to, and now and then.
    pub(crate) fn answer(&mut self, request: u64) -> (OsdOpReply, Data) {
        loop {
            let (epoch, now) = (self.map.epoch(), self.now);
            let late =
                move |c: &Cluster| c.map.epoch() != epoch || c.now > now + std::time::Duration::from_secs(5);
            self.run_until("the request is answered", |c| c.replies.contains_key(&request) || late(c));
            self.unanswered += 1;
            assert!(self.unanswered < 500, "request {request} is not answered, at {}", self.now);
            let Some(packet) = self.replies.remove(&request) else {
                self.operate();
                self.ask(request);
                continue;
            };
            let Message::OsdOpReply(reply) = packet.message else {
                panic!("{packet:?} answers an operation")
            };
            if reply.code == ErrorCode::TryAgain as i32 {
                let until = self.now + std::time::Duration::from_millis(200);
                self.run_until("a moment has passed", |c| c.now >= until);
                self.ask(request);
                continue;
            }
            self.unanswered = 0;
            self.asked.remove(&request);
            return (reply, packet.data);
        }
    }

    fn operate(&mut self) {
        if !self.operated {
            return;
        }
        for pg in self.map.pgs().collect::<Vec<_>>() {
            let primary = self.map.pg(pg).and_then(|place| place.primary());
            let pg_there = primary.and_then(|osd| self.osds.get(&osd)?.pg(pg));
            let waits = pg_there.and_then(|pg| pg.recovery_summary().waiting_for);
            if matches!(waits, Some(Needs::Unfound { unseen: 1.., .. })) {
                self.admin_with(pg, "mark_unfound_lost", r#"{"mode":"revert"}"#);
            }
        }
    }

    /// Runs a request and expects success.
    pub(crate) fn op(&mut self, object: &ObjectId, ops: Vec<ObjectOpKind>, data: Data) -> (OsdOpReply, Data) {
        let request = self.request(object, ops, data);
        let (reply, data) = self.answer(request);
        assert_eq!(reply.code, ErrorCode::Ok as i32, "{}", reply.message);
        (reply, data)
    }

    pub(crate) fn write(&mut self, object: &ObjectId, offset: u64, bytes: Vec<u8>) {
        let op = ObjectOpKind::Write(Extent { offset, length: bytes.len() as u64 });
        self.op(object, vec![op], Data::checksummed(offset, bytes.into()));
    }

    pub(crate) fn read(&mut self, object: &ObjectId) -> Bytes {
        let (_, data) = self.op(
            object,
            vec![ObjectOpKind::Read(Extent { offset: 0, length: 64 << 20 })],
            Data::default(),
        );
        data.bytes
    }

    /// Whether an answer has come that nobody waited for.
    pub(crate) fn is_answered(&self, request: u64) -> bool {
        self.replies.contains_key(&request)
    }

    /// Runs a PG's command at its primary.
    pub(crate) fn admin(&mut self, pg: PgId, command: &str) {
        self.admin_with(pg, command, "{}");
    }

    pub(crate) fn admin_with(&mut self, pg: PgId, command: &str, json: &str) {
        let json = json.to_string();
        let packet = Packet::new(self.map.epoch(), PgAdmin { command: command.into(), json }).on(pg);
        let primary = self.primary(pg);
        self.requests += 1;
        let request = RequestId { client: ClientId(77), seq: self.requests };
        self.network.push_back((MON, primary.0.into(), packet.request(request)));
    }

    pub(crate) fn disk(&mut self, osd: OsdId) -> &mut ModelStore {
        match self.osds.get_mut(&osd) {
            Some(osd) => &mut osd.core.store,
            None => self.disks.get_mut(&osd).expect("a disk"),
        }
    }

    /// All copies of all objects are the same: data, xattrs, omap, and nothing else lies about.
    pub(crate) fn assert_copies_agree(&self) {
        for pg in self.map.pgs() {
            let members = &self.map.pg(pg).expect("the PG").acting;
            let objects = |osd: &OsdId| {
                let all = &self.osds[osd].store().objects;
                all.iter().filter(|(o, _)| self.map.object_pg(o) == Some(pg)).collect::<BTreeMap<_, _>>()
            };
            let first = objects(&members[0]);
            for other in &members[1..] {
                let found = objects(other);
                for (object, content) in &first {
                    assert!(
                        found.get(object) == Some(content),
                        "{object} differs between {} and {other}",
                        members[0]
                    );
                }
                assert_eq!(first.len(), found.len(), "{other} has other objects than {}", members[0]);
            }
            for member in members {
                let copy = self.osds[member].pg(pg).expect("the PG");
                assert!(copy.missing.is_empty(), "{member} still misses objects of {pg}");
                assert_eq!(copy.info.objects, first.len() as u64, "{member}'s count of {pg}");
                let bytes: u64 = first.values().map(|object| object.data.len() as u64).sum();
                assert_eq!(copy.info.bytes, bytes, "{member}'s bytes of {pg}");
            }
        }
        for osd in self.osds.values() {
            assert!(osd.store().objects.keys().all(|o| o.pool == POOL), "temporary objects are left");
        }
    }
}

fn session(osd: u64, peer: u64) -> SessionId {
    SessionId(osd * 10_000 + peer)
}

pub(crate) fn object(name: &str) -> ObjectId {
    ObjectId::new(POOL, "", name).expect("a legal name")
}
