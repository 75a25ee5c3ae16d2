//! Whole sessions over an in-memory stream, against an export in memory.

#[path = "../client/mod.rs"]
mod client;
#[path = "../model/mod.rs"]
mod model;

mod arbitrary;
mod endings;
mod handshake;
mod limits;
mod transmission;
