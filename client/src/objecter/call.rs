//! One thing somebody waits for, and where it stands.
//!
//! ```text
//!  Queued --admitted--> Blocked (behind an overlapping one) --> Unroutable (no map, no primary, paused)
//!                            |                                     |
//!                            +---------------> Sent <--------------+
//!                                               |  ^
//!                                     TryAgain  v  |  time, map
//!                                             Backoff
//! ```

use super::order::Footprint;
use super::route::Route;
use crate::slot::Slot;
use nacre_types::{Epoch, Instant, Needs, ObjectId, OsdId, PgId};
use nacre_wire::Data;
use nacre_wire::messages::{Command, PgAdmin};
use nacre_wire::op::OsdOp;
use std::rc::Rc;
use std::time::Duration;

/// What is asked, and of whom.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// The primary of the object's PG.
    Object {
        object: ObjectId,
        op: Box<OsdOp>,
        data: Data,
    },
    /// The primary of a PG.
    Pg {
        pg: PgId,
        op: Box<OsdOp>,
    },
    /// The primary of a PG, as an administrator.
    PgAdmin {
        pg: PgId,
        admin: PgAdmin,
    },
    Osd {
        osd: OsdId,
        admin: PgAdmin,
    },
    /// An OSD at that address, whatever the map says of it.
    OsdAt {
        osd: OsdId,
        address: String,
        admin: PgAdmin,
    },
    Monitors(Command),
    /// Nobody: an osdmap of that epoch or a later one.
    Map(Epoch),
    /// Nobody: that the timeout passes.
    Sleep,
}

/// Who gets the answer.
#[derive(Clone, Debug)]
pub(crate) enum Owner {
    Future(Rc<Slot>),
    Linger(u64),
    /// Nobody cares: an acknowledgement.
    Nobody,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum State {
    /// Too much is on the wire already.
    Queued,
    /// An earlier, overlapping operation on the same object has not ended.
    Blocked,
    Unroutable(Needs),
    Sent(Option<Route>),
    Backoff {
        until: Instant,
    },
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) ask: Ask,
    pub(crate) owner: Owner,
    pub(crate) timeout: Option<Duration>,
    /// Only while this lease holds.
    pub(crate) lease: Option<u64>,
    pub(crate) footprint: Option<Footprint>,
    pub(crate) bytes: usize,
    pub(crate) state: State,
    /// When the machine first saw it.
    pub(crate) started: Instant,
    pub(crate) deadline: Option<Instant>,
    pub(crate) sent_at: Instant,
    pub(crate) first_sent_at: Instant,
    pub(crate) attempts: u32,
    /// Answers whose checksums did not hold.
    pub(crate) damaged: u32,
    /// What the last refusal said.
    pub(crate) refusal: String,
    /// For how many operations it stands where their time is measured; 0 for most.
    pub(crate) measured: u32,
}

impl Call {
    pub(crate) fn new(ask: Ask, owner: Owner, timeout: Option<Duration>) -> Call {
        let (footprint, bytes) = match &ask {
            Ask::Object { op, data, .. } => (Footprint::of(&op.ops), data.bytes.len()),
            _ => (None, 0),
        };
        Call {
            ask,
            owner,
            timeout,
            lease: None,
            footprint,
            bytes,
            state: State::Queued,
            started: Instant::ZERO,
            deadline: None,
            sent_at: Instant::ZERO,
            first_sent_at: Instant::ZERO,
            attempts: 0,
            damaged: 0,
            refusal: String::new(),
            measured: 0,
        }
    }

    /// Whether it counts against what may be on the wire at once.
    pub(crate) fn is_counted(&self) -> bool {
        matches!(self.ask, Ask::Object { .. } | Ask::Pg { .. }) && matches!(self.owner, Owner::Future(_))
    }
}
