//! One object as a request sees it: the store's state with the request's own changes over it.

use super::info::{INFO_ATTR, ObjectInfo, USER_PREFIX, prefixed};
use super::limits::ANSWER_BYTES_MAX;
use super::overlay::Overlay;
use bytes::Bytes;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::ObjectId;
use nacre_types::buggify;
use nacre_wire::transaction::Pair;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// Pairs asked of the store at once while listing: large values must not pile up beyond the answer's bound.
const LIST_PAGE_ENTRIES: usize = 128;

type Changes = BTreeMap<Bytes, Option<Bytes>>;

pub(crate) struct View<'a> {
    store: &'a dyn ObjectStore,
    /// Where the stored state lies: the head or a clone.
    pub(crate) object: ObjectId,
    /// The stored info, whiteouts included.
    pub(crate) stored: Option<ObjectInfo>,
    pub(crate) exists: bool,
    pub(crate) size: u64,
    /// Bytes of the stored data that still show through.
    base_size: u64,
    pub(crate) overlay: Overlay,
    /// Whether stored xattrs and stored omap still show through.
    base_attrs: bool,
    base_omap: bool,
    attrs: Changes,
    omap: Changes,
}

/// The info of an object the store has; an object without one (which nothing here writes) has a default one.
pub(crate) fn load_info(
    store: &dyn ObjectStore,
    object: &ObjectId,
) -> Result<Option<ObjectInfo>, StoreError> {
    match store.attr(object, INFO_ATTR.as_bytes())? {
        Some(value) => match ObjectInfo::from_attr(&value) {
            Some(info) => Ok(Some(info)),
            None => Err(StoreError::Corrupt(format!("the object info of {object} does not decode"))),
        },
        None => Ok(store.stat(object)?.map(|_| ObjectInfo::default())),
    }
}

impl<'a> View<'a> {
    pub(crate) fn load(store: &'a dyn ObjectStore, object: ObjectId) -> Result<View<'a>, StoreError> {
        let stored = load_info(store, &object)?;
        let exists = stored.as_ref().is_some_and(|info| !info.whiteout);
        let size = if exists { store.stat(&object)?.map_or(0, |stat| stat.size) } else { 0 };
        Ok(View {
            store,
            object,
            stored,
            exists,
            size,
            base_size: size,
            overlay: Overlay::default(),
            base_attrs: exists,
            base_omap: exists,
            attrs: Changes::new(),
            omap: Changes::new(),
        })
    }

    /// An object that does not exist.
    pub(crate) fn nothing(store: &'a dyn ObjectStore, object: ObjectId) -> View<'a> {
        View {
            store,
            object,
            stored: None,
            exists: false,
            size: 0,
            base_size: 0,
            overlay: Overlay::default(),
            base_attrs: false,
            base_omap: false,
            attrs: Changes::new(),
            omap: Changes::new(),
        }
    }

    /// The part of a range that has to come from the store.
    pub(crate) fn base_range(&self, offset: u64, length: u64) -> Option<(u64, u64)> {
        let end = (offset + length).min(self.base_size);
        (offset < end).then(|| (offset, end - offset))
    }

    /// Whether stored data shows unchanged, so that what the store reads is the answer.
    pub(crate) fn is_plain(&self, offset: u64, length: u64) -> bool {
        self.overlay.is_empty() && offset + length <= self.base_size
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: Bytes) {
        self.exists = true;
        self.size = self.size.max(offset + bytes.len() as u64);
        self.overlay.write(offset, bytes);
    }

    pub(crate) fn truncate(&mut self, size: u64) {
        self.exists = true;
        self.overlay.cut(size);
        self.base_size = self.base_size.min(size);
        self.size = size;
    }

    /// The object is removed: nothing of what was shows through.
    pub(crate) fn remove(&mut self) {
        (self.exists, self.size, self.base_size) = (false, 0, 0);
        (self.base_attrs, self.base_omap) = (false, false);
        self.overlay.clear();
        self.attrs.clear();
        self.omap.clear();
    }

    pub(crate) fn set_attr(&mut self, key: Bytes, value: Option<Bytes>) {
        self.attrs.insert(key, value);
    }

    pub(crate) fn attr(&self, key: &Bytes) -> Result<Option<Bytes>, StoreError> {
        match self.attrs.get(key) {
            Some(pending) => Ok(pending.clone()),
            None if self.base_attrs => self.store.attr(&self.object, key),
            None => Ok(None),
        }
    }

    pub(crate) fn user_attr(&self, name: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.attr(&prefixed(USER_PREFIX, name))
    }

    /// Users' xattrs by their own names.
    pub(crate) fn user_attrs(&self) -> Result<Vec<Pair>, StoreError> {
        let mut all: BTreeMap<Bytes, Bytes> = BTreeMap::new();
        if self.base_attrs {
            all.extend(self.store.attrs(&self.object)?);
        }
        for (key, value) in &self.attrs {
            match value {
                Some(value) => all.insert(key.clone(), value.clone()),
                None => all.remove(key),
            };
        }
        let user = |(key, value): (Bytes, Bytes)| {
            let name = key.strip_prefix(USER_PREFIX).map(|name| key.slice_ref(name))?;
            Some(Pair { key: name, value })
        };
        Ok(all.into_iter().filter_map(user).collect())
    }

    pub(crate) fn omap_set(&mut self, key: Bytes, value: Option<Bytes>) {
        self.omap.insert(key, value);
    }

    pub(crate) fn omap_clear(&mut self) {
        self.base_omap = false;
        self.omap.clear();
    }

    pub(crate) fn omap_get(&self, keys: &[Bytes]) -> Result<Vec<Pair>, StoreError> {
        let mut pairs = Vec::new();
        let stored: Vec<Bytes> = keys.iter().filter(|key| !self.omap.contains_key(*key)).cloned().collect();
        if self.base_omap && !stored.is_empty() {
            pairs.extend(self.store.omap_get(&self.object, &stored)?);
        }
        let pending = keys.iter().filter_map(|key| self.omap.get_key_value(key));
        pairs.extend(pending.filter_map(|(key, value)| Some((key.clone(), value.clone()?))));
        pairs.sort();
        pairs.dedup();
        Ok(pairs.into_iter().map(|(key, value)| Pair { key, value }).collect())
    }

    /// Pairs after `after` with `prefix`, and whether more follow: at most `entries_max`, and no more than fit an
    /// answer.
    pub(crate) fn omap_list(
        &self,
        after: &[u8],
        prefix: &[u8],
        entries_max: usize,
    ) -> Result<(Vec<Pair>, bool), StoreError> {
        let start: Bound<&[u8]> = match () {
            () if after < prefix || after.is_empty() => Bound::Included(prefix),
            () => Bound::Excluded(after),
        };
        let pending = self.omap.range::<[u8], _>((start, Bound::Unbounded));
        let mut pending = pending.take_while(|(key, _)| key.starts_with(prefix)).peekable();
        let mut page: VecDeque<(Bytes, Bytes)> = VecDeque::new();
        let mut cursor = self.base_omap.then(|| Bytes::copy_from_slice(after));
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        loop {
            if page.is_empty()
                && let Some(after) = cursor.take()
            {
                let from = (!after.is_empty()).then_some(&after[..]);
                let most = if buggify("osd: omap read in small pages") { 1 } else { LIST_PAGE_ENTRIES };
                let entries = most.min(entries_max + 1);
                let (found, more) = self.store.omap_list(&self.object, from, prefix, entries)?;
                cursor = found.last().filter(|_| more).map(|(key, _)| key.clone());
                page.extend(found);
            }
            let order = match (page.front(), pending.peek()) {
                (None, None) => return Ok((pairs, false)),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((stored, _)), Some((changed, _))) => stored.cmp(changed),
            };
            let stored = if order.is_le() { page.pop_front() } else { None };
            let changed = if order.is_ge() { pending.next() } else { None };
            let (key, value) = match changed {
                Some((key, Some(value))) => (key.clone(), value.clone()),
                Some((_, None)) => continue,
                None => stored.expect("one of the two was there"),
            };
            bytes += key.len() + value.len();
            if pairs.len() == entries_max || (bytes > ANSWER_BYTES_MAX && !pairs.is_empty()) {
                return Ok((pairs, true));
            }
            pairs.push(Pair { key, value });
        }
    }

    /// Allocated parts of a range, ascending.
    pub(crate) fn extents(&self, offset: u64, length: u64) -> Result<Vec<(u64, u64)>, StoreError> {
        let end = (offset.saturating_add(length)).min(self.size);
        if offset >= end {
            return Ok(Vec::new());
        }
        let mut ranges = nacre_types::RangeSet::new();
        if let Some((start, length)) = self.base_range(offset, end - offset) {
            for (start, length) in self.store.extents(&self.object, start, length)? {
                ranges.insert(start, start + length);
            }
        }
        self.overlay.allocate(&mut ranges);
        let cut = ranges.iter().map(|(s, e)| (s.max(offset), e.min(end)));
        Ok(cut.filter(|(s, e)| s < e).map(|(s, e)| (s, e - s)).collect())
    }
}
