//! Where recovery, backfill and scrub hang on a PG. The pipeline and peering call these and nothing else of theirs;
//! they call back `Pg::object_recovered`, `Pg::kick`, `Pg::recovery_changed`.
//!
//! All run on the PG's own fields; `reset` is called at every interval change, on any role.

use super::{Pg, PgContext};
use nacre_store::StoreError;
use nacre_types::{Instant, ObjectId, OsdId, PgId};
use nacre_wire::{Data, ErrorCode, Packet};

/// OSD-wide state of recovery, backfill and scrub: reservations, throttles.
#[derive(Debug, Default)]
pub struct OsdShared {}

/// Whether an operation may touch an object now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readiness {
    Ready,
    /// It is being recovered (or scrubbed, backfilled): `Pg::object_recovered` or `Pg::kick` will say when.
    Wait(&'static str),
    /// No good copy is known: reads wait for ever, unless asked not to; a whole rewrite or removal may pass.
    Unfound,
    Failed(ErrorCode, String),
}

/// What the PG's state words and counters need to know of recovery.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecoverySummary {
    /// Ceph's words to add to the state: `recovering`, `recovery_wait`, `backfilling`, `backfill_wait`,
    /// `backfill_toofull`, `scrubbing`, `deep`, `repair`, `inconsistent`.
    pub words: Vec<&'static str>,
    pub degraded: u64,
    pub misplaced: u64,
    pub unfound: u64,
    pub recovered_objects: u64,
    pub recovered_bytes: u64,
    pub scrub_errors: u64,
    /// Nothing is missing anywhere and no backfill is left.
    pub done: bool,
    /// Why it does not go on, for people.
    pub waiting_for: String,
}

impl Pg {
    /// Drops all work in progress: an interval ended.
    pub(crate) fn recovery_reset(&mut self, _ctx: &mut PgContext<'_>) {}

    /// Primary: every member has recorded the activation.
    pub(crate) fn recovery_on_activated(&mut self, _ctx: &mut PgContext<'_>) {}

    /// Any member: a message of the recovery, backfill or scrub family, of this interval.
    pub(crate) fn recovery_on_message(&mut self, _ctx: &mut PgContext<'_>, _from: OsdId, _packet: Packet) {}

    /// A transaction submitted with `PgPurpose::Recovery` or `Scrub` in this interval is durable.
    pub(crate) fn recovery_on_committed(&mut self, _ctx: &mut PgContext<'_>, _token: u64) {}

    pub(crate) fn recovery_on_read(
        &mut self,
        _ctx: &mut PgContext<'_>,
        _token: u64,
        _result: Result<Data, StoreError>,
    ) {
    }

    pub(crate) fn scrub_on_committed(&mut self, _ctx: &mut PgContext<'_>, _token: u64) {}

    pub(crate) fn scrub_on_read(
        &mut self,
        _ctx: &mut PgContext<'_>,
        _token: u64,
        _result: Result<Data, StoreError>,
    ) {
    }

    /// The map changed without ending the interval (flags, pool options, an OSD came back), or time passed.
    pub(crate) fn recovery_tick(&mut self, _ctx: &mut PgContext<'_>) {}

    pub(crate) fn recovery_next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Before an operation reads `object` (a head: with its clones) on the primary. Starts its recovery if need be.
    pub(crate) fn ready_to_read(&mut self, _ctx: &mut PgContext<'_>, _object: &ObjectId) -> Readiness {
        Readiness::Ready
    }

    /// Before an operation changes `object`: it must be whole on every acting member, not be on its way to a backfill
    /// target and not be under scrub.
    pub(crate) fn ready_to_write(&mut self, _ctx: &mut PgContext<'_>, _object: &ObjectId) -> Readiness {
        Readiness::Ready
    }

    /// Whether the object's changes go to this peer, or (beyond its backfill mark) only their log entries.
    pub(crate) fn ships_to(&self, _peer: OsdId, _object: &ObjectId) -> bool {
        true
    }

    /// A write was submitted here and sent to the peers: what scrub and backfill must know.
    pub(crate) fn recovery_on_write(&mut self, _ctx: &mut PgContext<'_>, _object: &ObjectId) {}

    /// A client read failed its checksum on the primary's disk: mark the object missing here and recover it from
    /// another copy; the read is run again afterwards. False if there is no other copy.
    pub(crate) fn recover_bad_copy(&mut self, _ctx: &mut PgContext<'_>, _object: &ObjectId) -> bool {
        false
    }

    pub(crate) fn recovery_summary(&self) -> RecoverySummary {
        RecoverySummary { done: true, ..RecoverySummary::default() }
    }

    /// `pg scrub|deep-scrub|repair|mark_unfound_lost` and what `pg query` shows of recovery. `Err` is for the asker.
    pub(crate) fn recovery_admin(
        &mut self,
        _ctx: &mut PgContext<'_>,
        command: &str,
        _json: &str,
    ) -> Result<String, (ErrorCode, String)> {
        Err((ErrorCode::NotSupported, format!("'{command}' is not a command of a PG")))
    }
}

impl OsdShared {
    /// A PG is gone: give back whatever it holds.
    pub(crate) fn forget(&mut self, _pg: PgId) {}
}
