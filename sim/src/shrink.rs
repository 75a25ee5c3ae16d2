//! Takes away from a failing run what it does not need in order to fail: fault classes, kinds of work, nodes, operations.

use crate::options::Options;
use crate::run::{Outcome, run};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A run that still fails, and how it differs from the one it was made of.
#[derive(Clone, Debug)]
pub struct Shrunk {
    pub options: Options,
    pub settings: Vec<String>,
    pub failure: String,
}

/// Runs options; the error is what a machine said when it panicked.
pub fn attempt(options: Options) -> Result<Outcome, String> {
    let result = catch_unwind(AssertUnwindSafe(|| run(options, false)));
    result.map_err(|panic| {
        nacre_types::disarm();
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string())).unwrap_or_default()
    })
}

fn failure(options: &Options) -> Option<String> {
    match attempt(options.clone()) {
        Ok(outcome) => outcome.failure,
        Err(panic) => Some(format!("panic: {panic}")),
    }
}

/// What kind of failure it is: the same words up to the first number.
fn kind(failure: &str) -> &str {
    let end = failure.find(|c: char| c.is_ascii_digit()).unwrap_or(failure.len());
    &failure[..end.min(40)]
}

/// Shrinks while `more` says so; `None` if the run does not fail. Whatever is left out changes the course of the run, so
/// each step must fail again, in the same words, to be kept.
pub fn shrink(
    options: &Options,
    mut more: impl FnMut() -> bool,
    mut tell: impl FnMut(&str, &str),
) -> Option<Shrunk> {
    let first = failure(options)?;
    let mut shrunk = Shrunk { options: options.clone(), settings: Vec::new(), failure: first };
    loop {
        let mut progress = false;
        for setting in candidates(&shrunk.options) {
            if !more() {
                return Some(shrunk);
            }
            let mut smaller = shrunk.options.clone();
            if smaller.set(&setting).is_err() || smaller == shrunk.options {
                continue;
            }
            match failure(&smaller) {
                Some(failure) if kind(&failure) == kind(&shrunk.failure) => {
                    tell(&setting, &failure);
                    let key = setting.split('=').next().unwrap_or_default().to_string();
                    shrunk.settings.retain(|old| old.split('=').next() != Some(&key));
                    shrunk.settings.push(setting);
                    (shrunk.options, shrunk.failure) = (smaller, failure);
                    progress = true;
                }
                _ => {}
            }
        }
        if !progress {
            return Some(shrunk);
        }
    }
}

/// Ways to make it smaller, the most promising first.
fn candidates(options: &Options) -> Vec<String> {
    let mut all = Vec::new();
    let without = |named: &[(&'static str, bool)], gone: &[&str]| {
        let on = named.iter().filter(|(name, on)| *on && !gone.contains(name));
        let on: Vec<&str> = on.map(|(name, _)| *name).collect();
        if on.is_empty() { "none".to_string() } else { on.join(",") }
    };
    for (key, named) in [("faults", options.faults.named()), ("work", options.work.named())] {
        let on: Vec<&str> = named.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
        if on.len() > 3 {
            let (first, second) = on.split_at(on.len() / 2);
            all.push(format!("{key}={}", without(&named, first)));
            all.push(format!("{key}={}", without(&named, second)));
        }
        all.extend(on.iter().map(|name| format!("{key}={}", without(&named, &[name]))));
    }
    if options.images {
        all.push("images=0".into());
    }
    let smaller: [(&str, u64, u64); 6] = [
        ("clients", options.clients as u64, 1),
        ("tasks", options.tasks as u64, 1),
        ("mons", options.mons as u64, 1),
        ("osds", options.osds as u64, u64::from(options.size)),
        ("pg_num", u64::from(options.pg_num), 1),
        ("objects", options.objects as u64, 1),
    ];
    for (key, now, least) in smaller {
        for wanted in [least, now / 2, now.saturating_sub(1)] {
            if (least..now).contains(&wanted) {
                all.push(format!("{key}={wanted}"));
            }
        }
    }
    let zero = [
        ("loss", options.conditions.loss_permille),
        ("reset", options.conditions.reset_per_100k),
        ("encode", options.encode_percent),
    ];
    all.extend(zero.iter().filter(|(_, value)| *value > 0).map(|(key, _)| format!("{key}=0")));
    let seconds = options.safety.as_secs();
    all.extend([seconds / 2, seconds * 3 / 4].iter().filter(|s| **s >= 5).map(|s| format!("safety={s}")));
    all
}
