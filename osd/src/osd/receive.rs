//! Packets: who may send what, maps gossip, and the guard that drops what belongs to another interval.

use super::boot::Phase;
use super::{HELD_MAX, Osd};
use crate::OsdEffect;
use crate::log::{Info, decode_version};
use crate::pg::{Pg, State, interval_of};
use crate::space::used_permille;
use nacre_store::ObjectStore;
use nacre_types::{EntityName, Epoch, Instant, OsdId, Outbox, PgId, mutant};
use nacre_wire::messages::{LogLevel, PgNotify, Ping, Pong, Refused};
use nacre_wire::{Address, ErrorCode, Message, Packet, Peer};

impl<S: ObjectStore> Osd<S> {
    pub(crate) fn receive(&mut self, now: Instant, from: Peer, packet: Packet, out: &mut Outbox<OsdEffect>) {
        let is_mon = matches!(from.entity, EntityName::Mon(_));
        if is_mon {
            self.core.mon_session = Some(from.session);
            self.core.mon_heard = now;
        }
        let ours = self.core.maps.epoch();
        if packet.epoch > ours {
            self.core.maps.heard_of = self.core.maps.heard_of.max(packet.epoch);
            // A map on its way here is asked for by nobody.
            if !matches!(packet.message, Message::Maps(_)) {
                self.ask_for_maps(now, &from, out);
            }
        } else if packet.epoch < ours && packet.epoch > Epoch::ZERO && !is_mon {
            self.push_maps(&from, packet.epoch, out);
        }
        match packet.message {
            Message::Maps(maps) => self.on_maps(now, &from, maps, out),
            Message::MapRequest(request) => {
                let packet = self.core.packet(self.core.maps.share(Epoch(request.after), request.full));
                out.push(OsdEffect::Send { to: Address::Session(from.session), packet });
            }
            Message::Ping(ping) => self.on_ping(&from, &ping, out),
            Message::Pong(pong) => {
                let EntityName::Osd(osd) = from.entity else { return };
                if osd.0 != pong.from {
                    return;
                }
                self.core.shared.fullness.heard(osd, pong.used_permille);
                if let Some(report) = self.core.heartbeat.on_pong(self.core.config.id, &pong, now) {
                    self.core.send_mon(out, report);
                }
            }
            Message::OsdOp(_) => self.on_osd_op(now, from, packet, out),
            Message::PgAdmin(_) => self.on_admin(now, from, packet, out),
            Message::Refused(refused) => {
                let text = format!(
                    "{} refuses a message of kind {}: {}",
                    from.entity, refused.kind, refused.message
                );
                self.core.log(out, LogLevel::Warning, text);
            }
            Message::CommandReply(_) | Message::OsdOpReply(_) | Message::WatchEvent(_) => {}
            Message::RepOpReply(_) => self.on_acks(now, from, packet, out),
            ref message if interval_of(message).is_some() => match from.entity {
                EntityName::Osd(osd) => self.on_pg_message(now, osd, from, packet, out),
                _ => self.refuse(&from, &packet, "only OSDs speak about PGs", out),
            },
            _ => self.refuse(&from, &packet, "an OSD does not take it", out),
        }
    }

    fn refuse(&mut self, from: &Peer, packet: &Packet, why: &str, out: &mut Outbox<OsdEffect>) {
        let message = Refused {
            code: ErrorCode::NotSupported as i32,
            message: format!("{}: {why}", packet.message.name()),
            kind: packet.message.kind().into(),
        };
        let packet = self.core.packet(message).request(packet.request);
        out.push(OsdEffect::Send { to: Address::Session(from.session), packet });
    }

    fn on_ping(&mut self, from: &Peer, ping: &Ping, out: &mut Outbox<OsdEffect>) {
        let (id, instance) = (self.core.config.id, self.core.config.instance);
        // Meant for an earlier run, or this one is about to end: silence is the right answer.
        if ping.to != id.0 || ping.to_instance != instance || matches!(self.core.phase, Phase::Stopping(_)) {
            return;
        }
        let used_permille = used_permille(self.core.store.usage());
        let pong = Pong { sent_ns: ping.sent_ns, from: id.0, from_instance: instance, used_permille };
        let packet = self.core.packet(pong);
        out.push(OsdEffect::Send { to: Address::Session(from.session), packet });
    }

    /// Keeps a packet until the map it was sent under is here.
    pub(crate) fn hold(&mut self, from: Peer, packet: Packet) {
        if self.core.held.len() >= HELD_MAX {
            self.core.held.pop_front();
        }
        self.core.held.push_back((from, packet));
    }

    pub(crate) fn release_held(&mut self, now: Instant, out: &mut Outbox<OsdEffect>) {
        for (from, packet) in std::mem::take(&mut self.core.held) {
            self.receive(now, from, packet, out);
        }
    }

    fn on_pg_message(
        &mut self,
        now: Instant,
        osd: OsdId,
        from: Peer,
        packet: Packet,
        out: &mut Outbox<OsdEffect>,
    ) {
        let (Some(id), Some(interval)) = (packet.pg, interval_of(&packet.message)) else { return };
        if packet.epoch > self.core.maps.epoch()
            || matches!(self.core.phase, Phase::Starting | Phase::Booting)
        {
            return self.hold(from, packet);
        }
        if self.core.phase == Phase::Stopped {
            return;
        }
        let lasts = self.core.maps.interval_lasts(id, packet.epoch);
        match self.pgs.get_mut(&id) {
            Some(pg) if *pg.state() == State::Removing => {
                if matches!(packet.message, Message::PgQuery(_)) {
                    self.answer_absent(id, osd, interval, out);
                }
            }
            Some(pg) => {
                if pg.interval() != interval
                    && !pg.members.sure
                    && interval < pg.interval()
                    && lasts == Some(true)
                {
                    // Maps were missed here: the sender knows when the interval began.
                    pg.members.since = interval;
                    pg.members.sure = true;
                }
                if pg.interval() == interval || mutant!(IntervalUnchecked) {
                    self.with_pg(now, out, id, |pg, ctx| pg.on_message(ctx, osd, packet));
                }
            }
            None => match &packet.message {
                Message::PgQuery(_) => self.answer_absent(id, osd, interval, out),
                Message::PgActivate(_) if lasts == Some(true) => {
                    let me = self.core.config.id;
                    let map = self.core.maps.current().clone();
                    let fits = map.pg(id).is_some_and(|place| {
                        place.primary() == Some(osd) && (place.up.contains(&me) || place.acting.contains(&me))
                    });
                    if fits {
                        let pg = Pg::met(&mut self.core.ctx(now, out), id, interval);
                        self.pgs.insert(id, pg);
                        self.with_pg(now, out, id, |pg, ctx| pg.on_message(ctx, osd, packet));
                        self.watch_peers(now);
                    }
                }
                _ => {}
            },
        }
    }

    /// Members promise what they have made durable of PGs that this OSD leads.
    fn on_acks(&mut self, now: Instant, from: Peer, packet: Packet, out: &mut Outbox<OsdEffect>) {
        let EntityName::Osd(osd) = from.entity else {
            return self.refuse(&from, &packet, "only OSDs speak about PGs", out);
        };
        if packet.epoch > self.core.maps.epoch()
            || matches!(self.core.phase, Phase::Starting | Phase::Booting)
        {
            return self.hold(from, packet);
        }
        let Message::RepOpReply(reply) = packet.message else { return };
        self.core.shared.fullness.heard(osd, reply.used_permille);
        for ack in reply.acks {
            let (id, version) = (PgId::from_u64(ack.pg), decode_version(ack.version));
            let current = self.pgs.get(&id).is_some_and(|pg| {
                !matches!(pg.state(), State::Removing | State::Reset)
                    && (pg.interval() == Epoch(ack.interval) || mutant!(IntervalUnchecked))
            });
            if current {
                self.with_pg(now, out, id, |pg, ctx| pg.on_ack(ctx, osd, version, &ack.times));
            }
        }
    }

    /// Asked about a PG of which nothing is here.
    fn answer_absent(&mut self, id: PgId, to: OsdId, interval: Epoch, out: &mut Outbox<OsdEffect>) {
        let notify = PgNotify {
            interval: interval.0,
            info: Some(Info::absent(id).encode()),
            store_since: self.core.birth.epoch.map_or(u64::MAX, |epoch| epoch.0),
            used_permille: used_permille(self.core.store.usage()),
            ..PgNotify::default()
        };
        let packet = self.core.packet(notify).on(id);
        if let Some(address) = self.core.maps.current().address(to) {
            let to = Address::Osd { id: to, address: address.into() };
            out.push(OsdEffect::Send { to, packet });
        }
    }
}
