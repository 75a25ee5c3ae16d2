//! The Raft log as raft-rs reads it: all in memory, mirrored by the records a driver keeps.
//!
//! **Invariant:** the log is contiguous, begins right after `truncated`, and the checkpoint lies between `truncated`
//! and the log's end.

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{Error, GetEntriesContext, RaftState, Result, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;

/// The replicated state after one log entry.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkpoint {
    pub index: u64,
    pub term: u64,
    pub members: ConfState,
    pub state: Bytes,
}

impl Checkpoint {
    pub fn metadata(&self) -> SnapshotMetadata {
        SnapshotMetadata { conf_state: Some(self.members.clone()), index: self.index, term: self.term }
    }

    fn has_member(&self, id: u64) -> bool {
        let members = &self.members;
        [&members.voters, &members.learners, &members.voters_outgoing].iter().any(|ids| ids.contains(&id))
    }
}

pub(crate) struct Storage {
    pub hard: HardState,
    /// Members as of the checkpoint the storage was opened with; raft-rs follows later changes itself.
    members: ConfState,
    checkpoint: Checkpoint,
    /// Index and term of the last entry that is gone.
    truncated: (u64, u64),
    log: VecDeque<Entry>,
    /// Lowest index that has a record: below the log by the entry whose term `truncated` keeps, after a restart.
    records_from: u64,
    /// Somebody needs a newer checkpoint than there is.
    pub checkpoint_wanted: Cell<bool>,
}

impl Storage {
    /// `log` must be contiguous; entries up to the checkpoint may be in it.
    pub fn new(mut hard: HardState, checkpoint: Checkpoint, log: VecDeque<Entry>) -> Storage {
        hard.commit = hard.commit.max(checkpoint.index);
        hard.term = hard.term.max(checkpoint.term);
        let truncated = match log.front() {
            // The term of what is before the first kept entry is unknown unless it is the checkpoint.
            Some(first) if first.index <= checkpoint.index => (first.index, first.term),
            _ => (checkpoint.index, checkpoint.term),
        };
        let records_from = log.front().map_or(truncated.0 + 1, |entry| entry.index);
        let mut log = log;
        while log.front().is_some_and(|entry| entry.index <= truncated.0) {
            log.pop_front();
        }
        let members = checkpoint.members.clone();
        Storage {
            hard,
            members,
            checkpoint,
            truncated,
            log,
            records_from,
            checkpoint_wanted: Cell::new(false),
        }
    }

    pub fn first(&self) -> u64 {
        self.truncated.0 + 1
    }

    pub fn last(&self) -> u64 {
        self.truncated.0 + self.log.len() as u64
    }

    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.truncated.0 {
            return Some(self.truncated.1);
        }
        if index == self.checkpoint.index {
            return Some(self.checkpoint.term);
        }
        let at = index.checked_sub(self.first())?;
        self.log.get(at as usize).map(|entry| entry.term)
    }

    /// Appends, replacing what conflicts. Returns the old last index if entries beyond the new end are gone.
    pub fn append(&mut self, entries: &[Entry]) -> Option<u64> {
        let first = entries.first()?;
        let old_last = self.last();
        assert!(first.index >= self.first() && first.index <= old_last + 1, "the log stays contiguous");
        self.log.truncate((first.index - self.first()) as usize);
        self.log.extend(entries.iter().cloned());
        (self.last() < old_last).then_some(old_last)
    }

    /// Takes a checkpoint of what this node itself applied.
    pub fn set_checkpoint(&mut self, checkpoint: Checkpoint) {
        assert!(checkpoint.index >= self.checkpoint.index && checkpoint.index <= self.last());
        self.checkpoint = checkpoint;
        self.checkpoint_wanted.set(false);
    }

    /// Starts over from a checkpoint of another node. Returns the range of entries whose records go.
    pub fn install(&mut self, checkpoint: Checkpoint) -> std::ops::Range<u64> {
        let gone = self.records_from..self.last() + 1;
        self.records_from = checkpoint.index + 1;
        self.truncated = (checkpoint.index, checkpoint.term);
        self.log.clear();
        self.hard.commit = self.hard.commit.max(checkpoint.index);
        self.checkpoint = checkpoint;
        gone
    }

    /// Forgets entries up to `index`, at most the checkpoint's. Returns the range whose records go.
    pub fn truncate_to(&mut self, index: u64) -> std::ops::Range<u64> {
        let index = index.min(self.checkpoint.index);
        while self.first() <= index {
            let Some(entry) = self.log.pop_front() else { break };
            self.truncated = (entry.index, entry.term);
        }
        let (from, first) = (self.records_from, self.first());
        self.records_from = first;
        from..first
    }

    pub fn check(&self) {
        assert!(self.records_from <= self.first());
        assert!(self.truncated.0 <= self.checkpoint.index && self.checkpoint.index <= self.last());
        for (at, entry) in self.log.iter().enumerate() {
            assert_eq!(entry.index, self.first() + at as u64);
        }
    }
}

impl raft::Storage for Storage {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let budget = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0_u64;
        let mut found = Vec::new();
        for entry in self.log.range((low - self.first()) as usize..(high - self.first()) as usize) {
            bytes = bytes.saturating_add((entry.data.len() + entry.context.len() + 32) as u64);
            if !found.is_empty() && bytes > budget {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> Result<u64> {
        self.term_of(index).ok_or(Error::Store(if index < self.first() {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        }))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    /// Without the state itself: it travels apart, in pieces.
    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        let usable = self.checkpoint.index >= request_index.max(1) && self.checkpoint.has_member(to);
        // What follows the checkpoint must still be there, else the receiver could not go on from it.
        if !usable || self.checkpoint.index + 1 < self.first() {
            self.checkpoint_wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(Snapshot { data: Vec::new(), metadata: Some(self.checkpoint.metadata()) })
    }
}
