//! `cargo xtask sim`: sweeps of seeds, and single ones to look at.

use anyhow::{Context as _, bail};
use nacre_sim::options::Faults;
use nacre_sim::{Options, Outcome, run};
use std::process::ExitCode;
use std::time::{Duration, Instant};

struct Args {
    seeds: u64,
    from: u64,
    minutes: Option<f64>,
    seed: Option<u64>,
    trace: bool,
    hash: bool,
    /// Instead of those drawn from the seed.
    faults: Option<Faults>,
}

impl Args {
    fn options(&self, seed: u64) -> Options {
        let mut options = Options::draw(seed);
        options.faults = self.faults.unwrap_or(options.faults);
        options
    }

    /// How to see a failed seed again.
    fn replay(&self, seed: u64) -> String {
        let faults = self.faults.map(|faults| format!(" --faults {faults}")).unwrap_or_default();
        format!("cargo xtask sim --seed {seed}{faults} --trace")
    }
}

fn parse(words: &[&str]) -> anyhow::Result<Args> {
    let mut args =
        Args { seeds: 20, from: 1, minutes: None, seed: None, trace: false, hash: false, faults: None };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word {
            "--seeds" => args.seeds = value()?.parse().context("--seeds")?,
            "--from" => args.from = value()?.parse().context("--from")?,
            "--minutes" => args.minutes = Some(value()?.parse().context("--minutes")?),
            "--seed" => args.seed = Some(value()?.parse().context("--seed")?),
            "--trace" => args.trace = true,
            "--hash" => args.hash = true,
            "--faults" => args.faults = Some(Faults::parse(value()?).map_err(anyhow::Error::msg)?),
            _ => bail!("'{word}' is not an option of 'sim'"),
        }
    }
    Ok(args)
}

pub fn main(words: &[&str]) -> anyhow::Result<ExitCode> {
    if words.iter().any(|word| word.starts_with("--mutant")) {
        return crate::mutants::main(words);
    }
    let args = parse(words)?;
    match args.seed {
        Some(seed) => Ok(one(seed, &args)),
        None => Ok(sweep(&args)),
    }
}

fn one(seed: u64, args: &Args) -> ExitCode {
    let outcome = run(args.options(seed), args.trace);
    if args.hash {
        println!("{:016x}", outcome.hash);
    } else {
        println!("seed {seed}: {}", args.options(seed));
        report(&outcome, args);
    }
    if outcome.failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn report(outcome: &Outcome, args: &Args) {
    println!(
        "seed {}: {} operations, {} events, {:.0} s simulated, hash {:016x}",
        outcome.seed,
        outcome.operations,
        outcome.events,
        outcome.simulated.as_secs_f64(),
        outcome.hash
    );
    if let Some(failure) = &outcome.failure {
        for line in &outcome.recent {
            println!("    {line}");
        }
        println!("seed {} FAILED: {failure}", outcome.seed);
        println!("replay: {}", args.replay(outcome.seed));
    }
}

fn sweep(args: &Args) -> ExitCode {
    let began = Instant::now();
    let limit = args.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let (mut ran, mut failed, mut operations) = (0, Vec::new(), 0);
    let mut simulated = Duration::ZERO;
    for seed in args.from..args.from.saturating_add(args.seeds) {
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            break;
        }
        let result = std::panic::catch_unwind(|| run(args.options(seed), false));
        ran += 1;
        match result {
            Ok(outcome) => {
                operations += outcome.operations;
                simulated += outcome.simulated;
                if outcome.failure.is_some() {
                    report(&outcome, args);
                    failed.push(seed);
                }
            }
            Err(_) => {
                println!("seed {seed} FAILED: a machine panicked (above)");
                println!("replay: {}", args.replay(seed));
                failed.push(seed);
            }
        }
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    if !failed.is_empty() {
        println!("failing seeds: {failed:?}");
    }
    println!(
        "sim: {ran} seeds, {} failed, {operations} operations, {:.0} s simulated, {:.0} operations a minute, {:.0} a minute of CPU",
        failed.len(),
        simulated.as_secs_f64(),
        operations as f64 / minutes.max(1e-9),
        operations as f64 / (cpu_seconds() / 60.0).max(1e-9),
    );
    if failed.is_empty() && ran > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What this process has used, by `/proc/self/stat` in ticks of 10 ms; infinite where there is none.
pub fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    if ticks == 0 { f64::INFINITY } else { ticks as f64 / 100.0 }
}
