//! One session: its queues, its tasks, and its end.
//!
//! ```text
//!            dial ok, or accepted                     connection lost, or end()
//! Dialing ─────────────────────────> Open ─────────────────────────────────────> (gone: SessionClosed)
//!    └── dial failed, or end(): gone, ConnectFailed unless ended on purpose
//! ```

use super::lane::Lane;
use super::{Inner, MessengerEvent, Route, explain, stream};
use nacre_types::EntityName;
use nacre_wire::{Lane as LaneName, Packet, Peer, SessionId};
use quinn::{Connection, RecvStream};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

pub(super) struct Session {
    pub id: SessionId,
    /// Whom it was dialed for and at which address.
    target: Option<(Route, String)>,
    peer: RefCell<Option<EntityName>>,
    connection: RefCell<Option<Connection>>,
    lanes: [Lane; LaneName::ALL.len()],
    writers: RefCell<[Option<JoinHandle<()>>; LaneName::ALL.len()]>,
    queued: Cell<usize>,
    /// Why it ended, as the code and reason given to the peer.
    ended: RefCell<Option<(u32, String)>>,
    ended_notify: Notify,
    /// Set when the peer's port turned out to be closed.
    pub refused: Cell<bool>,
    /// Datagrams received when last looked, and how many looks ago that changed.
    pub heard: Cell<(u64, u32)>,
}

impl Session {
    pub fn new(id: SessionId, target: Option<(Route, String)>) -> Session {
        Session {
            id,
            target,
            peer: RefCell::default(),
            connection: RefCell::default(),
            lanes: Default::default(),
            writers: RefCell::default(),
            queued: Cell::new(0),
            ended: RefCell::default(),
            ended_notify: Notify::new(),
            refused: Cell::new(false),
            heard: Cell::new((0, 0)),
        }
    }

    pub fn route(&self) -> Option<&Route> {
        self.target.as_ref().map(|(route, _)| route)
    }

    /// Empty for sessions that were accepted.
    pub fn address(&self) -> &str {
        self.target.as_ref().map_or("", |(_, address)| address)
    }

    pub fn connection(&self) -> Option<Connection> {
        self.connection.borrow().clone()
    }

    pub fn describe(&self) -> String {
        match (&*self.peer.borrow(), &self.target) {
            (Some(entity), _) => entity.to_string(),
            (None, Some((route, address))) => format!("{route:?} at {address}"),
            (None, None) => self.id.to_string(),
        }
    }

    /// Queues a packet; false once the session has ended.
    pub fn queue(&self, lane: LaneName, packet: &Packet) -> bool {
        if self.has_ended() {
            return false;
        }
        let bytes = self.lanes[lane.index()].push(packet);
        self.queued.set(self.queued.get() + bytes);
        true
    }

    pub fn queued_bytes(&self) -> usize {
        self.queued.get()
    }

    /// Sees to it that somebody writes the lane, once there is a connection.
    pub fn start_writer(self: &Rc<Session>, lane: LaneName) {
        if self.writers.borrow()[lane.index()].is_some() {
            return;
        }
        let Some(connection) = self.connection() else { return };
        let writer = tokio::task::spawn_local(write_lane(self.clone(), connection, lane));
        self.writers.borrow_mut()[lane.index()] = Some(writer);
    }

    /// Ends the session: nothing more is sent or dialed, the peer is told.
    pub fn end(&self, code: u32, reason: &str) {
        self.ended.borrow_mut().get_or_insert_with(|| (code, reason.to_owned()));
        self.ended_notify.notify_one();
        if let Some(connection) = self.connection() {
            connection.close(code.into(), reason.as_bytes());
        }
    }

    pub fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Resolves when [`Session::end`] is called, with its code and reason. For one waiter.
    pub async fn until_ended(&self) -> (u32, String) {
        loop {
            if let Some(ended) = &*self.ended.borrow() {
                return ended.clone();
            }
            self.ended_notify.notified().await;
        }
    }

    /// Lets the writers stop once they have written what is queued.
    pub fn finish_lanes(&self) {
        self.lanes.iter().for_each(Lane::finish);
    }

    /// After [`Session::finish_lanes`]: resolves when the peer has everything.
    pub async fn flushed(&self) {
        let writers: Vec<JoinHandle<()>> =
            self.writers.borrow_mut().iter_mut().filter_map(Option::take).collect();
        for writer in writers {
            let _ = writer.await;
        }
    }
}

/// Writes one lane's queue to its stream until either ends.
async fn write_lane(session: Rc<Session>, connection: Connection, lane: LaneName) {
    let Ok(mut stream) = connection.open_uni().await else { return };
    // Control is 0, everything else waits behind it.
    let _ = stream.set_priority(-(lane.index() as i32));
    let mut batch = vec![stream::preamble(lane)];
    if session.lanes[lane.index()].is_empty() && stream.write_all_chunks(&mut batch).await.is_err() {
        return;
    }
    batch.retain(|chunk| !chunk.is_empty());
    loop {
        let taken = std::future::poll_fn(|cx| session.lanes[lane.index()].poll_take(cx, &mut batch)).await;
        let Some(bytes) = taken else { break };
        if stream.write_all_chunks(&mut batch).await.is_err() {
            return;
        }
        batch.clear();
        session.queued.set(session.queued.get() - bytes);
    }
    // Resolves when the peer has acknowledged everything, or is gone.
    if stream.finish().is_ok() {
        let _ = stream.stopped().await;
    }
}

/// Runs an established connection to its end. `first`: a stream that was accepted already.
pub(super) async fn serve(
    inner: Rc<Inner>,
    session: Rc<Session>,
    connection: Connection,
    entity: EntityName,
    first: Option<RecvStream>,
) {
    let peer = Peer { session: session.id, entity: entity.clone() };
    *session.peer.borrow_mut() = Some(entity.clone());
    *session.connection.borrow_mut() = Some(connection.clone());
    if session.has_ended() {
        connection.close(explain::CODE_NORMAL.into(), b"closed");
    }
    inner.inbox.push(MessengerEvent::SessionOpened(peer.clone()), 0, true);
    for lane in LaneName::ALL {
        // The control stream is opened at once: it tells a dialer that it was let in.
        if lane == LaneName::Control || !session.lanes[lane.index()].is_empty() {
            session.start_writer(lane);
        }
    }
    let mut readers: Vec<JoinHandle<()>> = Vec::new();
    let mut next = first;
    let error = loop {
        if let Some(stream) = next.take() {
            let (inner, session, peer) = (inner.clone(), session.clone(), peer.clone());
            readers.retain(|reader| !reader.is_finished());
            readers.push(tokio::task::spawn_local(stream::read(
                inner,
                session,
                connection.clone(),
                peer,
                stream,
            )));
        }
        match connection.accept_uni().await {
            Ok(stream) => next = Some(stream),
            Err(error) => break error,
        }
    };
    tracing::debug!("{entity}, {}: {}", session.id, explain::explain(&error));
    session.ended.borrow_mut().get_or_insert_with(|| (explain::CODE_NORMAL, String::new()));
    inner.forget_route(&session);
    if session.route() == Some(&Route::AnyMon) {
        inner.monitor_at.set(inner.monitor_at.get().wrapping_add(1));
    }
    for writer in session.writers.borrow_mut().iter_mut().filter_map(Option::take) {
        writer.abort();
    }
    session.lanes.iter().for_each(Lane::clear);
    // What was received before the end still counts.
    for reader in readers {
        let _ = reader.await;
    }
    inner.forget(&session);
    session.connection.borrow_mut().take();
    inner.inbox.push(MessengerEvent::SessionClosed { session: session.id, peer: Some(entity) }, 0, false);
}
