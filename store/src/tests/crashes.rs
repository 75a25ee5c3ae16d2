//! Random transactions with a crash at every boundary: exactly a prefix survives, with everything committed.

use super::host::{Host, capacity, tiny};

/// One life after another on the same store, each ended by a crash after a random number of device events.
fn lives(seed: u64, lives: usize, bytes_max: u64) {
    let mut host = Host::new(seed, capacity(), tiny());
    for _ in 0..lives {
        let transactions = 1 + host.rng.below(12);
        for _ in 0..transactions {
            let transaction = host.random_transaction(6, bytes_max);
            host.submit(transaction);
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
