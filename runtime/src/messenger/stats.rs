//! Counters of a messenger.

use super::Inner;
use std::cell::Cell;

/// A snapshot; counts since the messenger was bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MessengerStats {
    /// Sessions there are now, those being dialed included.
    pub sessions: usize,
    pub sessions_dialed: u64,
    pub sessions_accepted: u64,
    pub connect_failures: u64,
    /// Peers turned away: certificates, limits.
    pub handshakes_failed: u64,
    /// Sessions closed because the peer broke the protocol.
    pub protocol_errors: u64,
    pub frames_sent: u64,
    pub frames_received: u64,
    /// Packets sent and found lost, over the sessions there are now.
    pub packets_lost: u64,
    /// Bytes queued and not yet taken by QUIC, over all sessions.
    pub send_queue_bytes: usize,
    /// Bytes received and not yet taken by the reactor.
    pub inbox_bytes: usize,
}

#[derive(Default)]
pub(super) struct Counter(Cell<u64>);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.set(self.0.get() + n);
    }
}

#[derive(Default)]
pub(super) struct Counters {
    pub sessions_dialed: Counter,
    pub sessions_accepted: Counter,
    pub connect_failures: Counter,
    pub handshakes_failed: Counter,
    pub protocol_errors: Counter,
    pub frames_sent: Counter,
    pub frames_received: Counter,
}

impl Inner {
    pub(super) fn stats(&self) -> MessengerStats {
        let sessions = self.sessions.borrow();
        let c = &self.counters;
        MessengerStats {
            sessions: sessions.len(),
            sessions_dialed: c.sessions_dialed.0.get(),
            sessions_accepted: c.sessions_accepted.0.get(),
            connect_failures: c.connect_failures.0.get(),
            handshakes_failed: c.handshakes_failed.0.get(),
            protocol_errors: c.protocol_errors.0.get(),
            frames_sent: c.frames_sent.0.get(),
            frames_received: c.frames_received.0.get(),
            packets_lost: sessions
                .values()
                .filter_map(|s| s.connection())
                .map(|c| c.stats().path.lost_packets)
                .sum(),
            send_queue_bytes: sessions.values().map(|s| s.queued_bytes()).sum(),
            inbox_bytes: self.inbox.bytes(),
        }
    }
}
