//! One connection, from its first byte to its last: handshake, then transmission, then one line in the log.

pub(crate) mod budget;
mod handshake;
mod input;
mod operation;
mod output;
mod transmission;

use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::config::Config;
use crate::export::Exports;
use crate::stats::Counters;
use budget::ServerBudget;
use handshake::{Handshake, Outcome};
use transmission::Transmission;

/// What a connection knows of its server.
pub(crate) struct SessionContext {
    pub(crate) exports: Rc<dyn Exports>,
    pub(crate) config: Rc<Config>,
    pub(crate) budget: Rc<ServerBudget>,
    pub(crate) counters: Rc<Counters>,
    /// Becomes true when the server stops.
    pub(crate) stop: watch::Receiver<bool>,
    /// Who is at the other end, for the log.
    pub(crate) peer: String,
}

impl SessionContext {
    async fn stopped(&self) {
        // An error means that the server is gone, which stops us as well.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }
}

/// Serves a connection until it ends.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(context: SessionContext, mut stream: S) {
    let peer = context.peer.as_str();
    let handshake = tokio::select! {
        biased;
        () = context.stopped() => return,
        outcome = Handshake::new(&context, &mut stream).run() => outcome,
    };
    let (name, negotiated) = match handshake {
        Ok(Outcome::Transmission { name, negotiated }) => (name, negotiated),
        Ok(Outcome::Ended) => {
            return tracing::debug!(peer, "connection ended during the handshake");
        }
        Err(error) if error.is_io() => {
            return tracing::debug!(peer, %error, "connection lost during the handshake");
        }
        Err(error) => return tracing::warn!(peer, %error, "connection closed during the handshake"),
    };
    tracing::info!(peer, export = name, "attached");
    let closed = Transmission::new(&context, &mut stream, negotiated).run(context.stopped()).await;
    if closed.is_violation() {
        tracing::warn!(peer, export = name, reason = %closed, "closed");
    } else {
        tracing::info!(peer, export = name, reason = %closed, "closed");
    }
    // The peer may be gone already; there is nobody left to tell.
    let _ = stream.shutdown().await;
}
