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

use bytes::{Buf, Bytes, BytesMut};
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
        assert!(self.body.len() <= BODY_BYTES_MAX, "body of kind {} too large", self.header.kind);
        assert!(self.payload.len() <= PAYLOAD_BYTES_MAX, "payload of kind {} too large", self.header.kind);
        assert!(self.crcs.len() <= CRCS_MAX, "too many crcs in kind {}", self.header.kind);
        let mut out = Vec::with_capacity(HEADER_BYTES + self.body.len() + self.crcs.len() * 4);
        let h = &self.header;
        out.extend_from_slice(&MAGIC.to_le_bytes());
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&h.kind.to_le_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.payload.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.crcs.len() as u32).to_le_bytes());
        out.extend_from_slice(&h.flags.to_le_bytes());
        for word in [h.pg, h.epoch, h.client, h.seq] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.resize(HEADER_BYTES, 0);
        out.extend_from_slice(&self.body);
        for crc in &self.crcs {
            out.extend_from_slice(&crc.to_le_bytes());
        }
        let body_crc = checksum::crc32(&out[HEADER_BYTES..]);
        out[56..60].copy_from_slice(&body_crc.to_le_bytes());
        let header_crc = checksum::crc32(&out[..60]);
        out[60..64].copy_from_slice(&header_crc.to_le_bytes());
        out.into()
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

/// Turns the chunks of one stream back into frames. Payload memory is allocated as bytes arrive, not as announced.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    buffer: BytesMut,
    layout: Option<Layout>,
}

impl FrameDecoder {
    pub fn new() -> FrameDecoder {
        FrameDecoder::default()
    }

    /// Takes the next chunk of the stream. Call [`FrameDecoder::next_frame`] until it has no more.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole frame, if all of it has arrived. After an error the stream is unusable.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let layout = match self.layout {
            Some(layout) => layout,
            None => {
                let Some(head) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
                let layout = parse_header(head)?;
                self.buffer.advance(HEADER_BYTES);
                self.layout = Some(layout);
                layout
            }
        };
        let checked_len = layout.body_len + layout.crc_count * 4;
        let total = checked_len + layout.payload_len;
        if self.buffer.len() < total {
            // Grow geometrically towards the whole, so that a sender that only announces costs little.
            let target = total.min((self.buffer.len() * 2).max(64 << 10));
            self.buffer.reserve(target.saturating_sub(self.buffer.len()));
            return Ok(None);
        }
        self.layout = None;
        let mut all = self.buffer.split_to(total).freeze();
        let payload = all.split_off(checked_len);
        if checksum::crc32(&all) != layout.body_crc {
            return Err(FrameError::BodyChecksum);
        }
        let crcs = all.split_off(layout.body_len);
        let crcs = crcs.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        Ok(Some(Frame { header: layout.header, body: all, crcs, payload }))
    }

    /// Checks that the stream ended between frames.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() && self.layout.is_none() { Ok(()) } else { Err(FrameError::Truncated) }
    }
}

#[cfg(test)]
mod tests;
