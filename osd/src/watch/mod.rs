//! Who watches which object, and notifications under way: the soft state of one PG's primary.
//!
//! Nothing of it is durable. A new primary starts with an empty registry; clients register again when the PG's
//! primary changes, and a notifier sends its request again. A watcher whose session closes stays until its timeout,
//! and gets the notifications it may have missed when it registers again before.

use bytes::Bytes;
use nacre_types::{ClientId, Instant, ObjectId, RequestId, mutant};
use nacre_wire::op::{NotifyAckFrom, NotifyReply, WatchEvent};
use nacre_wire::{ErrorCode, ObjectName, OpError, SessionId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Most watchers of one object.
pub const WATCHERS_MAX: usize = 1024;
/// Most notifications under way in one PG.
pub const NOTIFIES_MAX: usize = 1024;
const TIMEOUT_MS_DEFAULT: u64 = 30_000;
const TIMEOUT_MS_MAX: u64 = 3_600_000;

/// One watch: a client may hold several on an object, by cookie.
type WatcherId = (ClientId, u64);

#[derive(Clone, Debug)]
struct Watcher {
    session: Option<SessionId>,
    expires: Instant,
}

#[derive(Clone, Debug)]
struct PendingNotify {
    object: ObjectId,
    request: RequestId,
    payload: Bytes,
    waiting: BTreeSet<WatcherId>,
    reply: NotifyReply,
    deadline: Instant,
}

/// What the caller has to do.
#[derive(Clone, PartialEq, Debug)]
pub enum WatchOutput {
    Send {
        session: SessionId,
        event: WatchEvent,
    },
    /// The notification that this request asked for has ended: answer it.
    Notified {
        request: RequestId,
        reply: NotifyReply,
    },
}

#[derive(Debug)]
pub struct Registry {
    objects: BTreeMap<ObjectId, BTreeMap<WatcherId, Watcher>>,
    notifies: BTreeMap<u64, PendingNotify>,
    next_notify: u64,
    out: Vec<WatchOutput>,
}

impl Registry {
    /// `first_notify` must be above every number an earlier primary of the PG gave: the interval's epoch, shifted.
    pub fn new(first_notify: u64) -> Registry {
        let (objects, notifies) = (BTreeMap::new(), BTreeMap::new());
        Registry { objects, notifies, next_notify: first_notify, out: Vec::new() }
    }

    /// Takes what there is to do, in order.
    pub fn take_outputs(&mut self) -> Vec<WatchOutput> {
        std::mem::take(&mut self.out)
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.notifies.is_empty()
    }

    /// Clients that have not answered some notification.
    pub fn waited_for(&self) -> usize {
        let clients =
            self.notifies.values().flat_map(|notify| notify.waiting.iter().map(|(client, _)| *client));
        clients.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Watchers of an object, as (client, cookie).
    pub fn watchers(&self, object: &ObjectId) -> Vec<(ClientId, u64)> {
        self.objects.get(object).into_iter().flat_map(|w| w.keys().copied()).collect()
    }

    /// Registers or renews. A watcher that is back on another session is told what still waits for it.
    pub fn watch(
        &mut self,
        now: Instant,
        object: &ObjectId,
        client: ClientId,
        cookie: u64,
        session: SessionId,
        timeout_ms: u64,
    ) -> Result<(), OpError> {
        let id = (client, cookie);
        let watchers = self.objects.entry(object.clone()).or_default();
        if watchers.len() >= WATCHERS_MAX && !watchers.contains_key(&id) {
            let text = format!("{object} has {WATCHERS_MAX} watchers, no more are possible");
            return Err(OpError::new(ErrorCode::Busy, text));
        }
        let timeout = Duration::from_millis(clamp(timeout_ms));
        let watcher = Watcher { session: Some(session), expires: now + timeout };
        let before = watchers.insert(id, watcher);
        if before.is_none_or(|before| before.session != Some(session)) {
            for (&notify_id, notify) in &self.notifies {
                if notify.object == *object && notify.waiting.contains(&id) {
                    let event = event(object, cookie, notify_id, notify.payload.clone());
                    self.out.push(WatchOutput::Send { session, event });
                }
            }
        }
        Ok(())
    }

    pub fn unwatch(&mut self, object: &ObjectId, client: ClientId, cookie: u64) {
        self.drop_watchers(object, &[(client, cookie)], false);
    }

    /// Tells every watcher. The same request again, while its notification is under way, starts no other.
    pub fn notify(
        &mut self,
        now: Instant,
        object: &ObjectId,
        request: RequestId,
        payload: Bytes,
        timeout_ms: u64,
    ) -> Result<(), OpError> {
        if self.notifies.values().any(|notify| notify.request == request) {
            return Ok(());
        }
        if self.notifies.len() >= NOTIFIES_MAX {
            let text = format!("{NOTIFIES_MAX} notifications are under way in this PG");
            return Err(OpError::new(ErrorCode::Busy, text));
        }
        let notify_id = self.next_notify;
        self.next_notify += 1;
        let watchers = self.objects.get(object);
        for (&(_, cookie), watcher) in watchers.into_iter().flatten() {
            if let Some(session) = watcher.session {
                let event = event(object, cookie, notify_id, payload.clone());
                self.out.push(WatchOutput::Send { session, event });
            }
        }
        let mut waiting: BTreeSet<WatcherId> = self.watchers(object).into_iter().collect();
        if mutant!(NotifyLost) {
            (self.out, waiting) = Default::default();
        }
        let deadline = now + Duration::from_millis(clamp(timeout_ms));
        let (object, reply) = (object.clone(), NotifyReply::default());
        let notify = PendingNotify { object, request, payload, waiting, reply, deadline };
        self.notifies.insert(notify_id, notify);
        self.end_if_done(notify_id);
        Ok(())
    }

    pub fn ack(&mut self, notify_id: u64, client: ClientId, cookie: u64, reply: Bytes) {
        let Some(notify) = self.notifies.get_mut(&notify_id) else { return };
        if notify.waiting.remove(&(client, cookie)) {
            notify.reply.acks.push(NotifyAckFrom { client: client.0, cookie, reply });
            self.end_if_done(notify_id);
        }
    }

    /// A session is gone: its watchers have until their timeout to come back.
    pub fn session_closed(&mut self, session: SessionId) {
        for watcher in self.objects.values_mut().flat_map(BTreeMap::values_mut) {
            if watcher.session == Some(session) {
                watcher.session = None;
            }
        }
    }

    /// A client is fenced: it watches nothing any more.
    pub fn client_gone(&mut self, client: ClientId) {
        let of_client = |w: &BTreeMap<WatcherId, Watcher>| {
            w.keys().copied().filter(|id| id.0 == client).collect::<Vec<_>>()
        };
        let all: Vec<_> = self.objects.iter().map(|(o, w)| (o.clone(), of_client(w))).collect();
        for (object, watchers) in all {
            self.drop_watchers(&object, &watchers, true);
        }
    }

    /// The object was removed: whoever watches it is told that this is over.
    pub fn object_removed(&mut self, object: &ObjectId) {
        let all = self.watchers(object);
        self.drop_watchers(object, &all, true);
    }

    /// Ends what has run out.
    pub fn tick(&mut self, now: Instant) {
        let mut expired: Vec<(ObjectId, Vec<WatcherId>)> = Vec::new();
        for (object, watchers) in &self.objects {
            let late: Vec<WatcherId> =
                watchers.iter().filter(|(_, w)| w.expires <= now).map(|(&id, _)| id).collect();
            if !late.is_empty() {
                expired.push((object.clone(), late));
            }
        }
        for (object, watchers) in expired {
            self.drop_watchers(&object, &watchers, true);
        }
        let late: Vec<u64> =
            self.notifies.iter().filter(|(_, n)| n.deadline <= now).map(|(&id, _)| id).collect();
        for id in late {
            self.end(id);
        }
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let watchers = self.objects.values().flat_map(BTreeMap::values).map(|w| w.expires);
        watchers.chain(self.notifies.values().map(|n| n.deadline)).min()
    }

    fn drop_watchers(&mut self, object: &ObjectId, watchers: &[WatcherId], tell: bool) {
        let Some(of_object) = self.objects.get_mut(object) else { return };
        for id in watchers {
            if let Some(Watcher { session: Some(session), .. }) = of_object.remove(id)
                && tell
            {
                let event = WatchEvent { disconnected: true, ..event(object, id.1, 0, Bytes::new()) };
                self.out.push(WatchOutput::Send { session, event });
            }
        }
        if of_object.is_empty() {
            self.objects.remove(object);
        }
        let mut touched = Vec::new();
        for (&notify_id, notify) in &mut self.notifies {
            for id in watchers {
                if notify.object == *object && notify.waiting.remove(id) {
                    notify.reply.missed.push(id.0.0);
                    touched.push(notify_id);
                }
            }
        }
        for notify_id in touched {
            self.end_if_done(notify_id);
        }
    }

    fn end_if_done(&mut self, notify_id: u64) {
        if self.notifies.get(&notify_id).is_some_and(|notify| notify.waiting.is_empty()) {
            self.end(notify_id);
        }
    }

    fn end(&mut self, notify_id: u64) {
        let Some(notify) = self.notifies.remove(&notify_id) else { return };
        let mut reply = notify.reply;
        reply.missed.extend(notify.waiting.iter().map(|id| id.0.0));
        self.out.push(WatchOutput::Notified { request: notify.request, reply });
    }
}

fn clamp(timeout_ms: u64) -> u64 {
    if timeout_ms == 0 { TIMEOUT_MS_DEFAULT } else { timeout_ms.min(TIMEOUT_MS_MAX) }
}

fn event(object: &ObjectId, cookie: u64, notify_id: u64, payload: Bytes) -> WatchEvent {
    WatchEvent { object: Some(ObjectName::from(object)), cookie, notify_id, payload, disconnected: false }
}

#[cfg(test)]
mod tests;
