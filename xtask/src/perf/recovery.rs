//! How fast an OSD gets back what it missed, and a third copy what it never had; and what a client notices.

use super::side::{Ceph, Load, Nacre, Sample, Side};
use super::{Args, median};
use nacre_tests::cluster::wait_for;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CLIENT: Load = Load { rw: "randwrite", block: 4096, depth: 4 };
const MISSED: Load = Load { rw: "write", block: 1 << 20, depth: 16 };
const CLIENT_SECONDS: f64 = 2.0;
const AWAY: u32 = 2;
/// By then an OSD that came back, or a pool with another size, shows in the states of the PGs.
const SURE: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(600);

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut sides: Vec<Box<dyn Side>> = vec![Box::new(Nacre::up(&args.size, "4G", &args.set)?)];
    if let Some(conf) = &args.peer {
        sides.push(Box::new(Ceph::at(conf)?));
    }
    for side in &sides {
        measure(side.as_ref(), args)?;
    }
    Ok(())
}

fn measure(side: &dyn Side, args: &Args) -> anyhow::Result<()> {
    let image = image_bytes(&args.size)?;
    side.keep_in()?;
    wait_clean(side)?;
    let idle = side.load(&CLIENT, args.seconds)?;
    say(side, "idle", &format!("client {}", in_words(&idle)));
    for loaded in [false, true] {
        side.kill_osd(AWAY)?;
        wait_for("the PGs to notice", LIMIT, || Ok(!side.is_clean()?))?;
        let missed = (side.load(&MISSED, args.seconds)?.ops * MISSED.block as f64).min(image);
        let (seconds, client) = until_clean(side, loaded, || side.start_osd(AWAY))?;
        report(side, "back after a crash", missed, seconds, client, &idle);
    }
    for loaded in [false, true] {
        until_clean(side, false, || side.set_copies(2))?;
        let (seconds, client) = until_clean(side, loaded, || side.set_copies(3))?;
        report(side, "a third copy", image, seconds, client, &idle);
    }
    Ok(())
}

/// From the start to clean, and what a client saw meanwhile.
fn until_clean(
    side: &dyn Side,
    loaded: bool,
    start: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<(f64, Vec<Sample>)> {
    let (over, client) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let began = Instant::now();
    let seconds = std::thread::scope(|scope| {
        let load = || {
            while !over.load(Ordering::Relaxed) {
                let sample = side.load(&CLIENT, CLIENT_SECONDS)?;
                client.lock().expect("nobody panics").push(sample);
            }
            anyhow::Ok(())
        };
        let running = loaded.then(|| scope.spawn(load));
        start()?;
        let mut seen = false;
        let done = wait_for("active+clean", LIMIT, || {
            let clean = side.is_clean()?;
            // At first it may look as before.
            seen |= !clean || began.elapsed() > SURE;
            Ok(clean && seen)
        });
        let seconds = began.elapsed().as_secs_f64();
        over.store(true, Ordering::Relaxed);
        running.map_or(Ok(()), |thread| thread.join().expect("it does not panic"))?;
        done.map(|()| seconds)
    })?;
    Ok((seconds, client.into_inner().expect("nobody panics")))
}

fn wait_clean(side: &dyn Side) -> anyhow::Result<()> {
    wait_for("active+clean", LIMIT, || side.is_clean())
}

fn report(side: &dyn Side, what: &str, bytes: f64, seconds: f64, client: Vec<Sample>, idle: &Sample) {
    let mut text =
        format!("{:.0} MB in {seconds:.1} s, {:.0} MB/s", bytes / 1e6, bytes / 1e6 / seconds.max(0.01));
    if !client.is_empty() {
        let middle = |value: fn(&Sample) -> f64| median(client.iter().map(value).collect());
        let p99 = middle(|sample| sample.p99_us);
        text += &format!(
            "; client {}, p99 {:.1} times that of idle",
            in_words(&Sample {
                ops: 0.0,
                per_second: middle(|sample| sample.per_second),
                p50_us: middle(|sample| sample.p50_us),
                p99_us: p99,
            }),
            p99 / idle.p99_us
        );
    }
    say(side, what, &text);
}

fn in_words(sample: &Sample) -> String {
    format!("{:.0}/s, p50 {:.0} us, p99 {:.0} us", sample.per_second, sample.p50_us, sample.p99_us)
}

fn say(side: &dyn Side, what: &str, text: &str) {
    println!("{:6} {what:20} {text}", side.name());
}

fn image_bytes(size: &str) -> anyhow::Result<f64> {
    let (digits, unit) = size.split_at(size.trim_end_matches(char::is_alphabetic).len());
    let unit = match unit {
        "G" => 30,
        "M" => 20,
        _ => anyhow::bail!("--size {size}: say how many M or G"),
    };
    Ok(digits.parse::<u64>()? as f64 * f64::from(1 << unit))
}
