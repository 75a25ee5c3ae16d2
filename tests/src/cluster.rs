//! A dev cluster in a temporary directory. Dropping it kills every process it started.

use crate::tool::{nacre, run, text};
use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Cluster {
    folder: tempfile::TempDir,
    gateway: Option<Child>,
}

impl Cluster {
    /// `nacre dev up` with these options.
    pub fn up(options: &[&str]) -> anyhow::Result<Cluster> {
        let cluster = Cluster { folder: tempfile::tempdir()?, gateway: None };
        cluster.dev_up(options)?;
        Ok(cluster)
    }

    pub fn dev_up(&self, options: &[&str]) -> anyhow::Result<()> {
        let out = run(Command::new(nacre()).args(["dev", "up", "--dir"]).arg(self.dir()).args(options))?;
        ensure!(out.lines().last() == Some("ready"), "dev up did not end with 'ready': {out}");
        Ok(())
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    /// A path for a test's own files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A `nacre` command for this cluster, to be run in the test's own folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(nacre());
        command
            .env("NACRE_CLUSTER", self.dir().join("admin.nacre"))
            .args(args)
            .current_dir(self.folder.path());
        command
    }

    /// A `nacre` command that must succeed.
    pub fn nacre(&self, args: &[&str]) -> anyhow::Result<String> {
        run(&mut self.command(args))
    }

    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let out = self.nacre(&[args, &["--json"]].concat())?;
        serde_json::from_str(&out).with_context(|| format!("{args:?} answered no JSON: {out}"))
    }

    /// A `nacre` command that must fail; returns what it said.
    pub fn fails(&self, args: &[&str]) -> anyhow::Result<String> {
        fails(&mut self.command(args))
    }

    /// A command that must fail and say all of these words.
    pub fn fails_saying(&self, args: &[&str], words: &[&str]) -> anyhow::Result<()> {
        says(&self.fails(args)?, words).with_context(|| format!("{args:?}"))
    }

    pub fn dev(&self, action: &str, daemon: &str) -> anyhow::Result<()> {
        run(Command::new(nacre()).args(["dev", action, daemon, "--dir"]).arg(self.dir()))?;
        Ok(())
    }

    pub fn pid(&self, daemon: &str) -> anyhow::Result<i32> {
        let path = self.dir().join("pids").join(daemon);
        let text = std::fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
        Ok(text.trim().parse()?)
    }

    pub fn signal(&self, daemon: &str, signal: i32) -> anyhow::Result<()> {
        send_signal(self.pid(daemon)?, signal)
    }

    /// Daemons of the cluster, by name.
    pub fn daemons(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(self.dir().join("pids"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// SIGKILL to every process of the cluster at once, the gateway too.
    pub fn kill_everything(&mut self) -> anyhow::Result<()> {
        let pids: Vec<i32> =
            self.daemons()?.iter().map(|daemon| self.pid(daemon)).collect::<Result<_, _>>()?;
        for &pid in &pids {
            send_signal(pid, libc::SIGKILL)?;
        }
        self.stop_gateway()?;
        wait_for("the processes to be gone", Duration::from_secs(10), || {
            Ok(pids.iter().all(|pid| !alive(*pid)))
        })
    }

    pub fn stop_gateway(&mut self) -> anyhow::Result<()> {
        if let Some(mut gateway) = self.gateway.take() {
            gateway.kill()?;
            gateway.wait()?;
        }
        Ok(())
    }

    /// Serves the cluster's images over NBD on a UNIX socket and returns its path.
    pub fn serve_nbd(&mut self) -> anyhow::Result<PathBuf> {
        self.serve_nbd_as("cluster/admin.nacre")
    }

    /// The same with another credential file.
    pub fn serve_nbd_as(&mut self, credentials: &str) -> anyhow::Result<PathBuf> {
        let socket = self.path("nbd.sock");
        let _ = std::fs::remove_file(&socket);
        let log = std::fs::File::options().create(true).append(true).open(self.path("nbd.log"))?;
        let mut command = self.command(&["--cluster", credentials, "nbd", "serve", "--unix"]);
        command.arg(&socket).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.gateway = Some(command.spawn()?);
        wait_for("the NBD socket", Duration::from_secs(10), || Ok(socket.exists()))?;
        Ok(socket)
    }

    pub fn gateway_pid(&self) -> Option<i32> {
        self.gateway.as_ref().map(|gateway| gateway.id() as i32)
    }

    /// Every daemon, and the gateway if there is one, must run.
    pub fn assert_alive(&self) -> anyhow::Result<()> {
        for daemon in self.daemons()? {
            ensure!(alive(self.pid(&daemon)?), "{daemon} is dead:\n{}", tail(&self.log(&daemon)));
        }
        ensure!(self.gateway_pid().is_none_or(alive), "the gateway is dead");
        self.assert_no_panic()
    }

    /// An NBD URI of an image, `pool/name` or `pool/name@snap`.
    pub fn uri(&self, image: &str) -> String {
        format!("nbd+unix:///{image}?socket={}", self.path("nbd.sock").display())
    }

    /// The states of all PGs.
    pub fn pg_states(&self) -> anyhow::Result<Vec<String>> {
        let pgs = self.json(&["pg", "ls"])?;
        let pgs = pgs.as_array().context("pg ls is no list")?;
        Ok(pgs.iter().map(|pg| pg["state"].as_str().unwrap_or("?").to_string()).collect())
    }

    pub fn wait_clean(&self, limit: Duration) -> anyhow::Result<()> {
        let waited = wait_for("active+clean", limit, || {
            Ok(self.pg_states()?.iter().all(|state| state == "active+clean"))
        });
        waited.with_context(|| {
            let shown = |args: &[&str]| self.nacre(args).unwrap_or_else(|e| e.to_string());
            format!("{}\n{}\n{}", shown(&["status"]), shown(&["pg", "ls"]), shown(&["osd", "tree"]))
        })
    }

    /// The log of a daemon, for a failure's report.
    pub fn log(&self, daemon: &str) -> String {
        std::fs::read_to_string(self.dir().join("log").join(format!("{daemon}.log"))).unwrap_or_default()
    }

    /// No daemon may have panicked, whatever was done to it.
    pub fn assert_no_panic(&self) -> anyhow::Result<()> {
        for daemon in self.daemons()? {
            let log = self.log(&daemon);
            ensure!(!log.contains("panicked at"), "{daemon} panicked:\n{}", tail(&log));
        }
        let gateway = std::fs::read_to_string(self.path("nbd.log")).unwrap_or_default();
        ensure!(!gateway.contains("panicked at"), "the gateway panicked:\n{}", tail(&gateway));
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut gateway) = self.gateway.take() {
            let _ = gateway.kill();
            let _ = gateway.wait();
        }
        for daemon in self.daemons().unwrap_or_default() {
            if let Ok(pid) = self.pid(&daemon) {
                let _ = send_signal(pid, libc::SIGKILL);
            }
        }
        if std::thread::panicking() {
            for daemon in self.daemons().unwrap_or_default() {
                eprintln!("---- {daemon}\n{}", tail(&self.log(&daemon)));
            }
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

#[allow(unsafe_code)]
pub fn send_signal(pid: i32, signal: i32) -> anyhow::Result<()> {
    assert!(pid > 1, "a signal to {pid} would hit more than one process");
    // SAFETY: no memory is involved.
    let done = unsafe { libc::kill(pid, signal) };
    if done != 0 {
        bail!("signal {signal} to process {pid}: {}", std::io::Error::last_os_error());
    }
    Ok(())
}

/// Kills a child that leads a process group of its own, which has not been waited for, and all in that group.
#[allow(unsafe_code)]
pub fn kill_group(leader: &std::process::Child) {
    let group = leader.id() as i32;
    assert!(group > 1, "{group} is no group of a child");
    // SAFETY: no memory is involved.
    unsafe { libc::killpg(group, libc::SIGKILL) };
}

/// A process that is neither gone nor a zombie.
pub fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Runs a command that must fail, not by a panic and not without a word; returns what it said.
pub fn fails(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    let said = text(&output);
    ensure!(!output.status.success(), "{command:?} succeeded:\n{said}");
    ensure!(output.status.code().is_some(), "{command:?} died of a signal:\n{said}");
    ensure!(!said.contains("panicked"), "{command:?} panicked: {said}");
    ensure!(!said.trim().is_empty(), "{command:?} failed without a word");
    Ok(said)
}

/// What was said must hold these words, whatever is said around them.
pub fn says(said: &str, words: &[&str]) -> anyhow::Result<()> {
    let lower = said.to_lowercase();
    let missing: Vec<_> = words.iter().filter(|word| !lower.contains(&word.to_lowercase())).collect();
    ensure!(missing.is_empty(), "{missing:?} not said in: {said}");
    Ok(())
}

/// Clusters are heavy for two cores: one test at a time.
pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Asks until it holds; fails with what was waited for. Errors on the way count as "not yet".
pub fn wait_for(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    let mut last = None;
    loop {
        match holds() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = Some(error),
        }
        if Instant::now() >= deadline {
            match last {
                Some(error) => return Err(error.context(format!("waited {limit:?} for {what}"))),
                None => bail!("waited {limit:?} for {what}"),
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The data file of an OSD of a dev cluster.
pub fn data_file(cluster: &Cluster, osd: u32) -> PathBuf {
    let folder: &Path = &cluster.dir().join(format!("osd.{osd}"));
    folder.join("data")
}
