//! The cluster simulator: monitors, OSDs and clients in one thread, from one seed.
//!
//! The machines are those of production; time, network and disks are not. A run is fixed by its seed: whatever it finds
//! is found again. See `docs/TESTING.md` for what is broken and what is checked.

pub mod checkers;
pub mod cluster;
pub mod executor;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod nemesis;
pub mod network;
pub mod nodes;
pub mod operator;
pub mod options;
pub mod run;
pub mod scenario;
pub mod shrink;
pub mod trace;
pub mod workload;
pub mod world;

pub use options::Options;
pub use run::{Outcome, run, run_seed};
