//! Objects with several parts: what operations on data, xattrs and omap at once did, and locks that fence.

use super::history;
use super::linearizability::Recorded;
use nacre_types::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// One part of an object, which holds an id or nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Place {
    Data,
    Xattr(u8),
    Omap(u8),
}

pub type Parts = BTreeMap<Place, u64>;

/// Who holds the object's lock, and since when at the latest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Held {
    pub client: usize,
    pub asked: Instant,
    /// So long it is kept without a renewal.
    pub nanos: u64,
}

/// An object as the model sees it; `parts` is `None` while it does not exist.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct State {
    pub parts: Option<Parts>,
    pub lock: Option<Held>,
}

/// One request, all or nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// If `guard` holds: sets and removes parts, creating the object. With `locked`, only under this client's lock.
    Change {
        guard: Option<(Place, u64)>,
        puts: Vec<(Place, u64)>,
        removes: Vec<Place>,
        locked: bool,
    },
    /// All parts at one moment.
    Look,
    /// Omap entries after one, so many at most.
    Page {
        after: Option<u8>,
        max: usize,
    },
    Remove,
    Lock {
        nanos: u64,
    },
    Unlock,
}

#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Answer {
    Done,
    /// The guard did not hold, the lock is another's, or there is nothing to unlock.
    Refused,
    NotFound,
    Parts(Parts),
    /// Entries, and whether there are more.
    Page(Vec<(u8, u64)>, bool),
    #[default]
    Unknown,
}

pub type Operation = history::Operation<Action, Answer>;

impl Recorded for Operation {
    type State = State;

    fn is_relevant(&self) -> bool {
        self.answer != Answer::Unknown || !matches!(self.action, Action::Look | Action::Page { .. })
    }

    fn writes(&self) -> Option<u64> {
        match &self.action {
            // One that only removes parts has no id to be known by.
            Action::Change { puts, .. } => puts.first().map(|(_, id)| *id),
            _ => None,
        }
    }

    fn removes(&self) -> bool {
        self.action == Action::Remove
    }

    fn observes(&self) -> bool {
        match self.action {
            Action::Look | Action::Page { .. } => self.answer != Answer::Unknown,
            // An unlocking that is refused may have met a lock that had just run out, and ended it.
            Action::Unlock => false,
            Action::Remove | Action::Change { .. } | Action::Lock { .. } => {
                matches!(self.answer, Answer::NotFound | Answer::Refused)
            }
        }
    }

    fn shows(&self, seen: &mut BTreeSet<u64>) {
        match &self.answer {
            Answer::Parts(parts) => seen.extend(parts.values()),
            Answer::Page(entries, _) => seen.extend(entries.iter().map(|(_, id)| id)),
            Answer::Done => {
                if let Action::Change { guard: Some((_, id)), .. } = &self.action {
                    seen.insert(*id);
                }
            }
            Answer::Refused | Answer::NotFound | Answer::Unknown => {}
        }
    }

    fn apply(&self, state: &State) -> Option<State> {
        let unknown = self.answer == Answer::Unknown;
        match &self.action {
            Action::Look => match (&state.parts, &self.answer) {
                (None, Answer::NotFound) => Some(state.clone()),
                (Some(parts), Answer::Parts(seen)) => (parts == seen).then(|| state.clone()),
                _ => None,
            },
            Action::Page { after, max } => match (&state.parts, &self.answer) {
                (None, Answer::NotFound) => Some(state.clone()),
                (None, Answer::Page(entries, false)) if entries.is_empty() => Some(state.clone()),
                (Some(parts), Answer::Page(entries, more)) => {
                    (page(parts, *after, *max) == (entries.clone(), *more)).then(|| state.clone())
                }
                _ => None,
            },
            Action::Remove => match (&state.parts, &self.answer) {
                (None, Answer::NotFound | Answer::Unknown) => Some(state.clone()),
                // The lock is part of the object.
                (Some(_), Answer::Done | Answer::Unknown) => Some(State::default()),
                _ => None,
            },
            Action::Change { guard, puts, removes, locked } => {
                let holds = guard.is_none_or(|(place, id)| {
                    state.parts.as_ref().and_then(|parts| parts.get(&place)) == Some(&id)
                });
                let mine = state.lock.is_some_and(|held| held.client == self.client);
                let may = holds && (!locked || mine);
                let changed = || {
                    let mut parts = state.parts.clone().unwrap_or_default();
                    parts.extend(puts.iter().copied());
                    parts.retain(|place, _| !removes.contains(place));
                    State { parts: Some(parts), lock: state.lock }
                };
                match self.answer {
                    Answer::Done => may.then(changed),
                    // A lock that has run out refuses too.
                    Answer::Refused | Answer::NotFound => (!may || *locked).then(|| state.clone()),
                    _ if unknown => Some(if may { changed() } else { state.clone() }),
                    _ => None,
                }
            }
            Action::Lock { nanos } => {
                // Without an answer nobody knows when it was granted: perhaps once another's had run out, and it may run for
                // ever as far as the model knows.
                let held = Held { client: self.client, asked: self.invoked, nanos: *nanos };
                let locked = State { parts: Some(state.parts.clone().unwrap_or_default()), lock: Some(held) };
                let free = state.lock.is_none_or(|held| {
                    held.client == self.client || self.answered.0 >= held.asked.0 + held.nanos
                });
                match self.answer {
                    Answer::Done => free.then_some(locked),
                    Answer::Refused => state.lock.is_some().then(|| state.clone()),
                    _ if unknown => Some(if free { locked } else { state.clone() }),
                    _ => None,
                }
            }
            Action::Unlock => {
                let mine = state.lock.is_some_and(|held| held.client == self.client);
                let freed = State { parts: state.parts.clone(), lock: None };
                match self.answer {
                    Answer::Done => mine.then_some(freed),
                    // It may have run out; whoever took it since is another.
                    Answer::Refused | Answer::NotFound => Some(if mine { freed } else { state.clone() }),
                    _ if unknown => Some(if mine { freed } else { state.clone() }),
                    _ => None,
                }
            }
        }
    }
}

fn page(parts: &Parts, after: Option<u8>, max: usize) -> (Vec<(u8, u64)>, bool) {
    let omap = parts.iter().filter_map(|(place, &id)| match place {
        Place::Omap(key) if after.is_none_or(|after| *key > after) => Some((*key, id)),
        _ => None,
    });
    let mut all: Vec<(u8, u64)> = omap.collect();
    let more = all.len() > max;
    all.truncate(max);
    (all, more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::linearizability::{Verdict, check};

    fn op(client: usize, from: u64, to: u64, action: Action, answer: Answer) -> Operation {
        let (invoked, answered) = (Instant::from_millis(from), Instant::from_millis(to));
        Operation { client, invoked, answered, action, answer }
    }

    fn put(places: &[(Place, u64)], locked: bool) -> Action {
        Action::Change { guard: None, puts: places.to_vec(), removes: Vec::new(), locked }
    }

    #[test]
    fn half_an_operation_is_found() {
        let both = [(Place::Data, 1), (Place::Omap(3), 1)];
        let write = op(0, 0, 1, put(&both, false), Answer::Done);
        let whole = op(1, 2, 3, Action::Look, Answer::Parts(both.into()));
        assert_eq!(check("x", &[write.clone(), whole]), Ok(Verdict::Linearizable));
        let half = op(1, 2, 3, Action::Look, Answer::Parts([(Place::Data, 1)].into()));
        assert!(check("x", &[write.clone(), half]).is_err());
        let paged = |entries: &[(u8, u64)], more| {
            op(1, 2, 3, Action::Page { after: None, max: 1 }, Answer::Page(entries.to_vec(), more))
        };
        assert_eq!(check("x", &[write.clone(), paged(&[(3, 1)], false)]), Ok(Verdict::Linearizable));
        assert!(check("x", &[write.clone(), paged(&[], false)]).is_err(), "an entry is left out");
        assert!(check("x", &[write, paged(&[(3, 1)], true)]).is_err(), "a page after the last");
    }

    #[test]
    fn two_holders_and_unfenced_writes_are_found() {
        let lock = |client, at| op(client, at, at + 1, Action::Lock { nanos: 5_000_000_000 }, Answer::Done);
        let write = |client, at| op(client, at, at + 1, put(&[(Place::Data, at)], true), Answer::Done);
        assert_eq!(
            check("x", &[lock(0, 0), write(0, 10), lock(1, 6000), write(1, 6100)]),
            Ok(Verdict::Linearizable)
        );
        assert!(check("x", &[lock(0, 0), lock(1, 1000)]).is_err(), "it is still held");
        // Given up on, but granted when the first had run out.
        let unknown = Operation { answered: Instant::MAX, answer: Answer::Unknown, ..lock(1, 100) };
        let unlock = op(1, 7000, 7001, Action::Unlock, Answer::Done);
        assert_eq!(check("x", &[lock(0, 0), unknown, unlock.clone()]), Ok(Verdict::Linearizable));
        assert!(check("x", &[lock(0, 0), unlock]).is_err(), "it never asked for it");
        assert!(check("x", &[lock(0, 0), lock(1, 6000), write(0, 6100)]).is_err(), "fenced off, and yet");
    }
}
