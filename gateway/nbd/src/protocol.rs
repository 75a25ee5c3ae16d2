//! The NBD wire protocol as pure functions between bytes and values: no I/O, no state, nothing unbounded.
//!
//! Source: <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>, with the extended headers of its
//! branch `extension-ext-header`. All integers are big-endian.
//!
//! - [`constants`]: magic numbers, flags and codes under the names the document gives them, and our bounds.
//! - [`option`]: the handshake, client to server; [`option_reply`]: server to client.
//! - [`request`]: transmission, client to server, and which requests are in order; [`reply`]: server to client.

mod constants;
mod errno;
pub mod option;
pub mod option_reply;
pub mod reply;
pub mod request;

pub use constants::*;
pub use errno::Errno;
