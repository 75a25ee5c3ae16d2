//! The OSD: one reactor, many PGs, one store. [`Osd`] is a [`nacre_types::Machine`]; `runtime` and `sim` drive it.
//!
//! **Architecture Invariant:** protocol only: no I/O, no clock, no randomness but the seed's. An acknowledgement leaves
//! only while the commit of what it promises is handled.

mod config;
mod event;
pub mod log;
pub mod ops;
pub mod pg;
pub mod snaps;
mod token;
pub mod watch;

pub use config::{OsdConfig, Tunables};
pub use event::{OsdEffect, OsdEvent};
