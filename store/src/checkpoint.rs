//! Write-back and checkpoints: how the journal becomes free again.
//!
//! ```text
//! Idle -> WritingBack (a round with all that is committed) -> Flushing (disk) -> IndexFlushing (Kv) -> Idle
//! ```
//!
//! The checkpoint's position goes to the index with all that has settled, in one piece, after the disk flush: wherever that
//! position is read after a crash, the data it speaks of is in place. Only checkpoints change the index.

use crate::index::keys;
use crate::index::state::{self, Checkpointed};
use crate::io::Purpose;
use crate::store::Store;
use crate::{Kv, KvError};
use nacre_types::buggify;
use nacre_types::checksum::BLOCK_U64;
use nacre_types::mutant;

/// A checkpoint under way, with the record it covers and the position after that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum CheckpointState {
    #[default]
    Idle,
    WritingBack {
        seq: u64,
        position: u64,
    },
    Flushing {
        seq: u64,
        position: u64,
    },
    IndexFlushing {
        seq: u64,
        position: u64,
        token: u64,
    },
}

impl<K: Kv> Store<K> {
    /// Starts what is due: a checkpoint, or a plain write-back round.
    pub(crate) fn maintain(&mut self) {
        if self.failed {
            return;
        }
        self.start_merges();
        if self.deferred.is_writing() {
            return;
        }
        if self.checkpoint == CheckpointState::Idle && self.wants_checkpoint() {
            let (seq, position) = self.journal.committed;
            self.checkpoint = CheckpointState::WritingBack { seq, position };
            self.reclaiming = false;
            self.start_round();
            if !self.deferred.is_writing() {
                self.flush_for_checkpoint();
            }
        } else if self.deferred.ready_bytes() > self.config.writeback_bytes
            || self.deferred.ready_held() > self.config.deferred_bytes_max / 2
            || (self.deferred.ready_bytes() > 0 && buggify("store: early write-back"))
        {
            self.start_round();
        }
    }

    fn wants_checkpoint(&self) -> bool {
        let journal = &self.journal;
        if journal.committed.1 == journal.tail {
            return false;
        }
        let used = journal.head - journal.tail;
        if buggify("store: early checkpoint") {
            return true;
        }
        let stuck = journal.in_flight.is_none()
            && self.overlay.layers[0].transactions > 0
            && self.overlay.layers[0].record_bytes() > journal.room();
        let much = self.overlay.settled.bytes() > self.config.settled_bytes_max;
        used > journal.ring.bytes / 2 || much || stuck || self.reclaiming || self.allocator.is_starved()
    }

    fn start_round(&mut self) {
        self.reads.mark();
        let busy = self.busy_blocks(true);
        self.deferred.start_round(busy);
        self.issue_writes();
    }

    /// A read has ended: what it held up may go.
    pub(crate) fn read_ended(&mut self) {
        if self.deferred.is_held() {
            let busy = self.busy_blocks(true);
            self.deferred.set_busy(busy);
            self.issue_writes();
        }
    }

    /// Issues the round's writes that no read holds back, a few at a time: a commit's flush waits for every write
    /// emitted before it. While a record is under way or about to be they wait for the next, so that they go to the
    /// device with it, behind its flush.
    pub(crate) fn issue_writes(&mut self) {
        let record = self.journal.in_flight.is_some() || !self.overlay.layers[0].is_empty();
        if !record || self.is_pressed() {
            self.issue_some_writes();
        }
    }

    /// Half as fast again as records bring more, so that the journal does not fill while a round lasts; with all force
    /// before commits have to wait for it.
    fn write_backs_max(&self) -> usize {
        let most = self.config.writeback_in_flight_max;
        if self.is_pressed() {
            return most;
        }
        let coming = self.journal.in_flight.as_ref().map_or(0, |record| record.payload_blocks);
        (coming + coming / 2).clamp(most.div_ceil(4), most)
    }

    /// Whether writes of the round may be issued: half of those that may be under way have ended.
    pub(crate) fn may_issue(&self) -> bool {
        self.deferred.is_waiting() && self.deferred.outstanding() <= self.write_backs_max() / 2
    }

    /// Issues as many of the round's writes as may be under way.
    pub(crate) fn issue_some_writes(&mut self) {
        if !self.may_issue() {
            return;
        }
        for (first, segments) in self.deferred.issue(self.write_backs_max()) {
            self.stats.deferred_writes += 1;
            self.stats.deferred_bytes += segments.len() as u64 * BLOCK_U64;
            self.io.write(Purpose::WriteBack, first * BLOCK_U64, segments);
        }
    }

    fn is_pressed(&self) -> bool {
        let used = self.journal.head - self.journal.tail;
        used > self.journal.ring.bytes / 4 * 3
            || self.deferred.kept_bytes() > self.config.deferred_bytes_max / 2
    }

    pub(crate) fn write_back_done(&mut self) {
        if !self.deferred.written() {
            return self.issue_writes();
        }
        if matches!(self.checkpoint, CheckpointState::WritingBack { .. }) {
            self.flush_for_checkpoint();
        }
        self.maintain();
    }

    fn flush_for_checkpoint(&mut self) {
        if let CheckpointState::WritingBack { seq, position } = self.checkpoint {
            self.checkpoint = CheckpointState::Flushing { seq, position };
            if mutant!(CheckpointUnflushed) {
                return self.checkpoint_flushed();
            }
            self.io.flush(Purpose::CheckpointFlush);
            self.stats.flushes += 1;
        }
    }

    pub(crate) fn checkpoint_flushed(&mut self) {
        let CheckpointState::Flushing { seq, position } = self.checkpoint else { return };
        let (seq, position) = if mutant!(CheckpointEarly) { self.journal.committed } else { (seq, position) };
        let checkpointed = Checkpointed { seq, position, incarnation: self.journal.incarnation };
        let settled = &mut self.overlay.settled;
        settled.put(keys::APPLIED.to_vec(), Some(state::encode(&self.applied)));
        settled.put(keys::CHECKPOINTED.to_vec(), Some(state::encode(&checkpointed)));
        // One at a time, so any number that is not the last one's will do.
        let token = seq;
        self.checkpoint = CheckpointState::IndexFlushing { seq, position, token };
        self.kv.start_flush(token, self.overlay.seal());
    }

    pub(crate) fn index_flushed(&mut self, ended: u64, result: Result<(), KvError>) {
        let CheckpointState::IndexFlushing { seq, position, token } = self.checkpoint else { return };
        if token != ended || self.failed {
            return;
        }
        if let Err(error) = result {
            return self.fail(error.into());
        }
        self.checkpoint = CheckpointState::Idle;
        if let Some(sealed) = self.overlay.sealed.take() {
            self.kv.release(sealed);
        }
        self.journal.tail = position;
        let busy = self.busy_blocks(false);
        let freed = self.allocator.release(seq, &busy);
        self.discard(freed);
        self.stats.checkpoints += 1;
        self.maintain();
    }
}
