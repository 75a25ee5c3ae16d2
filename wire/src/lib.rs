//! Everything that crosses a wire or is kept on a disk, as values: frames, packets, every message, object operations,
//! and the transactions that replicas ship to each other and the store's journal keeps.
//!
//! **Architecture Invariant:** no I/O and no decisions here. Whatever decodes bytes bounds every length before it
//! allocates, never panics, and says what was wrong; unknown fields pass, unknown message kinds are refused by name.

mod error;
pub mod frame;
pub mod messages;
mod object_name;
pub mod op;
pub mod packet;
pub mod peer;
pub mod stages;
pub mod transaction;

pub use error::{ErrorCode, OpError};
pub use frame::{Frame, FrameDecoder, FrameError};
pub use object_name::{NameError, ObjectName};
pub use packet::{Data, Lane, Message, Packet};
pub use peer::{Address, Peer, SessionId};
pub use transaction::Transaction;
