//! A PG's log and what hangs on it: entries, missing sets, infos, past intervals, the merge of diverged logs, and how
//! all of that is kept in the store.
//!
//! Everything here is data and pure functions: peering and the op pipeline decide, this module answers.
//!
//! ```text
//!   dups (requests only)      log entries                        head
//!   - -- -  --- - - ----------|----------------------------------|
//!                             tail: objects changed after it are named by entries
//! ```
//!
//! A dup is kept until its client has said, in a request that came later, that it has the answer: only then is it certain
//! that it will not ask again. A client that falls silent leaves its last requests behind; beyond [`DUPS_MAX`] in a PG the
//! oldest are forgotten nevertheless.

mod entry;
mod info;
mod intervals;
mod merge;
mod missing;
pub mod persist;
mod pg_log;
mod requests;

pub use entry::{Entry, RecordError, decode_version, encode_version};
pub use info::{BackfillMark, Best, History, Info, find_best};
pub use intervals::{Interval, PastIntervals, is_new_interval};
pub use merge::{MergeError, Merged, PeerLog, PeerState, merge_authoritative, process_replica_log};
pub use missing::{Missing, MissingSet};
pub(crate) use missing::{decode_missing, encode_missing};
pub use pg_log::{DUPS_MAX, FoundRequest, PgLog, Trimmed};
