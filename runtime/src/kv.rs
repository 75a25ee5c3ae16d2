//! RocksDB, twice: under an OSD's store ([`RocksKv`], without a write-ahead log of its own because the store's journal is
//! one) and under a monitor ([`MonStore`], every write synced).

mod flusher;
mod mon_store;
mod options;
mod rocks;
#[cfg(test)]
mod tests;

pub use flusher::{KvFlushed, KvFlushes};
pub use mon_store::{MonStore, MonWrite, Persisted};
pub use options::KvConfig;
pub use rocks::RocksKv;

/// What is linked, for `--version`.
pub const ROCKSDB_VERSION: &str = "RocksDB 11.8, lz4";
