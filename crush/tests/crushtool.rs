//! Compares every answer with Ceph's `crushtool`, byte for byte, on random maps. Skipped, and said so, where the
//! tool is not installed; `tests/vectors.rs` keeps a part of its answers for those places.

#![allow(clippy::disallowed_methods, reason = "it runs another program, as many times as asked for")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use nacre_crush::CrushMap;
use nacre_types::Rng;
use support::{question, random_map};

fn crushtool_is_there() -> bool {
    let there = Command::new("crushtool").arg("--version").output().is_ok();
    if !there {
        eprintln!("skipped: crushtool (Debian package ceph-base) is not installed");
    }
    there
}

fn crushtool<'a>(args: impl IntoIterator<Item = &'a str>) -> String {
    let args: Vec<&str> = args.into_iter().collect();
    let output = Command::new("crushtool").args(&args).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "crushtool {args:?}: {stderr}");
    // Mappings and decompiled text go to stdout, except that old versions print mappings to stderr.
    String::from_utf8(output.stdout).unwrap() + &stderr
}

/// A file the test owns.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> File {
        File(std::env::temp_dir().join(format!("nacre-crush-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn compile(text: &str, seed: u64) -> File {
    let (source, binary) = (File::new(&format!("{seed}.txt")), File::new(&format!("{seed}.bin")));
    std::fs::write(&source.0, text).unwrap();
    crushtool(["-c", source.path(), "--enable-unsafe-tunables", "-o", binary.path()]);
    binary
}

fn mappings(binary: &File, args: &[String]) -> String {
    let args =
        ["-i", binary.path(), "--enable-unsafe-tunables"].into_iter().chain(args.iter().map(String::as_str));
    let all = crushtool(args);
    all.lines().filter(|line| line.starts_with("CRUSH")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn answers_are_those_of_crushtool() {
    if !crushtool_is_there() {
        return;
    }
    let maps = std::env::var("NACRE_CRUSH_MAPS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    for seed in 0..maps {
        let mut rng = Rng::new(seed);
        let (source, osds, rules) = random_map(&mut rng);
        let map = CrushMap::parse(&source).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{source}"));
        let text = map.to_text();
        assert_eq!(CrushMap::parse(&text).as_ref(), Ok(&map), "seed {seed}");
        let binary = compile(&text, seed);
        for _ in 0..4 {
            let question = question(&mut rng, osds, rules, 200);
            let args = question.args();
            let (ours, theirs) = (question.answer(&map), mappings(&binary, &args));
            if let Some((a, b)) = ours.lines().zip(theirs.lines()).find(|(a, b)| a != b) {
                panic!("{text}\nseed {seed}, {}\nours   {a}\ntheirs {b}", args.join(" "));
            }
            assert_eq!(ours.len(), theirs.len(), "seed {seed}, {}\n{text}", args.join(" "));
        }
    }
}

#[test]
fn shadows_are_numbered_as_crushtool_numbers_them() {
    if !crushtool_is_there() {
        return;
    }
    for seed in 1_000..1_030 {
        let mut rng = Rng::new(seed);
        let (source, ..) = random_map(&mut rng);
        let binary = compile(&source, seed);
        let theirs = crushtool(["-d", binary.path()]);
        let map = CrushMap::parse(&source).unwrap();
        let read = CrushMap::parse(&theirs).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{theirs}"));
        for bucket in map.buckets() {
            assert_eq!(
                Some(&bucket.shadows),
                read.bucket(bucket.id).map(|b| &b.shadows),
                "seed {seed}\n{theirs}"
            );
        }
        // What it prints of what we print reads back as what it printed: the two forms are one.
        let again = compile(&read.to_text(), seed);
        let again = crushtool(["-d", again.path()]);
        // Except for sums in remarks, because it cuts weights to three decimals.
        let lines = |text: &str| -> Vec<String> {
            text.lines().filter(|line| !line.starts_with("\t# weight")).map(String::from).collect()
        };
        assert_eq!(lines(&again), lines(&theirs), "seed {seed}");
    }
}

/// Writes `tests/vectors/` anew: `cargo test -p nacre-crush --test crushtool -- --ignored`.
#[test]
#[ignore = "writes tests/vectors"]
fn record_vectors() {
    assert!(crushtool_is_there());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    for seed in 100..116 {
        let mut rng = Rng::new(seed);
        let (source, osds, rules) = random_map(&mut rng);
        let mut text = CrushMap::parse(&source).unwrap().to_text();
        let binary = compile(&text, seed);
        for _ in 0..3 {
            let args = question(&mut rng, osds, rules, 24).args();
            text += &format!("---- {}\n{}", args.join(" "), mappings(&binary, &args));
        }
        std::fs::write(folder.join(format!("{seed}.txt")), text).unwrap();
    }
}
