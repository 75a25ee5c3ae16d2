//! What happens to an OSD and what it does: the machine's events and effects.

use nacre_store::{DiskDone, DiskRequest, KvError};
use nacre_types::OsdId;
use nacre_wire::messages::LogLevel;
use nacre_wire::{Address, Packet, Peer, SessionId};

// Most events are packets, so boxing them would only cost an allocation each.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Debug)]
pub enum OsdEvent {
    Tick {
        wall_ms: u64,
    },
    Received {
        from: Peer,
        packet: Packet,
    },
    SessionClosed(SessionId),
    /// Nothing listens at an OSD's address: its process is gone.
    PeerRefused {
        osd: OsdId,
        address: String,
    },
    Disk(DiskDone),
    KvFlushed {
        token: u64,
        result: Result<(), KvError>,
    },
    /// Nothing more is at hand: what was gathered goes to the disk. The answer to [`OsdEffect::Gather`].
    Gathered,
    /// Stop in order.
    Stop,
}

#[allow(clippy::large_enum_variant)]
#[derive(Clone, PartialEq, Debug)]
pub enum OsdEffect {
    Send {
        to: Address,
        packet: Packet,
    },
    Disk(DiskRequest),
    /// There is something for the disk, and perhaps more to come first: `Gathered` is wanted once nothing is at hand.
    Gather,
    CloseSession(SessionId),
    Log {
        level: LogLevel,
        text: String,
    },
    /// The machine has ended; the driver ends the process.
    Stopped {
        reason: String,
        failed: bool,
    },
}
