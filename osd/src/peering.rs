//! Peering: from the start of an interval to the point where all members agree on one history of the PG.
//!
//! The primary asks (GetInfo), takes over the authoritative log (GetLog), learns what each member lacks (GetMissing), has
//! the monitors record that it is alive (WaitUpThru), and makes everybody record the start (Activating). States and arrows
//! are in `pg::state`. Every request is sent again by [`Pg::peering_tick`] until answered, and answers of another interval
//! are dropped before they get here.

mod activate;
mod choose_acting;
mod get_info;
mod get_log;
mod get_missing;
mod interval;
mod member;
mod pieces;
mod prior_set;
mod up_thru;

pub use choose_acting::{Choice, Sizes, choose_acting};
pub(crate) use pieces::Pieces;
pub use prior_set::PriorSet;

use crate::pg::{Pg, PgContext, State};
use nacre_types::Instant;

/// Records per message when a log is sent in pieces.
pub(crate) const LOG_PIECE: usize = 1000;

impl Pg {
    /// Sends again what has not been answered.
    pub(crate) fn peering_tick(&mut self, ctx: &mut PgContext<'_>) {
        if ctx.now < self.next_resend {
            return;
        }
        self.next_resend = ctx.now + ctx.config.tunables.resend_interval;
        match self.state() {
            State::GetInfo { .. } | State::Down { .. } => self.send_queries(ctx),
            State::GetLog { .. } => self.request_log(ctx),
            State::GetMissing { .. } => self.request_missing(ctx),
            State::WaitUpThru => self.want_up_thru(ctx),
            State::Activating { .. } => self.send_activations(ctx),
            State::Incomplete { .. } => self.start_get_info(ctx),
            State::WaitActingChange { want } => {
                let want = want.clone();
                self.want_acting(ctx, want);
            }
            State::Stray => self.stray_tick(ctx),
            State::Active => self.share_history_again(ctx),
            State::Reset | State::ReplicaActive | State::Removing => {}
        }
    }

    pub(crate) fn peering_deadline(&self) -> Option<Instant> {
        match self.state() {
            State::ReplicaActive | State::Removing | State::Reset => None,
            State::Active if self.history_unconfirmed.is_empty() => None,
            _ => Some(self.next_resend),
        }
    }
}
