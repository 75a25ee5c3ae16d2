//! What clients do: reads, writes, appends, conditional writes and removals of a few objects, all of it in the history.

pub mod compound;
pub mod filler;
pub mod image;
pub mod listings;
pub mod snapshots;
pub mod watches;

use crate::checkers::history::{Action, Answer, Content, History};
use crate::executor::Clock;
use bytes::Bytes;
use nacre_client::{Cluster, OpError, Pool};
use nacre_store::testing::PASSING;
use nacre_types::{Instant, Rng};
use nacre_wire::ErrorCode;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

pub type Shared = Rc<RefCell<History>>;

/// After so long an operation's outcome counts as unknown.
const PATIENCE: Duration = Duration::from_secs(20);

/// Of a client's tasks every second waits for as long as it takes: that an answer comes at last is for these to see.
pub fn patience(task: usize) -> Option<Duration> {
    task.is_multiple_of(2).then_some(PATIENCE)
}

/// What every task has: a client of the cluster to work with for a while, and where to tell what it saw.
pub struct Worker {
    /// Tells it from others in the history: its client's number, or one that is only this task's.
    pub number: usize,
    pub cluster: Cluster,
    pub pool: &'static str,
    pub clock: Clock,
    pub history: Shared,
    pub rng: Rng,
    pub think: Duration,
    pub until: Instant,
}

impl Worker {
    /// The pool, where each operation is waited for so long; `None` for as long as it takes.
    pub async fn pool(&self, patience: Option<Duration>) -> Result<Pool, OpError> {
        Ok(self.cluster.pool(self.pool).await?.with_timeout(patience))
    }

    /// Whether there is time for more.
    pub fn is_on(&self) -> bool {
        self.clock.now() < self.until
    }

    /// Thinks: up to so many times as long as `think` says.
    pub async fn pause(&mut self, most: f64) {
        let pause = self.think.mul_f64(most * self.rng.below(1000) as f64 / 1000.0);
        self.clock.sleep(pause).await;
    }

    pub fn complain(&self, what: String) {
        self.history.borrow_mut().complain(what);
    }

    /// Does the work; what went wrong with it goes into the history.
    pub async fn complaining(history: Shared, what: String, work: impl Future<Output = Result<(), String>>) {
        if let Err(why) = work.await
            // For half a minute the disk of the only copy that could be asked gave no answer: to say so is right.
            && !why.contains(PASSING)
        {
            history.borrow_mut().complain(format!("{what}: {why}"));
        }
    }
}

/// One task's share of the work.
pub struct Task {
    pub worker: Worker,
    pub objects: usize,
    pub units: Units,
    pub patience: Option<Duration>,
}

pub fn object_name(at: usize) -> String {
    format!("object-{at}")
}

impl Task {
    pub async fn run(mut self) {
        let Ok(pool) = self.worker.pool(self.patience).await else { return };
        while self.worker.is_on() {
            let object = object_name(self.worker.rng.below(self.objects as u64) as usize);
            let action = self.choose();
            self.perform(&pool, &object, action).await;
            self.worker.pause(2.0).await;
        }
    }

    fn choose(&mut self) -> Action {
        let id = self.worker.history.borrow_mut().fresh_id();
        match self.worker.rng.below(100) {
            0..40 => Action::Read,
            40..65 => Action::WriteFull(id),
            65..85 => Action::Append(id),
            85..93 => {
                // Sometimes right, often wrong: ids are handed out in order, from 1 (absent bytes compare as zeros).
                let expected = self.worker.rng.range(id.saturating_sub(20).max(1), id.max(2));
                Action::CompareAndWrite { expected, id }
            }
            _ => Action::Remove,
        }
    }

    async fn perform(&mut self, pool: &Pool, object: &str, action: Action) {
        let now = self.worker.clock.now();
        let invocation =
            self.worker.history.borrow_mut().invoke(self.worker.number, object, now, action.clone());
        let answer = self.units.perform(pool, object, &action).await;
        self.worker.history.borrow_mut().answer(&invocation, self.worker.clock.now(), answer);
    }
}

/// How ids become bytes: each fills a unit.
#[derive(Clone, Copy, Debug)]
pub struct Units(pub usize);

/// More than any object has.
const READ_BYTES: u64 = 4 << 20;

impl Units {
    /// Carries out one action and says what came of it.
    pub async fn perform(self, pool: &Pool, object: &str, action: &Action) -> Answer {
        let object = pool.object(object);
        let result = match action {
            Action::Read => match object.read(0, READ_BYTES).await {
                Ok(bytes) => return Answer::Content(Some(self.decode(&bytes))),
                Err(error) if error.code == ErrorCode::NotFound => return Answer::Content(None),
                Err(error) => Err(error),
            },
            Action::WriteFull(id) => object.write_full(self.encode(*id)).await,
            Action::Append(id) => object.append(self.encode(*id)).await,
            Action::CompareAndWrite { expected, id } => {
                object.compare_and_write(0, self.encode(*expected), self.encode(*id)).await
            }
            Action::Remove => object.remove().await,
        };
        match result {
            Ok(()) => Answer::Done,
            Err(error) => match error.code {
                ErrorCode::NotFound => Answer::NotFound,
                ErrorCode::Canceled => Answer::Mismatch,
                _ => Answer::Unknown,
            },
        }
    }

    fn encode(self, id: u64) -> Bytes {
        id.to_le_bytes().repeat(self.0 / 8).into()
    }

    /// Bytes nobody wrote show as an id nobody wrote.
    fn decode(self, bytes: &[u8]) -> Content {
        let id = |unit: &[u8]| {
            let id: [u8; 8] = unit.get(..8).and_then(|first| first.try_into().ok()).unwrap_or([0xee; 8]);
            let intact = unit.len() == self.0 && unit.chunks(8).all(|word| word == id);
            if intact { u64::from_le_bytes(id) } else { u64::MAX }
        };
        bytes.chunks(self.0).map(id).collect()
    }
}
