//! The receiving side of a connection: large reads, and payloads handed on without copying them.
//!
//! Bytes arrive in chunks of [`CHUNK_BYTES`]; a write's payload is a slice of its chunk. A chunk lives as long as any of
//! its slices, so it is the chunk that is charged to the budget, once, by whoever is its first slice. Payloads above
//! [`SLICE_BYTES_MAX`] get a buffer of exactly their size instead: nothing else can pin it.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::budget::Charge;

/// Size of one receive. Sixteen 4 KiB writes arrive in one system call.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
/// Longest payload that is a slice of a chunk.
pub(crate) const SLICE_BYTES_MAX: usize = CHUNK_BYTES / 2;
/// With less room than this left in a chunk, the next one is begun: a receive should not be small for want of room.
const ROOM_BYTES_MIN: usize = CHUNK_BYTES / 4;

/// Bytes received and not yet consumed.
pub(crate) struct Input {
    chunk: BytesMut,
    /// The charge of the current chunk, while a slice of it is in flight.
    chunk_charge: Weak<Charge>,
    /// A large payload being received: its buffer and how many bytes it must get.
    large: Option<(BytesMut, usize)>,
    /// A slice of this chunk is being received: the chunk must stay.
    pinned: bool,
    received_bytes: u64,
}

impl Input {
    pub(crate) fn new() -> Input {
        Input {
            chunk: BytesMut::new(),
            chunk_charge: Weak::new(),
            large: None,
            pinned: false,
            received_bytes: 0,
        }
    }

    /// The bytes at hand.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.chunk
    }

    /// All bytes ever received: the connection is alive as long as it grows.
    pub(crate) fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    pub(crate) fn consume(&mut self, bytes: usize) {
        self.chunk.advance(bytes);
    }

    /// The charge that covers a slice of the current chunk, if there is one to share.
    pub(crate) fn chunk_charge(&self) -> Option<Rc<Charge>> {
        self.chunk_charge.upgrade()
    }

    pub(crate) fn set_chunk_charge(&mut self, charge: &Rc<Charge>) {
        self.chunk_charge = Rc::downgrade(charge);
    }

    /// Prepares to receive a payload as a slice: from here on it cannot move to another chunk.
    pub(crate) fn begin_slice(&mut self, length: usize) {
        assert!(length <= SLICE_BYTES_MAX, "{length} bytes are no slice");
        self.make_room(length.saturating_sub(self.chunk.len()));
        self.pinned = true;
    }

    /// Prepares to receive a large payload; its charge must have been taken.
    pub(crate) fn begin_large(&mut self, length: usize) {
        assert!(self.large.is_none() && !self.pinned, "one payload at a time");
        let at_hand = length.min(self.chunk.len());
        let mut buffer = BytesMut::with_capacity(length);
        buffer.put_slice(&self.chunk[..at_hand]);
        self.chunk.advance(at_hand);
        self.large = Some((buffer, length));
    }

    /// The payload begun, once all of it is there.
    pub(crate) fn take_payload(&mut self, length: usize) -> Option<Bytes> {
        match &self.large {
            Some((buffer, length)) if buffer.len() == *length => {
                self.large.take().map(|(buffer, _)| buffer.freeze())
            }
            Some(_) => None,
            None if self.chunk.len() >= length => {
                self.pinned = false;
                Some(self.chunk.split_to(length).freeze())
            }
            None => None,
        }
    }

    /// Forgets everything received.
    pub(crate) fn clear(&mut self) {
        self.chunk = BytesMut::new();
        self.large = None;
        self.pinned = false;
    }

    /// Receives more, into the large payload if there is one; zero at the end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Poll<io::Result<usize>> {
        let received = if let Some((buffer, length)) = &mut self.large {
            let missing = *length - buffer.len();
            let mut rest = buffer.limit(missing);
            ready!(pin!(stream.read_buf(&mut rest)).poll(cx))?
        } else {
            if self.chunk.capacity() - self.chunk.len() < ROOM_BYTES_MIN && !self.pinned {
                self.make_room(ROOM_BYTES_MIN);
            }
            let room = self.chunk.capacity() - self.chunk.len();
            assert!(room > 0, "a receive needs room");
            let mut rest = (&mut self.chunk).limit(room);
            ready!(pin!(stream.read_buf(&mut rest)).poll(cx))?
        };
        self.received_bytes += received as u64;
        Poll::Ready(Ok(received))
    }

    /// Makes room for `additional` bytes after those at hand, in this chunk or, if its slices are in flight, a new one.
    fn make_room(&mut self, additional: usize) {
        if self.chunk.try_reclaim(additional) {
            return;
        }
        assert!(self.chunk.len() + additional <= CHUNK_BYTES);
        let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
        chunk.put_slice(&self.chunk);
        self.chunk = chunk;
        self.chunk_charge = Weak::new();
    }
}
