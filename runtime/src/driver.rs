//! What runs the machines: daemons' directories, and the reactor loops that carry events in and effects out.

mod client;
mod directory;
mod mon;
mod osd;
mod osd_dir;
mod reactor;
#[cfg(test)]
mod tests;

pub use client::{ConnectError, Connection, connect};
pub use directory::{DirLock, DirectoryError};
pub use mon::{MonParts, run_mon};
pub use osd::{OsdParts, run_osd};
pub use osd_dir::{
    FormatOsd, OpenOsdError, OpenedOsd, OsdIdentity, format_osd, kv_dir, open_osd, osd_identity,
};
pub use reactor::{Ended, block_on};
