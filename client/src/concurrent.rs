//! Running several futures of one task at once, without an executor.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Runs `work` over all `items`, at most `window` at a time, and collects the results in the order of the items.
/// After a failure nothing new is started; what runs is waited for, and the first failure is the answer.
pub async fn all<I, T, E, F, Fut>(items: I, window: usize, work: F) -> Result<Vec<T>, E>
where
    I: IntoIterator,
    F: FnMut(I::Item) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let items = items.into_iter();
    All { items, work, window, running: Vec::new(), results: Vec::new(), started: 0, failed: None }.await
}

struct All<I, T, E, F, Fut> {
    items: I,
    work: F,
    window: usize,
    running: Vec<(usize, Pin<Box<Fut>>)>,
    results: Vec<Option<T>>,
    started: usize,
    failed: Option<E>,
}

// Nothing of it is pinned in place: the futures are boxed.
impl<I, T, E, F, Fut> Unpin for All<I, T, E, F, Fut> {}

impl<I, T, E, F, Fut> Future for All<I, T, E, F, Fut>
where
    I: Iterator,
    F: FnMut(I::Item) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Output = Result<Vec<T>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let mut at = 0;
            while at < this.running.len() {
                match this.running[at].1.as_mut().poll(cx) {
                    Poll::Pending => at += 1,
                    Poll::Ready(result) => {
                        let (number, _) = this.running.swap_remove(at);
                        match result {
                            Ok(value) => this.results[number] = Some(value),
                            Err(error) => this.failed = this.failed.take().or(Some(error)),
                        }
                    }
                }
            }
            let mut fresh = false;
            while this.failed.is_none() && this.running.len() < this.window {
                let Some(item) = this.items.next() else { break };
                this.running.push((this.started, Box::pin((this.work)(item))));
                this.results.push(None);
                this.started += 1;
                fresh = true;
            }
            if this.running.is_empty() {
                return Poll::Ready(match this.failed.take() {
                    Some(error) => Err(error),
                    None => Ok(this.results.drain(..).flatten().collect()),
                });
            }
            if !fresh {
                return Poll::Pending;
            }
        }
    }
}
