//! What the store asks of an ordered key-value store. RocksDB with its WAL off in `runtime`, a crash-faulting model in
//! `sim`.
//!
//! Writes are visible at once and durable only after a later flush has completed; a crash leaves exactly the state of
//! the last completed flush, all of it atomically (column families or none: one keyspace).

use bytes::Bytes;

/// One change to a keyspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KvOp {
    Put {
        key: Vec<u8>,
        value: Bytes,
    },
    Delete {
        key: Vec<u8>,
    },
    /// Deletes `[first, end)`.
    DeleteRange {
        first: Vec<u8>,
        end: Vec<u8>,
    },
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the index failed: {0}")]
pub struct KvError(pub String);

pub trait Kv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// Visits the pairs of `[first, end)` in key order until `visit` returns false.
    fn scan(
        &self,
        first: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), KvError>;

    /// Applies all of `ops` in order, atomically, without making them durable.
    fn write(&mut self, ops: Vec<KvOp>) -> Result<(), KvError>;

    /// Starts making durable everything written so far, atomically; `KvFlushed { token }` reports the end. At most
    /// one flush is under way; writes meanwhile belong to the next.
    fn start_flush(&mut self, token: u64);

    /// The same, waiting for it. Only at mount, format and unmount.
    fn flush_sync(&mut self) -> Result<(), KvError>;
}
