//! The bodies of all messages but object operations (see `op`), by who speaks them.

mod monitor;
mod peer;

pub use monitor::*;
pub use peer::*;
