//! What fuzzers reach of the formats that only this crate knows. Each function takes any bytes and asserts that what decodes
//! encodes to bytes that decode to the same.

use crate::index::onode::Onode;
use crate::index::references::References;
use crate::index::shard::Shard;
use crate::index::{keys, state};
use crate::journal::record::{HEADER_BYTES, Header};
use crate::superblock::Superblock;
use bytes::Bytes;
use nacre_types::ObjectId;
use nacre_types::checksum::{BLOCK, crc32};

/// The head of a journal record; its crc is put right first, since a random one is never met.
pub fn journal_record(head: &[u8]) {
    if let Some(header) = Header::parse(head) {
        let _ = (header.total_bytes(), header.decode(Bytes::copy_from_slice(head)));
    }
    let mut head = head.to_vec();
    head.resize(head.len().max(HEADER_BYTES).next_multiple_of(BLOCK), 0);
    Header::put_right(&mut head);
    let Some(header) = Header::parse(&head) else { return };
    assert!(header.head_bytes() >= BLOCK as u64 && header.total_bytes() >= header.head_bytes());
    if let Some(record) = header.decode(head.into()) {
        let table = record.payload.len() as u64 * BLOCK as u64;
        assert_eq!(table, header.payload_bytes(), "a crc for each block of payload");
    }
}

/// Gives a record's head the magic, a length that fits and the right crc.
pub fn put_right(head: &mut [u8]) {
    Header::put_right(head);
}

/// A superblock's block.
pub fn superblock(block: &[u8]) {
    if let Ok(superblock) = Superblock::decode_block(block) {
        let _ = (superblock.osd_id(), superblock.nonce());
        if superblock.fsid.len() + superblock.osd_uuid.len() < 2048 {
            assert_eq!(Superblock::decode_block(&superblock.encode_block()), Ok(superblock));
        }
    }
}

/// The block that holds a superblock's encoded body.
pub fn superblock_around(body: &[u8]) -> Vec<u8> {
    let mut block = b"NACRESB\n".to_vec();
    block.extend_from_slice(&(body.len() as u32).to_le_bytes());
    block.extend_from_slice(&crc32(body).to_le_bytes());
    block.extend_from_slice(body);
    block.resize(BLOCK.max(block.len()), 0);
    block
}

/// A value of the index under its key, whose first byte says what it is.
pub fn index_value(key: &[u8], value: &[u8]) {
    let bytes = Bytes::copy_from_slice(value);
    match key.first() {
        Some(b'O') => {
            if let Some(id) = ObjectId::from_key(&key[1..]) {
                assert_eq!(keys::onode(&id), key, "an object's key is its only one");
            }
            let Some(mut onode) = Onode::load(value) else { return };
            assert_eq!(Onode::load(&onode.store()), Some(onode.clone()));
            if let Some(pair) = onode.attrs.first().cloned() {
                onode.remove_attr(&pair.key);
                onode.set_attr(pair);
            }
        }
        Some(b'S') => {
            if let Some((number, index)) = keys::parse_shard(key) {
                assert_eq!(keys::shard(number, index), key);
            }
            let Some(shard) = Shard::decode(bytes) else { return };
            assert_eq!(Shard::decode(shard.encode()), Some(shard.clone()));
            let mut block = [0; BLOCK];
            for patch in &shard.patches {
                let _ = (patch.apply(&mut block), shard.patches_of(patch.block as usize).count());
            }
        }
        Some(b'R') => {
            let _ = keys::parse_number(key);
            let Some(references) = References::decode(bytes) else { return };
            if let Some(encoded) = references.encode() {
                assert_eq!(References::decode(encoded), Some(references));
            }
        }
        Some(b'A') => drop(state::decode::<state::Applied>(value)),
        Some(b'C') => drop(state::decode::<state::Checkpointed>(value)),
        Some(b'I') => drop(state::decode::<state::Identity>(value)),
        _ => {}
    }
}
