//! Directories of OSDs: what is made, and what is refused.

use crate::driver::*;
use crate::kv::KvConfig;
use nacre_store::StoreConfig;
use nacre_types::OsdId;
use std::path::Path;

fn options() -> FormatOsd {
    FormatOsd {
        fsid: "cluster-1".into(),
        osd: OsdId(3),
        uuid: "uuid-3".into(),
        device: None,
        bytes: 64 << 20,
        journal_bytes: 4 << 20,
        discard: true,
    }
}

fn open(dir: &Path, fsid: &str, osd: u32) -> Result<OpenedOsd, OpenOsdError> {
    open_osd(dir, Some((fsid, OsdId(osd))), &KvConfig::default(), StoreConfig::default())
}

#[test]
fn a_formatted_osd_opens_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("osd.3");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("keyring.nacre"), "").unwrap();
    let identity = format_osd(&dir, &options(), &KvConfig::default()).unwrap();
    assert_eq!(osd_identity(&dir).unwrap(), identity);
    let opened = open(&dir, "cluster-1", 3).unwrap();
    assert_eq!(opened.superblock.osd_uuid, "uuid-3");
    match open(&dir, "cluster-1", 3).err().unwrap() {
        OpenOsdError::Directory(DirectoryError::InUse { holder, .. }) => {
            assert!(holder.contains("this process"))
        }
        other => panic!("{other}"),
    }
    drop(opened);
    drop(open(&dir, "cluster-1", 3).unwrap());
    let again = format_osd(&dir, &options(), &KvConfig::default()).unwrap_err();
    assert!(matches!(again, OpenOsdError::AlreadyFormatted { osd: 3, .. }), "{again}");
}

#[test]
fn a_wrong_directory_is_named() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("osd.3");
    format_osd(&dir, &options(), &KvConfig::default()).unwrap();
    assert!(matches!(open(&dir, "cluster-2", 3), Err(OpenOsdError::OtherCluster { .. })));
    assert!(matches!(open(&dir, "cluster-1", 4), Err(OpenOsdError::OtherOsd { found: 3, expected: 4, .. })));
    let empty = root.path().join("empty");
    assert!(matches!(
        open(&empty, "cluster-1", 3),
        Err(OpenOsdError::Directory(DirectoryError::Missing { .. }))
    ));
    std::fs::create_dir(&empty).unwrap();
    assert!(matches!(open(&empty, "cluster-1", 3), Err(OpenOsdError::NotAnOsd { .. })));
    let text = std::fs::read_to_string(dir.join("osd.toml")).unwrap();
    std::fs::write(dir.join("osd.toml"), text.replace("version = 1", "version = 9\ncolour = 'blue'"))
        .unwrap();
    assert!(matches!(open(&dir, "cluster-1", 3), Err(OpenOsdError::NewerFormat { found: 9, .. })));
    std::fs::write(dir.join("osd.toml"), format!("{text}colour = 'blue'\n")).unwrap();
    assert!(matches!(open(&dir, "cluster-1", 3), Err(OpenOsdError::Invalid { .. })));
    std::fs::write(dir.join("osd.toml"), text.replace("uuid-3", "uuid-4")).unwrap();
    assert!(matches!(open(&dir, "cluster-1", 3), Err(OpenOsdError::OtherDisk { .. })));
    let full = root.path().join("full");
    std::fs::create_dir(&full).unwrap();
    std::fs::write(full.join("letters"), "precious").unwrap();
    assert!(matches!(
        format_osd(&full, &options(), &KvConfig::default()),
        Err(OpenOsdError::NotEmpty { .. })
    ));
}

#[test]
fn a_half_formatted_directory_is_named_and_can_be_formatted_again() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("osd.3");
    let too_small = FormatOsd { bytes: 4 << 20, ..options() };
    assert!(matches!(format_osd(&dir, &too_small, &KvConfig::default()), Err(OpenOsdError::Format { .. })));
    assert!(matches!(open(&dir, "cluster-1", 3), Err(OpenOsdError::HalfFormatted { .. })));
    format_osd(&dir, &options(), &KvConfig::default()).unwrap();
    drop(open(&dir, "cluster-1", 3).unwrap());
}
