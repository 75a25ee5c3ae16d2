//! Watching and notifying: whoever watches and is told of no break gets every notification that was said to be delivered.

use super::Worker;
use bytes::Bytes;
use nacre_client::{Notice, Object};
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
    pub worker: Worker,
    pub seen: Rc<RefCell<Seen>>,
}

const OBJECT: &str = "watched";
const TIMEOUT: Duration = Duration::from_secs(5);

impl WatchTask {
    /// What is watched, once it exists.
    async fn object(&self) -> Option<Object> {
        let object = self.worker.pool(None).await.ok()?.object(OBJECT);
        object.create(false).await.ok()?;
        Some(object)
    }

    /// Watches until the end.
    pub async fn watch(self) {
        let Some(object) = self.object().await else { return };
        let Ok(stream) = object.watch().await else { return };
        let me = self.worker.cluster.client_id().0;
        while self.worker.clock.now() < self.worker.until + TIMEOUT {
            while let Some(notice) = stream.try_next() {
                if let Notice::Notified { notify_id, payload } = notice {
                    let id = payload[..].try_into().map_or(u64::MAX, u64::from_le_bytes);
                    self.seen.borrow_mut().got.insert((me, id));
                    stream.ack(notify_id, payload);
                }
            }
            self.worker.clock.sleep(Duration::from_millis(20)).await;
        }
        let _ = stream.close().await;
    }

    /// Notifies now and then.
    pub async fn notify(mut self) {
        let Some(object) = self.object().await else { return };
        while self.worker.is_on() {
            let id = self.worker.history.borrow_mut().fresh_id();
            let reply = object.notify(Bytes::copy_from_slice(&id.to_le_bytes()), TIMEOUT).await;
            self.worker.history.borrow_mut().count();
            for ack in reply.map(|reply| reply.acks).unwrap_or_default() {
                let echo = ack.reply[..].try_into().map_or(u64::MAX, u64::from_le_bytes);
                let got = self.seen.borrow().got.contains(&(ack.client, id));
                if echo != id || !got {
                    let text = format!(
                        "notification {id}: client {} is said to have answered {echo}, and did not",
                        ack.client
                    );
                    self.worker.complain(text);
                }
            }
            self.worker.pause(20.0).await;
        }
    }
}
