//! Transmission as the server speaks it: the heads of replies, without the data that follows them.
//!
//! ```text
//!   simple:      magic u32, errno u32, cookie u64 [, data of a read]
//!   structured:  magic u32, flags u16, type u16, cookie u64, length u32, payload       ─┐ one or more chunks,
//!   extended:    magic u32, flags u16, type u16, cookie u64, offset u64, length u64, … ─┘ the last flagged DONE
//! ```

use bytes::BufMut;

use super::*;
use crate::export::{Extent, Failure};

/// Longest error message sent with a failed request; they are sentences, not reports.
const MAX_MESSAGE_BYTES: usize = 1024;
/// Bytes of the fixed part of an error chunk, a data chunk, a hole chunk.
const ERROR_FIXED_BYTES: usize = 6;
const DATA_FIXED_BYTES: u64 = 8;
const HOLE_BYTES: u64 = 12;

/// Which replies the client negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyStyle {
    Simple,
    /// Chunks where data comes back, simple replies elsewhere.
    Structured,
    /// Chunks with the long header, everywhere.
    Extended,
}

/// The request a reply belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyTo {
    pub cookie: u64,
    pub offset: u64,
}

impl ReplyStyle {
    pub fn chunked(self) -> bool {
        self != ReplyStyle::Simple
    }

    /// A success without data.
    pub fn done(self, to: ReplyTo, out: &mut impl BufMut) {
        match self {
            // Allowed where nothing comes back, and four bytes shorter than a chunk.
            ReplyStyle::Simple | ReplyStyle::Structured => simple(to, 0, out),
            ReplyStyle::Extended => self.chunk(to, REPLY_TYPE_NONE, true, 0, out),
        }
    }

    /// A failure: with its sentence if the style has room for one.
    pub fn failure(self, to: ReplyTo, failure: &Failure, out: &mut impl BufMut) {
        if self == ReplyStyle::Simple {
            return simple(to, failure.errno.code(), out);
        }
        let message = &failure.message[..failure.message.floor_char_boundary(MAX_MESSAGE_BYTES)];
        self.chunk(to, REPLY_TYPE_ERROR, true, (ERROR_FIXED_BYTES + message.len()) as u64, out);
        out.put_u32(failure.errno.code());
        out.put_u16(message.len() as u16);
        out.put_slice(message.as_bytes());
    }

    /// The head of a read's data as one simple reply; `length` bytes must follow.
    pub fn read_simple(to: ReplyTo, out: &mut impl BufMut) {
        simple(to, 0, out);
    }

    /// A read of no bytes: done, but in chunks if they were negotiated.
    pub fn read_nothing(self, to: ReplyTo, out: &mut impl BufMut) {
        if self.chunked() {
            self.chunk(to, REPLY_TYPE_NONE, true, 0, out);
        } else {
            simple(to, 0, out);
        }
    }

    /// The head of a chunk of data at `offset`; `length` bytes must follow.
    pub fn read_data(self, to: ReplyTo, last: bool, offset: u64, length: u64, out: &mut impl BufMut) {
        debug_assert!(self.chunked() && length > 0);
        self.chunk(to, REPLY_TYPE_OFFSET_DATA, last, DATA_FIXED_BYTES + length, out);
        out.put_u64(offset);
    }

    /// A chunk that stands for `length` zeroes at `offset`.
    pub fn read_hole(self, to: ReplyTo, last: bool, offset: u64, length: u32, out: &mut impl BufMut) {
        debug_assert!(self.chunked() && length > 0);
        self.chunk(to, REPLY_TYPE_OFFSET_HOLE, last, HOLE_BYTES, out);
        out.put_u64(offset);
        out.put_u32(length);
    }

    /// The extents of a range, under the one context there is. Lengths must fit the style: 32 bits if structured.
    pub fn block_status(self, to: ReplyTo, extents: &[Extent], out: &mut impl BufMut) {
        debug_assert!(self.chunked() && !extents.is_empty() && extents.len() <= MAX_EXTENTS);
        let count = extents.len() as u64;
        if self == ReplyStyle::Extended {
            self.chunk(to, REPLY_TYPE_BLOCK_STATUS_EXT, true, 8 + 16 * count, out);
            out.put_u32(BASE_ALLOCATION_ID);
            out.put_u32(count as u32);
            for extent in extents {
                out.put_u64(extent.length);
                out.put_u64(u64::from(extent.state.flags()));
            }
        } else {
            self.chunk(to, REPLY_TYPE_BLOCK_STATUS, true, 4 + 8 * count, out);
            out.put_u32(BASE_ALLOCATION_ID);
            for extent in extents {
                out.put_u32(u32::try_from(extent.length).unwrap_or(u32::MAX));
                out.put_u32(extent.state.flags());
            }
        }
    }

    fn chunk(self, to: ReplyTo, kind: u16, last: bool, length: u64, out: &mut impl BufMut) {
        let extended = self == ReplyStyle::Extended;
        out.put_u32(if extended { EXTENDED_REPLY_MAGIC } else { STRUCTURED_REPLY_MAGIC });
        out.put_u16(if last { REPLY_FLAG_DONE } else { 0 });
        out.put_u16(kind);
        out.put_u64(to.cookie);
        if extended {
            out.put_u64(to.offset);
            out.put_u64(length);
        } else {
            // Bounded by MAX_PAYLOAD_BYTES and a few bytes.
            out.put_u32(length as u32);
        }
    }
}

fn simple(to: ReplyTo, errno: u32, out: &mut impl BufMut) {
    out.put_u32(SIMPLE_REPLY_MAGIC);
    out.put_u32(errno);
    out.put_u64(to.cookie);
}

#[cfg(test)]
mod tests;
