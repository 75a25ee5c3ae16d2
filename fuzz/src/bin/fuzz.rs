//! libFuzzer's entry: the target is named by `NACRE_FUZZ_TARGET`. With `--list` it prints the targets, with `--seeds TARGET
//! FOLDER` it writes the target's valid inputs. Started by `cargo xtask fuzz`, which also instruments it.

#![no_main]

use nacre_fuzz::{TARGETS, Target};
use std::path::Path;
use std::sync::OnceLock;

fn chosen() -> &'static Target {
    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("NACRE_FUZZ_TARGET").expect("NACRE_FUZZ_TARGET names the target");
        Target::find(&name).unwrap_or_else(|| panic!("there is no fuzz target '{name}'"))
    })
}

fn write_seeds(target: &Target, folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (at, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{at:02}")), seed)?;
    }
    Ok(())
}

libfuzzer_sys::fuzz_target!(init: {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => {
            for target in TARGETS {
                println!("{} {}", target.name, target.input_bytes_max);
            }
            std::process::exit(0);
        }
        ["--seeds", name, folder] => {
            let target = Target::find(name).expect("a fuzz target");
            write_seeds(target, Path::new(folder)).expect("the seeds can be written");
            std::process::exit(0);
        }
        _ => {}
    }
}, |input: &[u8]| chosen().check(input));
