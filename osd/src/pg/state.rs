//! The states of a PG on one OSD, and which may follow which.
//!
//! ```text
//!                 new interval, from any state
//!                              |
//!                              v
//!                           Reset ---------------- not primary ----------> Stray
//!                              | primary                                     | PgActivate durable
//!                              v                                             v
//!         +-------------- GetInfo <------> Down                        ReplicaActive
//!         |     all told us  |   (whom we need is down)
//!         |                  v
//!  map or |               GetLog ----> WaitActingChange (pg_temp asked for; ends with the interval)
//!  peers  |                  |  \
//!  changed|                  |   +--> Incomplete (no copy can lead) --+
//!         |                  v                                        |
//!         |             GetMissing                                    |
//!         |                  |                                        |
//!         |                  v                                        |
//!         |             WaitUpThru   (the map must show us alive)     |
//!         |                  |                                        |
//!         |                  v                                        |
//!         |             Activating   (every member records the start) |
//!         |                  |                                        |
//!         |                  v                                        |
//!         |               Active                                      |
//!         +<----------------------------------------------------------+
//! ```

use nacre_types::{Epoch, Needs, OsdId};
use std::collections::BTreeSet;

/// Where a PG stands. What a state needs to remember is in it; what outlives states is in `Pg`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// An interval began; the next `settle` starts peering or becomes a stray.
    Reset,
    GetInfo {
        /// Whom we asked and have not heard from.
        waiting: BTreeSet<OsdId>,
        /// Whether nobody knows this PG yet: then every OSD that ever ran is asked.
        discovery: bool,
    },
    Down {
        /// Any of these coming up changes the picture.
        blocked_by: BTreeSet<OsdId>,
    },
    GetLog {
        from: OsdId,
    },
    WaitActingChange {
        want: Vec<OsdId>,
    },
    Incomplete {
        /// A complete copy, or one whose log fits.
        needs: Needs,
    },
    GetMissing {
        waiting: BTreeSet<OsdId>,
    },
    WaitUpThru,
    Activating {
        /// Members that have not recorded the activation, this OSD among them.
        waiting: BTreeSet<OsdId>,
    },
    Active,
    Stray,
    ReplicaActive,
    /// The PG's pool or copy is being deleted, in pieces.
    Removing,
}

impl State {
    /// The field's word.
    pub fn name(&self) -> &'static str {
        match self {
            State::Reset => "Reset",
            State::GetInfo { .. } => "GetInfo",
            State::Down { .. } => "Down",
            State::GetLog { .. } => "GetLog",
            State::WaitActingChange { .. } => "WaitActingChange",
            State::Incomplete { .. } => "Incomplete",
            State::GetMissing { .. } => "GetMissing",
            State::WaitUpThru => "WaitUpThru",
            State::Activating { .. } => "Activating",
            State::Active => "Active",
            State::Stray => "Stray",
            State::ReplicaActive => "ReplicaActive",
            State::Removing => "Removing",
        }
    }

    pub fn is_peering(&self) -> bool {
        use State::*;
        matches!(
            self,
            Reset
                | GetInfo { .. }
                | Down { .. }
                | GetLog { .. }
                | WaitActingChange { .. }
                | Incomplete { .. }
                | GetMissing { .. }
                | WaitUpThru
                | Activating { .. }
        )
    }

    /// Whether the diagram has an arrow to `next`.
    pub fn may_become(&self, next: &State) -> bool {
        use State::*;
        match (self, next) {
            (Removing, _) => false,
            (_, Reset | Removing) => true,
            (Reset, GetInfo { .. } | Stray) => true,
            (GetInfo { .. }, Down { .. } | GetLog { .. } | GetInfo { .. }) => true,
            (Down { .. } | Incomplete { .. } | WaitActingChange { .. }, GetInfo { .. }) => true,
            (
                GetLog { .. },
                GetInfo { .. } | WaitActingChange { .. } | Incomplete { .. } | GetMissing { .. },
            ) => true,
            (GetInfo { .. }, WaitActingChange { .. } | Incomplete { .. } | GetMissing { .. }) => true,
            (GetMissing { .. }, GetInfo { .. } | GetMissing { .. } | WaitUpThru | Activating { .. }) => true,
            (WaitUpThru, GetInfo { .. } | Activating { .. }) => true,
            (Activating { .. }, Active | GetInfo { .. } | Activating { .. }) => true,
            (Stray, ReplicaActive) => true,
            _ => false,
        }
    }
}

/// One interval: a span of epochs in which the PG's members were the same.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Membership {
    /// First epoch of the interval; stale messages are told by it.
    pub since: Epoch,
    /// First epoch of those in which the primary has been the same without a break, as far as is known here; clients'
    /// stale requests are told by it.
    pub primary_since: Epoch,
    pub up: Vec<OsdId>,
    pub acting: Vec<OsdId>,
    /// Whether `since` is certain: an OSD that missed epochs learns it from the primary.
    pub sure: bool,
}

impl Membership {
    pub fn primary(&self) -> Option<OsdId> {
        self.acting.first().copied()
    }

    pub fn up_primary(&self) -> Option<OsdId> {
        self.up.first().copied()
    }

    pub fn is_acting(&self, osd: OsdId) -> bool {
        self.acting.contains(&osd)
    }

    pub fn is_member(&self, osd: OsdId) -> bool {
        self.acting.contains(&osd) || self.up.contains(&osd)
    }
}
