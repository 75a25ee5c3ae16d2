//! Random transactions with a crash at every boundary: exactly a prefix survives, with everything committed.

use super::host::{Host, PG, capacity, object, random_data, tiny};
use crate::ObjectStore as _;
use bytes::Bytes;
use nacre_wire::Transaction;
use nacre_wire::transaction::Pair;

/// One life after another on the same store, each ended by a crash after a random number of device events.
fn lives(seed: u64, lives: usize, bytes_max: u64) {
    lives_on(seed, lives, bytes_max, 6, capacity());
}

fn lives_on(seed: u64, lives: usize, bytes_max: u64, objects: u64, capacity: u64) {
    let mut host = Host::new(seed, capacity, tiny());
    for _ in 0..lives {
        if host.rng.chance(1, 2) {
            // What was lost is sent again, in part and in other company.
            let again = host.rng.below(host.lost.len() as u64 + 1) as usize;
            for transaction in std::mem::take(&mut host.lost).into_iter().take(again) {
                host.submit(transaction);
            }
        }
        let transactions = 1 + host.rng.below(12);
        for _ in 0..transactions {
            let transaction = host.random_transaction(objects, bytes_max);
            host.submit(transaction);
            if host.rng.chance(1, 4) {
                host.read_later();
            }
            if host.rng.chance(1, 4) {
                host.store().reclaim();
            }
            for _ in 0..host.rng.below(6) {
                host.step();
            }
        }
        for _ in 0..host.rng.below(20) {
            host.step();
        }
        assert_eq!(host.failed, None);
        match host.rng.below(8) {
            0 => host.compare(),
            1 => {
                host.settle();
                assert_eq!(host.committed, host.history.len(), "everything commits in the end");
                host.fsck();
                host.restart();
                continue;
            }
            _ => {}
        }
        host.crash();
    }
    host.fsck();
    host.compare();
}

/// More seeds than a check-in waits for: `NACRE_SEEDS=20000 cargo test -p nacre-store --release -- --ignored`.
#[test]
#[ignore = "long; run before changing the store's on-disk order"]
#[expect(clippy::disallowed_methods, reason = "the number of seeds is the caller's")]
fn many_lives() {
    let seeds = std::env::var("NACRE_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(2000);
    for seed in 10_000..10_000 + seeds {
        println!("seed {seed}");
        match seed % 3 {
            0 => lives(seed, 12, 300 << 10),
            1 => lives(seed, 12, 20 << 10),
            _ => lives_on(seed, 12, 90 << 10, 3, (128 << 10) + (1 << 20) + (2 << 20)),
        }
    }
}

#[test]
fn a_prefix_survives_any_crash() {
    for seed in 0..60 {
        lives(seed, 12, 300 << 10);
    }
}

#[test]
fn a_prefix_survives_any_crash_with_small_objects() {
    for seed in 1000..1150 {
        lives(seed, 12, 20 << 10);
    }
}

/// Every pair of operations of every kind, with a crash after every single device event.
#[test]
fn every_pair_of_operations_survives_a_crash_at_every_boundary() {
    let mut cases = 0;
    for pair in 0..KINDS * KINDS {
        let mut crash_after = 0;
        loop {
            let mut host = Host::new(pair << 8 | crash_after, capacity(), tiny());
            let mut setup = Transaction::new(PG);
            let data = random_data(&mut host.rng, 0, 70_000);
            setup.write(&object(0), 0, data);
            setup.set_attr(&object(0), "a", Bytes::from_static(b"1"));
            setup.omap_set(&object(0), vec![pair_of("k", "v"), pair_of("l", "w")]);
            setup.meta_set("m", "v");
            host.submit(setup);
            host.settle();
            for kind in [pair / KINDS, pair % KINDS] {
                let transaction = operation(&mut host, kind);
                host.submit(transaction);
            }
            let finished = !(0..crash_after).all(|_| host.step());
            host.crash();
            host.fsck();
            cases += 1;
            if finished {
                break;
            }
            crash_after += 1;
        }
    }
    println!("{cases} cases");
}

const KINDS: u64 = 14;

fn pair_of(key: &'static str, value: &'static str) -> Pair {
    Pair { key: Bytes::from_static(key.as_bytes()), value: Bytes::from_static(value.as_bytes()) }
}

fn operation(host: &mut Host, kind: u64) -> Transaction {
    let (id, other) = (object(0), object(1));
    let mut t = Transaction::new(PG);
    match kind {
        0 => t.write(&id, 4096, random_data(&mut host.rng, 4096, 4096)),
        1 => t.write(&id, 0, random_data(&mut host.rng, 0, 60_000)),
        2 => t.write(&id, 100, random_data(&mut host.rng, 100, 9000)),
        3 => t.write(&id, 90_000, random_data(&mut host.rng, 90_000, 500)),
        4 => t.zero(&id, 5000, 20_000),
        5 => t.truncate(&id, 10_000),
        6 => t.remove(&id),
        7 => t.set_attr(&other, "b", Bytes::from_static(b"2")),
        8 => t.omap_set(&other, vec![pair_of("x", "y")]),
        9 => t.omap_clear(&id),
        10 => t.clone_object(&id, &other),
        11 => t.rename(&id, &other),
        12 => t.meta_remove_range("a", "z"),
        _ => t.write(&other, 0, random_data(&mut host.rng, 0, 40_960)),
    }
    t
}

/// Little free space: blocks are reused as soon as they may be.
#[test]
fn a_prefix_survives_any_crash_on_a_small_disk() {
    for seed in 2000..2120 {
        lives_on(seed, 12, 90 << 10, 3, (128 << 10) + (1 << 20) + (2 << 20));
    }
}

#[test]
fn reads_and_listings_see_uncommitted_transactions() {
    for seed in 0..40 {
        let mut host = Host::new(seed, capacity(), tiny());
        for _ in 0..25 {
            let transaction = host.random_transaction(5, 150 << 10);
            host.submit(transaction);
            if host.rng.chance(1, 3) {
                host.step();
            }
            host.compare();
        }
        host.fsck();
        host.compare();
    }
}
