//! The contract between protocol code and whoever drives it.
//!
//! A machine is a deterministic state machine: events in, effects out, both values. `runtime` drives machines with
//! real time, network and disks; `sim` drives the same machines with fake ones. What follows from that:
//!
//! - The same seed and the same sequence of `(now, event)` gives the same effects, byte for byte.
//! - Effects are carried out in order. A machine may be dropped between any two steps; that is a crash, and only
//!   what a commit event reported survives.
//! - **Promise rule:** whatever tells somebody that data is durable is emitted only while handling the event that
//!   reports that data's commit.

use crate::Instant;

/// A deterministic state machine.
pub trait Machine {
    type Event;
    type Effect;

    /// Handles one event. Never blocks and never fails: operating errors arrive as events, programmer errors assert.
    fn step(&mut self, now: Instant, event: Self::Event, out: &mut Outbox<Self::Effect>);

    /// The earliest instant at which a tick would do something, `None` if only an event can.
    fn next_deadline(&self) -> Option<Instant>;

    /// Whole-state invariants. The simulator calls it after every step; it panics when one is broken.
    fn check(&self) {}
}

/// Where a step leaves its effects, in the order they must be carried out.
#[derive(Debug)]
pub struct Outbox<T> {
    effects: Vec<T>,
}

impl<T> Outbox<T> {
    pub fn new() -> Outbox<T> {
        Outbox { effects: Vec::new() }
    }

    pub fn push(&mut self, effect: T) {
        self.effects.push(effect);
    }

    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    pub fn len(&self) -> usize {
        self.effects.len()
    }

    /// Takes everything out, keeping the allocation for the next step.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.effects.drain(..)
    }

    pub fn take(&mut self) -> Vec<T> {
        std::mem::take(&mut self.effects)
    }

    pub fn as_slice(&self) -> &[T] {
        &self.effects
    }
}

impl<T> Default for Outbox<T> {
    fn default() -> Outbox<T> {
        Outbox::new()
    }
}
