//! Map epochs and the versions that order one PG's writes.

use std::fmt;

/// A map's epoch. Zero is "none yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Epoch(pub u64);

/// A write's place in its PG's log: the epoch its primary accepted it in, then a sequence number that
/// never goes back within the PG. Ordered by both, so that a log head of a newer interval always wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct EVersion {
    pub epoch: Epoch,
    pub seq: u64,
}

impl Epoch {
    pub const ZERO: Epoch = Epoch(0);

    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }

    pub fn prev(self) -> Epoch {
        Epoch(self.0.saturating_sub(1))
    }
}

impl EVersion {
    pub const ZERO: EVersion = EVersion { epoch: Epoch(0), seq: 0 };
    pub const MAX: EVersion = EVersion { epoch: Epoch(u64::MAX), seq: u64::MAX };

    pub const fn new(epoch: Epoch, seq: u64) -> EVersion {
        EVersion { epoch, seq }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for EVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}'{}", self.epoch.0, self.seq)
    }
}
