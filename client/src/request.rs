//! Several operations on one object that take effect together, and what they answered.

use crate::{Object, Result};
use bytes::Bytes;
use nacre_types::EVersion;
use nacre_types::{BLOCK, Epoch};
use nacre_wire::op::{
    CompareXattr, Comparison, Create, Empty, Extent, ExtentList, Key, KeyList, Lock, ObjectOp, ObjectOpKind,
    OmapList, OpResult, PairList, Size, SnapList, StatReply, Version,
};
use nacre_wire::transaction::Pair;
use nacre_wire::{Data, ErrorCode, OpError};
use prost::Message;

/// Operations to be sent as one request, in order. Answers are found by the operation's number, from 0.
#[derive(Clone, Debug, Default)]
pub struct ObjectRequest {
    pub(crate) ops: Vec<ObjectOp>,
    pub(crate) data: Vec<Data>,
}

impl ObjectRequest {
    pub fn new() -> ObjectRequest {
        ObjectRequest::default()
    }

    pub fn len(&self) -> usize {
        self.ops.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Any operation that takes no payload.
    pub fn op(mut self, kind: ObjectOpKind) -> ObjectRequest {
        self.ops.push(kind.into());
        self
    }

    fn with(mut self, kind: ObjectOpKind, offset: u64, bytes: Bytes) -> ObjectRequest {
        self.data.push(Data::checksummed(offset, bytes));
        self.ops.push(kind.into());
        self
    }

    pub fn create(self, exclusive: bool) -> ObjectRequest {
        self.op(ObjectOpKind::Create(Create { exclusive }))
    }

    pub fn read(self, offset: u64, length: u64) -> ObjectRequest {
        self.op(ObjectOpKind::Read(Extent { offset, length }))
    }

    pub fn write(self, offset: u64, bytes: impl Into<Bytes>) -> ObjectRequest {
        let bytes = bytes.into();
        self.with(ObjectOpKind::Write(extent(offset, &bytes)), offset, bytes)
    }

    pub fn write_full(self, bytes: impl Into<Bytes>) -> ObjectRequest {
        let bytes = bytes.into();
        self.with(ObjectOpKind::WriteFull(extent(0, &bytes)), 0, bytes)
    }

    pub fn append(self, bytes: impl Into<Bytes>) -> ObjectRequest {
        let bytes = bytes.into();
        self.with(ObjectOpKind::Append(extent(0, &bytes)), 0, bytes)
    }

    /// Fails with `Canceled` unless the object holds these bytes there (zeroes beyond its end).
    pub fn compare(self, offset: u64, bytes: impl Into<Bytes>) -> ObjectRequest {
        let bytes = bytes.into();
        self.with(ObjectOpKind::Compare(extent(offset, &bytes)), offset, bytes)
    }

    pub fn truncate(self, size: u64) -> ObjectRequest {
        self.op(ObjectOpKind::Truncate(Size { size }))
    }

    pub fn zero(self, offset: u64, length: u64) -> ObjectRequest {
        self.op(ObjectOpKind::Zero(Extent { offset, length }))
    }

    pub fn remove(self) -> ObjectRequest {
        self.op(ObjectOpKind::Remove(Empty {}))
    }

    pub fn stat(self) -> ObjectRequest {
        self.op(ObjectOpKind::Stat(Empty {}))
    }

    pub fn assert_version(self, version: EVersion) -> ObjectRequest {
        self.op(ObjectOpKind::AssertVersion(Version { epoch: version.epoch.0, seq: version.seq }))
    }

    pub fn get_xattr(self, name: impl AsRef<[u8]>) -> ObjectRequest {
        self.op(ObjectOpKind::GetXattr(key(name)))
    }

    pub fn get_xattrs(self) -> ObjectRequest {
        self.op(ObjectOpKind::GetXattrs(Empty {}))
    }

    pub fn set_xattr(self, name: impl AsRef<[u8]>, value: impl Into<Bytes>) -> ObjectRequest {
        self.op(ObjectOpKind::SetXattr(Pair { key: key(name).key, value: value.into() }))
    }

    pub fn remove_xattr(self, name: impl AsRef<[u8]>) -> ObjectRequest {
        self.op(ObjectOpKind::RemoveXattr(key(name)))
    }

    pub fn compare_xattr(
        self,
        name: impl AsRef<[u8]>,
        comparison: Comparison,
        value: impl Into<Bytes>,
    ) -> ObjectRequest {
        let (key, value, comparison) = (key(name).key, value.into(), comparison as i32);
        self.op(ObjectOpKind::CompareXattr(CompareXattr { key, value, comparison }))
    }

    pub fn omap_get<K: AsRef<[u8]>>(self, keys: impl IntoIterator<Item = K>) -> ObjectRequest {
        self.op(ObjectOpKind::OmapGet(key_list(keys)))
    }

    /// Pairs after `after` that start with `prefix`; an `entries_max` of 0 asks for as many as one answer holds.
    pub fn omap_list(
        self,
        after: impl AsRef<[u8]>,
        prefix: impl AsRef<[u8]>,
        entries_max: u32,
    ) -> ObjectRequest {
        let (after, prefix) = (key(after).key, key(prefix).key);
        self.op(ObjectOpKind::OmapList(OmapList { after, prefix, entries_max }))
    }

    pub fn omap_set<K: AsRef<[u8]>, V: Into<Bytes>>(
        self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> ObjectRequest {
        let pairs = pairs.into_iter().map(|(k, v)| Pair { key: key(k).key, value: v.into() }).collect();
        self.op(ObjectOpKind::OmapSet(PairList { pairs, more: false }))
    }

    pub fn omap_remove<K: AsRef<[u8]>>(self, keys: impl IntoIterator<Item = K>) -> ObjectRequest {
        self.op(ObjectOpKind::OmapRemove(key_list(keys)))
    }

    pub fn omap_clear(self) -> ObjectRequest {
        self.op(ObjectOpKind::OmapClear(Empty {}))
    }

    pub fn map_extents(self, offset: u64, length: u64) -> ObjectRequest {
        self.op(ObjectOpKind::MapExtents(Extent { offset, length }))
    }

    pub fn list_snaps(self) -> ObjectRequest {
        self.op(ObjectOpKind::ListSnaps(Empty {}))
    }

    /// Fails with `Fenced` unless this client holds the lock: put before writes, it fences them.
    pub fn assert_locked(self, name: &str, cookie: &str) -> ObjectRequest {
        let lock = Lock { name: name.into(), cookie: cookie.into(), ..Lock::default() };
        self.op(ObjectOpKind::AssertLocked(lock))
    }

    /// Sends it. The error is that of the first operation that failed, and then nothing took effect.
    pub async fn run(self, object: &Object) -> Result<Response> {
        object.run(self).await
    }
}

fn extent(offset: u64, bytes: &Bytes) -> Extent {
    Extent { offset, length: bytes.len() as u64 }
}

fn key(name: impl AsRef<[u8]>) -> Key {
    Key { key: Bytes::copy_from_slice(name.as_ref()) }
}

fn key_list<K: AsRef<[u8]>>(keys: impl IntoIterator<Item = K>) -> KeyList {
    KeyList { keys: keys.into_iter().map(|k| key(k).key).collect() }
}

pub(crate) fn undecodable(error: prost::DecodeError) -> OpError {
    OpError::new(ErrorCode::Internal, format!("the OSD's answer does not decode: {error}"))
}

/// What the operations of a request answered. Asking for the wrong kind of answer is an error, not a panic.
#[derive(Clone, Debug, Default)]
pub struct Response {
    results: Vec<OpResult>,
    data: Vec<Data>,
    version: EVersion,
}

impl Response {
    pub(crate) fn new(reply: nacre_wire::op::OsdOpReply, data: &Data) -> Response {
        let version = reply.version.unwrap_or_default();
        let version = EVersion::new(Epoch(version.epoch), version.seq);
        let single = reply.results.iter().filter(|r| r.length > 0).count() <= 1;
        let mut cut = data.cutter();
        let mut piece = |result: &OpResult| match (result.length, single) {
            (0, _) => Data::default(),
            // Nothing to cut: the checksums have been verified and are not needed any more.
            (_, true) => Data { bytes: data.bytes.clone(), crcs: Vec::new() },
            (length, false) => cut.next(result.offset, length as usize).unwrap_or_default(),
        };
        let data = reply.results.iter().map(&mut piece).collect();
        Response { results: reply.results, data, version }
    }

    /// The object's version after the request.
    pub fn version(&self) -> EVersion {
        self.version
    }

    /// Data that operation `at` read.
    pub fn data(&self, at: usize) -> Bytes {
        self.data.get(at).map(|data| data.bytes.clone()).unwrap_or_default()
    }

    pub(crate) fn answer(&self, at: usize) -> Bytes {
        self.results.get(at).map(|result| result.answer.clone()).unwrap_or_default()
    }

    pub fn stat(&self, at: usize) -> Result<StatReply> {
        StatReply::decode(self.answer(at)).map_err(undecodable)
    }

    /// Pairs of `get_xattrs`, `omap_get` or `omap_list`, and whether more follow.
    pub fn pairs(&self, at: usize) -> Result<(Vec<(Bytes, Bytes)>, bool)> {
        let list = PairList::decode(self.answer(at)).map_err(undecodable)?;
        Ok((list.pairs.into_iter().map(|pair| (pair.key, pair.value)).collect(), list.more))
    }

    /// Allocated parts, as (offset, length).
    pub fn extents(&self, at: usize) -> Result<Vec<(u64, u64)>> {
        let list = ExtentList::decode(self.answer(at)).map_err(undecodable)?;
        Ok(list.extents.iter().map(|e| (e.offset, e.length)).collect())
    }

    pub fn snaps(&self, at: usize) -> Result<SnapList> {
        SnapList::decode(self.answer(at)).map_err(undecodable)
    }
}

const _: () = assert!(BLOCK == 4096, "checksums on the wire are per 4 KiB");
