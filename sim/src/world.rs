//! The world: virtual time, the network, the nodes, and the one loop that moves them.
//!
//! ```text
//!  network events ─┐
//!  node deadlines ─┼─> earliest first ─> node.handle / node.wake ─> effects ─> network, disks, trace, checkers
//!  faults ─────────┘
//! ```

use crate::checkers::chatter::Chatter;
use crate::checkers::map_hash::MapHash;
use crate::checkers::one_writer::OneWriter;
use crate::network::{Arrival, Network, NetworkEvent, NodeId, mon_name};
use crate::options::Options;
use crate::trace::Trace;
use nacre_types::{EVersion, EntityName, Epoch, Instant, OsdId, PgId, RequestId, Rng};
use nacre_wire::op::{ObjectOp, ObjectOpKind};
use nacre_wire::packet::Message;
use nacre_wire::{Address, ErrorCode, Packet, Peer, SessionId};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

/// Wall time at the start of every run, in milliseconds: some day in 2026.
const WALL_START_MS: u64 = 1_780_000_000_000;

/// What happens to a node.
#[expect(clippy::large_enum_variant, reason = "most are packets, and they do not stay")]
pub enum Input {
    Packet {
        from: Peer,
        packet: Packet,
    },
    SessionClosed(SessionId),
    /// Nobody listens where that OSD was.
    Refused(OsdId, String),
}

/// What a node wants of the world.
#[expect(clippy::large_enum_variant, reason = "most are packets, and they do not stay")]
pub enum Output {
    Send {
        to: Address,
        packet: Packet,
    },
    CloseSession(SessionId),
    /// Worth a line in the trace.
    Log(String),
    /// The process ended by itself.
    Ended {
        reason: String,
        failed: bool,
    },
}

/// One process: a machine with its disks.
pub trait Node {
    fn handle(&mut self, now: Instant, wall_ms: u64, input: Input, out: &mut Vec<Output>);
    /// Called when `wake_at` has come.
    fn wake(&mut self, now: Instant, wall_ms: u64, out: &mut Vec<Output>);
    fn wake_at(&self) -> Option<Instant>;
    /// Newest osdmap, for the map checker.
    fn map(&self) -> Option<(Epoch, u64)> {
        None
    }
    fn check(&self) {}
    /// Whether it would serve reads of that PG at that instant of its clock.
    fn serves_reads(&self, _pg: PgId, _now: Instant) -> bool {
        false
    }
}

pub struct Slot<N> {
    pub node: N,
    pub run: u64,
    /// Not scheduled before then; what arrives waits.
    pub paused_until: Instant,
    inbox: Vec<Input>,
    /// Which monitor it talks to.
    mon: usize,
    mon_session: Option<SessionId>,
    /// Its entry among the timers.
    timer: Option<Instant>,
    /// The newest osdmap it was seen with.
    epoch: Epoch,
    clock: NodeClock,
}

/// A node's clocks: the monotonic one drifts from the start of its process on, the wall clock is off by something.
#[derive(Clone, Copy, Debug, Default)]
struct NodeClock {
    started: Instant,
    drift_ppm: i64,
}

const MILLION: i128 = 1_000_000;

impl NodeClock {
    fn local(&self, at: Instant) -> Instant {
        if self.drift_ppm == 0 || at == Instant::MAX {
            return at;
        }
        let since = i128::from(at.0) - i128::from(self.started.0);
        Instant((i128::from(at.0) + since * i128::from(self.drift_ppm) / MILLION) as u64)
    }

    /// The first instant at which the local clock shows at least that.
    fn world(&self, local: Instant) -> Instant {
        if self.drift_ppm == 0 || local == Instant::MAX || local <= self.started {
            return local;
        }
        let since = i128::from(local.0) - i128::from(self.started.0);
        let rate = MILLION + i128::from(self.drift_ppm);
        let mut at = Instant((i128::from(self.started.0) + (since * MILLION).div_euclid(rate)) as u64);
        while self.local(at) < local {
            at.0 += 1;
        }
        at
    }
}

/// Something on its way, in the order it is due.
struct Due {
    at: Instant,
    number: u64,
    event: NetworkEvent,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Due) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub struct World<N> {
    pub now: Instant,
    pub options: Options,
    pub rng: Rng,
    pub network: Network,
    pub nodes: BTreeMap<NodeId, Slot<N>>,
    pub trace: Trace,
    pub map_hash: MapHash,
    pub one_writer: OneWriter,
    pub chatter: Chatter,
    /// Requests that change something.
    writes: BTreeSet<RequestId>,
    /// What a checker found: the run is over.
    pub failure: Option<String>,
    runs: u64,
    queue: BinaryHeap<Reverse<Due>>,
    timers: BTreeSet<(Instant, NodeId)>,
    next_event: u64,
    /// Nodes that ended by themselves, for whoever restarts them.
    pub ended: Vec<(NodeId, String, bool)>,
    outputs: Vec<Output>,
    /// How often each fault was injected and each place of interest reached.
    pub marks: BTreeMap<&'static str, u64>,
    /// Up to how far monotonic clocks drift, and what draws it; clients' do not, they measure.
    pub drift_ppm_max: u64,
    clock_rng: Rng,
    /// By how much wall clocks are off, in milliseconds.
    skew_ms: BTreeMap<NodeId, i64>,
}

impl<N: Node> World<N> {
    pub fn new(options: Options, trace: Trace) -> World<N> {
        let mut rng = Rng::new(options.seed);
        let network = Network::new(rng.fork(), options.conditions);
        let clock_rng = Rng::new(options.seed ^ 0x636c_6f63_6b73);
        World {
            now: Instant::from_millis(1),
            options,
            rng,
            network,
            nodes: BTreeMap::new(),
            trace,
            map_hash: MapHash::default(),
            one_writer: OneWriter::default(),
            chatter: Chatter::default(),
            writes: BTreeSet::new(),
            failure: None,
            runs: 0,
            queue: BinaryHeap::new(),
            timers: BTreeSet::new(),
            next_event: 0,
            ended: Vec::new(),
            outputs: Vec::new(),
            marks: BTreeMap::new(),
            drift_ppm_max: 0,
            clock_rng,
            skew_ms: BTreeMap::new(),
        }
    }

    /// What a clock shows that is not off.
    pub fn wall_ms(&self) -> u64 {
        WALL_START_MS + self.now.as_millis()
    }

    fn wall_ms_at(&self, id: NodeId) -> u64 {
        self.wall_ms().saturating_add_signed(self.skew_ms.get(&id).copied().unwrap_or(0))
    }

    /// A node's wall clock jumps, to be off by that much.
    pub fn skew(&mut self, id: NodeId, skew_ms: i64) {
        self.skew_ms.insert(id, skew_ms);
        self.trace.note(self.now, format_args!("the wall clock of {id} is off by {skew_ms} ms"));
    }

    /// All wall clocks are right again; those that were ahead go back.
    pub fn unskew(&mut self) {
        self.skew_ms.clear();
    }

    /// Counts something that happened.
    pub fn mark(&mut self, what: &'static str) {
        self.mark_times(what, 1);
    }

    pub fn mark_times(&mut self, what: &'static str, times: u64) {
        if times > 0 {
            *self.marks.entry(what).or_default() += times;
        }
    }

    /// The number the next started node's run will have: part of its address.
    pub fn next_run(&self) -> u64 {
        self.runs + 1
    }

    pub fn start(&mut self, id: NodeId, node: N) {
        self.runs += 1;
        let run = self.runs;
        self.network.node_started(id, run);
        let mon = self.rng.below(self.options.mons as u64) as usize;
        let slot = Slot {
            node,
            run,
            paused_until: Instant::ZERO,
            inbox: Vec::new(),
            mon,
            mon_session: None,
            timer: None,
            epoch: Epoch::ZERO,
            clock: self.draw_clock(id),
        };
        self.trace.note(self.now, format_args!("{id} starts, run {run}"));
        self.nodes.insert(id, slot);
        self.retime(id);
    }

    fn draw_clock(&mut self, id: NodeId) -> NodeClock {
        let most = self.drift_ppm_max as i64;
        let drift_ppm = match id {
            NodeId::Client(_) => 0,
            _ if most == 0 => 0,
            _ => self.clock_rng.range(0, 2 * self.drift_ppm_max + 1) as i64 - most,
        };
        NodeClock { started: self.now, drift_ppm }
    }

    /// Takes a node out of the world: its process is dead.
    pub fn kill(&mut self, id: NodeId, host_answers: bool) -> Option<N> {
        let slot = self.nodes.remove(&id)?;
        if let Some(at) = slot.timer {
            self.timers.remove(&(at, id));
        }
        self.network.node_stopped(self.now, id, host_answers);
        self.trace.note(self.now, format_args!("{id} dies"));
        self.take_network_events();
        Some(slot.node)
    }

    /// What a node's monotonic clock shows.
    pub fn local(&self, id: NodeId) -> Instant {
        self.nodes.get(&id).map_or(self.now, |slot| slot.clock.local(self.now))
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.nodes.contains_key(&id)
    }

    pub fn pause(&mut self, id: NodeId, duration: Duration) {
        let until = self.now + duration;
        if let Some(slot) = self.nodes.get_mut(&id) {
            slot.paused_until = slot.paused_until.max(until);
            self.trace.note(self.now, format_args!("{id} pauses for {duration:?}"));
        }
        self.retime(id);
    }

    pub fn fail(&mut self, why: String) {
        if self.failure.is_none() {
            self.trace.note(self.now, format_args!("FAILURE {why}"));
            self.failure = Some(why);
        }
    }

    pub fn heal_network(&mut self) {
        self.network.heal(self.now);
        self.take_network_events();
    }

    pub fn take_network_events(&mut self) {
        for (at, event) in self.network.take_events() {
            self.queue.push(Reverse(Due { at, number: self.next_event, event }));
            self.next_event += 1;
        }
    }

    /// When something happens next, if anything does.
    fn next_at(&self) -> Option<(Instant, Option<NodeId>)> {
        let network = self.queue.peek().map(|Reverse(due)| (due.at, None));
        let node = self.timers.first().map(|&(at, id)| (at, Some(id)));
        [network, node].into_iter().flatten().min()
    }

    /// Sets a node's timer anew, after anything that may have changed it.
    fn retime(&mut self, id: NodeId) {
        let Some(slot) = self.nodes.get_mut(&id) else { return };
        let inbox = (!slot.inbox.is_empty()).then_some(slot.paused_until);
        let wake = slot.node.wake_at().map(|at| slot.clock.world(at));
        let at = [wake, inbox].into_iter().flatten().min();
        let at = at.map(|at| at.max(slot.paused_until));
        if at == slot.timer {
            return;
        }
        if let Some(old) = std::mem::replace(&mut slot.timer, at) {
            self.timers.remove(&(old, id));
        }
        if let Some(at) = at {
            self.timers.insert((at, id));
        }
    }

    /// Moves the world until `until`, or until a checker fails.
    pub fn run_until(&mut self, until: Instant) {
        while self.failure.is_none() {
            match self.next_at() {
                Some((at, node)) if at <= until => {
                    self.now = self.now.max(at);
                    match node {
                        Some(id) => self.wake_node(id),
                        None => self.network_event(),
                    }
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
    }

    fn wake_node(&mut self, id: NodeId) {
        let wall_ms = self.wall_ms_at(id);
        let Some(slot) = self.nodes.get_mut(&id) else { return };
        let now = slot.clock.local(self.now);
        let mut outputs = std::mem::take(&mut self.outputs);
        if slot.inbox.is_empty() {
            slot.node.wake(now, wall_ms, &mut outputs);
        } else {
            for input in std::mem::take(&mut slot.inbox) {
                slot.node.handle(now, wall_ms, input, &mut outputs);
            }
        }
        self.carry_out(id, outputs);
    }

    fn network_event(&mut self) {
        let Some(Reverse(due)) = self.queue.pop() else { return };
        match due.event {
            NetworkEvent::Arrive { session, to, packet } => {
                let arrival = self.network.arrive(session, to, *packet);
                self.arrive(session, arrival);
            }
            NetworkEvent::Release { session, to } => {
                for arrival in self.network.release(session, to) {
                    self.arrive(session, arrival);
                }
            }
            NetworkEvent::Closed { node, run, session } => {
                let Some(slot) = self.nodes.get_mut(&node).filter(|slot| slot.run == run) else { return };
                if slot.mon_session == Some(session) {
                    slot.mon_session = None;
                    slot.mon = (slot.mon + 1) % self.options.mons;
                }
                self.input(node, Input::SessionClosed(session));
            }
            NetworkEvent::Refused { node, run, target, target_run } => {
                let Some(slot) = self.nodes.get_mut(&node).filter(|slot| slot.run == run) else { return };
                match target {
                    NodeId::Mon(at) if at == slot.mon => slot.mon = (slot.mon + 1) % self.options.mons,
                    NodeId::Mon(_) => {}
                    NodeId::Osd(at) => {
                        let address = osd_address(at, target_run);
                        self.input(node, Input::Refused(OsdId(at as u32), address));
                    }
                    NodeId::Client(_) => {}
                }
            }
            NetworkEvent::Silent { node, run, target } => {
                if let Some(slot) = self.nodes.get_mut(&node).filter(|slot| slot.run == run)
                    && target == NodeId::Mon(slot.mon)
                {
                    slot.mon = (slot.mon + 1) % self.options.mons;
                }
            }
            NetworkEvent::IdleCheck { session } => self.network.idle_check(self.now, session),
        }
        self.take_network_events();
    }

    fn arrive(&mut self, session: SessionId, arrival: Arrival) {
        let Arrival::Deliver { node, from, mut packet, .. } = arrival else { return };
        if self.rng.chance(self.options.encode_percent, 100) {
            packet = recode(packet);
        }
        self.trace.packet(self.now, from, node, &packet);
        let from = Peer { session, entity: entity(from) };
        self.input(node, Input::Packet { from, packet });
    }

    fn input(&mut self, id: NodeId, input: Input) {
        let wall_ms = self.wall_ms_at(id);
        let Some(slot) = self.nodes.get_mut(&id) else { return };
        let now = slot.clock.local(self.now);
        if slot.paused_until > self.now || !slot.inbox.is_empty() {
            slot.inbox.push(input);
            self.retime(id);
            return;
        }
        let mut outputs = std::mem::take(&mut self.outputs);
        slot.node.handle(now, wall_ms, input, &mut outputs);
        self.carry_out(id, outputs);
    }

    /// Lets somebody act on a node from outside and carries out what comes of it.
    pub fn with_node<T>(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut N, Instant, u64, &mut Vec<Output>) -> T,
    ) -> Option<T> {
        let wall_ms = self.wall_ms_at(id);
        let slot = self.nodes.get_mut(&id)?;
        let now = slot.clock.local(self.now);
        let mut outputs = std::mem::take(&mut self.outputs);
        let result = act(&mut slot.node, now, wall_ms, &mut outputs);
        self.carry_out(id, outputs);
        Some(result)
    }

    fn carry_out(&mut self, id: NodeId, mut outputs: Vec<Output>) {
        if let Some(slot) = self.nodes.get_mut(&id) {
            slot.node.check();
            if let Some((epoch, hash)) = slot.node.map()
                && epoch != slot.epoch
            {
                slot.epoch = epoch;
                if let Err(why) = self.map_hash.observe(&id.to_string(), epoch, hash) {
                    self.fail(why);
                }
            }
        }
        for output in outputs.drain(..) {
            match output {
                Output::Send { to, packet } => self.send(id, to, packet),
                Output::CloseSession(session) => self.network.close(self.now, session),
                Output::Log(text) => self.trace.note(self.now, format_args!("{id}: {text}")),
                Output::Ended { reason, failed } => {
                    self.trace.note(self.now, format_args!("{id} ended: {reason}"));
                    self.ended.push((id, reason, failed));
                }
            }
        }
        self.outputs = outputs;
        self.take_network_events();
        self.retime(id);
    }

    fn send(&mut self, from: NodeId, to: Address, packet: Packet) {
        self.watch_writes(from, &packet);
        let now = self.now;
        if let Err(why) = self.chatter.sends(now, from, packet.message.name()) {
            return self.fail(why);
        }
        match to {
            Address::Session(session) => self.network.send_on(now, from, session, packet),
            Address::Osd { id, address } => {
                let run = address_run(&address);
                self.network.send(now, from, NodeId::Osd(id.0 as usize), run, packet);
            }
            Address::Mon { name, .. } => {
                let at = usize::from(name.as_bytes().first().map_or(0, |letter| letter.wrapping_sub(b'a')));
                let run = self.network.run_of(NodeId::Mon(at)).unwrap_or(0);
                self.network.send(now, from, NodeId::Mon(at), run, packet);
            }
            Address::AnyMon => {
                let Some(slot) = self.nodes.get_mut(&from) else { return };
                let target = NodeId::Mon(slot.mon);
                let run = self.network.run_of(target).unwrap_or(0);
                self.network.send(now, from, target, run, packet);
                let run = slot.run;
                slot.mon_session = self.network.session_to(from, run, target);
            }
        }
    }

    /// At most one OSD may serve reads of a PG at any instant.
    fn watch_leases(&mut self, pg: PgId) {
        let now = self.now;
        let serves = |slot: &Slot<N>| slot.node.serves_reads(pg, slot.clock.local(now));
        let serving: Vec<String> =
            self.nodes.iter().filter(|(_, slot)| serves(slot)).map(|(id, _)| id.to_string()).collect();
        if serving.len() > 1 {
            self.fail(format!(
                "lease safety: {} serve reads of {pg} at the same instant",
                serving.join(" and ")
            ));
        }
    }

    /// Every acknowledged write passes the checker of single writers.
    fn watch_writes(&mut self, from: NodeId, packet: &Packet) {
        match (from, &packet.message, packet.pg) {
            (NodeId::Client(_), Message::OsdOp(op), _) => {
                // Those that certainly change something: others may find nothing to do and answer with the old version.
                let mutates = |op: &ObjectOp| {
                    use ObjectOpKind::{Append, OmapSet, Remove, SetXattr, Write, WriteFull};
                    matches!(
                        op.kind,
                        Some(Write(_) | WriteFull(_) | Append(_) | SetXattr(_) | OmapSet(_) | Remove(_))
                    )
                };
                if op.ops.iter().any(mutates) {
                    self.writes.insert(packet.request);
                }
            }
            (NodeId::Osd(at), Message::OsdOpReply(reply), Some(pg)) => {
                let Some(version) = &reply.version else { return };
                // A removed object has no version.
                let wrote = version.seq > 0 && self.writes.contains(&packet.request);
                if reply.code == ErrorCode::Ok as i32 && !self.writes.contains(&packet.request) {
                    self.watch_leases(pg);
                }
                if reply.code != ErrorCode::Ok as i32 || !wrote {
                    return;
                }
                let version = EVersion { epoch: Epoch(version.epoch), seq: version.seq };
                let osd = OsdId(at as u32);
                if let Err(why) = self.one_writer.acknowledged(pg, version, packet.request, osd) {
                    self.fail(why);
                }
            }
            _ => {}
        }
    }
}

/// What a node's certificate would say.
pub fn entity(node: NodeId) -> EntityName {
    match node {
        NodeId::Mon(at) => EntityName::Mon(mon_name(at)),
        NodeId::Osd(at) => EntityName::Osd(OsdId(at as u32)),
        NodeId::Client(at) => EntityName::Client(format!("sim{at}")),
    }
}

/// Addresses of simulated OSDs name their run: `osd.3#17`.
pub fn osd_address(osd: usize, run: u64) -> String {
    format!("osd.{osd}#{run}")
}

fn address_run(address: &str) -> u64 {
    address.rsplit_once('#').and_then(|(_, run)| run.parse().ok()).unwrap_or(0)
}

/// Through bytes and back, as on a real wire.
fn recode(packet: Packet) -> Packet {
    let bytes = packet.to_frame().encode();
    let mut decoder = nacre_wire::FrameDecoder::new();
    decoder.feed(&bytes);
    let frame = decoder.next_frame().expect("our own frame").expect("all of it");
    let again = Packet::from_frame(frame).expect("our own packet");
    assert_eq!(again, packet, "a packet changes on the wire");
    again
}
