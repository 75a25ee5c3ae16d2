//! The messenger: packets between entities over QUIC, for one reactor.
//!
//! ```text
//!  send ──> lane queue ──> writer task ══ stream ══> reader task ──> inbox ──> next_event
//!           (one per session and lane)               (one per stream)
//! ```
//!
//! One endpoint (one UDP port) on a `current_thread` runtime inside a `LocalSet`; nothing here is shared between
//! threads. A session is one connection with one peer, whose entity its certificate proves. Each side opens one stream
//! per [`nacre_wire::Lane`] it uses and keeps it: within a session and lane, order is kept. Sending never waits and
//! promises nothing; a lost session is reported and whoever needs an answer sends again.
//!
//! **Architecture Invariant:** memory is bounded whatever peers do: send queues by closing the session of a peer that
//! does not read, receiving by flow control once the reactor falls behind, handshakes by number and time.

mod accept;
mod config;
mod congestion;
mod dial;
mod explain;
mod inbox;
mod lane;
mod log_limit;
mod session;
mod socket;
mod stats;
mod stream;
mod udp;
mod watch;

pub use config::MessengerConfig;
pub use stats::MessengerStats;

use crate::tls::{Credentials, MonAddress};
use config::Quic;
use inbox::Inbox;
use log_limit::LogLimit;
use nacre_types::{EntityName, OsdId};
use nacre_wire::{Address, Packet, Peer, SessionId};
use session::Session;
use stats::Counters;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How long `shutdown` tries to get out what is queued.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// How long `shutdown` waits for peers to hear of the end.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(300);

/// What happened. Packets of one session and lane come in order; those of the control lane overtake the others.
#[derive(Clone, PartialEq, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all events are packets")]
pub enum MessengerEvent {
    Received {
        from: Peer,
        packet: Packet,
    },
    /// A session can be used in both directions. Packets to an address need not wait for it.
    SessionOpened(Peer),
    /// The last event of a session that was opened.
    SessionClosed {
        session: SessionId,
        peer: Option<EntityName>,
    },
    /// Nobody usable at `address`; what was queued for it is dropped. `refused`: it is certain that the addressed entity
    /// does not listen there now. `rejected`: the two ends do not accept each other's certificates. Sending again dials
    /// again, not too often.
    ConnectFailed {
        address: Address,
        refused: bool,
        rejected: bool,
        reason: String,
    },
}

/// Why a messenger could not start.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {address}: {source}")]
    Socket { address: SocketAddr, source: std::io::Error },
    #[error("the credentials of {entity} cannot be used: {reason}")]
    Credentials { entity: EntityName, reason: String },
}

/// Whom a dialed session is for, without the address it was dialed at.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Route {
    Osd(OsdId),
    Mon(String),
    AnyMon,
}

/// See the module's documentation. Dropping it closes every session at once.
pub struct Messenger {
    inner: Rc<Inner>,
}

struct Inner {
    config: MessengerConfig,
    endpoint: quinn::Endpoint,
    quic: Quic,
    inbox: Inbox,
    counters: Counters,
    log: LogLimit,
    sessions: RefCell<HashMap<SessionId, Rc<Session>>>,
    routes: RefCell<HashMap<Route, SessionId>>,
    session_last: Cell<u64>,
    monitors: RefCell<Vec<MonAddress>>,
    /// The monitor AnyMon last had, or tries next.
    monitor_at: Cell<usize>,
    backoff: RefCell<dial::Backoff>,
    handshakes: Cell<usize>,
    stopping: Cell<bool>,
}

impl Messenger {
    /// Opens the endpoint. Must run inside a `LocalSet` of a `current_thread` runtime.
    pub fn bind(config: MessengerConfig) -> Result<Messenger, BindError> {
        let (socket, buffer_bytes) = socket::bind(&config)?;
        let quic = Quic::new(&config, buffer_bytes)
            .map_err(|reason| BindError::Credentials { entity: config.credentials.entity.clone(), reason })?;
        let address = socket.local_addr().unwrap_or_else(|_| config.bind_address());
        let server = config.listen.map(|_| (*quic.server_far).clone());
        let runtime = std::sync::Arc::new(udp::Reactor);
        let endpoint = quinn::Endpoint::new(quic.endpoint.clone(), server, socket, runtime)
            .map_err(|source| BindError::Socket { address, source })?;
        let monitors = config.credentials.monitors.clone();
        // Clients spread over the monitors; which one is nobody's business but theirs.
        let monitor_at = std::process::id() as usize ^ address.port() as usize;
        let inner = Rc::new(Inner {
            inbox: Inbox::new(config.inbox_bytes_max),
            endpoint,
            quic,
            counters: Counters::default(),
            log: LogLimit::default(),
            sessions: RefCell::default(),
            routes: RefCell::default(),
            session_last: Cell::new(0),
            monitors: RefCell::new(monitors),
            monitor_at: Cell::new(monitor_at),
            backoff: RefCell::default(),
            handshakes: Cell::new(0),
            stopping: Cell::new(false),
            config,
        });
        if inner.config.listen.is_some() {
            tokio::task::spawn_local(accept::run(inner.clone()));
        }
        tokio::task::spawn_local(watch::run(Rc::downgrade(&inner)));
        Ok(Messenger { inner })
    }

    /// Where the endpoint is bound; with port 0 in the configuration this says which one it got.
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.endpoint.local_addr().unwrap_or_else(|_| self.inner.config.bind_address())
    }

    /// Who this end is.
    pub fn credentials(&self) -> &Credentials {
        &self.inner.config.credentials
    }

    /// Queues a packet and returns. A packet to a session that is no more is dropped silently.
    pub fn send(&self, to: Address, packet: Packet) {
        if !self.inner.stopping.get() {
            self.inner.send(to, packet);
        }
    }

    /// The next event, if one is there.
    pub fn try_event(&self) -> Option<MessengerEvent> {
        self.inner.inbox.pop()
    }

    /// Waits for the next event. Safe to cancel.
    pub async fn next_event(&self) -> MessengerEvent {
        std::future::poll_fn(|cx| self.inner.inbox.poll_next(cx)).await
    }

    /// The monitors `AnyMon` may choose from, name and address. An existing session stays.
    pub fn set_monitors(&self, monitors: Vec<(String, String)>) {
        *self.inner.monitors.borrow_mut() =
            monitors.into_iter().map(|(name, address)| MonAddress { name, address }).collect();
    }

    /// Ends a session. What is queued for it is lost; a `SessionClosed` follows.
    pub fn close_session(&self, id: SessionId) {
        let session = self.inner.sessions.borrow().get(&id).cloned();
        if let Some(session) = session {
            self.inner.forget_route(&session);
            session.end(explain::CODE_NORMAL, "closed");
        }
    }

    pub fn stats(&self) -> MessengerStats {
        self.inner.stats()
    }

    /// Sends what is queued, tells every peer, and closes the endpoint. Takes about a second at most.
    pub async fn shutdown(&self) {
        self.inner.stopping.set(true);
        let sessions: Vec<Rc<Session>> = self.inner.sessions.borrow().values().cloned().collect();
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        for session in &sessions {
            session.finish_lanes();
        }
        for session in &sessions {
            let _ = tokio::time::timeout_at(deadline, session.flushed()).await;
        }
        self.inner.end_all();
        let _ = timeout(DRAIN_TIMEOUT, self.inner.endpoint.wait_idle()).await;
    }
}

impl Drop for Messenger {
    fn drop(&mut self) {
        self.inner.stopping.set(true);
        self.inner.end_all();
    }
}

impl Inner {
    fn send(self: &Rc<Inner>, to: Address, packet: Packet) {
        let (route, address) = match to {
            Address::Session(id) => {
                let session = self.sessions.borrow().get(&id).cloned();
                if let Some(session) = session {
                    self.enqueue(&session, &packet);
                }
                return;
            }
            Address::Osd { id, address } => (Route::Osd(id), address),
            Address::Mon { name, address } => (Route::Mon(name), address),
            Address::AnyMon => (Route::AnyMon, String::new()),
        };
        let known = self.routes.borrow().get(&route).copied();
        let known = known.and_then(|id| self.sessions.borrow().get(&id).cloned());
        let session = match known {
            Some(session) if session.address() == address => session,
            other => {
                if let Some(stale) = other {
                    self.forget_route(&stale);
                    stale.end(explain::CODE_NORMAL, "the peer's address changed");
                }
                let session = self.new_session(Some((route.clone(), address)));
                self.routes.borrow_mut().insert(route, session.id);
                tokio::task::spawn_local(dial::run(self.clone(), session.clone()));
                session
            }
        };
        self.enqueue(&session, &packet);
    }

    fn enqueue(self: &Rc<Inner>, session: &Rc<Session>, packet: &Packet) {
        let lane = packet.lane();
        if !session.queue(lane, packet) {
            return;
        }
        self.counters.frames_sent.add(1);
        if session.queued_bytes() > self.config.send_queue_bytes_max {
            let peer = session.describe();
            self.log.warn(|| format!("{peer} does not read what is sent to it: closing the session"));
            self.forget_route(session);
            session.end(explain::CODE_OVERLOADED, "the send queue is full");
        } else {
            session.start_writer(lane);
        }
    }

    fn new_session(&self, target: Option<(Route, String)>) -> Rc<Session> {
        self.session_last.set(self.session_last.get() + 1);
        let session = Rc::new(Session::new(SessionId(self.session_last.get()), target));
        self.sessions.borrow_mut().insert(session.id, session.clone());
        session
    }

    /// From here on, packets to the session's target get a new session.
    fn forget_route(&self, session: &Session) {
        if let Some(route) = session.route() {
            let mut routes = self.routes.borrow_mut();
            if routes.get(route) == Some(&session.id) {
                routes.remove(route);
            }
        }
    }

    fn forget(&self, session: &Session) {
        self.forget_route(session);
        self.sessions.borrow_mut().remove(&session.id);
    }

    fn end_all(&self) {
        let sessions: Vec<Rc<Session>> = self.sessions.borrow().values().cloned().collect();
        for session in sessions {
            session.end(explain::CODE_SHUTDOWN, "shutting down");
        }
        self.endpoint.close(explain::CODE_SHUTDOWN.into(), b"shutting down");
    }
}

#[cfg(test)]
mod tests;
