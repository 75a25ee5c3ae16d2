//! Timers of the OSD itself, and what it tells the monitors: heartbeats' findings, requests of PGs, statistics.

use super::Osd;
use super::boot::Phase;
use crate::OsdEffect;
use crate::log::encode_version;
use crate::space::used_permille;
use nacre_store::ObjectStore;
use nacre_types::{EVersion, Epoch, Instant, OsdId, Outbox, PgId};
use nacre_wire::Address;
use nacre_wire::messages::{OsdAlive, OsdPgTemp, OsdStats, PgTempWant, RepAck, RepOpReply};
use std::time::Duration;

/// Reports caused by changes follow each other no closer.
const REPORT_GAP: Duration = Duration::from_millis(200);
/// How often the store is told to make freed space available.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Timers {
    pub subscribe: Instant,
    pub boot: Instant,
    pub stats: Instant,
    pub last_stats: Instant,
    pub reclaim: Instant,
    pub ask_maps: Instant,
    /// When up_thru and pg_temp requests are sent again.
    pub resend_to_mon: Instant,
}

impl<S: ObjectStore> Osd<S> {
    pub(crate) fn own_deadline(&self) -> Instant {
        let core = &self.core;
        let mut at = core.timers.subscribe;
        match core.phase {
            Phase::Starting => {}
            Phase::Booting => at = at.min(core.timers.boot),
            Phase::Stopping(end) => return end,
            Phase::Up => {
                at = at.min(core.heartbeat.next_deadline()).min(core.timers.stats);
                if !core.requests.report.is_empty() {
                    at = at.min(core.timers.last_stats + REPORT_GAP);
                }
                if core.requests.up_thru.is_some() || !core.requests.pg_temp.is_empty() {
                    at = at.min(core.timers.resend_to_mon);
                }
            }
            Phase::Stopped => return Instant::MAX,
        }
        if core.maps.heard_of > core.maps.epoch() {
            at = at.min(core.timers.ask_maps);
        }
        core.shared.throttle.next_turn().map_or(at, |turn| at.min(turn))
    }

    pub(crate) fn tick(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        if let Phase::Stopping(end) = self.core.phase
            && now >= end
        {
            return self.stop_now(
                "stopped in order; the monitors did not confirm in time".into(),
                false,
                out,
            );
        }
        let behind = self.core.maps.heard_of > self.core.maps.epoch() && now >= self.core.timers.ask_maps;
        if now >= self.core.timers.subscribe || behind {
            self.core.timers.ask_maps = now + self.core.config.tunables.resend_interval;
            self.subscribe(now, out);
        }
        if self.core.phase == Phase::Booting {
            self.check_own_state(now, out);
            if std::mem::take(&mut self.core.just_up) {
                self.maps_reached(now, out);
            }
        }
        if self.core.phase == Phase::Up {
            self.heartbeat_round(now, out);
        }
        let due: Vec<PgId> =
            self.core.pg_timers.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id).collect();
        for id in due {
            self.with_pg(now, out, id, |pg, ctx| pg.tick(ctx));
            self.core.requests.kick.insert(id);
        }
    }

    fn heartbeat_round(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        let core = &mut self.core;
        let (me, instance) = (core.config.id, core.config.instance);
        let round = core.heartbeat.round(me, instance, &core.config.tunables, now);
        let map = core.maps.current().clone();
        for ping in round.pings {
            let to = OsdId(ping.to);
            if let Some(address) = map.address(to) {
                let packet = core.packet(ping);
                out.push(OsdEffect::Send { to: Address::Osd { id: to, address: address.into() }, packet });
            }
        }
        for report in round.reports {
            core.send_mon(out, report);
        }
    }

    /// Tells primaries what this step has made durable, each in one message.
    pub(crate) fn send_acks(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        if self.core.requests.acks.is_empty() {
            return;
        }
        let mut acks = std::mem::take(&mut self.core.requests.acks).into_iter().peekable();
        let times = std::mem::take(&mut self.core.requests.times);
        let used_permille = used_permille(self.core.store.usage());
        while let Some(((primary, pg), promise)) = acks.next() {
            let ack = |pg: PgId, (interval, version): (Epoch, EVersion)| {
                let of_pg = times.iter().filter(|(to, of, _)| (*to, *of) == (primary, pg));
                RepAck {
                    pg: pg.as_u64(),
                    interval: interval.0,
                    version: encode_version(version),
                    times: of_pg.map(|(.., times)| *times).collect(),
                }
            };
            let mut reply = RepOpReply { acks: vec![ack(pg, promise)], used_permille };
            while let Some(((_, pg), promise)) = acks.next_if(|((to, _), _)| *to == primary) {
                reply.acks.push(ack(pg, promise));
            }
            let packet = self.core.packet(reply);
            self.core.ctx(now, out).send_osd(primary, packet);
        }
    }

    /// What PGs asked of their OSD in this step.
    pub(crate) fn serve_requests(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        if let Some(reason) = self.core.requests.fatal.take() {
            return self.stop_now(format!("the store has failed: {reason}"), true, out);
        }
        if self.core.phase != Phase::Up {
            return;
        }
        let core = &mut self.core;
        let (osd, instance) = (core.config.id.0, core.config.instance);
        let due = now >= core.timers.resend_to_mon;
        let recorded = core.maps.current().osd(core.config.id).map(|own| own.up_thru());
        if core.requests.up_thru <= recorded {
            core.requests.up_thru = None;
        }
        let new_up_thru = core.requests.up_thru != core.requests.up_thru_sent;
        // No interval of this store may count before it knows for good since when it is there.
        if core.requests.up_thru.is_some() && core.birth.is_durable && (due || new_up_thru) {
            core.requests.up_thru_sent = core.requests.up_thru;
            let want_up_thru = core.maps.epoch().0;
            core.send_mon(out, OsdAlive { osd, instance, want_up_thru });
        }
        let changed = std::mem::take(&mut core.requests.pg_temp_changed);
        if !core.requests.pg_temp.is_empty() && (due || changed) {
            let wants = core.requests.pg_temp.iter().map(|(pg, acting)| PgTempWant {
                pg: pg.as_u64(),
                acting: acting.iter().map(|osd| osd.0).collect(),
            });
            let message = OsdPgTemp { osd, wants: wants.collect() };
            core.send_mon(out, message);
        }
        if due {
            core.timers.resend_to_mon = now + core.config.tunables.resend_interval;
        }
        let prompt = !core.requests.report.is_empty() && now >= core.timers.last_stats + REPORT_GAP;
        if now >= core.timers.reclaim {
            core.timers.reclaim = now + RECLAIM_INTERVAL;
            core.store.reclaim();
        }
        if prompt || now >= core.timers.stats {
            self.send_stats(now, out);
        }
    }

    fn send_stats(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        self.core.requests.report.clear();
        self.core.timers.last_stats = now;
        self.core.timers.stats = now + self.core.config.tunables.stats_interval;
        let slow_op = self.core.config.tunables.slow_op;
        let Osd { core, pgs } = self;
        let usage = core.store.usage();
        let mut stats = OsdStats {
            osd: core.config.id.0,
            instance: core.config.instance,
            total_bytes: usage.total_bytes,
            used_bytes: usage.used_bytes,
            pg_count: pgs.len() as u32,
            ..OsdStats::default()
        };
        let ctx = core.ctx(now, out);
        for pg in pgs.values_mut() {
            stats.objects += pg.info.objects;
            stats.slow_ops += pg.slow_ops(now, slow_op);
            stats.commit_latency_us = stats.commit_latency_us.max(pg.commit_latency.as_micros() as u64);
            if pg.is_primary() {
                stats.pgs.push(pg.stat(&ctx));
            }
        }
        self.core.send_mon(out, stats);
    }
}
