//! What happens to a client and what it does.

use nacre_wire::messages::LogLevel;
use nacre_wire::{Address, Packet, Peer, SessionId};

#[derive(Clone, PartialEq, Debug)]
pub enum ClientEvent {
    Tick { wall_ms: u64 },
    Received { from: Peer, packet: Packet },
    SessionClosed(SessionId),
    /// The API has queued something: see `Cluster::set_waker`.
    Wake,
}

#[derive(Clone, PartialEq, Debug)]
pub enum ClientEffect {
    Send { to: Address, packet: Packet },
    CloseSession(SessionId),
    Log { level: LogLevel, text: String },
}
