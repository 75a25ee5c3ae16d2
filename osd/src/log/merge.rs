//! Bringing a copy's log in line with the authoritative one.
//!
//! Writes are applied in place and keep nothing to roll back by. So an object that a discarded entry touched is marked
//! missing at the version the authoritative log has for it, with nothing usable on disk; or, if it did not exist then,
//! removed. That is invariant I8: what another replica discarded never comes back.
//!
//! Both sides of a peering run the same function: the primary to learn what a peer will miss, the peer when it is
//! activated. So they agree.

use super::entry::Entry;
use super::info::BackfillMark;
use super::missing::{Missing, MissingSet};
use super::pg_log::PgLog;
use nacre_types::{EVersion, ObjectId, mutant};
use std::cmp::Ordering;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MergeError {
    #[error("the log {own_tail}..{own_head} does not meet the authoritative one {auth_tail}..{auth_head}")]
    NoOverlap { own_tail: EVersion, own_head: EVersion, auth_tail: EVersion, auth_head: EVersion },
}

/// What a merge did. The log and the missing set are changed in place; [`super::persist::merged`] writes them down.
#[derive(Clone, PartialEq, Debug)]
pub struct Merged {
    /// The newest version both logs agreed on.
    pub common: EVersion,
    /// Discarded entries, newest first.
    pub divergent: Vec<Entry>,
    /// How many entries were taken over.
    pub taken: usize,
    /// How many older ones: so many now come first, and the tail has moved back.
    pub extended: usize,
    /// Objects that discarded entries created: to be removed in the same transaction.
    pub remove: Vec<ObjectId>,
}

/// A peer's log and missing set as it sent them.
#[derive(Clone, Debug)]
pub struct PeerLog {
    pub log: PgLog,
    pub missing: MissingSet,
    pub last_backfill: BackfillMark,
}

/// What a peer will have once it has merged the authoritative log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerState {
    pub common: EVersion,
    pub missing: MissingSet,
}

/// Makes `log` equal to `auth` (either may know older entries than the other) and `missing` what the objects on disk lack then.
/// `mark` is this copy's: objects beyond it are nobody's concern until backfill comes to them. No client has seen what
/// the authoritative log names after `seen_to`.
pub fn merge_authoritative(
    log: &mut PgLog,
    missing: &mut MissingSet,
    mark: &BackfillMark,
    auth: &PgLog,
    seen_to: EVersion,
) -> Result<Merged, MergeError> {
    let common = common_version(log, auth)?;
    let divergent = log.rewind(common);
    let remove = if mutant!(DivergentKept) { Vec::new() } else { discard(&divergent, missing, mark) };
    let extended = log.extend_back(auth);
    let mut taken = 0;
    for entry in auth.entries_after(common).into_iter().flatten() {
        if mark.covers(&entry.object) && !mutant!(MissingNotNoted) {
            missing.add_next_event(entry, seen_to);
        }
        log.append(entry.clone());
        taken += 1;
    }
    assert_eq!(log.head(), auth.head(), "a merged log ends where the authoritative one does");
    Ok(Merged { common, divergent, taken, extended, remove })
}

/// What `peer` will miss once it has merged `auth`.
pub fn process_replica_log(auth: &PgLog, peer: PeerLog, seen_to: EVersion) -> Result<PeerState, MergeError> {
    let PeerLog { mut log, mut missing, last_backfill } = peer;
    let merged = merge_authoritative(&mut log, &mut missing, &last_backfill, auth, seen_to)?;
    Ok(PeerState { common: merged.common, missing })
}

/// The newest version at which both logs are the same history.
///
/// A version names one entry for ever (its epoch is that of the one primary that could make it), so it is the newest
/// one that both hold as an entry or as their tail. A log that passes the other's tail without touching it has
/// diverged somewhere behind it.
fn common_version(log: &PgLog, auth: &PgLog) -> Result<EVersion, MergeError> {
    let mut own = log.versions_down().peekable();
    let mut other = auth.versions_down().peekable();
    while let (Some(a), Some(b)) = (own.peek(), other.peek()) {
        match a.cmp(b) {
            Ordering::Equal => return Ok(*a),
            Ordering::Less => drop(other.next()),
            Ordering::Greater => drop(own.next()),
        }
    }
    Err(MergeError::NoOverlap {
        own_tail: log.tail(),
        own_head: log.head(),
        auth_tail: auth.tail(),
        auth_head: auth.head(),
    })
}

/// Brings the missing set back to before the discarded entries, which come newest first. Returns what they created.
fn discard(divergent: &[Entry], missing: &mut MissingSet, mark: &BackfillMark) -> Vec<ObjectId> {
    let mut oldest: BTreeMap<&ObjectId, &Entry> = BTreeMap::new();
    for entry in divergent.iter().filter(|entry| !entry.is_error()) {
        oldest.insert(&entry.object, entry);
    }
    let mut remove = Vec::new();
    for (object, first) in oldest {
        let was = missing.remove(object);
        if !mark.covers(object) {
            continue;
        }
        let prior = first.prior_version;
        if first.makes_anew() {
            // It must not exist now; later entries of the authoritative log may make it again.
            remove.push(object.clone());
            continue;
        }
        let have = match was {
            // The change never reached the disk, which holds exactly what is wanted.
            Some(was) if was.have == prior => continue,
            Some(was) if was.have < prior => was.have,
            // The disk holds what was discarded.
            _ => EVersion::ZERO,
        };
        missing.add(object.clone(), Missing::of(prior, have));
    }
    remove
}

#[cfg(test)]
mod tests;
