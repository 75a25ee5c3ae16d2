//! Placement by CRUSH.
//!
//! ```text
//! text form --parse--> CrushMap --compile--> Compiled --map(rule, x, n, weights)--> osds
//!           <-to_text-    ^
//!                       edits (monitors)
//! ```
//!
//! [`CrushMap`] is the model people and monitors edit ([`edit`]); [`Compiled`] is the immutable form that maps. For straw2,
//! uniform and list buckets the answers are those of Ceph's `crushtool`, input for input.
//!
//! **Architecture Invariant:** pure. No I/O, no clock, no randomness, and the answers are part of the on-disk
//! contract: a change in any of them moves data in every cluster.

mod check;
mod compile;
pub mod edit;
mod hash;
mod ln;
mod map;
mod mapper;
mod shadow;
mod straw2;
mod tester;
mod text;

pub use check::CheckError;
pub use compile::{CompileError, Compiled};
pub use edit::{EditError, Location};
pub use hash::{hash2, hash3, hash4, pg_to_x};
pub use map::*;
pub use mapper::Scratch;
pub use tester::{TestError, Tester};
pub use text::{ParseError, ParseProblem};
