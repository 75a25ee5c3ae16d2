//! Mean and percentiles of durations that each stand for several operations.

use serde_json::{Value, json};

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Spread {
    pub mean_ns: f64,
    pub p50_ns: u64,
    pub p99_ns: u64,
}

impl Spread {
    /// Of (nanoseconds, weight); `None` of nothing.
    pub(super) fn of(mut values: Vec<(u64, u64)>) -> Option<Spread> {
        values.sort_unstable();
        let weight: u128 = values.iter().map(|&(_, weight)| u128::from(weight)).sum();
        let sum: u128 = values.iter().map(|&(ns, weight)| u128::from(ns) * u128::from(weight)).sum();
        if weight == 0 {
            return None;
        }
        let percentile = |percent: u128| {
            let mut up_to = 0;
            let reaches = |&&(_, of_it): &&(u64, u64)| {
                up_to += u128::from(of_it);
                up_to * 100 >= weight * percent
            };
            values.iter().find(reaches).map_or(0, |&(ns, _)| ns)
        };
        Some(Spread { mean_ns: sum as f64 / weight as f64, p50_ns: percentile(50), p99_ns: percentile(99) })
    }

    pub fn to_json(&self) -> Value {
        json!({"mean_ns": self.mean_ns.round() as u64, "p50_ns": self.p50_ns, "p99_ns": self.p99_ns})
    }
}
