//! A simulated OSD: the real store engine over a simulated disk and index.

use crate::options::Plant;
use crate::world::{Input, Node, Output};
use bytes::Bytes;
use nacre_osd::{Osd, OsdConfig, OsdEffect, OsdEvent};
use nacre_store::testing::{Loss, SimDisk, SimKv};
use nacre_store::{
    DiskDone, DiskRequest, FormatOptions, FsckReport, ObjectStore as _, OpenError, Store, StoreConfig,
};
use nacre_types::{Epoch, Instant, Machine, OsdId, Outbox, PgId, RequestId, Rng};
use nacre_wire::{Data, Message, Packet};
use std::collections::BTreeMap;
use std::time::Duration;

/// Small, so that checkpoints happen in a run.
const JOURNAL_BYTES: u64 = 4 << 20;

/// What survives the process.
pub struct OsdDisk {
    pub disk: SimDisk,
    pub kv: SimKv,
    pub uuid: String,
}

impl OsdDisk {
    /// A freshly formatted one.
    pub fn format(fsid: &str, osd: OsdId, uuid: &str, seed: u64, bytes: u64) -> OsdDisk {
        let mut disk = SimDisk::new(bytes, seed);
        let mut kv = SimKv::new(seed ^ 1);
        let options = FormatOptions {
            fsid: fsid.into(),
            osd_uuid: uuid.into(),
            osd,
            journal_bytes: JOURNAL_BYTES,
            discard: true,
        };
        nacre_store::format(&mut disk, &mut kv, options).expect("an empty disk can be formatted");
        OsdDisk { disk, kv, uuid: uuid.into() }
    }

    pub fn is_flaky(&self) -> bool {
        self.disk.is_flaky() || self.kv.is_flaky()
    }

    pub fn fsck(&mut self) -> FsckReport {
        nacre_store::fsck(&mut self.disk, &mut self.kv, true)
    }
}

/// Why an OSD does not start.
pub enum Refusal {
    /// Its store does not open: the disk, as it is now.
    Store(Box<OsdDisk>, OpenError),
    /// The store opens, and holds what the OSD does not start with.
    Osd(String),
}

pub struct OsdNode {
    osd: Osd<Store<SimKv>>,
    disk: SimDisk,
    kv: SimKv,
    uuid: String,
    disk_at: Option<Instant>,
    flush_at: Option<Instant>,
    latency_mean: Duration,
    rng: Rng,
    outbox: Outbox<OsdEffect>,
    /// When the daemon has nothing else at hand, once it has asked to be told.
    gathered_at: Option<Instant>,
    ended: bool,
    plant: Plant,
    /// Flushes to be lied about.
    lied: Vec<u64>,
    /// Reads under way, and the first answer each object gave.
    reading: BTreeMap<RequestId, String>,
    stale: BTreeMap<String, Data>,
    /// How much longer than usual the disk takes.
    slowness: u32,
}

impl OsdNode {
    pub fn open(
        config: OsdConfig,
        mut parts: OsdDisk,
        now: Instant,
        latency_mean: Duration,
        mut rng: Rng,
        plant: Plant,
    ) -> Result<OsdNode, Refusal> {
        // Objects here are small: few would leave a larger piece.
        let store_config = StoreConfig { discard_bytes_min: 4096, ..StoreConfig::default() };
        let store = match Store::mount(&mut parts.disk, parts.kv.clone(), store_config) {
            Ok(store) => store,
            Err(error) => {
                parts.kv.power();
                return Err(Refusal::Store(Box::new(parts), error));
            }
        };
        let config = OsdConfig { seed: rng.next_u64(), instance: rng.next_u64(), ..config };
        let osd = Osd::open(config, store, now).map_err(|error| Refusal::Osd(error.to_string()))?;
        Ok(OsdNode {
            osd,
            disk: parts.disk,
            kv: parts.kv,
            uuid: parts.uuid,
            disk_at: None,
            flush_at: None,
            latency_mean,
            rng,
            outbox: Outbox::new(),
            gathered_at: None,
            ended: false,
            plant,
            lied: Vec::new(),
            reading: BTreeMap::new(),
            stale: BTreeMap::new(),
            slowness: 1,
        })
    }

    /// The process dies. With `power`, writes no flush has covered may vanish or tear.
    pub fn crash(mut self, power: bool) -> OsdDisk {
        if power {
            self.disk.power();
        } else {
            self.disk.kill();
        }
        // The index's memory goes with the process in any case.
        self.kv.power();
        OsdDisk { disk: self.disk, kv: self.kv, uuid: self.uuid }
    }

    pub fn osd(&self) -> &Osd<Store<SimKv>> {
        &self.osd
    }

    /// How often what the disk spoilt was noticed.
    pub fn met(&mut self) -> [(&'static str, u64); 3] {
        let passing = std::mem::take(&mut self.disk.passing_errors) + self.kv.take_passing_errors();
        [
            ("met: a checksum that did not match", self.osd.store().stats().checksum_errors),
            ("met: a block that could not be read", std::mem::take(&mut self.disk.bad_reads)),
            ("met: a request that failed for once", passing),
        ]
    }

    /// The disk gets slower, or faster again.
    pub fn set_disk_latency(&mut self, mean: Duration) {
        self.latency_mean = mean;
    }

    /// Asks the daemon to stop in order.
    pub fn stop(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.step(now, OsdEvent::Stop, out);
    }

    pub fn disk_mut(&mut self) -> &mut SimDisk {
        &mut self.disk
    }

    /// Flips a bit somewhere in the data area; false if nothing is there yet.
    pub fn rot(&mut self, rng: &mut Rng) -> bool {
        let from = self.osd.store().superblock().data_offset;
        let blocks: Vec<u64> = self.disk.blocks_from(from).collect();
        let Some(block) = rng.pick(&blocks) else { return false };
        self.disk.rot(block + rng.below(4096), rng.below(8) as u8);
        true
    }

    /// A block of the data area cannot be read any more; false if nothing is there yet.
    pub fn break_block(&mut self, rng: &mut Rng) -> bool {
        let from = self.osd.store().superblock().data_offset;
        let blocks: Vec<u64> = self.disk.blocks_from(from).collect();
        let Some(block) = rng.pick(&blocks) else { return false };
        self.disk.break_block(*block);
        true
    }

    /// One of the next writes to the data area is lost, or lands beside its place.
    pub fn spoil_write(&mut self, misdirect: bool) {
        self.disk.spoil_from(self.osd.store().superblock().data_offset);
        if misdirect {
            self.disk.misdirect_writes(1);
        } else {
            self.disk.lose_writes(1);
        }
    }

    /// Acts on the disk and the index.
    pub fn with_disk(&mut self, act: impl FnOnce(&mut SimDisk, &SimKv)) {
        act(&mut self.disk, &self.kv);
    }

    /// The process dies with the power, and the device had lied about flushes.
    pub fn lose(mut self, loss: Loss) -> OsdDisk {
        self.disk.power_with(loss);
        self.kv.power_with(loss);
        self.disk.lie(false);
        self.kv.lie(false);
        OsdDisk { disk: self.disk, kv: self.kv, uuid: self.uuid }
    }

    /// The disk takes so many times as long as usual.
    pub fn slow(&mut self, slowness: u32) {
        self.slowness = slowness;
    }

    /// Flips a bit in every block of the data area that was ever written.
    pub fn rot_everything(&mut self) {
        let from = self.osd.store().superblock().data_offset;
        let blocks: Vec<u64> = self.disk.blocks_from(from).collect();
        for block in blocks {
            self.disk.rot(block + 100, 3);
        }
    }

    fn delay(&mut self) -> Duration {
        self.slowness * self.latency_mean.mul_f64(0.2 + 1.6 * self.rng.below(1000) as f64 / 1000.0)
    }

    /// The planted defect of [`Plant::StaleRead`].
    fn make_stale(&mut self, packet: &mut Packet) {
        if let Message::OsdOpReply(_) = &packet.message
            && !packet.data.is_empty()
            && let Some(object) = self.reading.remove(&packet.request)
        {
            let first = self.stale.entry(object).or_insert_with(|| packet.data.clone()).clone();
            if first.bytes.len() == packet.data.bytes.len() && self.rng.chance(1, 20) {
                packet.data = first;
            }
        }
    }

    fn step(&mut self, now: Instant, event: OsdEvent, out: &mut Vec<Output>) {
        if self.ended {
            return;
        }
        if event == OsdEvent::Gathered {
            self.gathered_at = None;
        }
        let mut outbox = std::mem::take(&mut self.outbox);
        self.osd.step(now, event, &mut outbox);
        for effect in outbox.drain() {
            match effect {
                OsdEffect::Send { to, mut packet } => {
                    if self.plant == Plant::StaleRead {
                        self.make_stale(&mut packet);
                    }
                    out.push(Output::Send { to, packet });
                }
                OsdEffect::Disk(DiskRequest::Flush { token }) if self.plant == Plant::LyingFlush => {
                    self.lied.push(token);
                }
                OsdEffect::Disk(request) => self.disk.request(request),
                OsdEffect::Gather if self.gathered_at.is_none() => {
                    // Mostly it has caught up at once; now and then it is busy, and more comes together.
                    let busy = if self.rng.chance(1, 4) { self.rng.below(400) } else { 0 };
                    self.gathered_at = Some(now + Duration::from_micros(busy));
                }
                OsdEffect::Gather => {}
                OsdEffect::CloseSession(session) => out.push(Output::CloseSession(session)),
                OsdEffect::Log { text, .. } => out.push(Output::Log(text)),
                OsdEffect::Stopped { reason, failed } => {
                    self.ended = true;
                    out.push(Output::Ended { reason, failed });
                }
            }
        }
        self.outbox = outbox;
        if self.disk_at.is_none() && (!self.disk.is_idle() || !self.lied.is_empty()) {
            self.disk_at = Some(now + self.delay());
        }
        if self.flush_at.is_none() && self.kv.is_flushing() {
            self.flush_at = Some(now + self.delay() * 4);
        }
    }
}

impl Node for OsdNode {
    fn handle(&mut self, now: Instant, _wall_ms: u64, input: Input, out: &mut Vec<Output>) {
        if self.plant == Plant::StaleRead
            && let Input::Packet { packet, .. } = &input
            && let Message::OsdOp(op) = &packet.message
            && let Some(object) = &op.object
        {
            self.reading.insert(packet.request, format!("{object:?}"));
        }
        let event = match input {
            Input::Packet { from, packet } => OsdEvent::Received { from, packet },
            Input::SessionClosed(session) => OsdEvent::SessionClosed(session),
            Input::Refused(osd, address) => OsdEvent::PeerRefused { osd, address },
        };
        self.step(now, event, out);
    }

    fn wake(&mut self, now: Instant, wall_ms: u64, out: &mut Vec<Output>) {
        if self.disk_at.is_some_and(|at| at <= now) {
            self.disk_at = None;
            // What is in flight completes together now and then: a deep queue is no slower than a shallow one.
            let batch = self.rng.range(1, 5);
            for _ in 0..batch {
                let Some(done) = self.disk.complete_any() else { break };
                self.step(now, OsdEvent::Disk(done), out);
            }
            if self.disk.is_idle() {
                for token in std::mem::take(&mut self.lied) {
                    self.step(now, OsdEvent::Disk(DiskDone { token, result: Ok(Bytes::new()) }), out);
                }
            }
            if self.disk_at.is_none() && !self.disk.is_idle() {
                self.disk_at = Some(now + self.delay());
            }
        }
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_at = None;
            if let Some((token, result)) = self.kv.complete_flush() {
                self.step(now, OsdEvent::KvFlushed { token, result }, out);
            }
        }
        if !self.ended && self.osd.next_deadline().is_some_and(|at| at <= now) {
            self.step(now, OsdEvent::Tick { wall_ms }, out);
        }
        if self.gathered_at.is_some_and(|at| at <= now) {
            self.step(now, OsdEvent::Gathered, out);
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        let tick = if self.ended { None } else { self.osd.next_deadline() };
        let gathered = self.gathered_at.filter(|_| !self.ended);
        [self.disk_at, self.flush_at, tick, gathered].into_iter().flatten().min()
    }

    fn map(&self) -> Option<(Epoch, u64)> {
        let map = self.osd.map();
        Some((map.epoch(), map.hash()))
    }

    fn check(&self) {
        self.osd.check();
    }

    fn serves_reads(&self, pg: PgId, now: Instant) -> bool {
        let (map, duration) = (self.osd.map(), self.osd.config().tunables.lease_duration);
        !self.ended && self.osd.pg(pg).is_some_and(|pg| pg.serves_reads_at(now, map, duration))
    }
}
