//! Copies that cannot be used: bytes that are not what was written, and disks that give none.
//!
//! Bytes that do not match their checksum are gone. A disk that gives an error may give the bytes another time, so such
//! a copy is remembered as *unread*, on its disk too: another source is preferred, and once none is left it is tried
//! again, more and more rarely, for as long as the object is unfound. Every use checks the checksums, so to try is safe.

use crate::log::{Missing, persist};
use crate::pg::{Pg, PgContext};
use nacre_store::StoreError;
use nacre_types::{EVersion, Instant, ObjectId, OsdId};
use nacre_wire::Transaction;
use nacre_wire::messages::LogLevel;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// For so long reads of an object may fail everywhere before its clients are told so; until then they wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between tries: at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What the primary tried to get a missing object.
#[derive(Debug, Default)]
pub(super) struct Tried {
    /// They did not have it after all.
    pub sources: BTreeSet<OsdId>,
    /// They did not answer, and when that was noticed: others are asked first, and then they again.
    pub silent: BTreeMap<OsdId, Instant>,
    /// Somebody held it, damaged.
    pub damaged: bool,
    /// The cluster's log says that it is unfound.
    pub told: bool,
    unread: Option<Unread>,
}

/// Disks gave no answer.
#[derive(Debug)]
struct Unread {
    first: Instant,
    last: Instant,
    pause: Duration,
}

impl Tried {
    /// A disk that holds the object could not read it just now.
    pub fn not_read(&mut self, now: Instant) {
        match &mut self.unread {
            // What failed once, long ago, was read since.
            Some(unread) if now.since(unread.last) <= PAUSE_MAX * 2 => {
                if now.since(unread.last) >= unread.pause {
                    unread.pause = (unread.pause * 2).min(PAUSE_MAX);
                }
                unread.last = now;
            }
            _ => self.unread = Some(Unread { first: now, last: now, pause: PAUSE }),
        }
    }

    pub fn is_damaged(&self) -> bool {
        self.damaged || self.unread.as_ref().is_some_and(|unread| unread.last.since(unread.first) >= PATIENCE)
    }

    fn may_ask_disks(&self, now: Instant) -> bool {
        self.unread.as_ref().is_none_or(|unread| now.since(unread.last) >= unread.pause)
    }
}

impl Pg {
    /// This disk's copy of an object cannot be used: it is as good as missing. It stays so across a restart.
    pub(crate) fn found_bad(
        &mut self,
        ctx: &mut PgContext<'_>,
        object: &ObjectId,
        version: EVersion,
        error: &StoreError,
    ) {
        let known = self.missing.get(object);
        let unread = matches!(error, StoreError::Disk(_)) && known.is_none_or(|known| known.unread);
        let what = if unread { "cannot be read" } else { "is damaged" };
        let text = format!("PG {}: {object} {what} on {}: {error}; to be recovered", self.id, self.me);
        ctx.log(LogLevel::Error, text);
        let missing = known.map_or(Missing::of(version, EVersion::ZERO), Missing::without_base);
        let missing = Missing { unread, ..missing };
        self.missing.add(object.clone(), missing);
        self.info.follow(&self.log, &self.missing);
        if self.is_primary() {
            let tried = self.recovery.tried.entry(object.clone()).or_default();
            match unread {
                true => tried.not_read(ctx.now),
                false => tried.damaged = true,
            }
            self.trust_nothing(self.me, object);
        }
        let mut t = Transaction::new(self.id);
        persist::add_missing(&mut t, object, &missing);
        ctx.submit_unwatched(t);
    }

    /// An OSD's copy is damaged, and what it shares with others of its family there may be just that.
    pub(crate) fn trust_nothing(&mut self, osd: OsdId, object: &ObjectId) {
        self.recovery.in_full.insert((osd, object.clone()));
    }

    /// Nobody else has an unfound object: those whose disks gave an error may be asked once more. True if there are any.
    pub(super) fn ask_disks_again(
        &mut self,
        ctx: &mut PgContext<'_>,
        object: &ObjectId,
        missing: Missing,
    ) -> bool {
        let tried = self.recovery.tried.entry(object.clone()).or_default();
        if !tried.may_ask_disks(ctx.now) {
            return false;
        }
        tried.sources.retain(|osd| {
            let theirs = self.peers.get(osd).and_then(|peer| peer.missing.get(object));
            theirs.is_none_or(|theirs| !theirs.may_be_read(missing.need))
        });
        missing.unread && self.take_back(ctx, object, missing.need)
            || !self.sources(ctx, object, missing.need).is_empty()
    }

    /// The copy here counts again, until a read of it fails. False if it is not there.
    fn take_back(&mut self, ctx: &mut PgContext<'_>, object: &ObjectId, need: EVersion) -> bool {
        match super::usable_version(ctx.store, object) {
            Ok(version) if version == need => {}
            Ok(_) => return false,
            Err(error) => {
                self.recovery_store_failed(ctx, &error);
                return false;
            }
        }
        let mut t = Transaction::new(self.id);
        persist::remove_missing(&mut t, object);
        self.missing.remove(object);
        self.info.follow(&self.log, &self.missing);
        ctx.submit_unwatched(t);
        true
    }
}
