//! Objects that say which they are and how often they were written, put and fetched by the command line as a user would.

use super::Random;
use crate::sample::noise;
use crate::tool::text;
use anyhow::{Context as _, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Makes `nacre` commands with these words, at the client's node.
pub type Tool = Arc<dyn Fn(&[&str]) -> Command + Send + Sync>;

/// An object's acknowledged and sent version; zero is none.
pub type Known = Vec<(u64, u64)>;

/// What a worker leaves: its versions, the longest it waited, and why it ended early.
type Ended = (Known, Duration, Option<String>);

pub struct Objects {
    workers: Vec<JoinHandle<Ended>>,
    stop: Arc<AtomicBool>,
    pub operations: Arc<AtomicU64>,
    pool: String,
}

/// What all workers know at the end.
pub struct Told {
    pub known: Vec<Known>,
    pub stall_max: Duration,
    pub errors: Vec<String>,
}

/// Objects of each worker.
const OBJECTS: u64 = 40;

impl Objects {
    pub fn start(tool: Tool, folder: &Path, pool: &str, workers: u64, seed: u64) -> Objects {
        let (stop, operations) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let spawn = |worker: u64| {
            let (tool, stop, operations) = (tool.clone(), stop.clone(), operations.clone());
            let file = folder.join(format!("object-{worker}"));
            let pool = pool.to_string();
            std::thread::spawn(move || {
                let mut known = vec![(0, 0); OBJECTS as usize];
                let mut stall = Duration::ZERO;
                let mut random = Random::new(seed ^ (worker + 77));
                let worker = Worker { tool, pool, worker, file };
                let mut result = Ok(());
                while result.is_ok() && !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    result = worker.operation(&mut random, &mut known);
                    stall = stall.max(began.elapsed());
                    operations.fetch_add(1, Ordering::Relaxed);
                }
                (known, stall, result.err().map(|error| format!("{error:#}")))
            })
        };
        Objects { workers: (0..workers).map(spawn).collect(), stop, operations, pool: pool.into() }
    }

    pub fn stop(self) -> Told {
        self.stop.store(true, Ordering::Relaxed);
        let mut told = Told { known: Vec::new(), stall_max: Duration::ZERO, errors: Vec::new() };
        for worker in self.workers {
            let (known, stall, error) = worker.join().expect("a worker does not panic");
            told.known.push(known);
            told.stall_max = told.stall_max.max(stall);
            told.errors.extend(error.map(|error| format!("objects of {}: {error}", self.pool)));
        }
        told
    }
}

/// Fetches every object once more and checks it.
pub fn verify(tool: &Tool, folder: &Path, pool: &str, told: &Told) -> anyhow::Result<u64> {
    let mut checked = 0;
    for (worker, known) in told.known.iter().enumerate() {
        let file = folder.join("object-verify");
        let worker = Worker { tool: tool.clone(), pool: pool.into(), worker: worker as u64, file };
        for (object, &known) in known.iter().enumerate() {
            worker.fetch(object as u64, known)?;
            checked += 1;
        }
    }
    Ok(checked)
}

struct Worker {
    tool: Tool,
    pool: String,
    worker: u64,
    file: PathBuf,
}

impl Worker {
    fn operation(&self, random: &mut Random, known: &mut Known) -> anyhow::Result<()> {
        let object = random.below(OBJECTS);
        let state = &mut known[object as usize];
        if random.below(3) == 0 {
            return self.fetch(object, *state);
        }
        state.1 += 1;
        let version = state.1;
        std::fs::write(&self.file, content(self.worker, object, version))?;
        let path = self.file.display().to_string();
        let output =
            (self.tool)(&["object", "put", &self.name(object), &path, "--timeout", "120"]).output()?;
        ensure!(output.status.success(), "put {} version {version}: {}", self.name(object), text(&output));
        state.0 = version;
        Ok(())
    }

    fn name(&self, object: u64) -> String {
        format!("{}/thrash-{}-{object}", self.pool, self.worker)
    }

    fn fetch(&self, object: u64, (acked, sent): (u64, u64)) -> anyhow::Result<()> {
        let name = self.name(object);
        let path = self.file.display().to_string();
        let output = (self.tool)(&["object", "get", &name, &path, "--timeout", "120"]).output()?;
        if !output.status.success() {
            let said = text(&output);
            if acked == 0
                && (said.contains("does not exist")
                    || said.contains("not found")
                    || said.contains("no object"))
            {
                return Ok(());
            }
            bail!("get {name}, acknowledged {acked}, sent {sent}: {said}");
        }
        let data = std::fs::read(&self.file)?;
        let word =
            |at: usize| data.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes);
        let version = word(16).with_context(|| format!("{name} has {} bytes", data.len()))?;
        ensure!(
            data == content(self.worker, object, version),
            "{name}: its content is not what anybody wrote: {:02x?}",
            &data[..data.len().min(32)]
        );
        ensure!(
            (acked..=sent).contains(&version),
            "{name} has version {version}; acknowledged was {acked}, sent was {sent}"
        );
        Ok(())
    }
}

/// Which object it is and which version, then noise of their own, of a length of their own.
fn content(worker: u64, object: u64, version: u64) -> Vec<u8> {
    let mut data = Vec::new();
    for word in [worker, object, version] {
        data.extend_from_slice(&word.to_le_bytes());
    }
    let seed = worker << 40 | object << 20 | version;
    data.extend(noise(seed + 1, (seed.wrapping_mul(7919) % 90_000) as usize));
    data
}
