//! A packet: one message with what every message carries, and the table of all messages.
//!
//! The table at the end is the protocol's index: kind number, name, lane. Numbers are never reused. A kind this
//! version does not know decodes to [`PacketError::UnknownKind`], which the receiver answers with a refusal.

use crate::frame::{self, Frame, Header};
use crate::messages::*;
use crate::op::{OsdOp, OsdOpReply, WatchEvent};
use bytes::{Bytes, BytesMut};
use nacre_types::{ClientId, Epoch, PgId, RequestId, checksum};
use prost::Message as _;

/// Bytes with their crc32s per 4 KiB chunk of the object's block grid. A payload of several pieces is their bytes
/// one after the other, and their checksums likewise.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Data {
    pub bytes: Bytes,
    pub crcs: Vec<u32>,
}

impl Data {
    /// `bytes` for object offset `offset`, with their checksums computed.
    pub fn checksummed(offset: u64, bytes: Bytes) -> Data {
        let crcs = checksum::crcs(offset, &bytes);
        Data { bytes, crcs }
    }

    /// Bytes that are no object data (listings, attribute values): carried as chunks from offset zero.
    pub fn plain(bytes: Bytes) -> Data {
        Data::checksummed(0, bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn verify(&self, offset: u64) -> Result<(), checksum::Mismatch> {
        checksum::verify(offset, &self.bytes, &self.crcs)
    }

    /// One payload of several pieces; no copy if only one of them has bytes.
    pub fn concat(pieces: &[Data]) -> Data {
        let mut filled = pieces.iter().filter(|d| !d.bytes.is_empty());
        match (filled.next(), filled.next()) {
            (None, _) => Data::default(),
            (Some(only), None) => only.clone(),
            _ => {
                let mut bytes = BytesMut::with_capacity(pieces.iter().map(|d| d.bytes.len()).sum());
                let mut crcs = Vec::with_capacity(pieces.iter().map(|d| d.crcs.len()).sum());
                for piece in pieces {
                    bytes.extend_from_slice(&piece.bytes);
                    crcs.extend_from_slice(&piece.crcs);
                }
                Data { bytes: bytes.freeze(), crcs }
            }
        }
    }

    /// Cuts the payload back into its pieces.
    pub fn cutter(&self) -> Cutter<'_> {
        Cutter { data: self, bytes_at: 0, crcs_at: 0 }
    }
}

/// See [`Data::cutter`].
pub struct Cutter<'a> {
    data: &'a Data,
    bytes_at: usize,
    crcs_at: usize,
}

impl Cutter<'_> {
    /// The next piece: `length` bytes for object offset `offset`. `None` if the payload is too short.
    pub fn next(&mut self, offset: u64, length: usize) -> Option<Data> {
        let bytes_end = self.bytes_at.checked_add(length).filter(|&end| end <= self.data.bytes.len())?;
        let crcs_end = self.crcs_at + checksum::chunk_count(offset, length);
        let crcs = self.data.crcs.get(self.crcs_at..crcs_end)?.to_vec();
        let bytes = self.data.bytes.slice(self.bytes_at..bytes_end);
        (self.bytes_at, self.crcs_at) = (bytes_end, crcs_end);
        Some(Data { bytes, crcs })
    }

    /// Whether everything was taken.
    pub fn is_done(&self) -> bool {
        self.bytes_at == self.data.bytes.len() && self.crcs_at == self.data.crcs.len()
    }
}

/// Priority class of a message: each is its own set of streams, so that recovery never delays a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    Control,
    Client,
    Replication,
    Recovery,
}

impl Lane {
    pub const ALL: [Lane; 4] = [Lane::Control, Lane::Client, Lane::Replication, Lane::Recovery];

    pub fn index(self) -> usize {
        self as usize
    }
}

/// One message and what every message carries.
#[derive(Clone, PartialEq, Debug)]
pub struct Packet {
    /// The sender's osdmap epoch: every message gossips it.
    pub epoch: Epoch,
    /// The PG it concerns, if one.
    pub pg: Option<PgId>,
    /// Pairs replies with requests; zero where there is none.
    pub request: RequestId,
    pub message: Message,
    pub data: Data,
}

/// No PG: no pool has this number.
const NO_PG: u64 = u64::MAX;

#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PacketError {
    #[error("message kind {kind} is unknown to this version; upgrade the receiver or downgrade the sender")]
    UnknownKind { kind: u16 },
    #[error("the body of {kind} does not decode: {reason}")]
    Malformed { kind: &'static str, reason: String },
}

impl Packet {
    pub fn new(epoch: Epoch, message: impl Into<Message>) -> Packet {
        let request = RequestId::default();
        Packet { epoch, pg: None, request, message: message.into(), data: Data::default() }
    }

    pub fn on(self, pg: PgId) -> Packet {
        Packet { pg: Some(pg), ..self }
    }

    pub fn request(self, request: RequestId) -> Packet {
        Packet { request, ..self }
    }

    pub fn with(self, data: Data) -> Packet {
        Packet { data, ..self }
    }

    pub fn lane(&self) -> Lane {
        self.message.lane()
    }

    fn header(&self) -> Header {
        Header {
            kind: self.message.kind(),
            flags: 0,
            pg: self.pg.map_or(NO_PG, PgId::as_u64),
            epoch: self.epoch.0,
            client: self.request.client.0,
            seq: self.request.seq,
        }
    }

    /// Appends everything of the packet's frame but the payload, which follows it on the stream.
    pub fn write_head(&self, out: &mut BytesMut) {
        frame::write_head(out, &self.header(), &self.data.crcs, self.data.bytes.len(), |out| {
            self.message.encode_into(out);
        });
    }

    pub fn to_frame(&self) -> Frame {
        Frame {
            header: self.header(),
            body: self.message.encode().into(),
            crcs: self.data.crcs.clone(),
            payload: self.data.bytes.clone(),
        }
    }

    pub fn from_frame(frame: Frame) -> Result<Packet, PacketError> {
        let header = frame.header;
        Ok(Packet {
            epoch: Epoch(header.epoch),
            pg: (header.pg != NO_PG).then(|| PgId::from_u64(header.pg)),
            request: RequestId { client: ClientId(header.client), seq: header.seq },
            message: Message::decode(header.kind, &frame.body)?,
            data: Data { bytes: frame.payload, crcs: frame.crcs },
        })
    }
}

macro_rules! messages {
    ($($kind:literal $name:ident $lane:ident)*) => {
        /// Every message there is.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Message { $($name($name)),* }

        impl Message {
            pub fn kind(&self) -> u16 {
                match self { $(Message::$name(_) => $kind),* }
            }

            pub fn name(&self) -> &'static str {
                match self { $(Message::$name(_) => stringify!($name)),* }
            }

            pub fn lane(&self) -> Lane {
                match self { $(Message::$name(_) => Lane::$lane),* }
            }

            pub fn encode(&self) -> Vec<u8> {
                match self { $(Message::$name(m) => m.encode_to_vec()),* }
            }

            fn encode_into(&self, out: &mut BytesMut) {
                let encoded = match self { $(Message::$name(m) => m.encode(out)),* };
                encoded.expect("a BytesMut grows");
            }

            pub fn decode(kind: u16, body: &[u8]) -> Result<Message, PacketError> {
                match kind {
                    $($kind => $name::decode(body).map(Message::$name).map_err(|e| {
                        PacketError::Malformed { kind: stringify!($name), reason: e.to_string() }
                    }),)*
                    kind => Err(PacketError::UnknownKind { kind }),
                }
            }
        }

        $(impl From<$name> for Message {
            fn from(message: $name) -> Message { Message::$name(message) }
        })*
    };
}

messages! {
    // Any connection.
    1 Refused Control
    // Monitors with everybody.
    16 Subscribe Control
    17 Maps Control
    18 Command Control
    19 CommandReply Control
    20 OsdBoot Control
    21 OsdAlive Control
    22 OsdFailure Control
    23 OsdStopping Control
    24 OsdPgTemp Control
    25 OsdStats Control
    26 ClusterLog Control
    27 OsdReport Control
    // Monitors among themselves.
    32 MonRaft Control
    33 MonForward Control
    34 MonForwardReply Control
    35 MonCheckpoint Recovery
    36 MonHello Control
    // OSDs with OSDs and clients.
    64 Ping Control
    65 Pong Control
    66 MapRequest Control
    67 OsdOp Client
    68 OsdOpReply Client
    69 WatchEvent Client
    70 RepOp Replication
    71 RepOpReply Replication
    72 Lease Control
    73 LeaseAck Control
    // Peering.
    80 PgQuery Control
    81 PgNotify Control
    82 PgLogRequest Control
    83 PgLog Control
    84 PgActivate Control
    85 PgActivated Control
    86 PgRemove Control
    // Recovery, backfill, scrub.
    96 Push Recovery
    97 PushReply Recovery
    98 Pull Recovery
    99 BackfillScan Recovery
    100 BackfillDigest Recovery
    101 BackfillProgress Recovery
    102 Reserve Control
    103 ReserveReply Control
    104 ScrubRequest Recovery
    105 ScrubMap Recovery
    106 PgAdmin Control
    107 PgAdminReply Control
}

#[cfg(test)]
mod tests;
