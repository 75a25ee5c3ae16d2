//! The sending side of a connection: replies queue here and leave in vectored writes, as many at once as are ready.
//!
//! Heads of replies are written into a shared buffer, data is queued as the [`Bytes`] it came in. Each reply keeps its
//! charge until its last byte left: a client that does not read cannot make the queue grow beyond its budget.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use super::operation::{Answer, Completion, Held};
use crate::export::{Extent, Failure, Segment};
use crate::protocol::reply::{ReplyStyle, ReplyTo};
use crate::protocol::{Errno, MAX_EXTENTS};

/// Slices in one write. More would be rare, and the array is on the stack.
const SLICES_MAX: usize = 64;
/// Data up to this length is copied next to its head: cheaper than a slice of its own.
const COPY_BYTES_MAX: usize = 512;
/// Zeroes up to this length are sent as data: a hole chunk costs the client more than it saves.
const HOLE_BYTES_MIN: u64 = 4096;
/// Zeroes to send where a client takes no holes.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Replies on their way out.
pub(crate) struct Output {
    style: ReplyStyle,
    queue: VecDeque<Bytes>,
    /// Heads that follow the queue.
    head: BytesMut,
    queued_bytes: u64,
    sent_bytes: u64,
    /// What each reply holds, and the position in the stream at which it is sent.
    held: VecDeque<(u64, Held)>,
}

impl Output {
    pub(crate) fn new(style: ReplyStyle) -> Output {
        Output {
            style,
            queue: VecDeque::new(),
            head: BytesMut::new(),
            queued_bytes: 0,
            sent_bytes: 0,
            held: VecDeque::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queued_bytes == self.sent_bytes && self.head.is_empty()
    }

    /// All bytes ever sent.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Replies not yet sent.
    pub(crate) fn replies(&self) -> usize {
        self.held.len()
    }

    /// Drops what was queued: there is nobody to send it to.
    pub(crate) fn clear(&mut self) {
        self.queue.clear();
        self.head.clear();
        self.held.clear();
        self.sent_bytes = self.queued_bytes;
    }

    /// Queues the reply to a request; says why, if it is a failure.
    pub(crate) fn push(&mut self, completion: Completion) -> Option<Failure> {
        let Completion { to, answer, held } = completion;
        let result = match answer {
            Answer::Done(result) => result.map(|()| self.style.done(to, self.head())),
            Answer::Read { result, offset, length, dont_fragment } => result.and_then(|segments| {
                check_segments(&segments, length)?;
                self.push_read(to, offset, length, dont_fragment, segments);
                Ok(())
            }),
            Answer::BlockStatus { result, length, one } => result.and_then(|extents| {
                let extents = check_extents(extents, length, one)?;
                self.style.block_status(to, &extents, self.head());
                Ok(())
            }),
        };
        let failure = result.err();
        if let Some(failure) = &failure {
            self.style.failure(to, failure, self.head());
        }
        let end = self.queued_bytes + self.head.len() as u64;
        self.held.push_back((end, held));
        failure
    }

    /// Sends what the socket takes. Ready when something was sent.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        self.flush_head();
        assert!(!self.queue.is_empty(), "sending needs something to send");
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count =
            self.queue.iter().zip(&mut slices).map(|(bytes, slice)| *slice = IoSlice::new(bytes)).count();
        let sent = ready!(Pin::new(stream).poll_write_vectored(cx, &slices[..count]))?;
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.forget(sent);
        Poll::Ready(Ok(()))
    }

    fn forget(&mut self, mut sent: usize) {
        self.sent_bytes += sent as u64;
        while let Some(front) = self.queue.front_mut().filter(|_| sent > 0) {
            let part = front.len().min(sent);
            front.advance(part);
            sent -= part;
            if front.is_empty() {
                self.queue.pop_front();
            }
        }
        while self.held.front().is_some_and(|(end, _)| *end <= self.sent_bytes) {
            self.held.pop_front();
        }
    }

    fn head(&mut self) -> &mut BytesMut {
        &mut self.head
    }

    fn flush_head(&mut self) {
        if !self.head.is_empty() {
            let head = self.head.split().freeze();
            self.queued_bytes += head.len() as u64;
            self.queue.push_back(head);
        }
    }

    fn push_data(&mut self, data: Bytes) {
        if data.len() <= COPY_BYTES_MAX {
            self.head.extend_from_slice(&data);
            return;
        }
        self.flush_head();
        self.queued_bytes += data.len() as u64;
        self.queue.push_back(data);
    }

    fn push_segment(&mut self, segment: Segment) {
        match segment {
            Segment::Data(data) => self.push_data(data),
            Segment::Zero(mut length) => {
                while length > 0 {
                    let part = length.min(ZEROES.len() as u64);
                    self.push_data(Bytes::from_static(&ZEROES[..part as usize]));
                    length -= part;
                }
            }
        }
    }

    /// Runs of data and of holes become a chunk each; without chunks, or where the client wants one piece, it is one.
    fn push_read(
        &mut self,
        to: ReplyTo,
        offset: u64,
        length: u32,
        dont_fragment: bool,
        segments: Vec<Segment>,
    ) {
        let style = self.style;
        if length == 0 {
            style.read_nothing(to, &mut self.head);
            return;
        }
        if !style.chunked() {
            ReplyStyle::read_simple(to, &mut self.head);
            segments.into_iter().for_each(|segment| self.push_segment(segment));
            return;
        }
        let whole_hole = segments.iter().all(|segment| matches!(segment, Segment::Zero(_)));
        let is_hole = |segment: &Segment| {
            whole_hole
                || (!dont_fragment && matches!(segment, Segment::Zero(length) if *length >= HOLE_BYTES_MIN))
        };
        let end = offset + u64::from(length);
        let mut position = offset;
        let mut segments = segments.into_iter().filter(|segment| segment.length() > 0).peekable();
        let mut run = Vec::new();
        while let Some(first) = segments.next() {
            let hole = is_hole(&first);
            let mut run_length = first.length();
            run.push(first);
            while let Some(next) = segments.next_if(|next| is_hole(next) == hole) {
                run_length += next.length();
                run.push(next);
            }
            let last = position + run_length == end;
            if hole {
                // Fits: the whole read is at most 32 bits long.
                style.read_hole(to, last, position, run_length as u32, &mut self.head);
                run.clear();
            } else {
                style.read_data(to, last, position, run_length, &mut self.head);
                run.drain(..).for_each(|segment| self.push_segment(segment));
            }
            position += run_length;
        }
    }
}

/// An export must return what was asked, or the stream to the client would be out of step.
fn check_segments(segments: &[Segment], length: u32) -> Result<(), Failure> {
    let returned = segments.iter().fold(0u64, |sum, segment| sum.saturating_add(segment.length()));
    if returned == u64::from(length) {
        return Ok(());
    }
    Err(Failure::new(Errno::Io, format!("the export returned {returned} bytes of {length}")))
}

/// Merges neighbours of one state, and cuts what reaches beyond the request or beyond one reply.
fn check_extents(extents: Vec<Extent>, length: u64, one: bool) -> Result<Vec<Extent>, Failure> {
    let mut merged: Vec<Extent> = Vec::with_capacity(extents.len().min(MAX_EXTENTS));
    let mut left = length;
    for extent in extents {
        let part = extent.length.min(left);
        if part == 0 {
            continue;
        }
        let full = merged.len() == if one { 1 } else { MAX_EXTENTS };
        match merged.last_mut() {
            Some(last) if last.state == extent.state => last.length += part,
            _ if full => break,
            _ => merged.push(Extent { length: part, ..extent }),
        }
        left -= part;
    }
    if merged.is_empty() {
        return Err(Failure::new(Errno::Io, "the export returned no extent"));
    }
    Ok(merged)
}

#[cfg(test)]
mod tests;
