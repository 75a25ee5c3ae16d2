//! Starting, finding and stopping the daemons of a dev cluster.

use super::layout::{DaemonName, Layout};
use anyhow::Context as _;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A daemon that is not ready by then will not be.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an orderly stop may take before the process is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// How to end a daemon.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Orderly,
    Kill,
}

/// The process id of a daemon of this cluster, if it runs. A recycled id of some other process does not count.
pub fn running(layout: &Layout, daemon: &DaemonName) -> Option<u32> {
    let pid: u32 = std::fs::read_to_string(layout.pid(daemon)).ok()?.trim().parse().ok()?;
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let dir = layout.dir(daemon);
    let own = command.split(|&byte| byte == 0).any(|argument| argument == dir.as_os_str().as_encoded_bytes());
    own.then_some(pid)
}

/// Starts daemons side by side and waits until each says that it is ready.
pub fn start(layout: &Layout, daemons: &[DaemonName]) -> anyhow::Result<()> {
    let mut starting = Vec::new();
    for daemon in daemons {
        starting.push((daemon, spawn(layout, daemon)?));
    }
    for (daemon, mut started) in starting {
        started.wait_ready(layout, daemon)?;
    }
    Ok(())
}

struct Started {
    child: Child,
    notify: Notify,
}

/// Where a daemon reports that it is ready, in the way of systemd's sd_notify.
struct Notify {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Drop for Notify {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn spawn(layout: &Layout, daemon: &DaemonName) -> anyhow::Result<Started> {
    let log_path = layout.log(daemon);
    for path in [&log_path, &layout.pid(daemon)] {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let log = File::options().create(true).append(true).open(&log_path);
    let log = log.with_context(|| format!("cannot open {}", log_path.display()))?;
    // Not in the cluster's directory: the path of a socket must be short.
    let name = format!("nacre-{}-{daemon}.notify", std::process::id());
    let path = std::env::temp_dir().join(name);
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).with_context(|| format!("cannot bind {}", path.display()))?;
    let notify = Notify { socket, path };
    let kind = match daemon {
        DaemonName::Mon(_) => "mon",
        DaemonName::Osd(_) => "osd",
    };
    let child = Command::new(std::env::current_exe()?)
        .args(["daemon", kind, "--dir"])
        .arg(layout.dir(daemon))
        .env("NOTIFY_SOCKET", &notify.path)
        .env_remove("NACRE_CLUSTER")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {daemon}"))?;
    let pid_path = layout.pid(daemon);
    std::fs::write(&pid_path, format!("{}\n", child.id()))
        .with_context(|| format!("cannot write {}", pid_path.display()))?;
    Ok(Started { child, notify })
}

impl Started {
    fn wait_ready(&mut self, layout: &Layout, daemon: &DaemonName) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_TIMEOUT;
        let mut buffer = [0; 1024];
        self.notify.socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        loop {
            if let Ok(length) = self.notify.socket.recv(&mut buffer)
                && buffer[..length].split(|&byte| byte == b'\n').any(|line| line == b"READY=1")
            {
                return Ok(());
            }
            let log = layout.log(daemon);
            if let Some(status) = self.child.try_wait()? {
                let _ = std::fs::remove_file(layout.pid(daemon));
                anyhow::bail!("{daemon} ended ({status}); the end of {}:\n{}", log.display(), tail(&log));
            }
            if Instant::now() >= deadline {
                let seconds = READY_TIMEOUT.as_secs();
                anyhow::bail!(
                    "{daemon} is not ready after {seconds} s; the end of {}:\n{}",
                    log.display(),
                    tail(&log)
                );
            }
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].iter().map(|line| format!("    {line}\n")).collect()
}

/// Ends a daemon, if it runs, and waits until its process is gone.
pub fn stop(layout: &Layout, daemon: &DaemonName, how: Stop) -> anyhow::Result<()> {
    stop_several(layout, std::slice::from_ref(daemon), how)
}

/// Ends everything: the OSDs first, so that they can still say goodbye to the monitors.
pub fn stop_all(layout: &Layout) -> anyhow::Result<()> {
    stop_several(layout, &layout.osds(), Stop::Orderly)?;
    stop_several(layout, &layout.mons(), Stop::Orderly)
}

fn stop_several(layout: &Layout, daemons: &[DaemonName], how: Stop) -> anyhow::Result<()> {
    let signal = if how == Stop::Kill { Signal::KILL } else { Signal::TERM };
    let mut ending = Vec::new();
    for daemon in daemons {
        if let Some(pid) = running(layout, daemon)
            && let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        {
            // Opened before the signal: the number cannot come to mean another process in between.
            let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
            let _ = kill_process(pid, signal);
            // A stopped process takes no other signal than SIGKILL and SIGCONT.
            let _ = kill_process(pid, Signal::CONT);
            ending.push((daemon, pid, handle));
        }
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    for (daemon, pid, handle) in ending {
        let left = deadline.saturating_duration_since(Instant::now());
        if !wait_gone(&handle, left)? {
            eprintln!("{daemon} did not stop within {} s and is killed", STOP_TIMEOUT.as_secs());
            let _ = kill_process(pid, Signal::KILL);
            let gone = wait_gone(&handle, STOP_TIMEOUT)?;
            anyhow::ensure!(gone, "{daemon} (process {}) cannot be killed", pid.as_raw_nonzero());
        }
        let _ = std::fs::remove_file(layout.pid(daemon));
    }
    Ok(())
}

fn wait_gone(handle: &impl std::os::fd::AsFd, timeout: Duration) -> anyhow::Result<bool> {
    let timeout = rustix::event::Timespec {
        tv_sec: timeout.as_secs() as i64,
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    let ready = poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&timeout))?;
    Ok(ready > 0)
}
