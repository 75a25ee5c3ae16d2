//! A cluster in one thread: OSDs over [`MemStore`]s, a [`FakeMon`], clients, a network that delays, loses and cuts. All of it
//! from one seed.

use super::client::Client;
use super::mem_store::MemStore;
use super::mon::{FSID, FakeMon, uuid};
use crate::pg::State;
use crate::{Osd, OsdConfig, OsdEffect, OsdEvent, Tunables};
use nacre_store::DiskDone;
use nacre_types::{EVersion, EntityName, Epoch, Instant, Machine, OsdId, Outbox, PgId, Rng};
use nacre_wire::messages::LogLevel;
use nacre_wire::{Address, Lane, Message, Packet, Peer, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Node {
    Mon,
    Osd(u32),
    Client(u32),
}

/// One run of a node.
type Run = (Node, u64);

#[derive(Debug)]
enum Event {
    Deliver { from: Run, to: Run, packet: Box<Packet> },
    Refused { at: Run, osd: OsdId, address: String },
    SessionClosed { at: Run, session: SessionId },
    Disk { at: Run },
    MonCommit,
    ClientTurn { client: u32 },
}

pub struct Slot {
    pub osd: Option<Osd<MemStore>>,
    pub disk: MemStore,
    pub run: u64,
    disk_scheduled: bool,
    pub stopped: Option<String>,
}

pub struct World {
    pub now: Instant,
    pub rng: Rng,
    pub mon: FakeMon,
    pub slots: Vec<Slot>,
    pub clients: Vec<Client>,
    events: BTreeMap<(Instant, u64), Event>,
    next_event: u64,
    sessions: BTreeMap<(Run, Run), SessionId>,
    session_peer: BTreeMap<(Run, SessionId), Run>,
    lanes: BTreeMap<(Run, Run, Lane), Instant>,
    pub cut: BTreeSet<(Node, Node)>,
    /// Packets lost, in thousandths.
    pub loss: u64,
    pub disk_ms_max: u64,
    mon_commit_scheduled: bool,
    /// The newest interval of each PG in which a write was acknowledged.
    acked_in: BTreeMap<PgId, Epoch>,
    pub verbose: bool,
    pub tunables: Tunables,
    pub lines: Vec<String>,
    /// Packets to clients, when those are driven by hand.
    pub collect: Option<Vec<Packet>>,
    pub steps: u64,
}

impl World {
    pub fn new(osds: u32, seed: u64) -> World {
        World::with(osds, seed, Tunables::default())
    }

    pub fn with(osds: u32, seed: u64, tunables: Tunables) -> World {
        let mut world = World {
            now: Instant::from_millis(1),
            rng: Rng::new(seed),
            mon: FakeMon::new(osds),
            slots: Vec::new(),
            clients: Vec::new(),
            events: BTreeMap::new(),
            next_event: 0,
            sessions: BTreeMap::new(),
            session_peer: BTreeMap::new(),
            lanes: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss: 0,
            disk_ms_max: 5,
            mon_commit_scheduled: false,
            acked_in: BTreeMap::new(),
            verbose: false,
            tunables,
            lines: Vec::new(),
            collect: None,
            steps: 0,
        };
        for id in 0..osds {
            world.slots.push(Slot {
                osd: None,
                disk: MemStore::default(),
                run: 0,
                disk_scheduled: false,
                stopped: None,
            });
            world.start(id);
        }
        world
    }

    pub fn start(&mut self, id: u32) {
        if self.slots[id as usize].osd.is_some() {
            return;
        }
        let run = self.slots[id as usize].run + 1;
        let config = OsdConfig {
            id: OsdId(id),
            uuid: uuid(OsdId(id)),
            fsid: FSID.into(),
            instance: run,
            seed: self.rng.next_u64(),
            address: format!("osd.{id}:{run}"),
            host: format!("host{id}"),
            device_class: "ssd".into(),
            version: "test".into(),
            location: BTreeMap::new(),
            capacity_bytes: 1 << 40,
            tunables: self.tunables.clone(),
        };
        let disk = std::mem::take(&mut self.slots[id as usize].disk);
        let osd = Osd::open(config, disk, self.now).expect("an OSD opens its own disk");
        let slot = &mut self.slots[id as usize];
        (slot.osd, slot.run, slot.disk_scheduled, slot.stopped) = (Some(osd), run, false, None);
        self.step_osd(id, OsdEvent::Tick { wall_ms: self.now.as_millis() });
    }

    /// Ends an OSD's process at once. Of what was submitted and not committed, some prefix reaches the disk.
    pub fn kill(&mut self, id: u32) {
        if let Some(osd) = self.slots[id as usize].osd.take() {
            let store = osd.core.store;
            let also = self.rng.below(store.uncommitted() as u64 + 1) as usize;
            self.slots[id as usize].disk = store.crash(also);
        }
    }

    fn push(&mut self, at: Instant, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    pub fn run_of(&self, node: Node) -> Run {
        match node {
            Node::Osd(id) => (node, self.slots[id as usize].run),
            _ => (node, 1),
        }
    }

    fn is_alive(&self, (node, run): Run) -> bool {
        match node {
            Node::Osd(id) => self.slots[id as usize].osd.is_some() && self.slots[id as usize].run == run,
            _ => true,
        }
    }

    fn session(&mut self, at: Run, peer: Run) -> SessionId {
        if let Some(&session) = self.sessions.get(&(at, peer)) {
            return session;
        }
        self.next_event += 1;
        let session = SessionId(self.next_event);
        self.sessions.insert((at, peer), session);
        self.session_peer.insert((at, session), peer);
        session
    }

    pub fn send(&mut self, from: Run, to: Run, packet: Packet) {
        if self.cut.contains(&(from.0, to.0)) || self.rng.below(1000) < self.loss {
            return;
        }
        let latency = Duration::from_micros(self.rng.range(50, 1500));
        let lane = self.lanes.entry((from, to, packet.lane())).or_default();
        let at = (self.now + latency).max(*lane + Duration::from_nanos(1));
        *lane = at;
        self.push(at, Event::Deliver { from, to, packet: Box::new(packet) });
    }

    pub fn step_osd(&mut self, id: u32, event: OsdEvent) {
        let now = self.now;
        let slot = &mut self.slots[id as usize];
        let Some(osd) = slot.osd.as_mut() else { return };
        let mut out = Outbox::new();
        osd.step(now, event, &mut out);
        self.steps += 1;
        if self.steps.is_multiple_of(16) {
            osd.check();
        }
        let busy = osd.core.store.is_busy();
        let me = (Node::Osd(id), slot.run);
        if busy && !slot.disk_scheduled {
            slot.disk_scheduled = true;
            let after = Duration::from_micros(self.rng.range(20, 1000 * self.disk_ms_max.max(1)));
            self.push(now + after, Event::Disk { at: me });
        }
        for effect in out.take() {
            self.effect(id, me, effect);
        }
    }

    fn effect(&mut self, id: u32, me: Run, effect: OsdEffect) {
        match effect {
            OsdEffect::Send { to, packet } => {
                self.observe(id, &packet);
                match to {
                    Address::AnyMon | Address::Mon { .. } => self.send(me, (Node::Mon, 1), packet),
                    Address::Session(session) => {
                        let Some(&peer) = self.session_peer.get(&(me, session)) else { return };
                        if self.is_alive(peer) {
                            self.send(me, peer, packet);
                        } else {
                            let at = self.now + Duration::from_millis(1);
                            self.push(at, Event::SessionClosed { at: me, session });
                        }
                    }
                    Address::Osd { id: to, address } => {
                        let run = address.rsplit(':').next().and_then(|run| run.parse().ok()).unwrap_or(0);
                        let peer = (Node::Osd(to.0), run);
                        if self.is_alive(peer) {
                            self.send(me, peer, packet);
                        } else {
                            let at = self.now + Duration::from_millis(1);
                            self.push(at, Event::Refused { at: me, osd: to, address });
                        }
                    }
                }
            }
            OsdEffect::Log { level, text } => {
                if self.verbose || level == LogLevel::Error {
                    let line = format!("{} osd.{id} {level:?} {text}", self.now);
                    if self.verbose {
                        eprintln!("{line}");
                    }
                    self.lines.push(line);
                }
            }
            OsdEffect::Stopped { reason, .. } => {
                self.slots[id as usize].stopped = Some(reason);
                self.kill(id);
            }
            OsdEffect::Disk(_) | OsdEffect::Gather | OsdEffect::CloseSession(_) => {}
        }
    }

    /// A write acknowledged in an interval ends all older intervals: no older primary may acknowledge any more.
    fn observe(&mut self, id: u32, packet: &Packet) {
        let (Message::OsdOpReply(reply), Some(pg)) = (&packet.message, packet.pg) else { return };
        let Some(osd) = &self.slots[id as usize].osd else { return };
        let Some(pg) = osd.pg(pg) else { return };
        if reply.code == 0 && *pg.state() == State::Active {
            let newest = self.acked_in.entry(pg.id).or_default();
            assert!(pg.interval() >= *newest, "PG {} is served by a primary of an older interval", pg.id);
            *newest = pg.interval();
        }
    }

    /// Lets the world go on for that long.
    pub fn run(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while self.next(end) {}
        self.now = end;
    }

    pub fn run_until(&mut self, ms: u64, mut done: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.now + Duration::from_millis(ms);
        while self.now < end {
            if done(self) {
                return true;
            }
            let until = end.min(self.now + Duration::from_millis(50));
            while self.next(until) {}
            self.now = until;
        }
        done(self)
    }

    /// The next thing that happens before `end`.
    fn next(&mut self, end: Instant) -> bool {
        let event = self.events.first_key_value().map(|((at, _), _)| *at);
        let mut timer: Option<(Instant, u32)> = None;
        for (id, slot) in self.slots.iter().enumerate() {
            if let Some(at) = slot.osd.as_ref().and_then(|osd| osd.next_deadline())
                && timer.is_none_or(|(first, _)| at < first)
            {
                timer = Some((at, id as u32));
            }
        }
        match (event, timer) {
            (Some(at), timer) if timer.is_none_or(|(first, _)| at <= first) => {
                if at > end {
                    return false;
                }
                self.now = self.now.max(at);
                let (_, event) = self.events.pop_first().expect("there is one");
                self.happen(event);
            }
            (_, Some((at, id))) => {
                if at > end {
                    return false;
                }
                // A tick is never late by much, and never in the past.
                self.now = self.now.max(at);
                self.step_osd(id, OsdEvent::Tick { wall_ms: self.now.as_millis() });
                let again = self.slots[id as usize].osd.as_ref().and_then(|osd| osd.next_deadline());
                assert!(
                    again.is_none_or(|again| again > self.now),
                    "osd.{id} wants a tick at {again:?}, and did nothing at {}",
                    self.now
                );
            }
            _ => return false,
        }
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { from, to, packet } => {
                if self.is_alive(to) && !self.cut.contains(&(from.0, to.0)) {
                    self.deliver(from, to, *packet);
                }
            }
            Event::Refused { at, osd, address } => {
                if self.is_alive(at)
                    && let (Node::Osd(id), false) = (at.0, self.cut.contains(&(at.0, Node::Osd(osd.0))))
                {
                    self.step_osd(id, OsdEvent::PeerRefused { osd, address });
                }
            }
            Event::SessionClosed { at, session } => {
                if let (Node::Osd(id), true) = (at.0, self.is_alive(at)) {
                    self.step_osd(id, OsdEvent::SessionClosed(session));
                }
            }
            Event::Disk { at } => {
                if let (Node::Osd(id), true) = (at.0, self.is_alive(at)) {
                    self.slots[id as usize].disk_scheduled = false;
                    let done = DiskDone { token: 0, result: Ok(Default::default()) };
                    self.step_osd(id, OsdEvent::Disk(done));
                }
            }
            Event::MonCommit => {
                self.mon_commit_scheduled = false;
                self.publish();
            }
            Event::ClientTurn { client } => self.client_turn(client),
        }
    }

    pub fn publish(&mut self) {
        if !self.mon.commit() {
            return;
        }
        for (osd, after) in self.mon.subscribers.clone() {
            let maps = self.mon.maps(after);
            self.mon.subscribers.insert(osd, self.mon.map.epoch());
            let packet = Packet::new(self.mon.map.epoch(), maps);
            let to = self.run_of(Node::Osd(osd.0));
            self.send((Node::Mon, 1), to, packet);
        }
    }

    fn deliver(&mut self, from: Run, to: Run, packet: Packet) {
        match to.0 {
            Node::Osd(id) => {
                let session = self.session(to, from);
                let entity = match from.0 {
                    Node::Mon => EntityName::Mon("a".into()),
                    Node::Osd(id) => EntityName::Osd(OsdId(id)),
                    Node::Client(_) => EntityName::Client("admin".into()),
                };
                self.step_osd(id, OsdEvent::Received { from: Peer { session, entity }, packet });
            }
            Node::Mon => {
                let Node::Osd(id) = from.0 else { return };
                if let Some(maps) = self.mon.receive(OsdId(id), packet.message) {
                    let packet = Packet::new(self.mon.map.epoch(), maps);
                    self.send(to, from, packet);
                }
                if !self.mon_commit_scheduled {
                    self.mon_commit_scheduled = true;
                    self.push(self.now + Duration::from_millis(25), Event::MonCommit);
                }
            }
            Node::Client(_) if self.collect.is_some() => {
                self.collect.get_or_insert_default().push(packet);
            }
            Node::Client(id) => {
                let now = self.now;
                let map = self.mon.map.clone();
                if let Message::OsdOpReply(reply) = packet.message {
                    self.clients[id as usize].on_reply(now, &map, packet.request, &reply, &packet.data);
                }
                self.client_turn(id);
            }
        }
    }

    pub fn add_client(&mut self, client: Client) {
        self.clients.push(client);
        let client = self.clients.len() as u32 - 1;
        self.push(self.now, Event::ClientTurn { client });
    }

    fn client_turn(&mut self, id: u32) {
        let (now, map) = (self.now, self.mon.map.clone());
        let (packets, next) = self.clients[id as usize].turn(now, &map, &mut self.rng);
        for (to, packet) in packets {
            let to = self.run_of(Node::Osd(to.0));
            if self.is_alive(to) {
                self.send((Node::Client(id), 1), to, packet);
            }
        }
        if let Some(at) = next {
            self.push(at.max(now + Duration::from_micros(10)), Event::ClientTurn { client: id });
        }
    }

    /// All PGs of all pools are active and clean by their primaries.
    pub fn is_clean(&self) -> bool {
        let map = &self.mon.map;
        map.pgs().all(|id| {
            let primary = map.pg(id).and_then(|place| place.primary());
            let osd = primary.and_then(|osd| self.slots[osd.0 as usize].osd.as_ref());
            osd.is_some_and(|osd| {
                osd.map().epoch() == map.epoch()
                    && osd.pg(id).is_some_and(|pg| *pg.state() == State::Active && pg.clean)
            })
        })
    }

    /// Why it is not, for a failed test.
    pub fn explain(&self) -> String {
        let mut text = format!("epoch {}\n", self.mon.map.epoch());
        for (id, slot) in self.slots.iter().enumerate() {
            let Some(osd) = &slot.osd else {
                text += &format!("osd.{id} dead {:?}\n", slot.stopped);
                continue;
            };
            text += &format!("osd.{id} epoch {} phase {:?}\n", osd.map().epoch(), osd.core.phase);
            for pg in osd.pgs() {
                text += &format!(
                    "  {} since {} {:?} up {:?} acting {:?} head {} clean {} missing {} waits {:?}\n",
                    pg.id,
                    pg.interval(),
                    pg.state(),
                    pg.members.up,
                    pg.members.acting,
                    pg.log.head(),
                    pg.clean,
                    pg.missing.len(),
                    pg.why().iter().take(3).map(|w| format!("{}: {}", w.on, w.needs)).collect::<Vec<_>>(),
                );
            }
        }
        text
    }

    /// Every member of every PG holds the same objects and the same log head.
    pub fn check_replicas(&self) {
        let map = &self.mon.map;
        for id in map.pgs() {
            let place = map.pg(id).expect("it exists");
            let pg_num = map.pool(id.pool).expect("a pool").pg_num;
            let (first, end) = nacre_types::ObjectId::pg_key_range(id, pg_num);
            let mut seen: Option<(OsdId, EVersion, BTreeMap<Vec<u8>, super::mem_store::Object>)> = None;
            for &osd in &place.acting {
                let machine = self.slots[osd.0 as usize].osd.as_ref().expect("alive");
                let content = &machine.core.store.live;
                let objects: BTreeMap<_, _> = content
                    .objects
                    .range(first.clone()..end.clone())
                    .map(|(k, o)| (k.clone(), o.clone()))
                    .collect();
                let head = machine.pg(id).expect("a member has it").log.head();
                match &seen {
                    None => seen = Some((osd, head, objects)),
                    Some((other, other_head, other_objects)) => {
                        assert_eq!(*other_head, head, "log heads of PG {id} on {other} and {osd}");
                        let names = |o: &BTreeMap<Vec<u8>, _>| o.keys().cloned().collect::<Vec<_>>();
                        assert_eq!(
                            names(other_objects),
                            names(&objects),
                            "objects of PG {id} on {other} and {osd}"
                        );
                        assert!(*other_objects == objects, "content of PG {id} on {other} and {osd}");
                    }
                }
            }
            let primary = place.primary().expect("a primary");
            let pg =
                self.slots[primary.0 as usize].osd.as_ref().and_then(|osd| osd.pg(id)).expect("it is there");
            let count = seen.map_or(0, |(_, _, objects)| objects.len());
            assert_eq!(pg.info.objects, count as u64, "objects counted by the primary of PG {id}");
        }
    }
}
