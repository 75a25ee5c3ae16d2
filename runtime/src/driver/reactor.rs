//! What all drivers share: the runtime a reactor lives on, the timer of its machine, logging.

use crate::clock::Clock;
use nacre_types::Instant;
use nacre_wire::messages::LogLevel;
use std::future::Future;
use std::io;
use std::pin::Pin;
use tokio::runtime::LocalOptions;
use tokio::time::Sleep;

/// Turns that find work before other tasks of the thread (the messenger's among them) get theirs.
pub(super) const TURNS_IN_A_ROW_MAX: u32 = 8;

/// How a driver has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    pub reason: String,
    /// Not in order: the process should exit with an error.
    pub failed: bool,
}

impl Ended {
    pub(super) fn failed(reason: String) -> Ended {
        Ended { reason, failed: true }
    }
}

/// Runs a reactor on the calling thread until `work` ends. Everything of a daemon happens inside.
///
/// One queue for all tasks, quinn's and ours: a `LocalSet` inside the runtime would look at the sockets once more
/// whenever one of them wakes the other.
pub fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    Ok(runtime.block_on(work))
}

/// A sleep until the machine's next deadline, kept over turns because deadlines seldom change.
pub(super) struct Alarm {
    clock: Clock,
    deadline: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
}

impl Alarm {
    pub(super) fn new(clock: Clock) -> Alarm {
        let sleep = Box::pin(tokio::time::sleep_until(clock.at(Instant::ZERO)));
        Alarm { clock, deadline: None, sleep }
    }

    /// Ready once `deadline` has passed; never for none. Cancel-safe.
    pub(super) async fn wait(&mut self, deadline: Option<Instant>) {
        let Some(at) = deadline else { return std::future::pending().await };
        if self.deadline != deadline {
            self.deadline = deadline;
            self.sleep.as_mut().reset(self.clock.at(at));
        }
        self.sleep.as_mut().await;
        // A sleep must not be polled again once it has ended.
        self.deadline = None;
    }
}

pub(super) fn log(level: LogLevel, text: &str) {
    match level {
        LogLevel::Debug => tracing::debug!("{text}"),
        LogLevel::Info => tracing::info!("{text}"),
        LogLevel::Warning => tracing::warn!("{text}"),
        LogLevel::Error => tracing::error!("{text}"),
    }
}
