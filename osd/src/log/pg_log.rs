//! The log in memory: entries in version order, and the requests they answered, which outlive their entries.

use super::entry::{Entry, RecordError, decode_version, encode_version};
use super::requests::Requests;
use bytes::Bytes;
use nacre_types::{ClientId, EVersion, ObjectId, RequestId, mutant};
use nacre_wire::ErrorCode;
use nacre_wire::messages::LogEntry;
use std::collections::VecDeque;

/// Most requests remembered after their entries were trimmed. Beyond it the oldest are forgotten, whether or not their
/// clients have their answers.
pub const DUPS_MAX: usize = 3000;

/// A request whose entry was trimmed, and whose client may not have its answer.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Dup {
    version: EVersion,
    request: RequestId,
    code: ErrorCode,
    answer: Bytes,
    answered_below: u64,
    unanswered: Vec<u64>,
}

impl Dup {
    fn encode(&self) -> LogEntry {
        LogEntry {
            version: encode_version(self.version),
            client: self.request.client.0,
            request: self.request.seq,
            code: self.code as i32,
            answer: self.answer.clone(),
            answered_below: self.answered_below,
            unanswered: self.unanswered.clone(),
            ..LogEntry::default()
        }
    }
}

/// What became of a request that was seen before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundRequest {
    /// The version it made (or its failure was recorded as). Its answer may go out once this is committed everywhere.
    pub version: EVersion,
    pub code: ErrorCode,
    pub answer: Bytes,
}

/// What a trim did, for [`super::persist::trim`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trimmed {
    pub tail: EVersion,
    pub entries: usize,
    /// Records from the first to the second version that are not even dups any more: their keys can go.
    pub forget: Vec<(EVersion, EVersion)>,
}

/// Entries after `tail`, up to `head`.
#[derive(Clone, Debug, Default)]
pub struct PgLog {
    tail: EVersion,
    head: EVersion,
    entries: VecDeque<Entry>,
    /// Ascending versions, all at or below `tail`.
    dups: VecDeque<Dup>,
    /// Records that were found at or below the tail and are not kept: the next trim names them too.
    unkept: Vec<EVersion>,
    requests: Requests,
    /// How many entries are reverts.
    reverts: usize,
}

impl PgLog {
    /// An empty log that knows of nothing before `tail`.
    pub fn new(tail: EVersion) -> PgLog {
        PgLog { tail, head: tail, ..PgLog::default() }
    }

    pub fn tail(&self) -> EVersion {
        self.tail
    }

    /// The newest entry's version; the tail if there are no entries.
    pub fn head(&self) -> EVersion {
        self.head
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn dup_count(&self) -> usize {
        self.dups.len()
    }

    /// Oldest first.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> + ExactSizeIterator {
        self.entries.iter()
    }

    pub fn last(&self) -> Option<&Entry> {
        self.entries.back()
    }

    pub fn append(&mut self, entry: Entry) {
        assert!(entry.version > self.head, "{} does not follow the log's head {}", entry.version, self.head);
        self.head = entry.version;
        self.reverts += usize::from(entry.is_revert());
        self.remember(entry.request, entry.version);
        self.entries.push_back(entry);
    }

    fn remember(&mut self, request: RequestId, version: EVersion) {
        if request.client != ClientId::default() {
            self.requests.insert(request, version);
        }
    }

    fn forget(&mut self, request: RequestId, version: EVersion) {
        self.requests.remove(request, version);
    }

    pub fn find_request(&self, request: RequestId) -> Option<FoundRequest> {
        let version = self.requests.get(request)?;
        if let Some(entry) = self.at(version) {
            if self.is_undone(entry) {
                return None;
            }
            return Some(FoundRequest { version, code: entry.code, answer: entry.answer.clone() });
        }
        let at = self.dups.binary_search_by_key(&version, |dup| dup.version).ok()?;
        let dup = &self.dups[at];
        Some(FoundRequest { version, code: dup.code, answer: dup.answer.clone() })
    }

    /// Whether the object was reverted to before this entry (which may only record what a request met then): as if it had
    /// never been, so that its request, if sent again, is to be carried out.
    fn is_undone(&self, entry: &Entry) -> bool {
        if self.reverts == 0 {
            return false;
        }
        let mut later = self.changes_of(&entry.object, entry.version).into_iter().flatten();
        let end = later.find(|next| next.makes_anew() || next.is_revert() && next.reverts_to < entry.version);
        end.is_some_and(Entry::is_revert)
    }

    /// Whether the client has its answer to a request that the log has therefore forgotten.
    pub fn is_answered(&self, request: RequestId) -> bool {
        self.requests.is_answered(request)
    }

    /// Whether the first change of the object that the log knows followed right upon `version`, which lies behind the tail:
    /// nothing that happened to the object after it is gone. An operation changes up to two clones before their head.
    pub fn goes_on_from(&self, head: &ObjectId, version: EVersion) -> bool {
        let first = self.entries.iter().position(|entry| !entry.is_error() && entry.object == *head);
        let begins = |at: usize| at > 1 || at == 1 && self.entries[0].object.head() != *head;
        first.is_some_and(|at| begins(at) && self.entries[at].prior_version == version)
    }

    /// The entry of exactly that version.
    pub fn at(&self, version: EVersion) -> Option<&Entry> {
        let at = self.entries.binary_search_by_key(&version, |entry| entry.version).ok()?;
        Some(&self.entries[at])
    }

    /// Whether the log can tell everything that happened after `version`.
    pub fn reaches(&self, version: EVersion) -> bool {
        version >= self.tail
    }

    /// Entries after `version`, oldest first; `None` if that lies behind the tail.
    pub fn entries_after(&self, version: EVersion) -> Option<impl ExactSizeIterator<Item = &Entry>> {
        if !self.reaches(version) {
            return None;
        }
        let first = self.entries.partition_point(|entry| entry.version <= version);
        Some(self.entries.range(first..))
    }

    /// The versions of all entries, newest first, then the tail: the points of history this log vouches for.
    pub fn versions_down(&self) -> impl Iterator<Item = EVersion> + '_ {
        self.entries.iter().rev().map(|entry| entry.version).chain(std::iter::once(self.tail))
    }

    /// The newest point of this log's history at or before `version`; its tail if that is later. Whoever sends only
    /// the end of a log names this as its tail, so that the receiver sees where histories parted.
    pub fn point_at(&self, version: EVersion) -> EVersion {
        self.versions_down().find(|&point| point <= version).unwrap_or(self.tail)
    }

    /// Entries that changed `object` after `version`, oldest first; `None` if that lies behind the tail.
    pub fn changes_of<'a>(
        &'a self,
        object: &'a ObjectId,
        version: EVersion,
    ) -> Option<impl Iterator<Item = &'a Entry>> {
        let after = self.entries_after(version)?;
        Some(after.filter(move |entry| !entry.is_error() && entry.object == *object))
    }

    /// Where to trim to so that about `keep` entries stay, in batches of at least `batch`, never beyond `limit` (what
    /// all members have committed). `None` if there is not enough to trim, or a revert is under way: what it undoes must
    /// be there should it be discarded.
    pub fn trim_target(&self, keep: usize, batch: usize, limit: EVersion) -> Option<EVersion> {
        let under_way = || self.entries.iter().rev().take_while(|entry| entry.version > limit);
        if self.reverts > 0 && under_way().any(Entry::is_revert) {
            return None;
        }
        let excess = self.entries.len().checked_sub(keep).filter(|&n| n >= batch.max(1))?;
        let allowed = self.entries.partition_point(|entry| entry.version <= limit).min(excess);
        (allowed >= batch.max(1)).then(|| self.entries[allowed - 1].version)
    }

    /// Moves the tail up to `to` (never beyond the head), keeping the requests in the dup table.
    pub fn trim(&mut self, to: EVersion) -> Trimmed {
        let to = to.min(self.head);
        let mut entries = 0;
        while let Some(first) = self.entries.front().filter(|entry| entry.version <= to) {
            let undone = self.is_undone(first);
            let Some(entry) = self.entries.pop_front() else { break };
            entries += 1;
            self.reverts -= usize::from(entry.is_revert());
            if undone || mutant!(DupsDroppedAtTrim) {
                self.forget(entry.request, entry.version);
            }
            let Entry { version, request, code, answer, answered_below, unanswered, .. } = entry;
            self.requests.settle(request, answered_below, &unanswered);
            self.dups.push_back(Dup { version, request, code, answer, answered_below, unanswered });
        }
        self.tail = self.tail.max(to);
        let gone = if entries > 0 { self.sweep_dups() } else { Vec::new() };
        Trimmed { tail: self.tail, entries, forget: self.spans(&gone) }
    }

    /// Drops the dups that nobody will ask for again, and the oldest of too many. Which records are to go, with those that
    /// were found earlier, in order.
    fn sweep_dups(&mut self) -> Vec<EVersion> {
        let PgLog { dups, requests, unkept, .. } = self;
        let mut gone = std::mem::take(unkept);
        dups.retain(|dup| {
            let kept = requests.get(dup.request) == Some(dup.version) && !requests.is_answered(dup.request);
            if !kept {
                requests.remove(dup.request, dup.version);
                gone.push(dup.version);
            }
            kept
        });
        for dup in dups.drain(..dups.len().saturating_sub(DUPS_MAX)) {
            requests.remove(dup.request, dup.version);
            gone.push(dup.version);
        }
        gone.sort_unstable();
        gone
    }

    /// Versions, in order, as spans with no kept record in any.
    fn spans(&self, versions: &[EVersion]) -> Vec<(EVersion, EVersion)> {
        let kept_before = |version: EVersion| self.dups.partition_point(|dup| dup.version < version);
        let apart = |a: &EVersion, b: &EVersion| kept_before(*a) == kept_before(*b);
        let spans = versions.chunk_by(apart);
        spans.filter_map(|span| Some((*span.first()?, *span.last()?))).collect()
    }

    /// Takes back every entry after `version`, newest first.
    pub fn rewind(&mut self, version: EVersion) -> Vec<Entry> {
        assert!(version >= self.tail, "rewinding to {version}, behind the tail {}", self.tail);
        let mut undone = Vec::new();
        while let Some(entry) = self.entries.pop_back_if(|entry| entry.version > version) {
            self.reverts -= usize::from(entry.is_revert());
            self.forget(entry.request, entry.version);
            undone.push(entry);
        }
        self.head = self.entries.back().map_or(self.tail, |entry| entry.version);
        undone
    }

    /// Takes over older entries of a log that is known to be the same history up to this one's tail or beyond. How
    /// many.
    pub(super) fn extend_back(&mut self, other: &PgLog) -> usize {
        if other.tail >= self.tail {
            return 0;
        }
        while self.dups.pop_back_if(|dup| dup.version > other.tail).is_some() {}
        let older: Vec<Entry> =
            other.entries.iter().take_while(|entry| entry.version <= self.tail).cloned().collect();
        let count = older.len();
        for entry in older.into_iter().rev() {
            if self.requests.get(entry.request).is_none() {
                self.remember(entry.request, entry.version);
            }
            self.reverts += usize::from(entry.is_revert());
            self.entries.push_front(entry);
        }
        self.tail = other.tail;
        self.unkept.retain(|version| *version <= other.tail);
        count
    }

    /// The log's end after (about) `since` as the wire carries it, with its tail; all of it with the dups for `None`.
    /// Records at or below the tail are dups.
    pub fn encode_after(&self, since: Option<EVersion>) -> (EVersion, Vec<LogEntry>) {
        let tail = since.map_or(self.tail, |since| self.point_at(since));
        let dups = self.dups.iter().filter(|_| since.is_none() && !mutant!(DupsNotSent)).map(Dup::encode);
        let entries = self.entries.iter().filter(|entry| entry.version > tail).map(Entry::encode);
        (tail, dups.chain(entries).collect())
    }

    /// A log of what the wire or the store holds, in version order; records at or below `tail` are dups.
    pub fn decode(tail: EVersion, records: &[LogEntry]) -> Result<PgLog, RecordError> {
        let mut log = PgLog::new(tail);
        let mut previous = EVersion::ZERO;
        for record in records {
            let version = decode_version(record.version);
            if version <= previous {
                return Err(RecordError::OutOfOrder { version, previous });
            }
            previous = version;
            if version > tail {
                log.append(Entry::decode(record)?);
            } else {
                let request = RequestId { client: ClientId(record.client), seq: record.request };
                log.remember(request, version);
                log.requests.settle(request, record.answered_below, &record.unanswered);
                let (code, answer) = (ErrorCode::from_raw(record.code), record.answer.clone());
                let (answered_below, unanswered) = (record.answered_below, record.unanswered.clone());
                log.dups.push_back(Dup { version, request, code, answer, answered_below, unanswered });
            }
        }
        log.unkept = log.sweep_dups();
        Ok(log)
    }

    /// The first entry before which one is lacking, with the version before it: each write took the next number.
    pub fn gap(&self) -> Option<(EVersion, EVersion)> {
        let versions = || self.entries.iter().map(|entry| entry.version);
        let mut pairs = std::iter::once(self.tail).chain(versions()).zip(versions());
        pairs.find(|(previous, version)| Some(version.seq) != previous.seq.checked_add(1))
    }

    /// The log, if no entry is lacking between its tail and its head.
    pub fn unbroken(self) -> Result<PgLog, RecordError> {
        match self.gap() {
            Some((previous, version)) if !mutant!(PieceMissed) => Err(RecordError::Gap { version, previous }),
            _ => Ok(self),
        }
    }

    /// Panics where the parts do not fit together.
    pub fn check(&self) {
        assert!(self.tail <= self.head);
        let versions = || self.dups.iter().map(|d| d.version).chain(self.entries.iter().map(|e| e.version));
        assert!(versions().zip(versions().skip(1)).all(|(a, b)| a < b), "log versions ascend");
        assert!(self.dups.back().is_none_or(|dup| dup.version <= self.tail));
        assert!(self.entries.front().is_none_or(|entry| entry.version > self.tail));
        assert_eq!(self.entries.back().map_or(self.tail, |entry| entry.version), self.head);
        assert!(self.dups.len() <= DUPS_MAX);
        assert_eq!(self.entries.iter().filter(|entry| entry.is_revert()).count(), self.reverts);
    }
}
