//! What things cost, counted: writes, flushes, bytes. Printed with `--nocapture`; the asserts are the budget.

use super::host::{PG, object, options, random_data};
use crate::testing::{SimDisk, SimKv};
use crate::{
    Changes, DiskDone, DiskRequest, Kv, KvError, KvOp, ObjectStore, Store, StoreConfig, StoreEvent, format,
};
use bytes::Bytes;
use nacre_types::checksum::BLOCK_U64;
use nacre_types::{ObjectId, Rng};
use nacre_wire::{Data, Transaction};
use std::collections::BTreeMap;
use std::sync::Arc;

struct Bench {
    disk: SimDisk,
    kv: SimKv,
    store: Store<SimKv>,
    committed: u64,
}

impl Bench {
    fn new(journal_bytes: u64) -> Bench {
        Bench::with(journal_bytes, StoreConfig::default())
    }

    fn with(journal_bytes: u64, config: StoreConfig) -> Bench {
        let mut disk = SimDisk::new(journal_bytes + (256 << 20), 1);
        let mut kv = SimKv::new(1);
        format(&mut disk, &mut kv, options(journal_bytes)).unwrap();
        let store = Store::mount(&mut disk, kv.clone(), config).unwrap();
        Bench { disk, kv, store, committed: 0 }
    }

    /// Carries out everything under way, in order.
    fn run(&mut self) {
        loop {
            while let Some(request) = self.store.poll_disk() {
                self.disk.request(request);
            }
            while let Some(event) = self.store.poll_event() {
                assert!(!matches!(event, StoreEvent::Failed(_)), "{event:?}");
                self.committed += u64::from(matches!(event, StoreEvent::Committed { .. }));
            }
            if let Some((token, result)) = self.kv.complete_flush() {
                self.store.kv_flushed(token, result);
            } else if let Some(token) = self.disk.completable().first().copied() {
                let done = self.disk.complete(token).unwrap();
                self.store.disk_done(done);
            } else {
                return;
            }
        }
    }
}

/// What an OSD submits for a 4 KiB write: the data, the object's version, a log entry, the PG's info.
fn overwrite(id: &ObjectId, block: u64, data: Data, seq: u64) -> Transaction {
    let mut t = Transaction::new(PG);
    t.write(id, block * BLOCK_U64, data);
    t.set_attr(id, "_", Bytes::from(vec![seq as u8; 48]));
    t.meta_set(format!("log.{seq:016x}"), vec![1; 120]);
    t.meta_set("info", vec![2; 200]);
    t
}

#[test]
fn a_4k_overwrite() {
    let mut rng = Rng::new(1);
    let mut bench = Bench::new(64 << 20);
    let id = object(0);
    for block in 0..4 {
        let mut t = Transaction::new(PG);
        t.write(&id, block << 20, random_data(&mut rng, 0, 1 << 20));
        bench.store.submit(block, t);
    }
    bench.run();
    let data = random_data(&mut rng, 0, BLOCK_U64);
    for depth in [1, 32] {
        let (before, kv_before) = (bench.store.stats(), bench.kv.bytes_written());
        // Several checkpoints: only they write to the index.
        let writes = 16 << 10;
        for round in 0..writes / depth {
            for i in 0..depth {
                let seq = round * depth + i;
                bench.store.submit(seq, overwrite(&id, rng.below(1024), data.clone(), seq));
            }
            bench.run();
        }
        let after = bench.store.stats();
        let per = |a: u64, b: u64| (b - a) as f64 / writes as f64;
        let kv = per(kv_before, bench.kv.bytes_written());
        println!(
            "4 KiB overwrite, {depth} at once: {:.3} journal writes, {:.3} flushes, {:.0} journal bytes, {kv:.0} index bytes a write",
            per(before.journal_writes, after.journal_writes),
            per(before.flushes, after.flushes),
            per(before.journal_bytes, after.journal_bytes),
        );
        assert!(per(before.journal_writes, after.journal_writes) <= if depth == 1 { 1.0 } else { 0.1 });
        assert!(per(before.flushes, after.flushes) <= if depth == 1 { 1.01 } else { 0.2 });
        assert!(after.checkpoints >= before.checkpoints + 2);
        assert!((1.0..=300.0).contains(&kv), "{kv}");
        let journal = per(before.journal_bytes, after.journal_bytes);
        assert!(journal <= if depth == 1 { 8192.0 } else { 5600.0 });
    }
}

#[test]
fn a_1m_write_puts_only_metadata_into_the_journal() {
    let mut rng = Rng::new(2);
    let mut bench = Bench::new(64 << 20);
    let before = bench.store.stats();
    for i in 0..32 {
        let mut t = Transaction::new(PG);
        t.write(&object(i), 0, random_data(&mut rng, 0, 1 << 20));
        bench.store.submit(i, t);
        bench.run();
    }
    let after = bench.store.stats();
    let bytes = (after.journal_bytes - before.journal_bytes) / 32;
    println!("1 MiB write: {bytes} journal bytes");
    assert!(bytes <= 8192);
    assert_eq!(after.flushes - before.flushes, 32);
}

/// Each record leaves one block that nothing overwrites beside 60 that the next one does: few blocks wait for their
/// place, and every one of them keeps the whole buffer of its record.
#[test]
fn blocks_that_stay_do_not_keep_the_whole_journal_in_memory() {
    let config =
        StoreConfig { writeback_bytes: 2 << 20, deferred_bytes_max: 8 << 20, ..StoreConfig::default() };
    let limit = config.deferred_bytes_max;
    let mut bench = Bench::with(128 << 20, config);
    let mut rng = Rng::new(4);
    let id = object(0);
    for part in 0..4 {
        let mut t = Transaction::new(PG);
        t.write(&id, part << 20, random_data(&mut rng, 0, 1 << 20));
        bench.store.submit(part, t);
    }
    bench.run();
    let before = bench.store.stats();
    let mut most = 0;
    // Less than half of the journal: no checkpoint comes to help.
    for round in 0..200 {
        let mut t = Transaction::new(PG);
        for block in (0..60).chain([100 + round]) {
            t.write(&id, block * BLOCK_U64, random_data(&mut rng, 0, BLOCK_U64));
        }
        bench.store.submit(round, t);
        bench.run();
        most = most.max(bench.store.deferred.total_held());
    }
    let after = bench.store.stats();
    assert_eq!(after.checkpoints, before.checkpoints);
    assert!(after.deferred_writes > before.deferred_writes, "what holds memory is written back");
    assert!((limit / 4..=limit).contains(&most), "{most} bytes held, at most {limit} may be");
}

/// An index that keeps nothing: everything asked for is in the cache or not there.
#[derive(Debug)]
struct NoKv {
    flush: Option<u64>,
    states: BTreeMap<Vec<u8>, Bytes>,
}

impl Kv for NoKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.states.get(key).cloned())
    }

    fn scan(&self, _: &[u8], _: &[u8], _: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<(), KvError> {
        Ok(())
    }

    fn write(&mut self, ops: Vec<KvOp>) -> Result<(), KvError> {
        if self.states.len() < 3 {
            self.states.extend(ops.into_iter().filter_map(|op| match op {
                KvOp::Put { key, value } => Some((key, value)),
                _ => None,
            }));
        }
        Ok(())
    }

    fn start_flush(&mut self, token: u64, _: Arc<Changes>) {
        self.flush = Some(token);
    }

    fn flush_sync(&mut self) -> Result<(), KvError> {
        Ok(())
    }
}

/// CPU of the store alone, with a device and an index that do nothing. Run with
/// `cargo test -p nacre-store --release -- --ignored cpu --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn cpu_of_a_4k_overwrite() {
    let mut disk = SimDisk::new((256 << 20) + (256 << 20), 1);
    let mut kv = NoKv { flush: None, states: BTreeMap::new() };
    format(&mut disk, &mut kv, options(256 << 20)).unwrap();
    let mut store = Store::mount(&mut disk, kv, StoreConfig::default()).unwrap();
    let mut rng = Rng::new(3);
    let ids: Vec<ObjectId> = (0..32).map(object).collect();
    let run = |store: &mut Store<NoKv>| {
        loop {
            let mut busy = false;
            while store.poll_event().is_some() {}
            while let Some(request) = store.poll_disk() {
                busy = true;
                let (DiskRequest::Write { token, .. } | DiskRequest::Flush { token }) = request else {
                    continue;
                };
                store.disk_done(DiskDone { token, result: Ok(Bytes::new()) });
            }
            if let Some(token) = store.kv_mut().flush.take() {
                store.kv_flushed(token, Ok(()));
            } else if !busy {
                return;
            }
        }
    };
    for id in &ids {
        for part in 0..4 {
            let mut t = Transaction::new(PG);
            t.write(id, part << 20, random_data(&mut rng, 0, 1 << 20));
            store.submit(0, t);
            run(&mut store);
        }
    }
    let data = random_data(&mut rng, 0, BLOCK_U64);
    for depth in [1_u64, 32, 128] {
        let writes = 200_000;
        let mut seq = 0;
        let (mut submit, mut commit) = (0, 0);
        for _ in 0..writes / depth {
            let batch: Vec<Transaction> = (0..depth)
                .map(|_| {
                    seq += 1;
                    let id = &ids[rng.below(32) as usize];
                    overwrite(id, rng.below(1024), data.clone(), seq)
                })
                .collect();
            let start = std::time::Instant::now();
            batch.into_iter().for_each(|t| store.submit(seq, t));
            submit += start.elapsed().as_nanos() as u64;
            let start = std::time::Instant::now();
            run(&mut store);
            commit += start.elapsed().as_nanos() as u64;
        }
        println!("depth {depth}: submit {} ns, commit {} ns a write", submit / writes, commit / writes);
    }
    // Reads of what is only on the disk: 1 MiB, then 4 KiB.
    for (length, count) in [(1 << 20, 1000), (4096, 200_000)] {
        let fresh = random_data(&mut rng, 0, 1 << 20);
        let id = object(1000);
        let mut t = Transaction::new(PG);
        t.write(&id, 0, fresh.clone());
        store.submit(0, t);
        run(&mut store);
        let start = std::time::Instant::now();
        for i in 0..count {
            let offset = if length == 4096 { i % 256 * 4096 } else { 0 };
            store.read(i, &id, offset, length);
            while let Some(DiskRequest::Read { token, length, .. }) = store.poll_disk() {
                let at = offset as usize;
                let bytes = fresh.bytes.slice(at..at + length);
                store.disk_done(DiskDone { token, result: Ok(bytes) });
            }
            let Some(StoreEvent::ReadDone { result: Ok(data), .. }) = store.poll_event() else { panic!() };
            assert_eq!(data.bytes.len() as u64, length);
        }
        println!("read of {length}: {} ns", start.elapsed().as_nanos() as u64 / count);
    }
}

/// What tells the time of writing from that of flushing.
#[test]
fn a_record_counts_as_written_when_only_its_flush_is_left() {
    let mut rng = Rng::new(3);
    let mut bench = Bench::new(64 << 20);
    let mut t = Transaction::new(PG);
    // Large and fresh: its data goes elsewhere, under the same flush.
    t.write(&object(0), 0, random_data(&mut rng, 0, 256 << 10));
    bench.store.submit(1, t);
    let mut writes = Vec::new();
    let mut flush = None;
    while let Some(request) = bench.store.poll_disk() {
        match request {
            DiskRequest::Flush { token } => flush = Some(token),
            DiskRequest::Write { token, .. } => writes.push(token),
            other => panic!("{other:?} is not asked for"),
        }
        bench.disk.request(request);
    }
    assert!(writes.len() > 1, "the record, and its data");
    for token in writes.iter().rev() {
        assert_eq!(bench.store.stats().journal_written, 0, "a write is under way");
        let done = bench.disk.complete(*token).unwrap();
        bench.store.disk_done(done);
    }
    assert_eq!(bench.store.stats().journal_written, 1);
    assert_eq!(bench.store.poll_event(), None, "it is not durable yet");
    let done = bench.disk.complete(flush.expect("a flush")).unwrap();
    bench.store.disk_done(done);
    assert_eq!(bench.store.poll_event(), Some(StoreEvent::Committed { token: 1 }));
    for round in 0..20 {
        let mut t = Transaction::new(PG);
        t.write(&object(round), 0, random_data(&mut rng, 0, 100 << 10));
        bench.store.submit(2 + round, t);
        bench.run();
    }
    let stats = bench.store.stats();
    assert_eq!(stats.journal_written, stats.journal_writes, "each record once");
}
