//! A command's way: taken in at any monitor, handed to the leader, done there once, answered where it came in.

use super::{Mon, Out, SILENT_AFTER};
use crate::commands::{self, Context, Failure, Handler, reply_of};
use crate::event::MonEffect;
use crate::forward::Outstanding;
use crate::leader::{CommandWork, Memory, Origin, Work};
use nacre_types::{EntityName, Instant, RequestId};
use nacre_wire::messages::{Command, CommandReply, MonForward};
use nacre_wire::{Address, ErrorCode, Message, Packet, Peer};
use std::time::Duration;

/// Commands waiting for a certificate.
const SIGNING_MAX: usize = 100;

impl Mon {
    pub(super) fn receive_command(&mut self, now: Instant, from: &Peer, packet: Packet, out: Out<'_>) {
        let Message::Command(command) = packet.message else { return };
        if self.forward.len() >= self.config.commands.outstanding_max {
            let failure = Failure::new(
                ErrorCode::TryAgain,
                "this monitor has too many commands to do: try again later",
            );
            let reply = self.packet(reply_of(Err(failure))).request(packet.request);
            out.push(MonEffect::Send { to: Address::Session(from.session), packet: reply });
            return;
        }
        if let Some(reply) = self.explain_here(now, from, &command) {
            let packet = self.packet(reply).request(packet.request);
            return out.push(MonEffect::Send { to: Address::Session(from.session), packet });
        }
        let deadline = now + Duration::from_millis(self.config.commands.timeout_ms);
        self.forward.add(from.session, from.entity.to_string(), packet.request, command, deadline);
    }

    /// What this monitor alone knows of why something is stuck needs no quorum, and no time.
    fn explain_here(&self, now: Instant, from: &Peer, command: &Command) -> Option<CommandReply> {
        if !command.json.contains("\"explain\"") {
            return None;
        }
        let parsed = commands::parse(command).ok().filter(|parsed| parsed.prefix == "explain")?;
        if !parsed.args.flag("local").unwrap_or(false) {
            return None;
        }
        if let Err(failure) = commands::permit(&self.service, &from.entity, &parsed) {
            return Some(reply_of(Err(failure)));
        }
        let empty = Memory::new(now);
        let context = Context {
            now,
            memory: self.leader.as_ref().map_or(&empty, |leader| &leader.memory),
            quorum: self.quorum_view(now),
            version: &self.config.version,
            entity: &from.entity,
            cert_pem: None,
        };
        let led_ms = now.since(self.led_at).as_millis() as u64;
        let (handler, args) = (parsed.handler, &parsed.args);
        Some(reply_of(crate::explain::here(&self.service, &context, &self.signs, led_ms, handler, args)))
    }

    /// Gives what is outstanding to whoever leads.
    pub(super) fn hand_over_commands(&mut self, now: Instant, out: Out<'_>) {
        if self.forward.len() == 0 {
            return;
        }
        let local = self.leader.is_some();
        let leader = self.leader_name().filter(|name| *name != self.config.name).map(String::from);
        let to = leader.and_then(|name| self.mon_address(&name));
        if !local && to.is_none() {
            return;
        }
        for id in self.forward.due(now, self.quorum.term(), local) {
            let Some(command) = self.forward.get(id).cloned() else { continue };
            if local {
                let Ok(entity) = command.entity.parse::<EntityName>() else { continue };
                self.lead_command(now, Origin::Local(id), entity, command.request, &command.command, out);
            } else if let Some(to) = &to {
                let message = Message::Command(command.command);
                let kind = u32::from(message.kind());
                let forward = MonForward { id, entity: command.entity, kind, body: message.encode().into() };
                let packet = self.packet(forward).request(command.request);
                out.push(MonEffect::Send { to: to.clone(), packet });
            }
        }
    }

    /// At the leader: checks a command and queues it, unless its answer is known or it is on its way already.
    pub(super) fn lead_command(
        &mut self,
        now: Instant,
        origin: Origin,
        entity: EntityName,
        request: RequestId,
        command: &Command,
        out: Out<'_>,
    ) {
        let text = entity.to_string();
        if let Some(reply) = self.service.answer(&text, request).cloned() {
            return self.answer(origin, reply, out);
        }
        let Some(leader) = &mut self.leader else { return };
        if leader.adopt(&entity, request, &origin) {
            return;
        }
        let parsed = commands::parse(command).and_then(|parsed| {
            commands::permit(&self.service, &entity, &parsed)?;
            Ok(parsed)
        });
        let parsed = match parsed {
            Ok(parsed) => parsed,
            Err(failure) => return self.answer(origin, reply_of(Err(failure)), out),
        };
        if leader.queued() >= self.config.batch.queued_max {
            let failure =
                Failure::new(ErrorCode::TryAgain, "the monitors have too much to do: try again later");
            return self.answer(origin, reply_of(Err(failure)), out);
        }
        if parsed.prefix == "mon rm" && parsed.args.text("name").is_ok_and(|name| name == self.config.name) {
            // A leader cannot take itself out of the group; whoever leads next can.
            if self.quorum.transfer_leadership() {
                if let Origin::Local(id) = origin {
                    self.forward.not_handed(id);
                }
                return;
            }
        }
        let csr = parsed.args.text_if("csr").ok().flatten().map(String::from);
        let work = CommandWork { origin, entity, request, parsed, cert_pem: None };
        match (work.parsed.handler, csr) {
            (Handler::Read(_), _) => self.queue_read(work),
            (Handler::Change(_), Some(csr)) => self.sign(work, csr, out),
            (Handler::Change(_), None) => {
                let wait = Duration::from_millis(self.config.batch.wait_ms);
                leader.push(now, Work::Command(Box::new(work)), wait);
            }
        }
    }

    fn sign(&mut self, work: CommandWork, csr_pem: String, out: Out<'_>) {
        let entity = match work.parsed.args.entity("entity") {
            Ok(entity) => entity,
            Err(failure) => return self.answer(work.origin, reply_of(Err(failure)), out),
        };
        let Some(leader) = &mut self.leader else { return };
        if leader.signing.len() >= SIGNING_MAX {
            let failure =
                Failure::new(ErrorCode::TryAgain, "too many certificates are being made: try again later");
            return self.answer(work.origin, reply_of(Err(failure)), out);
        }
        self.next_sign += 1;
        leader.signing.push((self.next_sign, work));
        out.push(MonEffect::Sign {
            token: self.next_sign,
            entity,
            csr_pem,
            ca_key_pem: self.service.ca_key_pem.clone(),
            ca_cert_pem: self.service.ca_cert_pem.clone(),
        });
    }

    pub(super) fn signed(&mut self, now: Instant, token: u64, result: Result<String, String>, out: Out<'_>) {
        let wait = Duration::from_millis(self.config.batch.wait_ms);
        let Some(leader) = &mut self.leader else { return };
        let Some(at) = leader.signing.iter().position(|(known, _)| *known == token) else { return };
        let (_, mut work) = leader.signing.remove(at);
        match result {
            Ok(cert_pem) => {
                work.cert_pem = Some(cert_pem);
                leader.push(now, Work::Command(Box::new(work)), wait);
            }
            Err(reason) => {
                let failure = Failure::invalid(format!("the signing request cannot be signed: {reason}"));
                self.answer(work.origin, reply_of(Err(failure)), out);
            }
        }
    }

    /// Answers what has waited too long, saying what is wrong.
    pub(super) fn expire_commands(&mut self, now: Instant, out: Out<'_>) {
        for command in self.forward.expired(now) {
            let reply = self.too_late(now, &command);
            let packet = self.packet(reply).request(command.request);
            out.push(MonEffect::Send { to: Address::Session(command.session), packet });
        }
    }

    /// A reading command without quorum still gets what this monitor knows, marked as old.
    fn old_answer(&self, now: Instant, command: &Outstanding) -> Option<CommandReply> {
        let entity = command.entity.parse().ok()?;
        let parsed = commands::parse(&command.command).ok()?;
        commands::permit(&self.service, &entity, &parsed).ok()?;
        let Handler::Read(handler) = parsed.handler else { return None };
        let memory = Memory::new(now);
        let context = Context {
            now,
            memory: &memory,
            quorum: self.quorum_view(now),
            version: &self.config.version,
            entity: &entity,
            cert_pem: None,
        };
        handler(&self.service, &context, &parsed.args).ok().map(|reply| reply_of(Ok(reply)))
    }

    fn too_late(&self, now: Instant, command: &Outstanding) -> CommandReply {
        let led_lately = now.since(self.led_at) < Duration::from_secs(1);
        let view = self.quorum_view(now);
        let seconds = self.config.commands.timeout_ms as f64 / 1000.0;
        let failure = if led_lately {
            let leader = view.leader.unwrap_or_default();
            let text = format!(
                "mon.{leader} leads but did not finish within {seconds} s; the command may still take effect: look \
                 before you repeat it"
            );
            Failure::new(ErrorCode::TimedOut, text)
        } else {
            let mons = self.service.monmap.mons.len();
            let names: Vec<String> = view.silent.iter().map(|name| format!("mon.{name}")).collect();
            let who = match names.len() {
                0 => format!("all of them were heard within {} s: try again", SILENT_AFTER.as_secs()),
                1 => format!("{} does not answer: start it or check its network", names[0]),
                _ => format!("{} do not answer: start them or check their network", names.join(", ")),
            };
            let mut text = format!("the {mons} monitors have no quorum (more than half is needed); {who}");
            if let Some(old) = self.old_answer(now, command) {
                let age = now.since(self.led_at).as_secs();
                text.push_str(&format!(
                    "; what mon.{} last knew, {age} s ago or more, is attached",
                    self.config.name
                ));
                return CommandReply { code: ErrorCode::NoQuorum as i32, message: text, ..old };
            }
            Failure::new(ErrorCode::NoQuorum, text)
        };
        reply_of(Err(failure))
    }
}
