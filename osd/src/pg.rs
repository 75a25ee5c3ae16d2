//! One placement group on one OSD: its fields, and the submachines that work on them.
//!
//! Each submachine is an `impl Pg` in a file of its own: `peering` (interval to activation), `pg::pipeline` (client
//! operations), `replication` (shipping writes, commits, leases), and behind [`hooks`] recovery, backfill and scrub.
//!
//! **Architecture Invariant:** all change happens inside `Osd::step`, through a [`PgContext`]. A PG never reaches
//! another PG or the OSD itself; what it wants of them it leaves in [`Requests`](context::Requests).

pub mod context;
mod dispatch;
mod execute;
pub mod hooks;
mod lifecycle;
mod listing;
mod pipeline;
mod remove;
mod snap_trim;
pub mod state;
mod stats;

pub use context::{PgContext, Requests};
pub(crate) use dispatch::interval_of;
pub use hooks::{OsdShared, Readiness, RecoverySummary};
pub(crate) use pipeline::{ClientOp, Stage};
pub use pipeline::{Counters, Pipeline};
pub use state::{Membership, State};
pub(crate) use stats::quoted;

use crate::log::{Best, Info, MissingSet, PastIntervals, PgLog};
use crate::peering::Pieces;
use crate::replication::InFlight;
use crate::replication::lease::Lease;
use crate::stages::MeasuredWrites;
use nacre_types::{EVersion, Epoch, Instant, OsdId, PgId};
use nacre_wire::{Message, Packet};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// What the primary knows of another copy.
#[derive(Clone, Debug)]
pub struct PgPeer {
    pub info: Info,
    /// Known once its log was compared (GetMissing) or it was activated; empty before.
    pub missing: MissingSet,
    /// Everything up to here is durable there, in this interval.
    pub durable: EVersion,
    /// Whether `missing` can be relied on.
    pub missing_known: bool,
    /// Newest version its log shares with the authoritative one; `None` while it has nothing to go by.
    pub common: Option<EVersion>,
    /// Since when this run of it is up.
    pub run: Epoch,
    /// Since when its store takes part: what went before left no trace in it, even under the same number.
    pub store_since: Epoch,
}

/// A PG's state on this OSD.
pub struct Pg {
    pub id: PgId,
    pub me: OsdId,
    pub members: Membership,
    pub info: Info,
    pub past: PastIntervals,
    pub log: PgLog,
    pub missing: MissingSet,
    state: State,
    state_since: Instant,
    /// The map this PG was last advanced to.
    pub epoch: Epoch,
    /// Primary: the other copies heard of in this interval, strays too.
    pub peers: BTreeMap<OsdId, PgPeer>,
    /// Primary: members of the up set that are filled by backfill.
    pub backfill_targets: BTreeSet<OsdId>,
    /// Primary: everything up to here is durable on all members.
    pub committed_to: EVersion,
    /// Primary: acting equals up, nothing is missing, nothing to fill.
    pub clean: bool,
    /// Primary: who watches what.
    pub watch: crate::watch::Registry,
    /// Objects are found by it; the pool's, also after the pool is gone.
    pub(crate) pg_num: u32,
    /// Whether `past` covers all since the PG was last clean; not if this OSD missed maps or has just met the PG.
    pub(crate) past_known: bool,
    /// The map epoch that is written down: older maps are not needed for this PG.
    pub(crate) written_epoch: Epoch,
    /// The membership changed and is not written down yet.
    pub(crate) dirty: bool,
    /// Primary: whom to ask, by the last look at the past.
    pub(crate) probe: BTreeSet<OsdId>,
    /// The interval nobody reachable was a member of.
    pub(crate) blocking: Option<(Epoch, Epoch)>,
    /// Logs on their way here.
    pub(crate) incoming: BTreeMap<OsdId, Pieces>,
    pub(crate) full_log_wanted: bool,
    /// Primary: whose log was chosen.
    pub(crate) best: Option<Best>,
    pub(crate) next_resend: Instant,
    /// Primary: members that have not confirmed the history shared last.
    pub(crate) history_unconfirmed: BTreeSet<OsdId>,
    /// Member: the activation is on its way to the disk.
    pub(crate) activation_submitted: bool,
    pub(crate) lease: Lease,
    pub(crate) pipeline: Pipeline,
    /// Primary: writes that not all have committed, oldest first.
    pub(crate) in_flight: VecDeque<InFlight>,
    /// Primary: everything up to here is durable here.
    pub(crate) own_durable: EVersion,
    /// Member: the same.
    pub(crate) replica_durable: EVersion,
    pub(crate) commit_latency: Duration,
    pub(crate) measured: MeasuredWrites,
    pub(crate) report_seq: u64,
    /// Snapshots whose clones are all gone.
    pub(crate) trimming: snap_trim::Trimming,
    pub(crate) recovery: crate::recovery::Recovery,
}

impl Pg {
    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn is_primary(&self) -> bool {
        self.members.primary() == Some(self.me)
    }

    pub fn is_active(&self) -> bool {
        self.state == State::Active
    }

    pub(crate) fn state_since(&self) -> Instant {
        self.state_since
    }

    pub fn interval(&self) -> Epoch {
        self.members.since
    }

    /// The one place a state changes.
    pub(crate) fn enter(&mut self, ctx: &mut PgContext<'_>, next: State) {
        assert!(
            self.state.may_become(&next),
            "{} of {}: {} must not become {}",
            self.id,
            self.me,
            self.state.name(),
            next.name()
        );
        self.state = next;
        self.state_since = ctx.now;
        ctx.requests.report.insert(self.id);
    }

    /// Everyone a write is shipped to besides this OSD: acting members and backfill targets.
    pub(crate) fn replicas(&self) -> Vec<OsdId> {
        let acting = self.members.acting.iter().copied().filter(|&osd| osd != self.me);
        let others = self.backfill_targets.iter().copied().filter(|&osd| !self.members.is_acting(osd));
        acting.chain(others).collect()
    }

    /// Sends a message of this PG to another member.
    pub(crate) fn send(&self, ctx: &mut PgContext<'_>, to: OsdId, message: impl Into<Message>) {
        let packet = ctx.packet(message).on(self.id);
        self.send_packet(ctx, to, packet);
    }

    pub(crate) fn send_packet(&self, ctx: &mut PgContext<'_>, to: OsdId, packet: Packet) {
        ctx.send_osd(to, packet);
    }

    /// Recovery: the object is whole here and on every acting member (or as far as it asked to be): operations that
    /// wait for it may go on.
    pub(crate) fn object_recovered(&mut self, ctx: &mut PgContext<'_>, _object: &nacre_types::ObjectId) {
        ctx.requests.kick.insert(self.id);
    }

    /// Recovery, scrub: whatever blocked operations may have gone; look at all of them.
    pub(crate) fn kick(&mut self, ctx: &mut PgContext<'_>) {
        ctx.requests.kick.insert(self.id);
    }

    /// Recovery: what `recovery_summary` says has changed enough to tell the monitors, or the PG may be clean now.
    pub(crate) fn recovery_changed(&mut self, ctx: &mut PgContext<'_>) {
        ctx.requests.report.insert(self.id);
        ctx.requests.kick.insert(self.id);
    }
}
