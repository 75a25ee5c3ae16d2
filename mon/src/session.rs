//! Who wants maps pushed, and what each has been sent.

use crate::service::Service;
use nacre_types::{EntityName, Epoch};
use nacre_wire::messages::{Maps, Subscribe};
use nacre_wire::{Packet, Peer, SessionId};
use std::collections::BTreeMap;

/// Bytes of map data in one message; the rest follows in the next.
const MAPS_BYTES_MAX: usize = 2 << 20;
const STEPS_MAX: usize = 200;
const LOG_LINES_MAX: usize = 200;
/// Sessions that may follow maps.
const SUBSCRIBERS_MAX: usize = 50_000;

#[derive(Clone, Debug)]
struct Subscriber {
    entity: EntityName,
    osdmap: Epoch,
    monmap: Epoch,
    auth: Epoch,
    config: Epoch,
    log_after: Option<u64>,
    once: bool,
}

#[derive(Default)]
pub(crate) struct Sessions {
    subscribers: BTreeMap<SessionId, Subscriber>,
    /// The authmap that all subscribers were looked up in.
    auth_seen: Epoch,
}

impl Sessions {
    /// False if there are too many.
    pub fn subscribe(&mut self, from: &Peer, request: &Subscribe) -> bool {
        if self.subscribers.len() >= SUBSCRIBERS_MAX && !self.subscribers.contains_key(&from.session) {
            return false;
        }
        let subscriber = Subscriber {
            entity: from.entity.clone(),
            osdmap: Epoch(request.osdmap),
            monmap: Epoch(request.monmap),
            auth: Epoch(request.authmap),
            config: Epoch(request.config),
            log_after: request.log_after,
            once: request.once,
        };
        self.subscribers.insert(from.session, subscriber);
        true
    }

    pub fn closed(&mut self, session: SessionId) {
        self.subscribers.remove(&session);
    }

    /// Sessions of entities that the newest authmap no longer has: they are closed at once.
    pub fn removed(&mut self, service: &Service) -> Vec<SessionId> {
        if std::mem::replace(&mut self.auth_seen, service.auth.epoch) == service.auth.epoch {
            return Vec::new();
        }
        let gone = |subscriber: &Subscriber| !service.auth.contains(&subscriber.entity);
        self.subscribers.iter().filter(|(_, s)| gone(s)).map(|(&session, _)| session).collect()
    }

    pub fn all(&self) -> Vec<SessionId> {
        self.subscribers.keys().copied().collect()
    }

    pub fn count(&self) -> usize {
        self.subscribers.len()
    }

    /// What one subscriber has not been sent yet, in as many messages as it takes.
    pub fn push(&mut self, session: SessionId, service: &Service, send: &mut impl FnMut(SessionId, Packet)) {
        let Some(subscriber) = self.subscribers.get_mut(&session) else { return };
        let epoch = service.osdmap.epoch();
        // One answer is due even when nothing is newer: it says so.
        let mut first = subscriber.once;
        while let Some(maps) = next_maps(subscriber, service) {
            first = false;
            send(session, Packet::new(epoch, maps));
        }
        if first {
            send(session, Packet::new(epoch, empty(service)));
        }
        if subscriber.once {
            self.subscribers.remove(&session);
        }
    }

    pub fn push_all(&mut self, service: &Service, send: &mut impl FnMut(SessionId, Packet)) {
        let sessions: Vec<SessionId> = self.subscribers.keys().copied().collect();
        for session in sessions {
            self.push(session, service, send);
        }
    }
}

fn empty(service: &Service) -> Maps {
    Maps {
        fsid: service.fsid().into(),
        newest: service.history.newest().0,
        oldest: service.history.oldest().0,
        ..Maps::default()
    }
}

/// Osdmaps after an epoch: steps if they reach back so far and the asker has a map, else the newest map. The second
/// value is the epoch the asker is at then.
pub(crate) fn osdmaps_after(service: &Service, after: Epoch, full: bool) -> (Maps, Epoch) {
    let mut maps = empty(service);
    let newest = service.osdmap.epoch();
    if after >= newest && !full {
        return (maps, after);
    }
    let steps = service.history.after(after).filter(|_| !full && after > Epoch::ZERO);
    let Some(steps) = steps else {
        maps.osdmap = Some(service.osdmap.encode());
        return (maps, newest);
    };
    let mut bytes = 0;
    for step in steps.take(STEPS_MAX) {
        bytes += step.len();
        if bytes > MAPS_BYTES_MAX && !maps.incrementals.is_empty() {
            break;
        }
        maps.incrementals.push(step.clone());
    }
    let reached = Epoch(after.0 + maps.incrementals.len() as u64);
    (maps, reached)
}

fn next_maps(subscriber: &mut Subscriber, service: &Service) -> Option<Maps> {
    let (mut maps, reached) = osdmaps_after(service, subscriber.osdmap, false);
    let mut anything = reached > subscriber.osdmap;
    subscriber.osdmap = reached;
    if service.monmap.epoch > subscriber.monmap {
        subscriber.monmap = service.monmap.epoch;
        maps.monmap = Some(service.monmap.encode());
        anything = true;
    }
    let is_client = matches!(subscriber.entity, EntityName::Client(_));
    if service.auth.epoch > subscriber.auth && !is_client {
        subscriber.auth = service.auth.epoch;
        maps.authmap = Some(service.auth.encode());
        anything = true;
    }
    if service.config.epoch > subscriber.config {
        subscriber.config = service.config.epoch;
        maps.config = Some(service.config.encode());
        anything = true;
    }
    if let Some(after) = subscriber.log_after
        && after < service.log_seq
    {
        let at = service.log.partition_point(|line| line.seq <= after);
        maps.log = service.log.range(at..).take(LOG_LINES_MAX).cloned().collect();
        subscriber.log_after = Some(maps.log.last().map_or(service.log_seq, |line| line.seq));
        anything = true;
    }
    anything.then_some(maps)
}
