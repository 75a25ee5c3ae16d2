//! Keeps a second process off a disk or a directory, and finds out who the first one is.
//!
//! Files are locked by `flock`, whose owner the kernel shows in `/proc/locks`; block devices are opened O_EXCL, whose
//! owner is found by looking through open files and mounts.

use rustix::fs::FlockOperation;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a lock may outlive a killed process, whose last requests to the disk still have to end.
const GONE_HOLDER_WAIT: Duration = Duration::from_secs(5);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Takes the lock that lasts as long as `file` is open. `Err(Ok(holder))` if somebody else has it.
pub(crate) fn lock_exclusive(file: &File) -> Result<(), Result<String, io::Error>> {
    let started = Instant::now();
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = flock_holder(file);
                let gone = holder.is_none_or(is_ending);
                if !gone || started.elapsed() > GONE_HOLDER_WAIT {
                    return Err(Ok(describe_process(holder)));
                }
                std::thread::sleep(LOOK_AGAIN_AFTER);
            }
            Err(error) => return Err(Err(error.into())),
        }
    }
}

/// Whether a process is gone, or was killed and is on its way.
fn is_ending(pid: u32) -> bool {
    const SIGKILL_PENDING: u64 = 1 << 8;
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let dead = field("State").is_some_and(|state| state.trim().starts_with(['Z', 'X']));
    let killed = |name| {
        let mask = field(name).and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask & SIGKILL_PENDING != 0)
    };
    // Its main thread may have ended, or have yet to notice the signal, or be ending: then it has no memory any more.
    dead || killed("SigPnd") || killed("ShdPnd") || field("VmSize").is_none()
}

/// The process that holds a lock on the file.
fn flock_holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let (major, minor) = (rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
    let id = format!("{major:02x}:{minor:02x}:{}", metadata.ino());
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF"
    let line = locks.lines().find(|line| line.split_whitespace().any(|word| word == id))?;
    line.split_whitespace().nth(4)?.parse().ok()
}

/// Names the process or mount that holds a block device.
pub(crate) fn device_holder(path: &Path) -> String {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if let Ok(mounts) = std::fs::read_to_string("/proc/mounts") {
        for line in mounts.lines() {
            let mut words = line.split(' ');
            let source = words.next().unwrap_or_default();
            if std::fs::canonicalize(source).is_ok_and(|source| source == real) {
                return format!("a file system mounted at {}", words.next().unwrap_or_default());
            }
        }
    }
    let own = std::process::id();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        files.into_iter().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|target| target == real))
    };
    describe_process(pids.find(|pid| *pid != own && holds(pid)))
}

fn describe_process(pid: Option<u32>) -> String {
    let Some(pid) = pid else { return "another process".to_string() };
    if pid == std::process::id() {
        return format!("this process (pid {pid})");
    }
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("process {pid} ({})", name.trim()),
        Err(_) => format!("process {pid}"),
    }
}

#[cfg(test)]
mod tests {
    use super::is_ending;
    use std::process::Command;

    #[test]
    fn a_killed_process_is_on_its_way_though_it_has_a_name() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        assert!(!is_ending(pid) && !is_ending(std::process::id()));
        child.kill().unwrap();
        // Nobody has waited for it yet, so it has its name still.
        assert!(is_ending(pid));
        child.wait().unwrap();
        assert!(is_ending(pid));
    }
}
