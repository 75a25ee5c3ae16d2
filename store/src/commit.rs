//! Group commit: one record, one write, one flush at a time. What is submitted meanwhile gathers in the next record.

use crate::index::keys;
use crate::index::state::{self, Applied};
use crate::io::Purpose;
use crate::journal::record::{self, Stamp};
use crate::store::{InFlight, Store};
use crate::{Kv, KvOp, StoreError, StoreEvent};
use nacre_types::buggify;
use nacre_types::mutant;

impl<K: Kv> Store<K> {
    /// Writes the oldest record that waits, if the one before it is durable and there is room.
    pub(crate) fn launch(&mut self) {
        if self.failed || self.journal.in_flight.is_some() {
            return;
        }
        let only = self.overlay.layers.len() == 1;
        let front = &self.overlay.layers[0];
        if front.is_empty() {
            return;
        }
        let bytes = front.record_bytes();
        if bytes > self.journal.ring.bytes {
            let ring = self.journal.ring.bytes;
            return self.fail(StoreError::Corrupt(format!(
                "a transaction needs {bytes} bytes of journal and there are {ring}; format the OSD with a larger journal"
            )));
        }
        if bytes > self.journal.room() || self.deferred.total_bytes() > self.config.deferred_bytes_max {
            // Back-pressure: `maintain` has started what frees room, and its end comes back here.
            return;
        }
        if only {
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
        let mut outstanding = usize::from(!mutant!(CommitBeforeFlush));
        for (offset, segments) in journal.ring.writes(position, segments) {
            self.io.write(Purpose::Journal, offset, segments);
            outstanding += 1;
        }
        if !mutant!(CommitBeforeFlush) {
            self.io.flush(Purpose::JournalFlush);
        }
        journal.in_flight = Some(InFlight { seq, end: journal.head, outstanding });
        self.stats.journal_writes += 1;
        self.stats.journal_bytes += total;
        self.stats.flushes += 1;
        self.issue_some_writes();
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
        self.try_commit();
    }

    fn try_commit(&mut self) {
        let Some(in_flight) = &self.journal.in_flight else { return };
        if in_flight.outstanding > 0 || self.overlay.layers[0].direct_outstanding > 0 {
            return;
        }
        let (seq, end) = (in_flight.seq, in_flight.end);
        self.journal.in_flight = None;
        self.journal.committed = (seq, end);
        let result = self.commit(seq, end);
        self.check(result);
        self.maintain();
        self.launch();
        self.issue_writes();
    }

    /// The oldest layer is durable: its changes are on their way to the index, its payload waits to be written back.
    fn commit(&mut self, seq: u64, end: u64) -> Result<(), StoreError> {
        let layer = self.overlay.layers.pop_front().expect("the layer in flight");
        assert_eq!(layer.seq, seq, "records commit in order");
        self.applied = Applied { seq, position: end, next_number: self.next_number };
        self.overlay.settle(layer.kv, layer.kv_bytes);
        let many = self.overlay.settled.bytes > self.config.settled_bytes_max;
        if many || !layer.ranges.is_empty() || buggify("store: index written at once") {
            self.write_index(layer.ranges)?;
        }
        for (block, (bytes, _)) in layer.payload {
            self.deferred.insert(block, bytes);
        }
        for &(first, count) in &layer.freed {
            self.deferred.forget(first, count);
        }
        self.allocator.quarantine(seq, &layer.freed);
        if mutant!(FreedReused) {
            self.allocator.release(seq, &self.busy_blocks(false));
        }
        self.events.extend(layer.tokens.into_iter().map(|token| StoreEvent::Committed { token }));
        Ok(())
    }

    /// Hands all that has settled to the index, with the position it stands for.
    pub(crate) fn write_index(&mut self, ranges: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), StoreError> {
        let settled = std::mem::take(&mut self.overlay.settled);
        let mut ops = Vec::with_capacity(settled.kv.len() + ranges.len() + 1);
        ops.extend(settled.kv.into_iter().map(|(key, value)| match value {
            Some(value) => KvOp::Put { key, value },
            None => KvOp::Delete { key },
        }));
        ops.extend(ranges.into_iter().map(|(first, end)| KvOp::DeleteRange { first, end }));
        ops.push(KvOp::Put { key: keys::APPLIED.to_vec(), value: state::encode(&self.applied) });
        Ok(self.kv.write(ops)?)
    }
}
