//! The cluster simulator.
pub mod checkers;
pub mod executor;
pub mod trace;
