//! Peering of one PG on three OSDs: map epochs, up_thru, acting sets, min_size, crashes and restarts, hearing infos,
//! choosing a log, activation, replication, acks.
//!
//! Left out, because it does not bear on which log wins: object data (a log entry stands for its object, what is missing
//! is recovered or blocks by I9), backfill, pg_temp. Every map change here makes a new interval, so epoch and interval are
//! one number; an `up_thru` recorded during an interval is a mark on it. Messages need no queue: an answer is taken by the
//! asker at once or later, and what it says stays true of the interval it was given in. A crash is no step of its own: an
//! OSD may do nothing for as long as it likes, and loses what it did not record when it goes on with a newer map.

use crate::{name, names};
use stateright::{Model, Property};

pub const OSDS: usize = 3;
const WRITES: usize = 2;
const EPOCHS: usize = 4;

type Mask = u8;

/// The protocol's rules; a model without one of them must lose something.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// I4: the map shows the primary alive in the interval before it activates.
    pub up_thru: bool,
    /// I1: no write is taken with fewer than min_size members.
    pub min_size: bool,
    /// I2: a member of every past interval that may have taken writes is heard first.
    pub prior_set: bool,
    /// A start is recorded together with the log that was agreed on, not before.
    pub start_with_log: bool,
    /// Copies that took part in the newest started interval win over newer entries of others.
    pub best_by_start: bool,
    /// I5: what belongs to another interval is dropped.
    pub interval_guard: bool,
    /// I1: an ack waits for every member, not most of them.
    pub ack_by_all: bool,
    /// A member that lost its disk since does not speak for an interval it served in.
    pub wiped_is_no_witness: bool,
}

impl Rules {
    pub const ALL: Rules = Rules {
        up_thru: true,
        min_size: true,
        prior_set: true,
        start_with_log: true,
        best_by_start: true,
        interval_guard: true,
        ack_by_all: true,
        wiped_is_no_witness: true,
    };
}

#[derive(Clone, Debug)]
pub struct Peering {
    pub rules: Rules,
    pub size: usize,
    pub min_size: usize,
    /// Map epochs, the first included.
    pub epochs: usize,
    /// Writes a log has room for.
    pub writes: usize,
    /// Disks that may be emptied (while another copy of everything acked exists).
    pub wipes: u8,
    /// Whether going active without having heard the newest interval that served is a failure by itself: off, to see what
    /// comes of it.
    pub watch_heard: bool,
}

/// Versions in order: each entry the epoch it was written in (its place is the sequence); zero for none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct Log([u8; WRITES]);

impl Log {
    const EMPTY: Log = Log([0; WRITES]);

    fn len(self) -> usize {
        self.0.iter().take_while(|epoch| **epoch > 0).count()
    }

    /// The newest entry's version.
    fn head(self) -> (u8, usize) {
        match self.len() {
            0 => (0, 0),
            len => (self.0[len - 1], len),
        }
    }

    fn push(&mut self, epoch: u8) {
        self.0[self.len()] = epoch;
    }

    fn starts_with(self, other: Log) -> bool {
        self.0[..other.len()] == other.0[..other.len()]
    }

    fn entries(self) -> Entries {
        let bits = self.0.iter().enumerate().filter(|(_, epoch)| **epoch > 0);
        bits.map(|(at, epoch)| entry(*epoch, at)).fold(0, |all, bit| all | bit)
    }
}

/// A set of log entries.
type Entries = u8;

fn entry(epoch: u8, at: usize) -> Entries {
    1 << ((epoch as usize - 1) * WRITES + at)
}

/// Those written up to and including that epoch.
fn up_to(epoch: u8) -> Entries {
    ((1u16 << (epoch as usize * WRITES)) - 1) as Entries
}

/// What an OSD has of the PG: durable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Info {
    exists: bool,
    log: Log,
    /// The interval whose start this copy recorded.
    started: u8,
    /// The newest interval known to have been recorded by all of its members.
    history: u8,
}

impl Info {
    const ABSENT: Info = Info { exists: false, log: Log::EMPTY, started: 0, history: 0 };
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Role {
    Idle,
    /// A member that recorded the start of this interval.
    Member,
    Hearing {
        infos: [Option<Info>; OSDS],
    },
    Activating {
        heard: Mask,
        waiting: Mask,
    },
    Active {
        heard: Mask,
        /// By log entry: who committed it in this interval.
        durable: [Mask; WRITES],
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Osd {
    /// The newest map it has.
    epoch: u8,
    info: Info,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Place {
    up: Mask,
    up_thru: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct State {
    maps: [Place; EPOCHS],
    newest: u8,
    osds: [Osd; OSDS],
    wiped: u8,
    // What really happened; no OSD knows it.
    submitted: Entries,
    /// Acked to a client, or part of what an active PG serves.
    visible: Entries,
    /// Absent from an active PG that came after: must never come back.
    gone: Entries,
    /// Written when a newer interval was active already.
    late: Entries,
    /// Intervals that went active and took writes.
    active: u8,
    broken: Option<Broken>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Broken {
    Lost,
    Resurrected,
    Fenced,
    Unheard,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The monitors publish a map. With the same OSDs up, one of them has been restarted.
    Map {
        up: Mask,
        wiped: Option<usize>,
    },
    UpThru,
    /// Goes on with a map that makes it primary. Others learn when they are asked: sooner would only stop them sooner.
    Learn(usize, u8),
    Hear(usize, usize),
    Activate(usize),
    Join(usize, usize),
    Write(usize),
    Replicate(usize, usize),
    Ack(usize, usize),
    Share(usize, usize),
}

fn has(mask: Mask, osd: usize) -> bool {
    mask & (1 << osd) != 0
}

fn members(mask: Mask) -> impl Iterator<Item = usize> {
    (0..OSDS).filter(move |osd| has(mask, *osd))
}

impl State {
    fn up(&self, epoch: u8) -> Mask {
        self.maps[epoch as usize - 1].up
    }
}

impl Peering {
    fn acting(&self, s: &State, epoch: u8) -> Mask {
        members(s.up(epoch)).take(self.size).fold(0, |all, osd| all | 1 << osd)
    }

    fn primary(&self, s: &State, epoch: u8) -> Option<usize> {
        members(self.acting(s, epoch)).next()
    }

    fn enough(&self, s: &State, epoch: u8) -> bool {
        self.acting(s, epoch).count_ones() as usize >= self.min_size
    }

    fn writeable(&self, s: &State, epoch: u8) -> bool {
        !self.rules.min_size || self.enough(s, epoch)
    }

    /// I3, by the map alone.
    fn may_have_written(&self, s: &State, epoch: u8) -> bool {
        self.enough(s, epoch) && s.maps[epoch as usize - 1].up_thru
    }

    /// An OSD takes a newer map: whatever it was doing is over.
    fn learn(&self, s: &mut State, osd: usize, epoch: u8) {
        let leads = self.primary(s, epoch) == Some(osd);
        let o = &mut s.osds[osd];
        o.epoch = epoch;
        o.role = if leads { Role::Hearing { infos: [None; OSDS] } } else { Role::Idle };
        if leads && !self.rules.start_with_log {
            o.info.started = epoch;
        }
    }

    fn past(&self, s: &State, osd: usize) -> impl Iterator<Item = u8> {
        let o = &s.osds[osd];
        let past: Vec<u8> = (o.info.history.max(1)..o.epoch)
            .filter(|&epoch| self.rules.prior_set && self.may_have_written(s, epoch))
            .collect();
        past.into_iter()
    }

    /// Whom a primary asks.
    fn probe(&self, s: &State, osd: usize) -> Mask {
        let o = &s.osds[osd];
        let up = s.up(o.epoch);
        let past = self.past(s, osd).fold(0, |all, epoch| all | self.acting(s, epoch));
        let knows_past = o.info.exists || heard_of(&o.role).is_some_and(|infos| exist(infos) != 0);
        let all = if knows_past { self.acting(s, o.epoch) | past } else { up };
        all & up & !(1 << osd)
    }

    /// Whether a primary has heard enough to choose (invariant I2).
    fn may_choose(&self, s: &State, osd: usize, infos: &[Option<Info>; OSDS]) -> bool {
        let o = &s.osds[osd];
        let up = s.up(o.epoch);
        let heard: Mask = (0..OSDS).filter(|&q| infos[q].is_some()).fold(0, |all, q| all | 1 << q);
        if self.probe(s, osd) & !heard != 0 {
            return false;
        }
        if !o.info.exists && exist(infos) == 0 {
            // Everybody else ever ran: who is down may know more.
            return (up | 1 << osd).count_ones() as usize == OSDS;
        }
        let mut witnesses = exist(infos);
        if o.info.exists || !self.rules.wiped_is_no_witness {
            witnesses |= 1 << osd;
        }
        if !self.rules.wiped_is_no_witness {
            witnesses |= heard;
        }
        self.past(s, osd).all(|epoch| self.acting(s, epoch) & witnesses != 0)
    }

    fn find_best(&self, own: (usize, Info), infos: &[Option<Info>; OSDS]) -> Option<Info> {
        let known = || {
            let others = infos.iter().copied().enumerate().filter_map(|(q, info)| Some((q, info?)));
            others.chain([own]).filter(|(_, info)| info.exists)
        };
        let started = known().map(|(_, info)| info.started.max(info.history)).max()?;
        let started = if self.rules.best_by_start { started } else { 0 };
        let best = known().filter(|(_, info)| info.started >= started);
        best.max_by_key(|(q, info)| (info.log.head(), *q == own.0, OSDS - q)).map(|(_, info)| info)
    }

    fn become_active(&self, s: &mut State, osd: usize, heard: Mask) {
        let epoch = s.osds[osd].epoch;
        s.osds[osd].role = Role::Active { heard, durable: [0; WRITES] };
        if !self.writeable(s, epoch) {
            return;
        }
        let info = &mut s.osds[osd].info;
        info.history = info.history.max(info.started);
        let served = info.log.entries();
        // I2 as it really was: the newest interval that served, by somebody who still has what it had then.
        let before = s.active & ((1 << (epoch - 1)) - 1);
        if self.watch_heard
            && let Some(last) = before.checked_ilog2()
            && self.acting(s, last as u8 + 1) & heard == 0
        {
            s.broken = Some(Broken::Unheard);
        }
        if s.visible & up_to(epoch) & !served != 0 {
            s.broken = Some(Broken::Lost);
        }
        if served & s.gone != 0 {
            s.broken = Some(Broken::Resurrected);
        }
        s.active |= 1 << (epoch - 1);
        s.visible |= served;
        s.gone |= s.submitted & up_to(epoch - 1) & !served;
    }

    /// Which disks may be emptied: what clients were told of must exist elsewhere.
    fn may_wipe(&self, s: &State, osd: usize) -> bool {
        let others = (0..OSDS).filter(|&q| q != osd).fold(0, |all, q| all | s.osds[q].info.log.entries());
        s.wiped < self.wipes && s.osds[osd].info.exists && s.visible & !others == 0
    }

    pub fn describe(&self, action: &Action, s: &State) -> String {
        let text = match *action {
            Action::Map { wiped, .. } => {
                let acting = names(self.acting(s, s.newest));
                let wiped = wiped.map(|o| format!(", {} comes back with an empty disk", name(o)));
                format!("map {}: acting [{acting}]{}", s.newest, wiped.unwrap_or_default())
            }
            Action::UpThru => format!("the map records up_thru for interval {}", s.newest),
            Action::Learn(o, _) => format!("{} learns map {}", name(o), s.osds[o].epoch),
            Action::Hear(p, q) => {
                let info = s.osds[q].info;
                let what = if info.exists {
                    format!(
                        "log {:?}, started {}, history {}",
                        &info.log.0[..info.log.len()],
                        info.started,
                        info.history
                    )
                } else {
                    "nothing".into()
                };
                format!("{} hears {} in interval {}: {what}", name(p), name(q), s.osds[p].epoch)
            }
            Action::Activate(p) => {
                let log = s.osds[p].info.log;
                format!(
                    "{} activates interval {} with log {:?}",
                    name(p),
                    s.osds[p].epoch,
                    &log.0[..log.len()]
                )
            }
            Action::Join(p, q) => format!("{} records the start for {}", name(q), name(p)),
            Action::Write(p) => format!("{} takes a write in interval {}", name(p), s.osds[p].epoch),
            Action::Replicate(p, q) => {
                format!("{} commits what {} sent in interval {}", name(q), name(p), s.osds[p].epoch)
            }
            Action::Ack(p, at) => {
                format!("{} acks write {} of interval {}", name(p), at + 1, s.osds[p].epoch)
            }
            Action::Share(p, q) => {
                format!("{} tells {} that interval {} has started", name(p), name(q), s.osds[p].epoch)
            }
        };
        match s.broken {
            None => text,
            Some(Broken::Lost) => format!("{text}   <- an active PG lacks what clients were told of"),
            Some(Broken::Resurrected) => format!("{text}   <- serves what an active PG had not"),
            Some(Broken::Fenced) => format!("{text}   <- a newer interval was active before it was taken"),
            Some(Broken::Unheard) => {
                format!("{text}   <- nobody of the newest interval that served was heard")
            }
        }
    }
}

fn heard_of(role: &Role) -> Option<&[Option<Info>; OSDS]> {
    if let Role::Hearing { infos } = role { Some(infos) } else { None }
}

/// Those heard that have a copy.
fn exist(infos: &[Option<Info>; OSDS]) -> Mask {
    (0..OSDS).filter(|&q| infos[q].is_some_and(|info| info.exists)).fold(0, |all, q| all | 1 << q)
}

impl Model for Peering {
    type State = State;
    type Action = Action;

    /// A clean PG in its first interval.
    fn init_states(&self) -> Vec<State> {
        let up = (1 << OSDS) - 1;
        let info = Info { exists: true, log: Log::EMPTY, started: 1, history: 1 };
        let osd = Osd { epoch: 1, info, role: Role::Idle };
        let mut maps = [Place::default(); EPOCHS];
        maps[0] = Place { up, up_thru: true };
        let mut s = State {
            maps,
            newest: 1,
            osds: [osd; OSDS],
            wiped: 0,
            submitted: 0,
            visible: 0,
            gone: 0,
            late: 0,
            active: 1,
            broken: None,
        };
        let acting = self.acting(&s, 1);
        for osd in 0..OSDS {
            s.osds[osd].role = match osd {
                0 => Role::Active { heard: acting, durable: [0; WRITES] },
                _ if has(acting, osd) => Role::Member,
                _ => {
                    s.osds[osd].info = Info::ABSENT;
                    Role::Idle
                }
            };
        }
        vec![s]
    }

    fn actions(&self, s: &State, actions: &mut Vec<Action>) {
        if s.broken.is_some() {
            return;
        }
        if (s.newest as usize) < self.epochs {
            for up in 0..1u8 << OSDS {
                actions.push(Action::Map { up, wiped: None });
                let emptied = members(up).filter(|&osd| self.may_wipe(s, osd));
                actions.extend(emptied.map(|osd| Action::Map { up, wiped: Some(osd) }));
            }
        }
        let place = s.maps[s.newest as usize - 1];
        if let Some(p) = self.primary(s, s.newest)
            && !place.up_thru
            && s.osds[p].epoch == s.newest
        {
            actions.push(Action::UpThru);
        }
        for (o, osd) in s.osds.iter().enumerate() {
            let ahead = osd.epoch + 1..=s.newest;
            let leads = ahead.filter(|&epoch| self.primary(s, epoch) == Some(o));
            actions.extend(leads.map(|epoch| Action::Learn(o, epoch)));
            let epoch = osd.epoch;
            match osd.role {
                Role::Idle | Role::Member => {}
                Role::Hearing { infos } => {
                    let probe = self.probe(s, o);
                    for q in members(probe) {
                        let other = &s.osds[q];
                        if infos[q].is_none() && other.epoch <= epoch {
                            actions.push(Action::Hear(o, q));
                        }
                    }
                    let recorded = s.maps[epoch as usize - 1].up_thru || !self.rules.up_thru;
                    if recorded && self.may_choose(s, o, &infos) {
                        actions.push(Action::Activate(o));
                    }
                }
                Role::Activating { waiting, .. } => {
                    for q in members(waiting) {
                        let other = &s.osds[q];
                        if other.epoch <= epoch {
                            actions.push(Action::Join(o, q));
                        }
                    }
                }
                Role::Active { durable, .. } => {
                    let log = osd.info.log;
                    if self.writeable(s, epoch) && log.len() < self.writes {
                        actions.push(Action::Write(o));
                    }
                    let acting = self.acting(s, epoch);
                    for q in members(acting & !(1 << o)) {
                        let other = &s.osds[q];
                        let here = other.epoch == epoch && other.role == Role::Member;
                        let takes = here || (!self.rules.interval_guard && other.epoch > epoch);
                        let next = other.info.log.len() < log.len() && log.starts_with(other.info.log);
                        if takes && next {
                            actions.push(Action::Replicate(o, q));
                        }
                        if here && other.info.history < osd.info.history {
                            actions.push(Action::Share(o, q));
                        }
                    }
                    for (at, durable) in durable.iter().enumerate().take(log.len()) {
                        let new = log.0[at] == epoch && s.visible & entry(epoch, at) == 0;
                        let all = acting & !durable == 0;
                        let most = (acting & durable).count_ones() * 2 > acting.count_ones();
                        if new && (all || (most && !self.rules.ack_by_all)) {
                            actions.push(Action::Ack(o, at));
                        }
                    }
                }
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut s = *last;
        match action {
            Action::Map { up, wiped } => {
                s.maps[s.newest as usize] = Place { up, up_thru: false };
                s.newest += 1;
                if let Some(osd) = wiped {
                    s.wiped += 1;
                    s.osds[osd].info = Info::ABSENT;
                    self.learn(&mut s, osd, last.newest + 1);
                }
            }
            Action::UpThru => s.maps[s.newest as usize - 1].up_thru = true,
            Action::Learn(o, epoch) => self.learn(&mut s, o, epoch),
            Action::Hear(p, q) => {
                let epoch = s.osds[p].epoch;
                if s.osds[q].epoch < epoch {
                    self.learn(&mut s, q, epoch);
                }
                let history = s.osds[p].info.history.max(s.osds[q].info.history);
                if s.osds[q].info.exists {
                    s.osds[q].info.history = history;
                }
                if s.osds[p].info.exists {
                    s.osds[p].info.history = history;
                }
                if !self.rules.start_with_log && has(self.acting(&s, epoch), q) {
                    s.osds[q].info.started = epoch;
                }
                let info = s.osds[q].info;
                if let Role::Hearing { infos } = &mut s.osds[p].role {
                    infos[q] = Some(info);
                }
            }
            Action::Activate(p) => {
                let o = last.osds[p];
                let infos = heard_of(&o.role)?;
                let auth = self.find_best((p, o.info), infos)?;
                let epoch = o.epoch;
                let mut heard = exist(infos);
                if o.info.exists {
                    heard |= 1 << p;
                }
                let started = if self.writeable(&s, epoch) { epoch } else { o.info.started };
                let history = o.info.history.max(auth.history);
                s.osds[p].info = Info { exists: true, log: auth.log, started, history };
                let waiting = self.acting(&s, epoch) & !(1 << p);
                s.osds[p].role = Role::Activating { heard, waiting };
                if waiting == 0 {
                    self.become_active(&mut s, p, heard);
                }
            }
            Action::Join(p, q) => {
                let (epoch, info) = (s.osds[p].epoch, s.osds[p].info);
                let Role::Activating { heard, waiting } = s.osds[p].role else { return None };
                if s.osds[q].epoch < epoch {
                    self.learn(&mut s, q, epoch);
                }
                let history = s.osds[q].info.history.max(info.history);
                s.osds[q].info = Info { history, ..info };
                s.osds[q].role = Role::Member;
                let waiting = waiting & !(1 << q);
                s.osds[p].role = Role::Activating { heard, waiting };
                if waiting == 0 {
                    self.become_active(&mut s, p, heard);
                }
            }
            Action::Write(p) => {
                let epoch = s.osds[p].epoch;
                let at = s.osds[p].info.log.len();
                s.osds[p].info.log.push(epoch);
                if let Role::Active { durable, .. } = &mut s.osds[p].role {
                    durable[at] = 1 << p;
                }
                let bit = entry(epoch, at);
                s.submitted |= bit;
                if s.active >> epoch != 0 {
                    s.late |= bit;
                }
            }
            Action::Replicate(p, q) => {
                let at = s.osds[q].info.log.len();
                let written = s.osds[p].info.log.0[at];
                s.osds[q].info.log.push(written);
                if let Role::Active { durable, .. } = &mut s.osds[p].role {
                    durable[at] |= 1 << q;
                }
            }
            Action::Ack(p, at) => {
                let bit = entry(s.osds[p].epoch, at);
                s.visible |= bit;
                if s.late & bit != 0 {
                    s.broken = Some(Broken::Fenced);
                } else if s.gone & bit != 0 {
                    s.broken = Some(Broken::Lost);
                }
            }
            Action::Share(p, q) => s.osds[q].info.history = s.osds[p].info.history,
        }
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Peering>> {
        vec![
            Property::always("no acked write is missing from an active PG", |_, s: &State| {
                s.broken != Some(Broken::Lost)
            }),
            Property::always("nothing that was gone comes back", |_, s: &State| {
                s.broken != Some(Broken::Resurrected)
            }),
            Property::always(
                "no write is acked that was taken after a newer interval became active",
                |_, s: &State| s.broken != Some(Broken::Fenced),
            ),
            Property::always("an active PG has heard the newest interval that served", |_, s: &State| {
                s.broken != Some(Broken::Unheard)
            }),
            Property::always("one active primary per interval", |_, s: &State| {
                let leads = |o: &&Osd| matches!(o.role, Role::Active { .. });
                let epochs =
                    s.osds.iter().filter(leads).fold(0u32, |sum, o| sum + (1 << (8 * (o.epoch - 1))));
                epochs & 0xfefe_fefe == 0
            }),
            Property::always(
                "members of an interval have a prefix of its primary's log",
                |m: &Peering, s: &State| {
                    (0..OSDS).all(|p| {
                        let leader = &s.osds[p];
                        let leads = matches!(leader.role, Role::Active { .. });
                        !leads
                            || s.osds.iter().all(|o| {
                                let member = o.epoch == leader.epoch && o.role == Role::Member;
                                !member || leader.info.log.starts_with(o.info.log)
                            })
                            || !m.rules.interval_guard
                    })
                },
            ),
            Property::sometimes(
                "the last interval goes active with an acked write",
                |m: &Peering, s: &State| s.active & (1 << (m.epochs - 1)) != 0 && s.visible != 0,
            ),
            Property::sometimes("an unacked write is given up", |_, s: &State| s.gone != 0),
            Property::sometimes("an unacked write is taken over", |_, s: &State| {
                s.broken.is_none() && s.active.count_ones() > 1 && s.visible & s.submitted & up_to(1) != 0
            }),
        ]
    }
}
