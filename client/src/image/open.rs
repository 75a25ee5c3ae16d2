//! Opening an image, and following what others do to its header.

use super::header::Header;
use super::{Gate, Image, Inner, State, check_name, directory};
use crate::{ErrorCode, Notice, OpError, Pool, Result, WatchStream};
use bytes::Bytes;
use nacre_types::SnapId;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// How long a change of the header waits for others to have seen it.
const NOTIFY_TIMEOUT: Duration = Duration::from_secs(5);

/// How to open an image.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OpenOptions {
    pub read_only: bool,
    /// The state at this snapshot; implies read-only.
    pub snapshot: Option<String>,
    /// Be its only owner, by a lease that lasts this long when the client dies. `None` shares it.
    pub exclusive: Option<Duration>,
    /// Wait that long for another owner to go; then fail with `Busy`.
    pub wait: Duration,
    /// Shut another owner out instead of waiting.
    pub take_over: bool,
}

impl OpenOptions {
    pub fn read_only() -> OpenOptions {
        OpenOptions { read_only: true, ..OpenOptions::default() }
    }

    /// The lease a gateway takes: long enough for a failover, short enough to wait for.
    pub fn exclusive() -> OpenOptions {
        OpenOptions { exclusive: Some(Duration::from_secs(30)), ..OpenOptions::default() }
    }

    pub fn at(snapshot: &str) -> OpenOptions {
        OpenOptions { snapshot: Some(snapshot.into()), ..OpenOptions::default() }
    }
}

impl Pool {
    pub async fn open_image(&self, name: &str, options: OpenOptions) -> Result<Image> {
        check_name("image", name)?;
        let (id, header) = directory::find(self, name).await?;
        if header.fields.removing {
            let text = format!("image '{name}' is half removed: remove it again to finish");
            return Err(OpError::new(ErrorCode::Busy, text));
        }
        let object = self.object(super::layout::header_name(&id));
        let lease = match options.exclusive {
            Some(duration) => Some(super::owner::acquire(&object, name, duration, &options).await?),
            None => None,
        };
        let pool = match &lease {
            Some(lease) => self.under_lease(lease),
            None => self.clone(),
        };
        // Watch first, then read: no change falls in between.
        let watch = object.watch().await?;
        let header = Header::read(self, &id).await?;
        let snapshot = match &options.snapshot {
            Some(name) => Some(header.snapshot(name)?),
            None => None,
        };
        let layout = header.layout()?;
        let read_only = options.read_only || snapshot.is_some();
        let state = RefCell::new(state(&pool, header, snapshot.as_ref()));
        let inner = Inner {
            pool,
            id,
            layout,
            state,
            read_only,
            snapshot,
            writes: Gate::default(),
            refreshes: Gate::default(),
            watch: RefCell::new(Some(Rc::new(watch))),
            lease: RefCell::new(lease),
            news: RefCell::default(),
            gone: Cell::new(false),
            closed: Cell::new(false),
        };
        Ok(Image { inner: Rc::new(inner) })
    }
}

fn state(pool: &Pool, header: Header, snapshot: Option<&super::Snapshot>) -> State {
    let (data, size) = match snapshot {
        Some(snapshot) => (pool.at_snap(SnapId(snapshot.id)), snapshot.size),
        None => (pool.with_snap_context(header.snap_context()), header.fields.size),
    };
    State { header, data, size }
}

impl Image {
    /// Follows changes made by others while nothing is read or written. Without it they are seen at the next
    /// operation, and whoever makes one waits a few seconds for this opening to answer. Never ends.
    pub async fn follow(&self) {
        loop {
            let Some(watch) = self.watch() else { return std::future::pending().await };
            let notice = watch.next().await;
            self.inner.news.borrow_mut().push(notice);
            // An error shows at the next operation, which tries again.
            let _ = self.handle().await;
        }
    }

    /// Before every operation: the header is as new as anybody has said.
    pub(super) async fn ready(&self) -> Result<()> {
        let watched = self.inner.watch.borrow().as_ref().is_some_and(|watch| watch.has_notices());
        if watched || !self.inner.news.borrow().is_empty() {
            self.handle().await?;
        }
        let problem = match (self.inner.gone.get(), self.inner.closed.get()) {
            (false, false) => return Ok(()),
            (true, _) => "was removed",
            (false, true) => "was closed here",
        };
        Err(OpError::new(ErrorCode::NotFound, format!("image '{}' {problem}", self.name())))
    }

    fn watch(&self) -> Option<Rc<WatchStream>> {
        self.inner.watch.borrow().clone()
    }

    /// Reads the header again for the news there are, then answers them. May be dropped at any point: news stay until
    /// they are dealt with.
    async fn handle(&self) -> Result<()> {
        let Some(watch) = self.watch() else { return Ok(()) };
        let _alone = self.inner.refreshes.close().await;
        while let Some(notice) = watch.try_next() {
            self.inner.news.borrow_mut().push(notice);
        }
        let news = self.inner.news.borrow().clone();
        if news.is_empty() {
            return Ok(());
        }
        if news.iter().any(|n| matches!(n, Notice::Ended(e) if e.code == ErrorCode::NotFound)) {
            self.inner.gone.set(true);
        } else {
            // Writes under the old snapshot context end before anybody is told that the new one is in use.
            let _no_writes = self.inner.writes.close().await;
            self.refresh().await?;
        }
        self.inner.news.borrow_mut().drain(..news.len());
        for notice in news {
            if let Notice::Notified { notify_id, .. } = notice {
                watch.ack(notify_id, Bytes::new());
            }
        }
        Ok(())
    }

    pub(super) async fn refresh(&self) -> Result<()> {
        match Header::read(&self.inner.pool, &self.inner.id).await {
            Ok(header) => {
                self.set_header(header);
                Ok(())
            }
            Err(error) if error.code == ErrorCode::NotFound => {
                self.inner.gone.set(true);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn set_header(&self, header: Header) {
        let new = state(&self.inner.pool, header, self.inner.snapshot.as_ref());
        *self.inner.state.borrow_mut() = new;
    }

    /// Tells all who have the image open that its header has changed, and waits a moment for them to follow.
    pub(super) async fn tell_others(&self) -> Result<()> {
        let object = self.inner.pool.object(super::layout::header_name(&self.inner.id));
        let mut telling = pin!(object.notify("header", NOTIFY_TIMEOUT));
        // This opening watches too and must answer itself.
        let mut following = pin!(self.follow());
        let told = poll_fn(|cx| {
            if let Poll::Ready(result) = telling.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            let _never_ends = following.as_mut().poll(cx);
            Poll::Pending
        });
        match told.await {
            // Nobody was told, but the change stands: they see it when they next look.
            Err(error) if error.code == ErrorCode::TimedOut => Ok(()),
            result => result.map(drop),
        }
    }

    /// Ends this opening: waits for writes, gives the lease back, and is not waited for by others any more.
    pub async fn close(&self) -> Result<()> {
        self.inner.closed.set(true);
        self.inner.writes.drain().await;
        let watch = self.inner.watch.take().and_then(Rc::into_inner);
        if let Some(watch) = watch {
            watch.close().await?;
        }
        let lease = self.inner.lease.borrow_mut().take();
        match lease {
            Some(lease) => match lease.unlock().await {
                // Gone with the image, or taken by somebody else: given back either way.
                Err(error) if error.code == ErrorCode::NotFound => Ok(()),
                result => result,
            },
            None => Ok(()),
        }
    }
}
