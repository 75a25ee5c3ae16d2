//! Administration: each module is one noun of the command line. They ask the monitors, or an OSD, and print the answer.

pub mod auth;
pub mod bench;
pub mod config;
mod context;
pub mod crush;
pub mod explain;
pub mod image;
pub mod mon;
pub mod nbd;
pub mod object;
pub mod osd;
pub mod osd_local;
pub mod pg;
pub mod pool;
pub mod slow;
pub mod status;

pub use context::Context;
