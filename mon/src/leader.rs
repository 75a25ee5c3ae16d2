//! What only the leading monitor does: gather changes into batches, propose one at a time, answer when it is applied;
//! judge failure reports; keep what OSDs report; look after the cluster.
//!
//! ```text
//!  messages, commands -> queue --(25 ms)--> Draft -> Batch --Raft--> applied -> answers
//!                          ^                  (one in flight)          |
//!                          +------------- what was left, or was lost --+
//! ```
//!
//! Everything here is memory of one leadership: a new leader starts empty and hears all of it again.

mod failure;
mod memory;
mod osd_work;
mod upkeep;

pub(crate) use memory::{BootAsked, Memory, PgReport, PoolUse};

use crate::commands::{self, Context, Handler, Parsed};
use crate::draft::Draft;
use crate::service::{Batch, Service};
use nacre_types::{EntityName, Instant, OsdId, RequestId};
use nacre_wire::messages::{CommandReply, LogLine, OsdAlive, OsdBoot, OsdPgTemp, OsdStopping};
use raft::eraftpb::ConfChangeType;
use std::collections::VecDeque;
use std::time::Duration;

/// Changes in one batch.
const BATCH_WORK_MAX: usize = 2_000;
/// Bulk input in one batch.
const BATCH_INPUT_BYTES_MAX: usize = 4 << 20;

/// What clients do all the time does not fill the log.
const UNLOGGED: &[&str] = &["selfmanaged-snap create", "selfmanaged-snap rm", "log"];

/// Where an answer goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// A command that came to this monitor, by its number in `Forward`.
    Local(u64),
    /// One handed over by another monitor, by its number there.
    Mon { name: String, id: u64 },
}

#[derive(Clone)]
pub(crate) struct CommandWork {
    pub origin: Origin,
    pub entity: EntityName,
    pub request: RequestId,
    pub parsed: Parsed,
    /// A certificate made for it.
    pub cert_pem: Option<String>,
}

/// One thing that wants to change the state.
#[derive(Clone)]
pub(crate) enum Work {
    Boot(OsdBoot),
    Alive(OsdAlive),
    Stopping(OsdStopping),
    PgTemp(OsdPgTemp),
    /// Reported by peers.
    Failed {
        osd: OsdId,
        instance: u64,
        why: String,
    },
    Log(Vec<LogLine>),
    /// Let a monitor vote that has caught up.
    Promote(u64),
    Command(Box<CommandWork>),
}

impl Work {
    fn input_bytes(&self) -> usize {
        match self {
            Work::Command(command) => command.parsed.args.input.len(),
            Work::Log(lines) => lines.iter().map(|line| line.text.len()).sum(),
            _ => 0,
        }
    }
}

struct InFlight {
    nonce: u64,
    /// Log index by which it is in, or lost.
    index: u64,
    work: Vec<Work>,
    answers: Vec<(Origin, CommandReply)>,
    /// To be taken up again after it, such as the boot of an OSD that first had to go down.
    again: Vec<Work>,
    settling: Settling,
}

/// A change of the members is done when most of them will know of it after a restart: when they have made an entry
/// after it durable, and with that how far entries were committed. Until then nobody may take a removed one away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Settling {
    /// It changes no members.
    No,
    /// It has not been applied.
    Before,
    /// It has; the entry after it is not in the log.
    Applied,
    /// That has this index.
    At(u64),
}

/// A read waiting for the proof that this monitor still leads.
pub(crate) struct ReadWork {
    /// Round of proof it needs.
    pub round: u64,
    pub work: CommandWork,
}

pub(crate) struct Leader {
    pub memory: Memory,
    queue: VecDeque<Work>,
    batch_at: Option<Instant>,
    in_flight: Option<InFlight>,
    nonce: u64,
    next_upkeep: Instant,
    pub reads: VecDeque<ReadWork>,
    /// The round asked for, if its proof is out: round, when asked, index to reach once proven.
    pub proof: Option<(u64, Instant, Option<u64>)>,
    pub read_rounds: u64,
    /// Commands waiting for a certificate.
    pub signing: Vec<(u64, CommandWork)>,
}

/// A batch to propose.
pub(crate) struct Proposal {
    pub batch: Batch,
    pub change: Option<(ConfChangeType, u64)>,
}

impl Leader {
    pub fn new(now: Instant, term: u64, raft_id: u64) -> Leader {
        Leader {
            memory: Memory::new(now),
            queue: VecDeque::new(),
            batch_at: None,
            in_flight: None,
            // Unlike any other leadership's.
            nonce: (term << 32) ^ (raft_id << 24),
            next_upkeep: now + Duration::from_millis(500),
            reads: VecDeque::new(),
            proof: None,
            read_rounds: 0,
            signing: Vec::new(),
        }
    }

    pub fn queued(&self) -> usize {
        self.queue.len() + self.in_flight.as_ref().map_or(0, |flight| flight.work.len())
    }

    pub fn push(&mut self, now: Instant, work: Work, wait: Duration) {
        self.queue.push_back(work);
        self.batch_at.get_or_insert(now + wait);
    }

    /// Whether `next_batch` would write one.
    pub fn batch_is_due(&self, now: Instant) -> bool {
        let due = self.batch_at.is_some_and(|at| at <= now) && !self.queue.is_empty();
        self.in_flight.is_none() && (due || self.next_upkeep <= now)
    }

    /// When the next batch is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.batch_at.filter(|_| self.in_flight.is_none() && !self.queue.is_empty())
    }

    /// Gives a command that is resent its new origin, if it is here already.
    pub fn adopt(&mut self, entity: &EntityName, request: RequestId, origin: &Origin) -> bool {
        if request == RequestId::default() {
            return false;
        }
        if let Some(flight) = &mut self.in_flight {
            for (at, work) in flight.work.iter().filter(|w| matches!(w, Work::Command(_))).enumerate() {
                if let Work::Command(command) = work
                    && (&command.entity, command.request) == (entity, request)
                {
                    if let Some(answer) = flight.answers.get_mut(at) {
                        answer.0 = origin.clone();
                    }
                    return true;
                }
            }
        }
        let queued = self.queue.iter_mut().filter_map(|work| match work {
            Work::Command(command) => Some(&mut **command),
            _ => None,
        });
        let all = queued.chain(self.signing.iter_mut().map(|(_, command)| command));
        for command in all {
            if (&command.entity, command.request) == (entity, request) {
                command.origin = origin.clone();
                return true;
            }
        }
        false
    }

    /// Writes the next batch, if it is time and none is in flight.
    pub fn next_batch(&mut self, state: &Service, context: &Frame<'_>) -> Option<Proposal> {
        if !self.batch_is_due(context.now) {
            return None;
        }
        let upkeep = self.next_upkeep <= context.now;
        let mut draft = Draft::new(state, context.wall_ms);
        let mut flight = InFlight {
            nonce: self.nonce,
            index: u64::MAX,
            work: Vec::new(),
            answers: Vec::new(),
            again: Vec::new(),
            settling: Settling::No,
        };
        let mut input_bytes = 0;
        while let Some(work) = self.queue.pop_front() {
            input_bytes += work.input_bytes();
            let full = flight.work.len() >= BATCH_WORK_MAX || input_bytes > BATCH_INPUT_BYTES_MAX;
            let waits = draft.change.is_some() && changes_members(&work);
            if (full && !flight.work.is_empty()) || waits {
                self.queue.push_front(work);
                break;
            }
            self.carry_out(&mut draft, context, &work, &mut flight);
            flight.work.push(work);
        }
        if upkeep {
            self.next_upkeep = context.now + Duration::from_millis(500);
            upkeep::look_after(&mut draft, &mut self.memory, context);
        }
        self.batch_at = (!self.queue.is_empty()).then_some(context.now);
        if draft.is_empty() {
            // Nothing to agree on: repeats of what is so already.
            debug_assert!(flight.answers.is_empty());
            for work in flight.again {
                self.push(context.now, work, Duration::ZERO);
            }
            return None;
        }
        self.nonce += 1;
        flight.nonce = self.nonce;
        let (change, changes_osdmap, epoch) = (draft.change, draft.changes_osdmap(), draft.epoch());
        let mut batch = draft.finish(flight.nonce);
        if changes_osdmap {
            for answer in &mut batch.answers {
                if let Some(reply) = answer.reply.as_mut().filter(|reply| reply.code == 0) {
                    reply.epoch = epoch.0;
                }
            }
            for (_, reply) in flight.answers.iter_mut().filter(|(_, reply)| reply.code == 0) {
                reply.epoch = epoch.0;
            }
        }
        flight.settling = if change.is_some() { Settling::Before } else { Settling::No };
        self.in_flight = Some(flight);
        Some(Proposal { batch, change })
    }

    /// The batch of the last `next_batch` is in Raft's log at `index`.
    pub fn proposed(&mut self, index: u64) {
        if let Some(flight) = &mut self.in_flight {
            flight.index = index;
        }
    }

    /// The batch in flight came to nothing: its work is taken up again.
    pub fn not_proposed(&mut self, now: Instant, wait: Duration) {
        if let Some(flight) = self.in_flight.take() {
            for work in flight.work.into_iter().rev() {
                self.queue.push_front(work);
            }
            self.batch_at = Some(now + wait);
        }
    }

    /// An entry was applied: the answers to give if it was the batch in flight.
    pub fn applied(&mut self, now: Instant, index: u64, nonce: Option<u64>) -> Vec<(Origin, CommandReply)> {
        let Some(flight) = &mut self.in_flight else { return Vec::new() };
        let done = match flight.settling {
            Settling::At(last) => index >= last,
            Settling::Applied => false,
            Settling::No => nonce == Some(flight.nonce),
            Settling::Before if nonce == Some(flight.nonce) => {
                flight.settling = Settling::Applied;
                false
            }
            Settling::Before => false,
        };
        if done {
            let Some(flight) = self.in_flight.take() else { return Vec::new() };
            for work in flight.again {
                self.push(now, work, Duration::ZERO);
            }
            return flight.answers;
        }
        let lost = matches!(flight.settling, Settling::No | Settling::Before) && flight.index <= index;
        if lost {
            self.not_proposed(now, Duration::ZERO);
        }
        Vec::new()
    }

    /// Whether a change of the members waits for an entry after it.
    pub fn is_unsettled(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|flight| flight.settling == Settling::Applied)
    }

    /// That entry has this index.
    pub fn settles_at(&mut self, index: u64) {
        if let Some(flight) = &mut self.in_flight {
            flight.settling = Settling::At(index);
        }
    }

    /// Lets a monitor vote that has caught up; once at a time.
    pub fn promote(&mut self, now: Instant, raft_id: u64) {
        let known = |work: &Work| matches!(work, Work::Promote(_));
        let flying = self.in_flight.as_ref().is_some_and(|flight| flight.work.iter().any(known));
        if !flying && !self.queue.iter().any(known) {
            self.push(now, Work::Promote(raft_id), Duration::ZERO);
        }
    }

    pub fn log(&mut self, now: Instant, wall_ms: u64, text: &str) {
        let level = nacre_wire::messages::LogLevel::Info as i32;
        let line = LogLine { seq: 0, at_ms: wall_ms, who: "mon".into(), level, text: text.into() };
        self.push(now, Work::Log(vec![line]), Duration::ZERO);
    }

    /// Whoever waits for an answer.
    pub fn origins(self) -> Vec<Origin> {
        let work = self.queue.into_iter().chain(self.in_flight.into_iter().flat_map(|flight| flight.work));
        let queued = work.filter_map(|work| match work {
            Work::Command(command) => Some(command.origin),
            _ => None,
        });
        let reads = self.reads.into_iter().map(|read| read.work.origin);
        queued.chain(reads).chain(self.signing.into_iter().map(|(_, work)| work.origin)).collect()
    }

    fn carry_out(&mut self, draft: &mut Draft<'_>, frame: &Frame<'_>, work: &Work, flight: &mut InFlight) {
        match work {
            Work::Boot(boot) => {
                let booted = osd_work::boot(draft, boot);
                if booted == osd_work::Booted::GoesDownFirst {
                    flight.again.push(work.clone());
                }
                let refused = if let osd_work::Booted::Refused(why) = booted { Some(why) } else { None };
                let address = boot.address.chars().take(256).collect();
                let asked = BootAsked { at: frame.now, address, refused };
                self.memory.boots.insert(OsdId(boot.osd), asked);
            }
            Work::Alive(alive) => osd_work::alive(draft, alive),
            Work::Stopping(stopping) => osd_work::stopping(draft, stopping),
            Work::PgTemp(wants) => osd_work::pg_temp(draft, wants),
            Work::Failed { osd, instance, why } => osd_work::failed(draft, *osd, *instance, why),
            Work::Log(lines) => lines.iter().for_each(|line| draft.log_line(line.clone())),
            Work::Promote(raft_id) => osd_work::promote(draft, *raft_id),
            Work::Command(command) => {
                let context = frame.command_context(&self.memory, command);
                let Handler::Change(handler) = command.parsed.handler else { return };
                let mark = draft.mark();
                let result = handler(draft, &context, &command.parsed.args);
                if result.is_err() {
                    draft.back_to(mark);
                } else if !UNLOGGED.contains(&command.parsed.prefix) {
                    let said: String = command.parsed.args.describe().chars().take(1_000).collect();
                    let text = format!("{} did '{}'{said}", command.entity, command.parsed.prefix);
                    draft.log(nacre_wire::messages::LogLevel::Info, "audit", text);
                }
                let reply = commands::reply_of(result);
                draft.answer(&command.entity.to_string(), command.request, reply.clone());
                flight.answers.push((command.origin.clone(), reply));
            }
        }
    }

    pub fn check(&self) {
        if let Some(flight) = &self.in_flight {
            let commands = flight.work.iter().filter(|work| matches!(work, Work::Command(_))).count();
            assert_eq!(commands, flight.answers.len(), "every command has an answer");
        }
    }
}

fn changes_members(work: &Work) -> bool {
    match work {
        Work::Promote(_) => true,
        Work::Command(command) => matches!(command.parsed.prefix, "mon add" | "mon rm"),
        _ => false,
    }
}

/// What the leader needs to know while it writes a batch.
pub(crate) struct Frame<'a> {
    pub now: Instant,
    pub wall_ms: u64,
    pub quorum: commands::QuorumView,
    pub version: &'a str,
    pub me: &'a EntityName,
}

impl<'a> Frame<'a> {
    pub fn command_context(&'a self, memory: &'a Memory, command: &'a CommandWork) -> Context<'a> {
        Context {
            now: self.now,
            memory,
            quorum: self.quorum.clone(),
            version: self.version,
            entity: &command.entity,
            cert_pem: command.cert_pem.as_deref(),
        }
    }
}
