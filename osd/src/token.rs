//! Tokens of store requests: what each commit or read was for, and the guard against answers that come too late.

use nacre_types::{EVersion, Epoch, Instant, PgId};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What a store request was for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The OSD's own metadata: a batch of maps up to that epoch.
    Maps {
        newest: Epoch,
    },
    /// The OSD's own metadata: since when its store takes part.
    Birth,
    /// Nobody waits for it.
    Nothing,
    Pg {
        pg: PgId,
        interval: Epoch,
        what: PgPurpose,
    },
}

/// What a PG's store request was for. A PG only hears of those of its current interval.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PgPurpose {
    /// Primary: everything up to this version is durable here.
    Write(EVersion),
    /// Replica: the same, to be told the primary.
    Replica(EVersion),
    /// The activation of this interval is durable here.
    Activation,
    /// A piece of data for the operation of that number.
    OpRead {
        op: u64,
        piece: usize,
    },
    /// A batch of a PG's removal.
    Removal,
    /// Recovery's, backfill's or scrub's own business, by a number of theirs.
    Recovery(u64),
    Scrub(u64),
}

/// Store requests under way.
#[derive(Debug, Default)]
pub struct Tokens {
    last: u64,
    purposes: BTreeMap<u64, Purpose>,
    /// By when which token had been issued, now and then: for telling how old a request is.
    marks: VecDeque<(Instant, u64)>,
}

/// How finely the age of store requests is known.
const MARK_INTERVAL: Duration = Duration::from_millis(100);
const MARKS_MAX: usize = 256;

impl Tokens {
    pub fn issue(&mut self, purpose: Purpose) -> u64 {
        self.last += 1;
        self.purposes.insert(self.last, purpose);
        self.last
    }

    /// What the token was for; every token comes back once.
    pub fn redeem(&mut self, token: u64) -> Option<Purpose> {
        self.purposes.remove(&token)
    }

    /// Called at every step: notes the time now and then.
    pub fn mark(&mut self, now: Instant) {
        if self.marks.back().is_some_and(|&(at, _)| now.since(at) < MARK_INTERVAL) {
            return;
        }
        let oldest = self.purposes.first_key_value().map_or(self.last, |(&token, _)| token);
        while self.marks.get(1).is_some_and(|&(_, token)| token < oldest) {
            self.marks.pop_front();
        }
        if self.marks.back().is_none_or(|&(_, token)| token != self.last) || self.purposes.is_empty() {
            if self.purposes.is_empty() {
                self.marks.clear();
            }
            if self.marks.len() >= MARKS_MAX {
                // Every other one: ages get coarser, never too high.
                let mut at = 0;
                self.marks.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
            }
            self.marks.push_back((now, self.last));
        }
    }

    /// For how long the oldest store request has been under way, at least.
    pub fn oldest_age(&self, now: Instant) -> Option<Duration> {
        let (&oldest, _) = self.purposes.first_key_value()?;
        let issued = self.marks.iter().find(|&&(_, token)| token >= oldest)?;
        Some(now.since(issued.0))
    }

    pub fn in_flight(&self) -> usize {
        self.purposes.len()
    }
}
