//! Putting frames together from the chunks of a stream.

use super::{Frame, FrameError, HEADER_BYTES, Layout, parse_header};
use bytes::{Buf, Bytes, BytesMut};
use nacre_types::checksum::BLOCK;
use std::collections::VecDeque;

/// What a header may reserve before the bytes it announces arrive.
pub(super) const RESERVE_BYTES: usize = 64 << 10;
/// And so many times what has arrived: a usual frame is moved once, with its first part.
const RESERVE_TIMES: usize = 64;
/// A payload this small is copied out of its chunk, so that it does not keep a whole batch of packets in memory.
const KEEP_CHUNK_BYTES_MIN: usize = 2048;
/// A payload of this size is put together by itself and aligned, so that a disk can take it from where it is.
const ALIGN_BYTES_MIN: usize = 32 << 10;

/// Turns the chunks of one stream back into frames. Memory is allocated as bytes arrive, not as announced.
/// A frame that lies in one chunk is not copied; one that spans chunks is put together with one copy.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    /// A frame of which only a part has arrived, without its header once `layout` is set.
    buffer: BytesMut,
    layout: Option<Layout>,
    /// Its payload, if that is large.
    payload: AlignedBytes,
    /// Chunks not looked at yet.
    chunks: VecDeque<Bytes>,
}

/// How much to allocate of `wanted` bytes when `here` are there.
fn room(here: usize, wanted: usize) -> usize {
    wanted.min(RESERVE_BYTES.max(here * RESERVE_TIMES))
}

/// Bytes that begin at a multiple of the block size in memory.
#[derive(Debug, Default)]
struct AlignedBytes {
    /// With padding in front.
    padded: Vec<u8>,
    start: usize,
}

impl AlignedBytes {
    fn with_capacity(bytes: usize) -> AlignedBytes {
        let mut padded: Vec<u8> = Vec::with_capacity(bytes + BLOCK);
        let start = padded.as_ptr().align_offset(BLOCK).min(BLOCK);
        padded.resize(start, 0);
        AlignedBytes { padded, start }
    }

    fn len(&self) -> usize {
        self.padded.len() - self.start
    }

    /// Appends to what will be `wanted` bytes.
    fn extend(&mut self, bytes: &[u8], wanted: usize) {
        if self.padded.capacity() - self.padded.len() < bytes.len() {
            let mut moved = AlignedBytes::with_capacity(room(self.len() + bytes.len(), wanted));
            moved.padded.extend_from_slice(&self.padded[self.start..]);
            *self = moved;
        }
        self.padded.extend_from_slice(bytes);
    }

    fn freeze(self) -> Bytes {
        Bytes::from(self.padded).slice(self.start..)
    }
}

impl Layout {
    fn has_large_payload(&self) -> bool {
        self.payload_len >= ALIGN_BYTES_MIN
    }

    /// Bytes after the header that are put together in one buffer.
    fn gathered_len(&self) -> usize {
        if self.has_large_payload() { self.checked_len() } else { self.total() }
    }
}

impl FrameDecoder {
    pub fn new() -> FrameDecoder {
        FrameDecoder::default()
    }

    /// Takes the next chunk of the stream. Call [`FrameDecoder::next_frame`] until it has no more.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.feed_bytes(Bytes::copy_from_slice(chunk));
    }

    /// Like [`FrameDecoder::feed`], keeping `chunk` instead of copying it.
    pub fn feed_bytes(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.chunks.push_back(chunk);
        }
    }

    /// The next whole frame, if all of it has arrived. After an error the stream is unusable.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        while let Some(chunk) = self.chunks.front_mut() {
            if self.buffer.is_empty()
                && self.layout.is_none()
                && let Some(head) = chunk.first_chunk::<HEADER_BYTES>()
            {
                let layout = parse_header(head)?;
                if chunk.len() - HEADER_BYTES >= layout.total() {
                    chunk.advance(HEADER_BYTES);
                    let all = chunk.split_to(layout.total());
                    if chunk.is_empty() {
                        self.chunks.pop_front();
                    }
                    let mut frame = layout.frame(all, None)?;
                    if frame.payload.len() < KEEP_CHUNK_BYTES_MIN {
                        frame.payload = Bytes::copy_from_slice(&frame.payload);
                    }
                    return Ok(Some(frame));
                }
            }
            let wanted = self.layout.map_or(HEADER_BYTES, |layout| layout.gathered_len());
            let taken = (wanted - self.buffer.len()).min(chunk.len());
            if self.buffer.capacity() < self.buffer.len() + taken {
                let here = self.buffer.len();
                self.buffer.reserve(room(here + taken, wanted) - here);
            }
            self.buffer.extend_from_slice(&chunk[..taken]);
            chunk.advance(taken);
            let payload =
                self.layout.filter(|layout| layout.has_large_payload() && self.buffer.len() == wanted);
            if let Some(layout) = payload {
                let taken = (layout.payload_len - self.payload.len()).min(chunk.len());
                self.payload.extend(&chunk[..taken], layout.payload_len);
                chunk.advance(taken);
            }
            if chunk.is_empty() {
                self.chunks.pop_front();
            }
            if self.buffer.len() < wanted
                || payload.is_some_and(|layout| self.payload.len() < layout.payload_len)
            {
                continue;
            }
            match self.layout {
                None => {
                    let Some(head) = self.buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
                    let layout = parse_header(head)?;
                    self.buffer.clear();
                    if layout.total() == 0 {
                        return layout.frame(Bytes::new(), None).map(Some);
                    }
                    self.layout = Some(layout);
                }
                Some(layout) => {
                    self.layout = None;
                    let gathered = std::mem::take(&mut self.buffer).freeze();
                    let payload =
                        layout.has_large_payload().then(|| std::mem::take(&mut self.payload).freeze());
                    return layout.frame(gathered, payload).map(Some);
                }
            }
        }
        Ok(None)
    }

    #[cfg(test)]
    pub(super) fn reserved_bytes(&self) -> usize {
        self.buffer.capacity() + self.payload.padded.capacity()
    }

    /// Checks that the stream ended between frames.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.buffer.is_empty() && self.layout.is_none() && self.chunks.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Truncated)
        }
    }
}
