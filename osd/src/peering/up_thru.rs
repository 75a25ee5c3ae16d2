//! WaitUpThru: the map must show that this primary was alive in the interval before it may activate (invariant I4).

use crate::pg::{Pg, PgContext, State};
use nacre_types::mutant;

impl Pg {
    pub(crate) fn has_up_thru(&self, ctx: &PgContext<'_>) -> bool {
        ctx.map.osd(self.me).is_some_and(|info| info.up_thru() >= self.interval()) || mutant!(UpThruSkipped)
    }

    /// Asked for as soon as peering begins, so that the answer is there when it is needed.
    pub(crate) fn want_up_thru(&mut self, ctx: &mut PgContext<'_>) {
        if !self.has_up_thru(ctx) {
            let wanted = ctx.requests.up_thru.get_or_insert(self.interval());
            *wanted = (*wanted).max(self.interval());
        }
    }

    pub(crate) fn check_up_thru(&mut self, ctx: &mut PgContext<'_>) {
        if *self.state() == State::WaitUpThru && self.has_up_thru(ctx) {
            self.activate(ctx);
        }
    }
}
