//! A single daemon run by hand, and strangers' ways of talking to one.

use crate::cluster::{alive, wait_for};
use crate::tool::nacre;
use anyhow::Context as _;
use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// `nacre daemon`, killed when it is dropped. Its log lies beside its directory.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// `kind` is `mon` or `osd`.
    pub fn start(kind: &str, dir: &Path) -> anyhow::Result<Daemon> {
        let log = dir.with_extension("stderr");
        let file = File::options().create(true).append(true).open(&log)?;
        let child = daemon(kind, dir)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start the {kind} in {}", dir.display()))?;
        Ok(Daemon { child, log })
    }

    pub fn is_alive(&self) -> bool {
        alive(self.child.id() as i32)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it ends by itself.
    pub fn wait_end(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let pid = self.child.id() as i32;
        wait_for("the daemon to end", limit, || Ok(!alive(pid)))?;
        Ok(self.child.wait()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- {}\n{}", self.log.display(), self.log());
        }
    }
}

/// The command that runs a daemon.
pub fn daemon(kind: &str, dir: &Path) -> Command {
    let mut command = Command::new(nacre());
    command.args(["daemon", kind, "--dir"]).arg(dir).env_remove("NACRE_CLUSTER").env_remove("NOTIFY_SOCKET");
    command
}

/// A UDP port that was free a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}
