//! Events waiting for the reactor, bounded in bytes by making readers wait.

use super::MessengerEvent;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// What an event costs besides its body and payload.
const EVENT_BYTES: usize = 256;

pub(super) struct Inbox {
    bytes_max: usize,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// The control lane and news of sessions, taken first.
    urgent: VecDeque<(MessengerEvent, usize)>,
    rest: VecDeque<(MessengerEvent, usize)>,
    bytes: usize,
    reactor: Option<Waker>,
    readers: Vec<Waker>,
}

impl Inbox {
    pub fn new(bytes_max: usize) -> Inbox {
        Inbox { bytes_max, state: RefCell::default() }
    }

    pub fn push(&self, event: MessengerEvent, bytes: usize, urgent: bool) {
        let bytes = bytes + EVENT_BYTES;
        let mut state = self.state.borrow_mut();
        state.bytes += bytes;
        let queue = if urgent { &mut state.urgent } else { &mut state.rest };
        queue.push_back((event, bytes));
        let waker = state.reactor.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub fn pop(&self) -> Option<MessengerEvent> {
        let mut state = self.state.borrow_mut();
        let (event, bytes) = match state.urgent.pop_front() {
            Some(entry) => entry,
            None => state.rest.pop_front()?,
        };
        state.bytes -= bytes;
        if state.bytes <= self.bytes_max / 2 && !state.readers.is_empty() {
            let readers = std::mem::take(&mut state.readers);
            drop(state);
            readers.into_iter().for_each(Waker::wake);
        }
        Some(event)
    }

    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<MessengerEvent> {
        match self.pop() {
            Some(event) => Poll::Ready(event),
            None => {
                self.state.borrow_mut().reactor = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ready when a reader may go on. The control lane is small and gets as much again.
    pub fn poll_room(&self, cx: &mut Context<'_>, urgent: bool) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        let max = if urgent { self.bytes_max * 2 } else { self.bytes_max };
        if state.bytes <= max {
            return Poll::Ready(());
        }
        state.readers.push(cx.waker().clone());
        Poll::Pending
    }

    pub fn bytes(&self) -> usize {
        self.state.borrow().bytes
    }
}
