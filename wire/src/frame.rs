//! Frames: how a packet lies in a byte stream.
//!
//! ```text
//! 0      4       6     8         12            16          20     24   32     40      48   56        60          64
//! magic  version kind  body_len  payload_len   crc_count   flags  pg   epoch  client  seq  body_crc  header_crc
//! body (prost) | crcs (crc_count x u32) | payload
//! ```
//!
//! All integers are little-endian. `body_crc` covers body and crcs; the payload is covered by the crcs, which whoever
//! uses the payload verifies. Every length is bounded before anything is allocated, and a peer whose frame breaks a
//! bound or a checksum is disconnected: nothing after it in the stream can be trusted.

mod decoder;

pub use decoder::FrameDecoder;

use bytes::{Bytes, BytesMut};
use nacre_types::checksum;

pub const HEADER_BYTES: usize = 64;
/// "NACR" in a hex dump.
pub const MAGIC: u32 = u32::from_le_bytes(*b"NACR");
/// Version of the framing itself; messages evolve by prost's rules and by kind.
pub const VERSION: u16 = 1;
/// Largest body: an osdmap of 10,000 OSDs is about 2 MB.
pub const BODY_BYTES_MAX: usize = 16 << 20;
/// Largest payload: a transaction's most data, and NBD's largest request.
pub const PAYLOAD_BYTES_MAX: usize = 33 << 20;
/// One crc per block of the largest payload, and two ragged ends for each of a thousand pieces.
pub const CRCS_MAX: usize = PAYLOAD_BYTES_MAX / checksum::BLOCK + 2048;

/// The header's fields that are not about layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    pub kind: u16,
    pub flags: u32,
    pub pg: u64,
    pub epoch: u64,
    pub client: u64,
    pub seq: u64,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Frame {
    pub header: Header,
    pub body: Bytes,
    pub crcs: Vec<u32>,
    pub payload: Bytes,
}

/// Why a byte stream is not frames. The connection cannot continue.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("not a Nacre frame: magic is {found:08x}, expected {MAGIC:08x}")]
    Magic { found: u32 },
    #[error("frame version {found} is not supported, this is version {VERSION}")]
    Version { found: u16 },
    #[error("the frame header's checksum is wrong")]
    HeaderChecksum,
    #[error("the checksum over the frame's body is wrong")]
    BodyChecksum,
    #[error("the frame's {what} of {found} exceeds the limit of {max}")]
    TooLarge { what: &'static str, found: usize, max: usize },
    #[error("the stream ended inside a frame")]
    Truncated,
}

impl Frame {
    /// Header, body and crcs in one buffer; the payload follows it on the stream as it is.
    pub fn encode_head(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(HEADER_BYTES + self.body.len() + self.crcs.len() * 4);
        write_head(&mut out, &self.header, &self.crcs, self.payload.len(), |out| {
            out.extend_from_slice(&self.body);
        });
        out.freeze()
    }

    /// The whole frame in one buffer.
    pub fn encode(&self) -> Bytes {
        let head = self.encode_head();
        if self.payload.is_empty() {
            return head;
        }
        let mut all = BytesMut::with_capacity(head.len() + self.payload.len());
        all.extend_from_slice(&head);
        all.extend_from_slice(&self.payload);
        all.freeze()
    }
}

/// Appends header, body and crcs of a frame; `body` appends the body. Panics if the sender made a frame too large.
pub(crate) fn write_head(
    out: &mut BytesMut,
    header: &Header,
    crcs: &[u32],
    payload_len: usize,
    body: impl FnOnce(&mut BytesMut),
) {
    assert!(payload_len <= PAYLOAD_BYTES_MAX, "payload of kind {} too large", header.kind);
    assert!(crcs.len() <= CRCS_MAX, "too many crcs in kind {}", header.kind);
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    body(out);
    let body_len = out.len() - start - HEADER_BYTES;
    assert!(body_len <= BODY_BYTES_MAX, "body of kind {} too large", header.kind);
    out.reserve(crcs.len() * 4);
    for crc in crcs {
        out.extend_from_slice(&crc.to_le_bytes());
    }
    let (head, rest) = out[start..].split_at_mut(HEADER_BYTES);
    head[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    head[4..6].copy_from_slice(&VERSION.to_le_bytes());
    head[6..8].copy_from_slice(&header.kind.to_le_bytes());
    head[8..12].copy_from_slice(&(body_len as u32).to_le_bytes());
    head[12..16].copy_from_slice(&(payload_len as u32).to_le_bytes());
    head[16..20].copy_from_slice(&(crcs.len() as u32).to_le_bytes());
    head[20..24].copy_from_slice(&header.flags.to_le_bytes());
    for (at, word) in [(24, header.pg), (32, header.epoch), (40, header.client), (48, header.seq)] {
        head[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    head[56..60].copy_from_slice(&checksum::crc32(rest).to_le_bytes());
    let header_crc = checksum::crc32(&head[..60]);
    head[60..64].copy_from_slice(&header_crc.to_le_bytes());
}

/// What a header says is coming.
#[derive(Clone, Copy, Debug)]
struct Layout {
    header: Header,
    body_len: usize,
    payload_len: usize,
    crc_count: usize,
    body_crc: u32,
}

fn parse_header(bytes: &[u8; HEADER_BYTES]) -> Result<Layout, FrameError> {
    let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    if u32_at(0) != MAGIC {
        return Err(FrameError::Magic { found: u32_at(0) });
    }
    if u16_at(4) != VERSION {
        return Err(FrameError::Version { found: u16_at(4) });
    }
    if checksum::crc32(&bytes[..60]) != u32_at(60) {
        return Err(FrameError::HeaderChecksum);
    }
    let bound = |what, found: u32, max| {
        let found = found as usize;
        if found > max { Err(FrameError::TooLarge { what, found, max }) } else { Ok(found) }
    };
    Ok(Layout {
        header: Header {
            kind: u16_at(6),
            flags: u32_at(20),
            pg: u64_at(24),
            epoch: u64_at(32),
            client: u64_at(40),
            seq: u64_at(48),
        },
        body_len: bound("body", u32_at(8), BODY_BYTES_MAX)?,
        payload_len: bound("payload", u32_at(12), PAYLOAD_BYTES_MAX)?,
        crc_count: bound("checksum count", u32_at(16), CRCS_MAX)?,
        body_crc: u32_at(56),
    })
}

impl Layout {
    /// Bytes of body and crcs, which `body_crc` covers.
    fn checked_len(&self) -> usize {
        self.body_len + self.crc_count * 4
    }

    fn total(&self) -> usize {
        self.checked_len() + self.payload_len
    }

    /// The frame whose bytes after the header are `all`, or those but for the payload.
    fn frame(&self, mut all: Bytes, payload: Option<Bytes>) -> Result<Frame, FrameError> {
        let payload = payload.unwrap_or_else(|| all.split_off(self.checked_len()));
        if checksum::crc32(&all) != self.body_crc {
            return Err(FrameError::BodyChecksum);
        }
        let crcs = all.split_off(self.body_len);
        let crcs = crcs.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        Ok(Frame { header: self.header, body: all, crcs, payload })
    }
}

#[cfg(test)]
mod tests;
