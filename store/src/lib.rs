//! The object store engine of one OSD: atomic transactions over objects, journaled, checksummed, indexed.
//!
//! **Architecture Invariant:** no I/O, no threads, no clock here. The store emits [`DiskRequest`]s and is told of their
//! ends; its index is behind [`Kv`]. What it guarantees after a crash at any step: every committed transaction, and
//! exactly a prefix of those submitted.

mod allocator;
mod apply;
mod changes;
mod checkpoint;
mod codec;
mod commit;
mod deferred;
mod discard;
mod disk;
mod engine;
mod format;
mod fsck;
mod index;
mod io;
mod journal;
mod kv;
mod merge;
mod mount;
mod object_store;
mod read;
mod store;
mod superblock;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod write;

#[cfg(test)]
mod tests;

pub use changes::{Changes, KeyRanges};
pub use disk::{DiskDone, DiskError, DiskRequest, DiskSync};
pub use format::{FormatError, FormatOptions, format, wipe};
pub use fsck::{FsckError, FsckReport, fsck};
pub use kv::{Kv, KvError, KvOp};
pub use object_store::{OSD_META, ObjectStat, ObjectStore, StoreError, StoreEvent, StoreStats, Usage};
pub use store::{ReplayReport, Store, StoreConfig};
pub use superblock::{FORMAT_VERSION, JOURNAL_BYTES_MIN, OpenError, Superblock, inspect};
