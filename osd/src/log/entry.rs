//! One change in a PG's log, decoded and checked.

use bytes::Bytes;
use nacre_types::{ClientId, EVersion, Epoch, ObjectId, RequestId};
use nacre_wire::messages::{LogEntry, LogKind};
use nacre_wire::op::{Extent, Version};
use nacre_wire::{ErrorCode, NameError, ObjectName};
use prost::Message as _;

/// Why a peer's or the store's record is no log entry, missing object, info or history.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    #[error("a {record} lacks its {field}")]
    Absent { record: &'static str, field: &'static str },
    #[error("a {record} names an illegal object: {reason}")]
    BadObject { record: &'static str, reason: NameError },
    #[error("a {record} has {field} {value}, which this version does not know")]
    Unknown { record: &'static str, field: &'static str, value: i64 },
    #[error("a {record} does not decode: {reason}")]
    Malformed { record: &'static str, reason: String },
    #[error("log entries are out of order: {version} follows {previous}")]
    OutOfOrder { version: EVersion, previous: EVersion },
    #[error("log entries are lacking between {previous} and {version}")]
    Gap { version: EVersion, previous: EVersion },
}

/// One change of one object, or one failed request.
#[derive(Clone, PartialEq, Debug)]
pub struct Entry {
    pub kind: LogKind,
    pub object: ObjectId,
    pub version: EVersion,
    /// The object's version before; zero if it did not exist.
    pub prior_version: EVersion,
    /// The client's request; the default id for what no client asked for.
    pub request: RequestId,
    pub modified_ms: u64,
    pub code: ErrorCode,
    /// Data that changed.
    pub extents: Vec<Extent>,
    /// All of the object may have changed.
    pub whole: bool,
    pub omap_changed: bool,
    pub answer: Bytes,
    /// The client had its answers to all its requests to the PG below this one.
    pub answered_below: u64,
    /// If any: of those before this one it had all but these.
    pub unanswered: Vec<u64>,
    /// Of a revert: the version the object goes back to; zero if it did not exist.
    pub reverts_to: EVersion,
}

impl Entry {
    /// An entry that changes `object` wholly and names no request.
    pub fn new(kind: LogKind, object: ObjectId, version: EVersion, prior_version: EVersion) -> Entry {
        Entry {
            kind,
            object,
            version,
            prior_version,
            request: RequestId::default(),
            modified_ms: 0,
            code: ErrorCode::Ok,
            extents: Vec::new(),
            whole: true,
            omap_changed: true,
            answer: Bytes::new(),
            answered_below: 0,
            unanswered: Vec::new(),
            reverts_to: EVersion::ZERO,
        }
    }

    /// Whether the object does not exist after it.
    pub fn is_delete(&self) -> bool {
        match self.kind {
            LogKind::Delete | LogKind::Lost => true,
            LogKind::Revert => self.reverts_to == EVersion::ZERO,
            LogKind::Modify | LogKind::Error | LogKind::Clone => false,
        }
    }

    /// Whether the object is after it what it was before some of the entries before it.
    pub fn is_revert(&self) -> bool {
        self.kind == LogKind::Revert
    }

    /// Whether it only records an answer.
    pub fn is_error(&self) -> bool {
        self.kind == LogKind::Error
    }

    /// Whether what the object was before says nothing about it now.
    pub fn makes_anew(&self) -> bool {
        self.kind == LogKind::Clone || self.prior_version == EVersion::ZERO
    }

    pub fn decode(wire: &LogEntry) -> Result<Entry, RecordError> {
        const RECORD: &str = "log entry";
        let absent = |field| RecordError::Absent { record: RECORD, field };
        let unknown = |field, value: i32| RecordError::Unknown { record: RECORD, field, value: value.into() };
        let object = wire.object.as_ref().ok_or_else(|| absent("object"))?;
        let version = wire.version.ok_or_else(|| absent("version"))?;
        Ok(Entry {
            kind: LogKind::try_from(wire.kind).map_err(|_| unknown("kind", wire.kind))?,
            object: object.decode().map_err(|reason| RecordError::BadObject { record: RECORD, reason })?,
            version: decode_version(Some(version)),
            prior_version: decode_version(wire.prior_version),
            request: RequestId { client: ClientId(wire.client), seq: wire.request },
            modified_ms: wire.modified_ms,
            code: ErrorCode::from_raw(wire.code),
            extents: wire.extents.clone(),
            whole: wire.whole,
            omap_changed: wire.omap_changed,
            answer: wire.answer.clone(),
            answered_below: wire.answered_below,
            unanswered: wire.unanswered.clone(),
            reverts_to: decode_version(wire.reverts_to),
        })
    }

    pub fn decode_bytes(encoded: &Bytes) -> Result<Entry, RecordError> {
        let malformed = |error: prost::DecodeError| RecordError::Malformed {
            record: "log entry",
            reason: error.to_string(),
        };
        Entry::decode(&LogEntry::decode(&encoded[..]).map_err(malformed)?)
    }

    pub fn encode(&self) -> LogEntry {
        LogEntry {
            kind: self.kind as i32,
            object: Some(ObjectName::from(&self.object)),
            version: encode_version(self.version),
            prior_version: encode_version(self.prior_version).filter(|v| v.seq > 0),
            client: self.request.client.0,
            request: self.request.seq,
            modified_ms: self.modified_ms,
            code: self.code as i32,
            extents: self.extents.clone(),
            whole: self.whole,
            omap_changed: self.omap_changed,
            answer: self.answer.clone(),
            answered_below: self.answered_below,
            unanswered: self.unanswered.clone(),
            reverts_to: encode_version(self.reverts_to).filter(|v| v.seq > 0),
        }
    }
}

/// An absent version is zero.
pub fn decode_version(wire: Option<Version>) -> EVersion {
    wire.map_or(EVersion::ZERO, |v| EVersion::new(Epoch(v.epoch), v.seq))
}

pub fn encode_version(version: EVersion) -> Option<Version> {
    Some(Version { epoch: version.epoch.0, seq: version.seq })
}
