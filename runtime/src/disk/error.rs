//! What can go wrong on the way to an open disk, and what an errno means to the store.

use nacre_store::DiskError;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum OpenDiskError {
    #[error("{path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{path} is neither a regular file nor a block device")]
    WrongKind { path: PathBuf },
    #[error("{path} is in use by {holder}; stop it first")]
    InUse { path: PathBuf, holder: String },
    #[error("{path} has sectors of {sector_bytes} bytes; at most 4096 can be used")]
    SectorSize { path: PathBuf, sector_bytes: u32 },
    #[error("{path} exists already with {bytes} bytes; remove it or choose another path")]
    Exists { path: PathBuf, bytes: u64 },
    #[error(
        "{path}: there is no room for {bytes} bytes ({available} available); choose a smaller size or free space"
    )]
    NoSpace { path: PathBuf, bytes: u64, available: u64 },
}

/// The store's view of a failed system call.
pub(crate) fn disk_error(offset: u64, what: &str, error: &io::Error) -> DiskError {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => DiskError::NoSpace,
        _ => DiskError::Io { offset, reason: format!("{what}: {error}") },
    }
}
