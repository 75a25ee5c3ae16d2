//! `cargo xtask thrash`: faults on a cluster of real processes under fio and an object workload.

use crate::release;
use anyhow::{Context as _, bail, ensure};
use nacre_tests::thrash::{self, Options};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

pub fn main(words: &[&str]) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let (mut minutes, mut seed, mut namespaces, mut osds) = (10.0, now % 1_000_000, false, 4);
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word {
            "--minutes" => minutes = value()?.parse().context("--minutes")?,
            "--seed" => seed = value()?.parse().context("--seed")?,
            "--osds" => osds = value()?.parse().context("--osds")?,
            "--netns" => namespaces = true,
            _ => bail!("'{word}' is not an option of 'thrash'"),
        }
    }
    ensure!((4..=32).contains(&osds), "--osds must be 4 to 32: one is taken away at a time");
    let binary = release::nacre()?;
    let folder = std::env::temp_dir().join(format!("nacre-thrash-{}", std::process::id()));
    let options = Options { binary, minutes, seed, namespaces, osds, folder: folder.clone() };
    thrash::catch_interrupts();
    match thrash::run(&options) {
        Ok(summary) => {
            std::fs::remove_dir_all(&folder)?;
            println!("thrash: {summary}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("{error:#}");
            println!("the cluster's files are in {}", folder.display());
            println!("thrash: seed {seed} FAILED");
            Ok(ExitCode::FAILURE)
        }
    }
}
