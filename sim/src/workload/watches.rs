//! Watching and notifying: whoever watches and is told of no break gets every notification that was said to be delivered.

use super::Shared;
use crate::executor::Clock;
use bytes::Bytes;
use nacre_client::{Cluster, Notice};
use nacre_types::{Instant, Rng};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

/// What the watchers of all clients have seen.
#[derive(Default)]
pub struct Seen {
    /// By watcher (a client's id): notifications it got.
    got: BTreeSet<(u64, u64)>,
}

pub struct WatchTask {
    pub client: usize,
    pub cluster: Cluster,
    pub pool: String,
    pub clock: Clock,
    pub history: Shared,
    pub rng: Rng,
    pub seen: Rc<RefCell<Seen>>,
    pub think: Duration,
    pub until: Instant,
}

const OBJECT: &str = "watched";
const TIMEOUT: Duration = Duration::from_secs(5);

impl WatchTask {
    /// Watches until the end.
    pub async fn watch(self) {
        let Ok(pool) = self.cluster.pool(&self.pool).await else { return };
        let object = pool.with_timeout(None).object(OBJECT);
        if object.create(false).await.is_err() {
            return;
        }
        let Ok(stream) = object.watch().await else { return };
        let me = self.cluster.client_id().0;
        while self.clock.now() < self.until + TIMEOUT {
            while let Some(notice) = stream.try_next() {
                if let Notice::Notified { notify_id, payload } = notice {
                    let id = payload[..].try_into().map_or(u64::MAX, u64::from_le_bytes);
                    self.seen.borrow_mut().got.insert((me, id));
                    stream.ack(notify_id, payload);
                }
            }
            self.clock.sleep(Duration::from_millis(20)).await;
        }
        let _ = stream.close().await;
    }

    /// Notifies now and then.
    pub async fn notify(mut self) {
        let Ok(pool) = self.cluster.pool(&self.pool).await else { return };
        let object = pool.with_timeout(None).object(OBJECT);
        if object.create(false).await.is_err() {
            return;
        }
        while self.clock.now() < self.until {
            let id = self.history.borrow_mut().fresh_id();
            let reply = object.notify(Bytes::copy_from_slice(&id.to_le_bytes()), TIMEOUT).await;
            self.history.borrow_mut().count();
            for ack in reply.map(|reply| reply.acks).unwrap_or_default() {
                let echo = ack.reply[..].try_into().map_or(u64::MAX, u64::from_le_bytes);
                let got = self.seen.borrow().got.contains(&(ack.client, id));
                if echo != id || !got {
                    let text = format!(
                        "notification {id}: client {} is said to have answered {echo}, and did not",
                        ack.client
                    );
                    self.history.borrow_mut().complain(text);
                }
            }
            let pause = self.think.mul_f64(20.0 * self.rng.below(1000) as f64 / 1000.0);
            self.clock.sleep(pause).await;
        }
    }
}
