//! What a receiver need not be sent, because it has it under another name.
//!
//! Clones share with their neighbours all that did not change between them; brought to a disk one by one, each would
//! take its whole size. So an object that repeats another one of its family is sent as what differs, and made there as a
//! clone of that one:
//!
//! ```text
//!   clone 3 ----> clone 7 ----> head        each is the one before it, and what changed since
//! ```
//!
//! A clone made by a write that the receiver has not seen is what its head still is: then nothing but the name and the
//! attributes are sent, and nothing is read. Such clones go before their head, which will not be that any more.
//!
//! The receiver looks whether it has that object in that version, and refuses if not: then the whole is sent.

use super::family;
use super::source::stored_version;
use crate::log::{Entry, MissingSet};
use crate::pg::{Pg, PgContext};
use crate::snaps;
use nacre_store::StoreError;
use nacre_types::{EVersion, ObjectId, OsdId, RangeSet, SnapId};
use nacre_wire::messages::{LogKind, Pull};

/// The names of an object's family that come before its own.
pub(crate) fn older(object: &ObjectId) -> std::ops::Range<ObjectId> {
    object.at(SnapId(0))..object.clone()
}

/// Another object of the family that the receiver has, and what of the object is the same there.
#[derive(Debug)]
pub(crate) struct Origin {
    pub object: ObjectId,
    pub version: EVersion,
    pub same: RangeSet,
}

/// What is known of the one an object goes to.
struct Receiver<'a> {
    missing: &'a MissingSet,
    is_whole: &'a dyn Fn(&ObjectId) -> bool,
}

impl Pg {
    /// What `object` may be made of at `to`.
    pub(super) fn origin_of(
        &self,
        ctx: &PgContext<'_>,
        to: OsdId,
        object: &ObjectId,
    ) -> Result<Option<Origin>, StoreError> {
        // What was found damaged is replaced, and its neighbours cannot be trusted either.
        if self.recovery.in_full.contains(&(to, object.clone())) {
            return Ok(None);
        }
        let Some(peer) = self.peers.get(&to) else { return Ok(None) };
        let is_whole = |one: &ObjectId| self.is_whole_at(to, one);
        self.origin_for(ctx, object, &Receiver { missing: &peer.missing, is_whole: &is_whole })
    }

    /// The same for a pull, whose sender tells what it misses.
    pub(super) fn origin_for_pull(
        &self,
        ctx: &PgContext<'_>,
        object: &ObjectId,
        pull: &Pull,
    ) -> Result<Option<Origin>, StoreError> {
        let Some(missing) = pull.differences.then(|| MissingSet::decode(&pull.family).ok()).flatten() else {
            return Ok(None);
        };
        let is_whole = |one: &ObjectId| !missing.contains(one);
        self.origin_for(ctx, object, &Receiver { missing: &missing, is_whole: &is_whole })
    }

    fn origin_for(
        &self,
        ctx: &PgContext<'_>,
        object: &ObjectId,
        to: &Receiver<'_>,
    ) -> Result<Option<Origin>, StoreError> {
        if let Some(version) = self.cloned_from_head(to.missing, object) {
            let size = ctx.store.stat(object)?.map_or(0, |stat| stat.size);
            let mut same = RangeSet::new();
            same.insert(0, size);
            return Ok(Some(Origin { object: object.head(), version, same }));
        }
        let (older, same) = match snaps::load_common(ctx.store, object) {
            Ok(Some(common)) => (common.older, common.ranges()),
            // Damage is for the transfer itself to find, if it concerns that.
            Err(StoreError::Corrupt(_)) | Ok(None) => return Ok(None),
            Err(error) => return Err(error),
        };
        let older = object.at(SnapId(older));
        if same.is_empty() || self.missing.contains(&older) || !(to.is_whole)(&older) {
            return Ok(None);
        }
        let version = match stored_version(ctx.store, &older) {
            Ok(version) if version != EVersion::ZERO => version,
            Ok(_) | Err(StoreError::Corrupt(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(Origin { object: older, version, same }))
    }

    /// The version of the receiver's head, if the clone was made of just that by a write that the receiver has not seen.
    fn cloned_from_head(&self, missing: &MissingSet, clone: &ObjectId) -> Option<EVersion> {
        if clone.snap.is_head() {
            return None;
        }
        let head = clone.head();
        let have = missing.get(&head)?.have;
        if have == EVersion::ZERO || !missing.contains(clone) {
            return None;
        }
        let mut changes = self.log.entries_after(have)?.filter(|entry| !entry.is_error());
        changes.find(|entry| entry.object == *clone && entry.kind == LogKind::Clone)?;
        let first_of_head = |entry: &&Entry| entry.object == head;
        let next = changes.find(first_of_head)?;
        (next.prior_version == have).then_some(have)
    }

    /// Whether a receiver of recovery or backfill has an object, for all that is known here.
    fn is_whole_at(&self, osd: OsdId, object: &ObjectId) -> bool {
        let Some(peer) = self.peers.get(&osd) else { return false };
        let backfilled =
            || self.recovery.backfills.get(&osd).is_some_and(|backfill| backfill.has_pushed(object));
        !peer.missing.contains(object) && (peer.info.last_backfill.covers(object) || backfilled())
    }

    /// Whether something is under way that the object may be made of: it waits for that.
    pub(super) fn older_is_active(&self, object: &ObjectId) -> bool {
        self.recovery.active.range(older(object)).next().is_some()
    }

    /// A clone that has to be made at a receiver before its head is brought there.
    pub(super) fn clone_before_head(&self, head: &ObjectId, receivers: &[OsdId]) -> Option<ObjectId> {
        if !head.snap.is_head() {
            return None;
        }
        let missing_at = |osd: &OsdId| match *osd == self.me {
            true => Some(&self.missing),
            false => self.peers.get(osd).map(|peer| &peer.missing),
        };
        let mut clones = receivers.iter().filter_map(missing_at).flat_map(|missing| {
            missing.family(family(head)).filter(|one| !one.snap.is_head()).map(move |clone| (missing, clone))
        });
        let first = clones.find(|(missing, clone)| {
            !self.recovery.unfound.contains(*clone) && self.cloned_from_head(missing, clone).is_some()
        });
        first.map(|(_, clone)| clone.clone())
    }
}
