//! Reads: memory where the bytes are still there, one disk read per contiguous run elsewhere, every block verified.
//!
//! A read sees exactly what was submitted before it. Blocks it reads from the disk are *busy* until it ends: they are
//! neither written back to nor given to somebody else.

use crate::index::shard::Patch;
use crate::io::Purpose;
use crate::store::Store;
use crate::write::locate;
use crate::{DiskError, Kv, StoreError, StoreEvent};
use bytes::{Bytes, BytesMut};
use nacre_types::checksum::{BLOCK, BLOCK_U64, CRC_ZERO_BLOCK, crc32};
use nacre_types::{ObjectId, RangeSet, mutant};
use nacre_wire::Data;
use std::collections::BTreeMap;

static ZEROES: [u8; BLOCK] = [0; BLOCK];

#[derive(Debug)]
enum Source {
    Zeroes,
    Memory(Bytes),
    Disk { run: usize, at: usize },
}

#[derive(Debug)]
struct Piece {
    source: Source,
    crc: u32,
    patches: Vec<Patch>,
}

#[derive(Debug)]
struct Run {
    first: u64,
    count: u64,
    bytes: Option<Bytes>,
}

#[derive(Debug)]
struct Read {
    token: u64,
    id: ObjectId,
    offset: u64,
    length: usize,
    pieces: Vec<Piece>,
    runs: Vec<Run>,
    outstanding: usize,
    error: Option<DiskError>,
}

/// Reads under way.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    reads: BTreeMap<u64, Read>,
    next: u64,
    /// The last read before the write-back round under way.
    marked: u64,
}

impl Reads {
    /// A write-back round begins.
    pub fn mark(&mut self) {
        self.marked = self.next;
    }
}

impl<K: Kv> Store<K> {
    /// Disk blocks that reads under way still want as they are; `marked`: only of those older than the write-back round,
    /// as later ones find its blocks in memory.
    pub(crate) fn busy_blocks(&self, marked: bool) -> RangeSet {
        let mut busy = RangeSet::new();
        let last = if marked { self.reads.marked } else { u64::MAX };
        for read in self.reads.reads.range(..=last).map(|(_, read)| read) {
            for run in &read.runs {
                busy.insert(run.first, run.first + run.count);
            }
        }
        self.merges.busy().for_each(|block| busy.insert(block, block + 1));
        busy
    }

    pub(crate) fn start_read(&mut self, token: u64, id: &ObjectId, offset: u64, length: u64) {
        self.stats.reads += 1;
        match self.plan(token, id, offset, length) {
            Err(error) => self.events.push_back(StoreEvent::ReadDone { token, result: Err(error) }),
            Ok(read) if read.runs.is_empty() => self.finish_read(read),
            Ok(read) => {
                self.reads.next += 1;
                let number = self.reads.next;
                for (at, run) in read.runs.iter().enumerate() {
                    let purpose = Purpose::Read { read: number, run: at };
                    self.io.read(purpose, run.first * BLOCK_U64, run.count as usize * BLOCK);
                    self.stats.read_bytes += run.count * BLOCK_U64;
                }
                self.reads.reads.insert(number, read);
            }
        }
    }

    fn plan(&mut self, token: u64, id: &ObjectId, offset: u64, length: u64) -> Result<Read, StoreError> {
        let mut object = self.load(id)?;
        if object.onode.is_none() {
            self.cache.put(id, object);
            return Err(StoreError::NotFound { object: id.to_string() });
        }
        let mut read = Read {
            token,
            id: id.clone(),
            offset,
            length: length as usize,
            pieces: Vec::new(),
            runs: Vec::new(),
            outstanding: 0,
            error: None,
        };
        let blocks =
            if length == 0 { 0..0 } else { offset / BLOCK_U64..(offset + length).div_ceil(BLOCK_U64) };
        read.pieces.reserve((blocks.end - blocks.start) as usize);
        for block in blocks {
            let (index, at) = locate(block);
            let shard = self.shard(&mut object, index)?;
            let (disk_block, crc) = (shard.blocks[at], shard.crcs[at]);
            let patches = match shard.patches.is_empty() {
                true => Vec::new(),
                false => shard.patches_of(at).cloned().collect(),
            };
            let source = if disk_block == 0 {
                Source::Zeroes
            } else if let Some(bytes) = self.in_memory(disk_block) {
                Source::Memory(bytes)
            } else {
                match read.runs.last_mut() {
                    Some(run)
                        if run.first + run.count == disk_block
                            && matches!(
                                read.pieces.last(),
                                Some(Piece { source: Source::Disk { .. }, .. })
                            ) =>
                    {
                        run.count += 1;
                    }
                    _ => read.runs.push(Run { first: disk_block, count: 1, bytes: None }),
                }
                let run = read.runs.len() - 1;
                Source::Disk { run, at: (read.runs[run].count - 1) as usize * BLOCK }
            };
            let crc = if disk_block == 0 { CRC_ZERO_BLOCK } else { crc };
            read.pieces.push(Piece { source, crc, patches });
        }
        read.outstanding = read.runs.len();
        self.cache.put(id, object);
        Ok(read)
    }

    pub(crate) fn read_done(&mut self, number: u64, run: usize, result: Result<Bytes, DiskError>) {
        let Some(read) = self.reads.reads.get_mut(&number) else { return };
        read.outstanding -= 1;
        match result {
            Ok(bytes) if bytes.len() as u64 == read.runs[run].count * BLOCK_U64 => {
                read.runs[run].bytes = Some(bytes);
            }
            Ok(bytes) => {
                let offset = read.runs[run].first * BLOCK_U64;
                let reason = format!("{} bytes came", bytes.len());
                read.error = Some(DiskError::Io { offset, reason });
            }
            Err(error) => read.error = Some(error),
        }
        if read.outstanding > 0 {
            return;
        }
        if let Some(read) = self.reads.reads.remove(&number) {
            self.finish_read(read);
        }
        self.read_ended();
    }

    fn finish_read(&mut self, read: Read) {
        let result = match read.error {
            Some(error) => Err(StoreError::Disk(error)),
            None => assemble(&read),
        };
        if matches!(result, Err(StoreError::Checksum { .. })) {
            self.stats.checksum_errors += 1;
        }
        self.events.push_back(StoreEvent::ReadDone { token: read.token, result });
    }
}

/// Verifies every block and cuts what was asked for out of them.
fn assemble(read: &Read) -> Result<Data, StoreError> {
    let head = (read.offset % BLOCK_U64) as usize;
    let end = head + read.length;
    let mut crcs = Vec::with_capacity(read.pieces.len());
    // One run from the disk without patches is handed on as it came.
    let plain = read.runs.len() == 1
        && read.runs[0].count as usize == read.pieces.len()
        && read.pieces.iter().all(|p| p.patches.is_empty());
    let mut out = BytesMut::with_capacity(if plain { 0 } else { read.length });
    let mut single = None;
    for (at, piece) in read.pieces.iter().enumerate() {
        let block = read.offset / BLOCK_U64 + at as u64;
        let bad = || StoreError::Checksum { object: read.id.to_string(), block };
        let from = if at == 0 { head } else { 0 };
        let to = (end - at * BLOCK).min(BLOCK);
        let bytes = match &piece.source {
            Source::Zeroes => Bytes::from_static(&ZEROES),
            Source::Memory(bytes) => bytes.clone(),
            Source::Disk { run, at } => {
                let bytes = read.runs[*run].bytes.as_ref().expect("all runs have come");
                bytes.slice(*at..*at + BLOCK)
            }
        };
        let from_disk = matches!(piece.source, Source::Disk { .. });
        let changed = !piece.patches.is_empty();
        let partial = from != 0 || to != BLOCK;
        // Memory was verified before it got here, but a fresh checksum must not bless what has rotted since.
        if (from_disk || changed || partial) && crc32(&bytes) != piece.crc && !mutant!(ReadUnchecked) {
            return Err(bad());
        }
        let (bytes, crc) = if changed {
            let mut content = bytes.to_vec();
            for patch in &piece.patches {
                if !patch.apply(&mut content) {
                    return Err(bad());
                }
            }
            let crc = crc32(&content);
            (Bytes::from(content), crc)
        } else {
            (bytes, piece.crc)
        };
        crcs.push(if partial { crc32(&bytes[from..to]) } else { crc });
        if read.pieces.len() == 1 {
            single = Some(bytes.slice(from..to));
        } else if !plain {
            out.extend_from_slice(&bytes[from..to]);
        }
    }
    let bytes = match single {
        Some(bytes) => bytes,
        None if plain => read.runs[0].bytes.as_ref().expect("all runs have come").slice(head..end),
        None => out.freeze(),
    };
    Ok(Data { bytes, crcs })
}
