//! The store as a whole, over the crash-faulting models.

mod costs;
mod crashes;
mod discards;
mod faults;
mod host;
mod ordering;
