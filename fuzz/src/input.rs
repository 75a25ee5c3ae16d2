//! Cuts an input into the parts a target wants. Short inputs give zeroes and empty parts: no input is invalid.

/// What is left of an input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    pub fn u8(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (part, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        part
    }

    /// A part with its length of two bytes in front.
    pub fn part(&mut self) -> &'a [u8] {
        let length = self.u16() as usize;
        self.take(length)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Parts as [`Input::part`] cuts them.
pub fn join(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for part in parts {
        out.extend_from_slice(&(part.len() as u16).to_le_bytes());
        out.extend_from_slice(part);
    }
    out
}
