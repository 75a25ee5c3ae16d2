//! Random faults under load, then everything heals: all that was acknowledged is there, once, on all replicas.

use super::client::{Client, Shared, Truth};
use super::world::{Node, World};
use crate::Tunables;
use nacre_types::{Needs, OsdId, Rng};
use std::cell::RefCell;
use std::rc::Rc;

/// Which faults a run draws from.
#[derive(Clone, Copy)]
struct Faults {
    kills: bool,
    cuts: bool,
    loss: u64,
    moves: bool,
    /// Logs of a dozen entries: members soon have to be filled, and diverge behind the tail.
    short_logs: bool,
}

const NONE: Faults = Faults { kills: false, cuts: false, loss: 0, moves: false, short_logs: false };

fn short_logs() -> Tunables {
    Tunables { log_entries_clean: 12, log_entries_degraded: 20, log_trim_batch: 4, ..Tunables::default() }
}

fn cluster(
    osds: u32,
    size: u32,
    min_size: u32,
    pg_num: u32,
    clients: u64,
    seed: u64,
    tunables: Tunables,
) -> (World, Shared) {
    let mut world = World::with(osds, seed, tunables);
    assert!(world.run_until(20_000, |w| w.mon.map.osds().all(|(_, info)| info.up)), "{}", world.explain());
    world.mon.create_pool(1, size, min_size, pg_num);
    world.publish();
    assert!(world.run_until(20_000, |w| w.is_clean()), "{}", world.explain());
    let truth: Shared = Rc::new(RefCell::new(Truth::default()));
    for id in 0..clients {
        let mut client = Client::new(100 + id, 1, 12, truth.clone());
        client.lags = id % 2 == 0;
        world.add_client(client);
    }
    (world, truth)
}

/// Clients reach it, the monitors and other OSDs do not.
fn isolate(world: &mut World, id: u32) {
    let others = (0..world.slots.len() as u32).filter(|&other| other != id).map(Node::Osd);
    for other in others.chain([Node::Mon]).collect::<Vec<_>>() {
        world.cut.insert((Node::Osd(id), other));
        world.cut.insert((other, Node::Osd(id)));
    }
}

fn heal(world: &mut World) {
    world.cut.clear();
    world.loss = 0;
    for id in 0..world.slots.len() as u32 {
        world.start(id);
        world.mon.set_in(OsdId(id), true);
    }
    world.publish();
}

fn finish(mut world: World, truth: &Shared, seed: u64) {
    heal(&mut world);
    let settled = world.run_until(120_000, |w| w.is_clean());
    assert!(settled, "seed {seed}: not clean\n{}", world.explain());
    for client in &mut world.clients {
        client.stop = true;
    }
    let idle = world.run_until(30_000, |w| w.clients.iter().all(Client::is_idle));
    let waiting: Vec<_> = world.clients.iter().filter_map(Client::waiting_for).collect();
    assert!(idle, "seed {seed}: operations hang: {waiting:?}\n{}", world.explain());
    // A reader that comes last sees everything.
    let mut reader = Client::new(9999, 1, 12, truth.clone());
    reader.think_ms = 1;
    world.add_client(reader);
    world.run(2000);
    for client in &mut world.clients {
        client.stop = true;
    }
    assert!(
        world.run_until(30_000, |w| w.clients.iter().all(Client::is_idle) && w.is_clean()),
        "{}",
        world.explain()
    );
    world.run(3000);
    world.check_replicas();
    let errors: Vec<_> = world.lines.iter().filter(|line| line.contains("Error")).collect();
    assert!(errors.is_empty(), "seed {seed}: {errors:#?}");
}

fn thrash(seed: u64, faults: Faults, rounds: u32) {
    let mut choose = Rng::new(seed ^ 0x5eed);
    let tunables = if faults.short_logs { short_logs() } else { Tunables::default() };
    let (mut world, truth) = cluster(5, 3, 2, 4, 4, seed, tunables);
    world.verbose = std::option_env!("NACRE_TEST_VERBOSE").is_some();
    world.loss = faults.loss;
    for _ in 0..rounds {
        world.run(choose.range(50, 2500));
        let id = choose.below(5) as u32;
        match choose.below(8) {
            0..=2 if faults.kills => world.kill(id),
            3 if faults.kills => world.start(id),
            5 if faults.cuts => {
                let other = choose.below(5) as u32;
                world.cut.insert((Node::Osd(id), Node::Osd(other)));
                if choose.chance(1, 2) {
                    world.cut.insert((Node::Osd(other), Node::Osd(id)));
                }
                if choose.chance(1, 3) {
                    world.cut.insert((Node::Osd(id), Node::Mon));
                    world.cut.insert((Node::Mon, Node::Osd(id)));
                }
            }
            4 if faults.cuts => isolate(&mut world, id),
            6 => world.cut.clear(),
            7 if faults.moves => {
                let is_in = choose.chance(1, 2);
                world.mon.set_in(OsdId(id), is_in);
                world.publish();
            }
            _ => world.disk_ms_max = choose.range(1, 60),
        }
        if choose.chance(1, 4) {
            for id in 0..5 {
                world.start(id);
            }
        }
    }
    finish(world, &truth, seed);
    let truth = truth.borrow();
    assert!(
        truth.writes > 20 && truth.reads > 10,
        "seed {seed}: {} writes, {} reads",
        truth.writes,
        truth.reads
    );
}

#[test]
fn quiet_cluster_serves() {
    for seed in 0..3 {
        let (mut world, truth) = cluster(3, 3, 2, 4, 3, seed, Tunables::default());
        world.run(5000);
        finish(world, &truth, seed);
        let truth = truth.borrow();
        assert!(truth.writes > 300, "{} writes", truth.writes);
        assert!(truth.slowest.as_millis() < 200, "slowest {:?}", truth.slowest);
    }
}

#[test]
fn kills() {
    for seed in 0..12 {
        thrash(seed, Faults { kills: true, ..NONE }, 25);
    }
}

#[test]
fn cuts_and_loss() {
    for seed in 100..108 {
        thrash(seed, Faults { cuts: true, loss: 15, ..NONE }, 25);
    }
}

#[test]
fn everything() {
    for seed in 200..212 {
        thrash(seed, Faults { kills: true, cuts: true, loss: 10, moves: true, ..NONE }, 30);
    }
}

#[test]
fn everything_with_short_logs() {
    for seed in 300..312 {
        thrash(seed, Faults { kills: true, cuts: true, loss: 5, moves: true, short_logs: true }, 30);
    }
}

/// F20: a primary that is cut off must stop serving reads before another one takes writes.
#[test]
fn no_stale_read_from_a_primary_that_was_cut_off() {
    for seed in 0..6 {
        let (mut world, truth) = cluster(4, 3, 2, 2, 0, seed, Tunables::default());
        // Few writers, and a reader for each object, so that not every read waits for a write that hangs.
        for id in 0..3 {
            world.add_client(Client::new(100 + id, 1, 12, truth.clone()));
        }
        for id in 0..12 {
            let mut reader = Client::new(200 + id, 1, 12, truth.clone());
            (reader.lags, reader.only_reads, reader.only_object) = (true, true, Some(id));
            world.add_client(reader);
        }
        let mut held_back = 0;
        for round in 0..4 {
            world.run(2000);
            isolate(&mut world, round);
            // Long enough for another primary to take writes, while readers still ask the old one.
            world.run(12_000);
            let old = world.slots[round as usize].osd.as_ref().expect("alive");
            held_back += old
                .pgs()
                .flat_map(|pg| pg.why())
                .filter(|wait| matches!(wait.needs, Needs::Lease(_) | Needs::EarlierLease { .. }))
                .count();
            world.cut.clear();
        }
        assert!(held_back > 0, "seed {seed}: no reader asked a primary that was cut off");
        for client in &mut world.clients {
            client.only_reads = false;
        }
        finish(world, &truth, seed);
    }
}

#[test]
fn a_killed_primary_is_replaced_in_time() {
    for seed in 0..4 {
        let (mut world, truth) = cluster(4, 3, 2, 4, 4, seed, Tunables::default());
        world.run(3000);
        world.kill((seed % 4) as u32);
        truth.borrow_mut().slowest = Default::default();
        world.run(12_000);
        let slowest = truth.borrow().slowest;
        assert!(slowest.as_millis() <= 6000, "seed {seed}: {slowest:?}");
        finish(world, &truth, seed);
    }
}

/// Hundreds of seeds; run by hand with `--ignored`.
#[test]
#[ignore = "minutes"]
fn many_seeds() {
    for seed in 1000..1150 {
        thrash(
            seed,
            Faults {
                kills: true,
                cuts: true,
                loss: seed % 30,
                moves: seed % 2 == 0,
                short_logs: seed % 3 > 0,
            },
            40,
        );
    }
}
