//! The transmission phase of one connection: requests in, many in flight, replies out as they complete.
//!
//! One task does it all. Each turn takes requests from the socket, collects what completed, and sends all of it in one
//! write; it sleeps when none of the three moves. There is no task per request and no lock.
//!
//! ```text
//!                 header            room in the budget          payload there
//!      Header ──────────────► Admit ───────────────────► Payload ─────────────► running ──► output
//!        ▲                      │ refused: Skip its payload, then reply              │
//!        └──────────────────────┴──────────────────── next request ◄────────────────┘ (at once, not when it is done)
//!
//!      Open ── DISC, end of stream, violation, stop ──► Draining ── nothing running, all sent ──► closed
//! ```
//!
//! Reading pauses in `Admit` while the budget is used up. A request that was started always runs to its end.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep};

use super::SessionContext;
use super::budget::{ConnectionBudget, REQUEST_BYTES};
use super::handshake::Negotiated;
use super::input::{CHUNK_BYTES, Input, SLICE_BYTES_MAX};
use super::operation::{Answer, Completion, Held, Operation, Started, start};
use super::output::Output;
use crate::export::{Export, Failure};
use crate::protocol::reply::{ReplyStyle, ReplyTo};
use crate::protocol::request::{Command, Limits, RequestHeader};
use crate::protocol::{MAX_EXTENTS, MAX_SKIP_BYTES};
use crate::stats::Stats;

/// Why a connection ended.
#[derive(Debug)]
pub(crate) enum Closed {
    /// The client asked for it.
    Disconnected,
    /// The client closed the stream between two requests.
    EndOfStream,
    EndOfStreamInRequest,
    Stopped,
    /// Requests were still running when the time to stop was over.
    DrainTimeout {
        running: usize,
    },
    Violation(String),
    Io(std::io::Error),
    Stalled {
        held_bytes: usize,
    },
}

impl Closed {
    /// Whether the client is at fault.
    pub(crate) fn is_violation(&self) -> bool {
        matches!(self, Closed::Violation(_) | Closed::Stalled { .. })
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::Disconnected => f.write_str("the client disconnected"),
            Closed::EndOfStream => f.write_str("the client closed the connection"),
            Closed::EndOfStreamInRequest => f.write_str("the client closed the connection within a request"),
            Closed::Stopped => f.write_str("the server stops"),
            Closed::DrainTimeout { running } => {
                write!(f, "the server stops, with {running} requests unfinished")
            }
            Closed::Violation(what) => write!(f, "protocol violation: {what}"),
            Closed::Io(error) => write!(f, "{error}"),
            Closed::Stalled { held_bytes } => {
                write!(f, "the client stalled, holding {held_bytes} bytes")
            }
        }
    }
}

/// Where the receiving side is.
enum Stage {
    Header,
    /// A request waits for room. `Err` is a failure to answer with, after `payload_bytes` were skipped.
    Admit {
        to: ReplyTo,
        request: Result<Command, Failure>,
        payload_bytes: u64,
    },
    Payload {
        to: ReplyTo,
        command: Command,
        length: usize,
        held: Held,
    },
    Skip {
        to: ReplyTo,
        failure: Failure,
        left: u64,
        held: Held,
    },
    /// Nothing more is read.
    Draining(Closed),
}

/// One connection in the transmission phase.
pub(crate) struct Transmission<'a, S> {
    context: &'a SessionContext,
    stream: &'a mut S,
    export: Rc<dyn Export>,
    limits: Limits,
    stage: Stage,
    input: Input,
    running: FuturesUnordered<Operation>,
    output: Output,
    budget: ConnectionBudget,
    /// The stream broke: replies are dropped, what runs still runs to its end.
    peer_gone: bool,
    failures: u64,
    watch: StallWatch,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Transmission<'a, S> {
    pub(crate) fn new(context: &'a SessionContext, stream: &'a mut S, negotiated: Negotiated) -> Self {
        let Negotiated { export, style, block_status } = negotiated;
        let limits = Limits {
            size: export.size(),
            read_only: export.read_only(),
            block_sizes: export.block_sizes().legal(),
            chunked: style.chunked(),
            extended: style == ReplyStyle::Extended,
            block_status,
        };
        let budget = ConnectionBudget::new(Rc::clone(&context.budget), context.config.connection_bytes_max);
        Transmission {
            context,
            stream,
            export,
            limits,
            stage: Stage::Header,
            input: Input::new(),
            running: FuturesUnordered::new(),
            output: Output::new(style),
            budget,
            peer_gone: false,
            failures: 0,
            watch: StallWatch::new(context.config.stall_timeout),
        }
    }

    /// Serves until the connection is done; `stop` asks to finish what is in flight and close.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>) -> Closed {
        let mut stop = std::pin::pin!(stop);
        let mut stopping: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            if stopping.is_none() && stop.as_mut().poll(cx).is_ready() {
                self.drain(Closed::Stopped);
                stopping = Some(Box::pin(sleep(self.context.config.drain_timeout)));
            }
            if let Poll::Ready(closed) = self.poll(cx) {
                return Poll::Ready(closed);
            }
            let timeout = stopping.as_mut().is_some_and(|deadline| deadline.as_mut().poll(cx).is_ready());
            if timeout {
                Poll::Ready(Closed::DrainTimeout { running: self.running.len() })
            } else {
                Poll::Pending
            }
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        loop {
            let mut moved = self.receive(cx);
            moved |= self.collect(cx);
            moved |= self.send(cx);
            if let Some(closed) = self.finished() {
                return Poll::Ready(closed);
            }
            if moved {
                continue;
            }
            if let Some(closed) = self.check_stall(cx) {
                return Poll::Ready(closed);
            }
            return Poll::Pending;
        }
    }

    fn finished(&mut self) -> Option<Closed> {
        let idle = self.running.is_empty() && self.output.is_empty();
        if !idle || !matches!(self.stage, Stage::Draining(_)) {
            return None;
        }
        match std::mem::replace(&mut self.stage, Stage::Header) {
            Stage::Draining(closed) => Some(closed),
            _ => None,
        }
    }

    fn drain(&mut self, why: Closed) {
        if !matches!(self.stage, Stage::Draining(_)) {
            self.stage = Stage::Draining(why);
            self.input.clear();
            self.budget.stop_waiting();
        }
    }

    /// Takes requests as long as bytes and budget last. Returns whether anything moved.
    fn receive(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        loop {
            let step = match &self.stage {
                Stage::Header => self.take_header(),
                Stage::Admit { .. } => self.admit(cx),
                Stage::Payload { length, .. } => {
                    let length = *length;
                    self.take_payload(length)
                }
                Stage::Skip { .. } => self.skip(),
                Stage::Draining(_) => return moved,
            };
            match step {
                Step::Next => moved = true,
                Step::Wait => return moved,
                Step::Fill => match self.input.poll_fill(cx, self.stream) {
                    Poll::Ready(Ok(0)) => self.end_of_stream(),
                    Poll::Ready(Ok(_)) => moved = true,
                    Poll::Ready(Err(error)) => self.broken(error),
                    Poll::Pending => return moved,
                },
            }
        }
    }

    fn take_header(&mut self) -> Step {
        let extended = self.limits.extended;
        let header = match RequestHeader::decode(self.input.bytes(), extended) {
            Ok(Some(header)) => header,
            Ok(None) => return Step::Fill,
            Err(bad) => {
                self.drain(Closed::Violation(bad.to_string()));
                return Step::Next;
            }
        };
        self.input.consume(RequestHeader::bytes(extended));
        self.limits.size = self.export.size();
        let request = self.limits.admit(&header);
        let payload_bytes = header.payload_bytes(extended);
        if request.is_err() && payload_bytes > MAX_SKIP_BYTES {
            self.drain(Closed::Violation(format!("a request with a payload of {payload_bytes} bytes")));
            return Step::Next;
        }
        if request == Ok(Command::Disconnect) {
            self.drain(Closed::Disconnected);
            return Step::Next;
        }
        let to = ReplyTo { cookie: header.cookie, offset: header.offset };
        self.stage = Stage::Admit { to, request, payload_bytes };
        Step::Next
    }

    /// Waits until there is room for the request and everything it will need.
    fn admit(&mut self, cx: &mut Context<'_>) -> Step {
        let Stage::Admit { to, request, payload_bytes } = &self.stage else {
            return Step::Wait;
        };
        let (to, payload_bytes) = (*to, *payload_bytes);
        if self.running.len() + self.output.replies() >= self.context.config.connection_requests_max {
            return Step::Wait;
        }
        let slice = matches!(request, Ok(Command::Write { length: 1.., .. }))
            && payload_bytes <= SLICE_BYTES_MAX as u64;
        let held = if slice {
            self.input.begin_slice(payload_bytes as usize);
            self.charge_chunk(cx)
        } else {
            let bytes = REQUEST_BYTES + data_bytes(request);
            self.budget.poll_take(cx, bytes).map(Rc::new)
        };
        let Poll::Ready(held) = held else {
            return Step::Wait;
        };
        let Stage::Admit { request, .. } = std::mem::replace(&mut self.stage, Stage::Header) else {
            return Step::Wait;
        };
        match request {
            Ok(command @ Command::Write { length, .. }) if length > 0 => {
                let length = length as usize;
                if !slice && self.input.bytes().len() < length {
                    self.input.begin_large(length);
                }
                self.stage = Stage::Payload { to, command, length, held };
            }
            Ok(command) => self.start(command, Bytes::new(), to, held),
            Err(failure) => self.stage = Stage::Skip { to, failure, left: payload_bytes, held },
        }
        Step::Next
    }

    fn charge_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Held> {
        if let Some(held) = self.input.chunk_charge() {
            return Poll::Ready(held);
        }
        self.budget.poll_take(cx, CHUNK_BYTES + REQUEST_BYTES).map(|charge| {
            let held = Rc::new(charge);
            self.input.set_chunk_charge(&held);
            held
        })
    }

    fn take_payload(&mut self, length: usize) -> Step {
        let Some(payload) = self.input.take_payload(length) else {
            return Step::Fill;
        };
        if let Stage::Payload { to, command, held, .. } = std::mem::replace(&mut self.stage, Stage::Header) {
            self.start(command, payload, to, held);
        }
        Step::Next
    }

    fn skip(&mut self) -> Step {
        let Stage::Skip { left, .. } = &mut self.stage else {
            return Step::Wait;
        };
        let at_hand = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.bytes().len());
        self.input.consume(at_hand);
        *left -= at_hand as u64;
        if *left > 0 {
            return Step::Fill;
        }
        if let Stage::Skip { to, failure, held, .. } = std::mem::replace(&mut self.stage, Stage::Header) {
            self.context.counters.update(|stats| stats.others += 1);
            self.complete(Completion { to, answer: Answer::Done(Err(failure)), held });
        }
        Step::Next
    }

    fn start(&mut self, command: Command, payload: Bytes, to: ReplyTo, held: Held) {
        self.context.counters.update(|stats| {
            count(stats, command);
            stats.requests_in_flight += 1;
        });
        match start(&self.export, command, payload, to, held) {
            Started::Running(operation) => self.running.push(operation),
            Started::Completed(completion) => {
                self.context.counters.update(|stats| stats.requests_in_flight -= 1);
                self.complete(completion);
            }
        }
    }

    fn collect(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some(completion)) = self.running.poll_next_unpin(cx) {
            self.context.counters.update(|stats| stats.requests_in_flight -= 1);
            self.complete(completion);
            moved = true;
        }
        moved
    }

    fn complete(&mut self, completion: Completion) {
        if self.peer_gone {
            return;
        }
        let Some(failure) = self.output.push(completion) else {
            return;
        };
        self.context.counters.update(|stats| stats.failures += 1);
        self.failures += 1;
        // The first is worth a line; a device that fails would fill the log with the rest.
        if self.failures == 1 {
            tracing::warn!(peer = %self.context.peer, %failure, "a request failed; further ones are logged at debug");
        } else {
            tracing::debug!(peer = %self.context.peer, %failure, "a request failed");
        }
    }

    fn send(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.output.is_empty() {
            match self.output.poll_send(cx, self.stream) {
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(error)) => {
                    self.broken(error);
                    return true;
                }
                Poll::Pending => break,
            }
        }
        moved
    }

    fn end_of_stream(&mut self) {
        let between = matches!(self.stage, Stage::Header) && self.input.bytes().is_empty();
        self.drain(if between { Closed::EndOfStream } else { Closed::EndOfStreamInRequest });
    }

    fn broken(&mut self, error: std::io::Error) {
        self.drain(Closed::Io(error));
        self.peer_gone = true;
        self.output.clear();
    }

    /// Closes a client that owes us progress, if anybody suffers from it.
    fn check_stall(&mut self, cx: &mut Context<'_>) -> Option<Closed> {
        let moved_bytes = self.input.received_bytes() + self.output.sent_bytes();
        if !self.watch.poll_stalled(cx, moved_bytes) {
            return None;
        }
        let owes_payload = matches!(self.stage, Stage::Payload { .. } | Stage::Skip { .. });
        let owes_reading = !self.output.is_empty();
        let draining = matches!(self.stage, Stage::Draining(_));
        let stalled =
            (owes_reading && draining) || ((owes_payload || owes_reading) && self.budget.others_waiting());
        if !stalled {
            return None;
        }
        let held_bytes = self.budget.held();
        self.drain(Closed::Stalled { held_bytes });
        self.peer_gone = true;
        self.output.clear();
        self.finished()
    }
}

impl<S> Drop for Transmission<'_, S> {
    fn drop(&mut self) {
        let unfinished = self.running.len() as u64;
        self.context.counters.update(|stats| stats.requests_in_flight -= unfinished);
    }
}

enum Step {
    /// The stage changed; look again.
    Next,
    /// More bytes are needed.
    Fill,
    /// Something else must complete first.
    Wait,
}

/// The data a request will hold in memory, in either direction.
fn data_bytes(request: &Result<Command, Failure>) -> usize {
    match request {
        Ok(Command::Read { length, .. } | Command::Write { length, .. }) => *length as usize,
        Ok(Command::BlockStatus { .. }) => MAX_EXTENTS * 16,
        _ => 0,
    }
}

fn count(stats: &mut Stats, command: Command) {
    match command {
        Command::Read { length, .. } => {
            stats.reads += 1;
            stats.read_bytes += u64::from(length);
        }
        Command::Write { length, .. } => {
            stats.writes += 1;
            stats.written_bytes += u64::from(length);
        }
        Command::Flush => stats.flushes += 1,
        Command::Trim { .. } => stats.trims += 1,
        Command::WriteZeroes { .. } => stats.zeroes += 1,
        Command::Cache { .. } | Command::BlockStatus { .. } | Command::Disconnect => stats.others += 1,
    }
}

/// Notices that no byte moved for a while. One timer a connection, reset only when it fires: nothing per request.
struct StallWatch {
    timer: Pin<Box<Sleep>>,
    timeout: std::time::Duration,
    moved_bytes: u64,
}

impl StallWatch {
    fn new(timeout: std::time::Duration) -> StallWatch {
        StallWatch { timer: Box::pin(sleep(timeout)), timeout, moved_bytes: 0 }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>, moved_bytes: u64) -> bool {
        let mut stalled = false;
        while self.timer.as_mut().poll(cx).is_ready() {
            stalled = moved_bytes == self.moved_bytes;
            self.moved_bytes = moved_bytes;
            let next = Instant::now() + self.timeout;
            self.timer.as_mut().reset(next);
        }
        stalled
    }
}
