//! What a run is made of: drawn from the seed, then frozen. Each fault class is off in half of the seeds, since a run
//! with everything at once hides what a single fault would show.

use crate::network::Conditions;
use nacre_types::Rng;
use std::fmt;
use std::time::Duration;

/// Faults that happen to daemons and links during the safety phase.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Faults {
    /// Processes die and come back.
    pub crash: bool,
    /// Crashes take along what no flush had covered.
    pub power: bool,
    /// Links are cut, in both directions or one.
    pub partition: bool,
    /// Processes are not scheduled for a while.
    pub pause: bool,
    /// Links get slow.
    pub slow: bool,
    /// Everything dies in one instant.
    pub blackout: bool,
    /// OSDs are marked out and in.
    pub reweight: bool,
    /// An OSD's disk is replaced by an empty one under a new identity.
    pub replace: bool,
    /// Bits rot on one OSD's disk.
    pub rot: bool,
}

/// A defect put in on purpose, to see that the checks find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Plant {
    #[default]
    Nothing,
    /// Disks report a flush as done that never happened.
    LyingFlush,
    /// Now and then a read is answered as one of the same object was before.
    StaleRead,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    pub seed: u64,
    pub mons: usize,
    pub osds: usize,
    pub clients: usize,
    pub size: u32,
    pub min_size: u32,
    pub pg_num: u32,
    /// Objects the workload works on, in total.
    pub objects: usize,
    /// Bytes that one write of the workload adds: a multiple of eight.
    pub unit: usize,
    /// Tasks per client.
    pub tasks: usize,
    /// Whether each client also uses a block image.
    pub images: bool,
    /// Mean pause between a task's operations.
    pub think: Duration,
    /// Length of the safety phase.
    pub safety: Duration,
    /// Within this, everything must be healthy again after healing.
    pub liveness: Duration,
    pub conditions: Conditions,
    /// Mean time between faults.
    pub fault_interval: Duration,
    pub faults: Faults,
    pub disk_latency_mean: Duration,
    /// Packets of a hundred that go through their encoding.
    pub encode_percent: u64,
    /// Entries an OSD keeps of a clean PG's log: few make it backfill.
    pub log_entries: usize,
    pub plant: Plant,
}

impl Faults {
    /// By name, as on the command line: `crash,power`; `none` for nothing.
    pub fn parse(text: &str) -> Result<Faults, String> {
        let mut faults = Faults::default();
        for word in text.split(',').filter(|word| !matches!(*word, "" | "none")) {
            let all = faults.named_mut();
            let Some((_, on)) = all.into_iter().find(|(name, _)| *name == word) else {
                return Err(format!("there is no fault '{word}'"));
            };
            *on = true;
        }
        Ok(faults)
    }

    fn named_mut(&mut self) -> [(&'static str, &mut bool); 9] {
        [
            ("crash", &mut self.crash),
            ("power", &mut self.power),
            ("partition", &mut self.partition),
            ("pause", &mut self.pause),
            ("slow", &mut self.slow),
            ("blackout", &mut self.blackout),
            ("reweight", &mut self.reweight),
            ("replace", &mut self.replace),
            ("rot", &mut self.rot),
        ]
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut copy = *self;
        let on: Vec<&str> =
            copy.named_mut().into_iter().filter(|(_, on)| **on).map(|(name, _)| name).collect();
        let joined = on.join(",");
        f.write_str(if on.is_empty() { "none" } else { &joined })
    }
}

impl Options {
    pub fn draw(seed: u64) -> Options {
        let mut rng = Rng::new(seed ^ 0x6f70_7469_6f6e_7321);
        let mut maybe = |of: u64| rng.chance(1, of);
        let faults = Faults {
            crash: maybe(2),
            power: maybe(2),
            partition: maybe(2),
            pause: maybe(3),
            slow: maybe(3),
            blackout: maybe(4),
            reweight: maybe(4),
            replace: maybe(6),
            rot: maybe(6),
        };
        let faults = Faults { rot: faults.rot && !faults.replace, ..faults };
        let size = *rng.pick(&[2, 3, 3, 3]).expect("not empty");
        let osds = rng.range(u64::from(size), 7) as usize;
        let micros = |n| Duration::from_micros(n);
        Options {
            seed,
            mons: *rng.pick(&[1, 3, 3, 3]).expect("not empty"),
            osds,
            clients: rng.range(1, 4) as usize,
            size,
            min_size: if size == 3 {
                rng.range(1, 3) as u32 + u32::from(rng.chance(1, 2))
            } else {
                rng.range(1, 3) as u32
            }
            // With a single copy acknowledged, rot on it would take the last good one.
            .clamp(1 + u32::from(faults.rot), size),
            pg_num: *rng.pick(&[1, 4, 8]).expect("not empty"),
            objects: rng.range(3, 24) as usize,
            unit: *rng.pick(&[8, 8, 520, 4096, 20_480]).expect("not empty"),
            tasks: rng.range(1, 6) as usize,
            images: rng.chance(1, 3),
            think: Duration::from_millis(rng.range(1, 60)),
            safety: Duration::from_secs(60),
            liveness: Duration::from_secs(180),
            conditions: Conditions {
                latency_min: micros(rng.range(50, 1000)),
                latency_mean: micros(rng.range(50, 5000)),
                loss_permille: if rng.chance(1, 2) { 0 } else { rng.range(0, 50) },
                reset_per_100k: if rng.chance(1, 2) { 0 } else { rng.range(0, 50) },
            },
            fault_interval: Duration::from_millis(rng.range(1500, 12_000)),
            faults,
            disk_latency_mean: micros(rng.range(50, 3000)),
            encode_percent: if rng.chance(1, 2) { 0 } else { 20 },
            log_entries: *rng.pick(&[12, 100, 1000]).expect("not empty"),
            plant: Plant::Nothing,
        }
    }

    /// What remains of the network once it is healed.
    pub fn calm(&self) -> Conditions {
        Conditions { loss_permille: 0, reset_per_100k: 0, ..self.conditions }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} mons, {} osds, {} clients x {} tasks{}, pool {}/{} with {} pgs, {} objects by {} bytes, faults every {:?}: {}",
            self.mons,
            self.osds,
            self.clients,
            self.tasks,
            if self.images { " and an image" } else { "" },
            self.size,
            self.min_size,
            self.pg_num,
            self.objects,
            self.unit,
            self.fault_interval,
            self.faults
        )
    }
}
