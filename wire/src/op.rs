//! Operations on one object, as clients send them and OSDs answer.
//!
//! A request holds a list of operations on one object that take effect together or not at all, and in order: a later
//! one sees what an earlier one did. Write data travels in the packet's payload, each operation's bytes after those of
//! the operation before it; read data comes back the same way.

use crate::stages::ClientTimes;
use crate::transaction::Pair;
use crate::{ErrorCode, ObjectName};
use bytes::Bytes;

/// Most operations in one request.
pub const OBJECT_OPS_MAX: usize = 256;
/// Largest xattr value, as in Linux.
pub const XATTR_BYTES_MAX: usize = 64 << 10;
/// Longest xattr name or omap key.
pub const KEY_BYTES_MAX: usize = 1024;
/// Largest omap value.
pub const OMAP_VALUE_BYTES_MAX: usize = 1 << 20;
/// Most entries a listing returns at once; the caller pages on.
pub const LIST_ENTRIES_MAX: u32 = 10_000;
/// Most requests that a client names as unanswered.
pub const UNANSWERED_MAX: usize = 128;

/// A client's request to the primary of the object's PG. `Packet.request` names it for ever; `Packet.epoch` is the
/// epoch of the map the client routed by.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OsdOp {
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectName>,
    #[prost(message, repeated, tag = "2")]
    pub ops: Vec<ObjectOp>,
    /// Newest snapshot of the writer's snapshot context, and all of its snapshots, newest first.
    #[prost(uint64, tag = "3")]
    pub snap_seq: u64,
    #[prost(uint64, repeated, tag = "4")]
    pub snaps: Vec<u64>,
    /// Every request of this client to this PG below it has been answered: the OSD may forget them.
    #[prost(uint64, tag = "5")]
    pub answered_below: u64,
    /// Where one request has been without an answer for long: all of this client's requests to this PG that are, of those
    /// before this one. The others were answered, too.
    #[prost(uint64, repeated, tag = "12")]
    pub unanswered: Vec<u64>,
    /// Fails instead of waiting where the PG or object is not available now.
    #[prost(bool, tag = "6")]
    pub no_wait: bool,
    /// Set for operations on the PG rather than an object (listing): `object` is absent then.
    #[prost(message, optional, tag = "7")]
    pub list: Option<ListObjects>,
    /// Proceeds although the cluster is full (deletes, trims).
    #[prost(bool, tag = "8")]
    pub full_try: bool,
    /// This client's last write epoch fence: the OSD refuses it while the client is blocklisted.
    #[prost(string, tag = "9")]
    pub reserved_lock: String,
    /// Where its time goes is measured; it stands for that many operations of this client. Zero for most.
    #[prost(uint32, tag = "10")]
    pub measured: u32,
    #[prost(message, optional, boxed, tag = "11")]
    pub times: Option<Box<ClientTimes>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectOp {
    #[prost(
        oneof = "ObjectOpKind",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31"
    )]
    pub kind: Option<ObjectOpKind>,
}

impl From<ObjectOpKind> for ObjectOp {
    fn from(kind: ObjectOpKind) -> ObjectOp {
        ObjectOp { kind: Some(kind) }
    }
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum ObjectOpKind {
    /// Reads up to `length` bytes; less at the object's end. Answers data.
    #[prost(message, tag = "1")]
    Read(Extent),
    /// Writes `length` bytes of the payload at `offset`.
    #[prost(message, tag = "2")]
    Write(Extent),
    /// Replaces the object's data by `length` bytes of the payload (`offset` must be 0).
    #[prost(message, tag = "3")]
    WriteFull(Extent),
    /// Adds `length` bytes of the payload at the end; their checksums are those of offset 0.
    #[prost(message, tag = "4")]
    Append(Extent),
    #[prost(message, tag = "5")]
    Truncate(Size),
    /// Makes a range read as zeroes; does not create or grow the object.
    #[prost(message, tag = "6")]
    Zero(Extent),
    /// Removes the object: `NotFound` if there is none.
    #[prost(message, tag = "7")]
    Remove(Empty),
    /// Answers [`StatReply`].
    #[prost(message, tag = "8")]
    Stat(Empty),
    /// Fails with `Canceled` unless the range holds exactly `length` bytes of the payload (zeroes beyond the end).
    #[prost(message, tag = "9")]
    Compare(Extent),
    #[prost(message, tag = "10")]
    Create(Create),
    /// Answers the value as data.
    #[prost(message, tag = "11")]
    GetXattr(Key),
    #[prost(message, tag = "12")]
    SetXattr(Pair),
    #[prost(message, tag = "13")]
    RemoveXattr(Key),
    /// Answers [`PairList`].
    #[prost(message, tag = "14")]
    GetXattrs(Empty),
    /// Fails with `Canceled` unless the xattr compares as asked; a missing one is empty.
    #[prost(message, tag = "15")]
    CompareXattr(CompareXattr),
    /// Answers [`PairList`] of the keys that exist.
    #[prost(message, tag = "16")]
    OmapGet(KeyList),
    /// Answers [`PairList`].
    #[prost(message, tag = "17")]
    OmapList(OmapList),
    #[prost(message, tag = "18")]
    OmapSet(PairList),
    #[prost(message, tag = "19")]
    OmapRemove(KeyList),
    #[prost(message, tag = "20")]
    OmapClear(Empty),
    /// Answers [`ExtentList`]: the allocated parts of the range.
    #[prost(message, tag = "21")]
    MapExtents(Extent),
    #[prost(message, tag = "22")]
    Lock(Lock),
    #[prost(message, tag = "23")]
    Unlock(Lock),
    /// Takes a lock away from its holder, who from then on is refused where it asserts the lock.
    #[prost(message, tag = "24")]
    BreakLock(BreakLock),
    /// Answers [`LockInfo`].
    #[prost(message, tag = "25")]
    GetLock(Key),
    /// Fails with `Fenced` unless the sender holds the lock: put before writes, it fences them.
    #[prost(message, tag = "26")]
    AssertLocked(Lock),
    /// Fails with `Canceled` unless the object's version is this.
    #[prost(message, tag = "27")]
    AssertVersion(Version),
    /// Registers the sender for notifications; it renews by sending it again within the timeout.
    #[prost(message, tag = "28")]
    Watch(Watch),
    /// Sends an event to all watchers; answers [`NotifyReply`] when all acknowledged or the timeout passed.
    #[prost(message, tag = "29")]
    Notify(Notify),
    #[prost(message, tag = "30")]
    NotifyAck(NotifyAck),
    /// Answers [`SnapList`]: the object's clones.
    #[prost(message, tag = "31")]
    ListSnaps(Empty),
}

impl ObjectOpKind {
    /// Payload bytes the operation consumes, with the object offset their checksums are for.
    pub fn payload(&self) -> Option<(u64, u64)> {
        match self {
            ObjectOpKind::Write(e) | ObjectOpKind::Compare(e) => Some((e.offset, e.length)),
            ObjectOpKind::WriteFull(e) | ObjectOpKind::Append(e) => Some((0, e.length)),
            _ => None,
        }
    }

    /// Whether the operation may change the object.
    pub fn is_mutation(&self) -> bool {
        use ObjectOpKind::*;
        matches!(
            self,
            Write(_)
                | WriteFull(_)
                | Append(_)
                | Truncate(_)
                | Zero(_)
                | Remove(_)
                | Create(_)
                | SetXattr(_)
                | RemoveXattr(_)
                | OmapSet(_)
                | OmapRemove(_)
                | OmapClear(_)
                | Lock(_)
                | Unlock(_)
                | BreakLock(_)
        )
    }
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Empty {}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Extent {
    #[prost(uint64, tag = "1")]
    pub offset: u64,
    #[prost(uint64, tag = "2")]
    pub length: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Size {
    #[prost(uint64, tag = "1")]
    pub size: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Version {
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    #[prost(uint64, tag = "2")]
    pub seq: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Create {
    /// Fails with `AlreadyExists` if the object exists.
    #[prost(bool, tag = "1")]
    pub exclusive: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Key {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct KeyList {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub keys: Vec<Bytes>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PairList {
    #[prost(message, repeated, tag = "1")]
    pub pairs: Vec<Pair>,
    /// More follow the last pair.
    #[prost(bool, tag = "2")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OmapList {
    /// Keys after this one.
    #[prost(bytes = "bytes", tag = "1")]
    pub after: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub prefix: Bytes,
    #[prost(uint32, tag = "3")]
    pub entries_max: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum Comparison {
    Equal = 0,
    NotEqual = 1,
    Greater = 2,
    GreaterOrEqual = 3,
    Less = 4,
    LessOrEqual = 5,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CompareXattr {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// What the stored value (on the left) is compared with, as byte strings.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    #[prost(enumeration = "Comparison", tag = "3")]
    pub comparison: i32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ExtentList {
    #[prost(message, repeated, tag = "1")]
    pub extents: Vec<Extent>,
}

/// An advisory lock by name: exclusive, or shared by several owners.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Lock {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Tells apart several holders in one client.
    #[prost(string, tag = "2")]
    pub cookie: String,
    #[prost(bool, tag = "3")]
    pub shared: bool,
    /// Milliseconds after which an unrenewed lock may be taken by others; 0 for never.
    #[prost(uint64, tag = "4")]
    pub duration_ms: u64,
    #[prost(string, tag = "5")]
    pub description: String,
    /// Renews instead of failing when the sender holds it already.
    #[prost(bool, tag = "6")]
    pub may_renew: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BreakLock {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint64, tag = "2")]
    pub client: u64,
    #[prost(string, tag = "3")]
    pub cookie: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LockInfo {
    #[prost(message, repeated, tag = "1")]
    pub holders: Vec<LockHolder>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LockHolder {
    #[prost(uint64, tag = "1")]
    pub client: u64,
    #[prost(string, tag = "2")]
    pub entity: String,
    #[prost(string, tag = "3")]
    pub cookie: String,
    #[prost(bool, tag = "4")]
    pub shared: bool,
    #[prost(string, tag = "5")]
    pub description: String,
    /// Cluster milliseconds until the lease ends; 0 for a lock without one.
    #[prost(uint64, tag = "6")]
    pub remaining_ms: u64,
    /// The lease has run out: the holder keeps the lock only until somebody else asks for it.
    #[prost(bool, tag = "7")]
    pub expired: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Watch {
    #[prost(uint64, tag = "1")]
    pub cookie: u64,
    #[prost(bool, tag = "2")]
    pub unwatch: bool,
    #[prost(uint64, tag = "3")]
    pub timeout_ms: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Notify {
    #[prost(bytes = "bytes", tag = "1")]
    pub payload: Bytes,
    #[prost(uint64, tag = "2")]
    pub timeout_ms: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NotifyAck {
    #[prost(uint64, tag = "1")]
    pub notify_id: u64,
    #[prost(uint64, tag = "2")]
    pub cookie: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub reply: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NotifyReply {
    #[prost(message, repeated, tag = "1")]
    pub acks: Vec<NotifyAckFrom>,
    /// Watchers that did not answer in time, by client id.
    #[prost(uint64, repeated, tag = "2")]
    pub missed: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct NotifyAckFrom {
    #[prost(uint64, tag = "1")]
    pub client: u64,
    #[prost(uint64, tag = "2")]
    pub cookie: u64,
    #[prost(bytes = "bytes", tag = "3")]
    pub reply: Bytes,
}

/// An OSD tells a watcher. Answered by [`ObjectOpKind::NotifyAck`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchEvent {
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectName>,
    #[prost(uint64, tag = "2")]
    pub cookie: u64,
    #[prost(uint64, tag = "3")]
    pub notify_id: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub payload: Bytes,
    /// The watch is over (object removed, timed out): register anew.
    #[prost(bool, tag = "5")]
    pub disconnected: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatReply {
    #[prost(uint64, tag = "1")]
    pub size: u64,
    #[prost(uint64, tag = "2")]
    pub modified_ms: u64,
    #[prost(message, optional, tag = "3")]
    pub version: Option<Version>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SnapList {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(message, repeated, tag = "2")]
    pub clones: Vec<CloneInfo>,
    #[prost(bool, tag = "3")]
    pub head_exists: bool,
}

/// One clone of an object: the state it had at the snapshots it serves.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CloneInfo {
    /// The clone's own id: the newest snapshot it serves.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The snapshots it serves, oldest first.
    #[prost(uint64, repeated, tag = "2")]
    pub snaps: Vec<u64>,
    #[prost(uint64, tag = "3")]
    pub size: u64,
    /// Byte ranges it has in common with the next newer state.
    #[prost(message, repeated, tag = "4")]
    pub overlap: Vec<Extent>,
}

/// Lists a PG's objects in hash order.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ListObjects {
    /// Key (`ObjectId::key`) to start after; empty for the beginning.
    #[prost(bytes = "bytes", tag = "1")]
    pub after: Bytes,
    #[prost(uint32, tag = "2")]
    pub entries_max: u32,
    /// Only this namespace; absent for all.
    #[prost(string, optional, tag = "3")]
    pub namespace: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectList {
    #[prost(message, repeated, tag = "1")]
    pub objects: Vec<ObjectName>,
    /// Where to go on; empty at the end of the PG.
    #[prost(bytes = "bytes", tag = "2")]
    pub next: Bytes,
}

/// The answer to an [`OsdOp`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct OsdOpReply {
    /// Of the request as a whole: the first operation that failed decides, and nothing took effect.
    #[prost(enumeration = "ErrorCode", tag = "1")]
    pub code: i32,
    /// Empty on success.
    #[prost(string, tag = "2")]
    pub message: String,
    /// One per operation, up to and with the failed one.
    #[prost(message, repeated, tag = "3")]
    pub results: Vec<OpResult>,
    /// The object's version after the request.
    #[prost(message, optional, tag = "4")]
    pub version: Option<Version>,
    #[prost(message, optional, tag = "5")]
    pub list: Option<ObjectList>,
    /// Of a measured request: from its arrival to this answer.
    #[prost(uint64, optional, tag = "6")]
    pub osd_ns: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OpResult {
    #[prost(enumeration = "ErrorCode", tag = "1")]
    pub code: i32,
    /// Bytes of the payload that belong to this operation: data of a read or xattr.
    #[prost(uint64, tag = "2")]
    pub length: u64,
    /// Object offset that the checksums of those bytes are for.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    /// The encoded answer of operations that do not answer data.
    #[prost(bytes = "bytes", tag = "4")]
    pub answer: Bytes,
}
