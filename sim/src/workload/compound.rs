//! Requests of several operations on data, xattrs and omap at once, pages of omap, and locks that fence.

use super::{Units, Worker};
use crate::checkers::compound::{Action, Answer, Parts, Place};
use bytes::Bytes;
use nacre_client::{ErrorCode, Object, ObjectRequest, OpError, Response};
use nacre_wire::op::{Comparison, Lock, ObjectOpKind};
use std::collections::BTreeMap;
use std::time::Duration;

const LOCK: &str = "sim";
/// How long a lock is kept without a renewal: there is none.
const LOCK_DURATION: Duration = Duration::from_secs(3);
const KEYS: u64 = 6;

pub struct CompoundTask {
    /// Its number tells this task from all others, as holder of locks too.
    pub worker: Worker,
    pub objects: u64,
    /// Data is one of them.
    pub units: Units,
    /// Uses locks instead of removing objects.
    pub locks: bool,
    pub patience: Option<Duration>,
    /// What an object last looked like to this task, so that some of its conditions hold.
    pub seen: BTreeMap<String, Parts>,
}

impl CompoundTask {
    pub async fn run(mut self) {
        let Ok(pool) = self.worker.pool(self.patience).await else { return };
        let kind = if self.locks { "locked" } else { "compound" };
        while self.worker.is_on() {
            let name = format!("{kind}-{}", self.worker.rng.below(self.objects));
            let action = if self.locks { self.choose_locked(&name) } else { self.choose(&name) };
            let object = pool.object(&name);
            let invocation = self.worker.history.borrow_mut().invoke_compound(
                self.worker.number,
                &name,
                self.worker.clock.now(),
                action.clone(),
            );
            let answer = self.perform(&object, &action).await;
            self.learn(name, &action, &answer);
            self.worker.history.borrow_mut().answer_compound(&invocation, self.worker.clock.now(), answer);
            self.worker.pause(2.0).await;
        }
    }

    fn choose(&mut self, name: &str) -> Action {
        match self.worker.rng.below(100) {
            0..30 => Action::Look,
            30..50 => {
                let after = self.worker.rng.chance(1, 2).then(|| self.worker.rng.below(KEYS) as u8);
                Action::Page { after, max: self.worker.rng.range(1, 4) as usize }
            }
            50..93 => self.change(name, false),
            _ => Action::Remove,
        }
    }

    fn choose_locked(&mut self, name: &str) -> Action {
        match self.worker.rng.below(100) {
            0..25 => Action::Lock { nanos: LOCK_DURATION.as_nanos() as u64 },
            25..40 => Action::Unlock,
            40..60 => Action::Look,
            _ => self.change(name, true),
        }
    }

    fn place(&mut self) -> Place {
        match self.worker.rng.below(4) {
            0 => Place::Data,
            1 => Place::Xattr(self.worker.rng.below(KEYS) as u8),
            _ => Place::Omap(self.worker.rng.below(KEYS) as u8),
        }
    }

    fn learn(&mut self, name: String, action: &Action, answer: &Answer) {
        match (action, answer) {
            (_, Answer::Parts(parts)) => {
                self.seen.insert(name, parts.clone());
            }
            (Action::Change { puts, .. }, Answer::Done) => {
                self.seen.entry(name).or_default().extend(puts.iter().copied());
            }
            _ => {}
        }
    }

    fn change(&mut self, name: &str, locked: bool) -> Action {
        let id = self.worker.history.borrow_mut().fresh_id();
        let guard = self.worker.rng.chance(1, 3).then(|| {
            let place = if self.worker.rng.chance(1, 2) { Place::Data } else { Place::Xattr(0) };
            let guess = self.worker.rng.range(id.saturating_sub(20).max(1), id.max(2));
            (place, self.seen.get(name).and_then(|parts| parts.get(&place)).copied().unwrap_or(guess))
        });
        let mut puts: Vec<(Place, u64)> =
            (0..self.worker.rng.range(1, 5)).map(|_| (self.place(), id)).collect();
        puts.sort();
        puts.dedup();
        let removes = (0..self.worker.rng.below(3)).map(|_| Place::Omap(self.worker.rng.below(KEYS) as u8));
        let removes = removes.filter(|place| !puts.contains(&(*place, id))).collect();
        Action::Change { guard, puts, removes, locked }
    }

    async fn perform(&self, object: &Object, action: &Action) -> Answer {
        let cookie = format!("task-{}", self.worker.number);
        let request = ObjectRequest::new();
        let result = match action {
            Action::Look => {
                let request = request.read(0, self.units.0 as u64).get_xattrs().omap_list("", "", 1000);
                return match object.run(request).await {
                    Ok(response) => self.parts(&response).map_or(Answer::Unknown, Answer::Parts),
                    Err(error) => refusal(&error),
                };
            }
            Action::Page { after, max } => {
                let after = after.map(key).unwrap_or_default();
                return match object.omap_page(&after, "", *max as u32).await {
                    Ok((pairs, more)) => Answer::Page(pairs.iter().filter_map(entry).collect(), more),
                    Err(error) => refusal(&error),
                };
            }
            Action::Remove => object.remove().await.map(drop),
            Action::Change { guard, puts, removes, locked } => {
                let mut request = request;
                if *locked {
                    request = request.assert_locked(LOCK, &cookie);
                }
                request = match guard {
                    Some((Place::Xattr(n), id)) => {
                        request.compare_xattr(format!("x{n}"), Comparison::Equal, value(*id))
                    }
                    Some((_, id)) => request.compare(0, self.units.encode(*id)),
                    None => request,
                };
                request = request.create(false);
                for (place, id) in puts {
                    request = match place {
                        Place::Data => request.write(0, self.units.encode(*id)),
                        Place::Xattr(n) => request.set_xattr(format!("x{n}"), value(*id)),
                        Place::Omap(n) => request.omap_set([(key(*n), value(*id))]),
                    };
                }
                let gone: Vec<String> = removes.iter().filter_map(omap_key).collect();
                if !gone.is_empty() {
                    request = request.omap_remove(gone);
                }
                object.run(request).await.map(drop)
            }
            Action::Lock { nanos } => {
                let lock = Lock {
                    name: LOCK.into(),
                    cookie,
                    duration_ms: nanos / 1_000_000,
                    may_renew: true,
                    ..Lock::default()
                };
                object.run(request.create(false).op(ObjectOpKind::Lock(lock))).await.map(drop)
            }
            Action::Unlock => object.unlock(LOCK, &cookie).await,
        };
        match result {
            Ok(()) => Answer::Done,
            Err(error) => refusal(&error),
        }
    }

    fn parts(&self, response: &Response) -> Option<Parts> {
        let mut parts = Parts::new();
        let data = response.data(0);
        if !data.is_empty() {
            let [id] = self.units.decode(&data)[..] else { return None };
            parts.insert(Place::Data, id);
        }
        let (xattrs, _) = response.pairs(1).ok()?;
        parts.extend(
            xattrs.iter().filter_map(|(name, value)| Some((Place::Xattr(numbered(name, b'x')?), id(value)))),
        );
        let (omap, _) = response.pairs(2).ok()?;
        parts.extend(omap.iter().filter_map(entry).map(|(n, id)| (Place::Omap(n), id)));
        Some(parts)
    }
}

fn refusal(error: &OpError) -> Answer {
    match error.code {
        ErrorCode::NotFound => Answer::NotFound,
        ErrorCode::Canceled | ErrorCode::Fenced | ErrorCode::Busy => Answer::Refused,
        _ => Answer::Unknown,
    }
}

fn key(n: u8) -> String {
    format!("k{n}")
}

fn omap_key(place: &Place) -> Option<String> {
    match place {
        Place::Omap(n) => Some(key(*n)),
        _ => None,
    }
}

fn value(id: u64) -> Bytes {
    Bytes::copy_from_slice(&id.to_le_bytes())
}

/// A value nobody wrote shows as an id nobody has.
fn id(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(u64::MAX, u64::from_le_bytes)
}

fn numbered(name: &[u8], prefix: u8) -> Option<u8> {
    match name {
        [first, digit @ b'0'..=b'9'] if *first == prefix => Some(digit - b'0'),
        _ => None,
    }
}

fn entry((name, value): &(Bytes, Bytes)) -> Option<(u8, u64)> {
    numbered(name, b'k').map(|n| (n, id(value)))
}
