//! The clocks behind the machines: monotonic time since the driver's start for what they decide, wall time for what they
//! show.

use nacre_types::Instant;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// One driver's time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { start: std::time::Instant::now() }
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> Instant {
        Instant(self.start.elapsed().as_nanos() as u64)
    }

    /// When tokio's clock shows `deadline`. Its timers have a grain of a millisecond, rounded up.
    pub fn at(&self, deadline: Instant) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.start + Duration::from_nanos(deadline.0.min(FAR.0)))
    }

    /// Milliseconds since 1970; 0 if the host's clock is before that.
    pub fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

/// As far as a deadline is taken seriously: a hundred years.
const FAR: Instant = Instant(100 * 365 * 86_400 * 1_000_000_000);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_and_far_deadlines_do_not_overflow() {
        let clock = Clock::start();
        let before = clock.now();
        assert!(clock.now() >= before);
        assert!(clock.at(Instant::MAX) > clock.at(Instant::ZERO));
        assert!(clock.wall_ms() > 1_600_000_000_000);
    }
}
