//! Watching an object: a stream of notices that survives failover.

use crate::cluster::LingerHandle;
use crate::{Object, Result};
use bytes::Bytes;
use nacre_types::ObjectId;
use nacre_wire::op::{ObjectOpKind, Watch};
use nacre_wire::{ErrorCode, OpError};
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

/// How long an OSD keeps a watch that is not renewed; it is renewed three times as often.
const WATCH_TIMEOUT: Duration = Duration::from_secs(30);

/// What a watcher is told.
#[derive(Clone, PartialEq, Debug)]
pub enum Notice {
    /// Somebody notified. The notifier waits until [`WatchStream::ack`].
    Notified { notify_id: u64, payload: Bytes },
    /// The watch was broken and is registered anew: notifications may have been missed.
    Reconnected,
    /// The watch is over (the object was removed, the right to it taken away).
    Ended(OpError),
}

/// A watch that lives as long as this does.
pub struct WatchStream {
    object: Object,
    id: ObjectId,
    handle: LingerHandle,
}

impl WatchStream {
    /// The next notice. May be dropped and asked again without losing any.
    pub async fn next(&self) -> Notice {
        poll_fn(|cx| match self.try_next() {
            Some(notice) => Poll::Ready(notice),
            None => {
                *self.handle.shared.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// A notice that is here already.
    pub fn try_next(&self) -> Option<Notice> {
        self.handle.shared.notices.borrow_mut().pop_front()
    }

    pub fn has_notices(&self) -> bool {
        !self.handle.shared.notices.borrow().is_empty()
    }

    /// Ends the watch, and waits until the OSD knows: notifiers do not wait for it any more. Dropping it ends it too, but
    /// says so only if the driver still turns.
    pub async fn close(self) -> Result<()> {
        let WatchStream { object, handle, .. } = self;
        let over = OpError::new(ErrorCode::Canceled, "the watch was closed");
        *handle.shared.lost.borrow_mut() = Some(over);
        let watch = Watch { cookie: handle.id, unwatch: true, timeout_ms: 0 };
        object.one(ObjectOpKind::Watch(watch)).await.map(drop)
    }

    /// Answers a notification.
    pub fn ack(&self, notify_id: u64, reply: impl Into<Bytes>) {
        self.handle.cluster.ack_notify(&self.id, notify_id, self.handle.id, reply.into());
    }
}

impl Object {
    /// Watches the object from here on.
    pub async fn watch(&self) -> Result<WatchStream> {
        let cluster = self.pool().cluster();
        let id = cluster.new_linger_id();
        let timeout_ms = WATCH_TIMEOUT.as_millis() as u64;
        let kind = ObjectOpKind::Watch(Watch { cookie: id, unwatch: false, timeout_ms });
        let object = self.id()?;
        let handle = cluster.linger(id, object.clone(), kind.clone().into(), true, WATCH_TIMEOUT);
        self.one(kind).await?;
        handle.begin(cluster.now() + WATCH_TIMEOUT);
        Ok(WatchStream { object: self.clone(), id: object, handle })
    }
}
