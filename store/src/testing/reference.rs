//! What a store must hold, as simply as it can be said: applies transactions to plain maps and byte vectors.

use bytes::Bytes;
use nacre_types::{ObjectId, PgId};
use nacre_wire::Transaction;
use nacre_wire::transaction::Op;
use std::collections::BTreeMap;

/// One object.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReferenceObject {
    pub data: Vec<u8>,
    pub attrs: BTreeMap<Bytes, Bytes>,
    pub omap: BTreeMap<Bytes, Bytes>,
}

/// A whole store's contents.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reference {
    pub objects: BTreeMap<ObjectId, ReferenceObject>,
    pub meta: BTreeMap<(PgId, Bytes), Bytes>,
}

impl Reference {
    pub fn apply(&mut self, transaction: &Transaction) {
        let mut writes = transaction.writes().iter();
        for op in transaction.ops() {
            match op {
                Op::Create(o) => drop(self.at(transaction, o.object)),
                Op::Write(o) => {
                    let data = writes.next().expect("data for each write");
                    let object = self.at(transaction, o.object);
                    object.reach(o.offset, o.length);
                    let at = o.offset as usize;
                    if !data.bytes.is_empty() {
                        object.data[at..at + data.bytes.len()].copy_from_slice(&data.bytes);
                    }
                }
                Op::Zero(o) => {
                    let object = self.at(transaction, o.object);
                    object.reach(o.offset, o.length);
                    if o.length > 0 {
                        object.data[o.offset as usize..(o.offset + o.length) as usize].fill(0);
                    }
                }
                Op::Truncate(o) => self.at(transaction, o.object).data.resize(o.size as usize, 0),
                Op::Remove(o) => drop(self.objects.remove(transaction.object(o.object))),
                Op::SetAttrs(o) => {
                    let pairs = o.pairs.iter().map(|p| (p.key.clone(), p.value.clone()));
                    self.at(transaction, o.object).attrs.extend(pairs);
                }
                Op::OmapSet(o) => {
                    let pairs = o.pairs.iter().map(|p| (p.key.clone(), p.value.clone()));
                    self.at(transaction, o.object).omap.extend(pairs);
                }
                Op::RemoveAttrs(o) => {
                    if let Some(object) = self.objects.get_mut(transaction.object(o.object)) {
                        object.attrs.retain(|key, _| !o.keys.contains(key));
                    }
                }
                Op::OmapRemove(o) => {
                    if let Some(object) = self.objects.get_mut(transaction.object(o.object)) {
                        object.omap.retain(|key, _| !o.keys.contains(key));
                    }
                }
                Op::OmapClear(o) => {
                    if let Some(object) = self.objects.get_mut(transaction.object(o.object)) {
                        object.omap.clear();
                    }
                }
                Op::Clone(o) | Op::Rename(o) => {
                    let (from, to) = (transaction.object(o.from), transaction.object(o.to));
                    if from == to {
                        continue;
                    }
                    let source = match op {
                        Op::Clone(_) => self.objects.get(from).cloned(),
                        _ => self.objects.remove(from),
                    };
                    self.objects.remove(to);
                    if let Some(source) = source {
                        self.objects.insert(to.clone(), source);
                    }
                }
                Op::MetaSet(set) => {
                    let pairs =
                        set.pairs.iter().map(|p| ((transaction.pg(), p.key.clone()), p.value.clone()));
                    self.meta.extend(pairs);
                }
                Op::MetaRemove(keys) => {
                    for key in &keys.keys {
                        self.meta.remove(&(transaction.pg(), key.clone()));
                    }
                }
                Op::MetaRemoveRange(range) => {
                    let pg = transaction.pg();
                    self.meta.retain(|(p, key), _| *p != pg || *key < range.first || *key >= range.end);
                }
            }
        }
    }

    fn at(&mut self, transaction: &Transaction, object: u32) -> &mut ReferenceObject {
        self.objects.entry(transaction.object(object).clone()).or_default()
    }
}

impl ReferenceObject {
    fn reach(&mut self, offset: u64, length: u64) {
        let end = (offset + length) as usize;
        if length > 0 && self.data.len() < end {
            self.data.resize(end, 0);
        }
    }
}
