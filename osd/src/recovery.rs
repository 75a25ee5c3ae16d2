//! Log recovery: bringing what members miss, object by object.
//!
//! ```text
//!   missing at the primary        missing at members
//!        | Pull to a source            ^ Push
//!        v                             |
//!   Push from the source  ------>  primary has it
//! ```
//!
//! The primary drives it. What a client waits for goes first and past all slots ([`engine`]); the rest goes in log
//! order, under slots here and at the members ([`slots`]), and under a throttle that all PGs share ([`throttle`]). An
//! object goes out in pieces ([`source`]) and comes in whole or not at all ([`sink`]).
//!
//! Whoever lacks much has no seat meanwhile, and operations do not wait for it ([`lacking`]).
//!
//! What the receiver has under another name, as clones share it, is not sent again ([`origin`]).
//!
//! What nobody has is unfound ([`unfound`]): an administrator may give up its newest version ([`revert`]).
//!
//! A source whose disk returns bad bytes, or none, is one that misses the object: another one is asked, and the bad copy
//! is written anew. A disk that gave none is asked again when nobody else is left ([`bad_copies`]).

mod bad_copies;
mod engine;
mod gate;
mod hooks;
mod lacking;
mod origin;
mod revert;
mod sink;
mod slots;
mod source;
mod throttle;
mod unfound;

pub(crate) use origin::older;
pub use sink::{TEMP_POOL, leftovers};
pub(crate) use sink::{family, remove_object};
pub use slots::OsdShared;
pub use source::PushPurpose;
pub(crate) use source::{stored_version, usable_version};

use crate::backfill::Backfill;
use crate::scrub::Scrub;
use bad_copies::Tried;
use nacre_types::{EVersion, Instant, ObjectId, OsdId};
use sink::Sink;
use source::Transfer;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a transfer may stand still before it is started over.
pub(crate) const STALL: Duration = Duration::from_secs(10);

/// Recovery's, backfill's and scrub's part of a PG.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// Primary: objects being recovered.
    pub(crate) active: BTreeMap<ObjectId, Active>,
    /// Objects on their way out, here or (asked by a Pull) at a member.
    transfers: BTreeMap<u64, Transfer>,
    /// Objects on their way in.
    sinks: BTreeMap<ObjectId, Sink>,
    /// Store requests under way, by the number in their token.
    waiting: BTreeMap<u64, Waiting>,
    /// Primary: sources that did not have an object after all.
    tried: BTreeMap<ObjectId, Tried>,
    /// Primary: missing objects for which no source is left.
    pub(crate) unfound: BTreeSet<ObjectId>,
    /// Primary: what some members miss of which no client has seen the newest version: which that is, and which was seen.
    unseen: BTreeMap<ObjectId, (EVersion, EVersion)>,
    /// Primary: what a receiver would not make of another object of the family.
    in_full: BTreeSet<(OsdId, ObjectId)>,
    /// Primary: the head of an object that is always being written: further writes of it wait, so that its turn comes.
    draining: Option<ObjectId>,
    /// Primary: heads that have started over for the sake of writes, and how often.
    ways_given: BTreeMap<ObjectId, u32>,
    gate: gate::Gate,
    pub(crate) backfills: BTreeMap<OsdId, Backfill>,
    pub(crate) scrub: Scrub,
    last_number: u64,
    next_tick: Instant,
    recovered_objects: u64,
    recovered_bytes: u64,
    was_done: bool,
}

/// One object the primary brings where it is missed.
#[derive(Debug)]
pub(crate) struct Active {
    stage: Stage,
    /// Takes a place in the OSD's throttle.
    counted: bool,
    progress: Instant,
}

#[derive(Debug)]
enum Stage {
    /// It comes here from a source.
    Pull { from: OsdId, transfer: u64, need: EVersion },
    /// It goes to whoever misses it.
    Push { transfers: BTreeMap<OsdId, u64> },
}

/// What a commit or read was for.
#[derive(Debug)]
pub(crate) enum Waiting {
    Piece {
        to: OsdId,
        object: ObjectId,
        version: EVersion,
        sequence: u64,
        last: bool,
    },
    Read {
        transfer: u64,
    },
    /// A backfill mark was moved here; its mover is told.
    Mark {
        to: OsdId,
        last_backfill: bytes::Bytes,
        done: bool,
    },
}

impl Recovery {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Whether objects are on their way, so that it is no throttle that holds recovery.
    pub(crate) fn moves(&self) -> bool {
        !self.active.is_empty()
    }

    pub(crate) fn next_scrub_token(&mut self) -> u64 {
        self.next_number()
    }

    pub(crate) fn number(&mut self, waiting: Waiting) -> u64 {
        let number = self.next_number();
        self.waiting.insert(number, waiting);
        number
    }
}

#[cfg(test)]
mod tests;
