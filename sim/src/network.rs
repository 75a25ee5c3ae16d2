//! The simulated network: sessions between nodes with latency, jitter, loss, partitions, slow links and resets.
//!
//! Fault model, that of the messenger over QUIC: within one session and lane packets arrive in order, once, or not at
//! all because the session ends; sessions and lanes overtake each other. Loss shows as delay (retransmission). A link
//! that stays cut for [`IDLE_TIMEOUT`] ends its sessions at both ends; a crashed peer is noticed the same way, or at
//! once where its host says that nobody listens.

use nacre_types::{Instant, Rng};
use nacre_wire::{Packet, SessionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// A simulated process's place; stays the same over restarts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NodeId {
    Mon(usize),
    Osd(usize),
    Client(usize),
}

impl NodeId {
    /// Unlike any other node's.
    pub fn number(self) -> u64 {
        match self {
            NodeId::Mon(at) => at as u64,
            NodeId::Osd(at) => 0x10_000 | at as u64,
            NodeId::Client(at) => 0x20_000 | at as u64,
        }
    }
}

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NodeId::Mon(at) => write!(f, "mon.{}", mon_name(*at)),
            NodeId::Osd(at) => write!(f, "osd.{at}"),
            NodeId::Client(at) => write!(f, "client.{at}"),
        }
    }
}

/// Monitors are called a, b, c, ...
pub fn mon_name(at: usize) -> String {
    char::from(b'a' + at as u8).to_string()
}

/// As the messenger's: silence for so long ends a session.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a handshake is waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A retransmission after a lost packet.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// What the network is like in a run.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Conditions {
    pub latency_min: Duration,
    /// Mean of the exponential part on top.
    pub latency_mean: Duration,
    /// Packets of a thousand that are lost and sent again.
    pub loss_permille: u64,
    /// Packets of a hundred thousand at which their session is reset.
    pub reset_per_100k: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct End {
    node: NodeId,
    /// Which run of the node: a restarted one has no part in old sessions.
    run: u64,
}

#[derive(Debug)]
struct Session {
    ends: [End; 2],
    /// By direction and lane: nothing may arrive before this.
    earliest: [[Instant; 4]; 2],
    /// By direction: packets held while the link is cut.
    held: [VecDeque<Packet>; 2],
    cut_since: Option<Instant>,
}

/// Something for the world's queue.
#[derive(Debug)]
pub enum NetworkEvent {
    /// A packet arrives at the `to` end (0 or 1) of a session.
    Arrive { session: SessionId, to: usize, packet: Box<Packet> },
    /// One end notices that the session is over.
    Closed { node: NodeId, run: u64, session: SessionId },
    /// Nobody listens at the address an OSD was thought to be at.
    Refused { node: NodeId, run: u64, target: NodeId, target_run: u64 },
    /// Nothing at all comes back from a monitor's host.
    Silent { node: NodeId, run: u64, target: NodeId },
    /// Ends the session if its link is still cut.
    IdleCheck { session: SessionId },
    /// What was held while the link was cut arrives, in order.
    Release { session: SessionId, to: usize },
}

/// What to do at an arrival.
#[expect(clippy::large_enum_variant, reason = "most are packets, and they do not stay")]
pub enum Arrival {
    Deliver { node: NodeId, run: u64, from: NodeId, packet: Packet },
    Dropped,
}

pub struct Network {
    rng: Rng,
    conditions: Conditions,
    sessions: BTreeMap<SessionId, Session>,
    next_session: u64,
    /// The session a node uses towards a target (node, run).
    dialed: BTreeMap<(NodeId, u64, NodeId, u64), SessionId>,
    /// Directed links over which nothing passes.
    cut: BTreeSet<(NodeId, NodeId)>,
    slow: BTreeMap<(NodeId, NodeId), Duration>,
    /// Current run of each node that is up.
    runs: BTreeMap<NodeId, u64>,
    /// Whose host is down too.
    silent: BTreeSet<NodeId>,
    queue: Vec<(Instant, NetworkEvent)>,
    pub packets: u64,
    trouble: Trouble,
    /// For what `trouble` does, so that a run without it stays as it was.
    trouble_rng: Rng,
    pub failed_connects: u64,
    pub half_open: u64,
}

/// What else may befall sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trouble {
    /// Connections of a hundred that do not come about.
    pub connect_fails_percent: u64,
    /// Packets of a hundred thousand at which their session ends: for the sender soon, for the other end late.
    pub half_open_per_100k: u64,
}

impl Network {
    pub fn new(rng: Rng, conditions: Conditions) -> Network {
        Network {
            rng,
            conditions,
            sessions: BTreeMap::new(),
            next_session: 1,
            dialed: BTreeMap::new(),
            cut: BTreeSet::new(),
            slow: BTreeMap::new(),
            runs: BTreeMap::new(),
            silent: BTreeSet::new(),
            queue: Vec::new(),
            packets: 0,
            trouble: Trouble::default(),
            trouble_rng: Rng::new(0),
            failed_connects: 0,
            half_open: 0,
        }
    }

    /// Events the last calls caused, for the world's queue.
    pub fn take_events(&mut self) -> Vec<(Instant, NetworkEvent)> {
        std::mem::take(&mut self.queue)
    }

    pub fn calm(&mut self, conditions: Conditions) {
        self.conditions = conditions;
        self.trouble = Trouble::default();
    }

    pub fn trouble(&mut self, trouble: Trouble, rng: Rng) {
        (self.trouble, self.trouble_rng) = (trouble, rng);
    }

    /// Ends a cut of one directed link; what was held passes, in order.
    pub fn uncut(&mut self, now: Instant, from: NodeId, to: NodeId) {
        if !self.cut.remove(&(from, to)) || self.cut.contains(&(to, from)) {
            return;
        }
        let between = |session: &Session| {
            let (a, b) = (session.ends[0].node, session.ends[1].node);
            (a, b) == (from, to) || (b, a) == (from, to)
        };
        let ids: Vec<SessionId> =
            self.sessions.iter().filter(|(_, session)| between(session)).map(|(&id, _)| id).collect();
        self.let_pass(now, ids);
    }

    pub fn node_started(&mut self, node: NodeId, run: u64) {
        self.runs.insert(node, run);
        self.silent.remove(&node);
    }

    /// The process is gone: its sessions are noticed by the other ends after a while, or at once if the host answers
    /// for it.
    pub fn node_stopped(&mut self, now: Instant, node: NodeId, host_answers: bool) {
        self.runs.remove(&node);
        if !host_answers {
            self.silent.insert(node);
        }
        let ended: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.ends.iter().any(|end| end.node == node))
            .map(|(&id, _)| id)
            .collect();
        for id in ended {
            let session = self.sessions.remove(&id).expect("just found");
            self.dialed.retain(|_, dialed| *dialed != id);
            let other = session.ends[usize::from(session.ends[0].node == node)];
            let after = if host_answers { self.latency() } else { IDLE_TIMEOUT };
            let event = NetworkEvent::Closed { node: other.node, run: other.run, session: id };
            self.queue.push((now + after, event));
        }
    }

    pub fn cut(&mut self, now: Instant, from: NodeId, to: NodeId) {
        self.cut.insert((from, to));
        for (&id, session) in &mut self.sessions {
            let (a, b) = (session.ends[0].node, session.ends[1].node);
            if ((a, b) == (from, to) || (b, a) == (from, to)) && session.cut_since.is_none() {
                session.cut_since = Some(now);
                self.queue.push((now + IDLE_TIMEOUT, NetworkEvent::IdleCheck { session: id }));
            }
        }
    }

    pub fn slow(&mut self, from: NodeId, to: NodeId, extra: Duration) {
        self.slow.insert((from, to), extra);
    }

    pub fn heal(&mut self, now: Instant) {
        self.cut.clear();
        self.slow.clear();
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        self.let_pass(now, ids);
    }

    fn let_pass(&mut self, now: Instant, ids: Vec<SessionId>) {
        for id in ids {
            let at = now + self.latency();
            let session = self.sessions.get_mut(&id).expect("a key of the map");
            session.cut_since = None;
            for to in 0..2 {
                if !session.held[to].is_empty() {
                    self.queue.push((at, NetworkEvent::Release { session: id, to }));
                }
            }
        }
    }

    pub fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cut.contains(&(from, to))
    }

    /// Sends over the session the sender has to that run of the target, dialing if there is none. `target_run` is the
    /// run the sender's address names.
    pub fn send(&mut self, now: Instant, from: NodeId, target: NodeId, target_run: u64, packet: Packet) {
        let Some(&run) = self.runs.get(&from) else { return };
        let key = (from, run, target, target_run);
        let known = self.dialed.get(&key).copied().filter(|id| self.sessions.contains_key(id));
        let id = match known {
            Some(id) => id,
            None => {
                if self.runs.get(&target) != Some(&target_run) {
                    let cut = self.is_cut(from, target) || self.is_cut(target, from);
                    if cut || self.silent.contains(&target) {
                        let event = NetworkEvent::Silent { node: from, run, target };
                        self.queue.push((now + CONNECT_TIMEOUT, event));
                    } else {
                        let at = now + self.latency() * 2;
                        self.queue.push((at, NetworkEvent::Refused { node: from, run, target, target_run }));
                    }
                    return;
                }
                if self.trouble_rng.chance(self.trouble.connect_fails_percent, 100) {
                    self.failed_connects += 1;
                    self.queue
                        .push((now + CONNECT_TIMEOUT, NetworkEvent::Silent { node: from, run, target }));
                    return;
                }
                let id = SessionId(self.next_session);
                self.next_session += 1;
                let ends = [End { node: from, run }, End { node: target, run: target_run }];
                let cut = self.is_cut(from, target) || self.is_cut(target, from);
                if cut {
                    self.queue.push((now + IDLE_TIMEOUT, NetworkEvent::IdleCheck { session: id }));
                }
                // A round trip for the handshake before the first byte.
                let first = now + self.latency() * 2;
                let session = Session {
                    ends,
                    earliest: [[first; 4]; 2],
                    held: Default::default(),
                    cut_since: cut.then_some(now),
                };
                self.sessions.insert(id, session);
                self.dialed.insert(key, id);
                id
            }
        };
        self.send_on(now, from, id, packet);
    }

    /// Sends back on a session; silently dropped if it is over.
    pub fn send_on(&mut self, now: Instant, from: NodeId, id: SessionId, packet: Packet) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(own) = session.ends.iter().position(|end| end.node == from) else { return };
        self.packets += 1;
        if self.rng.chance(self.conditions.reset_per_100k, 100_000) {
            self.close(now, id);
            return;
        }
        if self.trouble_rng.chance(self.trouble.half_open_per_100k, 100_000) {
            self.half_open += 1;
            self.close_half(now, id, own);
            return;
        }
        self.schedule(now, id, 1 - own, packet);
    }

    /// Ends a session: the end at `first` notices soon, the other one when nothing has come for long.
    fn close_half(&mut self, now: Instant, id: SessionId, first: usize) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.dialed.retain(|_, dialed| *dialed != id);
        for (at, end) in session.ends.into_iter().enumerate() {
            let late = IDLE_TIMEOUT.mul_f64(self.trouble_rng.below(1000) as f64 / 1000.0);
            let after = if at == first { Duration::from_millis(1) } else { late };
            let event = NetworkEvent::Closed { node: end.node, run: end.run, session: id };
            self.queue.push((now + after, event));
        }
    }

    /// Ends a session at both ends.
    pub fn close(&mut self, now: Instant, id: SessionId) {
        let Some(session) = self.sessions.remove(&id) else { return };
        self.dialed.retain(|_, dialed| *dialed != id);
        for end in session.ends {
            let at = now + self.latency();
            self.queue.push((at, NetworkEvent::Closed { node: end.node, run: end.run, session: id }));
        }
    }

    fn latency(&mut self) -> Duration {
        let c = self.conditions;
        // Exponential by inversion of a 16-bit uniform: -ln(u), good enough for queueing and free of floats' doubts.
        let u = (self.rng.below(65_535) + 1) as f64 / 65_536.0;
        let mut latency = c.latency_min + c.latency_mean.mul_f64(-u.ln());
        while self.rng.chance(c.loss_permille, 1000) {
            latency += RETRANSMIT;
        }
        latency
    }

    fn schedule(&mut self, now: Instant, id: SessionId, to: usize, packet: Packet) {
        let latency = self.latency();
        let session = self.sessions.get_mut(&id).expect("the caller has it");
        let (source, target) = (session.ends[1 - to].node, session.ends[to].node);
        let extra = self.slow.get(&(source, target)).copied().unwrap_or_default();
        let earliest = &mut session.earliest[to][packet.lane().index()];
        let at = (now + latency + extra).max(*earliest + Duration::from_nanos(1));
        *earliest = at;
        self.queue.push((at, NetworkEvent::Arrive { session: id, to, packet: Box::new(packet) }));
    }

    /// What becomes of a packet whose time has come.
    pub fn arrive(&mut self, id: SessionId, to: usize, packet: Packet) -> Arrival {
        let Some(session) = self.sessions.get_mut(&id) else { return Arrival::Dropped };
        let (source, target) = (session.ends[1 - to], session.ends[to]);
        // Behind held packets everything waits: a lane keeps its order.
        if self.cut.contains(&(source.node, target.node)) || !session.held[to].is_empty() {
            session.held[to].push_back(packet);
            return Arrival::Dropped;
        }
        if self.runs.get(&target.node) != Some(&target.run) {
            return Arrival::Dropped;
        }
        Arrival::Deliver { node: target.node, run: target.run, from: source.node, packet }
    }

    /// The packets held for one end, in order; none if the link was cut again.
    pub fn release(&mut self, id: SessionId, to: usize) -> Vec<Arrival> {
        let Some(session) = self.sessions.get_mut(&id) else { return Vec::new() };
        let link = (session.ends[1 - to].node, session.ends[to].node);
        if self.cut.contains(&link) {
            return Vec::new();
        }
        let held = std::mem::take(&mut session.held[to]);
        held.into_iter().map(|packet| self.arrive(id, to, packet)).collect()
    }

    pub fn idle_check(&mut self, now: Instant, id: SessionId) {
        let cut = self.sessions.get(&id).and_then(|session| session.cut_since);
        if cut.is_some_and(|since| now >= since + IDLE_TIMEOUT) {
            self.close(now, id);
        }
    }

    /// The session a node's run dialed to the target's current run, if it is open.
    pub fn session_to(&self, from: NodeId, run: u64, target: NodeId) -> Option<SessionId> {
        let target_run = self.runs.get(&target)?;
        self.dialed.get(&(from, run, target, *target_run)).copied()
    }

    /// The end a session's packets come from, for the receiver's [`nacre_wire::Peer`].
    pub fn run_of(&self, node: NodeId) -> Option<u64> {
        self.runs.get(&node).copied()
    }
}

#[cfg(test)]
mod tests;
