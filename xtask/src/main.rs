//! Development chores: `cargo xtask sim` runs seeds, `cargo xtask tidy` checks what the compiler does not.

mod fuzz;
mod mutants;
mod perf;
mod plot;
mod release;
mod sim;
mod thrash;
mod tidy;

use std::process::ExitCode;

/// The simulator allocates all the time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
usage:
  cargo xtask sim [--seeds N] [--from S] [--minutes M]   runs N seeds from S on, for at most M minutes
  cargo xtask sim --seed S [--trace | --hash | --marks] [--set KEY=VALUE]...   runs one seed
  cargo xtask sim --seed S --shrink [--minutes M]        takes away what a failing seed does not need
  cargo xtask sim --mutants [--mutant NAME] [--table]    bugs on purpose, and who catches each
  cargo xtask fuzz [TARGET] [--seconds N] [--keep]       coverage-guided fuzzing of every decoder, N seconds in all
  cargo xtask thrash [--minutes M] [--seed S] [--netns]  faults on real processes under fio and an object workload
  cargo xtask perf ageing|recovery|monitors              what takes a cluster and minutes to measure
  cargo xtask plot FILE... [--out DIR]                   pictures and a table of what the side-by-side kit measured
  cargo xtask tidy                                       architecture and style rules";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.split_first() {
        Some((&"sim", rest)) => sim::main(rest),
        Some((&"fuzz", rest)) => fuzz::main(rest),
        Some((&"perf", rest)) => perf::main(rest),
        Some((&"plot", rest)) => plot::main(rest),
        Some((&"thrash", rest)) => thrash::main(rest),
        Some((&"tidy", [])) => tidy::main(),
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
