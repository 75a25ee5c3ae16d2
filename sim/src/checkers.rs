//! What must hold in every run, whatever happened.

pub mod history;
pub mod linearizability;
pub mod map_hash;
pub mod one_writer;
