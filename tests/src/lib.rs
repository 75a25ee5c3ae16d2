//! What the end-to-end tests share: a dev cluster of real processes run by the real binary, a small NBD client of its
//! own, and a writer of self-describing blocks that remembers outside the cluster what was acknowledged.

pub mod cluster;
pub mod daemon;
pub mod mounts;
pub mod nbd;
pub mod sample;
pub mod thrash;
pub mod tool;
pub mod writer;
