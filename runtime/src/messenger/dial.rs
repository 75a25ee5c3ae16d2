//! Making connections: resolve, connect, check who answers; and not too often where it failed.

use super::config::is_near;
use super::session::{self, Session};
use super::{Inner, MessengerEvent, Route, accept, explain, watch};
use crate::tls::MonAddress;
use nacre_types::EntityName;
use nacre_wire::Address;
use quinn::{Connection, ConnectionError, RecvStream};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};

/// Certificates name entities, not hosts; this only fills the protocol's field.
const SERVER_NAME: &str = "nacre";
/// Addresses whose failures are remembered at most.
const BACKOFF_ENTRIES_MAX: usize = 4096;

/// Addresses that failed lately, and when they may be tried again.
#[derive(Default)]
pub(super) struct Backoff {
    failed: HashMap<String, (Duration, Instant)>,
}

impl Backoff {
    fn not_before(&self, address: &str) -> Option<Instant> {
        self.failed.get(address).map(|&(_, until)| until)
    }

    fn failed(&mut self, address: &str, min: Duration, max: Duration) {
        let now = Instant::now();
        if self.failed.len() >= BACKOFF_ENTRIES_MAX {
            self.failed.retain(|_, &mut (_, until)| until > now);
        }
        let pause = self.failed.get(address).map_or(min, |&(last, _)| (last * 2).min(max));
        self.failed.insert(address.to_owned(), (pause, now + pause));
    }

    fn succeeded(&mut self, address: &str) {
        self.failed.remove(address);
    }
}

struct Failure {
    refused: bool,
    rejected: bool,
    reason: String,
}

impl Failure {
    fn other(reason: String) -> Failure {
        Failure { refused: false, rejected: false, reason }
    }

    fn of(error: &ConnectionError) -> Failure {
        Failure { rejected: explain::is_rejection(error), ..Failure::other(explain::explain(error)) }
    }
}

struct Dialed {
    connection: Connection,
    entity: EntityName,
    first: RecvStream,
}

/// Dials a session's target and serves the connection. Runs as a task of its own.
pub(super) async fn run(inner: Rc<Inner>, session: Rc<Session>) {
    let Some(route) = session.route().cloned() else { return };
    let dialed = tokio::select! {
        dialed = dial_route(&inner, &route, session.address()) => dialed,
        (code, reason) = session.until_ended() => {
            if code != explain::CODE_OVERLOADED {
                inner.forget(&session);
                return;
            }
            Err(Failure::other(reason))
        }
    };
    match dialed {
        Ok(Dialed { connection, entity, first }) => {
            inner.counters.sessions_dialed.add(1);
            session::serve(inner.clone(), session.clone(), connection, entity, Some(first)).await;
            if session.refused.get() {
                let reason = "the peer's port is closed".into();
                let address = address_of(&route, session.address());
                let failed =
                    MessengerEvent::ConnectFailed { address, refused: true, rejected: false, reason };
                inner.inbox.push(failed, 0, false);
            }
        }
        Err(Failure { refused, rejected, reason }) => {
            inner.counters.connect_failures.add(1);
            inner.forget(&session);
            let address = address_of(&route, session.address());
            let failed = MessengerEvent::ConnectFailed { address, refused, rejected, reason };
            inner.inbox.push(failed, 0, false);
        }
    }
}

fn address_of(route: &Route, address: &str) -> Address {
    match route {
        Route::Osd(id) => Address::Osd { id: *id, address: address.into() },
        Route::Mon(name) => Address::Mon { name: name.clone(), address: address.into() },
        Route::AnyMon => Address::AnyMon,
    }
}

async fn dial_route(inner: &Inner, route: &Route, address: &str) -> Result<Dialed, Failure> {
    match route {
        Route::Osd(id) => dial_paced(inner, &EntityName::Osd(*id), address).await,
        Route::Mon(name) => dial_paced(inner, &EntityName::Mon(name.clone()), address).await,
        Route::AnyMon => dial_any_mon(inner).await,
    }
}

/// One round over the monitors, from where the last one ended.
async fn dial_any_mon(inner: &Inner) -> Result<Dialed, Failure> {
    let monitors: Vec<MonAddress> = inner.monitors.borrow().clone();
    if monitors.is_empty() {
        return Err(Failure::other("no monitors are known".into()));
    }
    let mut failure = Failure { refused: true, rejected: true, reason: String::new() };
    for _ in 0..monitors.len() {
        let MonAddress { name, address } = &monitors[inner.monitor_at.get() % monitors.len()];
        match dial_paced(inner, &EntityName::Mon(name.clone()), address).await {
            Ok(dialed) => return Ok(dialed),
            Err(Failure { refused, rejected, reason }) => {
                inner.monitor_at.set(inner.monitor_at.get().wrapping_add(1));
                failure.refused &= refused;
                failure.rejected &= rejected;
                if !failure.reason.is_empty() {
                    failure.reason.push_str("; ");
                }
                failure.reason.push_str(&format!("mon.{name} at {address}: {reason}"));
            }
        }
    }
    Err(failure)
}

async fn dial_paced(inner: &Inner, expected: &EntityName, address: &str) -> Result<Dialed, Failure> {
    let not_before = inner.backoff.borrow().not_before(address);
    if let Some(until) = not_before {
        sleep_until(until).await;
    }
    let result = dial(inner, expected, address).await;
    let mut backoff = inner.backoff.borrow_mut();
    match &result {
        Ok(_) => backoff.succeeded(address),
        Err(_) => backoff.failed(address, inner.config.backoff_min, inner.config.backoff_max),
    }
    result
}

async fn dial(inner: &Inner, expected: &EntityName, address: &str) -> Result<Dialed, Failure> {
    let deadline = Instant::now() + inner.config.handshake_timeout;
    let fail = Failure::other;
    let target = timeout_at(deadline, resolve(address))
        .await
        .map_err(|_| fail(format!("the name in '{address}' does not resolve in time")))?
        .map_err(fail)?;
    tokio::select! {
        result = timeout_at(deadline, connect(inner, expected, target)) => {
            result.unwrap_or_else(|_| Err(fail(format!("no answer within {:?}", inner.config.handshake_timeout))))
        }
        () = watch::port_closed(target) => {
            Err(Failure {
                refused: true,
                ..Failure::other("connection refused: nobody listens there".into())
            })
        }
    }
}

async fn resolve(address: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = address.parse() {
        return Ok(address);
    }
    let mut found =
        tokio::net::lookup_host(address).await.map_err(|e| format!("'{address}' does not resolve: {e}"))?;
    found.next().ok_or_else(|| format!("'{address}' does not resolve"))
}

async fn connect(inner: &Inner, expected: &EntityName, target: SocketAddr) -> Result<Dialed, Failure> {
    let fail = Failure::other;
    let local = inner.endpoint.local_addr().ok().map(|a| a.ip());
    let config = if is_near(target.ip(), local) { &inner.quic.client_near } else { &inner.quic.client_far };
    let connection = inner
        .endpoint
        .connect_with(config.clone(), target, SERVER_NAME)
        .map_err(|e| fail(e.to_string()))?
        .await
        .map_err(|e| Failure::of(&e))?;
    let entity = accept::peer_entity(&connection).map_err(fail)?;
    if entity != *expected {
        let reason = format!("{entity} answers there, not {expected}");
        connection.close(explain::CODE_WRONG_PEER.into(), reason.as_bytes());
        // Whoever was expected cannot be listening on the same port.
        return Err(Failure { refused: true, ..Failure::other(reason) });
    }
    // In TLS 1.3 the client is done before the server has judged its certificate. The server opens its control stream
    // once it has: only then is the session one.
    let first = connection.accept_uni().await.map_err(|e| Failure::of(&e))?;
    Ok(Dialed { connection, entity, first })
}
