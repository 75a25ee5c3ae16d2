//! Proves that a store is whole: no block belongs to two owners without being counted so, none leaks, every key has its
//! object, and (deep) every checksum holds.
//!
//! Offline. Replays the journal first, as a mount would: what is in it is part of the store.

use crate::index::keys;
use crate::index::onode::Onode;
use crate::index::references::{CHUNK_BLOCKS, References};
use crate::index::shard::{SHARD_BLOCKS, Shard};
use crate::mount::recover;
use crate::{DiskSync, Kv, KvError, OpenError, superblock};
use bytes::Bytes;
use nacre_types::ObjectId;
use nacre_types::checksum::{BLOCK, BLOCK_U64, crc32};
use std::collections::BTreeMap;

/// More errors than this are only counted.
const ERRORS_MAX: usize = 1000;

/// One thing that is wrong, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FsckError {
    #[error("the store does not open: {0}")]
    Open(OpenError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("the key {key:02x?} does not decode")]
    Undecodable { key: Vec<u8> },
    #[error("{object} has the number of {other}")]
    DuplicateNumber { object: String, other: String },
    #[error("{object}: block {block} lies at {disk_block}, outside the data area")]
    OutOfRange { object: String, block: u64, disk_block: u64 },
    #[error("{object}: block {block} lies behind the object's end of {size}")]
    BeyondEnd { object: String, block: u64, size: u64 },
    #[error("{object} has {found} mapped blocks, its onode says {expected}")]
    BlockCount { object: String, found: u64, expected: u64 },
    #[error("disk block {disk_block} has {found} owners, its reference count says {expected}")]
    References { disk_block: u64, found: u64, expected: u64 },
    #[error("{object}: block {block} has several owners but is not marked as shared")]
    NotMarkedShared { object: String, block: u64 },
    #[error("{what} {number} belongs to no object")]
    Orphan { what: &'static str, number: u64 },
    #[error("{object}: the checksum of block {block} (disk block {disk_block}) does not hold: {reason}")]
    Checksum { object: String, block: u64, disk_block: u64, reason: String },
    #[error("{count} further errors")]
    More { count: u64 },
}

/// What a check has seen.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FsckReport {
    pub errors: Vec<FsckError>,
    pub objects: u64,
    /// Distinct disk blocks in use.
    pub blocks_used: u64,
    /// Of those, blocks with more than one owner.
    pub blocks_shared: u64,
    /// Blocks whose last write still lies over them as patches.
    pub blocks_patched: u64,
    pub omap_pairs: u64,
    pub records_replayed: u64,
}

impl FsckReport {
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }
}

/// Checks a store that is not mounted. `deep` also reads every block and verifies its checksum.
pub fn fsck<K: Kv>(disk: &mut dyn DiskSync, kv: &mut K, deep: bool) -> FsckReport {
    let mut check = Check::default();
    if let Err(error) = check.run(disk, kv, deep) {
        check.error(error);
    }
    if check.dropped > 0 {
        check.report.errors.push(FsckError::More { count: check.dropped });
    }
    check.report
}

struct Owner {
    name: String,
    size: u64,
    blocks: u64,
    found: u64,
}

#[derive(Default)]
struct Check {
    report: FsckReport,
    dropped: u64,
    owners: BTreeMap<u64, Owner>,
    omaps: BTreeMap<u64, String>,
    /// Owners of each disk block.
    blocks: BTreeMap<u64, u32>,
    references: BTreeMap<u64, References>,
}

impl Check {
    fn error(&mut self, error: FsckError) {
        if self.report.errors.len() < ERRORS_MAX {
            self.report.errors.push(error);
        } else {
            self.dropped += 1;
        }
    }

    fn run<K: Kv>(&mut self, disk: &mut dyn DiskSync, kv: &mut K, deep: bool) -> Result<(), FsckError> {
        let superblock = superblock::inspect(disk).map_err(FsckError::Open)?;
        let replayed = recover(disk, kv, &superblock).map_err(FsckError::Open)?;
        self.report.records_replayed = replayed.records;
        self.onodes(kv)?;
        self.reference_counts(kv)?;
        let first = superblock.data_offset / BLOCK_U64;
        let mut shards = Vec::new();
        kv.scan(keys::SHARDS.0, keys::SHARDS.1, &mut |key, value| {
            match (keys::parse_shard(key), Shard::decode(Bytes::copy_from_slice(value))) {
                (Some((number, index)), Some(shard)) => {
                    self.shard(number, index, &shard, first..first + superblock.data_blocks);
                    if deep || shard.shared != 0 || !shard.is_empty() {
                        shards.push((number, index));
                    }
                }
                _ => self.error(FsckError::Undecodable { key: key.to_vec() }),
            }
            true
        })?;
        self.compare_counts();
        for (number, index) in shards {
            if let Some(value) = kv.get(&keys::shard(number, index))?
                && let Some(shard) = Shard::decode(value)
            {
                self.marks(number, index, &shard);
                if deep {
                    self.checksums(disk, number, index, &shard);
                }
            }
        }
        self.pairs(kv)?;
        Ok(())
    }

    fn onodes<K: Kv>(&mut self, kv: &K) -> Result<(), FsckError> {
        kv.scan(keys::ONODES.0, keys::ONODES.1, &mut |key, value| {
            let (Some(id), Some(onode)) = (ObjectId::from_key(&key[1..]), Onode::load(value)) else {
                self.error(FsckError::Undecodable { key: key.to_vec() });
                return true;
            };
            self.report.objects += 1;
            let name = id.to_string();
            if onode.omap != 0 {
                self.omaps.insert(onode.omap, name.clone());
            }
            let owner = Owner { name: name.clone(), size: onode.size, blocks: onode.blocks, found: 0 };
            if let Some(other) = self.owners.insert(onode.number, owner) {
                self.error(FsckError::DuplicateNumber { object: name, other: other.name });
            }
            true
        })?;
        Ok(())
    }

    fn reference_counts<K: Kv>(&mut self, kv: &K) -> Result<(), FsckError> {
        kv.scan(keys::REFERENCES.0, keys::REFERENCES.1, &mut |key, value| {
            match (keys::parse_number(key), References::decode(Bytes::copy_from_slice(value))) {
                (Some(chunk), Some(references)) => drop(self.references.insert(chunk, references)),
                _ => self.error(FsckError::Undecodable { key: key.to_vec() }),
            }
            true
        })?;
        Ok(())
    }

    fn shard(&mut self, number: u64, index: u32, shard: &Shard, data: std::ops::Range<u64>) {
        let Some(owner) = self.owners.get_mut(&number) else {
            return self.error(FsckError::Orphan { what: "extent map shard", number });
        };
        let (object, size) = (owner.name.clone(), owner.size);
        let mut errors = Vec::new();
        for (at, &disk_block) in shard.blocks.iter().enumerate().filter(|(_, b)| **b != 0) {
            let block = logical(index, at);
            owner.found += 1;
            if !data.contains(&disk_block) {
                errors.push(FsckError::OutOfRange { object: object.clone(), block, disk_block });
            }
            if block * BLOCK_U64 >= size {
                errors.push(FsckError::BeyondEnd { object: object.clone(), block, size });
            }
            *self.blocks.entry(disk_block).or_default() += 1;
            self.report.blocks_patched += u64::from(shard.patches_of(at).next().is_some());
        }
        errors.into_iter().for_each(|e| self.error(e));
    }

    fn extra(&self, block: u64) -> u64 {
        let chunk = self.references.get(&(block / CHUNK_BLOCKS));
        chunk.map_or(0, |r| u64::from(r.extra[(block % CHUNK_BLOCKS) as usize]))
    }

    fn compare_counts(&mut self) {
        let mut errors = Vec::new();
        for owner in self.owners.values().filter(|o| o.found != o.blocks) {
            let (found, expected) = (owner.found, owner.blocks);
            errors.push(FsckError::BlockCount { object: owner.name.clone(), found, expected });
        }
        self.report.blocks_used = self.blocks.len() as u64;
        for (&disk_block, &owners) in &self.blocks {
            let (found, expected) = (u64::from(owners), self.extra(disk_block) + 1);
            self.report.blocks_shared += u64::from(found > 1);
            if found != expected {
                errors.push(FsckError::References { disk_block, found, expected });
            }
        }
        for (chunk, references) in &self.references {
            for (at, &extra) in references.extra.iter().enumerate().filter(|(_, n)| **n > 0) {
                let disk_block = chunk.saturating_mul(CHUNK_BLOCKS).saturating_add(at as u64);
                if !self.blocks.contains_key(&disk_block) {
                    let expected = u64::from(extra) + 1;
                    errors.push(FsckError::References { disk_block, found: 0, expected });
                }
            }
        }
        errors.into_iter().for_each(|e| self.error(e));
    }

    fn marks(&mut self, number: u64, index: u32, shard: &Shard) {
        let Some(owner) = self.owners.get(&number) else { return };
        let object = owner.name.clone();
        for at in 0..SHARD_BLOCKS {
            let owners = self.blocks.get(&shard.blocks[at]).copied().unwrap_or(0);
            if shard.blocks[at] != 0 && owners > 1 && !shard.is_shared(at) {
                self.error(FsckError::NotMarkedShared { object: object.clone(), block: logical(index, at) });
            }
        }
    }

    fn checksums(&mut self, disk: &mut dyn DiskSync, number: u64, index: u32, shard: &Shard) {
        let Some(owner) = self.owners.get(&number) else { return };
        let object = owner.name.clone();
        for at in (0..SHARD_BLOCKS).filter(|&at| shard.blocks[at] != 0) {
            let (disk_block, block) = (shard.blocks[at], logical(index, at));
            let reason = match disk.read_at(disk_block * BLOCK_U64, BLOCK) {
                Err(error) => error.to_string(),
                Ok(bytes) if crc32(&bytes) != shard.crcs[at] => {
                    format!("expected {:08x}, found {:08x}", shard.crcs[at], crc32(&bytes))
                }
                Ok(_) if shard.patches_of(at).any(|p| crc32(&p.bytes) != p.crc) => {
                    "a patch over it is wrong".into()
                }
                Ok(_) => continue,
            };
            self.error(FsckError::Checksum { object: object.clone(), block, disk_block, reason });
        }
    }

    fn pairs<K: Kv>(&mut self, kv: &K) -> Result<(), FsckError> {
        let mut last_orphan = None;
        kv.scan(keys::OMAPS.0, keys::OMAPS.1, &mut |key, _| {
            let Some(number) = keys::parse_number(key) else {
                self.error(FsckError::Undecodable { key: key.to_vec() });
                return true;
            };
            self.report.omap_pairs += 1;
            if !self.omaps.contains_key(&number) && last_orphan != Some(number) {
                last_orphan = Some(number);
                self.error(FsckError::Orphan { what: "omap", number });
            }
            true
        })?;
        Ok(())
    }
}

fn logical(index: u32, at: usize) -> u64 {
    u64::from(index) * SHARD_BLOCKS as u64 + at as u64
}
