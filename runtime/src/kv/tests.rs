//! RocksDB under a store and under a monitor: order, durability, what a crash leaves.

use super::*;
use bytes::Bytes;
use nacre_store::{Changes, Kv, KvOp};
use nacre_types::Rng;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

fn on_reactor<T>(work: impl AsyncFnOnce() -> T) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work())
}

fn put(key: &str, value: &str) -> KvOp {
    KvOp::Put { key: key.into(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

fn dump(kv: &RocksKv) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    kv.scan(b"", b"\xff", &mut |key, value| {
        pairs.push((text(key), text(value)));
        true
    })
    .unwrap();
    pairs
}

#[test]
fn random_batches_match_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kv, _flushes) = RocksKv::create(dir.path(), &KvConfig::default()).unwrap();
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    let mut rng = Rng::new(11);
    let key = |rng: &mut Rng| format!("k{:05}", rng.below(5000));
    for round in 0..300 {
        let mut ops = Vec::new();
        for _ in 0..rng.below(60) {
            match rng.below(12) {
                0 => {
                    let first = key(&mut rng);
                    // Now and then wide enough for a range tombstone.
                    let width = if rng.below(10) == 0 { 4000 } else { 40 };
                    let end = format!("k{:05}", first[1..].parse::<u64>().unwrap() + rng.below(width));
                    if first < end {
                        let gone: Vec<String> =
                            model.range(first.clone()..end.clone()).map(|(k, _)| k.clone()).collect();
                        gone.iter().for_each(|key| drop(model.remove(key)));
                    }
                    ops.push(KvOp::DeleteRange { first: first.into_bytes(), end: end.into_bytes() });
                }
                1 | 2 => {
                    let key = key(&mut rng);
                    model.remove(&key);
                    ops.push(KvOp::Delete { key: key.into_bytes() });
                }
                _ => {
                    let (key, value) = (key(&mut rng), format!("v{round}-{}", rng.next_u64()));
                    ops.push(put(&key, &value));
                    model.insert(key, value);
                }
            }
        }
        kv.write(ops).unwrap();
        if rng.below(20) == 0 {
            kv.flush_sync().unwrap();
        }
        let probe = key(&mut rng);
        assert_eq!(
            kv.get(probe.as_bytes()).unwrap().as_deref(),
            model.get(&probe).map(|value| value.as_bytes())
        );
    }
    assert_eq!(dump(&kv), Vec::from_iter(model));
}

#[test]
fn a_scan_stops_where_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kv, _flushes) = RocksKv::create(dir.path(), &KvConfig::default()).unwrap();
    kv.write(vec![put("a", "1"), put("b", "2"), put("c", "3")]).unwrap();
    let mut seen = Vec::new();
    kv.scan(b"a", b"c", &mut |key, _| {
        seen.push(key.to_vec());
        true
    })
    .unwrap();
    assert_eq!(seen, [b"a", b"b"]);
    let mut count = 0;
    kv.scan(b"", b"z", &mut |_, _| {
        count += 1;
        false
    })
    .unwrap();
    assert_eq!(count, 1);
    kv.scan(b"z", b"a", &mut |_, _| panic!("an empty range")).unwrap();
}

/// What a crash leaves: the files as they are, copied while the database is open.
fn crash_copy(from: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

#[test]
fn a_crash_leaves_exactly_the_last_flush() {
    let dir = tempfile::tempdir().unwrap();
    on_reactor(async || {
        let (mut kv, mut flushes) = RocksKv::create(dir.path(), &KvConfig::default()).unwrap();
        kv.write(vec![put("a", "1"), put("gone", "1")]).unwrap();
        let mut changes = Changes::default();
        changes.remove_range(b"g".to_vec(), b"h".to_vec());
        changes.put(b"b".to_vec(), Some(Bytes::from_static(b"1")));
        kv.start_flush(7, Arc::new(changes));
        assert_eq!(flushes.next_flushed().await, KvFlushed { token: 7, result: Ok(()) });
        // Belongs to the next flush.
        kv.write(vec![put("a", "2"), KvOp::Delete { key: b"b".to_vec() }]).unwrap();
        let first = vec![("a".to_string(), "1".to_string()), ("b".to_string(), "1".to_string())];
        let copy = crash_copy(dir.path());
        assert_eq!(dump(&RocksKv::open(copy.path(), &KvConfig::default()).unwrap().0), first);
        // Nor does an orderly end add to it.
        drop(kv);
        let (mut kv, mut flushes) = RocksKv::open(dir.path(), &KvConfig::default()).unwrap();
        assert_eq!(dump(&kv), first);
        // Nothing to flush is a success too.
        kv.start_flush(8, Arc::default());
        assert_eq!(flushes.next_flushed().await, KvFlushed { token: 8, result: Ok(()) });
        kv.write(vec![put("c", "3")]).unwrap();
        // Whoever flushes and waits waits for what is under way, too.
        let mut changes = Changes::default();
        changes.put(b"d".to_vec(), Some(Bytes::from_static(b"4")));
        kv.start_flush(9, Arc::new(changes));
        kv.flush_sync().unwrap();
        let copy = crash_copy(dir.path());
        assert_eq!(dump(&RocksKv::open(copy.path(), &KvConfig::default()).unwrap().0).len(), 4);
        assert_eq!(flushes.try_flushed(), Some(KvFlushed { token: 9, result: Ok(()) }));
        assert_eq!(flushes.try_flushed(), None);
    });
}

#[test]
fn much_is_written_between_flushes_without_one_happening() {
    let dir = tempfile::tempdir().unwrap();
    let (mut kv, _flushes) = RocksKv::create(dir.path(), &KvConfig::default()).unwrap();
    let value = Bytes::from(vec![b'x'; 16 << 10]);
    for round in 0..100 {
        let ops =
            (0..50).map(|i| KvOp::Put { key: format!("{round}-{i}").into_bytes(), value: value.clone() });
        kv.write(ops.collect()).unwrap();
    }
    assert!(kv.unflushed_bytes() > 64 << 20);
    assert_eq!(dump(&RocksKv::open(crash_copy(dir.path()).path(), &KvConfig::default()).unwrap().0), []);
}

#[test]
fn errors_name_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("kv");
    let error = RocksKv::open(&missing, &KvConfig::default()).err().unwrap();
    assert!(error.0.contains(missing.to_str().unwrap()), "{error}");
    let (_kv, _flushes) = RocksKv::create(&missing, &KvConfig::default()).unwrap();
    assert!(RocksKv::create(&missing, &KvConfig::default()).is_err());
    assert!(RocksKv::open(&missing, &KvConfig::default()).is_err(), "one process, one opener");
    std::fs::write(missing.join("CURRENT"), "MANIFEST-nonsense\n").unwrap();
    assert!(MonStore::open(&missing).is_err());
}

#[test]
fn a_monitors_writes_are_durable_in_order() {
    let dir = tempfile::tempdir().unwrap();
    on_reactor(async || {
        let mut store = MonStore::create(dir.path()).unwrap();
        store.write([(b"first".to_vec(), Some(Bytes::from_static(b"0")))], true).unwrap();
        for token in 0..500u64 {
            let value = Bytes::from(token.to_string());
            let gone = (format!("k{}", token.wrapping_sub(10)).into_bytes(), None);
            store.submit(
                token,
                vec![
                    (format!("k{token}").into_bytes(), Some(value.clone())),
                    (b"last".to_vec(), Some(value)),
                    gone,
                ],
            );
        }
        for token in 0..400 {
            assert_eq!(store.next_done().await, Persisted { token, result: Ok(()) });
        }
        // A crash now: at least what was reported is there, and a prefix of what was submitted.
        let copy = crash_copy(dir.path());
        let records: BTreeMap<Vec<u8>, Bytes> =
            MonStore::open(copy.path()).unwrap().scan_all().unwrap().into_iter().collect();
        let last: u64 = std::str::from_utf8(&records[b"last".as_slice()]).unwrap().parse().unwrap();
        assert!(last >= 399, "{last}");
        assert_eq!(records.len(), 12);
        assert_eq!(records[format!("k{}", last - 9).as_bytes()], (last - 9).to_string());
        for token in 400..500 {
            assert_eq!(store.next_done().await.token, token);
        }
        assert_eq!(store.try_done(), None);
        drop(store);
        assert_eq!(MonStore::open(dir.path()).unwrap().scan_all().unwrap().len(), 12);
    });
}
