//! The object store engine of one OSD: atomic transactions over objects, journaled, checksummed, indexed.

mod disk;
mod kv;

pub use disk::{DiskDone, DiskError, DiskRequest, DiskSync};
pub use kv::{Kv, KvError, KvOp};
