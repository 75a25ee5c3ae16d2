//! The machine: takes events apart, hands them to PGs and helpers, and lets nothing wait without a timer.

mod admin;
mod boot;
mod client;
mod maps;
mod open;
mod receive;
mod report;

pub use open::OpenError;

use crate::heartbeat::Heartbeat;
use crate::maps_keeper::MapsKeeper;
use crate::pg::{OsdShared, Pg, PgContext, Requests};
use crate::stages::StageLog;
use crate::token::{Purpose, Tokens};
use crate::{OsdConfig, OsdEffect, OsdEvent, Tunables};
use boot::{Birth, Phase};
use nacre_maps::{AuthMap, OsdMap};
use nacre_store::{ObjectStore, StoreError, StoreEvent};
use nacre_types::{Epoch, Instant, Machine, Outbox, PgId, Rng};
use nacre_wire::messages::LogLevel;
use nacre_wire::{Address, Message, Packet, Peer, SessionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Most packets kept until a newer map arrives; their senders send again.
const HELD_MAX: usize = 4096;
/// Rounds of work that one step may cause in its own PGs before it lets others have a turn.
const ROUNDS_MAX: usize = 64;

/// One OSD.
pub struct Osd<S: ObjectStore> {
    pub(crate) core: Core<S>,
    pub(crate) pgs: BTreeMap<PgId, Pg>,
}

/// Everything of an OSD but its PGs.
pub(crate) struct Core<S> {
    pub config: OsdConfig,
    pub store: S,
    pub tokens: Tokens,
    pub rng: Rng,
    pub maps: MapsKeeper,
    pub auth: Option<AuthMap>,
    pub monmap_epoch: u64,
    /// As the daemon was started; the central configuration is laid over them.
    pub started_with: Tunables,
    pub config_epoch: Epoch,
    pub shared: OsdShared,
    pub requests: Requests,
    pub stages: StageLog,
    pub phase: Phase,
    pub birth: Birth,
    /// Came up in this step: PGs have to act on the map they have.
    pub just_up: bool,
    pub heartbeat: Heartbeat,
    /// Wall time minus monotonic time, in milliseconds.
    pub wall_offset: i64,
    pub last_step: Instant,
    /// Packets of epochs this OSD has not reached.
    pub held: VecDeque<(Peer, Packet)>,
    pub mon_session: Option<SessionId>,
    /// When a monitor last said anything.
    pub mon_heard: Instant,
    /// The phase of the last step, and since when it is that.
    pub phase_since: (Phase, Instant),
    /// The newest epoch each session was handed.
    pub pushed: BTreeMap<SessionId, Epoch>,
    pub timers: report::Timers,
    /// PGs whose deadlines may have changed in this step; some perhaps twice.
    pub touched: Vec<PgId>,
    /// Those of the step before.
    pub touched_last: Vec<PgId>,
    pub pg_timers: BTreeSet<(Instant, PgId)>,
    pub pg_timer_of: BTreeMap<PgId, Instant>,
    /// What `open` had to say.
    pub pending: Vec<OsdEffect>,
}

impl<S: ObjectStore> Core<S> {
    /// Something happened to the PG: its deadlines are looked at when the step ends.
    pub(crate) fn touch(&mut self, pg: PgId) {
        if self.touched.last() != Some(&pg) {
            self.touched.push(pg);
        }
    }

    pub fn ctx<'a>(&'a mut self, now: Instant, out: &'a mut Outbox<OsdEffect>) -> PgContext<'a> {
        let map = self.maps.current().clone();
        self.ctx_at(now, out, map)
    }

    pub fn ctx_at<'a>(
        &'a mut self,
        now: Instant,
        out: &'a mut Outbox<OsdEffect>,
        map: Arc<OsdMap>,
    ) -> PgContext<'a> {
        PgContext {
            now,
            wall_ms: (now.as_millis() as i64 + self.wall_offset).max(0) as u64,
            store_since: self.birth.epoch.unwrap_or(Epoch(u64::MAX)),
            map,
            config: &self.config,
            store: &mut self.store,
            tokens: &mut self.tokens,
            rng: &mut self.rng,
            out,
            shared: &mut self.shared,
            requests: &mut self.requests,
            stages: &mut self.stages,
        }
    }

    pub fn packet(&self, message: impl Into<Message>) -> Packet {
        Packet::new(self.maps.epoch(), message)
    }

    pub fn send_mon(&self, out: &mut Outbox<OsdEffect>, message: impl Into<Message>) {
        out.push(OsdEffect::Send { to: Address::AnyMon, packet: self.packet(message) });
    }

    pub fn log(&self, out: &mut Outbox<OsdEffect>, level: LogLevel, text: impl Into<String>) {
        out.push(OsdEffect::Log { level, text: text.into() });
    }
}

impl<S: ObjectStore> Machine for Osd<S> {
    type Event = OsdEvent;
    type Effect = OsdEffect;

    fn step(&mut self, now: Instant, event: OsdEvent, out: &mut Outbox<OsdEffect>) {
        if self.core.phase == Phase::Stopped {
            return;
        }
        for effect in self.core.pending.drain(..) {
            out.push(effect);
        }
        if now.since(self.core.last_step) > self.core.config.tunables.heartbeat_grace / 2 {
            // Stalled ourselves: what others did meanwhile has not been read yet.
            self.core.heartbeat.forgive(now);
        }
        self.core.last_step = now;
        self.core.tokens.mark(now);
        match event {
            OsdEvent::Tick { wall_ms } => {
                self.core.wall_offset = wall_ms as i64 - now.as_millis() as i64;
                self.tick(now, out);
            }
            OsdEvent::Received { from, packet } => self.receive(now, from, packet, out),
            OsdEvent::SessionClosed(session) => self.session_closed(now, session, out),
            OsdEvent::PeerRefused { osd, address } => self.peer_refused(now, osd, &address, out),
            OsdEvent::Disk(done) => {
                self.core.store.disk_done(done);
                self.core.stages.journal.look(now, &self.core.store.stats());
            }
            OsdEvent::KvFlushed { token, result } => self.core.store.kv_flushed(token, result),
            OsdEvent::Gathered => {
                while let Some(request) = self.core.store.poll_disk() {
                    out.push(OsdEffect::Disk(request));
                }
                self.core.stages.journal.look(now, &self.core.store.stats());
            }
            OsdEvent::Stop => self.begin_stop(now, out),
        }
        self.work(now, out);
        self.send_acks(now, out);
        self.serve_requests(now, out);
        if self.core.phase_since.0 != self.core.phase {
            self.core.phase_since = (self.core.phase.clone(), now);
        }
        self.retime();
        if self.core.store.wants_disk() {
            out.push(OsdEffect::Gather);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.core.phase == Phase::Stopped {
            return None;
        }
        let pgs = self.core.pg_timers.first().map(|(at, _)| *at);
        pgs.into_iter().chain([self.own_deadline()]).min()
    }

    /// What the last step left behind: PGs it did not touch are as they were.
    fn check(&self) {
        for pg in self.core.touched_last.iter().filter_map(|id| self.pgs.get(id)) {
            pg.check();
        }
        self.core.stages.check();
    }
}

impl<S: ObjectStore> Osd<S> {
    /// Runs a PG's part of an event.
    pub(crate) fn with_pg(
        &mut self,
        now: Instant,
        out: &mut Outbox<OsdEffect>,
        id: PgId,
        act: impl FnOnce(&mut Pg, &mut PgContext<'_>),
    ) {
        if let Some(pg) = self.pgs.get_mut(&id) {
            self.core.touch(id);
            act(pg, &mut self.core.ctx(now, out));
        }
    }

    /// Everything that follows from the event within this machine: ends of store requests, turns of PGs.
    fn work(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        for _ in 0..ROUNDS_MAX {
            let mut idle = true;
            while let Some(event) = self.core.store.poll_event() {
                idle = false;
                self.store_event(now, event, out);
            }
            self.core.requests.kick.extend(self.core.shared.throttle.turns(now));
            for id in std::mem::take(&mut self.core.requests.kick) {
                idle = false;
                self.with_pg(now, out, id, |pg, ctx| pg.turn(ctx));
            }
            for id in std::mem::take(&mut self.core.requests.removed) {
                self.pgs.remove(&id);
                self.core.shared.forget(id);
                self.core.touch(id);
                self.meet_again(now, id, out);
            }
            if idle || self.core.phase == Phase::Stopped {
                break;
            }
        }
    }

    fn store_event(&mut self, now: Instant, event: StoreEvent, out: &mut Outbox<OsdEffect>) {
        match event {
            StoreEvent::Committed { token } => {
                let purpose = self.core.tokens.redeem(token);
                if let Some(Purpose::Pg { pg, interval, what }) = purpose {
                    self.with_pg(now, out, pg, |pg, ctx| {
                        if pg.interval() == interval {
                            pg.on_committed(ctx, what);
                        }
                    });
                } else if purpose == Some(Purpose::Birth) {
                    self.core.birth.is_durable = true;
                }
            }
            StoreEvent::ReadDone { token, result } => {
                if let Some(Purpose::Pg { pg, interval, what }) = self.core.tokens.redeem(token) {
                    self.with_pg(now, out, pg, |pg, ctx| {
                        if pg.interval() == interval {
                            pg.on_read(ctx, what, result);
                        }
                    });
                }
            }
            StoreEvent::Failed(error) => self.store_failed(&error, out),
        }
    }

    fn store_failed(&mut self, error: &StoreError, out: &mut Outbox<OsdEffect>) {
        self.stop_now(format!("the store has failed: {error}"), true, out);
    }

    /// The deadlines of PGs that were touched, anew.
    fn retime(&mut self) {
        let resend = self.core.config.tunables.resend_interval;
        let now = self.core.last_step;
        for &id in &self.core.touched {
            let deadline = self.pgs.get(&id).and_then(|pg| pg.next_deadline(resend, now));
            if deadline == self.core.pg_timer_of.get(&id).copied() {
                continue;
            }
            if let Some(old) = self.core.pg_timer_of.remove(&id) {
                self.core.pg_timers.remove(&(old, id));
            }
            if let Some(at) = deadline {
                self.core.pg_timer_of.insert(id, at);
                self.core.pg_timers.insert((at, id));
            }
        }
        std::mem::swap(&mut self.core.touched, &mut self.core.touched_last);
        self.core.touched.clear();
    }

    /// The current map.
    pub fn map(&self) -> &Arc<OsdMap> {
        self.core.maps.current()
    }

    pub fn pg(&self, id: PgId) -> Option<&Pg> {
        self.pgs.get(&id)
    }

    pub fn pgs(&self) -> impl Iterator<Item = &Pg> {
        self.pgs.values()
    }

    pub fn store(&self) -> &S {
        &self.core.store
    }

    pub fn config(&self) -> &OsdConfig {
        &self.core.config
    }

    /// Whether the map shows this run of it as up.
    pub fn is_up(&self) -> bool {
        self.core.phase == Phase::Up
    }
}
