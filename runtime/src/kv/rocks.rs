//! The store's index in RocksDB, without its write-ahead log.
//!
//! Writes go to the memtable and are lost with the process; a flush makes all of them durable, atomically, because only
//! flushes that were asked for ever happen (see `options`). While a store runs nothing is written but by flushes.

use super::flusher::{self, Flusher, KvFlushes};
use super::{KvConfig, options};
use bytes::Bytes;
use nacre_store::{Changes, Kv, KvError, KvOp};
use rocksdb::{DB, ReadOptions, WriteBatch, properties};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a batch keeps of a change besides its bytes, at most.
const OP_BYTES: usize = 16;

pub struct RocksKv {
    // Before `db`: its thread ends before the database closes.
    flusher: Flusher,
    db: Arc<DB>,
    path: PathBuf,
}

impl RocksKv {
    /// Makes a new, empty database in a directory that has none.
    pub fn create(path: &Path, config: &KvConfig) -> Result<(RocksKv, KvFlushes), KvError> {
        if path.join("CURRENT").exists() {
            return Err(KvError(format!("{}: there is a database already", path.display())));
        }
        RocksKv::open_with(path, config, true)
    }

    /// Opens the database of an existing store.
    pub fn open(path: &Path, config: &KvConfig) -> Result<(RocksKv, KvFlushes), KvError> {
        RocksKv::open_with(path, config, false)
    }

    fn open_with(path: &Path, config: &KvConfig, create: bool) -> Result<(RocksKv, KvFlushes), KvError> {
        let failed = |reason: String| KvError(format!("{}: {reason}", path.display()));
        let open = |config: &KvConfig| {
            let mut options = options::store(config);
            options.create_if_missing(create);
            DB::open(&options, path)
        };
        let db = match open(config) {
            // Some file systems know no O_DIRECT.
            Err(error) if config.direct_io && error.to_string().contains("irect I/O") => {
                open(&KvConfig { direct_io: false, ..config.clone() })
            }
            opened => opened,
        };
        let db = Arc::new(db.map_err(|error| failed(error.into_string()))?);
        let (flusher, flushes) =
            Flusher::start(db.clone(), path.into()).map_err(|error| failed(format!("no thread: {error}")))?;
        Ok((RocksKv { flusher, db, path: path.into() }, flushes))
    }

    /// Memory of what has not been flushed. It grows until the store asks for a flush.
    pub fn unflushed_bytes(&self) -> u64 {
        self.db.property_int_value(properties::SIZE_ALL_MEM_TABLES).ok().flatten().unwrap_or(0)
    }

    fn failed(&self, what: &str, error: rocksdb::Error) -> KvError {
        KvError(format!("{}: {what}: {}", self.path.display(), error.into_string()))
    }
}

impl std::fmt::Debug for RocksKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksKv").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Kv for RocksKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        match self.db.get_pinned(key) {
            Ok(value) => Ok(value.map(|value| Bytes::copy_from_slice(&value))),
            Err(error) => Err(self.failed("get", error)),
        }
    }

    fn scan(
        &self,
        first: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), KvError> {
        if first >= end {
            return Ok(());
        }
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(end);
        let mut cursor = self.db.raw_iterator_opt(options);
        cursor.seek(first);
        while let Some((key, value)) = cursor.item() {
            if !visit(key, value) {
                return Ok(());
            }
            cursor.next();
        }
        cursor.status().map_err(|error| self.failed("scan", error))
    }

    fn write(&mut self, ops: Vec<KvOp>) -> Result<(), KvError> {
        let bytes = |op: &KvOp| match op {
            KvOp::Put { key, value } => key.len() + value.len() + OP_BYTES,
            KvOp::Delete { key } => key.len() + OP_BYTES,
            KvOp::DeleteRange { first, end } => first.len() + end.len() + OP_BYTES,
        };
        // Grown step by step, a large batch would be copied again and again.
        let mut batch = WriteBatch::with_capacity_bytes(ops.iter().map(bytes).sum());
        for (index, op) in ops.iter().enumerate() {
            match op {
                KvOp::Put { key, value } => batch.put(key, value),
                KvOp::Delete { key } => batch.delete(key),
                KvOp::DeleteRange { first, end } if first < end => {
                    flusher::delete_range(&self.db, &mut batch, first, end)
                        .map_err(|error| self.failed("scan", error))?;
                    // What this very batch has put there before is not in the database yet.
                    for op in &ops[..index] {
                        match op {
                            KvOp::Put { key, .. } if first <= key && key < end => batch.delete(key),
                            _ => {}
                        }
                    }
                }
                KvOp::DeleteRange { .. } => {}
            }
        }
        self.db.write_opt(batch, &flusher::write_options()).map_err(|error| self.failed("write", error))
    }

    fn start_flush(&mut self, token: u64, changes: Arc<Changes>) {
        self.flusher.flush(token, changes);
    }

    fn release(&mut self, changes: Arc<Changes>) {
        self.flusher.release(changes);
    }

    fn flush_sync(&mut self) -> Result<(), KvError> {
        self.flusher.sync()
    }
}
