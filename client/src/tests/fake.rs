//! A cluster in one struct: a monitor that hands out maps and snapshot ids, OSDs that execute operations over one model
//! store, a network that may lose, delay, double and refuse. And a loop that polls one future while time passes.

use crate::{ClientConfig, ClientEffect, ClientEvent, Cluster};
use bytes::Bytes;
use nacre_crush::CrushMap;
use nacre_maps::{Incremental, OsdInfo, OsdMap, Pool, WEIGHT_IN};
use nacre_osd::ops::testing::ModelStore;
use nacre_osd::ops::{self, Executed, Execution, ReadCache, Request, SnapContext, WatchAction};
use nacre_osd::watch::{Registry, WatchOutput};
use nacre_types::{
    ClientId, EVersion, EntityName, Epoch, Instant, ObjectId, OsdId, PgId, PoolId, RequestId, Rng, SnapId,
};
use nacre_wire::messages::{Command, CommandReply, Maps, PgAdminReply, Refused};
use nacre_wire::op::{ObjectList, OsdOp, OsdOpReply};
use nacre_wire::stages::ClientTimes;
use nacre_wire::{Address, Data, ErrorCode, Message, ObjectName, Packet, Peer, SessionId};
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

pub(crate) const FSID: &str = "f5";

/// How often, of 1000, something goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    pub(crate) lose: u64,
    pub(crate) refuse: u64,
    pub(crate) double: u64,
    pub(crate) corrupt: u64,
    pub(crate) close: u64,
    pub(crate) remap: u64,
    pub(crate) latency_ms: u64,
}

pub(crate) struct Fake {
    pub(crate) clients: Vec<Cluster>,
    pub(crate) now: Instant,
    pub(crate) map: OsdMap,
    pub(crate) store: ModelStore,
    pub(crate) faults: Faults,
    pub(crate) mon_answers: bool,
    /// OSDs refuse what needs space.
    pub(crate) full: bool,
    /// The monitors do not know the clients.
    pub(crate) mon_refuses: bool,
    /// Requests as OSDs took them, resends included.
    pub(crate) taken: Vec<(OsdId, RequestId, ObjectId)>,
    /// Below which number each client said it has its answers from a PG: what comes of that means nothing any more.
    pub(crate) answered_below: BTreeMap<(ClientId, PgId), u64>,
    /// What clients said they saw of measured requests.
    pub(crate) times: Vec<(OsdId, ClientTimes)>,
    /// As an OSD's log: keeps answers for resends, but not their data.
    pub(crate) forgets_data: bool,
    /// So many of the next answers are lost.
    pub(crate) lose_replies: u32,
    /// How many requests changed something.
    pub(crate) mutations: u64,
    rng: Rng,
    seq: u64,
    deliveries: BTreeMap<(Instant, u64), (usize, ClientEvent)>,
    next_delivery: u64,
    answered: BTreeMap<RequestId, (OsdOpReply, Data)>,
    watches: Registry,
    /// Requests that wait for a notification to end.
    notifying: BTreeMap<RequestId, (usize, OsdId, OsdOpReply, usize)>,
    /// A number for each pair of client and OSD, new after each break; mons are u32::MAX.
    sessions: BTreeMap<(usize, u32), u64>,
    next_session: u64,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

const MON: u32 = u32::MAX;

fn crush() -> CrushMap {
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
    text += "device 0 osd.0\ndevice 1 osd.1\ndevice 2 osd.2\ntype 0 osd\ntype 1 root\n";
    text += "root default {\n id -1\n alg straw2\n hash 0\n item osd.0 weight 1.0\n item osd.1 weight 1.0\n \
             item osd.2 weight 1.0\n}\n";
    text += "rule replicated_rule {\n id 0\n type replicated\n min_size 1\n max_size 10\n step take default\n \
             step choose firstn 0 type osd\n step emit\n}\n";
    CrushMap::parse(&text).unwrap()
}

fn first_map() -> OsdMap {
    let map = OsdMap::initial(FSID, crush(), 1).unwrap();
    let mut step = Incremental::after(&map, 2);
    for id in 0..3 {
        let mut osd = OsdInfo::new(&format!("uuid-{id}"));
        osd.weight = WEIGHT_IN;
        osd.address = format!("10.0.0.{id}:1");
        osd.instance = 7;
        osd.mark_up(step.epoch);
        step.osds.insert(OsdId(id), Some(osd));
    }
    step.pools.insert(PoolId(1), Some(Pool::new("rbd", 3, 2, 8, 0, step.epoch)));
    map.apply(&step).unwrap()
}

impl Fake {
    pub(crate) fn new(seed: u64) -> Fake {
        let mut fake = Fake {
            clients: Vec::new(),
            now: Instant::from_millis(1000),
            map: first_map(),
            store: ModelStore::default(),
            faults: Faults::default(),
            mon_answers: true,
            full: false,
            mon_refuses: false,
            taken: Vec::new(),
            answered_below: BTreeMap::new(),
            times: Vec::new(),
            forgets_data: false,
            lose_replies: 0,
            mutations: 0,
            rng: Rng::new(seed),
            seq: 0,
            deliveries: BTreeMap::new(),
            next_delivery: 0,
            answered: BTreeMap::new(),
            watches: Registry::new(1),
            notifying: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_session: 1,
            woken: Arc::default(),
        };
        fake.add_client(|_| {});
        fake
    }

    pub(crate) fn add_client(&mut self, change: impl FnOnce(&mut ClientConfig)) -> Cluster {
        let number = self.clients.len() as u64;
        let mons = vec![("a".to_string(), "10.0.0.9:1".to_string())];
        let entity = EntityName::Client(format!("c{number}"));
        let mut config = ClientConfig::new(entity, ClientId(100 + number), FSID, mons, 5 + number);
        change(&mut config);
        let cluster = Cluster::new(config);
        cluster.set_waker(Waker::from(self.woken.clone()));
        self.clients.push(cluster.clone());
        cluster
    }

    pub(crate) fn cluster(&self) -> Cluster {
        self.clients[0].clone()
    }

    /// Polls `future` to its end while the cluster works and time passes.
    pub(crate) fn run<T>(&mut self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let waker = Waker::from(self.woken.clone());
        let mut cx = Context::from_waker(&waker);
        for _ in 0..5_000_000_u64 {
            self.woken.0.store(false, Ordering::Relaxed);
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                self.turn();
                return value;
            }
            self.turn();
            if !self.woken.0.load(Ordering::Relaxed) {
                self.advance();
            }
        }
        panic!("nothing comes of it; waiting: {:#?}", self.cluster().waiting());
    }

    /// Lets time pass with nobody waiting.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        self.turn();
        while self.next_event().is_some_and(|at| at <= until) {
            self.advance();
        }
        self.now = until;
    }

    fn turn(&mut self) {
        for client in 0..self.clients.len() {
            self.step(client, ClientEvent::Wake);
        }
    }

    fn step(&mut self, client: usize, event: ClientEvent) {
        self.clients[client].step(self.now, event);
        self.clients[client].check();
        for effect in self.clients[client].take_effects() {
            if let ClientEffect::Send { to, packet } = effect {
                self.carry(client, to, packet);
            }
        }
    }

    fn next_event(&self) -> Option<Instant> {
        let delivery = self.deliveries.keys().next().map(|(at, _)| *at);
        let deadlines = self.clients.iter().filter_map(Cluster::next_deadline);
        deadlines.chain(delivery).chain(self.watches.next_deadline()).min()
    }

    fn advance(&mut self) {
        let at = self.next_event().expect("somebody waits for something");
        self.now = self.now.max(at);
        while let Some(entry) = self.deliveries.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (client, event) = entry.remove();
            self.step(client, event);
        }
        for client in 0..self.clients.len() {
            if self.clients[client].next_deadline().is_some_and(|at| at <= self.now) {
                self.step(client, ClientEvent::Tick { wall_ms: self.now.as_millis() + 1_000_000 });
            }
        }
        self.watches.tick(self.now);
        self.watch_outputs();
    }

    fn chance(&mut self, of_1000: u64) -> bool {
        of_1000 > 0 && self.rng.chance(of_1000, 1000)
    }

    fn session(&mut self, client: usize, peer: u32) -> SessionId {
        let next = &mut self.next_session;
        let session = self.sessions.entry((client, peer)).or_insert_with(|| {
            *next += 1;
            *next
        });
        SessionId(*session)
    }

    fn deliver(&mut self, client: usize, event: ClientEvent) {
        let latency = self.rng.below(self.faults.latency_ms * 1000 + 1) + 50;
        self.next_delivery += 1;
        let at = self.now + Duration::from_micros(latency);
        self.deliveries.insert((at, self.next_delivery), (client, event));
    }

    fn send_back(&mut self, client: usize, peer: u32, packet: Packet) {
        if self.lose_replies > 0 {
            self.lose_replies -= 1;
            return;
        }
        if self.chance(self.faults.lose) {
            return;
        }
        let entity = if peer == MON { EntityName::Mon("a".into()) } else { EntityName::Osd(OsdId(peer)) };
        let from = Peer { session: self.session(client, peer), entity };
        self.deliver(client, ClientEvent::Received { from, packet });
    }

    fn break_session(&mut self, client: usize, peer: u32) {
        let session = self.session(client, peer);
        self.sessions.remove(&(client, peer));
        self.watches.session_closed(session);
        self.deliver(client, ClientEvent::SessionClosed(session));
    }

    fn carry(&mut self, client: usize, to: Address, packet: Packet) {
        match to {
            Address::AnyMon | Address::Mon { .. } => {
                if self.mon_answers && !self.chance(self.faults.lose) {
                    self.monitor(client, packet);
                }
            }
            Address::Osd { id, .. } => self.carry_to_osd(client, id, packet),
            Address::Session(session) => {
                let found = self.sessions.iter().find(|(_, of)| **of == session.0).map(|(key, _)| *key);
                match found {
                    Some((_, MON)) | None => {}
                    Some((_, osd)) => self.carry_to_osd(client, OsdId(osd), packet),
                }
            }
        }
    }

    fn carry_to_osd(&mut self, client: usize, osd: OsdId, packet: Packet) {
        if self.chance(self.faults.close) {
            self.break_session(client, osd.0);
            return;
        }
        if self.chance(self.faults.lose) || !self.map.is_up(osd) {
            return;
        }
        if self.chance(self.faults.remap) {
            self.remap();
        }
        if self.chance(self.faults.double) {
            self.osd(client, osd, packet.clone());
        }
        self.osd(client, osd, packet);
    }

    fn maps(&self, after: u64) -> Maps {
        let newest = self.map.epoch().0;
        let osdmap = (after < newest).then(|| self.map.encode());
        Maps { fsid: FSID.into(), osdmap, newest, ..Maps::default() }
    }

    fn monitor(&mut self, client: usize, packet: Packet) {
        let epoch = self.map.epoch();
        match packet.message {
            Message::Subscribe(_) if self.mon_refuses => {
                let refused = Refused {
                    code: ErrorCode::NotPermitted as i32,
                    message: "client.x is not known to this cluster".into(),
                    kind: u32::from(packet.message.kind()),
                };
                self.send_back(client, MON, Packet::new(epoch, refused).request(packet.request));
            }
            Message::Subscribe(subscribe) => {
                let maps = self.maps(subscribe.osdmap);
                self.send_back(client, MON, Packet::new(epoch, maps));
            }
            Message::Command(command) => {
                let reply = self.command(&command);
                let packet = Packet::new(self.map.epoch(), reply).request(packet.request);
                self.send_back(client, MON, packet);
            }
            _ => {}
        }
    }

    fn command(&mut self, command: &Command) -> CommandReply {
        let json = &command.json;
        let mut step = Incremental::after(&self.map, self.now.as_millis());
        let number = |key: &str| {
            let rest = json.split(&format!("\"{key}\":")).nth(1).unwrap_or_default();
            let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().unwrap_or(0)
        };
        let mut reply = CommandReply::default();
        if json.contains("selfmanaged-snap create") {
            let snap = step.pool_mut(&self.map, PoolId(1)).unwrap().create_snap();
            reply.json = format!("{{\"snapid\":{}}}", snap.0);
        } else if json.contains("selfmanaged-snap rm") {
            let snap = SnapId(number("snapid"));
            step.pool_mut(&self.map, PoolId(1)).unwrap().remove_snap(snap);
        } else if json.contains("osd blocklist add") {
            let client = json.split("\"client\":\"").nth(1).unwrap().split('"').next().unwrap();
            let client = ClientId(u64::from_str_radix(client, 16).unwrap());
            step.blocklist.insert(client, Some(u64::MAX));
        } else if json.contains("no quorum") {
            return CommandReply {
                code: ErrorCode::NoQuorum as i32,
                message: "1 of 3 monitors: no quorum".into(),
                ..reply
            };
        } else {
            return CommandReply {
                code: ErrorCode::InvalidArgument as i32,
                message: "no such command".into(),
                ..reply
            };
        }
        self.map = self.map.apply(&step).unwrap();
        reply.epoch = self.map.epoch().0;
        reply
    }

    /// A new epoch in which some PG has another primary.
    pub(crate) fn remap(&mut self) {
        let pg = PgId::new(PoolId(1), self.rng.below(8) as u32);
        let mut acting = self.map.pg(pg).unwrap().acting.clone();
        acting.rotate_left(1);
        self.change_map(|step, _| {
            step.pg_temp.insert(pg, acting);
        });
        // Whoever watched there must come back: the soft state is gone.
        self.watches = Registry::new(self.map.epoch().0 << 32);
        for (request, (client, osd, ..)) in std::mem::take(&mut self.notifying) {
            self.refuse(client, osd, request);
        }
    }

    pub(crate) fn change_map(&mut self, change: impl FnOnce(&mut Incremental, &OsdMap)) {
        let mut step = Incremental::after(&self.map, self.now.as_millis());
        change(&mut step, &self.map);
        self.map = self.map.apply(&step).unwrap();
        for client in 0..self.clients.len() {
            let maps = Maps { osdmap: None, incrementals: vec![step.encode()], ..self.maps(0) };
            self.send_back(client, MON, Packet::new(self.map.epoch(), maps));
        }
    }

    fn refuse(&mut self, client: usize, osd: OsdId, request: RequestId) {
        let message = "PG 1.0 is peering: waits for osd.2".into();
        let reply = OsdOpReply { code: ErrorCode::TryAgain as i32, message, ..OsdOpReply::default() };
        self.send_back(client, osd.0, Packet::new(self.map.epoch(), reply).request(request));
    }

    fn osd(&mut self, client: usize, osd: OsdId, packet: Packet) {
        let request = packet.request;
        let epoch = self.map.epoch();
        match packet.message {
            Message::MapRequest(want) => {
                let maps = self.maps(want.after);
                self.send_back(client, osd.0, Packet::new(epoch, maps));
            }
            Message::PgAdmin(admin) => {
                let reply = PgAdminReply { json: admin.command, ..PgAdminReply::default() };
                self.send_back(client, osd.0, Packet::new(epoch, reply).request(request));
            }
            Message::OsdOp(op) => {
                let primary = packet.pg.and_then(|pg| self.map.pg(pg)?.primary());
                if primary != Some(osd) || self.chance(self.faults.refuse) {
                    self.refuse(client, osd, request);
                } else if let Some(list) = &op.list {
                    let pg = packet.pg.unwrap();
                    let pool = self.map.pool(pg.pool).unwrap();
                    let (first, end) = ObjectId::pg_key_range(pg, pool.pg_num);
                    let after = if list.after.is_empty() { &first[..] } else { &list.after[..] };
                    let found = nacre_store::ObjectStore::list(&self.store, after, false, &end, 3).unwrap();
                    let next = if found.len() == 3 { found[2].key().into() } else { Bytes::new() };
                    let alive = found.iter().filter(|o| ops::resolve(&self.store, o).unwrap().is_some());
                    let objects = alive.filter(|o| o.snap.is_head()).map(ObjectName::from).collect();
                    let reply =
                        OsdOpReply { list: Some(ObjectList { objects, next }), ..OsdOpReply::default() };
                    self.send_back(client, osd.0, Packet::new(epoch, reply).request(request));
                } else {
                    self.operate(client, osd, packet.pg.unwrap(), request, &op, &packet.data);
                }
            }
            _ => {}
        }
    }

    fn operate(&mut self, client: usize, osd: OsdId, pg: PgId, request: RequestId, op: &OsdOp, data: &Data) {
        let object = op.object.as_ref().unwrap().decode().unwrap();
        self.taken.push((osd, request, object.clone()));
        self.times.extend(op.times.iter().map(|times| (osd, **times)));
        let below = self.answered_below.entry((request.client, pg)).or_default();
        *below = (*below).max(op.answered_below);
        if request.seq < *below {
            return;
        }
        if self.full && !op.full_try && ops::needs_space(&op.ops) {
            let reply = OsdOpReply {
                code: ErrorCode::NoSpace as i32,
                message: "the cluster is full".into(),
                ..OsdOpReply::default()
            };
            return self.send_back(client, osd.0, Packet::new(self.map.epoch(), reply).request(request));
        }
        if self.map.is_blocklisted(request.client) {
            let message = format!("client {} is blocklisted", request.client);
            let reply = OsdOpReply { code: ErrorCode::Fenced as i32, message, ..OsdOpReply::default() };
            self.send_back(client, osd.0, Packet::new(self.map.epoch(), reply).request(request));
            return;
        }
        if let Some((reply, data)) = self.answered.get(&request).cloned() {
            let packet = Packet::new(self.map.epoch(), reply).request(request).with(data);
            self.send_back(client, osd.0, packet);
            return;
        }
        let executed = self.execute(pg, request, op, data, &object, client);
        let version = ops::wire_version(executed.version);
        let mut reply = OsdOpReply {
            code: executed.code as i32,
            message: executed.message,
            results: executed.results,
            version: Some(version),
            list: None,
            osd_ns: (op.measured > 0).then_some(1000),
        };
        let mut waits = false;
        for action in executed.watch {
            let of = request.client;
            match action {
                WatchAction::Watch { cookie, timeout_ms } => {
                    let session = self.session(client, osd.0);
                    self.watches.watch(self.now, &object, of, cookie, session, timeout_ms).unwrap();
                }
                WatchAction::Unwatch { cookie } => self.watches.unwatch(&object, of, cookie),
                WatchAction::Notify { op, payload, timeout_ms } => {
                    waits = true;
                    self.notifying.insert(request, (client, osd, std::mem::take(&mut reply), op));
                    self.watches.notify(self.now, &object, request, payload, timeout_ms).unwrap();
                }
                WatchAction::Ack { notify_id, cookie, reply } => {
                    self.watches.ack(notify_id, of, cookie, reply)
                }
                WatchAction::ObjectRemoved => self.watches.object_removed(&object),
            }
        }
        if !waits {
            if executed.mutation.is_some() || ops::is_mutation(&op.ops) {
                let kept = if self.forgets_data { Data::default() } else { executed.data.clone() };
                self.answered.insert(request, (reply.clone(), kept));
            }
            let mut data = executed.data;
            if !data.is_empty() && self.chance(self.faults.corrupt) {
                let mut bytes = data.bytes.to_vec();
                bytes[0] ^= 1;
                data.bytes = bytes.into();
            }
            let packet = Packet::new(self.map.epoch(), reply).request(request).with(data);
            self.send_back(client, osd.0, packet);
        }
        self.watch_outputs();
    }

    fn execute(
        &mut self,
        pg: PgId,
        request: RequestId,
        op: &OsdOp,
        data: &Data,
        object: &ObjectId,
        client: usize,
    ) -> Executed {
        let pool = self.map.pool(pg.pool).unwrap().clone();
        let mut reads = ReadCache::new();
        loop {
            let request = Request {
                pg,
                object,
                ops: &op.ops,
                data,
                snap_context: SnapContext { seq: op.snap_seq, snaps: &op.snaps },
                client: request.client,
                entity: &self.clients[client].entity(),
                request,
                version: EVersion::new(Epoch(1), self.seq + 1),
                wall_ms: self.now.as_millis() + 1,
                pool: &pool,
            };
            match ops::execute(&self.store, &request, &reads).unwrap() {
                Execution::NeedData(wanted) => {
                    for wanted in wanted {
                        let range = wanted.offset as usize..(wanted.offset + wanted.length) as usize;
                        let bytes = Bytes::copy_from_slice(&self.store.objects[&wanted.object].data[range]);
                        let data = Data::checksummed(wanted.offset, bytes);
                        reads.insert(wanted, data);
                    }
                }
                Execution::Done(executed) => {
                    if let Some(mutation) = &executed.mutation {
                        self.seq += mutation.entries.len() as u64;
                        self.mutations += 1;
                        self.store.apply(&mutation.transaction);
                    }
                    return executed;
                }
            }
        }
    }

    fn watch_outputs(&mut self) {
        for output in self.watches.take_outputs() {
            match output {
                WatchOutput::Send { session, event } => {
                    let to = self.sessions.iter().find(|(_, of)| **of == session.0).map(|(key, _)| *key);
                    if let Some((client, osd)) = to {
                        self.send_back(client, osd, Packet::new(self.map.epoch(), event));
                    }
                }
                WatchOutput::Notified { request, reply } => {
                    let Some((client, osd, mut answer, op)) = self.notifying.remove(&request) else {
                        continue;
                    };
                    answer.results[op].answer = reply.encode_to_vec().into();
                    let packet = Packet::new(self.map.epoch(), answer).request(request);
                    self.send_back(client, osd.0, packet);
                }
            }
        }
    }

    /// Objects of the store, heads only.
    pub(crate) fn head_names(&self) -> BTreeSet<String> {
        self.store.objects.keys().filter(|o| o.snap.is_head()).map(|o| o.name.clone()).collect()
    }
}
