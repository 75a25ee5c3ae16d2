//! An open, locked disk, used synchronously: at format, mount, unmount and by fsck.

use super::discard::discard;
use super::error::disk_error;
use super::{BufferPool, FlushPolicy, Geometry, OpenDiskError, lock};
use bytes::Bytes;
use nacre_store::{DiskError, DiskSync};
use nacre_types::checksum::{BLOCK, BLOCK_U64};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of one synchronous system call.
const STEP_BYTES: usize = 4 << 20;

/// A regular file or block device that this process alone has open.
pub struct FileDisk {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) geometry: Geometry,
    pub(super) pool: BufferPool,
    /// A flush once failed: nothing written since the one before it can be promised any more, and a later flush that
    /// the kernel calls a success proves nothing.
    pub(super) flush_failure: Option<DiskError>,
}

impl FileDisk {
    /// Opens for reading and writing, with O_DIRECT where there is such a thing, and locks.
    pub fn open(path: &Path) -> Result<FileDisk, OpenDiskError> {
        let failed = |source| OpenDiskError::Open { path: path.into(), source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let exclusive = if metadata.file_type().is_block_device() { libc::O_EXCL } else { 0 };
        let open = |flags: i32| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path);
        let (opened, direct) = match open(libc::O_DIRECT | exclusive) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (open(exclusive), false),
            opened => (opened, true),
        };
        let mut file = match opened {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(OpenDiskError::InUse { path: path.into(), holder: lock::device_holder(path) });
            }
            opened => opened.map_err(failed)?,
        };
        if exclusive == 0 {
            lock::lock_exclusive(&file).map_err(|refused| match refused {
                Ok(holder) => OpenDiskError::InUse { path: path.into(), holder },
                Err(source) => failed(source),
            })?;
        }
        let geometry = Geometry::probe(&mut file, path, direct)?;
        Ok(FileDisk { file, path: path.into(), geometry, pool: BufferPool::new(), flush_failure: None })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// One line on the device and how writes to it are made durable.
    pub fn describe(&self) -> String {
        format!("{}: {}", self.path.display(), self.geometry.describe())
    }

    fn check_range(&self, offset: u64, length: usize) -> Result<(), DiskError> {
        let capacity = self.geometry.capacity_bytes;
        match offset.checked_add(length as u64) {
            Some(end) if end <= capacity => Ok(()),
            _ => Err(DiskError::OutOfRange { offset, length, capacity }),
        }
    }
}

impl DiskSync for FileDisk {
    fn capacity_bytes(&self) -> u64 {
        self.geometry.capacity_bytes
    }

    fn read_at(&mut self, offset: u64, length: usize) -> Result<Bytes, DiskError> {
        self.check_range(offset, length)?;
        let first = offset / BLOCK_U64 * BLOCK_U64;
        let head = (offset - first) as usize;
        let mut buffer = self.pool.take((head + length).next_multiple_of(BLOCK));
        let whole = buffer.as_mut_slice();
        let mut done = 0;
        while done < whole.len() {
            let end = whole.len().min(done + STEP_BYTES);
            let at = first + done as u64;
            match self.file.read_at(&mut whole[done..end], at) {
                Ok(0) => return Err(disk_error(at, "read", &io::ErrorKind::UnexpectedEof.into())),
                // O_DIRECT goes on at a multiple of the block.
                Ok(count) if count < BLOCK => {
                    return Err(disk_error(at, "read", &io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(count) => done += count / BLOCK * BLOCK,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(disk_error(at, "read", &error)),
            }
        }
        Ok(buffer.into_bytes().slice(head..head + length))
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        assert!(
            offset.is_multiple_of(BLOCK_U64) && data.len().is_multiple_of(BLOCK),
            "writes are of whole blocks"
        );
        self.check_range(offset, data.len())?;
        let mut buffer = self.pool.take(data.len().min(STEP_BYTES));
        for (index, step) in data.chunks(STEP_BYTES).enumerate() {
            let at = offset + (index * STEP_BYTES) as u64;
            let aligned = &mut buffer.as_mut_slice()[..step.len()];
            aligned.copy_from_slice(step);
            let mut done = 0;
            while done < aligned.len() {
                match self.file.write_at(&aligned[done..], at + done as u64) {
                    Ok(count) if count < BLOCK => {
                        return Err(disk_error(at, "write", &io::ErrorKind::WriteZero.into()));
                    }
                    Ok(count) => done += count / BLOCK * BLOCK,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(disk_error(at, "write", &error)),
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        if let Some(failure) = &self.flush_failure {
            return Err(failure.clone());
        }
        if self.geometry.flush == FlushPolicy::WriteThrough {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| {
            let failure = disk_error(0, "flush", &error);
            self.flush_failure = Some(failure.clone());
            failure
        })
    }

    fn discard_granularity(&self) -> Option<u64> {
        self.geometry.discard_granularity
    }

    fn discard(&mut self, offset: u64, length: u64) -> Result<(), DiskError> {
        if self.geometry.discard_granularity.is_none() {
            return Ok(());
        }
        self.check_range(offset, length as usize)?;
        discard(&self.file, offset, length).map_err(|error| disk_error(offset, "discard", &error))
    }
}
