//! `nacre explain`: why something is stuck, down to a disk, a host, a link, a setting or a person, and a safe next step.
//!
//! ```text
//!   question --> walk(evidence) --> explanation: a chain of causes, the leaf, what to do
//!                   ^      |
//!        evidence   |      v  what it could not see
//!                   +-- gather: asks the monitor at hand, the leader, the OSDs it is led to
//! ```
//!
//! The walk is pure. Evidence comes from whoever still answers: no quorum is needed for what OSDs know, and no OSD for
//! what monitors know. Whoever does not answer is evidence too.
//!
//! Beside it, where the time goes of what is not stuck: [`why_slow`] and [`top`], from what OSDs have measured.
//!
//! **Architecture Invariant:** one code for the simulator and the cluster; nothing here reads words that are for people.

mod evidence;
mod explanation;
mod gather;
mod question;
mod slow;
mod top;
mod walk;

pub use evidence::{Evidence, MonView, OsdAnswer, OsdView, Want};
pub use explanation::{Cause, Explanation, Link, Step};
pub use gather::explain;
pub use question::{Operation, Question};
pub use slow::{Blame, OsdTimes, OsdsAsked, Slowness, Spread, Stage, Times, why_slow};
pub use top::{Top, TopRow, top};
pub use walk::walk;
