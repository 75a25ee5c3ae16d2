//! The records a monitor keeps: who it is, Raft's hard state, log entries, one checkpoint. Each ends in a crc32, so
//! that a rotten one stops the monitor instead of being believed.

use crate::error::OpenError;
use crate::event::Write;
use crate::quorum::{Checkpoint, Storage};
use bytes::Bytes;
use nacre_types::checksum::crc32;
use prost::Message as _;
use prost_011::Message as _;
use raft::eraftpb::{ConfState, Entry, HardState};
use std::collections::{BTreeMap, VecDeque};

const IDENTITY: &[u8] = b"identity";
const HARD_STATE: &[u8] = b"hard-state";
const CHECKPOINT: &[u8] = b"checkpoint";
const LOG: &[u8] = b"log/";
/// Of the records' layout.
const FORMAT: u32 = 1;

/// Who a monitor is, fixed when its store is made.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Identity {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(string, tag = "2")]
    pub fsid: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(uint64, tag = "4")]
    pub raft_id: u64,
    /// The monmap it was made with: where to find the others until it has heard from them.
    #[prost(bytes = "bytes", tag = "5")]
    pub monmap: Bytes,
}

impl Identity {
    pub fn new(fsid: &str, name: &str, raft_id: u64, monmap: Bytes) -> Identity {
        Identity { format: FORMAT, fsid: fsid.into(), name: name.into(), raft_id, monmap }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckpointRecord {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(bytes = "vec", tag = "3")]
    members: Vec<u8>,
    #[prost(bytes = "bytes", tag = "4")]
    state: Bytes,
}

fn sealed(key: Vec<u8>, mut value: Vec<u8>) -> Write {
    let crc = crc32(&value);
    value.extend_from_slice(&crc.to_le_bytes());
    Write { key, value: Some(value.into()) }
}

fn unsealed<'a>(what: &str, value: &'a [u8]) -> Result<&'a [u8], OpenError> {
    let rotten = || OpenError::Corrupt { record: what.into(), reason: "its checksum does not match".into() };
    let (body, crc) = value.split_last_chunk::<4>().ok_or_else(rotten)?;
    if crc32(body) != u32::from_le_bytes(*crc) { Err(rotten()) } else { Ok(body) }
}

pub(crate) fn identity(identity: &Identity) -> Write {
    sealed(IDENTITY.into(), prost::Message::encode_to_vec(identity))
}

pub(crate) fn hard_state(state: &HardState) -> Write {
    sealed(HARD_STATE.into(), prost_011::Message::encode_to_vec(state))
}

pub(crate) fn entry(entry: &Entry) -> Write {
    sealed(log_key(entry.index), prost_011::Message::encode_to_vec(entry))
}

pub(crate) fn no_entry(index: u64) -> Write {
    Write { key: log_key(index), value: None }
}

pub(crate) fn checkpoint(checkpoint: &Checkpoint) -> Write {
    let record = CheckpointRecord {
        index: checkpoint.index,
        term: checkpoint.term,
        members: prost_011::Message::encode_to_vec(&checkpoint.members),
        state: checkpoint.state.clone(),
    };
    sealed(CHECKPOINT.into(), prost::Message::encode_to_vec(&record))
}

fn log_key(index: u64) -> Vec<u8> {
    [LOG, &index.to_be_bytes()].concat()
}

/// What a monitor's records say.
pub(crate) struct Records {
    pub identity: Identity,
    pub storage: Storage,
}

/// Reads all records. Whatever is damaged or missing is an error: a monitor that lost part of its promises must not
/// take part.
pub(crate) fn read(records: Vec<(Vec<u8>, Bytes)>) -> Result<Records, OpenError> {
    let corrupt = |record: &str, reason: String| OpenError::Corrupt { record: record.into(), reason };
    let mut identity = None;
    let mut hard = HardState::default();
    let mut checkpoint = Checkpoint::default();
    let mut entries = BTreeMap::new();
    for (key, value) in records {
        let name = String::from_utf8_lossy(&key[..key.len().min(16)]).into_owned();
        let body = unsealed(&name, &value)?;
        if key == IDENTITY {
            let read: Identity = prost::Message::decode(body)
                .map_err(|e: prost::DecodeError| corrupt("identity", e.to_string()))?;
            if read.format != FORMAT {
                return Err(OpenError::Format { found: read.format, known: FORMAT });
            }
            identity = Some(read);
        } else if key == HARD_STATE {
            hard = HardState::decode(body).map_err(|e| corrupt("hard state", e.to_string()))?;
        } else if key == CHECKPOINT {
            let record = CheckpointRecord::decode(Bytes::copy_from_slice(body))
                .map_err(|e| corrupt("checkpoint", e.to_string()))?;
            let members =
                ConfState::decode(&record.members[..]).map_err(|e| corrupt("checkpoint", e.to_string()))?;
            checkpoint = Checkpoint { index: record.index, term: record.term, members, state: record.state };
        } else if let Some(index) = key.strip_prefix(LOG).and_then(|k| <[u8; 8]>::try_from(k).ok()) {
            let index = u64::from_be_bytes(index);
            let entry = Entry::decode(body).map_err(|e| corrupt("log entry", e.to_string()))?;
            if entry.index != index {
                return Err(corrupt("log entry", format!("entry {} is filed as {index}", entry.index)));
            }
            entries.insert(index, entry);
        } else {
            return Err(corrupt(&name, "no record of this version has such a key".into()));
        }
    }
    let identity = identity.ok_or(OpenError::Empty)?;
    let mut log: VecDeque<Entry> = VecDeque::new();
    for (index, entry) in entries {
        let expected = log.back().map_or(index.min(checkpoint.index + 1), |last| last.index + 1);
        if index != expected {
            return Err(corrupt("log", format!("entries {expected} to {} are missing", index - 1)));
        }
        log.push_back(entry);
    }
    if log.back().is_some_and(|last| last.index < checkpoint.index) {
        log.clear();
    }
    if hard.commit > log.back().map_or(checkpoint.index, |last| last.index) {
        return Err(corrupt("log", format!("entries up to {} were committed and are gone", hard.commit)));
    }
    Ok(Records { identity, storage: Storage::new(hard, checkpoint, log) })
}
