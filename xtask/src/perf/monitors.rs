//! What the monitors can do: changes of the map a second, and an epoch's way to many clients.

use super::meter::process_cpu;
use super::{Args, number};
use crate::release::build;
use anyhow::Context as _;
use nacre_tests::cluster::Cluster;
use nacre_tests::tool;
use serde_json::Value;
use std::process::Command;

pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = build("nacre-benches", "map_epochs")?;
    let cluster = Cluster::up(&["--mons", "3", "--osds", "3", "--size", "2G"])?;
    let mons: Vec<i32> =
        ["mon.a", "mon.b", "mon.c"].iter().map(|mon| cluster.pid(mon)).collect::<Result<_, _>>()?;
    println!("three monitors and three OSDs on one machine");
    for (subscribers, at_once) in [(0, 1), (0, 16), (args.subscribers, 1)] {
        let cpu = || mons.iter().map(|&pid| process_cpu(pid)).sum::<anyhow::Result<f64>>();
        let before = cpu()?;
        let out = tool::run(Command::new(&program).arg(cluster.dir().join("admin.nacre")).args([
            subscribers.to_string(),
            at_once.to_string(),
            args.seconds.to_string(),
        ]))?;
        let told: Value = serde_json::from_str(&out).with_context(|| out.clone())?;
        let number = |name: &str| number(&told, &format!("/{name}"));
        let used = cpu()? - before;
        print!(
            "{at_once:3} changes at once, {subscribers:4} subscribers: {:6.0} changes/s, {:6.0} epochs/s, answered p50 {:.1} ms p99 {:.1} ms, CPU of the monitors {:.2} ms an epoch",
            number("changes_per_second")?,
            number("epochs_per_second")?,
            number("answer_p50_us")? / 1e3,
            number("answer_p99_us")? / 1e3,
            used * 1e3 / number("epochs")?.max(1.0)
        );
        match subscribers {
            0 => println!(),
            _ => println!(
                "; the last subscriber has it p50 {:.1} ms p99 {:.1} ms after the order",
                number("all_p50_us")? / 1e3,
                number("all_p99_us")? / 1e3
            ),
        }
    }
    Ok(())
}
