//! The read lease of one PG on three OSDs whose clocks drift: who promises what to whom, when a new primary may serve, and
//! what a cut-off old one still reads.
//!
//! Time is a few steps long and passes for all at once, but each clock runs slow or fast: a lease of [`LEASE`] ticks lasts
//! three steps by a slow clock and two by a fast one, and a member counts its promise half as long again, as much as two
//! clocks can differ. Peering is reduced to what the lease leans on: the primary of an interval has heard all members and
//! one member of each interval since the last one known to have started; everybody may have served in all of those.
//! The register has two values: the one there was, and the one written.

use crate::{name, names};
use stateright::{Model, Property};

const OSDS: usize = 3;
const EPOCHS: usize = 4;
/// Ticks of a slow and of a fast clock in a step.
const SLOW: u8 = 2;
const FAST: u8 = 3;
/// A lease, in ticks of its holder.
const LEASE: u8 = 6;
/// The promise behind it, in ticks of whoever gave it: the lease and the drift.
const PROMISE: u8 = LEASE * FAST / SLOW;
/// Who forgot to whom it promised something.
const UNKNOWN: usize = OSDS;

type Mask = u8;

/// The protocol's rules; a model without one of them must read something stale.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// A new primary serves nothing before the promises it hears of have run out or their holder has joined it.
    pub waited: bool,
    /// A promise is longer than the lease by what clocks may drift.
    pub drift: bool,
    /// A lease counts from when it was asked for, not from when the answer came.
    pub from_asking: bool,
    /// Who restarts assumes to have promised.
    pub restart: bool,
    /// Reads need the promise of every member, not of one.
    pub of_all: bool,
    /// A primary that still waits makes the wait its members' promise and its own, so that the next one hears of it from any
    /// of them.
    pub passed_on: bool,
}

impl Rules {
    pub const ALL: Rules =
        Rules { waited: true, drift: true, from_asking: true, restart: true, of_all: true, passed_on: true };
}

#[derive(Clone, Debug)]
pub struct Lease {
    pub rules: Rules,
    /// Map epochs, the first included.
    pub epochs: usize,
    /// Steps of time.
    pub steps: u8,
    /// Whether answers take time. A lease counts from the asking, so that one taken late is only shorter.
    pub slow_answers: bool,
    /// Whether OSDs restart.
    pub restarts: bool,
    /// Whether clocks run fast or slow in every combination; else the first one's is slow: it holds the first lease.
    pub all_clocks: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Role {
    Idle,
    Member,
    /// Primary that has heard these.
    Hearing(Mask),
    Active,
}

/// Ends of promises by holder, in the local ticks of whoever notes them; zero for none.
type Ends = [u8; OSDS + 1];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Osd {
    speed: u8,
    epoch: u8,
    history: u8,
    new: bool,
    role: Role,
    /// What it promised, and what it was told of.
    granted: Ends,
    /// Primary: when the leases it has end, by member.
    leased: [u8; OSDS],
    /// Primary: answers on their way, by when they were asked for (plus one).
    coming: [u8; OSDS],
    /// Primary: until when to wait, for whose sake.
    prior: Ends,
    /// Primary: who took part in this interval: what they held of earlier ones is given up.
    joined: Mask,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    time: u8,
    acting: [Mask; EPOCHS],
    newest: u8,
    osds: [Osd; OSDS],
    /// The write is acked.
    written: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Tick,
    Map {
        acting: Mask,
        rebooted: Option<usize>,
    },
    /// Goes on with a map that makes it primary. Others learn when they are asked: sooner would only stop them sooner.
    Learn(usize, u8),
    Hear(usize, usize),
    Activate(usize),
    Promise(usize, usize),
    Take(usize, usize),
    Write(usize),
}

fn members(mask: Mask) -> impl Iterator<Item = usize> {
    (0..OSDS).filter(move |osd| mask & (1 << osd) != 0)
}

impl State {
    fn acting(&self, epoch: u8) -> Mask {
        self.acting[epoch as usize - 1]
    }

    fn leads(&self, osd: usize, epoch: u8) -> bool {
        members(self.acting(epoch)).next() == Some(osd)
    }

    fn clock(&self, osd: usize) -> u8 {
        self.time * self.osds[osd].speed
    }

    fn learn(&mut self, osd: usize, epoch: u8) {
        let leads = self.leads(osd, epoch);
        let o = &mut self.osds[osd];
        o.epoch = epoch;
        o.role = if leads { Role::Hearing(0) } else { Role::Idle };
        (o.leased, o.coming, o.prior, o.joined) = Default::default();
    }

    /// What is over means nothing any more.
    fn forget_the_past(&mut self) {
        for osd in 0..OSDS {
            let now = self.clock(osd);
            let o = &mut self.osds[osd];
            let ends = o.granted.iter_mut().chain(&mut o.leased).chain(&mut o.prior);
            ends.filter(|end| **end <= now).for_each(|end| *end = 0);
        }
    }
}

impl Lease {
    /// Ticks of the primary's clock for which it must not serve yet, by holder.
    fn waits_for(&self, s: &State, osd: usize) -> Ends {
        let o = &s.osds[osd];
        let now = s.clock(osd);
        let mut left = Ends::default();
        for (holder, left) in left.iter_mut().enumerate() {
            let end = o.granted[holder].max(o.prior[holder]);
            let given_up = holder < OSDS && (o.joined | 1 << osd) & (1 << holder) != 0;
            if self.rules.waited && !given_up {
                *left = end.saturating_sub(now);
            }
        }
        left
    }

    fn serves(&self, s: &State, osd: usize) -> bool {
        s.osds[osd].role == Role::Active && self.waits_for(s, osd) == Ends::default()
    }

    fn may_read(&self, s: &State, osd: usize) -> bool {
        let o = &s.osds[osd];
        let mut others = members(s.acting(o.epoch)).filter(|&q| q != osd);
        let leased = |q: usize| o.leased[q] > s.clock(osd);
        let held = if self.rules.of_all {
            others.all(leased)
        } else {
            s.acting(o.epoch).count_ones() == 1 || others.any(leased)
        };
        self.serves(s, osd) && held
    }

    pub fn describe(&self, action: &Action, s: &State) -> String {
        let text = match *action {
            Action::Tick => {
                let clocks: Vec<String> = (0..OSDS).map(|o| format!("{} {}", name(o), s.clock(o))).collect();
                format!("time passes; clocks: {}", clocks.join(", "))
            }
            Action::Map { acting, rebooted } => {
                let again = rebooted.map(|o| format!(", {} was restarted", name(o))).unwrap_or_default();
                format!("map {}: acting [{}]{again}", s.newest, names(acting))
            }
            Action::Learn(o, _) => format!("{} learns map {}", name(o), s.osds[o].epoch),
            Action::Hear(p, q) => {
                let granted = (0..=UNKNOWN).filter(|&h| s.osds[q].granted[h] > 0);
                let granted: String = granted.map(|h| if h == UNKNOWN { '?' } else { name(h) }).collect();
                let what = if granted.is_empty() { "nobody".into() } else { granted };
                format!("{} hears {} in interval {}: promised to {what}", name(p), name(q), s.osds[p].epoch)
            }
            Action::Activate(p) => {
                let waits = if self.waits_for(s, p) == Ends::default() { "serves" } else { "waits" };
                format!("{} activates interval {} and {waits}", name(p), s.osds[p].epoch)
            }
            Action::Promise(p, q) => {
                format!("{} promises {} a lease in interval {}", name(q), name(p), s.osds[p].epoch)
            }
            Action::Take(p, q) => format!("{} has the lease of {}", name(p), name(q)),
            Action::Write(p) => format!("{} acks the write in interval {}", name(p), s.osds[p].epoch),
        };
        match (0..OSDS).find(|&o| s.written && !s.osds[o].new && self.may_read(s, o)) {
            Some(o) => format!("{text}   <- {} may still read what was there before", name(o)),
            None => text,
        }
    }
}

impl Model for Lease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let osd = Osd {
            speed: SLOW,
            epoch: 1,
            history: 1,
            new: false,
            role: Role::Member,
            granted: Ends::default(),
            leased: [0; OSDS],
            coming: [0; OSDS],
            prior: Ends::default(),
            joined: 0,
        };
        let mut states = Vec::new();
        let clocks = if self.all_clocks { 0..1u8 << OSDS } else { 0b110..0b111 };
        for fast in clocks {
            for acting in [0b011, 0b111] {
                let mut s = State {
                    time: 1,
                    acting: [acting, 0, 0, 0],
                    newest: 1,
                    osds: [osd; OSDS],
                    written: false,
                };
                for o in 0..OSDS {
                    s.osds[o].speed = if fast & (1 << o) != 0 { FAST } else { SLOW };
                    s.osds[o].role = match () {
                        () if s.leads(o, 1) => Role::Active,
                        () if acting & (1 << o) != 0 => Role::Member,
                        () => Role::Idle,
                    };
                }
                states.push(s);
            }
        }
        states
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        if s.time < self.steps {
            actions.push(Action::Tick);
        }
        if (s.newest as usize) < self.epochs {
            for acting in 1..1u8 << OSDS {
                if acting != s.acting(s.newest) {
                    actions.push(Action::Map { acting, rebooted: None });
                }
                if self.restarts {
                    actions.extend(members(acting).map(|o| Action::Map { acting, rebooted: Some(o) }));
                }
            }
        }
        for (p, o) in s.osds.iter().enumerate() {
            let ahead = o.epoch + 1..=s.newest;
            actions.extend(ahead.filter(|&epoch| s.leads(p, epoch)).map(|epoch| Action::Learn(p, epoch)));
            let others = s.acting(o.epoch) & !(1 << p);
            match o.role {
                Role::Idle | Role::Member => {}
                Role::Hearing(heard) => {
                    let past = o.history..o.epoch;
                    let probe = past.clone().fold(others, |all, epoch| all | s.acting(epoch)) & !(1 << p);
                    let askable = members(probe & !heard).filter(|&q| s.osds[q].epoch <= o.epoch);
                    actions.extend(askable.map(|q| Action::Hear(p, q)));
                    let here = members(others).all(|q| heard & (1 << q) != 0 && s.osds[q].epoch == o.epoch);
                    if here && past.into_iter().all(|epoch| s.acting(epoch) & (heard | 1 << p) != 0) {
                        actions.push(Action::Activate(p));
                    }
                }
                Role::Active => {
                    let here = |q: &usize| s.osds[*q].epoch == o.epoch;
                    actions.extend(members(others).filter(here).map(|q| Action::Promise(p, q)));
                    actions.extend(members(others).filter(|&q| o.coming[q] > 0).map(|q| Action::Take(p, q)));
                    if !s.written && self.serves(s, p) && members(others).all(|q| here(&q)) {
                        actions.push(Action::Write(p));
                    }
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = *last;
        match action {
            Action::Tick => s.time += 1,
            Action::Map { acting, rebooted } => {
                s.acting[s.newest as usize] = acting;
                s.newest += 1;
                if let Some(o) = rebooted {
                    s.osds[o].granted = Ends::default();
                    if self.rules.restart {
                        s.osds[o].granted[UNKNOWN] = s.clock(o) + PROMISE;
                    }
                    s.learn(o, last.newest + 1);
                }
            }
            Action::Learn(o, epoch) => s.learn(o, epoch),
            Action::Hear(p, q) => {
                let epoch = s.osds[p].epoch;
                if s.osds[q].epoch < epoch {
                    s.learn(q, epoch);
                }
                let (mine, theirs) = (s.clock(p), s.clock(q));
                let told = s.osds[q];
                let o = &mut s.osds[p];
                for holder in 0..=UNKNOWN {
                    let left = told.granted[holder].saturating_sub(theirs);
                    if left > 0 {
                        o.prior[holder] = o.prior[holder].max(mine + left);
                    }
                }
                o.history = o.history.max(told.history);
                o.new |= told.new;
                o.joined |= 1 << q;
                if let Role::Hearing(heard) = &mut o.role {
                    *heard |= 1 << q;
                }
            }
            Action::Activate(p) => {
                let o = last.osds[p];
                let left = self.waits_for(last, p);
                for q in members(s.acting(o.epoch)) {
                    let now = s.clock(q);
                    let member = &mut s.osds[q];
                    member.role = if q == p { Role::Active } else { Role::Member };
                    member.history = o.epoch;
                    member.new = o.new;
                    for (end, left) in member.granted.iter_mut().zip(left) {
                        if self.rules.passed_on && left > 0 {
                            // A member's clock may be the faster one.
                            let left = if q == p { left } else { (left * FAST).div_ceil(SLOW) };
                            *end = (*end).max(now + left);
                        }
                    }
                }
            }
            Action::Promise(p, q) => {
                let promise = if self.rules.drift { PROMISE } else { LEASE };
                s.osds[q].granted[p] = s.clock(q) + promise;
                if self.slow_answers {
                    s.osds[p].coming[q] = s.clock(p) + 1;
                } else {
                    s.osds[p].leased[q] = s.clock(p) + LEASE;
                }
            }
            Action::Take(p, q) => {
                let asked = s.osds[p].coming[q] - 1;
                let from = if self.rules.from_asking { asked } else { s.clock(p) };
                s.osds[p].coming[q] = 0;
                s.osds[p].leased[q] = s.osds[p].leased[q].max(from + LEASE);
            }
            Action::Write(p) => {
                s.written = true;
                for q in members(s.acting(s.osds[p].epoch)) {
                    s.osds[q].new = true;
                }
            }
        }
        s.forget_the_past();
        (s != *last).then_some(s)
    }

    fn properties(&self) -> Vec<Property<Lease>> {
        vec![
            Property::always("no stale read", |m: &Lease, s: &State| {
                !s.written || (0..OSDS).all(|o| s.osds[o].new || !m.may_read(s, o))
            }),
            Property::sometimes("the last interval serves the new value", |m: &Lease, s: &State| {
                (0..OSDS).any(|o| s.osds[o].new && s.osds[o].epoch as usize == m.epochs && m.may_read(s, o))
            }),
            Property::sometimes("an old primary reads while a new one waits", |m: &Lease, s: &State| {
                let old = (0..OSDS).any(|o| m.may_read(s, o) && s.osds[o].epoch < s.newest);
                old && (0..OSDS).any(|o| s.osds[o].role == Role::Active && !m.serves(s, o))
            }),
        ]
    }
}
