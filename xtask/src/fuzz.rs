//! `cargo xtask fuzz`: libFuzzer over every target of `fuzz/`, with coverage on the stable compiler.
//!
//! The instrumentation is LLVM's, asked for by code generation flags; libFuzzer is built from `libfuzzer-sys`. Inputs found on
//! earlier runs of this machine lie in the target directory and are where the next run goes on; `--keep` merges those that add
//! coverage into `fuzz/corpus`, which every test run replays.

use crate::tidy;
use anyhow::{Context as _, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What a compiler adds for libFuzzer: counters and their places, and what is compared with what.
const INSTRUMENT: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Two processes at a time: the reference machine has two cores.
const AT_A_TIME: usize = 2;
/// One input that takes longer is a finding.
const INPUT_SECONDS_MAX: u32 = 5;
const MEMORY_MIB_MAX: u32 = 1024;
/// What the repository keeps of one target.
const KEPT_BYTES_MAX: u64 = 8 << 10;
const KEPT_INPUTS_MAX: usize = 40;
const KEPT_INPUT_BYTES_MAX: u64 = 2 << 10;

struct Args<'a> {
    target: Option<&'a str>,
    /// In all, if every target runs; else of the one.
    seconds: f64,
    keep: bool,
    seed: u32,
}

fn parse<'a>(words: &[&'a str]) -> anyhow::Result<Args<'a>> {
    let mut args = Args { target: None, seconds: 60.0, keep: false, seed: 0 };
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word {
            "--seconds" => args.seconds = value()?.parse().context("--seconds")?,
            "--seed" => args.seed = value()?.parse().context("--seed")?,
            "--keep" => args.keep = true,
            name if !name.starts_with('-') && args.target.is_none() => args.target = Some(name),
            _ => bail!("'{word}' is not an option of 'fuzz'"),
        }
    }
    ensure!(args.seconds > 0.0, "--seconds must be more than zero");
    Ok(args)
}

/// Where things lie.
struct Fuzzer {
    binary: PathBuf,
    /// Inputs of this machine's earlier runs, and those that failed.
    work: PathBuf,
    kept: PathBuf,
}

pub fn main(words: &[&str]) -> anyhow::Result<ExitCode> {
    let args = parse(words)?;
    let fuzzer = build()?;
    let listed = Command::new(&fuzzer.binary).arg("--list").stderr(Stdio::null()).output()?;
    let listed = String::from_utf8(listed.stdout)?;
    let mut targets: Vec<(String, String)> = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| args.target.is_none_or(|only| only == *name))
        .map(|(name, bytes)| (name.to_string(), bytes.to_string()))
        .collect();
    ensure!(!targets.is_empty(), "there is no such target; there are:\n{listed}");
    targets.reverse();
    let each = match args.target {
        Some(_) => args.seconds,
        None => args.seconds * AT_A_TIME as f64 / targets.len() as f64,
    };
    let began = Instant::now();
    let (mut running, mut ran, mut failed, mut inputs) = (Vec::<Run>::new(), 0, Vec::new(), 0_u64);
    while !targets.is_empty() || !running.is_empty() {
        while running.len() < AT_A_TIME
            && let Some((name, bytes)) = targets.pop()
        {
            running.push(fuzzer.start(&name, &bytes, each, args.seed)?);
        }
        std::thread::sleep(Duration::from_millis(50));
        let mut at = 0;
        while at < running.len() {
            if running[at].child.try_wait()?.is_none() {
                at += 1;
                continue;
            }
            let outcome = running.swap_remove(at).end()?;
            println!("{}", outcome.line);
            ran += 1;
            inputs += outcome.inputs;
            if outcome.failed {
                failed.push(outcome.name);
            } else if args.keep {
                fuzzer.keep(&outcome.name)?;
            }
        }
    }
    println!(
        "fuzz: {ran} targets, {} failed, {inputs} inputs, {:.0} s{}",
        failed.len(),
        began.elapsed().as_secs_f64(),
        if failed.is_empty() { String::new() } else { format!(": {}", failed.join(", ")) }
    );
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn build() -> anyhow::Result<Fuzzer> {
    let root = tidy::root();
    // Named, so that build scripts and macros are built without the instrumentation.
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    // The environment's flags replace those of `.cargo/config.toml`.
    let machine = if cfg!(target_arch = "x86_64") {
        "-Ctarget-cpu=x86-64-v2 -Ctarget-feature=+pclmulqdq,+aes "
    } else {
        ""
    };
    let flags = format!("{machine}{INSTRUMENT}");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or(root.join("target"), PathBuf::from).join("fuzz");
    let status = Command::new(env!("CARGO"))
        .args([
            "build",
            "--quiet",
            "--package",
            "nacre-fuzz",
            "--bin",
            "nacre-fuzz",
            "--features",
            "libfuzzer",
        ])
        .args(["--profile", "fuzz", "--target", &triple])
        .env("CARGO_TARGET_DIR", &target)
        .env("RUSTFLAGS", flags)
        .current_dir(&root)
        .status()?;
    ensure!(status.success(), "the fuzzer does not build");
    Ok(Fuzzer {
        binary: target.join(&triple).join("fuzz").join("nacre-fuzz"),
        work: target.join("inputs"),
        kept: root.join("fuzz").join("corpus"),
    })
}

struct Run {
    name: String,
    child: Child,
    log: PathBuf,
    artifacts: PathBuf,
    began: Instant,
}

struct Outcome {
    name: String,
    failed: bool,
    inputs: u64,
    line: String,
}

impl Fuzzer {
    fn folders(&self, name: &str) -> anyhow::Result<(PathBuf, PathBuf, PathBuf)> {
        let (found, seeds) = (self.work.join(name), self.work.join(format!("{name}.seeds")));
        let artifacts = self.work.join(format!("{name}.failed"));
        for folder in [&found, &seeds, &artifacts] {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok((found, seeds, artifacts))
    }

    fn start(&self, name: &str, bytes_max: &str, seconds: f64, seed: u32) -> anyhow::Result<Run> {
        let (found, seeds, artifacts) = self.folders(name)?;
        let written =
            Command::new(&self.binary).arg("--seeds").arg(name).arg(&seeds).stderr(Stdio::null()).status()?;
        ensure!(written.success(), "{name}: the seeds cannot be written");
        let log = self.work.join(format!("{name}.log"));
        let file = std::fs::File::create(&log)?;
        let mut command = Command::new(&self.binary);
        command
            .env("NACRE_FUZZ_TARGET", name)
            .arg(format!("-max_total_time={}", seconds.ceil()))
            .arg(format!("-max_len={bytes_max}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg(format!("-seed={seed}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-print_final_stats=1", "-use_value_profile=1"])
            .args([&found, &seeds]);
        let kept = self.kept.join(name);
        if kept.is_dir() {
            command.arg(kept);
        }
        let child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(Run { name: name.to_string(), child, log, artifacts, began: Instant::now() })
    }

    /// Merges the inputs that add coverage into the repository's corpus, the small ones only.
    fn keep(&self, name: &str) -> anyhow::Result<()> {
        let (found, seeds, _) = self.folders(name)?;
        let kept = self.kept.join(name);
        let small = self.work.join(format!("{name}.small"));
        let merged = self.work.join(format!("{name}.merged"));
        for folder in [&small, &merged] {
            let _ = std::fs::remove_dir_all(folder);
            std::fs::create_dir_all(folder)?;
        }
        for entry in std::fs::read_dir(&found)? {
            let path = entry?.path();
            let fits = path.metadata()?.len() <= KEPT_INPUT_BYTES_MAX;
            // Not even a key that opens nothing belongs into a repository.
            if fits && !std::fs::read(&path)?.windows(11).any(|window| window == b"PRIVATE KEY") {
                std::fs::copy(&path, small.join(path.file_name().unwrap_or_default()))?;
            }
        }
        std::fs::create_dir_all(&kept)?;
        let status = Command::new(&self.binary)
            .env("NACRE_FUZZ_TARGET", name)
            .args(["-merge=1", "-max_len=2048"])
            .args([&merged, &seeds, &kept, &small])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        ensure!(status.success(), "{name}: the corpus cannot be merged");
        let mut total = size_of_folder(&kept)?;
        let mut count = std::fs::read_dir(&kept)?.count();
        for entry in std::fs::read_dir(&merged)? {
            let path = entry?.path();
            let (name, bytes) = (path.file_name().unwrap_or_default().to_os_string(), path.metadata()?.len());
            // Seeds are made by the code: they need not be kept.
            let new = small.join(&name).exists() && !kept.join(&name).exists();
            if new && count < KEPT_INPUTS_MAX && total + bytes <= KEPT_BYTES_MAX {
                std::fs::copy(&path, kept.join(&name))?;
                (total, count) = (total + bytes, count + 1);
            }
        }
        Ok(())
    }
}

fn size_of_folder(folder: &Path) -> anyhow::Result<u64> {
    std::fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}

impl Run {
    fn end(mut self) -> anyhow::Result<Outcome> {
        let status = self.child.wait()?;
        let log = std::fs::read(&self.log)?;
        let log = String::from_utf8_lossy(&log);
        let number = |key: &str| {
            let line = log.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let inputs = number("stat::number_of_executed_units:");
        let covered = log.lines().rev().find_map(|line| {
            line.split_once(" cov: ").and_then(|(_, rest)| rest.split(' ').next()).map(str::to_string)
        });
        let covered = covered.unwrap_or_else(|| "?".into());
        let (name, seconds) = (self.name, self.began.elapsed().as_secs_f64());
        let failed = !status.success();
        let line = if failed {
            let said: Vec<&str> = log
                .lines()
                .filter(|line| {
                    !line.starts_with('#') && !line.starts_with("INFO") && !line.starts_with("    #")
                })
                .collect();
            let shown = said[said.len().saturating_sub(24)..].join("\n    ");
            format!(
                "    {shown}\n{name} FAILED after {inputs} inputs; the input is in {}",
                self.artifacts.display()
            )
        } else {
            format!("{name:<20} ok, {inputs} inputs, {covered} places, {seconds:.0} s")
        };
        Ok(Outcome { name, failed, inputs, line })
    }
}
