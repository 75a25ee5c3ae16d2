//! Models of the two protocols that everything else leans on, small enough to visit every state there is: peering
//! ([`peering`]) and the read lease ([`lease`]). They say nothing about the code, only about the rules the code follows;
//! the code's own tests and the simulator do the other half. Each rule can be switched off, and then a property must fail.

pub mod lease;
pub mod peering;

use stateright::{Checker, HasDiscoveries, Model};
use std::fmt::Debug;
use std::hash::Hash;

/// What visiting all states of a model came to.
#[derive(Clone, Debug)]
pub struct Report {
    pub states: usize,
    pub depth: usize,
    /// The property that fails, and the shortest way there, a line a step.
    pub counterexample: Option<(&'static str, Vec<String>)>,
    /// Properties of the kind "this can happen" that did.
    pub reached: Vec<&'static str>,
}

/// Visits all states of a model in order of their distance, or ends at the first one that breaks a property.
pub fn explore<M>(model: M, describe: impl Fn(&M::Action, &M::State) -> String) -> Report
where
    M: Model + Send + Sync + Clone + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = model.clone().checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let sometimes: Vec<&'static str> = model
        .properties()
        .iter()
        .filter(|property| matches!(property.expectation, stateright::Expectation::Sometimes))
        .map(|property| property.name)
        .collect();
    let mut report = Report {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        counterexample: None,
        reached: Vec::new(),
    };
    for (name, path) in checker.discoveries() {
        if sometimes.contains(&name) {
            report.reached.push(name);
            continue;
        }
        let steps = path.into_vec();
        let after = steps.iter().skip(1).map(|(state, _)| state);
        let actions = steps.iter().filter_map(|(_, action)| action.as_ref());
        let lines: Vec<String> = actions.zip(after).map(|(action, state)| describe(action, state)).collect();
        let better = report
            .counterexample
            .as_ref()
            .is_none_or(|(other, steps)| (lines.len(), name) < (steps.len(), other));
        if better {
            report.counterexample = Some((name, lines));
        }
    }
    report.reached.sort_unstable();
    report
}

/// The names of the OSDs of a set.
pub fn names(mask: u8) -> String {
    (0..8).filter(|at| mask & (1 << at) != 0).map(name).collect()
}

pub fn name(osd: usize) -> char {
    char::from(b'A' + osd as u8)
}
