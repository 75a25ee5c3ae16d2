//! What the machine and processes have used since a moment.

use anyhow::Context as _;

/// CPU time of the whole machine, and bytes that some processes have given to disks.
pub struct Meter {
    pids: Vec<i32>,
    cpu_seconds: f64,
    written: u64,
}

impl Meter {
    pub fn start(pids: Vec<i32>) -> anyhow::Result<Meter> {
        let written = written(&pids)?;
        Ok(Meter { pids, cpu_seconds: machine_cpu()?, written })
    }

    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        Ok(machine_cpu()? - self.cpu_seconds)
    }

    pub fn bytes_written(&self) -> anyhow::Result<u64> {
        Ok(written(&self.pids)?.saturating_sub(self.written))
    }
}

/// User, nice, system, interrupts: what was not idle.
fn machine_cpu() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<f64> = line.split_whitespace().skip(1).map(|n| n.parse().unwrap_or_default()).collect();
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|&at| ticks.get(at)).sum::<f64>();
    Ok(busy / ticks_per_second())
}

/// CPU time of one process.
pub fn process_cpu(pid: i32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("/proc/PID/stat has no name")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<f64>().ok()).unwrap_or_default();
    Ok((ticks(11) + ticks(12)) / ticks_per_second())
}

/// Linux tells user programs of hundredths of seconds, whatever it counts in.
fn ticks_per_second() -> f64 {
    100.0
}

fn written(pids: &[i32]) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for pid in pids {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
        let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
        bytes += line.context("/proc/PID/io tells of no write_bytes")?.trim().parse::<u64>()?;
    }
    Ok(bytes)
}
