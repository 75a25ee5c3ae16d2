//! Replication: a primary ships each write to all members and counts their commits; members apply in order; read leases
//! keep a fenced primary from serving.
//!
//! ```text
//!  primary   execute -> RepOps out -> local submit ---- Committed(v) --+
//!  replica              RepOp in -> submit -- Committed(v) -> RepOpReply(v) --> all have v: answer the client
//! ```
//!
//! Acknowledgements are cumulative and name a version: everything up to it is durable there. Members take entries only in
//! unbroken sequence, so a lost message shows at once and is sent again.

pub mod lease;
mod replica;
mod ship;

pub use ship::InFlight;
pub(crate) use ship::answer_entry;
