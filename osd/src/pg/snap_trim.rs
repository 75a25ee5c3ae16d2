//! Snapshot trimming on the primary: walks the PG's index of clones by snapshot and takes removed snapshots off, one clone
//! at a time and a few per turn, as ordinary replicated writes.

use super::{Pg, PgContext, Readiness};
use crate::snaps;
use nacre_maps::SnapRange;
use nacre_store::StoreError;
use nacre_types::buggify;
use nacre_types::{Instant, Needs, ObjectId, SnapId};
use std::collections::BTreeSet;
use std::time::Duration;

/// Clones trimmed per turn of a PG.
const CLONES_PER_TURN: usize = 8;
/// Pause between turns, so that clients' writes come first.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause after meeting an object that cannot be changed now.
const RETRY: Duration = Duration::from_millis(500);

/// How far trimming is.
#[derive(Clone, Debug, Default)]
pub struct Trimming {
    /// The pool's removed snapshots that the whole index was looked through for.
    done: Option<Vec<SnapRange>>,
    next: Instant,
    /// Clones that contradict their heads: left alone, the others go on.
    skipped: BTreeSet<ObjectId>,
    /// What it met that it has to wait for.
    wait: Option<(Instant, Needs)>,
}

impl Trimming {
    /// The pool has removed more snapshots, or another interval began: look again.
    pub(crate) fn restart(&mut self) {
        *self = Trimming::default();
    }

    fn waits(&mut self, now: Instant, needs: Needs) {
        self.next = now + RETRY;
        let since = self.wait.take().map_or(now, |(since, _)| since);
        self.wait = Some((since, needs));
    }

    /// What trimming waits for and since when, while there is something to trim.
    pub(crate) fn wait(&self) -> Option<(Instant, Needs)> {
        self.wait.clone().filter(|_| self.done.is_none())
    }
}

impl Pg {
    pub(crate) fn trim_deadline(&self) -> Option<Instant> {
        (self.is_active() && self.trimming.done.is_none()).then_some(self.trimming.next)
    }

    pub(crate) fn snap_trim_tick(&mut self, ctx: &mut PgContext<'_>) {
        let map = ctx.map.clone();
        let Some(pool) = map.pool(self.id.pool) else { return };
        if !self.is_active() || self.trimming.done.as_ref() == Some(&pool.removed_snaps) {
            return;
        }
        if pool.removed_snaps.is_empty() {
            self.trimming.done = Some(Vec::new());
            return;
        }
        if ctx.now < self.trimming.next {
            return;
        }
        if let Err(needs) = self.gate(ctx, true) {
            return self.trimming.waits(ctx.now, needs);
        }
        self.trimming.done = None;
        self.trimming.next = ctx.now + PAUSE;
        let most = if buggify("osd: one clone trimmed per turn") { 1 } else { CLONES_PER_TURN };
        for _ in 0..most {
            let found = self.next_trim(ctx, pool);
            let (snap, clone) = match found {
                Ok(Some(found)) => found,
                Ok(None) => {
                    self.trimming.done = Some(pool.removed_snaps.clone());
                    return;
                }
                Err(error) => return Pg::store_error(ctx, &error),
            };
            let head = clone.head();
            let queue = self.pipeline.objects.get(&head);
            let busy = queue.is_some_and(|queue| queue.readers > 0 || queue.executing);
            let needs = match self.ready_to_write(ctx, &head) {
                _ if busy => Some(Needs::EarlierOperations),
                Readiness::Ready => None,
                Readiness::Wait(needs) => Some(needs),
                Readiness::Unfound => Some(self.needs_found(&head)),
                Readiness::Failed(_, why) => Some(Needs::Refusal(why)),
            };
            if let Some(needs) = needs {
                return self.trimming.waits(ctx.now, needs);
            }
            self.trimming.wait = None;
            let version = self.next_version(ctx);
            match snaps::trim(&*ctx.store, self.id, &clone, pool, snap, version, ctx.wall_ms) {
                Ok(Some(mutation)) => {
                    self.replicate(ctx, head, mutation.transaction, mutation.entries, None);
                }
                Ok(None) => {
                    let mut t = nacre_wire::Transaction::new(self.id);
                    t.meta_remove(vec![snaps::index_key(snap, &clone).into()]);
                    ctx.submit_unwatched(t);
                }
                Err(StoreError::Corrupt(why)) => {
                    self.note_inconsistent(ctx, &clone, &why);
                    self.trimming.skipped.insert(clone);
                }
                Err(error) => return Pg::store_error(ctx, &error),
            }
        }
    }

    /// The first clone in the index that serves a removed snapshot.
    fn next_trim(
        &self,
        ctx: &PgContext<'_>,
        pool: &nacre_maps::Pool,
    ) -> Result<Option<(SnapId, ObjectId)>, nacre_store::StoreError> {
        let (mut from, end) = snaps::index_range();
        let prefix = from.len();
        loop {
            let mut first = None;
            ctx.store.meta_scan(self.id, &from, &end, &mut |key, _| {
                let snap =
                    key.get(prefix..prefix + 8).and_then(|raw| raw.try_into().ok()).map(u64::from_be_bytes);
                let clone = key.get(prefix + 8..).and_then(ObjectId::from_key);
                first = snap.zip(clone).filter(|(_, clone)| !self.trimming.skipped.contains(clone));
                first.is_none()
            })?;
            let Some((snap, clone)) = first else { return Ok(None) };
            if pool.snap_is_removed(SnapId(snap)) {
                return Ok(Some((SnapId(snap), clone)));
            }
            let Some(next) = snap.checked_add(1) else { return Ok(None) };
            from.truncate(prefix);
            from.extend_from_slice(&next.to_be_bytes());
        }
    }
}
