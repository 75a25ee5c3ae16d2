//! Brings changes to RocksDB on a thread of its own, flushes them, and tells the reactor.
//!
//! The reactor hands changes over as they are and goes on. Nothing else writes or flushes meanwhile, so a flush covers
//! exactly what was handed over before. After a flush that failed every later one fails: RocksDB may try again by itself,
//! and the store must not take a late success for what it asked.

use nacre_store::{Changes, KvError};
use rocksdb::{DB, FlushOptions, WriteBatch, WriteOptions, properties};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use tokio::sync::mpsc as reactor;

/// Ranges with more keys than this are deleted by one range tombstone, which slows down later reads of its neighbourhood;
/// smaller ones key by key.
const DELETED_SINGLY_MAX: usize = 64;

/// Changes are written in pieces of this size.
const PIECE_BYTES: usize = 128 << 10;

const NICE: i32 = 10;

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

enum Job {
    Flush {
        token: u64,
        changes: Arc<Changes>,
    },
    /// Frees what was flushed: tens of thousands of keys.
    Release(Arc<Changes>),
    /// Flushes what was written, and answers here.
    Sync(mpsc::SyncSender<Result<(), KvError>>),
}

/// The database's end. Dropping it waits for the thread.
pub(super) struct Flusher {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flusher {
    pub(super) fn start(db: Arc<DB>, path: PathBuf) -> std::io::Result<(Flusher, KvFlushes)> {
        let (sender, jobs) = mpsc::channel::<Job>();
        // Unbounded, but the store has at most one flush under way.
        let (report, ended) = reactor::unbounded_channel();
        let work = move || {
            // Behind the reactors where processors are short. Without the right to do that it works as well.
            let _ = rustix::process::setpriority_process(None, NICE);
            let mut database = Database { db, path, failure: None };
            for job in jobs {
                match job {
                    Job::Flush { token, changes } => {
                        let result = database.flush(Some(&changes));
                        // The reactor has its own, and gives it back when it looks nothing up there any more.
                        drop(changes);
                        // Nobody listens any more when the reactor has ended.
                        let _ = report.send(KvFlushed { token, result });
                    }
                    Job::Release(changes) => drop(changes),
                    Job::Sync(answer) => drop(answer.send(database.flush(None))),
                }
            }
        };
        let thread = thread::Builder::new().name("kv-flush".into()).spawn(work)?;
        Ok((Flusher { jobs: Some(sender), thread: Some(thread) }, KvFlushes { ended }))
    }

    pub(super) fn flush(&self, token: u64, changes: Arc<Changes>) {
        self.send(Job::Flush { token, changes });
    }

    pub(super) fn release(&self, changes: Arc<Changes>) {
        self.send(Job::Release(changes));
    }

    /// Waits for what was asked before, flushes, and waits for that.
    pub(super) fn sync(&self) -> Result<(), KvError> {
        let (answer, result) = mpsc::sync_channel(1);
        self.send(Job::Sync(answer));
        result.recv().unwrap_or_else(|_| Err(KvError("the thread that flushes has died".into())))
    }

    fn send(&self, job: Job) {
        // The thread ends only after `self` or by a panic, which the missing report turns into a dead store.
        let _ = self.jobs.as_ref().expect("there until dropped").send(job);
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// No write-ahead log: what is not flushed is lost with the process.
pub(super) fn write_options() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    options
}

/// Deletes the keys of `[first, end)`, one by one if they are few.
pub(super) fn delete_range(
    db: &DB,
    batch: &mut WriteBatch,
    first: &[u8],
    end: &[u8],
) -> Result<(), rocksdb::Error> {
    let mut options = rocksdb::ReadOptions::default();
    options.set_iterate_upper_bound(end);
    let mut cursor = db.raw_iterator_opt(options);
    cursor.seek(first);
    let mut keys = Vec::new();
    while let Some(key) = cursor.key() {
        if keys.len() == DELETED_SINGLY_MAX {
            batch.delete_range(first, end);
            return Ok(());
        }
        keys.push(key.to_vec());
        cursor.next();
    }
    cursor.status()?;
    keys.iter().for_each(|key| batch.delete(key));
    Ok(())
}

struct Database {
    db: Arc<DB>,
    path: PathBuf,
    failure: Option<KvError>,
}

impl Database {
    fn flush(&mut self, changes: Option<&Changes>) -> Result<(), KvError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let failed = |reason: String| KvError(format!("{}: flush: {reason}", self.path.display()));
        let written = changes.map_or(Ok(()), |changes| self.write(changes)).and_then(|()| {
            let mut options = FlushOptions::default();
            options.set_wait(true);
            self.db.flush_opt(&options)
        });
        let errors = self.db.property_int_value(properties::BACKGROUND_ERRORS);
        let result = match (written, errors) {
            (Ok(()), Ok(Some(0))) => Ok(()),
            (Ok(()), Ok(Some(_))) => Err(failed("a background error; see LOG in that directory".into())),
            (Ok(()), Ok(None)) => Err(failed("RocksDB does not report its state".into())),
            (Err(error), _) | (_, Err(error)) => Err(failed(error.into_string())),
        };
        self.failure = result.as_ref().err().cloned();
        result
    }

    /// In the order of the keys: into an empty memtable that costs least. In pieces, which stay in the processor's
    /// caches: only the flush makes them durable, and until then the store knows what it handed over.
    fn write(&self, changes: &Changes) -> Result<(), rocksdb::Error> {
        let options = write_options();
        let mut batch = WriteBatch::with_capacity_bytes(PIECE_BYTES + PIECE_BYTES / 2);
        for (first, end) in changes.ranges().iter() {
            delete_range(&self.db, &mut batch, first, end)?;
        }
        for (key, value) in changes.keys() {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
            if batch.size_in_bytes() > PIECE_BYTES {
                self.db.write_opt(std::mem::take(&mut batch), &options)?;
            }
        }
        self.db.write_opt(batch, &options)
    }
}
