//! Making a device and an index into an empty store.

use crate::index::keys;
use crate::index::state::{Applied, Checkpointed, Identity};
use crate::superblock::{COPIES, FORMAT_VERSION, JOURNAL_BYTES_MIN, JOURNAL_OFFSET, Superblock, read_any};
use crate::{DiskError, DiskSync, Kv, KvError, KvOp};
use nacre_types::OsdId;
use nacre_types::checksum::{BLOCK, BLOCK_U64};
use prost::Message as _;

/// What a new store is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FormatOptions {
    /// The cluster it belongs to.
    pub fsid: String,
    /// Names this store for ever, whatever OSD number it gets.
    pub osd_uuid: String,
    pub osd: OsdId,
    /// Size of the journal: bounds replay time, and how long small writes gather before they are written back. A
    /// transaction's metadata and small writes must fit; 1 GiB is good for a fast disk.
    pub journal_bytes: u64,
    /// Whether the device is told that it need not keep what it held.
    pub discard: bool,
}

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    #[error("the device already holds the store of {osd} in cluster {fsid}; wipe it first if that is to go")]
    AlreadyFormatted { osd: OsdId, fsid: String },
    #[error("the index is not empty; give the store an empty directory")]
    IndexNotEmpty,
    #[error("a device of {capacity} bytes is too small for a journal of {journal_bytes} bytes and data")]
    TooSmall { capacity: u64, journal_bytes: u64 },
    #[error("a journal of {journal_bytes} bytes is too small: at least {JOURNAL_BYTES_MIN}")]
    JournalTooSmall { journal_bytes: u64 },
    #[error("disk: {0}")]
    Disk(#[from] DiskError),
    #[error(transparent)]
    Kv(#[from] KvError),
}

/// Writes an empty store. Refuses a device or an index that holds one; writes the whole journal once, so that later
/// writes to it change no file or device metadata.
pub fn format<K: Kv>(disk: &mut dyn DiskSync, kv: &mut K, options: FormatOptions) -> Result<(), FormatError> {
    let capacity = disk.capacity_bytes();
    let journal_bytes = options.journal_bytes;
    if journal_bytes < JOURNAL_BYTES_MIN {
        return Err(FormatError::JournalTooSmall { journal_bytes });
    }
    let (journal_bytes, data_offset, data_blocks) = Superblock::divide(capacity, journal_bytes)
        .ok_or(FormatError::TooSmall { capacity, journal_bytes })?;
    if let Ok(old) = read_any(disk)
        && old.ready
    {
        return Err(FormatError::AlreadyFormatted { osd: old.osd_id(), fsid: old.fsid });
    }
    let mut used = false;
    kv.scan(&[], &[0xff], &mut |_, _| {
        used = true;
        false
    })?;
    if used && kv.get(keys::CHECKPOINTED)?.is_some() {
        // A half formatted one has no checkpoint and may be written over.
        return Err(FormatError::IndexNotEmpty);
    }
    let forming = Superblock {
        fsid: options.fsid.clone(),
        osd_uuid: options.osd_uuid.clone(),
        osd: options.osd.0,
        format_version: FORMAT_VERSION,
        journal_offset: JOURNAL_OFFSET,
        journal_bytes,
        data_offset,
        data_blocks,
        generation: 1,
        ready: false,
        features_required: 0,
    };
    forming.write(disk)?;
    zero(disk, JOURNAL_OFFSET, journal_bytes)?;
    if options.discard {
        // What was there before is nobody's now. A device that cannot discard it keeps it.
        let _ = disk.discard(data_offset, data_blocks * BLOCK_U64);
    }
    disk.flush()?;
    let identity = Identity { fsid: options.fsid, osd_uuid: options.osd_uuid };
    let put = |key: &[u8], value: Vec<u8>| KvOp::Put { key: key.to_vec(), value: value.into() };
    kv.write(vec![
        KvOp::DeleteRange { first: Vec::new(), end: vec![0xff] },
        put(keys::IDENTITY, identity.encode_to_vec()),
        put(keys::APPLIED, Applied { seq: 0, position: 0, next_number: 1 }.encode_to_vec()),
        put(keys::CHECKPOINTED, Checkpointed { seq: 0, position: 0, incarnation: 1 }.encode_to_vec()),
    ])?;
    kv.flush_sync()?;
    Superblock { generation: 2, ready: true, ..forming }.write(disk)?;
    Ok(())
}

/// Makes a device hold no store. Its data stays readable to who looks for it.
pub fn wipe(disk: &mut dyn DiskSync) -> Result<(), DiskError> {
    for offset in COPIES {
        zero(disk, offset, BLOCK as u64)?;
    }
    disk.flush()
}

fn zero(disk: &mut dyn DiskSync, offset: u64, length: u64) -> Result<(), DiskError> {
    let chunk = vec![0; 1 << 20];
    let mut at = 0;
    while at < length {
        let part = (length - at).min(chunk.len() as u64);
        disk.write_at(offset + at, &chunk[..part as usize])?;
        at += part;
    }
    Ok(())
}
