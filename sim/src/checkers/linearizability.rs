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
//! An answered one that may come now and changes nothing comes now: nothing is lost by that.

use super::history::{Action, Answer, Content, Operation};
use nacre_types::Instant;
use std::collections::BTreeSet;
use std::fmt::Debug;

/// An operation with its answer, on an object that behaves as a model says.
pub trait Recorded {
    /// What there is to know of the object.
    type State: Clone + Ord + Default + Debug;
    /// Whether it says anything: a read nobody got an answer of does not.
    fn is_relevant(&self) -> bool;
    /// The state after it, if its answer is possible in that one.
    fn apply(&self, state: &Self::State) -> Option<Self::State>;
    /// The id by which its effect is known, if it has one.
    fn writes(&self) -> Option<u64>;
    /// Whether it does the same whoever asked for it, and when.
    fn removes(&self) -> bool;
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

    fn shows(&self, seen: &mut BTreeSet<u64>) {
        match (&self.action, &self.answer) {
            (_, Answer::Content(Some(content))) => seen.extend(content),
            (Action::CompareAndWrite { expected, .. }, Answer::Done) => drop(seen.insert(*expected)),
            _ => {}
        }
    }
}

/// Steps after which the search gives up: with many operations that nobody got an answer of, there are too many orders.
const STEPS_MAX: u64 = 300_000;
/// Operations that all the states it holds may name one by one, for the same reason: an early one that nobody got an answer
/// of has every state name all that came since.
const NAMED_MAX: usize = 20_000_000;

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

/// Which operations were taken: all below `floor`, and some above.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Taken {
    floor: usize,
    above: BTreeSet<usize>,
    /// Of them, those that were answered.
    answered: usize,
}

impl Taken {
    fn contains(&self, index: usize) -> bool {
        index < self.floor || self.above.contains(&index)
    }

    fn with(&self, index: usize, answered: bool) -> Taken {
        let mut taken = self.clone();
        taken.answered += usize::from(answered);
        taken.above.insert(index);
        while taken.above.remove(&taken.floor) {
            taken.floor += 1;
        }
        taken
    }
}

struct Search<'a, A, R>
where
    Operation<A, R>: Recorded,
{
    operations: &'a [&'a Operation<A, R>],
    visited: BTreeSet<(Taken, StateOf<A, R>)>,
    steps: u64,
    named: usize,
    /// Most answered operations taken on any path, and the state there: where a report should point.
    best: usize,
    best_state: StateOf<A, R>,
    best_taken: Taken,
}

impl<'a, A: Debug, R: Debug> Search<'a, A, R>
where
    Operation<A, R>: Recorded,
{
    /// `operations` in the order in which they were invoked.
    fn new(operations: &'a [&'a Operation<A, R>]) -> Search<'a, A, R> {
        Search {
            operations,
            visited: BTreeSet::new(),
            steps: 0,
            named: 0,
            best: 0,
            best_state: Default::default(),
            best_taken: Taken::default(),
        }
    }

    /// `Some(true)` if there is an order, `None` if the search gave up. An explicit stack keeps long histories off the
    /// thread's.
    fn explore(&mut self) -> Option<bool> {
        let to_explain =
            self.operations.iter().filter(|operation| operation.answered != Instant::MAX).count();
        let mut stack = vec![(Taken::default(), StateOf::<A, R>::default())];
        while let Some((taken, state)) = stack.pop() {
            self.steps += 1;
            if self.steps > STEPS_MAX || self.named > NAMED_MAX {
                return None;
            }
            if taken.answered == to_explain {
                return Some(true);
            }
            if taken.answered >= self.best {
                self.best = taken.answered;
                self.best_state = state.clone();
                self.best_taken = taken.clone();
            }
            let (answered, unknown) = self.candidates(&taken);
            let idle = |index: &&usize| self.operations[**index].apply(&state).as_ref() == Some(&state);
            if let Some(&index) = answered.iter().find(idle) {
                let key = (taken.with(index, true), state);
                if !self.visited.contains(&key) {
                    self.named += key.0.above.len();
                    self.visited.insert(key.clone());
                    stack.push(key);
                }
                continue;
            }
            // What was answered did happen, so it is tried first, in the order of the answers; what was not, where nothing else
            // goes on.
            let unknown = unknown.into_iter().rev().map(|index| (index, false));
            let answered = answered.into_iter().rev().map(|index| (index, true));
            for (index, answered) in unknown.chain(answered) {
                let Some(next) = self.operations[index].apply(&state) else { continue };
                if !answered && next == state {
                    continue;
                }
                let key = (taken.with(index, answered), next);
                if !self.visited.contains(&key) {
                    self.named += key.0.above.len();
                    self.visited.insert(key.clone());
                    stack.push(key);
                }
            }
        }
        Some(false)
    }

    /// What may come next: nothing that was invoked after another pending one was answered. Those with an answer, and those
    /// without.
    fn candidates(&self, taken: &Taken) -> (Vec<usize>, Vec<usize>) {
        let (mut answered, mut unknown) = (Vec::new(), Vec::new());
        let mut horizon = Instant::MAX;
        let mut removal = false;
        for (index, operation) in self.operations.iter().enumerate().skip(taken.floor) {
            if operation.invoked > horizon {
                break;
            }
            if taken.contains(index) {
                continue;
            }
            if operation.answered != Instant::MAX {
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
        let mut text = format!(
            "{object}: no order of its {} operations explains the answers; the longest explained part is {} of them \
             and leaves {:?}. Around its end (* = not explained):\n",
            self.operations.len(),
            self.best,
            self.best_state
        );
        let stuck = self.best_taken.floor;
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
                if self.best_taken.contains(index) { ' ' } else { '*' },
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
}
