//! Where the time of measured operations goes.
//!
//! ```text
//!  client: queue, retries | network | OSD: pg, lock, recovery, read | own journal: queue, write, flush     | network
//!                                                                   | or a replica: network, queue, write, flush
//! ```
//!
//! Clients mark one operation in many; the others cost one branch at each place that would measure them. A [`Stopwatch`]
//! is in exactly one [`Part`] at any time, so the parts of an operation add up to all of its time here. A write waits
//! for all members at once: its wait counts as the parts of the member that committed last, and what the others took is
//! kept beside that, to compare members. Durations come from one clock each; a replica tells its own.

mod answers;
mod journal;
mod log;
#[cfg(test)]
mod tests;
mod writes;

pub(crate) use journal::{JournalClock, JournalTimes};
pub(crate) use log::StageLog;
pub(crate) use writes::{MeasuredWrite, MeasuredWrites};

use nacre_types::{Instant, Needs, OsdId};

/// What an operation's time on its primary is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The PG to be active, writeable, and to hold its lease.
    Pg,
    /// Earlier operations on the object.
    Lock,
    /// The object to be recovered, backfilled or scrubbed.
    Recovery,
    /// The disk to read.
    Read,
    /// Commits of which nothing more is known: a request that came twice.
    Commit,
    /// This OSD was last to commit: waiting for the journal's turn, its writing, its flush.
    JournalQueue,
    JournalWrite,
    JournalFlush,
    /// A replica was: the way there and back, and the same on it.
    ReplicaNetwork,
    ReplicaQueue,
    ReplicaWrite,
    ReplicaFlush,
}

impl Part {
    pub const ALL: [Part; 12] = [
        Part::Pg,
        Part::Lock,
        Part::Recovery,
        Part::Read,
        Part::Commit,
        Part::JournalQueue,
        Part::JournalWrite,
        Part::JournalFlush,
        Part::ReplicaNetwork,
        Part::ReplicaQueue,
        Part::ReplicaWrite,
        Part::ReplicaFlush,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Part::Pg => "pg",
            Part::Lock => "lock",
            Part::Recovery => "recovery",
            Part::Read => "read",
            Part::Commit => "commit",
            Part::JournalQueue => "journal_queue",
            Part::JournalWrite => "journal_write",
            Part::JournalFlush => "journal_flush",
            Part::ReplicaNetwork => "replica_network",
            Part::ReplicaQueue => "replica_queue",
            Part::ReplicaWrite => "replica_write",
            Part::ReplicaFlush => "replica_flush",
        }
    }

    /// What a queued operation's wait is for.
    fn of(needs: &Needs) -> Part {
        match needs {
            Needs::Turn | Needs::EarlierOperations | Needs::EarlierWrites => Part::Lock,
            Needs::ActivePg { .. }
            | Needs::Members { .. }
            | Needs::EarlierLease { .. }
            | Needs::Lease(_)
            | Needs::Flag(_) => Part::Pg,
            _ => Part::Recovery,
        }
    }
}

/// What one member took for a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberTimes {
    pub osd: OsdId,
    /// From submission until the primary knew it durable there.
    pub total_ns: u64,
    /// Of that, by its own account. All zero where it gave none.
    pub own: JournalTimes,
}

/// Measures one operation.
#[derive(Clone, Debug)]
pub(crate) struct Stopwatch {
    weight: u32,
    now_in: Part,
    since: Instant,
    spent_ns: [u64; Part::ALL.len()],
    /// In the order they committed.
    members: Vec<MemberTimes>,
}

impl Stopwatch {
    /// For a request that a client had marked to stand for so many.
    pub fn start(weight: u32, now: Instant) -> Option<Box<Stopwatch>> {
        (weight > 0).then(|| {
            let spent_ns = [0; Part::ALL.len()];
            Box::new(Stopwatch { weight, now_in: Part::Lock, since: now, spent_ns, members: Vec::new() })
        })
    }

    /// What came until now was for the part it was in; from now on it is in that one.
    pub fn turn(&mut self, now: Instant, next: Part) {
        self.spent_ns[self.now_in as usize] += now.since(self.since).as_nanos() as u64;
        (self.now_in, self.since) = (next, now);
    }

    /// A queued operation waits for that.
    pub fn waits(&mut self, now: Instant, needs: &Needs) {
        self.turn(now, Part::of(needs));
    }

    /// All members have committed the write: the wait for it is the last one's.
    pub fn committed(&mut self, me: OsdId, now: Instant, write: MeasuredWrite) {
        self.members = write.members;
        let waited = now.since(self.since).as_nanos() as u64;
        (self.now_in, self.since) = (Part::Commit, now);
        let Some(last) = self.members.last() else {
            self.spent_ns[Part::Commit as usize] += waited;
            return;
        };
        let (rest, parts) = match last.osd == me {
            true => (Part::JournalQueue, [Part::JournalQueue, Part::JournalWrite, Part::JournalFlush]),
            false => (Part::ReplicaNetwork, [Part::ReplicaQueue, Part::ReplicaWrite, Part::ReplicaFlush]),
        };
        // A member's word is not taken for more than there is.
        let mut left = waited;
        for (part, ns) in parts.into_iter().zip([last.own.queue_ns, last.own.write_ns, last.own.flush_ns]) {
            let ns = ns.min(left);
            self.spent_ns[part as usize] += ns;
            left -= ns;
        }
        self.spent_ns[rest as usize] += left;
    }
}
