//! The thrasher: a cluster of real processes in network namespaces of their own, faults within what it promises to bear, and
//! work whose every acknowledgement is checked.
//!
//! ```text
//!   bridge (its own namespace)
//!     ├─ mon.a  mon.b  mon.c
//!     ├─ osd.0 … osd.N                     each a namespace with its address and nftables rules
//!     └─ client: nacre nbd serve, nacre object put|get
//!          └─ UNIX socket ── fio --verify, and a writer of numbered blocks
//! ```
//!
//! One fault at a time hurts an OSD and one a monitor, so that `min_size` copies and a quorum stay; every PG is clean again before
//! the next OSD suffers. At the end everything heals, and then: clean in bounded time, deep scrub, every object and block is what
//! was acknowledged, every store passes fsck.

mod fault;
mod net;
mod node;
mod objects;
mod run;

pub use run::{Options, run};

use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn interrupt(_signal: libc::c_int) {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Makes ctrl-c and `kill` end the run in order: what was made is cleaned up.
#[allow(unsafe_code)]
pub fn catch_interrupts() {
    let handler = interrupt as extern "C" fn(libc::c_int) as libc::sighandler_t;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler stores one atomic, which is allowed in a signal handler.
        unsafe { libc::signal(signal, handler) };
    }
}

/// Fails once the run was interrupted.
pub fn check_interrupted() -> anyhow::Result<()> {
    anyhow::ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

/// Numbers from a seed (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound.max(1)
    }

    pub fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from)
    }

    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}
