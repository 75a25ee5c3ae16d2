//! Who a device belongs to and how it is divided.
//!
//! ```text
//! 0            64 KiB        128 KiB                     data_offset
//! superblock   superblock    journal (circular)          data, 4 KiB blocks
//! copy 0       copy 1
//! ```
//!
//! Both copies are the same; the valid one with the highest generation counts. A superblock is written first as "being
//! formatted" and last as ready, so that a half formatted device is recognized as one.

use crate::{DiskError, DiskSync, KvError};
use nacre_types::checksum::{BLOCK, BLOCK_U64, crc32};
use nacre_types::{OsdId, object_hash};
use prost::Message as _;

/// Where the copies are.
pub(crate) const COPIES: [u64; 2] = [0, 64 << 10];
pub(crate) const JOURNAL_OFFSET: u64 = 128 << 10;
const MAGIC: [u8; 8] = *b"NACRESB\n";
/// The format this version writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// A journal below this could not hold one large transaction's metadata.
pub const JOURNAL_BYTES_MIN: u64 = 1 << 20;
/// A data area below this is no store.
const DATA_BYTES_MIN: u64 = 1 << 20;

/// Kept in front of the device, twice.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Superblock {
    #[prost(string, tag = "1")]
    pub fsid: String,
    #[prost(string, tag = "2")]
    pub osd_uuid: String,
    #[prost(uint32, tag = "3")]
    pub osd: u32,
    #[prost(uint32, tag = "4")]
    pub format_version: u32,
    #[prost(uint64, tag = "5")]
    pub journal_offset: u64,
    #[prost(uint64, tag = "6")]
    pub journal_bytes: u64,
    #[prost(uint64, tag = "7")]
    pub data_offset: u64,
    #[prost(uint64, tag = "8")]
    pub data_blocks: u64,
    #[prost(uint64, tag = "9")]
    pub generation: u64,
    /// False while formatting.
    #[prost(bool, tag = "10")]
    pub ready: bool,
    /// Bits of features that a version must know to use the device at all. None so far; compression and encryption
    /// at rest will be.
    #[prost(uint64, tag = "11")]
    pub features_required: u64,
}

/// Why a device cannot be used. Says which, why, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the device holds no Nacre store ({found}); check the path, or format it")]
    NotNacre { found: String },
    #[error("formatting of the device for {osd} did not finish; format it again")]
    HalfFormatted { osd: OsdId },
    #[error(
        "the store has format {found}, this version knows up to {FORMAT_VERSION}; start the newer version that wrote it"
    )]
    NewerFormat { found: u32 },
    #[error(
        "the store uses features {unknown:#x} that this version does not know; start the newer version that wrote it"
    )]
    UnknownFeatures { unknown: u64 },
    #[error(
        "the device is smaller than its store: {capacity} bytes, {needed} needed; is it the right device, or was it cut?"
    )]
    DeviceShrank { capacity: u64, needed: u64 },
    #[error("the index belongs to OSD {found:?}, the device to OSD {expected:?}; put them together again")]
    ForeignIndex { found: String, expected: String },
    #[error(
        "the index is empty or lacks its {what}; a store without its index must be rebuilt from the other copies"
    )]
    IndexLost { what: &'static str },
    #[error(
        "the journal is corrupt: record {seq} at {position} does not check ({reason}) though later ones prove it was committed; rebuild this OSD from the other copies"
    )]
    JournalCorrupt { seq: u64, position: u64, reason: String },
    #[error("the index is corrupt: {0}; rebuild this OSD from the other copies")]
    IndexCorrupt(String),
    #[error("disk: {0}")]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Kv(#[from] KvError),
}

impl Superblock {
    pub fn osd_id(&self) -> OsdId {
        OsdId(self.osd)
    }

    /// Stamps this store's journal records, so that another store's are never taken for them.
    pub(crate) fn nonce(&self) -> u64 {
        let high = u64::from(object_hash(&self.fsid, &self.osd_uuid));
        high << 32 | u64::from(crc32(self.osd_uuid.as_bytes()))
    }

    /// Divides a device.
    pub(crate) fn divide(capacity: u64, journal_bytes: u64) -> Option<(u64, u64, u64)> {
        let journal_bytes = journal_bytes / BLOCK_U64 * BLOCK_U64;
        let data_offset = JOURNAL_OFFSET.checked_add(journal_bytes)?;
        let data_bytes = capacity.checked_sub(data_offset)?;
        (data_bytes >= DATA_BYTES_MIN).then_some((journal_bytes, data_offset, data_bytes / BLOCK_U64))
    }

    pub(crate) fn encode_block(&self) -> Vec<u8> {
        let body = self.encode_to_vec();
        assert!(body.len() <= BLOCK - 16, "a superblock fits into one block");
        let mut block = Vec::with_capacity(BLOCK);
        block.extend_from_slice(&MAGIC);
        block.extend_from_slice(&(body.len() as u32).to_le_bytes());
        block.extend_from_slice(&crc32(&body).to_le_bytes());
        block.extend_from_slice(&body);
        block.resize(BLOCK, 0);
        block
    }

    /// Reads back what [`Superblock::encode_block`] wrote, or says what else it is.
    pub(crate) fn decode_block(block: &[u8]) -> Result<Superblock, String> {
        let Some((head, rest)) = block.split_first_chunk::<16>() else { return Err("too short".into()) };
        if head.iter().all(|&b| b == 0) {
            return Err("empty".into());
        }
        if head[..8] != MAGIC {
            return Err("something else's data".into());
        }
        let length = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let crc = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        match rest.get(..length) {
            Some(body) if crc32(body) == crc => Superblock::decode(body).map_err(|e| e.to_string()),
            _ => Err("a superblock with a wrong checksum".into()),
        }
    }

    pub(crate) fn write(&self, disk: &mut dyn DiskSync) -> Result<(), DiskError> {
        let block = self.encode_block();
        for offset in COPIES {
            disk.write_at(offset, &block)?;
            disk.flush()?;
        }
        Ok(())
    }

    fn check(&self, capacity: u64) -> Result<(), OpenError> {
        if self.format_version > FORMAT_VERSION {
            return Err(OpenError::NewerFormat { found: self.format_version });
        }
        if self.features_required != 0 {
            return Err(OpenError::UnknownFeatures { unknown: self.features_required });
        }
        if !self.ready {
            return Err(OpenError::HalfFormatted { osd: self.osd_id() });
        }
        let needed = self.data_blocks.saturating_mul(BLOCK_U64).saturating_add(self.data_offset);
        if needed > capacity {
            return Err(OpenError::DeviceShrank { capacity, needed });
        }
        Ok(())
    }
}

/// Reads and checks a device's superblock: who it belongs to, and that this version can use it.
pub fn inspect(disk: &mut dyn DiskSync) -> Result<Superblock, OpenError> {
    let superblock = read_any(disk)?;
    superblock.check(disk.capacity_bytes())?;
    Ok(superblock)
}

/// The newest valid copy, whatever its state.
pub(crate) fn read_any(disk: &mut dyn DiskSync) -> Result<Superblock, OpenError> {
    let mut best: Option<Superblock> = None;
    let mut found = String::new();
    let mut error = None;
    for offset in COPIES {
        // One unreadable copy is what the other is for.
        let block = match disk.read_at(offset, BLOCK) {
            Ok(block) => block,
            Err(e) => {
                error = Some(e);
                continue;
            }
        };
        match Superblock::decode_block(&block) {
            Ok(copy) if best.as_ref().is_none_or(|b| copy.generation > b.generation) => best = Some(copy),
            Ok(_) => {}
            Err(what) if found.is_empty() => found = what,
            Err(_) => {}
        }
    }
    match (best, error) {
        (Some(best), _) => Ok(best),
        (None, Some(error)) => Err(OpenError::Disk(error)),
        (None, None) => Err(OpenError::NotNacre { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_round_trip_and_damage_is_named() {
        let superblock = Superblock {
            fsid: "f".into(),
            osd_uuid: "u".into(),
            osd: 3,
            format_version: 1,
            ..Superblock::default()
        };
        let mut block = superblock.encode_block();
        assert_eq!(Superblock::decode_block(&block), Ok(superblock.clone()));
        block[20] ^= 1;
        assert!(Superblock::decode_block(&block).unwrap_err().contains("checksum"));
        assert_eq!(Superblock::decode_block(&[0; BLOCK]).unwrap_err(), "empty");
        assert!(Superblock::decode_block(&[7; BLOCK]).is_err());
        assert!(matches!(superblock.check(0), Err(OpenError::HalfFormatted { .. })));
        let newer = Superblock { format_version: 2, ..superblock };
        assert_eq!(newer.check(0), Err(OpenError::NewerFormat { found: 2 }));
    }
}
