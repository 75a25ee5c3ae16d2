//! Snapshots of objects: the set of clones a head carries, which of them serves a snapshot, and their end.
//!
//! A write whose context names snapshots that the object has not seen first clones the head: the clone serves those
//! snapshots. A head that is removed while it has clones stays as a whiteout. [`trim`] is the way back.
//!
//! The PG keeps an index of clones by snapshot in its metadata: key [`index_key`], in the same transaction as the
//! clone. Whoever brings a clone to a replica by other means (recovery) keeps it by [`add_to_index`].

mod common;
mod set;
mod trim;

pub use common::{COMMON_ATTR, Common, load_common};
pub use set::{Resolved, SnapSet};
pub use trim::{clones_with_snap, trim};

use crate::ops::{ObjectInfo, SNAPSET_ATTR};
use bytes::Bytes;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::{ObjectId, SnapId};
use nacre_wire::Transaction;

const INDEX_PREFIX: &[u8] = b"snap/";

/// Where the PG's metadata says that `clone` serves `snap`. Sorts by snapshot, then object.
pub fn index_key(snap: SnapId, clone: &ObjectId) -> Vec<u8> {
    [&index_prefix(snap)[..], &clone.key()].concat()
}

fn index_prefix(snap: SnapId) -> Vec<u8> {
    [INDEX_PREFIX, &snap.0.to_be_bytes()].concat()
}

/// All keys of the index, as a half-open range.
pub fn index_range() -> (Vec<u8>, Vec<u8>) {
    (INDEX_PREFIX.to_vec(), b"snap0".to_vec())
}

/// Enters a clone into the index, from its object info. Does nothing for heads.
pub fn add_to_index(transaction: &mut Transaction, object: &ObjectId, info: &ObjectInfo) {
    if !object.snap.is_head() {
        for &snap in &info.snaps {
            transaction.meta_set(index_key(SnapId(snap), object), Bytes::new());
        }
    }
}

/// Takes a clone out of the index, before it is removed or replaced.
pub fn remove_from_index(transaction: &mut Transaction, object: &ObjectId, info: &ObjectInfo) {
    if !object.snap.is_head() && !info.snaps.is_empty() {
        let keys = info.snaps.iter().map(|&snap| index_key(SnapId(snap), object).into()).collect();
        transaction.meta_remove(keys);
    }
}

/// The snapshot set of a head.
pub fn load(store: &dyn ObjectStore, head: &ObjectId, info: &ObjectInfo) -> Result<SnapSet, StoreError> {
    if !info.snapped {
        return Ok(SnapSet::default());
    }
    decoded(store, head, SnapSet::from_attr)
}

/// The newest snapshot that a write to the head has known of.
pub(crate) fn load_seq(
    store: &dyn ObjectStore,
    head: &ObjectId,
    info: &ObjectInfo,
) -> Result<u64, StoreError> {
    if info.snapped { decoded(store, head, set::seq_of) } else { Ok(0) }
}

fn decoded<T>(
    store: &dyn ObjectStore,
    head: &ObjectId,
    decode: impl FnOnce(&[u8]) -> Option<T>,
) -> Result<T, StoreError> {
    let value = store.attr(head, SNAPSET_ATTR.as_bytes())?;
    value.as_deref().and_then(decode).ok_or_else(|| {
        StoreError::Corrupt(format!("the snapshot set of {head} is missing or does not decode"))
    })
}

#[cfg(test)]
mod tests;
