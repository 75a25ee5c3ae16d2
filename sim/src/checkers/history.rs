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
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Done,
    /// Content of a read; `None` for an object that does not exist.
    Content(Option<Content>),
    NotFound,
    /// The comparison did not hold.
    Mismatch,
    /// Nobody knows: it may have happened, may happen later, or never.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Operation {
    pub client: usize,
    pub invoked: Instant,
    /// `Instant::MAX` for one that was never answered.
    pub answered: Instant,
    pub action: Action,
    pub answer: Answer,
}

/// Everything that was asked, by object.
#[derive(Default)]
pub struct History {
    objects: BTreeMap<String, Vec<Operation>>,
    next_id: u64,
    answered: u64,
    complaints: Vec<String>,
    /// Operations of several parts, by object.
    compound: BTreeMap<String, Vec<compound::Operation>>,
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
        let operations = self.objects.entry(object.to_string()).or_default();
        operations.push(Operation {
            client,
            invoked: now,
            answered: Instant::MAX,
            action,
            answer: Answer::Unknown,
        });
        Invocation { object: object.to_string(), index: operations.len() - 1 }
    }

    pub fn answer(&mut self, invocation: &Invocation, now: Instant, answer: Answer) {
        let operations = self.objects.get_mut(&invocation.object).expect("it was invoked");
        let operation = &mut operations[invocation.index];
        self.answered += 1;
        if answer != Answer::Unknown {
            operation.answered = now;
            operation.answer = answer;
        }
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
        let operations = self.compound.entry(object.to_string()).or_default();
        let answer = compound::Answer::Unknown;
        operations.push(compound::Operation { client, invoked: now, answered: Instant::MAX, action, answer });
        Invocation { object: object.to_string(), index: operations.len() - 1 }
    }

    pub fn answer_compound(&mut self, invocation: &Invocation, now: Instant, answer: compound::Answer) {
        let operations = self.compound.get_mut(&invocation.object).expect("it was invoked");
        let operation = &mut operations[invocation.index];
        self.answered += 1;
        if answer != compound::Answer::Unknown {
            (operation.answered, operation.answer) = (now, answer);
        }
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
