//! What the osdmap knows of one pool.

use nacre_types::{Epoch, SnapId};
use std::collections::BTreeMap;

/// Most PGs in a pool: bounds the table every daemon computes.
pub const PG_NUM_MAX: u32 = 65_536;

/// A replicated pool.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Pool {
    #[prost(string, tag = "1")]
    pub name: String,
    /// Copies wanted.
    #[prost(uint32, tag = "2")]
    pub size: u32,
    /// Copies without which no write is taken.
    #[prost(uint32, tag = "3")]
    pub min_size: u32,
    #[prost(uint32, tag = "4")]
    pub pg_num: u32,
    /// PGs that placement tells apart, at most `pg_num`.
    #[prost(uint32, tag = "5")]
    pub pgp_num: u32,
    #[prost(uint32, tag = "6")]
    pub rule: u32,
    #[prost(uint64, tag = "7")]
    pub created_ms: u64,
    /// Epoch the pool was made in: its PGs exist from there on.
    #[prost(uint64, tag = "8")]
    created: u64,
    #[prost(string, repeated, tag = "9")]
    pub applications: Vec<String>,
    #[prost(uint64, tag = "10")]
    pub quota_bytes_max: u64,
    #[prost(uint64, tag = "11")]
    pub quota_objects_max: u64,
    /// Newest self-managed snapshot handed out.
    #[prost(uint64, tag = "12")]
    snap_seq: u64,
    /// Snapshots that were removed, to be trimmed; ascending, never touching.
    #[prost(message, repeated, tag = "13")]
    pub removed_snaps: Vec<SnapRange>,
    /// Settings by Ceph's names (`nodelete`, `noscrub`, ...).
    #[prost(btree_map = "string, string", tag = "14")]
    pub options: BTreeMap<String, String>,
    /// Over its quota: writes get `QuotaExceeded`, deletes pass.
    #[prost(bool, tag = "15")]
    pub full: bool,
    /// All its PGs have been active: one that nobody has a copy of was lost, and is not begun anew unasked.
    #[prost(bool, tag = "16")]
    pub started: bool,
    /// PGs that are to be begun anew where nobody has a copy, by seed, and the epoch in which that was ordered.
    #[prost(btree_map = "uint32, uint64", tag = "17")]
    pub begun_anew: BTreeMap<u32, u64>,
}

/// Snapshots `start..start + length`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct SnapRange {
    #[prost(uint64, tag = "1")]
    pub start: u64,
    #[prost(uint64, tag = "2")]
    pub length: u64,
}

impl Pool {
    pub fn new(name: &str, size: u32, min_size: u32, pg_num: u32, rule: u32, created: Epoch) -> Pool {
        Pool {
            name: name.into(),
            size,
            min_size,
            pg_num,
            pgp_num: pg_num,
            rule,
            created: created.0,
            ..Pool::default()
        }
    }

    pub fn created(&self) -> Epoch {
        Epoch(self.created)
    }

    /// Whether an OSD may make the PG, empty, if nobody has a copy of it.
    pub fn may_begin(&self, seed: u32) -> bool {
        !self.started || self.begun_anew.contains_key(&seed)
    }

    pub fn snap_seq(&self) -> SnapId {
        SnapId(self.snap_seq)
    }

    /// Hands out the next snapshot id.
    pub fn create_snap(&mut self) -> SnapId {
        self.snap_seq += 1;
        SnapId(self.snap_seq)
    }

    pub fn snap_is_removed(&self, snap: SnapId) -> bool {
        let before = self.removed_snaps.partition_point(|range| range.start <= snap.0);
        before > 0 && {
            let range = self.removed_snaps[before - 1];
            snap.0 < range.start.saturating_add(range.length)
        }
    }

    /// Marks a snapshot removed. False if it never existed or already is.
    pub fn remove_snap(&mut self, snap: SnapId) -> bool {
        if snap.0 == 0 || snap.0 > self.snap_seq || self.snap_is_removed(snap) {
            return false;
        }
        let at = self.removed_snaps.partition_point(|range| range.start < snap.0);
        self.removed_snaps.insert(at, SnapRange { start: snap.0, length: 1 });
        let mut merged: Vec<SnapRange> = Vec::with_capacity(self.removed_snaps.len());
        for &range in &self.removed_snaps {
            match merged.last_mut() {
                Some(last) if last.start + last.length == range.start => last.length += range.length,
                _ => merged.push(range),
            }
        }
        self.removed_snaps = merged;
        true
    }

    /// Whether decoding produced something that placement can work with.
    pub(crate) fn is_sane(&self) -> bool {
        (1..=PG_NUM_MAX).contains(&self.pg_num)
            && (1..=self.pg_num).contains(&self.pgp_num)
            && (1..=16).contains(&self.size)
    }

    pub(crate) fn same_placement(&self, other: &Pool) -> bool {
        (self.size, self.pg_num, self.pgp_num, self.rule)
            == (other.size, other.pg_num, other.pgp_num, other.rule)
    }
}
