//! The processes: monitors, OSDs and the gateway, each in its namespace, killed by their own handles when dropped.

use super::check_interrupted;
use super::net::Net;
use crate::cluster::{alive, send_signal};
use crate::tool::{run, text};
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const CLIENT: &str = "client";
const OSD_BYTES: &str = "2G";

pub struct Nodes {
    pub net: Net,
    pub mons: Vec<String>,
    pub osds: Vec<String>,
    folder: PathBuf,
    binary: PathBuf,
    running: BTreeMap<String, Child>,
}

impl Nodes {
    /// A new cluster, up.
    pub fn create(
        binary: &Path,
        folder: &Path,
        namespaces: bool,
        mons: u64,
        osds: u64,
    ) -> anyhow::Result<Nodes> {
        let mons: Vec<String> = ('a'..).take(mons as usize).map(|letter| format!("mon.{letter}")).collect();
        let osds: Vec<String> = (0..osds).map(|id| format!("osd.{id}")).collect();
        let all = [&mons[..], &osds[..], &[CLIENT.to_string()]].concat();
        let mut nodes = Nodes {
            net: Net::new(namespaces, &all)?,
            mons,
            osds,
            folder: folder.to_path_buf(),
            binary: binary.to_path_buf(),
            running: BTreeMap::new(),
        };
        let mut bootstrap = Command::new(&nodes.binary);
        bootstrap.args(["mon", "bootstrap", "--out"]).arg(folder);
        for (at, mon) in nodes.mons.iter().enumerate() {
            let port = if namespaces { 6789 } else { crate::daemon::free_port()? };
            let letter = mon.strip_prefix("mon.").context("a monitor's name")?;
            bootstrap.arg("--mon").arg(format!("{letter}={}:{port}", nodes.net.address(mon)));
            let _ = at;
        }
        run(&mut bootstrap)?;
        for mon in nodes.mons.clone() {
            nodes.start(&mon)?;
        }
        nodes.wait("a quorum", Duration::from_secs(30), |nodes| Ok(nodes.admin(&["status"]).is_ok()))?;
        for osd in nodes.osds.clone() {
            let port = if namespaces { 6800 } else { 0 };
            let address = format!("{}:{port}", nodes.net.address(&osd));
            let dir = folder.join(&osd).display().to_string();
            let host = osd.replace('.', "-");
            let args =
                ["osd", "format", "--dir", &dir, "--size", OSD_BYTES, "--host", &host, "--address", &address];
            nodes.admin(&args)?;
            nodes.start(&osd)?;
        }
        Ok(nodes)
    }

    /// A `nacre` command at the client's node.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.net.command(CLIENT, &self.binary);
        command.env("NACRE_CLUSTER", self.folder.join("admin.nacre")).args(args).stdin(Stdio::null());
        command.process_group(0);
        command
    }

    pub fn admin(&self, args: &[&str]) -> anyhow::Result<String> {
        run(&mut self.command(args))
    }

    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let out = self.admin(&[args, &["--json"]].concat())?;
        serde_json::from_str(&out).with_context(|| format!("{args:?} answered no JSON: {out}"))
    }

    pub fn start(&mut self, daemon: &str) -> anyhow::Result<()> {
        ensure!(!self.running.contains_key(daemon), "{daemon} runs already");
        let (kind, _) = daemon.split_once('.').context("a daemon's name")?;
        let log = File::options().create(true).append(true).open(self.log_path(daemon))?;
        let child = self
            .net
            .command(daemon, &self.binary)
            .args(["daemon", kind, "--dir"])
            .arg(self.folder.join(daemon))
            .env_remove("NACRE_CLUSTER")
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {daemon}"))?;
        self.running.insert(daemon.to_string(), child);
        Ok(())
    }

    /// The gateway, serving on a UNIX socket, which no network namespace hides.
    pub fn serve_nbd(&mut self, socket: &Path) -> anyhow::Result<()> {
        let log = File::create(self.log_path("nbd"))?;
        let mut command = self.command(&["nbd", "serve", "--unix"]);
        command.arg(socket).stdout(log.try_clone()?).stderr(log);
        self.running.insert("nbd".into(), command.spawn()?);
        self.wait("the NBD socket", Duration::from_secs(20), |_| Ok(socket.exists()))
    }

    pub fn signal(&self, daemon: &str, signal: i32) -> anyhow::Result<()> {
        let child = self.running.get(daemon).with_context(|| format!("{daemon} does not run"))?;
        send_signal(child.id() as i32, signal)
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self, daemon: &str) -> anyhow::Result<()> {
        let mut child = self.running.remove(daemon).with_context(|| format!("{daemon} does not run"))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Stops it in order and waits until it is gone.
    pub fn stop(&mut self, daemon: &str) -> anyhow::Result<()> {
        self.signal(daemon, libc::SIGTERM)?;
        let mut child = self.running.remove(daemon).with_context(|| format!("{daemon} does not run"))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("{daemon} did not stop within 60 s");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Nobody ended but by our hand.
    pub fn check_alive(&self) -> anyhow::Result<()> {
        for (name, child) in &self.running {
            ensure!(alive(child.id() as i32), "{name} ended by itself:\n{}", self.tail(name));
        }
        Ok(())
    }

    pub fn is_running(&self, daemon: &str) -> bool {
        self.running.contains_key(daemon)
    }

    /// Nobody panicked.
    pub fn check_logs(&self) -> anyhow::Result<()> {
        for name in self.mons.iter().chain(&self.osds).map(String::as_str).chain(["nbd"]) {
            let log = self.log(name);
            ensure!(!log.contains("panicked at"), "{name} panicked:\n{}", self.tail(name));
        }
        Ok(())
    }

    pub fn log_path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    fn log(&self, name: &str) -> String {
        let bytes = std::fs::read(self.log_path(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn tail(&self, name: &str) -> String {
        let log = self.log(name);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(15)..].iter().map(|line| format!("    {line}\n")).collect()
    }

    pub fn pgs(&self) -> anyhow::Result<Vec<Value>> {
        let pgs = self.json(&["pg", "ls"])?;
        Ok(pgs.as_array().context("pg ls is no list")?.clone())
    }

    /// Every PG active and clean, and every OSD up.
    pub fn is_clean(&self) -> anyhow::Result<bool> {
        let clean = |pg: &Value| {
            pg["state"].as_str().is_some_and(|state| {
                state.split('+').any(|word| word == "clean") && !state.contains("inconsistent")
            })
        };
        Ok(self.pgs()?.iter().all(clean) && self.osds_up()? == self.osds.len())
    }

    fn osds_up(&self) -> anyhow::Result<usize> {
        let tree = self.json(&["osd", "tree"])?;
        let nodes = tree["nodes"].as_array().context("osd tree has no nodes")?;
        Ok(nodes.iter().filter(|node| node["type"] == "osd" && node["status"] == "up").count())
    }

    /// What the cluster says of itself, for a report of failure.
    pub fn describe(&self) -> String {
        let mut said = String::new();
        for args in [&["status"][..], &["pg", "ls"], &["osd", "tree"], &["health", "detail"]] {
            let output = self.command(&[args, &["--timeout", "10"]].concat()).output();
            said.push_str(&output.map_or_else(|error| error.to_string(), |output| text(&output)));
        }
        said
    }

    /// Until it holds; an error counts as "not yet".
    pub fn wait(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Nodes) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            check_interrupted()?;
            let last = holds(self);
            if matches!(last, Ok(true)) {
                return Ok(());
            }
            self.check_alive()?;
            if Instant::now() > deadline {
                let why = last.err().map(|error| format!(" ({error:#})")).unwrap_or_default();
                bail!("waited {limit:?} for {what}{why}\n{}", self.describe());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    pub fn wait_clean(&self, limit: Duration) -> anyhow::Result<()> {
        self.wait("all PGs to be active+clean", limit, Nodes::is_clean)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
        }
        for child in self.running.values_mut() {
            let _ = child.wait();
        }
    }
}
