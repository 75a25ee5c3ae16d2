//! A monitor's durable state: few megabytes, every write synced, on a thread of its own so that a slow disk does not
//! keep the monitor from answering heartbeats.
//!
//! Submissions become durable in order, and their ends are reported in order. Those that queue up behind a sync share
//! the next one. After a failure nothing succeeds any more: the monitor must stop.

use super::options;
use bytes::Bytes;
use nacre_store::KvError;
use rocksdb::{DB, IteratorMode, WriteBatch, WriteOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use tokio::sync::mpsc as reactor;

/// A key with its new value, or none to delete it.
pub type MonWrite = (Vec<u8>, Option<Bytes>);

/// The most submissions that share one sync.
const SHARED_MAX: usize = 256;

/// The end of one submission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Persisted {
    pub token: u64,
    pub result: Result<(), KvError>,
}

struct Submission {
    token: u64,
    writes: Vec<MonWrite>,
}

pub struct MonStore {
    database: Arc<Database>,
    submissions: Option<mpsc::Sender<Submission>>,
    ended: reactor::UnboundedReceiver<Persisted>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Database {
    db: DB,
    path: PathBuf,
}

impl MonStore {
    /// Makes an empty one in a directory that has none.
    pub fn create(path: &Path) -> Result<MonStore, KvError> {
        if path.join("CURRENT").exists() {
            return Err(KvError(format!("{}: there is a monitor's database already", path.display())));
        }
        MonStore::open_with(path, true)
    }

    pub fn open(path: &Path) -> Result<MonStore, KvError> {
        MonStore::open_with(path, false)
    }

    fn open_with(path: &Path, create: bool) -> Result<MonStore, KvError> {
        let failed = |reason: String| KvError(format!("{}: {reason}", path.display()));
        let mut options = options::monitor();
        options.create_if_missing(create);
        let db = DB::open(&options, path).map_err(|error| failed(error.into_string()))?;
        let database = Arc::new(Database { db, path: path.into() });
        let (submissions, jobs) = mpsc::channel();
        let (report, ended) = reactor::unbounded_channel();
        let work = {
            let database = database.clone();
            move || database.work(&jobs, &report)
        };
        let thread = thread::Builder::new()
            .name("mon-store".into())
            .spawn(work)
            .map_err(|error| failed(format!("no thread: {error}")))?;
        Ok(MonStore { database, submissions: Some(submissions), ended, thread: Some(thread) })
    }

    /// Everything, in key order.
    pub fn scan_all(&self) -> Result<Vec<(Vec<u8>, Bytes)>, KvError> {
        let pairs = self.database.db.iterator(IteratorMode::Start);
        pairs
            .map(|pair| match pair {
                Ok((key, value)) => Ok((key.into_vec(), Bytes::from(value.into_vec()))),
                Err(error) => Err(self.database.failed("scan", error)),
            })
            .collect()
    }

    /// Writes atomically, waiting for it; `sync` also for the disk. Only before the monitor runs.
    pub fn write(&mut self, writes: impl IntoIterator<Item = MonWrite>, sync: bool) -> Result<(), KvError> {
        self.database.write(writes, sync)
    }

    /// Queues an atomic write. [`MonStore::next_done`] reports when it is durable.
    pub fn submit(&mut self, token: u64, writes: Vec<MonWrite>) {
        let submissions = self.submissions.as_ref().expect("there until dropped");
        // If the thread has panicked, the report stays out and the monitor never promises anything again.
        let _ = submissions.send(Submission { token, writes });
    }

    /// Cancel-safe.
    pub async fn next_done(&mut self) -> Persisted {
        match self.ended.recv().await {
            Some(persisted) => persisted,
            None => std::future::pending().await,
        }
    }

    pub fn try_done(&mut self) -> Option<Persisted> {
        self.ended.try_recv().ok()
    }
}

impl Drop for MonStore {
    fn drop(&mut self) {
        self.submissions = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Database {
    fn work(&self, jobs: &mpsc::Receiver<Submission>, report: &reactor::UnboundedSender<Persisted>) {
        let mut failure: Option<KvError> = None;
        while let Ok(first) = jobs.recv() {
            let more = jobs.try_iter().take(SHARED_MAX - 1);
            let (tokens, writes): (Vec<u64>, Vec<_>) =
                std::iter::once(first).chain(more).map(|s| (s.token, s.writes)).unzip();
            let result = match &failure {
                Some(failure) => Err(failure.clone()),
                None => self.write(writes.into_iter().flatten(), true),
            };
            failure = result.as_ref().err().cloned();
            for token in tokens {
                // Nobody listens any more when the monitor has ended.
                let _ = report.send(Persisted { token, result: result.clone() });
            }
        }
    }

    fn write(&self, writes: impl IntoIterator<Item = MonWrite>, sync: bool) -> Result<(), KvError> {
        let mut batch = WriteBatch::default();
        for (key, value) in writes {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
        }
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(|error| self.failed("write", error))
    }

    fn failed(&self, what: &str, error: rocksdb::Error) -> KvError {
        KvError(format!("{}: {what}: {}", self.path.display(), error.into_string()))
    }
}
