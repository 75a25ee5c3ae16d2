//! One case after the other, as text-like steps.

use super::*;
use nacre_wire::op::*;
use nacre_wire::transaction::{OBJECT_BYTES_MAX, Pair};
use prost::Message as _;

fn extent(offset: u64, length: u64) -> Extent {
    Extent { offset, length }
}

fn write(offset: u64, text: &str) -> (ObjectOpKind, Data) {
    let kind = ObjectOpKind::Write(extent(offset, text.len() as u64));
    (kind, Data::checksummed(offset, bytes(text)))
}

fn lock(cookie: &str, shared: bool, duration_ms: u64, may_renew: bool) -> Lock {
    let description = String::new();
    Lock { name: "l".into(), cookie: cookie.into(), shared, duration_ms, description, may_renew }
}

impl Bench {
    fn one(&mut self, name: &str, op: (ObjectOpKind, Data)) -> Executed {
        self.run(&object(name), (0, &[]), &[op.0], &op.1)
    }

    fn ops(&mut self, name: &str, ops: &[ObjectOpKind]) -> Executed {
        self.run(&object(name), (0, &[]), ops, &Data::default())
    }

    fn code(&mut self, name: &str, op: ObjectOpKind) -> ErrorCode {
        self.ops(name, &[op]).code
    }

    fn read(&mut self, name: &str) -> String {
        let executed = self.ops(name, &[ObjectOpKind::Read(extent(0, 1 << 20))]);
        assert_eq!(executed.code, ErrorCode::Ok, "{}", executed.message);
        String::from_utf8(executed.data.bytes.to_vec()).unwrap()
    }
}

#[test]
fn a_small_overwrite_is_two_operations() {
    let mut bench = Bench::new();
    bench.one("a", write(0, &"x".repeat(8192)));
    let executed = bench.one("a", write(4096, &"y".repeat(4096)));
    let mutation = executed.mutation.unwrap();
    assert_eq!(mutation.transaction.ops().len(), 2, "the data and the object info");
    assert_eq!(mutation.entries.len(), 1);
    assert_eq!(mutation.entries[0].extents, [extent(4096, 4096)]);
    assert!(mutation.transaction.encode_body().len() < 64);
    assert_eq!(executed.version.seq, 2);
}

#[test]
fn nothing_is_there() {
    use ObjectOpKind::*;
    let mut bench = Bench::new();
    let key = Key { key: bytes("k") };
    for op in [
        Read(extent(0, 1)),
        Stat(Empty {}),
        Remove(Empty {}),
        GetXattr(key.clone()),
        GetXattrs(Empty {}),
        RemoveXattr(key.clone()),
        OmapGet(Default::default()),
        OmapList(Default::default()),
        OmapClear(Empty {}),
        MapExtents(extent(0, 1)),
        Unlock(lock("c", false, 0, false)),
        GetLock(key),
        ListSnaps(Empty {}),
        Notify(Default::default()),
        Watch(Default::default()),
    ] {
        let executed = bench.ops("none", std::slice::from_ref(&op));
        assert_eq!(executed.code, ErrorCode::NotFound, "{op:?}");
        assert!(executed.mutation.is_none() && executed.message.starts_with("1/none: "));
    }
    assert_eq!(bench.code("none", AssertLocked(lock("c", false, 0, false))), ErrorCode::Fenced);
    for op in [Truncate(Size { size: 5 }), Zero(extent(0, 5)), AssertVersion(Version::default())] {
        let executed = bench.ops("none", &[op]);
        assert!(executed.code == ErrorCode::Ok && executed.mutation.is_none());
    }
    assert!(bench.store.objects.is_empty());
}

#[test]
fn limits_are_named() {
    use ObjectOpKind::*;
    let mut bench = Bench::new();
    bench.one("a", write(0, "x"));
    let long = Bytes::from(vec![b'k'; KEY_BYTES_MAX + 1]);
    let pair = |key: &Bytes, bytes: usize| Pair { key: key.clone(), value: vec![0; bytes].into() };
    let key = bytes("k");
    let cases = [
        (Truncate(Size { size: OBJECT_BYTES_MAX + 1 }), ErrorCode::TooLarge),
        (Zero(extent(u64::MAX, 2)), ErrorCode::TooLarge),
        (Read(extent(u64::MAX, u64::MAX)), ErrorCode::Ok),
        (SetXattr(pair(&key, XATTR_BYTES_MAX + 1)), ErrorCode::TooLarge),
        (SetXattr(pair(&long, 1)), ErrorCode::TooLarge),
        (SetXattr(pair(&Bytes::new(), 1)), ErrorCode::InvalidArgument),
        (
            OmapSet(PairList { pairs: vec![pair(&key, OMAP_VALUE_BYTES_MAX + 1)], more: false }),
            ErrorCode::TooLarge,
        ),
        (OmapRemove(KeyList { keys: vec![long] }), ErrorCode::TooLarge),
        (Write(extent(0, 5)), ErrorCode::InvalidArgument),
        (Append(extent(0, 5)), ErrorCode::InvalidArgument),
    ];
    for (op, code) in cases {
        let executed = bench.ops("a", std::slice::from_ref(&op));
        assert_eq!(executed.code, code, "{op:?}");
        assert!(executed.mutation.is_none());
    }
    let (op, data) = write(OBJECT_BYTES_MAX - 1, "xy");
    assert_eq!(bench.one("a", (op, data)).code, ErrorCode::TooLarge);
    assert_eq!(bench.ops("a", &[]).code, ErrorCode::InvalidArgument);
    let many = vec![Stat(Empty {}); OBJECT_OPS_MAX + 1];
    assert_eq!(bench.ops("a", &many).code, ErrorCode::InvalidArgument);
    let (_, extra) = write(0, "too much");
    let executed = bench.run(&object("a"), (0, &[]), &[Stat(Empty {})], &extra);
    assert_eq!(executed.code, ErrorCode::InvalidArgument);
    assert_eq!(bench.read("a"), "x");
}

#[test]
fn a_failure_names_its_operation_and_undoes_the_rest() {
    use ObjectOpKind::*;
    let mut bench = Bench::new();
    let ops = [Create(Create_(true)), Compare(extent(0, 3)), OmapClear(Empty {})];
    let executed = bench.run(&object("a"), (0, &[]), &ops, &Data::plain(bytes("abc")));
    assert_eq!((executed.code, executed.results.len()), (ErrorCode::Canceled, 2));
    assert_eq!(executed.message, "1/a, operation 1: the data differs from what was expected at byte 0");
    assert!(bench.store.objects.is_empty());
    let zeroes = Data::plain(Bytes::from(vec![0; 3]));
    assert_eq!(bench.run(&object("a"), (0, &[]), &ops, &zeroes).code, ErrorCode::Ok);
    assert_eq!(bench.code("a", Create(Create_(true))), ErrorCode::AlreadyExists);
}

#[allow(non_snake_case)]
fn Create_(exclusive: bool) -> Create {
    Create { exclusive }
}

#[test]
fn user_xattrs_never_meet_internal_ones() {
    use ObjectOpKind::*;
    let mut bench = Bench::new();
    for name in ["_", "ss", "lock.l"] {
        let pair = Pair { key: bytes(name), value: bytes("mine") };
        assert_eq!(bench.code("a", SetXattr(pair)), ErrorCode::Ok);
    }
    let executed = bench.ops("a", &[GetXattrs(Empty {}), GetXattr(Key { key: bytes("_") })]);
    let list = PairList::decode(executed.results[0].answer.clone()).unwrap();
    let names: Vec<&[u8]> = list.pairs.iter().map(|pair| &pair.key[..]).collect();
    assert_eq!(names, [&b"_"[..], b"lock.l", b"ss"]);
    assert_eq!(executed.data.bytes, "mine");
    assert_eq!(bench.code("a", AssertLocked(lock("c", false, 0, false))), ErrorCode::Fenced);
}

#[test]
fn locks_exclude_lapse_renew_and_fence() {
    use ObjectOpKind::*;
    let mut bench = Bench::new();
    let mine = lock("c", false, 100, false);
    assert_eq!(bench.code("a", Lock(mine.clone())), ErrorCode::Ok);
    assert_eq!(bench.code("a", Lock(mine.clone())), ErrorCode::AlreadyExists);
    assert_eq!(bench.code("a", Lock(lock("c", false, 100, true))), ErrorCode::Ok);
    bench.client = 2;
    let refused = bench.ops("a", &[Lock(mine.clone())]);
    assert_eq!(refused.code, ErrorCode::Busy);
    assert!(refused.message.contains("client.admin"), "{}", refused.message);
    assert_eq!(bench.code("a", Lock(lock("c", true, 0, false))), ErrorCode::Busy);
    assert_eq!(bench.code("a", AssertLocked(mine.clone())), ErrorCode::Fenced);
    bench.wall_ms += 200;
    bench.client = 1;
    assert_eq!(bench.code("a", AssertLocked(mine.clone())), ErrorCode::Ok, "lapsed, but nobody took it");
    bench.client = 2;
    assert_eq!(bench.code("a", Lock(mine.clone())), ErrorCode::Ok);
    bench.client = 1;
    let (kind, data) = write(0, "late");
    let executed = bench.run(&object("a"), (0, &[]), &[AssertLocked(mine.clone()), kind], &data);
    assert_eq!(executed.code, ErrorCode::Fenced);
    let info = bench.ops("a", &[GetLock(Key { key: bytes("l") })]);
    let info = LockInfo::decode(info.results[0].answer.clone()).unwrap();
    assert_eq!((info.holders.len(), info.holders[0].client), (1, 2));
    let breaking = nacre_wire::op::BreakLock { name: "l".into(), client: 2, cookie: "c".into() };
    assert_eq!(bench.code("a", BreakLock(breaking.clone())), ErrorCode::Ok);
    assert_eq!(bench.code("a", BreakLock(breaking)), ErrorCode::NotFound);
    for client in 1..4 {
        bench.client = client;
        assert_eq!(bench.code("a", Lock(lock("s", true, 0, false))), ErrorCode::Ok);
    }
    assert_eq!(bench.code("a", AssertLocked(lock("s", false, 0, false))), ErrorCode::Fenced);
    assert_eq!(bench.code("a", AssertLocked(lock("s", true, 0, false))), ErrorCode::Ok);
    assert_eq!(bench.code("a", Unlock(lock("s", true, 0, false))), ErrorCode::Ok);
}

#[test]
fn omap_pages_over_what_the_request_changed() {
    use ObjectOpKind::*;
    let mut bench = Bench::new();
    let pair = |key: &str| Pair { key: bytes(key), value: bytes("v") };
    let set =
        |keys: &[&str]| OmapSet(PairList { pairs: keys.iter().map(|k| pair(k)).collect(), more: false });
    bench.ops("a", &[set(&["a1", "a3", "a5", "b1"])]);
    let page = |after: &str, entries_max| {
        OmapList(nacre_wire::op::OmapList { after: bytes(after), prefix: bytes("a"), entries_max })
    };
    let executed = bench.ops(
        "a",
        &[
            set(&["a0", "a4", "c"]),
            OmapRemove(KeyList { keys: vec![bytes("a3")] }),
            page("", 2),
            page("a1", 2),
            page("a5", 0),
        ],
    );
    let list = |at: usize| {
        let list = PairList::decode(executed.results[at].answer.clone()).unwrap();
        let keys: Vec<String> =
            list.pairs.iter().map(|p| String::from_utf8(p.key.to_vec()).unwrap()).collect();
        (keys.join(" "), list.more)
    };
    assert_eq!(list(2), ("a0 a1".into(), true));
    assert_eq!(list(3), ("a4 a5".into(), false));
    assert_eq!(list(4), ("".into(), false));
}

#[test]
fn large_omap_values_page_by_bytes() {
    use ObjectOpKind::*;
    let mut bench = Bench::new();
    for at in 0..9 {
        let value = Bytes::from(vec![7; OMAP_VALUE_BYTES_MAX]);
        let pairs = vec![Pair { key: bytes(&format!("k{at}")), value }];
        bench.ops("a", &[OmapSet(PairList { pairs, more: false })]);
    }
    let executed = bench.ops("a", &[OmapList(Default::default())]);
    let list = PairList::decode(executed.results[0].answer.clone()).unwrap();
    assert!(list.more && list.pairs.len() == 3);
}

#[test]
fn watch_actions_follow_the_operations() {
    use ObjectOpKind::*;
    let mut bench = Bench::new();
    bench.one("a", write(0, "x"));
    let watch = nacre_wire::op::Watch { cookie: 4, unwatch: false, timeout_ms: 10 };
    let notify = nacre_wire::op::Notify { payload: bytes("hi"), timeout_ms: 5 };
    let executed = bench.ops("a", &[Watch(watch), Notify(notify), Remove(Empty {})]);
    assert_eq!(
        executed.watch,
        [
            WatchAction::Watch { cookie: 4, timeout_ms: 10 },
            WatchAction::Notify { op: 1, payload: bytes("hi"), timeout_ms: 5 },
            WatchAction::ObjectRemoved,
        ]
    );
    assert_eq!(executed.version, EVersion::ZERO);
}
