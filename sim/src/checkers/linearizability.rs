//! Whether an object's history could have come from one copy that handles one operation at a time.
//!
//! The search of Wing and Gong with Lowe's memory of visited states (1993, 2017): take, in every possible way, an
//! operation that was invoked before any other pending one was answered, apply it to the model, go on; a pair of
//! (operations taken, state) seen before is not tried again. An operation without an answer may take effect at any
//! time after its invocation, or never. Long outages leave hundreds of those, so the search tries little of them:
//!
//! - First it leaves out those whose id nobody ever saw: an order without them is an order. Only if there is none are they
//!   tried as well.
//! - One that would change nothing is left for never, and of removals the first stands for all.
//!
//! One that was told that it changed nothing comes as soon as it may: nothing is lost by that.

use super::history::{Action, Answer, Content, Operation};
use nacre_types::{Instant, Rng};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

/// An operation with its answer, on an object that behaves as a model says.
pub trait Recorded {
    /// What there is to know of the object.
    type State: Clone + Eq + Hash + Default + Debug;
    /// Whether it says anything: a read nobody got an answer of does not.
    fn is_relevant(&self) -> bool;
    /// The state after it, if its answer is possible in that one.
    fn apply(&self, state: &Self::State) -> Option<Self::State>;
    /// The id by which its effect is known, if it has one.
    fn writes(&self) -> Option<u64>;
    /// Whether it does the same whoever asked for it, and when.
    fn removes(&self) -> bool;
    /// Whether its answer says that it changed nothing.
    fn observes(&self) -> bool;
    /// The ids that its answer shows.
    fn shows(&self, seen: &mut BTreeSet<u64>);
}

/// What there is to know of an object of such operations.
type StateOf<A, R> = <Operation<A, R> as Recorded>::State;

type State = Option<Content>;

impl Recorded for Operation {
    type State = State;

    fn is_relevant(&self) -> bool {
        self.answer != Answer::Unknown || self.action != Action::Read
    }

    fn apply(&self, state: &State) -> Option<State> {
        let answer = &self.answer;
        let unknown = *answer == Answer::Unknown;
        match &self.action {
            Action::Read => match answer {
                Answer::Content(content) => (content == state).then(|| state.clone()),
                Answer::NotFound => state.is_none().then_some(None),
                _ => None,
            },
            Action::WriteFull(id) => (unknown || *answer == Answer::Done).then(|| Some(vec![*id])),
            Action::Append(id) => (unknown || *answer == Answer::Done).then(|| {
                let mut content = state.clone().unwrap_or_default();
                content.push(*id);
                Some(content)
            }),
            Action::Remove => match (state, answer) {
                (None, Answer::NotFound | Answer::Unknown) => Some(None),
                (Some(_), Answer::Done | Answer::Unknown) => Some(None),
                _ => None,
            },
            Action::CompareAndWrite { expected, id } => {
                let holds = state.as_ref().is_some_and(|content| content.first() == Some(expected));
                let written = || {
                    let mut content = state.clone()?;
                    content[0] = *id;
                    Some(content)
                };
                match answer {
                    Answer::Done => holds.then(written),
                    Answer::Mismatch | Answer::NotFound => (!holds).then(|| state.clone()),
                    Answer::Unknown => Some(if holds { written() } else { state.clone() }),
                    Answer::Content(_) => None,
                }
            }
        }
    }

    fn writes(&self) -> Option<u64> {
        match self.action {
            Action::WriteFull(id) | Action::Append(id) | Action::CompareAndWrite { id, .. } => Some(id),
            Action::Remove | Action::Read => None,
        }
    }

    fn removes(&self) -> bool {
        self.action == Action::Remove
    }

    fn observes(&self) -> bool {
        matches!(self.answer, Answer::Content(_) | Answer::Mismatch | Answer::NotFound)
    }

    fn shows(&self, seen: &mut BTreeSet<u64>) {
        match (&self.action, &self.answer) {
            (_, Answer::Content(Some(content))) => seen.extend(content),
            (Action::CompareAndWrite { expected, .. }, Answer::Done) => drop(seen.insert(*expected)),
            _ => {}
        }
    }
}

/// States after which the search gives up: with many operations that nobody got an answer of, there are too many orders.
const STEPS_MAX: usize = 1_000_000;

/// What could be said of a history that is not wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Linearizable,
    /// The search gave up: neither right nor wrong.
    Undecided,
}

/// Checks one object's operations, starting from an object that does not exist.
pub fn check<A: Debug, R: Debug>(object: &str, operations: &[Operation<A, R>]) -> Result<Verdict, String>
where
    Operation<A, R>: Recorded,
{
    let mut sorted: Vec<&Operation<A, R>> = operations.iter().filter(|o| o.is_relevant()).collect();
    sorted.sort_by_key(|operation| operation.invoked);
    let mut seen = BTreeSet::new();
    sorted.iter().for_each(|operation| operation.shows(&mut seen));
    let matters = |operation: &&Operation<A, R>| {
        operation.answered != Instant::MAX || operation.writes().is_none_or(|id| seen.contains(&id))
    };
    let few: Vec<&Operation<A, R>> = sorted.iter().copied().filter(matters).collect();
    if few.len() < sorted.len() && Search::new(&few).explore() == Some(true) {
        return Ok(Verdict::Linearizable);
    }
    let mut search = Search::new(&sorted);
    match search.explore() {
        Some(true) => Ok(Verdict::Linearizable),
        Some(false) => Err(search.explain(object)),
        None => Ok(Verdict::Undecided),
    }
}

/// Operations listed before and after the point where a search was stuck.
const EXPLAIN_BEFORE: usize = 12;
const EXPLAIN_AFTER: usize = 16;

/// Operations that were not taken yet, in the order in which they were invoked. Putting back is exact if it happens in the
/// reverse order of taking.
struct Pending {
    /// The last entry stands for both ends.
    next: Vec<usize>,
    previous: Vec<usize>,
}

impl Pending {
    fn new(len: usize) -> Pending {
        let next = (1..=len).chain([0]).collect();
        Pending { next, previous: [len].into_iter().chain(0..len).collect() }
    }

    fn take(&mut self, index: usize) {
        let (previous, next) = (self.previous[index], self.next[index]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn put_back(&mut self, index: usize) {
        let (previous, next) = (self.previous[index], self.next[index]);
        self.next[previous] = index;
        self.previous[next] = index;
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let end = self.next.len() - 1;
        std::iter::successors(Some(self.next[end]), |&index| Some(self.next[index]))
            .take_while(move |&i| i != end)
    }
}

/// 128 bits that name a state, the same in every run.
fn fingerprint(state: &impl Hash) -> u128 {
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        state.hash(&mut hasher);
        u128::from(hasher.finish())
    };
    half(0) << 64 | half(1)
}

/// A state on the path that is being tried.
struct Step<S> {
    /// The operation that led here; none at the start.
    taken: Option<usize>,
    state: S,
    /// What is still to be tried from here, the next one last.
    moves: Vec<usize>,
}

struct Search<'a, A, R>
where
    Operation<A, R>: Recorded,
{
    operations: &'a [&'a Operation<A, R>],
    pending: Pending,
    /// A random number for each operation.
    numbers: Vec<u128>,
    /// Those of the operations taken, summed up by exclusive or: it names the set.
    taken: u128,
    /// How many of those taken were answered.
    answered: usize,
    /// Sets of operations taken and states, by 128 bits: that two of a million meet there will not happen.
    visited: BTreeSet<u128>,
    /// Most answered operations taken on any path: where a report should point.
    best: usize,
}

impl<'a, A: Debug, R: Debug> Search<'a, A, R>
where
    Operation<A, R>: Recorded,
{
    /// `operations` in the order in which they were invoked.
    fn new(operations: &'a [&'a Operation<A, R>]) -> Search<'a, A, R> {
        let mut rng = Rng::new(operations.len() as u64);
        let mut number = || u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
        Search {
            operations,
            pending: Pending::new(operations.len()),
            numbers: operations.iter().map(|_| number()).collect(),
            taken: 0,
            answered: 0,
            visited: BTreeSet::new(),
            best: 0,
        }
    }

    /// `Some(true)` if there is an order, `None` if the search gave up.
    fn explore(&mut self) -> Option<bool> {
        let all = (0..self.operations.len()).filter(|&index| self.is_answered(index)).count();
        self.explain_so_many(all).map(|state| state.is_some())
    }

    /// Looks for an order that explains so many answers; the state that it leaves, or `None` within if there is none. An explicit
    /// stack keeps long histories off the thread's.
    fn explain_so_many(&mut self, goal: usize) -> Option<Option<StateOf<A, R>>> {
        let state = StateOf::<A, R>::default();
        if goal == 0 {
            return Some(Some(state));
        }
        let mut path = vec![Step { taken: None, moves: self.moves(&state), state }];
        while let Some(step) = path.last_mut() {
            let Some(index) = step.moves.pop() else {
                if let Some(index) = step.taken {
                    self.put_back(index);
                }
                path.pop();
                continue;
            };
            let Some(state) = self.operations[index].apply(&step.state) else { continue };
            if !self.is_answered(index) && state == step.state {
                continue;
            }
            self.take(index);
            if !self.visited.insert(self.taken ^ fingerprint(&state)) {
                self.put_back(index);
                continue;
            }
            if self.answered == goal {
                return Some(Some(state));
            }
            if self.visited.len() > STEPS_MAX {
                return None;
            }
            self.best = self.best.max(self.answered);
            path.push(Step { taken: Some(index), moves: self.moves(&state), state });
        }
        Some(None)
    }

    fn is_answered(&self, index: usize) -> bool {
        self.operations[index].answered != Instant::MAX
    }

    fn take(&mut self, index: usize) {
        self.pending.take(index);
        self.taken ^= self.numbers[index];
        self.answered += usize::from(self.is_answered(index));
    }

    fn put_back(&mut self, index: usize) {
        self.pending.put_back(index);
        self.taken ^= self.numbers[index];
        self.answered -= usize::from(self.is_answered(index));
    }

    /// What to try next, the first one last. What was answered did happen, so it is tried first, in the order of the
    /// answers; what was not, where nothing else goes on.
    fn moves(&self, state: &StateOf<A, R>) -> Vec<usize> {
        let (answered, unknown) = self.candidates();
        let possible = |index: usize| self.operations[index].apply(state).is_some();
        match answered.iter().find(|&&index| self.operations[index].observes() && possible(index)) {
            Some(&index) => vec![index],
            None => unknown.into_iter().rev().chain(answered.into_iter().rev()).collect(),
        }
    }

    /// What may come next: nothing that was invoked after another pending one was answered. Those with an answer, and those
    /// without.
    fn candidates(&self) -> (Vec<usize>, Vec<usize>) {
        let (mut answered, mut unknown) = (Vec::new(), Vec::new());
        let mut horizon = Instant::MAX;
        let mut removal = false;
        for index in self.pending.iter() {
            let operation = self.operations[index];
            if operation.invoked > horizon {
                break;
            }
            if self.is_answered(index) {
                answered.push(index);
            } else if !(operation.removes() && std::mem::replace(&mut removal, true)) {
                unknown.push(index);
            }
            horizon = horizon.min(operation.answered);
        }
        // Those looked at before the horizon came down.
        answered.retain(|&index| self.operations[index].invoked <= horizon);
        unknown.retain(|&index| self.operations[index].invoked <= horizon);
        answered.sort_by_key(|&index| self.operations[index].answered);
        (answered, unknown)
    }

    /// What was known where no order went on: the operations around that point.
    fn explain(&self, object: &str) -> String {
        let mut there = Search::new(self.operations);
        let state = there.explain_so_many(self.best).flatten().unwrap_or_default();
        let pending: BTreeSet<usize> = there.pending.iter().collect();
        let mut text = format!(
            "{object}: no order of its {} operations explains the answers; the longest explained part is {} of them \
             and leaves {state:?}. Around its end (* = not explained):\n",
            self.operations.len(),
            self.best
        );
        let stuck = pending.first().copied().unwrap_or(self.operations.len());
        let around = stuck.saturating_sub(EXPLAIN_BEFORE)..(stuck + EXPLAIN_AFTER).min(self.operations.len());
        // What began long before and had no answer yet may have just happened, a second time perhaps.
        let start = around.start;
        let since = self.operations.get(start).map_or(Instant::ZERO, |operation| operation.invoked);
        let open = (0..start).filter(|&index| self.operations[index].answered >= since);
        for index in open.chain(around) {
            let operation = self.operations[index];
            let answered = match operation.answered {
                Instant::MAX => "never".to_string(),
                at => at.to_string(),
            };
            text.push_str(&format!(
                "  {} client {} {}..{answered} {:?} -> {:?}\n",
                if pending.contains(&index) { '*' } else { ' ' },
                operation.client,
                operation.invoked,
                operation.action,
                operation.answer
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(invoked: u64, answered: u64, action: Action, answer: Answer) -> Operation {
        let answered = if answered == u64::MAX { Instant::MAX } else { Instant::from_millis(answered) };
        Operation { client: 0, invoked: Instant::from_millis(invoked), answered, action, answer }
    }

    fn read(invoked: u64, answered: u64, content: Option<&[u64]>) -> Operation {
        op(invoked, answered, Action::Read, Answer::Content(content.map(<[u64]>::to_vec)))
    }

    #[test]
    fn sequential_and_concurrent_histories_pass() {
        let history = [
            op(0, 10, Action::WriteFull(1), Answer::Done),
            read(5, 6, None),
            read(7, 8, Some(&[1])),
            op(20, 30, Action::Append(2), Answer::Done),
            op(20, 40, Action::Append(3), Answer::Done),
            read(50, 51, Some(&[1, 3, 2])),
            op(60, 61, Action::CompareAndWrite { expected: 1, id: 4 }, Answer::Done),
            read(61, 61, Some(&[4, 3, 2])),
            op(62, 63, Action::Remove, Answer::Done),
            op(64, 65, Action::Remove, Answer::NotFound),
        ];
        assert_eq!(check("x", &history), Ok(Verdict::Linearizable));
    }

    #[test]
    fn a_lost_write_a_stale_read_and_a_double_append_fail() {
        let lost = [op(0, 1, Action::WriteFull(1), Answer::Done), read(2, 3, None)];
        assert!(check("x", &lost).is_err());
        let stale = [
            op(0, 1, Action::WriteFull(1), Answer::Done),
            op(2, 3, Action::WriteFull(2), Answer::Done),
            read(4, 5, Some(&[1])),
        ];
        assert!(check("x", &stale).is_err());
        let twice = [op(0, 1, Action::Append(1), Answer::Done), read(2, 3, Some(&[1, 1]))];
        assert!(check("x", &twice).is_err());
        let back = [
            op(0, 1, Action::WriteFull(1), Answer::Done),
            op(2, u64::MAX, Action::WriteFull(2), Answer::Unknown),
            read(4, 5, Some(&[2])),
            read(6, 7, Some(&[1])),
        ];
        assert!(check("x", &back).is_err());
    }

    #[test]
    fn an_unanswered_write_may_happen_late_or_never() {
        let unknown = op(0, u64::MAX, Action::WriteFull(1), Answer::Unknown);
        let late = [unknown.clone(), read(10, 11, None), read(20, 21, Some(&[1]))];
        assert_eq!(check("x", &late), Ok(Verdict::Linearizable));
        let never = [unknown, read(10, 11, None), read(20, 21, None)];
        assert_eq!(check("x", &never), Ok(Verdict::Linearizable));
    }

    /// Whether any order at all explains the answers, all orders and all choices of what never happened tried.
    fn has_order(left: &[&Operation], state: &State) -> bool {
        if left.iter().all(|operation| operation.answered == Instant::MAX) {
            return true;
        }
        let first = |operation: &&&Operation| left.iter().all(|other| other.answered >= operation.invoked);
        left.iter().filter(first).any(|next| {
            let rest: Vec<&Operation> =
                left.iter().filter(|other| !std::ptr::eq(**other, *next)).copied().collect();
            next.apply(state).is_some_and(|state| has_order(&rest, &state))
        })
    }

    #[test]
    fn it_agrees_with_trying_everything() {
        let mut rng = Rng::new(1);
        let (mut right, mut wrong) = (0, 0);
        for _ in 0..4000 {
            let history: Vec<Operation> = (0..rng.below(8))
                .map(|_| {
                    let (invoked, id) = (rng.below(12), 1 + rng.below(3));
                    let content = match rng.below(4) {
                        0 => None,
                        1 => Some(vec![id]),
                        2 => Some(vec![id, 1 + rng.below(3)]),
                        _ => Some(vec![1]),
                    };
                    let (action, answer) = match rng.below(6) {
                        0 => (Action::WriteFull(id), Answer::Done),
                        1 => (Action::Append(id), Answer::Done),
                        2 => {
                            (Action::Remove, if rng.below(2) == 0 { Answer::Done } else { Answer::NotFound })
                        }
                        3 => {
                            let action = Action::CompareAndWrite { expected: 1 + rng.below(3), id };
                            (action, if rng.below(2) == 0 { Answer::Done } else { Answer::Mismatch })
                        }
                        _ => (Action::Read, Answer::Content(content)),
                    };
                    match rng.below(4) {
                        0 => op(invoked, u64::MAX, action, Answer::Unknown),
                        _ => op(invoked, invoked + rng.below(6), action, answer),
                    }
                })
                .collect();
            let expected = has_order(&history.iter().collect::<Vec<_>>(), &None);
            assert_eq!(check("x", &history).is_ok(), expected, "{history:?}");
            *(if expected { &mut right } else { &mut wrong }) += 1;
        }
        assert!(right > 500 && wrong > 500, "{right} with an order, {wrong} without");
    }
}
