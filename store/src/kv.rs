//! What the store asks of an ordered key-value store. RocksDB with its WAL off in `runtime`, a crash-faulting model in
//! `sim`.
//!
//! Writes are visible at once and durable only after a later flush has completed; a crash leaves the state of a completed
//! flush, no older than the last that was reported (column families or none: one keyspace).

use crate::Changes;
use bytes::Bytes;
use std::sync::Arc;

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

    /// Applies all of `ops` in order, atomically, without making them durable. Not while a flush is under way.
    fn write(&mut self, ops: Vec<KvOp>) -> Result<(), KvError>;

    /// Starts making `changes` durable, atomically, with all that was written before; `KvFlushed { token }` reports the end.
    /// Until then look-ups of what they change may see any of it, or none. At most one flush is under way.
    fn start_flush(&mut self, token: u64, changes: Arc<Changes>);

    /// Frees what a flush that has ended was given: that may take longer than whoever calls this has.
    fn release(&mut self, changes: Arc<Changes>) {
        drop(changes);
    }

    /// Makes what was written durable and waits for it, and for a flush under way. Only at mount, format and unmount.
    fn flush_sync(&mut self) -> Result<(), KvError>;
}
