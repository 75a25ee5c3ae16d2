//! Seeds: commands from clients that resend while monitors crash, are cut off and lose messages. After healing all agree,
//! everything answered is there, and nothing happened twice.

use super::harness::World;
use nacre_types::{RequestId, Rng};
use nacre_wire::SessionId;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

struct Open {
    request: RequestId,
    uuid: Option<String>,
}

fn run(mons: usize, seed: u64) {
    let mut world = World::new(mons, seed);
    world.tune = |config| (config.checkpoint.entries_max, config.checkpoint.entries_kept) = (15, 5);
    let mut rng = Rng::new(seed ^ 0xc0ffee);
    world.disk_ms = [1, 5, 60][rng.below(3) as usize];
    world.ok(json!({"prefix": "osd pool create", "pool": "p", "pg_num": 8}));
    let mut session: SessionId = world.connect("client.admin", 0);
    let mut open: Option<Open> = None;
    let mut issued_snaps = 0_u64;
    let mut snaps: Vec<u64> = Vec::new();
    let mut osds: BTreeMap<String, u64> = BTreeMap::new();
    for at in 0..mons {
        // From here on with the small checkpoints.
        world.crash(at);
        world.start(at);
    }
    for round in 0..120 {
        match rng.below(20) {
            0 => {
                let at = rng.below(world.mons() as u64) as usize;
                if world.runs(at) {
                    world.crash(at);
                }
            }
            1..=3 => {
                let at = rng.below(world.mons() as u64) as usize;
                if !world.runs(at) {
                    world.start(at);
                }
            }
            4 => world.isolate(rng.below(mons as u64) as usize),
            5 => {
                let pair = (rng.below(mons as u64) as usize, rng.below(mons as u64) as usize);
                world.cut.insert(pair);
            }
            6 | 7 => world.heal(),
            8 => world.loss_permille = rng.below(200),
            _ => {}
        }
        let connected = world.clients.get(&session).is_some_and(|c| c.mon != usize::MAX && world.runs(c.mon));
        if !connected || rng.chance(1, 10) {
            let alive: Vec<usize> = (0..world.mons()).filter(|&at| world.runs(at)).collect();
            world.clients.remove(&session);
            if let Some(&mon) = rng.pick(&alive) {
                session = world.connect("client.admin", mon);
            }
        }
        if open.is_none() {
            let request = RequestId { client: nacre_types::ClientId(77), seq: round + 1 };
            let uuid = rng.chance(1, 2).then(|| format!("disk-{round}"));
            issued_snaps += u64::from(uuid.is_none());
            open = Some(Open { request, uuid });
        }
        if let Some(command) = &open {
            let json = match &command.uuid {
                Some(uuid) => json!({"prefix": "osd new", "uuid": uuid}),
                None => json!({"prefix": "selfmanaged-snap create", "pool": "p"}),
            };
            let request = command.request;
            if world.clients.contains_key(&session) {
                world.ask(session, request, &json, b"");
            }
        }
        world.run(Duration::from_millis(rng.range(20, 900)));
        for (request, reply) in world.replies(session) {
            if reply.code != 0 || open.as_ref().is_none_or(|command| command.request != request) {
                continue;
            }
            let command = open.take().expect("checked");
            let json: serde_json::Value = serde_json::from_str(&reply.json).unwrap();
            match command.uuid {
                Some(uuid) => drop(osds.insert(uuid, json["osdid"].as_u64().unwrap())),
                None => snaps.push(json["snapid"].as_u64().unwrap()),
            }
        }
    }
    world.settle();
    let map = world.mon(world.leader().unwrap()).osdmap();
    for (uuid, id) in &osds {
        let info = map
            .osd(nacre_types::OsdId(*id as u32))
            .unwrap_or_else(|| panic!("seed {seed}: osd.{id} is lost"));
        assert_eq!(&info.uuid, uuid, "seed {seed}");
    }
    let mut unique = snaps.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), snaps.len(), "seed {seed}: a snapshot was handed out twice");
    let made = map.pool_by_name("p").unwrap().1.snap_seq().0;
    assert!(made >= snaps.iter().copied().max().unwrap_or(0), "seed {seed}: an answered snapshot is lost");
    assert!(made <= issued_snaps, "seed {seed}: {issued_snaps} requests made {made} snapshots");
    assert!(!snaps.is_empty() || !osds.is_empty(), "seed {seed}: nothing ever worked");
}

#[test]
fn three_monitors() {
    (0..100).for_each(|seed| run(3, seed));
}

#[test]
fn five_monitors() {
    (1000..1030).for_each(|seed| run(5, seed));
}

#[test]
fn one_monitor() {
    (2000..2020).for_each(|seed| run(1, seed));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| {
        let mut world = World::new(3, seed);
        world.loss_permille = 50;
        world.elect();
        world.ok(json!({"prefix": "osd pool create", "pool": "p"}));
        world.isolate(0);
        world.run(Duration::from_secs(5));
        world.heal();
        world.run(Duration::from_secs(5));
        (
            world.logs.clone(),
            (0..3).map(|at| (world.mon(at).applied(), world.mon(at).term())).collect::<Vec<_>>(),
        )
    };
    assert_eq!(trace(5), trace(5));
}
