//! The client's machine: every call in flight, routed by the osdmap and sent until it is answered.
//!
//! What it promises: a request keeps its id however often it is sent, so it takes effect once; operations on one
//! object that overlap are not reordered; what is on the wire is bounded, the rest waits; and a call that misses its
//! deadline fails with a sentence that says what it was waiting for.

mod call;
mod linger;
mod maps;
mod measure;
mod order;
mod replies;
mod route;
mod unanswered;

pub(crate) use call::{Ask, Call, Owner};
pub(crate) use linger::{Linger, LingerShared};

use crate::slot::Reply;
use crate::{ClientConfig, ClientEffect, ClientEvent};
use call::State;
use maps::Following;
use measure::Measure;
use nacre_maps::{MonMap, OsdMap};
use nacre_types::buggify;
use nacre_types::{
    Epoch, Instant, Machine, Needs, ObjectId, OsdId, Outbox, PgId, PoolId, RequestId, Rng, mutant,
};
use nacre_wire::{Address, ErrorCode, OpError, Packet, SessionId};
use route::{Routed, route};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

/// How often calls are looked at for deadlines and silence.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// Silence after which a call is sent again, doubled with each attempt up to eightfold.
const RESEND_AFTER: Duration = Duration::from_secs(5);
/// First wait after a refusal, doubled with each up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// A call that waits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    pub request: RequestId,
    pub what: String,
    pub since: Instant,
    pub needs: Needs,
    /// The object it is on, if on one.
    pub object: Option<ObjectId>,
}

/// What a client knows of the monitors.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MonitorContact {
    /// How long ago one of them last said anything.
    pub heard: Option<Duration>,
    /// Why none can be reached, if that is so.
    pub unreachable: Option<String>,
    /// Certificates are not accepted, here or there.
    pub rejected: bool,
}

#[derive(Debug)]
pub struct Objecter {
    config: ClientConfig,
    rng: Rng,
    now: Instant,
    wall_offset_ms: u64,
    following: Following,
    calls: BTreeMap<u64, Box<Call>>,
    next_seq: u64,
    /// Submitted since the last step.
    fresh: VecDeque<u64>,
    /// Wait until less is on the wire, in order.
    queue: VecDeque<u64>,
    inflight_ops: usize,
    inflight_bytes: usize,
    /// Calls on each object that has any, in the order they were submitted: by the object's hash, so that two objects may
    /// share an entry.
    by_object: BTreeMap<(PoolId, u32), Vec<u64>>,
    /// Calls to each PG that has any, by the present map.
    by_pg: BTreeMap<PgId, BTreeSet<u64>>,
    sessions: BTreeMap<SessionId, OsdId>,
    mon_session: Option<SessionId>,
    lingers: BTreeMap<u64, Linger>,
    next_linger: u64,
    /// Earliest end of a backoff.
    next_retry: Option<Instant>,
    next_sweep: Instant,
    /// Calls that were forgotten between steps: others may have waited for their end.
    cancelled: Vec<Ask>,
    to_wake: Vec<Waker>,
    measure: Measure,
}

impl Objecter {
    pub fn new(config: ClientConfig) -> Objecter {
        let rng = Rng::new(config.seed);
        let measure = Measure::new(&config);
        Objecter {
            config,
            rng,
            now: Instant::ZERO,
            wall_offset_ms: 0,
            following: Following::default(),
            calls: BTreeMap::new(),
            next_seq: 1,
            fresh: VecDeque::new(),
            queue: VecDeque::new(),
            inflight_ops: 0,
            inflight_bytes: 0,
            by_object: BTreeMap::new(),
            by_pg: BTreeMap::new(),
            sessions: BTreeMap::new(),
            mon_session: None,
            lingers: BTreeMap::new(),
            next_linger: 1,
            next_retry: None,
            next_sweep: Instant::ZERO,
            cancelled: Vec::new(),
            to_wake: Vec::new(),
            measure,
        }
    }

    pub(crate) fn config(&self) -> &ClientConfig {
        &self.config
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        self.wall_offset_ms.saturating_add(self.now.as_millis())
    }

    pub(crate) fn osdmap(&self) -> Option<Rc<OsdMap>> {
        self.following.osdmap.clone()
    }

    /// Newest osdmap epoch that anybody has mentioned.
    pub(crate) fn newest_epoch(&self) -> Epoch {
        self.following.newest_seen.max(self.following.epoch())
    }

    pub(crate) fn monmap(&self) -> Option<&MonMap> {
        self.following.monmap.as_ref()
    }

    pub(crate) fn random(&mut self) -> u64 {
        self.rng.next_u64()
    }

    pub(crate) fn new_linger_id(&mut self) -> u64 {
        self.next_linger += 1;
        self.next_linger - 1
    }

    pub(crate) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.to_wake)
    }

    /// Object operations on the wire, and their bytes.
    pub(crate) fn inflight(&self) -> (usize, usize) {
        (self.inflight_ops, self.inflight_bytes)
    }

    /// Takes a call; the next step starts it.
    pub(crate) fn submit(&mut self, call: Call) -> u64 {
        let seq = self.next_seq;
        self.next_seq += 1;
        if let Ask::Object { object, .. } = &call.ask
            && call.footprint.is_some()
        {
            self.by_object.entry(place(object)).or_default().push(seq);
        }
        if let Some(pg) = self.pg_of(&call.ask) {
            self.by_pg.entry(pg).or_default().insert(seq);
        }
        self.calls.insert(seq, Box::new(call));
        self.fresh.push_back(seq);
        seq
    }

    /// The PG whose primary keeps track of a call's answer, if the map is here and has it.
    fn pg_of(&self, ask: &Ask) -> Option<PgId> {
        match ask {
            Ask::Object { object, .. } => self.following.osdmap.as_ref()?.object_pg(object),
            Ask::Pg { pg, .. } => Some(*pg),
            _ => None,
        }
    }

    /// Forgets a call that nobody waits for any more.
    pub(crate) fn cancel(&mut self, seq: u64) {
        if let Some(call) = self.forget(seq) {
            self.cancelled.push(call.ask);
        }
    }

    pub(crate) fn cancel_linger(&mut self, id: u64) {
        self.drop_linger(id);
    }

    /// What waits, oldest first.
    pub(crate) fn waiting(&self) -> Vec<Waiting> {
        let describe = |seq: u64, call: &Call| Waiting {
            request: RequestId { client: self.config.client_id, seq },
            what: what(&call.ask),
            since: call.started,
            needs: self.needs(call),
            object: match &call.ask {
                Ask::Object { object, .. } => Some(object.clone()),
                _ => None,
            },
        };
        self.calls.iter().map(|(&seq, call)| describe(seq, call)).collect()
    }

    pub(crate) fn monitor_contact(&self) -> MonitorContact {
        MonitorContact {
            heard: self.following.mon_heard.map(|heard| self.now.since(heard)),
            unreachable: self.following.unreachable.clone(),
            rejected: self.following.rejected && self.following.unreachable.is_some(),
        }
    }

    /// First step of a call: its clock starts, and it takes its place in the queue.
    fn start(&mut self, now: Instant, seq: u64, out: &mut Outbox<ClientEffect>) {
        let Some(call) = self.calls.get_mut(&seq) else { return };
        call.started = now;
        call.deadline = call.timeout.map(|timeout| now + timeout);
        if let Ask::Sleep = call.ask {
            // Sweeps are too coarse for a sleeper.
            self.next_retry = earliest(self.next_retry, call.deadline);
        }
        if call.is_counted() {
            if matches!(call.ask, Ask::Object { .. }) {
                call.measured = self.measure.pick(now);
            }
            self.queue.push_back(seq);
            self.admit(now, out);
        } else {
            self.dispatch(now, seq, out);
        }
    }

    fn admit(&mut self, now: Instant, out: &mut Outbox<ClientEffect>) {
        while let Some(&seq) = self.queue.front() {
            let Some(call) = self.calls.get_mut(&seq) else {
                self.queue.pop_front();
                continue;
            };
            let fits = self.inflight_ops < self.config.inflight_ops_max
                && self.inflight_bytes + call.bytes <= self.config.inflight_bytes_max;
            if !fits && self.inflight_ops > 0 {
                return;
            }
            self.queue.pop_front();
            self.inflight_ops += 1;
            self.inflight_bytes += call.bytes;
            call.state = State::Blocked;
            self.dispatch(now, seq, out);
        }
    }

    /// Whether an earlier call on the same object must end first.
    fn is_blocked(&self, seq: u64, call: &Call) -> bool {
        let (Ask::Object { object, .. }, Some(footprint)) = (&call.ask, &call.footprint) else {
            return false;
        };
        let near = self.by_object.get(&place(object));
        let earlier = near.into_iter().flatten().take_while(|&&other| other < seq);
        earlier.filter_map(|other| self.calls.get(other)).any(|other| {
            other.footprint.is_some_and(|other| other.conflicts(footprint))
                && matches!(&other.ask, Ask::Object { object: of, .. } if of == object)
        })
    }

    /// Sends a call if it can be sent now, or notes why not.
    fn dispatch(&mut self, now: Instant, seq: u64, out: &mut Outbox<ClientEffect>) {
        let Some(call) = self.calls.get(&seq) else { return };
        match &call.ask {
            Ask::Sleep => return,
            Ask::Map(epoch) => {
                if self.following.osdmap.is_some() && self.following.epoch() >= *epoch {
                    self.finish(now, seq, Ok(Reply::Done), out);
                } else {
                    let epoch = *epoch;
                    let state = State::Unroutable(Needs::Map(epoch));
                    self.calls.get_mut(&seq).expect("just seen").state = state;
                    self.heard_of(now, epoch, None, out);
                }
                return;
            }
            Ask::Monitors(command) => {
                let packet = Packet::new(self.following.epoch(), command.clone());
                self.send(now, seq, Address::AnyMon, packet, None, out);
                return;
            }
            Ask::OsdAt { osd, address, admin } => {
                let packet = Packet::new(self.following.epoch(), admin.clone());
                let to = Address::Osd { id: *osd, address: address.clone() };
                self.send(now, seq, to, packet, None, out);
                return;
            }
            _ => {}
        }
        if self.is_blocked(seq, call) {
            self.calls.get_mut(&seq).expect("just seen").state = State::Blocked;
            return;
        }
        let state = match self.check_lease(now, call.lease) {
            Err(Err(error)) => return self.finish(now, seq, Err(error), out),
            Err(Ok(waits)) => State::Unroutable(waits),
            Ok(()) => match self.following.osdmap.clone() {
                None => State::Unroutable(Needs::Map(Epoch::ZERO)),
                Some(map) if map.is_blocklisted(self.config.client_id) => {
                    let text = "this client is blocklisted: somebody took over what it had open";
                    return self.finish(now, seq, Err(OpError::new(ErrorCode::Fenced, text)), out);
                }
                Some(map) => match route(&map, &call.ask) {
                    Routed::Never(error) => return self.finish(now, seq, Err(error), out),
                    Routed::Wait(reason) => State::Unroutable(reason),
                    Routed::To(route) => {
                        let packet = self.packet(seq, &route);
                        let address = map.address(route.osd).expect("a route leads to an OSD that is up");
                        let to = Address::Osd { id: route.osd, address: address.into() };
                        return self.send(now, seq, to, packet, Some(route), out);
                    }
                },
            },
        };
        self.calls.get_mut(&seq).expect("just seen").state = state;
    }

    fn packet(&mut self, seq: u64, route: &route::Route) -> Packet {
        let epoch = self.following.epoch();
        let open = route.pg.and_then(|pg| self.by_pg.get(&pg));
        let first = open.and_then(|open| open.first().copied());
        let answered_below = if mutant!(AnsweredTooFar) { seq } else { first.unwrap_or(seq).min(seq) };
        let unanswered = open.map(|open| unanswered::named(open, seq)).unwrap_or_default();
        let call = &self.calls[&seq];
        let packet = match &call.ask {
            Ask::Object { op, data, .. } => {
                let (measured, times) = (call.measured, self.measure.take(route.osd));
                let told = nacre_wire::op::OsdOp { answered_below, unanswered, ..(**op).clone() };
                let op = nacre_wire::op::OsdOp { measured, times, ..told };
                Packet::new(epoch, op).with(data.clone())
            }
            Ask::Pg { op, .. } => Packet::new(epoch, (**op).clone()),
            Ask::PgAdmin { admin, .. } | Ask::Osd { admin, .. } => Packet::new(epoch, admin.clone()),
            Ask::Monitors(_) | Ask::Map(_) | Ask::Sleep | Ask::OsdAt { .. } => {
                unreachable!("never routed to an OSD")
            }
        };
        Packet { pg: route.pg, ..packet }
    }

    fn send(
        &mut self,
        now: Instant,
        seq: u64,
        to: Address,
        packet: Packet,
        route: Option<route::Route>,
        out: &mut Outbox<ClientEffect>,
    ) {
        let call = self.calls.get_mut(&seq).expect("only known calls are sent");
        call.state = State::Sent(route);
        call.sent_at = now;
        call.attempts += 1;
        if call.attempts == 1 {
            call.first_sent_at = now;
        }
        let seq = seq | u64::from(mutant!(ResentAsNew) && call.attempts > 1) << 40;
        let packet = packet.request(RequestId { client: self.config.client_id, seq });
        out.push(ClientEffect::Send { to, packet });
    }

    /// Not now: again after a while, or when the map changes.
    fn back_off(&mut self, now: Instant, seq: u64) {
        let Some(call) = self.calls.get_mut(&seq) else { return };
        let wait = BACKOFF_MIN * (1 << call.attempts.saturating_sub(1).min(6));
        let longer = if buggify("client: long back-off") { BACKOFF_MAX * 3 } else { Duration::ZERO };
        let until = now + wait.min(BACKOFF_MAX) + longer;
        call.state = State::Backoff { until };
        self.next_retry = earliest(self.next_retry, Some(until));
    }

    /// Takes a call out of all tables.
    fn forget(&mut self, seq: u64) -> Option<Box<Call>> {
        let call = self.calls.remove(&seq)?;
        if call.is_counted() && call.state != State::Queued {
            self.inflight_ops -= 1;
            self.inflight_bytes -= call.bytes;
        }
        if let Ask::Object { object, .. } = &call.ask
            && let Entry::Occupied(mut near) = self.by_object.entry(place(object))
        {
            near.get_mut().retain(|&other| other != seq);
            if near.get().is_empty() {
                near.remove();
            }
        }
        if let Some(pg) = self.pg_of(&call.ask)
            && let Entry::Occupied(mut near) = self.by_pg.entry(pg)
        {
            near.get_mut().remove(&seq);
            if near.get().is_empty() {
                near.remove();
            }
        }
        Some(call)
    }

    fn finish(
        &mut self,
        now: Instant,
        seq: u64,
        result: Result<Reply, OpError>,
        out: &mut Outbox<ClientEffect>,
    ) {
        let Some(call) = self.forget(seq) else { return };
        match &call.owner {
            Owner::Future(slot) => self.to_wake.extend(slot.fill(result)),
            Owner::Linger(id) => self.renewed(now, *id, &call, result.map(drop), out),
            Owner::Nobody => {}
        }
        self.unblock(now, &call.ask, out);
        self.admit(now, out);
    }

    /// Starts what waited for a call on its object to end.
    fn unblock(&mut self, now: Instant, ask: &Ask, out: &mut Outbox<ClientEffect>) {
        let Ask::Object { object, .. } = ask else { return };
        let Some(near) = self.by_object.get(&place(object)) else { return };
        let blocked = |seq: &&u64| self.calls.get(seq).is_some_and(|call| call.state == State::Blocked);
        let seqs: Vec<u64> = near.iter().filter(blocked).copied().collect();
        for seq in seqs {
            self.dispatch(now, seq, out);
        }
    }

    /// A new osdmap: whatever goes another way now, or could not go at all, is sent.
    fn map_changed(&mut self, now: Instant, out: &mut Outbox<ClientEffect>) {
        let map = self.following.osdmap.clone().expect("called with one");
        let pgs = self.calls.iter().filter_map(|(&seq, call)| Some((self.pg_of(&call.ask)?, seq)));
        let mut by_pg: BTreeMap<PgId, BTreeSet<u64>> = BTreeMap::new();
        for (pg, seq) in pgs {
            by_pg.entry(pg).or_default().insert(seq);
        }
        self.by_pg = by_pg;
        self.measure.retain(|osd| map.osd(osd).is_some());
        let seqs: Vec<u64> = self.calls.keys().copied().collect();
        for seq in seqs {
            let Some(call) = self.calls.get(&seq) else { continue };
            let again = match &call.state {
                State::Unroutable(_) => true,
                State::Backoff { .. } => !matches!(call.ask, Ask::Monitors(_)),
                State::Sent(Some(_)) if map.is_blocklisted(self.config.client_id) => true,
                State::Sent(Some(sent)) => match route(&map, &call.ask) {
                    Routed::To(now) => now != *sent,
                    _ => true,
                },
                State::Sent(None) | State::Queued | State::Blocked => false,
            };
            if again && mutant!(DroppedAtMapChange) && matches!(call.state, State::Sent(_)) {
                self.forget(seq);
            } else if again {
                self.dispatch(now, seq, out);
            }
        }
        self.interrupt_lingers(now, |linger| {
            let ask = linger::object_ask(&linger.object, linger.op.kind.clone().expect("made from a kind"));
            match (route(&map, &ask), linger.route) {
                (Routed::To(now), Some(before)) => now != before,
                _ => true,
            }
        });
        self.renew_lingers(now, out);
    }

    fn on_session_closed(&mut self, now: Instant, session: SessionId, out: &mut Outbox<ClientEffect>) {
        let osd = self.sessions.remove(&session);
        let of_monitor = self.mon_session == Some(session);
        if of_monitor || (osd.is_none() && self.mon_session.is_none()) {
            self.mon_session = None;
            self.subscribe(now, out);
            self.resend(now, |call| matches!(call.ask, Ask::Monitors(_)), out);
        }
        if of_monitor {
            return;
        }
        // A session that has never said anything may have been to any OSD that has not answered yet.
        let known: Vec<OsdId> = self.sessions.values().copied().collect();
        let broke = move |to: OsdId| match osd {
            Some(osd) => to == osd,
            None => !known.contains(&to),
        };
        self.interrupt_lingers(now, |linger| linger.route.is_some_and(|route| broke(route.osd)));
        self.resend(now, |call| matches!(call.state, State::Sent(Some(route)) if broke(route.osd)), out);
        self.renew_lingers(now, out);
    }

    /// Sends again what `lost` says was lost: at once the first time, then with growing pauses.
    fn resend(&mut self, now: Instant, lost: impl Fn(&Call) -> bool, out: &mut Outbox<ClientEffect>) {
        let is_lost = |call: &Call| matches!(call.state, State::Sent(_)) && lost(call);
        let seqs: Vec<(u64, u32)> =
            self.calls.iter().filter(|(_, c)| is_lost(c)).map(|(&seq, c)| (seq, c.attempts)).collect();
        for (seq, attempts) in seqs {
            if attempts <= 1 { self.dispatch(now, seq, out) } else { self.back_off(now, seq) }
        }
    }

    fn sweep(&mut self, now: Instant, out: &mut Outbox<ClientEffect>) {
        self.next_retry = None;
        let mut again = Vec::new();
        let mut late = Vec::new();
        for (&seq, call) in &self.calls {
            if call.deadline.is_some_and(|deadline| deadline <= now) {
                late.push(seq);
                continue;
            }
            match &call.state {
                State::Backoff { until } if *until <= now => again.push(seq),
                State::Backoff { until } => self.next_retry = earliest(self.next_retry, Some(*until)),
                State::Sent(_) => {
                    let silence = RESEND_AFTER * (1 << call.attempts.saturating_sub(1).min(3));
                    let hurry = buggify("client: early resend");
                    let silence = if hurry { silence / 20 } else { silence };
                    if call.sent_at + silence <= now {
                        again.push(seq);
                    }
                }
                _ if matches!(call.ask, Ask::Sleep) => {
                    self.next_retry = earliest(self.next_retry, call.deadline);
                }
                _ => {}
            }
        }
        for seq in late {
            let Some(call) = self.calls.get(&seq) else { continue };
            let result = match call.ask {
                Ask::Sleep => Ok(Reply::Done),
                _ => Err(self.timed_out(now, call)),
            };
            self.finish(now, seq, result, out);
        }
        for seq in again {
            self.dispatch(now, seq, out);
        }
    }

    fn timed_out(&self, now: Instant, call: &Call) -> OpError {
        let seconds = now.since(call.started).as_secs_f64();
        let needs = self.needs(call);
        let text = format!("{} gave up after {seconds:.0} s: {needs}", what(&call.ask));
        OpError::new(ErrorCode::TimedOut, text)
    }

    /// What a call waits for.
    fn needs(&self, call: &Call) -> Needs {
        let monitors = || match self.following.mon_heard {
            None if self.following.unreachable.is_some() => {
                let reason = self.following.unreachable.as_deref().unwrap_or_default();
                Needs::AnyMonitor(format!("no monitor can be used: {reason}"))
            }
            None => {
                let named = self.config.mons.iter().map(|(name, address)| format!("mon.{name} at {address}"));
                let named: Vec<String> = named.collect();
                Needs::AnyMonitor(format!("no monitor answers ({})", named.join(", ")))
            }
            Some(_) if !call.refusal.is_empty() => Needs::Quorum(call.refusal.clone()),
            Some(heard) => {
                let silence = self.now.since(heard).as_secs();
                Needs::Quorum(format!(
                    "the monitors give no answer (last heard {silence} s ago): have they a quorum?"
                ))
            }
        };
        match &call.state {
            _ if matches!(call.ask, Ask::Sleep) => Needs::Time,
            State::Queued => Needs::Room,
            State::Blocked => Needs::EarlierCall,
            _ if matches!(call.ask, Ask::Monitors(_) | Ask::Map(_)) => monitors(),
            State::Unroutable(_) if self.following.osdmap.is_none() => monitors(),
            State::Unroutable(reason) => reason.clone(),
            State::Backoff { .. } | State::Sent(_) if !call.refusal.is_empty() => {
                Needs::Refusal(call.refusal.clone())
            }
            State::Backoff { .. } => Needs::Connection,
            State::Sent(Some(route)) => Needs::Answer { osd: route.osd, pg: route.pg },
            State::Sent(None) => match call.ask {
                Ask::OsdAt { osd, .. } => Needs::Answer { osd, pg: None },
                _ => monitors(),
            },
        }
    }
}

impl Machine for Objecter {
    type Event = ClientEvent;
    type Effect = ClientEffect;

    fn step(&mut self, now: Instant, event: ClientEvent, out: &mut Outbox<ClientEffect>) {
        self.now = now;
        match event {
            ClientEvent::Tick { wall_ms } => self.wall_offset_ms = wall_ms.saturating_sub(now.as_millis()),
            ClientEvent::Received { from, packet } => self.on_packet(now, from, packet, out),
            ClientEvent::SessionClosed(session) => self.on_session_closed(now, session, out),
            ClientEvent::MonitorsUnreachable { reason, rejected } => {
                self.on_unreachable(now, reason, rejected, out);
            }
            ClientEvent::Wake => {}
        }
        while let Some(seq) = self.fresh.pop_front() {
            self.start(now, seq, out);
        }
        for ask in std::mem::take(&mut self.cancelled) {
            self.unblock(now, &ask, out);
        }
        self.admit(now, out);
        if self.following.next_subscribe <= now {
            self.subscribe(now, out);
        }
        self.renew_lingers(now, out);
        if self.next_sweep <= now || self.next_retry.is_some_and(|at| at <= now) {
            self.next_sweep = now + SWEEP_PERIOD;
            self.sweep(now, out);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        if !self.fresh.is_empty() {
            return Some(self.now);
        }
        let sweep = (!self.calls.is_empty()).then_some(self.next_sweep);
        let mut next = earliest(Some(self.following.next_subscribe), sweep);
        next = earliest(next, self.next_retry);
        earliest(next, self.next_renewal())
    }

    fn check(&self) {
        let counted = self.calls.values().filter(|c| c.is_counted() && c.state != State::Queued);
        let (mut ops, mut bytes) = (0, 0);
        for call in counted {
            ops += 1;
            bytes += call.bytes;
        }
        assert_eq!((ops, bytes), (self.inflight_ops, self.inflight_bytes), "what is on the wire is counted");
        assert!(ops <= self.config.inflight_ops_max.max(1), "what is on the wire is bounded");
        for (seq, call) in &self.calls {
            if let (Ask::Object { object, .. }, Some(_)) = (&call.ask, &call.footprint) {
                assert!(
                    self.by_object.get(&place(object)).is_some_and(|all| all.contains(seq)),
                    "call {seq} is indexed"
                );
            }
            if let Some(pg) = self.pg_of(&call.ask) {
                assert!(self.by_pg.get(&pg).is_some_and(|all| all.contains(seq)), "call {seq} is at its PG");
            }
        }
    }
}

/// Where an object's calls are found.
fn place(object: &ObjectId) -> (PoolId, u32) {
    (object.pool, object.hash)
}

fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn what(ask: &Ask) -> String {
    match ask {
        Ask::Object { object, .. } => format!("the operation on object {object}"),
        Ask::Pg { pg, .. } => format!("listing PG {pg}"),
        Ask::PgAdmin { pg, admin } => format!("'{}' for PG {pg}", admin.command),
        Ask::Osd { osd, admin } | Ask::OsdAt { osd, admin, .. } => format!("'{}' for {osd}", admin.command),
        Ask::Monitors(_) => "the command to the monitors".into(),
        Ask::Map(Epoch(0)) => "getting an osdmap".into(),
        Ask::Map(epoch) => format!("waiting for osdmap {epoch}"),
        Ask::Sleep => "a pause".into(),
    }
}
