//! Which flush waits for which writes.
//!
//! Writes belong to the group that is open when they are emitted; a flush closes it. A flush may start once no write of
//! its group or of an earlier one is outstanding. Writes after it wait for nothing.
//!
//! ```text
//!  W1 W2 F1 | W3 F2 | W4 ...        F1 starts when W1 and W2 are done; F2 when W1..W3 are; W4 starts at once
//! ```

use std::collections::VecDeque;

/// Names a group for as long as the ring lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct GroupId(u64);

#[derive(Default)]
struct Group {
    writes_outstanding: usize,
    writes_total: usize,
    /// The token of the flush that closed it.
    flush: Option<u64>,
}

pub(super) struct Barrier {
    /// The last one is open, all others are closed by their flush.
    groups: VecDeque<Group>,
    first: u64,
}

impl Barrier {
    pub(super) fn new() -> Barrier {
        Barrier { groups: VecDeque::from([Group::default()]), first: 0 }
    }

    pub(super) fn add_write(&mut self) -> GroupId {
        let group = self.groups.back_mut().expect("one group is always open");
        group.writes_outstanding += 1;
        group.writes_total += 1;
        GroupId(self.first + self.groups.len() as u64 - 1)
    }

    pub(super) fn add_flush(&mut self, token: u64) {
        self.groups.back_mut().expect("one group is always open").flush = Some(token);
        self.groups.push_back(Group::default());
    }

    pub(super) fn write_ended(&mut self, id: GroupId) {
        assert!(id.0 >= self.first, "a group outlives its writes");
        let group = &mut self.groups[(id.0 - self.first) as usize];
        assert!(group.writes_outstanding > 0, "a write ends once");
        group.writes_outstanding -= 1;
    }

    /// Whether making this one write durable is all that the next flush has to do.
    pub(super) fn flushes_only(&self, id: GroupId) -> bool {
        let group = &self.groups[0];
        id.0 == self.first && group.writes_total == 1 && group.flush.is_some()
    }

    /// Whether a flush may start now.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.groups.front(), Some(Group { writes_outstanding: 0, flush: Some(_), .. }))
    }

    /// The flushes that may start now, all of them served by one `fdatasync`.
    pub(super) fn take_ready(&mut self) -> Vec<u64> {
        let mut ready = Vec::new();
        while let Some(&Group { writes_outstanding: 0, flush: Some(token), .. }) = self.groups.front() {
            self.groups.pop_front();
            self.first += 1;
            ready.push(token);
        }
        ready
    }

    /// The flushes that the end of a durable write has let through: its own, and those right behind it that have no
    /// writes of their own. (Other writes may have ended meanwhile; they were not written durably.)
    pub(super) fn take_flushed(&mut self) -> Vec<u64> {
        let mut flushed = Vec::new();
        while let Some(&Group { writes_outstanding: 0, writes_total, flush: Some(token) }) =
            self.groups.front()
        {
            if writes_total > 0 && !flushed.is_empty() {
                break;
            }
            self.groups.pop_front();
            self.first += 1;
            flushed.push(token);
        }
        flushed
    }
}
