//! `cargo xtask sim --mutants`: every bug on purpose, and who catches it.

#[cfg(feature = "mutants")]
pub use suite::main;

/// Only a build with the feature has the bugs: makes one and runs that.
#[cfg(not(feature = "mutants"))]
pub fn main(words: &[&str]) -> anyhow::Result<std::process::ExitCode> {
    let status = std::process::Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--package", "nacre-xtask", "--features", "mutants", "--", "sim"])
        .args(words)
        .current_dir(crate::tidy::root())
        .status()?;
    Ok(if status.success() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE })
}

#[cfg(feature = "mutants")]
mod suite {
    use crate::sim::cpu_seconds;
    use anyhow::{Context as _, bail};
    use nacre_sim::Options;
    use nacre_sim::mutants::{Caught, control, is_certain, is_evidence, trial};
    use nacre_types::mutant::Mutant;
    use std::process::ExitCode;

    /// A bug that is not caught within so much computing is missed.
    const CPU_SECONDS_MAX: f64 = 600.0;

    struct Args {
        only: Vec<Mutant>,
        from: u64,
        seeds: u64,
        seconds: f64,
        trace: bool,
        table: bool,
        /// Runs the same seeds without the bug instead: none should fail.
        control: bool,
        settings: Vec<String>,
    }

    fn parse(words: &[&str]) -> anyhow::Result<Args> {
        let mut args = Args {
            only: Vec::new(),
            from: 1,
            seeds: u64::MAX,
            seconds: CPU_SECONDS_MAX,
            trace: false,
            table: false,
            control: false,
            settings: Vec::new(),
        };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().with_context(|| format!("{word} needs a value"));
            match word {
                "--mutants" => {}
                "--mutant" => {
                    let name = value()?;
                    args.only
                        .push(Mutant::parse(name).with_context(|| format!("no mutant is named '{name}'"))?);
                }
                "--from" => args.from = value()?.parse().context("--from")?,
                "--seeds" => args.seeds = value()?.parse().context("--seeds")?,
                "--minutes" => args.seconds = 60.0 * value()?.parse::<f64>().context("--minutes")?,
                "--set" => {
                    let setting = value()?.to_string();
                    Options::draw(0).set(&setting).map_err(anyhow::Error::msg)?;
                    args.settings.push(setting);
                }
                "--trace" => args.trace = true,
                "--control" => args.control = true,
                "--table" => args.table = true,
                _ => bail!("'{word}' does not go with '--mutants'"),
            }
        }
        if args.only.is_empty() {
            args.only = Mutant::ALL.to_vec();
        }
        Ok(args)
    }

    struct Verdict {
        caught: Option<(u64, Caught)>,
        seeds: u64,
        seconds: f64,
    }

    fn hunt(bug: Mutant, args: &Args) -> Verdict {
        let used = || Some(cpu_seconds()).filter(|seconds| seconds.is_finite()).unwrap_or_default();
        let began = used();
        let mut seeds = 0;
        for seed in args.from..args.from.saturating_add(args.seeds) {
            if seeds > 0 && (used() - began >= args.seconds || is_certain(bug)) {
                break;
            }
            seeds += 1;
            if args.control {
                if let Some(other) = control(bug, seed, &args.settings, args.trace).caught {
                    return Verdict { caught: Some((seed, other)), seeds, seconds: used() - began };
                }
                continue;
            }
            // What fails without the bug, too, is another bug's.
            if let Some(caught) = trial(bug, seed, &args.settings, args.trace).caught
                && is_evidence(bug, &caught)
                && control(bug, seed, &args.settings, false).caught.is_none()
            {
                return Verdict { caught: Some((seed, caught)), seeds, seconds: used() - began };
            }
        }
        Verdict { caught: None, seeds, seconds: used() - began }
    }

    pub fn main(words: &[&str]) -> anyhow::Result<ExitCode> {
        let args = parse(words)?;
        let (mut missed, mut total) = (0, 0.0);
        for &bug in &args.only {
            let verdict = hunt(bug, &args);
            total += verdict.seconds;
            let (name, seeds, seconds) = (bug.name(), verdict.seeds, verdict.seconds);
            match verdict.caught {
                None if args.control => println!("{name} without the bug: nothing in {seeds} seeds"),
                Some((seed, caught)) if args.control => {
                    let failure = caught.failure;
                    println!("{name} without the bug: seed {seed} fails after {seeds} seeds: {failure}");
                    missed += 1;
                }
                Some((seed, caught)) if args.table => {
                    let (checker, breaks) = (caught.checker, bug.breaks());
                    println!("| `{name}` | {breaks} | {seeds} | {seconds:.1} | {checker} (seed {seed}) |");
                }
                Some((seed, caught)) => {
                    let checker = caught.checker;
                    println!("{name} caught by {checker} after {seeds} seeds (seed {seed}, {seconds:.1} s)");
                    let failure: String = caught.failure.chars().take(240).collect();
                    eprintln!("    {failure}");
                }
                None => {
                    println!("{name} missed ({seeds} seeds, {seconds:.1} s)");
                    missed += 1;
                }
            }
        }
        if !args.table {
            println!("mutants: {} run, {missed} missed, {total:.0} s", args.only.len());
        }
        Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
