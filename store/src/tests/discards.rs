//! What is freed is discarded, when nothing can need it any more, and given to nobody meanwhile.

use super::host::{Host, PG, capacity, object, random_data, tiny};
use crate::{DiskDone, DiskError, DiskRequest, ObjectStore as _, StoreConfig};
use nacre_types::RangeSet;
use nacre_types::checksum::BLOCK_U64;
use nacre_wire::Transaction;

const OBJECT_BYTES: u64 = 64 * BLOCK_U64;

fn write(host: &mut Host, name: u64, length: u64) {
    let mut t = Transaction::new(PG);
    t.write(&object(name), 0, random_data(&mut host.rng, 0, length));
    host.submit(t);
}

fn remove(host: &mut Host, name: u64) {
    let mut t = Transaction::new(PG);
    t.remove(&object(name));
    host.submit(t);
}

/// What the host meets on the way to the disk.
#[derive(Default)]
struct Seen {
    /// Blocks that were written, outside the journal.
    written: RangeSet,
    /// Discards that have been asked for and have not ended: token, blocks.
    held: Vec<(u64, u64, u64)>,
}

/// Completes everything but discards, until nothing is left.
fn settle_but_discards(host: &mut Host, seen: &mut Seen) {
    let data_offset = host.store().superblock().data_offset;
    loop {
        let store = host.store.as_mut().unwrap();
        while let Some(request) = store.poll_disk() {
            match &request {
                DiskRequest::Discard { token, offset, length } => {
                    let first = offset / BLOCK_U64;
                    seen.held.push((*token, first, first + length / BLOCK_U64));
                }
                DiskRequest::Write { offset, segments, .. } if *offset >= data_offset => {
                    let bytes: u64 = segments.iter().map(|s| s.len() as u64).sum();
                    seen.written.insert(offset / BLOCK_U64, (offset + bytes) / BLOCK_U64);
                }
                _ => {}
            }
            host.disk.request(request);
        }
        host.pump();
        if let Some((token, result)) = host.kv.complete_flush() {
            host.store().kv_flushed(token, result);
            continue;
        }
        let held: Vec<u64> = seen.held.iter().map(|held| held.0).collect();
        let next = host.disk.completable().into_iter().find(|token| !held.contains(token));
        let Some(next) = next else { return };
        let done = host.disk.complete(next).unwrap();
        host.store().disk_done(done);
    }
}

/// Writes until a checkpoint has passed everything so far, into an object that keeps its blocks.
fn pass_a_checkpoint(host: &mut Host, seen: &mut Seen) {
    let before = host.store().stats().checkpoints;
    while host.store().stats().checkpoints < before + 2 {
        write(host, 9, 4 * BLOCK_U64);
        settle_but_discards(host, seen);
    }
}

fn roomy() -> StoreConfig {
    StoreConfig { settled_bytes_max: 1 << 20, ..tiny() }
}

#[test]
fn freed_blocks_are_discarded_after_a_checkpoint_and_not_allocated_meanwhile() {
    let mut host = Host::new(1, capacity(), roomy());
    let mut seen = Seen::default();
    write(&mut host, 9, 4 * BLOCK_U64);
    settle_but_discards(&mut host, &mut seen);
    seen.written.clear();
    write(&mut host, 0, OBJECT_BYTES);
    settle_but_discards(&mut host, &mut seen);
    let (first, end) = seen.written.iter().next().expect("the object's data went to fresh blocks");
    assert_eq!(end - first, OBJECT_BYTES / BLOCK_U64);
    remove(&mut host, 0);
    settle_but_discards(&mut host, &mut seen);
    assert_eq!(seen.held, [], "no checkpoint has passed the removal");
    pass_a_checkpoint(&mut host, &mut seen);
    let (token, from, to) = seen.held[0];
    assert!(first <= from && to <= end && to - from >= OBJECT_BYTES / BLOCK_U64 - 2, "{from}..{to}");
    assert!(from.is_multiple_of(2) && to.is_multiple_of(2), "granules are of 8 KiB here");
    let freed = host.store().usage();
    // More than the disk could hold beside it: it would be used if it could be.
    seen.written.clear();
    for round in 0..60 {
        write(&mut host, 2 + round % 3, 30 * OBJECT_BYTES / 10);
        settle_but_discards(&mut host, &mut seen);
    }
    assert!(seen.written.total() > 600, "{}", seen.written.total());
    assert!(!seen.written.intersects(from, to), "given out while its discard is under way");
    assert_eq!(seen.held.len(), 1, "one at a time");
    let done = host.disk.complete(token).unwrap();
    host.store().disk_done(done);
    let stats = host.store().stats();
    assert_eq!((stats.discards, stats.discarded_bytes), (1, (to - from) * BLOCK_U64));
    assert!(freed.freed_bytes >= (to - from) * BLOCK_U64, "what is being discarded is not to be promised");
    host.settle();
    host.compare();
    host.fsck();
}

#[test]
fn a_device_that_fails_a_discard_is_not_asked_again_and_loses_no_space() {
    let mut host = Host::new(2, capacity(), roomy());
    let mut seen = Seen::default();
    write(&mut host, 0, OBJECT_BYTES);
    settle_but_discards(&mut host, &mut seen);
    let before = host.store().usage();
    for _ in 0..3 {
        remove(&mut host, 0);
        settle_but_discards(&mut host, &mut seen);
        pass_a_checkpoint(&mut host, &mut seen);
        if let Some((token, ..)) = seen.held.pop() {
            host.disk.complete(token).unwrap();
            let result = Err(DiskError::Io { offset: 0, reason: "it cannot".into() });
            host.store().disk_done(DiskDone { token, result });
        }
        write(&mut host, 0, OBJECT_BYTES);
        settle_but_discards(&mut host, &mut seen);
    }
    let stats = host.store().stats();
    assert_eq!((stats.discards, stats.discard_errors), (0, 1));
    assert_eq!(host.failed, None);
    remove(&mut host, 9);
    settle_but_discards(&mut host, &mut seen);
    assert_eq!(host.store().usage().used_bytes, before.used_bytes);
    host.compare();
}

#[test]
fn nothing_is_discarded_where_that_is_not_wanted() {
    let mut host = Host::new(3, capacity(), StoreConfig { discard: false, ..roomy() });
    let mut seen = Seen::default();
    write(&mut host, 0, OBJECT_BYTES);
    remove(&mut host, 0);
    pass_a_checkpoint(&mut host, &mut seen);
    assert_eq!(seen.held, []);
    assert_eq!(host.store().usage().freed_bytes, 0);
}

#[test]
fn all_that_was_freed_is_discarded_in_the_end() {
    let mut host = Host::new(4, capacity(), roomy());
    for name in 0..6 {
        write(&mut host, name, OBJECT_BYTES);
    }
    host.settle();
    for name in 0..6 {
        remove(&mut host, name);
    }
    pass_a_checkpoint(&mut host, &mut Seen::default());
    host.settle();
    let stats = host.store().stats();
    assert_eq!(stats.discarded_bytes, 6 * OBJECT_BYTES, "{stats:?}");
    assert_eq!(host.store().usage().freed_bytes, 0);
}

#[test]
fn what_was_freed_can_be_reclaimed_without_further_writes() {
    let mut host = Host::new(5, capacity(), StoreConfig::default());
    write(&mut host, 0, OBJECT_BYTES);
    remove(&mut host, 0);
    host.settle();
    assert_eq!(host.store().usage().freed_bytes, OBJECT_BYTES);
    host.store().reclaim();
    host.settle();
    assert_eq!((host.store().usage().freed_bytes, host.store().stats().checkpoints), (0, 1));
    // Nothing to be gained by another.
    host.store().reclaim();
    host.settle();
    assert_eq!(host.store().stats().checkpoints, 1);
}
