//! What has to be said again and again: watches and leases, renewed by the machine for as long as their handle lives.

use super::call::{Ask, Call, Owner, State};
use super::{Objecter, route};
use crate::ClientEffect;
use crate::watch::Notice;
use nacre_types::{Instant, Needs, ObjectId, Outbox};
use nacre_wire::op::{NotifyAck, ObjectOp, ObjectOpKind, OsdOp, WatchEvent};
use nacre_wire::{Data, ErrorCode, ObjectName, OpError};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

/// Notices kept for a slow reader; what comes on top is dropped, and the reader told that it missed something.
const NOTICES_MAX: usize = 256;

/// How long it is tried to take back what nobody needs any more; after that it runs out by itself.
const UNDO_TIMEOUT: Duration = Duration::from_secs(5);

/// What the handle of a watch or lease sees.
#[derive(Debug, Default)]
pub(crate) struct LingerShared {
    pub(crate) notices: RefCell<VecDeque<Notice>>,
    pub(crate) waker: RefCell<Option<Waker>>,
    /// Until when the last renewal holds, by the machine's clock.
    pub(crate) valid_until: Cell<Instant>,
    /// It is over, and why.
    pub(crate) lost: RefCell<Option<OpError>>,
}

impl LingerShared {
    fn push(&self, notice: Notice) {
        let mut notices = self.notices.borrow_mut();
        if notices.len() < NOTICES_MAX {
            notices.push_back(notice);
        } else if let Some(last) = notices.back_mut() {
            *last = Notice::Reconnected;
        }
    }
}

#[derive(Debug)]
pub(crate) struct Linger {
    pub(crate) object: ObjectId,
    pub(crate) op: ObjectOp,
    pub(crate) is_watch: bool,
    pub(crate) period: Duration,
    /// How long a renewal holds.
    pub(crate) holds: Duration,
    pub(crate) shared: Rc<LingerShared>,
    pub(crate) next: Instant,
    /// The renewal under way.
    pub(crate) call: Option<u64>,
    /// The registration may have been lost: tell the reader once it is back.
    pub(crate) interrupted: bool,
    /// Interval of the PG that the last renewal went to.
    pub(crate) route: Option<route::Route>,
}

impl Objecter {
    pub(crate) fn add_linger(&mut self, id: u64, linger: Linger) {
        self.lingers.insert(id, linger);
    }

    pub(crate) fn begin_linger(&mut self, id: u64) {
        let now = self.now;
        if let Some(linger) = self.lingers.get_mut(&id) {
            linger.next = now;
        }
    }

    /// Ends it, also at the OSD.
    pub(super) fn drop_linger(&mut self, id: u64) {
        let Some(linger) = self.lingers.remove(&id) else { return };
        if let Some(call) = linger.call {
            self.cancel(call);
        }
        if linger.shared.lost.borrow().is_some() {
            return;
        }
        let undo = match linger.op.kind {
            Some(ObjectOpKind::Watch(watch)) => {
                ObjectOpKind::Watch(nacre_wire::op::Watch { unwatch: true, ..watch })
            }
            Some(ObjectOpKind::Lock(lock)) => ObjectOpKind::Unlock(lock),
            _ => return,
        };
        self.submit(Call::new(object_ask(&linger.object, undo), Owner::Nobody, Some(UNDO_TIMEOUT)));
    }

    pub(super) fn renew_lingers(&mut self, now: Instant, out: &mut Outbox<ClientEffect>) {
        let due = |(&id, linger): (&u64, &Linger)| {
            (linger.call.is_none() && linger.next <= now && linger.shared.lost.borrow().is_none())
                .then_some(id)
        };
        let due: Vec<u64> = self.lingers.iter().filter_map(due).collect();
        for id in due {
            let linger = &self.lingers[&id];
            let kind = linger.op.kind.clone().expect("made from a kind");
            let call = Call::new(object_ask(&linger.object, kind), Owner::Linger(id), None);
            let seq = self.submit(call);
            // Started here and now.
            self.fresh.pop_back();
            self.lingers.get_mut(&id).expect("just seen").call = Some(seq);
            self.start(now, seq, out);
        }
    }

    /// Earliest renewal.
    pub(super) fn next_renewal(&self) -> Option<Instant> {
        let waiting = self.lingers.values().filter(|l| l.call.is_none() && l.shared.lost.borrow().is_none());
        waiting.map(|linger| linger.next).filter(|&next| next < Instant::MAX).min()
    }

    /// The PG moved or the session broke: what was registered there may be gone.
    pub(super) fn interrupt_lingers(&mut self, now: Instant, lost: impl Fn(&Linger) -> bool) {
        for linger in self.lingers.values_mut().filter(|l| l.is_watch && l.next < Instant::MAX && lost(l)) {
            linger.interrupted = true;
            linger.next = now;
        }
    }

    pub(super) fn renewed(
        &mut self,
        now: Instant,
        id: u64,
        call: &Call,
        result: Result<(), OpError>,
        out: &mut Outbox<ClientEffect>,
    ) {
        let Some(linger) = self.lingers.get_mut(&id) else { return };
        linger.call = None;
        match result {
            Ok(()) => {
                linger.shared.valid_until.set(call.started + linger.holds);
                linger.next = call.started + linger.period;
                if let State::Sent(route) = call.state {
                    linger.route = route;
                }
                if std::mem::take(&mut linger.interrupted) {
                    linger.shared.push(Notice::Reconnected);
                }
            }
            Err(error) if error.code == ErrorCode::TimedOut => linger.next = now + linger.period / 4,
            Err(error) => {
                *linger.shared.lost.borrow_mut() = Some(error.clone());
                linger.shared.push(Notice::Ended(error));
            }
        }
        self.to_wake.extend(self.lingers[&id].shared.waker.take());
        self.resume_leased(now, id, out);
    }

    /// A lease was renewed or lost: what waited for that goes on or fails.
    fn resume_leased(&mut self, now: Instant, id: u64, out: &mut Outbox<ClientEffect>) {
        let waiting = |call: &Call| call.lease == Some(id) && matches!(call.state, State::Unroutable(_));
        let seqs: Vec<u64> = self.calls.iter().filter(|(_, c)| waiting(c)).map(|(&s, _)| s).collect();
        for seq in seqs {
            self.dispatch(now, seq, out);
        }
    }

    /// Whether a call may go out under its lease; if not, what it waits for, or that it is over.
    pub(super) fn check_lease(&self, now: Instant, lease: Option<u64>) -> Result<(), Result<Needs, OpError>> {
        let Some(id) = lease else { return Ok(()) };
        let fenced = |reason: &str| Err(Err(OpError::new(ErrorCode::Fenced, reason)));
        let Some(linger) = self.lingers.get(&id) else { return fenced("the lease was given back") };
        if let Some(error) = &*linger.shared.lost.borrow() {
            return fenced(&format!("the lease on {} is lost: {}", linger.object, error.message));
        }
        if linger.shared.valid_until.get() <= now {
            let text = format!("the lease on {} has run out and must be renewed first", linger.object);
            return Err(Ok(Needs::ClientLease(text)));
        }
        Ok(())
    }

    pub(super) fn on_watch_event(&mut self, now: Instant, event: WatchEvent) {
        let object = event.object.as_ref().and_then(|name| ObjectName::decode(name).ok());
        let found = self.lingers.get_mut(&event.cookie).filter(|linger| linger.is_watch);
        let Some(linger) = found.filter(|linger| object.as_ref() == Some(&linger.object)) else {
            // A watch this client has dropped: the notifier need not wait for it.
            if let Some(object) = object.filter(|_| !event.disconnected) {
                self.ack_notify(&object, event.notify_id, event.cookie, bytes::Bytes::new());
            }
            return;
        };
        if event.disconnected {
            linger.interrupted = true;
            linger.next = now;
        } else {
            linger.shared.push(Notice::Notified { notify_id: event.notify_id, payload: event.payload });
            self.to_wake.extend(linger.shared.waker.take());
        }
    }

    pub(crate) fn ack_notify(&mut self, object: &ObjectId, notify_id: u64, cookie: u64, reply: bytes::Bytes) {
        let kind = ObjectOpKind::NotifyAck(NotifyAck { notify_id, cookie, reply });
        let call = Call::new(object_ask(object, kind), Owner::Nobody, Some(Duration::from_secs(30)));
        self.submit(call);
    }
}

pub(crate) fn object_ask(object: &ObjectId, kind: ObjectOpKind) -> Ask {
    let op = OsdOp { object: Some(ObjectName::from(object)), ops: vec![kind.into()], ..OsdOp::default() };
    Ask::Object { object: object.clone(), op: Box::new(op), data: Data::default() }
}
