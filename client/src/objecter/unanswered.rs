//! What a PG is told of the requests that this client has no answers to.
//!
//! The PG remembers each request until it is told that its client has the answer. Mostly one number says so, below which
//! all are answered. One lost answer would hold that number back, and the PG would have to remember all that was asked
//! since, so that what it can remember ran out: then each that is open is named.

use nacre_wire::op::UNANSWERED_MAX;
use std::collections::BTreeSet;

/// So many requests later one counts as old.
const FAR: u64 = 256;

/// Once one request has been without an answer while many others were made, the PG is told of each that is: it would have
/// to remember all since. Not of very many, which would cost more than it helps.
pub(super) fn named(open: &BTreeSet<u64>, seq: u64) -> Vec<u64> {
    let far = |first: &u64| seq.saturating_sub(*first) > FAR + 2 * open.len() as u64;
    if open.len() > UNANSWERED_MAX || !open.first().is_some_and(far) {
        return Vec::new();
    }
    open.range(..seq).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unanswered_are_named_once_one_of_them_is_old() {
        let none: Vec<u64> = Vec::new();
        let open = BTreeSet::from([10, 300, 301, 305]);
        assert_eq!(named(&open, 274), none, "not yet");
        assert_eq!(named(&open, 275), [10]);
        assert_eq!(named(&open, 305), [10, 300, 301], "those before it");
        assert_eq!(named(&open, 10), none, "nothing is before it");
        let many: BTreeSet<u64> = (0..=UNANSWERED_MAX as u64).collect();
        assert_eq!(named(&many, 10_000), none, "too many");
    }
}
