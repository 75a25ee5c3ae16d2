//! Transmission as a client speaks it: request headers, and which requests an export of given shape accepts.
//!
//! ```text
//!   compact:   magic u32, flags u16, command u16, cookie u64, offset u64, length u32 [, length bytes if WRITE]
//!   extended:  magic u32, flags u16, command u16, cookie u64, offset u64, length u64 [, length bytes if PAYLOAD_LEN]
//! ```

use super::*;
use crate::export::{BlockSizes, Failure};

pub const COMPACT_REQUEST_BYTES: usize = 28;
pub const EXTENDED_REQUEST_BYTES: usize = 32;

/// A request as it stands on the wire, before anything is known about its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub length: u64,
}

/// The stream is out of step; nothing that follows can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad request magic {0:#010x}")]
pub struct BadMagic(pub u32);

impl RequestHeader {
    pub fn bytes(extended: bool) -> usize {
        if extended { EXTENDED_REQUEST_BYTES } else { COMPACT_REQUEST_BYTES }
    }

    /// Decodes a header if all its bytes are there.
    pub fn decode(bytes: &[u8], extended: bool) -> Result<Option<RequestHeader>, BadMagic> {
        let Some((magic, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let magic = u32::from_be_bytes(*magic);
        // Checked as soon as it is there: a peer that speaks something else may never send a whole header.
        if magic != if extended { EXTENDED_REQUEST_MAGIC } else { REQUEST_MAGIC } {
            return Err(BadMagic(magic));
        }
        Ok(Self::fields(rest, extended))
    }

    fn fields(bytes: &[u8], extended: bool) -> Option<RequestHeader> {
        let (flags, bytes) = bytes.split_first_chunk()?;
        let (command, bytes) = bytes.split_first_chunk()?;
        let (cookie, bytes) = bytes.split_first_chunk()?;
        let (offset, bytes) = bytes.split_first_chunk()?;
        let length = if extended {
            u64::from_be_bytes(*bytes.first_chunk()?)
        } else {
            u64::from(u32::from_be_bytes(*bytes.first_chunk()?))
        };
        Some(RequestHeader {
            flags: u16::from_be_bytes(*flags),
            command: u16::from_be_bytes(*command),
            cookie: u64::from_be_bytes(*cookie),
            offset: u64::from_be_bytes(*offset),
            length,
        })
    }

    /// Bytes that follow the header.
    pub fn payload_bytes(&self, extended: bool) -> u64 {
        let carries =
            if extended { self.flags & CMD_FLAG_PAYLOAD_LEN != 0 } else { self.command == CMD_WRITE };
        if carries { self.length } else { 0 }
    }
}

/// A request in order, ready to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Read { offset: u64, length: u32, dont_fragment: bool },
    Write { offset: u64, length: u32, fua: bool },
    Disconnect,
    Flush,
    Trim { offset: u64, length: u64, fua: bool },
    Cache { offset: u64, length: u64 },
    WriteZeroes { offset: u64, length: u64, no_hole: bool, fast: bool, fua: bool },
    BlockStatus { offset: u64, length: u64, one: bool },
}

/// What decides whether a request is in order: the export, and what was negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub size: u64,
    pub read_only: bool,
    pub block_sizes: BlockSizes,
    /// Replies come in chunks, so `DF` has a meaning.
    pub chunked: bool,
    pub extended: bool,
    /// `base:allocation` was selected for this export.
    pub block_status: bool,
}

impl Limits {
    /// Turns a header into a command, or into the failure to answer with.
    pub fn admit(&self, header: &RequestHeader) -> Result<Command, Failure> {
        let RequestHeader { flags, command, offset, length, .. } = *header;
        self.check_flags(command, flags)?;
        let fua = flags & CMD_FLAG_FUA != 0;
        match command {
            CMD_DISC => Ok(Command::Disconnect),
            CMD_FLUSH => Ok(Command::Flush),
            CMD_READ => {
                self.check_range(header, Errno::Invalid)?;
                let length = self.payload_length(length, Errno::Overflow)?;
                Ok(Command::Read { offset, length, dont_fragment: flags & CMD_FLAG_DF != 0 })
            }
            CMD_WRITE => {
                self.check_writable()?;
                let length = self.payload_length(length, Errno::Invalid)?;
                self.check_range(header, Errno::NoSpace)?;
                Ok(Command::Write { offset, length, fua })
            }
            CMD_TRIM => {
                self.check_writable()?;
                self.check_range(header, Errno::Invalid)?;
                Ok(Command::Trim { offset, length, fua })
            }
            CMD_CACHE => {
                self.check_range(header, Errno::Invalid)?;
                Ok(Command::Cache { offset, length })
            }
            CMD_WRITE_ZEROES => {
                self.check_writable()?;
                self.check_range(header, Errno::NoSpace)?;
                let no_hole = flags & CMD_FLAG_NO_HOLE != 0;
                let fast = flags & CMD_FLAG_FAST_ZERO != 0;
                Ok(Command::WriteZeroes { offset, length, no_hole, fast, fua })
            }
            CMD_BLOCK_STATUS => {
                if !self.block_status {
                    return Err(invalid("no metadata context was selected for this export"));
                }
                if length == 0 {
                    return Err(invalid("block status of nothing"));
                }
                self.check_range(header, Errno::Invalid)?;
                Ok(Command::BlockStatus { offset, length, one: flags & CMD_FLAG_REQ_ONE != 0 })
            }
            unknown => Err(invalid(format!("unknown command {unknown}"))),
        }
    }

    fn check_flags(&self, command: u16, flags: u16) -> Result<(), Failure> {
        // Clients are known to set FUA on anything, and the document tells servers to bear it.
        let own = match command {
            CMD_READ if self.chunked => CMD_FLAG_DF,
            CMD_WRITE if self.extended => CMD_FLAG_PAYLOAD_LEN,
            CMD_WRITE_ZEROES => CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
            CMD_BLOCK_STATUS => CMD_FLAG_REQ_ONE,
            _ => 0,
        };
        let stray = flags & !(own | CMD_FLAG_FUA);
        if stray != 0 {
            return Err(invalid(format!("flags {stray:#x} do not apply to command {command}")));
        }
        if command == CMD_WRITE && self.extended && flags & CMD_FLAG_PAYLOAD_LEN == 0 {
            return Err(invalid("a write without payload"));
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<(), Failure> {
        if self.read_only {
            return Err(Failure::new(Errno::Perm, "the export is read-only"));
        }
        Ok(())
    }

    fn check_range(&self, header: &RequestHeader, beyond: Errno) -> Result<(), Failure> {
        let (offset, length) = (header.offset, header.length);
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            let message = format!("{length} bytes at {offset} reach beyond the end at {}", self.size);
            return Err(Failure::new(beyond, message));
        }
        let minimum = u64::from(self.block_sizes.minimum);
        if !offset.is_multiple_of(minimum) || !length.is_multiple_of(minimum) {
            return Err(invalid(format!("{length} bytes at {offset} are not aligned to {minimum}")));
        }
        Ok(())
    }

    fn payload_length(&self, length: u64, too_long: Errno) -> Result<u32, Failure> {
        let maximum = self.block_sizes.maximum;
        match u32::try_from(length) {
            Ok(length) if length <= maximum => Ok(length),
            _ => Err(Failure::new(
                too_long,
                format!("{length} bytes in one request, the maximum is {maximum}"),
            )),
        }
    }
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Failure {
    Failure::new(Errno::Invalid, message)
}

#[cfg(test)]
mod tests;
