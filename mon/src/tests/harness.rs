//! A few monitors over a network that loses, delays and cuts but never reorders one link, with disks that keep only what
//! was reported durable and perhaps a prefix of the rest; and a checker that runs after every step.

use crate::{Bootstrap, Mon, MonConfig, MonEffect, MonEvent};
use bytes::Bytes;
use nacre_types::{ClientId, EntityName, Instant, Machine, OsdId, Outbox, RequestId, Rng};
use nacre_wire::frame::BODY_BYTES_MAX;
use nacre_wire::messages::{Command, CommandReply, Maps, OsdBoot};
use nacre_wire::{Address, Message, Packet, Peer, SessionId};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub(crate) const FSID: &str = "11111111-2222-3333-4444-555555555555";
/// Sessions from here on are those between monitors.
const MON_SESSIONS: u64 = 1_000_000;

struct Disk {
    records: BTreeMap<Vec<u8>, Bytes>,
    /// Batches that are being written, with when they will be durable.
    writing: VecDeque<(Instant, u64, Vec<crate::Write>)>,
    hangs_until: Instant,
}

impl Disk {
    fn write(&mut self, writes: Vec<crate::Write>) {
        for write in writes {
            match write.value {
                Some(value) => self.records.insert(write.key, value),
                None => self.records.remove(&write.key),
            };
        }
    }
}

struct Node {
    name: String,
    mon: Option<Mon>,
    disk: Disk,
    runs: u64,
}

pub(crate) struct Client {
    pub entity: EntityName,
    pub mon: usize,
    pub inbox: Vec<Packet>,
}

pub(crate) struct World {
    pub now: Instant,
    pub rng: Rng,
    nodes: Vec<Node>,
    /// Packets on their way, by from and to, in order.
    wires: BTreeMap<(usize, usize), VecDeque<(Instant, Packet)>>,
    pub cut: BTreeSet<(usize, usize)>,
    pub loss_permille: u64,
    pub disk_ms: u64,
    pub clients: BTreeMap<SessionId, Client>,
    next_session: u64,
    pub next_seq: u64,
    /// State hash by log index: all monitors, all times.
    hashes: BTreeMap<u64, u64>,
    epochs: BTreeMap<u64, u64>,
    pub logs: Vec<String>,
    pub tune: fn(&mut MonConfig),
}

pub(crate) fn letter(at: usize) -> String {
    char::from(b'a' + at as u8).to_string()
}

fn address(at: usize) -> String {
    format!("10.0.0.{}:6789", at + 1)
}

pub(crate) fn bootstrap(mons: usize) -> Bootstrap {
    let caps = |text: &str| {
        BTreeMap::from([("mon".to_string(), text.to_string()), ("osd".into(), "allow *".into())])
    };
    let mut entities = BTreeMap::from([(EntityName::Client("admin".into()), caps("allow *"))]);
    for at in 0..mons {
        entities.insert(EntityName::Mon(letter(at)), caps("allow *"));
    }
    Bootstrap {
        fsid: FSID.into(),
        mons: (0..mons).map(|at| (letter(at), address(at))).collect(),
        entities,
        ca_key_pem: "KEY".into(),
        ca_cert_pem: "CERT".into(),
        settings: BTreeMap::new(),
        failure_domain: "host".into(),
        created_ms: 1_000,
    }
}

impl World {
    pub fn new(mons: usize, seed: u64) -> World {
        let bootstrap = bootstrap(mons);
        let node = |at: usize| {
            let name = letter(at);
            let mut disk =
                Disk { records: BTreeMap::new(), writing: VecDeque::new(), hangs_until: Instant::ZERO };
            disk.write(Mon::bootstrap_writes(&name, &bootstrap).unwrap());
            Node { name, mon: None, disk, runs: 0 }
        };
        let mut world = World {
            now: Instant::from_millis(1_000),
            rng: Rng::new(seed),
            nodes: (0..mons).map(node).collect(),
            wires: BTreeMap::new(),
            cut: BTreeSet::new(),
            loss_permille: 0,
            disk_ms: 2,
            clients: BTreeMap::new(),
            next_session: 1,
            next_seq: 1,
            hashes: BTreeMap::new(),
            epochs: BTreeMap::new(),
            logs: Vec::new(),
            tune: |_| {},
        };
        for at in 0..mons {
            world.start(at);
        }
        world
    }

    pub fn mons(&self) -> usize {
        self.nodes.len()
    }

    pub fn mon(&self, at: usize) -> &Mon {
        self.nodes[at].mon.as_ref().expect("it runs")
    }

    pub fn runs(&self, at: usize) -> bool {
        self.nodes[at].mon.is_some()
    }

    pub fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| self.nodes[*at].mon.as_ref().is_some_and(Mon::is_leader);
        (0..self.nodes.len()).filter(leads).max_by_key(|&at| self.mon(at).term())
    }

    pub fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        assert!(node.mon.is_none());
        node.runs += 1;
        let mut config = MonConfig::new(&node.name, FSID, (at as u64) << 32 | node.runs);
        (self.tune)(&mut config);
        let records = node.disk.records.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        node.mon = Some(Mon::open(config, records, self.now).expect("its own records open"));
    }

    /// Makes a monitor with a joining store; it does not run yet.
    pub fn join(&mut self, monmap: &nacre_maps::MonMap) -> usize {
        let name = letter(self.nodes.len());
        let mut disk =
            Disk { records: BTreeMap::new(), writing: VecDeque::new(), hangs_until: Instant::ZERO };
        disk.write(Mon::join_writes(&name, monmap).unwrap());
        self.nodes.push(Node { name, mon: None, disk, runs: 0 });
        self.nodes.len() - 1
    }

    /// Power loss: batches in flight survive as a random prefix.
    pub fn crash(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.mon = None;
        let survive = self.rng.below(node.disk.writing.len() as u64 + 1);
        for _ in 0..survive {
            let (_, _, writes) = node.disk.writing.pop_front().expect("counted");
            node.disk.write(writes);
        }
        node.disk.writing.clear();
        self.wires.retain(|(from, to), _| *from != at && *to != at);
        let closed: Vec<SessionId> =
            self.clients.iter().filter(|(_, c)| c.mon == at).map(|(&s, _)| s).collect();
        for session in closed {
            self.clients.get_mut(&session).expect("listed").mon = usize::MAX;
        }
    }

    pub fn records(&self, at: usize) -> Vec<(Vec<u8>, Bytes)> {
        self.nodes[at].disk.records.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    pub fn put_back(&mut self, at: usize, records: Vec<(Vec<u8>, Bytes)>) {
        self.nodes[at].disk.records = records.into_iter().collect();
    }

    /// Whatever it writes from now on takes that long at least.
    pub fn hang_disk(&mut self, at: usize, for_: Duration) {
        self.nodes[at].disk.hangs_until = self.now + for_;
    }

    pub fn isolate(&mut self, at: usize) {
        for other in 0..self.nodes.len() {
            self.cut.insert((at, other));
            self.cut.insert((other, at));
        }
    }

    pub fn heal(&mut self) {
        self.cut.clear();
        self.loss_permille = 0;
    }

    pub fn connect(&mut self, entity: &str, mon: usize) -> SessionId {
        self.next_session += 1;
        let session = SessionId(self.next_session);
        let client = Client { entity: entity.parse().unwrap(), mon, inbox: Vec::new() };
        self.clients.insert(session, client);
        session
    }

    /// Gives a packet of a client to the monitor it is connected to.
    pub fn send(&mut self, session: SessionId, packet: Packet) {
        let client = &self.clients[&session];
        let (mon, entity) = (client.mon, client.entity.clone());
        if mon == usize::MAX || self.nodes[mon].mon.is_none() {
            return;
        }
        self.step(mon, MonEvent::Received { from: Peer { session, entity }, packet });
    }

    pub fn step(&mut self, at: usize, event: MonEvent) {
        let mut out = Outbox::new();
        let now = self.now;
        let Some(mon) = self.nodes[at].mon.as_mut() else { return };
        mon.step(now, event, &mut out);
        mon.check();
        let (index, hash) = mon.applied();
        let known = *self.hashes.entry(index).or_insert(hash);
        assert_eq!(known, hash, "mon.{} differs at log index {index}", letter(at));
        let (epoch, map_hash) = (mon.osdmap().epoch().0, mon.osdmap().hash());
        assert_eq!(*self.epochs.entry(epoch).or_insert(map_hash), map_hash, "two maps of epoch {epoch}");
        for effect in out.take() {
            self.carry_out(at, effect);
        }
    }

    /// For hostile input: what a liar makes a monitor believe is not compared with the others.
    pub fn tell_unchecked(&mut self, session: SessionId, packet: Packet) {
        let client = &self.clients[&session];
        let from = Peer { session, entity: client.entity.clone() };
        let mon = client.mon;
        self.step_unchecked(mon, MonEvent::Received { from, packet });
    }

    fn step_unchecked(&mut self, at: usize, event: MonEvent) {
        let mut out = Outbox::new();
        let now = self.now;
        let Some(mon) = self.nodes[at].mon.as_mut() else { return };
        mon.step(now, event, &mut out);
        for effect in out.take() {
            self.carry_out(at, effect);
        }
    }

    pub fn run_unchecked(&mut self, for_: Duration) {
        let until = self.now + for_;
        while let Some((when, next)) = self.next_event(until) {
            self.now = self.now.max(when);
            match next {
                Next::Written(at) => {
                    if let Some((_, token, writes)) = self.nodes[at].disk.writing.pop_front() {
                        self.nodes[at].disk.write(writes);
                        self.step_unchecked(at, MonEvent::Persisted { token });
                    }
                }
                Next::Tick(at) => {
                    let wall_ms = self.wall_ms();
                    self.step_unchecked(at, MonEvent::Tick { wall_ms });
                }
                Next::Deliver(from, to) => {
                    if let Some(wire) = self.wires.get_mut(&(from, to)) {
                        wire.pop_front();
                    }
                }
            }
        }
        self.now = until;
    }

    fn carry_out(&mut self, at: usize, effect: MonEffect) {
        match effect {
            MonEffect::Send { to, packet } => {
                assert!(
                    packet.message.encode().len() <= BODY_BYTES_MAX,
                    "{} is too large",
                    packet.message.name()
                );
                match to {
                    Address::Mon { name, .. } => {
                        let to = self.nodes.iter().position(|node| node.name == name);
                        if let Some(to) = to {
                            self.send_wire(at, to, packet);
                        }
                    }
                    Address::Session(session) if session.0 >= MON_SESSIONS => {
                        self.send_wire(at, (session.0 - MON_SESSIONS) as usize, packet);
                    }
                    Address::Session(session) => {
                        if let Some(client) = self.clients.get_mut(&session).filter(|client| client.mon == at)
                        {
                            client.inbox.push(packet);
                        }
                    }
                    other => panic!("a monitor does not send to {other:?}"),
                }
            }
            MonEffect::Persist { token, writes } => {
                let last = self.nodes[at].disk.writing.back().map_or(self.now, |(when, ..)| *when);
                let when = last.max(self.now).max(self.nodes[at].disk.hangs_until)
                    + Duration::from_micros(self.rng.below(self.disk_ms * 1000 + 1));
                self.nodes[at].disk.writing.push_back((when, token, writes));
            }
            MonEffect::Sign { token, entity, .. } => {
                let result = Ok(format!("CERT OF {entity}"));
                self.step(at, MonEvent::Signed { token, result });
            }
            MonEffect::CloseSession(session) => {
                self.clients.remove(&session);
            }
            MonEffect::Log { text, .. } => self.logs.push(format!("{} mon.{}: {text}", self.now, letter(at))),
        }
    }

    fn send_wire(&mut self, from: usize, to: usize, packet: Packet) {
        if self.cut.contains(&(from, to)) || self.rng.chance(self.loss_permille, 1000) {
            return;
        }
        let wire = self.wires.entry((from, to)).or_default();
        let last = wire.back().map_or(self.now, |(when, _)| *when);
        let when = last.max(self.now + Duration::from_micros(100 + self.rng.below(900)));
        wire.push_back((when, packet));
    }

    /// The next thing that happens, if before `until`.
    fn next_event(&self, until: Instant) -> Option<(Instant, Next)> {
        let mut best: Option<(Instant, Next)> = None;
        let mut offer = |when: Instant, next: Next| {
            if when <= until && best.as_ref().is_none_or(|(at, _)| when < *at) {
                best = Some((when, next));
            }
        };
        for (at, node) in self.nodes.iter().enumerate() {
            if let Some((when, ..)) = node.disk.writing.front() {
                offer(*when, Next::Written(at));
            }
            if let Some(deadline) = node.mon.as_ref().and_then(Mon::next_deadline) {
                offer(deadline, Next::Tick(at));
            }
        }
        for (&(from, to), wire) in &self.wires {
            if let Some((when, _)) = wire.front() {
                offer(*when, Next::Deliver(from, to));
            }
        }
        best
    }

    pub fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.now.as_millis()
    }

    pub fn run(&mut self, for_: Duration) {
        let until = self.now + for_;
        while let Some((when, next)) = self.next_event(until) {
            self.now = self.now.max(when);
            match next {
                Next::Written(at) => {
                    if let Some((_, token, writes)) = self.nodes[at].disk.writing.pop_front() {
                        self.nodes[at].disk.write(writes);
                        self.step(at, MonEvent::Persisted { token });
                    }
                }
                Next::Tick(at) => {
                    let wall_ms = self.wall_ms();
                    self.step(at, MonEvent::Tick { wall_ms });
                }
                Next::Deliver(from, to) => {
                    let packet = self.wires.get_mut(&(from, to)).and_then(VecDeque::pop_front);
                    if let Some((_, packet)) = packet
                        && !self.cut.contains(&(from, to))
                    {
                        let session = SessionId(MON_SESSIONS + from as u64);
                        let entity = EntityName::Mon(letter(from));
                        self.step(to, MonEvent::Received { from: Peer { session, entity }, packet });
                    }
                }
            }
        }
        self.now = until;
    }

    /// Runs until somebody leads.
    pub fn elect(&mut self) -> usize {
        for _ in 0..100 {
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.run(Duration::from_millis(100));
        }
        panic!("nobody leads after ten seconds: {:#?}", self.logs)
    }

    pub fn request(&mut self, session: SessionId) -> RequestId {
        self.next_seq += 1;
        RequestId { client: ClientId(session.0), seq: self.next_seq }
    }

    pub fn ask(&mut self, session: SessionId, request: RequestId, json: &Value, input: &[u8]) {
        let command = Command { json: json.to_string(), input: Bytes::copy_from_slice(input) };
        self.send(session, Packet::new(nacre_types::Epoch(0), command).request(request));
    }

    pub fn replies(&mut self, session: SessionId) -> Vec<(RequestId, CommandReply)> {
        let Some(client) = self.clients.get_mut(&session) else { return Vec::new() };
        let mut replies = Vec::new();
        client.inbox.retain(|packet| match &packet.message {
            Message::CommandReply(reply) => {
                replies.push((packet.request, reply.clone()));
                false
            }
            _ => true,
        });
        replies
    }

    /// Does a command at a monitor and waits for the answer.
    pub fn command_at(&mut self, mon: usize, json: Value) -> CommandReply {
        self.command_as("client.admin", mon, json, b"")
    }

    pub fn command(&mut self, json: Value) -> CommandReply {
        let leader = self.elect();
        self.command_at(leader, json)
    }

    /// Does a command that must succeed, and gives its JSON.
    pub fn ok(&mut self, json: Value) -> Value {
        let reply = self.command(json.clone());
        assert_eq!(reply.code, 0, "{json}: {}", reply.message);
        serde_json::from_str(&reply.json).unwrap_or(Value::Null)
    }

    pub fn command_as(&mut self, entity: &str, mon: usize, json: Value, input: &[u8]) -> CommandReply {
        let session = self.connect(entity, mon);
        let request = self.request(session);
        self.ask(session, request, &json, input);
        for _ in 0..200 {
            self.run(Duration::from_millis(50));
            if let Some((_, reply)) = self.replies(session).into_iter().find(|(id, _)| *id == request) {
                self.clients.remove(&session);
                return reply;
            }
        }
        panic!("no answer to {json} within ten seconds: {:#?}", self.logs)
    }

    /// Takes the maps a session was sent out of its inbox.
    pub fn maps(&mut self, session: SessionId) -> Vec<Maps> {
        let Some(client) = self.clients.get_mut(&session) else { return Vec::new() };
        let mut maps = Vec::new();
        client.inbox.retain(|packet| match &packet.message {
            Message::Maps(message) => {
                maps.push(message.clone());
                false
            }
            _ => true,
        });
        maps
    }

    /// Makes and boots an OSD.
    pub fn add_osd(&mut self, host: &str) -> OsdId {
        let uuid = format!("disk-{}", self.next_seq);
        let id =
            self.ok(serde_json::json!({"prefix": "osd new", "uuid": uuid}))["osdid"].as_u64().unwrap() as u32;
        self.boot(id, host, &uuid, 1);
        OsdId(id)
    }

    pub fn boot(&mut self, id: u32, host: &str, uuid: &str, instance: u64) {
        let boot = OsdBoot {
            osd: id,
            uuid: uuid.into(),
            instance,
            address: format!("10.1.0.{id}:7000"),
            host: host.into(),
            device_class: "ssd".into(),
            capacity_bytes: 1 << 40,
            version: "0.1".into(),
            ..OsdBoot::default()
        };
        let leader = self.elect();
        let session = self.connect(&format!("osd.{id}"), leader);
        self.send(session, Packet::new(nacre_types::Epoch(0), boot));
        self.run(Duration::from_millis(200));
    }

    /// Everything heals, everybody runs, and all agree.
    pub fn settle(&mut self) {
        self.heal();
        for at in 0..self.nodes.len() {
            if !self.runs(at) {
                self.start(at);
            }
        }
        self.run(Duration::from_secs(10));
        let leader = self.leader().expect("a leader within ten seconds of health");
        let members = self.mon(leader).monmap().clone();
        let state = self.mon(leader).state_bytes();
        for at in 0..self.nodes.len() {
            if members.mons.contains_key(&letter(at)) {
                let (applied, leading) = (self.mon(at).applied(), self.mon(leader).applied());
                assert_eq!(applied, leading, "mon.{} is behind: {:#?}", letter(at), self.logs);
                assert_eq!(self.mon(at).state_bytes(), state);
            }
        }
    }
}

enum Next {
    Written(usize),
    Tick(usize),
    Deliver(usize, usize),
}
