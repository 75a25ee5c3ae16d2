//! The monitors: a few machines that agree on the cluster's maps and publish them.
//!
//! `quorum` agrees on an order of opaque commands (Raft), `service` is the state they make, `leader` decides what the
//! next command is, `commands` is what people ask, `mon` ties them to events and effects.
//!
//! **Architecture Invariant:** pure. The state is a function of the committed log alone; nothing that a peer sends can
//! make a monitor panic; nothing is promised before the driver reported it durable.

mod bootstrap;
mod checkpoint;
mod commands;
mod config;
mod draft;
mod error;
mod event;
mod explain;
mod forward;
mod health;
mod leader;
mod mon;
pub mod options;
mod placement;
mod quorum;
mod records;
mod service;
mod session;

#[cfg(test)]
mod tests;

pub use config::{BatchConfig, CheckpointConfig, CommandConfig, MonConfig};
pub use error::OpenError;
pub use event::{LogLevel, MonEffect, MonEvent, Write};
pub use mon::{Bootstrap, Mon};
