//! Where the machine leaves an answer and a future finds it.

use nacre_wire::messages::{CommandReply, PgAdminReply};
use nacre_wire::op::OsdOpReply;
use nacre_wire::{Data, OpError};
use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// The answer to a call.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    Operation {
        reply: OsdOpReply,
        data: Data,
        epoch: u64,
    },
    Command(CommandReply),
    Admin(PgAdminReply),
    /// Nothing but that it happened: a map arrived, a time passed.
    Done,
}

/// Shared by one call and its future.
#[derive(Debug, Default)]
pub struct Slot {
    result: RefCell<Option<Result<Reply, OpError>>>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    pub fn new() -> Rc<Slot> {
        Rc::default()
    }

    /// Fills the slot. The waker, if any, is to be woken once nothing is borrowed any more.
    pub fn fill(&self, result: Result<Reply, OpError>) -> Option<Waker> {
        *self.result.borrow_mut() = Some(result);
        self.waker.take()
    }

    pub fn poll(&self, waker: &Waker) -> Poll<Result<Reply, OpError>> {
        if let Some(result) = self.result.take() {
            return Poll::Ready(result);
        }
        let mut mine = self.waker.borrow_mut();
        if mine.as_ref().is_none_or(|mine| !mine.will_wake(waker)) {
            *mine = Some(waker.clone());
        }
        Poll::Pending
    }
}
