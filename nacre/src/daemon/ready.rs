//! Says `READY=1` to whoever started the daemon, once, when its machine is ready.

use nacre_types::{Instant, Machine, Outbox};

/// Passes everything through to a machine and watches for the moment it becomes ready.
pub struct WatchReady<M> {
    pub machine: M,
    is_ready: fn(&M) -> bool,
    told: bool,
}

impl<M> WatchReady<M> {
    pub fn new(machine: M, is_ready: fn(&M) -> bool) -> WatchReady<M> {
        WatchReady { machine, is_ready, told: false }
    }
}

impl<M: Machine> Machine for WatchReady<M> {
    type Event = M::Event;
    type Effect = M::Effect;

    fn step(&mut self, now: Instant, event: M::Event, out: &mut Outbox<M::Effect>) {
        self.machine.step(now, event, out);
        if !self.told && (self.is_ready)(&self.machine) {
            self.told = true;
            tracing::info!("ready");
            if let Err(error) = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]) {
                tracing::warn!("cannot tell the service manager that this daemon is ready: {error}");
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.machine.next_deadline()
    }

    fn check(&self) {
        self.machine.check();
    }
}
