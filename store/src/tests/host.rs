//! Drives a store over the models, in random order, and compares it with the reference.

use crate::testing::{Reference, SimDisk, SimKv};
use crate::{FormatOptions, OSD_META, ObjectStore, Store, StoreConfig, StoreError, StoreEvent, format, fsck};
use bytes::Bytes;
use nacre_types::checksum::BLOCK_U64;
use nacre_types::{ObjectId, OsdId, PgId, PoolId, Rng, SnapId};
use nacre_wire::transaction::Pair;
use nacre_wire::{Data, Transaction};
use std::collections::BTreeMap;

pub const PG: PgId = PgId::new(PoolId(1), 0);
const SERIAL: &[u8] = b"serial";

pub struct Host {
    pub rng: Rng,
    pub disk: SimDisk,
    pub kv: SimKv,
    pub store: Option<Store<SimKv>>,
    pub config: StoreConfig,
    /// State before `history`.
    pub base: Reference,
    /// Transactions submitted since.
    pub history: Vec<Transaction>,
    pub base_serial: u64,
    /// What the last crash discarded: clients send it again.
    pub lost: Vec<Transaction>,
    pub committed: usize,
    pub reads: BTreeMap<u64, Result<Data, StoreError>>,
    pub failed: Option<StoreError>,
    /// What reads under way must return, though the object may change meanwhile.
    pub awaited: BTreeMap<u64, (u64, Vec<u8>)>,
    next_read: u64,
}

pub fn options(journal_bytes: u64) -> FormatOptions {
    FormatOptions {
        fsid: "fsid".into(),
        osd_uuid: "uuid".into(),
        osd: OsdId(1),
        journal_bytes,
        discard: true,
    }
}

pub fn object(name: u64) -> ObjectId {
    let id = ObjectId::new(PoolId(1), "", &format!("object{}", name / 2)).unwrap();
    if name.is_multiple_of(2) { id } else { id.at(SnapId(3)) }
}

impl Host {
    pub fn new(seed: u64, capacity: u64, config: StoreConfig) -> Host {
        let mut rng = Rng::new(seed);
        let mut disk = SimDisk::new(capacity, rng.next_u64());
        let mut kv = SimKv::new(rng.next_u64());
        format(&mut disk, &mut kv, options(1 << 20)).unwrap();
        let mut host = Host {
            rng,
            disk,
            kv,
            store: None,
            config,
            base: Reference::default(),
            history: Vec::new(),
            base_serial: 0,
            lost: Vec::new(),
            committed: 0,
            reads: BTreeMap::new(),
            failed: None,
            awaited: BTreeMap::new(),
            next_read: 1 << 40,
        };
        host.mount();
        host
    }

    pub fn store(&mut self) -> &mut Store<SimKv> {
        self.store.as_mut().unwrap()
    }

    pub fn mount(&mut self) {
        let store = Store::mount(&mut self.disk, self.kv.clone(), self.config.clone());
        self.store = Some(store.unwrap_or_else(|e| panic!("mount: {e}")));
    }

    pub fn submit(&mut self, mut transaction: Transaction) {
        let serial = self.base_serial + self.history.len() as u64 + 1;
        let token = serial;
        // The serial goes with the transaction, so that after a crash it says which prefix is there.
        transaction.meta_set(Bytes::from_static(SERIAL), Bytes::copy_from_slice(&serial.to_be_bytes()));
        self.history.push(transaction.clone());
        self.store().submit(token, transaction);
    }

    /// Moves requests to the disk and events to the host.
    pub fn pump(&mut self) {
        let store = self.store.as_mut().unwrap();
        while let Some(request) = store.poll_disk() {
            self.disk.request(request);
        }
        while let Some(event) = store.poll_event() {
            match event {
                StoreEvent::Committed { token } => {
                    self.committed += 1;
                    assert_eq!(token, self.base_serial + self.committed as u64, "commits come in order");
                }
                StoreEvent::ReadDone { token, result } => match self.awaited.remove(&token) {
                    None => drop(self.reads.insert(token, result)),
                    Some((offset, expected)) => {
                        let data = result.unwrap_or_else(|e| panic!("read: {e}"));
                        assert!(data.bytes == expected, "a read saw what was submitted after it");
                        data.verify(offset).unwrap();
                    }
                },
                StoreEvent::Failed(error) => self.failed = Some(error),
            }
        }
    }

    /// Lets one request end. False if nothing is under way.
    pub fn step(&mut self) -> bool {
        self.pump();
        if self.kv.is_flushing() && (self.disk.is_idle() || self.rng.chance(1, 8)) {
            let (token, result) = self.kv.complete_flush().unwrap();
            self.store().kv_flushed(token, result);
        } else if let Some(done) = self.disk.complete_any() {
            self.store().disk_done(done);
        } else {
            return false;
        }
        self.pump();
        true
    }

    pub fn settle(&mut self) {
        while self.step() {}
    }

    pub fn read(&mut self, id: &ObjectId, offset: u64, length: u64) -> Result<Data, StoreError> {
        self.next_read += 1;
        let token = self.next_read;
        self.store().read(token, id, offset, length);
        self.pump();
        while !self.reads.contains_key(&token) {
            assert!(self.step(), "a read never ended");
        }
        self.reads.remove(&token).unwrap()
    }

    /// Starts a read whose result is checked when it comes.
    pub fn read_later(&mut self) {
        let expected = self.expected();
        let ids: Vec<&ObjectId> = expected.objects.keys().collect();
        let Some(&id) = self.rng.pick(&ids) else { return };
        let data = &expected.objects[id].data;
        let offset = self.rng.below(data.len() as u64);
        let length = self.rng.below(data.len() as u64 - offset + 1);
        self.next_read += 1;
        let token = self.next_read;
        let part = data[offset as usize..(offset + length) as usize].to_vec();
        self.awaited.insert(token, (offset, part));
        self.store().read(token, id, offset, length);
        self.pump();
    }

    /// The state after all that was submitted.
    pub fn expected(&self) -> Reference {
        let mut reference = self.base.clone();
        self.history.iter().for_each(|t| reference.apply(t));
        reference
    }

    /// Power loss, or the death of the daemon alone; then the mount, fsck, and the comparison.
    pub fn crash(&mut self) {
        self.pump();
        self.store = None;
        if self.rng.chance(1, 4) {
            self.disk.kill()
        } else {
            self.disk.power()
        }
        self.kv.power();
        if self.rng.chance(1, 8) {
            // A second crash, during replay: what it wrote is lost again, in part.
            drop(Store::mount(&mut self.disk, self.kv.clone(), self.config.clone()));
            self.disk.power();
            self.kv.power();
        }
        self.restart();
    }

    pub fn restart(&mut self) {
        self.mount();
        let serial = self.serial();
        let survived = (serial - self.base_serial) as usize;
        assert!(survived >= self.committed, "committed {} but only {survived} survived", self.committed);
        assert!(survived <= self.history.len(), "more survived than was submitted");
        self.lost = self.history.split_off(survived);
        self.base = self.expected();
        self.base_serial = serial;
        self.history.clear();
        self.committed = 0;
        self.reads.clear();
        self.awaited.clear();
        self.compare();
    }

    fn serial(&mut self) -> u64 {
        let value = self.store().meta_get(PG, SERIAL).unwrap();
        value.map_or(0, |v| u64::from_be_bytes(v.as_ref().try_into().unwrap()))
    }

    pub fn fsck(&mut self) {
        self.settle();
        assert!(self.store.as_ref().unwrap().is_idle());
        let store = self.store.take().unwrap();
        store.unmount(&mut self.disk).unwrap();
        let report = fsck(&mut self.disk, &mut self.kv, true);
        assert!(report.is_clean(), "{:#?}", report.errors);
        self.mount();
    }

    /// The store must hold exactly what the reference does.
    pub fn compare(&mut self) {
        let expected = self.expected();
        let store = self.store.as_mut().unwrap();
        let ids = store.list(&[], true, &[0xff; 4], usize::MAX).unwrap();
        assert_eq!(ids, expected.objects.keys().cloned().collect::<Vec<_>>(), "objects");
        for (id, object) in &expected.objects {
            let store = self.store.as_mut().unwrap();
            assert_eq!(store.stat(id).unwrap().unwrap().size, object.data.len() as u64, "{id}");
            let pairs = |map: &BTreeMap<Bytes, Bytes>| map.clone().into_iter().collect::<Vec<_>>();
            assert_eq!(store.attrs(id).unwrap(), pairs(&object.attrs), "{id}");
            assert_eq!(store.omap_list(id, None, &[], usize::MAX).unwrap(), (pairs(&object.omap), false));
            let mapped: u64 = store.extents(id, 0, u64::MAX).unwrap().iter().map(|e| e.1).sum();
            assert!(mapped <= store.stat(id).unwrap().unwrap().allocated_bytes);
            let data = self.read(id, 0, object.data.len() as u64).unwrap_or_else(|e| panic!("{id}: {e}"));
            assert!(
                data.bytes == object.data,
                "{id}: data differs at {:?}",
                differ(&data.bytes, &object.data)
            );
            data.verify(0).unwrap();
            if !object.data.is_empty() {
                let offset = self.rng.below(object.data.len() as u64);
                let length = 1 + self.rng.below(object.data.len() as u64 - offset);
                let data = self.read(id, offset, length).unwrap();
                assert!(data.bytes == object.data[offset as usize..(offset + length) as usize]);
                data.verify(offset).unwrap();
            }
        }
        for pg in [PG, OSD_META] {
            let mut found = Vec::new();
            self.store()
                .meta_scan(pg, &[], &[], &mut |key, value| {
                    found.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                    true
                })
                .unwrap();
            let meta = expected.meta.iter().filter(|((p, _), _)| *p == pg);
            assert_eq!(found, meta.map(|((_, k), v)| (k.clone(), v.clone())).collect::<Vec<_>>());
        }
    }

    /// A transaction of a few random operations.
    pub fn random_transaction(&mut self, objects: u64, bytes_max: u64) -> Transaction {
        let rng = &mut self.rng;
        let mut t = Transaction::new(PG);
        let key = |rng: &mut Rng| Bytes::from(format!("key{:02}", rng.below(12)));
        for _ in 0..1 + rng.below(4) {
            let id = object(rng.below(objects));
            let other = object(rng.below(objects));
            let offset = match rng.below(3) {
                0 => rng.below(bytes_max),
                _ => rng.below(bytes_max / BLOCK_U64) * BLOCK_U64,
            };
            let length = match rng.below(4) {
                0 => rng.below(9000),
                1 => BLOCK_U64,
                2 => BLOCK_U64 * rng.below(6),
                _ => rng.below(bytes_max),
            };
            match rng.below(22) {
                0 => t.create(&id),
                1 | 2 => t.zero(&id, offset, length),
                3 => t.truncate(&id, offset),
                4 => t.remove(&id),
                5 => t.set_attr(&id, &format!("a{}", rng.below(4)), key(rng)),
                6 => t.remove_attrs(&id, vec![Bytes::from(format!("a{}", rng.below(4)))]),
                7 => {
                    let pairs = (0..rng.below(5)).map(|_| Pair { key: key(rng), value: key(rng) });
                    t.omap_set(&id, pairs.collect());
                }
                8 => t.omap_remove(&id, vec![key(rng), key(rng)]),
                9 => t.omap_clear(&id),
                10 | 11 => t.clone_object(&id, &other),
                12 => t.rename(&id, &other),
                13 => t.meta_set(key(rng), key(rng)),
                14 => t.meta_remove(vec![key(rng)]),
                15 => t.meta_remove_range(key(rng), key(rng)),
                _ => t.write(&id, offset, random_data(rng, offset, length)),
            }
        }
        t
    }
}

pub fn random_data(rng: &mut Rng, offset: u64, length: u64) -> Data {
    let mut bytes = vec![0; length as usize];
    rng.fill(&mut bytes);
    Data::checksummed(offset, bytes.into())
}

fn differ(a: &[u8], b: &[u8]) -> Option<usize> {
    a.iter().zip(b).position(|(a, b)| a != b)
}

/// Small enough that every limit is met within a few transactions.
pub fn tiny() -> StoreConfig {
    StoreConfig {
        writeback_in_flight_max: 6,
        writeback_bytes: 64 << 10,
        deferred_bytes_max: 256 << 10,
        record_bytes_max: 64 << 10,
        settled_bytes_max: 8 << 10,
        discard: true,
        discard_bytes_min: 8 << 10,
        cache_objects: 4,
        cache_shards: 6,
        cache_references: 2,
    }
}

pub fn capacity() -> u64 {
    (128 << 10) + (1 << 20) + (8 << 20)
}
