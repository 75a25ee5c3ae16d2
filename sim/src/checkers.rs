//! What must hold in every run, whatever happened.

pub mod audit;
pub mod chatter;
pub mod compound;
pub mod history;
pub mod linearizability;
pub mod map_hash;
pub mod one_writer;
