//! Races that random orders meet too seldom, one by one.

use super::host::{Host, PG, capacity, object, random_data, tiny};
use crate::{ObjectStore, StoreConfig, StoreEvent};
use bytes::Bytes;
use nacre_types::ObjectId;
use nacre_types::checksum::BLOCK_U64;
use nacre_wire::transaction::Pair;
use nacre_wire::{Data, Transaction};

fn write(host: &mut Host, id: &ObjectId, offset: u64, data: Data) {
    let mut t = Transaction::new(PG);
    t.write(id, offset, data);
    host.submit(t);
}

/// Completes everything but the reads that have been issued so far.
fn settle_but_reads(host: &mut Host) {
    let held = host.disk.reads_queued();
    loop {
        host.pump();
        if let Some((token, result)) = host.kv.complete_flush() {
            host.store().kv_flushed(token, result);
            continue;
        }
        let next = host.disk.completable().into_iter().find(|t| !held.contains(t));
        let Some(next) = next else { return };
        let done = host.disk.complete(next).unwrap();
        host.store().disk_done(done);
    }
}

/// An object of `blocks` blocks whose bytes are only on the disk.
fn cold_object(host: &mut Host, blocks: u64) -> (ObjectId, Data) {
    let id = object(0);
    let data = random_data(&mut host.rng, 0, blocks * BLOCK_U64);
    write(host, &id, 0, data.clone());
    host.settle();
    (id, data)
}

fn finish_read(host: &mut Host, token: u64) -> Data {
    loop {
        if let Some(result) = host.reads.remove(&token) {
            return result.unwrap();
        }
        assert!(host.step());
    }
}

#[test]
fn a_slow_read_is_not_overtaken_by_the_write_back_of_later_writes() {
    let mut host = Host::new(1, capacity(), tiny());
    let (id, data) = cold_object(&mut host, 32);
    host.store().read(1, &id, 0, 32 * BLOCK_U64);
    host.pump();
    for round in 0..4 {
        for block in 0..32 {
            let new = random_data(&mut host.rng, 0, BLOCK_U64);
            write(&mut host, &id, block * BLOCK_U64, new);
            settle_but_reads(&mut host);
            assert_eq!(host.failed, None, "{round}");
        }
    }
    assert_eq!(finish_read(&mut host, 1), data);
    host.settle();
    assert_eq!(host.committed, host.history.len());
    host.compare();
}

#[test]
fn blocks_of_a_slow_read_are_not_given_away() {
    let mut host = Host::new(2, capacity(), tiny());
    let (id, data) = cold_object(&mut host, 32);
    host.store().read(1, &id, 0, 32 * BLOCK_U64);
    host.pump();
    let mut t = Transaction::new(PG);
    t.remove(&id);
    host.submit(t);
    settle_but_reads(&mut host);
    for round in 0..60 {
        // Fills the disk three times over.
        let new = random_data(&mut host.rng, 0, 100 * BLOCK_U64);
        write(&mut host, &object(2 + round % 4), 0, new);
        settle_but_reads(&mut host);
    }
    assert!(host.store().stats().checkpoints > 0);
    assert_eq!(finish_read(&mut host, 1), data);
    host.fsck();
}

#[test]
fn what_a_mount_has_discarded_never_comes_back() {
    let mut host = Host::new(3, capacity(), tiny());
    let data_offset = host.store().superblock().data_offset;
    let data = random_data(&mut host.rng, 0, 40 * BLOCK_U64);
    // The record lands, its data does not: the transaction is discarded.
    write(&mut host, &object(0), 0, data.clone());
    let mut t = Transaction::new(PG);
    t.create(&object(5));
    host.pump();
    host.disk.power_where(|offset| offset < data_offset);
    host.kv.power();
    host.restart();
    assert_eq!(host.history.len(), 0);
    // Sent again, the data lands in the same blocks, but the record does not.
    write(&mut host, &object(0), 0, data);
    host.pump();
    host.disk.power_where(|offset| offset >= data_offset);
    host.kv.power();
    host.restart();
    assert_eq!(host.store().list(&[], true, &[0xff; 4], 9).unwrap(), []);
}

#[test]
fn data_and_record_are_in_flight_together_and_share_one_flush() {
    let mut host = Host::new(4, capacity(), tiny());
    let before = (host.disk.writes, host.disk.flushes);
    let data = random_data(&mut host.rng, 0, 40 * BLOCK_U64);
    write(&mut host, &object(0), 0, data);
    host.pump();
    assert_eq!(host.disk.completable().len(), 2);
    host.settle();
    assert_eq!((host.disk.writes - before.0, host.disk.flushes - before.1), (2, 1));
    assert_eq!(host.committed, 1);
}

#[test]
fn a_partial_write_to_a_cold_block_needs_no_read_and_is_merged_later() {
    let mut host = Host::new(5, capacity(), tiny());
    let (id, _) = cold_object(&mut host, 32);
    for at in [10, 3000, 5000, 20, 100_000] {
        let new = random_data(&mut host.rng, at, 700);
        write(&mut host, &id, at, new);
    }
    // Committed without the read of the old block having ended.
    settle_but_reads(&mut host);
    assert_eq!(host.committed, host.history.len());
    host.compare();
    host.crash();
    host.fsck();
    host.compare();
    host.settle();
    let store = host.store.take().unwrap();
    store.unmount(&mut host.disk).unwrap();
    let report = crate::fsck(&mut host.disk, &mut host.kv, true);
    assert_eq!((report.blocks_patched, report.errors), (0, vec![]));
}

/// Changes wait in memory for a checkpoint, by the thousands: small slices of frames from the network, which must not keep
/// those.
#[test]
fn what_waits_for_a_checkpoint_does_not_keep_the_frame_it_came_in() {
    let mut host = Host::new(9, capacity(), StoreConfig::default());
    let frame = Bytes::from(vec![7; 64 << 10]);
    let mut t = Transaction::new(PG);
    t.set_attr(&object(0), "_", frame.slice(10..20));
    t.omap_set(&object(0), vec![Pair { key: frame.slice(20..30), value: frame.slice(30..40) }]);
    t.meta_set(frame.slice(40..50), frame.slice(50..200));
    host.submit(t);
    host.settle();
    assert_eq!((host.committed, host.store().stats().checkpoints), (1, 0));
    // The test's own record of what it has submitted.
    host.history.clear();
    assert!(frame.is_unique());
}

/// What the checkpoint under way has, and what has come since: both must be there, in that order.
#[test]
fn a_store_is_taken_down_while_a_checkpoint_is_on_its_way() {
    let mut host = Host::new(8, capacity(), tiny());
    for i in 0.. {
        let data = random_data(&mut host.rng, 0, 3 * BLOCK_U64);
        write(&mut host, &object(i % 5), 0, data);
        host.pump();
        while let Some(done) = host.disk.complete_any() {
            host.store().disk_done(done);
            host.pump();
        }
        if host.kv.is_flushing() && i % 7 == 3 {
            break;
        }
    }
    assert!(host.kv.is_flushing() && host.committed == host.history.len());
    let store = host.store.take().unwrap();
    store.unmount(&mut host.disk).unwrap();
    let report = crate::fsck(&mut host.disk, &mut host.kv, true);
    assert_eq!(report.errors, vec![]);
    host.restart();
    host.compare();
}

#[test]
fn a_clone_shares_its_blocks_until_they_are_written() {
    let mut host = Host::new(6, capacity(), tiny());
    let (id, _) = cold_object(&mut host, 64);
    let used = host.store().usage().used_bytes;
    let mut t = Transaction::new(PG);
    t.clone_object(&id, &object(1));
    host.submit(t);
    host.settle();
    assert_eq!(host.store().usage().used_bytes, used);
    let new = random_data(&mut host.rng, 0, BLOCK_U64);
    write(&mut host, &id, 0, new);
    host.settle();
    assert_eq!(host.store().usage().used_bytes, used + BLOCK_U64);
    host.compare();
    for gone in [id, object(1)] {
        let mut t = Transaction::new(PG);
        t.remove(&gone);
        host.submit(t);
        host.settle();
        host.compare();
    }
    host.fsck();
    assert_eq!(host.store().usage().used_bytes, 0);
}

#[test]
fn commits_wait_for_room_in_the_journal_and_then_go_on() {
    let mut host = Host::new(7, capacity(), tiny());
    let (id, _) = cold_object(&mut host, 64);
    for i in 0..600 {
        let new = random_data(&mut host.rng, 0, BLOCK_U64);
        write(&mut host, &id, i % 64 * BLOCK_U64, new);
    }
    assert!(host.store().backlog_bytes() > 1 << 20);
    host.settle();
    assert_eq!(host.store().backlog_bytes(), 0);
    assert_eq!(host.committed, host.history.len());
    assert!(host.store().stats().checkpoints > 0);
    host.crash();
    assert!(host.store().poll_event().is_none_or(|e| !matches!(e, StoreEvent::Failed(_))));
    host.fsck();
}

#[test]
fn a_round_goes_on_when_its_reads_ended_before_it_got_to_their_blocks() {
    let mut host = Host::new(8, capacity(), tiny());
    let (id, data) = cold_object(&mut host, 64);
    // A read of the last blocks is under way when the round starts, and ends while the first ones are written.
    host.store().read(1, &id, 56 * BLOCK_U64, 8 * BLOCK_U64);
    host.pump();
    let read = host.disk.reads_queued()[0];
    for block in (0..32).rev().map(|b| b * 2) {
        let new = random_data(&mut host.rng, 0, BLOCK_U64);
        write(&mut host, &id, block * BLOCK_U64, new);
    }
    let mut finished = false;
    while !finished || !host.disk.is_idle() {
        host.pump();
        finished |= host.store().stats().deferred_writes > 0;
        let next = host.disk.completable().into_iter().find(|t| (*t == read) == finished);
        let Some(next) = next.or_else(|| host.disk.completable().first().copied()) else { break };
        let done = host.disk.complete(next).unwrap();
        host.store().disk_done(done);
        host.pump();
    }
    host.settle();
    assert_eq!(finish_read(&mut host, 1).bytes, data.bytes.slice(56 * 4096..));
    assert!(!host.store().deferred.is_writing());
    assert_eq!(host.committed, host.history.len());
}
