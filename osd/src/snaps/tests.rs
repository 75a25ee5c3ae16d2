//! Snapshots against a model that keeps every version of every object.

use super::*;
use crate::ops::tests::{Bench, object};
use nacre_types::{BLOCK_U64, EVersion, Epoch, Rng, SnapId};
use nacre_wire::op::*;
use nacre_wire::{Data, ErrorCode};
use prost::Message as _;
use std::collections::BTreeMap;

/// The state of one object; `None` is "does not exist".
type State = Option<Vec<u8>>;

struct World {
    bench: Bench,
    heads: BTreeMap<String, State>,
    /// What every object was at each snapshot that is not removed.
    snaps: BTreeMap<u64, BTreeMap<String, State>>,
    seq: u64,
}

impl World {
    fn context(&self) -> (u64, Vec<u64>) {
        (self.seq, self.snaps.keys().rev().copied().collect())
    }

    fn write(&mut self, name: &str, op: ObjectOpKind, payload: Vec<u8>) -> ErrorCode {
        let (seq, snaps) = self.context();
        let offset = op.payload().unwrap_or_default().0;
        let data = Data::checksummed(offset, payload.into());
        self.bench.run(&object(name), (seq, &snaps), &[op], &data).code
    }

    fn read(&mut self, name: &str, snap: SnapId) -> State {
        let whole = ObjectOpKind::Read(Extent { offset: 0, length: 1 << 20 });
        let executed = self.bench.run(&object(name).at(snap), (0, &[]), &[whole], &Data::default());
        match executed.code {
            ErrorCode::Ok => Some(executed.data.bytes.to_vec()),
            code => {
                assert_eq!(code, ErrorCode::NotFound, "{}", executed.message);
                None
            }
        }
    }

    fn trim(&mut self, snap: u64) {
        let pg = self.bench.pg;
        let mut after = None;
        loop {
            let found = clones_with_snap(&self.bench.store, pg, SnapId(snap), after.as_ref(), 2).unwrap();
            let Some(last) = found.last().cloned() else { break };
            for clone in found {
                let version = EVersion::new(Epoch(7), self.bench.seq + 1);
                let mutation =
                    trim(&self.bench.store, pg, &clone, &self.bench.pool, SnapId(snap), version, 5).unwrap();
                self.bench.commit(Some(&mutation.expect("the clone serves the snapshot")));
            }
            after = Some(last);
        }
        let left = clones_with_snap(&self.bench.store, pg, SnapId(snap), None, 1).unwrap();
        assert!(left.is_empty());
    }

    fn check(&mut self, names: &[&str], text: &str) {
        for name in names {
            let head = self.heads.get(*name).cloned().flatten();
            assert!(self.read(name, SnapId::HEAD) == head, "{text}: head of {name}");
            let snaps: Vec<u64> = self.snaps.keys().copied().collect();
            for snap in snaps {
                let expected = self.snaps[&snap].get(*name).cloned().flatten();
                assert!(self.read(name, SnapId(snap)) == expected, "{text}: {name} at {snap}");
            }
        }
        self.check_overlap(names, text);
    }

    /// What a clone is said to share with the next newer state really is the same there.
    fn check_overlap(&mut self, names: &[&str], text: &str) {
        for name in names {
            let list = ObjectOpKind::ListSnaps(Empty {});
            let executed = self.bench.run(&object(name), (0, &[]), &[list], &Data::default());
            if executed.code != ErrorCode::Ok {
                continue;
            }
            let list = SnapList::decode(executed.results[0].answer.clone()).unwrap();
            for (at, clone) in list.clones.iter().enumerate() {
                let data = |id: u64| self.bench.store.objects[&object(name).at(SnapId(id))].data.clone();
                let next = match list.clones.get(at + 1) {
                    Some(next) => data(next.id),
                    None => self.bench.store.objects[&object(name)].data.clone(),
                };
                let own = data(clone.id);
                assert_eq!(own.len() as u64, clone.size);
                for e in &clone.overlap {
                    let range = e.offset as usize..(e.offset + e.length) as usize;
                    assert!(own.get(range.clone()) == next.get(range), "{text}: {name}@{} {e:?}", clone.id);
                }
            }
        }
    }
}

/// What the clones of an object are said to share with the next newer state: first blocks and counts.
fn shared(world: &mut World, name: &str) -> Vec<(u64, Vec<(u64, u64)>)> {
    let list = ObjectOpKind::ListSnaps(Empty {});
    let executed = world.bench.run(&object(name), (0, &[]), &[list], &Data::default());
    let list = SnapList::decode(executed.results[0].answer.clone()).unwrap();
    let blocks = |e: &Extent| (e.offset / BLOCK_U64, e.length / BLOCK_U64);
    let extents = |clone: &CloneInfo| clone.overlap.iter().map(blocks).collect();
    list.clones.iter().map(|clone| (clone.id, extents(clone))).collect()
}

/// Recovery sends a clone as what differs from the one before: forgotten sharing would be right, and fill disks.
#[test]
fn what_is_shared_survives_the_trimming_of_a_clone_between() {
    let mut world = World { bench: Bench::new(), heads: BTreeMap::new(), snaps: BTreeMap::new(), seq: 0 };
    // In blocks: parts of one count as the whole.
    let write = |world: &mut World, first: u64, count: u64| {
        let (offset, length) = (first * BLOCK_U64, count * BLOCK_U64);
        let op = ObjectOpKind::Write(Extent { offset, length });
        assert_eq!(world.write("a", op, vec![7; length as usize]), ErrorCode::Ok);
    };
    write(&mut world, 0, 100);
    for (snap, offset) in [(1, 10), (2, 30), (3, 60), (4, 90)] {
        world.seq = snap;
        world.snaps.insert(snap, BTreeMap::new());
        write(&mut world, offset, 10);
    }
    let removed = |world: &mut World, snap: u64| {
        world.snaps.remove(&snap);
        assert!(world.bench.pool.remove_snap(SnapId(snap)));
        world.trim(snap);
    };
    removed(&mut world, 2);
    let want = [(1, vec![(0, 10), (20, 10), (40, 60)]), (3, vec![(0, 60), (70, 30)]), (4, vec![(0, 90)])];
    assert_eq!(shared(&mut world, "a"), want);
    // The newest, then the oldest.
    removed(&mut world, 4);
    assert_eq!(shared(&mut world, "a")[1], (3, vec![(0, 60), (70, 20)]));
    removed(&mut world, 1);
    assert_eq!(shared(&mut world, "a"), [(3, vec![(0, 60), (70, 20)])]);
}

fn run(seed: u64, steps: usize) {
    let names = ["a", "b"];
    let mut rng = Rng::new(seed);
    let (heads, snaps) = (BTreeMap::new(), BTreeMap::new());
    let mut world = World { bench: Bench::new(), heads, snaps, seq: 0 };
    for step in 0..steps {
        let name = names[rng.below(2) as usize];
        let text = format!("seed {seed} step {step}");
        let (offset, length) = (rng.below(4) * BLOCK_U64 / 2, rng.range(1, 5000));
        let head = world.heads.entry(name.into()).or_default();
        match rng.below(10) {
            0..=3 => {
                let payload = vec![rng.below(256) as u8; length as usize];
                let data = head.get_or_insert_default();
                let end = (offset + length) as usize;
                data.resize(data.len().max(end), 0);
                data[offset as usize..end].copy_from_slice(&payload);
                world.write(name, ObjectOpKind::Write(Extent { offset, length }), payload);
            }
            4 => {
                if let Some(data) = head {
                    data.resize(offset as usize, 0);
                }
                world.write(name, ObjectOpKind::Truncate(Size { size: offset }), Vec::new());
            }
            5 => {
                if let Some(data) = head {
                    let end = data.len().min((offset + length) as usize);
                    data[(offset as usize).min(end)..end].fill(0);
                }
                world.write(name, ObjectOpKind::Zero(Extent { offset, length }), Vec::new());
            }
            6 => {
                let existed = head.take().is_some();
                let code = world.write(name, ObjectOpKind::Remove(Empty {}), Vec::new());
                assert_eq!(code == ErrorCode::Ok, existed, "{text}");
            }
            7 | 8 => {
                world.seq += 1;
                let state = world.heads.clone();
                world.snaps.insert(world.seq, state);
            }
            _ => {
                let all: Vec<u64> = world.snaps.keys().copied().collect();
                if let Some(&snap) = rng.pick(&all) {
                    world.snaps.remove(&snap);
                    assert!(world.bench.pool.remove_snap(SnapId(snap)));
                    world.trim(snap);
                }
            }
        }
        world.check(&names, &text);
    }
    for snap in world.snaps.keys().copied().collect::<Vec<_>>() {
        world.bench.pool.remove_snap(SnapId(snap));
        world.trim(snap);
        world.snaps.remove(&snap);
        world.check(&names, "at the end");
    }
    assert!(world.bench.store.meta.is_empty(), "the index is empty");
    let left = world.bench.store.objects.len();
    let alive = world.heads.values().filter(|state| state.is_some()).count();
    assert_eq!(left, alive, "no clones, no whiteouts are left");
}

#[test]
fn snapshots_agree_with_a_model() {
    for seed in 0..60 {
        run(seed, 120);
    }
}

#[test]
fn a_snapshot_is_read_only() {
    let mut bench = Bench::new();
    let write = ObjectOpKind::Write(Extent { offset: 0, length: 1 });
    let data = Data::plain(bytes::Bytes::from_static(b"x"));
    bench.run(&object("a"), (0, &[]), std::slice::from_ref(&write), &data);
    let executed = bench.run(&object("a").at(SnapId(3)), (0, &[]), std::slice::from_ref(&write), &data);
    assert_eq!(executed.code, ErrorCode::ReadOnly);
    let executed = bench.run(&object("a"), (1, &[2]), &[write], &data);
    assert_eq!(executed.code, ErrorCode::InvalidArgument, "a snapshot above the context's own number");
}
