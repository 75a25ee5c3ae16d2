//! Depth-first choosing for replicas: fills position after position, and closes ranks over what it cannot place.

use super::ahead::{self, Descent, REPLICAS};
use super::{Chosen, Context, Draft};
use crate::compile::{DEVICE, Slot};

/// One descent's outcome for a position.
enum Attempt {
    Placed(Chosen),
    /// The hierarchy cannot lead to the type asked for from here, or the tries are used up.
    Skipped,
}

/// Chooses up to `wanted` items below `start` into `chosen`, and a leaf of each into `leaves` where the step asks
/// for leaves. Returns how many; at most `chosen.len()`.
pub(super) fn choose(
    context: &Context<'_>,
    start: Slot,
    wanted: usize,
    chosen: &mut [Chosen],
    leaves: &mut [Chosen],
    draft: &mut Draft<'_>,
) -> usize {
    let mut len = 0;
    let mut ahead = None;
    for rep in 0..wanted as u32 {
        if len == chosen.len() {
            break;
        }
        let nth = rep as usize % REPLICAS;
        if nth == 0 {
            ahead =
                if wanted as u32 - rep > 1 { ahead::look(context, draft.vectors, start, rep) } else { None };
        }
        let first = ahead.map(|ahead| ahead[nth]);
        if let Attempt::Placed(item) = place(context, start, rep, first, &chosen[..len], leaves, draft) {
            chosen[len] = item;
            len += 1;
        }
    }
    len
}

/// Finds an item for replica `rep`, different from those in `taken`; its leaf goes to `leaves[taken.len()]`.
fn place(
    context: &Context<'_>,
    start: Slot,
    rep: u32,
    mut first: Option<ahead::Attempt>,
    taken: &[Chosen],
    leaves: &mut [Chosen],
    draft: &mut Draft<'_>,
) -> Attempt {
    let mut search = Search::new(start, context.type_id, context.tries);
    loop {
        let r = rep + search.failures;
        let first = first.take();
        let descent = first.map(|first| first.item);
        let Some(item) = search.descend(context, r, descent, draft) else { return Attempt::Skipped };
        let verdict = match item {
            Found::Nothing => Verdict::Rejected,
            Found::Item(item) if taken.contains(&item) => Verdict::Collided,
            Found::Item(item) => {
                let leaf = if !context.leaf {
                    Some(item)
                } else if item.slot == DEVICE {
                    leaves[taken.len()] = item;
                    Some(item)
                } else {
                    let leaf = {
                        let first = first.and_then(|first| first.leaf);
                        place_leaf(context, item.slot, r, first, &leaves[..taken.len()], draft)
                    };
                    if let Some(leaf) = leaf {
                        leaves[taken.len()] = leaf;
                    }
                    leaf
                };
                let out = item.slot == DEVICE && draft.is_out(context, item.id);
                if leaf.is_some() && !out {
                    return Attempt::Placed(item);
                }
                Verdict::Rejected
            }
        };
        if !search.retry(context, verdict) {
            return Attempt::Skipped;
        }
    }
}

/// A device below the bucket at `start`, different from those in `taken`.
fn place_leaf(
    context: &Context<'_>,
    start: Slot,
    parent_r: u32,
    mut first: Option<Descent>,
    taken: &[Chosen],
    draft: &mut Draft<'_>,
) -> Option<Chosen> {
    let r = context.leaf_r(parent_r, taken.len());
    let mut search = Search::new(start, 0, context.leaf_tries);
    loop {
        let verdict = match search.descend(context, r + search.failures, first.take(), draft)? {
            Found::Nothing => Verdict::Rejected,
            Found::Item(leaf) if taken.contains(&leaf) => Verdict::Collided,
            Found::Item(leaf) if draft.is_out(context, leaf.id) => Verdict::Rejected,
            Found::Item(leaf) => return Some(leaf),
        };
        if !search.retry(context, verdict) {
            return None;
        }
    }
}

enum Found {
    Item(Chosen),
    /// The descent ended in an empty bucket.
    Nothing,
}

#[derive(PartialEq)]
enum Verdict {
    Rejected,
    Collided,
}

/// Where a search stands between attempts: a failed one goes on in the same bucket or starts over at the top.
struct Search {
    top: Slot,
    at: Slot,
    type_id: u32,
    tries: u32,
    failures: u32,
    /// Failures since the descent began.
    local_failures: u32,
}

impl Search {
    fn new(top: Slot, type_id: u32, tries: u32) -> Search {
        Search { top, at: top, type_id, tries, failures: 0, local_failures: 0 }
    }

    /// Draws downwards until an item of the type, unless where that leads is `known`. `None` where the way ends in a device
    /// of another type, or the mapping has cost too much.
    #[inline]
    fn descend(
        &mut self,
        context: &Context<'_>,
        r: u32,
        known: Option<Descent>,
        draft: &mut Draft<'_>,
    ) -> Option<Found> {
        if let Some(descent) = known {
            self.at = descent.at;
            return draft.pay(descent.price).then_some(Found::Item(descent.item));
        }
        loop {
            let bucket = context.bucket(self.at);
            if !draft.pay(bucket.price()) {
                return None;
            }
            if bucket.len == 0 {
                return Some(Found::Nothing);
            }
            let fallback = context.local_fallback_retries;
            let item =
                if fallback > 0 && self.local_failures >= bucket.len >> 1 && self.local_failures > fallback {
                    context.permuted(bucket, r, draft)
                } else {
                    context.draw(bucket, r, draft)
                };
            if item.slot == DEVICE {
                return (self.type_id == 0).then_some(Found::Item(item));
            }
            if context.bucket(item.slot).type_id == self.type_id {
                return Some(Found::Item(item));
            }
            self.at = item.slot;
        }
    }

    /// Counts a failure and says whether to go on.
    fn retry(&mut self, context: &Context<'_>, verdict: Verdict) -> bool {
        self.failures += 1;
        self.local_failures += 1;
        let fallback = context.local_fallback_retries;
        if verdict == Verdict::Collided && self.local_failures <= context.local_retries {
            return true;
        }
        if fallback > 0 && self.local_failures <= context.bucket(self.at).len + fallback {
            return true;
        }
        self.at = self.top;
        self.local_failures = 0;
        self.failures < self.tries
    }
}
