//! Messages between monitors and everybody, and among monitors.

use bytes::Bytes;
use std::collections::BTreeMap;

/// The receiver will not handle a message: unknown kind, not allowed for that peer, wrong cluster. Never answered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Refused {
    #[prost(enumeration = "crate::ErrorCode", tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    /// Kind number of the refused message.
    #[prost(uint32, tag = "3")]
    pub kind: u32,
}

/// Asks a monitor for maps from here on. Sent again on every new connection; a monitor answers with what is newer
/// than the epochs named, then with every change, until the connection ends.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Subscribe {
    /// Newest osdmap epoch the subscriber has; 0 for none.
    #[prost(uint64, tag = "1")]
    pub osdmap: u64,
    #[prost(uint64, tag = "2")]
    pub monmap: u64,
    #[prost(uint64, tag = "3")]
    pub authmap: u64,
    #[prost(uint64, tag = "4")]
    pub config: u64,
    /// Lines of the cluster log after this number; absent for none.
    #[prost(uint64, optional, tag = "5")]
    pub log_after: Option<u64>,
    /// Only answer once; do not keep sending.
    #[prost(bool, tag = "6")]
    pub once: bool,
}

/// Maps, from a monitor to a subscriber, or osdmaps from any daemon to one whose epoch is behind.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Maps {
    #[prost(string, tag = "1")]
    pub fsid: String,
    /// Encoded `maps::OsdMap`, when the incrementals the receiver would need are gone or it has none.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub osdmap: Option<Bytes>,
    /// Encoded `maps::Incremental`s, of consecutive epochs.
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub incrementals: Vec<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub monmap: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "5")]
    pub authmap: Option<Bytes>,
    #[prost(bytes = "bytes", optional, tag = "6")]
    pub config: Option<Bytes>,
    #[prost(message, repeated, tag = "7")]
    pub log: Vec<LogLine>,
    /// The sender's newest and oldest osdmap epochs.
    #[prost(uint64, tag = "8")]
    pub newest: u64,
    #[prost(uint64, tag = "9")]
    pub oldest: u64,
}

/// Asks a peer for the osdmap incrementals after an epoch. Answered by [`Maps`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MapRequest {
    #[prost(uint64, tag = "1")]
    pub after: u64,
    /// A full map will do.
    #[prost(bool, tag = "2")]
    pub full: bool,
}

/// An administrator's or daemon's request to the monitors: a JSON object whose `prefix` names the command.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Command {
    #[prost(string, tag = "1")]
    pub json: String,
    /// Bulk input, such as a CRUSH map.
    #[prost(bytes = "bytes", tag = "2")]
    pub input: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CommandReply {
    #[prost(enumeration = "crate::ErrorCode", tag = "1")]
    pub code: i32,
    /// For people: what happened, or why not and what to do.
    #[prost(string, tag = "2")]
    pub message: String,
    /// For programs.
    #[prost(string, tag = "3")]
    pub json: String,
    #[prost(bytes = "bytes", tag = "4")]
    pub output: Bytes,
    /// Osdmap epoch in which the change took effect, 0 if it changed none.
    #[prost(uint64, tag = "5")]
    pub epoch: u64,
}

/// An OSD has started and wants to be up.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OsdBoot {
    #[prost(uint32, tag = "1")]
    pub osd: u32,
    /// The store's identity; must match what the map knows of this OSD.
    #[prost(string, tag = "2")]
    pub uuid: String,
    /// Random number of this run: a map that shows another one means this run is not the one that is up.
    #[prost(fixed64, tag = "3")]
    pub instance: u64,
    /// `ip:port` of the QUIC endpoint.
    #[prost(string, tag = "4")]
    pub address: String,
    #[prost(string, tag = "5")]
    pub host: String,
    #[prost(string, tag = "6")]
    pub device_class: String,
    /// Data bytes the device can hold: the CRUSH weight of a new OSD.
    #[prost(uint64, tag = "7")]
    pub capacity_bytes: u64,
    /// CRUSH location, as `type=name` pairs; empty for `host=HOST root=default`.
    #[prost(btree_map = "string, string", tag = "8")]
    pub location: BTreeMap<String, String>,
    /// Newest and oldest osdmap this OSD has stored.
    #[prost(uint64, tag = "9")]
    pub newest_map: u64,
    #[prost(uint64, tag = "10")]
    pub oldest_map: u64,
    #[prost(string, tag = "11")]
    pub version: String,
    #[prost(btree_map = "string, string", tag = "12")]
    pub metadata: BTreeMap<String, String>,
}

/// A primary needs `up_thru` recorded at or past `epoch` before it may activate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OsdAlive {
    #[prost(uint32, tag = "1")]
    pub osd: u32,
    #[prost(fixed64, tag = "2")]
    pub instance: u64,
    #[prost(uint64, tag = "3")]
    pub want_up_thru: u64,
}

/// A peer has not answered heartbeats, or (with `recovered`) answers again.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OsdFailure {
    #[prost(uint32, tag = "1")]
    pub reporter: u32,
    #[prost(uint32, tag = "2")]
    pub failed: u32,
    #[prost(fixed64, tag = "3")]
    pub failed_instance: u64,
    #[prost(uint64, tag = "4")]
    pub silent_ms: u64,
    #[prost(bool, tag = "5")]
    pub recovered: bool,
    /// The peer's process is certainly gone (connection refused), not just silent.
    #[prost(bool, tag = "6")]
    pub refused: bool,
}

/// An OSD stops in order and wants to be marked down at once.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OsdStopping {
    #[prost(uint32, tag = "1")]
    pub osd: u32,
    #[prost(fixed64, tag = "2")]
    pub instance: u64,
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// A primary asks for other acting sets while PGs recover; an empty set takes the request back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OsdPgTemp {
    #[prost(uint32, tag = "1")]
    pub osd: u32,
    #[prost(message, repeated, tag = "2")]
    pub wants: Vec<PgTempWant>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PgTempWant {
    #[prost(uint64, tag = "1")]
    pub pg: u64,
    #[prost(uint32, repeated, tag = "2")]
    pub acting: Vec<u32>,
}

/// An OSD's regular report to the monitors: space, performance, and the PGs it is primary of.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OsdStats {
    #[prost(uint32, tag = "1")]
    pub osd: u32,
    #[prost(fixed64, tag = "2")]
    pub instance: u64,
    #[prost(uint64, tag = "3")]
    pub total_bytes: u64,
    #[prost(uint64, tag = "4")]
    pub used_bytes: u64,
    #[prost(message, repeated, tag = "5")]
    pub pgs: Vec<PgStat>,
    /// All PGs of this OSD, whether primary or not.
    #[prost(uint32, tag = "6")]
    pub pg_count: u32,
    #[prost(uint64, tag = "7")]
    pub objects: u64,
    /// Requests older than the slow-op threshold.
    #[prost(uint32, tag = "8")]
    pub slow_ops: u32,
    #[prost(uint64, tag = "9")]
    pub commit_latency_us: u64,
}

/// One PG as its primary sees it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PgStat {
    #[prost(uint64, tag = "1")]
    pub pg: u64,
    /// Ceph's words joined by `+`, such as `active+clean`.
    #[prost(string, tag = "2")]
    pub state: String,
    #[prost(uint64, tag = "3")]
    pub reported_epoch: u64,
    #[prost(uint64, tag = "4")]
    pub reported_seq: u64,
    #[prost(uint32, repeated, tag = "5")]
    pub up: Vec<u32>,
    #[prost(uint32, repeated, tag = "6")]
    pub acting: Vec<u32>,
    #[prost(uint64, tag = "7")]
    pub objects: u64,
    #[prost(uint64, tag = "8")]
    pub bytes: u64,
    #[prost(uint64, tag = "9")]
    pub degraded: u64,
    #[prost(uint64, tag = "10")]
    pub misplaced: u64,
    #[prost(uint64, tag = "11")]
    pub unfound: u64,
    #[prost(uint64, tag = "12")]
    pub log_entries: u64,
    #[prost(uint64, tag = "13")]
    pub last_scrub_ms: u64,
    #[prost(uint64, tag = "14")]
    pub last_deep_scrub_ms: u64,
    #[prost(uint64, tag = "15")]
    pub scrub_errors: u64,
    /// Why it waits, for people; empty when active and clean.
    #[prost(string, tag = "16")]
    pub waiting_for: String,
    #[prost(uint64, tag = "17")]
    pub last_update_epoch: u64,
    #[prost(uint64, tag = "18")]
    pub last_update_seq: u64,
    /// Counters since the primary took over.
    #[prost(uint64, tag = "19")]
    pub read_ops: u64,
    #[prost(uint64, tag = "20")]
    pub read_bytes: u64,
    #[prost(uint64, tag = "21")]
    pub write_ops: u64,
    #[prost(uint64, tag = "22")]
    pub write_bytes: u64,
    #[prost(uint64, tag = "23")]
    pub recovered_objects: u64,
    #[prost(uint64, tag = "24")]
    pub recovered_bytes: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, prost::Enumeration)]
#[repr(i32)]
pub enum LogLevel {
    Debug = 0,
    Info = 1,
    Warning = 2,
    Error = 3,
}

/// Lines for the cluster log, from a daemon.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ClusterLog {
    #[prost(message, repeated, tag = "1")]
    pub lines: Vec<LogLine>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct LogLine {
    /// Number in the cluster log, given by the monitors.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(uint64, tag = "2")]
    pub at_ms: u64,
    #[prost(string, tag = "3")]
    pub who: String,
    #[prost(enumeration = "LogLevel", tag = "4")]
    pub level: i32,
    #[prost(string, tag = "5")]
    pub text: String,
}

/// What an OSD tells about itself on request (`status`, `dump`): free-form JSON answers to `PgAdmin`-like queries.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OsdReport {
    #[prost(string, tag = "1")]
    pub json: String,
}

/// A raft-rs message, encoded by raft-rs.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MonRaft {
    #[prost(uint64, tag = "1")]
    pub from: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub message: Bytes,
}

/// A monitor hands a message it cannot serve to the leader.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MonForward {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Who sent the original.
    #[prost(string, tag = "2")]
    pub entity: String,
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub body: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MonForwardReply {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint32, tag = "2")]
    pub kind: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
}

/// A piece of a checkpoint of the replicated state, for a monitor too far behind for the log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MonCheckpoint {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(uint64, tag = "2")]
    pub term: u64,
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    #[prost(uint64, tag = "4")]
    pub total: u64,
    #[prost(bytes = "bytes", tag = "5")]
    pub piece: Bytes,
}

/// Monitors greet each other: who the sender thinks leads, and how far it is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MonHello {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint64, tag = "2")]
    pub raft_id: u64,
    #[prost(uint64, tag = "3")]
    pub leader: u64,
    #[prost(uint64, tag = "4")]
    pub applied: u64,
}
