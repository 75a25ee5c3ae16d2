//! Lines about peers' misbehaviour, few enough that misbehaving peers cannot fill a disk with them.

use std::cell::Cell;
use std::time::{Duration, Instant};

const PERIOD: Duration = Duration::from_secs(1);
const LINES_PER_PERIOD: u32 = 3;

#[derive(Default)]
pub(super) struct LogLimit {
    period_start: Cell<Option<Instant>>,
    lines: Cell<u32>,
    suppressed: Cell<u64>,
}

impl LogLimit {
    pub fn warn(&self, line: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.period_start.get().is_none_or(|start| now.duration_since(start) >= PERIOD) {
            let suppressed = self.suppressed.replace(0);
            if suppressed > 0 {
                tracing::warn!("{suppressed} more messages about peers were left out");
            }
            self.period_start.set(Some(now));
            self.lines.set(0);
        }
        if self.lines.get() < LINES_PER_PERIOD {
            self.lines.set(self.lines.get() + 1);
            tracing::warn!("{}", line());
        } else {
            self.suppressed.set(self.suppressed.get() + 1);
        }
    }
}
