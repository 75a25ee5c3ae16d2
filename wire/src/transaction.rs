//! An atomic change to the objects and metadata of one PG: what a primary ships to its replicas and what the store's
//! journal records. Operations apply in order, all or none.
//!
//! A transaction is a small prost body plus data and the data's crc32s, which travel beside the body untouched: the
//! n-th write takes its bytes from the data after those of the writes before it. crcs are per 4 KiB chunk of the
//! object's block grid (see `nacre_types::checksum`), concatenated in the same order.

use crate::{Data, ObjectName};
use bytes::Bytes;
use nacre_types::{ObjectId, PgId, checksum};
use prost::Message as _;
use std::collections::BTreeMap;

/// Most operations in one transaction. Recovery and log trimming cut their work to fit.
pub const OPS_MAX: usize = 4096;
/// Most data bytes in one transaction: a whole 4 MiB object a few times over, well inside a frame.
pub const DATA_BYTES_MAX: usize = 24 << 20;
/// Largest object, as Ceph's default; images use 4 MiB.
pub const OBJECT_BYTES_MAX: u64 = 128 << 20;

#[derive(Clone, PartialEq, prost::Message)]
pub struct TransactionBody {
    #[prost(uint64, tag = "1")]
    pub pg: u64,
    /// Objects that operations name by index.
    #[prost(message, repeated, tag = "2")]
    pub objects: Vec<ObjectName>,
    #[prost(message, repeated, tag = "3")]
    pub ops: Vec<OpMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OpMessage {
    #[prost(oneof = "Op", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15")]
    pub op: Option<Op>,
}

/// One change. `object`, `from` and `to` index the transaction's object table.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Op {
    /// Makes the object exist, empty if it does not.
    #[prost(message, tag = "1")]
    Create(OnObject),
    /// Writes data, growing the object and creating it if needed.
    #[prost(message, tag = "2")]
    Write(OnExtent),
    /// Makes a range read as zeroes and frees its whole blocks; grows the object like a write.
    #[prost(message, tag = "3")]
    Zero(OnExtent),
    /// Sets the size; what is beyond is gone, what is new reads as zeroes. Creates the object.
    #[prost(message, tag = "4")]
    Truncate(OnSize),
    /// Removes the object with its data, xattrs and omap. Removing what does not exist is no error.
    #[prost(message, tag = "5")]
    Remove(OnObject),
    /// Sets xattrs. Creates the object.
    #[prost(message, tag = "6")]
    SetAttrs(OnPairs),
    #[prost(message, tag = "7")]
    RemoveAttrs(OnKeys),
    /// Sets omap pairs. Creates the object.
    #[prost(message, tag = "8")]
    OmapSet(OnPairs),
    #[prost(message, tag = "9")]
    OmapRemove(OnKeys),
    #[prost(message, tag = "10")]
    OmapClear(OnObject),
    /// Makes `to` a copy of `from`, sharing its extents; replaces `to`.
    #[prost(message, tag = "11")]
    Clone(OnTwo),
    /// Moves `from` to `to`; replaces `to`.
    #[prost(message, tag = "12")]
    Rename(OnTwo),
    /// Sets keys of the PG's own metadata (its info, log, missing set).
    #[prost(message, tag = "13")]
    MetaSet(Pairs),
    #[prost(message, tag = "14")]
    MetaRemove(Keys),
    /// Removes the PG's metadata keys in `[first, end)`.
    #[prost(message, tag = "15")]
    MetaRemoveRange(KeyRange),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct OnObject {
    #[prost(uint32, tag = "1")]
    pub object: u32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct OnExtent {
    #[prost(uint32, tag = "1")]
    pub object: u32,
    #[prost(uint64, tag = "2")]
    pub offset: u64,
    #[prost(uint64, tag = "3")]
    pub length: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct OnSize {
    #[prost(uint32, tag = "1")]
    pub object: u32,
    #[prost(uint64, tag = "2")]
    pub size: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct OnTwo {
    #[prost(uint32, tag = "1")]
    pub from: u32,
    #[prost(uint32, tag = "2")]
    pub to: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Pair {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OnPairs {
    #[prost(uint32, tag = "1")]
    pub object: u32,
    #[prost(message, repeated, tag = "2")]
    pub pairs: Vec<Pair>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct OnKeys {
    #[prost(uint32, tag = "1")]
    pub object: u32,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub keys: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Pairs {
    #[prost(message, repeated, tag = "1")]
    pub pairs: Vec<Pair>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Keys {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub keys: Vec<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyRange {
    #[prost(bytes = "bytes", tag = "1")]
    pub first: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub end: Bytes,
}

/// Why bytes are not a transaction.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransactionError {
    #[error("the transaction's body does not decode: {0}")]
    Malformed(String),
    #[error("the transaction names an illegal object: {0}")]
    BadObject(#[from] crate::NameError),
    #[error("operation {op} of the transaction refers to object {index} of {objects}")]
    NoSuchObject { op: usize, index: u32, objects: usize },
    #[error("operation {op} of the transaction is of a kind this version does not know")]
    UnknownOp { op: usize },
    #[error(
        "operation {op} of the transaction reaches byte {end}, beyond the largest object of {OBJECT_BYTES_MAX}"
    )]
    BeyondObject { op: usize, end: u64 },
    #[error("the transaction has {found} {what}, at most {max} are allowed")]
    TooMany { what: &'static str, found: usize, max: usize },
    #[error(
        "the transaction's writes cover {expected} data bytes and {expected_crcs} checksums, but {found} and {found_crcs} came"
    )]
    DataMismatch { expected: usize, expected_crcs: usize, found: usize, found_crcs: usize },
}

/// An atomic change to one PG. Built by the methods below, or decoded and thereby checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Transaction {
    pg: PgId,
    objects: Vec<ObjectId>,
    ops: Vec<Op>,
    /// Data of the writes, in order: one entry a write.
    data: Vec<Data>,
}

impl Transaction {
    pub fn new(pg: PgId) -> Transaction {
        Transaction { pg, objects: Vec::new(), ops: Vec::new(), data: Vec::new() }
    }

    pub fn pg(&self) -> PgId {
        self.pg
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// The object behind an operation's index, which decoding or building has checked.
    pub fn object(&self, index: u32) -> &ObjectId {
        &self.objects[index as usize]
    }

    pub fn objects(&self) -> &[ObjectId] {
        &self.objects
    }

    /// The data of each [`Op::Write`], in their order.
    pub fn writes(&self) -> &[Data] {
        &self.data
    }

    pub fn data_len(&self) -> usize {
        self.data.iter().map(|d| d.bytes.len()).sum()
    }

    /// Appends everything `other` does. Both must be of the same PG.
    pub fn append(&mut self, other: Transaction) {
        assert_eq!(self.pg, other.pg, "transactions of two PGs are not atomic together");
        let map: Vec<u32> = other.objects.iter().map(|o| self.index(o)).collect();
        let at = |i: u32| map[i as usize];
        self.ops.extend(other.ops.into_iter().map(|op| op.reindexed(at)));
        self.data.extend(other.data);
    }

    fn index(&mut self, object: &ObjectId) -> u32 {
        let found = self.objects.iter().rposition(|o| o == object);
        let index = found.unwrap_or_else(|| {
            self.objects.push(object.clone());
            self.objects.len() - 1
        });
        index as u32
    }

    pub fn create(&mut self, object: &ObjectId) {
        let object = self.index(object);
        self.ops.push(Op::Create(OnObject { object }));
    }

    /// Writes `data.bytes` at `offset`; `data.crcs` are its checksums on the object's grid.
    pub fn write(&mut self, object: &ObjectId, offset: u64, data: Data) {
        assert_eq!(data.crcs.len(), checksum::chunk_count(offset, data.bytes.len()), "one crc per chunk");
        let object = self.index(object);
        self.ops.push(Op::Write(OnExtent { object, offset, length: data.bytes.len() as u64 }));
        self.data.push(data);
    }

    pub fn zero(&mut self, object: &ObjectId, offset: u64, length: u64) {
        let object = self.index(object);
        self.ops.push(Op::Zero(OnExtent { object, offset, length }));
    }

    pub fn truncate(&mut self, object: &ObjectId, size: u64) {
        let object = self.index(object);
        self.ops.push(Op::Truncate(OnSize { object, size }));
    }

    pub fn remove(&mut self, object: &ObjectId) {
        let object = self.index(object);
        self.ops.push(Op::Remove(OnObject { object }));
    }

    pub fn set_attr(&mut self, object: &ObjectId, name: &str, value: Bytes) {
        self.set_attrs(object, vec![Pair { key: Bytes::copy_from_slice(name.as_bytes()), value }]);
    }

    pub fn set_attrs(&mut self, object: &ObjectId, pairs: Vec<Pair>) {
        let object = self.index(object);
        self.ops.push(Op::SetAttrs(OnPairs { object, pairs }));
    }

    pub fn remove_attrs(&mut self, object: &ObjectId, keys: Vec<Bytes>) {
        let object = self.index(object);
        self.ops.push(Op::RemoveAttrs(OnKeys { object, keys }));
    }

    pub fn omap_set(&mut self, object: &ObjectId, pairs: Vec<Pair>) {
        let object = self.index(object);
        self.ops.push(Op::OmapSet(OnPairs { object, pairs }));
    }

    pub fn omap_remove(&mut self, object: &ObjectId, keys: Vec<Bytes>) {
        let object = self.index(object);
        self.ops.push(Op::OmapRemove(OnKeys { object, keys }));
    }

    pub fn omap_clear(&mut self, object: &ObjectId) {
        let object = self.index(object);
        self.ops.push(Op::OmapClear(OnObject { object }));
    }

    pub fn clone_object(&mut self, from: &ObjectId, to: &ObjectId) {
        let (from, to) = (self.index(from), self.index(to));
        self.ops.push(Op::Clone(OnTwo { from, to }));
    }

    pub fn rename(&mut self, from: &ObjectId, to: &ObjectId) {
        let (from, to) = (self.index(from), self.index(to));
        self.ops.push(Op::Rename(OnTwo { from, to }));
    }

    pub fn meta_set(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let pair = Pair { key: key.into(), value: value.into() };
        if let Some(Op::MetaSet(last)) = self.ops.last_mut() {
            last.pairs.push(pair);
        } else {
            self.ops.push(Op::MetaSet(Pairs { pairs: vec![pair] }));
        }
    }

    pub fn meta_remove(&mut self, keys: Vec<Bytes>) {
        self.ops.push(Op::MetaRemove(Keys { keys }));
    }

    pub fn meta_remove_range(&mut self, first: impl Into<Bytes>, end: impl Into<Bytes>) {
        self.ops.push(Op::MetaRemoveRange(KeyRange { first: first.into(), end: end.into() }));
    }

    /// The encoded body. Data and crcs travel beside it, from [`Transaction::writes`].
    pub fn encode_body(&self) -> Vec<u8> {
        let body = TransactionBody {
            pg: self.pg.as_u64(),
            objects: self.objects.iter().map(ObjectName::from).collect(),
            ops: self.ops.iter().cloned().map(|op| OpMessage { op: Some(op) }).collect(),
        };
        body.encode_to_vec()
    }

    /// All writes' data as one payload, sharing the bytes where there is only one write.
    pub fn payload(&self) -> Data {
        Data::concat(&self.data)
    }

    /// Decodes and checks: object names, indices, bounds, and that data and checksums are as long as the writes say.
    /// Does not verify the checksums themselves.
    pub fn decode(body: &[u8], payload: Data) -> Result<Transaction, TransactionError> {
        let body = TransactionBody::decode(body).map_err(|e| TransactionError::Malformed(e.to_string()))?;
        let bound = |what, found, max| {
            if found > max { Err(TransactionError::TooMany { what, found, max }) } else { Ok(()) }
        };
        bound("operations", body.ops.len(), OPS_MAX)?;
        bound("objects", body.objects.len(), OPS_MAX)?;
        bound("data bytes", payload.bytes.len(), DATA_BYTES_MAX)?;
        let objects: Vec<ObjectId> = body.objects.iter().map(ObjectName::decode).collect::<Result<_, _>>()?;
        let mut transaction = Transaction::new(PgId::from_u64(body.pg));
        let mut cut = payload.cutter();
        let (mut expected, mut expected_crcs, mut short) = (0, 0, false);
        for (at, op) in body.ops.into_iter().enumerate() {
            let op = op.op.ok_or(TransactionError::UnknownOp { op: at })?;
            for index in op.indices() {
                if index as usize >= objects.len() {
                    let objects = objects.len();
                    return Err(TransactionError::NoSuchObject { op: at, index, objects });
                }
            }
            if let Some(end) = op.reach()
                && end > OBJECT_BYTES_MAX
            {
                return Err(TransactionError::BeyondObject { op: at, end });
            }
            if let Op::Write(extent) = &op {
                let length = extent.length as usize;
                expected += length;
                expected_crcs += checksum::chunk_count(extent.offset, length);
                match cut.next(extent.offset, length) {
                    Some(data) => transaction.data.push(data),
                    None => short = true,
                }
            }
            transaction.ops.push(op);
        }
        if short || !cut.is_done() {
            let (found, found_crcs) = (payload.bytes.len(), payload.crcs.len());
            return Err(TransactionError::DataMismatch { expected, expected_crcs, found, found_crcs });
        }
        transaction.objects = objects;
        Ok(transaction)
    }

    /// The attributes the transaction's `SetAttrs` leave on `object`, later ones winning. For tests and diagnosis.
    pub fn attrs_set(&self, object: &ObjectId) -> BTreeMap<Bytes, Bytes> {
        let mut attrs = BTreeMap::new();
        for op in &self.ops {
            if let Op::SetAttrs(on) = op
                && self.object(on.object) == object
            {
                attrs.extend(on.pairs.iter().map(|p| (p.key.clone(), p.value.clone())));
            }
        }
        attrs
    }
}

impl Op {
    /// The object indices the operation refers to.
    fn indices(&self) -> impl Iterator<Item = u32> {
        let (a, b) = match self {
            Op::Create(o) | Op::Remove(o) | Op::OmapClear(o) => (Some(o.object), None),
            Op::Write(o) | Op::Zero(o) => (Some(o.object), None),
            Op::Truncate(o) => (Some(o.object), None),
            Op::SetAttrs(o) | Op::OmapSet(o) => (Some(o.object), None),
            Op::RemoveAttrs(o) | Op::OmapRemove(o) => (Some(o.object), None),
            Op::Clone(o) | Op::Rename(o) => (Some(o.from), Some(o.to)),
            Op::MetaSet(_) | Op::MetaRemove(_) | Op::MetaRemoveRange(_) => (None, None),
        };
        a.into_iter().chain(b)
    }

    /// The highest object byte the operation touches, where it names one.
    fn reach(&self) -> Option<u64> {
        match self {
            Op::Write(o) | Op::Zero(o) => Some(o.offset.saturating_add(o.length)),
            Op::Truncate(o) => Some(o.size),
            _ => None,
        }
    }

    fn reindexed(self, at: impl Fn(u32) -> u32) -> Op {
        let one = |o: OnObject| OnObject { object: at(o.object) };
        let extent = |o: OnExtent| OnExtent { object: at(o.object), ..o };
        let pairs = |o: OnPairs| OnPairs { object: at(o.object), ..o };
        let keys = |o: OnKeys| OnKeys { object: at(o.object), ..o };
        let two = |o: OnTwo| OnTwo { from: at(o.from), to: at(o.to) };
        match self {
            Op::Create(o) => Op::Create(one(o)),
            Op::Write(o) => Op::Write(extent(o)),
            Op::Zero(o) => Op::Zero(extent(o)),
            Op::Truncate(o) => Op::Truncate(OnSize { object: at(o.object), ..o }),
            Op::Remove(o) => Op::Remove(one(o)),
            Op::SetAttrs(o) => Op::SetAttrs(pairs(o)),
            Op::RemoveAttrs(o) => Op::RemoveAttrs(keys(o)),
            Op::OmapSet(o) => Op::OmapSet(pairs(o)),
            Op::OmapRemove(o) => Op::OmapRemove(keys(o)),
            Op::OmapClear(o) => Op::OmapClear(one(o)),
            Op::Clone(o) => Op::Clone(two(o)),
            Op::Rename(o) => Op::Rename(two(o)),
            meta => meta,
        }
    }
}

#[cfg(test)]
mod tests;
