//! Little-endian and varint encoding of the store's compact records, and a reader that never panics on what a disk
//! returned.

use bytes::Bytes;

pub(crate) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// LEB128.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Cuts fields from a buffer. Every method returns `None` once the buffer is too short or malformed.
pub(crate) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub fn new(bytes: Bytes) -> Reader {
        Reader { rest: bytes }
    }

    pub fn u8(&mut self) -> Option<u8> {
        let value = *self.rest.first()?;
        self.rest = self.rest.slice(1..);
        Some(value)
    }

    pub fn u32(&mut self) -> Option<u32> {
        let value = u32::from_le_bytes(*self.rest.first_chunk()?);
        self.rest = self.rest.slice(4..);
        Some(value)
    }

    pub fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for (at, &byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                return None;
            }
            value |= bits << (7 * at);
            if byte & 0x80 == 0 {
                self.rest = self.rest.slice(at + 1..);
                return Some(value);
            }
        }
        None
    }

    pub fn take(&mut self, length: usize) -> Option<Bytes> {
        (length <= self.rest.len()).then(|| self.rest.split_to(length))
    }

    pub fn bytes(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.varint()?).ok()?;
        self.take(length)
    }

    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_what_is_too_long() {
        let mut out = Vec::new();
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            put_varint(&mut out, value);
        }
        put_bytes(&mut out, b"abc");
        put_u32(&mut out, 7);
        let mut reader = Reader::new(out.into());
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(reader.varint(), Some(value));
        }
        assert_eq!(reader.bytes().as_deref(), Some(&b"abc"[..]));
        assert_eq!(reader.u32(), Some(7));
        assert_eq!((reader.u8(), reader.u32(), reader.varint(), reader.take(1)), (None, None, None, None));
        assert_eq!(Reader::new(Bytes::from_static(&[0xff; 11])).varint(), None);
        assert_eq!(Reader::new(Bytes::from_static(&[9, 1])).bytes(), None);
    }
}
