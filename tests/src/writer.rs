//! Writes numbered, self-describing blocks and remembers, outside the cluster, what was acknowledged.
//!
//! Each thread owns the blocks `n` with `n % threads == its number` and writes them in a random order, again and again. A
//! block holds its number and its version, repeated: a torn, misplaced or stale block betrays itself.

use crate::nbd::NbdClient;
use anyhow::{Context as _, ensure};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const BLOCK: usize = 4096;
const MAGIC: u64 = 0x4e41_4352_4542_4c4b;

/// What is known of each block: at least `acked` is there, at most `sent`.
#[derive(Clone, Debug)]
pub struct Known {
    pub acked: Vec<u64>,
    pub sent: Vec<u64>,
    /// Longest time a single write waited for its acknowledgement.
    pub stall_max: Duration,
    pub writes: u64,
    /// The error that ended a thread, if one did.
    pub errors: Vec<String>,
}

/// What a thread leaves: each block with its acknowledged and sent version, the longest stall, and why it ended early.
type Ended = (Vec<(u64, u64, u64)>, Duration, Option<String>);

pub struct Writer {
    threads: Vec<JoinHandle<Ended>>,
    blocks: u64,
    stop: Arc<AtomicBool>,
    writes: Arc<AtomicU64>,
}

impl Writer {
    /// Writes to the first `blocks` blocks of an export over `threads` connections until stopped or an error comes.
    /// `known` continues an earlier writer's versions.
    pub fn start(socket: PathBuf, export: &str, blocks: u64, threads: u64, known: Option<&Known>) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let writes = Arc::new(AtomicU64::new(0));
        let spawn = |thread: u64| {
            let (socket, export) = (socket.clone(), export.to_string());
            let (stop, writes) = (stop.clone(), writes.clone());
            let mut state: Vec<(u64, u64, u64)> = (0..blocks)
                .filter(|block| block % threads == thread)
                .map(|block| {
                    let of = |list: &[u64]| list.get(block as usize).copied().unwrap_or(0);
                    (block, known.map_or(0, |k| of(&k.acked)), known.map_or(0, |k| of(&k.sent)))
                })
                .collect();
            std::thread::spawn(move || {
                let mut stall = Duration::ZERO;
                let result = write_until(&socket, &export, thread, &mut state, &mut stall, &stop, &writes);
                (state, stall, result.err().map(|error| format!("{error:#}")))
            })
        };
        Writer { threads: (0..threads).map(spawn).collect(), blocks, stop, writes }
    }

    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes were acknowledged: that the load is really running.
    pub fn wait_writes(&self, more: u64, limit: Duration) -> anyhow::Result<()> {
        let target = self.writes() + more;
        let what = format!("{more} more writes");
        crate::cluster::wait_for(&what, limit, || Ok(self.writes() >= target))
    }

    pub fn stop(self) -> Known {
        self.stop.store(true, Ordering::Relaxed);
        let count = self.blocks as usize;
        let mut known = Known {
            acked: vec![0; count],
            sent: vec![0; count],
            stall_max: Duration::ZERO,
            writes: 0,
            errors: Vec::new(),
        };
        for thread in self.threads {
            let (state, stall, error) = thread.join().expect("a writer does not panic");
            for (block, acked, sent) in state {
                (known.acked[block as usize], known.sent[block as usize]) = (acked, sent);
            }
            known.stall_max = known.stall_max.max(stall);
            known.errors.extend(error);
        }
        known.writes = self.writes.load(Ordering::Relaxed);
        known
    }
}

fn write_until(
    socket: &std::path::Path,
    export: &str,
    thread: u64,
    state: &mut [(u64, u64, u64)],
    stall: &mut Duration,
    stop: &AtomicBool,
    writes: &AtomicU64,
) -> anyhow::Result<()> {
    let mut client = NbdClient::connect(socket, export, Duration::from_secs(120))?;
    let mut random = thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while !stop.load(Ordering::Relaxed) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let at = (random % state.len() as u64) as usize;
        let (block, acked, sent) = &mut state[at];
        *sent += 1;
        let version = *sent;
        let began = Instant::now();
        client.write(*block * BLOCK as u64, &content(*block, version))?;
        *stall = (*stall).max(began.elapsed());
        *acked = version;
        writes.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn content(block: u64, version: u64) -> Vec<u8> {
    let mut data = Vec::with_capacity(BLOCK);
    while data.len() < BLOCK {
        for word in [MAGIC, block, version, data.len() as u64] {
            data.extend_from_slice(&word.to_le_bytes());
        }
    }
    data
}

/// Reads every block and checks it against what is known.
pub fn verify(socket: &std::path::Path, export: &str, known: &Known) -> anyhow::Result<()> {
    let mut client = NbdClient::connect(socket, export, Duration::from_secs(120))?;
    for (block, (&acked, &sent)) in known.acked.iter().zip(&known.sent).enumerate() {
        let block = block as u64;
        let data = client.read(block * BLOCK as u64, BLOCK as u32)?;
        let version = version_of(block, &data).with_context(|| format!("block {block}"))?;
        ensure!(
            (acked..=sent).contains(&version),
            "block {block} has version {version}; acknowledged was {acked}, sent was {sent}"
        );
    }
    Ok(())
}

fn version_of(block: u64, data: &[u8]) -> anyhow::Result<u64> {
    if data.iter().all(|&byte| byte == 0) {
        return Ok(0);
    }
    let version = u64::from_le_bytes(data[16..24].try_into()?);
    ensure!(data == content(block, version), "its content is not what anybody wrote: {:02x?}", &data[..32]);
    Ok(version)
}
