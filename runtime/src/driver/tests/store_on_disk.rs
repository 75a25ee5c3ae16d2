//! A real store on a real disk, driven as an OSD would be, by packets over a real messenger.

use crate::clock::Clock;
use crate::disk::DiskRing;
use crate::driver::*;
use crate::kv::{KvConfig, RocksKv};
use crate::messenger::{Messenger, MessengerConfig, MessengerEvent};
use crate::tls::{ClusterCa, Credentials, Validity};
use bytes::Bytes;
use nacre_osd::{OsdEffect, OsdEvent};
use nacre_store::{ObjectStore, Store, StoreConfig, StoreEvent};
use nacre_types::{Epoch, Instant, Machine, ObjectId, OsdId, Outbox, PgId, PoolId, RequestId};
use nacre_wire::messages::{Ping, RepOpReply};
use nacre_wire::{Address, Data, Message, Packet, SessionId, Transaction};
use std::collections::BTreeMap;
use std::path::Path;

const WRITES: u64 = 3000;
const IN_FLIGHT: u64 = 32;
const OBJECTS: u64 = 20;
const BLOCK: u64 = 4096;

/// Stores the payload of each packet and answers once it is durable.
struct Keeper {
    store: Store<RocksKv>,
    waiting: BTreeMap<u64, (SessionId, RequestId)>,
    ticks: u64,
    deadline: Instant,
}

impl Machine for Keeper {
    type Event = OsdEvent;
    type Effect = OsdEffect;

    fn step(&mut self, now: Instant, event: OsdEvent, out: &mut Outbox<OsdEffect>) {
        match event {
            OsdEvent::Tick { wall_ms } => {
                assert!(wall_ms > 0);
                self.ticks += 1;
                self.deadline = now + std::time::Duration::from_millis(20);
            }
            OsdEvent::Received { from, packet } => {
                let seq = packet.request.seq;
                let mut transaction = Transaction::new(PgId::new(PoolId(1), 0));
                transaction.write(&object(seq), place(seq), packet.data);
                transaction.meta_set(seq.to_be_bytes().to_vec(), Bytes::from(vec![1; 200]));
                self.waiting.insert(seq, (from.session, packet.request));
                self.store.submit(seq, transaction);
            }
            OsdEvent::SessionClosed(_) | OsdEvent::PeerRefused { .. } => {}
            OsdEvent::Disk(done) => self.store.disk_done(done),
            OsdEvent::KvFlushed { token, result } => self.store.kv_flushed(token, result),
            OsdEvent::Gathered => {
                while let Some(request) = self.store.poll_disk() {
                    out.push(OsdEffect::Disk(request));
                }
            }
            OsdEvent::Stop => out.push(OsdEffect::Stopped { reason: "asked to".into(), failed: false }),
        }
        while let Some(event) = self.store.poll_event() {
            match event {
                StoreEvent::Committed { token } => {
                    let (session, request) = self.waiting.remove(&token).unwrap();
                    let packet = Packet::new(Epoch(1), Message::from(RepOpReply::default())).request(request);
                    out.push(OsdEffect::Send { to: Address::Session(session), packet });
                }
                other => panic!("{other:?}"),
            }
        }
        if self.store.wants_disk() {
            out.push(OsdEffect::Gather);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        Some(self.deadline)
    }
}

fn object(seq: u64) -> ObjectId {
    ObjectId::new(PoolId(1), "", &format!("object-{}", seq % OBJECTS)).unwrap()
}

/// Each write has a place of its own.
fn place(seq: u64) -> u64 {
    seq / OBJECTS * BLOCK
}

fn content(seq: u64) -> Bytes {
    Bytes::from(seq.to_le_bytes().repeat(BLOCK as usize / 8))
}

fn bind(ca: &ClusterCa, entity: &str) -> Messenger {
    let name = entity.parse().unwrap();
    let (cert_pem, key_pem) = ca.issue(&name, Validity::default()).unwrap();
    let (fsid, ca_pem) = (ca.fsid().into(), ca.certificate_pem().into());
    let credentials = Credentials { fsid, entity: name, monitors: vec![], ca_pem, cert_pem, key_pem };
    let listen = entity.starts_with("osd").then(|| "127.0.0.1:0".parse().unwrap());
    Messenger::bind(MessengerConfig::new(credentials, listen)).unwrap()
}

async fn client(messenger: Messenger, to: Address) {
    let (mut sent, mut answered) = (0, 0);
    while answered < WRITES {
        while sent < WRITES && sent - answered < IN_FLIGHT {
            let packet = Packet::new(Epoch(1), Message::from(Ping::default()))
                .request(RequestId { seq: sent, ..RequestId::default() })
                .with(Data::checksummed(place(sent), content(sent)));
            messenger.send(to.clone(), packet);
            sent += 1;
        }
        match messenger.next_event().await {
            MessengerEvent::Received { .. } => answered += 1,
            MessengerEvent::SessionOpened(_) => {}
            other => panic!("{other:?}"),
        }
    }
    messenger.shutdown().await;
}

fn open(dir: &Path) -> OpenedOsd {
    open_osd(dir, None, &KvConfig::default(), StoreConfig::default()).unwrap()
}

#[test]
fn acknowledged_writes_are_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("osd.0");
    let options = FormatOsd {
        fsid: "cluster-1".into(),
        osd: OsdId(0),
        uuid: "uuid-0".into(),
        device: None,
        bytes: 64 << 20,
        // Small enough for several checkpoints.
        journal_bytes: 4 << 20,
        discard: true,
    };
    format_osd(&dir, &options, &KvConfig::default()).unwrap();
    let test = async {
        let ca = ClusterCa::create("cluster-1").unwrap();
        let messenger = bind(&ca, "osd.0");
        let to = Address::Osd { id: OsdId(0), address: messenger.local_addr().to_string() };
        let opened = open(&dir);
        let mut flushes = opened.flushes;
        let mut disk = DiskRing::start(opened.disk).unwrap();
        let mut keeper =
            Keeper { store: opened.store, waiting: BTreeMap::new(), ticks: 0, deadline: Instant::ZERO };
        let clock = Clock::start();
        let parts = OsdParts { clock, messenger: &messenger, disk: &mut disk, flushes: &mut flushes };
        let client = tokio::task::spawn_local(client(bind(&ca, "client.test"), to));
        let ended = run_osd(&mut keeper, parts, async { client.await.unwrap() }).await;
        assert_eq!(ended, Ended { reason: "asked to".into(), failed: false });
        assert!(keeper.ticks > 0);
        let stats = keeper.store.stats();
        assert_eq!(stats.transactions, WRITES);
        assert!(stats.checkpoints > 0, "{stats:?}");
        assert!(stats.journal_writes < WRITES, "{stats:?}");
        messenger.shutdown().await;
        // Neither unmounted nor checkpointed: as after a kill.
    };
    block_on(async { tokio::time::timeout(std::time::Duration::from_secs(60), test).await.expect("hangs") })
        .unwrap();

    let mut opened = open(&dir);
    let check = async {
        let mut disk = DiskRing::start(opened.disk).unwrap();
        for seq in 0..WRITES {
            opened.store.read(seq, &object(seq), place(seq), BLOCK);
            while let Some(request) = opened.store.poll_disk() {
                disk.push(request);
            }
            loop {
                if let Some(StoreEvent::ReadDone { token, result }) = opened.store.poll_event() {
                    assert_eq!((token, result.unwrap().bytes), (seq, content(seq)));
                    break;
                }
                let done = disk.next_done().await;
                opened.store.disk_done(done);
            }
            assert!(opened.store.meta_get(PgId::new(PoolId(1), 0), &seq.to_be_bytes()).unwrap().is_some());
        }
    };
    block_on(check).unwrap();
}
