//! The index's key layout: one keyspace, a prefix byte per kind.
//!
//! ```text
//! A                      applied position           C   checkpoint       I   identity
//! K omap-number key      an omap pair
//! M pg key               PG metadata
//! O object-key           onode, in `ObjectId::key` order
//! R block/64             reference counts of shared blocks
//! S number shard         extent map shard
//! ```
//!
//! Numbers are big-endian and never reused: what lies under a dead number is garbage whatever order it goes in.

use nacre_types::{ObjectId, PgId};

pub(crate) const APPLIED: &[u8] = b"A";
pub(crate) const CHECKPOINTED: &[u8] = b"C";
pub(crate) const IDENTITY: &[u8] = b"I";

fn prefixed(prefix: u8, number: u64, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + rest.len());
    key.push(prefix);
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

pub(crate) fn onode(object: &ObjectId) -> Vec<u8> {
    onode_raw(&object.key())
}

pub(crate) fn onode_raw(object_key: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + object_key.len());
    key.push(b'O');
    key.extend_from_slice(object_key);
    key
}

/// All onodes.
pub(crate) const ONODES: (&[u8], &[u8]) = (b"O", b"P");
/// All shards.
pub(crate) const SHARDS: (&[u8], &[u8]) = (b"S", b"T");
/// All reference counts.
pub(crate) const REFERENCES: (&[u8], &[u8]) = (b"R", b"S");
/// All omap pairs.
pub(crate) const OMAPS: (&[u8], &[u8]) = (b"K", b"L");
/// All PG metadata.
pub(crate) const METAS: (&[u8], &[u8]) = (b"M", b"N");

pub(crate) fn shard(number: u64, index: u32) -> Vec<u8> {
    prefixed(b'S', number, &index.to_be_bytes())
}

/// The number and index in a shard's key.
pub(crate) fn parse_shard(key: &[u8]) -> Option<(u64, u32)> {
    let (number, index) = key.strip_prefix(b"S")?.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*number), u32::from_be_bytes(index.try_into().ok()?)))
}

pub(crate) fn references(chunk: u64) -> Vec<u8> {
    prefixed(b'R', chunk, &[])
}

/// The number in a key of `R`, `K` or `M`.
pub(crate) fn parse_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(1..)?.first_chunk()?))
}

pub(crate) fn omap(number: u64, key: &[u8]) -> Vec<u8> {
    prefixed(b'K', number, key)
}

/// The range of one object's omap.
pub(crate) fn omap_range(number: u64) -> (Vec<u8>, Vec<u8>) {
    let end = number.checked_add(1).map_or(OMAPS.1.to_vec(), |next| omap(next, &[]));
    (omap(number, &[]), end)
}

pub(crate) fn meta(pg: PgId, key: &[u8]) -> Vec<u8> {
    prefixed(b'M', pg.as_u64(), key)
}

/// The end of a PG's metadata.
pub(crate) fn meta_end(pg: PgId) -> Vec<u8> {
    match pg.as_u64().checked_add(1) {
        Some(next) => prefixed(b'M', next, &[]),
        None => METAS.1.to_vec(),
    }
}

/// Bytes before the user's part of an `M` or `K` key.
pub(crate) const HEAD_BYTES: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;
    use nacre_types::PoolId;

    #[test]
    fn ranges_hold_their_keys_and_nothing_else() {
        let (first, end) = omap_range(7);
        assert!(first <= omap(7, &[]) && omap(7, &[0xff; 40]) < end && end <= omap(8, &[]));
        let pg = PgId::new(PoolId(1), 2);
        assert!(meta(pg, &[0xff; 9]) < meta_end(pg));
        let last = PgId::new(PoolId(u32::MAX), u32::MAX);
        assert!(meta(last, &[0xff; 9]) < meta_end(last));
        assert_eq!(parse_shard(&shard(9, 4)), Some((9, 4)));
        assert_eq!(parse_shard(b"S12"), None);
        assert_eq!(parse_number(&references(77)), Some(77));
    }
}
