//! Makes the file of an OSD that is not given a device of its own.

use super::OpenDiskError;
use rustix::fs::FallocateFlags;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

/// Creates a file of `bytes` bytes (rounded down to 4 KiB) with all its blocks reserved, so that later writes cannot run
/// out of space. Nothing is written; whoever needs written blocks (a journal: the first write to a reserved block costs a
/// metadata commit) writes them. A file that exists with another size, or in part, is refused and left alone; a new
/// one is removed if it cannot be completed.
pub fn create_file(path: &Path, bytes: u64) -> Result<(), OpenDiskError> {
    let bytes = bytes / 4096 * 4096;
    let failed = |source| OpenDiskError::Open { path: path.into(), source };
    let file = match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let bytes = std::fs::metadata(path).map_err(failed)?.len();
            return Err(OpenDiskError::Exists { path: path.into(), bytes });
        }
        Err(error) => return Err(failed(error)),
    };
    reserve(&file, path, bytes).inspect_err(|_| {
        let _ = std::fs::remove_file(path);
    })
}

fn reserve(file: &File, path: &Path, bytes: u64) -> Result<(), OpenDiskError> {
    let failed = |source: io::Error| match source.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => {
            OpenDiskError::NoSpace { path: path.into(), bytes, available: available_bytes(file) }
        }
        _ => OpenDiskError::Open { path: path.into(), source },
    };
    // fallocate fails only after taking what there was; asking first spares a nearly full file system.
    let available = available_bytes(file);
    if bytes > available {
        return Err(OpenDiskError::NoSpace { path: path.into(), bytes, available });
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        // The file system cannot reserve (some network ones): the length alone must do.
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes).map_err(failed)?,
        Err(error) => return Err(failed(error.into())),
    }
    file.sync_all().map_err(failed)?;
    let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)
}

/// Room on the file's file system as `df` tells it: what is reserved for root is not always root's.
fn available_bytes(file: &File) -> u64 {
    match rustix::fs::fstatvfs(file) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(_) => u64::MAX,
    }
}
