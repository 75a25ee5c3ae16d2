//! Lets many pass at once, or one alone; and lets somebody wait for those inside.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
pub(super) struct Gate {
    state: RefCell<GateState>,
}

#[derive(Debug, Default)]
struct GateState {
    next: u64,
    inside: BTreeSet<u64>,
    closed: bool,
    waiting: Vec<Waker>,
}

/// Inside, until dropped.
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    number: u64,
}

/// Alone inside, until dropped.
pub(super) struct Alone<'a> {
    gate: &'a Gate,
}

impl Gate {
    pub(super) async fn enter(&self) -> Pass<'_> {
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.closed {
                return state.wait(cx);
            }
            let number = state.next;
            state.next += 1;
            state.inside.insert(number);
            Poll::Ready(Pass { gate: self, number })
        })
        .await
    }

    /// Waits until everybody who is inside now has left.
    pub(super) async fn drain(&self) {
        let until = self.state.borrow().next;
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            match state.inside.first() {
                Some(&first) if first < until => state.wait(cx),
                _ => Poll::Ready(()),
            }
        })
        .await
    }

    /// Lets nobody in, and waits until all have left.
    pub(super) async fn close(&self) -> Alone<'_> {
        let alone = poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.closed {
                return state.wait(cx);
            }
            state.closed = true;
            Poll::Ready(Alone { gate: self })
        })
        .await;
        self.drain().await;
        alone
    }

    fn change(&self, change: impl FnOnce(&mut GateState)) {
        let waiting = {
            let mut state = self.state.borrow_mut();
            change(&mut state);
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl GateState {
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        if !self.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.gate.change(|state| {
            state.inside.remove(&self.number);
        });
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.gate.change(|state| state.closed = false);
    }
}
