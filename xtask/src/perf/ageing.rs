//! The same loads on a fresh image, on one that was overwritten, and on one with snapshots.

use super::Args;
use super::meter::Meter;
use super::side::{IMAGE, Load, Nacre, Side as _};

const LOADS: [Load; 6] = [
    Load { rw: "randwrite", block: 4096, depth: 32 },
    Load { rw: "randwrite", block: 4096, depth: 1 },
    Load { rw: "randread", block: 4096, depth: 32 },
    Load { rw: "randread", block: 4096, depth: 1 },
    Load { rw: "write", block: 1 << 20, depth: 16 },
    Load { rw: "read", block: 1 << 20, depth: 16 },
];
const COPIES: f64 = 3.0;
/// Of writing at random while ageing.
const OVERWRITE: Load = Load { rw: "randwrite", block: 4096, depth: 128 };

pub fn run(args: &Args) -> anyhow::Result<()> {
    let nacre = Nacre::up(&args.size, "8G", &args.set)?;
    println!("three OSDs on files, three copies, an image of {}, {} s a load", args.size, args.seconds);
    let fresh = measure(&nacre, args, "fresh", &[])?;
    let bytes = nacre.image_bytes()? as f64;
    let mut written = 0.0;
    let meter = Meter::start(nacre.osd_pids()?)?;
    while written < 2.0 * bytes {
        written += nacre.load(&OVERWRITE, args.seconds)?.ops * 4096.0;
    }
    let amplification = meter.bytes_written()? as f64 / (written * COPIES);
    println!(
        "overwritten {:.1} times by 4 KiB at random: {amplification:.2} bytes at the device per byte and copy",
        written / bytes
    );
    measure(&nacre, args, "after it", &fresh)?;
    for at in 0..args.snapshots {
        nacre.0.nacre(&["image", "snap", "create", &format!("{IMAGE}@s{at}")])?;
        nacre.load(&OVERWRITE, 0.5)?;
    }
    measure(&nacre, args, &format!("{} snapshots", args.snapshots), &fresh)?;
    Ok(())
}

/// Runs every load; rates are held against `fresh` where there is one.
fn measure(nacre: &Nacre, args: &Args, what: &str, fresh: &[f64]) -> anyhow::Result<Vec<f64>> {
    let mut rates = Vec::new();
    for (at, load) in LOADS.iter().enumerate() {
        let meter = Meter::start(nacre.osd_pids()?)?;
        let sample = nacre.load(load, args.seconds)?;
        let cpu = meter.cpu_seconds()? * 1e6 / sample.ops;
        let ratio = fresh
            .get(at)
            .map_or(String::new(), |fresh| format!(", {:.2} of fresh", sample.per_second / fresh));
        println!(
            "{what:14} {:30} {:9.0}/s  p50 {:7.0} us  p99 {:7.0} us  CPU {cpu:6.0} us{ratio}",
            load.name(),
            sample.per_second,
            sample.p50_us,
            sample.p99_us
        );
        rates.push(sample.per_second);
    }
    Ok(rates)
}
