//! The machines themselves: whatever packet decodes, whoever sends it, they go on.
//!
//! An input is a list of steps: a byte of what happens, a byte of who sends or how much time passes, a byte of which PG, a part
//! that is a message's kind and body, and a part that is its data.

use super::wire::packets;
use crate::input::{Input, join};
use bytes::Bytes;
use nacre_maps::{AuthMap, Incremental, OsdMap, WEIGHT_IN};
use nacre_mon::{Bootstrap, Mon, MonConfig, MonEffect, MonEvent};
use nacre_osd::ops::testing::ModelStore;
use nacre_osd::{Osd, OsdConfig, OsdEffect, OsdEvent, Tunables};
use nacre_types::{
    ClientId, EntityName, Epoch, Instant, Machine as _, OsdId, Outbox, PgId, PoolId, RequestId,
};
use nacre_wire::messages::*;
use nacre_wire::op::{Extent, ObjectOp, ObjectOpKind, OsdOp};
use nacre_wire::{Data, Message, ObjectName, Packet, Peer, SessionId};
use std::collections::BTreeMap;
use std::time::Duration;

const FSID: &str = "11111111-2222-3333-4444-555555555555";
const WALL_MS: u64 = 1_700_000_000_000;
const STEPS_MAX: usize = 24;

enum Step {
    Packet(Peer, Box<Packet>),
    Closed(SessionId),
    Time(Duration),
}

fn entity(which: u8) -> EntityName {
    match which % 8 {
        0 => EntityName::Client("admin".into()),
        1 => EntityName::Client("poor".into()),
        2 => EntityName::Client("stranger".into()),
        3 => EntityName::Mon("a".into()),
        4 => EntityName::Mon("b".into()),
        which => EntityName::Osd(OsdId(u32::from(which) - 5)),
    }
}

fn step(input: &mut Input<'_>, epoch: Epoch) -> Step {
    let (what, who, pg) = (input.u8(), input.u8(), input.u8());
    let peer = Peer { session: SessionId(u64::from(who % 8) + 1), entity: entity(who) };
    match what % 16 {
        14 => Step::Closed(peer.session),
        15 => Step::Time(Duration::from_millis(u64::from(who) * 40)),
        _ => {
            let mut body = Input(input.part());
            let kind = u16::from(body.u8());
            let data = input.part();
            let Ok(message) = Message::decode(kind, body.0) else { return Step::Time(Duration::ZERO) };
            let epoch = match what % 16 {
                13 => Epoch(u64::from(pg)),
                12 => Epoch(u64::MAX),
                _ => epoch,
            };
            let request = RequestId { client: ClientId(u64::from(who % 8)), seq: u64::from(pg) + 1 };
            let mut packet = Packet::new(epoch, message).request(request);
            if pg != 255 {
                packet = packet.on(PgId::new(PoolId(1), u32::from(pg % 4)));
            }
            Step::Packet(peer, Box::new(packet.with(Data::checksummed(0, Bytes::copy_from_slice(data)))))
        }
    }
}

/// A step as [`step`] reads it.
fn encode(what: u8, who: u8, pg: u8, message: &Message, data: &[u8]) -> Vec<u8> {
    let body = [&[message.kind() as u8], &message.encode()[..]].concat();
    [&[what, who, pg][..], &join(&[&body, data])].concat()
}

/// A monitor alone, that leads, over a store that keeps what it is told.
struct OneMon {
    mon: Mon,
    records: BTreeMap<Vec<u8>, Bytes>,
    now: Instant,
}

impl OneMon {
    fn new() -> OneMon {
        let caps = |text: &str| {
            BTreeMap::from([("mon".to_string(), text.to_string()), ("osd".into(), text.to_string())])
        };
        let mut entities: BTreeMap<EntityName, BTreeMap<String, String>> =
            [3, 4, 5, 6, 7, 0].into_iter().map(|which| (entity(which), caps("allow *"))).collect();
        entities.insert(entity(1), caps("allow r pool=rbd"));
        let bootstrap = Bootstrap {
            fsid: FSID.into(),
            mons: [("a".to_string(), "10.0.0.1:6789".to_string())].into(),
            entities,
            ca_key_pem: "KEY".into(),
            ca_cert_pem: "CERT".into(),
            settings: BTreeMap::new(),
            failure_domain: "osd".into(),
            created_ms: WALL_MS,
        };
        let mut records = BTreeMap::new();
        keep(&mut records, Mon::bootstrap_writes("a", &bootstrap).expect("a legal bootstrap"));
        let now = Instant::from_millis(1000);
        let mon = open(&records, now).expect("a monitor opens on its first records");
        let mut one = OneMon { mon, records, now };
        one.pass(Duration::from_secs(4));
        one
    }

    fn step(&mut self, event: MonEvent) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let mut out = Outbox::new();
            self.mon.step(self.now, event, &mut out);
            self.mon.check();
            for effect in out.take() {
                match effect {
                    MonEffect::Persist { token, writes } => {
                        keep(&mut self.records, writes);
                        events.insert(0, MonEvent::Persisted { token });
                    }
                    MonEffect::Sign { token, .. } => {
                        events.insert(0, MonEvent::Signed { token, result: Ok("CERT".into()) });
                    }
                    MonEffect::Send { packet, .. } => {
                        let back = Packet::from_frame(packet.to_frame());
                        assert!(back.is_ok(), "what is sent decodes");
                    }
                    MonEffect::CloseSession(_) | MonEffect::Log { .. } => {}
                }
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..200 {
            let Some(next) = self.mon.next_deadline().filter(|&next| next <= end) else { break };
            self.now = self.now.max(next);
            self.step(MonEvent::Tick { wall_ms: WALL_MS + self.now.as_millis() });
        }
        self.now = end;
    }
}

fn keep(records: &mut BTreeMap<Vec<u8>, Bytes>, writes: Vec<nacre_mon::Write>) {
    for write in writes {
        match write.value {
            Some(value) => records.insert(write.key, value),
            None => records.remove(&write.key),
        };
    }
}

fn open(records: &BTreeMap<Vec<u8>, Bytes>, now: Instant) -> Result<Mon, nacre_mon::OpenError> {
    let records = records.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    Mon::open(MonConfig::new("a", FSID, 7), records, now)
}

/// Steps of a monitor; afterwards its records must open. With an odd first byte the steps are instead edits of its records,
/// each a byte of which and a part to replace it by.
pub fn mon(input: &[u8]) {
    let mut input = Input(input);
    let mut one = OneMon::new();
    if input.u8() % 2 == 1 {
        let keys: Vec<Vec<u8>> = one.records.keys().cloned().collect();
        while !input.is_empty() {
            let key = keys[input.u8() as usize % keys.len()].clone();
            one.records.insert(key, Bytes::copy_from_slice(input.part()));
        }
        if let Ok(mon) = open(&one.records, one.now) {
            one.mon = mon;
            one.pass(Duration::from_secs(4));
        }
        return;
    }
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        match step(&mut input, Epoch(1)) {
            Step::Packet(from, packet) => one.step(MonEvent::Received { from, packet: *packet }),
            Step::Closed(session) => one.step(MonEvent::SessionClosed(session)),
            Step::Time(time) => one.pass(time),
        }
    }
    one.pass(Duration::from_millis(200));
    assert!(open(&one.records, one.now).is_ok(), "what it persisted opens");
}

pub fn mon_seeds() -> Vec<Vec<u8>> {
    let command = |text: &str| -> Message { Command { json: text.into(), input: Bytes::new() }.into() };
    let boot: Message = OsdBoot {
        osd: 0,
        uuid: "disk-0".into(),
        instance: 1,
        address: "10.0.0.2:6800".into(),
        host: "h".into(),
        capacity_bytes: 1 << 30,
        ..OsdBoot::default()
    }
    .into();
    let commands = [
        r#"{"prefix": "status"}"#,
        r#"{"prefix": "osd new", "uuid": "disk-0"}"#,
        r#"{"prefix": "osd pool create", "pool": "rbd", "pg_num": 4, "size": 1}"#,
        r#"{"prefix": "osd tree"}"#,
        r#"{"prefix": "osd out", "ids": [0]}"#,
        r#"{"prefix": "config set", "who": "osd", "name": "osd_max_backfills", "value": "2"}"#,
        r#"{"prefix": "auth get-or-create", "entity": "client.x", "caps": {"osd": "allow r"}, "csr": "x"}"#,
        r#"{"prefix": "mon add", "name": "b", "address": "10.0.0.2:6789"}"#,
        r#"{"prefix": "osd crush get"}"#,
        r#"{"prefix": "selfmanaged-snap create", "pool": "rbd"}"#,
        r#"{"prefix": "log last", "num": 5}"#,
        r#"{"prefix": "osd blocklist add", "client": "7"}"#,
        r#"{"prefix": "osd pool set", "pool": "rbd", "var": "size", "val": "2"}"#,
        r#"{"prefix": "osd reweight", "id": 0, "weight": 0.5}"#,
    ];
    let mut all = vec![0];
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for text in commands {
        let step = encode(0, 0, 255, &command(text), b"");
        all.extend(&step);
        seeds.push([&[0], &step[..]].concat());
    }
    all.extend(encode(0, 5, 255, &boot, b""));
    all.extend([15, 10, 0]);
    seeds.push(all);
    for packet in packets() {
        seeds.push([&[0], &encode(0, 5, 0, &packet.message, &packet.data.bytes)[..]].concat());
    }
    let one = OneMon::new();
    for (at, value) in one.records.values().enumerate() {
        seeds.push([&[1, at as u8], &join(&[value])[..]].concat());
    }
    seeds
}

/// OSD 0 of two, primary of some PGs, replica of others, over a model store; the other does not run.
struct OneOsd {
    osd: Osd<ModelStore>,
    now: Instant,
    stopped: bool,
}

fn osd_map() -> Vec<OsdMap> {
    let (map, _) = super::maps::sample();
    let mut step = Incremental::after(&map, WALL_MS);
    for id in 0..3 {
        let epoch = step.epoch;
        let info = step.osd_mut(&map, OsdId(id)).expect("it exists");
        (info.weight, info.instance) = (WEIGHT_IN, 1);
        info.address = format!("10.0.0.{id}:6800");
        if id == 0 {
            info.mark_down(epoch, WALL_MS);
        }
    }
    let down = map.apply(&step).expect("a step that fits");
    let mut step = Incremental::after(&down, WALL_MS);
    let epoch = step.epoch;
    let info = step.osd_mut(&down, OsdId(0)).expect("it exists");
    info.mark_up(epoch);
    let pool = step.pool_mut(&down, PoolId(1)).expect("it exists");
    (pool.size, pool.min_size, pool.pg_num, pool.pgp_num) = (2, 1, 4, 4);
    for seed in 0..4 {
        let pg = PgId::new(PoolId(1), seed);
        step.pg_temp.insert(pg, Vec::new());
        step.pg_upmap_items.insert(pg, Vec::new());
        let pinned = match seed {
            0 => vec![OsdId(0)],
            1 => vec![OsdId(0), OsdId(1)],
            2 => vec![OsdId(1), OsdId(0)],
            _ => vec![OsdId(2), OsdId(0)],
        };
        step.pg_upmap.insert(pg, pinned);
    }
    let up = down.apply(&step).expect("a step that fits");
    let mut thru = Incremental::after(&up, WALL_MS);
    let epoch = up.epoch();
    thru.osd_mut(&up, OsdId(0)).expect("it exists").set_up_thru(epoch);
    let last = up.apply(&thru).expect("a step that fits");
    vec![down, up, last]
}

impl OneOsd {
    fn new() -> OneOsd {
        let config = OsdConfig {
            id: OsdId(0),
            uuid: "uuid-0".into(),
            fsid: "fsid".into(),
            instance: 1,
            seed: 1,
            address: "10.0.0.0:6800".into(),
            host: "h".into(),
            device_class: "ssd".into(),
            version: "fuzz".into(),
            location: BTreeMap::new(),
            capacity_bytes: 1 << 40,
            tunables: Tunables::default(),
        };
        let now = Instant::from_millis(1000);
        let osd = Osd::open(config, ModelStore::default(), now).expect("an empty store opens");
        let mut one = OneOsd { osd, now, stopped: false };
        one.pass(Duration::from_millis(10));
        let mut auth = AuthMap { epoch: Epoch(1), ..AuthMap::default() };
        for which in [0, 3, 4, 5, 6, 7] {
            let entry = auth.entities.entry(entity(which)).or_default();
            entry.caps.insert("osd".into(), "allow *".parse().expect("caps"));
        }
        for map in osd_map() {
            let maps = Maps {
                fsid: "fsid".into(),
                osdmap: Some(map.encode()),
                authmap: Some(auth.encode()),
                newest: map.epoch().0,
                oldest: 1,
                ..Maps::default()
            };
            let from = Peer { session: SessionId(4), entity: entity(3) };
            one.step(OsdEvent::Received { from, packet: Packet::new(map.epoch(), maps) });
            one.pass(Duration::from_millis(10));
        }
        one.pass(Duration::from_secs(6));
        one
    }

    fn step(&mut self, event: OsdEvent) {
        if self.stopped {
            return;
        }
        let mut out = Outbox::new();
        self.osd.step(self.now, event, &mut out);
        for effect in out.take() {
            match effect {
                OsdEffect::Send { packet, .. } => {
                    let back = Packet::from_frame(packet.to_frame());
                    assert!(back.is_ok(), "what is sent decodes");
                }
                OsdEffect::Stopped { .. } => self.stopped = true,
                OsdEffect::Disk(_)
                | OsdEffect::Gather
                | OsdEffect::CloseSession(_)
                | OsdEffect::Log { .. } => {}
            }
        }
        self.osd.check();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100 {
            let Some(next) = self.osd.next_deadline().filter(|&next| next <= end) else { break };
            self.now = self.now.max(next);
            self.step(OsdEvent::Tick { wall_ms: WALL_MS + self.now.as_millis() });
        }
        self.now = end;
    }
}

pub fn osd(input: &[u8]) {
    let mut input = Input(input);
    let mut one = OneOsd::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let epoch = one.osd.map().epoch();
        match step(&mut input, epoch) {
            Step::Packet(from, packet) => one.step(OsdEvent::Received { from, packet: *packet }),
            Step::Closed(session) => one.step(OsdEvent::SessionClosed(session)),
            Step::Time(time) => one.pass(time),
        }
    }
    one.pass(Duration::from_millis(100));
}

pub fn osd_seeds() -> Vec<Vec<u8>> {
    let object = ObjectName::from(&super::wire::object("a"));
    let op: Message = OsdOp {
        object: Some(object),
        ops: vec![ObjectOp::from(ObjectOpKind::Write(Extent { offset: 0, length: 5 }))],
        ..OsdOp::default()
    }
    .into();
    let interval = osd_map()[1].epoch().0;
    let mut seeds = vec![
        encode(0, 0, 0, &op, b"hello"),
        encode(
            0,
            6,
            1,
            &PgNotify {
                interval,
                info: Some(PgInfo { pg: 1 << 32 | 1, ..PgInfo::default() }),
                ..PgNotify::default()
            }
            .into(),
            b"",
        ),
        encode(0, 6, 2, &PgQuery { interval, history: None }.into(), b""),
        encode(
            0,
            6,
            2,
            &PgActivate {
                interval,
                info: Some(PgInfo { pg: 1 << 32 | 2, exists: true, ..PgInfo::default() }),
                piece: Some(Piece { transfer: 1, index: 0, last: true }),
                ..PgActivate::default()
            }
            .into(),
            b"",
        ),
        encode(
            0,
            0,
            0,
            &PgAdmin { json: r#"{"command": "pg query", "pgid": "1.0"}"#.into(), ..PgAdmin::default() }
                .into(),
            b"",
        ),
    ];
    let together = seeds.concat();
    seeds.push(together);
    for packet in packets() {
        for pg in [0, 2] {
            seeds.push(encode(0, 6, pg, &packet.message, &packet.data.bytes));
        }
    }
    seeds
}
