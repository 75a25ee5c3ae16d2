//! Where recovery, backfill and scrub hang on a PG. The pipeline and peering call the seams in `recovery::hooks` and
//! nothing else of theirs; they call back `Pg::object_recovered`, `Pg::kick`, `Pg::recovery_changed`.
//!
//! All run on the PG's own fields; `recovery_reset` is called at every interval change, on any role.

pub use crate::recovery::OsdShared;
use nacre_types::Needs;
use nacre_wire::ErrorCode;

/// Whether an operation may touch an object now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readiness {
    Ready,
    /// It is being recovered (or scrubbed, backfilled): `Pg::object_recovered` or `Pg::kick` will say when.
    Wait(Needs),
    /// No good copy is known: reads wait for ever, unless asked not to; a whole rewrite or removal may pass.
    Unfound,
    Failed(ErrorCode, String),
}

/// What the PG's state words and counters need to know of recovery.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoverySummary {
    /// Ceph's words to add to the state: `recovering`, `recovery_wait`, `backfilling`, `backfill_wait`,
    /// `backfill_toofull`, `recovery_toofull`, `scrubbing`, `deep`, `repair`, `inconsistent`.
    pub words: Vec<&'static str>,
    pub degraded: u64,
    pub misplaced: u64,
    pub unfound: u64,
    pub recovered_objects: u64,
    pub recovered_bytes: u64,
    pub scrub_errors: u64,
    /// Nothing is missing anywhere and no backfill is left.
    pub done: bool,
    /// Why it does not go on.
    pub waiting_for: Option<Needs>,
}
