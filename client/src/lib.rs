//! The client of a cluster: objects, block images, and the commands of the monitors and OSDs.
//!
//! ```text
//!  Image, Pool, Cluster   async API: plain futures, one thread, any executor
//!         |
//!     Objecter            machine: routes by the osdmap, resends, keeps order, times out
//!         |
//!  ClientEvent / ClientEffect   the driver's (runtime or sim): sessions, clock
//! ```
//!
//! **Architecture Invariant:** no executor, clock, socket or thread here. The driver steps the machine behind
//! [`Cluster`] and polls nothing; whoever calls the API polls its own futures.

mod cluster;
mod concurrent;
mod config;
mod event;
pub mod image;
mod list;
mod locks;
mod objecter;
mod pool;
mod request;
mod slot;
mod watch;

pub use cluster::Cluster;
pub use config::ClientConfig;
pub use event::{ClientEffect, ClientEvent};
pub use image::{Image, OpenOptions};
pub use list::{ListCursor, ListedObject};
pub use locks::{Lease, LockRequest};
pub use nacre_wire::{ErrorCode, OpError};
pub use objecter::{MonitorContact, Objecter, Waiting};
pub use pool::{Object, Pool, SnapContext};
pub use request::{ObjectRequest, Response};
pub use watch::{Notice, WatchStream};

/// What every operation of this crate returns.
pub type Result<T> = std::result::Result<T, OpError>;

#[cfg(test)]
mod tests;
