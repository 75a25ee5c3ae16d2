//! A whole run: cluster, work, faults, healing, judgement.

use super::fault::{Fault, linger};
use super::node::Nodes;
use super::objects::{self, Objects, Tool};
use super::{Random, check_interrupted};
use crate::tool::{installed, run as run_tool};
use crate::writer::{self, Writer};
use anyhow::{Context as _, bail, ensure};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub struct Options {
    pub binary: PathBuf,
    pub minutes: f64,
    pub seed: u64,
    /// Network namespaces and partitions; needs root.
    pub namespaces: bool,
    pub osds: u64,
    /// Where the cluster is made; it stays there after a failure.
    pub folder: PathBuf,
}

/// From the last heal to clean.
const CLEAN_LIMIT: Duration = Duration::from_secs(120);
const SCRUB_LIMIT: Duration = Duration::from_secs(240);
const BLOCKS: u64 = 2048;
const POOL: &str = "rbd";

/// Prints what is done and when; returns the summary.
pub fn run(options: &Options) -> anyhow::Result<String> {
    ensure!(installed("fio"), "the package fio is needed");
    let thrash = Thrash { began: Instant::now() };
    thrash.say(&format!(
        "seed {}, {} minutes, in {}",
        options.seed,
        options.minutes,
        options.folder.display()
    ));
    std::fs::create_dir_all(&options.folder)?;
    let mut nodes = Nodes::create(&options.binary, &options.folder, options.namespaces, 3, options.osds)?;
    let result = thrash.work(options, &mut nodes);
    if let Err(error) = &result
        && error.to_string() != "interrupted"
    {
        for name in nodes.mons.iter().chain(&nodes.osds).map(String::as_str).chain(["nbd"]) {
            eprintln!("---- the end of {}\n{}", nodes.log_path(name).display(), nodes.tail(name));
        }
    }
    result
}

struct Thrash {
    began: Instant,
}

impl Thrash {
    fn say(&self, what: &str) {
        println!("{:7.1} {what}", self.began.elapsed().as_secs_f64());
    }

    fn work(&self, options: &Options, nodes: &mut Nodes) -> anyhow::Result<String> {
        let folder = &options.folder;
        nodes.admin(&["pool", "create", POOL])?;
        nodes.admin(&["image", "create", "rbd/fio", "--size", "64M"])?;
        nodes.admin(&["image", "create", "rbd/blocks", "--size", "64M"])?;
        nodes.wait_clean(CLEAN_LIMIT).context("a new cluster")?;
        let socket = folder.join("nbd.sock");
        nodes.serve_nbd(&socket)?;
        self.say(&format!("{} monitors, {} OSDs, clean", nodes.mons.len(), nodes.osds.len()));

        let mut fio = Fio::start(folder, &socket)?;
        let writer = Writer::start(socket.clone(), "rbd/blocks", BLOCKS, 2, None);
        let tool = tool(nodes);
        let objects = Objects::start(tool.clone(), folder, POOL, 2, options.seed);
        let operations = objects.operations.clone();
        let mut faults = 0;
        let thrashed = self.thrash(options, nodes, &mut fio, &mut faults);
        // Healed whatever happened, so that the workers end.
        let writes = writer.writes();
        let operations = operations.load(Ordering::Relaxed);
        if thrashed.is_err() {
            heal(nodes)?;
        }
        let known = writer.stop();
        let told = objects.stop();
        let fio = fio.stop(folder);
        thrashed?;
        let rounds = fio?;
        ensure!(known.errors.is_empty(), "block writer: {:?}", known.errors);
        ensure!(told.errors.is_empty(), "{:?}", told.errors);
        self.say(&format!(
            "healed: {faults} faults, {writes} block writes, {operations} object operations, {rounds}"
        ));

        nodes.wait_clean(CLEAN_LIMIT).context("at the end")?;
        self.say("clean");
        writer::verify(&socket, "rbd/blocks", &known)?;
        let checked = objects::verify(&tool, folder, POOL, &told)?;
        self.say(&format!("{BLOCKS} blocks and {checked} objects are what was acknowledged"));
        self.scrub(nodes)?;
        nodes.kill("nbd")?;
        for daemon in nodes.osds.clone().iter().chain(&nodes.mons.clone()) {
            nodes.stop(daemon)?;
        }
        for osd in nodes.osds.clone() {
            let mut fsck = Command::new(&options.binary);
            run_tool(fsck.args(["osd", "fsck", "--deep"]).arg(folder.join(&osd)))
                .with_context(|| format!("fsck of {osd}"))?;
        }
        self.say("every store passes fsck");
        nodes.check_logs()?;
        Ok(format!(
            "seed {}: {faults} faults, {writes} block writes (longest wait {:.1} s), {operations} object operations (longest \
             {:.1} s), {rounds}, no error, {:.0} s",
            options.seed,
            known.stall_max.as_secs_f64(),
            told.stall_max.as_secs_f64(),
            self.began.elapsed().as_secs_f64()
        ))
    }

    fn thrash(
        &self,
        options: &Options,
        nodes: &mut Nodes,
        fio: &mut Fio,
        faults: &mut u32,
    ) -> anyhow::Result<()> {
        let mut random = Random::new(options.seed);
        let end = Instant::now() + Duration::from_secs_f64(options.minutes * 60.0);
        linger(nodes, Duration::from_secs(1))?;
        while Instant::now() < end {
            let fault = Fault::draw(&mut random, nodes);
            let lasts = Fault::duration(&mut random);
            self.say(&format!("{fault} for {:.1} s", lasts.as_secs_f64()));
            fault.begin(nodes)?;
            *faults += 1;
            let lingered = linger(nodes, lasts);
            fault.end(nodes)?;
            lingered?;
            let healed = Instant::now();
            nodes.wait_clean(CLEAN_LIMIT).with_context(|| format!("after: {fault}"))?;
            self.say(&format!("    clean after {:.1} s", healed.elapsed().as_secs_f64()));
            fio.check()?;
            linger(nodes, Duration::from_millis(random.range(0, 1500)))?;
        }
        Ok(())
    }

    /// A deep scrub of every PG, waited for: nobody may find anything.
    fn scrub(&self, nodes: &Nodes) -> anyhow::Result<()> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
        let pgs = nodes.pgs()?;
        for pg in &pgs {
            nodes.admin(&["pg", "deep-scrub", pg["pgid"].as_str().context("a PG without an id")?])?;
        }
        nodes.wait("the deep scrubs", SCRUB_LIMIT, |nodes| {
            Ok(nodes.pgs()?.iter().all(|pg| pg["last_deep_scrub_ms"].as_u64().is_some_and(|at| at >= since)))
        })?;
        let bad: Vec<String> = nodes
            .pgs()?
            .iter()
            .filter(|pg| pg["state"].as_str().is_none_or(|state| state.contains("inconsistent")))
            .map(ToString::to_string)
            .collect();
        ensure!(bad.is_empty(), "scrub found damage: {bad:?}");
        self.say(&format!("{} PGs deep-scrubbed, nothing found", pgs.len()));
        Ok(())
    }
}

fn heal(nodes: &mut Nodes) -> anyhow::Result<()> {
    nodes.net.heal()?;
    for daemon in nodes.mons.clone().iter().chain(&nodes.osds.clone()) {
        if nodes.is_running(daemon) {
            // A process that is gone has nothing to continue.
            let _ = nodes.signal(daemon, libc::SIGCONT);
        } else {
            nodes.start(daemon)?;
        }
    }
    Ok(())
}

fn tool(nodes: &Nodes) -> Tool {
    let template = nodes.command(&[]);
    let words: Vec<std::ffi::OsString> = std::iter::once(template.get_program())
        .chain(template.get_args())
        .map(std::ffi::OsStr::to_os_string)
        .collect();
    let cluster = template.get_envs().find_map(|(key, value)| (key == "NACRE_CLUSTER").then_some(value));
    let cluster = cluster.flatten().map(std::ffi::OsStr::to_os_string).unwrap_or_default();
    std::sync::Arc::new(move |args: &[&str]| {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(args).env("NACRE_CLUSTER", &cluster).stdin(Stdio::null());
        command.process_group(0);
        command
    })
}

/// fio writing and verifying until it is told to stop.
struct Fio(Child);

impl Fio {
    fn start(folder: &Path, socket: &Path) -> anyhow::Result<Fio> {
        let uri = format!("--uri=nbd+unix:///rbd/fio?socket={}", socket.display());
        let out = std::fs::File::create(folder.join("fio.out"))?;
        let child = Command::new("fio")
            .args(["--name=thrash", "--ioengine=nbd", &uri, "--rw=randwrite", "--bs=4k", "--iodepth=8"])
            .args(["--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256", "--serialize_overlap=1"])
            .args(["--size=64M", "--time_based", "--runtime=86400", "--rate_iops=300", "--randrepeat=0"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()?;
        Ok(Fio(child))
    }

    /// It must not have ended: that it does only after an error.
    fn check(&mut self) -> anyhow::Result<()> {
        match self.0.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("fio ended ({status}): see fio.out"),
        }
    }

    /// Ends it in order: it waits for what is in flight and says what it did.
    fn stop(&mut self, folder: &Path) -> anyhow::Result<String> {
        self.check()?;
        crate::cluster::send_signal(self.0.id() as i32, libc::SIGINT)?;
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.0.try_wait()?.is_none() {
            check_interrupted()?;
            ensure!(Instant::now() < deadline, "fio does not end: its requests are not answered");
            std::thread::sleep(Duration::from_millis(50));
        }
        let said = std::fs::read_to_string(folder.join("fio.out"))?;
        ensure!(!said.contains("verify:") && !said.contains("error="), "fio failed:\n{said}");
        ensure!(said.contains("err= 0"), "fio did not end well:\n{said}");
        let total = |line: &str| {
            said.lines().find(|l| l.trim_start().starts_with(line)).unwrap_or("").trim().to_string()
        };
        Ok(format!(
            "fio {}",
            total("issued rwts:").split(" short").next().unwrap_or_default().replace("issued rwts: ", "")
        ))
    }
}

impl Drop for Fio {
    fn drop(&mut self) {
        // Its jobs are processes of their own.
        if let Ok(None) = self.0.try_wait() {
            crate::cluster::kill_group(&self.0);
        }
        let _ = self.0.wait();
    }
}
