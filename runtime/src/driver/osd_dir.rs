//! The directory of one OSD: made once, opened by one process at a time.
//!
//! ```text
//! osd.toml         who it is; written last, so that what has it is complete
//! data             its disk: a file, or a symbolic link to a block device
//! kv/              its index (RocksDB)
//! keyring.nacre    its credentials, put there by whoever adds the OSD to the cluster
//! settings.toml    what its daemon must know before it can ask the cluster
//! formatting       there while it is being made
//! lock             held by the process that uses it
//! ```

use super::directory::{self, DirLock, DirectoryError};
use crate::disk::{FileDisk, OpenDiskError, create_file};
use crate::kv::{KvConfig, KvFlushes, RocksKv};
use nacre_store::{FormatError, FormatOptions, KvError, OpenError, Store, StoreConfig, Superblock};
use nacre_types::OsdId;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The layout this version makes, and the newest it opens.
const VERSION: u32 = 1;
const IDENTITY_FILE: &str = "osd.toml";
/// May be there before the OSD is.
const KEYRING_FILE: &str = "keyring.nacre";
const SETTINGS_FILE: &str = "settings.toml";
const FORMATTING_FILE: &str = "formatting";

/// Who an OSD is: the content of `osd.toml`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OsdIdentity {
    pub version: u32,
    /// The cluster it belongs to.
    pub fsid: String,
    pub osd: u32,
    /// Names its store for ever.
    pub uuid: String,
    /// The block device behind `data`, if it is no file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PathBuf>,
}

/// What a new OSD is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FormatOsd {
    pub fsid: String,
    pub osd: OsdId,
    pub uuid: String,
    /// A block device (or an existing file) to use, or none to make a file of `bytes` in the directory.
    pub device: Option<PathBuf>,
    pub bytes: u64,
    pub journal_bytes: u64,
    /// Whether the device is told that it need not keep what it held.
    pub discard: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenOsdError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(
        "{path} holds no OSD: there is no {IDENTITY_FILE}; check the path, or make one with `nacre osd format`"
    )]
    NotAnOsd { path: PathBuf },
    #[error("{path} is half formatted: making it was interrupted; run `nacre osd format` again")]
    HalfFormatted { path: PathBuf },
    #[error(
        "{path} has layout {found}, this version knows up to {VERSION}; start the newer version that wrote it"
    )]
    NewerFormat { path: PathBuf, found: u32 },
    #[error("{path}: {reason}")]
    Invalid { path: PathBuf, reason: String },
    #[error(
        "{path} belongs to cluster {found}, not to {expected}; give it the credentials of its cluster, or another directory"
    )]
    OtherCluster { path: PathBuf, found: String, expected: String },
    #[error("{path} holds osd.{found}, not osd.{expected}")]
    OtherOsd { path: PathBuf, found: u32, expected: u32 },
    #[error(
        "{path}: the disk belongs to the store {disk}, the directory to {directory}; was a device exchanged?"
    )]
    OtherDisk { path: PathBuf, disk: String, directory: String },
    #[error("{path} already holds osd.{osd} of cluster {fsid}; choose an empty directory")]
    AlreadyFormatted { path: PathBuf, osd: u32, fsid: String },
    #[error("{path} is not empty; choose an empty directory")]
    NotEmpty { path: PathBuf },
    #[error(transparent)]
    Disk(#[from] OpenDiskError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("{path}: {source}")]
    Format { path: PathBuf, source: FormatError },
    #[error("{path}: {source}")]
    Store { path: PathBuf, source: OpenError },
}

/// An OSD's directory, locked, with its store mounted.
pub struct OpenedOsd {
    pub lock: DirLock,
    pub identity: OsdIdentity,
    pub superblock: Superblock,
    pub disk: FileDisk,
    pub store: Store<RocksKv>,
    pub flushes: KvFlushes,
}

/// Makes an OSD's directory. What an interrupted attempt has left is made anew.
pub fn format_osd(dir: &Path, options: &FormatOsd, kv: &KvConfig) -> Result<OsdIdentity, OpenOsdError> {
    let _lock = DirLock::create(dir)?;
    match read_identity(dir) {
        Ok(old) => {
            return Err(OpenOsdError::AlreadyFormatted { path: dir.into(), osd: old.osd, fsid: old.fsid });
        }
        Err(OpenOsdError::HalfFormatted { .. }) => clear_half_formatted(dir)?,
        Err(OpenOsdError::NotAnOsd { .. }) => {
            if !directory::is_empty(dir, &[KEYRING_FILE, SETTINGS_FILE])? {
                return Err(OpenOsdError::NotEmpty { path: dir.into() });
            }
        }
        Err(other) => return Err(other),
    }
    directory::replace_file(&dir.join(FORMATTING_FILE), "")?;
    let data = dir.join("data");
    let device = match &options.device {
        Some(device) => {
            let device = std::fs::canonicalize(device).map_err(DirectoryError::io(device))?;
            std::os::unix::fs::symlink(&device, &data).map_err(DirectoryError::io(&data))?;
            Some(device)
        }
        None => {
            create_file(&data, options.bytes)?;
            None
        }
    };
    let mut disk = FileDisk::open(&data)?;
    let (mut index, _flushes) = RocksKv::create(&kv_dir(dir), kv)?;
    let store = FormatOptions {
        fsid: options.fsid.clone(),
        osd_uuid: options.uuid.clone(),
        osd: options.osd,
        journal_bytes: options.journal_bytes,
        discard: options.discard,
    };
    nacre_store::format(&mut disk, &mut index, store)
        .map_err(|source| OpenOsdError::Format { path: data.clone(), source })?;
    let identity = OsdIdentity {
        version: VERSION,
        fsid: options.fsid.clone(),
        osd: options.osd.0,
        uuid: options.uuid.clone(),
        device,
    };
    let text = toml::to_string(&identity).map_err(|error| OpenOsdError::Invalid {
        path: dir.join(IDENTITY_FILE),
        reason: error.to_string(),
    })?;
    directory::replace_file(&dir.join(IDENTITY_FILE), &text)?;
    std::fs::remove_file(dir.join(FORMATTING_FILE)).map_err(DirectoryError::io(dir))?;
    directory::sync_dir(dir)?;
    Ok(identity)
}

/// Locks the directory and mounts the store. `expected` is what the caller's credentials say: cluster and OSD.
pub fn open_osd(
    dir: &Path,
    expected: Option<(&str, OsdId)>,
    kv: &KvConfig,
    store: StoreConfig,
) -> Result<OpenedOsd, OpenOsdError> {
    let lock = DirLock::take(dir)?;
    let identity = read_identity(dir)?;
    let path = dir.to_path_buf();
    if let Some((fsid, osd)) = expected {
        if identity.fsid != fsid {
            return Err(OpenOsdError::OtherCluster { path, found: identity.fsid, expected: fsid.into() });
        }
        if identity.osd != osd.0 {
            return Err(OpenOsdError::OtherOsd { path, found: identity.osd, expected: osd.0 });
        }
    }
    let data = dir.join("data");
    let mut disk = FileDisk::open(&data)?;
    let failed = |source| OpenOsdError::Store { path: data.clone(), source };
    let superblock = nacre_store::inspect(&mut disk).map_err(failed)?;
    if superblock.fsid != identity.fsid {
        let (found, expected) = (superblock.fsid, identity.fsid);
        return Err(OpenOsdError::OtherCluster { path: data, found, expected });
    }
    if superblock.osd_uuid != identity.uuid {
        let (disk, directory) = (superblock.osd_uuid, identity.uuid);
        return Err(OpenOsdError::OtherDisk { path: data, disk, directory });
    }
    let (index, flushes) = RocksKv::open(&kv_dir(dir), kv)?;
    let store = Store::mount(&mut disk, index, store).map_err(failed)?;
    Ok(OpenedOsd { lock, identity, superblock, disk, store, flushes })
}

/// Who lives in a directory, without touching anything.
pub fn osd_identity(dir: &Path) -> Result<OsdIdentity, OpenOsdError> {
    if !dir.is_dir() {
        return Err(DirectoryError::Missing { path: dir.into() }.into());
    }
    read_identity(dir)
}

/// The index's directory, for fsck.
pub fn kv_dir(dir: &Path) -> PathBuf {
    dir.join("kv")
}

fn read_identity(dir: &Path) -> Result<OsdIdentity, OpenOsdError> {
    let path = dir.join(IDENTITY_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let path = dir.to_path_buf();
            return Err(match dir.join(FORMATTING_FILE).exists() {
                true => OpenOsdError::HalfFormatted { path },
                false => OpenOsdError::NotAnOsd { path },
            });
        }
        Err(source) => return Err(DirectoryError::Io { path, source }.into()),
    };
    // The version first: a newer layout may have fields that are unknown here.
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let invalid =
        |error: toml::de::Error| OpenOsdError::Invalid { path: path.clone(), reason: error.to_string() };
    let Version { version } = toml::from_str(&text).map_err(invalid)?;
    if version > VERSION {
        return Err(OpenOsdError::NewerFormat { path: dir.into(), found: version });
    }
    toml::from_str(&text).map_err(invalid)
}

/// Removes what an interrupted format has made. A device is left as it is: the store formats over a half formatted one
/// and refuses a complete one.
fn clear_half_formatted(dir: &Path) -> Result<(), OpenOsdError> {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let data = dir.join("data");
    match std::fs::remove_file(&data) {
        Err(error) if !absent(&error) => return Err(DirectoryError::Io { path: data, source: error }.into()),
        _ => {}
    }
    let kv = kv_dir(dir);
    match std::fs::remove_dir_all(&kv) {
        Err(error) if !absent(&error) => Err(DirectoryError::Io { path: kv, source: error }.into()),
        _ => Ok(()),
    }
}
