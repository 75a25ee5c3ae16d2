//! Writes to an object that somebody misses who is being brought up to date beside the acting members.
//!
//! They do not wait for that. Who misses the object gets the log entries alone, notes with them that it misses something
//! newer now, and acknowledges that. The primary notes the same, so both know all along what is to be brought. It is as if
//! that OSD had been down for a little longer, for this object. The acting members have all of what is acknowledged.
//!
//! Nor do writes wait for an object that is on its way there: it starts over, later, with what they made of it. That happens
//! to it a few times at most, so that its turn comes; but it does not come where there is no room for it.

use super::{Stage, family};
use crate::log::{Entry, persist};
use crate::pg::{Pg, PgContext};
use nacre_types::{ObjectId, OsdId, mutant};
use nacre_wire::Transaction;
use nacre_wire::messages::LogKind;
use std::collections::BTreeSet;

/// How often an object that is on its way starts over for the sake of a write.
const WAYS_GIVEN_MAX: u32 = 3;

impl Pg {
    /// Before a write of the object: what is on its way to members stays behind for now.
    pub(super) fn give_way(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) {
        let stages = || self.recovery.active.range(family(object));
        let pushed = |(_, active): &(&ObjectId, &super::Active)| matches!(active.stage, Stage::Push { .. });
        let pushes = stages().filter(pushed).count();
        if pushes < stages().count() || pushes == 0 && !self.backfill_pushes(object) {
            return;
        }
        let head = object.head();
        let given = self.recovery.ways_given.get(&head).copied().unwrap_or_default();
        if given >= WAYS_GIVEN_MAX && !self.recovery.gate.too_full()
            || self.missing.family(family(object)).next().is_some()
            || self.members.acting.iter().any(|osd| self.peer_lacks(*osd, object))
            || !self.unseen_lacking(object).is_empty()
        {
            return;
        }
        self.recovery.ways_given.insert(head, given + 1);
        for pushed in
            self.recovery.active.range(family(object)).map(|(object, _)| object.clone()).collect::<Vec<_>>()
        {
            self.cancel_object(ctx, &pushed);
        }
        self.backfill_give_way(ctx, object);
    }

    fn peer_lacks(&self, osd: OsdId, object: &ObjectId) -> bool {
        self.peers.get(&osd).is_some_and(|peer| peer.missing.family(family(object)).next().is_some())
    }

    /// Those whom a change of `object` does not fit, since they miss it or one of its clones.
    pub(crate) fn lacking_family(&self, object: &ObjectId, entries: &[Entry]) -> BTreeSet<OsdId> {
        let removes = entries.iter().all(Entry::is_delete);
        let gives_up = entries.iter().any(|entry| matches!(entry.kind, LogKind::Lost | LogKind::Revert));
        // These fit any copy. A removal makes room where that is what the object waits for.
        if self.clean || gives_up || removes && self.recovery.gate.too_full() {
            return BTreeSet::new();
        }
        if mutant!(LackingShipped) {
            return BTreeSet::new();
        }
        self.replicas().into_iter().filter(|&osd| self.peer_lacks(osd, object)).collect()
    }

    /// Primary: these will miss what the entries name.
    pub(crate) fn note_lacking(&mut self, lacking: &BTreeSet<OsdId>, entries: &[Entry]) {
        for osd in lacking {
            let Some(peer) = self.peers.get_mut(osd) else { continue };
            for entry in entries.iter().filter(|entry| peer.info.last_backfill.covers(&entry.object)) {
                peer.missing.add_next_event(entry, entry.version);
            }
        }
    }

    /// Member: the log goes on by entries without what they did. Clients may see it from now on, for all this copy knows; if
    /// they did not, that is because another member never got them, and that one will know.
    pub(crate) fn note_not_applied(
        &mut self,
        ctx: &mut PgContext<'_>,
        t: &mut Transaction,
        entries: &[Entry],
    ) {
        for entry in entries.iter().filter(|entry| !entry.is_error() && !entry.is_revert()) {
            let object = &entry.object;
            self.drop_sink(ctx, object);
            if !self.info.last_backfill.covers(object) || mutant!(LackingNotNoted) {
                continue;
            }
            self.missing.add_next_event(entry, entry.version);
            if let Some(missing) = self.missing.get(object) {
                persist::add_missing(t, object, &missing);
            }
        }
    }

    /// What was on its way here is not what is needed any more.
    fn drop_sink(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) {
        if let Some(sink) = self.recovery.sinks.remove(object) {
            let mut t = Transaction::new(self.id);
            t.remove(sink.temp());
            ctx.submit_unwatched(t);
        }
    }
}
