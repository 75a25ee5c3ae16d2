//! Models of a device and an index that lose, tear and spoil what real ones do, from a seed. For this crate's tests and
//! the simulator.

mod disk;
pub mod fuzz;
mod kv;
mod reference;

pub use disk::{Flaky, Loss, PASSING, SimDisk};
pub use kv::SimKv;
pub use reference::Reference;
