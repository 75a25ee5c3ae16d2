//! The metadata kept in the `Kv`: key layout, value formats, and the overlay of changes not yet in it.

pub(crate) mod cache;
pub(crate) mod keys;
pub(crate) mod onode;
pub(crate) mod overlay;
pub(crate) mod references;
pub(crate) mod shard;
pub(crate) mod state;
