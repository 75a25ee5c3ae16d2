//! A daemon's directory: one process at a time, and small files that are replaced whole or not at all.

use crate::disk::lock_exclusive;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const LOCK_FILE: &str = "lock";

#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} does not exist")]
    Missing { path: PathBuf },
    #[error("{path} is in use by {holder}; stop it first")]
    InUse { path: PathBuf, holder: String },
}

impl DirectoryError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> DirectoryError {
        let path = path.to_path_buf();
        |source| DirectoryError::Io { path, source }
    }
}

/// Held as long as a process works in a directory. The kernel gives it back when the process ends, however that is.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

impl DirLock {
    /// Makes the directory, for its owner only, if it is not there.
    pub fn create(dir: &Path) -> Result<DirLock, DirectoryError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(DirectoryError::io(dir))?;
        DirLock::take(dir)
    }

    pub fn take(dir: &Path) -> Result<DirLock, DirectoryError> {
        if !dir.is_dir() {
            return Err(DirectoryError::Missing { path: dir.into() });
        }
        let path = dir.join(LOCK_FILE);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(DirectoryError::io(&path))?;
        match lock_exclusive(&file) {
            Ok(()) => Ok(DirLock { _file: file }),
            Err(Ok(holder)) => Err(DirectoryError::InUse { path: dir.into(), holder }),
            Err(Err(source)) => Err(DirectoryError::Io { path, source }),
        }
    }
}

/// Whether there is nothing but the lock and what may be there.
pub(super) fn is_empty(dir: &Path, except: &[&str]) -> Result<bool, DirectoryError> {
    for entry in std::fs::read_dir(dir).map_err(DirectoryError::io(dir))? {
        let name = entry.map_err(DirectoryError::io(dir))?.file_name();
        if name != LOCK_FILE && !except.iter().any(|except| name == *except) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Replaces a file durably: after a crash there is the old one or the new one.
pub(super) fn replace_file(path: &Path, content: &str) -> Result<(), DirectoryError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(content.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(DirectoryError::io(path))?;
    sync_dir(path.parent().unwrap_or(Path::new(".")))
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), DirectoryError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(DirectoryError::io(dir))
}
