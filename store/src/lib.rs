//! The object store engine of one OSD: atomic transactions over objects, journaled, checksummed, indexed.

mod disk;
mod kv;
mod object_store;

pub use disk::{DiskDone, DiskError, DiskRequest, DiskSync};
pub use kv::{Kv, KvError, KvOp};
pub use object_store::{OSD_META, ObjectStat, ObjectStore, StoreError, StoreEvent, StoreStats, Usage};
