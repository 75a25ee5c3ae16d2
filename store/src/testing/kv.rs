//! An index in memory with RocksDB's crash semantics (WAL off, one column family): writes are lost back to some point
//! between two of them, at or after the last completed flush, because a memtable may be flushed at any time.

use super::Loss;
use crate::{Changes, Kv, KvError, KvOp};
use bytes::Bytes;
use nacre_types::Rng;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

type Keys = BTreeMap<Vec<u8>, Bytes>;

/// A flush under way.
#[derive(Debug)]
struct Flush {
    token: u64,
    ops: Vec<KvOp>,
    /// Look-ups see the changes already.
    visible: bool,
}

#[derive(Debug)]
struct Inner {
    rng: Rng,
    now: Keys,
    durable: Keys,
    /// Writes not in `durable`.
    log: Vec<Vec<KvOp>>,
    flushing: Option<Flush>,
    fail_writes: bool,
    fail_flushes: bool,
    /// The device under it lies about flushes: what is flushed survives the process, not the power.
    lies: bool,
    /// What was durable when the lies began, and the writes that are said to be since.
    lied: Option<(Keys, Vec<Vec<KvOp>>)>,
    /// Flushes of so many in a thousand fail for a while.
    flaky: u64,
    /// Flushes that failed so.
    passing_errors: u64,
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
            lies: false,
            lied: None,
            flaky: 0,
            passing_errors: 0,
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
        let Flush { token, ops, visible } = inner.flushing.take()?;
        if !visible {
            apply(&mut inner.now, ops.clone());
        }
        // If the flush fails, a later one of the index's own may still succeed.
        inner.log.push(ops);
        if inner.fail_writes {
            return Some((token, Err(KvError("injected write failure".into()))));
        }
        if inner.fail_flushes {
            return Some((token, Err(KvError("injected flush failure".into()))));
        }
        if let Err(error) = inner.passes_by() {
            return Some((token, Err(error)));
        }
        let all = inner.log.len();
        inner.make_durable(all);
        Some((token, Ok(())))
    }

    /// The power goes, or the daemon dies: both lose the memtables.
    pub fn power(&self) {
        let mut inner = self.inner.borrow_mut();
        if let Some(flush) = inner.flushing.take() {
            inner.log.push(flush.ops);
        }
        let most = inner.log.len() as u64 + 1;
        let point = if inner.rng.chance(1, 2) { 0 } else { inner.rng.below(most) as usize };
        inner.make_durable(point);
        inner.log.clear();
        inner.now = inner.durable.clone();
    }

    /// The power of a device goes that lied: so does what it said was durable.
    pub fn power_with(&self, loss: Loss) {
        let mut inner = self.inner.borrow_mut();
        if let Some((mut durable, mut log)) = inner.lied.take() {
            let kept = match loss {
                Loss::Any => inner.rng.below(log.len() as u64 + 1) as usize,
                loss => loss.kept(log.len()),
            };
            log.drain(..kept).for_each(|ops| apply(&mut durable, ops));
            (inner.durable, inner.now) = (durable.clone(), durable);
            (inner.log, inner.flushing) = (Vec::new(), None);
        } else {
            drop(inner);
            self.power();
        }
    }

    /// From now on the device under it lies about flushes; or not any more, and what was said to be durable is.
    pub fn lie(&self, lies: bool) {
        let mut inner = self.inner.borrow_mut();
        inner.lies = lies;
        match lies {
            true if inner.lied.is_none() => inner.lied = Some((inner.durable.clone(), Vec::new())),
            true => {}
            false => inner.lied = None,
        }
    }

    /// From now on flushes of so many in a thousand fail.
    pub fn set_flaky(&self, permille: u64) {
        self.inner.borrow_mut().flaky = permille;
    }

    pub fn is_flaky(&self) -> bool {
        self.inner.borrow().flaky > 0
    }

    /// Flushes that failed and would have succeeded later, since this was last asked.
    pub fn take_passing_errors(&self) -> u64 {
        std::mem::take(&mut self.inner.borrow_mut().passing_errors)
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
    /// Whether a flush fails at the moment.
    fn passes_by(&mut self) -> Result<(), KvError> {
        if self.flaky > 0 && self.rng.chance(self.flaky, 1000) {
            self.passing_errors += 1;
            return Err(KvError("injected flush failure, for a while".into()));
        }
        Ok(())
    }

    fn make_durable(&mut self, point: usize) {
        let point = point.min(self.log.len());
        for ops in self.log.drain(..point) {
            if let Some((_, lied)) = &mut self.lied {
                lied.push(ops.clone());
            }
            apply(&mut self.durable, ops);
        }
    }

    fn count(&mut self, ops: &[KvOp]) {
        let bytes = ops.iter().map(|op| match op {
            KvOp::Put { key, value } => (key.len() + value.len()) as u64,
            _ => 0,
        });
        self.bytes_written += bytes.sum::<u64>();
    }
}

fn apply(map: &mut Keys, ops: Vec<KvOp>) {
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
        assert!(inner.flushing.is_none(), "nothing is written while a flush is under way");
        inner.count(&ops);
        inner.log.push(ops.clone());
        apply(&mut inner.now, ops);
        if inner.rng.chance(1, 16) {
            // A memtable was full.
            let point = inner.log.len();
            inner.make_durable(point);
        }
        Ok(())
    }

    fn start_flush(&mut self, token: u64, changes: Arc<Changes>) {
        let mut inner = self.inner.borrow_mut();
        assert!(inner.flushing.is_none(), "one flush at a time");
        let (ops, visible) = (changes.ops(), inner.rng.chance(1, 2));
        inner.count(&ops);
        if visible {
            apply(&mut inner.now, ops.clone());
        }
        inner.flushing = Some(Flush { token, ops, visible });
    }

    fn flush_sync(&mut self) -> Result<(), KvError> {
        if let Some((_, result)) = self.complete_flush() {
            result?;
        }
        let mut inner = self.inner.borrow_mut();
        if inner.fail_flushes {
            return Err(KvError("injected flush failure".into()));
        }
        inner.passes_by()?;
        let point = inner.log.len();
        inner.make_durable(point);
        Ok(())
    }
}
