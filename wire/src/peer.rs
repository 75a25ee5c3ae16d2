//! Who a packet comes from and where one goes: what machines and their drivers agree on about connections.

use nacre_types::{EntityName, OsdId};
use std::fmt;

/// One connection, by the number its driver gave it. Never reused while the driver runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// The far end of a session. The entity is what its certificate says, so it can be trusted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    pub session: SessionId,
    pub entity: EntityName,
}

/// Where a packet is to go. Delivery is not promised: whoever sends also resends.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Address {
    /// Back on the session something came from.
    Session(SessionId),
    /// To an OSD at the address its map entry names; the driver dials if there is no session yet.
    Osd { id: OsdId, address: String },
    /// To one certain monitor.
    Mon { name: String, address: String },
    /// To whichever monitor the driver has a session with.
    AnyMon,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.0)
    }
}
