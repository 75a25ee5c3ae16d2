//! A device in memory with a volatile write cache.
//!
//! Writes are seen by later reads at once when they complete, and are durable after a flush. When the power goes, each
//! 512-byte sector of each write since then has landed or not, at random; so have those of writes still under way.
//! Requests complete in any order the caller likes, except that a flush waits for the writes requested before it.
//!
//! What is discarded reads as it was, as zeroes or as anything, block by block.
//!
//! It can be told to lie about flushes, and to fail requests now and then ([`Flaky`]).

use crate::{DiskDone, DiskError, DiskRequest, DiskSync};
use bytes::{Bytes, BytesMut};
use nacre_types::Rng;
use nacre_types::checksum::{BLOCK, BLOCK_U64};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const SECTOR: usize = 512;
/// While there are other requests a discard may complete beside so many of them.
const SLOW_DISCARD: u64 = 32;

/// What an error says that [`Flaky`] injects.
pub const PASSING: &str = "injected, for a while";

type Blocks = BTreeMap<u64, Box<[u8; BLOCK]>>;

/// What becomes of the cache of a device that lied about flushes, when its power goes. Positions are parts of 1000 of what
/// was written since its last true flush, so that one value means about the same instant to a disk and its index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// All of it is gone.
    All,
    /// What was written first is there, the rest is gone.
    After(u64),
    /// Each write lands, tears or vanishes by itself; of an index, some first part lands.
    Any,
}

impl Loss {
    /// How many of so many writes, the oldest, are not gone for certain.
    pub(crate) fn kept(self, count: usize) -> usize {
        match self {
            Loss::All => 0,
            Loss::After(permille) => (count as u64 * permille / 1000) as usize,
            Loss::Any => count,
        }
    }
}

/// Requests of so many in a thousand fail for a while; the same succeeds later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flaky {
    pub reads: u64,
    pub writes: u64,
    /// One that fails may forget what it was to make durable.
    pub flushes: u64,
}

/// See the module. Everything random comes from the seed.
#[derive(Debug)]
pub struct SimDisk {
    capacity: u64,
    rng: Rng,
    /// Decides what discarded blocks read as.
    discards: Rng,
    /// What a flush has made durable. Absent blocks are zeroes.
    durable: Blocks,
    /// Blocks as reads see them, where they differ from `durable`.
    cached: Blocks,
    /// Writes since the last flush, in order.
    volatile: Vec<(u64, Bytes)>,
    queue: VecDeque<DiskRequest>,
    /// Reads of these blocks fail.
    bad_blocks: BTreeSet<u64>,
    fail_writes: bool,
    fail_flushes: bool,
    lose_writes: u32,
    misdirect_writes: u32,
    /// Writes below are not lost or misdirected.
    spoils_from: u64,
    lies: bool,
    /// So many of `volatile`, the first, were said to be durable.
    said: usize,
    flaky: Flaky,
    /// Requests that failed and would have succeeded later.
    pub passing_errors: u64,
    /// Blocks that were unreadable and were asked for.
    pub bad_reads: u64,
    pub writes: u64,
    pub flushes: u64,
}

impl SimDisk {
    pub fn new(capacity: u64, seed: u64) -> SimDisk {
        SimDisk {
            capacity,
            rng: Rng::new(seed),
            discards: Rng::new(!seed),
            durable: Blocks::new(),
            cached: Blocks::new(),
            volatile: Vec::new(),
            queue: VecDeque::new(),
            bad_blocks: BTreeSet::new(),
            fail_writes: false,
            fail_flushes: false,
            lose_writes: 0,
            misdirect_writes: 0,
            spoils_from: 0,
            lies: false,
            said: 0,
            flaky: Flaky::default(),
            passing_errors: 0,
            bad_reads: 0,
            writes: 0,
            flushes: 0,
        }
    }

    /// Takes a request. It has no effect before it is completed, unless the power goes.
    pub fn request(&mut self, request: DiskRequest) {
        self.queue.push_back(request);
    }

    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Tokens of the requests that may complete next: all but flushes behind writes.
    pub fn completable(&self) -> Vec<u64> {
        let write = self.queue.iter().position(|r| matches!(r, DiskRequest::Write { .. }));
        let free = |at: usize, r: &DiskRequest| match r {
            DiskRequest::Flush { .. } => write.is_none_or(|write| at < write),
            _ => true,
        };
        self.queue.iter().enumerate().filter(|(at, r)| free(*at, r)).map(|(_, r)| token(r)).collect()
    }

    /// Tokens of the reads that have not completed.
    pub fn reads_queued(&self) -> Vec<u64> {
        self.queue.iter().filter(|r| matches!(r, DiskRequest::Read { .. })).map(token).collect()
    }

    /// Completes the request with that token.
    pub fn complete(&mut self, wanted: u64) -> Option<DiskDone> {
        let at = self.queue.iter().position(|r| token(r) == wanted)?;
        let request = self.queue.remove(at)?;
        let result = match request {
            DiskRequest::Write { offset, segments, .. } => {
                let mut bytes = BytesMut::new();
                segments.iter().for_each(|s| bytes.extend_from_slice(s));
                let bytes = bytes.freeze();
                let gathered = if segments.len() > 1 { bytes.clone() } else { Bytes::new() };
                self.write(offset, bytes).map(|()| gathered)
            }
            DiskRequest::Read { offset, length, .. } => self.read(offset, length),
            DiskRequest::Flush { .. } => self.sync().map(|()| Bytes::new()),
            DiskRequest::Discard { offset, length, .. } => self.forget(offset, length).map(|()| Bytes::new()),
        };
        Some(DiskDone { token: wanted, result })
    }

    /// Completes any one request, at random; discards take longer than others.
    pub fn complete_any(&mut self) -> Option<DiskDone> {
        let mut tokens = self.completable();
        let discards: Vec<u64> = self.queue.iter().filter(|r| is_discard(r)).map(token).collect();
        if !discards.is_empty() && discards.len() < tokens.len() && !self.discards.chance(1, SLOW_DISCARD) {
            tokens.retain(|token| !discards.contains(token));
        }
        let token = *self.rng.pick(&tokens)?;
        self.complete(token)
    }

    /// The power goes: the cache is lost, and what was on its way has landed in part.
    pub fn power(&mut self) {
        self.power_with(Loss::Any);
    }

    /// Likewise; what is lost of the cache is given.
    pub fn power_with(&mut self, loss: Loss) {
        for request in std::mem::take(&mut self.queue) {
            match request {
                DiskRequest::Write { offset, segments, .. } => {
                    let mut bytes = BytesMut::new();
                    segments.iter().for_each(|s| bytes.extend_from_slice(s));
                    self.volatile.push((offset, bytes.freeze()));
                }
                DiskRequest::Discard { offset, length, .. } => drop(self.forget(offset, length)),
                DiskRequest::Read { .. } | DiskRequest::Flush { .. } => {}
            }
        }
        self.said = 0;
        self.cached.clear();
        self.volatile.truncate(loss.kept(self.volatile.len()));
        for (offset, bytes) in std::mem::take(&mut self.volatile) {
            let fate = if loss == Loss::Any { self.rng.below(3) } else { 0 };
            for (at, sector) in bytes.chunks(SECTOR).enumerate() {
                let lands = match fate {
                    0 => true,
                    1 => false,
                    _ => self.rng.chance(1, 2),
                };
                if lands {
                    let at = offset + (at * SECTOR) as u64;
                    let block = self.durable.entry(at / BLOCK_U64).or_insert_with(|| Box::new([0; BLOCK]));
                    let within = (at % BLOCK_U64) as usize;
                    block[within..within + sector.len()].copy_from_slice(sector);
                }
            }
        }
    }

    /// Like [`SimDisk::power`], but whoever calls decides which writes land, whole, by their offset.
    pub fn power_where(&mut self, mut lands: impl FnMut(u64) -> bool) {
        for request in std::mem::take(&mut self.queue) {
            if let DiskRequest::Write { offset, segments, .. } = request {
                let bytes: Vec<u8> = segments.iter().flat_map(|s| s.iter().copied()).collect();
                self.volatile.push((offset, bytes.into()));
            }
        }
        self.said = 0;
        self.cached.clear();
        for (offset, bytes) in std::mem::take(&mut self.volatile) {
            if lands(offset) {
                self.land(offset, &bytes);
            }
        }
    }

    fn land(&mut self, offset: u64, bytes: &[u8]) {
        for (at, chunk) in bytes.chunks_exact(BLOCK).enumerate() {
            let mut block = Box::new([0; BLOCK]);
            block.copy_from_slice(chunk);
            self.durable.insert(offset / BLOCK_U64 + at as u64, block);
        }
    }

    /// The daemon dies but the machine does not: requests under way are dropped, or done, at random; the cache stays.
    pub fn kill(&mut self) {
        for request in std::mem::take(&mut self.queue) {
            match request {
                DiskRequest::Write { offset, segments, .. } if self.rng.chance(1, 2) => {
                    let bytes: Vec<u8> = segments.iter().flat_map(|s| s.iter().copied()).collect();
                    let _ = self.write(offset, bytes.into());
                }
                DiskRequest::Discard { offset, length, .. } => drop(self.forget(offset, length)),
                _ => {}
            }
        }
    }

    /// Flips one bit of what is stored at `offset`.
    pub fn rot(&mut self, offset: u64, bit: u8) {
        let (block, within) = (offset / BLOCK_U64, (offset % BLOCK_U64) as usize);
        self.cached.entry(block).and_modify(|b| b[within] ^= 1 << (bit % 8));
        self.durable.entry(block).or_insert_with(|| Box::new([0; BLOCK]))[within] ^= 1 << (bit % 8);
    }

    /// Offsets from `from` on of blocks that were ever written and made durable, in order.
    pub fn blocks_from(&self, from: u64) -> impl Iterator<Item = u64> + '_ {
        self.durable.range(from / BLOCK_U64..).map(|(&block, _)| block * BLOCK_U64)
    }

    /// Reads of the block at `offset` fail until it is written again.
    pub fn break_block(&mut self, offset: u64) {
        self.bad_blocks.insert(offset / BLOCK_U64);
    }

    pub fn fail_writes(&mut self, fail: bool) {
        self.fail_writes = fail;
    }

    pub fn fail_flushes(&mut self, fail: bool) {
        self.fail_flushes = fail;
    }

    /// Only writes from there on are lost or misdirected.
    pub fn spoil_from(&mut self, offset: u64) {
        self.spoils_from = offset;
    }

    /// Writes still to be lost or misdirected.
    pub fn to_spoil(&self) -> u32 {
        self.lose_writes + self.misdirect_writes
    }

    /// The next `count` writes are reported as done and go nowhere.
    pub fn lose_writes(&mut self, count: u32) {
        self.lose_writes = count;
    }

    /// The next `count` writes land one block further on.
    pub fn misdirect_writes(&mut self, count: u32) {
        self.misdirect_writes = count;
    }

    /// From now on flushes report success and make nothing durable; or they are true again, and so becomes what was said.
    pub fn lie(&mut self, lies: bool) {
        self.lies = lies;
        if !lies {
            let said: Vec<_> = self.volatile.drain(..std::mem::take(&mut self.said)).collect();
            said.iter().for_each(|(offset, bytes)| self.land(*offset, bytes));
        }
    }

    /// From now on some requests fail.
    pub fn set_flaky(&mut self, flaky: Flaky) {
        self.flaky = flaky;
    }

    pub fn is_flaky(&self) -> bool {
        self.flaky != Flaky::default()
    }

    /// Whether a request fails of which so many in a thousand do.
    fn passes_by(&mut self, permille: u64, offset: u64) -> Result<(), DiskError> {
        if permille > 0 && self.rng.chance(permille, 1000) {
            self.passing_errors += 1;
            return Err(DiskError::Io { offset, reason: PASSING.into() });
        }
        Ok(())
    }

    /// A flush has failed: each write since the last one, true or not, is forgotten or still waits for the next.
    fn forget_some(&mut self) {
        self.cached.clear();
        for (at, (offset, bytes)) in std::mem::take(&mut self.volatile).into_iter().enumerate() {
            if at < self.said || self.rng.chance(1, 2) {
                self.cache(offset, bytes);
            }
        }
    }

    fn check(&self, offset: u64, length: usize) -> Result<(), DiskError> {
        assert!(offset.is_multiple_of(BLOCK_U64) && length.is_multiple_of(BLOCK), "requests are aligned");
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.capacity => Ok(()),
            _ => Err(DiskError::OutOfRange { offset, length, capacity: self.capacity }),
        }
    }

    fn write(&mut self, offset: u64, bytes: Bytes) -> Result<(), DiskError> {
        self.check(offset, bytes.len())?;
        self.writes += 1;
        if self.fail_writes {
            return Err(DiskError::Io { offset, reason: "injected".into() });
        }
        self.passes_by(self.flaky.writes, offset)?;
        let spoils = offset >= self.spoils_from;
        if spoils && self.lose_writes > 0 {
            self.lose_writes -= 1;
            return Ok(());
        }
        let mut offset = offset;
        if spoils && self.misdirect_writes > 0 && offset + bytes.len() as u64 + BLOCK_U64 <= self.capacity {
            self.misdirect_writes -= 1;
            offset += BLOCK_U64;
        }
        self.cache(offset, bytes);
        Ok(())
    }

    /// A discard: some of the blocks read as they did, some as zeroes, some as anything.
    fn forget(&mut self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.check(offset, length as usize)?;
        let blocks = offset / BLOCK_U64..(offset + length) / BLOCK_U64;
        let known = self.durable.range(blocks.clone()).chain(self.cached.range(blocks)).map(|(&at, _)| at);
        for block in known.collect::<BTreeSet<u64>>() {
            let byte = match self.discards.below(3) {
                0 => continue,
                1 => 0,
                _ => self.discards.below(256) as u8,
            };
            self.cache(block * BLOCK_U64, vec![byte; BLOCK].into());
        }
        Ok(())
    }

    fn cache(&mut self, offset: u64, bytes: Bytes) {
        for (at, chunk) in bytes.chunks_exact(BLOCK).enumerate() {
            let number = offset / BLOCK_U64 + at as u64;
            self.bad_blocks.remove(&number);
            let known = self.cached.contains_key(&number) || self.durable.contains_key(&number);
            if !known && chunk.iter().all(|&b| b == 0) {
                // Absent blocks are zeroes already: a formatted journal costs nothing.
                continue;
            }
            let mut block = Box::new([0; BLOCK]);
            block.copy_from_slice(chunk);
            self.cached.insert(number, block);
        }
        self.volatile.push((offset, bytes));
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<Bytes, DiskError> {
        self.check(offset, length)?;
        self.passes_by(self.flaky.reads, offset)?;
        let mut out = BytesMut::with_capacity(length);
        for block in offset / BLOCK_U64..(offset + length as u64) / BLOCK_U64 {
            if self.bad_blocks.contains(&block) {
                self.bad_reads += 1;
                return Err(DiskError::Io { offset: block * BLOCK_U64, reason: "injected".into() });
            }
            match self.cached.get(&block).or_else(|| self.durable.get(&block)) {
                Some(bytes) => out.extend_from_slice(&bytes[..]),
                None => out.extend_from_slice(&[0; BLOCK]),
            }
        }
        Ok(out.freeze())
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.flushes += 1;
        if self.fail_flushes {
            return Err(DiskError::Io { offset: 0, reason: "injected flush failure".into() });
        }
        if let Err(error) = self.passes_by(self.flaky.flushes, 0) {
            self.forget_some();
            return Err(error);
        }
        if self.lies {
            self.said = self.volatile.len();
            return Ok(());
        }
        self.said = 0;
        // Not `append`, which walks all of both.
        self.durable.extend(std::mem::take(&mut self.cached));
        self.volatile.clear();
        Ok(())
    }
}

fn is_discard(request: &DiskRequest) -> bool {
    matches!(request, DiskRequest::Discard { .. })
}

fn token(request: &DiskRequest) -> u64 {
    match request {
        DiskRequest::Write { token, .. }
        | DiskRequest::Read { token, .. }
        | DiskRequest::Flush { token }
        | DiskRequest::Discard { token, .. } => *token,
    }
}

impl DiskSync for SimDisk {
    fn capacity_bytes(&self) -> u64 {
        self.capacity
    }

    fn read_at(&mut self, offset: u64, length: usize) -> Result<Bytes, DiskError> {
        self.read(offset, length)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.write(offset, Bytes::copy_from_slice(data))
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.sync()
    }

    fn discard_granularity(&self) -> Option<u64> {
        Some(BLOCK_U64)
    }

    fn discard(&mut self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.forget(offset, length)
    }
}
