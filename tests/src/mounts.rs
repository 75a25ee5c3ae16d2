//! An image as a file system: FUSE, loop device, mount. Each part is undone when it is dropped, also after a failure.

use crate::cluster::wait_for;
use crate::tool::{installed, run};
use anyhow::Context as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Whether this machine lets us mount; says why not.
pub fn can_mount() -> bool {
    let tools = ["nbdfuse", "mkfs.ext4", "e2fsck", "losetup", "mount", "umount"];
    if !tools.into_iter().all(installed) {
        return false;
    }
    for device in ["/dev/fuse", "/dev/loop-control"] {
        if std::fs::File::options().read(true).write(true).open(device).is_err() {
            eprintln!("skipped: {device} cannot be used here (root is needed)");
            return false;
        }
    }
    true
}

/// An NBD export as a file.
pub struct NbdFuse {
    folder: PathBuf,
    child: Child,
}

impl NbdFuse {
    pub fn mount(folder: &Path, uri: &str) -> anyhow::Result<NbdFuse> {
        std::fs::create_dir_all(folder)?;
        let ready = folder.with_extension("pid");
        let _ = std::fs::remove_file(&ready);
        let child = Command::new("nbdfuse")
            .arg("--pidfile")
            .arg(&ready)
            .arg(folder.join("nbd"))
            .arg(uri)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot run nbdfuse")?;
        let mounted = NbdFuse { folder: folder.into(), child };
        wait_for("nbdfuse", Duration::from_secs(10), || Ok(ready.exists()))?;
        Ok(mounted)
    }

    pub fn file(&self) -> PathBuf {
        self.folder.join("nbd")
    }
}

impl Drop for NbdFuse {
    fn drop(&mut self) {
        let unmounted = quietly(Command::new("umount").arg(&self.folder))
            || quietly(Command::new("umount").arg("--lazy").arg(&self.folder));
        if !unmounted {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// A file as a block device.
pub struct LoopDevice(PathBuf);

impl LoopDevice {
    pub fn attach(file: &Path) -> anyhow::Result<LoopDevice> {
        let name = run(Command::new("losetup").args(["--find", "--show"]).arg(file))?;
        Ok(LoopDevice(name.trim().into()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        quietly(Command::new("losetup").arg("--detach").arg(&self.0));
    }
}

/// A mounted file system.
pub struct Mount {
    at: PathBuf,
    mounted: bool,
}

impl Mount {
    pub fn new(device: &Path, at: &Path) -> anyhow::Result<Mount> {
        std::fs::create_dir_all(at)?;
        run(Command::new("mount").arg(device).arg(at))?;
        Ok(Mount { at: at.into(), mounted: true })
    }

    /// A file system in memory that is full after so many MiB.
    pub fn tmpfs(at: &Path, mebibytes: u32) -> anyhow::Result<Mount> {
        std::fs::create_dir_all(at)?;
        let size = format!("size={mebibytes}M");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at))?;
        Ok(Mount { at: at.into(), mounted: true })
    }

    pub fn unmount(mut self) -> anyhow::Result<()> {
        run(Command::new("umount").arg(&self.at))?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted && !quietly(Command::new("umount").arg(&self.at)) {
            quietly(Command::new("umount").arg("--lazy").arg(&self.at));
        }
    }
}

fn quietly(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
