//! New maps: applied one by one to all PGs, then acted on.

use super::boot::Phase;
use super::{Osd, ROUNDS_MAX};
use crate::log::is_new_interval;
use crate::maps_keeper::Step;
use crate::pg::Pg;
use crate::token::Purpose;
use crate::{OsdEffect, Tunables};
use nacre_maps::{AuthMap, ConfigMap, MonMap, OsdMap};
use nacre_store::{OSD_META, ObjectStore};
use nacre_types::{EntityName, Epoch, Instant, OsdId, Outbox, PgId};
use nacre_wire::messages::{LogLevel, MapRequest, Maps};
use nacre_wire::{Address, Peer, Transaction};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A PG that lives longer than this many epochs in one interval is written down again, so that older maps can go.
const REWRITE_AFTER_EPOCHS: u64 = 250;

impl<S: ObjectStore> Osd<S> {
    pub(crate) fn on_maps(&mut self, now: Instant, from: &Peer, maps: Maps, out: &mut Outbox<OsdEffect>) {
        if maps.fsid != self.core.config.fsid {
            let text = format!("{} speaks of another cluster: {}", from.entity, maps.fsid);
            return self.core.log(out, LogLevel::Error, text);
        }
        let from_mon = matches!(from.entity, EntityName::Mon(_));
        if from_mon {
            self.take_auth(now, &maps, out);
            self.take_config(&maps, out);
        }
        let mut t = Transaction::new(OSD_META);
        let steps = match self.core.maps.take(&maps, &mut t) {
            Ok(steps) => steps,
            Err(error) => {
                self.core.log(
                    out,
                    LogLevel::Warning,
                    format!("a map from {} is refused: {error}", from.entity),
                );
                let request = MapRequest { after: self.core.maps.epoch().0, full: true };
                let packet = self.core.packet(request);
                return out.push(OsdEffect::Send { to: Address::AnyMon, packet });
            }
        };
        if !t.is_empty() {
            let token = self.core.tokens.issue(Purpose::Maps { newest: self.core.maps.epoch() });
            self.core.store.submit(token, t);
        }
        for step in &steps {
            if !self.advance(now, step, out) {
                return;
            }
        }
        if !steps.is_empty() || from_mon {
            self.check_own_state(now, out);
        }
        if std::mem::take(&mut self.core.just_up) || !steps.is_empty() {
            self.maps_reached(now, out);
        }
        if self.core.maps.heard_of > self.core.maps.epoch() && !steps.is_empty() {
            self.ask_for_maps(now, from, out);
        }
    }

    fn take_auth(&mut self, now: Instant, maps: &Maps, out: &mut Outbox<OsdEffect>) {
        if let Some(bytes) = &maps.monmap
            && let Ok(monmap) = MonMap::decode(bytes)
        {
            self.core.monmap_epoch = self.core.monmap_epoch.max(monmap.epoch.0);
        }
        let Some(bytes) = &maps.authmap else { return };
        match AuthMap::decode(bytes) {
            Ok(auth) if self.core.auth.as_ref().is_none_or(|old| auth.epoch >= old.epoch) => {
                self.core.auth = Some(auth);
                self.release_held(now, out);
            }
            Ok(_) => {}
            Err(error) => self.core.log(out, LogLevel::Error, format!("the authmap is refused: {error}")),
        }
    }

    /// What the central configuration says is laid over what this OSD was started with; all of it or nothing.
    fn take_config(&mut self, maps: &Maps, out: &mut Outbox<OsdEffect>) {
        let Some(bytes) = &maps.config else { return };
        let core = &mut self.core;
        let config = match ConfigMap::decode(bytes) {
            Ok(config) if config.epoch > core.config_epoch => config,
            Ok(_) => return,
            Err(error) => {
                return core.log(out, LogLevel::Error, format!("the configuration is refused: {error}"));
            }
        };
        core.config_epoch = config.epoch;
        let (me, mut tunables) = (EntityName::Osd(core.config.id), core.started_with.clone());
        for name in Tunables::NAMES {
            if let Some(value) = config.get(&me, name)
                && let Err(why) = tunables.set(name, value)
            {
                let text = format!(
                    "the configuration of epoch {} is not used: {name} = {value}: {why}",
                    config.epoch
                );
                return core.log(out, LogLevel::Error, text);
            }
        }
        if let Err(why) = tunables.validate() {
            let text = format!("the configuration of epoch {} is not used: {why}", config.epoch);
            return core.log(out, LogLevel::Error, text);
        }
        if tunables == core.config.tunables {
            return;
        }
        core.requests.kick.extend(core.shared.set_bounds(&tunables));
        core.config.tunables = tunables;
        core.log(out, LogLevel::Info, format!("settings of epoch {} are in force", config.epoch));
        self.pgs.values_mut().for_each(Pg::scrub_reschedule);
    }

    /// One epoch on. False if the machine has stopped.
    fn advance(&mut self, now: Instant, step: &Step, out: &mut Outbox<OsdEffect>) -> bool {
        let (old, new) = match step {
            Step::Next { old, new } | Step::Gap { old, new } => (old, new),
        };
        let gap = matches!(step, Step::Gap { .. });
        if gap && old.epoch() > Epoch::ZERO && self.core.phase == Phase::Up {
            let text = format!("maps between {} and {} are gone: starting over", old.epoch(), new.epoch());
            self.stop_now(text, true, out);
            return false;
        }
        let Osd { core, pgs } = self;
        let mut ctx = core.ctx_at(now, out, new.clone());
        for pg in pgs.values_mut() {
            if gap {
                pg.skip_to_map(&mut ctx, new);
            } else {
                pg.advance_map(&mut ctx, old, new);
            }
        }
        core.touched.extend(pgs.keys());
        if !gap {
            self.create_pgs(now, new);
        }
        true
    }

    /// PGs of pools made in this very epoch, where this OSD is a member.
    fn create_pgs(&mut self, now: Instant, map: &Arc<OsdMap>) {
        let me = self.core.config.id;
        for (pool, info) in map.pools().filter(|(_, pool)| pool.created() == map.epoch()) {
            for seed in 0..info.pg_num {
                let id = PgId::new(pool, seed);
                let member =
                    map.pg(id).is_some_and(|place| place.up.contains(&me) || place.acting.contains(&me));
                if member && !self.pgs.contains_key(&id) {
                    self.pgs.insert(id, Pg::create(id, map, me, now));
                    self.core.touch(id);
                }
            }
        }
    }

    /// The newest known map is reached: PGs act on it.
    pub(crate) fn maps_reached(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        if self.core.phase == Phase::Stopped {
            return;
        }
        if self.core.phase == Phase::Up {
            self.meet_unknown_pgs(now);
            for id in self.pgs.keys().copied().collect::<Vec<_>>() {
                self.with_pg(now, out, id, |pg, ctx| pg.activate_map(ctx));
                self.core.requests.kick.insert(id);
            }
            self.fence_clients(now, out);
        }
        self.watch_peers(now);
        self.trim_maps(now, out);
        self.release_held(now, out);
    }

    /// PGs that this OSD is primary of without having them.
    fn meet_unknown_pgs(&mut self, now: Instant) {
        for id in self.core.maps.current().clone().pgs() {
            self.meet_unknown(now, id);
        }
    }

    fn meet_unknown(&mut self, now: Instant, id: PgId) -> bool {
        let map = self.core.maps.current().clone();
        let me = self.core.config.id;
        let is_unknown =
            map.pg(id).and_then(|place| place.primary()) == Some(me) && !self.pgs.contains_key(&id);
        if is_unknown {
            let since = self.interval_start(id, &map);
            self.pgs.insert(id, Pg::phantom(id, &map, since, me, now));
            self.core.touch(id);
        }
        is_unknown
    }

    /// A copy has been removed. By now the PG may be this OSD's again.
    pub(crate) fn meet_again(&mut self, now: Instant, id: PgId, out: &mut Outbox<OsdEffect>) {
        if self.core.phase == Phase::Up && self.meet_unknown(now, id) {
            self.with_pg(now, out, id, |pg, ctx| pg.activate_map(ctx));
            self.watch_peers(now);
        }
    }

    /// The first epoch of the PG's current interval, as far back as recent maps tell.
    fn interval_start(&self, id: PgId, map: &Arc<OsdMap>) -> Epoch {
        let mut newer = map;
        for _ in 0..ROUNDS_MAX {
            let Some(older) = self.core.maps.recent(newer.epoch().prev()) else { break };
            if older.epoch() == newer.epoch() || is_new_interval(id, older, newer) {
                break;
            }
            newer = older;
        }
        newer.epoch()
    }

    pub(crate) fn watch_peers(&mut self, now: Instant) {
        let map = self.core.maps.current().clone();
        let me = self.core.config.id;
        let sharing: BTreeSet<OsdId> = self
            .pgs
            .values()
            .flat_map(|pg| pg.members.up.iter().chain(&pg.members.acting).chain(&pg.probe))
            .copied()
            .filter(|&osd| osd != me)
            .collect();
        let core = &mut self.core;
        core.heartbeat.watch(me, &map, &sharing, &core.config.tunables, &mut core.rng, now);
    }

    fn fence_clients(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        let map = self.core.maps.current().clone();
        if map.blocklist().is_empty() {
            return;
        }
        let ids: Vec<PgId> =
            self.pgs.iter().filter(|(_, pg)| !pg.watch.is_empty()).map(|(&id, _)| id).collect();
        for id in ids {
            self.with_pg(now, out, id, |pg, ctx| {
                for &client in map.blocklist().keys() {
                    pg.watch.client_gone(client);
                }
                pg.deliver_watch(ctx);
            });
        }
    }

    fn trim_maps(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        let epoch = self.core.maps.epoch();
        if !epoch.0.is_multiple_of(32) {
            return;
        }
        let old = Epoch(epoch.0.saturating_sub(REWRITE_AFTER_EPOCHS));
        let stale: Vec<PgId> = self
            .pgs
            .iter()
            .filter(|(_, pg)| pg.written_epoch < old && pg.info.exists)
            .map(|(&id, _)| id)
            .collect();
        for id in stale {
            self.with_pg(now, out, id, |pg, ctx| pg.persist_info(ctx));
        }
        let needed = self.pgs.values().filter(|pg| pg.info.exists).map(|pg| pg.written_epoch).min();
        let mut t = Transaction::new(OSD_META);
        self.core.maps.trim(self.core.config.tunables.maps_kept, needed.unwrap_or(epoch), &mut t);
        if !t.is_empty() {
            let token = self.core.tokens.issue(Purpose::Nothing);
            self.core.store.submit(token, t);
        }
    }

    /// Somebody knows newer maps: ask for them, not more often than a round trip takes.
    pub(crate) fn ask_for_maps(&mut self, now: Instant, from: &Peer, out: &mut Outbox<OsdEffect>) {
        if now < self.core.timers.ask_maps {
            return;
        }
        self.core.timers.ask_maps = now + self.core.config.tunables.resend_interval / 5;
        if matches!(from.entity, nacre_types::EntityName::Osd(_)) {
            let request = MapRequest { after: self.core.maps.epoch().0, full: false };
            let packet = self.core.packet(request);
            out.push(OsdEffect::Send { to: Address::Session(from.session), packet });
        } else {
            self.subscribe(now, out);
        }
    }

    /// Hands maps to whoever is behind, once per epoch and session.
    pub(crate) fn push_maps(&mut self, from: &Peer, have: Epoch, out: &mut Outbox<OsdEffect>) {
        let epoch = self.core.maps.epoch();
        if have >= epoch || self.core.pushed.get(&from.session).is_some_and(|&pushed| pushed >= epoch) {
            return;
        }
        self.core.pushed.insert(from.session, epoch);
        let packet = self.core.packet(self.core.maps.share(have, false));
        out.push(OsdEffect::Send { to: Address::Session(from.session), packet });
    }
}
