//! Connections others make to us.

use super::config::is_near;
use super::{Inner, explain, session};
use crate::tls::CertificateInfo;
use nacre_types::EntityName;
use quinn::{Connection, Incoming};
use rustls::pki_types::CertificateDer;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::timeout;

/// A peer that takes longer is not worth its memory.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(inner: Rc<Inner>) {
    while let Some(incoming) = inner.endpoint.accept().await {
        let config = &inner.config;
        let handshakes = inner.handshakes.get();
        if handshakes >= config.handshakes_max || inner.sessions.borrow().len() >= config.sessions_max {
            turned_away(&inner, incoming.remote_address(), "too many connections");
            incoming.refuse();
        } else if handshakes >= config.handshakes_unproven_max && incoming.may_retry() {
            // Its address may be forged: let it come back with a token, which costs nothing here.
            let _ = incoming.retry();
        } else {
            inner.handshakes.set(handshakes + 1);
            tokio::task::spawn_local(accept(inner.clone(), incoming));
        }
    }
}

async fn accept(inner: Rc<Inner>, incoming: Incoming) {
    let address = incoming.remote_address();
    let result = handshake(&inner, incoming).await;
    inner.handshakes.set(inner.handshakes.get() - 1);
    match result {
        Ok((connection, entity)) if inner.stopping.get() => {
            drop(entity);
            connection.close(explain::CODE_SHUTDOWN.into(), b"shutting down");
        }
        Ok((connection, entity)) => {
            inner.counters.sessions_accepted.add(1);
            let session = inner.new_session(None);
            session::serve(inner, session, connection, entity, None).await;
        }
        Err(reason) => turned_away(&inner, address, &reason),
    }
}

async fn handshake(inner: &Inner, incoming: Incoming) -> Result<(Connection, EntityName), String> {
    let near = is_near(incoming.remote_address().ip(), incoming.local_ip());
    let config = if near { &inner.quic.server_near } else { &inner.quic.server_far };
    let connecting = incoming.accept_with(config.clone()).map_err(|e| explain::explain(&e))?;
    let connection = timeout(HANDSHAKE_TIMEOUT, connecting)
        .await
        .map_err(|_| "the handshake takes too long")?
        .map_err(|e| explain::explain(&e))?;
    let entity = peer_entity(&connection)?;
    Ok((connection, entity))
}

fn turned_away(inner: &Inner, address: SocketAddr, reason: &str) {
    inner.counters.handshakes_failed.add(1);
    inner.log.warn(|| format!("turned away a connection from {address}: {reason}"));
}

/// Whom the peer's certificate, which TLS has verified, names.
pub(super) fn peer_entity(connection: &Connection) -> Result<EntityName, String> {
    let identity = connection.peer_identity().ok_or("the peer shows no certificate")?;
    let chain = identity
        .downcast::<Vec<CertificateDer<'static>>>()
        .map_err(|_| "the peer's identity is no certificate")?;
    let certificate = chain.first().ok_or("the peer shows no certificate")?;
    CertificateInfo::from_der(certificate).map(|info| info.entity).map_err(|e| e.to_string())
}
