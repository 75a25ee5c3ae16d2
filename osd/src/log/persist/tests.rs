//! What is written down piece by piece loads as what memory holds, at any point.

use super::*;
use crate::log::{BackfillMark, merge_authoritative};
use crate::ops::testing::ModelStore;
use nacre_types::{ClientId, PoolId, RequestId, Rng};
use nacre_wire::messages::LogKind;

const PG: PgId = PgId::new(PoolId(1), 3);

fn object(n: u64) -> ObjectId {
    ObjectId::new(PoolId(1), "ns", &format!("o{n}")).unwrap()
}

fn assert_loads(store: &ModelStore, pg: &Loaded, seed: u64) {
    let found = load(store, PG).unwrap().unwrap();
    assert_eq!(found.info, pg.info, "seed {seed}");
    assert_eq!(found.log.encode_after(None), pg.log.encode_after(None), "seed {seed}");
    assert_eq!(found.missing, pg.missing, "seed {seed}");
    assert_eq!(found.past_intervals, pg.past_intervals, "seed {seed}");
    let records = store.meta.keys().filter(|(_, key)| key.first() == Some(&LOG)).count();
    assert_eq!(records, pg.log.len() + pg.log.dup_count(), "seed {seed}: no record is left over");
}

#[test]
fn everything_written_loads_again_after_every_step() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let mut store = ModelStore::default();
        assert!(load(&store, PG).unwrap().is_none());
        let mut pg = Loaded {
            info: Info::created(PG, Epoch(1)),
            log: PgLog::new(EVersion::ZERO),
            missing: MissingSet::new(),
            past_intervals: PastIntervals::new(),
        };
        let mut t = Transaction::new(PG);
        everything(&mut t, &pg);
        store.apply(&t);
        let mut epoch = 1;
        for _ in 0..60 {
            let mut t = Transaction::new(PG);
            match rng.below(6) {
                0 => {
                    let to =
                        pg.log.entries().nth(rng.below(5) as usize).map_or(EVersion::ZERO, |e| e.version);
                    let trimmed = pg.log.trim(to);
                    trim(&mut t, &trimmed);
                }
                1 => {
                    let one = match rng.below(3) {
                        0 => Missing::removal(pg.log.head()),
                        1 => Missing::of(pg.log.head(), EVersion::ZERO),
                        _ => Missing {
                            seen: pg.log.tail(),
                            reverts_to: pg.log.tail(),
                            ..Missing::of(pg.log.head(), pg.log.tail())
                        },
                    };
                    let object = object(rng.below(5));
                    add_missing(&mut t, &object, &one);
                    pg.missing.add(object, one);
                }
                2 => {
                    let object = object(rng.below(5));
                    remove_missing(&mut t, &object);
                    pg.missing.remove(&object);
                }
                3 => {
                    // Rewound and continued by others, in a newer epoch.
                    epoch += 1;
                    let versions: Vec<EVersion> = pg.log.versions_down().collect();
                    let common = *rng.pick(&versions).unwrap();
                    let mut auth = PgLog::new(common);
                    for n in 1..rng.below(4) + 1 {
                        let at = EVersion::new(Epoch(epoch), common.seq + n);
                        auth.append(Entry::new(LogKind::Modify, object(rng.below(5)), at, EVersion::ZERO));
                    }
                    let mark = BackfillMark::Complete;
                    let done =
                        merge_authoritative(&mut pg.log, &mut pg.missing, &mark, &auth, auth.head()).unwrap();
                    merged(&mut t, &done, &pg.log, &pg.missing);
                }
                _ => {
                    let at = EVersion::new(Epoch(epoch), pg.log.head().seq + 1);
                    let mut entry = Entry::new(LogKind::Modify, object(rng.below(5)), at, EVersion::ZERO);
                    entry.request = RequestId { client: ClientId(rng.below(3)), seq: at.seq };
                    entry.answered_below = at.seq.saturating_sub(rng.below(6));
                    append(&mut t, [&entry]);
                    pg.log.append(entry);
                    (pg.info.objects, pg.info.bytes) = (rng.below(100), rng.below(100_000));
                    counts(&mut t, pg.info.objects, pg.info.bytes);
                }
            }
            store.apply(&t);
            pg.info.follow(&pg.log, &pg.missing);
            assert_loads(&store, &pg, seed);
        }
        let mut t = Transaction::new(PG);
        everything(&mut t, &pg);
        store.apply(&t);
        assert_loads(&store, &pg, seed);
        let mut t = Transaction::new(PG);
        remove_all(&mut t);
        store.apply(&t);
        assert!(store.meta.is_empty());
    }
}

#[test]
fn a_write_costs_one_entry_and_a_small_count() {
    let mut entry = Entry::new(
        LogKind::Modify,
        object(1),
        EVersion::new(Epoch(300), 70_000),
        EVersion::new(Epoch(299), 69_000),
    );
    entry.extents = vec![nacre_wire::op::Extent { offset: 1 << 20, length: 4096 }];
    (entry.whole, entry.omap_changed) = (false, false);
    entry.request = RequestId { client: ClientId(0x1234_5678_9abc_def0), seq: 1_000_000 };
    let mut t = Transaction::new(PG);
    append(&mut t, [&entry]);
    counts(&mut t, 1000, 4 << 30);
    assert_eq!(t.ops().len(), 1, "one operation sets both");
    assert!(t.encode_body().len() < 140, "{}", t.encode_body().len());
}

#[test]
fn damaged_metadata_is_named_not_trusted() {
    let mut store = ModelStore::default();
    let mut t = Transaction::new(PG);
    info(&mut t, &Info::created(PG, Epoch(1)));
    let entry = Entry::new(LogKind::Modify, object(1), EVersion::new(Epoch(1), 1), EVersion::ZERO);
    append(&mut t, [&entry]);
    store.apply(&t);
    for (key, value) in store.meta.clone() {
        for cut in 0..value.len() {
            let mut broken = store.clone();
            let mut bytes = value.to_vec();
            bytes[cut] ^= 0xff;
            broken.meta.insert(key.clone(), bytes.into());
            let _ = load(&broken, PG);
            broken.meta.insert(key.clone(), value.slice(..cut));
            let _ = load(&broken, PG);
        }
    }
    store.meta.insert((PG, b"t".to_vec()), Bytes::from_static(b"short"));
    assert!(matches!(load(&store, PG), Err(LoadError::Damaged { .. })));
}
