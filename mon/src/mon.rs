//! The monitor machine: messages in, Raft and the replicated state between, maps and answers out.
//!
//! ```text
//!            +-- Forward (commands until answered) --+
//!  Received -+-> Leader (queue, reports, batches) ---+-> Quorum --committed--> Service --> Sessions (maps pushed)
//!            +-- or handed to the leading monitor    |      ^ |
//!                                                 Persisted | +-> Persist, Send
//! ```

mod commands_flow;
mod reads;
mod receive;

use crate::checkpoint::{self, Checkpoints};
use crate::commands::QuorumView;
use crate::config::MonConfig;
use crate::error::OpenError;
use crate::event::{MonEffect, MonEvent, Write};
use crate::explain::Signs;
use crate::forward::Forward;
use crate::leader::{Frame, Leader, Origin};
use crate::quorum::{self, Quorum};
use crate::records;
use crate::service::Service;
use crate::session::Sessions;
use bytes::Bytes;
use nacre_maps::{AuthMap, MonMap, OsdMap};
use nacre_types::buggify;
use nacre_types::{EntityName, Instant, Machine, Outbox};
use nacre_wire::messages::{CommandReply, LogLevel, MonHello, MonRaft};
use nacre_wire::{Address, Packet};
use prost::Message as _;
use prost_011::Message as _;
use raft::eraftpb::{Entry, Message as RaftMessage};
use std::collections::BTreeMap;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(100);
/// After so long without a leader a monitor sends its clients and OSDs elsewhere (it may be cut off, or removed).
const LEADERLESS_MAX: Duration = Duration::from_secs(10);
/// A monitor not heard for that long counts as silent.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// How often monitors greet each other when Raft has nothing to say.
const HELLO_EVERY: Duration = Duration::from_secs(1);

type Out<'a> = &'a mut Outbox<MonEffect>;

/// See the module's documentation.
pub struct Mon {
    config: MonConfig,
    me: EntityName,
    /// The certificate authority is here only so that `bootstrap` and checkpoints carry it.
    service: Service,
    quorum: Quorum,
    leader: Option<Leader>,
    sessions: Sessions,
    forward: Forward,
    checkpoints: Checkpoints,
    /// When each monitor last said anything, by name.
    heard: BTreeMap<String, Instant>,
    /// Wall milliseconds at instant zero.
    wall_offset_ms: u64,
    opened: Instant,
    next_tick: Instant,
    next_hello: Instant,
    /// When a leader was last known.
    led_at: Instant,
    /// When sessions were last given up.
    shed_at: Option<Instant>,
    signs: Signs,
    next_sign: u64,
    log_silenced: BTreeMap<String, Instant>,
}

impl Mon {
    /// Opens a monitor from everything its key-value store holds.
    pub fn open(config: MonConfig, records: Vec<(Vec<u8>, Bytes)>, now: Instant) -> Result<Mon, OpenError> {
        config.validate()?;
        let records::Records { identity, storage } = records::read(records)?;
        for (what, found, expected) in
            [("cluster", &identity.fsid, &config.fsid), ("monitor", &identity.name, &config.name)]
        {
            if found != expected {
                let (found, expected) = (found.clone(), expected.clone());
                return Err(OpenError::WrongIdentity { what, found, expected });
            }
        }
        let corrupt = |reason: String| OpenError::Corrupt { record: "checkpoint".into(), reason };
        let service = if storage.checkpoint().index == 0 {
            let monmap = MonMap::decode(&identity.monmap).map_err(|e| corrupt(e.to_string()))?;
            let crush = nacre_crush::CrushMap::initial();
            let osdmap = OsdMap::initial(&identity.fsid, crush, 0).map_err(|e| corrupt(e.to_string()))?;
            Service::new(osdmap, monmap, AuthMap::default(), String::new(), String::new())
        } else {
            Service::decode(storage.checkpoint().state.clone()).map_err(corrupt)?
        };
        let quorum = Quorum::open(identity.raft_id, storage, config.seed)
            .map_err(|reason| OpenError::Corrupt { record: "log".into(), reason })?;
        Ok(Mon {
            me: EntityName::Mon(config.name.clone()),
            config,
            service,
            quorum,
            leader: None,
            sessions: Sessions::default(),
            forward: Forward::default(),
            checkpoints: Checkpoints::default(),
            heard: BTreeMap::new(),
            wall_offset_ms: 0,
            opened: now,
            next_tick: now,
            next_hello: now,
            led_at: now,
            shed_at: None,
            signs: Signs::default(),
            next_sign: 0,
            log_silenced: BTreeMap::new(),
        })
    }

    pub fn name(&self) -> &str {
        &self.config.name
    }

    pub fn is_leader(&self) -> bool {
        self.leader.is_some()
    }

    /// The leading monitor's name, if this one knows.
    pub fn leader_name(&self) -> Option<&str> {
        self.quorum.leader().and_then(|id| self.service.monmap.name_of(id))
    }

    /// The osdmap as this monitor has it.
    pub fn osdmap(&self) -> &OsdMap {
        &self.service.osdmap
    }

    pub fn monmap(&self) -> &MonMap {
        &self.service.monmap
    }

    /// Log index applied, with the hash of the state there: equal indexes have equal hashes on all monitors.
    pub fn applied(&self) -> (u64, u64) {
        (self.quorum.applied(), self.service.hash)
    }

    pub fn term(&self) -> u64 {
        self.quorum.term()
    }

    /// The applied state as bytes, for comparing monitors.
    pub fn state_bytes(&self) -> Bytes {
        self.service.encode()
    }

    /// Counters and gauges for `/metrics`, by Prometheus' naming habits.
    pub fn metrics(&self) -> Vec<(&'static str, f64)> {
        vec![
            ("nacre_mon_raft_term", self.quorum.term() as f64),
            ("nacre_mon_raft_applied", self.quorum.applied() as f64),
            ("nacre_mon_is_leader", f64::from(u8::from(self.is_leader()))),
            ("nacre_mon_osdmap_epoch", self.service.osdmap.epoch().0 as f64),
            ("nacre_mon_subscribers", self.sessions.count() as f64),
            ("nacre_mon_commands_outstanding", self.forward.len() as f64),
            ("nacre_mon_changes_queued", self.leader.as_ref().map_or(0, Leader::queued) as f64),
        ]
    }

    fn wall_ms(&self, now: Instant) -> u64 {
        self.wall_offset_ms.saturating_add(now.as_millis())
    }

    fn packet(&self, message: impl Into<nacre_wire::Message>) -> Packet {
        Packet::new(self.service.osdmap.epoch(), message)
    }

    fn mon_address(&self, name: &str) -> Option<Address> {
        let info = self.service.monmap.mons.get(name)?;
        Some(Address::Mon { name: name.into(), address: info.address.clone() })
    }

    fn quorum_view(&self, now: Instant) -> QuorumView {
        let mut view = QuorumView {
            me: self.config.name.clone(),
            leader: self.leader_name().map(String::from),
            term: self.quorum.term(),
            leading_ms: self.leader.as_ref().map_or(0, |l| now.since(l.memory.since).as_millis() as u64),
            ..QuorumView::default()
        };
        for (name, info) in &self.service.monmap.mons {
            let here = *name == self.config.name;
            let heard = self.heard.get(name).is_some_and(|&at| now.since(at) < SILENT_AFTER);
            let voter = self.quorum.members().voters.contains(&info.raft_id);
            if !voter {
                view.learners.push(name.clone());
            }
            if !(here || heard) {
                view.silent.push(name.clone());
            } else if voter {
                view.in_quorum.push(name.clone());
            }
        }
        view
    }

    fn log(&self, out: Out<'_>, level: LogLevel, text: impl Into<String>) {
        out.push(MonEffect::Log { level, text: text.into() });
    }

    /// Logs what a peer can cause as often as it likes: once in ten seconds for each key.
    fn log_sometimes(&mut self, now: Instant, out: Out<'_>, key: &str, text: String) {
        let recent = self.log_silenced.get(key).is_some_and(|&at| now.since(at) < Duration::from_secs(10));
        if recent || (self.log_silenced.len() >= 100 && !self.log_silenced.contains_key(key)) {
            return;
        }
        self.log_silenced.insert(key.into(), now);
        self.log(out, LogLevel::Warning, text);
    }

    fn tick(&mut self, now: Instant, out: Out<'_>) {
        self.next_tick = now + TICK;
        if self.quorum.tick() {
            let text = "this monitor's disk has not finished a write for seconds: another monitor is to lead";
            self.log(out, LogLevel::Error, text);
        }
        if self.quorum.has_forgotten() {
            let text = "this monitor has lost log entries it had promised to keep (was its store wiped or put back?): it \
                        takes no part; remove it, wipe its store and add it again";
            self.log_sometimes(now, out, "forgotten", text.into());
        }
        if self.quorum.leader().is_some() {
            self.led_at = now;
        }
        let member = self.service.version == 0 || self.service.monmap.mons.contains_key(&self.config.name);
        if now.since(self.led_at) >= LEADERLESS_MAX || !member {
            self.shed(now, out);
        }
        self.log_silenced.retain(|_, &mut at| now.since(at) < Duration::from_secs(10));
        for id in self.checkpoints.overdue(now) {
            self.quorum.checkpoint_failed(id);
        }
        if self.next_hello <= now {
            self.next_hello = now + HELLO_EVERY;
            self.hello(out);
        }
        if let Some(leader) = &mut self.leader {
            leader.memory.follow(now, &self.service);
            if let Some(learner) = self.quorum.ready_learner() {
                leader.promote(now, learner);
            }
        }
        self.retry_reads(now);
        self.expire_commands(now, out);
    }

    /// Without a leader nothing can be done for clients and OSDs here, but perhaps elsewhere: they look for another monitor.
    pub(crate) fn shed(&mut self, now: Instant, out: Out<'_>) {
        if self.shed_at.is_some_and(|at| now.since(at) < LEADERLESS_MAX) {
            return;
        }
        self.shed_at = Some(now);
        nacre_types::reached("mon: sessions given up without a leader");
        for session in self.sessions.all() {
            self.sessions.closed(session);
            out.push(MonEffect::CloseSession(session));
        }
    }

    fn hello(&mut self, out: Out<'_>) {
        let hello = MonHello {
            name: self.config.name.clone(),
            raft_id: self.quorum.id(),
            leader: self.quorum.leader().unwrap_or(0),
            applied: self.quorum.applied(),
        };
        for name in self.service.monmap.mons.keys().filter(|name| **name != self.config.name) {
            if let Some(to) = self.mon_address(name) {
                out.push(MonEffect::Send { to, packet: self.packet(hello.clone()) });
            }
        }
    }

    /// Carries out what Raft wants until it wants nothing, and whatever follows from that.
    fn settle(&mut self, now: Instant, out: Out<'_>) {
        loop {
            let mut moved = false;
            while let Some(output) = self.quorum.next() {
                moved = true;
                self.carry_out(now, output, out);
            }
            self.follow_leadership(now, out);
            self.hand_over_commands(now, out);
            self.serve_reads(now, out);
            moved |= self.propose(now, out);
            let limits = &self.config.checkpoint;
            let early = if buggify("mon: early checkpoint") { 2 } else { u64::MAX };
            if self.quorum.checkpoint_is_due(limits.entries_max.min(early), limits.bytes_max) {
                let (token, writes) = self.quorum.checkpoint(self.service.encode(), limits.entries_kept);
                out.push(MonEffect::Persist { token, writes });
            }
            if !moved {
                return;
            }
        }
    }

    fn carry_out(&mut self, now: Instant, output: quorum::Output, out: Out<'_>) {
        if let Some(checkpoint) = output.install {
            let service = Service::decode(checkpoint.state);
            self.service = service.expect("it was decoded once before Raft saw it");
            self.leader = None;
            let text = format!("took over the state at log index {} from another monitor", checkpoint.index);
            self.log(out, LogLevel::Info, text);
            self.publish(out);
        }
        if let Some((token, writes)) = output.persist {
            out.push(MonEffect::Persist { token, writes });
        }
        for message in output.messages {
            self.send_raft(now, message, out);
        }
        let any = !output.committed.is_empty();
        for entry in output.committed {
            self.apply(now, &entry, out);
        }
        if any {
            self.publish(out);
        }
        for (round, index) in output.reads {
            self.read_proven(round, index);
        }
    }

    fn apply(&mut self, now: Instant, entry: &Entry, out: Out<'_>) {
        let change = quorum::decode_change(entry);
        let command = if change.is_some() { &entry.context } else { &entry.data };
        // Raft's own entry at the start of a term is empty.
        let batch = if command.is_empty() { None } else { self.service.apply(command) };
        if change.is_some() && batch.is_some() && !self.quorum.apply_change(entry) {
            self.log(
                out,
                LogLevel::Error,
                "a committed change of the monitors does not fit the group: ignored",
            );
        }
        self.quorum.applied_to(entry.index, entry.term, entry.data.len() + entry.context.len());
        if let Some(leader) = &mut self.leader {
            let answers = leader.applied(now, entry.index, batch.as_ref().map(|batch| batch.nonce));
            if batch.is_some_and(|batch| batch.osdmap.is_some()) {
                leader.memory.follow(now, &self.service);
            }
            for (origin, reply) in answers {
                self.answer(origin, reply, out);
            }
        }
    }

    fn publish(&mut self, out: Out<'_>) {
        self.sessions.push_all(&self.service, &mut |session, packet| {
            out.push(MonEffect::Send { to: Address::Session(session), packet });
        });
        for session in self.sessions.removed(&self.service) {
            self.sessions.closed(session);
            out.push(MonEffect::CloseSession(session));
        }
    }

    fn send_raft(&mut self, now: Instant, message: RaftMessage, out: Out<'_>) {
        let Some(name) = self.service.monmap.name_of(message.to).map(String::from) else { return };
        let Some(to) = self.mon_address(&name) else { return };
        if quorum::is_checkpoint(&message) {
            let checkpoint = self.quorum.newest_checkpoint();
            for piece in checkpoint::pieces(checkpoint.index, checkpoint.term, &checkpoint.state) {
                out.push(MonEffect::Send { to: to.clone(), packet: self.packet(piece) });
            }
            self.checkpoints.sent(message.to, now);
        }
        let raft = MonRaft { from: message.from, message: message.encode_to_vec().into() };
        out.push(MonEffect::Send { to, packet: self.packet(raft) });
    }

    fn follow_leadership(&mut self, now: Instant, out: Out<'_>) {
        let leads = self.quorum.leads_with_committed_term();
        if leads && self.leader.is_none() {
            let mut leader = Leader::new(now, self.quorum.term(), self.quorum.id());
            leader.memory.follow(now, &self.service);
            leader.log(
                now,
                self.wall_ms(now),
                &format!("mon.{} leads in term {}", self.config.name, self.quorum.term()),
            );
            self.leader = Some(leader);
            self.log(out, LogLevel::Info, format!("leading in term {}", self.quorum.term()));
        } else if !self.quorum.is_leader()
            && let Some(leader) = self.leader.take()
        {
            // What waited here is handed to whoever leads next.
            for origin in leader.origins() {
                if let Origin::Local(id) = origin {
                    self.forward.not_handed(id);
                }
            }
            self.log(out, LogLevel::Info, "no longer leading");
        }
    }

    /// Proposes the next batch if one is due. True if something was given to Raft.
    fn propose(&mut self, now: Instant, out: Out<'_>) -> bool {
        if let Some(leader) = self.leader.as_mut().filter(|leader| leader.is_unsettled()) {
            let proposed = self.quorum.propose(Vec::new());
            if proposed {
                leader.settles_at(self.quorum.last_index());
            }
            return proposed;
        }
        if !self.leader.as_ref().is_some_and(|leader| leader.batch_is_due(now)) {
            return false;
        }
        let quorum = self.quorum_view(now);
        let wall_ms = self.wall_ms(now);
        let Some(leader) = &mut self.leader else { return false };
        let frame = Frame { now, wall_ms, quorum, version: &self.config.version, me: &self.me };
        let Some(proposal) = leader.next_batch(&self.service, &frame) else { return false };
        let bytes = proposal.batch.encode_to_vec();
        let done = match proposal.change {
            Some((kind, id)) => self.quorum.propose_change(kind, id, bytes),
            None => self.quorum.propose(bytes),
        };
        if done {
            leader.proposed(self.quorum.last_index());
        } else {
            leader.not_proposed(now, TICK);
            self.log_sometimes(now, out, "propose", "Raft takes no change now: trying again".into());
        }
        done
    }

    fn answer(&mut self, origin: Origin, reply: CommandReply, out: Out<'_>) {
        match origin {
            Origin::Local(id) => {
                if let Some(command) = self.forward.remove(id) {
                    let packet = self.packet(reply).request(command.request);
                    out.push(MonEffect::Send { to: Address::Session(command.session), packet });
                }
            }
            Origin::Mon { name, id } => self.answer_mon(&name, id, reply, out),
        }
    }

    /// Writes of a checkpoint and the like that came with a persisted token.
    fn persisted(&mut self, token: u64, out: Out<'_>) {
        if let Some((token, writes)) = self.quorum.persisted(token) {
            out.push(MonEffect::Persist { token, writes });
        }
    }
}

impl Machine for Mon {
    type Event = MonEvent;
    type Effect = MonEffect;

    fn step(&mut self, now: Instant, event: MonEvent, out: &mut Outbox<MonEffect>) {
        match event {
            MonEvent::Tick { wall_ms } => {
                self.wall_offset_ms = wall_ms.saturating_sub(now.as_millis());
                if self.next_tick <= now {
                    self.tick(now, out);
                }
            }
            MonEvent::Received { from, packet } => self.receive(now, from, packet, out),
            MonEvent::SessionClosed(session) => {
                self.sessions.closed(session);
                self.forward.session_closed(session);
            }
            MonEvent::Persisted { token } => self.persisted(token, out),
            MonEvent::Signed { token, result } => self.signed(now, token, result, out),
        }
        self.settle(now, out);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let batch = self.leader.as_ref().and_then(Leader::deadline);
        Some(batch.map_or(self.next_tick, |at| at.min(self.next_tick)))
    }

    fn check(&self) {
        self.quorum.check();
        self.service.check();
        self.forward.check();
        if let Some(leader) = &self.leader {
            leader.check();
        }
        let members = self.quorum.members();
        let known = |id: &u64| self.service.monmap.name_of(*id).is_some();
        assert!(members.voters.iter().chain(&members.learners).all(known), "every member is in the monmap");
    }
}

/// The first state of a new cluster, the same for all of its first monitors.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    pub fsid: String,
    /// Name to `ip:port`.
    pub mons: BTreeMap<String, String>,
    /// Entities and their caps by service: `client.admin`, the monitors.
    pub entities: BTreeMap<EntityName, BTreeMap<String, String>>,
    pub ca_key_pem: String,
    pub ca_cert_pem: String,
    /// Settings by section to begin with.
    pub settings: BTreeMap<String, BTreeMap<String, String>>,
    /// CRUSH type over which the default rule spreads copies: `host`, or `osd` for a cluster on one machine.
    pub failure_domain: String,
    pub created_ms: u64,
}

impl Mon {
    /// The records of one of a new cluster's first monitors.
    pub fn bootstrap_writes(name: &str, bootstrap: &Bootstrap) -> Result<Vec<Write>, OpenError> {
        crate::bootstrap::first(name, bootstrap)
    }

    /// The records of a monitor that joins a cluster: `mon add` first, then this with the monmap it gave.
    pub fn join_writes(name: &str, monmap: &MonMap) -> Result<Vec<Write>, OpenError> {
        crate::bootstrap::joining(name, monmap)
    }

    /// When this machine was opened, for uptime.
    pub fn opened(&self) -> Instant {
        self.opened
    }
}
