//! Agreement on one order of opaque commands among the monitors, by Raft (the `raft` crate).
//!
//! ```text
//!  propose --> log --Persist--> Persisted --> sent, counted --> committed --> next() --> Service
//!                                                                  ^ checkpoint instead, when far behind
//! ```
//!
//! **Architecture Invariant:** nothing here knows what a command means, and no message that promises durability leaves
//! before the driver reported it durable.

mod guard;
mod node;
mod storage;

pub(crate) use node::{Output, Quorum, decode_change, is_append_response, is_checkpoint};
pub(crate) use storage::{Checkpoint, Storage};
