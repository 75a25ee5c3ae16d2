//! Files and block devices under an OSD's store: opened O_DIRECT and locked against a second process, used
//! synchronously before the store is mounted ([`FileDisk`]) and through an io_uring afterwards ([`DiskRing`]).

mod buffer;
mod create;
mod discard;
mod error;
mod file;
mod geometry;
mod lock;
mod ring;
#[cfg(test)]
mod tests;

pub use buffer::{AlignedBuffer, BufferPool};
pub use create::create_file;
pub use error::OpenDiskError;
pub use file::FileDisk;
pub use geometry::{FlushPolicy, Geometry};
pub(crate) use lock::lock_exclusive;
pub use ring::{DiskRing, RingStats};
