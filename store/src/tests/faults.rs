//! Faults of device and index: found, named, and never turned into success.

use super::host::{Host, PG, capacity, object, options, random_data, tiny};
use crate::testing::{Flaky, SimDisk, SimKv};
use crate::{
    DiskError, DiskSync, FormatError, FsckError, Kv, KvOp, ObjectStore, OpenError, Store, StoreError,
    Superblock, format, fsck, inspect, wipe,
};
use nacre_types::checksum::BLOCK_U64;
use nacre_wire::Transaction;

fn write(host: &mut Host, name: u64, offset: u64, length: u64) {
    let data = random_data(&mut host.rng, offset, length);
    let mut t = Transaction::new(PG);
    t.write(&object(name), offset, data);
    host.submit(t);
}

/// Disk offset of the first block of `name`'s data: found by its content.
fn locate(host: &mut Host, name: u64) -> u64 {
    let expected = host.expected().objects[&object(name)].data[..BLOCK_U64 as usize].to_vec();
    let superblock = host.store().superblock().clone();
    let mut at = superblock.data_offset;
    while host.disk.read_at(at, BLOCK_U64 as usize).unwrap() != expected {
        at += BLOCK_U64;
    }
    at
}

#[test]
fn a_failed_flush_ends_the_store_and_commits_nothing() {
    for (flush, count) in [(true, 1), (false, 1), (true, 20)] {
        let mut host = Host::new(1, capacity(), tiny());
        write(&mut host, 0, 0, 4096);
        host.settle();
        host.disk.fail_flushes(flush);
        host.disk.fail_writes(!flush);
        for i in 0..count {
            write(&mut host, i % 3, 0, 50_000);
        }
        host.settle();
        assert!(matches!(host.failed, Some(StoreError::Disk(DiskError::Io { .. }))), "{:?}", host.failed);
        assert_eq!(host.committed, 1);
        // It works again: too late, nothing may be retried into success.
        host.disk.fail_flushes(false);
        host.disk.fail_writes(false);
        write(&mut host, 1, 0, 4096);
        host.settle();
        assert_eq!(host.committed, 1);
        host.failed = None;
        host.crash();
    }
}

#[test]
fn a_mount_whose_flush_fails_leaves_a_store_that_opens() {
    for seed in 0..300 {
        let mut host = Host::new(seed, capacity(), tiny());
        write(&mut host, 0, 0, 4096);
        host.settle();
        // The daemon dies between the writes of a record and their flush: both stay in the device's cache.
        write(&mut host, 1, 0, 4096);
        host.pump();
        let written = host.disk.writes + 1;
        while host.disk.writes < written {
            let done = host.disk.complete_any().unwrap();
            host.store().disk_done(done);
        }
        host.store = None;
        host.disk.kill();
        host.kv.power();
        host.disk.set_flaky(Flaky { flushes: 1000, ..Flaky::default() });
        let refused = Store::mount(&mut host.disk, host.kv.clone(), tiny()).err();
        assert!(matches!(refused, Some(OpenError::Disk(_))), "{refused:?}");
        host.kv.power();
        host.disk.set_flaky(Flaky::default());
        host.restart();
    }
}

#[test]
fn a_failed_index_ends_the_store() {
    for flush in [true, false] {
        let mut host = Host::new(2, capacity(), tiny());
        host.kv.fail_flushes(flush);
        host.kv.fail_writes(!flush);
        for i in 0..400 {
            write(&mut host, i % 3, 0, 20_000);
            host.settle();
        }
        assert!(matches!(host.failed, Some(StoreError::Kv(_))), "{:?}", host.failed);
        host.kv.fail_flushes(false);
        host.kv.fail_writes(false);
        host.crash();
    }
}

#[test]
fn rot_a_lost_and_a_misdirected_write_are_found_by_reads_and_by_fsck() {
    for kind in 0..3 {
        let mut host = Host::new(3, capacity(), tiny());
        match kind {
            0 => {
                write(&mut host, 0, 0, 80 << 10);
                host.settle();
                let at = locate(&mut host, 0);
                host.disk.rot(at + 77, 3);
            }
            // The data write comes before the record's.
            1 => host.disk.lose_writes(1),
            _ => host.disk.misdirect_writes(1),
        }
        if kind > 0 {
            write(&mut host, 0, 0, 80 << 10);
            host.pump();
            let first = host.disk.completable()[0];
            let done = host.disk.complete(first).unwrap();
            host.store().disk_done(done);
        }
        write(&mut host, 1, 0, 4096);
        host.settle();
        let result = host.read(&object(0), 0, 80 << 10);
        assert!(matches!(result, Err(StoreError::Checksum { block: 0, .. })), "{result:?}");
        assert_eq!(host.store().stats().checksum_errors, 1);
        assert!(host.read(&object(1), 0, 4096).is_ok());
        let store = host.store.take().unwrap();
        store.unmount(&mut host.disk).unwrap();
        let report = fsck(&mut host.disk, &mut host.kv, true);
        assert!(matches!(report.errors[0], FsckError::Checksum { block: 0, .. }), "{:?}", report.errors);
        assert!(fsck(&mut host.disk, &mut host.kv, false).is_clean());
        // Repair is a rewrite.
        host.mount();
        write(&mut host, 0, 0, 80 << 10);
        host.settle();
        host.compare();
        host.fsck();
    }
}

#[test]
fn a_read_error_fails_that_read_only() {
    let mut host = Host::new(4, capacity(), tiny());
    write(&mut host, 0, 0, 80 << 10);
    host.settle();
    let at = locate(&mut host, 0);
    host.disk.break_block(at);
    assert!(matches!(host.read(&object(0), 0, 8192), Err(StoreError::Disk(_))));
    assert!(host.read(&object(0), 40_000, 100).is_ok());
    assert!(matches!(host.read(&object(9), 0, 0), Err(StoreError::NotFound { .. })));
    // A patch over a block that cannot be read commits, and reads of it keep failing.
    write(&mut host, 0, 10, 100);
    host.settle();
    assert_eq!((host.committed, host.failed.clone()), (2, None));
    assert!(host.read(&object(0), 0, 8192).is_err());
}

#[test]
fn wrong_bytes_never_get_a_right_checksum() {
    let mut host = Host::new(5, capacity(), tiny());
    let mut data = random_data(&mut host.rng, 100, 9000);
    data.crcs[0] ^= 1;
    data.crcs[2] ^= 1;
    let mut t = Transaction::new(PG);
    t.write(&object(0), 100, data);
    host.submit(t);
    host.settle();
    for (offset, length) in [(0, 50), (100, 10), (8192, 908), (0, 9100)] {
        let read = host.read(&object(0), offset, length);
        assert!(matches!(read, Err(StoreError::Checksum { .. })), "{offset}");
    }
    assert!(host.read(&object(0), 4096, 4096).is_ok());
}

/// Six blocks of one object each in the journal alone; then a byte rots at `offset` of the third record.
fn rotten_third_record(offset: u64) -> Host {
    let mut host = Host::new(6, capacity(), tiny());
    for i in 0..6 {
        write(&mut host, i, 0, 4096);
        host.settle();
    }
    let superblock = host.store().superblock().clone();
    host.store = None;
    // The index has lost its memtables, so all of this is replayed.
    host.disk.power();
    host.kv.power();
    host.disk.rot(superblock.journal_offset + 2 * 8192 + offset, 1);
    host
}

#[test]
fn a_rotten_journal_record_in_the_middle_is_named_not_skipped() {
    let mut host = rotten_third_record(100);
    let error = Store::mount(&mut host.disk, host.kv.clone(), tiny()).unwrap_err();
    assert!(matches!(error, OpenError::JournalCorrupt { seq: 3, .. }), "{error}");
    let report = fsck(&mut host.disk, &mut host.kv, false);
    assert!(matches!(report.errors[0], FsckError::Open(OpenError::JournalCorrupt { .. })));
}

#[test]
fn rotten_data_in_the_journal_costs_one_block_not_the_store() {
    let mut host = rotten_third_record(4096 + 100);
    let store = Store::mount(&mut host.disk, host.kv.clone(), tiny()).unwrap();
    assert_eq!((store.replay_report().damaged_blocks, store.replay_report().records), (1, 6));
    host.store = Some(store);
    for i in 0..6 {
        let read = host.read(&object(i), 0, 4096);
        assert_eq!(matches!(read, Err(StoreError::Checksum { .. })), i == 2, "{i}");
        assert_eq!(read.is_ok(), i != 2, "{i}");
    }
}

#[test]
fn what_is_not_this_store_is_refused_by_name() {
    let mut disk = SimDisk::new(capacity(), 1);
    let mut kv = SimKv::new(1);
    assert!(matches!(inspect(&mut disk), Err(OpenError::NotNacre { .. })));
    let small = format(&mut SimDisk::new(1 << 20, 1), &mut kv, options(1 << 20));
    assert!(matches!(small, Err(FormatError::TooSmall { .. })));
    assert!(matches!(format(&mut disk, &mut kv, options(4096)), Err(FormatError::JournalTooSmall { .. })));
    format(&mut disk, &mut kv, options(1 << 20)).unwrap();
    assert!(matches!(
        format(&mut disk, &mut kv, options(1 << 20)),
        Err(FormatError::AlreadyFormatted { .. })
    ));
    let superblock = inspect(&mut disk).unwrap();
    assert_eq!((superblock.fsid.as_str(), superblock.osd_uuid.as_str(), superblock.osd), ("fsid", "uuid", 1));

    // Another OSD's index, and none.
    let (mut other_disk, mut other) = (SimDisk::new(capacity(), 2), SimKv::new(2));
    let uuid = crate::FormatOptions { osd_uuid: "other".into(), ..options(1 << 20) };
    format(&mut other_disk, &mut other, uuid).unwrap();
    let foreign = Store::mount(&mut disk, other, tiny()).unwrap_err();
    assert!(matches!(foreign, OpenError::ForeignIndex { .. }), "{foreign}");
    let lost = Store::mount(&mut disk, SimKv::new(3), tiny()).unwrap_err();
    assert!(matches!(lost, OpenError::IndexLost { .. }), "{lost}");

    // One copy of the superblock is enough; none is not.
    disk.rot(0, 1);
    assert_eq!(inspect(&mut disk).unwrap(), superblock);
    disk.rot((64 << 10) + 20, 1);
    assert!(matches!(inspect(&mut disk), Err(OpenError::NotNacre { .. })));

    for (change, expected) in [
        (Superblock { format_version: 9, ..superblock.clone() }, "newer version"),
        (Superblock { features_required: 4, ..superblock.clone() }, "features"),
        (Superblock { ready: false, ..superblock.clone() }, "did not finish"),
        (Superblock { data_blocks: 1 << 30, ..superblock.clone() }, "smaller"),
    ] {
        change.write(&mut disk).unwrap();
        let error = inspect(&mut disk).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    wipe(&mut disk).unwrap();
    format(&mut disk, &mut SimKv::new(4), options(1 << 20)).unwrap();
}

/// A device that loses power with the request after so many.
struct Dying<'a>(&'a mut SimDisk, usize);

impl Dying<'_> {
    fn lives(&mut self) -> Result<(), DiskError> {
        self.1 = self.1.checked_sub(1).ok_or(DiskError::Io { offset: 0, reason: "no power".into() })?;
        Ok(())
    }
}

impl DiskSync for Dying<'_> {
    fn capacity_bytes(&self) -> u64 {
        self.0.capacity_bytes()
    }

    fn read_at(&mut self, offset: u64, length: usize) -> Result<bytes::Bytes, DiskError> {
        self.0.read_at(offset, length)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.lives()?;
        self.0.write_at(offset, data)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.lives()?;
        self.0.flush()
    }
}

#[test]
fn a_format_that_dies_anywhere_is_seen_to_be_one_and_done_again() {
    let mut finished = false;
    let mut half = 0;
    for requests in 0..40 {
        for seed in 0..20 {
            let (mut disk, mut kv) = (SimDisk::new(capacity(), seed), SimKv::new(seed));
            finished = format(&mut Dying(&mut disk, requests), &mut kv, options(1 << 20)).is_ok();
            disk.power();
            kv.power();
            match inspect(&mut disk) {
                Ok(_) => drop(Store::mount(&mut disk, kv, tiny()).unwrap()),
                Err(why) => {
                    assert!(
                        !finished
                            && matches!(why, OpenError::HalfFormatted { .. } | OpenError::NotNacre { .. }),
                        "{why}"
                    );
                    half += usize::from(matches!(why, OpenError::HalfFormatted { .. }));
                    assert!(Store::mount(&mut disk, kv.clone(), tiny()).is_err());
                    match format(&mut disk, &mut kv, options(1 << 20)) {
                        Ok(()) => {}
                        // It came as far as the last write: an index with a checkpoint is never written over.
                        Err(FormatError::IndexNotEmpty) => {
                            kv = SimKv::new(seed);
                            format(&mut disk, &mut kv, options(1 << 20)).unwrap();
                        }
                        Err(why) => panic!("{why}"),
                    }
                    drop(Store::mount(&mut disk, kv, tiny()).unwrap());
                }
            }
        }
    }
    assert!(finished && half > 0);
}

#[test]
fn a_full_device_still_boots_reads_and_deletes() {
    let mut host = Host::new(8, (128 << 10) + (1 << 20) + (2 << 20), tiny());
    let mut name = 0;
    loop {
        let usage = host.store().usage();
        if usage.total_bytes - usage.used_bytes < 100 << 10 {
            break;
        }
        write(&mut host, name, 0, 64 << 10);
        host.settle();
        name += 1;
    }
    assert_eq!(host.failed, None);
    // Overwrites of any size go on: through the journal, in place, once nothing is free.
    for round in 0..20 {
        write(&mut host, round % name, 0, 64 << 10);
        write(&mut host, round % name, 100, 5000);
        host.settle();
        assert_eq!(host.failed, None);
    }
    host.crash();
    host.fsck();
    for gone in 0..name {
        let mut t = Transaction::new(PG);
        t.remove(&object(gone));
        host.submit(t);
        host.settle();
    }
    assert_eq!(host.store().usage().used_bytes, 0);
    // Beyond the reserve there is nothing: the store says so and ends, and boots again.
    for name in 0..100 {
        write(&mut host, name, 0, 64 << 10);
        host.settle();
    }
    assert_eq!(host.failed, Some(StoreError::NoSpace));
    host.crash();
    host.fsck();
}

#[test]
fn arbitrary_damage_to_device_or_index_never_panics() {
    for seed in 0..150 {
        let mut host = Host::new(seed, capacity(), tiny());
        for _ in 0..8 {
            let transaction = host.random_transaction(4, 60 << 10);
            host.submit(transaction);
            host.settle();
        }
        host.store = None;
        let Host { mut rng, mut disk, mut kv, .. } = host;
        for _ in 0..1 + rng.below(6) {
            if rng.chance(1, 2) {
                disk.rot(rng.below(300 << 10), rng.next_u64() as u8);
                continue;
            }
            let mut keys = Vec::new();
            kv.scan(&[], &[0xff], &mut |key, value| {
                keys.push((key.to_vec(), value.to_vec()));
                true
            })
            .unwrap();
            let (key, mut value) = rng.pick(&keys).unwrap().clone();
            let at = rng.below(value.len() as u64) as usize;
            match rng.below(3) {
                0 => value.truncate(at),
                _ if value.is_empty() => {}
                _ => value[at] ^= 1 << rng.below(8),
            }
            kv.write(vec![KvOp::Put { key, value: value.into() }]).unwrap();
        }
        let _ = fsck(&mut disk, &mut kv, true).errors.iter().map(ToString::to_string).count();
        let Ok(mut store) = Store::mount(&mut disk, kv, tiny()) else { continue };
        for (at, id) in store.list(&[], true, &[0xff; 4], 100).unwrap_or_default().iter().enumerate() {
            let size = store.stat(id).ok().flatten().map_or(0, |s| s.size.min(1 << 20));
            store.read(at as u64, id, 0, size);
            let _ = (store.attrs(id), store.omap_list(id, None, &[], 10), store.extents(id, 0, size));
        }
        while let Some(request) = store.poll_disk() {
            disk.request(request);
            while let Some(done) = disk.complete_any() {
                store.disk_done(done);
            }
        }
    }
}
