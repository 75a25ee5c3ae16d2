//! Counters for the gateway's metrics: what was asked, what it moved, what failed.

use std::cell::Cell;

/// A reading of a server's counters since its start, except for the two that say what is there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections there are now.
    pub connections: u64,
    /// Requests being worked on now.
    pub requests_in_flight: u64,
    pub connections_accepted: u64,
    pub connections_refused: u64,
    /// Connections that ended by a panic, in this crate or in an export. A bug, wherever it is; the others live on.
    pub connections_panicked: u64,
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    pub trims: u64,
    pub zeroes: u64,
    /// Block status, cache, and requests that were refused before they reached an export.
    pub others: u64,
    pub failures: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
}

/// The live counters; one thread, so plain cells.
#[derive(Debug, Default)]
pub(crate) struct Counters(Cell<Stats>);

impl Counters {
    pub(crate) fn update(&self, change: impl FnOnce(&mut Stats)) {
        let mut stats = self.0.get();
        change(&mut stats);
        self.0.set(stats);
    }

    pub(crate) fn read(&self) -> Stats {
        self.0.get()
    }
}
