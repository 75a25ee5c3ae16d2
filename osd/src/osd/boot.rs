//! Coming up and going down.
//!
//! ```text
//!  Starting --maps are recent--> Booting --map shows this run up--> Up --Stop--> Stopping --down or late--> Stopped
//!                                   ^                                |
//!                                   +---- map shows it down ---------+
//! ```

use super::Osd;
use crate::OsdEffect;
use crate::token::Purpose;
use nacre_store::{OSD_META, ObjectStore, StoreError};
use nacre_types::{Epoch, Instant, Needs, OsdId, Outbox, PgId};
use nacre_wire::messages::{ClusterLog, LogLevel, LogLine, OsdBoot, OsdStopping, Subscribe};
use nacre_wire::{SessionId, Transaction};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Getting recent maps.
    Starting,
    /// Asking to be marked up.
    Booting,
    Up,
    /// Told the monitors; until then at the latest.
    Stopping(Instant),
    Stopped,
}

impl Phase {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Booting => "booting",
            Phase::Up => "up",
            Phase::Stopping(_) => "stopping",
            Phase::Stopped => "stopped",
        }
    }

    /// What the OSD waits for in this phase.
    pub(crate) fn needs(&self, newest_map: Epoch) -> Option<Needs> {
        match self {
            Phase::Starting => Some(Needs::Map(newest_map)),
            Phase::Booting => Some(Needs::Boot),
            Phase::Stopping(_) => Some(Needs::StopConfirmed),
            Phase::Up | Phase::Stopped => None,
        }
    }
}

/// Since when the store takes part in the cluster: the epoch in which it was first up. What was before it, also under this
/// very number and identity, left no trace in it (invariant I2 leans on that).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Birth {
    /// `None` while it has never been up.
    pub epoch: Option<Epoch>,
    pub is_durable: bool,
}

impl Birth {
    const KEY: &[u8] = b"since";

    /// What the store says. A store from before this was recorded counts as having been there always.
    pub fn load(store: &impl ObjectStore, has_superblock: bool) -> Result<Birth, StoreError> {
        if !has_superblock {
            return Ok(Birth { epoch: None, is_durable: false });
        }
        let epoch = match store.meta_get(OSD_META, Birth::KEY)? {
            None => Some(Epoch::ZERO),
            Some(raw) => raw[..].try_into().ok().map(u64::from_be_bytes).map(Epoch),
        };
        Ok(Birth { epoch, is_durable: epoch.is_some() })
    }

    /// Notes it: nothing but an empty value while the store has never been up.
    pub fn write(&self, t: &mut Transaction) {
        t.meta_set(Birth::KEY, self.epoch.map(|epoch| epoch.0.to_be_bytes().to_vec()).unwrap_or_default());
    }
}

/// A subscription is renewed that much more rarely than other requests.
const RESUBSCRIBE: u32 = 10;

impl<S: ObjectStore> Osd<S> {
    pub(crate) fn subscribe(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        let core = &mut self.core;
        let calm = if core.phase == Phase::Up { RESUBSCRIBE } else { 1 };
        core.timers.subscribe = now + core.config.tunables.resend_interval * calm;
        let message = Subscribe {
            osdmap: core.maps.epoch().0,
            monmap: core.monmap_epoch,
            authmap: core.auth.as_ref().map_or(0, |auth| auth.epoch.0),
            // Sent again each time: so a monitor answers, and this OSD knows that it is heard.
            config: 0,
            log_after: None,
            once: false,
        };
        core.send_mon(out, message);
    }

    pub(crate) fn boot(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        let core = &mut self.core;
        core.timers.boot = now + core.config.tunables.resend_interval;
        let config = &core.config;
        let message = OsdBoot {
            osd: config.id.0,
            uuid: config.uuid.clone(),
            instance: config.instance,
            address: config.address.clone(),
            host: config.host.clone(),
            device_class: config.device_class.clone(),
            capacity_bytes: config.capacity_bytes,
            location: config.location.clone(),
            newest_map: core.maps.epoch().0,
            oldest_map: core.maps.oldest().0,
            version: config.version.clone(),
            metadata: Default::default(),
        };
        core.send_mon(out, message);
    }

    /// What the newest map says of this OSD.
    pub(crate) fn check_own_state(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        let (id, instance) = (self.core.config.id, self.core.config.instance);
        let map = self.core.maps.current().clone();
        let own = map.osd(id);
        if let Some(own) = own
            && !own.uuid.is_empty()
            && own.uuid != self.core.config.uuid
        {
            let text = format!(
                "the cluster knows {id} as the disk {}, this is the disk {}: it was replaced or is the wrong one",
                own.uuid, self.core.config.uuid
            );
            return self.stop_now(text, true, out);
        }
        let up = own.is_some_and(|own| own.up && own.instance == instance);
        match self.core.phase {
            Phase::Starting if map.epoch() >= self.core.maps.heard_of => {
                self.core.phase = Phase::Booting;
                self.check_own_state(now, out);
            }
            Phase::Booting if up => {
                self.core.log(out, LogLevel::Info, format!("{id} is up since epoch {}", map.epoch()));
                self.core.phase = Phase::Up;
                self.core.just_up = true;
                if self.core.birth.epoch.is_none() {
                    self.core.birth.epoch = own.map(|own| own.up_from());
                    let mut t = Transaction::new(OSD_META);
                    self.core.birth.write(&mut t);
                    let token = self.core.tokens.issue(Purpose::Birth);
                    self.core.store.submit(token, t);
                }
            }
            Phase::Booting if now >= self.core.timers.boot => self.boot(now, out),
            Phase::Up if own.is_none() => {
                self.stop_now(format!("{id} was removed from the cluster"), true, out);
            }
            Phase::Up if !up => {
                let text =
                    format!("epoch {} shows {id} down although it runs: asking to be up again", map.epoch());
                self.core.log(out, LogLevel::Warning, text);
                self.core.phase = Phase::Booting;
                self.boot(now, out);
            }
            Phase::Stopping(_) if !up => {
                self.stop_now("stopped in order".into(), false, out);
            }
            _ => {}
        }
    }

    pub(crate) fn begin_stop(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        match self.core.phase {
            Phase::Up | Phase::Booting => {
                self.core.phase = Phase::Stopping(now + self.core.config.tunables.stop_wait);
                self.send_stopping("stopped in order", out);
            }
            Phase::Starting => self.stop_now("stopped before it was up".into(), false, out),
            Phase::Stopping(_) | Phase::Stopped => {}
        }
    }

    fn send_stopping(&mut self, reason: &str, out: &mut Outbox<OsdEffect>) {
        let (osd, instance) = (self.core.config.id.0, self.core.config.instance);
        self.core.send_mon(out, OsdStopping { osd, instance, reason: reason.into() });
    }

    /// The cluster log keeps why it ended, also where the map has shown it down all along.
    fn leave_word(&self, reason: &str, out: &mut Outbox<OsdEffect>) {
        let at_ms = (self.core.last_step.as_millis() as i64 + self.core.wall_offset).max(0) as u64;
        let text = format!("stops: {reason}");
        let line = LogLine { at_ms, level: LogLevel::Error as i32, text, ..LogLine::default() };
        self.core.send_mon(out, ClusterLog { lines: vec![line] });
    }

    pub(crate) fn stop_now(&mut self, reason: String, failed: bool, out: &mut Outbox<OsdEffect>) {
        if self.core.phase == Phase::Stopped {
            return;
        }
        if failed {
            self.core.log(out, LogLevel::Error, reason.clone());
            self.send_stopping(&reason, out);
            self.leave_word(&reason, out);
        }
        self.core.phase = Phase::Stopped;
        out.push(OsdEffect::Stopped { reason, failed });
    }

    pub(crate) fn session_closed(&mut self, now: Instant, session: SessionId, out: &mut Outbox<OsdEffect>) {
        self.core.pushed.remove(&session);
        if self.core.mon_session == Some(session) {
            self.core.mon_session = None;
            self.subscribe(now, out);
            self.core.timers.resend_to_mon = now;
        }
        let ids: Vec<PgId> =
            self.pgs.iter().filter(|(_, pg)| !pg.watch.is_empty()).map(|(&id, _)| id).collect();
        for id in ids {
            self.with_pg(now, out, id, |pg, ctx| {
                pg.watch.session_closed(session);
                pg.deliver_watch(ctx);
            });
        }
    }

    pub(crate) fn peer_refused(
        &mut self,
        now: Instant,
        osd: OsdId,
        address: &str,
        out: &mut Outbox<OsdEffect>,
    ) {
        // An old address says nothing about the run that is up now.
        if self.core.maps.current().address(osd) != Some(address) || self.core.phase != Phase::Up {
            return;
        }
        if let Some(report) = self.core.heartbeat.on_refused(self.core.config.id, osd, now) {
            self.core.send_mon(out, report);
        }
    }
}
