//! Waits for RocksDB's flushes on a thread of its own and tells the reactor.
//!
//! A flush is started on the reactor without waiting: that seals the memtable, so what it covers is exactly what was
//! written before. Nothing else seals memtables, so the flush has ended when no sealed one is left; it has failed when
//! RocksDB counts a new background error. RocksDB may try again by itself then: not so the store, which must not take a
//! late success for what it asked.

use nacre_store::KvError;
use rocksdb::{DB, properties};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tokio::sync::mpsc as reactor;

/// Between two looks at a flush under way. A flush takes milliseconds at least, most of it syncing.
const LOOK_EVERY: Duration = Duration::from_micros(500);

/// The end of one flush.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KvFlushed {
    pub token: u64,
    pub result: Result<(), KvError>,
}

/// The reactor's end: which flushes have ended.
pub struct KvFlushes {
    ended: reactor::UnboundedReceiver<KvFlushed>,
}

impl KvFlushes {
    /// Waits for the end of a flush; for ever if the database is gone. Cancel-safe.
    pub async fn next_flushed(&mut self) -> KvFlushed {
        match self.ended.recv().await {
            Some(flushed) => flushed,
            None => std::future::pending().await,
        }
    }

    pub fn try_flushed(&mut self) -> Option<KvFlushed> {
        self.ended.try_recv().ok()
    }
}

/// A flush that has been started.
struct Started {
    token: u64,
    /// What starting it said.
    result: Result<(), KvError>,
}

/// The database's end. Dropping it waits for the thread.
pub(super) struct Flusher {
    started: Option<mpsc::Sender<Started>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(db: Arc<DB>, path: PathBuf) -> std::io::Result<(Flusher, KvFlushes)> {
        let (started, jobs) = mpsc::channel::<Started>();
        // Unbounded, but the store has at most one flush under way.
        let (report, ended) = reactor::unbounded_channel();
        let work = move || {
            let mut failure = None;
            for Started { token, result } in jobs {
                let result = match &failure {
                    Some(failure) => Err(KvError::clone(failure)),
                    None => result.and_then(|()| wait(&db, &path)),
                };
                failure = result.as_ref().err().cloned();
                // Nobody listens any more when the reactor has ended.
                let _ = report.send(KvFlushed { token, result });
            }
        };
        let thread = thread::Builder::new().name("kv-flush".into()).spawn(work)?;
        Ok((Flusher { started: Some(started), thread: Some(thread) }, KvFlushes { ended }))
    }

    pub(super) fn wait_for(&self, token: u64, result: Result<(), KvError>) {
        let started = self.started.as_ref().expect("there until dropped");
        // The thread ends only after `self` or by a panic, which the missing report turns into a dead store.
        let _ = started.send(Started { token, result });
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.started = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn wait(db: &DB, path: &std::path::Path) -> Result<(), KvError> {
    let failed = |reason: String| KvError(format!("{}: flush: {reason}", path.display()));
    let count = |name| match db.property_int_value(name) {
        Ok(Some(count)) => Ok(count),
        Ok(None) => Err(failed("RocksDB does not report its state".into())),
        Err(error) => Err(failed(error.into_string())),
    };
    loop {
        if count(properties::BACKGROUND_ERRORS)? > 0 {
            return Err(failed("a background error; see LOG in that directory".into()));
        }
        if count(properties::NUM_IMMUTABLE_MEM_TABLE)? == 0 {
            return Ok(());
        }
        thread::sleep(LOOK_EVERY);
    }
}
