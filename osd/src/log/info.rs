//! What one OSD has of a PG, and the PG's history: typed, checked, merged.

use super::entry::{RecordError, decode_version, encode_version};
use super::missing::MissingSet;
use super::pg_log::PgLog;
use bytes::Bytes;
use nacre_types::{EVersion, Epoch, ObjectId, OsdId, PgId, mutant};
use nacre_wire::messages::{PgHistory, PgInfo};

/// A PG's history as far as the cluster needs it: the same whoever tells it, newer always wins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct History {
    pub created: Epoch,
    pub last_epoch_started: Epoch,
    pub last_interval_started: Epoch,
    pub last_epoch_clean: Epoch,
    pub last_interval_clean: Epoch,
    pub same_interval_since: Epoch,
    pub last_scrub_ms: u64,
    pub last_deep_scrub_ms: u64,
}

impl History {
    /// Takes over what `other` knows better, except the current interval's start, which each OSD works out from its
    /// maps. True if anything changed.
    pub fn merge(&mut self, other: &History) -> bool {
        let before = *self;
        if self.created == Epoch::ZERO || (other.created > Epoch::ZERO && other.created < self.created) {
            self.created = other.created;
        }
        self.last_epoch_started = self.last_epoch_started.max(other.last_epoch_started);
        self.last_interval_started = self.last_interval_started.max(other.last_interval_started);
        self.last_epoch_clean = self.last_epoch_clean.max(other.last_epoch_clean);
        self.last_interval_clean = self.last_interval_clean.max(other.last_interval_clean);
        self.last_scrub_ms = self.last_scrub_ms.max(other.last_scrub_ms);
        self.last_deep_scrub_ms = self.last_deep_scrub_ms.max(other.last_deep_scrub_ms);
        *self != before
    }

    pub fn decode(wire: &PgHistory) -> History {
        History {
            created: Epoch(wire.created),
            last_epoch_started: Epoch(wire.last_epoch_started),
            last_interval_started: Epoch(wire.last_interval_started),
            last_epoch_clean: Epoch(wire.last_epoch_clean),
            last_interval_clean: Epoch(wire.last_interval_clean),
            same_interval_since: Epoch(wire.same_interval_since),
            last_scrub_ms: wire.last_scrub_ms,
            last_deep_scrub_ms: wire.last_deep_scrub_ms,
        }
    }

    pub fn encode(&self) -> PgHistory {
        PgHistory {
            created: self.created.0,
            last_epoch_started: self.last_epoch_started.0,
            last_interval_started: self.last_interval_started.0,
            last_epoch_clean: self.last_epoch_clean.0,
            last_interval_clean: self.last_interval_clean.0,
            same_interval_since: self.same_interval_since.0,
            last_scrub_ms: self.last_scrub_ms,
            last_deep_scrub_ms: self.last_deep_scrub_ms,
        }
    }
}

/// How far a copy's objects are there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum BackfillMark {
    /// All of them, but for the missing set.
    #[default]
    Complete,
    /// Those with keys up to it (`ObjectId::key`), but for the missing set; none for the empty key. What lies above is
    /// leftovers that mean nothing.
    At(Bytes),
}

impl BackfillMark {
    pub const START: BackfillMark = BackfillMark::At(Bytes::new());

    pub fn is_complete(&self) -> bool {
        *self == BackfillMark::Complete
    }

    pub fn covers(&self, object: &ObjectId) -> bool {
        match self {
            BackfillMark::Complete => true,
            BackfillMark::At(key) if key.is_empty() => false,
            BackfillMark::At(key) => object.key().as_slice() <= key.as_ref(),
        }
    }

    pub fn covers_key(&self, object: &[u8]) -> bool {
        match self {
            BackfillMark::Complete => true,
            BackfillMark::At(key) => object <= key.as_ref(),
        }
    }
}

/// What one OSD has of a PG.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Info {
    pub pg: PgId,
    /// The log's head.
    pub last_update: EVersion,
    /// Everything up to here is in the objects.
    pub last_complete: EVersion,
    pub log_tail: EVersion,
    /// As this copy recorded it, unlike the history's.
    pub last_epoch_started: Epoch,
    pub last_interval_started: Epoch,
    pub history: History,
    pub last_backfill: BackfillMark,
    pub objects: u64,
    pub bytes: u64,
    pub missing_count: u64,
    /// False for "I have nothing of it".
    pub exists: bool,
}

impl Info {
    /// A PG this OSD has nothing of.
    pub fn absent(pg: PgId) -> Info {
        Info {
            pg,
            last_update: EVersion::ZERO,
            last_complete: EVersion::ZERO,
            log_tail: EVersion::ZERO,
            last_epoch_started: Epoch::ZERO,
            last_interval_started: Epoch::ZERO,
            history: History::default(),
            last_backfill: BackfillMark::Complete,
            objects: 0,
            bytes: 0,
            missing_count: 0,
            exists: false,
        }
    }

    /// A PG this OSD makes, empty and complete as of `created`.
    pub fn created(pg: PgId, created: Epoch) -> Info {
        let history = History { created, last_epoch_clean: created, ..History::default() };
        Info { history, exists: true, ..Info::absent(pg) }
    }

    pub fn is_complete(&self) -> bool {
        self.last_backfill.is_complete()
    }

    /// Takes over what log and missing set say. `last_complete` is the newest version before anything needed.
    pub fn follow(&mut self, log: &PgLog, missing: &MissingSet) {
        (self.last_update, self.log_tail) = (log.head(), log.tail());
        self.missing_count = missing.len() as u64;
        self.last_complete = match missing.oldest_need() {
            None => log.head(),
            Some(need) => log.versions_down().find(|&version| version < need).unwrap_or(EVersion::ZERO),
        };
    }

    pub fn decode(wire: &PgInfo) -> Result<Info, RecordError> {
        let history = wire.history.as_ref().map(History::decode).unwrap_or_default();
        let mark = if wire.backfilling {
            BackfillMark::At(wire.last_backfill.clone())
        } else {
            BackfillMark::Complete
        };
        let info = Info {
            pg: PgId::from_u64(wire.pg),
            last_update: decode_version(wire.last_update),
            last_complete: decode_version(wire.last_complete),
            log_tail: decode_version(wire.log_tail),
            last_epoch_started: Epoch(wire.last_epoch_started),
            last_interval_started: Epoch(wire.last_interval_started),
            history,
            last_backfill: mark,
            objects: wire.objects,
            bytes: wire.bytes,
            missing_count: wire.missing_count,
            exists: wire.exists,
        };
        if info.log_tail > info.last_update {
            let (version, previous) = (info.last_update, info.log_tail);
            return Err(RecordError::OutOfOrder { version, previous });
        }
        Ok(info)
    }

    pub fn encode(&self) -> PgInfo {
        let last_backfill = match &self.last_backfill {
            BackfillMark::Complete => Bytes::new(),
            BackfillMark::At(key) => key.clone(),
        };
        PgInfo {
            pg: self.pg.as_u64(),
            last_update: encode_version(self.last_update),
            last_complete: encode_version(self.last_complete),
            log_tail: encode_version(self.log_tail),
            last_epoch_started: self.last_epoch_started.0,
            last_interval_started: self.last_interval_started.0,
            history: Some(self.history.encode()),
            last_backfill,
            backfilling: !self.is_complete(),
            objects: self.objects,
            bytes: self.bytes,
            missing_count: self.missing_count,
            exists: self.exists,
        }
    }
}

/// Whose log is authoritative: of the complete copies that took part in the newest interval known to have started, the
/// one with the newest entry, then the longest log, then `prefer`, then the lowest id. `None` if no copy qualifies: the
/// PG is incomplete.
///
/// One that misses nothing goes first: it has whatever its log names, where another may know of writes that only OSDs
/// now gone have applied. All of them have what was acknowledged.
///
/// A copy in backfill does not vouch for a start it recorded itself (it may have recorded it while nobody complete did);
/// what its history says of others counts.
pub fn find_best<'a>(
    infos: impl Iterator<Item = (OsdId, &'a Info)> + Clone,
    prefer: Option<OsdId>,
) -> Option<Best> {
    let known = infos.filter(|(_, info)| info.exists);
    let whole = |info: &Info| info.is_complete() || mutant!(IncompleteLeads);
    let started = known
        .clone()
        .map(|(_, info)| {
            let own = if info.is_complete() { info.last_epoch_started } else { Epoch::ZERO };
            own.max(info.history.last_epoch_started)
        })
        .max()?;
    // Each member of that interval had all that was acked before it; an older copy that has as much is as good.
    let seen_to = known
        .clone()
        .filter(|(_, info)| info.last_epoch_started >= started && whole(info))
        .map(|(_, info)| info.last_update)
        .min()?;
    known
        .filter(|(_, info)| whole(info) && info.last_update >= seen_to)
        .filter(|(_, info)| info.last_epoch_started >= started)
        .max_by_key(|(osd, info)| {
            use std::cmp::Reverse;
            let misses_nothing = info.missing_count == 0;
            (misses_nothing, info.last_update, Reverse(info.log_tail), Some(*osd) == prefer, Reverse(*osd))
        })
        .map(|(osd, _)| Best { osd, started, seen_to })
}

/// Whose log is authoritative, and what the others tell of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Best {
    pub osd: OsdId,
    /// The newest interval known to have started, by its epoch.
    pub started: Epoch,
    /// A member of that interval has nothing newer. As writes are acknowledged when all members have them, nothing newer
    /// was; and nothing newer was read, as reads wait for writes before them.
    pub seen_to: EVersion,
}

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::PoolId;

    fn info(started: u64, update: (u64, u64), complete: bool) -> Info {
        let mut info = Info::created(PgId::new(PoolId(1), 0), Epoch(1));
        info.last_epoch_started = Epoch(started);
        info.last_update = EVersion::new(Epoch(update.0), update.1);
        if !complete {
            info.last_backfill = BackfillMark::START;
        }
        info
    }

    #[test]
    fn a_rewound_interval_beats_an_older_log_with_a_newer_entry() {
        let stale = info(5, (5, 10), true);
        let live = info(7, (5, 9), true);
        let infos = [(OsdId(0), &stale), (OsdId(1), &live)];
        let best = find_best(infos.iter().copied(), Some(OsdId(0)));
        assert_eq!(best, Some(Best { osd: OsdId(1), started: Epoch(7), seen_to: live.last_update }));
    }

    #[test]
    fn an_incomplete_peer_that_recorded_a_later_start_does_not_block() {
        let mut complete = info(473, (473, 302), true);
        complete.history.last_epoch_started = Epoch(473);
        let mut backfilling = info(477, (473, 302), false);
        backfilling.history.last_epoch_started = Epoch(473);
        let empty = Info::absent(complete.pg);
        let infos =
            [(OsdId(0), &complete), (OsdId(1), &backfilling), (OsdId(2), &empty), (OsdId(3), &complete)];
        assert_eq!(find_best(infos.iter().copied(), Some(OsdId(3))).map(|best| best.osd), Some(OsdId(3)));
        let infos = [(OsdId(1), &backfilling), (OsdId(2), &empty)];
        assert_eq!(find_best(infos.iter().copied(), None), None);
    }

    #[test]
    fn what_one_member_of_the_newest_start_lacks_was_never_acknowledged() {
        let (ahead, behind) = (info(7, (7, 9), true), info(7, (7, 6), true));
        let (old, filling) = (info(5, (5, 3), true), info(7, (7, 2), false));
        let infos = [(OsdId(0), &behind), (OsdId(1), &ahead), (OsdId(2), &old), (OsdId(3), &filling)];
        let best = find_best(infos.iter().copied(), None).unwrap();
        assert_eq!((best.osd, best.seen_to), (OsdId(1), behind.last_update));
    }

    #[test]
    fn infos_and_histories_round_trip() {
        let mut one = info(3, (4, 9), false);
        one.history.last_epoch_clean = Epoch(2);
        one.last_backfill = BackfillMark::At(Bytes::from_static(b"k"));
        assert_eq!(Info::decode(&one.encode()), Ok(one.clone()));
        let mut other = History { last_epoch_started: Epoch(9), created: Epoch(1), ..History::default() };
        assert!(other.merge(&one.history));
        assert_eq!((other.last_epoch_started, other.last_epoch_clean), (Epoch(9), Epoch(2)));
        assert!(!other.merge(&one.history));
        let mut bad = one.encode();
        bad.log_tail = encode_version(EVersion::new(Epoch(9), 9));
        assert!(Info::decode(&bad).is_err());
    }
}
