//! Random requests of several operations, some of which fail, against an object as plain vectors and maps.

use super::*;
use nacre_types::Rng;
use nacre_wire::op::*;
use nacre_wire::transaction::Pair;
use prost::Message as _;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Debug, Default)]
struct Model {
    exists: bool,
    data: Vec<u8>,
    xattrs: BTreeMap<Bytes, Bytes>,
    omap: BTreeMap<Bytes, Bytes>,
}

/// What an operation should answer: data, an encoded message, or nothing.
type Expected = Result<(Vec<u8>, Option<Bytes>), ErrorCode>;

impl Model {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.exists = true;
        let end = offset as usize + bytes.len();
        if !bytes.is_empty() {
            self.data.resize(self.data.len().max(end), 0);
            self.data[offset as usize..end].copy_from_slice(bytes);
        }
    }

    fn op(&mut self, op: &ObjectOpKind, payload: &[u8]) -> Expected {
        use ObjectOpKind::*;
        let nothing = Ok((Vec::new(), None));
        let gone = matches!(
            op,
            Read(_)
                | Remove(_)
                | GetXattr(_)
                | GetXattrs(_)
                | RemoveXattr(_)
                | OmapGet(_)
                | OmapList(_)
                | OmapRemove(_)
                | OmapClear(_)
        );
        if gone && !self.exists {
            return Err(ErrorCode::NotFound);
        }
        let pairs = |map: &BTreeMap<Bytes, Bytes>, keep: &dyn Fn(&Bytes) -> bool| {
            let pairs = map.iter().filter(|(k, _)| keep(k));
            let pairs = pairs.map(|(k, v)| Pair { key: k.clone(), value: v.clone() }).collect();
            Ok((Vec::new(), Some(Bytes::from(PairList { pairs, more: false }.encode_to_vec()))))
        };
        match op {
            Read(e) => {
                let end = (e.offset + e.length).min(self.data.len() as u64).max(e.offset);
                let range = e.offset as usize..end as usize;
                return Ok((self.data.get(range).unwrap_or_default().to_vec(), None));
            }
            Write(e) => self.write(e.offset, payload),
            WriteFull(_) => {
                self.data.clear();
                self.write(0, payload);
            }
            Append(_) => self.write(self.data.len() as u64, payload),
            Truncate(s) if self.exists => self.data.resize(s.size as usize, 0),
            Zero(e) => {
                let end = ((e.offset + e.length) as usize).min(self.data.len());
                if (e.offset as usize) < end {
                    self.data[e.offset as usize..end].fill(0);
                }
            }
            Remove(_) => *self = Model::default(),
            Compare(e) => {
                let at = |i: usize| self.data.get(e.offset as usize + i).copied().unwrap_or(0);
                if payload.iter().enumerate().any(|(i, &b)| at(i) != b) {
                    return Err(ErrorCode::Canceled);
                }
            }
            Create(c) if self.exists && c.exclusive => return Err(ErrorCode::AlreadyExists),
            Create(_) => self.exists = true,
            SetXattr(p) => {
                self.exists = true;
                self.xattrs.insert(p.key.clone(), p.value.clone());
            }
            RemoveXattr(k) => drop(self.xattrs.remove(&k.key)),
            GetXattr(k) => {
                return self.xattrs.get(&k.key).map(|v| (v.to_vec(), None)).ok_or(ErrorCode::NotFound);
            }
            GetXattrs(_) => return pairs(&self.xattrs, &|_| true),
            OmapSet(p) => {
                self.exists = true;
                self.omap.extend(p.pairs.iter().map(|p| (p.key.clone(), p.value.clone())));
            }
            OmapRemove(k) => self.omap.retain(|key, _| !k.keys.contains(key)),
            OmapClear(_) => self.omap.clear(),
            OmapGet(k) => return pairs(&self.omap, &|key| k.keys.contains(key)),
            OmapList(l) => {
                return pairs(&self.omap, &|key| key.starts_with(&l.prefix) && *key > l.after);
            }
            _ => {}
        }
        nothing
    }
}

fn random_op(rng: &mut Rng) -> (ObjectOpKind, Vec<u8>) {
    use ObjectOpKind::*;
    // Around block edges, where mistakes are.
    let position = |rng: &mut Rng| match rng.below(3) {
        0 => rng.below(4) * 4096,
        1 => rng.below(3) * 4096 + rng.below(3),
        _ => rng.below(12_000),
    };
    let (offset, length) = (position(rng), position(rng));
    let extent = Extent { offset, length };
    let key = |rng: &mut Rng| Bytes::from(format!("k{}", rng.below(6)));
    let value = |rng: &mut Rng| Bytes::from(format!("v{}", rng.below(1000)));
    let payload = |rng: &mut Rng, length: u64| {
        let fill = if rng.chance(1, 4) { 0 } else { rng.below(255) as u8 };
        vec![fill; length as usize]
    };
    match rng.below(22) {
        0..=3 => (Write(extent), payload(rng, length)),
        4 => (WriteFull(Extent { offset: 0, length }), payload(rng, length)),
        5 => (Append(extent), payload(rng, length)),
        6 => (Truncate(Size { size: offset }), Vec::new()),
        7 => (Zero(extent), Vec::new()),
        8 => (Remove(Empty {}), Vec::new()),
        9 => {
            let length = length % 5;
            (Compare(Extent { offset, length }), payload(rng, length))
        }
        10 => (Create(nacre_wire::op::Create { exclusive: rng.chance(1, 3) }), Vec::new()),
        11 => (SetXattr(Pair { key: key(rng), value: value(rng) }), Vec::new()),
        12 => (RemoveXattr(Key { key: key(rng) }), Vec::new()),
        13 => (GetXattr(Key { key: key(rng) }), Vec::new()),
        14 => (GetXattrs(Empty {}), Vec::new()),
        15 => {
            let pairs = (0..rng.below(4)).map(|_| Pair { key: key(rng), value: value(rng) }).collect();
            (OmapSet(PairList { pairs, more: false }), Vec::new())
        }
        16 => (OmapRemove(KeyList { keys: vec![key(rng), key(rng)] }), Vec::new()),
        17 if rng.chance(1, 3) => (OmapClear(Empty {}), Vec::new()),
        18 => (OmapGet(KeyList { keys: vec![key(rng), key(rng)] }), Vec::new()),
        19 => {
            let after = if rng.chance(1, 2) { Bytes::new() } else { key(rng) };
            let prefix = if rng.chance(1, 2) { Bytes::from_static(b"k") } else { key(rng) };
            (OmapList(nacre_wire::op::OmapList { after, prefix, entries_max: 0 }), Vec::new())
        }
        _ => (Read(extent), Vec::new()),
    }
}

fn run(seed: u64, requests: usize) {
    let mut rng = Rng::new(seed);
    let mut bench = Bench::new();
    let mut models: BTreeMap<String, Model> = BTreeMap::new();
    for _ in 0..requests {
        let name = format!("o{}", rng.below(3));
        let model = models.entry(name.clone()).or_default();
        let mut after = model.clone();
        let (mut ops, mut pieces, mut expected) = (Vec::new(), Vec::new(), Vec::new());
        let mut failed = false;
        for _ in 0..rng.range(1, 6) {
            let (op, payload) = random_op(&mut rng);
            if !failed {
                let answer = after.op(&op, &payload);
                failed = answer.is_err();
                expected.push(answer);
            }
            let (offset, _) = op.payload().unwrap_or_default();
            pieces.push(Data::checksummed(offset, payload.into()));
            ops.push(op);
        }
        let executed = bench.run(&object(&name), (0, &[]), &ops, &Data::concat(&pieces));
        let text = format!("seed {seed}: {ops:?}: {}", executed.message);
        assert_eq!(executed.results.len(), expected.len(), "{text}");
        let mut data = executed.data.cutter();
        for (result, expected) in executed.results.iter().zip(&expected) {
            let found = data.next(result.offset, result.length as usize).unwrap();
            match expected {
                Err(code) => assert_eq!(result.code, *code as i32, "{text}"),
                Ok((bytes, answer)) => {
                    assert_eq!(found.bytes, bytes, "{text}");
                    if let Some(answer) = answer {
                        assert_eq!(result.answer, answer, "{text}");
                    }
                }
            }
        }
        if !failed {
            *model = after;
        }
        let stored = bench.store.objects.get(&object(&name));
        assert_eq!(stored.is_some(), model.exists, "{text}");
        if let Some(stored) = stored {
            assert!(stored.data == model.data, "{text}");
            assert_eq!(stored.omap, model.omap, "{text}");
            let info = ObjectInfo::from_attr(&stored.attrs[INFO_ATTR.as_bytes()]).unwrap();
            assert_eq!(stored.attrs.len(), model.xattrs.len() + 1, "{text}");
            if executed.mutation.is_some() {
                assert_eq!(info.version(), executed.version);
            }
        }
    }
}

#[test]
fn requests_agree_with_a_model() {
    for seed in 0..40 {
        run(seed, 150);
    }
}
