//! The osdmap's past: a full map and every step since, bounded in number and bytes.

use bytes::Bytes;
use nacre_maps::{Incremental, OsdMap};
use nacre_types::Epoch;
use std::collections::VecDeque;

/// Steps kept. Older ones fold into the full map at the start.
const EPOCHS_MAX: usize = 1_000;
const BYTES_MAX: usize = 16 << 20;

#[derive(Clone, Debug)]
pub(crate) struct History {
    /// The map the first step applies to.
    base: OsdMap,
    steps: VecDeque<Bytes>,
    bytes: usize,
}

impl History {
    pub fn new(base: OsdMap) -> History {
        History { base, steps: VecDeque::new(), bytes: 0 }
    }

    pub fn from_parts(base: OsdMap, steps: Vec<Bytes>) -> History {
        let bytes = steps.iter().map(Bytes::len).sum();
        History { base, steps: steps.into(), bytes }
    }

    pub fn base(&self) -> &OsdMap {
        &self.base
    }

    pub fn steps(&self) -> &VecDeque<Bytes> {
        &self.steps
    }

    pub fn newest(&self) -> Epoch {
        Epoch(self.base.epoch().0 + self.steps.len() as u64)
    }

    /// Newest epoch from which steps lead on.
    pub fn oldest(&self) -> Epoch {
        self.base.epoch()
    }

    /// Adds an encoded step that has been applied to the newest map.
    pub fn push(&mut self, step: Bytes) {
        self.bytes += step.len();
        self.steps.push_back(step);
        while self.steps.len() > EPOCHS_MAX || (self.bytes > BYTES_MAX && self.steps.len() > 1) {
            let Some(step) = self.steps.pop_front() else { break };
            self.bytes -= step.len();
            let next = Incremental::decode(&step).and_then(|step| self.base.apply(&step));
            self.base = next.expect("a step that was applied once applies again");
        }
    }

    /// The steps after `epoch`, if all of them are still there.
    pub fn after(&self, epoch: Epoch) -> Option<impl Iterator<Item = &Bytes>> {
        let at = epoch.0.checked_sub(self.base.epoch().0)?;
        (at <= self.steps.len() as u64).then(|| self.steps.range(at as usize..))
    }

    /// The map at an epoch of the past.
    pub fn at(&self, epoch: Epoch) -> Option<OsdMap> {
        let count = epoch.0.checked_sub(self.base.epoch().0)?;
        if count > self.steps.len() as u64 {
            return None;
        }
        let mut map = self.base.clone();
        for step in self.steps.range(..count as usize) {
            map = map.apply(&Incremental::decode(step).ok()?).ok()?;
        }
        Some(map)
    }
}
