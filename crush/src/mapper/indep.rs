//! Breadth-first choosing for shards: every position looks on its own, in rounds, so that one that fails leaves
//! a hole and moves none of the others.

use super::{Chosen, Context, Draft};
use crate::compile::{DEVICE, Slot};
use crate::map::Alg;

/// Where a descent ended.
enum Found {
    Item(Chosen, u32),
    /// Nothing this round; another may do better.
    Nothing,
    /// The hierarchy cannot lead to the type from here, or the mapping has cost too much: the position stays empty.
    Never,
}

/// Chooses `wanted` items below `start` (as many as `chosen` holds) into `chosen`, and a leaf of each into
/// `leaves` where the step asks for leaves; holes are `Chosen::NONE`. Returns how many positions it filled or left
/// as holes.
pub(super) fn choose(
    context: &Context<'_>,
    start: Slot,
    wanted: usize,
    chosen: &mut [Chosen],
    leaves: &mut [Chosen],
    draft: &mut Draft<'_>,
) -> usize {
    let len = wanted.min(chosen.len());
    let (chosen, leaves) = (&mut chosen[..len], &mut leaves[..len]);
    chosen.fill(Chosen::UNDEFINED);
    leaves.fill(Chosen::UNDEFINED);
    let mut left = len;
    for round in 0..context.tries {
        if left == 0 {
            break;
        }
        for position in 0..len {
            if chosen[position] != Chosen::UNDEFINED {
                continue;
            }
            let descent =
                Descent { type_id: context.type_id, base: position as u32, wanted: wanted as u32, round };
            match descent.run(context, start, draft) {
                Found::Nothing => {}
                Found::Never => {
                    (chosen[position], leaves[position]) = (Chosen::NONE, Chosen::NONE);
                    left -= 1;
                }
                Found::Item(item, _) if chosen.contains(&item) => {}
                Found::Item(item, r) => {
                    if context.leaf {
                        leaves[position] = match item.slot {
                            DEVICE => item,
                            slot => leaf(context, slot, position as u32, wanted as u32, r, draft),
                        };
                        if leaves[position] == Chosen::NONE {
                            continue;
                        }
                    }
                    if item.slot != DEVICE || !draft.is_out(context, item.id) {
                        chosen[position] = item;
                        left -= 1;
                    }
                }
            }
        }
    }
    for place in chosen.iter_mut().chain(leaves) {
        if *place == Chosen::UNDEFINED {
            *place = Chosen::NONE;
        }
    }
    len
}

/// A device below `start` for `position`, or `Chosen::NONE`. Leaves of different parents need no comparing.
fn leaf(
    context: &Context<'_>,
    start: Slot,
    position: u32,
    wanted: u32,
    parent_r: u32,
    draft: &mut Draft<'_>,
) -> Chosen {
    for round in 0..context.leaf_tries {
        match (Descent { type_id: 0, base: position + parent_r, wanted, round }).run(context, start, draft) {
            Found::Item(item, _) if !draft.is_out(context, item.id) => return item,
            Found::Item(..) | Found::Nothing => {}
            Found::Never => break,
        }
    }
    Chosen::NONE
}

/// One way down, for one position in one round.
struct Descent {
    type_id: u32,
    /// The attempt number of the first round.
    base: u32,
    wanted: u32,
    round: u32,
}

impl Descent {
    /// Draws downwards until an item of the type; returns it with the attempt number of the last draw.
    fn run(&self, context: &Context<'_>, start: Slot, draft: &mut Draft<'_>) -> Found {
        let mut at = start;
        loop {
            let bucket = context.bucket(at);
            if !draft.pay(bucket.price()) {
                return Found::Never;
            }
            if bucket.len == 0 {
                return Found::Nothing;
            }
            // A stride that divides a uniform bucket's size would visit the same places over and over.
            let stride = match bucket.alg {
                Alg::Uniform if bucket.len.is_multiple_of(self.wanted) => self.wanted + 1,
                _ => self.wanted,
            };
            let r = self.base.wrapping_add(stride.wrapping_mul(self.round));
            let item = context.draw(bucket, r, draft);
            if item.slot == DEVICE {
                return if self.type_id == 0 { Found::Item(item, r) } else { Found::Never };
            }
            if context.bucket(item.slot).type_id == self.type_id {
                return Found::Item(item, r);
            }
            at = item.slot;
        }
    }
}
