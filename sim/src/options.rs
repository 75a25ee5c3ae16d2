//! What a run is made of: drawn from the seed, then frozen. Each fault class and each kind of work is off in half of the
//! seeds or more, since a run with everything at once hides what a single fault would show.
//!
//! [`Options::sweep`] draws from everything there is. [`Options::draw`] is its first part, the classes there were at the
//! beginning, and [`Options::swarm`] its second: what was added later is drawn from a generator of its own, so that a seed's
//! earlier parts stay what they were.

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
    /// Writes to the data area of one OSD's disk are reported as done and go nowhere.
    pub lost: bool,
    /// Or they land beside the place they were meant for.
    pub misdirect: bool,
    /// Blocks of one OSD's disk cannot be read until they are written again.
    pub eio: bool,
    /// Disks get slow, and stand still for seconds.
    pub sluggish: bool,
    /// Disks are small and clients fill them.
    pub full: bool,
    /// Wall clocks jump, monotonic clocks drift.
    pub clock: bool,
    /// Links hold what is sent and deliver it later, in order; half of the daemons at once.
    pub clog: bool,
    /// Some pairs of nodes cannot talk, others can, so that some hear both sides.
    pub partial: bool,
    /// Connections do not come about.
    pub connect: bool,
    /// One end of a session notices its end at once, the other late.
    pub halfopen: bool,
    /// PGs are pinned to OSDs chosen by hand.
    pub upmap: bool,
    /// A pool's size and min_size are changed.
    pub resize: bool,
    /// Weights, buckets and primary affinity in the CRUSH map are changed.
    pub crush: bool,
    /// Monitors are added and removed.
    pub mons: bool,
    /// An OSD is lost for ever, marked so, and replaced under a new number while the old one stays in the map.
    pub gone: bool,
    /// Running OSDs are marked down, flags are set, ratios changed, scrubs ordered.
    pub orders: bool,
    /// Bursts of requests without a pause.
    pub overload: bool,
    /// The machines take the unusual turns they are allowed.
    pub buggify: bool,
    /// One OSD's disk reports flushes as done that made nothing durable, then may lose its power.
    pub lie: bool,
    /// Reads, writes or flushes of one OSD's disk fail for a while; the same succeeds later.
    pub transient: bool,
}

/// What clients do.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Work {
    /// Reads, writes, appends, conditional writes, removals.
    pub registers: bool,
    /// Operations of several parts on data, xattrs and omap at once.
    pub compound: bool,
    /// Snapshots of objects.
    pub snapshots: bool,
    /// Listings of the pool.
    pub listings: bool,
    /// Locks and what they fence off.
    pub locks: bool,
    /// Watching and notifying.
    pub watches: bool,
    /// Discards and zeroes in images.
    pub discards: bool,
}

impl Work {
    /// What there was at the beginning.
    pub const REGISTERS: Work = Work {
        registers: true,
        compound: false,
        snapshots: false,
        listings: false,
        locks: false,
        watches: false,
        discards: false,
    };
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
    /// Who lacks more changes than so many has no seat until it has them.
    pub lag_max: u64,
    pub plant: Plant,
    pub work: Work,
    /// Bytes of every OSD's disk.
    pub disk_bytes: u64,
}

impl Faults {
    /// Whether one OSD's disk spoils what it holds.
    pub fn spoils(&self) -> bool {
        self.rot || self.lost || self.misdirect || self.eio || self.lie
    }

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

    /// All of them by name, and whether they are on.
    pub fn named(mut self) -> Vec<(&'static str, bool)> {
        self.named_mut().into_iter().map(|(name, on)| (name, *on)).collect()
    }

    fn named_mut(&mut self) -> [(&'static str, &mut bool); 29] {
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
            ("lost", &mut self.lost),
            ("misdirect", &mut self.misdirect),
            ("eio", &mut self.eio),
            ("sluggish", &mut self.sluggish),
            ("full", &mut self.full),
            ("clock", &mut self.clock),
            ("clog", &mut self.clog),
            ("partial", &mut self.partial),
            ("connect", &mut self.connect),
            ("halfopen", &mut self.halfopen),
            ("upmap", &mut self.upmap),
            ("resize", &mut self.resize),
            ("crush", &mut self.crush),
            ("mons", &mut self.mons),
            ("gone", &mut self.gone),
            ("orders", &mut self.orders),
            ("overload", &mut self.overload),
            ("buggify", &mut self.buggify),
            ("lie", &mut self.lie),
            ("transient", &mut self.transient),
        ]
    }
}

impl Work {
    /// By name, as on the command line: `registers,locks`; `none` for nothing.
    pub fn parse(text: &str) -> Result<Work, String> {
        let mut work = Work { registers: false, ..Work::REGISTERS };
        for word in text.split(',').filter(|word| !matches!(*word, "" | "none")) {
            let all = work.named_mut();
            let Some((_, on)) = all.into_iter().find(|(name, _)| *name == word) else {
                return Err(format!("there is no work '{word}'"));
            };
            *on = true;
        }
        Ok(work)
    }

    /// All of it by name, and whether it is on.
    pub fn named(mut self) -> Vec<(&'static str, bool)> {
        self.named_mut().into_iter().map(|(name, on)| (name, *on)).collect()
    }

    fn named_mut(&mut self) -> [(&'static str, &mut bool); 7] {
        [
            ("registers", &mut self.registers),
            ("compound", &mut self.compound),
            ("snapshots", &mut self.snapshots),
            ("listings", &mut self.listings),
            ("locks", &mut self.locks),
            ("watches", &mut self.watches),
            ("discards", &mut self.discards),
        ]
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.named()))
    }
}

/// The names of those that are on.
fn joined(named: &[(&str, bool)]) -> String {
    let on: Vec<&str> = named.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    if on.is_empty() { "none".into() } else { on.join(",") }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.named()))
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
            ..Faults::default()
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
            lag_max: 16,
            plant: Plant::Nothing,
            work: Work::REGISTERS,
            disk_bytes: 64 << 20,
        }
    }

    /// What a sweep runs: [`Options::swarm`], and what was added since.
    pub fn sweep(seed: u64) -> Options {
        let swarm = Options::swarm(seed);
        let mut rng = Rng::new(seed ^ 0x0066_6c75_7368_6573);
        let faults = Faults { lie: rng.chance(1, 6), transient: rng.chance(1, 6), ..swarm.faults };
        let lag_max = *rng.pick(&[0, 2, 16]).expect("not empty");
        Options { faults, lag_max, ..swarm }.within_budget()
    }

    /// [`Options::draw`], and what was added first.
    pub fn swarm(seed: u64) -> Options {
        let drawn = Options::draw(seed);
        let mut rng = Rng::new(seed ^ 0x7377_6172_6d69_6e67);
        let mut maybe = |of: u64| rng.chance(1, of);
        let faults = Faults {
            lost: maybe(8),
            misdirect: maybe(8),
            eio: maybe(6),
            sluggish: maybe(4),
            full: maybe(8),
            clock: maybe(4),
            clog: maybe(4),
            partial: maybe(4),
            connect: maybe(4),
            halfopen: maybe(4),
            upmap: maybe(4),
            resize: maybe(6),
            crush: maybe(4),
            mons: maybe(6),
            gone: maybe(8),
            orders: maybe(4),
            overload: maybe(6),
            buggify: maybe(2),
            ..drawn.faults
        };
        let work = Work {
            registers: !maybe(6),
            compound: maybe(2),
            snapshots: maybe(3),
            listings: maybe(3),
            locks: maybe(3),
            watches: maybe(3),
            discards: maybe(2),
        };
        let clients = if maybe(8) { 8 } else { drawn.clients };
        Options { faults, work, clients, ..drawn }.within_budget()
    }

    /// The same, less what would break the fault budget: what spoils a copy needs a second acknowledged one, and a pool
    /// that loses whole disks does not also have a spoilt one.
    pub fn within_budget(mut self) -> Options {
        let spoils = self.faults.spoils();
        if spoils {
            self.faults.replace = false;
            self.faults.gone = false;
            self.min_size = self.min_size.max(2).min(self.size);
        }
        if self.faults.full {
            self.disk_bytes = 20 << 20;
        }
        self
    }

    /// Changes one of them by name: `faults=crash,power`, `work=registers`, `osds=3`, ...
    pub fn set(&mut self, setting: &str) -> Result<(), String> {
        let (key, value) = setting.split_once('=').ok_or(format!("'{setting}' is not KEY=VALUE"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("'{value}' is no value for {key}"));
        match key {
            "faults" => self.faults = Faults::parse(value)?,
            "work" => self.work = Work::parse(value)?,
            "images" => self.images = number()? != 0,
            "mons" => self.mons = (number()? as usize).clamp(1, 7),
            "size" => self.size = number()?.clamp(1, 10) as u32,
            "min_size" => self.min_size = number()?.clamp(1, self.size.into()) as u32,
            "osds" => self.osds = (number()? as usize).clamp(self.size as usize, 40),
            "clients" => self.clients = (number()? as usize).clamp(1, 40),
            "tasks" => self.tasks = number()? as usize,
            "objects" => self.objects = (number()? as usize).max(1),
            "unit" => self.unit = (number()? as usize / 8).max(1) * 8,
            "pg_num" => self.pg_num = number()?.max(1) as u32,
            "log_entries" => self.log_entries = number()? as usize,
            "lag_max" => self.lag_max = number()?,
            "safety" => self.safety = Duration::from_secs(number()?),
            "think" => self.think = Duration::from_millis(number()?.max(1)),
            "fault_interval" => self.fault_interval = Duration::from_millis(number()?.max(1)),
            "disk_us" => self.disk_latency_mean = Duration::from_micros(number()?),
            "network_us" => self.conditions.latency_mean = Duration::from_micros(number()?),
            "loss" => self.conditions.loss_permille = number()?,
            "reset" => self.conditions.reset_per_100k = number()?,
            "disk_mib" => self.disk_bytes = number()?.max(8) << 20,
            "encode" => self.encode_percent = number()?,
            _ => return Err(format!("there is no option '{key}'")),
        }
        Ok(())
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
            "{} mons, {} osds, {} clients x {} tasks ({}{}), pool {}/{} with {} pgs, {} objects by {} bytes, faults every {:?}: {}",
            self.mons,
            self.osds,
            self.clients,
            self.tasks,
            self.work,
            if self.images { ", images" } else { "" },
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
