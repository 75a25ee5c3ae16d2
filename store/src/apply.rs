//! Applying a transaction: to the cache and the gathering layer at once, to the disk and the index when it commits.
//!
//! An object is taken out of the cache at its first operation, changed in memory, and encoded once at the end,
//! whatever the number of operations. A transaction cannot be refused half-way, so what may fail is either foreseen
//! (space) or ends the store (an index that cannot be read).

use crate::index::cache::Object;
use crate::index::keys;
use crate::index::onode::Onode;
use crate::index::references::{CHUNK_BLOCKS, References};
use crate::index::shard::{SHARD_BLOCKS, Shard};
use crate::store::Store;
use crate::{Kv, StoreError};
use bytes::Bytes;
use nacre_types::checksum::BLOCK_U64;
use nacre_types::{ObjectId, mutant};
use nacre_wire::Transaction;
use nacre_wire::transaction::{Op, Pair};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// What a transaction under way has changed apart from its objects.
#[derive(Default)]
pub(crate) struct Change {
    pub references: BTreeMap<u64, References>,
    /// Space is short: data overwrites its own blocks through the journal instead of going to fresh ones.
    pub tight: bool,
    /// Data bytes this transaction has put into the journal.
    pub payload_bytes: usize,
}

impl<K: Kv> Store<K> {
    pub(crate) fn apply(&mut self, transaction: &Transaction) -> Result<(), StoreError> {
        let blocks: u64 = transaction.writes().iter().map(|d| d.bytes.len() as u64 / BLOCK_U64 + 2).sum();
        let mut change = Change { tight: blocks > self.allocator.free_blocks(), ..Change::default() };
        let slots = slots(transaction.objects());
        let mut objects: Vec<Option<Box<Object>>> = Vec::new();
        objects.resize_with(transaction.objects().len(), || None);
        let mut writes = transaction.writes().iter();
        for op in transaction.ops() {
            self.apply_op(&mut change, transaction, op, &slots, &mut objects, &mut writes)?;
        }
        for (at, object) in objects.into_iter().enumerate() {
            if let Some(object) = object {
                self.close(transaction.object(at as u32), object);
            }
        }
        self.finish(change);
        Ok(())
    }

    /// Encodes the reference counts a transaction has changed.
    pub(crate) fn finish(&mut self, change: Change) {
        for (chunk, references) in change.references {
            self.overlay.top().put(keys::references(chunk), references.encode());
            self.references.put(chunk, references);
        }
    }

    fn apply_op<'t>(
        &mut self,
        change: &mut Change,
        transaction: &'t Transaction,
        op: &Op,
        slots: &[usize],
        objects: &mut [Option<Box<Object>>],
        writes: &mut impl Iterator<Item = &'t nacre_wire::Data>,
    ) -> Result<(), StoreError> {
        let pg = transaction.pg();
        let index = match op {
            Op::Create(o) | Op::Remove(o) | Op::OmapClear(o) => o.object,
            Op::Write(o) | Op::Zero(o) => o.object,
            Op::Truncate(o) => o.object,
            Op::SetAttrs(o) | Op::OmapSet(o) => o.object,
            Op::RemoveAttrs(o) | Op::OmapRemove(o) => o.object,
            Op::Clone(o) | Op::Rename(o) => {
                let (from, to) = (slots[o.from as usize], slots[o.to as usize]);
                if from == to {
                    return Ok(());
                }
                let mut source = self.open(transaction, objects, from)?;
                let mut target = self.open(transaction, objects, to)?;
                self.remove(change, &mut target)?;
                match op {
                    Op::Clone(_) => self.clone_into(change, &mut source, &mut target)?,
                    _ => rename_into(&mut source, &mut target),
                }
                (objects[from], objects[to]) = (Some(source), Some(target));
                return Ok(());
            }
            Op::MetaSet(pairs) => {
                let layer = self.overlay.top();
                for pair in &pairs.pairs {
                    // A copy: until a checkpoint it must not keep the frame that brought it.
                    layer.put(keys::meta(pg, &pair.key), Some(Bytes::copy_from_slice(&pair.value)));
                }
                return Ok(());
            }
            Op::MetaRemove(names) => {
                let layer = self.overlay.top();
                names.keys.iter().for_each(|key| layer.put(keys::meta(pg, key), None));
                return Ok(());
            }
            Op::MetaRemoveRange(range) => {
                let (first, end) = (keys::meta(pg, &range.first), keys::meta(pg, &range.end));
                self.overlay.top().remove_range(first, end);
                return Ok(());
            }
        };
        let slot = slots[index as usize];
        let mut object = self.open(transaction, objects, slot)?;
        match op {
            Op::Create(_) => self.ensure(&mut object),
            Op::Write(extent) => {
                let data = writes.next().expect("a transaction has data for each write");
                self.write(change, transaction.object(index), &mut object, extent.offset, data)?;
            }
            Op::Zero(extent) => {
                self.zero(change, transaction.object(index), &mut object, extent.offset, extent.length)?;
            }
            Op::Truncate(to) => self.truncate(change, transaction.object(index), &mut object, to.size)?,
            Op::Remove(_) => self.remove(change, &mut object)?,
            Op::SetAttrs(set) => {
                self.ensure(&mut object);
                for Pair { key, value } in &set.pairs {
                    // Copies: the cache must not keep the frame that brought them.
                    let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                    onode(&mut object).set_attr(Pair { key, value });
                }
            }
            Op::RemoveAttrs(names) if object.onode.is_some() => {
                names.keys.iter().for_each(|key| onode(&mut object).remove_attr(key));
            }
            Op::OmapSet(set) => {
                self.ensure(&mut object);
                if onode(&mut object).omap == 0 {
                    onode(&mut object).omap = self.number();
                }
                let number = onode(&mut object).omap;
                let layer = self.overlay.top();
                for pair in &set.pairs {
                    // A copy, here too.
                    layer.put(keys::omap(number, &pair.key), Some(Bytes::copy_from_slice(&pair.value)));
                }
            }
            Op::OmapRemove(names) => {
                if let Some(number) = object.onode.as_ref().map(|o| o.omap).filter(|&n| n != 0) {
                    let layer = self.overlay.top();
                    names.keys.iter().for_each(|key| layer.put(keys::omap(number, key), None));
                }
            }
            Op::OmapClear(_) if mutant!(OmapClearForgotten) => {}
            Op::OmapClear(_) => self.omap_clear(&mut object)?,
            _ => {}
        }
        objects[slot] = Some(object);
        Ok(())
    }

    /// Takes an object to work on: from this transaction, the cache, or the index.
    fn open(
        &mut self,
        transaction: &Transaction,
        objects: &mut [Option<Box<Object>>],
        slot: usize,
    ) -> Result<Box<Object>, StoreError> {
        match objects[slot].take() {
            Some(object) => Ok(object),
            None => self.load(transaction.object(slot as u32)),
        }
    }

    pub(crate) fn load(&mut self, id: &ObjectId) -> Result<Box<Object>, StoreError> {
        if let Some(object) = self.cache.take(id) {
            return Ok(object);
        }
        Ok(Box::new(Object { onode: self.load_onode(id)?, ..Object::default() }))
    }

    pub(crate) fn load_onode(&self, id: &ObjectId) -> Result<Option<Onode>, StoreError> {
        let Some(value) = self.overlay.get(&self.kv, &keys::onode(id))? else { return Ok(None) };
        match Onode::load(&value) {
            Some(onode) => Ok(Some(onode)),
            None => Err(StoreError::Corrupt(format!("the onode of {id} does not decode"))),
        }
    }

    /// Encodes what has changed into the gathering layer and gives the object back to the cache.
    pub(crate) fn close(&mut self, id: &ObjectId, mut object: Box<Object>) {
        let layer = self.overlay.top();
        if std::mem::take(&mut object.dirty) {
            layer.put(keys::onode(id), object.onode.as_ref().map(Onode::store));
        }
        if let Some(onode) = &object.onode {
            for index in std::mem::take(&mut object.dirty_shards) {
                let shard = &object.shards[&index];
                let value = (!shard.is_empty()).then(|| shard.encode());
                layer.put(keys::shard(onode.number, index), value);
            }
        }
        object.dirty_shards.clear();
        self.cache.put(id, object);
    }

    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }

    /// Makes the object exist.
    pub(crate) fn ensure(&mut self, object: &mut Object) {
        if object.onode.is_none() {
            object.onode = Some(Onode { number: self.number(), ..Onode::default() });
            object.dirty = true;
        }
    }

    /// A shard of an existing object, empty if there is none.
    pub(crate) fn shard<'a>(&self, object: &'a mut Object, index: u32) -> Result<&'a mut Shard, StoreError> {
        let number = object.onode.as_ref().map_or(0, |o| o.number);
        match object.shards.entry(index) {
            Entry::Occupied(shard) => Ok(shard.into_mut()),
            Entry::Vacant(vacant) => {
                let shard = match self.overlay.get(&self.kv, &keys::shard(number, index))? {
                    None => Shard::new(),
                    Some(value) => Shard::decode(value).ok_or_else(|| {
                        StoreError::Corrupt(format!("shard {index} of object {number} does not decode"))
                    })?,
                };
                Ok(vacant.insert(shard))
            }
        }
    }

    fn remove(&mut self, change: &mut Change, object: &mut Object) -> Result<(), StoreError> {
        let Some(Onode { number, size, .. }) = object.onode else { return Ok(()) };
        for index in 0..shard_count(size) {
            let shard = self.shard(object, index)?.clone();
            for at in 0..SHARD_BLOCKS {
                if shard.blocks[at] != 0 {
                    self.release(change, shard.blocks[at], shard.is_shared(at))?;
                }
            }
            if !shard.is_empty() {
                self.overlay.top().put(keys::shard(number, index), None);
            }
        }
        // Shards that this transaction emptied before are still in the index.
        for &index in &object.dirty_shards {
            self.overlay.top().put(keys::shard(number, index), None);
        }
        self.omap_clear(object)?;
        *object = Object { dirty: true, ..Object::default() };
        Ok(())
    }

    fn omap_clear(&mut self, object: &mut Object) -> Result<(), StoreError> {
        let Some(number) = object.onode.as_ref().map(|o| o.omap).filter(|&n| n != 0) else { return Ok(()) };
        onode(object).omap = 0;
        let (first, end) = keys::omap_range(number);
        self.overlay.top().remove_range(first, end);
        Ok(())
    }

    fn clone_into(
        &mut self,
        change: &mut Change,
        source: &mut Object,
        target: &mut Object,
    ) -> Result<(), StoreError> {
        let Some(from) = source.onode.clone() else { return Ok(()) };
        let omap = if from.omap == 0 { 0 } else { self.number() };
        target.onode = Some(Onode { number: self.number(), omap, ..from.clone() });
        target.dirty = true;
        for index in 0..shard_count(from.size) {
            let shard = self.shard(source, index)?;
            if shard.is_empty() {
                continue;
            }
            let mapped = (0..SHARD_BLOCKS).filter(|&at| shard.blocks[at] != 0);
            let shared = mapped.clone().fold(0_u64, |bits, at| bits | 1 << at);
            let blocks: Vec<u64> = mapped.map(|at| shard.blocks[at]).collect();
            if shard.shared != shared {
                shard.shared = shared;
                source.dirty_shards.insert(index);
            }
            target.shards.insert(index, source.shards[&index].clone());
            target.dirty_shards.insert(index);
            for block in blocks.into_iter().filter(|_| !mutant!(CloneUncounted)) {
                let extra = self.extra(change, block)?;
                let more = extra.checked_add(1);
                *extra =
                    more.ok_or_else(|| StoreError::Corrupt(format!("block {block} has 2^32 references")))?;
            }
        }
        if from.omap != 0 {
            let (first, end) = keys::omap_range(from.omap);
            let mut pairs = Vec::new();
            self.overlay.scan(&self.kv, &first, &end, &mut |key, value| {
                let key = keys::omap(omap, &key[keys::HEAD_BYTES..]);
                pairs.push((key, Bytes::copy_from_slice(value)));
                true
            })?;
            let layer = self.overlay.top();
            pairs.into_iter().for_each(|(key, value)| layer.put(key, Some(value)));
        }
        Ok(())
    }

    /// The count of a block's extra references, to be changed.
    fn extra<'c>(&self, change: &'c mut Change, block: u64) -> Result<&'c mut u32, StoreError> {
        let chunk = block / CHUNK_BLOCKS;
        let references = match change.references.entry(chunk) {
            Entry::Occupied(references) => references.into_mut(),
            Entry::Vacant(vacant) => {
                let known = self.references.get(chunk).cloned();
                vacant.insert(known.map_or_else(|| self.load_references(chunk), Ok)?)
            }
        };
        Ok(&mut references.extra[(block % CHUNK_BLOCKS) as usize])
    }

    fn load_references(&self, chunk: u64) -> Result<References, StoreError> {
        match self.overlay.get(&self.kv, &keys::references(chunk))? {
            None => Ok(References::new()),
            Some(value) => References::decode(value).ok_or_else(|| {
                StoreError::Corrupt(format!("the reference counts of chunk {chunk} do not decode"))
            }),
        }
    }

    /// Whether others refer to the block too.
    pub(crate) fn is_shared(&self, change: &mut Change, block: u64, flag: bool) -> Result<bool, StoreError> {
        Ok(flag && *self.extra(change, block)? > 0)
    }

    /// Gives up one reference to a block; frees it if that was the last.
    pub(crate) fn release(&mut self, change: &mut Change, block: u64, flag: bool) -> Result<(), StoreError> {
        if flag {
            let extra = self.extra(change, block)?;
            if *extra > 0 {
                *extra -= 1;
                return Ok(());
            }
        }
        let freed = &mut self.overlay.top().freed;
        match freed.last_mut() {
            Some((first, count)) if *first + *count == block => *count += 1,
            _ => freed.push((block, 1)),
        }
        Ok(())
    }
}

/// The onode of an object that exists, to be changed.
pub(crate) fn onode(object: &mut Object) -> &mut Onode {
    object.dirty = true;
    object.onode.as_mut().expect("the object was made to exist")
}

fn rename_into(source: &mut Object, target: &mut Object) {
    if source.onode.is_none() {
        return;
    }
    *target = std::mem::take(source);
    (source.dirty, target.dirty) = (true, true);
}

pub(crate) fn shard_count(size: u64) -> u32 {
    size.div_ceil(BLOCK_U64 * SHARD_BLOCKS as u64) as u32
}

/// For each index of the object table the first that names the same object.
fn slots(objects: &[ObjectId]) -> Vec<usize> {
    if objects.len() <= 4 {
        let first = |at: usize| objects[..at].iter().position(|o| *o == objects[at]).unwrap_or(at);
        return (0..objects.len()).map(first).collect();
    }
    let mut seen = BTreeMap::new();
    objects.iter().enumerate().map(|(at, object)| *seen.entry(object).or_insert(at)).collect()
}
