//! Reading the journal after a crash.
//!
//! A record is written only when the one before it is durable, so every record but the last one found was committed.
//! Only that last one can be torn: it counts if its head, its payload and its direct data all check. An earlier one whose
//! payload has rotted still counts, its blocks do not: their checksums in the index betray them, and whoever reads them
//! goes to another copy. Where an earlier one's head does not check the journal is corrupt, and that must be said, not
//! papered over: committed data would vanish.

use super::record::{Header, Record};
use super::ring::Ring;
use crate::superblock::OpenError;
use crate::{DiskError, DiskSync};
use bytes::{Bytes, BytesMut};
use nacre_types::checksum::{BLOCK, BLOCK_U64, crc32};

/// How far behind a record that does not check later ones are looked for.
const SEARCH_BYTES_MAX: u64 = 64 << 20;

/// Walks the records from a checkpoint on.
pub(crate) struct Walk<'a> {
    pub disk: &'a mut dyn DiskSync,
    pub ring: Ring,
    pub nonce: u64,
    pub incarnation: u64,
    /// Where the next record must be, and its number.
    pub position: u64,
    pub seq: u64,
    /// The walk's beginning: the ring holds nothing older.
    pub tail: u64,
}

/// A record whose head checks.
pub(crate) struct Found {
    pub record: Record,
    /// The payload's blocks one after the other.
    pub payload: Bytes,
    /// Which of them do not have the checksum the head says, by their place.
    pub damaged: Vec<usize>,
}

impl Walk<'_> {
    /// The next record, or why there is none.
    pub fn step(&mut self) -> Result<Result<Found, String>, OpenError> {
        let stop = |reason: &str| Ok(Err(reason.to_string()));
        let room = self.ring.bytes - (self.position - self.tail);
        if room < BLOCK_U64 {
            return stop("the journal is full");
        }
        let first = self.read(self.position, BLOCK)?;
        let Some(header) = Header::parse(&first) else { return stop("no record there") };
        let stamp = header.stamp;
        if (stamp.nonce, stamp.incarnation) != (self.nonce, self.incarnation) {
            return stop("a record of a former mount");
        }
        if (stamp.seq, stamp.position) != (self.seq, self.position) {
            return stop("a record of a former lap");
        }
        if header.total_bytes() > room {
            return stop("its length is impossible");
        }
        let head = match header.head_bytes() {
            BLOCK_U64 => first,
            more => self.read(self.position, more as usize)?,
        };
        let Some(record) = header.decode(head) else { return stop("its head's checksum is wrong") };
        let payload = self.read(self.position + header.head_bytes(), header.payload_bytes() as usize)?;
        let blocks = payload.chunks_exact(BLOCK).zip(&record.payload).enumerate();
        let damaged =
            blocks.filter(|(_, (bytes, (_, crc)))| crc32(bytes) != *crc).map(|(at, _)| at).collect();
        self.position += header.total_bytes();
        self.seq += 1;
        Ok(Ok(Found { record, payload, damaged }))
    }

    /// Whether the data that went directly to fresh blocks has arrived. Blocks that the record's own payload covers
    /// may already have been written over.
    pub fn direct_matches(&mut self, record: &Record) -> Result<Result<(), String>, OpenError> {
        for (first, crcs) in &record.direct {
            let bytes = self.disk.read_at(first * BLOCK_U64, crcs.len() * BLOCK)?;
            for (at, (chunk, &crc)) in bytes.chunks_exact(BLOCK).zip(crcs).enumerate() {
                let block = first + at as u64;
                let covered = record.payload.binary_search_by_key(&block, |p| p.0).is_ok();
                if !covered && crc32(chunk) != crc {
                    return Ok(Err(format!("block {block} lacks its data")));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Looks for valid records of this mount behind the place where the walk stopped.
    pub fn later_record(&mut self) -> Result<Option<u64>, OpenError> {
        let room = (self.ring.bytes - (self.position - self.tail)).min(SEARCH_BYTES_MAX);
        let mut at = 0;
        while at < room {
            let part = (room - at).min(1 << 20);
            let chunk = self.read(self.position + at, part as usize)?;
            for (i, block) in chunk.chunks_exact(BLOCK).enumerate() {
                let position = self.position + at + (i * BLOCK) as u64;
                let Some(header) = Header::parse(block) else { continue };
                let stamp = header.stamp;
                let ours = (stamp.nonce, stamp.incarnation) == (self.nonce, self.incarnation);
                let fits = header.head_bytes() <= room - (position - self.position);
                if ours && stamp.position == position && stamp.seq > self.seq && fits {
                    let head = self.read(position, header.head_bytes() as usize)?;
                    if header.decode(head).is_some() {
                        return Ok(Some(stamp.seq));
                    }
                }
            }
            at += part;
        }
        Ok(None)
    }

    fn read(&mut self, position: u64, length: usize) -> Result<Bytes, DiskError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let (offset, room) = self.ring.place(position);
        if length as u64 <= room {
            return self.disk.read_at(offset, length);
        }
        let mut bytes = BytesMut::with_capacity(length);
        bytes.extend_from_slice(&self.disk.read_at(offset, room as usize)?);
        bytes.extend_from_slice(&self.disk.read_at(self.ring.offset, length - room as usize)?);
        Ok(bytes.freeze())
    }
}
