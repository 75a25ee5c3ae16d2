//! Messages as they come in: who may send what, what this monitor serves itself, what goes to the leader.

use super::{Mon, Out};
use crate::commands::{Failure, reply_of};
use crate::event::MonEffect;
use crate::leader::{Origin, Work};
use crate::options::mon_number;
use crate::quorum;
use crate::service::Service;
use crate::session::osdmaps_after;
use bytes::Bytes;
use nacre_types::buggify;
use nacre_types::{EntityName, Epoch, Instant, OsdId};
use nacre_wire::messages::{
    ClusterLog, LogLevel, LogLine, MapRequest, MonCheckpoint, MonForward, MonForwardReply, MonRaft, Refused,
};
use nacre_wire::{Address, ErrorCode, Message, Packet, Peer};
use prost_011::Message as _;
use raft::eraftpb::Message as RaftMessage;
use std::time::Duration;

/// Lines of one daemon's log message that are taken.
const LOG_LINES_MAX: usize = 100;
/// Acting sets one message may ask for.
const PG_TEMP_WANTS_MAX: usize = 70_000;

impl Mon {
    pub(super) fn receive(&mut self, now: Instant, from: Peer, packet: Packet, out: Out<'_>) {
        if let EntityName::Mon(name) = &from.entity {
            let name = name.clone();
            return self.receive_from_mon(now, &name, from, packet, out);
        }
        if !self.service.auth.contains(&from.entity) {
            return self.refuse_unknown(now, &from, &packet, out);
        }
        self.signs.note(now, &from.entity, &packet.message);
        match packet.message {
            Message::Subscribe(ref request) => {
                if !self.sessions.subscribe(&from, request) {
                    return self.refuse(
                        &from,
                        &packet,
                        ErrorCode::Busy,
                        "too many sessions follow maps here",
                        out,
                    );
                }
                self.sessions.push(from.session, &self.service, &mut |session, packet| {
                    out.push(MonEffect::Send { to: Address::Session(session), packet });
                });
            }
            Message::MapRequest(ref request) => self.send_maps(&from, request, out),
            Message::Command(_) => self.receive_command(now, &from, packet, out),
            Message::OsdBoot(_)
            | Message::OsdAlive(_)
            | Message::OsdFailure(_)
            | Message::OsdStopping(_)
            | Message::OsdPgTemp(_)
            | Message::OsdStats(_)
            | Message::ClusterLog(_) => self.hand_to_leader(now, &from, packet, out),
            // A peer that refuses us has nothing to be answered; a late answer of a former session neither.
            Message::Refused(_) => {}
            _ => {
                let text = format!("monitors do not take {}", packet.message.name());
                self.refuse(&from, &packet, ErrorCode::NotSupported, &text, out);
            }
        }
    }

    fn refuse_unknown(&mut self, now: Instant, from: &Peer, packet: &Packet, out: Out<'_>) {
        let text =
            format!("{} is not known to this cluster: its entry was removed or never made", from.entity);
        if self.service.version == 0 && self.quorum.applied() == 0 {
            // We know nobody yet ourselves.
            let text = "this monitor has not joined its cluster yet: ask another one";
            return self.refuse(from, packet, ErrorCode::TryAgain, text, out);
        }
        if self.leader_name().is_none() {
            // It may have been made meanwhile by those that this monitor does not hear.
            let text = format!(
                "{} is not known to mon.{}, which knows of no quorum now and may be behind: ask another monitor",
                from.entity, self.config.name
            );
            if let Message::Command(_) = packet.message {
                let failure = Failure::new(ErrorCode::NoQuorum, text);
                let packet = self.packet(reply_of(Err(failure))).request(packet.request);
                return out.push(MonEffect::Send { to: Address::Session(from.session), packet });
            }
            return self.refuse(from, packet, ErrorCode::TryAgain, &text, out);
        }
        self.log_sometimes(now, out, &format!("unknown {}", from.entity), text.clone());
        if let Message::Command(_) = packet.message {
            // Whoever asks is waiting for an answer.
            let failure = Failure::new(ErrorCode::NotPermitted, text);
            let packet = self.packet(reply_of(Err(failure))).request(packet.request);
            return out.push(MonEffect::Send { to: Address::Session(from.session), packet });
        }
        self.refuse(from, packet, ErrorCode::NotPermitted, &text, out);
    }

    pub(super) fn refuse(&self, to: &Peer, packet: &Packet, code: ErrorCode, text: &str, out: Out<'_>) {
        let refused =
            Refused { code: code as i32, message: text.into(), kind: u32::from(packet.message.kind()) };
        let packet = self.packet(refused).request(packet.request);
        out.push(MonEffect::Send { to: Address::Session(to.session), packet });
    }

    fn send_maps(&self, to: &Peer, request: &MapRequest, out: Out<'_>) {
        let (maps, _) = osdmaps_after(&self.service, Epoch(request.after), request.full);
        out.push(MonEffect::Send { to: Address::Session(to.session), packet: self.packet(maps) });
    }

    // From other monitors.

    fn receive_from_mon(&mut self, now: Instant, name: &str, from: Peer, packet: Packet, out: Out<'_>) {
        let Some(raft_id) = self.service.monmap.mons.get(name).map(|info| info.raft_id) else {
            let text = format!(
                "mon.{name} is not in the monmap of epoch {}: it was removed, or has not been added",
                self.service.monmap.epoch
            );
            if let Message::Refused(_) = packet.message {
                return;
            }
            return self.refuse(&from, &packet, ErrorCode::NotPermitted, &text, out);
        };
        if name == self.config.name {
            return;
        }
        self.heard.insert(name.into(), now);
        match packet.message {
            Message::MonRaft(raft) => self.receive_raft(now, name, raft_id, &raft, out),
            Message::MonCheckpoint(piece) => self.receive_piece(now, name, raft_id, piece, out),
            Message::MonHello(_) => {}
            Message::MonForward(ref forward) => {
                let forward = forward.clone();
                self.receive_forward(now, name, forward, packet, out);
            }
            Message::MonForwardReply(reply) => self.receive_forward_reply(reply, out),
            Message::Subscribe(ref request) => {
                if self.sessions.subscribe(&from, request) {
                    self.sessions.push(from.session, &self.service, &mut |session, packet| {
                        out.push(MonEffect::Send { to: Address::Session(session), packet });
                    });
                }
            }
            Message::MapRequest(ref request) => self.send_maps(&from, request, out),
            Message::Command(_) => self.receive_command(now, &from, packet, out),
            Message::Refused(refused) => {
                let text: String = refused.message.chars().take(300).collect();
                self.log_sometimes(now, out, "refused", format!("mon.{name} refuses this monitor: {text}"));
                if refused.code == ErrorCode::NotPermitted as i32 {
                    // Removed, and the last to know.
                    self.shed(now, out);
                }
            }
            _ => {
                let text = format!("monitors do not take {}", packet.message.name());
                self.refuse(&from, &packet, ErrorCode::NotSupported, &text, out);
            }
        }
    }

    fn receive_raft(&mut self, now: Instant, name: &str, raft_id: u64, raft: &MonRaft, out: Out<'_>) {
        let message = match RaftMessage::decode(&raft.message[..]) {
            Ok(message) => message,
            Err(error) => {
                let text = format!("a Raft message of mon.{name} does not decode: {error}");
                return self.log_sometimes(now, out, "raft", text);
            }
        };
        let result = if quorum::is_checkpoint(&message) {
            let index = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref()).map_or(0, |m| m.index);
            if self.quorum.wants_checkpoint(index) {
                match self.checkpoints.message(raft_id, message) {
                    Some((message, state)) => {
                        return self.take_checkpoint(now, name, raft_id, message, state, out);
                    }
                    None => Ok(()),
                }
            } else {
                // Old news: raft-rs answers with how far we are and does not look at the state.
                self.quorum.receive(raft_id, message)
            }
        } else {
            if quorum::is_append_response(&message) {
                self.checkpoints.answered(raft_id);
            }
            self.quorum.receive(raft_id, message)
        };
        if let Err(reason) = result {
            self.log_sometimes(now, out, "raft", format!("dropped a Raft message of mon.{name}: {reason}"));
        }
    }

    fn receive_piece(&mut self, now: Instant, name: &str, raft_id: u64, piece: MonCheckpoint, out: Out<'_>) {
        if let Some((message, state)) = self.checkpoints.piece(raft_id, piece) {
            self.take_checkpoint(now, name, raft_id, message, state, out);
        }
    }

    fn take_checkpoint(
        &mut self,
        now: Instant,
        name: &str,
        raft_id: u64,
        message: RaftMessage,
        state: Bytes,
        out: Out<'_>,
    ) {
        // Raft takes a checkpoint for good: it must be sound before.
        let result = match Service::decode(state.clone()) {
            Ok(service) if service.fsid() != self.config.fsid => {
                Err(format!("it is of cluster {}", service.fsid().chars().take(64).collect::<String>()))
            }
            Ok(service)
                if service.monmap.mons.get(&self.config.name).map(|m| m.raft_id)
                    != Some(self.quorum.id()) =>
            {
                Err("its monmap does not have this monitor".into())
            }
            Ok(_) => self.quorum.receive_checkpoint(raft_id, message, state),
            Err(reason) => Err(reason),
        };
        if let Err(reason) = result {
            self.log_sometimes(
                now,
                out,
                "checkpoint",
                format!("refused a checkpoint of mon.{name}: {reason}"),
            );
        }
    }

    // To the leader.

    /// Daemons' messages: handled if this monitor leads, else handed on. They are resent by whoever sent them.
    fn hand_to_leader(&mut self, now: Instant, from: &Peer, packet: Packet, out: Out<'_>) {
        if self.leader.is_some() {
            if let Err(text) = self.daemon_message(now, &from.entity, &packet.message) {
                self.refuse(from, &packet, ErrorCode::NotPermitted, &text, out);
            }
            return;
        }
        let leader = self.leader_name().filter(|name| *name != self.config.name);
        let Some(to) = leader.and_then(|name| self.mon_address(name)) else { return };
        let forward = MonForward {
            id: 0,
            entity: from.entity.to_string(),
            kind: u32::from(packet.message.kind()),
            body: packet.message.encode().into(),
        };
        out.push(MonEffect::Send { to, packet: self.packet(forward).request(packet.request) });
    }

    fn receive_forward(
        &mut self,
        now: Instant,
        name: &str,
        forward: MonForward,
        packet: Packet,
        out: Out<'_>,
    ) {
        let Ok(entity) = forward.entity.parse::<EntityName>() else { return };
        let kind = u16::try_from(forward.kind).unwrap_or(0);
        let Ok(message) = Message::decode(kind, &forward.body) else { return };
        // Whoever handed it over tries again: with us if we get to lead, else elsewhere.
        if self.leader.is_none() {
            return;
        }
        if let Message::Command(command) = message {
            let origin = Origin::Mon { name: name.into(), id: forward.id };
            self.lead_command(now, origin, entity, packet.request, &command, out);
        } else if let Err(text) = self.daemon_message(now, &entity, &message) {
            self.log_sometimes(now, out, &format!("daemon {entity}"), text);
        }
    }

    fn receive_forward_reply(&mut self, reply: MonForwardReply, out: Out<'_>) {
        let kind = u16::try_from(reply.kind).unwrap_or(0);
        if let Ok(Message::CommandReply(answer)) = Message::decode(kind, &reply.body) {
            self.answer(Origin::Local(reply.id), answer, out);
        }
    }

    pub(super) fn answer_mon(
        &mut self,
        name: &str,
        id: u64,
        reply: nacre_wire::messages::CommandReply,
        out: Out<'_>,
    ) {
        if let Some(to) = self.mon_address(name) {
            let message = Message::CommandReply(reply);
            let kind = u32::from(message.kind());
            let reply = MonForwardReply { id, kind, body: message.encode().into() };
            out.push(MonEffect::Send { to, packet: self.packet(reply) });
        }
    }

    /// At the leader. An error if the sender is not who the message speaks of.
    fn daemon_message(&mut self, now: Instant, entity: &EntityName, message: &Message) -> Result<(), String> {
        let slow = if buggify("mon: slow batch") { 20 } else { 1 };
        let wait = Duration::from_millis(self.config.batch.wait_ms) * slow;
        let full = self.leader.as_ref().is_some_and(|l| l.queued() >= self.config.batch.queued_max);
        let wall_ms = self.wall_ms(now);
        if !self.service.auth.contains(entity) {
            return Err(format!("{entity} is not known to this cluster"));
        }
        let is = |id: u32| {
            if *entity == EntityName::Osd(OsdId(id)) {
                return Ok(());
            }
            Err(format!("{entity} may not speak for osd.{id}"))
        };
        let Some(leader) = &mut self.leader else { return Ok(()) };
        let work = match message {
            Message::OsdBoot(boot) => {
                is(boot.osd)?;
                Work::Boot(boot.clone())
            }
            Message::OsdAlive(alive) => {
                is(alive.osd)?;
                Work::Alive(alive.clone())
            }
            Message::OsdStopping(stopping) => {
                is(stopping.osd)?;
                Work::Stopping(stopping.clone())
            }
            Message::OsdPgTemp(wants) => {
                is(wants.osd)?;
                if wants.wants.len() > PG_TEMP_WANTS_MAX {
                    return Err(format!("{entity} asks for too many acting sets at once"));
                }
                Work::PgTemp(wants.clone())
            }
            Message::OsdStats(stats) => {
                is(stats.osd)?;
                leader.memory.stats(now, &self.service.osdmap, stats.clone());
                return Ok(());
            }
            Message::OsdFailure(failure) => {
                is(failure.reporter)?;
                let map = &self.service.osdmap;
                let reporters = mon_number(&self.service.config, &self.me, "mon_osd_min_down_reporters");
                let grace_ms = mon_number(&self.service.config, &self.me, "osd_heartbeat_grace_ms");
                let verdict = leader.memory.reports.report(now, map, reporters, grace_ms, failure);
                let Some(verdict) = verdict else { return Ok(()) };
                let up = map.osds().filter(|(_, info)| info.up).count() as u64;
                let known = map.osds().filter(|(_, info)| info.booted).count() as u64;
                let min_up = mon_number(&self.service.config, &self.me, "mon_osd_min_up_ratio");
                if (up - 1) * 1000 < min_up * known && up > 2 {
                    return Ok(());
                }
                leader.memory.reports.forget(verdict.osd);
                Work::Failed { osd: verdict.osd, instance: verdict.instance, why: verdict.why }
            }
            Message::ClusterLog(log) => Work::Log(log_lines(entity, log, wall_ms)),
            _ => return Err(format!("{entity} may not send that")),
        };
        if !full {
            leader.push(now, work, wait);
        }
        Ok(())
    }
}

/// A daemon's lines under its own name, with a stamp that is not in the future.
fn log_lines(entity: &EntityName, log: &ClusterLog, wall_ms: u64) -> Vec<LogLine> {
    let line = |line: &LogLine| LogLine {
        seq: 0,
        at_ms: line.at_ms.min(wall_ms),
        who: entity.to_string(),
        level: LogLevel::try_from(line.level).unwrap_or(LogLevel::Info) as i32,
        text: line.text.clone(),
    };
    log.lines.iter().take(LOG_LINES_MAX).map(line).collect()
}
