//! Which operations on one object must not overtake each other.

use nacre_wire::op::{ObjectOp, ObjectOpKind};

/// The part of an object that a request reads or writes. Attributes and omap count as all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Footprint {
    mutates: bool,
    start: u64,
    end: u64,
}

impl Footprint {
    /// `None` for requests that order means nothing to: watching and notifying.
    pub(crate) fn of(ops: &[ObjectOp]) -> Option<Footprint> {
        use ObjectOpKind::*;
        let mut all: Option<Footprint> = None;
        for kind in ops.iter().filter_map(|op| op.kind.as_ref()) {
            let (start, end) = match kind {
                Watch(_) | Notify(_) | NotifyAck(_) | AssertLocked(_) => continue,
                Read(e) | Write(e) | Zero(e) | Compare(e) | MapExtents(e) => {
                    (e.offset, e.offset.saturating_add(e.length))
                }
                _ => (0, u64::MAX),
            };
            let mutates = kind.is_mutation();
            all = Some(match all {
                None => Footprint { mutates, start, end },
                Some(f) => Footprint {
                    mutates: f.mutates || mutates,
                    start: f.start.min(start),
                    end: f.end.max(end),
                },
            });
        }
        all
    }

    pub(crate) fn conflicts(&self, other: &Footprint) -> bool {
        (self.mutates || other.mutates) && self.start < other.end && other.start < self.end
    }
}
