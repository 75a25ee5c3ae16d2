//! What clients asked of objects and what they were told, in the order it happened.

use super::compound;
use nacre_types::Instant;
use std::collections::BTreeMap;

/// An object's content as the workload writes it: the ids of the writes it is made of, in order.
pub type Content = Vec<u64>;

/// One operation on one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Replaces the content by one id, creating the object.
    WriteFull(u64),
    /// Adds an id, creating the object.
    Append(u64),
    /// Replaces the first id if it is the expected one.
    CompareAndWrite {
        expected: u64,
        id: u64,
    },
    Remove,
    Read,
}

/// What the client was told.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Answer {
    Done,
    /// Content of a read; `None` for an object that does not exist.
    Content(Option<Content>),
    NotFound,
    /// The comparison did not hold.
    Mismatch,
    /// Nobody knows: it may have happened, may happen later, or never.
    #[default]
    Unknown,
}

/// What was asked, when, and what came of it.
#[derive(Clone, Debug)]
pub struct Operation<A = Action, R = Answer> {
    pub client: usize,
    pub invoked: Instant,
    /// `Instant::MAX` for one that was never answered.
    pub answered: Instant,
    pub action: A,
    /// The default is the one of which nobody knows.
    pub answer: R,
}

/// Operations by object.
type Objects<A, R> = BTreeMap<String, Vec<Operation<A, R>>>;

/// Everything that was asked, by object.
#[derive(Default)]
pub struct History {
    objects: Objects<Action, Answer>,
    next_id: u64,
    answered: u64,
    complaints: Vec<String>,
    /// Operations of several parts, by object.
    compound: Objects<compound::Action, compound::Answer>,
}

/// Names an operation in a history until it is answered.
#[derive(Clone, Debug)]
pub struct Invocation {
    object: String,
    index: usize,
}

impl History {
    /// An id no other write has.
    pub fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn invoke(&mut self, client: usize, object: &str, now: Instant, action: Action) -> Invocation {
        invoke(&mut self.objects, client, object, now, action)
    }

    pub fn answer(&mut self, invocation: &Invocation, now: Instant, answer: Answer) {
        self.answered += 1;
        settle(&mut self.objects, invocation, now, answer);
    }

    pub fn objects(&self) -> impl Iterator<Item = (&str, &[Operation])> {
        self.objects.iter().map(|(name, operations)| (name.as_str(), operations.as_slice()))
    }

    /// Begins an operation of several parts; the answer comes by [`History::answer_compound`].
    pub fn invoke_compound(
        &mut self,
        client: usize,
        object: &str,
        now: Instant,
        action: compound::Action,
    ) -> Invocation {
        invoke(&mut self.compound, client, object, now, action)
    }

    pub fn answer_compound(&mut self, invocation: &Invocation, now: Instant, answer: compound::Answer) {
        self.answered += 1;
        settle(&mut self.compound, invocation, now, answer);
    }

    pub fn compound(&self) -> impl Iterator<Item = (&str, &[compound::Operation])> {
        self.compound.iter().map(|(name, operations)| (name.as_str(), operations.as_slice()))
    }

    /// An operation that is judged elsewhere.
    pub fn count(&mut self) {
        self.answered += 1;
    }

    /// A task saw what must not be.
    pub fn complain(&mut self, what: String) {
        self.complaints.push(what);
    }

    pub fn complaints(&self) -> &[String] {
        &self.complaints
    }

    /// Operations that got an answer, whatever it was.
    pub fn answered(&self) -> u64 {
        self.answered
    }
}

fn invoke<A, R: Default>(
    objects: &mut Objects<A, R>,
    client: usize,
    object: &str,
    now: Instant,
    action: A,
) -> Invocation {
    let operations = objects.entry(object.to_string()).or_default();
    operations.push(Operation { client, invoked: now, answered: Instant::MAX, action, answer: R::default() });
    Invocation { object: object.to_string(), index: operations.len() - 1 }
}

fn settle<A, R: Default + PartialEq>(
    objects: &mut Objects<A, R>,
    invocation: &Invocation,
    now: Instant,
    answer: R,
) {
    let operations = objects.get_mut(&invocation.object).expect("it was invoked");
    if answer != R::default() {
        let operation = &mut operations[invocation.index];
        (operation.answered, operation.answer) = (now, answer);
    }
}
