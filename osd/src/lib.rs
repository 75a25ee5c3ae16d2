//! The OSD: one reactor, many PGs, one store. [`Osd`] is a [`nacre_types::Machine`]; `runtime` and `sim` drive it.
//!
//! **Architecture Invariant:** protocol only: no I/O, no clock, no randomness but the seed's. An acknowledgement leaves
//! only while the commit of what it promises is handled.

mod backfill;
mod config;
mod event;
pub mod explain;
mod heartbeat;
pub mod log;
mod maps_keeper;
pub mod ops;
mod osd;
mod peering;
pub mod pg;
pub mod recovery;
mod replication;
mod scrub;
pub mod snaps;
mod space;
mod stages;
#[cfg(test)]
mod testing;
mod token;
pub mod watch;

pub use config::{OsdConfig, Tunables};
pub use event::{OsdEffect, OsdEvent};
pub use osd::{OpenError, Osd};
pub use peering::{Choice, PriorSet, Sizes, choose_acting};

#[cfg(test)]
mod tests;
