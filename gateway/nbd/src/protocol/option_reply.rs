//! The handshake as the server speaks it: greeting, option replies, and the end of the old EXPORT_NAME path.

use bytes::BufMut;

use super::*;
use crate::export::BlockSizes;

/// Zero bytes that end EXPORT_NAME unless both sides agreed to leave them out.
const EXPORT_NAME_PADDING_BYTES: usize = 124;

/// The first bytes on a connection.
pub fn greeting() -> [u8; 18] {
    let mut bytes = [0; 18];
    let mut out = &mut bytes[..];
    out.put_u64(INIT_PASSWD);
    out.put_u64(OPTION_MAGIC);
    out.put_u16(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
    bytes
}

/// Writes the replies to one option.
pub struct OptionReply<'a> {
    pub option: u32,
    pub out: &'a mut Vec<u8>,
}

impl OptionReply<'_> {
    fn header(&mut self, kind: u32, length: usize) {
        self.out.put_u64(OPTION_REPLY_MAGIC);
        self.out.put_u32(self.option);
        self.out.put_u32(kind);
        // Every caller's data is bounded by a few MAX_STRING_BYTES.
        self.out.put_u32(length as u32);
    }

    pub fn ack(&mut self) {
        self.header(REP_ACK, 0);
    }

    /// `kind` is one of the `REP_ERR_` values.
    pub fn error(&mut self, kind: u32, message: &str) {
        let message = clip(message);
        self.header(kind, message.len());
        self.out.put_slice(message.as_bytes());
    }

    /// One entry of a list.
    pub fn server(&mut self, name: &str, description: &str) {
        let description = clip(description);
        self.header(REP_SERVER, 4 + name.len() + description.len());
        self.out.put_u32(name.len() as u32);
        self.out.put_slice(name.as_bytes());
        self.out.put_slice(description.as_bytes());
    }

    pub fn info_export(&mut self, size: u64, flags: u16) {
        self.header(REP_INFO, 12);
        self.out.put_u16(INFO_EXPORT);
        self.out.put_u64(size);
        self.out.put_u16(flags);
    }

    pub fn info_name(&mut self, name: &str) {
        self.info_text(INFO_NAME, name);
    }

    pub fn info_description(&mut self, description: &str) {
        self.info_text(INFO_DESCRIPTION, clip(description));
    }

    fn info_text(&mut self, kind: u16, text: &str) {
        self.header(REP_INFO, 2 + text.len());
        self.out.put_u16(kind);
        self.out.put_slice(text.as_bytes());
    }

    pub fn info_block_size(&mut self, sizes: BlockSizes) {
        self.header(REP_INFO, 14);
        self.out.put_u16(INFO_BLOCK_SIZE);
        self.out.put_u32(sizes.minimum);
        self.out.put_u32(sizes.preferred);
        self.out.put_u32(sizes.maximum);
    }

    pub fn meta_context(&mut self, id: u32, name: &str) {
        self.header(REP_META_CONTEXT, 4 + name.len());
        self.out.put_u32(id);
        self.out.put_slice(name.as_bytes());
    }
}

/// The answer to EXPORT_NAME, which has no header.
pub fn export_name(size: u64, flags: u16, no_zeroes: bool, out: &mut Vec<u8>) {
    out.put_u64(size);
    out.put_u16(flags);
    if !no_zeroes {
        out.put_bytes(0, EXPORT_NAME_PADDING_BYTES);
    }
}

/// The longest start of `text` that the protocol takes as a string.
pub fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_STRING_BYTES)]
}

#[cfg(test)]
mod tests;
