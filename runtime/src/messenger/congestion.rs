//! Congestion control for a cluster's network: starts wide, yields to loss, and never shrinks to where a pause of one
//! round trip would matter.
//!
//! Flow control already keeps a sender below the receiver's buffers, so loss means a congested switch or many senders
//! at once. The window is cut by a quarter once per round trip with loss (an additive-increase, multiplicative-decrease
//! scheme as in RFC 9002 section 7, with other constants).

use quinn::congestion::{Controller, ControllerFactory};
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

const WINDOW_BYTES_INITIAL: u64 = 2 << 20;
const WINDOW_BYTES_MAX: u64 = 8 << 20;
const WINDOW_BYTES_MIN: u64 = 128 << 10;

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct LanWindow {
    window: u64,
    mtu: u64,
    /// Losses of packets sent before it are one event.
    recovery_start: Option<Instant>,
}

impl Default for LanWindow {
    fn default() -> LanWindow {
        LanWindow { window: WINDOW_BYTES_INITIAL, mtu: 1200, recovery_start: None }
    }
}

impl ControllerFactory for LanWindow {
    fn build(self: Arc<Self>, _now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(LanWindow { mtu: current_mtu.into(), ..(*self).clone() })
    }
}

impl Controller for LanWindow {
    fn on_end_acks(&mut self, _now: Instant, _in_flight: u64, app_limited: bool, _largest: Option<u64>) {
        // One packet per acknowledgement, which covers about ten: back at full width within tens of milliseconds.
        if !app_limited {
            self.window = (self.window + self.mtu).min(WINDOW_BYTES_MAX);
        }
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, _lost_bytes: u64) {
        if self.recovery_start.is_some_and(|start| sent <= start) {
            return;
        }
        self.recovery_start = Some(now);
        let floor = WINDOW_BYTES_MIN.max(16 * self.mtu);
        self.window = if persistent { floor } else { (self.window / 4 * 3).max(floor) };
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
    }

    fn window(&self) -> u64 {
        self.window
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        WINDOW_BYTES_INITIAL
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
