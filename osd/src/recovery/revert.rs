//! Going back to an earlier version of an object whose newest cannot be found.
//!
//! ```text
//!   copy      disk     missing             log: ... modify N, revert V to H
//!   primary   N, bad   needs V, has none   pulls H from b as V
//!   b         H        needs V, has H      is sent what changed from H to V: the number
//! ```
//!
//! The entry goes to all members and changes no object. So it may still diverge: nothing is lost by then. What it leaves
//! behind are missing objects as any others, but that whoever holds the earlier version, member or not, can send it under
//! the new number. Recovery does so once all members have the entry.
//!
//! What is undone is undone with its requests: a client that asks for the same again is served anew. Whether anybody has
//! seen it is known: see [`Missing::seen`](crate::log::Missing) and `Best::seen_to`. Until a version that was not
//! acknowledged before an interval began is on all members, nobody reads it either ([`Pg::unseen_lacking`]).

use super::family;
use crate::log::{Entry, Missing, MissingSet, encode_missing, persist};
use crate::ops::{INFO_ATTR, ObjectInfo};
use crate::pg::{Pg, PgContext};
use nacre_store::StoreError;
use nacre_types::{EVersion, ObjectId};
use nacre_wire::Transaction;
use nacre_wire::messages::{LogKind, MissingObject};
use nacre_wire::transaction::Pair;

/// What reverting an unfound object would mean.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Outlook {
    /// The version it would have again; zero if it would not exist.
    pub to: EVersion,
    /// No client has seen what would be undone.
    pub harmless: bool,
    /// Clones that what would be undone has made, by their versions.
    clones: Vec<(ObjectId, EVersion)>,
}

impl Pg {
    /// Peering is done: what all copies know of what was never shown. What this one misses of it is noted.
    pub(crate) fn gather_unseen(&mut self, t: &mut Transaction) {
        self.recovery.unseen.clear();
        let theirs = self.peers.values().map(|peer| &peer.missing);
        for (object, missing) in theirs.chain([&self.missing]).flat_map(|set| set.unseen()) {
            let (need, seen) = (missing.need, missing.seen);
            let known = self.recovery.unseen.entry(object.clone()).or_insert((need, seen));
            known.1 = known.1.min(seen);
        }
        for (object, &(need, seen)) in &self.recovery.unseen {
            self.missing.note_seen(object, need, seen);
            if let Some(missing) = self.missing.get(object) {
                persist::add_missing(t, object, &missing);
            }
        }
    }

    /// What a member misses without knowing that it was never shown.
    pub(crate) fn unseen_news(&self, peer: &MissingSet) -> Vec<MissingObject> {
        let unseen = self.recovery.unseen.iter();
        let news = unseen.filter_map(|(object, &(need, seen))| {
            let missing = peer.get(object).filter(|missing| missing.need == need && missing.seen > seen)?;
            Some(encode_missing(object, &Missing { seen, ..missing }))
        });
        news.collect()
    }

    /// What is not to be read of an object and its clones yet, as some member lacks it that no client has seen: it might
    /// still be given up.
    pub(super) fn unseen_lacking(&mut self, object: &ObjectId) -> Vec<ObjectId> {
        let names: Vec<ObjectId> =
            self.recovery.unseen.range(family(object)).map(|(name, _)| name.clone()).collect();
        let (lacking, shown): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| self.missing.contains(name) || !self.lacking(name).is_empty());
        for name in shown {
            self.recovery.unseen.remove(&name);
        }
        lacking
    }

    /// How far the log may be trimmed: it has to tell what a revert would undo of what was never shown, and whose requests
    /// that were. Within reason: an object may stay unfound for long.
    pub(crate) fn trim_limit(&self, held: usize) -> EVersion {
        if self.missing.is_empty() || self.log.entries().len() >= held {
            return self.committed_to;
        }
        let unseen = self.recovery.unseen.iter().filter(|(object, _)| self.missing.contains(object));
        unseen.map(|(_, &(_, seen))| seen).chain([self.committed_to]).min().expect("not empty")
    }

    /// What a missing object could be reverted to, or why it could not.
    pub(super) fn revert_outlook(&self, object: &ObjectId) -> Result<Outlook, &'static str> {
        let missing = self.missing.get(object).ok_or("it is not missing")?;
        if !object.snap.is_head() {
            return Err("it is a clone: it only goes together with its head, or is deleted");
        }
        let theirs = self.peers.values().filter(|peer| peer.info.last_backfill.covers(object));
        let theirs = theirs.filter_map(|peer| peer.missing.get(object));
        let to = theirs.chain([missing]).map(|copy| copy.have).max().unwrap_or_default();
        let unseen = self.recovery.unseen.get(object).filter(|(need, _)| *need == missing.need);
        let seen = unseen.map_or(missing.need, |(_, seen)| *seen);
        let reached = to == EVersion::ZERO || self.log.reaches(to) || self.log.goes_on_from(object, to);
        if !reached {
            return Err("the log no longer tells what would be undone");
        }
        let of_family =
            |entry: &&Entry| !entry.is_error() && entry.version > to && entry.object.head() == *object;
        let mut undone: Vec<&Entry> = self.log.entries().filter(of_family).collect();
        if to == EVersion::ZERO {
            let begins = |entry: &&Entry| entry.object == *object && entry.makes_anew();
            let first = undone.iter().rposition(begins);
            undone.drain(..first.ok_or("no copy holds an earlier version of it")?);
        }
        if undone.iter().any(|entry| entry.is_delete() && entry.object != *object) {
            return Err("a snapshot of it was trimmed since: the earlier version would still name it");
        }
        let newest = |clone: &ObjectId| {
            undone.iter().rev().find(|entry| entry.object == *clone).map(|entry| entry.version)
        };
        let made = undone.iter().filter(|entry| entry.kind == LogKind::Clone);
        let clones = made.filter_map(|entry| Some((entry.object.clone(), newest(&entry.object)?))).collect();
        Ok(Outlook { to, harmless: to >= seen, clones })
    }

    /// All members learn that the object is again what it was.
    pub(super) fn revert(
        &mut self,
        ctx: &mut PgContext<'_>,
        object: &ObjectId,
        outlook: Outlook,
    ) -> Result<(), StoreError> {
        let Some(missing) = self.missing.get(object) else { return Ok(()) };
        let (mut t, mut entries) = (Transaction::new(self.id), Vec::new());
        let mut version = self.next_version(ctx);
        let mut undo = |object: &ObjectId, prior: EVersion, to: EVersion| {
            entries.push(Entry {
                reverts_to: to,
                modified_ms: ctx.wall_ms,
                ..Entry::new(LogKind::Revert, object.clone(), version, prior)
            });
            version.seq += 1;
        };
        for (clone, at) in &outlook.clones {
            super::remove_object(ctx.store, &mut t, clone)?;
            undo(clone, *at, EVersion::ZERO);
        }
        if outlook.to == EVersion::ZERO {
            super::remove_object(ctx.store, &mut t, object)?;
        }
        undo(object, missing.need, outlook.to);
        let encoded = entries.iter().map(Entry::encode).collect();
        self.replicate(ctx, object.clone(), t, encoded, None);
        for osd in self.replicas() {
            if let Some(peer) = self.peers.get_mut(&osd)
                && peer.info.last_backfill.covers(object)
                && let Some(entry) = entries.last().filter(|entry| !entry.is_delete())
            {
                peer.missing.add_next_event(entry, entry.version);
            }
        }
        for name in self.recovery.unfound.range(family(object)).cloned().collect::<Vec<_>>() {
            if name == *object || !self.missing.contains(&name) {
                self.recovery.unfound.remove(&name);
                self.recovery.tried.remove(&name);
            }
        }
        Ok(())
    }

    /// Any member: the log goes on by entries of which one may be a revert. What it names is missing now.
    pub(crate) fn note_reverts(&mut self, t: &mut Transaction, entries: &[Entry]) {
        for entry in entries.iter().filter(|entry| entry.is_revert() && !entry.is_delete()) {
            if !self.info.last_backfill.covers(&entry.object) {
                continue;
            }
            self.missing.add_next_event(entry, entry.version);
            if let Some(missing) = self.missing.get(&entry.object) {
                persist::add_missing(t, &entry.object, &missing);
            }
        }
    }

    /// What the primary's disk holds is what is needed: it gets the number. False if it is not there after all.
    pub(super) fn take_reverted(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId) -> bool {
        let Some(missing) = self.missing.get(object) else { return false };
        let mut t = Transaction::new(self.id);
        let info = match ctx.store.attr(object, INFO_ATTR.as_bytes()) {
            Ok(raw) => raw.and_then(|raw| ObjectInfo::from_attr(&raw)),
            Err(StoreError::Corrupt(_)) => None,
            Err(error) => {
                self.recovery_store_failed(ctx, &error);
                return false;
            }
        };
        let taken = match info.filter(|info| info.version() == missing.have) {
            Some(info) => {
                let value = info.numbered(missing.need).to_attr();
                let pair = Pair { key: INFO_ATTR.as_bytes().into(), value };
                t.set_attrs(object, vec![pair]);
                persist::remove_missing(&mut t, object);
                self.missing.remove(object);
                true
            }
            None => {
                persist::add_missing(&mut t, object, &missing.without_base());
                self.missing.add(object.clone(), missing.without_base());
                false
            }
        };
        self.info.follow(&self.log, &self.missing);
        ctx.submit_unwatched(t);
        taken
    }
}
