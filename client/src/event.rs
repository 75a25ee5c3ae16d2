//! What happens to a client and what it does.

use nacre_wire::messages::LogLevel;
use nacre_wire::{Address, Packet, Peer, SessionId};

/// Its large variant is the common one.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Debug)]
pub enum ClientEvent {
    Tick {
        wall_ms: u64,
    },
    Received {
        from: Peer,
        packet: Packet,
    },
    SessionClosed(SessionId),
    /// A round over the monitors ended without one that could be used. `rejected`: certificates are not accepted, and
    /// trying again will not help.
    MonitorsUnreachable {
        reason: String,
        rejected: bool,
    },
    /// The API has queued something: see `Cluster::set_waker`.
    Wake,
}

/// Its large variant is the common one.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Debug)]
pub enum ClientEffect {
    Send { to: Address, packet: Packet },
    CloseSession(SessionId),
    Log { level: LogLevel, text: String },
}
