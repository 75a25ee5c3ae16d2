//! Group commit: one record, one write, one flush at a time. What is submitted meanwhile gathers in the next record, which
//! starts when the host asks for disk requests: it does so when it has nothing else at hand, so that a record carries all
//! that has come by then.

use crate::index::state::Applied;
use crate::io::Purpose;
use crate::journal::record::{self, Stamp};
use crate::store::{InFlight, Store};
use crate::{Kv, StoreError, StoreEvent};
use bytes::Bytes;
use nacre_types::checksum::{BLOCK, BLOCK_U64};
use nacre_types::mutant;

impl InFlight {
    /// The payload's block number `index`, where the disk returned it.
    fn payload_block(&self, index: usize) -> Option<Bytes> {
        let place = self.payload_at + index as u64 * BLOCK_U64;
        let (start, part) =
            self.written.iter().find(|(at, part)| (*at..*at + part.len() as u64).contains(&place))?;
        let from = (place - start) as usize;
        Some(part.slice(from..from + BLOCK))
    }

    /// Memory behind what the disk returned: its buffers come in powers of two.
    fn written_memory(&self) -> usize {
        self.written.iter().map(|(_, part)| part.len().next_power_of_two()).sum()
    }
}

impl<K: Kv> Store<K> {
    /// Whether a record waits that can begin: the one before it is durable, and there is room.
    pub(crate) fn may_launch(&self) -> bool {
        let front = &self.overlay.layers[0];
        if self.failed || self.journal.in_flight.is_some() || front.is_empty() {
            return false;
        }
        let bytes = front.record_bytes();
        // Otherwise back-pressure: `maintain` has started what frees room.
        bytes > self.journal.ring.bytes
            || bytes <= self.journal.room() && self.deferred.kept_bytes() <= self.config.deferred_bytes_max
    }

    /// Writes the oldest record that waits, if it can begin.
    pub(crate) fn launch(&mut self) {
        if !self.may_launch() {
            return;
        }
        let (bytes, ring) = (self.overlay.layers[0].record_bytes(), self.journal.ring.bytes);
        if bytes > ring {
            return self.fail(StoreError::Corrupt(format!(
                "a transaction needs {bytes} bytes of journal and there are {ring}; format the OSD with a larger journal"
            )));
        }
        if self.overlay.layers.len() == 1 {
            self.overlay.push_layer();
        }
        let journal = &mut self.journal;
        let layer = &self.overlay.layers[0];
        let (seq, position) = (layer.seq, journal.head);
        let stamp = Stamp { nonce: journal.nonce, incarnation: journal.incarnation, seq, position };
        let segments = record::encode(layer, stamp, self.next_number);
        let total: u64 = segments.iter().map(|s| s.len() as u64).sum();
        assert!(total <= bytes, "a record never outgrows its estimate");
        journal.head += total;
        let (payload_at, payload_blocks) = (segments[0].len() as u64, layer.payload.len());
        let mut writes = 0;
        let mut at = 0;
        for (offset, segments) in journal.ring.writes(position, segments) {
            let bytes: u64 = segments.iter().map(|s| s.len() as u64).sum();
            self.io.write(Purpose::Journal { at }, offset, segments);
            writes += 1;
            at += bytes;
        }
        if !mutant!(CommitBeforeFlush) {
            self.io.flush(Purpose::JournalFlush);
        }
        let (end, written) = (journal.head, Vec::new());
        let outstanding = writes + usize::from(!mutant!(CommitBeforeFlush));
        journal.in_flight =
            Some(InFlight { seq, end, outstanding, writes, payload_blocks, payload_at, written });
        self.stats.journal_writes += 1;
        self.stats.journal_bytes += total;
        self.stats.flushes += 1;
        self.issue_some_writes();
    }

    /// A part of the record in flight has been written: `bytes` as the disk returned them, from `at` in the record.
    pub(crate) fn journal_written(&mut self, at: u64, bytes: Bytes) {
        if let Some(in_flight) = &mut self.journal.in_flight
            && !bytes.is_empty()
        {
            in_flight.written.push((at, bytes));
        }
        if let Some(in_flight) = &mut self.journal.in_flight {
            in_flight.writes -= 1;
            let seq = in_flight.seq;
            self.count_written(seq);
        }
        self.journal_done();
    }

    /// A part of the record in flight, or its flush, has ended.
    pub(crate) fn journal_done(&mut self) {
        if let Some(in_flight) = &mut self.journal.in_flight {
            in_flight.outstanding -= 1;
        }
        self.try_commit();
    }

    /// Data of record `seq` has arrived in its fresh blocks.
    pub(crate) fn direct_done(&mut self, seq: u64) {
        if let Some(layer) = self.overlay.layer_mut(seq) {
            layer.direct_outstanding -= 1;
        }
        self.count_written(seq);
        self.try_commit();
    }

    /// A write for record `seq` has ended: if it was the last of the record in flight, only its flush is left to wait for.
    fn count_written(&mut self, seq: u64) {
        let flying = self.journal.in_flight.as_ref();
        let written = flying.is_some_and(|record| record.seq == seq && record.writes == 0);
        if written && self.overlay.layers[0].direct_outstanding == 0 {
            self.stats.journal_written += 1;
        }
    }

    fn try_commit(&mut self) {
        let ended = |record: &mut InFlight| record.outstanding == 0;
        if self.overlay.layers[0].direct_outstanding > 0 {
            return;
        }
        let Some(record) = self.journal.in_flight.take_if(ended) else { return };
        self.journal.committed = (record.seq, record.end);
        self.commit(record);
        self.maintain();
    }

    /// The oldest layer is durable: its changes wait for a checkpoint, its payload waits to be written back.
    fn commit(&mut self, record: InFlight) {
        let (seq, end) = (record.seq, record.end);
        let layer = self.overlay.layers.pop_front().expect("the layer in flight");
        assert_eq!(layer.seq, seq, "records commit in order");
        self.applied = Applied { seq, position: end, next_number: self.next_number };
        self.overlay.settled.extend(layer.changes);
        if !layer.payload.is_empty() {
            self.deferred.hold(record.written_memory());
        }
        for (at, (block, (bytes, _))) in layer.payload.into_iter().enumerate() {
            // What the payload came in (a frame from the network, mostly) need not be kept for the write-back.
            let gathered = record.payload_block(at);
            debug_assert!(gathered.as_ref().is_none_or(|gathered| *gathered == bytes));
            self.deferred.insert(block, gathered.unwrap_or(bytes));
        }
        for &(first, count) in &layer.freed {
            self.deferred.forget(first, count);
        }
        self.allocator.quarantine(seq, &layer.freed);
        if mutant!(FreedReused) {
            self.allocator.release(seq, &self.busy_blocks(false));
        }
        self.events.extend(layer.tokens.into_iter().map(|token| StoreEvent::Committed { token }));
    }
}
