//! The NBD gateway: serves block exports to any NBD client over TCP and UNIX sockets.
//!
//! The crate knows the protocol and nothing about the cluster: what it serves, it reaches through [`Exports`] and
//! [`Export`]. It links neither the client nor the runtime, so it builds and tests in seconds.
//!
//! ```text
//!   client ──► server (accept, limits) ──► session
//!                                           ├─ handshake ─────► Exports::lookup / list
//!                                           └─ transmission ──► Export::read / write / ...
//!                                               │   many in flight, replies in order of completion
//!                              protocol (bytes <-> values, no I/O)
//! ```
//!
//! Guarantees:
//! - Nothing a client sends makes the server panic, or hold more memory than [`Config`] allows.
//! - A reply is sent only after the export's future completed, so what the export calls done is what the client hears.
//! - A request that was started runs to its end, also when its client is gone: no write is torn by a disconnect.
//!
//! Everything runs on one `current_thread` runtime inside a `LocalSet`: exports are `Rc`, and no locks are needed.

mod config;
mod export;
pub mod protocol;
mod server;
mod session;
mod stats;

pub use config::{Config, ConfigError};
pub use export::{
    BlockSizes, Export, ExportError, ExportFuture, ExportInfo, Exports, Extent, ExtentState, Failure, Segment,
};
pub use protocol::Errno;
pub use server::{ServeError, Server, StopHandle};
pub use stats::Stats;
