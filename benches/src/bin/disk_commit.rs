//! What one journal commit costs on a disk: 4 KiB write and flush, as the store asks for it, through the ring.
//!
//!     disk_commit PATH [SECONDS]      PATH: a file to create (removed afterwards), or an existing file or block device
//!                                     whose first 64 MiB are overwritten
//!
//! Prints the device, then per way of committing the mean, median and 99th percentile in microseconds.

use nacre_runtime::disk::{DiskRing, FileDisk, create_file};
use nacre_store::{DiskRequest, DiskSync};
use std::path::Path;
use std::time::{Duration, Instant};

const AREA_BYTES: u64 = 64 << 20;
const BLOCK: u64 = 4096;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: disk_commit PATH [SECONDS]")?;
    let seconds: f64 = arguments.next().map_or(Ok(2.0), |text| text.parse())?;
    let path = Path::new(&path);
    let created = !path.exists();
    if created {
        create_file(path, AREA_BYTES)?;
    }
    let outcome = measure(path, Duration::from_secs_f64(seconds));
    if created {
        std::fs::remove_file(path)?;
    }
    outcome
}

fn measure(path: &Path, span: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let mut disk = FileDisk::open(path)?;
    println!("{}", disk.describe());
    let zeroes = vec![0; 4 << 20];
    for offset in (0..AREA_BYTES).step_by(zeroes.len()) {
        disk.write_at(offset, &zeroes)?;
    }
    disk.flush()?;
    report("synchronous write and fdatasync", &synchronous(&mut disk, span)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut ring = DiskRing::start(disk)?;
        for (name, durable, writes) in [
            ("ring, write then fdatasync", false, 1),
            ("ring, one durable write", true, 1),
            ("ring, two writes and fdatasync", true, 2),
        ] {
            ring.set_durable_writes(durable);
            report(name, &commits(&mut ring, span, writes).await?);
        }
        Ok(())
    })
}

fn synchronous(disk: &mut FileDisk, span: Duration) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let block = vec![7; BLOCK as usize];
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < span {
        let begin = Instant::now();
        disk.write_at(samples.len() as u64 * BLOCK % AREA_BYTES, &block)?;
        disk.flush()?;
        samples.push(begin.elapsed());
    }
    Ok(samples)
}

async fn commits(
    ring: &mut DiskRing,
    span: Duration,
    writes: u64,
) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let block = bytes::Bytes::from(vec![7; BLOCK as usize]);
    let (start, mut samples) = (Instant::now(), Vec::new());
    while start.elapsed() < span {
        let begin = Instant::now();
        for write in 0..writes {
            let offset = (samples.len() as u64 * BLOCK + write * AREA_BYTES / 2) % AREA_BYTES;
            ring.push(DiskRequest::Write { token: write, offset, segments: vec![block.clone()] });
        }
        ring.push(DiskRequest::Flush { token: writes });
        ring.submit();
        for _ in 0..=writes {
            ring.next_done().await.result?;
        }
        samples.push(begin.elapsed());
    }
    Ok(samples)
}

fn report(name: &str, samples: &[Duration]) {
    let mut sorted: Vec<f64> = samples.iter().map(|sample| sample.as_secs_f64() * 1e6).collect();
    sorted.sort_by(f64::total_cmp);
    let mean = sorted.iter().sum::<f64>() / sorted.len() as f64;
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    println!(
        "{name:<34} mean {mean:6.1} us   p50 {:6.1}   p99 {:6.1}   {} commits",
        at(0.5),
        at(0.99),
        sorted.len()
    );
}
