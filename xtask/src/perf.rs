//! `cargo xtask perf`: what takes a cluster and minutes to measure. It prints figures and ratios; nothing here fails on a
//! clock.

mod ageing;
mod meter;
mod monitors;
mod recovery;
mod side;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage:
  cargo xtask perf ageing   [--seconds S] [--size 1G] [--snapshots N]
      the same loads on a fresh image, after overwriting it twice at random, and with N snapshots
  cargo xtask perf recovery [--seconds S] [--size 1G] [--peer DIR/ceph.conf]
      how fast a member that was away, and one that is new, is filled, and how a client fares meanwhile
  cargo xtask perf monitors [--seconds S] [--subscribers N]
      changes of the map a second, and how long an epoch takes to N clients
  --set KEY=VALUE   a setting of our OSDs, as `nacre config set osd` takes it";

pub struct Args {
    /// Of one measurement.
    seconds: f64,
    /// Of the image.
    size: String,
    snapshots: u32,
    subscribers: u32,
    peer: Option<PathBuf>,
    /// Settings of our OSDs.
    set: Vec<(String, String)>,
}

pub fn main(words: &[&str]) -> anyhow::Result<ExitCode> {
    let Some((&what, words)) = words.split_first() else { bail!(USAGE) };
    let mut args = Args {
        seconds: 6.0,
        size: "1G".into(),
        snapshots: 100,
        subscribers: 100,
        peer: None,
        set: Vec::new(),
    };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let value = *words.next().with_context(|| format!("{word} needs a value"))?;
        match word {
            "--seconds" => args.seconds = value.parse().context("--seconds")?,
            "--size" => args.size = value.into(),
            "--snapshots" => args.snapshots = value.parse().context("--snapshots")?,
            "--subscribers" => args.subscribers = value.parse().context("--subscribers")?,
            "--peer" => args.peer = Some(value.into()),
            "--set" => {
                let (key, value) = value.split_once('=').context("--set wants KEY=VALUE")?;
                args.set.push((key.into(), value.into()));
            }
            _ => bail!("'{word}' is not an option of 'perf'\n{USAGE}"),
        }
    }
    ensure!(args.seconds >= 1.0, "--seconds must be at least 1");
    ensure!((1..=4000).contains(&args.subscribers), "--subscribers must be 1 to 4000");
    ensure!(what == "recovery" || args.peer.is_none(), "only 'recovery' has a peer");
    ensure!(what != "monitors" || args.set.is_empty(), "'monitors' takes no settings of OSDs");
    nacre_tests::tool::use_binary(crate::release::nacre()?);
    match what {
        "ageing" => ageing::run(&args),
        "recovery" => recovery::run(&args),
        "monitors" => monitors::run(&args),
        _ => bail!("there is no measurement '{what}'\n{USAGE}"),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// A figure that a program told in JSON.
fn number(told: &Value, pointer: &str) -> anyhow::Result<f64> {
    told.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("no number {pointer} in {told}"))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
