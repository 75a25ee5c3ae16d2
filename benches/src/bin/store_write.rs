//! What one OSD's store does with 4 KiB random overwrites on a disk, without network or PGs.
//!
//!     store_write DIR [SECONDS]      DIR: where to make an OSD of 4 GiB (removed afterwards)
//!
//! Prints per number of writes in flight: writes per second, latency, CPU time and device flushes per write; then latency
//! and flushes of writes that come at random times, whatever is under way (the program waits by looking again and again);
//! at the end the process's memory.

use bytes::Bytes;
use nacre_runtime::disk::DiskRing;
use nacre_runtime::driver::{FormatOsd, block_on, format_osd, open_osd};
use nacre_runtime::kv::{KvConfig, KvFlushes, RocksKv};
use nacre_store::{ObjectStore, Store, StoreConfig, StoreEvent};
use nacre_types::{ObjectId, OsdId, PgId, PoolId, Rng};
use nacre_wire::{Data, Transaction};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const OBJECTS: u64 = 256;
const OBJECT_BYTES: u64 = 4 << 20;
const BLOCK: u64 = 4096;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().ok_or("usage: store_write DIR [SECONDS]")?;
    let seconds: f64 = arguments.next().map_or(Ok(3.0), |text| text.parse())?;
    let dir = Path::new(&dir).join("osd.0");
    let options = FormatOsd {
        fsid: "bench".into(),
        osd: OsdId(0),
        uuid: "bench".into(),
        device: None,
        bytes: 4 << 30,
        journal_bytes: 256 << 20,
        discard: true,
    };
    format_osd(&dir, &options, &KvConfig::default())?;
    let outcome = block_on(measure(&dir, Duration::from_secs_f64(seconds)))?;
    std::fs::remove_dir_all(&dir)?;
    outcome
}

async fn measure(dir: &Path, span: Duration) -> Outcome<()> {
    let opened = open_osd(dir, None, &KvConfig::default(), StoreConfig::default())?;
    let mut bench = Bench {
        store: opened.store,
        disk: DiskRing::start(opened.disk)?,
        flushes: opened.flushes,
        rng: Rng::new(1),
        next_token: 0,
        started: BTreeMap::new(),
        samples: Vec::new(),
    };
    println!("{}", bench.disk.describe());
    bench.fill().await?;
    for in_flight in [1, 4, 32, 128] {
        bench.samples.clear();
        let (start, cpu, syncs) = (Instant::now(), cpu_time(), bench.syncs());
        while start.elapsed() < span {
            while bench.started.len() < in_flight {
                bench.overwrite();
            }
            bench.turn().await?;
        }
        let count = bench.samples.len() as f64;
        let cpu_us = (cpu_time() - cpu).as_secs_f64() * 1e6 / count;
        let per_second = count / start.elapsed().as_secs_f64();
        let syncs = (bench.syncs() - syncs) as f64 / count;
        bench.samples.sort_unstable();
        let at = |share: f64| bench.samples[((bench.samples.len() - 1) as f64 * share) as usize].as_micros();
        println!(
            "{in_flight:4} in flight: {per_second:7.0}/s   p50 {:5} us  p99 {:6}  max {:7}   CPU {cpu_us:5.1} us   {syncs:.2} flushes per write",
            at(0.5),
            at(0.99),
            at(1.0)
        );
        while !bench.started.is_empty() {
            bench.turn().await?;
        }
    }
    for rate in [500.0, 1000.0, 2000.0] {
        bench.samples.clear();
        let (start, syncs) = (Instant::now(), bench.syncs());
        let mut due = start;
        while start.elapsed() < span {
            if Instant::now() >= due {
                bench.overwrite();
                let uniform = (bench.rng.below(1 << 32) + 1) as f64 / (1_u64 << 32) as f64;
                due += Duration::from_secs_f64(-uniform.ln() / rate);
            }
            bench.look().await?;
        }
        let count = bench.samples.len() as f64;
        let syncs = (bench.syncs() - syncs) as f64 / count;
        bench.samples.sort_unstable();
        let at = |share: f64| bench.samples[((count - 1.0) * share) as usize].as_micros();
        println!(
            "{:4.0} a second: p50 {:5} us  p90 {:5}  p99 {:6}  max {:7}   {syncs:.2} flushes per write",
            count / start.elapsed().as_secs_f64(),
            at(0.5),
            at(0.9),
            at(0.99),
            at(1.0)
        );
        while !bench.started.is_empty() {
            bench.turn().await?;
        }
    }
    println!("{:?}\n{:?}", bench.store.stats(), bench.disk.stats());
    println!("index not flushed: {} KiB", bench.store.kv().unflushed_bytes() >> 10);
    let status = std::fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS"))
        .for_each(|l| println!("{l}"));
    Ok(())
}

struct Bench {
    store: Store<RocksKv>,
    disk: DiskRing,
    flushes: KvFlushes,
    rng: Rng,
    next_token: u64,
    started: BTreeMap<u64, Instant>,
    samples: Vec<Duration>,
}

impl Bench {
    fn syncs(&self) -> u64 {
        self.disk.stats().syncs + self.disk.stats().durable_writes
    }

    async fn fill(&mut self) -> Outcome<()> {
        for index in 0..OBJECTS {
            self.write(index, 0, OBJECT_BYTES);
            while self.started.len() > 8 {
                self.turn().await?;
            }
        }
        while !self.started.is_empty() {
            self.turn().await?;
        }
        Ok(())
    }

    fn overwrite(&mut self) {
        let index = self.rng.below(OBJECTS);
        let offset = self.rng.below(OBJECT_BYTES / BLOCK) * BLOCK;
        self.write(index, offset, BLOCK);
    }

    /// With what an OSD adds to each write: a log entry of some 200 bytes, and the object's info.
    fn write(&mut self, index: u64, offset: u64, length: u64) {
        let token = self.next_token;
        self.next_token += 1;
        let object =
            ObjectId::new(PoolId(1), "", &format!("rbd_data.1234.{index:016x}")).expect("a valid name");
        let mut transaction = Transaction::new(PgId::new(PoolId(1), (index % 32) as u32));
        let mut bytes = vec![0; length as usize];
        bytes[..8].copy_from_slice(&token.to_le_bytes());
        transaction.write(&object, offset, Data::checksummed(offset, bytes.into()));
        transaction.set_attr(&object, "_", Bytes::from(vec![1; 60]));
        transaction.meta_set(token.to_be_bytes().to_vec(), Bytes::from(vec![2; 200]));
        if token >= 3000 {
            transaction.meta_remove(vec![Bytes::copy_from_slice(&(token - 3000).to_be_bytes())]);
        }
        self.started.insert(token, Instant::now());
        self.store.submit(token, transaction);
    }

    /// Waits for something and handles all that is there.
    async fn turn(&mut self) -> Outcome<()> {
        self.pump()?;
        tokio::select! {
            done = self.disk.next_done() => self.store.disk_done(done),
            flushed = self.flushes.next_flushed() => self.store.kv_flushed(flushed.token, flushed.result),
        }
        while let Some(done) = self.disk.take_done() {
            self.store.disk_done(done);
        }
        self.pump()
    }

    /// Handles what is there, without waiting.
    async fn look(&mut self) -> Outcome<()> {
        self.pump()?;
        while let Some(done) = self.disk.try_done() {
            self.store.disk_done(done);
        }
        while let Some(flushed) = self.flushes.try_flushed() {
            self.store.kv_flushed(flushed.token, flushed.result);
        }
        tokio::task::yield_now().await;
        self.pump()
    }

    fn pump(&mut self) -> Outcome<()> {
        while let Some(event) = self.store.poll_event() {
            match event {
                StoreEvent::Committed { token } => {
                    let started = self.started.remove(&token).ok_or("committed twice")?;
                    self.samples.push(started.elapsed());
                }
                StoreEvent::Failed(error) => return Err(error.into()),
                StoreEvent::ReadDone { .. } => {}
            }
        }
        while let Some(request) = self.store.poll_disk() {
            self.disk.push(request);
        }
        self.disk.submit();
        Ok(())
    }
}

/// User and system time of the process, RocksDB's threads included.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}
