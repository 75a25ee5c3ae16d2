//! What a request has done to an object's data so far, over what the store holds. Empty for nearly every request.

use bytes::{Bytes, BytesMut};
use nacre_types::{BLOCK_U64, RangeSet};

#[derive(Debug)]
enum Change {
    Write(u64, Bytes),
    Zero(u64, u64),
    /// Everything from here on is gone; what grows back is zeroes.
    Cut(u64),
}

/// Pending changes of data, in order.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    changes: Vec<Change>,
}

impl Overlay {
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: Bytes) {
        self.changes.push(Change::Write(offset, bytes));
    }

    pub(crate) fn zero(&mut self, start: u64, end: u64) {
        self.changes.push(Change::Zero(start, end));
    }

    pub(crate) fn cut(&mut self, size: u64) {
        self.changes.push(Change::Cut(size));
    }

    pub(crate) fn clear(&mut self) {
        self.changes.clear();
    }

    /// The bytes of `[offset, offset + length)`: `base` (which starts at `offset` and may be shorter), then zeroes,
    /// then the changes over both.
    pub(crate) fn apply(&self, offset: u64, length: u64, base: &[u8]) -> Bytes {
        let mut buffer = BytesMut::zeroed(length as usize);
        buffer[..base.len()].copy_from_slice(base);
        let end = offset + length;
        let at = |position: u64| (position.clamp(offset, end) - offset) as usize;
        for change in &self.changes {
            match change {
                Change::Write(start, bytes) => {
                    let stop = start + bytes.len() as u64;
                    let (from, to) = (at(*start), at(stop));
                    if from < to {
                        let skip = (offset + from as u64 - start) as usize;
                        buffer[from..to].copy_from_slice(&bytes[skip..skip + (to - from)]);
                    }
                }
                Change::Zero(start, stop) => buffer[at(*start)..at(*stop)].fill(0),
                Change::Cut(size) => buffer[at(*size)..].fill(0),
            }
        }
        buffer.freeze()
    }

    /// Carries the changes over to a map of allocated ranges.
    pub(crate) fn allocate(&self, ranges: &mut RangeSet) {
        for change in &self.changes {
            match change {
                Change::Write(start, bytes) => ranges.insert(*start, start + bytes.len() as u64),
                Change::Zero(start, stop) => {
                    ranges.remove(start.next_multiple_of(BLOCK_U64), stop / BLOCK_U64 * BLOCK_U64)
                }
                Change::Cut(size) => ranges.remove(*size, u64::MAX),
            }
        }
    }
}
