//! An index in memory with RocksDB's crash semantics (WAL off, one column family): writes are lost back to some point
//! between two of them, at or after the last completed flush, because a memtable may be flushed at any time.

use crate::{Kv, KvError, KvOp};
use bytes::Bytes;
use nacre_types::Rng;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Debug)]
struct Inner {
    rng: Rng,
    now: BTreeMap<Vec<u8>, Bytes>,
    durable: BTreeMap<Vec<u8>, Bytes>,
    /// Writes not in `durable`.
    log: Vec<Vec<KvOp>>,
    /// (token, writes it covers) of the flush under way.
    flushing: Option<(u64, usize)>,
    fail_writes: bool,
    fail_flushes: bool,
    /// Bytes of keys and values written so far.
    bytes_written: u64,
}

/// A handle; clones share the index, so it outlives the store that uses it.
#[derive(Clone, Debug)]
pub struct SimKv {
    inner: Rc<RefCell<Inner>>,
}

impl SimKv {
    pub fn new(seed: u64) -> SimKv {
        let inner = Inner {
            rng: Rng::new(seed),
            now: BTreeMap::new(),
            durable: BTreeMap::new(),
            log: Vec::new(),
            flushing: None,
            fail_writes: false,
            fail_flushes: false,
            bytes_written: 0,
        };
        SimKv { inner: Rc::new(RefCell::new(inner)) }
    }

    /// Whether a flush is under way.
    pub fn is_flushing(&self) -> bool {
        self.inner.borrow().flushing.is_some()
    }

    /// Ends the flush under way: hand the answer to `ObjectStore::kv_flushed`.
    pub fn complete_flush(&self) -> Option<(u64, Result<(), KvError>)> {
        let mut inner = self.inner.borrow_mut();
        let (token, point) = inner.flushing.take()?;
        if inner.fail_flushes {
            return Some((token, Err(KvError("injected flush failure".into()))));
        }
        inner.make_durable(point);
        Some((token, Ok(())))
    }

    /// The power goes, or the daemon dies: both lose the memtables.
    pub fn power(&self) {
        let mut inner = self.inner.borrow_mut();
        let most = inner.log.len() as u64 + 1;
        let point = if inner.rng.chance(1, 2) { 0 } else { inner.rng.below(most) as usize };
        inner.make_durable(point);
        inner.log.clear();
        inner.flushing = None;
        inner.now = inner.durable.clone();
    }

    pub fn fail_writes(&self, fail: bool) {
        self.inner.borrow_mut().fail_writes = fail;
    }

    pub fn fail_flushes(&self, fail: bool) {
        self.inner.borrow_mut().fail_flushes = fail;
    }

    pub fn bytes_written(&self) -> u64 {
        self.inner.borrow().bytes_written
    }

    /// Keys there are now.
    pub fn key_count(&self) -> usize {
        self.inner.borrow().now.len()
    }
}

impl Inner {
    fn make_durable(&mut self, point: usize) {
        let point = point.min(self.log.len());
        for ops in self.log.drain(..point) {
            apply(&mut self.durable, ops);
        }
        if let Some((_, covered)) = &mut self.flushing {
            *covered = covered.saturating_sub(point);
        }
    }
}

fn apply(map: &mut BTreeMap<Vec<u8>, Bytes>, ops: Vec<KvOp>) {
    for op in ops {
        match op {
            KvOp::Put { key, value } => drop(map.insert(key, value)),
            KvOp::Delete { key } => drop(map.remove(&key)),
            KvOp::DeleteRange { first, end } if first < end => {
                let keys: Vec<Vec<u8>> = map.range(first..end).map(|(k, _)| k.clone()).collect();
                keys.iter().for_each(|key| drop(map.remove(key)));
            }
            KvOp::DeleteRange { .. } => {}
        }
    }
}

impl Kv for SimKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        Ok(self.inner.borrow().now.get(key).cloned())
    }

    fn scan(
        &self,
        first: &[u8],
        end: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), KvError> {
        let inner = self.inner.borrow();
        if first >= end {
            return Ok(());
        }
        for (key, value) in inner.now.range(first.to_vec()..end.to_vec()) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn write(&mut self, ops: Vec<KvOp>) -> Result<(), KvError> {
        let mut inner = self.inner.borrow_mut();
        if inner.fail_writes {
            return Err(KvError("injected write failure".into()));
        }
        for op in &ops {
            if let KvOp::Put { key, value } = op {
                inner.bytes_written += (key.len() + value.len()) as u64;
            }
        }
        inner.log.push(ops.clone());
        apply(&mut inner.now, ops);
        if inner.rng.chance(1, 16) && inner.flushing.is_none() {
            // A memtable was full.
            let point = inner.log.len();
            inner.make_durable(point);
        }
        Ok(())
    }

    fn start_flush(&mut self, token: u64) {
        let mut inner = self.inner.borrow_mut();
        assert!(inner.flushing.is_none(), "one flush at a time");
        inner.flushing = Some((token, inner.log.len()));
    }

    fn flush_sync(&mut self) -> Result<(), KvError> {
        let mut inner = self.inner.borrow_mut();
        if inner.fail_flushes {
            return Err(KvError("injected flush failure".into()));
        }
        let point = inner.log.len();
        inner.make_durable(point);
        Ok(())
    }
}
