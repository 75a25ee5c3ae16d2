//! The client against a cluster that is faked around the real execution of operations: see [`fake`].

pub(crate) mod fake;
mod faults;
mod objects;
