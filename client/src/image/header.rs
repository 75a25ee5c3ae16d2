//! The header object: what an image is, read as one and changed under its version.

use super::ImageInfo;
use super::layout::{Layout, header_name};
use crate::{ErrorCode, ObjectRequest, OpError, Pool, Result, SnapContext};
use bytes::Bytes;
use nacre_types::EVersion;
use prost::Message;
use std::collections::BTreeMap;

const FIELDS_KEY: &str = "header";
const SNAP_PREFIX: &str = "snap.";
/// Features a client must know to open the image. None so far.
const FEATURES_KNOWN: u64 = 0;
/// Most snapshots of an image: every write carries them all.
const SNAPSHOTS_MAX: usize = 510;
/// How often a change is tried again when others change the header at the same time.
const UPDATE_ATTEMPTS: usize = 100;

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Fields {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint64, tag = "2")]
    pub(super) size: u64,
    #[prost(uint32, tag = "3")]
    pub(super) order: u32,
    #[prost(uint64, tag = "4")]
    pub(super) features: u64,
    /// Newest snapshot the image ever had.
    #[prost(uint64, tag = "5")]
    pub(super) snap_seq: u64,
    #[prost(uint64, tag = "6")]
    pub(super) created_ms: u64,
    /// Its removal has begun: it can only be removed further.
    #[prost(bool, tag = "7")]
    pub(super) removing: bool,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct SnapshotRecord {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint64, tag = "2")]
    pub(super) size: u64,
    #[prost(uint64, tag = "3")]
    pub(super) created_ms: u64,
    /// Its removal has begun.
    #[prost(bool, tag = "4")]
    pub(super) removing: bool,
}

/// A snapshot of an image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    pub id: u64,
    pub name: String,
    pub size: u64,
    pub created_ms: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Header {
    pub(super) fields: Fields,
    /// By id, those being removed included.
    pub(super) snaps: BTreeMap<u64, SnapshotRecord>,
    pub(super) version: EVersion,
}

impl Header {
    pub(super) fn new(fields: Fields) -> Header {
        Header { fields, snaps: BTreeMap::new(), version: EVersion::ZERO }
    }

    /// Reads it; `NotFound` if there is none.
    pub(super) async fn read(pool: &Pool, id: &str) -> Result<Header> {
        let object = pool.object(header_name(id));
        let request = ObjectRequest::new().omap_get([FIELDS_KEY]).omap_list("", SNAP_PREFIX, 0);
        let response = object.run(request).await?;
        let damaged = |what: &str| {
            OpError::new(ErrorCode::Io, format!("the header of image id {id} is damaged: {what}"))
        };
        let (pairs, _) = response.pairs(0)?;
        let fields = pairs.first().ok_or_else(|| damaged("it has no fields"))?;
        let fields = Fields::decode(&fields.1[..]).map_err(|_| damaged("its fields do not decode"))?;
        if fields.features & !FEATURES_KNOWN != 0 {
            let text = format!(
                "image {} uses features that this version does not know ({:#x}): upgrade the client",
                fields.name,
                fields.features & !FEATURES_KNOWN
            );
            return Err(OpError::new(ErrorCode::NotSupported, text));
        }
        let mut snaps = BTreeMap::new();
        for (key, value) in response.pairs(1)?.0 {
            let number = key.strip_prefix(SNAP_PREFIX.as_bytes()).and_then(|n| std::str::from_utf8(n).ok());
            let number = number.and_then(|n| u64::from_str_radix(n, 16).ok());
            let record = SnapshotRecord::decode(&value[..]).ok();
            let (number, record) = number.zip(record).ok_or_else(|| damaged("a snapshot does not decode"))?;
            snaps.insert(number, record);
        }
        Ok(Header { fields, snaps, version: response.version() })
    }

    /// Makes it: `AlreadyExists` if the id is taken.
    pub(super) async fn create(&self, pool: &Pool, id: &str) -> Result<()> {
        let request = ObjectRequest::new().create(true).omap_set([self.fields_pair()]);
        pool.object(header_name(id)).run(request).await.map(drop)
    }

    fn fields_pair(&self) -> (&'static str, Bytes) {
        (FIELDS_KEY, self.fields.encode_to_vec().into())
    }

    /// Changes it as `change` says, reading anew and trying again while others change it too.
    pub(super) async fn update(
        pool: &Pool,
        id: &str,
        mut change: impl FnMut(&mut Header) -> Result<()>,
    ) -> Result<Header> {
        for _ in 0..UPDATE_ATTEMPTS {
            let before = Header::read(pool, id).await?;
            let mut after = before.clone();
            change(&mut after)?;
            if after == before {
                return Ok(after);
            }
            match after.write(pool, id, &before).await {
                Err(error) if error.code == ErrorCode::Canceled => continue,
                Err(error) => return Err(error),
                Ok(version) => return Ok(Header { version, ..after }),
            }
        }
        let text = format!("the header of image id {id} changes too fast, gave up");
        Err(OpError::new(ErrorCode::Busy, text))
    }

    async fn write(&self, pool: &Pool, id: &str, before: &Header) -> Result<EVersion> {
        if self.snaps.len() > SNAPSHOTS_MAX {
            let text = format!("an image has at most {SNAPSHOTS_MAX} snapshots");
            return Err(OpError::new(ErrorCode::TooLarge, text));
        }
        let changed = self.snaps.iter().filter(|(id, record)| before.snaps.get(id) != Some(record));
        let changed = changed.map(|(&id, record)| (snap_key(id), Bytes::from(record.encode_to_vec())));
        let gone = before.snaps.keys().filter(|id| !self.snaps.contains_key(id)).map(|&id| snap_key(id));
        let (fields_key, fields) = self.fields_pair();
        let request = ObjectRequest::new()
            .assert_version(before.version)
            .omap_set(changed.chain([(fields_key.to_string(), fields)]))
            .omap_remove(gone);
        // Shrinking and removing images and snapshots must work where there is no room for anything else.
        Ok(pool.even_if_full().object(header_name(id)).run(request).await?.version())
    }

    pub(super) fn layout(&self) -> Result<Layout> {
        Layout::new(self.fields.order)
    }

    /// Snapshots that can be used, oldest first.
    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        let usable = self.snaps.iter().filter(|(_, record)| !record.removing);
        let snapshot = |(&id, record): (&u64, &SnapshotRecord)| Snapshot {
            id,
            name: record.name.clone(),
            size: record.size,
            created_ms: record.created_ms,
        };
        usable.map(snapshot).collect()
    }

    pub(super) fn snapshot(&self, name: &str) -> Result<Snapshot> {
        self.snapshots().into_iter().find(|snapshot| snapshot.name == name).ok_or_else(|| {
            let text = format!("image {} has no snapshot '{name}'", self.fields.name);
            OpError::new(ErrorCode::NotFound, text)
        })
    }

    pub(super) fn snap_context(&self) -> SnapContext {
        let snaps: Vec<u64> =
            self.snaps.iter().rev().filter(|(_, record)| !record.removing).map(|(&id, _)| id).collect();
        SnapContext { seq: self.fields.snap_seq, snaps }
    }

    pub(super) fn info(&self, id: &str) -> ImageInfo {
        let layout = self.layout().ok();
        ImageInfo {
            name: self.fields.name.clone(),
            id: id.into(),
            size: self.fields.size,
            order: self.fields.order,
            object_bytes: layout.map_or(0, |layout| layout.object_bytes()),
            objects: layout.map_or(0, |layout| layout.objects(self.fields.size)),
            created_ms: self.fields.created_ms,
            snapshots: self.snapshots(),
        }
    }
}

fn snap_key(id: u64) -> String {
    format!("{SNAP_PREFIX}{id:016x}")
}
