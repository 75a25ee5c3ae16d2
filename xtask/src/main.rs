//! Development chores: `cargo xtask sim` runs seeds, `cargo xtask tidy` checks what the compiler does not.

mod sim;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "\
usage:
  cargo xtask sim [--seeds N] [--from S] [--minutes M]   runs N seeds from S on, for at most M minutes
  cargo xtask sim --seed S [--trace | --hash]            runs one seed
  cargo xtask tidy                                       architecture and style rules";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.split_first() {
        Some((&"sim", rest)) => sim::main(rest),
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
