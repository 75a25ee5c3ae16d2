//! The store as its user sees it: what an OSD asks of it, and the events it gives back.
//!
//! Metadata (sizes, xattrs, omap, listings, PG metadata) is answered at once; data reads and commits come back as
//! [`StoreEvent`]s. **Every answer and every read sees all transactions submitted before it**, committed or not:
//! who must not show an uncommitted write keeps track of what is in flight.

use crate::{DiskError, KvError};
use bytes::Bytes;
use nacre_types::{ObjectId, PgId};
use nacre_wire::{Data, Transaction};

/// What the store reports to its user, in order per transaction: commits come in the order of submission.
#[derive(Clone, PartialEq, Debug)]
pub enum StoreEvent {
    /// The transaction submitted under this token is durable here.
    Committed { token: u64 },
    /// A read has ended. The data is exactly as long as what was asked for and lies inside the object; its checksums
    /// are those of the asked offset's chunks, and the bytes have been verified against what the disk keeps.
    ReadDone { token: u64, result: Result<Data, StoreError> },
    /// The store can promise nothing more (a failed flush, a failed journal write): the daemon must stop.
    Failed(StoreError),
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the checksum of block {block} of {object} does not match what the disk returned")]
    Checksum { object: String, block: u64 },
    #[error("disk: {0}")]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    #[error("{object} does not exist")]
    NotFound { object: String },
    #[error("the device is full, and its reserve too; add OSDs, or delete data before it gets this far")]
    NoSpace,
}

/// What is known of an object without reading its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ObjectStat {
    pub size: u64,
    /// Bytes of blocks it occupies, shared ones included.
    pub allocated_bytes: u64,
}

/// How full the device is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    pub total_bytes: u64,
    pub used_bytes: u64,
    /// Neither used nor free: given back, and to be had again after the next checkpoint.
    pub freed_bytes: u64,
}

/// Costs since mount, for status pages and for tests that count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreStats {
    pub transactions: u64,
    pub journal_writes: u64,
    pub journal_bytes: u64,
    /// Journal records whose writes, and those of their data elsewhere, have ended; their flush perhaps not.
    pub journal_written: u64,
    pub flushes: u64,
    pub deferred_writes: u64,
    pub deferred_bytes: u64,
    pub checkpoints: u64,
    pub discards: u64,
    pub discarded_bytes: u64,
    /// After one nothing is discarded before the next mount.
    pub discard_errors: u64,
    pub reads: u64,
    pub read_bytes: u64,
    pub checksum_errors: u64,
}

pub trait ObjectStore {
    /// Queues an atomic change. `Committed { token }` follows once it is durable. Transactions of one store commit in
    /// the order they were submitted. The checksums of its writes are stored as they are for whole blocks and are
    /// verified where a block is only partly written.
    fn submit(&mut self, token: u64, transaction: Transaction);

    /// Reads `length` bytes at `offset`. What lies beyond the object's end must not be asked for. Holes read as zeroes.
    fn read(&mut self, token: u64, object: &ObjectId, offset: u64, length: u64);

    fn stat(&self, object: &ObjectId) -> Result<Option<ObjectStat>, StoreError>;
    fn attr(&self, object: &ObjectId, name: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// All xattrs in key order; empty if the object does not exist.
    fn attrs(&self, object: &ObjectId) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
    fn omap_get(&self, object: &ObjectId, keys: &[Bytes]) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
    /// Pairs with keys after `after` (from the beginning if `None`) and with `prefix`; at most `entries_max`. The bool
    /// says that more follow.
    fn omap_list(
        &self,
        object: &ObjectId,
        after: Option<&[u8]>,
        prefix: &[u8],
        entries_max: usize,
    ) -> Result<(Vec<(Bytes, Bytes)>, bool), StoreError>;
    /// The allocated parts of a range, ascending, as (offset, length), cut to the range and the object's size.
    fn extents(&self, object: &ObjectId, offset: u64, length: u64) -> Result<Vec<(u64, u64)>, StoreError>;
    /// Objects whose `ObjectId::key` lies in `(after, end)`, or `[first, end)` where `after` is not itself an object;
    /// in key order, at most `entries_max`. To start at a PG's first key inclusively pass it as `after` with
    /// `inclusive`.
    fn list(
        &self,
        after: &[u8],
        inclusive: bool,
        end: &[u8],
        entries_max: usize,
    ) -> Result<Vec<ObjectId>, StoreError>;

    fn meta_get(&self, pg: PgId, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// Visits the PG's metadata in `[first, end)` in key order until `visit` returns false; an empty `end` is "to the
    /// last".
    fn meta_scan(
        &self,
        pg: PgId,
        first: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;
    /// Every PG that has metadata.
    fn meta_pgs(&self) -> Result<Vec<PgId>, StoreError>;

    fn usage(&self) -> Usage;
    /// Bytes of submitted transactions that wait for the journal. Grows while the journal is full or write-back is
    /// behind: whoever submits should then take less from its clients.
    fn backlog_bytes(&self) -> u64 {
        0
    }
    /// To be called now and then: makes what has been freed available again, if that is much. It happens by itself only as
    /// the journal fills or space gets short.
    fn reclaim(&mut self) {}
    fn stats(&self) -> StoreStats;

    /// Takes the next event, if there is one.
    fn poll_event(&mut self) -> Option<StoreEvent>;
    /// Whether [`ObjectStore::poll_disk`] has something to give.
    fn wants_disk(&self) -> bool;
    /// Takes the next disk request to carry out, in order. What has been submitted by then becomes one journal record,
    /// if none is under way: to be called until it returns nothing, once nothing more is at hand to submit.
    fn poll_disk(&mut self) -> Option<crate::DiskRequest>;
    fn disk_done(&mut self, done: crate::DiskDone);
    /// The end of a flush that the store started on its `Kv`.
    fn kv_flushed(&mut self, token: u64, result: Result<(), KvError>);
}

/// Holds an OSD's own metadata (superblock, maps): no pool has this number.
pub const OSD_META: PgId = PgId::new(nacre_types::PoolId(u32::MAX), 0);
