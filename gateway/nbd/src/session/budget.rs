//! Memory accounting: what a connection, and all of them together, may have in flight.
//!
//! A [`Charge`] is taken before the memory it stands for, and returned when dropped. A request takes all it will need
//! at once, so that requests never wait for each other while holding a part.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// What a request accounts for besides its data: its future, its reply's head or error message.
pub(crate) const REQUEST_BYTES: usize = 2 << 10;

type Acquire = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>>>>;

/// The bytes all connections of a server share. First come, first served.
#[derive(Debug)]
pub(crate) struct ServerBudget {
    bytes: Arc<Semaphore>,
    waiting: Cell<usize>,
}

impl ServerBudget {
    pub(crate) fn new(bytes_max: usize) -> Rc<ServerBudget> {
        Rc::new(ServerBudget { bytes: Arc::new(Semaphore::new(bytes_max)), waiting: Cell::new(0) })
    }

    /// Connections that wait for memory others hold.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.get()
    }
}

/// One connection's part of the budget.
pub(crate) struct ConnectionBudget {
    server: Rc<ServerBudget>,
    free: Rc<Cell<usize>>,
    bytes_max: usize,
    acquire: Option<Acquire>,
}

/// Bytes that were granted; dropping it gives them back.
#[derive(Debug)]
pub(crate) struct Charge {
    bytes: usize,
    free: Rc<Cell<usize>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.free.set(self.free.get() + self.bytes);
    }
}

impl ConnectionBudget {
    pub(crate) fn new(server: Rc<ServerBudget>, bytes_max: usize) -> ConnectionBudget {
        ConnectionBudget { server, free: Rc::new(Cell::new(bytes_max)), bytes_max, acquire: None }
    }

    /// Bytes granted and not yet returned.
    pub(crate) fn held(&self) -> usize {
        self.bytes_max - self.free.get()
    }

    /// Connections other than this one that wait for memory.
    pub(crate) fn others_waiting(&self) -> bool {
        self.server.waiting() > usize::from(self.acquire.is_some())
    }

    /// Takes `bytes`, or says that they are not there now. While the connection's own part is used up nothing wakes
    /// the caller: it is the one who will return it.
    pub(crate) fn poll_take(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<Charge> {
        if self.free.get() < bytes {
            return Poll::Pending;
        }
        let permit = match self.poll_server(cx, bytes) {
            Poll::Ready(permit) => permit,
            Poll::Pending => return Poll::Pending,
        };
        self.free.set(self.free.get() - bytes);
        Poll::Ready(Charge { bytes, free: Rc::clone(&self.free), _permit: permit })
    }

    fn poll_server(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<OwnedSemaphorePermit> {
        // Config::validate keeps budgets within usize, and a request is at most MAX_PAYLOAD_BYTES and a little.
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        if self.acquire.is_none() {
            if let Ok(permit) = Arc::clone(&self.server.bytes).try_acquire_many_owned(permits) {
                return Poll::Ready(permit);
            }
            self.acquire = Some(Box::pin(Arc::clone(&self.server.bytes).acquire_many_owned(permits)));
            self.server.waiting.set(self.server.waiting.get() + 1);
        }
        let Some(acquire) = &mut self.acquire else {
            return Poll::Pending;
        };
        match acquire.as_mut().poll(cx) {
            Poll::Ready(Ok(permit)) => {
                self.stop_waiting();
                Poll::Ready(permit)
            }
            // The semaphore is never closed.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Gives up a wait, if there is one.
    pub(crate) fn stop_waiting(&mut self) {
        if self.acquire.take().is_some() {
            self.server.waiting.set(self.server.waiting.get() - 1);
        }
    }
}

impl Drop for ConnectionBudget {
    fn drop(&mut self) {
        self.stop_waiting();
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn poll(budget: &mut ConnectionBudget, bytes: usize) -> Poll<Charge> {
        budget.poll_take(&mut Context::from_waker(Waker::noop()), bytes)
    }

    #[test]
    fn a_connection_is_held_to_its_part() {
        let server = ServerBudget::new(1000);
        let mut budget = ConnectionBudget::new(Rc::clone(&server), 100);
        let Poll::Ready(first) = poll(&mut budget, 60) else { panic!("60 of 100 are there") };
        assert!(poll(&mut budget, 41).is_pending());
        assert_eq!(server.waiting(), 0, "waiting for its own part is nobody else's concern");
        drop(first);
        assert_eq!(budget.held(), 0);
        assert!(poll(&mut budget, 100).is_ready());
    }

    #[test]
    fn connections_wait_for_each_other_and_are_counted() {
        let server = ServerBudget::new(100);
        let mut one = ConnectionBudget::new(Rc::clone(&server), 100);
        let mut two = ConnectionBudget::new(Rc::clone(&server), 100);
        let Poll::Ready(charge) = poll(&mut one, 80) else { panic!("80 of 100 are there") };
        assert!(poll(&mut two, 30).is_pending());
        assert!(one.others_waiting());
        assert!(!two.others_waiting());
        drop(charge);
        let Poll::Ready(charge) = poll(&mut two, 30) else { panic!("everything was returned") };
        assert_eq!(server.waiting(), 0);
        assert!(poll(&mut one, 71).is_pending());
        drop(one);
        assert_eq!(server.waiting(), 0, "a connection that ends waits no more");
        drop(charge);
        assert_eq!(server.bytes.available_permits(), 100);
    }
}
