//! `cargo xtask sim`: sweeps of seeds, and single ones to look at.

use anyhow::{Context as _, bail};
use nacre_sim::shrink::{self, attempt};
use nacre_sim::{Options, Outcome, run};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

struct Args {
    seeds: u64,
    from: u64,
    minutes: Option<f64>,
    seed: Option<u64>,
    trace: bool,
    hash: bool,
    shrink: bool,
    /// Prints how often each fault was injected and each place of interest reached.
    marks: bool,
    /// Without the newer fault classes and workloads.
    drawn: bool,
    /// `KEY=VALUE`, instead of what is drawn from the seed.
    settings: Vec<String>,
}

impl Args {
    fn options(&self, seed: u64) -> anyhow::Result<Options> {
        let mut options = if self.drawn { Options::draw(seed) } else { Options::sweep(seed) };
        for setting in &self.settings {
            options.set(setting).map_err(anyhow::Error::msg)?;
        }
        Ok(options.within_budget())
    }

    /// How to see a failed seed again.
    fn replay(&self, seed: u64) -> String {
        let settings: String = self.settings.iter().map(|setting| format!(" --set {setting}")).collect();
        let drawn = if self.drawn { " --drawn" } else { "" };
        format!("cargo xtask sim --seed {seed}{drawn}{settings} --trace")
    }
}

fn parse(words: &[&str]) -> anyhow::Result<Args> {
    let mut args = Args {
        seeds: 20,
        from: 1,
        minutes: None,
        seed: None,
        trace: false,
        hash: false,
        shrink: false,
        marks: false,
        drawn: false,
        settings: Vec::new(),
    };
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
            "--shrink" => args.shrink = true,
            "--marks" => args.marks = true,
            "--drawn" => args.drawn = true,
            "--set" => args.settings.push(value()?.to_string()),
            "--faults" => args.settings.push(format!("faults={}", value()?)),
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
        Some(seed) if args.shrink => shrink(seed, &args),
        Some(seed) => one(seed, &args),
        None => sweep(&args),
    }
}

fn one(seed: u64, args: &Args) -> anyhow::Result<ExitCode> {
    let options = args.options(seed)?;
    let outcome = run(options.clone(), args.trace);
    if args.hash {
        println!("{:016x}", outcome.hash);
    } else {
        println!("seed {seed}: {options}");
        report(&outcome, args);
        if args.marks {
            print_marks(&outcome.marks);
        }
    }
    Ok(if outcome.failure.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Takes away what a failing seed does not need to fail.
fn shrink(seed: u64, args: &Args) -> anyhow::Result<ExitCode> {
    let limit = Duration::from_secs_f64(60.0 * args.minutes.unwrap_or(5.0));
    let began = Instant::now();
    let shrunk = shrink::shrink(
        &args.options(seed)?,
        || began.elapsed() < limit,
        |setting, failure| println!("fails with {setting}: {}", first_line(failure)),
    );
    let Some(shrunk) = shrunk else {
        println!("seed {seed} does not fail");
        return Ok(ExitCode::FAILURE);
    };
    println!("seed {seed} still fails as: {}", shrunk.options);
    println!("it says: {}", first_line(&shrunk.failure));
    let settings = args.settings.iter().chain(&shrunk.settings).cloned().collect();
    let args = Args { settings, ..parse(&[])? };
    println!("replay: {}", args.replay(seed));
    println!("for sim/tests/seeds.txt: {seed} {}", args.settings.join(" "));
    Ok(ExitCode::SUCCESS)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn print_marks(marks: &BTreeMap<&'static str, u64>) {
    for (mark, count) in marks {
        println!("    {count:>9} {mark}");
    }
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

fn sweep(args: &Args) -> anyhow::Result<ExitCode> {
    let began = Instant::now();
    let limit = args.minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0));
    let (mut ran, mut failed, mut operations) = (0, Vec::new(), 0);
    let mut simulated = Duration::ZERO;
    // By mark: how often, and in how many runs.
    let mut marks: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
    for seed in args.from..args.from.saturating_add(args.seeds) {
        if limit.is_some_and(|limit| began.elapsed() >= limit) {
            break;
        }
        let options = args.options(seed)?;
        ran += 1;
        match attempt(options) {
            Ok(outcome) => {
                operations += outcome.operations;
                simulated += outcome.simulated;
                for (mark, count) in &outcome.marks {
                    let (times, runs) = marks.entry(mark).or_default();
                    *times += count;
                    *runs += 1;
                }
                if outcome.failure.is_some() {
                    report(&outcome, args);
                    failed.push(seed);
                }
            }
            Err(panic) => {
                println!("seed {seed} FAILED: a machine panicked: {panic}");
                println!("replay: {}", args.replay(seed));
                failed.push(seed);
            }
        }
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    for (mark, (times, runs)) in &marks {
        println!("    {times:>9} in {runs:>4} runs  {mark}");
    }
    if !failed.is_empty() {
        println!("failing seeds: {failed:?}");
    }
    let faults: u64 = marks.iter().filter(|(mark, _)| mark.starts_with("fault: ")).map(|(_, (n, _))| n).sum();
    println!(
        "sim: {ran} seeds, {} failed, {faults} faults, {operations} operations, {:.0} s simulated, {:.0} operations a minute, {:.0} a minute of CPU",
        failed.len(),
        simulated.as_secs_f64(),
        operations as f64 / minutes.max(1e-9),
        operations as f64 / (cpu_seconds() / 60.0).max(1e-9),
    );
    Ok(if failed.is_empty() && ran > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What this process has used, by `/proc/self/stat` in ticks of 10 ms; infinite where there is none.
pub fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum();
    if ticks == 0 { f64::INFINITY } else { ticks as f64 / 100.0 }
}
