//! Making room: a target that is too full to be filled first gives up what it should not have.
//!
//! ```text
//!   refused: too full ──> list a window ──> remove what is not here ──> next window ... ──> ask again
//! ```
//!
//! Without this, an OSD full of what was deleted while it was away would wait for space that only its backfill makes. The
//! mark stays where it is: what lies behind it is compared once more when the backfill runs, so that nothing depends on
//! what is removed here, or is not.

use super::Stage;
use crate::pg::{Pg, PgContext};
use bytes::Bytes;
use nacre_types::{EVersion, Instant, ObjectId, OsdId};
use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Purge {
    /// Up to it the target has been looked through.
    cursor: Bytes,
    /// [`Backfill::removals`](super::Backfill) when that began.
    removals: u64,
    asked: Instant,
    removed: u64,
    /// What it is removing; `None` while it lists.
    removing: Option<Removing>,
}

#[derive(Debug)]
struct Removing {
    objects: BTreeMap<ObjectId, EVersion>,
    end: Bytes,
    last: bool,
}

impl Pg {
    /// Something was removed here, and these targets are not told yet: they may have it.
    pub(crate) fn backfill_removed<'a>(&mut self, untold: impl IntoIterator<Item = &'a OsdId>) {
        for osd in untold {
            if let Some(backfill) = self.recovery.backfills.get_mut(osd) {
                backfill.removals += 1;
            }
        }
    }

    /// The target has refused to be filled. Does nothing if the last time did not help and nothing was removed since.
    pub(crate) fn backfill_purge(&mut self, ctx: &mut PgContext<'_>, osd: OsdId) {
        let Some(backfill) = self.recovery.backfills.get_mut(&osd) else { return };
        let at_rest = match &backfill.stage {
            Stage::Idle | Stage::Scanning { .. } => true,
            Stage::Filling(window) => window.in_flight.is_empty(),
            Stage::Moving { .. } | Stage::Purging(_) | Stage::Done => false,
        };
        let removals = backfill.removals;
        if at_rest && backfill.purged != Some(removals) {
            let cursor = backfill.mark.clone();
            let purge = Purge { cursor, removals, asked: ctx.now, removed: 0, removing: None };
            backfill.stage = Stage::Purging(purge);
            self.purge_ask(ctx, osd);
        }
    }

    /// Asks for what is under way, for the first time or again.
    fn purge_ask(&self, ctx: &mut PgContext<'_>, osd: OsdId) {
        let Some(backfill) = self.recovery.backfills.get(&osd) else { return };
        let Stage::Purging(purge) = &backfill.stage else { return };
        match &purge.removing {
            None => self.send_scan(ctx, osd, purge.cursor.clone()),
            Some(removing) => self.send_progress(ctx, osd, backfill.mark.clone(), false, &removing.objects),
        }
    }

    pub(super) fn purge_again(&mut self, ctx: &mut PgContext<'_>, osd: OsdId, after: std::time::Duration) {
        if let Some(purge) = self.purge_of(osd)
            && ctx.now.since(purge.asked) >= after
        {
            purge.asked = ctx.now;
            self.purge_ask(ctx, osd);
        }
    }

    fn purge_of(&mut self, osd: OsdId) -> Option<&mut Purge> {
        match &mut self.recovery.backfills.get_mut(&osd)?.stage {
            Stage::Purging(purge) => Some(purge),
            _ => None,
        }
    }

    /// What the target has after `after`, up to `end`.
    pub(super) fn purge_listed(
        &mut self,
        ctx: &mut PgContext<'_>,
        osd: OsdId,
        after: &Bytes,
        end: &[u8],
        theirs: BTreeMap<ObjectId, EVersion>,
    ) {
        let awaited = |purge: &&mut Purge| purge.removing.is_none() && purge.cursor == *after;
        if self.purge_of(osd).filter(awaited).is_none() {
            return;
        }
        let window = match self.compare(ctx, after, end, theirs) {
            Ok(window) => window,
            Err(error) => return self.recovery_store_failed(ctx, &error),
        };
        let removing = Removing { objects: window.remove, end: window.end, last: window.last };
        let nothing = removing.objects.is_empty();
        if let Some(purge) = self.purge_of(osd) {
            (purge.asked, purge.removing) = (ctx.now, Some(removing));
        }
        match nothing {
            true => self.purge_removed(ctx, osd),
            false => self.purge_ask(ctx, osd),
        }
    }

    /// The target has removed what it was told to.
    pub(super) fn purge_removed(&mut self, ctx: &mut PgContext<'_>, osd: OsdId) {
        let Some(purge) = self.purge_of(osd) else { return };
        let Some(removing) = purge.removing.take() else { return };
        purge.removed += removing.objects.len() as u64;
        if !removing.last {
            (purge.cursor, purge.asked) = (removing.end, ctx.now);
            return self.purge_ask(ctx, osd);
        }
        let (removed, removals) = (purge.removed, purge.removals);
        if let Some(backfill) = self.recovery.backfills.get_mut(&osd) {
            backfill.stage = Stage::Idle;
            backfill.purged = (removed == 0).then_some(removals);
        }
        if removed > 0 {
            self.gate_ask_again(osd);
            ctx.requests.kick.insert(self.id);
        }
    }
}
