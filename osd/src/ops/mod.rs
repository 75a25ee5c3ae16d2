//! Execution of clients' operations on one object: a pure function from what the store holds and what was asked to
//! results and one transaction.
//!
//! [`execute`] runs all operations of a request in order over a view of the object that already shows what earlier
//! ones did. If one fails, nothing happens and the failure names it. Data is read asynchronously: while some is
//! missing the answer is [`Execution::NeedData`], and the caller runs the request again, from the start, once it has
//! it. So nothing is kept between the two, and the caller only must not let a write to the object pass in between.

mod executor;
mod info;
mod limits;
mod locks;
mod overlay;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod view;

pub use executor::execute;
pub use info::{INFO_ATTR, LOCK_PREFIX, ObjectInfo, SNAPSET_ATTR, USER_PREFIX, wire_version};
pub use limits::{ANSWER_BYTES_MAX, LOCK_HOLDERS_MAX, NOTIFY_BYTES_MAX, READ_BYTES_MAX};
pub(crate) use view::load_info;

use bytes::Bytes;
use nacre_maps::Pool;
use nacre_store::{ObjectStore, StoreError};
use nacre_types::{ClientId, EVersion, EntityName, ObjectId, PgId, RequestId, SnapId};
use nacre_wire::messages::LogEntry;
use nacre_wire::op::{ObjectOp, ObjectOpKind, OpResult};
use nacre_wire::{Data, ErrorCode, Transaction};

/// The snapshots a write must preserve the state for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SnapContext<'a> {
    /// Newest snapshot id the writer knows.
    pub seq: u64,
    /// Existing snapshots, newest first.
    pub snaps: &'a [u64],
}

/// One request on one object.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub pg: PgId,
    /// The head, or the object at a snapshot to read from.
    pub object: &'a ObjectId,
    pub ops: &'a [ObjectOp],
    pub data: &'a Data,
    pub snap_context: SnapContext<'a>,
    pub client: ClientId,
    pub entity: &'a EntityName,
    pub request: RequestId,
    /// Version of the first log entry if the request mutates; further entries count up from it within the epoch.
    pub version: EVersion,
    /// Stamps objects and judges leases of locks.
    pub wall_ms: u64,
    /// The pool, for its removed snapshots.
    pub pool: &'a Pool,
}

/// Data that has to be read before a request can be executed. Lies inside the object.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ReadWanted {
    pub object: ObjectId,
    pub offset: u64,
    pub length: u64,
}

/// Data read for one request.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ReadCache {
    reads: Vec<(ReadWanted, Data)>,
}

impl ReadCache {
    pub fn new() -> ReadCache {
        ReadCache::default()
    }

    pub fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    /// `data` is exactly what `wanted` asked for.
    pub fn insert(&mut self, wanted: ReadWanted, data: Data) {
        assert_eq!(wanted.length, data.bytes.len() as u64, "a read inside an object is never short");
        self.reads.push((wanted, data));
    }

    fn get(&self, object: &ObjectId, offset: u64, length: u64) -> Option<&Data> {
        let found =
            self.reads.iter().find(|(w, _)| w.offset == offset && w.length == length && w.object == *object);
        found.map(|(_, data)| data)
    }
}

/// The large variant is the common one: boxing it would cost an allocation a request.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Debug)]
pub enum Execution {
    /// These reads first; then the request again.
    NeedData(Vec<ReadWanted>),
    Done(Executed),
}

/// What a request came to.
#[derive(Clone, PartialEq, Debug)]
pub struct Executed {
    /// Of the first operation that failed.
    pub code: ErrorCode,
    /// Empty on success.
    pub message: String,
    /// One per operation, up to and with the failed one.
    pub results: Vec<OpResult>,
    /// The results' data, one after the other.
    pub data: Data,
    /// The object's version after the request; zero if there is no object.
    pub version: EVersion,
    /// What to make durable before answering; `None` if nothing changes.
    pub mutation: Option<Mutation>,
    /// What to do in the watch registry, once the mutation is committed.
    pub watch: Vec<WatchAction>,
}

impl Executed {
    /// Nothing was done, for a reason that has to do with more than the object.
    pub fn refused(code: ErrorCode, message: String) -> Executed {
        Executed {
            code,
            message,
            results: Vec::new(),
            data: Data::default(),
            version: EVersion::ZERO,
            mutation: None,
            watch: Vec::new(),
        }
    }
}

/// One atomic change of a PG's objects.
#[derive(Clone, PartialEq, Debug)]
pub struct Mutation {
    /// Object changes, and the PG's index of snapshots (`snaps`), but not its log.
    pub transaction: Transaction,
    /// Clones first; the last one is the request's own. Versions ascend.
    pub entries: Vec<LogEntry>,
}

/// A change to the soft state of who watches an object. `op` is the operation's number in the request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchAction {
    Watch {
        cookie: u64,
        timeout_ms: u64,
    },
    Unwatch {
        cookie: u64,
    },
    /// The request is answered when the notification ends; the reply goes into the result of `op`.
    Notify {
        op: usize,
        payload: Bytes,
        timeout_ms: u64,
    },
    Ack {
        notify_id: u64,
        cookie: u64,
        reply: Bytes,
    },
    /// The object is gone: its watchers are told.
    ObjectRemoved,
}

/// Whether a request changes the object, by its operations' kinds.
pub fn is_mutation(ops: &[ObjectOp]) -> bool {
    ops.iter().filter_map(|op| op.kind.as_ref()).any(ObjectOpKind::is_mutation)
}

/// Whether a request may take space: such requests are refused while the cluster is full.
pub fn needs_space(ops: &[ObjectOp]) -> bool {
    use ObjectOpKind::*;
    let frees = |kind: &ObjectOpKind| {
        matches!(
            kind,
            Remove(_)
                | Truncate(_)
                | Zero(_)
                | RemoveXattr(_)
                | OmapRemove(_)
                | OmapClear(_)
                | Unlock(_)
                | BreakLock(_)
                // Not worth mentioning, and whoever makes room may have to hold one.
                | Lock(_)
        )
    };
    ops.iter().filter_map(|op| op.kind.as_ref()).any(|kind| kind.is_mutation() && !frees(kind))
}

/// Whether a request removes its object and does nothing else.
pub fn only_removes(ops: &[ObjectOp]) -> bool {
    use ObjectOpKind::*;
    let mut kinds = ops.iter().filter_map(|op| op.kind.as_ref());
    kinds.clone().any(|kind| matches!(kind, Remove(_)))
        && kinds.all(|kind| matches!(kind, Remove(_) | AssertLocked(_) | AssertVersion(_)))
}

/// The object that serves reads of `object`: the head, a clone, or none where nothing existed at that snapshot.
pub fn resolve(store: &dyn ObjectStore, object: &ObjectId) -> Result<Option<ObjectId>, StoreError> {
    let head = object.head();
    let Some(info) = view::load_info(store, &head)? else { return Ok(None) };
    if object.snap.is_head() {
        return Ok((!info.whiteout).then_some(head));
    }
    let set = crate::snaps::load(store, &head, &info)?;
    Ok(match set.resolve(object.snap.0, !info.whiteout) {
        crate::snaps::Resolved::Head => Some(head),
        crate::snaps::Resolved::Clone(id) => Some(head.at(SnapId(id))),
        crate::snaps::Resolved::Nothing => None,
    })
}

#[cfg(test)]
pub(crate) mod tests;
