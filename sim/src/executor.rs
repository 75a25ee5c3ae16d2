//! Runs the workloads' futures: one thread, in the order they were woken, with timers in simulated time.

use nacre_types::Instant;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks of one simulated client.
pub struct Executor {
    tasks: BTreeMap<usize, Task>,
    next: usize,
    woken: Arc<Mutex<Vec<usize>>>,
    clock: Clock,
}

struct WakeTask {
    task: usize,
    woken: Arc<Mutex<Vec<usize>>>,
}

impl Wake for WakeTask {
    fn wake(self: Arc<Self>) {
        let mut woken = self.woken.lock().expect("one thread: never poisoned while running");
        if !woken.contains(&self.task) {
            woken.push(self.task);
        }
    }
}

impl Executor {
    pub fn new(clock: Clock) -> Executor {
        Executor { tasks: BTreeMap::new(), next: 0, woken: Arc::default(), clock }
    }

    pub fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.insert(self.next, Box::pin(task));
        self.woken.lock().expect("one thread").push(self.next);
        self.next += 1;
    }

    /// Polls every woken task until none is.
    pub fn run(&mut self, now: Instant) {
        self.clock.advance(now);
        loop {
            let batch = std::mem::take(&mut *self.woken.lock().expect("one thread"));
            if batch.is_empty() {
                return;
            }
            for id in batch {
                let Some(task) = self.tasks.get_mut(&id) else { continue };
                let waker = Waker::from(Arc::new(WakeTask { task: id, woken: self.woken.clone() }));
                if task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                    self.tasks.remove(&id);
                }
            }
        }
    }

    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    pub fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Whether some task was woken since the last run.
    pub fn has_woken(&self) -> bool {
        !self.woken.lock().expect("one thread").is_empty()
    }

    pub fn next_timer(&self) -> Option<Instant> {
        self.clock.timers.borrow().keys().next().map(|&(at, _)| at)
    }
}

/// Simulated time for tasks.
#[derive(Clone, Default)]
pub struct Clock {
    now: Rc<Cell<Instant>>,
    timers: Rc<RefCell<BTreeMap<(Instant, u64), Waker>>>,
    next: Rc<Cell<u64>>,
}

impl Clock {
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep { clock: self.clone(), until: self.now.get() + duration, registered: None }
    }

    fn advance(&self, now: Instant) {
        self.now.set(now);
        loop {
            let due = self.timers.borrow().keys().next().copied().filter(|&(at, _)| at <= now);
            let Some(key) = due else { return };
            let waker = self.timers.borrow_mut().remove(&key);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

/// See [`Clock::sleep`].
pub struct Sleep {
    clock: Clock,
    until: Instant,
    registered: Option<(Instant, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.until {
            return Poll::Ready(());
        }
        let key = self.registered.unwrap_or_else(|| {
            let number = self.clock.next.get();
            self.clock.next.set(number + 1);
            (self.until, number)
        });
        self.registered = Some(key);
        self.clock.timers.borrow_mut().insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.registered {
            self.clock.timers.borrow_mut().remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_sleep_in_simulated_time() {
        let clock = Clock::default();
        let mut executor = Executor::new(clock.clone());
        let log = Rc::new(RefCell::new(Vec::new()));
        for (name, ms) in [("late", 20), ("early", 10)] {
            let (clock, log) = (clock.clone(), log.clone());
            executor.spawn(async move {
                clock.sleep(Duration::from_millis(ms)).await;
                log.borrow_mut().push((name, clock.now()));
            });
        }
        executor.run(Instant::ZERO);
        while let Some(at) = executor.next_timer() {
            executor.run(at);
        }
        assert!(executor.is_idle());
        let expected = [("early", Instant::from_millis(10)), ("late", Instant::from_millis(20))];
        assert_eq!(*log.borrow(), expected);
    }
}
