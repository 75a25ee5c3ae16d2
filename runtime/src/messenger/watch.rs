//! Finding out early that a peer's process is gone.
//!
//! A killed process says no goodbye, and QUIC notices only when its idle timeout ends. But its host's kernel answers a
//! datagram to a closed port with ICMP "port unreachable", which a connected UDP socket reports as a refusal. So a
//! throwaway socket sends one byte (which a living endpoint ignores) while dialing, and to peers that have been silent.

use super::{Inner, explain};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Looks at all sessions this often.
const PERIOD: Duration = Duration::from_millis(500);
/// A living peer answers keep-alives every second: three looks without a datagram are suspicious.
const SILENT_LOOKS: u32 = 3;

/// Resolves if, and only if, the host at `target` says that nobody listens on that port.
pub(super) async fn port_closed(target: SocketAddr) {
    if !is_refused(target).await {
        std::future::pending().await
    }
}

async fn is_refused(target: SocketAddr) -> bool {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let probe = async {
        let socket = UdpSocket::bind(any).await?;
        socket.connect(target).await?;
        socket.send(&[0]).await?;
        // Nothing is ever answered to one byte: this waits for the error.
        socket.recv(&mut [0; 1]).await.map(|_| ())
    };
    matches!(probe.await, Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused)
}

pub(super) async fn run(inner: Weak<Inner>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match inner.upgrade() {
            Some(inner) if !inner.stopping.get() => look(&inner),
            _ => return,
        }
    }
}

fn look(inner: &Rc<Inner>) {
    for session in inner.sessions.borrow().values() {
        let Some(connection) = session.connection() else { continue };
        let datagrams = connection.stats().udp_rx.datagrams;
        let (before, looks) = session.heard.get();
        let looks = if datagrams == before { looks + 1 } else { 0 };
        session.heard.set((datagrams, looks));
        if looks == 0 || looks % SILENT_LOOKS != 0 {
            continue;
        }
        let session = session.clone();
        tokio::task::spawn_local(async move {
            let target = connection.remote_address();
            if timeout(PERIOD, is_refused(target)).await == Ok(true) {
                session.refused.set(true);
                session.end(explain::CODE_GONE, "the port is closed");
            }
        });
    }
}
