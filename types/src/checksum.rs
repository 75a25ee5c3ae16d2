//! crc32 (IEEE, as in zlib) per 4 KiB block: computed at the client, checked at every hop that cuts the data, stored
//! beside it, checked on every read from a disk.
//!
//! Chunks lie on the **object's** block grid: a write at offset 6144 of 8192 bytes has chunks of 2048, 4096 and 2048
//! bytes. So the checksum of every whole block that a client sent is the one the disk keeps.

/// Bytes per checksummed block; also the store's allocation unit and every disk write's alignment.
pub const BLOCK: usize = 4096;
/// [`BLOCK`] for offsets.
pub const BLOCK_U64: u64 = BLOCK as u64;

/// A chunk whose bytes do not match their checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("checksum mismatch in the block at offset {offset}: expected {expected:08x}, found {found:08x}")]
pub struct Mismatch {
    /// Object offset of the chunk.
    pub offset: u64,
    pub expected: u32,
    pub found: u32,
}

pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// crc32 of a block of zeroes.
pub const CRC_ZERO_BLOCK: u32 = 0xc71c_0011;

/// How many chunks `len` bytes at object offset `offset` are cut into.
pub fn chunk_count(offset: u64, len: usize) -> usize {
    if len == 0 {
        return 0;
    }
    let head = (offset % BLOCK_U64) as usize;
    (head + len).div_ceil(BLOCK)
}

/// The chunks of `data` on the block grid of an object, with their offsets.
pub fn chunks(offset: u64, data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut rest = data;
    let mut at = offset;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let room = BLOCK - (at % BLOCK_U64) as usize;
        let (chunk, tail) = rest.split_at(room.min(rest.len()));
        let item = (at, chunk);
        at += chunk.len() as u64;
        rest = tail;
        Some(item)
    })
}

/// One crc per chunk of `data` at object offset `offset`.
pub fn crcs(offset: u64, data: &[u8]) -> Vec<u32> {
    chunks(offset, data).map(|(_, chunk)| crc32(chunk)).collect()
}

/// Checks `data` against `crcs`, which must have exactly [`chunk_count`] entries (a wrong count is a mismatch).
pub fn verify(offset: u64, data: &[u8], crcs: &[u32]) -> Result<(), Mismatch> {
    let mut expected = crcs.iter();
    for (at, chunk) in chunks(offset, data) {
        let found = crc32(chunk);
        match expected.next() {
            Some(&expected) if expected == found => {}
            other => return Err(Mismatch { offset: at, expected: other.copied().unwrap_or(0), found }),
        }
    }
    match expected.next() {
        None => Ok(()),
        Some(&extra) => Err(Mismatch { offset: offset + data.len() as u64, expected: extra, found: 0 }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_follow_the_object_grid() {
        let data = vec![7; 8192];
        let lens: Vec<usize> = chunks(6144, &data).map(|(_, c)| c.len()).collect();
        assert_eq!(lens, [2048, 4096, 2048]);
        assert_eq!(chunk_count(6144, 8192), 3);
        assert_eq!(chunk_count(0, 0), 0);
        assert_eq!(chunk_count(4095, 2), 2);
        assert_eq!(crc32(&[0; BLOCK]), CRC_ZERO_BLOCK);
    }

    #[test]
    fn verify_finds_one_flipped_bit_and_wrong_counts() {
        let mut data: Vec<u8> = (0..10_000).map(|i| i as u8).collect();
        let crcs = crcs(100, &data);
        assert_eq!(verify(100, &data, &crcs), Ok(()));
        assert!(verify(100, &data, &crcs[1..]).is_err());
        assert!(verify(100, &data[..1000], &crcs).is_err());
        data[5000] ^= 1;
        assert_eq!(verify(100, &data, &crcs).unwrap_err().offset, 4096);
    }
}
