//! What kind of device lies under a disk: size, sectors, the alignment O_DIRECT asks for, and whether a completed write
//! is already durable or waits for a flush.

use super::OpenDiskError;
use rustix::fs::{AtFlags, StatxFlags};
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Memory alignment demanded of what is written without a copy, where the kernel names none.
const MEMORY_ALIGNMENT: usize = 512;

/// What makes completed writes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushPolicy {
    /// `fdatasync` after the writes: the device has a volatile cache, or a file system lies between.
    Flush,
    /// The device keeps no volatile cache: a completed write is durable.
    WriteThrough,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Geometry {
    pub capacity_bytes: u64,
    pub block_device: bool,
    pub sector_bytes: u32,
    /// Buffers at multiples of this go to the device as they are.
    pub memory_alignment: usize,
    /// False where the file system offers no O_DIRECT (some overlay and network file systems).
    pub direct: bool,
    pub flush: FlushPolicy,
    /// What sysfs says of the device: "write back", "write through", or nothing if it says nothing.
    pub write_cache: Option<String>,
    pub fua: Option<bool>,
    /// The smallest piece that the device discards; `None` if it discards nothing. Files keep their blocks: what was
    /// reserved for a store stays so.
    pub discard_granularity: Option<u64>,
}

impl Geometry {
    pub(crate) fn probe(file: &mut File, path: &Path, direct: bool) -> Result<Geometry, OpenDiskError> {
        let failed = |source| OpenDiskError::Open { path: path.into(), source };
        let metadata = file.metadata().map_err(failed)?;
        let kind = metadata.file_type();
        let block_device = kind.is_block_device();
        if !block_device && !kind.is_file() {
            return Err(OpenDiskError::WrongKind { path: path.into() });
        }
        let capacity_bytes = file.seek(SeekFrom::End(0)).map_err(failed)? / 4096 * 4096;
        let sector_bytes = match block_device {
            true => rustix::fs::ioctl_blksszget(&*file).map_err(|e| failed(e.into()))?,
            false => 512,
        };
        let (memory, offset) = direct_io_alignment(file).unwrap_or((0, 0));
        let sector_bytes = sector_bytes.max(offset);
        if sector_bytes > 4096 {
            return Err(OpenDiskError::SectorSize { path: path.into(), sector_bytes });
        }
        let queue = queue_dir(if block_device { metadata.rdev() } else { metadata.dev() });
        let read = |name: &str| {
            let text = std::fs::read_to_string(queue.as_ref()?.join(name)).ok()?;
            Some(text.trim().to_string())
        };
        let number = |name: &str| read(name)?.parse::<u64>().ok().filter(|&number| number > 0);
        let discards = block_device && number("discard_max_bytes").is_some();
        let write_cache = read("write_cache");
        let flush = match write_cache.as_deref() {
            Some("write through") if block_device && direct => FlushPolicy::WriteThrough,
            _ => FlushPolicy::Flush,
        };
        Ok(Geometry {
            capacity_bytes,
            block_device,
            sector_bytes,
            memory_alignment: MEMORY_ALIGNMENT.max(memory as usize).max(sector_bytes as usize),
            direct,
            flush,
            write_cache,
            fua: read("fua").map(|fua| fua == "1"),
            discard_granularity: number("discard_granularity").filter(|_| discards),
        })
    }

    /// One line for status pages.
    pub fn describe(&self) -> String {
        let kind = if self.block_device { "block device" } else { "file" };
        let direct = if self.direct { "O_DIRECT" } else { "page cache (no O_DIRECT on this file system)" };
        let cache = self.write_cache.as_deref().unwrap_or("unknown");
        let fua = match self.fua {
            Some(true) => "yes",
            Some(false) => "no",
            None => "unknown",
        };
        let flush = match self.flush {
            FlushPolicy::Flush => "fdatasync after each batch of writes",
            FlushPolicy::WriteThrough => "none needed, completed writes are durable",
        };
        let discard = match self.discard_granularity {
            Some(bytes) => format!("in pieces of {bytes} bytes"),
            None => "none".into(),
        };
        format!(
            "{kind} of {} MiB, {direct}, {}-byte sectors, device cache: {cache}, FUA: {fua}, flush: {flush}, \
             discard: {discard}",
            self.capacity_bytes >> 20,
            self.sector_bytes
        )
    }
}

/// (memory, offset) alignment as the kernel knows it since 6.1.
fn direct_io_alignment(file: &File) -> Option<(u32, u32)> {
    let statx = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let known = statx.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
    known.then_some((statx.stx_dio_mem_align, statx.stx_dio_offset_align))
}

/// The queue directory of a device, or of the disk that holds it if it is a partition.
fn queue_dir(device: u64) -> Option<PathBuf> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let base = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    [base.join("queue"), base.join("../queue")].into_iter().find(|dir| dir.is_dir())
}
