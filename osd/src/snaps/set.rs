//! A head's snapshot set: its clones, oldest first.

use bytes::Bytes;
use nacre_wire::op::CloneInfo;
use prost::Message;

#[derive(Clone, PartialEq, Eq, Message)]
pub struct SnapSet {
    /// Newest snapshot that any write to the head has known of.
    #[prost(uint64, tag = "1")]
    pub seq: u64,
    /// Ascending by id. What they have in common is noted elsewhere: [`Common`](super::Common).
    #[prost(message, repeated, tag = "2")]
    pub clones: Vec<CloneInfo>,
}

/// What serves a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolved {
    Head,
    Clone(u64),
    Nothing,
}

impl SnapSet {
    pub fn from_attr(value: &[u8]) -> Option<SnapSet> {
        SnapSet::decode(value).ok()
    }

    pub fn to_attr(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    pub fn resolve(&self, snap: u64, head_exists: bool) -> Resolved {
        if snap > self.seq {
            // No write since that snapshot: the head still is what it was then.
            return if head_exists { Resolved::Head } else { Resolved::Nothing };
        }
        let serving = self.clones.iter().find(|clone| clone.id >= snap);
        match serving.filter(|clone| clone.snaps.contains(&snap)) {
            Some(clone) => Resolved::Clone(clone.id),
            None => Resolved::Nothing,
        }
    }

    /// Adds a clone of a head of `size` bytes that serves `snaps` (oldest first), all newer than those before.
    pub(crate) fn add(&mut self, snaps: Vec<u64>, size: u64) {
        let id = *snaps.last().expect("a clone serves a snapshot");
        assert!(self.clones.last().is_none_or(|newest| newest.id < id), "clones are made in order");
        self.clones.push(CloneInfo { id, snaps, size, overlap: Vec::new() });
    }
}

/// The beginning of a [`SnapSet`]: what a write has to know that makes no clone.
#[derive(Clone, PartialEq, Eq, Message)]
struct Newest {
    #[prost(uint64, tag = "1")]
    seq: u64,
}

/// [`SnapSet::seq`] of an encoded set.
pub(crate) fn seq_of(value: &[u8]) -> Option<u64> {
    Newest::decode(value).ok().map(|newest| newest.seq)
}
