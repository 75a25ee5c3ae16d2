//! Trimming: clones give up the snapshots that were removed, and go when they serve none any more.

use super::{COMMON_ATTR, Common, SnapSet, add_to_index, index_key, index_prefix, remove_from_index};
use crate::ops::{INFO_ATTR, Mutation, ObjectInfo, SNAPSET_ATTR, wire_version};
use bytes::Bytes;
use nacre_maps::Pool;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::{EVersion, ObjectId, PgId, SnapId, mutant};
use nacre_wire::messages::{LogEntry, LogKind};
use nacre_wire::transaction::Pair;
use nacre_wire::{ObjectName, Transaction};

/// Clones that the index says serve `snap`, after the object `after`; at most `entries_max`.
pub fn clones_with_snap(
    store: &dyn ObjectStore,
    pg: PgId,
    snap: SnapId,
    after: Option<&ObjectId>,
    entries_max: usize,
) -> Result<Vec<ObjectId>, StoreError> {
    let prefix = index_prefix(snap);
    let first = after.map_or_else(|| prefix.clone(), |object| [&index_key(snap, object)[..], &[0]].concat());
    let end = index_prefix(SnapId(snap.0.wrapping_add(1)));
    let mut found = Vec::new();
    store.meta_scan(pg, &first, &end, &mut |key, _| {
        found.extend(key.strip_prefix(&prefix[..]).and_then(ObjectId::from_key));
        found.len() < entries_max
    })?;
    Ok(found)
}

/// Takes the pool's removed snapshots off one clone: `None` if the clone serves none of them and the index is right.
/// Versions count up from `version`.
pub fn trim(
    store: &dyn ObjectStore,
    pg: PgId,
    clone: &ObjectId,
    pool: &Pool,
    snap: SnapId,
    version: EVersion,
    wall_ms: u64,
) -> Result<Option<Mutation>, StoreError> {
    assert!(!clone.snap.is_head(), "only clones are trimmed");
    let head = clone.head();
    let mut transaction = Transaction::new(pg);
    let head_info = crate::ops::load_info(store, &head)?;
    let clone_info = crate::ops::load_info(store, clone)?;
    let (Some(mut head_info), Some(mut info)) = (head_info, clone_info) else {
        // The index outlived the clone: only the index changes, and no object does.
        return Ok(None);
    };
    let mut set: SnapSet = super::load(store, &head, &head_info)?;
    let keep = |snap: &u64| !pool.snap_is_removed(SnapId(*snap)) && !mutant!(TrimTakesClone);
    let kept: Vec<u64> = info.snaps.iter().copied().filter(keep).collect();
    let Some(at) = set.clones.iter().position(|c| c.id == clone.snap.0) else {
        return Err(StoreError::Corrupt(format!("{head} does not know its clone {clone}")));
    };
    if kept.len() == info.snaps.len() && info.snaps.contains(&snap.0) {
        return Ok(None);
    }
    let entry = |object: &ObjectId, kind: LogKind, version: EVersion, prior: EVersion| LogEntry {
        kind: kind as i32,
        object: Some(ObjectName::from(object)),
        version: Some(wire_version(version)),
        prior_version: Some(wire_version(prior)),
        modified_ms: wall_ms,
        ..LogEntry::default()
    };
    let mut entries = Vec::with_capacity(3);
    let after = |entries: &Vec<LogEntry>| EVersion { seq: version.seq + entries.len() as u64, ..version };
    let mut head_common = None;
    remove_from_index(&mut transaction, clone, &info);
    if !info.snaps.contains(&snap.0) {
        transaction.meta_remove(vec![index_key(snap, clone).into()]);
    }
    let prior = info.version();
    if kept.is_empty() {
        transaction.remove(clone);
        entries.push(entry(clone, LogKind::Delete, version, prior));
        let (gone, own) = (set.clones.remove(at), super::load_common(store, clone)?);
        let newer = set.clones.get(at).map_or(head.clone(), |newer| head.at(SnapId(newer.id)));
        let common = super::load_common(store, &newer)?.filter(|common| common.older == gone.id);
        let common = own.zip(common).map(|(own, newer)| own.and_of(&newer));
        if newer.snap.is_head() {
            head_common = common;
        } else if let Some(common) = common
            && let Some(mut info) = crate::ops::load_info(store, &newer)?
        {
            let (prior, next) = (info.version(), after(&entries));
            (info.epoch, info.seq) = (next.epoch.0, next.seq);
            transaction.set_attrs(&newer, vec![info_pair(&info), common_pair(&common)]);
            entries.push(entry(&newer, LogKind::Modify, next, prior));
        }
    } else {
        info.snaps.clone_from(&kept);
        (info.epoch, info.seq) = (version.epoch.0, version.seq);
        set.clones[at].snaps = kept;
        add_to_index(&mut transaction, clone, &info);
        transaction.set_attrs(clone, vec![info_pair(&info)]);
        entries.push(entry(clone, LogKind::Modify, version, prior));
    }
    let (prior, next) = (head_info.version(), after(&entries));
    if head_info.whiteout && set.clones.is_empty() {
        transaction.remove(&head);
        entries.push(entry(&head, LogKind::Delete, next, prior));
    } else {
        (head_info.epoch, head_info.seq) = (next.epoch.0, next.seq);
        let set_pair = Pair { key: Bytes::from_static(SNAPSET_ATTR.as_bytes()), value: set.to_attr() };
        let pairs =
            [info_pair(&head_info), set_pair].into_iter().chain(head_common.as_ref().map(common_pair));
        transaction.set_attrs(&head, pairs.collect());
        entries.push(entry(&head, LogKind::Modify, next, prior));
    }
    Ok(Some(Mutation { transaction, entries }))
}

fn common_pair(common: &Common) -> Pair {
    Pair { key: Bytes::from_static(COMMON_ATTR.as_bytes()), value: common.to_attr() }
}

fn info_pair(info: &ObjectInfo) -> Pair {
    Pair { key: Bytes::from_static(INFO_ATTR.as_bytes()), value: info.to_attr() }
}
