//! Messages among OSDs: heartbeats, replication, leases, peering, recovery, backfill, scrub.
//!
//! Each carries its PG in the packet and the sender's interval where it matters: whoever receives one of another
//! interval drops it (invariant I5).

use crate::ObjectName;
use crate::op::{Extent, Version};
use crate::stages::ReplicaTimes;
use crate::transaction::Pair;
use bytes::Bytes;

/// Heartbeat. The packet's epoch gossips maps.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ping {
    /// The sender's clock, echoed.
    #[prost(uint64, tag = "1")]
    pub sent_ns: u64,
    #[prost(uint32, tag = "2")]
    pub from: u32,
    #[prost(fixed64, tag = "3")]
    pub from_instance: u64,
    /// Who the sender thinks it speaks to.
    #[prost(uint32, tag = "4")]
    pub to: u32,
    #[prost(fixed64, tag = "5")]
    pub to_instance: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Pong {
    #[prost(uint64, tag = "1")]
    pub sent_ns: u64,
    #[prost(uint32, tag = "2")]
    pub from: u32,
    #[prost(fixed64, tag = "3")]
    pub from_instance: u64,
    /// How full the sender's store is, in thousandths.
    #[prost(uint32, tag = "4")]
    pub used_permille: u32,
}

/// A primary ships a write to a replica. The packet's data is the transaction's payload.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RepOp {
    /// First epoch of the primary's interval.
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(message, optional, tag = "2")]
    pub version: Option<Version>,
    /// Encoded `TransactionBody`: object changes without the log, which the replica adds itself.
    #[prost(bytes = "bytes", tag = "3")]
    pub transaction: Bytes,
    /// Encoded [`LogEntry`]s that go with it: encoded once, kept by all members as they are.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub entries: Vec<Bytes>,
    /// Everything up to here is committed by the whole acting set.
    #[prost(message, optional, tag = "5")]
    pub committed_to: Option<Version>,
    #[prost(message, optional, tag = "6")]
    pub trim_to: Option<Version>,
    /// The replica says with its acknowledgement what it spent on this write.
    #[prost(bool, tag = "7")]
    pub measured: bool,
}

/// A replica's promises to one primary: what one journal record has made durable goes in one message. Tags 1 and 2 were
/// a promise for the packet's PG alone.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RepOpReply {
    #[prost(message, repeated, tag = "3")]
    pub acks: Vec<RepAck>,
    /// How full the sender's store is, in thousandths.
    #[prost(uint32, tag = "4")]
    pub used_permille: u32,
}

/// Everything of the PG up to `version` in this interval is durable here.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RepAck {
    #[prost(uint64, tag = "1")]
    pub pg: u64,
    #[prost(uint64, tag = "2")]
    pub interval: u64,
    #[prost(message, optional, tag = "3")]
    pub version: Option<Version>,
    #[prost(message, repeated, tag = "4")]
    pub times: Vec<ReplicaTimes>,
}

/// A primary asks a replica not to serve or accept another primary's activation without waiting out `duration_ns`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Lease {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    /// The primary's clock at sending, echoed in the ack: the lease runs from here.
    #[prost(uint64, tag = "2")]
    pub sent_ns: u64,
    #[prost(uint64, tag = "3")]
    pub duration_ns: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LeaseAck {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(uint64, tag = "2")]
    pub sent_ns: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum LogKind {
    Modify = 0,
    Delete = 1,
    /// A request that failed, recorded so that its resend gets the same answer.
    Error = 2,
    /// The object was declared lost.
    Lost = 3,
    /// A clone was made for a snapshot.
    Clone = 4,
    /// An administrator gave up versions that cannot be found: the object is again what it was at `reverts_to`.
    Revert = 5,
}

/// One change in a PG's log.
#[derive(Clone, PartialEq, prost::Message)]
pub struct LogEntry {
    #[prost(enumeration = "LogKind", tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub object: Option<ObjectName>,
    #[prost(message, optional, tag = "3")]
    pub version: Option<Version>,
    /// The object's version before; zero if it did not exist.
    #[prost(message, optional, tag = "4")]
    pub prior_version: Option<Version>,
    #[prost(uint64, tag = "5")]
    pub client: u64,
    #[prost(uint64, tag = "6")]
    pub request: u64,
    #[prost(uint64, tag = "7")]
    pub modified_ms: u64,
    /// The answer's code, for duplicates.
    #[prost(enumeration = "crate::ErrorCode", tag = "8")]
    pub code: i32,
    /// Data that changed; empty with `whole` unset means only metadata did.
    #[prost(message, repeated, tag = "9")]
    pub extents: Vec<Extent>,
    /// All of the object may have changed.
    #[prost(bool, tag = "10")]
    pub whole: bool,
    #[prost(bool, tag = "11")]
    pub omap_changed: bool,
    /// The encoded answers of the request's operations, for duplicates, where they were small.
    #[prost(bytes = "bytes", tag = "12")]
    pub answer: Bytes,
    /// The client had its answers to all its requests to the PG below this one.
    #[prost(uint64, tag = "13")]
    pub answered_below: u64,
    /// Of a revert: the version the object goes back to; none if it did not exist.
    #[prost(message, optional, tag = "14")]
    pub reverts_to: Option<Version>,
    /// If any: of its requests to the PG before this one the client had all answers but these.
    #[prost(uint64, repeated, tag = "15")]
    pub unanswered: Vec<u64>,
}

/// A PG's history as far as the cluster needs it: the same whoever tells it, newer always wins.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PgHistory {
    #[prost(uint64, tag = "1")]
    pub created: u64,
    /// Last epoch in which the PG went active, as far as all members of that interval have recorded it.
    #[prost(uint64, tag = "2")]
    pub last_epoch_started: u64,
    #[prost(uint64, tag = "3")]
    pub last_interval_started: u64,
    #[prost(uint64, tag = "4")]
    pub last_epoch_clean: u64,
    #[prost(uint64, tag = "5")]
    pub last_interval_clean: u64,
    #[prost(uint64, tag = "6")]
    pub same_interval_since: u64,
    #[prost(uint64, tag = "7")]
    pub last_scrub_ms: u64,
    #[prost(uint64, tag = "8")]
    pub last_deep_scrub_ms: u64,
}

/// What one OSD has of a PG.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PgInfo {
    #[prost(uint64, tag = "1")]
    pub pg: u64,
    /// Newest log entry.
    #[prost(message, optional, tag = "2")]
    pub last_update: Option<Version>,
    /// Everything up to here is in the objects (not missing).
    #[prost(message, optional, tag = "3")]
    pub last_complete: Option<Version>,
    /// The log holds everything after it.
    #[prost(message, optional, tag = "4")]
    pub log_tail: Option<Version>,
    #[prost(uint64, tag = "5")]
    pub last_epoch_started: u64,
    #[prost(uint64, tag = "6")]
    pub last_interval_started: u64,
    #[prost(message, optional, tag = "7")]
    pub history: Option<PgHistory>,
    /// Objects with keys up to here are present (`ObjectId::key`); only if `backfilling`.
    #[prost(bytes = "bytes", tag = "8")]
    pub last_backfill: Bytes,
    #[prost(bool, tag = "9")]
    pub backfilling: bool,
    #[prost(uint64, tag = "10")]
    pub objects: u64,
    #[prost(uint64, tag = "11")]
    pub bytes: u64,
    #[prost(uint64, tag = "12")]
    pub missing_count: u64,
    #[prost(bool, tag = "13")]
    pub exists: bool,
}

/// A primary asks what a peer has of a PG. Answered by [`PgNotify`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PgQuery {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(message, optional, tag = "2")]
    pub history: Option<PgHistory>,
}

/// A peer tells a primary what it has, asked or on a new interval.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PgNotify {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(message, optional, tag = "2")]
    pub info: Option<PgInfo>,
    /// Encoded past intervals.
    #[prost(bytes = "bytes", tag = "3")]
    pub past_intervals: Bytes,
    /// Whether the sender's past intervals cover all since the PG was last clean; it may have missed maps.
    #[prost(bool, tag = "6")]
    pub past_known: bool,
    /// Epoch in which the sender's store was first up: of what was before it knows nothing. 0: always, as far as it knows.
    #[prost(uint64, tag = "7")]
    pub store_since: u64,
    /// Read leases of earlier intervals that the sender granted or was told of and that have not run out.
    #[prost(message, repeated, tag = "8")]
    pub leases: Vec<GrantedLease>,
    /// How full the sender's store is, in thousandths.
    #[prost(uint32, tag = "9")]
    pub used_permille: u32,
}

/// A read lease that a member granted in an earlier interval.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct GrantedLease {
    /// Absent: it is not known to whom.
    #[prost(uint32, optional, tag = "1")]
    pub holder: Option<u32>,
    #[prost(uint64, tag = "2")]
    pub remaining_ns: u64,
}

/// A primary asks for a peer's log and missing set. Answered by [`PgLog`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PgLogRequest {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    /// Only entries after it.
    #[prost(message, optional, tag = "2")]
    pub since: Option<Version>,
    /// The whole log.
    #[prost(bool, tag = "3")]
    pub full: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PgLog {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(message, optional, tag = "2")]
    pub info: Option<PgInfo>,
    #[prost(message, repeated, tag = "3")]
    pub entries: Vec<LogEntry>,
    #[prost(message, optional, tag = "4")]
    pub tail: Option<Version>,
    #[prost(message, repeated, tag = "5")]
    pub missing: Vec<MissingObject>,
    /// Entries and missing of the pieces of one answer accumulate.
    #[prost(message, optional, tag = "7")]
    pub piece: Option<Piece>,
}

/// Which part of a log's transfer a message is. Tag 6 of [`PgLog`] and 7 of [`PgActivate`] only said whether more follow.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Piece {
    /// The same in all pieces that make up one log; another one when it is sent again.
    #[prost(fixed64, tag = "1")]
    pub transfer: u64,
    /// From zero.
    #[prost(uint32, tag = "2")]
    pub index: u32,
    #[prost(bool, tag = "3")]
    pub last: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct MissingObject {
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectName>,
    #[prost(message, optional, tag = "2")]
    pub need: Option<Version>,
    /// Version it has, zero if none: changes since then suffice.
    #[prost(message, optional, tag = "3")]
    pub have: Option<Version>,
    #[prost(bool, tag = "4")]
    pub is_delete: bool,
    /// The newest version that a client may have seen, if that is an earlier one than the needed; zero if that is none.
    #[prost(message, optional, tag = "5")]
    pub seen: Option<Version>,
    /// The needed version is another number of this one; none if it is not.
    #[prost(message, optional, tag = "6")]
    pub reverts_to: Option<Version>,
    /// The disk holds just the needed version, but gave an error when it was read.
    #[prost(bool, tag = "7")]
    pub unread: bool,
}

/// A primary makes a peer a member of the interval: its authoritative log (or the end of it) and history. Answered by
/// [`PgActivated`] once durable.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PgActivate {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(message, optional, tag = "2")]
    pub info: Option<PgInfo>,
    #[prost(message, repeated, tag = "3")]
    pub entries: Vec<LogEntry>,
    #[prost(message, optional, tag = "4")]
    pub tail: Option<Version>,
    #[prost(bytes = "bytes", tag = "5")]
    pub past_intervals: Bytes,
    /// The peer's content is to be discarded and backfilled from the start.
    #[prost(bool, tag = "6")]
    pub start_backfill: bool,
    #[prost(message, optional, tag = "11")]
    pub piece: Option<Piece>,
    /// Read leases of earlier intervals that keep the primary from serving: the member's promise from now on.
    #[prost(message, repeated, tag = "10")]
    pub prior_leases: Vec<GrantedLease>,
    /// No client has seen what the log names after this.
    #[prost(message, optional, tag = "12")]
    pub seen_to: Option<Version>,
    /// The newest start before this one: what a member of an older interval noted as unseen may have been seen since.
    #[prost(uint64, tag = "13")]
    pub started_before: u64,
    /// Objects the peer will miss of which others know that no client has seen what it needs.
    #[prost(message, repeated, tag = "14")]
    pub unseen: Vec<MissingObject>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PgActivated {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(uint64, tag = "2")]
    pub activated_in: u64,
}

/// The PG is clean elsewhere: a stray may delete its copy.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PgRemove {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
}

/// A piece of one object on its way to a peer that misses it; data in the packet.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Push {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(message, optional, tag = "2")]
    pub object: Option<ObjectName>,
    #[prost(message, optional, tag = "3")]
    pub version: Option<Version>,
    #[prost(uint64, tag = "4")]
    pub size: u64,
    /// Extents the packet's data fills, in order.
    #[prost(message, repeated, tag = "5")]
    pub extents: Vec<Extent>,
    #[prost(message, repeated, tag = "6")]
    pub attrs: Vec<Pair>,
    #[prost(message, repeated, tag = "7")]
    pub omap: Vec<Pair>,
    #[prost(bool, tag = "8")]
    pub first: bool,
    #[prost(bool, tag = "9")]
    pub last: bool,
    /// The object does not exist at this version.
    #[prost(bool, tag = "10")]
    pub delete: bool,
    /// Keep what the peer has and only overlay the extents (it is at `base`).
    #[prost(message, optional, tag = "11")]
    pub base: Option<Version>,
    /// Whole ranges that read as zeroes now.
    #[prost(message, repeated, tag = "12")]
    pub zeroes: Vec<Extent>,
    /// Replace the omap by what is pushed.
    #[prost(bool, tag = "13")]
    pub omap_complete: bool,
    #[prost(uint64, tag = "14")]
    pub sequence: u64,
    /// Why: recovery or backfill.
    #[prost(uint32, tag = "15")]
    pub purpose: u32,
    /// Begin with a clone of this object of the same family, which the peer has at `origin_version`, and overlay the extents.
    #[prost(message, optional, tag = "16")]
    pub origin: Option<ObjectName>,
    #[prost(message, optional, tag = "17")]
    pub origin_version: Option<Version>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PushReply {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(message, optional, tag = "2")]
    pub object: Option<ObjectName>,
    #[prost(message, optional, tag = "3")]
    pub version: Option<Version>,
    #[prost(uint64, tag = "4")]
    pub sequence: u64,
    #[prost(enumeration = "crate::ErrorCode", tag = "5")]
    pub code: i32,
    /// The source's disk gave an error, and may give the object another time.
    #[prost(bool, tag = "6")]
    pub unread: bool,
}

/// A primary asks a peer for an object it misses itself. Answered by [`Push`]es.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Pull {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(message, optional, tag = "2")]
    pub object: Option<ObjectName>,
    #[prost(message, optional, tag = "3")]
    pub version: Option<Version>,
    /// Where to go on.
    #[prost(uint64, tag = "4")]
    pub offset: u64,
    #[prost(bytes = "bytes", tag = "5")]
    pub omap_after: Bytes,
    #[prost(uint64, tag = "6")]
    pub sequence: u64,
    #[prost(message, optional, tag = "7")]
    pub base: Option<Version>,
    #[prost(uint32, tag = "8")]
    pub purpose: u32,
    /// The source has it under this number.
    #[prost(message, optional, tag = "9")]
    pub held_as: Option<Version>,
    /// Only what differs from others of the object's family is wanted: the receiver has them, but for `family`.
    #[prost(bool, tag = "10")]
    pub differences: bool,
    #[prost(message, repeated, tag = "11")]
    pub family: Vec<MissingObject>,
}

/// A primary asks a backfill target what it has in a key range. Answered by [`BackfillDigest`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BackfillScan {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    /// Keys after it.
    #[prost(bytes = "bytes", tag = "2")]
    pub after: Bytes,
    #[prost(uint32, tag = "3")]
    pub entries_max: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct BackfillDigest {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub after: Bytes,
    /// Last key covered; empty for the end of the PG.
    #[prost(bytes = "bytes", tag = "3")]
    pub end: Bytes,
    #[prost(message, repeated, tag = "4")]
    pub objects: Vec<ObjectVersion>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ObjectVersion {
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectName>,
    #[prost(message, optional, tag = "2")]
    pub version: Option<Version>,
}

/// The primary moves a target's backfill mark; objects below it are complete. Echoed when durable.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BackfillProgress {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub last_backfill: Bytes,
    #[prost(bool, tag = "3")]
    pub done: bool,
    #[prost(bool, tag = "4")]
    pub ack: bool,
    /// Objects the target has but should not.
    #[prost(message, repeated, tag = "5")]
    pub remove: Vec<ObjectVersion>,
}

/// Asks for a backfill or recovery slot at the receiver, or (with `release`) gives it back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Reserve {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(bool, tag = "2")]
    pub backfill: bool,
    #[prost(bool, tag = "3")]
    pub release: bool,
    #[prost(uint32, tag = "4")]
    pub priority: u32,
    /// What the sender's copy holds: a backfill makes the receiver's as large.
    #[prost(uint64, tag = "5")]
    pub bytes: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReserveReply {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(bool, tag = "2")]
    pub granted: bool,
    /// Too full to take a backfill.
    #[prost(bool, tag = "3")]
    pub too_full: bool,
}

/// A primary asks a member to describe a key range for scrub. Answered by [`ScrubMap`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ScrubRequest {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub after: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub end: Bytes,
    #[prost(bool, tag = "4")]
    pub deep: bool,
    #[prost(uint64, tag = "5")]
    pub scrub: u64,
    /// The member waits until it has applied up to here.
    #[prost(message, optional, tag = "6")]
    pub at_version: Option<Version>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ScrubMap {
    #[prost(uint64, tag = "1")]
    pub interval: u64,
    #[prost(uint64, tag = "2")]
    pub scrub: u64,
    #[prost(message, repeated, tag = "3")]
    pub objects: Vec<ScrubObject>,
    /// The request's, to tell answers apart.
    #[prost(bytes = "bytes", tag = "4")]
    pub end: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ScrubObject {
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectName>,
    #[prost(uint64, tag = "2")]
    pub size: u64,
    #[prost(fixed64, tag = "3")]
    pub attrs_digest: u64,
    /// Deep only: crc32 over all data, and digest of the omap.
    #[prost(uint32, optional, tag = "4")]
    pub data_crc: Option<u32>,
    #[prost(fixed64, optional, tag = "5")]
    pub omap_digest: Option<u64>,
    /// Blocks that could not be read or whose checksum failed.
    #[prost(uint64, repeated, tag = "6")]
    pub bad_blocks: Vec<u64>,
    #[prost(bool, tag = "7")]
    pub read_error: bool,
    #[prost(message, optional, tag = "8")]
    pub version: Option<Version>,
}

/// An administrator (or monitor) asks a primary: query, scrub, deep-scrub, repair, mark_unfound_lost; or the OSD itself
/// (status, config, dump of operations in flight).
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PgAdmin {
    #[prost(string, tag = "1")]
    pub command: String,
    #[prost(string, tag = "2")]
    pub json: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PgAdminReply {
    #[prost(enumeration = "crate::ErrorCode", tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(string, tag = "3")]
    pub json: String,
}
