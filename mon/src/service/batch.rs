//! One change of the replicated state as it stands in the Raft log: what changes, who asked, what they are answered.
//!
//! A batch holds effects, not intentions, so that monitors of different versions agree on its outcome, and it names the
//! state it was made for: applied to any other it does nothing.

use bytes::Bytes;
use nacre_types::{ClientId, RequestId};
use nacre_wire::messages::{CommandReply, LogLine};
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Batch {
    /// [`super::Service::version`] of the state it was made for.
    #[prost(uint64, tag = "1")]
    pub base: u64,
    /// The leader's wall clock.
    #[prost(uint64, tag = "2")]
    pub at_ms: u64,
    /// Tells the proposer its own batch.
    #[prost(fixed64, tag = "3")]
    pub nonce: u64,
    /// Encoded `maps::Incremental`.
    #[prost(bytes = "bytes", optional, tag = "4")]
    pub osdmap: Option<Bytes>,
    #[prost(message, repeated, tag = "5")]
    pub auth: Vec<AuthChange>,
    #[prost(message, repeated, tag = "6")]
    pub config: Vec<ConfigChange>,
    #[prost(message, repeated, tag = "7")]
    pub log: Vec<LogLine>,
    /// Encoded `maps::MonMap`.
    #[prost(bytes = "bytes", optional, tag = "8")]
    pub monmap: Option<Bytes>,
    #[prost(message, repeated, tag = "9")]
    pub answers: Vec<Answer>,
}

/// An absent entry removes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AuthChange {
    #[prost(string, tag = "1")]
    pub entity: String,
    #[prost(message, optional, tag = "2")]
    pub entry: Option<AuthChangeEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AuthChangeEntry {
    #[prost(btree_map = "string, string", tag = "1")]
    pub caps: BTreeMap<String, String>,
    #[prost(uint64, tag = "2")]
    pub created_ms: u64,
}

/// An absent value removes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ConfigChange {
    #[prost(string, tag = "1")]
    pub who: String,
    #[prost(string, tag = "2")]
    pub key: String,
    #[prost(string, optional, tag = "3")]
    pub value: Option<String>,
}

/// What a command was answered, kept so that its resend gets the same answer and has no second effect.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Answer {
    #[prost(string, tag = "1")]
    pub entity: String,
    #[prost(fixed64, tag = "2")]
    client: u64,
    #[prost(uint64, tag = "3")]
    seq: u64,
    #[prost(message, optional, tag = "4")]
    pub reply: Option<CommandReply>,
}

impl Answer {
    pub fn new(entity: &str, request: RequestId, reply: CommandReply) -> Answer {
        Answer { entity: entity.into(), client: request.client.0, seq: request.seq, reply: Some(reply) }
    }

    pub fn request(&self) -> RequestId {
        RequestId { client: ClientId(self.client), seq: self.seq }
    }
}
