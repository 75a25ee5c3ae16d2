//! When the journal began and ended its last record: what tells waiting, writing and flushing apart.
//!
//! One record is in flight at a time, so whatever commits now was in the record that began last.

use nacre_store::StoreStats;
use nacre_types::Instant;

/// Seen from outside the store, which has no clock.
#[derive(Debug, Default)]
pub(crate) struct JournalClock {
    begun: u64,
    begun_at: Instant,
    written: u64,
    written_at: Instant,
}

/// A write's time on one member, from its submission until it was durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JournalTimes {
    pub queue_ns: u64,
    pub write_ns: u64,
    pub flush_ns: u64,
}

impl JournalClock {
    /// The store was given something to do, or told of something done.
    pub fn look(&mut self, now: Instant, stats: &StoreStats) {
        if stats.journal_writes != self.begun {
            (self.begun, self.begun_at) = (stats.journal_writes, now);
        }
        if stats.journal_written != self.written {
            (self.written, self.written_at) = (stats.journal_written, now);
        }
    }

    /// Of something that is durable now.
    pub fn times(&self, submitted: Instant, now: Instant) -> JournalTimes {
        let begun = self.begun_at.max(submitted).min(now);
        let written = self.written_at.max(begun).min(now);
        let ns = |from: Instant, to: Instant| to.since(from).as_nanos() as u64;
        JournalTimes {
            queue_ns: ns(submitted, begun),
            write_ns: ns(begun, written),
            flush_ns: ns(written, now),
        }
    }
}
