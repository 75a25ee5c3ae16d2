//! The vocabulary every other crate of Nacre speaks: ids, epochs, versions, object names, virtual time,
//! seeded randomness, checksums, range sets, and the [`Machine`] contract that protocol code is written against.
//!
//! **Architecture Invariant:** this crate depends on nothing of ours and does no I/O. Time is a parameter
//! ([`Instant`]), randomness is a seed ([`Rng`]).

mod buggify;
pub mod checksum;
mod entity;
mod hash;
mod id;
mod machine;
pub mod mutant;
mod object;
mod range_set;
mod rng;
mod time;
mod version;
mod wait;

#[cfg(feature = "testing")]
pub use buggify::{arm, disarm};
pub use buggify::{buggify, reached};
pub use checksum::{BLOCK, BLOCK_U64};
pub use entity::{EntityName, EntityNameError};
pub use hash::{fnv1a64, object_hash, stable_mod};
pub use id::{ClientId, IdParseError, OsdId, PgId, PoolId, RequestId, SnapId};
pub use machine::{Machine, Outbox};
pub use object::{NAME_BYTES_MAX, NAMESPACE_BYTES_MAX, ObjectId, ObjectIdError};
pub use range_set::RangeSet;
pub use rng::Rng;
pub use time::Instant;
pub use version::{EVersion, Epoch};
pub use wait::{Needs, WaitReason, WaitRecord};
