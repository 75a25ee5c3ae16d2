//! What goes into the monitor machine and what comes out.

use bytes::Bytes;
use nacre_types::EntityName;
pub use nacre_wire::messages::LogLevel;
use nacre_wire::{Address, Packet, Peer, SessionId};

/// What a driver tells the machine.
#[allow(clippy::large_enum_variant, reason = "the large variant is the frequent one")]
#[derive(Clone, PartialEq, Debug)]
pub enum MonEvent {
    /// Time passed. The wall clock is for stamping and display only.
    Tick {
        wall_ms: u64,
    },
    Received {
        from: Peer,
        packet: Packet,
    },
    SessionClosed(SessionId),
    /// Everything persisted under this token and before it is durable.
    Persisted {
        token: u64,
    },
    /// The certificate asked for by [`MonEffect::Sign`], in PEM.
    Signed {
        token: u64,
        result: Result<String, String>,
    },
}

/// What the machine asks of its driver, to be carried out in order.
#[allow(clippy::large_enum_variant, reason = "the large variant is the frequent one")]
#[derive(Clone, PartialEq, Debug)]
pub enum MonEffect {
    Send {
        to: Address,
        packet: Packet,
    },
    /// Apply the writes as one atomic batch, make them durable, then report `Persisted`. Batches in order.
    Persist {
        token: u64,
        writes: Vec<Write>,
    },
    CloseSession(SessionId),
    /// Issue a certificate for `entity` from a signing request.
    Sign {
        token: u64,
        entity: EntityName,
        csr_pem: String,
        ca_key_pem: String,
        ca_cert_pem: String,
    },
    Log {
        level: LogLevel,
        text: String,
    },
}

/// One record of the monitor's key-value store; `None` deletes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    pub key: Vec<u8>,
    pub value: Option<Bytes>,
}
