//! What a PG keeps and what its peers send of it, and clients' operations.

use super::wire::object;
use crate::input::{Input, join};
use bytes::Bytes;
use nacre_maps::Pool;
use nacre_osd::log::{
    BackfillMark, Entry, Info, MissingSet, PastIntervals, PeerLog, PgLog, merge_authoritative,
};
use nacre_osd::log::{decode_version, process_replica_log};
use nacre_osd::ops::testing::ModelStore;
use nacre_osd::ops::{Execution, ObjectInfo, ReadCache, Request, SnapContext, execute};
use nacre_osd::snaps::{Common, SnapSet};
use nacre_types::{ClientId, EVersion, EntityName, Epoch, ObjectId, PgId, PoolId, RequestId};
use nacre_wire::messages::{LogEntry, MissingObject, PgActivate, PgInfo, PgLog as PgLogMessage};
use nacre_wire::op::*;
use nacre_wire::transaction::{Op, Pair};
use nacre_wire::{Data, ObjectName, Transaction};
use prost::Message as _;

const PG: PgId = PgId::new(PoolId(1), 0);
/// Objects grow no further here: the model keeps them in memory.
const OBJECT_BYTES_MAX: u64 = 256 << 10;

/// A byte of which record, then its bytes; or (6) a PG's whole metadata as keys and values in parts.
pub fn records(input: &[u8]) {
    let mut input = Input(input);
    match input.u8() % 8 {
        0 => {
            let Ok(Ok(info)) = PgInfo::decode(input.0).map(|wire| Info::decode(&wire)) else { return };
            assert_eq!(Info::decode(&info.encode()), Ok(info.clone()));
            let _ = (info.last_backfill.covers(&object("a")), info.last_backfill.covers_key(b"a"));
        }
        1 => {
            let Ok(Ok(entry)) = LogEntry::decode(input.0).map(|wire| Entry::decode(&wire)) else { return };
            assert_eq!(Entry::decode(&entry.encode()), Ok(entry.clone()));
            let _ = (entry.is_delete(), entry.is_error(), entry.makes_anew());
        }
        2 => {
            let Ok(wire) = MissingObject::decode(input.0) else { return };
            let Ok(set) = MissingSet::decode(&[wire]) else { return };
            assert_eq!(MissingSet::decode(&set.encode()), Ok(set));
        }
        3 => {
            let Ok(past) = PastIntervals::decode(input.0) else { return };
            assert_eq!(PastIntervals::decode(&past.encode()), Ok(past.clone()));
            let _ = (past.span(), past.may_have_written(Epoch(3)).count());
            let mut pruned = past;
            pruned.prune(Epoch(5));
            assert!(PastIntervals::decode(&pruned.encode()).is_ok());
        }
        4 => {
            let Some(set) = SnapSet::from_attr(input.0) else { return };
            assert_eq!(SnapSet::from_attr(&set.to_attr()), Some(set.clone()));
            let _ = set.resolve(3, true);
        }
        5 => {
            let Some(info) = ObjectInfo::from_attr(input.0) else { return };
            assert_eq!(ObjectInfo::from_attr(&info.to_attr()), Some(info));
        }
        7 => {
            let Some(common) = Common::from_attr(input.0) else { return };
            assert_eq!(Common::from_attr(&common.to_attr()), Some(common));
        }
        _ => {
            let mut store = ModelStore::default();
            let mut transaction = Transaction::new(PG);
            while !input.is_empty() {
                transaction.meta_set(input.part().to_vec(), input.part().to_vec());
            }
            store.apply(&transaction);
            let Ok(Some(loaded)) = nacre_osd::log::persist::load(&store, PG) else { return };
            loaded.log.check();
            let mut again = Transaction::new(PG);
            nacre_osd::log::persist::everything(&mut again, &loaded);
            let mut other = ModelStore::default();
            other.apply(&again);
            let back = nacre_osd::log::persist::load(&other, PG).expect("what was kept loads");
            assert!(back.is_some_and(|back| {
                back.log.encode_after(None) == loaded.log.encode_after(None) && back.missing == loaded.missing
            }));
        }
    }
}

fn entry(seq: u64, name: &str, prior: u64) -> LogEntry {
    LogEntry {
        kind: 1,
        object: Some(ObjectName::from(&object(name))),
        version: Some(Version { epoch: 2, seq }),
        prior_version: (prior > 0).then_some(Version { epoch: 2, seq: prior }),
        client: 5,
        request: seq,
        ..LogEntry::default()
    }
}

fn info() -> PgInfo {
    PgInfo {
        pg: PG.as_u64(),
        last_update: Some(Version { epoch: 2, seq: 3 }),
        last_complete: Some(Version { epoch: 2, seq: 3 }),
        exists: true,
        ..PgInfo::default()
    }
}

pub fn records_seeds() -> Vec<Vec<u8>> {
    let missing = MissingObject {
        object: Some(ObjectName::from(&object("a"))),
        need: Some(Version { epoch: 2, seq: 3 }),
        ..MissingObject::default()
    };
    let clone =
        CloneInfo { id: 3, snaps: vec![2, 3], size: 9, overlap: vec![Extent { offset: 0, length: 9 }] };
    let set = SnapSet { seq: 3, clones: vec![clone] };
    let object_info =
        ObjectInfo { epoch: 2, seq: 3, modified_ms: 4, snaps: vec![1], ..ObjectInfo::default() };
    let seed = |which: u8, bytes: &[u8]| [&[which], bytes].concat();
    let mut past = PastIntervals::new();
    past.add(nacre_osd::log::Interval {
        first: Epoch(2),
        last: Epoch(4),
        up: vec![nacre_types::OsdId(0)],
        acting: vec![nacre_types::OsdId(0), nacre_types::OsdId(1)],
        primary: Some(nacre_types::OsdId(0)),
        maybe_went_rw: true,
    });
    let log = PgLog::decode(EVersion::ZERO, &[entry(1, "a", 0), entry(2, "b", 0), entry(3, "a", 1)]);
    let log = log.expect("a legal log");
    let missing_set = MissingSet::decode(std::slice::from_ref(&missing)).expect("a legal set");
    let mut kept = Transaction::new(PG);
    let loaded = nacre_osd::log::persist::Loaded {
        info: Info::decode(&info()).expect("a legal info"),
        log,
        missing: missing_set,
        past_intervals: past.clone(),
    };
    nacre_osd::log::persist::everything(&mut kept, &loaded);
    let mut parts = Vec::new();
    for op in kept.ops() {
        if let Op::MetaSet(pairs) = op {
            pairs.pairs.iter().for_each(|pair| parts.extend(join(&[&pair.key, &pair.value])));
        }
    }
    vec![
        seed(0, &info().encode_to_vec()),
        seed(1, &entry(3, "a", 1).encode_to_vec()),
        seed(2, &missing.encode_to_vec()),
        seed(3, &past.encode()),
        seed(4, &set.to_attr()),
        seed(5, &object_info.to_attr()),
        seed(6, &parts),
        seed(7, &Common::all(3, 9).to_attr()),
    ]
}

/// Two messages as parts: a peer's log and the authoritative one. What can be merged ends where the authority does.
pub fn merge(input: &[u8]) {
    let mut input = Input(input);
    let (own, authority) = (input.part(), input.part());
    let (Ok(own), Ok(authority)) = (PgLogMessage::decode(own), PgActivate::decode(authority)) else { return };
    let log = PgLog::decode(decode_version(own.tail), &own.entries);
    let auth = PgLog::decode(decode_version(authority.tail), &authority.entries);
    let missing = MissingSet::decode(&own.missing);
    let (Ok(mut log), Ok(auth), Ok(mut missing)) = (log, auth, missing) else { return };
    log.check();
    auth.check();
    let (tail, entries) = log.encode_after(None);
    let again = PgLog::decode(tail, &entries).map(|log| log.encode_after(None));
    assert_eq!(again, Ok((tail, entries)));
    let mark = match own.info.as_ref().map(Info::decode) {
        Some(Ok(info)) => info.last_backfill,
        _ => BackfillMark::Complete,
    };
    let peer = PeerLog { log: log.clone(), missing: missing.clone(), last_backfill: mark.clone() };
    let seen_to = decode_version(authority.seen_to);
    let state = process_replica_log(&auth, peer, seen_to);
    match merge_authoritative(&mut log, &mut missing, &mark, &auth, seen_to) {
        Ok(_) => {
            log.check();
            assert_eq!(log.head(), auth.head());
            assert_eq!(state.ok().map(|state| state.missing), Some(missing));
        }
        Err(_) => assert!(state.is_err()),
    }
}

pub fn merge_seeds() -> Vec<Vec<u8>> {
    let common = [entry(1, "a", 0), entry(2, "b", 0)];
    let own = PgLogMessage {
        info: Some(info()),
        entries: [&common[..], &[entry(3, "a", 1)]].concat(),
        ..PgLogMessage::default()
    };
    let mut newer = entry(4, "b", 2);
    newer.version = Some(Version { epoch: 3, seq: 3 });
    let authority = PgActivate { entries: [&common[..], &[newer]].concat(), ..PgActivate::default() };
    vec![join(&[&own.encode_to_vec(), &authority.encode_to_vec()])]
}

/// Requests one after the other, each two parts: the `OsdOp` and its data. What mutates is applied.
pub fn object_ops(input: &[u8]) {
    let mut input = Input(input);
    let mut pool = Pool::new("rbd", 3, 2, 1, 0, Epoch(1));
    for _ in 0..10 {
        pool.create_snap();
    }
    let mut store = ModelStore::default();
    store.apply(&small_objects());
    for seq in 1..=8 {
        let (op, bytes) = (input.part(), input.part());
        let Ok(op) = OsdOp::decode(op) else { continue };
        let Some(Ok(object)) = op.object.as_ref().map(ObjectName::decode) else { continue };
        request(&mut store, &pool, &object, &op, bytes, seq);
    }
}

fn request(store: &mut ModelStore, pool: &Pool, object: &ObjectId, op: &OsdOp, bytes: &[u8], seq: u64) {
    let client = ClientId(u64::from(seq.is_multiple_of(2)));
    let mut crcs = Vec::new();
    let mut at = 0_usize;
    for (offset, length) in op.ops.iter().filter_map(|op| op.kind.as_ref()?.payload()) {
        let end = at.saturating_add(length as usize).min(bytes.len());
        crcs.extend(nacre_types::checksum::crcs(offset % (1 << 40), &bytes[at..end]));
        at = end;
    }
    let data = Data { bytes: Bytes::copy_from_slice(&bytes[..at]), crcs };
    let request = Request {
        pg: PG,
        object,
        ops: &op.ops,
        data: &data,
        snap_context: SnapContext { seq: op.snap_seq, snaps: &op.snaps },
        client,
        entity: &EntityName::Client("fuzz".into()),
        request: RequestId { client, seq },
        version: EVersion::new(Epoch(7), 100 * seq),
        wall_ms: 1000 * seq,
        pool,
    };
    let mut reads = ReadCache::new();
    for _ in 0..64 {
        match execute(&*store, &request, &reads) {
            Err(_) => return,
            Ok(Execution::NeedData(wanted)) => {
                assert!(!wanted.is_empty());
                for wanted in wanted {
                    let data = &store.objects[&wanted.object].data;
                    let range = wanted.offset as usize..(wanted.offset + wanted.length) as usize;
                    let data = Data::checksummed(wanted.offset, Bytes::copy_from_slice(&data[range]));
                    reads.insert(wanted, data);
                }
            }
            Ok(Execution::Done(executed)) => {
                let mut cut = executed.data.cutter();
                for result in &executed.results {
                    let piece = cut.next(result.offset, result.length as usize);
                    assert!(piece.is_some_and(|piece| piece.verify(result.offset).is_ok()));
                }
                assert!(cut.is_done() && executed.results.len() <= op.ops.len());
                let Some(mutation) = executed.mutation else { return };
                let large = |op: &Op| match op {
                    Op::Write(on) | Op::Zero(on) => on.offset + on.length > OBJECT_BYTES_MAX,
                    Op::Truncate(on) => on.size > OBJECT_BYTES_MAX,
                    _ => false,
                };
                assert!(!mutation.entries.is_empty(), "what changes is logged");
                // The replica gets it encoded.
                let t = &mutation.transaction;
                assert_eq!(Transaction::decode(&t.encode_body(), t.payload()).as_ref(), Ok(t));
                if !t.ops().iter().any(large) {
                    store.apply(t);
                }
                return;
            }
        }
    }
    panic!("a request that asks for data again and again");
}

fn small_objects() -> Transaction {
    let mut t = Transaction::new(PG);
    let a = object("a");
    let info = ObjectInfo { epoch: 2, seq: 3, modified_ms: 4, ..ObjectInfo::default() };
    t.write(&a, 0, Data::checksummed(0, vec![5; 9000].into()));
    t.set_attrs(&a, vec![Pair { key: Bytes::from_static(b"_"), value: info.to_attr() }]);
    t.omap_set(&a, vec![Pair { key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v") }]);
    t
}

pub fn object_ops_seeds() -> Vec<Vec<u8>> {
    let extent = Extent { offset: 10, length: 5 };
    let key = || Key { key: Bytes::from_static(b"k") };
    let pairs = || PairList {
        pairs: vec![Pair { key: Bytes::from_static(b"k2"), value: Bytes::from_static(b"v") }],
        more: false,
    };
    let lock = || Lock { name: "l".into(), cookie: "c".into(), duration_ms: 100, ..Lock::default() };
    use ObjectOpKind as K;
    let kinds: Vec<Vec<K>> = vec![
        vec![K::Write(extent), K::Read(Extent { offset: 0, length: 100 }), K::Stat(Empty {})],
        vec![K::WriteFull(Extent { offset: 0, length: 5 }), K::Append(extent), K::Truncate(Size { size: 3 })],
        vec![K::Zero(Extent { offset: 100, length: 4096 }), K::Compare(extent), K::MapExtents(extent)],
        vec![K::SetXattr(pairs().pairs[0].clone()), K::GetXattr(key()), K::GetXattrs(Empty {})],
        vec![
            K::OmapSet(pairs()),
            K::OmapGet(KeyList { keys: vec![Bytes::from_static(b"k")] }),
            K::OmapList(OmapList { entries_max: 10, ..OmapList::default() }),
            K::OmapRemove(KeyList { keys: vec![Bytes::from_static(b"k")] }),
            K::OmapClear(Empty {}),
        ],
        vec![K::Lock(lock()), K::AssertLocked(lock()), K::GetLock(key()), K::Unlock(lock())],
        vec![K::AssertVersion(Version { epoch: 2, seq: 3 }), K::Remove(Empty {})],
        vec![K::Watch(Watch { cookie: 1, unwatch: false, timeout_ms: 100 }), K::ListSnaps(Empty {})],
        vec![K::Notify(Notify { payload: Bytes::from_static(b"n"), timeout_ms: 100 })],
        vec![K::Create(Create { exclusive: true })],
    ];
    let op = |kinds: &Vec<K>, snaps: &[u64]| {
        let op = OsdOp {
            object: Some(ObjectName::from(&object("a"))),
            ops: kinds.iter().cloned().map(ObjectOp::from).collect(),
            snap_seq: snaps.first().copied().unwrap_or(0),
            snaps: snaps.to_vec(),
            ..OsdOp::default()
        };
        join(&[&op.encode_to_vec(), b"hello world, this is data"])
    };
    let mut seeds: Vec<Vec<u8>> = kinds.iter().map(|kinds| op(kinds, &[])).collect();
    seeds.push([op(&kinds[0], &[3, 2]), op(&kinds[6], &[4, 3]), op(&kinds[0], &[5])].concat());
    seeds
}
