//! The circular journal: what makes a transaction durable before anything is changed in place.
//!
//! Positions count bytes since format and never wrap; a position's place on the device is its remainder. One record
//! holds all transactions that gathered while the one before it was being written; it is accepted whole or not at all.

pub(crate) mod record;
pub(crate) mod replay;
pub(crate) mod ring;
