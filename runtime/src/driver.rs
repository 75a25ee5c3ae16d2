//! What runs the machines: daemons' directories, and the reactor loops that carry events in and effects out.

mod directory;
mod osd_dir;
#[cfg(test)]
mod tests;

pub use directory::{DirLock, DirectoryError};
pub use osd_dir::{FormatOsd, OpenOsdError, OpenedOsd, OsdIdentity, format_osd, open_osd, osd_identity};
