//! Nothing that comes from a wire makes a monitor panic.

use super::harness::World;
use nacre_types::{ClientId, Epoch, RequestId, Rng};
use nacre_wire::messages::*;
use nacre_wire::{Message, Packet};
use prost_011::Message as _;
use raft::eraftpb::{ConfState, Entry, Message as RaftMessage, Snapshot, SnapshotMetadata};

fn bytes(rng: &mut Rng, max: u64) -> Vec<u8> {
    let mut bytes = vec![0; rng.below(max) as usize];
    rng.fill(&mut bytes);
    bytes
}

/// Small numbers are the ones that hit something.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => rng.below(4),
        1 => rng.below(40),
        2 => u64::MAX - rng.below(3),
        _ => rng.next_u64(),
    }
}

fn raft(rng: &mut Rng, from: u64, to: u64) -> RaftMessage {
    let entries = (0..rng.below(4))
        .map(|_| Entry {
            entry_type: rng.below(4) as i32,
            term: rng.below(6),
            index: rng.below(30),
            data: bytes(rng, 20),
            context: bytes(rng, 20),
            sync_log: false,
        })
        .collect();
    let conf = ConfState {
        voters: (0..rng.below(4)).map(|_| rng.below(5)).collect(),
        learners: (0..rng.below(2)).map(|_| rng.below(5)).collect(),
        ..ConfState::default()
    };
    let metadata = SnapshotMetadata { conf_state: Some(conf), index: number(rng), term: rng.below(6) };
    RaftMessage {
        msg_type: rng.below(20) as i32,
        to: if rng.chance(9, 10) { to } else { number(rng) },
        from: if rng.chance(9, 10) { from } else { number(rng) },
        term: rng.below(8),
        log_term: rng.below(6),
        index: if rng.chance(3, 4) { rng.below(30) } else { number(rng) },
        entries,
        commit: if rng.chance(3, 4) { rng.below(30) } else { number(rng) },
        commit_term: rng.below(6),
        snapshot: rng.chance(1, 3).then(|| Snapshot { data: Vec::new(), metadata: Some(metadata) }),
        request_snapshot: if rng.chance(1, 8) { rng.below(30) } else { 0 },
        reject: rng.chance(1, 3),
        reject_hint: number(rng),
        context: bytes(rng, 10),
        deprecated_priority: 0,
        priority: rng.below(3) as i64,
    }
}

fn typed(rng: &mut Rng) -> Message {
    let osd = rng.below(4) as u32;
    let instance = rng.below(2);
    match rng.below(9) {
        0 => Command { json: random_command(rng), input: bytes(rng, 50).into() }.into(),
        1 => OsdBoot {
            osd,
            uuid: "disk-2".into(),
            instance,
            address: "x".into(),
            host: String::from_utf8_lossy(&bytes(rng, 8)).into_owned(),
            capacity_bytes: number(rng),
            location: [("host".to_string(), "h".to_string())].into(),
            ..OsdBoot::default()
        }
        .into(),
        2 => OsdAlive { osd, instance, want_up_thru: number(rng) }.into(),
        3 => OsdFailure {
            reporter: osd,
            failed: rng.below(4) as u32,
            failed_instance: instance,
            silent_ms: number(rng),
            recovered: rng.chance(1, 4),
            refused: rng.chance(1, 2),
        }
        .into(),
        4 => OsdPgTemp {
            osd,
            wants: vec![PgTempWant {
                pg: 1 << 32 | rng.below(10),
                acting: (0..rng.below(5)).map(|_| rng.below(4) as u32).collect(),
            }],
        }
        .into(),
        5 => OsdStats {
            osd,
            instance,
            total_bytes: number(rng),
            used_bytes: number(rng),
            pgs: vec![PgStat {
                pg: 1 << 32 | rng.below(10),
                objects: number(rng),
                bytes: number(rng),
                degraded: number(rng),
                ..PgStat::default()
            }],
            pg_count: number(rng) as u32,
            ..OsdStats::default()
        }
        .into(),
        6 => Subscribe {
            osdmap: number(rng),
            monmap: number(rng),
            authmap: number(rng),
            config: number(rng),
            log_after: Some(number(rng)),
            once: rng.chance(1, 2),
        }
        .into(),
        7 => MapRequest { after: number(rng), full: rng.chance(1, 2) }.into(),
        _ => ClusterLog {
            lines: vec![LogLine {
                seq: number(rng),
                at_ms: number(rng),
                who: "x".into(),
                level: number(rng) as i32,
                text: "é".repeat(rng.below(3_000) as usize),
            }],
        }
        .into(),
    }
}

fn random_command(rng: &mut Rng) -> String {
    let prefixes = [
        "status",
        "osd pool create",
        "osd pool set",
        "osd out",
        "osd in",
        "pg ls",
        "osd reweight",
        "config set",
        "osd crush reweight",
        "osd crush move",
        "osd crush add",
        "osd pg-upmap",
        "osd pg-upmap-items",
        "auth get-or-create",
        "mon add",
        "osd new",
        "osd dump",
        "log last",
        "osd crush set",
        "osd blocklist add",
        "osd set-full-ratio",
        "health",
        "osd crush add-bucket",
        "osd crush set-device-class",
        "osd df",
        "df",
        "osd primary-affinity",
        "osd rm",
    ];
    let names = [
        "pool", "pg_num", "size", "min_size", "var", "val", "ids", "id", "weight", "who", "name", "value",
        "location", "pgid", "entity", "caps", "address", "uuid", "epoch", "num", "client", "expire", "ratio",
        "type", "class", "detail", "force",
    ];
    let values = [
        "1",
        "0",
        "-1",
        "\"p\"",
        "\"x\"",
        "\"osd.1\"",
        "\"host=h1\"",
        "{\"root\":\"default\"}",
        "[0,1,2]",
        "[1]",
        "1e308",
        "-0.5",
        "\"1.0\"",
        "\"1.ffffffff\"",
        "4294967295",
        "18446744073709551615",
        "null",
        "true",
        "\"default\"",
        "\"osd\"",
        "\"size\"",
        "0.97",
        "\"\\u0000\"",
        "\"é\"",
    ];
    let mut text = format!("{{\"prefix\":\"{}\"", rng.pick(&prefixes).unwrap());
    for _ in 0..rng.below(5) {
        text.push_str(&format!(",\"{}\":{}", rng.pick(&names).unwrap(), rng.pick(&values).unwrap()));
    }
    text + "}"
}

/// `a` is hostile (with `b` it holds no majority against itself, so its words matter); nothing may panic.
#[test]
fn hostile_messages_never_panic() {
    for seed in 0..60 {
        let mut world = World::new(3, seed);
        let mut rng = Rng::new(seed);
        world.elect();
        if seed % 2 == 0 {
            world.add_osd("h1");
            world.add_osd("h2");
            world.ok(serde_json::json!({"prefix": "osd pool create", "pool": "p", "pg_num": 8}));
        }
        let target = rng.below(3) as usize;
        // What a liar among the monitors can do to agreement is not the subject: the others do not hear the target.
        world.isolate(target);
        let from = (target + 1) % 3;
        let names = ["a", "b", "c"];
        for round in 0..300 {
            let entity = match rng.below(4) {
                0 => "client.admin".to_string(),
                1 => format!("osd.{}", rng.below(3)),
                _ => format!("mon.{}", names[from]),
            };
            let session = world.connect(&entity, target);
            let message = match rng.below(4) {
                0 => {
                    let kind =
                        [16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 32, 33, 34, 35, 36, 64, 66, 106];
                    Message::decode(*rng.pick(&kind).unwrap(), &bytes(&mut rng, 60)).ok()
                }
                1 => Some(typed(&mut rng)),
                2 => {
                    let message = raft(&mut rng, from as u64 + 1, target as u64 + 1);
                    // Only one that could have come from a member is of interest; the checker does not judge liars.
                    let kind = message.msg_type;
                    (![3, 8].contains(&kind) || rng.chance(1, 2)).then(|| {
                        MonRaft { from: from as u64 + 1, message: message.encode_to_vec().into() }.into()
                    })
                }
                _ => match rng.below(3) {
                    0 => {
                        let inner = typed(&mut rng);
                        let entity = if rng.chance(1, 2) {
                            "client.admin".into()
                        } else {
                            format!("osd.{}", rng.below(3))
                        };
                        Some(
                            MonForward {
                                id: rng.below(5),
                                entity,
                                kind: u32::from(inner.kind()),
                                body: inner.encode().into(),
                            }
                            .into(),
                        )
                    }
                    1 => Some(
                        MonForwardReply { id: rng.below(5), kind: 19, body: bytes(&mut rng, 30).into() }
                            .into(),
                    ),
                    _ => Some(
                        MonCheckpoint {
                            index: number(&mut rng),
                            term: rng.below(4),
                            offset: rng.below(3) * 10,
                            total: number(&mut rng),
                            piece: bytes(&mut rng, 20).into(),
                        }
                        .into(),
                    ),
                },
            };
            if let Some(message) = message {
                let request = RequestId { client: ClientId(rng.below(3)), seq: rng.below(5) };
                world.tell_unchecked(session, Packet::new(Epoch(rng.below(10)), message).request(request));
            }
            if round % 20 == 0 {
                world.run_unchecked(std::time::Duration::from_millis(60));
            }
            world.clients.remove(&session);
        }
    }
}
