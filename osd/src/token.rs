//! Tokens of store requests: what each commit or read was for, and the guard against answers that come too late.

use nacre_types::{EVersion, Epoch, PgId};
use std::collections::BTreeMap;

/// What a store request was for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The OSD's own metadata: a batch of maps up to that epoch.
    Maps {
        newest: Epoch,
    },
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
}

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

    pub fn in_flight(&self) -> usize {
        self.purposes.len()
    }
}
