//! Where a measured operation's time went, as clients and replicas tell its primary.
//!
//! Only durations, each between two readings of one clock: no two machines' clocks are ever compared.

use crate::op::Version;

/// What a client saw of its last measured request to this OSD, told with a later one.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ClientTimes {
    /// The request's number.
    #[prost(uint64, tag = "1")]
    pub request: u64,
    /// From the caller's asking to its answer.
    #[prost(uint64, tag = "2")]
    pub total_ns: u64,
    /// Of that, until it was sent for the first time.
    #[prost(uint64, tag = "3")]
    pub queue_ns: u64,
    /// And from then until it was sent for the last time.
    #[prost(uint64, tag = "4")]
    pub retries_ns: u64,
}

/// What a replica spent on one measured write, from its arrival until it was durable.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ReplicaTimes {
    #[prost(message, optional, tag = "1")]
    pub version: Option<Version>,
    /// Until the journal began to write it.
    #[prost(uint64, tag = "2")]
    pub queue_ns: u64,
    #[prost(uint64, tag = "3")]
    pub write_ns: u64,
    #[prost(uint64, tag = "4")]
    pub flush_ns: u64,
}
