//! What the store asks of a block device, and what it is told back.
//!
//! At mount, format and fsck the store uses the device synchronously through [`DiskSync`]. Once mounted it only emits
//! [`DiskRequest`]s and is told of each one's end by token; requests may run and complete in any order, except that a
//! [`DiskRequest::Flush`] starts after every request emitted before it has completed.

use bytes::Bytes;

/// One asynchronous request. Offsets and lengths are in bytes and multiples of 4 KiB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskRequest {
    /// Writes the segments one after the other from `offset`. The segments together are a multiple of 4 KiB.
    Write {
        token: u64,
        offset: u64,
        segments: Vec<Bytes>,
    },
    Read {
        token: u64,
        offset: u64,
        length: usize,
    },
    /// Makes every write emitted before it durable. Waits for those writes to complete first.
    Flush {
        token: u64,
    },
    /// Tells the device that a range holds nothing of value: until it is written again, reading it may give anything. No
    /// flush waits for it, and its failure does no harm.
    Discard {
        token: u64,
        offset: u64,
        length: u64,
    },
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskDone {
    pub token: u64,
    /// The bytes of a read, exactly as many as asked. Of a write, all its bytes in one piece where the disk had to gather them
    /// (memory that the next write of them can go from as it is), or none. Empty for others.
    pub result: Result<Bytes, DiskError>,
}

/// The device failed a request.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DiskError {
    #[error("input/output error at offset {offset}: {reason}")]
    Io { offset: u64, reason: String },
    #[error("the device is full")]
    NoSpace,
    #[error("offset {offset} with {length} bytes is beyond the device's {capacity} bytes")]
    OutOfRange { offset: u64, length: usize, capacity: u64 },
}

/// A device used synchronously: only before the store is mounted, and offline.
pub trait DiskSync {
    fn capacity_bytes(&self) -> u64;
    fn read_at(&mut self, offset: u64, length: usize) -> Result<Bytes, DiskError>;
    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError>;
    fn flush(&mut self) -> Result<(), DiskError>;

    /// The smallest aligned piece that the device can discard, in bytes; `None` if it discards nothing.
    fn discard_granularity(&self) -> Option<u64> {
        None
    }

    /// See [`DiskRequest::Discard`]. Does nothing where nothing can be discarded.
    fn discard(&mut self, _offset: u64, _length: u64) -> Result<(), DiskError> {
        Ok(())
    }
}
