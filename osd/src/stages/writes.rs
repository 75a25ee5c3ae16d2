//! A PG's measured writes under way: on the primary until all members have committed, on a replica until it has.

use super::{JournalClock, JournalTimes, MemberTimes};
use crate::log::{decode_version, encode_version};
use nacre_types::{EVersion, Instant, OsdId};
use nacre_wire::stages::ReplicaTimes;
use std::collections::VecDeque;

/// On the primary.
#[derive(Clone, Debug)]
pub(crate) struct MeasuredWrite {
    version: EVersion,
    submitted: Instant,
    /// Who has committed, in that order.
    pub(super) members: Vec<MemberTimes>,
}

/// Of one interval. Empty for nearly all writes, and then nothing here does anything.
#[derive(Debug, Default)]
pub(crate) struct MeasuredWrites {
    /// Oldest first.
    leading: VecDeque<MeasuredWrite>,
    /// On a replica: the versions, and when they came.
    following: VecDeque<(EVersion, Instant)>,
}

impl MeasuredWrites {
    pub fn clear(&mut self) {
        self.leading.clear();
        self.following.clear();
    }

    /// Primary: a measured write is about to be submitted.
    pub fn lead(&mut self, version: EVersion, now: Instant) {
        self.leading.push_back(MeasuredWrite { version, submitted: now, members: Vec::new() });
    }

    pub fn leads(&self, version: EVersion) -> bool {
        self.leading.iter().any(|write| write.version == version)
    }

    /// Primary: it is durable here up to `version`.
    pub fn own_commit(&mut self, me: OsdId, version: EVersion, now: Instant, journal: &JournalClock) {
        for write in until(&mut self.leading, version) {
            let own = journal.times(write.submitted, now);
            write.note(me, now, own);
        }
    }

    /// Primary: up to `version` it is durable on a replica, by whose account it took those times.
    pub fn acknowledged(&mut self, from: OsdId, version: EVersion, now: Instant, told: &[ReplicaTimes]) {
        for write in until(&mut self.leading, version) {
            let told = told.iter().find(|times| decode_version(times.version) == write.version);
            let own = told.map(|t| JournalTimes {
                queue_ns: t.queue_ns,
                write_ns: t.write_ns,
                flush_ns: t.flush_ns,
            });
            write.note(from, now, own.unwrap_or_default());
        }
    }

    /// Primary: all have committed that version.
    pub fn take(&mut self, version: EVersion) -> Option<MeasuredWrite> {
        self.leading.pop_front_if(|write| write.version == version)
    }

    /// Replica: a measured write came.
    pub fn follow(&mut self, version: EVersion, now: Instant) {
        self.following.push_back((version, now));
    }

    /// Replica: what is durable up to `version` now, one after the other.
    pub fn durable(
        &mut self,
        version: EVersion,
        now: Instant,
        journal: &JournalClock,
    ) -> Option<ReplicaTimes> {
        let (version, came) = self.following.pop_front_if(|(of, _)| *of <= version)?;
        let JournalTimes { queue_ns, write_ns, flush_ns } = journal.times(came, now);
        Some(ReplicaTimes { version: encode_version(version), queue_ns, write_ns, flush_ns })
    }
}

impl MeasuredWrite {
    fn note(&mut self, osd: OsdId, now: Instant, own: JournalTimes) {
        if !self.members.iter().any(|member| member.osd == osd) {
            let total_ns = now.since(self.submitted).as_nanos() as u64;
            self.members.push(MemberTimes { osd, total_ns, own });
        }
    }
}

fn until(
    leading: &mut VecDeque<MeasuredWrite>,
    version: EVersion,
) -> impl Iterator<Item = &mut MeasuredWrite> {
    leading.iter_mut().take_while(move |write| write.version <= version)
}
