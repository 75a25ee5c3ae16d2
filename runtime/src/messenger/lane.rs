//! What waits to be written to one lane of a session.
//!
//! Heads and small payloads are gathered in one buffer, so that many small frames are one chunk of the stream: quinn
//! looks for a packet's bytes by walking the chunks. Large payloads go as they are.

use bytes::{Bytes, BytesMut};
use nacre_wire::Packet;
use std::cell::RefCell;
use std::task::{Context, Poll, Waker};

/// Copying this much costs less than a chunk of its own.
const GATHER_BYTES_MAX: usize = 16 << 10;
/// The gathering buffer is allocated in this size and passed on when it is full.
const BUFFER_BYTES: usize = 64 << 10;
/// What most heads fit in; a longer one makes the buffer grow.
const HEAD_BYTES: usize = 1 << 10;

#[derive(Default)]
pub(super) struct Lane {
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    chunks: Vec<Bytes>,
    tail: BytesMut,
    bytes: usize,
    finished: bool,
    writer: Option<Waker>,
}

impl Lane {
    /// Appends a packet's frame and says how many bytes it has.
    pub fn push(&self, packet: &Packet) -> usize {
        let state = &mut *self.state.borrow_mut();
        let payload = &packet.data.bytes;
        let gathered = if payload.len() <= GATHER_BYTES_MAX { payload.len() } else { 0 };
        if state.tail.capacity() - state.tail.len() < HEAD_BYTES + gathered {
            // The next buffer; growing this one would copy what it holds.
            if !state.tail.is_empty() {
                state.chunks.push(state.tail.split().freeze());
            }
            state.tail.reserve(BUFFER_BYTES);
        }
        let head_start = state.tail.len();
        packet.write_head(&mut state.tail);
        let bytes = state.tail.len() - head_start + payload.len();
        if payload.len() <= GATHER_BYTES_MAX {
            state.tail.extend_from_slice(payload);
        } else {
            state.chunks.push(state.tail.split().freeze());
            state.chunks.push(payload.clone());
        }
        state.bytes += bytes;
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
        bytes
    }

    /// Moves everything queued to `out` and says how many bytes that is; `None` at the end of the lane.
    pub fn poll_take(&self, cx: &mut Context<'_>, out: &mut Vec<Bytes>) -> Poll<Option<usize>> {
        let state = &mut *self.state.borrow_mut();
        if state.bytes == 0 {
            if state.finished {
                return Poll::Ready(None);
            }
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        out.append(&mut state.chunks);
        if !state.tail.is_empty() {
            out.push(state.tail.split().freeze());
        }
        Poll::Ready(Some(std::mem::take(&mut state.bytes)))
    }

    pub fn is_empty(&self) -> bool {
        self.state.borrow().bytes == 0
    }

    /// Nothing more will be queued: the writer ends once the lane is empty.
    pub fn finish(&self) {
        let mut state = self.state.borrow_mut();
        state.finished = true;
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
    }

    /// Drops what is queued.
    pub fn clear(&self) {
        *self.state.borrow_mut() = State { finished: true, ..State::default() };
    }
}
