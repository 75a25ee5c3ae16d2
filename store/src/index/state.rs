//! The few records about the store itself.

/// Whose index this is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Identity {
    #[prost(string, tag = "1")]
    pub fsid: String,
    #[prost(string, tag = "2")]
    pub osd_uuid: String,
}

/// The last journal record whose changes the index holds; written with them atomically, so it is exact after a crash.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Applied {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// Journal position after that record.
    #[prost(uint64, tag = "2")]
    pub position: u64,
    /// Object numbers from here on are unused.
    #[prost(uint64, tag = "3")]
    pub next_number: u64,
}

/// Everything up to this record is on the disk in place: replay starts after it.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Checkpointed {
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    #[prost(uint64, tag = "2")]
    pub position: u64,
    /// Counts mounts. Records of another incarnation are not replayed: a mount discards what it did not accept for
    /// good.
    #[prost(uint64, tag = "3")]
    pub incarnation: u64,
}

/// Decodes any of the above.
pub(crate) fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

/// Encodes any of the above.
pub(crate) fn encode<M: prost::Message>(message: &M) -> bytes::Bytes {
    message.encode_to_vec().into()
}
