//! Decoded onodes and extent map shards, so that an overwrite of a hot object decodes nothing. Always as all submitted
//! transactions leave them; anything may be evicted at any time between two transactions.

use crate::index::onode::Onode;
use crate::index::shard::Shard;
use nacre_types::ObjectId;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// An object in memory, with what a transaction under way has changed in it.
#[derive(Default, Debug)]
pub(crate) struct Object {
    /// `None`: it does not exist.
    pub onode: Option<Onode>,
    pub shards: BTreeMap<u32, Box<Shard>>,
    pub dirty: bool,
    pub dirty_shards: BTreeSet<u32>,
    pub recent: bool,
}

/// Bounded by objects and shards, evicting by second chance.
#[derive(Debug)]
pub(crate) struct Cache {
    /// `None` while a transaction has it.
    objects: HashMap<ObjectId, Option<Box<Object>>>,
    queue: VecDeque<ObjectId>,
    shards: usize,
    objects_max: usize,
    shards_max: usize,
}

impl Cache {
    pub fn new(objects_max: usize, shards_max: usize) -> Cache {
        Cache { objects: HashMap::new(), queue: VecDeque::new(), shards: 0, objects_max, shards_max }
    }

    pub fn peek(&self, id: &ObjectId) -> Option<&Object> {
        self.objects.get(id)?.as_deref()
    }

    /// Takes the object out to work on it; [`Cache::put`] brings it back.
    pub fn take(&mut self, id: &ObjectId) -> Option<Box<Object>> {
        let mut object = self.objects.get_mut(id)?.take()?;
        self.shards -= object.shards.len();
        object.recent = true;
        Some(object)
    }

    pub fn put(&mut self, id: &ObjectId, object: Box<Object>) {
        debug_assert!(!object.dirty && object.dirty_shards.is_empty());
        self.shards += object.shards.len();
        if let Some(slot) = self.objects.get_mut(id) {
            *slot = Some(object);
        } else {
            self.objects.insert(id.clone(), Some(object));
            self.queue.push_back(id.clone());
        }
    }

    pub fn evict(&mut self) {
        while self.objects.len() > self.objects_max || self.shards > self.shards_max {
            let Some(id) = self.queue.pop_front() else { return };
            let Some(Some(object)) = self.objects.get_mut(&id) else { continue };
            if object.recent && self.queue.len() > 1 {
                object.recent = false;
                self.queue.push_back(id);
            } else {
                self.shards -= object.shards.len();
                self.objects.remove(&id);
            }
        }
    }
}
