//! How log, missing set, info and past intervals are kept: keys of the PG's metadata, changed in the same transaction
//! as the objects they speak of.
//!
//! | key | value |
//! |---|---|
//! | `i` | [`Info`]; its `last_update`, `last_complete`, `log_tail` and `missing_count` are taken from log and missing set |
//! | `s` | objects and bytes, rewritten by writes that change them: newer than the info's |
//! | `t` | the log's tail |
//! | `l` epoch seq (big-endian) | one log entry; at or below the tail it only serves as a dup |
//! | `m` object key | one missing object |
//! | `p` | past intervals |
//!
//! So a write adds one key, and rewrites a small one if it changes how much there is. Trimming writes the tail and removes ranges of keys, both in
//! batches; an entry whose client may ask again becomes a dup without being written again. Other keys are free for others to use.

use super::entry::{Entry, RecordError};
use super::info::Info;
use super::intervals::PastIntervals;
use super::merge::Merged;
use super::missing::{Missing, MissingSet, decode_missing, encode_missing};
use super::pg_log::{PgLog, Trimmed};
use bytes::Bytes;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::{EVersion, Epoch, ObjectId, PgId, mutant};
use nacre_wire::Transaction;
use nacre_wire::messages::{LogEntry, MissingObject, PgInfo};
use prost::Message as _;

const INFO: &[u8] = b"i";
const COUNTS: &[u8] = b"s";
const TAIL: &[u8] = b"t";
const PAST: &[u8] = b"p";
const LOG: u8 = b'l';
const MISSING: u8 = b'm';

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("PG {pg}'s metadata is damaged: {reason}")]
    Damaged { pg: PgId, reason: RecordError },
}

/// Everything kept of a PG, as [`load`] finds it.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub info: Info,
    pub log: PgLog,
    pub missing: MissingSet,
    pub past_intervals: PastIntervals,
}

fn log_key(version: EVersion) -> Bytes {
    let mut key = Vec::with_capacity(17);
    key.push(LOG);
    key.extend_from_slice(&version.epoch.0.to_be_bytes());
    key.extend_from_slice(&version.seq.to_be_bytes());
    key.into()
}

/// The first key after that of `version`.
fn log_key_after(version: EVersion) -> Bytes {
    let (seq, carry) = version.seq.overflowing_add(1);
    log_key(EVersion::new(Epoch(version.epoch.0 + u64::from(carry)), seq))
}

fn missing_key(object: &ObjectId) -> Bytes {
    let mut key = vec![MISSING];
    key.extend_from_slice(&object.key());
    key.into()
}

/// Adds entries that were appended to the log.
pub fn append<'a>(t: &mut Transaction, entries: impl IntoIterator<Item = &'a Entry>) {
    for entry in entries {
        t.meta_set(log_key(entry.version), entry.encode().encode_to_vec());
    }
}

/// The same for entries that came encoded.
pub fn append_encoded(t: &mut Transaction, version: EVersion, encoded: Bytes) {
    t.meta_set(log_key(version), encoded);
}

/// Notes what a trim did. Nothing to do for a trim that moved nothing.
pub fn trim(t: &mut Transaction, trimmed: &Trimmed) {
    if trimmed.entries == 0 {
        return;
    }
    tail(t, trimmed.tail);
    for &(first, last) in &trimmed.forget {
        t.meta_remove_range(log_key(first), log_key_after(last));
    }
}

fn tail(t: &mut Transaction, version: EVersion) {
    t.meta_set(TAIL, log_key(version).slice(1..));
}

/// Writes the info; needed when anything but counts, log and missing set changed.
pub fn info(t: &mut Transaction, info: &Info) {
    t.meta_set(INFO, info.encode().encode_to_vec());
    counts(t, info.objects, info.bytes);
}

/// Writes how many objects and bytes there are: cheap enough for every write.
pub fn counts(t: &mut Transaction, objects: u64, bytes: u64) {
    let record = Counts { objects, bytes };
    t.meta_set(COUNTS, record.encode_to_vec());
}

pub fn past_intervals(t: &mut Transaction, past: &PastIntervals) {
    t.meta_set(PAST, past.encode());
}

pub fn add_missing(t: &mut Transaction, object: &ObjectId, missing: &Missing) {
    t.meta_set(missing_key(object), encode_missing(object, missing).encode_to_vec());
}

pub fn remove_missing(t: &mut Transaction, object: &ObjectId) {
    t.meta_remove(vec![missing_key(object)]);
}

/// Replaces the whole missing set.
pub fn missing(t: &mut Transaction, missing: &MissingSet) {
    t.meta_remove_range(vec![MISSING], vec![MISSING + 1]);
    for (object, one) in missing.iter() {
        add_missing(t, object, one);
    }
}

/// Replaces the whole log with its dups.
pub fn log(t: &mut Transaction, log: &PgLog) {
    t.meta_remove_range(vec![LOG], vec![LOG + 1]);
    let (log_tail, records) = log.encode_after(None);
    tail(t, log_tail);
    for record in records {
        t.meta_set(log_key(super::decode_version(record.version)), record.encode_to_vec());
    }
}

/// Writes down a merge: cuts the discarded entries off, adds the taken ones, replaces the missing set, and removes
/// what the discarded entries had created.
pub fn merged(t: &mut Transaction, merged: &Merged, log: &PgLog, missing_set: &MissingSet) {
    if !merged.divergent.is_empty() && !mutant!(RewoundLogKept) {
        t.meta_remove_range(log_key_after(merged.common), vec![LOG + 1]);
    }
    if merged.extended > 0 {
        append(t, log.entries().take(merged.extended));
        tail(t, log.tail());
    }
    append(t, log.entries_after(merged.common).into_iter().flatten());
    missing(t, missing_set);
    for object in &merged.remove {
        t.remove(object);
    }
}

/// Everything of a PG that is new here.
pub fn everything(t: &mut Transaction, pg: &Loaded) {
    info(t, &pg.info);
    log(t, &pg.log);
    missing(t, &pg.missing);
    past_intervals(t, &pg.past_intervals);
}

/// Removes all of the PG's metadata, these keys and others'.
pub fn remove_all(t: &mut Transaction) {
    t.meta_remove_range(Vec::new(), vec![0xff; 4]);
}

/// Loads what is kept of `pg`; `None` if it has no info.
pub fn load(store: &dyn ObjectStore, pg: PgId) -> Result<Option<Loaded>, LoadError> {
    let damaged = |reason| LoadError::Damaged { pg, reason };
    let malformed =
        |record, e: prost::DecodeError| damaged(RecordError::Malformed { record, reason: e.to_string() });
    let Some(record) = store.meta_get(pg, INFO)? else { return Ok(None) };
    let record = PgInfo::decode(record).map_err(|e| malformed("PG info", e))?;
    // The record's own versions are as old as its last writing: the log's replace them below.
    let mut info = Info::decode(&PgInfo { log_tail: None, ..record }).map_err(damaged)?;
    if let Some(counts) = store.meta_get(pg, COUNTS)? {
        let counts = Counts::decode(counts).map_err(|e| malformed("PG count", e))?;
        (info.objects, info.bytes) = (counts.objects, counts.bytes);
    }
    let tail = match store.meta_get(pg, TAIL)? {
        None => EVersion::ZERO,
        Some(raw) => decode_tail(&raw).ok_or_else(|| {
            damaged(RecordError::Malformed {
                record: "log tail",
                reason: format!("it has {} bytes", raw.len()),
            })
        })?,
    };
    let records: Vec<LogEntry> = scan(store, pg, LOG)?.map_err(|e| malformed("log entry", e))?;
    let log = PgLog::decode(tail, &records).map_err(damaged)?;
    let records: Vec<MissingObject> =
        scan(store, pg, MISSING)?.map_err(|e| malformed("missing object", e))?;
    let mut missing = MissingSet::new();
    for record in &records {
        let (object, one) = decode_missing(record).map_err(damaged)?;
        missing.add(object, one);
    }
    let past_intervals = match store.meta_get(pg, PAST)? {
        None => PastIntervals::new(),
        Some(raw) => PastIntervals::decode(&raw).map_err(damaged)?,
    };
    info.follow(&log, &missing);
    Ok(Some(Loaded { info, log, missing, past_intervals }))
}

type Decoded<T> = Result<Vec<T>, prost::DecodeError>;

fn scan<T: prost::Message + Default>(
    store: &dyn ObjectStore,
    pg: PgId,
    prefix: u8,
) -> Result<Decoded<T>, StoreError> {
    let mut found = Ok(Vec::new());
    store.meta_scan(pg, &[prefix], &[prefix + 1], &mut |_, value| {
        match (T::decode(value), &mut found) {
            (Ok(record), Ok(list)) => list.push(record),
            (Err(error), _) => found = Err(error),
            (Ok(_), Err(_)) => {}
        }
        found.is_ok()
    })?;
    Ok(found)
}

fn decode_tail(raw: &[u8]) -> Option<EVersion> {
    let (epoch, rest) = raw.split_first_chunk::<8>()?;
    let seq: [u8; 8] = rest.try_into().ok()?;
    Some(EVersion::new(Epoch(u64::from_be_bytes(*epoch)), u64::from_be_bytes(seq)))
}

#[derive(Clone, PartialEq, prost::Message)]
struct Counts {
    #[prost(uint64, tag = "1")]
    objects: u64,
    #[prost(uint64, tag = "2")]
    bytes: u64,
}

#[cfg(test)]
mod tests;
