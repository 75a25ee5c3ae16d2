//! What the store reads from its device and its index.

use super::wire::{decoded_transaction, object, sample_transaction};
use crate::input::{Input, join};
use bytes::Bytes;
use nacre_store::testing::{SimDisk, SimKv, fuzz};
use nacre_store::{
    DiskSync as _, FormatOptions, Kv as _, KvOp, ObjectStore as _, Store, StoreConfig, StoreEvent,
};
use nacre_types::checksum::{BLOCK, BLOCK_U64};
use nacre_types::{ObjectId, OsdId, PgId, PoolId};
use nacre_wire::{Data, Transaction};
use prost::Message as _;
use std::sync::OnceLock;

const DISK_BYTES: u64 = 4 << 20;

pub fn journal_record(input: &[u8]) {
    fuzz::journal_record(input);
}

/// Heads of records as a store wrote them.
pub fn journal_record_seeds() -> Vec<Vec<u8>> {
    let mut parts = Parts::new();
    parts.run(&[sample_transaction(), writes(20_000)]);
    let mut heads = Vec::new();
    for offset in (128 << 10..(128 << 10) + (256 << 10)).step_by(BLOCK) {
        let block = parts.disk.read_at(offset, BLOCK).expect("inside the device");
        if block.starts_with(b"NJR1") {
            heads.push(block[..2048].to_vec());
        }
    }
    assert!(!heads.is_empty());
    heads
}

/// A body, which gets the right checksum, and the block as it is.
pub fn superblock(input: &[u8]) {
    fuzz::superblock(input);
    let block = fuzz::superblock_around(input);
    fuzz::superblock(&block);
    // On a device: one copy and none.
    let mut disk = SimDisk::new(DISK_BYTES, 1);
    disk.write_at(0, &block[..BLOCK]).expect("a block fits");
    let _ = nacre_store::inspect(&mut disk);
}

pub fn superblock_seeds() -> Vec<Vec<u8>> {
    let mut parts = Parts::new();
    vec![nacre_store::inspect(&mut parts.disk).expect("a formatted device").encode_to_vec()]
}

/// A key as a part, then the value.
pub fn index_values(input: &[u8]) {
    let mut input = Input(input);
    let key = input.part();
    fuzz::index_value(key, input.0);
}

pub fn index_values_seeds() -> Vec<Vec<u8>> {
    let mut parts = Parts::new();
    parts.run(&[sample_transaction(), writes(20_000)]);
    parts.kv_pairs().iter().map(|(key, value)| [&join(&[key])[..], value].concat()).collect()
}

/// Transactions as parts of body and data, each submitted to one store; one crash among them; fsck in the end.
pub fn transactions(input: &[u8]) {
    let mut input = Input(input);
    let crash = input.u8();
    let mut transactions = Vec::new();
    while !input.is_empty() && transactions.len() < 8 {
        let (body, data) = (input.part(), input.part());
        transactions.extend(decoded_transaction(body, data));
    }
    let mut parts = Parts::new();
    for (at, transaction) in transactions.iter().enumerate() {
        parts.run(std::slice::from_ref(transaction));
        if at as u8 == crash {
            parts.kv.power();
            parts.disk.kill();
        }
    }
    let report = nacre_store::fsck(&mut parts.disk, &mut parts.kv, true);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
}

pub fn transactions_seeds() -> Vec<Vec<u8>> {
    let part = |t: &Transaction| join(&[&t.encode_body(), &t.payload().bytes]);
    let mut other = writes(200);
    other.clone_object(&object("big"), &object("copy"));
    other.write(&object("copy"), 4096, Data::checksummed(4096, vec![3; 700].into()));
    vec![
        [&[9], &part(&sample_transaction())[..]].concat(),
        [&[0], &part(&writes(4000))[..], &part(&other), &part(&sample_transaction())].concat(),
    ]
}

/// A store that was in use, with edits of its index and its device: mounted, read, written, checked. It may refuse or name the
/// damage, it may not panic.
///
/// An edit is a byte of what (even: a pair of the index, odd: a block that was written), two bytes of which, and a part to
/// replace the value by, or (blocks) to lay over it; an empty part deletes.
pub fn mount(input: &[u8]) {
    let mut input = Input(input);
    let (mut parts, pairs, blocks) = used();
    while !input.is_empty() {
        let (what, which, bytes) = (input.u8(), input.u16() as usize, input.part());
        if what % 2 == 0 {
            let key = pairs[which % pairs.len()].0.clone();
            let op = if bytes.is_empty() {
                KvOp::Delete { key }
            } else {
                KvOp::Put { key, value: Bytes::copy_from_slice(bytes) }
            };
            parts.kv.write(vec![op]).expect("the model writes");
        } else {
            let offset = blocks[which % blocks.len()];
            let mut block = parts.disk.read_at(offset, BLOCK).expect("it was written").to_vec();
            let length = bytes.len().min(BLOCK);
            block[..length].copy_from_slice(&bytes[..length]);
            if block.starts_with(b"NJR1") && what & 2 != 0 {
                fuzz::put_right(&mut block);
            }
            parts.disk.write_at(offset, &block).expect("inside the device");
        }
    }
    parts.run(&[writes(5000), sample_transaction()]);
    let _ = nacre_store::fsck(&mut parts.disk, &mut parts.kv, true);
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A copy of a store that was in use, its pairs and its blocks; made once.
fn used() -> (Parts, &'static Pairs, Vec<u64>) {
    static USED: OnceLock<(Pairs, Vec<(u64, Bytes)>)> = OnceLock::new();
    let (pairs, blocks) = USED.get_or_init(|| {
        let mut parts = Parts::in_use();
        let offsets: Vec<u64> = parts.disk.blocks_from(0).collect();
        let pairs = parts.kv_pairs();
        let read = |offset| (offset, parts.disk.read_at(offset, BLOCK).expect("it was written"));
        (pairs, offsets.into_iter().map(read).collect())
    });
    let mut parts = Parts { disk: SimDisk::new(DISK_BYTES, 1), kv: SimKv::new(2) };
    let put = |(key, value): &(Vec<u8>, Vec<u8>)| KvOp::Put { key: key.clone(), value: value.clone().into() };
    parts.kv.write(pairs.iter().map(put).collect()).expect("the model writes");
    parts.kv.flush_sync().expect("the model flushes");
    for (offset, block) in blocks {
        parts.disk.write_at(*offset, block).expect("inside the device");
    }
    (parts, pairs, blocks.iter().map(|(offset, _)| *offset).collect())
}

pub fn mount_seeds() -> Vec<Vec<u8>> {
    let mut parts = Parts::in_use();
    let pairs = parts.kv_pairs();
    let edit = |what: u8, which: usize, bytes: &[u8]| {
        [&[what], &(which as u16).to_le_bytes()[..], &join(&[bytes])].concat()
    };
    let mut seeds = vec![Vec::new()];
    for (at, (_, value)) in pairs.iter().enumerate() {
        seeds.push(edit(0, at, value));
        seeds.push(edit(0, at, b""));
    }
    let blocks: Vec<u64> = parts.disk.blocks_from(0).take(12).collect();
    for (at, offset) in blocks.into_iter().enumerate() {
        let block = parts.disk.read_at(offset, BLOCK).expect("it was written");
        seeds.push(edit(3, at, &block[..200]));
    }
    seeds
}

fn writes(bytes: usize) -> Transaction {
    let big = object("big");
    let mut t = Transaction::new(PgId::new(PoolId(1), 0));
    t.write(&big, 0, Data::checksummed(0, vec![5; bytes].into()));
    t.write(&big, 100, Data::checksummed(100, vec![6; 50].into()));
    let clone = big.at(nacre_types::SnapId(3));
    t.clone_object(&big, &clone);
    t.write(&big, 4096, Data::checksummed(4096, vec![7; 4096].into()));
    t.meta_set(Bytes::from_static(b"i"), Bytes::from_static(b"info"));
    t
}

/// A device and its index, between mounts.
struct Parts {
    disk: SimDisk,
    kv: SimKv,
}

impl Parts {
    fn new() -> Parts {
        let (mut disk, mut kv) = (SimDisk::new(DISK_BYTES, 1), SimKv::new(2));
        let options = FormatOptions {
            fsid: "fsid".into(),
            osd_uuid: "uuid".into(),
            osd: OsdId(1),
            journal_bytes: 1 << 20,
            discard: true,
        };
        nacre_store::format(&mut disk, &mut kv, options).expect("an empty device can be formatted");
        Parts { disk, kv }
    }

    /// With something in the index, and something in the journal that the index does not have.
    fn in_use() -> Parts {
        let mut parts = Parts::new();
        parts.run(&[sample_transaction(), writes(20_000)]);
        let store = Store::mount(&mut parts.disk, parts.kv.clone(), StoreConfig::default());
        store.expect("it was left whole").unmount(&mut parts.disk).expect("nothing fails");
        parts.run(&[writes(10_000), sample_transaction()]);
        parts
    }

    /// Mounts, submits, reads every object, and leaves without unmounting. Commits are waited for; the index may lose what
    /// it was not told to keep.
    fn run(&mut self, transactions: &[Transaction]) {
        let Ok(mut store) = Store::mount(&mut self.disk, self.kv.clone(), StoreConfig::default()) else {
            return;
        };
        for (token, transaction) in transactions.iter().enumerate() {
            store.submit(token as u64, transaction.clone());
            if !self.drain(&mut store) {
                return;
            }
        }
        let (first, end) = ObjectId::pg_key_range(PgId::new(PoolId(1), 0), 1);
        let Ok(objects) = store.list(&first, true, &end, 100) else { return };
        for object in objects {
            let _ = (store.attrs(&object), store.omap_list(&object, None, b"", 100));
            let Ok(Some(stat)) = store.stat(&object) else { continue };
            let _ = store.extents(&object, 0, stat.size);
            let length = stat.size.min(64 << 10);
            store.read(1000, &object, 0, length);
            store.read(1001, &object, stat.size - length, length);
            if !self.drain(&mut store) {
                return;
            }
        }
    }

    /// Until nothing is under way; false if the store gave up.
    fn drain(&mut self, store: &mut Store<SimKv>) -> bool {
        let mut fine = true;
        loop {
            while let Some(request) = store.poll_disk() {
                self.disk.request(request);
            }
            while let Some(event) = store.poll_event() {
                fine &= !matches!(event, StoreEvent::Failed(_));
            }
            if let Some(done) = self.disk.complete_any() {
                store.disk_done(done);
            } else if let Some((token, result)) = self.kv.complete_flush() {
                store.kv_flushed(token, result);
            } else {
                return fine;
            }
        }
    }

    fn kv_pairs(&self) -> Pairs {
        let mut pairs = Vec::new();
        let all = self.kv.scan(b"", &[0xff], &mut |key, value| {
            pairs.push((key.to_vec(), value.to_vec()));
            true
        });
        all.expect("the model scans");
        assert!(DISK_BYTES.is_multiple_of(BLOCK_U64) && !pairs.is_empty());
        pairs
    }
}
